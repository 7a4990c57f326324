//! The two-slot file `HARDSTATE`: term and vote, safe against a write that tears.
//!
//! A change goes into the slot with the lesser value and is synced; then the promise may leave; then
//! [`HardStateFile::copy`] copies it into the other slot. So one slot always holds what was promised last, and the
//! greatest readable value is right: a promise never goes back, and a value that was written but not promised does no
//! harm.

use crate::disk::{self, Disk, DiskFile, NameError};
use crate::error::{OpenError, io_error, malformed};
use crate::format::Malformed;
use crate::format::small::{HARD_STATE_SLOT_BYTES, decode_hard_state, encode_hard_state};
use raftqueue_raft::HardState;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The file.
pub(crate) const HARD_STATE: &str = "HARDSTATE";

/// The open file with what its slots hold.
pub(crate) struct HardStateFile {
    file: Arc<dyn DiskFile>,
    slots: [HardState; 2],
}

impl HardStateFile {
    /// Replaces the file by one whose slots both hold `value`. A crash leaves the old file or the new one.
    pub(crate) fn create(disk: &dyn Disk, value: HardState) -> io::Result<HardStateFile> {
        HardStateFile::write_aside(disk, value)?;
        HardStateFile::take_place(disk, value)
    }

    /// The first half of that: everything but its name.
    fn write_aside(disk: &dyn Disk, value: HardState) -> io::Result<()> {
        let mut bytes = encode_hard_state(value);
        bytes.resize(usize::try_from(HARD_STATE_SLOT_BYTES).expect("a few KiB"), 0);
        bytes.extend_from_slice(&bytes.clone());
        disk::write_aside(disk, HARD_STATE, &bytes)
    }

    /// What was written aside, in the place of the file.
    fn take_place(disk: &dyn Disk, value: HardState) -> io::Result<HardStateFile> {
        let placed = disk::name_aside(disk, HARD_STATE);
        placed.map_err(|(NameError::Rename(error) | NameError::Sync(error))| error)?;
        Ok(HardStateFile { file: disk.open(HARD_STATE)?, slots: [value, value] })
    }

    /// The greatest readable value; `None` if no slot can be read.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<HardState>, OpenError> {
        Ok(HardStateFile::read_slots(disk)?.into_iter().filter_map(Result::ok).max())
    }

    /// Reads each slot by itself. A slot of a newer or an unreleased build makes the whole an error, because the other one
    /// may be behind it, and neither is ever written over.
    pub(crate) fn read_slots(disk: &dyn Disk) -> Result<[Result<HardState, Malformed>; 2], OpenError> {
        let bytes = disk::read_small(disk, HARD_STATE, 2 * HARD_STATE_SLOT_BYTES)
            .map_err(io_error("read HARDSTATE"))?
            .unwrap_or_default();
        let second = usize::try_from(HARD_STATE_SLOT_BYTES).expect("a few KiB");
        let slots = [decode_hard_state(&bytes), decode_hard_state(bytes.get(second..).unwrap_or_default())];
        for slot in &slots {
            if let Err(reason @ (Malformed::Newer { .. } | Malformed::Unreleased)) = slot {
                return Err(malformed(HARD_STATE, 0, *reason));
            }
        }
        Ok(slots)
    }

    /// What was promised last, or may have been promised.
    pub(crate) fn value(&self) -> HardState {
        self.slots[0].max(self.slots[1])
    }

    /// Writes what the slots should hold over those that hold something else, as they were just read. True if there was one.
    /// Each is written by itself: a write that tears hits only a slot that was of no use.
    pub(crate) fn put_right(&mut self, disk: &dyn Disk, stored: [Option<HardState>; 2]) -> io::Result<bool> {
        let wrong: Vec<usize> = (0..2).filter(|slot| stored[*slot] != Some(self.slots[*slot])).collect();
        if wrong.len() == 2 {
            // The file itself may be gone, and what is open then is no file of the directory any more.
            let value = self.value();
            HardStateFile::write_aside(disk, value)?;
            // If this fails nobody knows which file is open here: that is never taken for want of room.
            let placed = HardStateFile::take_place(disk, value);
            *self = placed.map_err(|error| io::Error::other(error.to_string()))?;
        } else {
            for slot in &wrong {
                self.write(*slot, self.slots[*slot])?;
            }
        }
        Ok(!wrong.is_empty())
    }

    /// Writes a greater value into the lesser slot and syncs it. After an error the slot counts as unchanged.
    pub(crate) fn change(&mut self, value: HardState) -> io::Result<()> {
        let slot = usize::from(self.slots[1] < self.slots[0]);
        self.write(slot, value)
    }

    /// Copies the value into the slot that lags; nothing to do if none does.
    pub(crate) fn copy(&mut self) -> io::Result<()> {
        if self.slots[0] == self.slots[1] {
            return Ok(());
        }
        self.change(self.value())
    }

    fn write(&mut self, slot: usize, value: HardState) -> io::Result<()> {
        let bytes = encode_hard_state(value);
        self.file.write_at(slot as u64 * HARD_STATE_SLOT_BYTES, &mut [IoSlice::new(&bytes)])?;
        self.file.sync_data()?;
        self.slots[slot] = value;
        Ok(())
    }
}
