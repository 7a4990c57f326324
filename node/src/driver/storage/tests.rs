//! The log's thread on a disk that fills up and has room again, and on one that fails.

use super::*;
use raftqueue_raft::{
    self as raft, Configuration, Event as RaftEvent, Installed, Member, MemberKind, NodeId, Raft, Term,
};
use raftqueue_wal::disk::fake::{FakeDisk, Operation, Refusal};
use raftqueue_wal::{DataDir, Options, Reader, SnapshotHead, SnapshotReader, SnapshotWriter};
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
                Notice::Written(persisted, Some(_)) => return Event::Persisted(persisted),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next that matters: that a write is durable, or that the disk failed.
    fn ends(&mut self) -> Result<(), String> {
        loop {
            match self.notices.blocking_recv().expect("it says how it ends") {
                Notice::Event(Event::FreeBytes(_)) => {}
                Notice::Written(..) => return Ok(()),
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

/// How much room there is says nothing about what was written: a disk that does not tell takes writes all the same.
#[test]
fn rule_2_7_a_disk_that_does_not_tell_how_much_room_it_has_takes_writes() {
    let mut life = Life::begin();
    let (operation, file_prefix) = (Operation::FreeBytes, String::new());
    life.disk.inject(Refusal {
        operation,
        file_prefix,
        skip: 0,
        count: u64::MAX,
        error: io::ErrorKind::Other,
    });
    let file = life.get(10, 2);
    let write = life.takes(&file);
    life.storage.arrived(file);
    life.storage.write(write);
    assert_eq!(life.ends(), Ok(()));
    life.storage.stop();
}

/// A log that begins behind index 3 and goes on to 6, all of it durable; both of its snapshots rot.
fn stateless() -> FakeDisk {
    let disk = FakeDisk::new(1);
    let mut directory = DataDir::open(Arc::new(disk.clone()), None).expect("a blank disk");
    directory.format(OWN, "a").expect("a blank disk");
    let (mut wal, _) = directory.open_log(options()).expect("a blank log");
    let hard_state = raft::HardState { term: Term(2), vote: Some(OWN) };
    let batch = |entries| Batch { hard_state, hard_state_changed: true, truncate_from: None, entries };
    wal.append(&batch(&[])).expect("there is room");
    let start = (Index(3), Term(2));
    let older = aside(&disk, wal.reader().next_file(), start.0);
    let change = Change { snapshot: Some(older), reset: Some(start), ..Change::default() };
    wal.switch(&change).expect("there is room");
    let entry = |index| raft::Entry { index: Index(index), term: Term(2), payload: raft::Payload::Noop };
    wal.append(&batch(&[4, 5, 6].map(entry))).expect("there is room");
    let newer = aside(&disk, wal.reader().next_file(), Index(5));
    wal.switch(&Change { snapshot: Some(newer), ..Change::default() }).expect("there is room");
    for file in [older, newer] {
        assert!(disk.corrupt(&file.name(), file.size / 2, 1));
    }
    disk
}

fn options() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

fn aside(disk: &FakeDisk, number: u64, index: Index) -> SnapshotFile {
    let head = SnapshotHead {
        index,
        term: Term(2),
        configuration_index: Index(1),
        configuration: members(),
        stamp_ms: 1,
        term_runs: vec![(Index(1), Term(2))],
    };
    SnapshotWriter::create(disk, number, &head).and_then(|writer| writer.finish(disk)).expect("there is room")
}

/// Another node's snapshot takes the place of those that are lost, up to this call to the disk. True if the process lives on.
fn goes_over(disk: &FakeDisk, last_call: u64) -> bool {
    let mut directory = DataDir::open(Arc::new(disk.clone()), None).expect("it is formatted");
    let (mut wal, recovered) = directory.open_log(options()).expect("its records verify");
    recovered.manifest.snapshots.iter().for_each(|file| wal.give_up_snapshot(file.number));
    let file = aside(disk, wal.reader().next_file(), Index(4));
    let hard_state = recovered.hard_state.expect("it is there");
    let mut raft = Raft::new(
        raft::Settings::new(OWN, 1),
        crate::driver::restoring::for_raft(hard_state, recovered, None),
    );
    raft.step(RaftEvent::Stateless(true));
    let (index, term) = (file.index, file.term);
    let configurations = vec![(Index(1), members())];
    raft.step(RaftEvent::Installed(Installed { index, term, configurations, giver_term: term }));
    let write = raft.take_output().write.expect("it has no state");
    assert_eq!(write.reset(), Some((index, term)));
    disk.crash_at_call(last_call);
    let done = persist(&mut wal, &write, &mut Some(file), &mut |_, _| {}).and_then(|()| wal.upkeep());
    assert_eq!(done.is_err(), disk.is_crashed(), "{done:?}");
    !disk.is_crashed()
}

/// Whatever call is the last one, the log is what it was, with all that was promised, and no snapshot can be read, or the other
/// node's can, which that log follows.
#[test]
fn rule_3_5_a_crash_while_another_state_takes_the_place_of_a_lost_one_drops_nothing_of_the_log() {
    let stateless = stateless();
    let mut ends = [0, 0];
    for call in 1.. {
        let disk = stateless.deep_clone();
        let lives = goes_over(&disk, call);
        for seed in 0..8 {
            let left = disk.deep_clone();
            if seed > 0 {
                left.power_cut(seed);
            }
            let mut directory = DataDir::open(Arc::new(left.clone()), None).expect("it is formatted");
            let (_wal, recovered) = directory.open_log(options()).expect("its records verify");
            let at = format!("call {call}, power cut {seed}");
            let vote = recovered.hard_state.expect("it is there");
            assert_eq!(vote, raft::HardState { term: Term(2), vote: Some(OWN) }, "{at}");
            assert_eq!((recovered.start.0, recovered.last_index), (Index(3), Index(6)), "{at}");
            assert!(recovered.holes.is_empty(), "{at}");
            let read = |file: &&SnapshotFile| SnapshotReader::open(&left, file).is_ok();
            let readable: Vec<Index> =
                recovered.manifest.snapshots.iter().filter(read).map(|file| file.index).collect();
            assert!(readable.is_empty() && !lives || readable == [Index(4)], "{at}: {readable:?}");
            ends[readable.len()] += 1;
        }
        if lives {
            break;
        }
    }
    assert!(ends.iter().all(|times| *times > 10), "before it counts and after: {ends:?}");
}
