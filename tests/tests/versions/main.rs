//! Builds of one version understand each other: on disk, in the log, and side by side (rule 9.1).
//!
//! `node/wal/src/tests/goldens/version-1` is a data directory that was written when the forms of version 1 were frozen, and what
//! lives in it. Today's build opens it and goes on. What it reads there it writes byte by byte as it was, so an older build reads
//! what this one writes; and applying the log leads to the state that it led to then, so that two builds that apply the same
//! entries do not drift apart. The files themselves are held in `node/wal/src/tests/frozen.rs`.
//!
//! `RAFTQUEUE_BEFORE=COMMIT` builds the node of that commit too, in `target/before`, and runs clusters of both: node by node to
//! this build, installs from one to the other both ways, and back again. `RAFTQUEUE_RECORD_FOLDER=1` writes the folder anew:
//! that is for a new version only.

mod mixed;
mod record;
#[path = "../storage/traffic.rs"]
mod traffic;

use bytes::{Bytes, BytesMut};
use libtest_mimic::{Arguments, Completion, Trial};
use raftqueue_client::{Client, v1};
use raftqueue_node::api::NewMessage;
use raftqueue_node::api::codec;
use raftqueue_node::driver::restoring;
use raftqueue_queue::{ApplyMeta, Command, State};
use raftqueue_raft::{Entry, Index, Payload};
use raftqueue_tests::process::{Cluster, PATIENCE, repository, series_value};
use raftqueue_wal::disk::fake::{FakeDisk, read_folder};
use raftqueue_wal::{DataDir, Options, SnapshotReader};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const ARGUMENTS: [&str; 2] = ["--segment-bytes", "1048576"];
/// Commands that version 1 has, and those of them that nothing proposes yet.
const COMMANDS: usize = 16;
const NEVER_PROPOSED: usize = 1;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let always = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let mixed = Trial::ignorable_test("rule_9_1_builds_of_one_version_run_side_by_side", || {
        let Some(commit) = std::env::var_os("RAFTQUEUE_BEFORE") else {
            return Ok(Completion::ignored_with("set RAFTQUEUE_BEFORE to the commit of another build"));
        };
        mixed::lives(&commit);
        Ok(Completion::Completed)
    });
    if std::env::var_os("RAFTQUEUE_RECORD_FOLDER").is_some() {
        write_goldens();
    }
    let trials = vec![
        always(
            "rule_9_1_what_a_log_of_version_1_says_means_and_is_written_what_it_was",
            what_a_log_says_is_what_it_was,
        ),
        always("rule_9_1_a_node_goes_on_from_a_folder_of_version_1", a_node_goes_on),
        mixed,
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn golden(name: &str) -> PathBuf {
    repository().join("node/wal/src/tests/goldens/version-1").join(name)
}

fn read_golden(name: &str) -> String {
    std::fs::read_to_string(golden(name)).expect("it is in the repository")
}

fn write_goldens() {
    let recorded = Runtime::new().expect("a runtime").block_on(record::record());
    let state = Log::open(&recorded.folder).check();
    for (name, text) in [("folder", &recorded.folder), ("living", &recorded.living), ("state", &state)] {
        std::fs::write(golden(name), text).expect("it can be written");
    }
}

fn what_a_log_says_is_what_it_was() {
    assert_eq!(
        Log::open(&read_golden("folder")).check(),
        read_golden("state"),
        "the state after all entries"
    );
}

/// A log, opened in this process.
struct Log {
    disk: FakeDisk,
    start: Index,
    last: Index,
    entries: Vec<Entry>,
    snapshots: Vec<raftqueue_wal::SnapshotFile>,
}

impl Log {
    fn open(folder: &str) -> Self {
        let disk = FakeDisk::of_folder(folder);
        let mut directory = DataDir::open(Arc::new(disk.clone()), None).expect("it opens");
        let options = Options { segment_bytes: 1 << 20, entropy: 1, ..Options::default() };
        let (wal, recovered) = directory.open_log(options).expect("it opens");
        assert!(recovered.damaged_files.is_empty(), "{:?}", recovered.damaged_files);
        let (start, last) = (recovered.start.0, recovered.last_index);
        let entries = wal.reader().entries(start.next(), last.next(), u64::MAX).expect("all can be read");
        assert_eq!(entries.len() as u64, last.0 - start.0);
        Self { disk, start, last, entries, snapshots: recovered.manifest.snapshots }
    }

    /// Reads and writes everything; returns the state at the end.
    fn check(&self) -> String {
        let mut commands = BTreeSet::new();
        for entry in &self.entries {
            if let Payload::Command { meta, bodies } = &entry.payload {
                check_entry(meta, bodies, &mut commands);
            }
        }
        assert_eq!(commands.len(), COMMANDS - NEVER_PROPOSED, "{commands:?}");
        let mut sections = BTreeSet::new();
        for file in &self.snapshots {
            let (head, mut reader) = SnapshotReader::open(&self.disk, file).expect("it opens");
            let version = head.configuration.version;
            while let Some(bytes) = reader.next().expect("it can be read") {
                let section = codec::read_section(version, &bytes).expect("it is known");
                let mut written = BytesMut::new();
                codec::write_section(&mut written, version, &section);
                assert_eq!(written, bytes, "{section:?}");
                sections.insert(section.name());
            }
        }
        // One that goes on is the only thing that a snapshot happens not to have.
        assert_eq!(sections.len(), 13, "{sections:?}");
        // From either snapshot the log leads to one state.
        let [older, newer] = [0, 1].map(|number| {
            let freeze = restoring::read(&self.disk, &self.snapshots[number]).expect("it can be read");
            assert!(freeze.index >= self.start && freeze.index < self.last);
            self.apply(freeze.state, freeze.index)
        });
        assert_eq!(older, newer);
        newer
    }

    fn apply(&self, mut state: State, at: Index) -> String {
        let mut version = 1;
        for entry in self.entries.iter().filter(|entry| entry.index > at) {
            match &entry.payload {
                Payload::Noop => {}
                Payload::Config(configuration) => version = configuration.version,
                Payload::Command { meta, .. } => {
                    let entry_meta = codec::read_entry(meta).expect("it is known");
                    let apply = ApplyMeta { index: entry.index.0, now_ms: entry_meta.stamp_ms, version };
                    for command in &entry_meta.commands {
                        state.apply(&apply, command);
                    }
                }
            }
        }
        let mut text = String::new();
        for section in state.into_sections() {
            let mut written = BytesMut::new();
            codec::write_section(&mut written, 1, &section);
            let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "{} {digits}", section.name());
        }
        text
    }
}

fn check_entry(meta: &Bytes, bodies: &Bytes, commands: &mut BTreeSet<String>) {
    let entry = codec::read_entry(meta).expect("it is known");
    let mut writer = codec::EntryWriter::default();
    let mut at = 0;
    for command in &entry.commands {
        writer.push(command);
        let text = format!("{command:?}");
        commands.insert(text.split([' ', '{']).next().unwrap_or_default().to_owned());
        let Command::Publish { messages, .. } = command else { continue };
        for message in messages {
            let stored = bodies.slice(at..at + message.size as usize);
            at += message.size as usize;
            let read = codec::read_message(&stored, message.crc).expect("it is whole");
            let message = NewMessage {
                body: read.body,
                body_crc: read.body_crc,
                key: read.key,
                headers: read.headers,
                ..NewMessage::default()
            };
            let mut written = BytesMut::new();
            codec::write_message(&mut written, &message);
            assert!(written == stored, "a message is written otherwise");
        }
    }
    assert_eq!(at, bodies.len());
    assert_eq!(writer.finish(u32::from(meta[0]), entry.stamp_ms), meta, "{:?}", entry.commands);
}

fn a_node_goes_on() {
    let mut cluster = Cluster::new(1).with_links().with_operations().with_arguments(&ARGUMENTS);
    std::fs::create_dir_all(cluster.data_dir(0)).expect("there is room");
    for (name, bytes) in read_folder(&read_golden("folder")) {
        std::fs::write(cluster.data_dir(0).join(name), bytes).expect("there is room");
    }
    let runtime = Runtime::new().expect("a runtime");
    // The second time it goes on from what it has written itself.
    for time in 0..2 {
        cluster.start(0);
        cluster.leader();
        runtime.block_on(async {
            let client = client(&cluster);
            expect_living(&client, &read_golden("living")).await;
            change_a_topic(&client, time == 0).await;
            go_on(&cluster, &client, time).await;
        });
        cluster.stop(0);
    }
}

/// What only version 2 has is refused until somebody raises the version, and is in force from then on.
async fn change_a_topic(client: &Client, is_first: bool) {
    let topics = client.list_topics(v1::ListTopicsRequest::default()).await.expect("listed").topics;
    let topic = topics.first().expect("there are some").name.clone();
    let update = |attempts_max| {
        let options = Some(v1::TopicOptions { attempts_max: Some(attempts_max), ..Default::default() });
        v1::UpdateTopicRequest { topic: topic.clone(), options, unset: Vec::new() }
    };
    if is_first {
        let refused = client.update_topic(update(77)).await.expect_err("version 1 is in force");
        assert!(refused.to_string().contains("raftq members raise-version"), "{refused}");
        client.raise_version(v1::RaiseVersionRequest::default()).await.expect("the only member runs it");
        client.update_topic(update(77)).await.expect("changed");
    }
    let members = client.members(v1::MembersRequest {}).await.expect("listed");
    assert_eq!((members.version, members.members[0].version_max), (2, 2));
    let options = describe(client, &topic).await.options.expect("it has some");
    assert_eq!(options.attempts_max, Some(77));
}

/// So much goes through a node that it writes every kind of file, and nothing gets lost in that.
async fn go_on(cluster: &Cluster, client: &Client, time: u8) {
    let before = read_living(client).await;
    let topic = format!("time {time}");
    client
        .create_topic(v1::CreateTopicRequest { topic: topic.clone(), ..Default::default() })
        .await
        .expect("made");
    for number in 0..40_u8 {
        let message = |body: Vec<u8>| v1::NewMessage { body: body.into(), ..Default::default() };
        let messages = vec![message(vec![number; 250 << 10]), message(vec![number])];
        let request = v1::PublishRequest { topic: topic.clone(), session: None, messages };
        client.publish(request).await.expect("published");
        let request = v1::ReceiveRequest {
            topic: topic.clone(),
            messages_max: 2,
            lease_ms: Some(3_600_000),
            ..Default::default()
        };
        let received = client.receive(request).await.expect("received").deliveries;
        assert!(received.iter().all(|delivery| delivery.body.iter().all(|byte| *byte == number)));
        // A small one stays here and there, so that something is copied out.
        let done = received.iter().take(if number % 3 == 0 { 1 } else { 2 });
        let leases = done.map(|delivery| delivery.lease.clone()).collect();
        client
            .ack(v1::AckRequest { topic: topic.clone(), leases, ..Default::default() })
            .await
            .expect("done");
    }
    wait_until_stored(cluster).await;
    expect_living(client, &before).await;
}

/// Everything that lived is there; newer topics may be.
async fn expect_living(client: &Client, before: &str) {
    let living = read_living(client).await;
    for (line, was) in living.lines().zip(before.lines()) {
        assert_eq!(line, was, "what lives is another");
    }
    assert!(living.lines().count() >= before.lines().count(), "less lives than did");
}

fn client(cluster: &Cluster) -> Client {
    let endpoints = (0..cluster.count()).map(|node| format!("127.0.0.1:{}", cluster.ports(node).0));
    Client::connect(endpoints).expect("addresses").with_timeout(PATIENCE)
}

async fn describe(client: &Client, topic: &str) -> v1::TopicInfo {
    let request = v1::DescribeTopicRequest { topic: topic.into() };
    client.describe_topic(request).await.expect("it is there").topic.expect("an answer says of whom")
}

/// Every message that lives, whatever its state, with a part of what is in it.
///
/// What the folder tells of ends while this reads: a lease gives back, a delay is over, a message expires. So the states are
/// read in the order in which a message passes through them, and what leaves one is found in a later one.
async fn read_living(client: &Client) -> String {
    let topics = client.list_topics(v1::ListTopicsRequest::default()).await.expect("listed").topics;
    let mut text = String::new();
    for topic in topics {
        let mut found = BTreeSet::new();
        for state in [
            v1::MessageState::Leased,
            v1::MessageState::Delayed,
            v1::MessageState::Ready,
            v1::MessageState::Dead,
        ] {
            let mut from_offset = 0;
            loop {
                let request = v1::PeekRequest {
                    topic: topic.name.clone(),
                    state: state.into(),
                    from_offset,
                    messages_max: 1_000,
                    bytes_max: 2 << 20,
                    ..Default::default()
                };
                let seen = client.peek(request).await.expect("all can be read").deliveries;
                let Some(last) = seen.last() else { break };
                from_offset = last.offset + 1;
                for delivery in seen {
                    let v1::Delivery { offset, body, body_crc32c, key, headers, .. } = delivery;
                    assert_eq!(crc32c::crc32c(&body), body_crc32c);
                    let names: Vec<_> = headers.iter().map(|header| &header.name).collect();
                    found.insert((offset, format!("{body_crc32c:08x} {} {key:?} {names:?}", body.len())));
                }
            }
        }
        let _ = writeln!(text, "{}, next {}", topic.name, topic.next_offset);
        for (offset, what) in found {
            let _ = writeln!(text, "  {offset} {what}");
        }
    }
    text
}

/// Waits until the log was cut twice, and messages stand in files of every kind.
async fn wait_until_stored(cluster: &Cluster) {
    const AT_LEAST: [(&str, f64); 4] = [
        ("raftqueue_wal_released_segments", 1.0),
        ("raftqueue_kept_files", 1.0),
        ("raftqueue_snapshots_total", 2.0),
        ("raftqueue_compaction_copied_bytes_total", 1.0),
    ];
    let begun = Instant::now();
    loop {
        let text = cluster.metrics(0);
        let value = |series| series_value(&text, series).expect("there is such a series");
        if AT_LEAST.iter().all(|(series, least)| value(series) >= *least) {
            return;
        }
        let seen = AT_LEAST.map(|(series, _)| (series, value(series)));
        assert!(begun.elapsed() < PATIENCE, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
