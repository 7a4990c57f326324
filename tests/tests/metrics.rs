//! What real nodes tell Prometheus while messages go by.

use raftqueue_tests::process::{CALM, Cluster, repository, series_value};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Calls the full API of a node.
fn call(cluster: &Cluster, node: usize, path: &str, body: &Value) -> Value {
    let answer = cluster.patient(node).request("POST", path, body.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.code, 200, "{path}: {answer:?}");
    answer.body
}

#[test]
fn every_series_is_there_and_moves_as_messages_go_by() {
    const LEASE_MS: u64 = 3_600_000;
    // One leads all the while, and its leases do not end by themselves.
    let mut cluster = Cluster::new(3).with_operations().with_arguments(&CALM);
    cluster.start_all();
    let leader = cluster.leader();
    // A node counts what comes after it has caught up.
    (0..3).for_each(|node| cluster.wait_ready(node));
    let follower = (leader + 1) % 3;
    // Through a follower, so that calls are passed on.
    call(&cluster, follower, "/v1/topics", &json!({"topic": "t", "options": {"attempts_max": 1}}));
    let messages: Vec<Value> = (0..5).map(|n| json!({"body": format!("message {n}")})).collect();
    call(&cluster, follower, "/v1/topics/t/publish", &json!({"messages": messages}));
    let received =
        call(&cluster, leader, "/v1/topics/t/receive", &json!({"messages_max": 3, "lease_ms": LEASE_MS}));
    let leases: Vec<&Value> =
        received["deliveries"].as_array().expect("three").iter().map(|delivery| &delivery["lease"]).collect();
    call(&cluster, leader, "/v1/topics/t/ack", &json!({"leases": [leases[0]]}));
    call(&cluster, leader, "/v1/topics/t/nack", &json!({"leases": [leases[1]]}));
    call(&cluster, leader, "/v1/topics/t/release", &json!({"leases": [leases[2]]}));
    call(&cluster, leader, "/v1/topics/t/receive", &json!({"messages_max": 1, "lease_ms": LEASE_MS}));

    // Every node applies all of it and says the same; totals are counted once a second.
    for node in 0..3 {
        for (event, count) in [
            ("published", 5.0),
            ("delivered", 4.0),
            ("acknowledged", 1.0),
            ("nacked", 1.0),
            ("released", 1.0),
            ("died", 1.0),
            ("redelivered", 0.0),
        ] {
            let series = format!("raftqueue_message_events_total{{event=\"{event}\"}}");
            cluster.reaches(node, &series, |seen| (seen - count).abs() < f64::EPSILON);
        }
        for (state, count) in [("ready", 2.0), ("leased", 1.0), ("delayed", 0.0), ("dead", 1.0)] {
            for series in [
                format!("raftqueue_messages{{state=\"{state}\"}}"),
                format!("raftqueue_topic_messages{{state=\"{state}\",topic=\"t\"}}"),
            ] {
                cluster.reaches(node, &series, |seen| (seen - count).abs() < f64::EPSILON);
            }
        }
        for (series, count) in [
            ("raftqueue_topic_published_total{topic=\"t\"}", 5.0),
            ("raftqueue_topic_settled_total{topic=\"t\"}", 1.0),
            ("raftqueue_topics", 1.0),
            ("raftqueue_ready", 1.0),
            ("raftqueue_raft_has_leader", 1.0),
        ] {
            cluster.reaches(node, series, |seen| (seen - count).abs() < f64::EPSILON);
        }
        for series in [
            "raftqueue_oldest_ready_seconds",
            "raftqueue_topic_oldest_ready_seconds{topic=\"t\"}",
            "raftqueue_raft_commit_to_apply_seconds_count",
            "raftqueue_wal_sync_seconds_count",
            "raftqueue_wal_disk_bytes",
            "raftqueue_wal_free_bytes",
            "raftqueue_loop_lag_seconds_count",
            "raftqueue_connections_open{port=\"peers\"}",
            "raftqueue_peer_messages_total{result=\"sent\"}",
        ] {
            cluster.reaches(node, series, |seen| seen > 0.0);
        }
        // Ages are of seconds, not of the epoch.
        cluster.reaches(node, "raftqueue_oldest_ready_seconds", |seen| seen < 86_400.0);
    }
    // What only the leader measures: every entry that it has proposed, and none twice.
    let proposed = cluster.metric(leader, "raftqueue_raft_propose_to_commit_seconds_count");
    let entries = cluster.metric(leader, "raftqueue_raft_commit_index");
    assert!(proposed >= 6.0 && proposed <= entries, "{proposed} of {entries}");
    let others = cluster.metric(follower, "raftqueue_raft_propose_to_commit_seconds_count");
    assert!(others.abs() < f64::EPSILON, "{others}");
    assert!(cluster.metric(follower, "raftqueue_calls_forwarded_total") >= 2.0);
    assert!(cluster.metric(leader, "raftqueue_raft_elections_total") >= 1.0);

    // Nothing is missing on any node, except series that get a label only when something fails.
    let listed = std::fs::read_to_string(repository().join("node/src/metrics/series.txt")).expect("the list");
    let names =
        listed.lines().filter(|line| !line.starts_with(' ')).map(|line| line.split(['{', ' ']).next());
    for node in 0..3 {
        let text = cluster.metrics(node);
        for name in names.clone().flatten().filter(|name| *name != "raftqueue_call_failures_total") {
            assert!(text.contains(&format!("# TYPE {name} ")), "node {node} does not tell {name}");
        }
    }

    // Failures are counted where they happen, and a new leader is noticed.
    let wrong = br#"{"messages": [{"body": ""}]}"#;
    let answer = cluster.patient(leader).request("POST", "/v1/topics/none/publish", wrong).unwrap();
    assert_eq!(answer.code, 404, "{answer:?}");
    let failures = "raftqueue_call_failures_total{method=\"publish\",reason=\"TOPIC_NOT_FOUND\"}";
    cluster.reaches(leader, failures, |seen| seen >= 1.0);
    let before = cluster.metric(follower, "raftqueue_raft_leader_changes_total");
    cluster.kill(leader);
    cluster.reaches(follower, "raftqueue_raft_leader_changes_total", |seen| seen > before);
}

#[test]
fn rule_10_4_a_node_that_restarts_is_ready_and_shows_depths_once_it_has_replayed() {
    const BATCHES: u64 = 8;
    const MESSAGES: u64 = 1_000;
    // No election may come between a call and its answer. Afterwards another node must be able to lead soon.
    let mut cluster = Cluster::new(3).with_operations().with_arguments(&CALM);
    cluster.start_all();
    let leader = cluster.leader();
    call(&cluster, leader, "/v1/topics", &json!({"topic": "t"}));
    let messages: Vec<Value> = (0..MESSAGES).map(|n| json!({"body": format!("message {n}")})).collect();
    for _ in 0..BATCHES {
        call(&cluster, leader, "/v1/topics/t/publish", &json!({"messages": messages}));
    }
    let committed = cluster.metric(leader, "raftqueue_raft_commit_index");
    cluster.set_arguments(&[]);
    let is_close = |seen: f64, expected: f64| (seen - expected).abs() < f64::EPSILON;

    // A follower alone, and then all of them at once.
    let follower = (leader + 1) % 3;
    for restarted in [vec![follower], vec![0, 1, 2]] {
        restarted.iter().for_each(|node| cluster.kill(*node));
        restarted.iter().for_each(|node| cluster.start(*node));
        for node in restarted {
            cluster.wait_for(&format!("node {node} is ready and shows its depth"), || {
                let is_ready = cluster.is_ready(node);
                let text = cluster.try_metrics(node).ok_or("it does not listen yet")?;
                let value = |series: &str| series_value(&text, series);
                let applied = value("raftqueue_raft_applied_index").expect("always there");
                assert!(!is_ready || applied >= committed, "ready with {applied} of {committed} applied");
                let published =
                    value("raftqueue_message_events_total{event=\"published\"}").expect("always there");
                assert!(is_close(published, 0.0), "this process has seen nobody publish, not {published}");
                let depth = value("raftqueue_messages{state=\"ready\"}");
                let all = (BATCHES * MESSAGES) as f64;
                assert!(depth.is_none_or(|depth| is_close(depth, all)), "a depth of the past: {depth:?}");
                assert_eq!(depth.is_some(), value("raftqueue_oldest_ready_seconds").is_some());
                let is_done = is_ready && depth.is_some();
                is_done.then_some(()).ok_or_else(|| format!("ready: {is_ready}, depth: {depth:?}"))
            });
        }
    }
}

/// The files of a data directory whose names begin so.
fn files(directory: &Path, prefix: &str) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(directory).expect("the node has it").flatten();
    let entries = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.metadata()));
    // One may go while they are listed.
    let named = entries.filter(|(name, _)| name.starts_with(prefix));
    named.filter_map(|(name, metadata)| Some((name, metadata.ok()?.blocks() * 512))).collect()
}

/// Fails with what is told until it is what stands on the disk, which changes now and then.
fn is_told_as_it_stands(cluster: &Cluster) -> Result<Value, String> {
    let answer = cluster.patient(0).request("GET", "/v1/storage", b"").expect("an answer");
    assert_eq!(answer.code, 200, "{answer:?}");
    let told = answer.body;
    let number = |field: &str| told[field].as_u64().expect("a number");
    let directory = cluster.data_dir(0);
    let count = |prefix: &str| files(&directory, prefix).len() as u64;
    let length = |name: &String| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
    let lengths = |prefix: &str| files(&directory, prefix).iter().map(|(name, _)| length(name)).sum::<u64>();
    let all: u64 = files(&directory, "").iter().map(|(_, bytes)| bytes).sum();
    let snapshots = files(&directory, "snapshot-");
    let newest = snapshots
        .iter()
        .max()
        .map(|(name, _)| std::fs::metadata(directory.join(name)).map(|file| file.len()));
    let text = cluster.metrics(0);
    let series = |name: &str| -> u64 {
        let value = series_value(&text, name).expect("it is told");
        format!("{value:.0}").parse().expect("a count")
    };
    for (what, told, stands) in [
        ("segments", number("log_segments") + number("released_segments"), count("segment-")),
        ("kept files", number("kept_files"), count("kept-")),
        ("bytes of kept files", number("kept_bytes"), lengths("kept-")),
        ("bytes of snapshots", number("snapshots_bytes"), lengths("snapshot-")),
        ("all bytes", number("used_bytes"), all),
        (
            "the newest snapshot",
            told["snapshot"]["bytes"].as_u64().unwrap_or(0),
            newest.map_or(0, |size| size.unwrap_or(0)),
        ),
        ("the series of segments", series("raftqueue_wal_segments"), number("log_segments")),
        ("the series of bytes", series("raftqueue_data_bytes"), number("used_bytes")),
        (
            "the series of snapshots",
            series("raftqueue_snapshot_index"),
            told["snapshot"]["index"].as_u64().unwrap_or(0),
        ),
        ("the series of what lives", series("raftqueue_file_live_bytes"), number("live_bytes")),
    ] {
        if told != stands {
            return Err(format!("{what}: {told} told, and {stands} there"));
        }
    }
    Ok(told)
}

#[test]
fn what_a_node_keeps_is_told_as_it_stands_on_its_disk() {
    let arguments = ["--segment-bytes", "1048576"];
    let mut cluster = Cluster::new(1).with_operations().with_arguments(&arguments);
    cluster.start_all();
    cluster.wait_ready(0);
    let blank = cluster.wait_for("a blank node tells of its log", || is_told_as_it_stands(&cluster));
    assert_eq!((&blank["log_segments"], &blank["snapshot"]), (&1.into(), &Value::Null), "{blank}");
    assert_eq!(
        (&blank["incomplete"], &blank["lacking"], &blank["segment_bytes"]),
        (&false.into(), &0.into(), &1_048_576.into())
    );

    call(&cluster, 0, "/v1/topics", &json!({"topic": "t"}));
    let body = "x".repeat(10_000);
    let messages: Vec<Value> = (0..50).map(|_| json!({"body": body})).collect();
    for _ in 0..12 {
        call(&cluster, 0, "/v1/topics/t/publish", &json!({"messages": messages}));
    }
    let take = json!({"messages_max": 50, "wait_ms": 1_000});
    for _ in 0..12 {
        let received = call(&cluster, 0, "/v1/topics/t/receive", &take);
        let leases: Vec<&Value> = received["deliveries"]
            .as_array()
            .expect("some")
            .iter()
            .take(45)
            .map(|delivery| &delivery["lease"])
            .collect();
        call(&cluster, 0, "/v1/topics/t/ack", &json!({"leases": leases}));
    }
    // 600 of 10,000 bytes were published, and five of each fifty are left: the keeper has copied them out.
    let told = cluster.wait_for("what is done with is gone, and what is told stands there", || {
        let told = is_told_as_it_stands(&cluster)?;
        let live = told["live_bytes"].as_u64().expect("a number");
        let is_known = told["messages"] == 60 && (590_000..620_000).contains(&live);
        let is_small = told["used_bytes"].as_u64().expect("a number") < (4 << 20) + 2 * live + (64 << 10);
        let is_copied = told["kept_bytes"].as_u64() > Some(0);
        if is_known && is_small && is_copied { Ok(told) } else { Err(told.to_string()) }
    });
    assert!(told["snapshot"]["index"].as_u64() > Some(12), "{told}");
    assert!(told["free_bytes"].as_u64() < told["disk_bytes"].as_u64(), "{told}");

    // It is all known again after a restart, at once.
    cluster.kill(0);
    cluster.start(0);
    cluster.wait_ready(0);
    let again = cluster.wait_for("the same is told after a restart", || is_told_as_it_stands(&cluster));
    assert!(
        again["snapshot"]["index"].as_u64() >= told["snapshot"]["index"].as_u64(),
        "{again} after {told}"
    );
}
