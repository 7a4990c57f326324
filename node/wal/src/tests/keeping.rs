//! What goes and what stays, file by file, and what an opening says of files that are not as they should be.

use super::keeper::*;
use super::support::*;
use crate::disk::Disk;
use crate::disk::fake::{FakeDisk, Operation};
use crate::names::numbered;
use crate::segment::segment_name;
use crate::{
    Change, DamagedFile, FileDamage, FileId, KeptFile, Manifest, OpenError, PlacesFile, ReadError, Retired,
    RottenPart, SnapshotFile, Wal, dump,
};
use proptest::prelude::*;
use raftqueue_raft::{Index, Term};

/// A log of some segments in which nothing was snapshotted yet.
fn log(entries: u64) -> (FakeDisk, Wal) {
    let disk = formatted(1);
    let mut wal = open(&disk, 1).unwrap().0;
    for _ in 0..entries / 5 {
        work(&disk, &mut wal, &Work::Append(5)).unwrap();
    }
    (disk, wal)
}

fn snapshot_at(wal: &Wal, index: u64) -> Option<SnapshotFile> {
    Some(write_snapshot(wal, Index(index), Term(1)).unwrap())
}

fn places(wal: &Wal, segment: u64, messages: u64) -> PlacesFile {
    let to = wal.reader().segment_span(segment).unwrap().last;
    PlacesFile { number: wal.next_file(), size: 0, crc: 0, segment, to, messages }
}

/// What is there after some work of every kind: released segments, kept files, retired ones.
fn rich() -> (FakeDisk, Wal) {
    let (disk, mut wal) = log(60);
    for one in [Work::Snapshot, Work::Append(10), Work::Snapshot, Work::Compact, Work::Append(10)] {
        work(&disk, &mut wal, &one).unwrap();
    }
    let Manifest { released, kept, retired, .. } = wal.manifest();
    assert!(!released.is_empty() && !kept.is_empty() && !retired.is_empty(), "{:?}", wal.manifest());
    (disk, wal)
}

#[test]
fn rule_3_1_the_log_is_cut_by_the_older_of_two_snapshots_and_only_as_far_as_places_are_known() {
    let (_, mut wal) = log(60);
    let reader = wal.reader();
    let segments = reader.segments();
    assert!(segments.len() > 3);
    let lasts: Vec<_> =
        segments.iter().map(|segment| reader.segment_span(*segment).unwrap().last.0).collect();
    let last_of = |segment: u64| lasts[segments.iter().position(|one| *one == segment).unwrap()];
    let [first, second] = [segments[0], segments[1]];
    // Everything is known of the first segment, of the second one all but the last entry.
    let known = vec![
        places(&wal, first, 5),
        PlacesFile { to: Index(last_of(second) - 1), ..places(&wal, second, 5) },
    ];
    let snapshot = snapshot_at(&wal, last_of(first) - 1);
    let switched = wal.switch(&Change { snapshot, places: known, ..Change::default() }).unwrap();
    assert_eq!((switched.start.0, wal.manifest().first_segment), (Index(0), 1), "there is no older one");
    let snapshot = snapshot_at(&wal, last_of(second));
    wal.switch(&Change { snapshot, ..Change::default() }).unwrap();
    assert_eq!(wal.manifest().first_segment, 1, "the older one does not cover all of the first segment");
    let snapshot = snapshot_at(&wal, last_of(second));
    let switched = wal.switch(&Change { snapshot, ..Change::default() }).unwrap();
    assert_eq!((switched.released, switched.start), (vec![first], (Index(last_of(first)), Term(1))));
    assert_eq!(wal.manifest().first_segment, second, "not all of its messages could be found");
    let whole = places(&wal, second, 5);
    let switched = wal.switch(&Change { places: vec![whole], ..Change::default() }).unwrap();
    assert_eq!(switched.released, [second]);
    assert_eq!(wal.manifest().released, [first, second]);
    assert_eq!(
        reader.first_index(),
        wal.manifest().snapshots[0].index.next(),
        "and nothing beyond the older one"
    );
    // Never what is written to, whatever is covered.
    let last = wal.last_index();
    for _ in 0..2 {
        let sealed: Vec<u64> = reader.segments();
        let known = sealed.iter().map(|segment| places(&wal, *segment, 1)).collect();
        let snapshot = snapshot_at(&wal, last.0);
        wal.switch(&Change { snapshot, places: known, ..Change::default() }).unwrap();
    }
    assert_eq!(reader.segments(), segments[segments.len() - 1..]);
    assert_eq!(reader.last_index(), last);
}

#[test]
fn rule_3_1_a_segment_without_messages_goes_at_once_and_its_file_is_used_again() {
    let (disk, mut wal) = log(60);
    let first = wal.reader().segments()[0];
    let at = wal.reader().segment_span(first).unwrap().last.0;
    let empty = places(&wal, first, 0);
    let snapshot = snapshot_at(&wal, at);
    wal.switch(&Change { snapshot, places: vec![empty], ..Change::default() }).unwrap();
    let snapshot = snapshot_at(&wal, at);
    let switched = wal.switch(&Change { snapshot, ..Change::default() }).unwrap();
    assert_eq!((switched.gone, switched.released), (vec![FileId::Segment(first)], vec![]));
    assert!(wal.manifest().places.is_empty());
    assert!(disk.names().contains(&segment_name(first)), "no file is removed in the switch itself");
    let spares = wal.spare_files();
    tidy(&mut wal).unwrap();
    assert!(!disk.names().contains(&segment_name(first)));
    assert_eq!(wal.spare_files(), spares + 1);
}

#[test]
fn rule_3_1_a_snapshot_never_lies_beyond_what_an_opening_would_keep() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    work(&disk, &mut wal, &Work::Append(5)).unwrap();
    let snapshot = snapshot_at(&wal, 5);
    let end = wal.synced_to();
    wal.switch(&Change { snapshot, ..Change::default() }).unwrap();
    drop(wal);
    // The last batch rots. Unproven it would be called torn and be cut, and index 5 come to be another entry.
    assert!(disk.corrupt(&segment_name(end.segment), end.offset - 300, 1));
    let (_, recovered) = open(&disk, 2).unwrap();
    assert_eq!((recovered.last_index, recovered.cut), (Index(5), None));
    assert_eq!(recovered.holes.iter().map(|rotten| rotten.part).collect::<Vec<_>>(), [RottenPart::Bodies]);
}

#[test]
fn rule_3_2_what_is_retired_goes_only_when_the_older_snapshot_covers_that() {
    let (disk, mut wal) = rich();
    let Manifest { retired, kept, released, snapshots, .. } = wal.manifest().clone();
    assert!(
        retired.iter().all(|retired| retired.at == snapshots[1].index && retired.at > snapshots[0].index)
    );
    let gone_files: Vec<FileId> = retired.iter().map(|retired| retired.file).collect();
    // The same index again: then both cover it.
    let snapshot = snapshot_at(&wal, snapshots[1].index.0);
    let switched = wal.switch(&Change { snapshot, ..Change::default() }).unwrap();
    let mut gone = switched.gone;
    gone.sort();
    assert_eq!(gone, gone_files);
    assert_eq!(wal.manifest().retired, []);
    assert!(wal.manifest().released.iter().all(|segment| !gone.contains(&FileId::Segment(*segment))));
    assert_eq!(wal.manifest().kept, kept);
    let names = disk.names();
    tidy(&mut wal).unwrap();
    for segment in released.iter().filter(|segment| gone.contains(&FileId::Segment(**segment))) {
        assert!(names.contains(&segment_name(*segment)) && !disk.names().contains(&segment_name(*segment)));
        assert!(wal.manifest().places_of(*segment).is_none());
        assert!(wal.reader().pin(*segment).is_none());
    }
    check(&disk, &wal, &|| "after the retired ones went".into());
    // A kept file goes the same way.
    let retire = vec![Retired { file: FileId::Kept(kept[0].number), at: Index(60) }];
    wal.switch(&Change { retire, ..Change::default() }).unwrap();
    let name = numbered("kept-", kept[0].number);
    tidy(&mut wal).unwrap();
    assert_eq!(disk.names().contains(&name), snapshots[1].index < Index(60));
}

#[test]
fn rule_3_2_a_pinned_segment_stays_readable_when_its_name_is_gone_and_is_never_used_again() {
    for is_pinned in [true, false] {
        let (disk, mut wal) = log(60);
        let reader = wal.reader();
        let (segment, offset) = reader.location(Index(3)).unwrap();
        let spares = wal.spare_files();
        let pinned = is_pinned.then(|| reader.pin(segment).unwrap());
        let first_bytes = disk.bytes(&segment_name(segment)).unwrap();
        // Read once, so that its file is among those that are open for nobody in particular.
        assert_eq!(reader.pin(segment).unwrap().bodies_at(offset, 0, 10).unwrap(), body(3)[..10]);
        if is_pinned {
            // And then closed, as if many others had been read since.
            wal.open_files.take(segment);
        }
        cut(&mut wal, Index(40)).unwrap();
        assert!(!disk.names().contains(&segment_name(segment)));
        assert_eq!(wal.spare_files() > spares, !is_pinned || wal.manifest().first_segment > 2);
        for _ in 0..20 {
            work(&disk, &mut wal, &Work::Append(8)).unwrap();
            let last = wal.last_index();
            cut(&mut wal, last).unwrap();
        }
        if let Some(pinned) = pinned {
            let meta = pinned.meta_at(offset).unwrap();
            assert_eq!((meta.index, pinned.segment()), (Index(3), segment));
            let size = body(3).len();
            assert_eq!(pinned.bodies_at(offset, 0, size).unwrap(), body(3));
            assert!(reader.pin(segment).is_none(), "no new reader comes to it");
            assert!(first_bytes.len() as u64 == SEGMENT_BYTES);
        }
    }
}

#[test]
fn a_pinned_segment_gives_only_what_verifies() {
    let (disk, wal) = log(60);
    let reader = wal.reader();
    let (segment, offset) = reader.location(Index(7)).unwrap();
    let pinned = reader.pin(segment).unwrap();
    let size = body(7).len() as u64;
    let beyond = pinned.bodies_at(offset, size - 1, 2);
    assert!(matches!(beyond, Err(ReadError::OutOfBodies { index: Index(7), .. })));
    assert!(matches!(pinned.bodies_at(offset, u64::MAX, 2), Err(ReadError::OutOfBodies { .. })));
    for wrong in [0, 8, offset + 8, offset + 48, SEGMENT_BYTES - 8, SEGMENT_BYTES * 9, u64::MAX / 2] {
        for error in [pinned.meta_at(wrong).err(), pinned.bodies_at(wrong, 0, 1).err()] {
            match error {
                Some(ReadError::Rot(rotten)) => {
                    assert_eq!(
                        (rotten.part, rotten.offset, rotten.record),
                        (RottenPart::RecordHeader, wrong, None)
                    );
                }
                other => panic!("{wrong}: {other:?}"),
            }
        }
    }
    let name = segment_name(segment);
    assert!(disk.corrupt(&name, offset + 48, 1));
    match pinned.meta_at(offset) {
        Err(ReadError::Rot(rotten)) => {
            assert_eq!((rotten.part, rotten.record.unwrap().index), (RottenPart::Meta, Index(7)));
        }
        other => panic!("{other:?}"),
    }
    assert!(disk.corrupt(&name, offset + 30, 1));
    assert!(matches!(pinned.bodies_at(offset, 0, 1), Err(ReadError::Rot(_))));
    assert!(reader.pin(segment + 100).is_none());
}

#[test]
fn a_long_meta_is_read_whole() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let meta = bytes::Bytes::from(vec![7; 9000]);
    let payload = raftqueue_raft::Payload::Command { meta: meta.clone(), bodies: bytes::Bytes::new() };
    let entry = raftqueue_raft::Entry { index: Index(1), term: Term(1), payload };
    wal.append(&batch(hard(1, 7), &[entry])).unwrap();
    let (segment, offset) = wal.reader().location(Index(1)).unwrap();
    let found = wal.reader().pin(segment).unwrap().meta_at(offset).unwrap();
    assert_eq!(found.payload, crate::MetaPayload::Command { meta, bodies_bytes: 0 });
}

#[test]
fn only_so_many_segments_are_open_and_those_read_last_stay_so() {
    let (disk, wal) = log(1300);
    let reader = wal.reader();
    let segments = reader.segments();
    assert!(segments.len() > crate::open_files::OPEN_FILES_MAX + 5);
    let opened = |read: &mut dyn FnMut()| {
        let before = disk.calls_of(Operation::Open);
        read();
        disk.calls_of(Operation::Open) - before
    };
    let touch = |segment: u64| {
        let span = reader.segment_span(segment).unwrap();
        reader.metas(span.first, span.first.next(), 0).unwrap();
    };
    let all = opened(&mut || segments.iter().for_each(|segment| touch(*segment)));
    assert!(all > 0);
    let again = opened(&mut || segments.iter().for_each(|segment| touch(*segment)));
    assert!(again as usize >= segments.len() - crate::open_files::OPEN_FILES_MAX, "{again}");
    let few = &segments[..crate::open_files::OPEN_FILES_MAX / 2];
    few.iter().for_each(|segment| touch(*segment));
    assert_eq!(opened(&mut || few.iter().for_each(|segment| touch(*segment))), 0);
    drop(wal);
    let (wal, _) = open(&disk, 2).unwrap();
    check(&disk, &wal, &|| "opened with few files".into());
}

#[test]
fn rule_3_2_missing_and_damaged_files_of_bodies_are_named_and_stop_nothing() {
    let (disk, wal) = rich();
    let manifest = wal.manifest().clone();
    drop(wal);
    let released = segment_name(manifest.released[0]);
    let kept = numbered("kept-", manifest.kept[0].number);
    let places = numbered("places-", manifest.places[0].number);
    let said = |disk: &FakeDisk| {
        let (wal, recovered) = open(disk, 2).unwrap();
        assert_eq!(recovered.manifest, manifest, "nothing is given up because of it");
        assert_eq!(wal.reader().last_index(), Index(80));
        recovered.damaged_files
    };
    assert_eq!(said(&disk.deep_clone()), []);
    for file in [&released, &kept, &places] {
        let damaged = disk.deep_clone();
        damaged.take(file);
        assert_eq!(said(&damaged), [DamagedFile { file: file.clone(), damage: FileDamage::Missing }]);
        assert_eq!(said(&damaged)[0].to_string(), format!("{file} is missing"));
    }
    for file in [&kept, &places] {
        let damaged = disk.deep_clone();
        let mut bytes = disk.bytes(file).unwrap();
        let expected = bytes.len() as u64;
        bytes.truncate(600);
        damaged.put(file, &bytes);
        let damage = FileDamage::Size { found: 600, expected };
        assert_eq!(said(&damaged), [DamagedFile { file: file.clone(), damage }]);
    }
    let damaged = disk.deep_clone();
    assert!(damaged.corrupt(&released, 20, 1));
    assert!(matches!(said(&damaged)[..], [DamagedFile { damage: FileDamage::Head(_), .. }]));
    assert!(damaged.names().contains(&released), "it is left to be looked at");
    let (mut wal, _) = open(&damaged, 3).unwrap();
    assert!(wal.reader().pin(manifest.released[0]).is_none());
    // It goes like any other once nothing needs it.
    let at = manifest.snapshots[1].index;
    let retire = vec![Retired { file: FileId::Segment(manifest.released[0]), at }];
    let retire = if manifest.retired.iter().any(|one| one.file == retire[0].file) { vec![] } else { retire };
    let snapshot = snapshot_at(&wal, at.0);
    wal.switch(&Change { snapshot, retire, ..Change::default() }).unwrap();
    tidy(&mut wal).unwrap();
    assert!(!damaged.names().contains(&released));
}

#[test]
fn rule_3_3_a_manifest_that_is_gone_or_fits_no_log_is_named_and_nothing_is_removed() {
    let (disk, wal) = rich();
    drop(wal);
    let refused = |disk: &FakeDisk| {
        let before = disk.names();
        let error = open(disk, 2).err().expect("refused");
        assert_eq!(disk.names(), before);
        error
    };
    let damaged = disk.deep_clone();
    damaged.take("MANIFEST");
    assert!(matches!(refused(&damaged), OpenError::ManifestMissing { .. }));
    // Even if all segments of the log are there.
    let first = formatted(1);
    drop(open(&first, 1).unwrap());
    first.take("MANIFEST");
    first.put("kept-0000000000000001", b"x");
    let error = refused(&first);
    assert_eq!(error.to_string(), "the directory has kept-0000000000000001 but no MANIFEST");
    // A log that was set back, or a manifest of another time.
    let manifest = Manifest::read(&disk).unwrap().unwrap();
    for change in [
        |manifest: &mut Manifest| manifest.snapshots.clear(),
        |manifest: &mut Manifest| manifest.snapshots[0].index = Index(1),
        |manifest: &mut Manifest| manifest.snapshots[1].index = Index(81),
    ] {
        let damaged = disk.deep_clone();
        let mut other = manifest.clone();
        change(&mut other);
        other.write(&damaged).unwrap();
        assert!(matches!(refused(&damaged), OpenError::SnapshotsApart { last: Index(80), .. }));
    }
    let damaged = disk.deep_clone();
    damaged.take(&segment_name(manifest.first_segment));
    assert!(matches!(refused(&damaged), OpenError::FirstSegmentMissing { .. }));
}

#[test]
fn rule_3_4_a_log_begins_again_behind_an_installed_snapshot_which_is_then_the_only_one() {
    let (disk, mut wal) = rich();
    let before = wal.manifest().clone();
    let reader = wal.reader();
    let old = reader.segments();
    work(&disk, &mut wal, &Work::Install(20)).unwrap();
    let manifest = wal.manifest().clone();
    assert_eq!(manifest.snapshots.len(), 1, "the log that an older one needs is gone");
    assert_eq!(manifest.snapshots[0].index, Index(100));
    assert_eq!((reader.first_index(), reader.last_index()), (Index(101), Index(100)));
    assert_eq!(reader.term(Index(100)), Some(Term(1)));
    assert!(matches!(reader.metas(Index(100), Index(101), 0), Err(ReadError::Released { .. })));
    // What has places stays for its bodies, whether all of it is known or not.
    for segment in &old {
        assert_eq!(manifest.released.contains(segment), before.places_of(*segment).is_some());
    }
    tidy(&mut wal).unwrap();
    let syncs = disk.calls_of(Operation::Sync);
    work(&disk, &mut wal, &Work::Append(3)).unwrap();
    assert!(disk.calls_of(Operation::Sync) > syncs);
    let (opened, recovered) = open(&disk.durable_view(), 2).unwrap();
    assert_eq!((recovered.start, recovered.last_index), ((Index(100), Term(1)), Index(103)));
    assert_eq!(recovered.term_runs, [(Index(101), Term(1))]);
    assert_eq!(recovered.hard_state, Some(hard(1, 7)));
    assert_eq!(read_all(&opened.reader()), [101, 102, 103].map(message));
    // Nothing is cut by the one snapshot alone.
    for _ in 0..8 {
        work(&disk, &mut wal, &Work::Append(5)).unwrap();
    }
    work(&disk, &mut wal, &Work::Compact).unwrap();
    assert_eq!(reader.first_index(), Index(101));
    work(&disk, &mut wal, &Work::Snapshot).unwrap();
    assert_eq!(wal.manifest().snapshots.len(), 2);
    check(&disk, &wal, &|| "after the install".into());
}

#[test]
fn rule_3_4_a_node_that_lost_its_hard_state_installs_nothing() {
    let disk = formatted(1);
    disk.put("HARDSTATE", &[0; 8192]);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let snapshot = snapshot_at(&wal, 5);
    let change = Change { snapshot, reset: Some((Index(5), Term(1))), ..Change::default() };
    assert!(matches!(wal.switch(&change), Err(crate::AppendError::HardStateLost)));
    assert_eq!(wal.last_index(), Index(0));
}

#[test]
fn a_caller_whose_change_contradicts_what_is_there_is_stopped() {
    let attempt = |change: &dyn Fn(&Wal) -> Change| {
        let (disk, mut wal) = rich();
        let change = change(&wal);
        let calls = disk.calls();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(wal.switch(&change)))).unwrap_err();
        assert_eq!(disk.calls(), calls, "before anything happens");
    };
    let snapshot = |change: SnapshotFile| Change { snapshot: Some(change), ..Change::default() };
    let file =
        |wal: &Wal, index| SnapshotFile { number: wal.next_file(), size: 1, crc: 1, index, term: Term(1) };
    attempt(&|wal| snapshot(file(wal, wal.manifest().snapshots[1].index.prev())));
    attempt(&|wal| snapshot(file(wal, wal.last_index().next())));
    attempt(&|wal| snapshot(SnapshotFile { number: 900, ..file(wal, wal.last_index()) }));
    attempt(&|wal| snapshot(wal.manifest().snapshots[1]));
    attempt(&|wal| {
        let reset = Some((wal.last_index(), Term(1)));
        Change { reset, ..snapshot(file(wal, wal.last_index().next())) }
    });
    attempt(&|wal| Change { reset: Some((wal.last_index(), Term(1))), ..Change::default() });
    let retire = |file| Change { retire: vec![Retired { file, at: Index(1) }], ..Change::default() };
    attempt(&|_| retire(FileId::Segment(900)));
    attempt(&|_| retire(FileId::Kept(900)));
    attempt(&|wal| retire(FileId::Segment(*wal.reader().segments().last().unwrap())));
    attempt(&|wal| {
        let newest = *wal.reader().segments().last().unwrap();
        let places = vec![PlacesFile { segment: 900, ..places(wal, newest, 1) }];
        Change { places, ..Change::default() }
    });
    attempt(&|wal| {
        let kept = KeptFile { number: wal.next_file(), size: 1, crc: 1, since: Index(1) };
        Change { kept: vec![kept, kept], ..Change::default() }
    });
}

#[test]
fn numbers_of_files_are_never_given_twice() {
    let (disk, wal) = rich();
    let named = wal.manifest().next_file;
    let mut handed: Vec<u64> = (0..3).map(|_| wal.next_file()).collect();
    handed.push(wal.reader().next_file());
    assert!(handed.is_sorted_by(|one, next| one < next) && handed[0] >= named);
    // A file that was being written when the process ended.
    Disk::create(&disk, &numbered("places-", handed[3])).unwrap();
    drop(wal);
    let (wal, _) = open(&disk, 2).unwrap();
    assert!(wal.next_file() > handed[3]);
    assert!(!disk.names().contains(&numbered("places-", handed[3])));
}

#[test]
fn a_dump_shows_what_the_manifest_names_and_reads_the_snapshots() {
    let (disk, wal) = rich();
    let manifest = wal.manifest().clone();
    let text = |disk: &FakeDisk| {
        let mut out = Vec::new();
        let summary = dump(disk, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), summary)
    };
    Disk::create(&disk, "kept-00000000000000ff").unwrap();
    let (shown, summary) = text(&disk);
    let newest = numbered("snapshot-", manifest.snapshots[1].number);
    for part in [
        format!("{}: released, kept for its bodies", segment_name(manifest.released[0])),
        format!("{newest}: snapshot at index 70 term 1"),
        format!(
            "SNAPSHOT   {newest}: index 70 term 1, log time 70 ms, configuration of index 0 with 0 members, 1 sections, 8 bytes"
        ),
        format!("{}: kept, live as of index", numbered("kept-", manifest.kept[0].number)),
        format!("{}: places of segment", numbered("places-", manifest.places[0].number)),
        "retired as of index".into(),
        "kept-00000000000000ff: not named, a leftover".into(),
        "record index 1 term 1".into(),
    ] {
        assert!(shown.contains(&part), "{part} is missing in\n{shown}");
    }
    // The empty leftover is no file of bodies, and nobody misses it.
    assert!(shown.contains("GONE       kept-00000000000000ff"), "{shown}");
    assert_eq!(summary.damaged, 0, "{shown}");
    disk.take("kept-00000000000000ff");
    assert!(disk.corrupt(&newest, 60, 1));
    disk.take(&numbered("places-", manifest.places[0].number));
    let (shown, summary) = text(&disk);
    assert!(shown.contains(&format!("DAMAGED {newest} is damaged at 20")), "{shown}");
    assert!(
        shown.contains(&format!("DAMAGED {} is missing", numbered("places-", manifest.places[0].number)))
    );
    assert_eq!(summary.damaged, 2);
}

fn any_work() -> impl Strategy<Value = Work> {
    prop_oneof![
        8 => (1..25_u64).prop_map(Work::Append),
        4 => Just(Work::Snapshot),
        3 => Just(Work::Compact),
        1 => (1..30_u64).prop_map(Work::Install),
        2 => Just(Work::Prove),
        3 => Just(Work::Upkeep),
        2 => Just(Work::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_in_whatever_order_every_message_that_waits_can_be_read(
        works in proptest::collection::vec((any_work(), any::<bool>()), 1..40), seed in any::<u64>()
    ) {
        let disk = formatted(seed);
        let mut wal = Some(open(&disk, seed).unwrap().0);
        for (place, (one, is_cut)) in works.into_iter().enumerate() {
            let context = || format!("{one:?} ({place})");
            if matches!(one, Work::Reopen) {
                let before = wal.take().map(|wal| (wal.manifest().clone(), wal.last_index())).unwrap();
                if is_cut {
                    disk.power_cut(seed ^ place as u64);
                }
                let (again, recovered) = open(&disk, seed ^ place as u64).unwrap();
                check_opened(&disk, &again, &recovered, &context);
                prop_assert_eq!((again.manifest().clone(), again.last_index()), before);
                wal = Some(again);
            } else {
                let wal = wal.as_mut().unwrap();
                work(&disk, wal, &one).unwrap();
                check(&disk, wal, &context);
            }
        }
    }
}
