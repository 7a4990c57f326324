//! Rules 3.1 to 3.4: the set of live files changes whole or not at all, and nothing goes that somebody still needs.

use super::keeper::*;
use super::support::*;
use crate::disk::fake::{FakeDisk, Operation, Refusal};
use crate::{
    AppendError, Change, DataDir, KeptFile, Manifest, PlacesFile, PlacesKind, PlacesWriter, Wal, Written,
};
use raftqueue_raft::{Index, Term};
use std::io;

/// Power cuts tried per point by default.
const SEEDS: u64 = 2;

/// Power cuts tried per point; `RAFTQUEUE_WAL_SEEDS` asks for more.
fn seeds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a longer budget for this test, asked for by hand")]
    let asked = std::env::var("RAFTQUEUE_WAL_SEEDS");
    asked.ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

/// Short lives that together use everything: snapshots, cuts, files that go at once and files that are kept, kept files
/// that are merged, retired files on both sides of a snapshot, installs on a short log and on one with kept files, and
/// restarts in between.
fn lives() -> Vec<(&'static str, Vec<Work>)> {
    use Work::*;
    vec![
        (
            "snapshots",
            vec![
                Append(6),
                Snapshot,
                Append(20),
                Append(20),
                Snapshot,
                Upkeep,
                Snapshot,
                Upkeep,
                Append(2),
                Reopen,
                Append(20),
                Snapshot,
                Upkeep,
            ],
        ),
        (
            "compaction",
            vec![
                Append(20),
                Append(20),
                Snapshot,
                Compact,
                Append(15),
                Snapshot,
                Upkeep,
                Compact,
                Snapshot,
                Upkeep,
                Append(20),
                Append(20),
                Snapshot,
                Compact,
                Reopen,
                Snapshot,
                Compact,
                Upkeep,
                Append(3),
            ],
        ),
        (
            "installs",
            vec![
                Append(4),
                Install(10),
                Append(20),
                Snapshot,
                Snapshot,
                Compact,
                Install(3),
                Upkeep,
                Append(5),
                Prove,
                Reopen,
                Install(30),
                Append(20),
                Snapshot,
                Compact,
                Snapshot,
                Upkeep,
            ],
        ),
    ]
}

/// How a life ended: the sets of live files before and after the work that failed, and the last index.
struct Ended {
    before: Manifest,
    last: u64,
    /// The work that failed; `None` if all was done.
    failed: Option<usize>,
}

fn live(disk: &FakeDisk, works: &[Work]) -> Ended {
    let mut ended = Ended { before: Manifest::default(), last: 0, failed: Some(0) };
    let Ok(mut dir) = DataDir::open(shared(disk), Some("a")) else { return ended };
    let Ok((wal, _)) = dir.open_log(options(1)) else { return ended };
    let mut wal = Some(wal);
    for (place, one) in works.iter().enumerate() {
        ended.failed = Some(place);
        if matches!(one, Work::Reopen) {
            drop(wal.take());
            match dir.open_log(options(100 + place as u64)) {
                Ok((again, _)) => wal = Some(again),
                Err(_) => return ended,
            }
        } else if work(disk, wal.as_mut().expect("reopened above"), one).is_err() {
            return ended;
        }
        let wal = wal.as_ref().expect("open");
        (ended.before, ended.last) = (wal.manifest().clone(), wal.last_index().0);
    }
    ended.failed = None;
    ended
}

/// The set of live files after each work of a life that nothing disturbs.
fn sets(works: &[Work]) -> Vec<(Manifest, u64)> {
    (1..=works.len())
        .map(|count| {
            let ended = live(&formatted(1), &works[..count]);
            (ended.before, ended.last)
        })
        .collect()
}

/// Two sets are one if they name the same files; what number comes next may be known better.
fn is_same(one: &Manifest, other: &Manifest) -> bool {
    Manifest { next_file: 0, ..one.clone() } == Manifest { next_file: 0, ..other.clone() }
}

fn aftermaths(crashed: &FakeDisk) -> Vec<(String, FakeDisk)> {
    let mut disks =
        vec![("process".to_owned(), crashed.deep_clone()), ("worst cut".to_owned(), crashed.durable_view())];
    for seed in 0..seeds() {
        let disk = crashed.deep_clone();
        disk.power_cut(seed * 7919 + crashed.calls());
        disks.push((format!("cut {seed}"), disk));
    }
    disks
}

/// Opens what a crash left, and says which set of live files it found.
fn must_open(disk: &FakeDisk, entropy: u64, context: &dyn Fn() -> String) -> (Wal, Manifest) {
    let opened = open(disk, entropy);
    let (wal, recovered) = opened.unwrap_or_else(|error| panic!("{}: {error}", context()));
    check_opened(disk, &wal, &recovered, context);
    (wal, recovered.manifest)
}

/// The log goes on, is snapshotted and compacted, and a power cut takes nothing of that.
fn must_go_on(disk: &FakeDisk, mut wal: Wal, context: &dyn Fn() -> String) {
    for one in [Work::Append(8), Work::Snapshot, Work::Compact, Work::Append(2), Work::Snapshot, Work::Upkeep]
    {
        work(disk, &mut wal, &one).unwrap_or_else(|error| panic!("{}: {error}", context()));
    }
    check(disk, &wal, context);
    let (manifest, last) = (wal.manifest().clone(), wal.last_index());
    drop(wal);
    let cut = disk.durable_view();
    let (again, found) = must_open(&cut, 31, &|| format!("{}, gone on and cut", context()));
    assert!(is_same(&found, &manifest) && again.last_index() == last, "{}", context());
}

#[test]
fn rule_3_3_a_crash_at_every_call_leaves_the_old_set_of_files_or_the_new_one() {
    for (name, works) in lives() {
        let sets = sets(&works);
        let whole = formatted(1);
        let before = whole.calls();
        let ended = live(&whole, &works);
        assert!(ended.failed.is_none(), "{name}");
        let calls = whole.calls() - before;
        let mut met = [0; 2];
        for call in 1..=calls {
            let disk = formatted(1);
            disk.crash_at_call(call);
            let ended = live(&disk, &works);
            let failed = ended.failed.expect("it crashes");
            for (which, (how, disk)) in (0..).zip(aftermaths(&disk)) {
                let context =
                    || format!("{name}, {:?} crashed at call {call} of {calls}, {how}", works[failed]);
                let (wal, found) = must_open(&disk, 20, &context);
                let last = wal.last_index().0;
                let is_old = is_same(&found, &ended.before) && last >= ended.last;
                let is_new = is_same(&found, &sets[failed].0) && last == sets[failed].1;
                assert!(
                    is_old || is_new,
                    "{}\nfound {found:?}\nold {:?}\nnew {:?}",
                    context(),
                    ended.before,
                    sets[failed]
                );
                met[usize::from(is_new && !is_old)] += 1;
                // What was reported stays.
                let (_, again) = must_open(&disk.durable_view(), 21, &context);
                assert!(is_same(&again, &found), "{}", context());
                if seeds() > SEEDS || call % 4 == which {
                    must_go_on(&disk, wal, &context);
                }
            }
        }
        assert!(met[0] > 0 && met[1] > 0, "{name}: {met:?}");
    }
}

#[test]
fn rule_3_3_a_crash_of_the_opening_that_cleans_up_leads_to_the_same_set() {
    for (name, works) in lives() {
        let whole = formatted(1);
        let before = whole.calls();
        live(&whole, &works);
        let calls = whole.calls() - before;
        for call in (1..=calls).step_by(if seeds() > SEEDS { 1 } else { 23 }) {
            let disk = formatted(1);
            disk.crash_at_call(call);
            let ended = live(&disk, &works);
            for (how, first) in aftermaths(&disk).into_iter().take(3) {
                let probe = first.deep_clone();
                let before = probe.calls();
                let (_, found) = must_open(&probe, 20, &|| format!("{name}, call {call}, {how}"));
                for second in 1..=probe.calls() - before {
                    let disk = first.deep_clone();
                    disk.crash_at_call(second);
                    if open(&disk, 20).is_ok() {
                        // The check of the probe made calls of its own.
                        break;
                    }
                    let cut = disk.deep_clone();
                    cut.power_cut(call * 1000 + second);
                    for (then, disk) in
                        [("process", disk.deep_clone()), ("cut", cut), ("worst", disk.durable_view())]
                    {
                        let context = || format!("{name}, call {call}, {how}, again at {second}, {then}");
                        let (_, again) = must_open(&disk, 23, &context);
                        // A rename that only the cache knew may be gone again: nobody had reported it.
                        assert!(is_same(&again, &found) || is_same(&again, &ended.before), "{}", context());
                        let (_, later) = must_open(&disk.durable_view(), 24, &context);
                        assert!(is_same(&later, &again), "{}", context());
                    }
                }
            }
        }
    }
}

#[test]
fn rule_3_3_a_full_disk_undoes_a_switch_and_the_same_again_succeeds() {
    let operations =
        [Operation::Write, Operation::Sync, Operation::Allocate, Operation::Create, Operation::Rename];
    for (name, works) in lives() {
        for operation in operations {
            for skip in 0.. {
                let disk = formatted(1);
                let mut wal = Some(open(&disk, 1).unwrap().0);
                let error = io::ErrorKind::StorageFull;
                disk.inject(Refusal { operation, file_prefix: String::new(), skip, count: 1, error });
                let before = disk.calls_of(operation);
                for (place, one) in works.iter().enumerate() {
                    let context =
                        || format!("{name}, {one:?} ({place}), {operation:?} {skip} found no space");
                    if matches!(one, Work::Reopen) {
                        drop(wal.take());
                        let opened = open(&disk, 40).or_else(|_| open(&disk, 41));
                        wal = Some(opened.unwrap_or_else(|error| panic!("{}: {error}", context())).0);
                        continue;
                    }
                    let open = wal.as_mut().expect("reopened above");
                    let (manifest, last) = (open.manifest().clone(), open.last_index());
                    if work(&disk, open, one).is_err() {
                        assert_eq!((open.manifest(), open.last_index()), (&manifest, last), "{}", context());
                        check(&disk, open, &context);
                        let (_, found) = must_open(&disk.durable_view(), 20, &context);
                        assert!(is_same(&found, &manifest), "{}", context());
                        work(&disk, open, one).unwrap_or_else(|error| panic!("{}: {error}", context()));
                    }
                    check(&disk, open, &context);
                }
                drop(wal);
                must_open(&disk.durable_view(), 20, &|| format!("{name}, {operation:?} {skip}"));
                if disk.calls_of(operation) - before <= skip {
                    break;
                }
            }
        }
    }
}

/// It is there whichever of the two manifests an opening finds.
#[test]
fn rule_3_4_a_reset_whose_manifest_may_count_keeps_the_segment_that_it_made() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    work(&disk, &mut wal, &Work::Append(5)).unwrap();
    let term = Term(1);
    let snapshot = write_snapshot(&wal, Index(25), term).unwrap();
    // The first one is of the segment.
    let (operation, error) = (Operation::SyncDir, io::ErrorKind::Other);
    disk.inject(Refusal { operation, file_prefix: String::new(), skip: 1, count: 1, error });
    let reset = Some((Index(25), term));
    let change = Change { snapshot: Some(snapshot), reset, ..Change::default() };
    assert!(matches!(wal.switch(&change), Err(AppendError::Failed { operation: "sync the directory", .. })));
    drop(wal);
    let (mut opened, recovered) = open(&disk, 2).unwrap();
    assert_eq!(recovered.start, (Index(25), term));
    work(&disk, &mut opened, &Work::Append(3)).unwrap();
    drop(opened);
    assert_eq!(open(&disk.durable_view(), 3).unwrap().1.last_index, Index(28));
}

#[test]
fn a_change_that_is_given_up_leaves_nothing_on_the_disk() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    work(&disk, &mut wal, &Work::Append(5)).unwrap();
    let before = disk.names();
    let written = |kind| PlacesWriter::create(&disk, wal.next_file(), kind).unwrap().finish(&disk).unwrap();
    let Written { number, size, crc } = written(PlacesKind::Segment(1));
    let places = vec![PlacesFile { number, size, crc, segment: 1, to: Index(5), messages: 0 }];
    let Written { number, size, crc } = written(PlacesKind::Kept);
    let kept = vec![KeptFile { number, size, crc, since: Index(5) }];
    let snapshot = Some(write_snapshot(&wal, Index(5), Term(1)).unwrap());
    assert_eq!(disk.names().len(), before.len() + 3);
    Change { snapshot, places, kept, ..Change::default() }.abandon(&disk);
    assert_eq!(disk.names(), before);
}

#[test]
fn rule_3_3_a_switch_whose_rename_may_not_be_durable_ends_the_log() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    work(&disk, &mut wal, &Work::Append(5)).unwrap();
    wal.prove().unwrap();
    let snapshot = write_snapshot(&wal, Index(5), Term(1)).unwrap();
    let error = io::ErrorKind::StorageFull;
    disk.inject(Refusal {
        operation: Operation::SyncDir,
        file_prefix: String::new(),
        skip: 0,
        count: 1,
        error,
    });
    let change = Change { snapshot: Some(snapshot), ..Change::default() };
    assert!(matches!(wal.switch(&change), Err(AppendError::Failed { operation: "sync the directory", .. })));
    assert!(matches!(wal.switch(&change), Err(AppendError::Poisoned { .. })));
    assert!(matches!(wal.upkeep(), Err(AppendError::Poisoned { .. })));
}

/// The newer one rots. The next one takes its place, and not that of the older one: nobody could fall back on anything else.
#[test]
fn rule_3_1_the_next_snapshot_takes_the_place_of_one_that_cannot_be_read() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..10, 1, 10))).unwrap();
    let take = |wal: &mut Wal, index: u64| {
        let file = write_snapshot(wal, Index(index), Term(1)).unwrap();
        wal.switch(&Change { snapshot: Some(file), ..Change::default() }).unwrap();
        file
    };
    let (older, newer) = (take(&mut wal, 3), take(&mut wal, 5));
    wal.give_up_snapshot(newer.number);
    assert_eq!(wal.unusable_snapshots(), 1);
    let next = take(&mut wal, 5);
    assert_eq!((wal.manifest().snapshots.as_slice(), wal.unusable_snapshots()), (&[older, next][..], 0));
    // Both are lost. Another node's is the only one then, also if it is of an earlier index: the log behind it is there.
    [older, next].iter().for_each(|file| wal.give_up_snapshot(file.number));
    let other = take(&mut wal, 2);
    assert_eq!((wal.manifest().snapshots.as_slice(), wal.last_index()), (&[other][..], Index(9)));
    tidy(&mut wal).unwrap();
    drop(wal);
    let (wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!((recovered.last_index, wal.manifest().snapshots.as_slice()), (Index(9), &[other][..]));
    assert!([older, newer, next].iter().all(|file| disk.bytes(&file.name()).is_none()));
}
