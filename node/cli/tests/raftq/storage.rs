//! What nodes keep on their disks, as it is shown and judged.

use super::{Node, dead_address, run};
use raftqueue_node::api::{LocalStatus, SnapshotInfo, StorageInfo};
use raftqueue_node::fake::leading;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a node says that it keeps, each number another one.
fn kept() -> StorageInfo {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let written_ms = u64::try_from(now.as_millis()).expect("the clock is not that far") - 300_000;
    StorageInfo {
        segment_bytes: 1 << 20,
        log_segments: 3,
        released_segments: 2,
        kept_files: 4,
        kept_bytes: 5_000,
        stored_bytes: 3 << 20,
        live_bytes: 1 << 20,
        snapshot: Some(SnapshotInfo { index: 900, bytes: 2_048, written_ms }),
        snapshots_bytes: 4_000,
        incomplete: false,
        lacking: Some(0),
        lost: 0,
        damaged_files: 0,
        used_bytes: 7 << 20,
        free_bytes: 1 << 30,
        disk_bytes: 1 << 40,
        messages: Some(11),
        message_bytes: Some(220),
        resident_bytes: 9 << 20,
        cpu_ms: 1_500,
        log_holes: 0,
        repairs: 0,
        scrubbed_bytes: 5 << 20,
        scrub_passes: 2,
        scrub_damaged: 0,
    }
}

#[test]
fn status_tells_what_each_node_keeps() {
    let node = Node::start();
    node.served.node.set_storage(kept());
    let (endpoint, down) = (node.served.endpoint(), dead_address());
    let endpoints = format!("{endpoint},{down}");
    let table = run(&endpoints, "status --storage -o table", b"").done();
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
    let words: Vec<Vec<&str>> =
        words.into_iter().map(|line| line.into_iter().filter(|word| !word.is_empty()).collect()).collect();
    assert_eq!(
        words[0],
        [
            "ENDPOINT", "NODE", "LOG", "RELEASED", "KEPT", "LIVE", "STORED", "SNAPSHOT", "AGE", "SIZE",
            "USED", "FREE", "NOTE"
        ],
        "{table}"
    );
    let expected =
        ["node-0", "3", "2", "4", "1.0 MiB", "3.0 MiB", "900", "5 min", "2.0 KiB", "7.0 MiB", "1.0 GiB"];
    assert_eq!((words[1][0], &words[1][1..]), (endpoint.as_str(), &expected[..]), "{table}");
    assert!(
        words[2][0] == down && table.lines().nth(2).is_some_and(|line| line.contains("refused")),
        "{table}"
    );

    let plain = run(&endpoints, "status --storage", b"").done();
    let fields: Vec<&str> = plain.lines().next().expect("a line").split('\t').collect();
    assert_eq!(fields[1..8], ["node-0", "3", "2", "4", "1048576", "3145728", "900"], "{plain}");
    assert_eq!(fields[9..], ["2048", "7340032", "1073741824", ""], "{plain}");

    let json = run(&endpoints, "status --storage -o json", b"").json();
    let expected = kept();
    assert_eq!(json[0]["view"], "storage");
    assert_eq!((&json[0]["kept_bytes"], &json[0]["lacking"]), (&5_000.into(), &0.into()));
    assert_eq!((&json[0]["messages"], &json[0]["message_bytes"]), (&11.into(), &220.into()));
    assert_eq!(json[0]["snapshot"]["index"], 900);
    assert_eq!((&json[0]["disk_bytes"], &json[0]["snapshots_bytes"]), (&(1_u64 << 40).into(), &4_000.into()));
    assert_eq!(json[0]["resident_bytes"], expected.resident_bytes);
    assert_eq!(json[0]["cpu_ms"], expected.cpu_ms);
    assert!(json[1]["error"].as_str().is_some_and(|error| error.contains("refused")), "{}", json[1]);
}

#[test]
fn what_is_wrong_with_a_nodes_disk_is_noted() {
    let node = Node::start();
    let noted = |storage: StorageInfo| {
        node.served.node.set_storage(storage);
        let plain = node.run("status --storage").done();
        plain.trim_end().rsplit('\t').next().unwrap_or_default().to_owned()
    };
    let incomplete = |lacking| StorageInfo { incomplete: true, lacking, ..kept() };
    assert_eq!(noted(incomplete(Some(12_345))), "installing: 12,345 messages to come");
    assert_eq!(noted(incomplete(Some(1))), "installing: 1 message to come");
    assert_eq!(noted(incomplete(None)), "installing: what is to come is being counted");
    let damaged = noted(StorageInfo { damaged_files: 2, ..kept() });
    assert!(
        damaged.starts_with("2 files unusable at its start") && damaged.contains("raftq wal dump"),
        "{damaged}"
    );
    let holes = noted(StorageInfo { log_holes: 1, repairs: 3, ..kept() });
    assert_eq!(holes, "1 record damaged in its log, to be mended; 3 damaged places mended");
    let not_ready = Some("it replays its log".to_owned());
    node.served.node.set_status(LocalStatus { not_ready, ..leading() });
    // What a blank node does not know is not made up.
    node.served.node.set_storage(StorageInfo { snapshot: None, messages: None, ..StorageInfo::default() });
    let plain = node.run("status --storage").done();
    assert!(plain.contains("\t-\t-\t-\t0\t0\tit replays its log\n"), "{plain}");
}

#[test]
fn nodes_that_say_nothing_are_no_success() {
    let down = dead_address();
    let ran = run(&down, "status --storage --timeout 200ms", b"");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains(&down) && ran.error.contains("no node says what it keeps"), "{ran:?}");
}

/// A short soak of a node that keeps so much.
fn soak(storage: StorageInfo) -> (super::Ran, Vec<serde_json::Value>) {
    let node = Node::start();
    node.served.node.set_storage(storage);
    let ran = node.run(
        "-o json bench soak --seconds 1 --rest 0 --every 1 --rate 2000 --leave 600 --producers 1 --batch 8 --size 10",
    );
    let lines =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
    (ran, lines)
}

#[test]
fn a_soak_shows_what_it_saw_and_judges_it() {
    // 8 segments, twice 220 bytes and 11 times 64 for what lives, and the snapshots.
    let bound_bytes = (8 << 20) + 2 * (220 + 11 * 64) + 4_000;
    let (ran, lines) = soak(StorageInfo { used_bytes: bound_bytes, ..kept() });
    assert_eq!((ran.code, ran.error.as_str()), (0, ""), "{ran:?}");
    let (last, samples) = lines.split_last().expect("lines");
    assert_eq!(
        (&last["what"], &last["holds"], &last["errors"]),
        (&"soak".into(), &true.into(), &0.into()),
        "{last}"
    );
    assert_eq!(last["worst"]["bound_bytes"], bound_bytes, "{last}");
    assert_eq!(last["resident_bytes_max"], 9_u64 << 20);
    let count = |field: &str| last[field].as_u64().expect("a count");
    assert!(count("published") > 0 && count("consumed") <= count("published"), "{last}");
    assert!(count("left_delayed") > 0 && count("left_dead") > 0, "{last}");
    let sample = samples.last().expect("one at the end");
    assert_eq!(
        (&sample["what"], &sample["live_bytes"]),
        (&"sample".into(), &(220 + 11 * 64).into()),
        "{sample}"
    );
    let seen = &sample["nodes"][0];
    assert_eq!((&seen["used_bytes"], &seen["holds"]), (&bound_bytes.into(), &true.into()), "{seen}");

    let (ran, lines) = soak(StorageInfo { used_bytes: bound_bytes + 1, ..kept() });
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.error.contains("the bound of the disk did not hold: after"), "{}", ran.error);
    assert_eq!(lines.last().expect("a verdict")["holds"], false);
}

#[test]
fn a_soak_is_a_table_for_people() {
    let node = Node::start();
    node.served.node.set_storage(kept());
    let table = node
        .run("-o table bench soak --seconds 1 --rest 0 --rate 1000 --leave 0 --producers 1 --batch 8")
        .done();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "nodes: node-0");
    assert!(lines[1].contains("DISK MIB") && lines[1].trim_end().ends_with("MEMORY MIB"), "{table}");
    assert!(lines[2].contains("yes") && lines[2].trim_end().ends_with("9.0"), "{table}");
    let verdict = lines.last().expect("a verdict");
    assert!(
        verdict.starts_with("done: published ") && verdict.contains("came nearest to its bound"),
        "{table}"
    );
    assert!(!verdict.contains("topic delete"), "nothing was left: {table}");
}
