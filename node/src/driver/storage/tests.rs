//! The log's thread on a disk that fills up and has room again, and on one that fails.

use super::*;
use raftqueue_raft::{
    self as raft, Configuration, Event as RaftEvent, Installed, Member, MemberKind, NodeId, Raft, Term,
};
use raftqueue_wal::disk::fake::{FakeDisk, Operation, Refusal};
use raftqueue_wal::{DataDir, Options, Reader, SnapshotHead, SnapshotWriter};
use std::collections::BTreeMap;
use std::sync::mpsc::channel;

const OWN: NodeId = NodeId(7);

/// A node that gets snapshots from others: its protocol, and the thread of its log.
struct Life {
    disk: FakeDisk,
    raft: Raft,
    storage: Storage,
    notices: mpsc::UnboundedReceiver<Notice>,
    went_over: Receiver<(Index, Switched)>,
    counted: Arc<Counted>,
    reader: Reader,
    _directory: DataDir,
}

fn members() -> Arc<Configuration> {
    let member =
        |name: &str| Member { name: name.into(), address: format!("{name}:7001"), kind: MemberKind::Voter };
    let members = BTreeMap::from([(OWN, member("a")), (NodeId(8), member("b"))]);
    Arc::new(Configuration { members, version: 1, ..Configuration::default() })
}

impl Life {
    fn begin() -> Self {
        let disk = FakeDisk::new(1);
        let mut directory = DataDir::open(Arc::new(disk.clone()), None).expect("a blank disk");
        directory.format(OWN, "a").expect("a blank disk");
        let options = Options { segment_bytes: 64 << 10, ..Options::default() };
        let (wal, _) = directory.open_log(options).expect("a blank log");
        let (notify, notices) = mpsc::unbounded_channel();
        let (tell, went_over) = channel();
        let counted = Arc::new(Counted::new(Vec::new(), Term(0)));
        let reader = wal.reader();
        let storage = Storage::start(wal, notify, Arc::new(Metrics::new("a")), tell, Arc::clone(&counted));
        let raft = Raft::new(raft::Settings::new(OWN, 1), raft::Recovered::default());
        Self { disk, raft, storage, notices, went_over, counted, reader, _directory: directory }
    }

    /// A snapshot of another node at this index has been got, and stands aside.
    fn get(&self, index: u64, term: u64) -> SnapshotFile {
        let head = SnapshotHead {
            index: Index(index),
            term: Term(term),
            configuration_index: Index(1),
            configuration: members(),
            stamp_ms: 1,
            term_runs: vec![(Index(1), Term(term))],
        };
        let writer =
            SnapshotWriter::create(&self.disk, self.reader.next_file(), &head).expect("there is room");
        writer.finish(&self.disk).expect("there is room")
    }

    /// The protocol takes it: this write goes over to it.
    fn takes(&mut self, file: &SnapshotFile) -> Write {
        let (index, term) = (file.index, file.term);
        let configurations = vec![(Index(1), members())];
        self.raft.step(RaftEvent::Installed(Installed { index, term, configurations, giver_term: term }));
        let write = self.raft.take_output().write.expect("it is further than this node");
        assert_eq!(write.reset(), Some((index, term)));
        write
    }

    /// What the thread says next that is no number of free bytes above zero.
    fn hears(&mut self) -> Event {
        loop {
            match self.notices.blocking_recv().expect("the thread lives") {
                Notice::Event(Event::FreeBytes(bytes)) if bytes > 0 => {}
                Notice::Event(event) => return event,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next that matters: that a write is durable, or that the disk failed.
    fn ends(&mut self) -> Result<(), String> {
        loop {
            match self.notices.blocking_recv().expect("it says how it ends") {
                Notice::Event(Event::FreeBytes(_)) => {}
                Notice::Event(Event::Persisted(_)) => return Ok(()),
                Notice::DiskFailed(why) => return Err(why),
                other => panic!("{other:?}"),
            }
        }
    }

    fn persisted(&mut self) {
        loop {
            match self.hears() {
                Event::Persisted(persisted) => return self.raft.step(RaftEvent::Persisted(persisted)),
                // That the disk is full may be said twice: of a write, and of a look at it in the same moment.
                Event::FreeBytes(0) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn has(&self, file: &SnapshotFile) -> bool {
        self.disk.bytes(&file.name()).is_some()
    }

    fn went_over_to(&self) -> Index {
        self.went_over.recv().expect("the thread lives").0
    }
}

/// The write that goes over to the first one waits for room when the second one arrives. It still goes over to its own: the
/// log that follows it begins there.
#[test]
fn rule_3_4_a_snapshot_that_arrives_while_the_disk_is_full_waits_for_its_own_write() {
    let mut life = Life::begin();
    let (first, second, third) = (life.get(10, 2), life.get(20, 2), life.get(30, 3));
    let write = life.takes(&first);
    life.disk.set_capacity(life.disk.used_bytes());
    life.storage.arrived(first);
    life.storage.write(write);
    assert!(matches!(life.hears(), Event::FreeBytes(0)));
    life.storage.arrived(second);
    life.storage.arrived(third);
    assert_eq!(life.counted.newest(), (None, Term(0)), "nothing counts yet");
    assert!(life.went_over.try_recv().is_err());
    life.disk.set_capacity(u64::MAX);
    life.persisted();
    assert_eq!(life.went_over_to(), first.index);
    assert_eq!(life.counted.newest(), (Some(first), Term(2)), "what waited for room counts like any other");
    assert!(life.has(&first) && life.has(&second) && life.has(&third));
    // Of those that came since only the last one is of use.
    let write = life.takes(&third);
    life.storage.write(write);
    life.persisted();
    assert_eq!(life.went_over_to(), third.index);
    assert_eq!(life.counted.newest(), (Some(third), Term(3)));
    assert!(!life.has(&second) && life.has(&third));
    life.storage.stop();
}

/// The newer of two snapshots turns out to be damaged. The next one takes its place: the older one is what the node could fall back
/// on, if that rots, too.
#[test]
fn rule_3_1_the_next_snapshot_takes_the_place_of_a_damaged_one() {
    let mut life = Life::begin();
    let file = life.get(10, 2);
    let write = life.takes(&file);
    life.storage.arrived(file);
    life.storage.write(write);
    life.persisted();
    let switch = |life: &Life| {
        let file = life.get(10, 2);
        let change = Change { snapshot: Some(file), ..Change::default() };
        let switched = life.storage.switcher().switch(&change, Index(10)).expect("there is room");
        assert_eq!(life.counted.snapshots(), switched.snapshots);
        file
    };
    let second = switch(&life);
    assert_eq!(life.counted.snapshots(), [file, second]);
    life.counted.snapshot_is_damaged(second);
    assert_eq!(life.counted.snapshots(), [file]);
    let third = switch(&life);
    assert_eq!(life.counted.snapshots(), [file, third]);
    // Both are good: the older one goes.
    let fourth = switch(&life);
    assert_eq!(life.counted.snapshots(), [third, fourth]);
    life.storage.stop();
}

/// A write with everything in it: a snapshot is gone over to, a segment begins, a manifest is replaced. Whichever call of it the disk
/// refuses, the thread says so and ends, and nobody hears that the write is durable.
#[test]
fn rule_2_7_whichever_call_of_a_write_fails_the_thread_ends_and_nothing_is_acknowledged() {
    for operation in [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        let mut refused = 0;
        loop {
            let mut life = Life::begin();
            let file = life.get(10, 2);
            let write = life.takes(&file);
            let error = io::ErrorKind::Other;
            let file_prefix = String::new();
            life.disk.inject(Refusal { operation, file_prefix, skip: refused, count: 1, error });
            life.storage.arrived(file);
            life.storage.write(write);
            if life.ends().is_ok() {
                break; // That call comes after it, if there is one.
            }
            assert!(life.notices.blocking_recv().is_none(), "{operation:?} {refused}: it says no more");
            refused += 1;
        }
        assert!(refused > 0, "{operation:?} is part of it");
    }
}
