//! Rule 2.5: rot is never truncated, never served, and named.

use super::support::*;
use crate::disk::fake::FakeDisk;
use crate::format::segment::SegmentHead;
use crate::segment::segment_name;
use crate::{OpenError, Options, ReadError, Rotten, RottenPart};
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

fn open_all(disk: &FakeDisk) -> Result<(crate::Wal, crate::Recovered), OpenError> {
    crate::DataDir::open(shared(disk), Some("a"))?.open_log(Options { verify_all: true, ..options(9) })
}

#[test]
fn rule_2_5_no_changed_bit_is_served_or_cut() {
    let (disk, all) = log();
    let files: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect();
    assert!(files.len() > 4);
    let mut refused = 0;
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
                for entry in &all {
                    match wal.reader().entries(entry.index, entry.index.next(), 0) {
                        Ok(read) => assert_eq!(read, std::slice::from_ref(entry), "{file} at {offset}"),
                        Err(ReadError::Rot(rotten)) => {
                            assert!(!is_deep, "opening with every byte read found it");
                            assert_eq!((&rotten.file, rotten.record.unwrap().index), (file, entry.index));
                        }
                        Err(other) => panic!("{file} at {offset}: {other}"),
                    }
                }
            }
        }
    }
    assert!(refused > 100);
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
            if let Ok(header) = crate::format::segment::RecordHeader::decode(&bytes[at..], salt, at as u64) {
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
        Ok((_, recovered)) => panic!("{recovered:?}"),
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
fn a_rotten_configuration_is_refused_before_anything_changes() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let payload = raftqueue_raft::Payload::Config(raftqueue_raft::Configuration::default().into());
    let first = Entry { index: Index(1), term: raftqueue_raft::Term(1), payload };
    wal.append(&batch(hard(1, 7), &[first])).unwrap();
    wal.append(&batch(hard(1, 7), &entries(2..4, 1, 9000))).unwrap();
    drop(wal);
    // In a sealed segment, whose contents opening does not read.
    assert!(disk.corrupt(&segment_name(1), 1024 + 88 + 48, 1));
    let before = snapshot(&disk);
    match open(&disk, 2) {
        Err(OpenError::Rot { places }) => {
            assert_eq!((places[0].part, places[0].record.unwrap().index), (RottenPart::Meta, Index(1)));
        }
        other => panic!("{:?}", other.map(|opened| opened.1)),
    }
    assert!(snapshot(&disk) == before);
}
