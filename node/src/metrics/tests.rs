//! What is counted, and that it is all there.
//!
//! `RAFTQUEUE_RECORD=1 cargo test -p raftqueue-node series` writes `series.txt` anew.

use super::*;
use crate::api::Reason;
use raftqueue_queue::State;
use raftqueue_raft::{Index, Term};
use raftqueue_wal::{KeptFile, Manifest, SnapshotFile};
use std::fmt::Write;
use std::time::UNIX_EPOCH;

/// Every series: its name, labels, kind and help.
const SERIES: &str = include_str!("series.txt");

/// What the panels and alerts in `reference/operators.md` need of a node.
const NEEDED: &[(&str, &[&str])] = &[
    ("health: members ready, leader, quorum", &["raftqueue_ready", "raftqueue_raft_has_leader"]),
    (
        "who is a member, and who waits",
        &["raftqueue_members", "raftqueue_standing", "raftqueue_configuration_index"],
    ),
    ("which node and cluster", &["raftqueue_info", "raftqueue_cluster_info"]),
    (
        "throughput, redelivered, dead-lettered",
        &["raftqueue_message_events_total", "raftqueue_published_bytes_total"],
    ),
    ("in flight, depth by state", &["raftqueue_messages", "raftqueue_stored_bytes"]),
    ("latency", &["raftqueue_raft_propose_to_commit_seconds", "raftqueue_raft_commit_to_apply_seconds"]),
    ("calls by method", &["raftqueue_call_seconds", "raftqueue_call_failures_total"]),
    ("forwards", &["raftqueue_calls_forwarded_total"]),
    (
        "disk",
        &[
            "raftqueue_wal_sync_seconds",
            "raftqueue_wal_free_bytes",
            "raftqueue_wal_reserve_bytes",
            "raftqueue_wal_disk_bytes",
        ],
    ),
    (
        "segments and kept files",
        &["raftqueue_wal_segments", "raftqueue_wal_released_segments", "raftqueue_kept_files"],
    ),
    (
        "how full, and with what",
        &["raftqueue_data_bytes", "raftqueue_file_message_bytes", "raftqueue_file_live_bytes"],
    ),
    (
        "snapshots: age, size, duration",
        &["raftqueue_snapshot_timestamp_seconds", "raftqueue_snapshot_bytes", "raftqueue_snapshot_seconds"],
    ),
    ("snapshots that fail", &["raftqueue_snapshot_failures_total", "raftqueue_snapshots_total"]),
    (
        "install",
        &[
            "raftqueue_incomplete",
            "raftqueue_install_messages_missing",
            "raftqueue_messages_lost",
            "raftqueue_snapshots_installed_total",
        ],
    ),
    ("damage", &["raftqueue_damaged_files", "raftqueue_log_holes", "raftqueue_repairs_total"]),
    (
        "scrub",
        &["raftqueue_scrub_bytes_total", "raftqueue_scrub_passes_total", "raftqueue_scrub_damaged_total"],
    ),
    ("batches", &["raftqueue_wal_batch_bytes", "raftqueue_wal_batch_entries"]),
    ("leader over time", &["raftqueue_raft_is_leader", "raftqueue_raft_term"]),
    ("elections", &["raftqueue_raft_elections_total", "raftqueue_raft_leader_changes_total"]),
    (
        "fail-over: hint or timeout",
        &["raftqueue_raft_elections_won_total", "raftqueue_peer_connections_ended_total"],
    ),
    ("proposals", &["raftqueue_entries_proposed_total", "raftqueue_entries_overtaken_total"]),
    ("committed and applied", &["raftqueue_raft_commit_index", "raftqueue_raft_applied_index"]),
    ("uncommitted", &["raftqueue_raft_last_index", "raftqueue_raft_uncommitted_bytes"]),
    ("follower lag", &["raftqueue_raft_durable_index"]),
    ("peers", &["raftqueue_peer_messages_total", "raftqueue_peer_refusals_total"]),
    (
        "process",
        &["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"],
    ),
    ("files", &["process_open_fds", "process_max_fds"]),
    ("connections", &["raftqueue_connections_open", "raftqueue_connections_refused_total"]),
    (
        "certificates",
        &["raftqueue_tls_handshakes_failed_total", "raftqueue_tls_certificate_expires_timestamp_seconds"],
    ),
    ("reloads", &["raftqueue_reloads_failed_total"]),
    ("loop lag", &["raftqueue_loop_lag_seconds"]),
    ("sessions", &["raftqueue_sessions"]),
    ("queues: depth and age", &["raftqueue_topic_messages", "raftqueue_topic_oldest_ready_seconds"]),
    ("queues: rates", &["raftqueue_topic_published_total", "raftqueue_topic_settled_total"]),
    ("oldest message", &["raftqueue_oldest_ready_seconds"]),
    ("consumers", &["raftqueue_receives_waiting"]),
    ("clocks", &["raftqueue_log_time_ahead_seconds"]),
    ("back-pressure", &["raftqueue_calls_refused_total", "raftqueue_calls_queued_bytes"]),
];

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render(Form::Text)).expect("text")
}

/// The value of a series in the text that Prometheus reads.
fn value(metrics: &Metrics, series: &str) -> f64 {
    let text = text(metrics);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{series} is not in\n{text}"))
}

/// Metrics in which everything happened once that adds a label.
fn busy() -> Metrics {
    let metrics = Metrics::new("node-0");
    let failure = Failure::not_done(Reason::TopicNotFound, "none");
    let method = Method::DescribeTopic;
    metrics.call_ended(method, Duration::from_millis(3), Some(&failure));
    drop(metrics.connections("clients").open());
    metrics.standing("0a", true);
    let mut state = State::default();
    let meta = raftqueue_queue::ApplyMeta { index: 1, now_ms: 1, version: 1 };
    let settings = raftqueue_queue::TopicSettings::default();
    let name = "orders".into();
    let create = raftqueue_queue::Command::CreateTopic { name, settings, topics_max: 1, request_id: None };
    let _ = state.apply(&meta, &create);
    let found = Census::default().tick(&state, |_, _| None).expect("one topic is seen at once");
    metrics.counted(found, 0);
    metrics.lacking(Some(0));
    metrics
}

/// In OpenMetrics the name of a counter is what stands before `_total`.
#[test]
fn no_two_series_are_of_one_name_for_whoever_asks_for_openmetrics() {
    let is_name = |line: &&str| !line.starts_with(' ') && !line.is_empty();
    let mut names: Vec<&str> = SERIES
        .lines()
        .filter(is_name)
        .map(|line| line.split(['{', ' ']).next().expect("a first word"))
        .map(|name| name.strip_suffix("_total").unwrap_or(name))
        .collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|two| two[0] == two[1]).collect();
    assert!(names.len() > 50 && twice.is_empty(), "{twice:?}");
}

#[test]
fn the_file_lists_every_series() {
    let metrics = busy();
    drop(metrics.render(Form::Text));
    let mut listed = String::new();
    for family in metrics.registry.gather() {
        let labels = family.get_metric()[0].get_label().iter().map(|label| label.name());
        let labels: Vec<&str> = labels.collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        writeln!(listed, "{}{labels}  {kind}\n    {}", family.name(), family.help()).expect("to memory");
    }
    if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/series.txt");
        std::fs::write(file, listed).expect("written");
        return;
    }
    assert_eq!(SERIES, listed, "see the header of this file for how it is written anew");
}

#[test]
fn every_panel_and_alert_has_its_series() {
    let names: Vec<&str> = SERIES.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    for (what, needed) in NEEDED {
        for series in *needed {
            assert!(names.contains(series), "{what}: {series}");
        }
    }
}

#[test]
fn what_never_happened_is_there_as_zero() {
    let metrics = Metrics::new("node-0");
    for series in [
        "raftqueue_message_events_total{event=\"died\"}",
        "raftqueue_peer_messages_total{result=\"dropped\"}",
        "raftqueue_peer_refusals_total{reason=\"clone\"}",
        "raftqueue_call_seconds_count{method=\"publish\"}",
        "raftqueue_ready",
    ] {
        assert!(value(&metrics, series).abs() < f64::EPSILON, "{series}");
    }
}

#[test]
fn rule_10_4_what_the_queue_holds_is_not_shown_before_it_is_known() {
    let shown = |metrics: &Metrics| -> Vec<String> {
        let families = metrics.registry.gather().into_iter().map(|family| family.name().to_owned());
        let of_queue = |name: &String| {
            name.contains("_topic")
                || ["messages", "sessions", "bytes", "ready_seconds"].iter().any(|end| {
                    *name == format!("raftqueue_{end}")
                        || *name == format!("raftqueue_stored_{end}")
                        || *name == format!("raftqueue_oldest_{end}")
                })
        };
        families.filter(of_queue).collect()
    };
    let metrics = Metrics::new("node-0");
    drop(metrics.render(Form::Text));
    assert_eq!(shown(&metrics), [""; 0]);
    let metrics = busy();
    drop(metrics.render(Form::Text));
    assert_eq!(shown(&metrics).len(), 10, "{:?}", shown(&metrics));
}

#[test]
fn calls_are_counted_by_method_and_reason() {
    let metrics = Metrics::new("node-0");
    let method = Method::DescribeTopic;
    let failure = Failure::not_done(Reason::TopicNotFound, "none");
    metrics.call_ended(method, Duration::from_millis(3), None);
    metrics.call_ended(method, Duration::from_millis(3), Some(&failure));
    metrics.call_forwarded();
    let series = "raftqueue_call_seconds_count{method=\"describe_topic\"}";
    assert!((value(&metrics, series) - 2.0).abs() < f64::EPSILON);
    let series = "raftqueue_call_failures_total{method=\"describe_topic\",reason=\"TOPIC_NOT_FOUND\"}";
    assert!((value(&metrics, series) - 1.0).abs() < f64::EPSILON);
    assert!((value(&metrics, "raftqueue_calls_forwarded_total") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn batches_and_the_process_are_seen() {
    let metrics = Metrics::new("node-0");
    metrics.wal_synced(Duration::from_millis(1), 3, 5_000);
    metrics.data_dir(Path::new("/"));
    assert!((value(&metrics, "raftqueue_wal_batch_entries_sum") - 3.0).abs() < f64::EPSILON);
    assert!((value(&metrics, "raftqueue_wal_batch_bytes_sum") - 5_000.0).abs() < f64::EPSILON);
    for series in
        ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "raftqueue_wal_disk_bytes"]
    {
        assert!(value(&metrics, series) > 0.0, "{series}");
    }
    assert!(value(&metrics, "process_start_time_seconds") > 1e9);
}

#[test]
fn a_term_is_stood_for_once() {
    let metrics = Metrics::new("node-0");
    for (role, term) in [
        (RoleKind::Follower, 3),
        (RoleKind::PreCandidate, 3),
        (RoleKind::Candidate, 4),
        (RoleKind::Leader, 4),
        (RoleKind::Follower, 5),
        (RoleKind::Leader, 6),
    ] {
        metrics.role_changed(&RoleState { role, term: Term(term), leader: None }, Cause::Hint);
    }
    let won =
        |cause: &str| value(&metrics, &format!("raftqueue_raft_elections_won_total{{cause=\"{cause}\"}}"));
    assert_eq!([won("hint"), won("timeout"), won("hand_over")].map(|won| won as u64), [2, 0, 0]);
    assert!((value(&metrics, "raftqueue_raft_elections_total") - 2.0).abs() < f64::EPSILON);
}

#[test]
fn a_connection_is_open_until_it_is_dropped() {
    let metrics = Metrics::new("node-0");
    let meter = metrics.connections("peers");
    let held = meter.open();
    meter.refused(Crowded::Address);
    let open = "raftqueue_connections_open{port=\"peers\"}";
    assert!((value(&metrics, open) - 1.0).abs() < f64::EPSILON);
    drop(held);
    assert!(value(&metrics, open).abs() < f64::EPSILON);
    let refused = "raftqueue_connections_refused_total{port=\"peers\",reason=\"address\"}";
    assert!((value(&metrics, refused) - 1.0).abs() < f64::EPSILON);
}

/// A manifest with a few files of every kind.
fn manifest() -> Manifest {
    let snapshot =
        |number, size, index| SnapshotFile { number, size, crc: 0, index: Index(index), term: Term(1) };
    let kept = |number, size| KeptFile { number, size, crc: 0, since: Index(5) };
    Manifest {
        first_segment: 7,
        released: vec![2, 4, 5],
        kept: vec![kept(20, 700), kept(21, 50)],
        snapshots: vec![snapshot(30, 100, 500), snapshot(31, 120, 600)],
        ..Manifest::default()
    }
}

#[test]
fn files_are_counted_as_the_manifest_names_them() {
    let metrics = Metrics::new("node-0");
    metrics.segment_bytes(4_096);
    metrics.damaged_files(2);
    metrics.filed(&manifest(), 4);
    metrics.stored(&Stored { message_bytes: 1_000, live_bytes: 300 });
    metrics.incomplete(true);
    for (series, expected) in [
        ("raftqueue_wal_segment_bytes", 4_096.0),
        ("raftqueue_wal_segments", 4.0),
        ("raftqueue_wal_released_segments", 3.0),
        ("raftqueue_kept_files", 2.0),
        ("raftqueue_kept_file_bytes", 750.0),
        ("raftqueue_snapshot_index", 600.0),
        ("raftqueue_snapshot_bytes", 120.0),
        ("raftqueue_snapshot_files_bytes", 220.0),
        ("raftqueue_file_message_bytes", 1_000.0),
        ("raftqueue_file_live_bytes", 300.0),
        ("raftqueue_damaged_files", 2.0),
        ("raftqueue_incomplete", 1.0),
    ] {
        assert!((value(&metrics, series) - expected).abs() < f64::EPSILON, "{series}");
    }
    metrics.mended(3, 4, 5, 6);
    metrics.messages_repaired(10);
    metrics.scrubbed(700, 8);
    metrics.scrub_pass();
    let told = metrics.storage();
    let expected = crate::api::StorageInfo {
        segment_bytes: 4_096,
        log_segments: 4,
        released_segments: 3,
        kept_files: 2,
        kept_bytes: 750,
        stored_bytes: 1_000,
        live_bytes: 300,
        snapshot: Some(crate::api::SnapshotInfo { index: 600, bytes: 120, written_ms: 0 }),
        snapshots_bytes: 220,
        incomplete: true,
        damaged_files: 2,
        resident_bytes: told.resident_bytes,
        cpu_ms: told.cpu_ms,
        log_holes: 5,
        repairs: 17,
        scrubbed_bytes: 700,
        scrub_passes: 1,
        scrub_damaged: 8,
        ..Default::default()
    };
    assert_eq!(told, expected);
    assert!(told.resident_bytes > 0);
    metrics.counted(Census::default().tick(&State::default(), |_, _| None).expect("at once"), 0);
    assert_eq!(metrics.storage().messages, Some(0), "once the node knows what it holds");
}

#[test]
fn what_is_lacking_is_absent_until_somebody_has_counted_it() {
    let metrics = Metrics::new("node-0");
    let series = "raftqueue_install_messages_missing";
    assert!(!text(&metrics).contains(series) && metrics.storage().lacking.is_none());
    metrics.filled(4, 100);
    assert!(!text(&metrics).contains(series), "nobody knows of how many these are a part");
    metrics.lacking(Some(10));
    metrics.filled(4, 100);
    assert_eq!(metrics.storage().lacking, Some(6));
    assert!((value(&metrics, series) - 6.0).abs() < f64::EPSILON);
    assert!((value(&metrics, "raftqueue_install_bytes_total") - 200.0).abs() < f64::EPSILON);
    metrics.lacking(None);
    assert!(!text(&metrics).contains(series) && metrics.storage().lacking.is_none());
}

#[test]
fn what_the_files_take_and_when_the_snapshot_was_written_is_looked_at_on_the_disk() {
    let folder = std::env::temp_dir().join(format!("raftqueue-metrics-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let metrics = Metrics::new("node-0");
    metrics.data_dir(&folder);
    metrics.filed(&manifest(), 1);
    let newest = folder.join(manifest().snapshots[1].name());
    std::fs::write(&newest, vec![7; 10_000]).expect("written");
    let file = std::fs::File::options().write(true).open(&newest).expect("it is there");
    file.set_modified(UNIX_EPOCH + Duration::from_millis(1_500)).expect("its time can be set");
    file.sync_all().expect("synced");
    let told = metrics.storage();
    let used = value(&metrics, "raftqueue_data_bytes");
    let written = value(&metrics, "raftqueue_snapshot_timestamp_seconds");
    std::fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(told.snapshot.map(|snapshot| snapshot.written_ms), Some(1_500));
    assert!((written - 1.5).abs() < f64::EPSILON, "{written}");
    assert!((10_000..100_000).contains(&told.used_bytes), "{}", told.used_bytes);
    assert!((used - told.used_bytes as f64).abs() < f64::EPSILON, "{used}");
}
