//! Appending, reading back, rolling over.

use super::support::*;
use crate::disk::fake::Operation;
use raftqueue_raft::Index;

#[test]
fn what_was_appended_is_read_back_now_and_after_a_restart() {
    let disk = formatted(1);
    let (mut wal, recovered) = open(&disk, 1).unwrap();
    assert_eq!((recovered.last_index, recovered.hard_state), (Index(0), Some(hard(0, 0))));
    let all = entries(1..200, 1, 300);
    for chunk in all.chunks(7) {
        wal.append(&batch(hard(1, 7), chunk)).unwrap();
        wal.settle().unwrap();
    }
    assert!(wal.synced_to().segment > 3, "rolled over");
    assert_eq!(read_all(&wal.reader()), all);
    drop(wal);
    let (wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!((recovered.last_index, recovered.hard_state), (Index(199), Some(hard(1, 7))));
    assert_eq!(read_all(&wal.reader()), all);
}

#[test]
fn a_batch_costs_one_write_and_one_sync() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    wal.append(&batch(hard(1, 7), &[])).unwrap();
    wal.settle().unwrap();
    let before = (disk.calls(), disk.calls_of(Operation::Write), disk.calls_of(Operation::Sync));
    wal.append(&batch(hard(1, 7), &entries(1..20, 1, 100))).unwrap();
    wal.settle().unwrap();
    let after = (disk.calls(), disk.calls_of(Operation::Write), disk.calls_of(Operation::Sync));
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (2, 1, 1));
}
