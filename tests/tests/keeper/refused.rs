//! A disk that fails for once, wherever the node reads and writes beside its log's own writes: it ends, and says so, where nobody
//! knows any more what the disk holds; else it goes on, and nothing that lives is lost.

use super::*;
use raftqueue_node::driver::bodies::{Ended, Pass};
use raftqueue_node::driver::scrubbing;
use raftqueue_wal::{Mended, OpenError, SnapshotFile};
use std::cell::Cell;
use std::collections::BTreeSet;

const OPERATIONS: [Operation; 14] = [
    Operation::Open,
    Operation::Create,
    Operation::List,
    Operation::Rename,
    Operation::Remove,
    Operation::SyncDir,
    Operation::Lock,
    Operation::FreeBytes,
    Operation::Read,
    Operation::Write,
    Operation::Sync,
    Operation::Allocate,
    Operation::Truncate,
    Operation::Inspect,
];

/// What comes of a call that the disk refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    /// As if nothing had been.
    Nothing,
    /// What was being done is tried again later.
    Again,
    /// The process ends with a word about it.
    Ends,
}

impl Came {
    /// What the keeper's thread makes of it.
    fn of<T>(done: &Result<T, KeepError>) -> Self {
        match done {
            Ok(_) => Self::Nothing,
            Err(error @ KeepError::Io { operation, .. }) => {
                assert!(error.to_string().starts_with(operation), "{error}");
                Self::Ends
            }
            Err(KeepError::Read { .. }) => Self::Again,
            Err(other) => panic!("{other}"),
        }
    }
}

/// One call to a disk that is refused, if it comes between the beginning and the end.
struct Fault {
    disk: FakeDisk,
    operation: Operation,
    /// How many such calls pass before.
    skip: u64,
    /// How many calls there had been at the beginning, and how many at the end.
    calls: Cell<(u64, Option<u64>)>,
}

impl Fault {
    fn begin(&self) {
        let (operation, skip, file_prefix, error) =
            (self.operation, self.skip, String::new(), io::ErrorKind::Other);
        self.calls.set((self.disk.calls_of(operation), None));
        self.disk.inject(Refusal { operation, file_prefix, skip, count: 1, error });
    }

    fn end(&self) {
        let (begun, ended) = self.calls.get();
        self.disk.clear_refusals();
        self.calls.set((begun, ended.or(Some(self.disk.calls_of(self.operation)))));
    }

    /// It came.
    fn was_met(&self) -> bool {
        let (begun, ended) = self.calls.get();
        ended.expect("it has ended") - begun > self.skip
    }
}

/// A part of the node's work, in the midst of which the fault is.
type Work = fn(&mut Node, &Fault) -> Came;

/// Does the work with each call of each kind refused once, and goes on with the same process, or with the next one.
fn refuse_each(prepare: fn() -> Node, work: Work) -> BTreeMap<Operation, BTreeSet<Came>> {
    let mut seen: BTreeMap<Operation, BTreeSet<Came>> = BTreeMap::new();
    for operation in OPERATIONS {
        for skip in 0.. {
            let mut node = prepare();
            let (disk, live) = (node.disk.clone(), node.live());
            let fault = Fault { disk, operation, skip, calls: Cell::default() };
            let came = work(&mut node, &fault);
            fault.end();
            if came == Came::Ends {
                node = node.restart(skip % 2 == 0);
            }
            assert_eq!(node.live(), live, "{operation:?} {skip}");
            get_all(&mut node);
            node.check();
            (0..3).for_each(|_| node.keep().expect("it fails only once"));
            node.check();
            if !fault.was_met() {
                assert_eq!(came, Came::Nothing, "{operation:?} {skip}: nothing was refused");
                break;
            }
            seen.entry(operation).or_default().insert(came);
        }
    }
    seen
}

/// What is lacking comes from another node.
fn get_all(node: &mut Node) {
    loop {
        match node.keeper.fill(&node.freeze(), &mut HasAll, &mut |_| Ok(())).expect("it fails only once") {
            Filled::Part(change) => node.switch(&change, 0).expect("it fails only once"),
            Filled::Whole => return,
            other => panic!("{other}"),
        }
    }
}

/// Nothing of it is in memory.
fn just_started() -> Node {
    let mut node = consumed_but_for_one_in_ten();
    node.keep().expect("this disk takes everything");
    node.restart(false)
}

fn with_messages_that_are_lacking() -> Node {
    with_a_rotten_page().0
}

fn takes_a_snapshot(node: &mut Node, fault: &Fault) -> Came {
    let job = Job { freeze: node.freeze(), blocks: node.bodies.freeze() };
    fault.begin();
    let done = node.keeper.take_snapshot(&job, &mut |_| Ok(()));
    fault.end();
    let came = Came::of(&done);
    if let Ok(change) = done {
        node.switch(&change, job.blocks.len()).expect("it is refused no more");
    }
    came
}

fn compacts(node: &mut Node, fault: &Fault) -> Came {
    let freeze = node.freeze();
    let job = Job { freeze: freeze.clone(), blocks: node.bodies.freeze() };
    let change = node.keeper.take_snapshot(&job, &mut |_| Ok(())).expect("it is not refused yet");
    node.switch(&change, job.blocks.len()).expect("it is not refused yet");
    fault.begin();
    let done = node.keeper.compact(&freeze, &mut |_| Ok(()));
    fault.end();
    let came = Came::of(&done);
    if let Ok(Some(change)) = done {
        node.switch(&change, 0).expect("it is refused no more");
    }
    came
}

fn opens_its_new_files(node: &mut Node, fault: &Fault) -> Came {
    let job = Job { freeze: node.freeze(), blocks: node.bodies.freeze() };
    let change = node.keeper.take_snapshot(&job, &mut |_| Ok(())).expect("it is not refused yet");
    let switched = node.wal.switch(&change).expect("it is not refused yet");
    fault.begin();
    let filed = node.keeper.filed(&change, &switched);
    fault.end();
    let came = Came::of(&filed);
    if let Ok(filed) = filed {
        drop(node.bodies.filed(job.blocks.len(), filed.added, &filed.removed, |_| true));
    }
    came
}

fn is_filled(node: &mut Node, fault: &Fault) -> Came {
    let freeze = node.freeze();
    fault.begin();
    let filled = node.keeper.fill(&freeze, &mut HasAll, &mut |_| Ok(()));
    fault.end();
    let came = Came::of(&filled);
    if let Ok(Filled::Part(change)) = filled {
        node.switch(&change, 0).expect("it is refused no more");
    }
    came
}

fn counts_what_is_lacking(node: &mut Node, fault: &Fault) -> Came {
    fault.begin();
    let missing = node.keeper.missing(&node.state);
    fault.end();
    Came::of(&missing)
}

fn reads_for_clients(node: &mut Node, fault: &Fault) -> Came {
    let message = |id| MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
    let messages: Vec<_> = node.live().into_iter().map(message).collect();
    fault.begin();
    let located = node.bodies.locate(messages.clone());
    let readings = node.bodies.read(&located, usize::MAX, true).expect("it may block");
    let read = readings.deliveries.len();
    assert_eq!(read + readings.lost.len(), messages.len(), "what cannot be read takes nothing with it");
    if read == messages.len() { Came::Nothing } else { Came::Again }
}

fn gives_to_another_node(node: &mut Node, fault: &Fault) -> Came {
    let message = |id| MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
    let messages: Vec<_> = node.live().into_iter().map(message).collect();
    fault.begin();
    let located = node.bodies.locate(messages.clone());
    let gift = node.bodies.give(&located, usize::MAX);
    assert_eq!(gift.messages.len() as u64 + gift.unreadable, messages.len() as u64);
    if gift.unreadable == 0 { Came::Nothing } else { Came::Again }
}

fn scrubs(node: &mut Node, fault: &Fault) -> Came {
    let snapshots = node.wal.usable_snapshots();
    let mut met = |file| panic!("{file:?} is good");
    let mut pass = Pass::default();
    fault.begin();
    scrubbing::scrub(&node.reader, &node.bodies, &snapshots, &mut met, &mut pass, &mut |_| true)
        .expect("one call that is refused ends nothing");
    // Entries and snapshots are read once more; what others have or a snapshot makes good is asked for, as by any reader.
    assert_eq!(pass.damaged(), pass.messages + pass.pages + pass.heads, "{pass:?}");
    if pass.damaged() == 0 { Came::Nothing } else { Came::Again }
}

/// Sectors that cannot be read again: what they hold is taken for lost, and the rest of the disk is looked at all the same.
#[test]
fn rule_2_5_the_scrub_goes_on_behind_what_the_disk_never_gives_back() {
    let node = just_started();
    let snapshots = node.wal.usable_snapshots();
    let scrub = || {
        let (mut pass, mut met) = (Pass::default(), Vec::new());
        let done = scrubbing::scrub(
            &node.reader,
            &node.bodies,
            &snapshots,
            &mut |file: SnapshotFile| met.push(file),
            &mut pass,
            &mut |_| true,
        );
        (done, pass, met)
    };
    let refuse = |file_prefix: String, count: u64| {
        let error = io::ErrorKind::Other;
        node.disk.inject(Refusal { operation: Operation::Read, file_prefix, skip: 0, count, error });
    };
    let (done, whole, met) = scrub();
    assert!(done.is_ok() && met.is_empty(), "{whole:?}");
    assert_eq!((whole.damaged(), whole.refused, node.reader.holes().len()), (0, 0, 0));

    // A read of many, then of the first of them, twice: one record.
    refuse("segment-".into(), 3);
    let (done, pass, _) = scrub();
    assert!(done.is_ok(), "{done:?}");
    assert_eq!((pass.records, pass.damaged(), pass.refused), (1, 1, 1));
    let hole = node.reader.holes()[0];
    assert!(matches!(node.reader.mend_alone(&hole), Ok(Mended::Whole { is_written: false, .. })));
    assert_eq!(scrub().1, whole);

    // A snapshot that is refused twice.
    refuse("snapshot-".into(), 2);
    let (done, pass, met) = scrub();
    assert!(done.is_ok(), "{done:?}");
    assert_eq!((pass.snapshots, met.len(), pass.damaged(), pass.refused), (1, 1, 1, 2));
    assert!(pass.wants_snapshot());

    // Nothing can be read any more.
    refuse(String::new(), u64::MAX);
    let (done, pass, _) = scrub();
    assert!(matches!(done, Err(Ended::Refused(_))), "{done:?}");
    assert!(pass.refused < 20, "{pass:?}");
    node.disk.clear_refusals();
    node.reader.holes().iter().for_each(|hole| drop(node.reader.mend_alone(hole).expect("it is whole")));
    assert_eq!(scrub().1, whole);
}

/// A start up to where the log and the files are open, as a node does it.
fn starts(disk: &FakeDisk) -> Result<(), OpenError> {
    let mut directory = DataDir::open(Arc::new(disk.clone()), Some("a"))?;
    let options = Options { segment_bytes: SETTINGS.segment_bytes, entropy: 6, ..Options::default() };
    let mut restored = restoring::Restored::default();
    let (wal, recovered) = directory.open_log_if(options, |found| {
        restored = restoring::restore_from(found.disk, found.manifest, found.start)?;
        Ok(())
    })?;
    let applied = restored.freeze.map_or(Index(0), |freeze| freeze.index);
    Keeper::open(wal.reader(), &recovered.manifest, applied, PageCache::new(0), SETTINGS).map(drop)
}

#[test]
fn rule_2_7_a_disk_that_fails_for_once_ends_the_process_or_costs_nothing() {
    use Came::{Again, Ends, Nothing};
    use Operation as O;
    type Row = (&'static str, fn() -> Node, Work, &'static [(Operation, Came)]);
    // A write that fails ends the process; a read that fails is repeated later, or made up for at once.
    const WRITES: &[(Operation, Came)] =
        &[(O::Create, Ends), (O::SyncDir, Ends), (O::Write, Ends), (O::Sync, Ends)];
    const NEW_FILES: &[(Operation, Came)] = &[(O::Open, Ends), (O::Inspect, Ends), (O::Read, Ends)];
    const SCRUB: &[(Operation, Came)] = &[
        (O::Open, Nothing),
        (O::Inspect, Nothing),
        (O::Inspect, Again),
        (O::Read, Nothing),
        (O::Read, Again),
    ];
    let rows: [Row; 8] = [
        ("a snapshot", consumed_but_for_one_in_ten, takes_a_snapshot, &[(O::Read, Again)]),
        ("compaction", consumed_but_for_one_in_ten, compacts, &[(O::Read, Nothing)]),
        ("filling", with_messages_that_are_lacking, is_filled, &[(O::Read, Again)]),
        ("new files", consumed_but_for_one_in_ten, opens_its_new_files, NEW_FILES),
        ("counting", just_started, counts_what_is_lacking, &[(O::Read, Again)]),
        ("reading", just_started, reads_for_clients, &[(O::Read, Nothing)]),
        ("giving", just_started, gives_to_another_node, &[(O::Read, Nothing)]),
        ("scrubbing", just_started, scrubs, SCRUB),
    ];
    for (number, (what, prepare, work, expected)) in rows.into_iter().enumerate() {
        let seen = refuse_each(prepare, work);
        println!("{what}: {seen:?}");
        let writes = if number < 3 { WRITES } else { &[] };
        let mut wanted: BTreeMap<Operation, BTreeSet<Came>> = BTreeMap::new();
        for (operation, came) in writes.iter().chain(expected) {
            wanted.entry(*operation).or_default().insert(*came);
        }
        assert_eq!(seen, wanted, "{what}");
    }
}

#[test]
fn rule_2_7_a_disk_that_fails_for_once_at_a_start_fails_that_start_and_no_other() {
    let prepared = just_started();
    let live = prepared.live();
    let disk = prepared.disk.deep_clone();
    drop(prepared);
    for operation in OPERATIONS {
        for skip in 0.. {
            let disk = disk.deep_clone();
            let (file_prefix, error) = (String::new(), io::ErrorKind::Other);
            disk.inject(Refusal { operation, file_prefix, skip, count: 1, error });
            let started = starts(&disk);
            let is_refused = disk.calls_of(operation) > skip;
            match started {
                Ok(()) => {}
                Err(OpenError::Io { .. }) => assert!(is_refused),
                Err(other) => panic!("{operation:?} {skip}: {other}"),
            }
            if skip % 2 == 0 {
                disk.power_cut(skip);
            } else {
                disk.crash_process();
            }
            let mut node = Node::open(disk, 64 << 10);
            assert_eq!(node.live(), live, "{operation:?} {skip}");
            node.check();
            node.keep().expect("it fails only once");
            node.check();
            if !is_refused {
                break;
            }
        }
    }
}
