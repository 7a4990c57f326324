//! A real Prometheus watches real nodes while things go wrong: alerts fire, and clear again; every panel has something to show.
//!
//! The alerts are those of `deploy/monitoring`, with all times divided by sixty. Needs Prometheus and root (for a small file
//! system in memory); for others the case is shown as ignored.

use libtest_mimic::{Arguments, Completion, Trial};
use raftqueue_tests::process::prometheus::{self, Prometheus};
use raftqueue_tests::process::{CALM, Cluster, SmallDisk, repository, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a minute of the rules lasts here.
const MINUTE: Duration = Duration::from_secs(1);
/// Size of a disk.
const DISK_MIB: u32 = 200;
/// What is left of it when it is filled: less than 15 %, and more than the reserve.
const LEFT_BYTES: f64 = 24.0 * 1_048_576.0;
/// Panels that stay empty here, and why.
const EMPTY: [(&str, &str); 0] = [];

fn main() -> ExitCode {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let case = Trial::ignorable_test("alerts_fire_and_clear_and_every_panel_shows_something", move || {
        let Some(programs) = prometheus::folder() else {
            return Ok(Completion::ignored_with("there is no Prometheus: see RAFTQUEUE_PROMETHEUS"));
        };
        if SmallDisk::mount(folder.path(), 1).is_none() {
            return Ok(Completion::ignored_with("only root may mount a small disk"));
        }
        alerts_fire_and_clear_and_every_panel_shows_something(&programs);
        Ok(Completion::Completed)
    });
    libtest_mimic::run(&Arguments::from_args(), vec![case]).exit_code()
}

/// A file of `deploy/monitoring`.
fn read(name: &str) -> String {
    let path = repository().join("deploy/monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rules of a file with all times divided by sixty: those that something has to last for, those that are looked back on, and
/// the quarter of an hour that a message may be old.
fn faster(name: &str) -> String {
    let mut rules: Value = serde_saphyr::from_str(&read(name)).expect("it is YAML");
    for group in rules["groups"].as_array_mut().expect("it has groups") {
        for rule in group["rules"].as_array_mut().expect("it has rules") {
            let query = rule["expr"].as_str().expect("a query").replace("> 900", "> 15");
            rule["expr"] = with_times(&query).into();
            if let Some(lasting) = rule["for"].as_str() {
                rule["for"] = with_times(&format!("[{lasting}]")).trim_matches(['[', ']']).into();
            }
        }
    }
    rules.to_string()
}

/// A query in which `[15m]` is `[15s]`, `[1h]` is `[1m]`, a day an hour, and `offset 1m` is `offset 1s`.
fn with_times(query: &str) -> String {
    let query = query.replace("offset 1m", "offset 1s");
    // From the smallest unit on: what has become one is not met again.
    query.replace("m]", "s]").replace("h]", "m]").replace("d]", "h]")
}

/// What there is to see while the case goes on.
struct Watch {
    prometheus: Prometheus,
    begun: Instant,
    rows: Vec<String>,
}

impl Watch {
    /// Waits until all these alerts fire, or none of them does any more.
    fn wait(&mut self, what: &str, alerts: &[&str], fire: bool) {
        let begun = Instant::now();
        let mut seen: BTreeMap<&str, Duration> = BTreeMap::new();
        wait_for(
            what,
            || self.prometheus.log(),
            || {
                let firing = self.prometheus.firing()?;
                for alert in alerts.iter().filter(|alert| firing.contains(**alert) == fire) {
                    seen.entry(alert).or_insert_with(|| begun.elapsed());
                }
                let is_so = alerts.iter().all(|alert| firing.contains(*alert) == fire);
                if is_so { Ok(()) } else { Err(format!("{firing:?}")) }
            },
        );
        for (alert, after) in seen {
            let word = if fire { "fires" } else { "clears" };
            self.rows.push(format!("{what:<44} {alert:<26} {word} after {:>4.1} s", after.as_secs_f64()));
        }
    }
}

fn alerts_fire_and_clear_and_every_panel_shows_something(programs: &Path) {
    let mut cluster = Cluster::new(3).with_operations();
    let small = ["--segment-bytes", "4194304", "--reserve-bytes", "12582912"];
    cluster.set_arguments(&[&CALM[..], &small].concat());
    let full = 2;
    // Of all of them, since that of the machine may be nearly full as well.
    let mount = |node| SmallDisk::mount(&cluster.data_dir(node), DISK_MIB).expect("one was mounted before");
    let _disks: Vec<SmallDisk> = (0..3).map(mount).collect();
    cluster.start_all();
    let labels = |node: usize| {
        BTreeMap::from([
            ("job", "raftqueue".to_owned()),
            ("namespace", "shop".to_owned()),
            ("raftqueue", "demo".to_owned()),
            ("instance", format!("demo-{node}")),
        ])
    };
    let targets = (0..3).map(|node| (cluster.operations_port(node), labels(node))).collect();
    let rules = ["cluster", "queues", "storage"].map(|topic| faster(&format!("{topic}-rules.yaml")));
    let prometheus = Prometheus::start(programs, &targets, &rules);
    let mut watch = Watch { prometheus, begun: Instant::now(), rows: Vec::new() };
    let leader = cluster.leader();
    wait_for(
        "three nodes to be watched",
        || watch.prometheus.log(),
        || {
            let up = watch.prometheus.query("sum(raftqueue_ready)")?;
            if up.first().is_some_and(|(_, count)| *count > 2.5) { Ok(()) } else { Err(format!("{up:?}")) }
        },
    );

    // Nobody consumes one topic, and what is taken from the other one dies.
    let call = |node: usize, path: &str, request: &Value| {
        let answer = cluster.patient(node).request("POST", path, request.to_string().as_bytes());
        let answer = answer.expect("an answer");
        assert_eq!(answer.code, 200, "{answer:?}\n{}", cluster.logs());
        answer.body
    };
    call(leader, "/v1/topics", &json!({"topic": "still"}));
    call(leader, "/v1/topics", &json!({"topic": "bad", "options": {"attempts_max": 1}}));
    call(leader, "/v1/topics/still/publish", &json!({"messages": [{"body": "a"}, {"body": "b"}]}));
    call(leader, "/v1/topics/bad/publish", &json!({"messages": [{"body": "c"}]}));
    wait_for(
        "a message that was taken",
        || watch.prometheus.log(),
        || {
            let seen = watch.prometheus.query("sum(raftqueue_messages_total{event=\"published\"})")?;
            if seen.first().is_some_and(|(_, count)| *count > 2.5) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        },
    );
    let taken = call(leader, "/v1/topics/bad/receive", &json!({"messages_max": 1}));
    let lease = taken["deliveries"][0]["lease"].clone();
    call(leader, "/v1/topics/bad/nack", &json!({"leases": [lease], "reason": "of no use"}));
    watch.wait("a message dies", &["RaftQueueDeadGrowing"], true);

    let filling = cluster.data_dir(full).join("filling");
    let filling_bytes = cluster.metric(full, "raftqueue_wal_free_bytes") - LEFT_BYTES;
    std::fs::write(&filling, vec![1; filling_bytes as usize]).expect("there is room for it");
    watch.wait("a disk fills up", &["RaftQueueDiskLow"], true);
    watch.wait("a message is not taken", &["RaftQueueOldestMessage", "RaftQueueNotConsumed"], true);
    call(leader, "/v1/topics", &json!({"topic": "busy"}));
    let many: Vec<Value> = (0..1_000).map(|number| json!({"body": format!("{number}")})).collect();
    call(leader, "/v1/topics/busy/publish", &json!({ "messages": many }));
    let patient = cluster.patient(leader);
    wait_for(
        "every panel to show something",
        || watch.prometheus.log(),
        || {
            // More is taken than comes, and somebody asks for a topic that there is not.
            let publish =
                patient.request("POST", "/v1/topics/busy/publish", b"{\"messages\": [{\"body\": \"a\"}]}");
            let pop = patient.request("POST", "/v1/topics/busy/pop", b"{\"messages_max\": 5}");
            let none = patient.request("GET", "/v1/topics/none", b"");
            let codes = [publish, pop, none].map(|answer| answer.map(|answer| answer.code));
            if codes != [Ok(200), Ok(200), Ok(404)] {
                return Err(format!("{codes:?}"));
            }
            empty_panels(&watch.prometheus)
        },
    );

    // What an autoscaler asks for is one number: what there is to do.
    let scaled: Value = serde_saphyr::from_str(&read("keda.yaml")).expect("it is YAML");
    let query = scaled["spec"]["triggers"][0]["metadata"]["query"].as_str().expect("a query");
    let backlog = watch.prometheus.query(&query.replace("\"orders\"", "\"still\"")).expect("it is answered");
    assert!(matches!(&backlog[..], [(_, count)] if (*count - 2.0).abs() < 0.5), "{backlog:?}");

    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    cluster.kill(others[0]);
    watch.wait("one node is killed", &["RaftQueueMemberDown", "RaftQueueQuorumAtRisk"], true);
    cluster.kill(others[1]);
    watch.wait("another one is killed", &["RaftQueueNoLeader", "RaftQueueQuorumLost"], true);

    std::fs::remove_file(&filling).expect("it is there");
    others.iter().for_each(|node| cluster.start(*node));
    watch.wait(
        "both are started again",
        &["RaftQueueNoLeader", "RaftQueueQuorumLost", "RaftQueueMemberDown", "RaftQueueQuorumAtRisk"],
        false,
    );
    watch.wait("what fills the disk is removed", &["RaftQueueDiskLow"], false);
    let leader = cluster.leader();
    let path = "/v1/topics/still/purge";
    let answer = cluster.patient(leader).request("POST", path, b"{}").expect("an answer");
    assert_eq!(answer.code, 200, "{answer:?}");
    watch.wait("the topic is purged", &["RaftQueueOldestMessage", "RaftQueueNotConsumed"], false);
    watch.wait("no more messages die", &["RaftQueueDeadGrowing"], false);
    println!(
        "{}\nall of it took {:.1} s; a minute of the rules is {MINUTE:?} here",
        watch.rows.join("\n"),
        watch.begun.elapsed().as_secs_f64()
    );
}

/// Asks what Grafana asks for each panel, with everything chosen; an error names those that show nothing.
fn empty_panels(prometheus: &Prometheus) -> Result<(), String> {
    let mut empty = BTreeSet::new();
    for topic in ["cluster", "queues", "storage"] {
        let dashboard: Value =
            serde_json::from_str(&read(&format!("{topic}-dashboard.json"))).expect("it is JSON");
        for panel in dashboard["panels"].as_array().expect("it has panels") {
            let targets = panel["targets"].as_array();
            let title = panel["title"].as_str().expect("a title");
            for target in targets.into_iter().flatten() {
                let mut query = target["expr"].as_str().expect("a query").to_owned();
                for variable in ["$job", "$namespace", "$raftqueue", "$instance", "$topic"] {
                    query = query.replace(variable, ".*");
                }
                query = with_times(&query).replace("$__rate_interval", "5s");
                assert!(!query.contains('$'), "{title}: {query}");
                if prometheus.query(&query).map_err(|error| format!("{title}: {query}: {error}"))?.is_empty()
                {
                    empty.insert(format!("{title}: {query}"));
                }
            }
        }
    }
    empty.retain(|panel| !EMPTY.iter().any(|(title, _)| panel.starts_with(title)));
    match empty.is_empty() {
        true => Ok(()),
        false => Err(format!("nothing to see in:\n{}", empty.into_iter().collect::<Vec<_>>().join("\n"))),
    }
}
