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
        wal.upkeep().unwrap();
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
    wal.upkeep().unwrap();
    let before = (disk.calls(), disk.calls_of(Operation::Write), disk.calls_of(Operation::Sync));
    wal.append(&batch(hard(1, 7), &entries(1..20, 1, 100))).unwrap();
    wal.upkeep().unwrap();
    let after = (disk.calls(), disk.calls_of(Operation::Write), disk.calls_of(Operation::Sync));
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (2, 1, 1));
}

#[test]
fn a_batch_of_a_hard_state_alone_touches_no_segment() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let segment = crate::segment::segment_name(1);
    let before = disk.bytes(&segment);
    wal.append(&batch(hard(1, 7), &[])).unwrap();
    assert_eq!(disk.bytes(&segment), before);
    let calls = disk.calls();
    wal.append(&batch(hard(1, 7), &[])).unwrap();
    assert_eq!(disk.calls(), calls, "nothing new costs nothing");
}

#[test]
fn a_segment_is_prepared_ahead_so_that_a_roll_over_allocates_nothing() {
    let disk = formatted(1);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let mut index = 1;
    while wal.synced_to().segment == 1 {
        let before = disk.calls_of(Operation::Allocate);
        wal.append(&batch(hard(1, 7), &entries(index..index + 1, 1, 1000))).unwrap();
        assert_eq!(disk.calls_of(Operation::Allocate), before);
        wal.upkeep().unwrap();
        index += 1;
    }
    assert!(index > 10);
}

#[test]
fn a_caller_that_lost_track_of_the_log_is_stopped() {
    let attempt = |run: &dyn Fn(&mut crate::Wal)| {
        let disk = formatted(1);
        let (mut wal, _) = open(&disk, 1).unwrap();
        wal.append(&batch(hard(2, 7), &entries(1..4, 1, 10))).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut wal))).unwrap_err();
        assert_eq!(wal.last_index(), Index(3));
    };
    attempt(&|wal| drop(wal.append(&batch(hard(2, 7), &entries(5..6, 1, 10)))));
    attempt(&|wal| drop(wal.append(&batch(hard(2, 7), &entries(3..4, 1, 10)))));
    attempt(&|wal| drop(wal.append(&truncating(hard(2, 7), 5, &[]))));
    attempt(&|wal| drop(wal.append(&truncating(hard(2, 7), 0, &[]))));
    attempt(&|wal| drop(wal.append(&batch(hard(1, 7), &[]))));
    attempt(&|wal| drop(wal.append(&batch(hard(2, 0), &[]))));
    attempt(&|wal| {
        let unannounced = crate::Batch { hard_state_changed: false, ..batch(hard(3, 0), &[]) };
        drop(wal.append(&unannounced));
    });
}

#[test]
fn the_same_life_on_a_real_directory() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || std::sync::Arc::new(crate::disk::RealDisk::open(folder.path()).unwrap());
    let mut dir = crate::DataDir::open(disk(), Some("a")).unwrap();
    dir.format(raftqueue_raft::NodeId(7), "a").unwrap();
    assert!(matches!(crate::DataDir::open(disk(), Some("a")), Err(crate::OpenError::AnotherProcess)));
    let all = entries(1..120, 1, 900);
    let mut done = 0;
    for life in 1..5 {
        let (mut wal, recovered) = dir.open_log(options(life)).unwrap();
        assert_eq!(recovered.last_index, Index(done as u64));
        for chunk in all[done..(done + 25).min(all.len())].chunks(3) {
            wal.append(&batch(hard(life, 7), chunk)).unwrap();
            wal.upkeep().unwrap();
        }
        done = (done + 25).min(all.len());
        cut(&mut wal, Index(done as u64 / 2)).unwrap();
        let first = wal.first_index().0 as usize;
        assert_eq!(read_all(&wal.reader()), all[first - 1..done]);
        wal.prove().unwrap();
        assert!(wal.free_bytes().unwrap() > 0);
    }
}

#[test]
fn the_parts_can_move_to_the_threads_that_own_them() {
    fn moves<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    moves::<crate::Wal>();
    moves::<crate::DataDir>();
    is_shared::<crate::Reader>();
}
