//! What rots in the small files is written anew, while the node still knows what should stand there.

use super::support::*;
use crate::disk::Disk;
use crate::disk::fake::{FakeDisk, Operation, Refusal};
use crate::hard_state::{HARD_STATE, HardStateFile};
use crate::{AppendError, DataDir, Wal};
use raftqueue_raft::Index;
use std::io::{self, IoSlice};

/// Where a flipped bit makes each slot of `HARDSTATE` unreadable.
const SLOTS: [u64; 2] = [4, 4_096 + 4];

/// A node in term 3, with a few entries.
fn node() -> (FakeDisk, DataDir, Wal) {
    let disk = formatted(1);
    let mut directory = DataDir::open(shared(&disk), Some("a")).unwrap();
    let (mut wal, _) = directory.open_log(options(2)).unwrap();
    wal.append(&batch(hard(3, 7), &entries(1..4, 3, 100))).unwrap();
    wal.upkeep().unwrap();
    (disk, directory, wal)
}

fn flip(disk: &FakeDisk, file: &str, at: u64) {
    let bytes = disk.bytes(file).unwrap();
    let flipped = [bytes[usize::try_from(at).unwrap()] ^ 4];
    disk.open(file).unwrap().write_at(at, &mut [IoSlice::new(&flipped)]).unwrap();
}

fn mended(wal: &mut Wal) -> Vec<&'static str> {
    let found = wal.mend_small_files().unwrap();
    assert!(found.unread.is_none());
    found.mended
}

fn refuse(disk: &FakeDisk, operation: Operation, error: io::ErrorKind) {
    disk.inject(Refusal { operation, file_prefix: String::new(), skip: 0, count: 1, error });
}

#[test]
fn rule_2_6_rot_in_a_small_file_is_met_and_written_anew() {
    let (disk, mut directory, mut wal) = node();
    assert!(mended(&mut wal).is_empty());
    assert_eq!(directory.mend_identity().unwrap(), None);
    // Also after everything that writes them.
    for from in (4..40).step_by(4) {
        wal.append(&batch(hard(from, 7), &entries(from..from + 4, from, 4_000))).unwrap();
        wal.upkeep().unwrap();
    }
    assert!(cut(&mut wal, Index(30)).unwrap() > 0);
    assert!(mended(&mut wal).is_empty());
    for (file, at) in [(HARD_STATE, SLOTS[0]), (HARD_STATE, SLOTS[1]), ("MANIFEST", 5), ("IDENTITY", 9)] {
        flip(&disk, file, at);
        let found = [mended(&mut wal), directory.mend_identity().unwrap().into_iter().collect()];
        assert_eq!(found.concat(), [file], "flipped at {at}");
        assert!(mended(&mut wal).is_empty() && directory.mend_identity().unwrap().is_none());
    }
    drop((wal, directory));
    let (_, found) = open(&disk, 3).unwrap();
    assert_eq!((found.hard_state, found.last_index.0), (Some(hard(36, 7)), 39));
}

#[test]
fn rule_2_6_both_slots_are_put_back_before_anybody_needs_them() {
    let (disk, _directory, mut wal) = node();
    SLOTS.iter().for_each(|at| flip(&disk, HARD_STATE, *at));
    assert!(HardStateFile::read(&disk).unwrap().is_none());
    assert_eq!(mended(&mut wal), [HARD_STATE]);
    assert_eq!(HardStateFile::read(&disk).unwrap(), Some(hard(3, 7)));
    // A file that is gone is made again, and what is promised afterwards stands in that one.
    disk.remove(HARD_STATE).unwrap();
    assert_eq!(mended(&mut wal), [HARD_STATE]);
    wal.append(&batch(hard(4, 8), &[])).unwrap();
    assert_eq!(HardStateFile::read(&disk).unwrap(), Some(hard(4, 8)));
}

/// Nobody knows then which file is open: a later vote must not go into one that has no name any more.
#[test]
fn rule_2_7_a_disk_that_fails_while_a_small_file_is_put_back_ends_the_log() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync] {
        let (disk, _directory, mut wal) = node();
        SLOTS.iter().for_each(|at| flip(&disk, HARD_STATE, *at));
        refuse(&disk, operation, io::ErrorKind::Other);
        assert!(matches!(wal.mend_small_files(), Err(AppendError::Failed { .. })), "{operation:?}");
        let vote = wal.append(&batch(hard(4, 8), &[]));
        assert!(matches!(vote, Err(AppendError::Poisoned { .. })), "{operation:?}: {vote:?}");
    }
}

#[test]
fn rule_2_7_without_room_to_put_a_small_file_back_votes_go_on() {
    let (disk, directory, mut wal) = node();
    SLOTS.iter().for_each(|at| flip(&disk, HARD_STATE, *at));
    refuse(&disk, Operation::Create, io::ErrorKind::StorageFull);
    assert!(matches!(wal.mend_small_files(), Err(AppendError::NoSpace { .. })));
    wal.append(&batch(hard(4, 8), &[])).unwrap();
    assert_eq!(mended(&mut wal), [HARD_STATE]);
    drop((wal, directory));
    assert_eq!(open(&disk, 3).unwrap().1.hard_state, Some(hard(4, 8)));
}
