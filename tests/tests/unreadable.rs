//! A message that cannot be read harms no other: its neighbours are delivered, it goes back at once, and the leader
//! lets another try.

use raftqueue_tests::process::{Answer, CALM, Cluster};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const COUNT: usize = 20;
const ROTTEN: usize = 7;

/// Published in batches of four, so that it shares its entry with some and not with others. Nothing of it is in memory any
/// more.
fn with_messages(nodes: usize) -> (Cluster, usize) {
    // Nothing but what cannot be read may move the lead.
    let mut cluster = Cluster::new(nodes).with_operations().with_arguments(&CALM);
    cluster.start_all();
    let leader = cluster.leader();
    assert_eq!(call(&cluster, leader, "/v1/topics", &json!({"topic": "t"})).code, 200);
    for batch in (0..COUNT).collect::<Vec<_>>().chunks(4) {
        let messages: Vec<Value> = batch.iter().map(|number| json!({"body": body(*number)})).collect();
        let published = call(&cluster, leader, "/v1/topics/t/publish", &json!({ "messages": messages }));
        assert_eq!(published.code, 200, "{published:?}");
    }
    for node in 0..nodes {
        cluster.stop(node);
    }
    cluster.start_all();
    let leader = cluster.leader();
    // It leads and has applied everything.
    assert_eq!(numbers(&peek(&cluster, leader)), (0..COUNT).collect::<Vec<_>>());
    (cluster, leader)
}

fn body(number: usize) -> String {
    format!("body of {number:03} {}", "x".repeat(1_000))
}

fn call(cluster: &Cluster, node: usize, path: &str, request: &Value) -> Answer {
    cluster.patient(node).request("POST", path, request.to_string().as_bytes()).expect("an answer")
}

fn peek(cluster: &Cluster, node: usize) -> Answer {
    call(cluster, node, "/v1/topics/t/peek", &json!({"messages_max": 100}))
}

/// Leased for longer than any test takes: what goes back is given back.
fn receive(cluster: &Cluster, node: usize, wait_ms: u64) -> Answer {
    let request = json!({"messages_max": 100, "wait_ms": wait_ms, "lease_ms": 3_600_000});
    call(cluster, node, "/v1/topics/t/receive", &request)
}

/// Receives until a message comes: the one that could not be read before. No attempt of it was counted.
fn receive_the_last(cluster: &Cluster, node: usize) {
    let last = cluster.wait_for("what could not be read is received", || {
        let answer = receive(cluster, node, 200);
        if deliveries(&answer).is_empty() { Err(format!("{answer:?}")) } else { Ok(answer) }
    });
    assert_eq!((numbers(&last), &deliveries(&last)[0]["attempts"]), (vec![ROTTEN], &json!(0)));
}

fn deliveries(answer: &Answer) -> &[Value] {
    answer.body["deliveries"].as_array().map_or(&[], Vec::as_slice)
}

fn numbers(answer: &Answer) -> Vec<usize> {
    let number = |delivery: &Value| {
        let body = delivery["body"].as_str().expect("text");
        body[8..11].parse().expect("a number")
    };
    deliveries(answer).iter().map(number).collect()
}

fn others() -> Vec<usize> {
    (0..COUNT).filter(|number| *number != ROTTEN).collect()
}

/// How many are ready, leased and dead.
fn counts(cluster: &Cluster, node: usize) -> (u64, u64, u64) {
    let answer = cluster.patient(node).request("GET", "/v1/topics/t", b"").expect("an answer");
    let default = &answer.body["subscriptions"][0];
    let count = |state: &str| default[state].as_u64().expect("a count");
    (count("ready"), count("leased"), count("dead"))
}

/// Where a body stands on a node's disk.
fn place(cluster: &Cluster, node: usize, body: &str) -> (PathBuf, u64) {
    let mut folders = vec![cluster.data_dir(node)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            if let Some(at) = bytes.windows(body.len()).position(|window| window == body.as_bytes()) {
                return (path, at as u64);
            }
        }
    }
    panic!("the body is nowhere");
}

/// Turns one bit of a body around; again, and it is as it was.
fn flip(cluster: &Cluster, node: usize, number: usize) {
    flip_body(cluster, node, &body(number));
}

fn flip_body(cluster: &Cluster, node: usize, body: &str) {
    let (path, at) = place(cluster, node, &body[..11]);
    let file = OpenOptions::new().read(true).write(true).open(path).expect("it can be opened");
    let mut byte = [0];
    // Behind what it is found by.
    file.read_exact_at(&mut byte, at + 500).expect("it can be read");
    file.write_all_at(&[byte[0] ^ 1], at + 500).expect("it can be written");
}

#[test]
fn what_cannot_be_read_takes_no_other_message_with_it_and_is_kept() {
    let (cluster, node) = with_messages(1);
    flip(&cluster, node, ROTTEN);
    assert_eq!(numbers(&peek(&cluster, node)), others());

    let received = receive(&cluster, node, 0);
    assert_eq!(numbers(&received), others(), "{received:?}");
    // It goes back by itself, some time after the answer has left.
    cluster.wait_for("what cannot be read goes back", || {
        let counts = counts(&cluster, node);
        if counts == (1, COUNT as u64 - 1, 0) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    // Nobody leads beside this node, and what is left is said to be so.
    let again = receive(&cluster, node, 0);
    assert_eq!((again.code, again.body["reason"].as_str()), (503, Some("DATA_UNREADABLE")), "{again:?}");
    assert_eq!(again.body["outcome"], "NOT_DONE");

    // A pop takes only what it can give.
    let leases: Vec<&Value> = deliveries(&received).iter().map(|delivery| &delivery["lease"]).collect();
    let released = call(&cluster, node, "/v1/topics/t/release", &json!({ "leases": leases }));
    assert_eq!(released.code, 200, "{released:?}");
    let popped = call(&cluster, node, "/v1/topics/t/pop", &json!({"messages_max": 100}));
    assert_eq!(numbers(&popped), others());
    let empty = call(&cluster, node, "/v1/topics/t/pop", &json!({"messages_max": 100}));
    assert_eq!(empty.body["reason"].as_str(), Some("DATA_UNREADABLE"), "{empty:?}");

    // Nothing of it is lost: read again, it is there.
    flip(&cluster, node, ROTTEN);
    receive_the_last(&cluster, node);
}

#[test]
fn another_node_reads_it_and_the_lead_stays_there() {
    let (mut cluster, first) = with_messages(3);
    flip(&cluster, first, ROTTEN);
    assert_eq!(numbers(&receive(&cluster, first, 0)), others());
    receive_the_last(&cluster, first);
    let leader = cluster.leader();
    assert_ne!(leader, first, "{}", cluster.logs());
    // It was handed over, and not lost by the way.
    let handed_over = "raftqueue_raft_elections_won_total{cause=\"hand_over\"}";
    assert!(cluster.metric(leader, handed_over) > 0.5, "{}", cluster.logs());
}

/// Whether a body stands whole on a node's disk.
fn stands(cluster: &Cluster, node: usize, number: usize) -> bool {
    let body = body(number);
    let files = std::fs::read_dir(cluster.data_dir(node)).expect("a folder");
    files.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok()).any(|bytes| {
        let mut from = 0;
        // Most bytes of a segment are zeros.
        while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'b') {
            if bytes[from + at..].starts_with(body.as_bytes()) {
                return true;
            }
            from += at + 1;
        }
        false
    })
}

fn repaired(cluster: &Cluster, node: usize, what: &str) -> bool {
    let series = format!("raftqueue_repairs_total{{what=\"{what}\"}}");
    cluster.is_ready(node) && cluster.metric(node, &series) > 0.5
}

#[test]
fn rule_2_5_another_entry_rots_on_each_node_and_all_of_them_are_mended() {
    let mut cluster = Cluster::new(3).with_operations().with_arguments(&CALM);
    cluster.start_all();
    let leader = cluster.leader();
    assert_eq!(call(&cluster, leader, "/v1/topics", &json!({"topic": "t"})).code, 200);
    for number in 0..COUNT {
        let messages = json!({"messages": [{"body": body(number)}]});
        assert_eq!(call(&cluster, leader, "/v1/topics/t/publish", &messages).code, 200);
    }
    cluster.wait_for("every node to have all", || {
        let has_all = |node| stands(&cluster, node, COUNT - 1);
        if (0..3).all(has_all) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    (0..3).for_each(|node| cluster.kill(node));
    for node in 0..3 {
        flip(&cluster, node, node + 1);
        assert!(!stands(&cluster, node, node + 1));
    }
    cluster.start_all();
    for node in 0..3 {
        cluster.wait_for("a record to be put back", || {
            if repaired(&cluster, node, "record") { Ok(()) } else { Err(cluster.logs()) }
        });
        assert!(stands(&cluster, node, node + 1), "{}", cluster.logs());
        assert!(cluster.metric(node, "raftqueue_log_holes") < 0.5);
    }
    let leader = cluster.leader();
    assert_eq!(numbers(&peek(&cluster, leader)), (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn rule_3_2_a_message_that_rots_is_got_from_another_node() {
    let (cluster, first) = with_messages(3);
    flip(&cluster, first, ROTTEN);
    assert_eq!(numbers(&receive(&cluster, first, 0)), others());
    cluster.wait_for("the message to come", || {
        if repaired(&cluster, first, "message") { Ok(()) } else { Err(cluster.logs()) }
    });
    assert!(stands(&cluster, first, ROTTEN), "{}", cluster.logs());
    receive_the_last(&cluster, first);
}

#[test]
fn rule_2_6_a_node_that_lost_what_it_promised_takes_part_once_all_others_were_heard() {
    let mut cluster = Cluster::new(3).with_operations().with_arguments(&CALM);
    cluster.start_all();
    let leader = cluster.leader();
    assert_eq!(call(&cluster, leader, "/v1/topics", &json!({"topic": "t"})).code, 200);
    // Each has the beginning of the log: it is known who the others are.
    (0..3).for_each(|node| cluster.wait_ready(node));
    let (lost, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(lost);
    cluster.stop(third);
    let path = cluster.data_dir(lost).join("HARDSTATE");
    let size = std::fs::metadata(&path).expect("it is there").len();
    std::fs::write(&path, vec![0; usize::try_from(size).expect("a few KiB")]).expect("it can be written");
    cluster.start(lost);
    cluster.wait_for_log("HARDSTATE is lost: this node neither votes nor counts");
    assert!(!cluster.is_ready(lost));
    cluster.start(third);
    cluster.wait_ready(lost);
    assert!(repaired(&cluster, lost, "hard_state"), "{}", cluster.logs());
    // It counts: without it there is no quorum.
    cluster.stop(third);
    let leader = cluster.leader();
    let messages = json!({"messages": [{"body": body(1)}]});
    assert_eq!(call(&cluster, leader, "/v1/topics/t/publish", &messages).code, 200);
    assert_eq!(numbers(&peek(&cluster, leader)), [1]);
}

#[test]
fn rule_2_5_what_rots_is_found_and_put_back_before_anybody_wants_it() {
    const LARGE: usize = 40;
    let large = |number: usize| format!("body of {number:03} {}", "y".repeat(60_000));
    let mut cluster = Cluster::new(3).with_operations().with_arguments(&CALM);
    cluster.set_arguments(&[&CALM[..], &["--segment-bytes", "1048576"]].concat());
    cluster.start_all();
    let leader = cluster.leader();
    assert_eq!(call(&cluster, leader, "/v1/topics", &json!({"topic": "t"})).code, 200);
    for number in 0..LARGE {
        let messages = json!({"messages": [{"body": large(number)}]});
        assert_eq!(call(&cluster, leader, "/v1/topics/t/publish", &messages).code, 200);
    }
    let node = (leader + 1) % 3;
    cluster.stop(node);
    // It is in a segment that no start reads.
    flip_body(&cluster, node, &large(1));
    cluster.start(node);
    cluster.wait_for("what rots to be put back", || {
        let is_found = cluster.is_ready(node) && cluster.metric(node, "raftqueue_scrub_damaged_total") > 0.5;
        let is_mended = is_found && repaired(&cluster, node, "record") | repaired(&cluster, node, "message");
        if is_mended { Ok(()) } else { Err(cluster.logs()) }
    });
    assert!(cluster.metric(node, "raftqueue_log_holes") < 0.5);
}
