//! The schedules that the rules of the format come from, one by one.

use super::support::*;
use crate::batch::{Draft, FrameContext};
use crate::disk::fake::{FakeDisk, Operation, Refusal};
use crate::format::segment::SegmentHead;
use crate::segment::segment_name;
use crate::{AppendError, OpenError, RottenPart, Wal};
use bytes::Bytes;
use raftqueue_raft::{Entry, Index, Payload, Term};
use std::io;
use std::sync::Arc;

/// Opens the log and appends `acknowledged`, one batch each. Then writes `torn`, but never gets to the sync.
fn crash_before_sync(disk: &FakeDisk, acknowledged: u64, torn: std::ops::Range<u64>, size: usize) -> String {
    let (mut wal, _) = open(disk, 1).unwrap();
    for index in 1..=acknowledged {
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, size))).unwrap();
    }
    let file = segment_name(wal.synced_to().segment);
    // The write is the next call, the sync the one after it.
    disk.crash_at_call(2);
    wal.append(&batch(hard(1, 7), &entries(torn, 1, size))).unwrap_err();
    drop(wal);
    disk.crash_process();
    file
}

fn find(disk: &FakeDisk, file: &str, bytes: &[u8]) -> u64 {
    let content = disk.bytes(file).unwrap();
    content.windows(bytes.len()).position(|window| window == bytes).expect("the bytes stand there") as u64
}

fn body_of(index: u64, size: usize) -> Vec<u8> {
    match entry(index, 1, size).payload {
        Payload::Command { bodies, .. } => bodies.to_vec(),
        _ => unreachable!("entries of these tests are commands"),
    }
}

#[test]
fn rule_2_2_a_torn_batch_is_cut_whole_whatever_looks_valid_in_it() {
    for bad in 3..=5 {
        let disk = formatted(1);
        let file = crash_before_sync(&disk, 2, 3..6, 600);
        let at = find(&disk, &file, &body_of(bad, 600));
        assert!(disk.corrupt(&file, at + 300, 0xff));
        let (wal, recovered) = open(&disk, 2).unwrap();
        assert_eq!(recovered.last_index, Index(2), "record {bad} is bad");
        assert_eq!(recovered.cut.unwrap().records, 3);
        assert_eq!(read_all(&wal.reader()), entries(1..3, 1, 600));
    }
}

#[test]
fn rule_2_1_bytes_of_an_earlier_life_never_verify() {
    // Two lives of one file with batches of the same sizes and numbers: the longer one is what the file held before.
    let life = |entropy: u64, term: u64, count: u64| {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, entropy).unwrap();
        for index in 1..=count {
            wal.append(&batch(hard(term, 7), &entries(index..index + 1, term, 600))).unwrap();
        }
        let end = wal.synced_to().offset;
        drop(wal);
        (disk, end as usize)
    };
    let (before, _) = life(1, 1, 6);
    let (disk, end) = life(2, 1, 3);
    let name = segment_name(1);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[end..].copy_from_slice(&before.bytes(&name).unwrap()[end..]);
    disk.put(&name, &bytes);
    let (wal, recovered) = open(&disk, 3).unwrap();
    assert_eq!((recovered.last_index, recovered.cut.clone()), (Index(3), None));
    assert_eq!(read_all(&wal.reader()), entries(1..4, 1, 600));
}

/// The meta of a command ends with its own checksum, and the CRC of anything that is followed by its own is the same number.
#[test]
fn rule_2_1_a_torn_record_is_not_completed_by_a_command_of_an_earlier_life() {
    let meta = |fill: u8| {
        let mut meta = vec![fill; 600];
        meta.extend(crc32c::crc32c(&meta).to_le_bytes());
        Bytes::from(meta)
    };
    let (is, was) = (meta(b'n'), meta(b'o'));
    assert_eq!(crc32c::crc32c(&is), crc32c::crc32c(&was));
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 2).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..3, 1, 600))).unwrap();
    let payload = Payload::Command { meta: is.clone(), bodies: Bytes::new() };
    wal.append(&batch(hard(1, 7), &[Entry { index: Index(3), term: Term(1), payload }])).unwrap();
    drop(wal);
    // The head of the record reached the disk, its meta did not: there is what the file held before.
    let name = segment_name(1);
    let at = find(&disk, &name, &is);
    let mut bytes = disk.bytes(&name).unwrap();
    let from = usize::try_from(at).unwrap();
    bytes[from..from + was.len()].copy_from_slice(&was);
    disk.put(&name, &bytes);
    let (wal, recovered) = open(&disk, 3).unwrap();
    assert_eq!((recovered.last_index, recovered.cut.map(|cut| cut.records)), (Index(2), Some(1)));
    assert_eq!(read_all(&wal.reader()), entries(1..3, 1, 600));
}

#[test]
fn rule_2_1_a_recycled_file_shows_nothing_of_its_past() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let mut index = 0;
    let mut next = |wal: &mut Wal| {
        index += 1;
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
        cut(wal, Index(index.saturating_sub(3))).unwrap();
        index
    };
    while next(&mut wal) < 120 {
        // Every point of the file's second and third life, seen after a power cut.
        let (cut, recovered) = open(&disk.durable_view(), 2).unwrap();
        assert_eq!(recovered.last_index, wal.last_index());
        assert_eq!(read_all(&cut.reader()).len() as u64, recovered.last_index.0 - recovered.start.0.0);
    }
    assert!(disk.names().iter().filter(|name| name.starts_with("se")).count() < 4);
    assert!(disk.calls_of(Operation::Allocate) < 6, "files are reused");
}

#[test]
fn rule_2_1_a_file_that_somebody_keeps_is_never_overwritten() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..10, 1, 1000))).unwrap();
    disk.hard_link(&segment_name(1), "backup");
    let backup = disk.bytes("backup").unwrap();
    let mut late = Vec::new();
    for index in 10..100 {
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
        cut(&mut wal, Index(index)).unwrap();
        if index == 40 {
            let spare = disk.names().into_iter().find(|name| name.starts_with("spare-")).unwrap();
            disk.hard_link(&spare, "late-backup");
            late = disk.bytes("late-backup").unwrap();
        }
    }
    assert!(!disk.names().contains(&segment_name(1)));
    let sealed = disk.bytes("backup").unwrap();
    assert_eq!(sealed[..backup.len() / 2], backup[..backup.len() / 2]);
    let head = SegmentHead::decode(&sealed).unwrap();
    assert_eq!(head.number, 1);
    assert!(disk.bytes("late-backup").unwrap() == late, "linked after it had become a spare");
}

#[test]
fn rule_2_1_a_file_that_is_being_read_is_never_overwritten() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..10, 1, 1000))).unwrap();
    // What a read holds between looking its places up and reading them.
    let pinned = Arc::clone(&wal.reader().shared.read().segments[&1]);
    let read = || {
        let mut bytes = vec![0; 10_000];
        pinned.file().unwrap().read_at(0, &mut bytes).unwrap();
        bytes
    };
    let before = read();
    for index in 10..100 {
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
        cut(&mut wal, Index(index)).unwrap();
    }
    assert!(!disk.names().contains(&segment_name(1)));
    assert!(read() == before);
}

#[test]
fn rule_2_3_what_a_recovery_reported_survives_a_power_cut() {
    let disk = formatted(1);
    crash_before_sync(&disk, 2, 3..6, 600);
    let (wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!(recovered.last_index, Index(5), "the cache still had it");
    for seed in 0..20 {
        let cut = disk.deep_clone();
        cut.power_cut(seed);
        assert_eq!(open(&cut, 3).unwrap().1.last_index, Index(5));
    }
    assert_eq!(read_all(&wal.reader()), entries(1..6, 1, 600));
}

#[test]
fn rule_2_3_every_recovery_goes_on_in_a_fresh_segment_and_gives_back_the_room_behind() {
    let disk = formatted(1);
    for life in 1..20 {
        let (wal, _) = open(&disk, life).unwrap();
        assert_eq!(wal.synced_to().segment, life);
    }
    assert!(disk.used_bytes() < 4 * SEGMENT_BYTES, "restarts do not fill the disk");
}

#[test]
fn rule_2_3_what_lies_behind_the_named_end_is_neither_rot_nor_an_index_that_goes_back() {
    let disk = formatted(1);
    let file = crash_before_sync(&disk, 2, 3..6, 600);
    // A hard link keeps the old bytes in place, so they are not trimmed away.
    disk.hard_link(&file, "backup");
    let at = find(&disk, &file, &body_of(4, 600));
    disk.corrupt(&file, at, 1);
    let kept = disk.bytes("backup").unwrap();
    let (mut wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!(recovered.last_index, Index(2));
    assert!(disk.bytes("backup").unwrap() == kept, "what a hard link keeps is not trimmed");
    wal.append(&batch(hard(2, 0), &entries(3..5, 2, 600))).unwrap();
    drop(wal);
    disk.corrupt(&file, at + 1000, 1);
    let (wal, recovered) = open(&disk, 3).unwrap();
    assert_eq!((recovered.last_index, recovered.last_term.0), (Index(4), 2));
    assert_eq!(read_all(&wal.reader())[2..], entries(3..5, 2, 600));
}

#[test]
fn rule_2_3_an_fsync_error_closes_the_log_and_the_restart_makes_the_tail_durable() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..3, 1, 600))).unwrap();
    let prefix = segment_name(1);
    disk.inject(Refusal {
        operation: Operation::Sync,
        file_prefix: prefix,
        skip: 0,
        count: 1,
        error: io::ErrorKind::Other,
    });
    let error = wal.append(&batch(hard(1, 7), &entries(3..5, 1, 600))).unwrap_err();
    assert!(matches!(error, AppendError::Failed { operation: "write a batch", .. }), "{error}");
    let closed =
        |result: Result<(), AppendError>| assert!(matches!(result, Err(AppendError::Poisoned { .. })));
    closed(wal.append(&batch(hard(1, 7), &entries(3..5, 1, 600))).map(drop));
    closed(wal.append(&batch(hard(2, 7), &[])).map(drop));
    closed(wal.prove().map(drop));
    closed(wal.upkeep());
    closed(cut(&mut wal, Index(2)).map(drop));
    assert_eq!(wal.last_index(), Index(2), "readers never saw it");
    drop(wal);
    let (_, recovered) = open(&disk, 2).unwrap();
    assert_eq!(recovered.last_index, Index(4), "the cache has it, the medium does not");
    let (wal, recovered) = open(&disk.durable_view(), 3).unwrap();
    assert_eq!(recovered.last_index, Index(4));
    assert_eq!(read_all(&wal.reader()).len(), 4);
}

#[test]
fn rule_2_7_no_space_for_a_segment_and_then_there_is() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    disk.set_capacity(disk.used_bytes() + 2000);
    let mut index = 1;
    while wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 3000))).is_ok() {
        index += 1;
    }
    for _ in 0..3 {
        let error = wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 3000))).unwrap_err();
        assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
    }
    wal.append(&batch(hard(2, 9), &[])).unwrap();
    wal.upkeep().unwrap();
    wal.prove().unwrap();
    assert!(wal.free_bytes().unwrap() < SEGMENT_BYTES);
    assert_eq!(
        open(&disk.durable_view(), 2).err().map(|error| matches!(error, OpenError::Io { .. })),
        Some(true)
    );
    disk.set_capacity(u64::MAX);
    wal.append(&batch(hard(2, 9), &entries(index..index + 1, 1, 3000))).unwrap();
    let (wal, recovered) = open(&disk.durable_view(), 2).unwrap();
    assert_eq!((recovered.hard_state, recovered.last_index), (Some(hard(2, 9)), Index(index)));
    assert_eq!(read_all(&wal.reader()), entries(1..index + 1, 1, 3000));
}

#[test]
fn rule_2_7_a_node_starts_on_a_full_disk_and_can_make_room() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    for index in 1..40 {
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
    }
    drop(wal);
    disk.set_capacity(disk.used_bytes() + 15_000);
    let (mut wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!(recovered.last_index, Index(39));
    assert_eq!(read_all(&wal.reader()), entries(1..40, 1, 1000));
    let file = segment_name(wal.synced_to().segment);
    assert!((disk.bytes(&file).unwrap().len() as u64) < SEGMENT_BYTES, "a small file had to do");
    disk.set_capacity(disk.used_bytes() + 1000);
    let more = entries(40..41, 1, 5000);
    assert!(matches!(wal.append(&batch(hard(1, 7), &more)), Err(AppendError::NoSpace { .. })));
    wal.append(&batch(hard(2, 7), &[])).unwrap();
    assert!(cut(&mut wal, Index(30)).unwrap() > 0);
    wal.append(&batch(hard(2, 7), &more)).unwrap();
}

#[test]
fn rule_2_7_a_smaller_batch_may_follow_where_a_roll_over_found_no_space() {
    for operation in [Operation::Write, Operation::Sync, Operation::Rename] {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        for index in 1..8 {
            wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
        }
        disk.inject(Refusal {
            operation,
            file_prefix: "spare-".into(),
            skip: 0,
            count: 1,
            error: io::ErrorKind::StorageFull,
        });
        wal.append(&batch(hard(1, 7), &entries(8..9, 1, 9000))).unwrap_err();
        let segment = wal.synced_to().segment;
        disk.crash_at_call(2);
        wal.append(&batch(hard(1, 7), &entries(8..11, 1, 300))).unwrap_err();
        drop(wal);
        for seed in 0..20 {
            let cut = disk.deep_clone();
            cut.power_cut(seed);
            let (wal, recovered) = open(&cut, 2).unwrap();
            assert!(recovered.last_index == Index(7) || recovered.last_index == Index(10));
            let all = [entries(1..8, 1, 1000), entries(8..11, 1, 300)].concat();
            assert_eq!(read_all(&wal.reader()), all[..recovered.last_index.0 as usize]);
            assert_eq!(wal.synced_to().segment, segment + 1, "the smaller one still fit");
        }
    }
}

#[test]
fn rule_2_7_parts_of_two_attempts_at_a_batch_never_verify_together() {
    // The first attempt reaches the medium. The second one (other content, same place, same number) reaches it only in
    // part. The size makes the second record begin at a sector boundary, so that whole records of both attempts can be
    // mixed.
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &entries(1..2, 1, 600))).unwrap();
    disk.inject(Refusal {
        operation: Operation::Sync,
        file_prefix: "segment-".into(),
        skip: 0,
        count: 1,
        error: io::ErrorKind::StorageFull,
    });
    wal.append(&batch(hard(1, 7), &entries(2..5, 1, 850))).unwrap_err();
    let name = segment_name(wal.synced_to().segment);
    let from = wal.synced_to().offset as usize;
    let first = disk.bytes(&name).unwrap();
    wal.append(&batch(hard(3, 7), &entries(2..5, 3, 850))).unwrap();
    drop(wal);
    let second = disk.bytes(&name).unwrap();
    let sectors: Vec<usize> = (from..second.len())
        .step_by(512)
        .filter(|at| first[*at..*at + 512] != second[*at..*at + 512])
        .collect();
    for mask in 1..(1_u32 << sectors.len()) - 1 {
        let mut mixed = second.clone();
        for (place, at) in sectors.iter().enumerate().filter(|(place, _)| mask & (1 << place) != 0) {
            let _ = place;
            mixed[*at..*at + 512].copy_from_slice(&first[*at..*at + 512]);
        }
        let disk = disk.deep_clone();
        disk.put(&name, &mixed);
        let (wal, recovered) = open(&disk, 2).unwrap();
        let last = recovered.last_index.0;
        assert!(last == 1 || last == 4);
        let read = read_all(&wal.reader());
        assert!(
            last == 1 || read[1..] == entries(2..5, 1, 850) || read[1..] == entries(2..5, 3, 850),
            "{mask:b}"
        );
    }
}

#[test]
fn rule_2_4_an_index_that_goes_back_without_a_truncation_is_refused() {
    for (index, is_proven) in [(2, false), (2, true), (5, false), (5, true)] {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        wal.append(&batch(hard(1, 7), &entries(1..4, 1, 100))).unwrap();
        let place = wal.synced_to();
        drop(wal);
        let name = segment_name(place.segment);
        let file = crate::disk::Disk::open(&disk, &name).unwrap();
        let head = SegmentHead::decode(&disk.bytes(&name).unwrap()).unwrap();
        let mut draft = Draft::default();
        draft.push_entry(&entry(index, 1, 100));
        let before: Vec<_> = entries(1..4, 1, 100)
            .iter()
            .map(|entry| {
                let mut draft = Draft::default();
                draft.push_entry(entry);
                draft.identities()[0]
            })
            .collect();
        let context = FrameContext { batch: 3, hard_state: hard(1, 7), identities: &before };
        draft.write(&*file, head.salt, place.offset, &context, None).unwrap();
        if is_proven {
            let next = place.offset + draft.batch_bytes(3).next_multiple_of(512);
            let context = FrameContext { batch: 4, hard_state: hard(1, 7), identities: &draft.identities() };
            Draft::default().write(&*file, head.salt, next, &context, None).unwrap();
        }
        drop(file);
        match open(&disk, 2) {
            Err(OpenError::IndexOrder { found, expected, .. }) => {
                assert_eq!((found, expected), (Index(index), Index(4)));
            }
            other => panic!("{:?}", other.map(|opened| opened.1)),
        }
    }
}

#[test]
fn rule_2_6_the_greatest_hard_state_counts_and_a_vote_beats_none() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(3, 0), &[])).unwrap();
    wal.upkeep().unwrap();
    wal.append(&batch(hard(3, 9), &[])).unwrap();
    // Not copied: one slot has the vote, the other has none.
    assert_eq!(open(&disk.durable_view(), 2).unwrap().1.hard_state, Some(hard(3, 9)));
    wal.upkeep().unwrap();
    drop(wal);
    // Copied: either slot may be lost.
    for offset in [5, 4096 + 5] {
        let damaged = disk.deep_clone();
        assert!(damaged.corrupt("HARDSTATE", offset, 1));
        assert_eq!(open(&damaged, 2).unwrap().1.hard_state, Some(hard(3, 9)));
        assert!(damaged.bytes("HARDSTATE").unwrap()[..64] == damaged.bytes("HARDSTATE").unwrap()[4096..4160]);
    }
}

#[test]
fn rule_2_6_a_change_that_tears_costs_only_the_slot_that_it_went_into() {
    for changes in 1..6 {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        for term in 1..=changes {
            wal.append(&batch(hard(term, 0), &[])).unwrap();
            if term % 3 == 0 {
                wal.upkeep().unwrap();
            }
        }
        // The next change is cut off at its sync, and leaves garbage where it was written.
        let before = disk.bytes("HARDSTATE").unwrap();
        disk.crash_at_call(2);
        wal.append(&batch(hard(changes, 9), &[])).unwrap_err();
        drop(wal);
        disk.crash_process();
        let after = disk.bytes("HARDSTATE").unwrap();
        let torn = (0..after.len()).find(|at| before[*at] != after[*at]).expect("it was written") as u64;
        assert!(disk.corrupt("HARDSTATE", torn, 0x55));
        assert_eq!(open(&disk, 2).unwrap().1.hard_state, Some(hard(changes, 0)), "after {changes} changes");
    }
}

#[test]
fn rule_2_6_frames_know_the_hard_state_too() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(3, 9), &entries(1..2, 3, 10))).unwrap();
    // The slot that had the promise rots before it is copied: the frame still knows.
    let slot = |place: usize| disk.bytes("HARDSTATE").unwrap()[place..place + 64].to_vec();
    let newer = if slot(0) == slot(4096) { panic!("not copied") } else { u64::from(slot(0)[16] == 0) * 4096 };
    assert!(disk.corrupt("HARDSTATE", newer + 5, 1));
    drop(wal);
    assert_eq!(open(&disk, 2).unwrap().1.hard_state, Some(hard(3, 9)));
}

#[test]
fn rule_2_6_without_a_readable_slot_the_log_is_read_and_nothing_is_promised() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(3, 9), &entries(1..4, 3, 10))).unwrap();
    drop(wal);
    for offset in [5, 4096 + 5] {
        assert!(disk.corrupt("HARDSTATE", offset, 1));
    }
    for entropy in 2..4 {
        let (mut wal, recovered) = open(&disk, entropy).unwrap();
        assert_eq!((recovered.hard_state, wal.hard_state(), recovered.last_index), (None, None, Index(3)));
        assert_eq!(read_all(&wal.reader()), entries(1..4, 3, 10));
        let refused = wal.append(&batch(hard(4, 0), &entries(4..5, 4, 10)));
        assert!(matches!(refused, Err(AppendError::HardStateLost)), "also after a restart");
        assert!(!wal.prove().unwrap());
        wal.upkeep().unwrap();
    }
}

#[test]
fn rule_2_6_what_was_lost_is_written_anew_by_whoever_knows_what_cannot_have_been_promised() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(3, 9), &entries(1..4, 3, 10))).unwrap();
    drop(wal);
    for offset in [5, 4096 + 5] {
        assert!(disk.corrupt("HARDSTATE", offset, 1));
    }
    let (mut wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!((recovered.hard_state, recovered.framed), (None, hard(3, 9)));
    wal.renew_hard_state(hard(5, 1)).unwrap();
    wal.append(&batch(hard(5, 1), &entries(4..5, 5, 10))).unwrap();
    drop(wal);
    let (_, recovered) = open(&disk, 3).unwrap();
    assert_eq!((recovered.hard_state, recovered.last_index), (Some(hard(5, 1)), Index(4)));
}

#[test]
fn rule_2_2_an_empty_batch_proves_the_last_one() {
    for is_proven in [false, true] {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        wal.append(&batch(hard(1, 7), &entries(1..3, 1, 600))).unwrap();
        let name = segment_name(wal.synced_to().segment);
        if is_proven {
            assert!(wal.prove().unwrap());
            assert!(!wal.prove().unwrap(), "once is enough");
        }
        drop(wal);
        let at = find(&disk, &name, &body_of(2, 600));
        assert!(disk.corrupt(&name, at, 1));
        let (_, recovered) = open(&disk, 2).unwrap();
        let holes: Vec<_> =
            recovered.holes.iter().map(|rotten| (rotten.part, rotten.record.unwrap().index)).collect();
        if is_proven {
            assert_eq!((recovered.last_index, recovered.cut), (Index(2), None));
            assert_eq!(holes, [(RottenPart::Bodies, Index(2))]);
        } else {
            assert!(recovered.last_index == Index(0) && recovered.cut.is_some() && holes.is_empty());
        }
    }
}

#[test]
fn there_is_always_room_to_prove_the_last_batch_in_its_own_segment() {
    for size in (0..1600).step_by(50) {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        let mut index = 1;
        while wal.synced_to().segment < 3 {
            wal.append(&batch(hard(1, 7), &entries(index..index + 20, 1, size))).unwrap();
            index += 20;
            let segment = wal.synced_to().segment;
            let again = disk.calls_of(Operation::Rename);
            assert!(wal.prove().unwrap());
            assert_eq!(
                (wal.synced_to().segment, disk.calls_of(Operation::Rename)),
                (segment, again),
                "size {size}"
            );
        }
    }
}

#[test]
fn rule_2_9_a_record_larger_than_a_segment_has_one_of_its_own() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let all = [entries(1..3, 1, 100), entries(3..4, 1, 100_000), entries(4..6, 1, 100)].concat();
    for chunk in [0..2, 2..3, 3..5] {
        wal.append(&batch(hard(1, 7), &all[chunk])).unwrap();
    }
    assert_eq!(read_all(&wal.reader()), all);
    drop(wal);
    let (mut wal, _) = open(&disk, 2).unwrap();
    assert_eq!(read_all(&wal.reader()), all);
    cut(&mut wal, Index(6)).unwrap();
    assert!(disk.used_bytes() < 6 * SEGMENT_BYTES, "a file of its own size is not kept");
}
