//! Bits flip wherever something stands on real disks, and the power goes: everything is read all the same, and what was put
//! back is told of.

use raftqueue_tests::process::{CALM, Cluster, Ended, programs, run_to_end};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOPIC: &str = "t";
/// The smallest segments that there are, so that files of every kind come about soon.
const SEGMENT_BYTES: &str = "1048576";
/// Published first; of these one in [`OLD_LEFT_OF`] is left, in a kept file in the end.
const OLD: usize = 400;
const OLD_LEFT_OF: usize = 20;
/// Published after them to another topic, more than a segment of them: whichever segment the first stand in ends. A node that
/// was late got them all in one write, and has them in the segment that it writes to.
const OTHERS: usize = 140;
/// Published last: they stand in the log.
const NEW: usize = 12;
/// One of those that are left of the first.
const KEPT: usize = OLD / OLD_LEFT_OF / 2 * OLD_LEFT_OF;

fn body(number: usize) -> String {
    format!("body of {number:04} {}", "x".repeat(8_000))
}

/// What is left in the end, in the order of publishing.
fn left() -> Vec<usize> {
    (0..OLD).step_by(OLD_LEFT_OF).chain(OLD..OLD + NEW).collect()
}

fn call(cluster: &Cluster, node: usize, path: &str, request: &Value) -> Value {
    let answer = cluster.patient(node).request("POST", path, request.to_string().as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.code, 200, "{answer:?}\n{}", cluster.logs());
    answer.body
}

fn publish(cluster: &Cluster, node: usize, topic: &str, numbers: impl IntoIterator<Item = usize>) {
    let messages: Vec<Value> = numbers.into_iter().map(|number| json!({"body": body(number)})).collect();
    call(cluster, node, &format!("/v1/topics/{topic}/publish"), &json!({ "messages": messages }));
}

/// Publishes in batches, and waits until every node has all.
fn publish_to_all(
    cluster: &Cluster,
    node: usize,
    topic: &str,
    numbers: std::ops::Range<usize>,
    batch: usize,
) {
    let last = numbers.end - 1;
    for batch in numbers.collect::<Vec<_>>().chunks(batch) {
        publish(cluster, node, topic, batch.iter().copied());
    }
    for node in 0..cluster.count() {
        cluster.wait_until("every node to have all", || place(cluster, node, "segment-", last).is_some());
    }
}

/// Acknowledges all but those that are left.
fn consume(cluster: &Cluster, node: usize) {
    let mut held = Vec::new();
    for _ in 0..OLD.div_ceil(100) {
        let request = json!({"messages_max": 100, "lease_ms": 600_000});
        let answer = call(cluster, node, "/v1/topics/t/receive", &request);
        let (mut done, deliveries) = (Vec::new(), answer["deliveries"].as_array().expect("a list"));
        for delivery in deliveries {
            let is_left = number(delivery).is_multiple_of(OLD_LEFT_OF);
            if is_left { &mut held } else { &mut done }.push(delivery["lease"].clone());
        }
        call(cluster, node, "/v1/topics/t/ack", &json!({ "leases": done }));
    }
    call(cluster, node, "/v1/topics/t/release", &json!({ "leases": held }));
}

fn number(delivery: &Value) -> usize {
    let text = delivery["body"].as_str().expect("text");
    let number = text[8..12].parse().expect("a number");
    assert_eq!(text, body(number), "nothing of it is changed");
    number
}

fn peek(cluster: &Cluster, node: usize) -> Vec<usize> {
    let answer = call(cluster, node, "/v1/topics/t/peek", &json!({"messages_max": 1_000}));
    answer["deliveries"].as_array().expect("a list").iter().map(number).collect()
}

/// The files of a node whose names begin so, the newest last.
fn files(cluster: &Cluster, node: usize, prefix: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(cluster.data_dir(node)).expect("the folder is there");
    let names = folder.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = names
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    files.sort();
    files
}

/// Where a message stands in a node's files that are named so.
fn place(cluster: &Cluster, node: usize, prefix: &str, message: usize) -> Option<(PathBuf, u64)> {
    let head = &body(message)[..16];
    files(cluster, node, prefix).into_iter().find_map(|path| {
        // It may just have gone.
        let bytes = std::fs::read(&path).ok()?;
        let at = bytes.windows(head.len()).position(|window| window == head.as_bytes())?;
        Some((path, at as u64))
    })
}

fn flip(path: &PathBuf, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("it can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it can be read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("it can be written");
}

/// One bit within the body of a message.
fn flip_message(cluster: &Cluster, node: usize, prefix: &str, message: usize) {
    let (path, at) = place(cluster, node, prefix, message).expect("it stands there");
    flip(&path, at + 500);
}

fn repairs(cluster: &Cluster, node: usize, what: &str) -> f64 {
    cluster.metric(node, &format!("raftqueue_repairs_total{{what=\"{what}\"}}"))
}

/// What `raftq` says at a node, line by line, or why it did not do it.
fn raftq(cluster: &Cluster, node: usize, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let endpoint = format!("127.0.0.1:{}", cluster.ports(node).0);
    let mut command = Command::new(programs().join("raftq"));
    command.args(["--endpoints", &endpoint, "-o", "json"]).args(arguments);
    let output = command.output().expect("raftq can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// What `raftq` says of what a node keeps.
fn storage_of(cluster: &Cluster, node: usize) -> Value {
    let lines = raftq(cluster, node, &["status", "--storage"]).unwrap_or_else(|why| panic!("{why}"));
    let name = cluster.name(node);
    let is_it = |line: &&Value| line["view"] == "storage" && line["node"] == name;
    lines.iter().find(is_it).unwrap_or_else(|| panic!("{lines:?}")).clone()
}

fn small_segments(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(nodes).with_operations();
    cluster.set_arguments(&[&CALM[..], &["--segment-bytes", SEGMENT_BYTES]].concat());
    cluster.start_all();
    cluster
}

/// Publishes the old messages, and waits until a node has two snapshots, and what is left stands in a kept file only.
fn until_kept(cluster: &mut Cluster, of: impl Fn(usize) -> usize) -> usize {
    let leader = cluster.leader();
    for topic in [TOPIC, "others"] {
        call(cluster, leader, "/v1/topics", &json!({ "topic": topic }));
    }
    publish_to_all(cluster, leader, TOPIC, 0..OLD, 10);
    consume(cluster, leader);
    publish_to_all(cluster, leader, "others", OLD + NEW..OLD + NEW + OTHERS, 10);
    let node = of(leader);
    cluster.wait_for("what is left to stand in a kept file only", || {
        let is_kept = place(cluster, node, "kept-", KEPT).is_some();
        let is_elsewhere = place(cluster, node, "segment-", KEPT).is_some();
        let snapshots = files(cluster, node, "snapshot-").len();
        let is_so = is_kept && !is_elsewhere && snapshots == 2;
        if is_so {
            Ok(())
        } else {
            Err(format!("kept: {is_kept}, elsewhere: {is_elsewhere}, {snapshots} snapshots"))
        }
    });
    leader
}

/// One bit in the middle of each snapshot of a node, the newest first; `count` of them at most.
fn flip_snapshots(cluster: &Cluster, node: usize, count: usize) {
    for snapshot in files(cluster, node, "snapshot-").iter().rev().take(count) {
        let size = std::fs::metadata(snapshot).expect("it is there").len();
        flip(snapshot, size / 2);
    }
}

/// The node leads, and gives every message that is left.
fn leads_and_reads_all(cluster: &mut Cluster, node: usize) {
    let request = json!({"to": cluster.name(node)}).to_string();
    cluster.wait_for("the node to lead", || {
        let http = cluster.patient(node);
        let status = http.status().map_err(|error| format!("{error:?}"))?;
        if status.body["role"] == "Leader" {
            return Ok(());
        }
        Err(format!("{:?}", http.request("POST", "/v1/cluster/transfer", request.as_bytes())))
    });
    assert_eq!(peek(cluster, node), left());
}

#[test]
fn rule_2_5_bits_flip_in_everything_of_one_node_and_in_an_entry_of_each_and_all_is_read() {
    let mut cluster = small_segments(3);
    // The node of which a file of every kind is hit.
    let leader = until_kept(&mut cluster, |leader| (leader + 1) % 3);
    publish_to_all(&cluster, leader, TOPIC, OLD..OLD + NEW, 1);
    let victim = (leader + 1) % 3;
    (0..3).for_each(|node| cluster.kill(node));
    for node in 0..3 {
        flip_message(&cluster, node, "segment-", OLD + node + 1);
    }
    flip_message(&cluster, victim, "kept-", KEPT);
    flip_snapshots(&cluster, victim, 1);

    cluster.start_all();
    let leader = cluster.leader();
    assert_eq!(peek(&cluster, leader), left(), "{}", cluster.logs());
    for node in 0..3 {
        cluster.wait_until("the record to be put back", || repairs(&cluster, node, "record") > 0.5);
        cluster.reaches(node, "raftqueue_log_holes", |holes| holes < 0.5);
    }
    // It is met by the scrub, since this node does not read it for anybody.
    cluster.wait_until("the message to be put back", || repairs(&cluster, victim, "message") > 0.5);
    cluster.wait_until("the snapshot to be replaced", || repairs(&cluster, victim, "snapshot") > 0.5);
    let told = storage_of(&cluster, victim);
    assert!(told["repairs"].as_u64() >= Some(3), "{told}");
    assert_eq!((&told["log_holes"], &told["incomplete"]), (&json!(0), &json!(false)), "{told}");
    // It has everything itself.
    leads_and_reads_all(&mut cluster, victim);
}

#[test]
fn rule_3_5_a_node_that_can_read_no_snapshot_counts_and_gets_the_state_of_another() {
    let mut cluster = small_segments(3);
    let leader = until_kept(&mut cluster, |leader| (leader + 1) % 3);
    publish_to_all(&cluster, leader, TOPIC, OLD..OLD + NEW, 1);
    let (victim, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(victim);
    cluster.kill(third);
    flip_snapshots(&cluster, victim, 2);
    // Its vote elects the other one, and without it nothing more counts.
    cluster.start(victim);
    cluster.wait_for_log("this node gets the state of another one");
    cluster.make_topic("other");
    cluster.publish_until_taken(leader, "other", "x");
    cluster.wait_until("the snapshots to be replaced", || repairs(&cluster, victim, "snapshot") > 1.5);
    cluster.reaches(victim, "raftqueue_incomplete", |incomplete| incomplete < 0.5);
    cluster.wait_ready(victim);
    assert!(repairs(&cluster, leader, "snapshot") < 0.5);
    cluster.start(third);
    leads_and_reads_all(&mut cluster, victim);
    // And its own snapshots are good: it needs nobody for the next start.
    cluster.wait_until("it to have two snapshots", || files(&cluster, victim, "snapshot-").len() == 2);
    (0..3).for_each(|node| cluster.kill(node));
    cluster.start(victim);
    cluster.start(third);
    leads_and_reads_all(&mut cluster, victim);
    assert!(repairs(&cluster, victim, "snapshot") < 0.5, "{}", cluster.logs());
}

/// Every file of a folder and what is in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths.map(|path| (path.clone(), std::fs::read(&path).expect("it can be read"))).collect()
}

/// A start of a node is refused, with its exit code and with these words, and changes nothing.
fn is_refused(cluster: &Cluster, node: usize, what: &str, words: &[&str]) {
    let before = contents(&cluster.data_dir(node));
    let Ended { status, text } = run_to_end(&mut cluster.command(node));
    assert_eq!(status.code(), Some(3), "{what}: {text}");
    for word in words {
        assert!(text.contains(word), "{what}: `{word}` is not in {text}");
    }
    let after = contents(&cluster.data_dir(node));
    assert!(before.keys().eq(after.keys()), "{what}: {:?}, not {:?}", after.keys(), before.keys());
    let changed: Vec<_> =
        after.iter().filter(|(path, bytes)| before[*path] != **bytes).map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "{what}: {changed:?}");
}

#[test]
fn a_file_that_refuses_the_start_is_named_with_what_is_wrong_and_the_way_out_and_nothing_is_changed() {
    let mut cluster = small_segments(1);
    until_kept(&mut cluster, |leader| leader);
    publish_to_all(&cluster, 0, TOPIC, OLD..OLD + NEW, 1);
    cluster.kill(0);
    let folder = cluster.data_dir(0);
    let way_out = ["nothing was changed", "raftq members replace", "backup"];
    let with = |words: &[&'static str]| [words, &way_out[..]].concat();
    for (file, alone) in [("IDENTITY", "log (MANIFEST) but no IDENTITY"), ("MANIFEST", "but no MANIFEST")] {
        let path = folder.join(file);
        let good = std::fs::read(&path).expect("it is there");
        flip(&path, good.len() as u64 / 2);
        is_refused(&cluster, 0, "one bit", &with(&[file, "is damaged at 0: checksum mismatch"]));
        std::fs::write(&path, b"").expect("it can be written");
        is_refused(&cluster, 0, "empty", &with(&[file, "is damaged at 0: too short"]));
        std::fs::remove_file(&path).expect("it is there");
        is_refused(&cluster, 0, "gone", &with(&[alone]));
        std::fs::write(&path, good).expect("it can be written");
    }
    // Nobody else may have what is on the only disk that is left.
    std::fs::write(folder.join("RECOVERY"), b"?").expect("it can be written");
    is_refused(
        &cluster,
        0,
        "recovery",
        &["RECOVERY is damaged at 0: too short", "nothing was changed", "`raftq recover`"],
    );
    std::fs::remove_file(folder.join("RECOVERY")).expect("it is there");
    // Nor is there another node that could have the state.
    flip_snapshots(&cluster, 0, 2);
    let words = ["no snapshot can be read", "no other node", "nothing was changed", "from a backup"];
    is_refused(&cluster, 0, "snapshots", &words);
    flip_snapshots(&cluster, 0, 2);
    cluster.start(0);
    assert_eq!(cluster.leader(), 0);
    assert_eq!(peek(&cluster, 0), left());
}

/// What the refusal says is done as it says, with what `raftq members list` shows.
#[test]
fn a_node_whose_identity_rots_is_replaced_as_the_refusal_says() {
    let mut cluster = Cluster::started_with(3, &CALM);
    let leader = cluster.leader();
    cluster.make_topic(TOPIC);
    cluster.publish_until_taken(leader, TOPIC, "x");
    let victim = (leader + 1) % 3;
    cluster.kill(victim);
    let identity = cluster.data_dir(victim).join("IDENTITY");
    flip(&identity, 40);
    is_refused(
        &cluster,
        victim,
        "identity",
        &["raftq members list", "raftq members add NEW-ID", "raftq members replace OLD-ID NEW-ID"],
    );
    std::fs::remove_dir_all(cluster.data_dir(victim)).expect("it is there");
    cluster.start(victim);
    let id = |is_waiting: bool| {
        let name = cluster.name(victim);
        cluster.wait_for("the node to be listed", || {
            let members = raftq(&cluster, leader, &["members", "list"])?;
            let is_it = |line: &&Value| line["node"] == name && (line["kind"] == "waiting") == is_waiting;
            let id = members.iter().find(is_it).and_then(|line| line["node_id"].as_str());
            id.map(str::to_owned).ok_or_else(|| format!("{members:?}"))
        })
    };
    let (old, new) = (id(false), id(true));
    // A change whose answer got lost is refused when it is asked for again: what is listed counts.
    let is_listed = |new_kind: &str| {
        let members = raftq(&cluster, leader, &["members", "list"])?;
        let is_it = |line: &Value| line["node_id"] == new.as_str() && line["kind"] == new_kind;
        if members.iter().any(is_it) { Ok(()) } else { Err(format!("{members:?}")) }
    };
    cluster.wait_for("it to be added", || {
        let asked = raftq(&cluster, leader, &["members", "add", &new]);
        asked.map(drop).or_else(|_| is_listed("learner"))
    });
    cluster.wait_for("it to take the old place", || {
        let asked = raftq(&cluster, leader, &["members", "replace", &old, &new]);
        asked.map(drop).or_else(|_| is_listed("voter"))
    });
    cluster.kill((leader + 2) % 3);
    cluster.publish_until_taken(leader, TOPIC, "y");
}
