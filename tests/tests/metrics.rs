//! What real nodes tell Prometheus while messages go by.

use raftqueue_tests::process::{CALM, Cluster, repository, series_value};
use serde_json::{Value, json};

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
            let series = format!("raftqueue_messages_total{{event=\"{event}\"}}");
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
                let published = value("raftqueue_messages_total{event=\"published\"}").expect("always there");
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
