//! The keeper and the readers over a real log on a fake disk: what lives can be read, whatever was compacted and however the
//! process ended; and what is dead goes.
//!
//! One long file, since every test here needs the same node without a replica, which is a quarter of it.

mod lost;
mod refused;

use bytes::{Bytes, BytesMut};
use raftqueue_node::api::codec::{self, EntryWriter};
use raftqueue_node::api::{MessageId, MessageRef, NewMessage};
use raftqueue_node::driver::bodies::Bodies;
use raftqueue_node::driver::keeper::{Filled, Giver, Job, KeepError, Keeper, KeeperSettings};
use raftqueue_node::driver::{restoring, to_apply};
use raftqueue_node::replica::{AppliedEntry, Freeze, Gift, Given, Placement};
use raftqueue_queue::{
    ApplyMeta, Candidate, Command, DeadSelection, LeaseId, MessageMeta, Reply, State, SubscriptionId,
    TopicId, TopicSettings,
};
use raftqueue_raft::{Configuration, Entry, HardState, Index, Member, MemberKind, NodeId, Payload, Term};
use raftqueue_tests::sim::Random;
use raftqueue_wal::disk::fake::{FakeDisk, Operation, Refusal};
use raftqueue_wal::{Batch, Change, DataDir, Manifest, Options, PageCache, Reader, Wal};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

const HARD_STATE: HardState = HardState { term: Term(1), vote: None };
const SETTINGS: KeeperSettings =
    KeeperSettings { segment_bytes: 16 << 10, kept_bytes_target: 8 << 10, copied_bytes_max: 32 << 10 };

/// One node without its replica: entries are applied as soon as they are written.
struct Node {
    disk: FakeDisk,
    directory: DataDir,
    wal: Wal,
    reader: Reader,
    bodies: Bodies,
    keeper: Keeper,
    state: State,
    last: Index,
    configuration: (Index, Arc<Configuration>),
    now_ms: u64,
}

impl Node {
    fn new() -> Self {
        Self::with_cache(64 << 10)
    }

    /// A node that keeps so many bytes of pages in memory.
    fn with_cache(bytes: usize) -> Self {
        let disk = FakeDisk::new(7);
        let mut directory = DataDir::open(Arc::new(disk.clone()), None).expect("a blank disk");
        directory.format(NodeId(1), "a").expect("a blank disk");
        drop(directory);
        let mut node = Self::open(disk, bytes);
        let member = Member { name: "a".into(), address: String::new(), kind: MemberKind::Voter };
        let members = BTreeMap::from([(NodeId(1), member)]);
        let configuration = Arc::new(Configuration { members, version: 1, ..Configuration::default() });
        node.append(Payload::Config(Arc::clone(&configuration)));
        node.configuration = (node.last, configuration);
        node
    }

    /// Goes on from whatever the disk holds.
    fn open(disk: FakeDisk, cache_bytes: usize) -> Self {
        let mut directory = DataDir::open(Arc::new(disk.clone()), Some("a")).expect("nobody else has it");
        let options = Options { segment_bytes: SETTINGS.segment_bytes, entropy: 5, ..Options::default() };
        let (wal, recovered) = directory.open_log(options).expect("it opens");
        let snapshot = restoring::restore(&disk, &recovered).expect("a snapshot can be read").freeze;
        let manifest: Manifest = recovered.manifest.clone();
        let core = restoring::for_raft(HARD_STATE, recovered, snapshot.as_ref());
        let reader = wal.reader();
        let cache = PageCache::new(cache_bytes);
        let keeper =
            Keeper::open(reader.clone(), &manifest, core.applied, cache, SETTINGS).expect("it opens");
        let bodies = Bodies::new(reader.clone(), 1 << 10, keeper.files());
        let last = core.last_index;
        bodies.durable(last);
        let configuration = core.configurations.last().cloned().unwrap_or_default();
        let state = snapshot.map_or_else(State::default, |freeze| freeze.state);
        let now_ms = state.now_ms().max(1_000);
        let mut node =
            Self { disk, directory, wal, reader, bodies, keeper, state, last, configuration, now_ms };
        let mut next = core.applied.next();
        while next <= last {
            for meta in node.reader.metas(next, last.next(), 1 << 16).expect("the log can be read") {
                next = meta.index.next();
                let entry = to_apply(meta);
                if let Payload::Command { meta, .. } = entry.payload {
                    node.apply(entry.index, &meta, None);
                }
            }
        }
        node
    }

    /// The process dies; with `power` the machine loses what was not synced.
    fn restart(self, power: bool) -> Self {
        let Self { disk, directory, wal, reader, bodies, keeper, .. } = self;
        drop((wal, reader, bodies, keeper, directory));
        if power {
            disk.power_cut(3);
        } else {
            disk.crash_process();
        }
        Self::open(disk, 64 << 10)
    }

    fn append(&mut self, payload: Payload) {
        self.last = self.last.next();
        let entries = [Entry { index: self.last, term: Term(1), payload }];
        let hard_state_changed = self.wal.hard_state() != Some(HARD_STATE);
        let batch =
            Batch { hard_state: HARD_STATE, hard_state_changed, truncate_from: None, entries: &entries };
        self.wal.append(&batch).expect("this disk takes everything");
        self.wal.upkeep().expect("this disk takes everything");
    }

    fn propose(&mut self, commands: &[Command], bodies: Bytes) -> Vec<Reply> {
        self.now_ms += 1;
        let mut writer = EntryWriter::default();
        commands.iter().for_each(|command| writer.push(command));
        let meta = writer.finish(1, self.now_ms);
        self.append(Payload::Command { meta: meta.clone(), bodies: bodies.clone() });
        self.apply(self.last, &meta, Some(bodies))
    }

    fn apply(&mut self, index: Index, meta: &[u8], bodies: Option<Bytes>) -> Vec<Reply> {
        let entry = codec::read_entry(meta).expect("it was just written");
        let apply_meta = ApplyMeta { index: index.0, now_ms: entry.stamp_ms, version: 1 };
        let (mut placements, mut replies) = (Vec::new(), Vec::new());
        let (mut position, mut refused) = (0, 0);
        for (command, ordinal) in entry.commands.into_iter().zip(0..) {
            let (reply, effects) = self.state.apply(&apply_meta, &command);
            effects.deleted.into_iter().for_each(|topic| drop(self.bodies.forget(topic)));
            if let Command::Publish { topic: topic_name, messages, .. } = command {
                let bytes: u64 = messages.iter().map(|message| u64::from(message.size)).sum();
                if let Reply::Published { topic, first_offset, .. } = reply {
                    placements.push(Placement {
                        topic,
                        topic_name,
                        first_offset,
                        command: ordinal,
                        position,
                        published_ms: self.state.now_ms(),
                        messages: messages.into(),
                        refused,
                    });
                } else {
                    refused += 1;
                }
                position += bytes;
            }
            replies.push(reply);
        }
        if !placements.is_empty() {
            self.bodies.applied(AppliedEntry { index, bodies, placements }, self.last);
        }
        replies
    }

    fn create(&mut self, name: &str) -> TopicId {
        let settings = TopicSettings::default();
        let create =
            Command::CreateTopic { name: name.into(), settings, topics_max: 1_000, request_id: None };
        match self.propose(&[create], Bytes::new())[..] {
            [Reply::Created { topic, .. }] => topic,
            ref other => panic!("{other:?}"),
        }
    }

    /// One publish each, in one entry.
    fn publish(&mut self, publishes: &[(&str, usize)]) {
        let mut bodies = BytesMut::new();
        let mut commands = Vec::new();
        let mut offsets: BTreeMap<&str, u64> = BTreeMap::new();
        for (topic, count) in publishes {
            let id = self.state.topic_id(topic);
            let first = id.and_then(|id| self.state.topic(id)).map_or(0, |topic| topic.next_offset());
            let next = offsets.entry(topic).or_insert(first);
            let messages = (0..*count)
                .map(|_| {
                    let body = body(id.unwrap_or_default(), *next);
                    *next += 1;
                    let body_crc = crc32c::crc32c(&body);
                    let message = NewMessage { body, body_crc, ..NewMessage::default() };
                    let (size, crc) = codec::write_message(&mut bodies, &message);
                    MessageMeta { size, crc, ..MessageMeta::default() }
                })
                .collect();
            commands.push(Command::Publish { topic: (*topic).into(), session: None, messages });
        }
        self.propose(&commands, bodies.freeze());
    }

    /// Takes these messages out for good.
    fn take(&mut self, topic: TopicId, offsets: &[u64]) {
        let subscription = SubscriptionId::DEFAULT;
        let candidates = offsets.iter().map(|&offset| candidate(topic, offset)).collect();
        let count_max = offsets.len() as u32;
        let pop = Command::Pop { topic, subscription, candidates, count_max, request_id: None };
        match &self.propose(&[pop], Bytes::new())[..] {
            [Reply::Popped { deliveries, .. }] => assert_eq!(deliveries.len(), offsets.len()),
            other => panic!("{other:?}"),
        }
    }

    fn freeze(&self) -> Freeze {
        let (configuration_index, configuration) = self.configuration.clone();
        let state = self.state.clone();
        let term_runs = vec![(Index(1), Term(1))];
        Freeze { index: self.last, term: Term(1), configuration_index, configuration, term_runs, state }
    }

    /// One whole round.
    fn keep(&mut self) -> Result<(), KeepError> {
        let freeze = self.freeze();
        let job = Job { freeze, blocks: self.bodies.freeze() };
        let mut pace = |_| Ok(());
        let change = self.keeper.take_snapshot(&job, &mut pace)?;
        self.switch(&change, job.blocks.len())?;
        while let Some(change) = self.keeper.compact(&job.freeze, &mut pace)? {
            self.switch(&change, 0)?;
        }
        Ok(())
    }

    fn switch(&mut self, change: &Change, frozen: usize) -> Result<(), KeepError> {
        let switched = self.wal.switch(change).expect("this disk takes everything");
        let filed = self.keeper.filed(change, &switched)?;
        let state = &self.state;
        let is_live = |topic| state.topic(topic).is_some();
        drop(self.bodies.filed(frozen, filed.added, &filed.removed, is_live));
        for _ in 0..50 {
            self.wal.upkeep().expect("this disk takes everything");
        }
        Ok(())
    }

    fn live(&self) -> Vec<MessageId> {
        let mut live = Vec::new();
        for topic in self.state.topics_from(TopicId(0)) {
            let generation = |offset| topic.generation_of(offset).expect("a live offset was given").0;
            let runs = topic.live_runs(0..u64::MAX);
            live.extend(runs.flatten().map(|offset| MessageId {
                generation: generation(offset),
                topic: topic.id().0,
                offset,
            }));
        }
        live
    }

    /// Every living message can be read and is what was published.
    fn check(&self) {
        for id in self.live() {
            let message = MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
            let located = self.bodies.locate(vec![message]);
            let readings = self.bodies.read(&located, usize::MAX, true).expect("it may block");
            assert!(readings.lost.is_empty(), "{:?}", readings.lost);
            assert_eq!(readings.deliveries[0].body, body(TopicId(id.topic), id.offset));
        }
    }

    /// Bytes of segments, places files and kept files that are named so.
    fn bytes_of(&self, prefix: &str) -> usize {
        let names = self.disk.names().into_iter().filter(|name| name.starts_with(prefix));
        names.map(|name| self.disk.bytes(&name).map_or(0, |bytes| bytes.len())).sum()
    }
}

/// What a message says: enough to know it again. In every seventh topic each fourth message is large.
fn body(topic: TopicId, offset: u64) -> Bytes {
    let mut body = format!("{topic}/{offset} ").into_bytes();
    let is_large = topic.0.is_multiple_of(7) && offset.is_multiple_of(4);
    let bytes = if is_large { 3_000 } else { 40 + offset % 50 };
    body.resize(usize::try_from(bytes).expect("small"), b'.');
    body.into()
}

fn candidate(topic: TopicId, offset: u64) -> Candidate {
    // The trailer of a record has four bytes.
    Candidate { offset, size: body(topic, offset).len() as u32 + 4, deadline_ms: None }
}

fn segments(node: &Node) -> usize {
    node.disk.names().iter().filter(|name| name.starts_with("segment-")).count()
}

#[test]
fn what_is_consumed_leaves_nothing_on_the_disk() {
    let mut node = Node::new();
    let topic = node.create("t");
    for round in 0..20 {
        for batch in 0..20 {
            node.publish(&[("t", 20)]);
            let first = (round * 20 + batch) * 20;
            node.take(topic, &(first..first + 20).collect::<Vec<_>>());
        }
        node.keep().expect("this disk takes everything");
    }
    assert!(segments(&node) <= 6, "{:?}", node.disk.names());
    node.keep().expect("this disk takes everything");
    node.keep().expect("this disk takes everything");
    assert!(segments(&node) <= 2, "{:?}", node.disk.names());
    assert_eq!(node.bytes_of("kept-"), 0);
    let node = node.restart(true);
    assert!(node.live().is_empty());
}

#[test]
fn rule_3_2_one_message_that_nobody_takes_holds_its_own_bytes() {
    let mut node = Node::new();
    let topic = node.create("t");
    let mut next = 0;
    for _ in 0..30 {
        for _ in 0..20 {
            node.publish(&[("t", 20)]);
            // The first of every four hundred stays.
            let offsets: Vec<u64> = (next..next + 20).filter(|offset| offset % 400 != 0).collect();
            node.take(topic, &offsets);
            next += 20;
        }
        node.keep().expect("this disk takes everything");
        node.check();
    }
    (0..2).for_each(|_| node.keep().expect("this disk takes everything"));
    assert_eq!(node.live().len(), 30);
    assert!(segments(&node) <= 3, "{:?}", node.disk.names());
    assert!(node.bytes_of("kept-") < 20 << 10, "{} bytes are kept for 30 messages", node.bytes_of("kept-"));
    let mut node = node.restart(true);
    node.check();
    let left = node.live().iter().map(|id| id.offset).collect::<Vec<_>>();
    node.take(topic, &left);
    (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
    assert_eq!(node.bytes_of("kept-"), 0, "{:?}", node.disk.names());
}

#[test]
fn rule_3_2_the_small_messages_of_a_topic_do_not_hold_the_large_ones() {
    let mut node = Node::new();
    let topic = (1..=7).map(|number| node.create(&format!("t{number}"))).find(|topic| topic.0 % 7 == 0);
    let topic = topic.expect("one of seven in a row");
    let name = node.state.topic(topic).expect("just created").name().to_owned();
    (0..20).for_each(|_| node.publish(&[(&name, 4)]));
    node.keep().expect("this disk takes everything");
    let large: Vec<u64> = (0..80).step_by(4).collect();
    node.take(topic, &large);
    (0..6).for_each(|_| node.keep().expect("this disk takes everything"));
    assert_eq!(node.live().len(), 60);
    assert!(segments(&node) <= 2, "{:?}", node.disk.names());
    assert!(node.bytes_of("kept-") < 20 << 10, "{} bytes are kept for 60 messages", node.bytes_of("kept-"));
    node.check();
}

#[test]
fn rule_3_2_the_dead_leave_the_last_kept_file_too() {
    let mut node = Node::new();
    let topic = node.create("t");
    for first in (0..400).step_by(20) {
        node.publish(&[("t", 20)]);
        let offsets: Vec<u64> = (first..first + 20).filter(|offset| offset % 4 != 0).collect();
        node.take(topic, &offsets);
    }
    (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
    let before = node.bytes_of("kept-");
    let left: Vec<u64> = (0..400).step_by(4).filter(|offset| offset % 40 != 0).collect();
    node.take(topic, &left);
    (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
    assert_eq!(node.live().len(), 10);
    let after = node.bytes_of("kept-");
    assert!(after + 90 * 40 < before, "{before} bytes for 100 messages, {after} for 10");
    node.check();
}

/// Nobody is there.
struct Alone;

impl Giver for Alone {
    fn give(&mut self, _: usize, _: TopicId, _: &[Range<u64>]) -> Result<Gift, String> {
        Err("nobody is there".into())
    }
}

#[test]
fn rule_3_4_a_state_before_the_snapshot_says_nothing_about_what_is_lacking_in_it() {
    let mut node = Node::new();
    let topic = node.create("t");
    let past = node.freeze();
    // What the keeper has no file of stands nowhere for it: so is what an installed snapshot tells of.
    node.publish(&[("t", 3)]);
    let switched = node.wal.switch(&Change::default()).expect("this disk takes everything");
    node.keeper.went_over(node.last, &switched).unwrap();
    let pace = &mut |_| Ok(());
    let filled = node.keeper.fill(&past, &mut Alone, pace);
    assert!(matches!(filled, Err(KeepError::Past)), "{filled:?}");
    let filled = node.keeper.fill(&node.freeze(), &mut Alone, pace);
    assert!(matches!(filled, Err(KeepError::Nobody(_))), "messages of {topic} are lacking: {filled:?}");
}

#[test]
fn a_backlog_of_interleaved_topics_is_read_after_a_restart_and_memory_does_not_grow_with_it() {
    let mut node = Node::new();
    node.create("t");
    node.create("u");
    for _ in 0..10 {
        for _ in 0..30 {
            node.publish(&[("t", 1), ("u", 3), ("t", 1), ("gone", 2), ("t", 2), ("u", 1)]);
        }
        node.keep().expect("this disk takes everything");
        assert_eq!(node.bodies.held().blocks, 0, "files tell of everything");
    }
    node.check();
    let node = node.restart(false);
    assert_eq!(node.live().len(), 10 * 30 * 8);
    node.check();
}

/// Whatever happens in whatever order, what lives can be read, before and after the process ends in any way.
#[test]
fn random_lives() {
    #[expect(clippy::disallowed_methods, reason = "a longer budget for this test, asked for by hand")]
    let seeds = std::env::var("RAFTQUEUE_KEEPER_SEEDS").map_or(60, |text| text.parse().expect("a number"));
    for seed in 0..seeds {
        live(seed);
    }
}

fn live(seed: u64) {
    let mut random = Random::new(seed);
    let mut node = Node::new();
    let names = ["t", "u", "v"];
    let mut topics: Vec<TopicId> = names.iter().map(|name| node.create(name)).collect();
    for _ in 0..120 {
        match random.below(20) {
            0..9 => {
                let publishes: Vec<_> = (0..random.between(1, 6))
                    .map(|_| (names[random.index(3)], random.index(12) + 1))
                    .collect();
                node.publish(&publishes);
            }
            9..14 => {
                let topic = topics[random.index(3)];
                let percent = random.pick(&[10, 90, 100]);
                let all = node.live();
                let offsets = all.iter().filter(|id| id.topic == topic.0).map(|id| id.offset).take(400);
                let taken: Vec<u64> = offsets.filter(|_| random.percent(percent)).collect();
                node.take(topic, &taken);
            }
            14 => {
                let number = random.index(3);
                node.propose(&[Command::DeleteTopic { name: names[number].into() }], Bytes::new());
                topics[number] = node.create(names[number]);
            }
            15..19 => node.keep().expect("this disk takes everything"),
            _ => node = node.restart(random.percent(50)),
        }
    }
    node.check();
    (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
    node.check();
    let node = node.restart(true);
    node.check();
}

/// A node of whose messages all but one in ten were taken, before its sixth round.
fn consumed_but_for_one_in_ten() -> Node {
    let mut node = Node::new();
    let topic = node.create("t");
    node.create("u");
    for round in 0..6 {
        for batch in 0..12 {
            node.publish(&[("t", 10), ("u", 1)]);
            let first = (round * 12 + batch) * 10;
            node.take(topic, &(first..first + 9).collect::<Vec<_>>());
        }
        if round < 5 {
            node.keep().expect("this disk takes everything");
        }
    }
    node
}

/// A crash at every call to the disk of a round leads to the old files or to the new ones, and nothing that lives is lost.
#[test]
fn rule_3_3_a_crash_at_any_call_of_a_round_loses_nothing() {
    let mut node = consumed_but_for_one_in_ten();
    let before = node.disk.calls();
    node.keep().expect("this disk takes everything");
    let calls = node.disk.calls() - before;
    assert!(calls > 20, "{calls} calls");
    for call in 1..=calls {
        let mut node = consumed_but_for_one_in_ten();
        let live = node.live();
        node.disk.crash_at_call(call);
        let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.keep().is_ok()));
        assert!(node.disk.is_crashed(), "call {call} of {calls}: {crashed:?}");
        let node = node.restart(call % 2 == 0);
        assert_eq!(node.live(), live, "call {call}");
        node.check();
        let mut node = node;
        (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
        node.check();
    }
}

/// What a full disk is given in vain would be there until the next start, and again with each try.
#[test]
fn a_round_that_finds_no_room_leaves_nothing_behind() {
    let mut refused = 0;
    for prefix in ["places-", "snapshot-", "kept-"] {
        for (operation, skip) in [Operation::Create, Operation::Write, Operation::Sync]
            .into_iter()
            .flat_map(|one| [(one, 0), (one, 1)])
        {
            let mut node = consumed_but_for_one_in_ten();
            let error = io::ErrorKind::StorageFull;
            node.disk.inject(Refusal { operation, file_prefix: prefix.into(), skip, count: 1, error });
            if node.keep().is_ok() {
                continue;
            }
            refused += 1;
            (0..50).for_each(|_| node.wal.upkeep().expect("this disk takes everything"));
            let Manifest { places, kept, snapshots, .. } = node.wal.manifest();
            let mut named: Vec<String> =
                places.iter().map(|file| format!("places-{:016x}", file.number)).collect();
            named.extend(kept.iter().map(|file| format!("kept-{:016x}", file.number)));
            named.extend(snapshots.iter().map(|file| format!("snapshot-{:016x}", file.number)));
            let is_of_a_round =
                |name: &String| ["places-", "snapshot-", "kept-"].iter().any(|of| name.starts_with(of));
            let left: Vec<String> = node.disk.names().into_iter().filter(is_of_a_round).collect();
            assert!(
                left.iter().all(|name| named.contains(name)),
                "{prefix}, {operation:?}: {left:?}, not {named:?}"
            );
            node.check();
            (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
            node.check();
        }
    }
    assert!(refused >= 12, "{refused} rounds found no room");
}

/// Where messages stand was written, and the page rots: they cannot be found here, and nothing else is held up.
fn with_a_rotten_page() -> (Node, TopicId) {
    let mut node = Node::new();
    let topic = node.create("t");
    (0..20).for_each(|_| node.publish(&[("t", 1)]));
    node.keep().expect("this disk takes everything");
    let names = node.disk.names();
    let name = names.iter().find(|name| name.starts_with("places-")).expect("it was just written");
    assert!(node.disk.corrupt(name, 4_200, 8));
    // Nothing of it is in memory any more.
    (node.restart(false), topic)
}

/// One segment with twenty messages of which a places file tells and two of which none does, and nothing in memory.
fn with_a_places_file_to_renew() -> (Node, String) {
    let mut node = Node::with_cache(0);
    node.create("t");
    (0..20).for_each(|_| node.publish(&[("t", 1)]));
    node.keep().expect("this disk takes everything");
    let names = node.disk.names();
    let name = names.iter().find(|name| name.starts_with("places-")).expect("it was just written");
    (0..2).for_each(|_| node.publish(&[("t", 1)]));
    assert_eq!(segments(&node), 1);
    (node, name.clone())
}

#[test]
fn rule_3_2_a_page_that_rots_costs_its_own_messages_and_holds_up_no_snapshot() {
    let (mut node, name) = with_a_places_file_to_renew();
    assert!(node.disk.corrupt(&name, 4_200, 8));
    let given_up = (0..10).take_while(|_| matches!(node.keep(), Err(KeepError::Read { .. }))).count();
    assert_eq!(given_up, 2, "once may be a fault of reading, and what is given up is lost");
    assert_eq!(node.bodies.held().blocks, 0, "files tell of what came since");
    for (id, offset) in node.live().into_iter().zip(0..) {
        let message = MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
        let readings = node.bodies.read(&node.bodies.locate(vec![message]), usize::MAX, true);
        let readings = readings.expect("it may block");
        let expected = if offset < 20 { (1, 0) } else { (0, 1) };
        assert_eq!((readings.lost.len(), readings.deliveries.len()), expected, "message {offset}");
    }
    get_what_is_lacking(&mut node);
}

/// It is known, also after a restart, that messages are lacking, and others give them.
fn get_what_is_lacking(node: &mut Node) {
    assert!(node.keeper.lacks_messages() && node.wal.manifest().is_incomplete);
    let mut pace = |_| Ok(());
    let filled = node.keeper.fill(&node.freeze(), &mut HasAll, &mut pace);
    let Ok(Filled::Part(change)) = filled else { panic!("it is lacking: {filled:?}") };
    node.switch(&change, 0).expect("this disk takes everything");
    assert!(matches!(node.keeper.fill(&node.freeze(), &mut Alone, &mut pace), Ok(Filled::Whole)));
    let retire = node.keeper.retire_unusable(node.freeze().index);
    let complete = Change { complete: true, retire, ..Change::default() };
    node.switch(&complete, 0).expect("this disk takes everything");
    node.check();
    (0..2).for_each(|_| node.keep().expect("this disk takes everything"));
    assert!(!node.keeper.lacks_messages() && !node.wal.manifest().is_incomplete);
    node.check();
}

#[test]
fn rule_3_2_where_it_is_not_known_where_messages_stand_they_are_got_from_another_node() {
    let mut node = Node::with_cache(0);
    node.create("t");
    (0..20).for_each(|_| node.publish(&[("t", 1)]));
    node.keep().expect("this disk takes everything");
    let names = node.disk.names();
    let name = names.iter().find(|name| name.starts_with("places-")).expect("it was just written");
    let size = node.disk.bytes(name).expect("it is there").len() as u64;
    assert!(node.disk.corrupt(name, size - 10, 1));
    node = node.restart(true);
    assert!(node.keeper.lacks_messages() && !node.wal.manifest().is_incomplete);
    // The next one finds every file that is named.
    (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
    assert!(node.wal.manifest().retired.is_empty(), "as long as nobody gives it, it stays");
    get_what_is_lacking(&mut node);
    let mut node = node.restart(true);
    assert!(!node.keeper.lacks_messages());
    node.keep().expect("this disk takes everything");
    node.check();
}

#[test]
fn rule_3_2_a_page_that_cannot_be_read_for_once_costs_nothing() {
    for reads in 1..=3 {
        let (mut node, _) = with_a_places_file_to_renew();
        node.disk.rot_reads(reads);
        let given_up = (0..10).take_while(|_| matches!(node.keep(), Err(KeepError::Read { .. }))).count();
        assert!((1..=2).contains(&given_up), "{given_up} rounds were given up after {reads} reads");
        assert_eq!(node.live().len(), 22);
        node.check();
        node.restart(true).check();
    }
}

#[test]
fn rule_3_2_a_page_that_rots_where_the_disk_refuses_too_is_not_given_up_yet() {
    let (mut node, _) = with_a_places_file_to_renew();
    node.disk.rot_reads(3);
    (0..2).for_each(|_| assert!(matches!(node.keep(), Err(KeepError::Read { .. }))));
    // The third round reads the page twice: it rots, and then the disk refuses.
    let error = io::ErrorKind::Other;
    let refusal =
        Refusal { operation: Operation::Read, file_prefix: "places-".into(), skip: 1, count: 1, error };
    node.disk.inject(refusal);
    assert!(matches!(node.keep(), Err(KeepError::Read { .. })), "what the disk refuses may be whole");
    node.keep().expect("this disk takes everything");
    node.check();
}

/// The newer snapshot rots after living messages were copied out of a segment that goes as of it.
#[test]
fn rule_3_2_after_a_fall_back_to_the_older_snapshot_what_was_copied_out_is_found() {
    let mut node = consumed_but_for_one_in_ten();
    node.keep().expect("this disk takes everything");
    let Manifest { snapshots, retired, kept, .. } = node.wal.manifest();
    let newest = *snapshots.last().expect("just taken");
    assert!(
        retired.iter().any(|file| file.at == newest.index)
            && kept.iter().any(|file| file.since == newest.index)
    );
    let name = format!("snapshot-{:016x}", newest.number);
    assert!(node.disk.corrupt(&name, newest.size / 2, 8));
    let mut node = node.restart(false);
    node.check();
    for _ in 0..4 {
        node.keep().expect("this disk takes everything");
        node.check();
        node.publish(&[("t", 3)]);
    }
    let node = node.restart(true);
    node.check();
}

/// Another node that has every message.
struct HasAll;

impl Giver for HasAll {
    fn give(&mut self, _: usize, topic: TopicId, wanted: &[Range<u64>]) -> Result<Gift, String> {
        let given = |offset| {
            let body = body(topic, offset);
            let message = NewMessage { body_crc: crc32c::crc32c(&body), body, ..NewMessage::default() };
            let mut record = BytesMut::new();
            let (_, crc) = codec::write_message(&mut record, &message);
            Given { offset, published_ms: 1, deadline_ms: None, crc, record: record.freeze() }
        };
        let messages = wanted.iter().cloned().flatten().map(given).collect();
        let through = wanted.last().expect("something is asked for").end;
        Ok(Gift { messages, through, ..Gift::default() })
    }
}

/// Another node that has every message, gives one at a time, and is gone after the first.
struct GoesAway(bool);

impl Giver for GoesAway {
    fn give(&mut self, passed: usize, topic: TopicId, wanted: &[Range<u64>]) -> Result<Gift, String> {
        if std::mem::replace(&mut self.0, true) {
            return Err("it has gone".into());
        }
        let first = wanted[0].start..wanted[0].start + 1;
        HasAll.give(passed, topic, std::slice::from_ref(&first))
    }
}

#[test]
fn rule_3_4_what_has_come_stays_when_the_giver_goes() {
    let mut node = Node::new();
    node.create("t");
    node.publish(&[("t", 3)]);
    let freeze = node.freeze();
    let mut pace = |_| Ok(());
    for turn in 0..3 {
        let filled = node.keeper.fill(&freeze, &mut GoesAway(false), &mut pace).unwrap();
        let Filled::Part(change) = filled else { panic!("{filled:?} in turn {turn}") };
        node.switch(&change, 0).unwrap();
    }
    assert!(matches!(node.keeper.fill(&freeze, &mut Alone, &mut pace), Ok(Filled::Whole)));
}

#[test]
fn rule_3_4_what_a_rotten_page_told_of_is_got_from_others() {
    let (mut node, _) = with_a_rotten_page();
    let freeze = node.freeze();
    let mut pace = |_| Ok(());
    let Filled::Part(change) = node.keeper.fill(&freeze, &mut HasAll, &mut pace).unwrap() else {
        panic!("its messages are missing")
    };
    node.switch(&change, 0).unwrap();
    assert!(matches!(node.keeper.fill(&freeze, &mut HasAll, &mut pace), Ok(Filled::Whole)));
    node.check();
}

/// Flips a bit of a message's body, wherever it stands in segments.
fn rot_in_segments(node: &Node, topic: TopicId, offset: u64) {
    let body = body(topic, offset);
    let mut rotten = 0;
    for name in node.disk.names().into_iter().filter(|name| name.starts_with("segment-")) {
        let bytes = node.disk.bytes(&name).expect("it is there");
        for (window, at) in bytes.windows(body.len()).zip(0..) {
            rotten += u32::from(window == body && node.disk.corrupt(&name, at + 3, 4));
        }
    }
    assert!(rotten > 0);
}

#[test]
fn rule_3_2_a_message_that_rots_is_got_from_another_node_and_its_file_does_not_stay_for_ever() {
    let mut node = Node::with_cache(0);
    let topic = node.create("t");
    (0..20).for_each(|_| node.publish(&[("t", 1)]));
    node.keep().expect("this disk takes everything");
    rot_in_segments(&node, topic, 7);
    node = node.restart(false);
    let mut pace = |_| Ok(());
    assert!(matches!(node.keeper.fill(&node.freeze(), &mut Alone, &mut pace), Ok(Filled::Whole)), "unread");
    let id = MessageId { generation: 0, topic: topic.0, offset: 7 };
    let message = MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
    let lost = |node: &Node| {
        node.bodies.read(&node.bodies.locate(vec![message.clone()]), 1, true).unwrap().lost.len()
    };
    assert_eq!(lost(&node), 1);
    let noted = node.bodies.take_lost();
    assert_eq!(noted, [(topic, 7)].into());
    node.keeper.lose(noted);
    let Filled::Part(change) = node.keeper.fill(&node.freeze(), &mut HasAll, &mut pace).unwrap() else {
        panic!("it was looked at again")
    };
    node.switch(&change, 0).unwrap();
    assert!(matches!(node.keeper.fill(&node.freeze(), &mut Alone, &mut pace), Ok(Filled::Whole)));
    node.check();
    node = node.restart(true);
    node.check();
    // The file that it was put into goes, and what tells of it.
    let name = format!("kept-{:016x}", change.kept[0].number);
    node.disk.take(&name);
    node = node.restart(false);
    assert!(node.keeper.lacks_messages() && lost(&node) == 1);
    node.keeper.lose(node.bodies.take_lost());
    let Filled::Part(change) = node.keeper.fill(&node.freeze(), &mut HasAll, &mut pace).unwrap() else {
        panic!("it is lacking again")
    };
    node.switch(&change, 0).unwrap();
    let retire = node.keeper.retire_unusable(node.freeze().index);
    node.switch(&Change { complete: true, retire, ..Change::default() }, 0).unwrap();
    (0..2).for_each(|_| node.keep().expect("this disk takes everything"));
    assert_eq!(node.wal.manifest().kept.len(), 1);
    node = node.restart(false);
    assert!(!node.keeper.lacks_messages());
    node.check();
}

#[test]
fn a_message_that_two_files_have_is_copied_once() {
    let (mut node, topic) = with_a_rotten_page();
    let mut pace = |_| Ok(());
    let mut kept = Vec::new();
    for _ in 0..2 {
        let Filled::Part(change) = node.keeper.fill(&node.freeze(), &mut HasAll, &mut pace).unwrap() else {
            panic!("its messages are missing")
        };
        node.switch(&change, 0).unwrap();
        kept.extend(change.kept.iter().map(|file| (format!("kept-{:016x}", file.number), file.size)));
        // The page of the first one cannot be read for a while: behind it are some hundred bytes.
        let (name, size) = &kept[0];
        assert!(node.disk.corrupt(name, size - 3_700, 8));
        node = node.restart(false);
    }
    node.check();
    node.take(topic, &(0..15).collect::<Vec<_>>());
    (0..3).for_each(|_| node.keep().expect("this disk takes everything"));
    node.check();
    let left = node.disk.names();
    assert!(kept.iter().all(|(name, _)| !left.contains(name)), "{left:?}");
}

/// Dead messages are kept and can be redriven, whatever went on behind them.
#[test]
fn dead_messages_outlive_their_segments() {
    let mut node = Node::new();
    let topic = node.create("t");
    let subscription = SubscriptionId::DEFAULT;
    node.publish(&[("t", 5)]);
    let candidates: Vec<_> = (0..5).map(|offset| candidate(topic, offset)).collect();
    for attempt in 0..16 {
        let receive =
            Command::Receive { topic, subscription, candidates: candidates.clone(), lease_ms: 60_000 };
        let token = match &node.propose(&[receive], Bytes::new())[..] {
            [Reply::Received { token, deliveries, .. }] => {
                assert_eq!(deliveries.len(), 5, "attempt {attempt}");
                *token
            }
            other => panic!("{other:?}"),
        };
        let generation = node.state.generation();
        let leases = (0..5).map(|offset| LeaseId { generation, offset, token }).collect();
        let nack = Command::Nack { topic, subscription, leases, delay_ms: 0, reason: None };
        node.propose(&[nack], Bytes::new());
    }
    for round in 0..6 {
        for batch in 0..20 {
            node.publish(&[("t", 20)]);
            let first = 5 + (round * 20 + batch) * 20;
            node.take(topic, &(first..first + 20).collect::<Vec<_>>());
        }
        node.keep().expect("this disk takes everything");
    }
    (0..2).for_each(|_| node.keep().expect("this disk takes everything"));
    assert!(segments(&node) <= 3, "{:?}", node.disk.names());
    let mut node = node.restart(true);
    assert_eq!(node.live().len(), 5);
    let redrive = Command::RedriveDead { topic, subscription, selection: DeadSelection::All };
    node.propose(&[redrive], Bytes::new());
    node.check();
}

/// What people see of it: how much of the files lives, and how many messages stand in none.
#[test]
fn what_lives_and_what_is_missing_is_counted() {
    let mut node = Node::new();
    let topic = node.create("t");
    node.publish(&[("t", 20)]);
    assert_eq!(node.keeper.missing(&node.state).unwrap(), 20, "no file tells of them yet");
    node.keep().unwrap();
    let all: u64 = (0..20).map(|offset| u64::from(candidate(topic, offset).size)).sum();
    let counted = |node: &Node| {
        let stored = node.keeper.measure(&node.state);
        (stored.message_bytes, stored.live_bytes, node.keeper.missing(&node.state).unwrap())
    };
    assert_eq!(counted(&node), (all, all, 0));
    node.take(topic, &(0..10).collect::<Vec<_>>());
    node.publish(&[("t", 3)]);
    // Living messages are taken to be as large as the others.
    assert_eq!(counted(&node), (all, all / 2, 3));
    let stored = node.keeper.stored();
    assert_eq!((stored.message_bytes, stored.live_bytes), (all, all), "as of the last snapshot");
    assert_eq!(counted(&node.restart(true)), (all, all / 2, 3));
}

#[test]
fn files_of_places_that_are_damaged_are_named() {
    let mut node = Node::new();
    node.create("t");
    node.publish(&[("t", 20)]);
    node.keep().unwrap();
    let name = node.disk.names().into_iter().find(|name| name.starts_with("places-")).unwrap();
    let size = node.disk.bytes(&name).unwrap().len() as u64;
    let node = node.restart(true);
    assert!(node.keeper.damaged().is_empty());
    assert!(node.disk.corrupt(&name, size - 10, 1));
    let node = node.restart(true);
    assert_eq!((node.keeper.damaged(), node.keeper.lacks_messages()), (&[name][..], true));
}
