//! Rule 2.5: rot is never truncated, never served, named, and mended with what another node has.

use super::support::*;
use crate::disk::fake::{FakeDisk, Operation, Refusal};
use crate::format::segment::{RecordHeader, SegmentHead};
use crate::segment::segment_name;
use crate::{Doubt, MendError, Mended, OpenError, Options, ReadError, Rotten, RottenPart, Wal};
use raftqueue_raft::{Entry, Index};

/// A log over a few segments, its last batch proven.
fn log() -> (FakeDisk, Vec<Entry>) {
    let disk = formatted(1);
    let mut all = Vec::new();
    for life in 0..2 {
        let (mut wal, _) = open(&disk, 1 + life).unwrap();
        for first in (1..40).step_by(3) {
            let first = first + life * 39;
            let more = entries(first..first + 3, 1 + life, 500 + (first as usize * 37) % 700);
            wal.append(&batch(hard(1 + life, 7), &more)).unwrap();
            all.extend(more);
        }
        wal.prove().unwrap();
    }
    (disk, all)
}

/// Every file with its bytes.
fn snapshot(disk: &FakeDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect()
}

fn open_all(disk: &FakeDisk) -> Result<(Wal, crate::Recovered), OpenError> {
    crate::DataDir::open(shared(disk), Some("a"))?.open_log(Options { verify_all: true, ..options(9) })
}

/// Makes every hole of a log whole, with what another node has. Says for how many that was needed.
fn mend_all(wal: &Wal, all: &[Entry]) -> usize {
    let reader = wal.reader();
    let mut from_others = 0;
    for hole in reader.holes() {
        if reader.mend_alone(&hole).unwrap() == Mended::Lacking {
            from_others += 1;
            let entry = &all[hole.name.index.0 as usize - 1];
            assert!(matches!(reader.mend(&hole, entry).unwrap(), Mended::Whole { is_written: true, .. }));
        }
    }
    assert_eq!(reader.holes(), []);
    from_others
}

#[test]
fn rule_2_5_no_changed_bit_is_served_or_cut_and_what_another_node_has_makes_the_log_whole() {
    let (disk, all) = log();
    let files: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect();
    assert!(files.len() > 4);
    let (mut refused, mut mended, mut alone) = (0, 0, 0);
    for file in &files {
        let size = disk.bytes(file).unwrap().len() as u64;
        for offset in (0..size).step_by(41) {
            let damaged = disk.deep_clone();
            if !damaged.corrupt(file, offset, 1 << (offset % 8)) {
                continue;
            }
            let before = snapshot(&damaged);
            for is_deep in [false, true] {
                let again = damaged.deep_clone();
                let opened = if is_deep { open_all(&again) } else { open(&again, 9) };
                let Ok((wal, recovered)) = opened else {
                    refused += 1;
                    assert!(snapshot(&again) == before, "a refusal changes nothing");
                    continue;
                };
                assert_eq!(recovered.last_index, Index(all.len() as u64), "{file} at {offset}");
                let reader = wal.reader();
                for entry in &all {
                    match reader.entries(entry.index, entry.index.next(), 0) {
                        Ok(read) => assert_eq!(read, std::slice::from_ref(entry), "{file} at {offset}"),
                        Err(ReadError::Rot(rotten)) => {
                            let holes = reader.holes();
                            let is_known = holes.iter().any(|hole| hole.name.index == entry.index);
                            assert!(is_known || !is_deep, "opening with every byte read finds it");
                            assert_eq!((&rotten.file, rotten.record.unwrap().index), (file, entry.index));
                            let doubted = reader.doubt(entry.index).unwrap();
                            assert_eq!(doubted, Doubt::Rots, "what is read late is known from then on");
                        }
                        Err(other) => panic!("{file} at {offset}: {other}"),
                    }
                }
                let holes = reader.holes().len();
                let from_others = mend_all(&wal, &all);
                (mended, alone) = (mended + from_others, alone + holes - from_others);
                assert_eq!(read_all(&reader), all, "{file} at {offset}");
                drop((wal, reader));
                let (wal, recovered) = open_all(&again).unwrap();
                assert_eq!((recovered.holes, read_all(&wal.reader()) == all), (vec![], true));
            }
        }
    }
    assert!(mended > 100 && alone > 20 && refused < 100, "{mended} {alone} {refused}");
}

#[test]
fn rule_2_5_a_crash_while_a_record_is_mended_leaves_it_whole_or_damaged() {
    let (disk, all) = log();
    let (file, at, entry) = places(&disk, &all).swap_remove(7);
    let bytes = disk.bytes(&file).unwrap();
    assert!(disk.corrupt(&file, at + 200, 4));
    let mut outcomes = [0, 0];
    for seed in 0..40 {
        let torn = disk.deep_clone();
        let (wal, _) = open_all(&torn).unwrap();
        let reader = wal.reader();
        let hole = reader.holes()[0];
        assert_eq!((hole.name.index, reader.holes().len()), (entry.index, 1));
        torn.crash_at_call(1 + seed % 3);
        let is_done = reader.mend(&hole, &entry).is_ok();
        drop((wal, reader));
        torn.power_cut(seed);
        let (wal, recovered) = open_all(&torn).unwrap();
        assert!(!is_done || recovered.holes.is_empty());
        outcomes[recovered.holes.len()] += 1;
        mend_all(&wal, &all);
        assert_eq!(read_all(&wal.reader()), all);
        assert!(torn.bytes(&file).unwrap()[..bytes.len()] == bytes, "the very bytes are back");
    }
    assert!(outcomes.iter().all(|count| *count > 3), "{outcomes:?}");
}

#[test]
fn rule_2_5_nothing_but_the_very_record_is_put_back() {
    let (disk, all) = log();
    let (file, at, entry) = places(&disk, &all).swap_remove(3);
    assert!(disk.corrupt(&file, at + 200, 4));
    let (wal, recovered) = open_all(&disk).unwrap();
    assert_eq!(recovered.holes.len(), 1);
    let (reader, before) = (wal.reader(), snapshot(&disk));
    let hole = reader.holes()[0];
    let mut others = vec![all[4].clone()];
    others.push(Entry { term: raftqueue_raft::Term(2), ..entry.clone() });
    let raftqueue_raft::Payload::Command { meta, bodies } = &entry.payload else { unreachable!() };
    let payload =
        raftqueue_raft::Payload::Command { meta: meta.clone(), bodies: vec![1; bodies.len()].into() };
    others.push(Entry { payload, ..entry.clone() });
    for other in others {
        assert!(matches!(reader.mend(&hole, &other), Err(MendError::AnotherRecord(_))));
    }
    assert!(snapshot(&disk) == before);
    reader.mend(&hole, &entry).unwrap();
    assert_eq!(read_all(&reader), all);
}

/// Places in a segment: each record's name and where its header stands.
fn places(disk: &FakeDisk, all: &[Entry]) -> Vec<(String, u64, Entry)> {
    let (wal, _) = open(&disk.deep_clone(), 5).unwrap();
    drop(wal);
    let mut places = Vec::new();
    for name in disk.names().into_iter().filter(|name| name.starts_with("segment-")) {
        let bytes = disk.bytes(&name).unwrap();
        let salt = SegmentHead::decode(&bytes).unwrap().salt;
        for at in (512..bytes.len()).step_by(8) {
            if let Ok(header) = RecordHeader::decode(&bytes[at..], salt, at as u64) {
                let entry = all[header.index.0 as usize - 1].clone();
                places.push((name.clone(), at as u64, entry));
            }
        }
    }
    places
}

fn rot_of(disk: &FakeDisk) -> Vec<Rotten> {
    match open_all(disk) {
        Err(OpenError::Rot { places }) => places,
        Err(other) => panic!("{other}"),
        Ok((_, recovered)) => recovered.damaged_copies.into_iter().chain(recovered.holes).collect(),
    }
}

#[test]
fn rule_2_5_a_damaged_record_is_named_whichever_of_its_parts_is_hit() {
    let (disk, all) = log();
    let places = places(&disk, &all);
    assert_eq!(places.len(), all.len());
    for (file, at, entry) in &places {
        for (distance, part) in
            [(3, RottenPart::RecordHeader), (20, RottenPart::RecordHeader), (200, RottenPart::Bodies)]
        {
            let damaged = disk.deep_clone();
            assert!(damaged.corrupt(file, at + distance, 4));
            let rot = rot_of(&damaged);
            assert_eq!(rot.len(), 1, "{rot:?}");
            let name = rot[0].record.expect("its name stands twice");
            assert_eq!((&rot[0].file, rot[0].part), (file, part));
            assert_eq!((name.index, name.term), (entry.index, entry.term));
            // The name is what every other node calls this record.
            let (healthy, _) = open(&disk.deep_clone(), 5).unwrap();
            assert_eq!(healthy.reader().read_exact(name).unwrap().as_ref(), Some(entry));
        }
    }
}

#[test]
fn rule_2_5_a_damaged_frame_hides_no_record() {
    let (disk, all) = log();
    // The frame of the second batch of the first segment, which has one: sectors are found by the frame's mark.
    let name = segment_name(1);
    let bytes = disk.bytes(&name).unwrap();
    let frames: Vec<usize> =
        (512..bytes.len()).step_by(512).filter(|at| &bytes[*at..*at + 4] == b"RQfr").collect();
    let damaged = disk.deep_clone();
    assert!(damaged.corrupt(&name, frames[2] as u64 + 9, 1));
    assert!(
        damaged.corrupt(&name, frames[2] as u64 + 88 + 120 + 200, 1),
        "and the bodies of its first record"
    );
    let rot = rot_of(&damaged);
    let parts: Vec<_> =
        rot.iter().map(|rotten| (rotten.part, rotten.record.map(|record| record.index))).collect();
    assert_eq!(parts, [(RottenPart::Frame, None), (RottenPart::Bodies, Some(Index(4)))]);
    // All frames gone: nothing is called torn.
    let damaged = disk.deep_clone();
    frames.iter().for_each(|at| assert!(damaged.corrupt(&name, *at as u64, 1)));
    assert!(rot_of(&damaged).iter().all(|rotten| rotten.part == RottenPart::Frame));
    assert_eq!(all.len(), 78);
}

#[test]
fn a_record_that_was_rewritten_by_a_recovery_is_proven_from_birth() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..3, 1, 600))).unwrap();
    drop(wal);
    let (wal, _) = open(&disk, 2).unwrap();
    let name = segment_name(wal.synced_to().segment);
    drop(wal);
    assert!(disk.corrupt(&name, 512 + 88 + 48 + 100, 1));
    let rot = rot_of(&disk);
    assert_eq!((rot[0].part, rot[0].record.unwrap().index), (RottenPart::Bodies, Index(1)));
}

#[test]
fn a_missing_segment_or_manifest_is_noticed() {
    let (disk, _) = log();
    let files: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect();
    let refused = |damaged: &FakeDisk| open(damaged, 9).err().unwrap().to_string();
    let begins = "the log begins with segment 1, as MANIFEST says, but";
    for (position, file) in files[..files.len() - 1].iter().enumerate() {
        let damaged = disk.deep_clone();
        damaged.take(file);
        let (before, missing, next) = (position, position + 1, position + 2);
        let expected = match before {
            0 => format!("{begins} the oldest one here is segment 2"),
            _ => format!(
                "segment {next} names segment {missing} as the one before it, but that is segment {before} here"
            ),
        };
        assert_eq!(refused(&damaged), expected);
    }
    let damaged = disk.deep_clone();
    files.iter().for_each(|file| damaged.take(file));
    assert_eq!(refused(&damaged), format!("{begins} there is no segment here"));
    let damaged = disk.deep_clone();
    damaged.put(&files[1], &disk.bytes(&files[0]).unwrap());
    assert_eq!(
        refused(&damaged),
        format!("{} is damaged at 0: impossible value of segment number", files[1])
    );
    let damaged = disk.deep_clone();
    damaged.corrupt("MANIFEST", 20, 1);
    assert!(matches!(open(&damaged, 9), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_rotten_configuration_is_known_once_it_is_mended() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let payload = raftqueue_raft::Payload::Config(raftqueue_raft::Configuration::default().into());
    let first = Entry { index: Index(1), term: raftqueue_raft::Term(1), payload };
    wal.append(&batch(hard(1, 7), std::slice::from_ref(&first))).unwrap();
    wal.append(&batch(hard(1, 7), &entries(2..4, 1, 9000))).unwrap();
    drop(wal);
    // In a sealed segment, whose contents opening does not read.
    assert!(disk.corrupt(&segment_name(1), 1024 + 88 + 48, 1));
    let (wal, recovered) = open(&disk, 2).unwrap();
    let holes: Vec<_> =
        recovered.holes.iter().map(|rotten| (rotten.part, rotten.record.unwrap().index)).collect();
    assert_eq!((holes, recovered.configurations), (vec![(RottenPart::Meta, Index(1))], vec![]));
    let hole = wal.reader().holes()[0];
    let configuration = Some(raftqueue_raft::Configuration::default().into());
    assert_eq!(wal.reader().mend(&hole, &first).unwrap(), Mended::Whole { configuration, is_written: true });
}

#[test]
fn rule_2_5_records_are_found_where_neither_their_frame_nor_the_batch_before_is_there_to_tell() {
    let (disk, all) = log();
    let (mut wal, _) = open(&disk, 5).unwrap();
    assert!(cut(&mut wal, Index(60)).unwrap() > 2);
    tidy(&mut wal).unwrap();
    wal.prove().unwrap();
    drop(wal);
    let name = disk.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    let bytes = disk.bytes(&name).unwrap();
    let (predecessor, salt) = SegmentHead::decode(&bytes).map(|head| (head.predecessor, head.salt)).unwrap();
    assert_ne!(predecessor, 0, "its first batch follows one that is gone");
    let second = (1024..).step_by(512).find(|at| &bytes[*at..*at + 4] == b"RQfr").unwrap();
    let is_head = |at: &usize| RecordHeader::decode(&bytes[*at..], salt, *at as u64).is_ok();
    let heads: Vec<usize> = (512..second).step_by(8).filter(is_head).collect();
    assert!(heads.len() > 1);
    let all_but_frame = |damaged: &FakeDisk| damaged.bytes(&name).unwrap()[600..] == bytes[600..];
    for hit in [&heads[..1], &heads[1..], &heads[..]] {
        let damaged = disk.deep_clone();
        assert!(damaged.corrupt(&name, 512 + 20, 1));
        for at in hit {
            assert!(damaged.corrupt(&name, *at as u64 + 3, 4));
        }
        let (wal, recovered) = open_all(&damaged).unwrap();
        assert_eq!(recovered.holes.len(), hit.len());
        assert_eq!(mend_all(&wal, &all), 0, "nobody else is needed");
        // Heads or contents that are left tell where all of them stood.
        assert!(all_but_frame(&damaged));
        drop(wal);
        for _ in 0..2 {
            let (wal, recovered) = open_all(&damaged).unwrap();
            assert_eq!(recovered.holes, vec![], "what was mended stays whole");
            let first = wal.reader().first_index();
            assert_eq!(read_all(&wal.reader()), all[first.0 as usize - 1..]);
        }
    }
    // Nothing of any of them is left.
    assert!(disk.corrupt(&name, 512 + 20, 1));
    for at in &heads {
        assert!(disk.corrupt(&name, *at as u64 + 3, 4) && disk.corrupt(&name, *at as u64 + 200, 4));
    }
    let (wal, recovered) = open_all(&disk).unwrap();
    assert_eq!((recovered.holes.len(), mend_all(&wal, &all)), (heads.len(), heads.len()));
    drop(wal);
    let (wal, recovered) = open_all(&disk).unwrap();
    let first = wal.reader().first_index();
    assert_eq!((recovered.holes, read_all(&wal.reader()) == all[first.0 as usize - 1..]), (vec![], true));
}

#[test]
fn rule_2_5_damage_that_only_the_next_start_would_meet_is_found_while_the_node_runs() {
    let (disk, _) = log();
    let (wal, _) = open_all(&disk).unwrap();
    let reader = wal.reader();
    let found = || -> Vec<(u64, RottenPart)> {
        let of = |segment: u64| reader.look_at_heads(segment).unwrap().damaged;
        let segments = reader.segments();
        segments.into_iter().flat_map(of).map(|rotten| (rotten.offset, rotten.part)).collect()
    };
    assert_eq!(found(), []);
    let name = segment_name(1);
    let bytes = disk.bytes(&name).unwrap();
    let frames: Vec<usize> =
        (512..bytes.len()).step_by(512).filter(|at| &bytes[*at..*at + 4] == b"RQfr").collect();
    let (second, seal) = (frames[2] as u64, *frames.last().unwrap() as u64);
    assert_eq!(bytes[seal as usize + 4], 2, "the segment is full");
    let hits = [
        (7, 0, RottenPart::SegmentHead),
        (second + 20, second, RottenPart::Frame),
        (second + 90, second + 88, RottenPart::Identities),
        (seal + 300, seal, RottenPart::SealedIndex),
    ];
    for (at, offset, part) in hits {
        assert!(disk.corrupt(&name, at, 1));
        assert_eq!(found(), [(offset, part)]);
        assert!(disk.corrupt(&name, at, 1), "and it is as it was");
    }
    assert_eq!(found(), []);
    // Of what is written to only the head: its end is known to nobody else.
    let active = segment_name(wal.synced_to().segment);
    assert!(disk.corrupt(&active, 520, 1));
    assert_eq!(found(), []);
    assert!(disk.corrupt(&active, 9, 1));
    assert_eq!(found(), [(0, RottenPart::SegmentHead)]);
    let refusal = Refusal {
        operation: Operation::Read,
        file_prefix: name,
        skip: 0,
        count: 1,
        error: std::io::ErrorKind::Other,
    };
    disk.inject(refusal);
    assert!(reader.look_at_heads(1).is_err());
}
