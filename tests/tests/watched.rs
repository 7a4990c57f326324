//! A real Prometheus watches real nodes while things go wrong: alerts fire, and clear again; every panel has something to show.
//!
//! The alerts are those of `deploy/monitoring`, with all times divided by sixty. Needs Prometheus and root (for a small file
//! system in memory); for others the case is shown as ignored.

use libtest_mimic::{Arguments, Completion, Trial};
use raftqueue_tests::process::prometheus::{self, Prometheus};
use raftqueue_tests::process::watch::{Watch, empty_panels, faster, read, record, rules};
use raftqueue_tests::process::{CALM, Cluster, SmallDisk, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Size of a disk.
const DISK_MIB: u32 = 200;
/// What is left of it when it is filled: less than 15 %, and more than the reserve.
const LEFT_BYTES: f64 = 24.0 * 1_048_576.0;
/// What this is about; the operator has no nodes here, and a case of its own on Kubernetes.
const TOPICS: [&str; 3] = ["cluster", "queues", "storage"];

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
    let rules = TOPICS.map(rules).map(faster);
    let prometheus = Prometheus::start(programs, &targets, &rules);
    let mut watch = Watch::begin(prometheus, "shop");
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
            let seen = watch.prometheus.query("sum(raftqueue_message_events_total{event=\"published\"})")?;
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
            empty_panels(&watch.prometheus, &TOPICS)
        },
    );

    // It asks for OpenMetrics, in which units are told.
    let asked = "targets/metadata?metric=raftqueue_wal_sync_seconds";
    let told = watch.prometheus.ask(asked).expect("it is answered");
    let units = told.as_array().into_iter().flatten().map(|told| (&told["type"], &told["unit"]));
    assert_eq!(units.filter(|told| *told == (&json!("histogram"), &json!("seconds"))).count(), 3, "{told}");

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
    // How much of `busy` was taken depends on how long the panels were waited for, and nobody takes the rest.
    for topic in ["still", "busy"] {
        let path = format!("/v1/topics/{topic}/purge");
        let answer = cluster.patient(leader).request("POST", &path, b"{}").expect("an answer");
        assert_eq!(answer.code, 200, "{topic}: {answer:?}");
    }
    watch.wait("the topics are purged", &["RaftQueueOldestMessage", "RaftQueueNotConsumed"], false);
    watch.wait("no more messages die", &["RaftQueueDeadGrowing"], false);
    println!("{}", watch.told());
    if let Some(folder) = std::env::var_os("RAFTQUEUE_PICTURES") {
        record(&watch, &TOPICS, Path::new(&folder));
    }
}
