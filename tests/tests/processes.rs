//! Real node processes on loopback: killed, paused, restarted, and started wrongly. What was acknowledged is never lost,
//! doubled or out of order, and every mistake has an exit code and a sentence of its own.
//!
//! `RAFTQUEUE_KILLS` sets how many leaders are killed (5 by default).

use raftqueue_tests::process::{Cluster, Http, Load, Unanswered, free_ports, programs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn every_node(cluster: &Cluster) -> Vec<Http> {
    (0..cluster.count()).map(|node| cluster.http(node)).collect()
}

/// Publishes until somebody takes it; returns how long that took.
fn publish_somewhere(cluster: &Cluster, without: usize, message: &str) -> Duration {
    let begun = Instant::now();
    for node in (0..cluster.count()).filter(|node| *node != without).cycle() {
        if cluster.http(node).publish("side", message).is_ok_and(|answer| answer.code == 201) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody takes a message:\n{}", cluster.logs());
    }
    begun.elapsed()
}

#[test]
fn leaders_killed_under_load_lose_double_and_reorder_nothing() {
    let kills: usize = env_number("RAFTQUEUE_KILLS").unwrap_or(5);
    let mut cluster = Cluster::started(5);
    let nodes = every_node(&cluster);
    for topic in ["load", "side"] {
        assert_eq!(nodes[0].create_topic(topic).unwrap().code, 201);
    }
    let load = Load::start("load", 4, &nodes);
    let mut pauses = Vec::new();
    for kill in 0..kills {
        let before = load.acknowledged();
        while load.acknowledged() < before + 50 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let leader = cluster.leader();
        cluster.kill(leader);
        pauses.push(publish_somewhere(&cluster, leader, &format!("after kill {kill}")));
        cluster.start(leader);
    }
    let outcome = load.finish("load", &nodes).unwrap_or_else(|wrong| panic!("{wrong}\n{}", cluster.logs()));
    pauses.sort();
    println!(
        "{kills} leaders killed: {} acknowledged, {} of unknown outcome, {} refused; pause median {:?}, longest {:?}; {} \
         status pages, {} slower than 100 ms",
        outcome.acknowledged,
        outcome.unknown,
        outcome.refused,
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1],
        outcome.statuses,
        outcome.slow_statuses.len()
    );
}

#[test]
fn a_power_failure_of_all_processes_at_once_loses_nothing() {
    let mut cluster = Cluster::started(3);
    let nodes = every_node(&cluster);
    assert_eq!(nodes[0].create_topic("load").unwrap().code, 201);
    let load = Load::start("load", 4, &nodes);
    for _ in 0..3 {
        let before = load.acknowledged();
        while load.acknowledged() < before + 50 {
            std::thread::sleep(Duration::from_millis(5));
        }
        for node in 0..3 {
            cluster.kill(node);
        }
        cluster.start_all();
        cluster.leader();
    }
    let outcome = load.finish("load", &nodes).unwrap_or_else(|wrong| panic!("{wrong}\n{}", cluster.logs()));
    println!("{} acknowledged, longest gap {:?}", outcome.acknowledged, outcome.longest_gap);
}

#[test]
fn a_paused_leader_is_replaced_and_answers_nothing_stale_when_it_wakes() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    assert_eq!(cluster.http(leader).create_topic("side").unwrap().code, 201);
    assert_eq!(cluster.http(leader).publish("side", "before").unwrap().code, 201);
    cluster.signal(leader, "STOP");
    let pause = publish_somewhere(&cluster, leader, "after");
    let other = (leader + 1) % 3;
    let popped = cluster.http(other).with_timeout(Duration::from_secs(5)).pop("side").unwrap();
    assert_eq!(popped.body["message"], "before");
    cluster.signal(leader, "CONT");
    // The woken node must not hand out the same message again, whatever it believes it is.
    let again = cluster.http(leader).with_timeout(Duration::from_secs(5)).pop("side").unwrap();
    assert_eq!(again.body["message"], "after", "{}", cluster.logs());
    println!("writes went on {pause:?} after the leader was paused");
}

#[test]
fn without_a_quorum_every_answer_is_prompt_and_honest() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    assert_eq!(cluster.http(leader).create_topic("t").unwrap().code, 201);
    for node in (0..3).filter(|node| *node != leader) {
        cluster.kill(node);
    }
    let survivor = cluster.http(leader);
    let answer = survivor.publish("t", "x").expect("an answer within a second");
    assert!([503, 504].contains(&answer.code), "{answer:?}");
    assert!(answer.head.contains("raftqueue-outcome"), "{answer:?}");
    assert_eq!(survivor.status().unwrap().code, 200);
    // Much later it knows that it does not lead, and that nothing is done.
    let begun = Instant::now();
    while survivor.publish("t", "y").unwrap().code != 503 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", cluster.logs());
    }
    assert_ne!(survivor.status().unwrap().body["role"], "Leader");
}

#[test]
fn one_node_alone_serves_and_keeps_everything() {
    let mut cluster = Cluster::started(1);
    assert_eq!(cluster.http(0).create_topic("t").unwrap().code, 201);
    for n in 0..20 {
        assert_eq!(cluster.http(0).publish("t", &n.to_string()).unwrap().code, 201);
    }
    cluster.kill(0);
    assert_eq!(cluster.http(0).status(), Err(Unanswered::Refused));
    cluster.start(0);
    cluster.leader();
    for n in 0..20 {
        let answer = cluster.http(0).with_timeout(Duration::from_secs(5)).pop("t").unwrap();
        assert_eq!((answer.code, answer.body["message"].as_str()), (200, Some(n.to_string().as_str())));
    }
    assert_eq!(cluster.http(0).pop("t").unwrap().code, 404);
    assert!(cluster.stop(0).success());
}

#[test]
fn a_topic_created_at_all_nodes_at_once_is_created_once() {
    let cluster = Cluster::started(3);
    for round in 0..5 {
        let topic = format!("topic {round} / ü");
        let codes: Vec<u16> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..12)
                .map(|call| {
                    let (http, topic) = (cluster.http(call % 3), &topic);
                    scope.spawn(move || http.create_topic(topic).unwrap().code)
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| **code == 409).count(), 11, "{codes:?}");
    }
}

#[test]
fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    assert_eq!(cluster.http(leader).create_topic("side").unwrap().code, 201);
    assert!(cluster.stop(leader).success(), "{}", cluster.logs());
    let pause = publish_somewhere(&cluster, leader, "after");
    println!("writes went on {pause:?} after the leader had stopped");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let mut cluster = Cluster::started(1);
    let (port, peer_port) = cluster.ports(0);

    // The port is taken by a node that runs.
    let second = started_alone(&cluster, &["--data-dir", "elsewhere"]);
    check(&second, 4, &[&port.to_string(), "another process has this port"]);

    // Its data directory is in use.
    let [client, peer] = free_ports(2)[..] else { unreachable!("two were asked for") };
    write_config(cluster.folder(), client, peer);
    let data_dir = cluster.data_dir(0);
    let data_dir = data_dir.to_str().unwrap();
    let same_folder = started_with(&cluster, "other.json", &["--data-dir", data_dir]);
    check(&same_folder, 3, &["another process uses this directory"]);

    // Now it is free, but belongs to a node of another name.
    assert!(cluster.stop(0).success());
    let foreign = started_with(&cluster, "other.json", &["--data-dir", data_dir]);
    check(&foreign, 3, &[&format!("127.0.0.1:{peer_port}"), &format!("127.0.0.1:{peer}")]);

    // Not a folder at all.
    std::fs::write(cluster.folder().join("file"), "").unwrap();
    check(&started_with(&cluster, "other.json", &["--data-dir", "file"]), 3, &["file"]);

    // A folder that cannot be written. The administrator writes everywhere but on a file system that nobody can write.
    let read_only = cluster.folder().join("read-only");
    std::fs::create_dir(&read_only).unwrap();
    std::fs::set_permissions(&read_only, std::fs::Permissions::from_mode(0o555)).unwrap();
    let place = read_only.to_str().unwrap();
    let mounted = runs("mount", &["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", place]);
    let refused = started_with(&cluster, "other.json", &["--data-dir", "read-only"]);
    assert!(!mounted || runs("umount", &[place]));
    check(&refused, 3, &["read-only"]);

    // A folder that a newer build wrote: nothing in it is touched.
    let identity = Path::new(data_dir).join("IDENTITY");
    let ours = std::fs::read(&identity).unwrap();
    let mut newer = ours.clone();
    newer[4] += 1;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&identity, &newer).unwrap();
    check(&started_alone(&cluster, &[]), 3, &["IDENTITY", "format version 2, this build reads up to 1"]);
    assert_eq!(std::fs::read(&identity).unwrap(), newer);
    std::fs::write(&identity, &ours).unwrap();

    // A damaged identity is never formatted over.
    let mut bytes = ours;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&identity, bytes).unwrap();
    check(&started_alone(&cluster, &[]), 3, &["IDENTITY", "damaged"]);

    // Arguments.
    check(&started_with(&cluster, "nowhere.json", &[]), 2, &["nowhere.json"]);
}

#[test]
fn a_node_told_to_wait_begins_when_the_one_before_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let start = |ports: &[u16]| {
        Started(
            Command::new(programs().join("raftqueue-node"))
                .current_dir(folder.path())
                .args(["--name", "a", "--members", &format!("a=127.0.0.1:{}", ports[1])])
                .args(["--client-listen", &format!("127.0.0.1:{}", ports[0])])
                .args(["--operations-port", &ports[2].to_string()])
                .args(["--data-dir", "data", "--lock-wait-ms", "30000"])
                .stderr(Stdio::null())
                .spawn()
                .expect("the node can be started"),
        )
    };
    let says = |port: u16, words: &str| {
        let begun = Instant::now();
        loop {
            let answer = Http::new(port).request("GET", "/readyz", b"");
            if answer.as_ref().is_ok_and(|answer| answer.text.contains(words)) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "`{words}`: {answer:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (here, there) = (free_ports(3), free_ports(3));
    let first = start(&here);
    says(here[2], "ready\n");
    assert_eq!(Http::new(here[0]).create_topic("t").unwrap().code, 201);
    let _second = start(&there);
    says(there[2], "another process uses this directory");
    // It serves nobody meanwhile, and takes nothing from the first.
    assert_eq!(Http::new(there[0]).create_topic("u").unwrap().code, 503);
    assert_eq!(Http::new(here[0]).publish("t", "kept").unwrap().code, 201);
    drop(first);
    says(there[2], "ready\n");
    assert_eq!(Http::new(there[0]).pop("t").unwrap().body["message"], "kept");
}

/// A process that is killed when it is dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn started_alone(cluster: &Cluster, arguments: &[&str]) -> Output {
    started_with(cluster, "config.json", arguments)
}

fn started_with(cluster: &Cluster, config: &str, arguments: &[&str]) -> Output {
    Command::new(programs().join("raftqueue-node"))
        .current_dir(cluster.folder())
        .args(["--config", config, "--index", "0"])
        .args(arguments)
        .output()
        .expect("the node can be started")
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().expect("it can be started").success()
}

fn write_config(folder: &Path, port: u16, internal_port: u16) {
    let text = format!(
        r#"{{"addresses": [{{"ip": "127.0.0.1", "port": {port}, "internal_port": {internal_port}}}]}}"#
    );
    std::fs::write(folder.join("other.json"), text).expect("a temporary file can be written");
}

fn check(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn env_number(name: &str) -> Option<usize> {
    #[expect(clippy::disallowed_methods, reason = "tests take their budgets from the environment")]
    std::env::var(name).ok()?.parse().ok()
}
