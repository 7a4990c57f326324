//! Real node processes on loopback: killed, paused, restarted, and started wrongly. What was acknowledged is never lost,
//! doubled or out of order, and every mistake has an exit code and a sentence of its own.
//!
//! `RAFTQUEUE_KILLS` sets how many leaders are killed (5 by default).

use raftqueue_tests::process::{
    CALM, Cluster, Ended, Http, Load, PATIENCE, Running, Unanswered, env_number, free_ports, programs,
    run_to_end, wait_for,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
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
        assert!(begun.elapsed() < PATIENCE, "nobody takes a message:\n{}", cluster.logs());
    }
    begun.elapsed()
}

#[test]
fn leaders_killed_under_load_lose_double_and_reorder_nothing() {
    let kills: usize = env_number("RAFTQUEUE_KILLS").unwrap_or(5);
    let mut cluster = Cluster::started(5);
    let nodes = every_node(&cluster);
    ["load", "side"].iter().for_each(|topic| cluster.make_topic(topic));
    let load = Load::start("load", 4, &nodes);
    let mut pauses = Vec::new();
    for kill in 0..kills {
        let before = load.acknowledged();
        cluster.wait_until("50 more are acknowledged", || load.acknowledged() >= before + 50);
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
    cluster.make_topic("load");
    let load = Load::start("load", 4, &nodes);
    for _ in 0..3 {
        let before = load.acknowledged();
        cluster.wait_until("50 more are acknowledged", || load.acknowledged() >= before + 50);
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
    // The one election that is wanted, and no other.
    let mut cluster = Cluster::started_with(3, &["--election-timeout-ms", "1500"]);
    let leader = cluster.leader();
    cluster.make_topic("side");
    cluster.publish_until_taken(leader, "side", "before");
    cluster.signal(leader, "STOP");
    let pause = publish_somewhere(&cluster, leader, "after");
    let other = (leader + 1) % 3;
    let popped = cluster.pop_until_answered(other, "side", 1);
    assert_eq!(popped.body["message"], "before", "{popped:?}");
    cluster.signal(leader, "CONT");
    // The node that wakes must not hand out the same message again, whatever it believes it is. That it does not know
    // what became of a call that it took while it believed to lead is an answer, too.
    let again = cluster.pop_until_answered(leader, "side", 2);
    assert_eq!(again.body["message"], "after", "{again:?}\n{}", cluster.logs());
    println!("writes went on {pause:?} after the leader was paused");
}

#[test]
fn without_a_quorum_every_answer_is_prompt_and_honest() {
    // Nobody tells the node how long it may take. On a slow machine its answer takes long.
    let own_time = |cluster: &Cluster, node| cluster.http(node).with_timeout(PATIENCE);
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    cluster.make_topic("t");
    for node in (0..3).filter(|node| *node != leader) {
        cluster.kill(node);
    }
    let survivor = own_time(&cluster, leader);
    let answer = survivor.publish("t", "x").expect("an answer");
    assert!([503, 504].contains(&answer.code), "{answer:?}");
    assert!(answer.head.contains("raftqueue-outcome"), "{answer:?}");
    assert_eq!(survivor.status().unwrap().code, 200);
    // Much later it knows that it does not lead, and that nothing is done.
    cluster.wait_for("it knows that nothing is done", || {
        let answer = survivor.publish("t", "y").expect("an answer");
        if answer.code == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    assert_ne!(survivor.status().unwrap().body["role"], "Leader");
}

#[test]
fn one_node_alone_serves_and_keeps_everything() {
    let mut cluster = Cluster::started(1);
    assert_eq!(cluster.patient(0).create_topic("t").unwrap().code, 201);
    for n in 0..20 {
        assert_eq!(cluster.patient(0).publish("t", &n.to_string()).unwrap().code, 201);
    }
    cluster.kill(0);
    assert_eq!(cluster.http(0).status(), Err(Unanswered::Refused));
    cluster.start(0);
    cluster.leader();
    for n in 0..20 {
        let answer = cluster.patient(0).pop("t").unwrap();
        assert_eq!((answer.code, answer.body["message"].as_str()), (200, Some(n.to_string().as_str())));
    }
    assert_eq!(cluster.patient(0).pop("t").unwrap().code, 404);
    assert!(cluster.stop(0).success());
}

#[test]
fn a_topic_created_at_all_nodes_at_once_is_created_once() {
    let cluster = Cluster::started_with(3, &CALM);
    for round in 0..5 {
        let topic = format!("topic {round} / ü");
        let codes: Vec<u16> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..12)
                .map(|call| {
                    let (http, topic) = (cluster.patient(call % 3), &topic);
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
    cluster.make_topic("side");
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
    let mounted =
        Mounted(runs("mount", &["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", place]).then_some(place));
    check(&started_with(&cluster, "other.json", &["--data-dir", "read-only"]), 3, &["read-only"]);
    drop(mounted);

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
        let child = Command::new(programs().join("raftqueue-node"))
            .current_dir(folder.path())
            .args(["--name", "a", "--members", &format!("a=127.0.0.1:{}", ports[1])])
            .args(["--client-listen", &format!("127.0.0.1:{}", ports[0])])
            .args(["--operations-port", &ports[2].to_string()])
            .args(["--data-dir", "data", "--lock-wait-ms", "600000"])
            .stderr(Stdio::null())
            .spawn();
        Running(child.expect("the node can be started"))
    };
    let says = |port: u16, words: &str| {
        wait_for(&format!("it says `{words}`"), String::new, || {
            let answer = Http::new(port).request("GET", "/readyz", b"");
            let is_so = answer.as_ref().is_ok_and(|answer| answer.text.contains(words));
            is_so.then_some(()).ok_or_else(|| format!("{answer:?}"))
        });
    };
    let patient = |port: u16| Http::new(port).with_deadline(PATIENCE);
    let (here, there) = (free_ports(3), free_ports(3));
    let first = start(&here);
    says(here[2], "ready\n");
    assert_eq!(patient(here[0]).create_topic("t").unwrap().code, 201);
    let _second = start(&there);
    says(there[2], "another process uses this directory");
    // It serves nobody meanwhile, and takes nothing from the first.
    assert_eq!(patient(there[0]).create_topic("u").unwrap().code, 503);
    assert_eq!(patient(here[0]).publish("t", "kept").unwrap().code, 201);
    drop(first);
    says(there[2], "ready\n");
    assert_eq!(patient(there[0]).pop("t").unwrap().body["message"], "kept");
}

fn started_alone(cluster: &Cluster, arguments: &[&str]) -> Ended {
    started_with(cluster, "config.json", arguments)
}

fn started_with(cluster: &Cluster, config: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(programs().join("raftqueue-node"));
    command.current_dir(cluster.folder()).args(["--config", config, "--index", "0"]).args(arguments);
    run_to_end(&mut command)
}

/// A folder on which something is mounted, until this is dropped.
struct Mounted<'a>(Option<&'a str>);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            runs("umount", &[place]);
        }
    }
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

fn check(ended: &Ended, code: i32, parts: &[&str]) {
    let text = &ended.text;
    assert_eq!(ended.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}
