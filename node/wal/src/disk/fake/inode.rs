//! One file of the fake disk: what readers see, and what each un-synced sector holds on the medium.

use crate::disk::SECTOR_BYTES;
use std::collections::BTreeMap;

const SECTOR: usize = 512;

/// A sector's bytes on the medium; `None` is all zero.
type Medium = Option<Box<[u8; SECTOR]>>;

/// Invariants: `cache` is at most `size` long, and what lies between is zero; a sector in neither map is the same on the
/// medium as in the cache; no sector is in both maps.
#[derive(Clone, Default)]
pub(super) struct Inode {
    cache: Vec<u8>,
    size: u64,
    durable_size: u64,
    allocated: u64,
    /// Dirty sectors: the next sync makes them durable.
    dirty: BTreeMap<u64, Medium>,
    /// Sectors that a failed sync called clean. No later sync writes them, only another write does.
    lost: BTreeMap<u64, Medium>,
    /// How often the living process has it open.
    pub(super) open_files: u64,
}

impl Inode {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn occupied_bytes(&self) -> u64 {
        self.allocated.max(self.cache.len() as u64)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.cache.clone();
        bytes.resize(to_usize(self.size), 0);
        bytes
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let count = to_usize(self.size.saturating_sub(offset).min(buffer.len() as u64));
        let cached = self.cache.get(to_usize(offset.min(self.size))..).unwrap_or_default();
        let copied = cached.len().min(count);
        buffer[..copied].copy_from_slice(&cached[..copied]);
        buffer[copied..count].fill(0);
        count
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.dirty_sectors(offset, end);
        if self.cache.len() < to_usize(end) {
            self.cache.resize(to_usize(end), 0);
        }
        self.cache[to_usize(offset)..to_usize(end)].copy_from_slice(bytes);
        self.size = self.size.max(end);
        self.allocated = self.allocated.max(end);
    }

    pub(super) fn allocate(&mut self, size: u64) {
        self.size = self.size.max(size);
        self.allocated = self.allocated.max(size);
    }

    pub(super) fn truncate(&mut self, size: u64) {
        self.dirty_sectors(size, self.cache.len() as u64);
        self.cache.truncate(to_usize(size));
        self.size = size;
        self.allocated = self.allocated.min(size);
    }

    pub(super) fn sync(&mut self) {
        self.dirty.clear();
        self.durable_size = self.size;
    }

    pub(super) fn fail_sync(&mut self) {
        self.lost.append(&mut self.dirty);
    }

    /// A power cut. Each un-synced sector, and the length, falls back to what the medium has, unless `keeps` says that
    /// the new one arrived there.
    pub(super) fn cut(&mut self, keeps: &mut dyn FnMut(u64) -> bool) {
        let size = if self.size == self.durable_size || keeps(0) { self.size } else { self.durable_size };
        let mut unsynced = std::mem::take(&mut self.dirty);
        unsynced.append(&mut self.lost);
        for (sector, medium) in unsynced {
            if !keeps(sector) {
                self.restore(sector, medium.as_deref());
            }
        }
        self.cache.truncate(to_usize(size));
        self.size = size;
        self.durable_size = size;
        self.allocated = self.allocated.min(size).max(self.cache.len() as u64);
    }

    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) -> bool {
        let Some(byte) = self.cache.get_mut(to_usize(offset)) else { return false };
        *byte ^= mask;
        let (sector, within) = (offset / SECTOR_BYTES, to_usize(offset % SECTOR_BYTES));
        for unsynced in [&mut self.dirty, &mut self.lost] {
            if let Some(medium) = unsynced.get_mut(&sector) {
                medium.get_or_insert_with(|| Box::new([0; SECTOR]))[within] ^= mask;
            }
        }
        true
    }

    /// Puts `bytes` over what was written at `offset`, in the cache and on the medium; false if that was never written.
    pub(super) fn smear(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if offset.saturating_add(bytes.len() as u64) > self.cache.len() as u64 {
            return false;
        }
        for (new, at) in bytes.iter().zip(offset..) {
            let mask = self.cache[to_usize(at)] ^ new;
            if mask != 0 {
                self.corrupt(at, mask);
            }
        }
        true
    }

    /// Remembers what the medium holds of every sector that bytes `from..end` touch, unless it is remembered already.
    fn dirty_sectors(&mut self, from: u64, end: u64) {
        if from >= end {
            return;
        }
        for sector in from / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            if self.dirty.contains_key(&sector) {
                continue;
            }
            let medium = self.lost.remove(&sector).unwrap_or_else(|| self.cached_sector(sector));
            self.dirty.insert(sector, medium);
        }
    }

    fn cached_sector(&self, sector: u64) -> Medium {
        let from = to_usize(sector * SECTOR_BYTES);
        let cached = self.cache.get(from..).filter(|cached| !cached.is_empty())?;
        let count = cached.len().min(SECTOR);
        let mut bytes = Box::new([0; SECTOR]);
        bytes[..count].copy_from_slice(&cached[..count]);
        Some(bytes)
    }

    fn restore(&mut self, sector: u64, medium: Option<&[u8; SECTOR]>) {
        let from = to_usize(sector * SECTOR_BYTES);
        match medium {
            Some(bytes) => {
                if self.cache.len() < from + SECTOR {
                    self.cache.resize(from + SECTOR, 0);
                }
                self.cache[from..from + SECTOR].copy_from_slice(bytes);
            }
            None => {
                let end = self.cache.len().min(from + SECTOR);
                if from < end {
                    self.cache[from..end].fill(0);
                }
            }
        }
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a file in memory fits the address space")
}
