//! A disk in memory that loses, tears and refuses what a real one may. A seed decides.
//!
//! What it models:
//! - **Page cache.** Writes are seen at once by every reader, and reach the medium at a sync. [`FakeDisk::crash_process`]
//!   keeps them, [`FakeDisk::power_cut`] drops any subset of the un-synced sectors of 512 bytes, so batches tear.
//! - **Directory.** A creation, rename or removal that no [`Disk::sync_dir`] covered may be undone by a power cut, each
//!   name for itself.
//! - **A failed sync** marks the pages clean that it could not write: readers still see them, later syncs succeed
//!   without them, a power cut shows that they are gone.
//! - **Crash at the n-th call** ([`FakeDisk::crash_at_call`]): that call and every later one fails with [`Crashed`]
//!   until a restart; a write that is hit leaves a part of itself behind.
//! - **Refusals** ([`FakeDisk::inject`]), a full disk ([`FakeDisk::set_capacity`]), and the lock of another process.
//! - **Rot** at rest ([`FakeDisk::corrupt`], and [`FakeDisk::smear`] for whole sectors, zeroed or written by a write that
//!   was meant for another place), and on reading ([`FakeDisk::rot_reads`]).
//!
//! What it does not model: time. A call returns at once or fails.

mod folder;
mod inode;
#[cfg(test)]
mod tests;

use super::{Disk, DiskFile, DiskLock};
use crate::random::Random;
pub use folder::{read_folder, write_folder};
use inode::Inode;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

/// The error of every call after the crash, and of every file that was opened before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed;

impl fmt::Display for Crashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process has crashed")
    }
}

impl std::error::Error for Crashed {}

impl Crashed {
    /// True if an error is this one.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Crashed>())
    }
}

/// What a call does; for counting and for refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Disk::open`]
    Open,
    /// [`Disk::create`]
    Create,
    /// [`Disk::list`]
    List,
    /// [`Disk::rename`]; the file is the old name.
    Rename,
    /// [`Disk::remove`]
    Remove,
    /// [`Disk::sync_dir`]
    SyncDir,
    /// [`Disk::lock`]
    Lock,
    /// [`Disk::free_bytes`]
    FreeBytes,
    /// [`DiskFile::read_at`]
    Read,
    /// [`DiskFile::write_at`]
    Write,
    /// [`DiskFile::sync_data`]
    Sync,
    /// [`DiskFile::allocate`]
    Allocate,
    /// [`DiskFile::truncate`]
    Truncate,
    /// [`DiskFile::size`] and [`DiskFile::link_count`]
    Inspect,
}

/// A call to refuse.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The kind of call.
    pub operation: Operation,
    /// Only for files whose name starts with this (the name that it has at the time of the call); empty for all.
    pub file_prefix: String,
    /// How many such calls pass before.
    pub skip: u64,
    /// How many such calls are refused.
    pub count: u64,
    /// What they say: [`io::ErrorKind::StorageFull`] for a full disk, anything else for a failing one.
    pub error: io::ErrorKind,
}

/// The disk. Cloning shares it.
#[derive(Clone)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    /// As processes see them.
    names: BTreeMap<String, u64>,
    /// As the medium has them.
    durable_names: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    /// Rises at every restart; files opened in older epochs are dead.
    epoch: u64,
    crashed: bool,
    calls: u64,
    calls_by_operation: BTreeMap<Operation, u64>,
    crash_at: Option<u64>,
    refusals: Vec<Refusal>,
    /// So many of the next reads show a flipped bit.
    rotten_reads: u64,
    locks: BTreeSet<String>,
    capacity_bytes: u64,
    random: Random,
}

impl FakeDisk {
    /// An empty disk without limit. `seed` decides how far a write gets that is cut short.
    #[must_use]
    pub fn new(seed: u64) -> FakeDisk {
        FakeDisk {
            state: Arc::new(Mutex::new(State {
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                inodes: BTreeMap::new(),
                inode_next: 1,
                epoch: 0,
                crashed: false,
                calls: 0,
                calls_by_operation: BTreeMap::new(),
                crash_at: None,
                refusals: Vec::new(),
                rotten_reads: 0,
                locks: BTreeSet::new(),
                capacity_bytes: u64::MAX,
                random: Random::new(seed),
            })),
        }
    }

    /// The process ends (`kill -9`) and another may begin: open files, locks and refusals are gone, bytes and names stay as
    /// the last process saw them.
    pub fn crash_process(&self) {
        self.state().restart();
    }

    /// The power fails. Of all that no sync covered, `seed` decides sector by sector and name by name what is left.
    pub fn power_cut(&self, seed: u64) {
        let mut random = Random::new(seed);
        // Some cuts keep nearly all, some nearly nothing: both ends are as likely as the middle.
        let kept_of_four = random.below(5);
        self.state().cut(&mut |_| random.below(4) < kept_of_four);
    }

    /// The power fails. Of all that no sync covered about so many quarters are left: nothing for 0, everything for 4.
    pub fn power_cut_keeping(&self, kept_of_four: u64, seed: u64) {
        let mut random = Random::new(seed);
        self.state().cut(&mut |_| random.below(4) < kept_of_four);
    }

    /// A disk of its own that holds what the worst power cut at this moment would leave: only what is certainly durable.
    /// The original goes on undisturbed.
    #[must_use]
    pub fn durable_view(&self) -> FakeDisk {
        let copy = self.deep_clone();
        copy.state().cut(&mut |_| false);
        copy
    }

    /// A disk of its own with the same bytes, un-synced ones included, as after a restart.
    #[must_use]
    pub fn deep_clone(&self) -> FakeDisk {
        let state = self.state();
        let mut copy = State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            inodes: state.inodes.clone(),
            inode_next: state.inode_next,
            epoch: state.epoch,
            crashed: false,
            calls: 0,
            calls_by_operation: BTreeMap::new(),
            crash_at: None,
            refusals: Vec::new(),
            rotten_reads: 0,
            locks: BTreeSet::new(),
            capacity_bytes: state.capacity_bytes,
            random: state.random.clone(),
        };
        copy.restart();
        FakeDisk { state: Arc::new(Mutex::new(copy)) }
    }

    /// The `call`-th call from now (1 is the next) fails and so does everything after it, until a restart.
    pub fn crash_at_call(&self, call: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.calls + call);
    }

    /// Every call from now on fails, until a restart.
    pub fn crash_now(&self) {
        self.state().crashed = true;
    }

    /// True from the crash to the restart.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Calls since the disk was made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Calls of one kind since the disk was made.
    #[must_use]
    pub fn calls_of(&self, operation: Operation) -> u64 {
        self.state().calls_by_operation.get(&operation).copied().unwrap_or(0)
    }

    /// Refuses calls to come; several refusals may stand at once. A restart forgets them.
    pub fn inject(&self, refusal: Refusal) {
        self.state().refusals.push(refusal);
    }

    /// Forgets all refusals.
    pub fn clear_refusals(&self) {
        self.state().refusals.clear();
    }

    /// Bytes that all files may occupy together; `u64::MAX` is no limit.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Bytes that all files occupy.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Rot: changes one byte of a file by exclusive or, in the cache and on the medium. False if the file does not
    /// exist or is shorter.
    pub fn corrupt(&self, name: &str, offset: u64, mask: u8) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied().and_then(|id| state.inodes.get_mut(&id)) else {
            return false;
        };
        inode.corrupt(offset, mask)
    }

    /// Rot: puts `bytes` over what a file holds at `offset`, in the cache and on the medium, as a write does that was meant
    /// for another place. False, and nothing is changed, if the file does not exist or was not written as far.
    pub fn smear(&self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied().and_then(|id| state.inodes.get_mut(&id)) else {
            return false;
        };
        inode.smear(offset, bytes)
    }

    /// The next `reads` reads that find anything show one flipped bit each; the medium stays whole. A restart forgets it.
    pub fn rot_reads(&self, reads: u64) {
        self.state().rotten_reads = reads;
    }

    /// The names of all files, without counting as a call.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The bytes of a file as a process sees them, without counting as a call.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.inodes[state.names.get(name)?].bytes())
    }

    /// Replaces (or makes) a file by hand, at once durable: for directories that other programs left.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let id = state.add_inode();
        let inode = state.inodes.get_mut(&id).expect("just added");
        inode.write(0, bytes);
        inode.sync();
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
        state.collect();
    }

    /// Takes a file away by hand, at once durable.
    pub fn take(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
        state.collect();
    }

    /// Gives a file a second name, as a backup by hard links does; at once durable.
    pub fn hard_link(&self, name: &str, other: &str) {
        let mut state = self.state();
        if let Some(id) = state.names.get(name).copied() {
            state.names.insert(other.to_owned(), id);
            state.durable_names.insert(other.to_owned(), id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the fake disk")
    }

    fn file(&self, state: &mut State, inode: u64) -> Arc<dyn DiskFile> {
        state.inodes.get_mut(&inode).expect("a name leads to an inode").open_files += 1;
        Arc::new(FakeFile { disk: self.clone(), inode, epoch: state.epoch })
    }
}

impl State {
    fn restart(&mut self) {
        self.epoch += 1;
        self.crashed = false;
        self.crash_at = None;
        self.refusals.clear();
        self.rotten_reads = 0;
        self.locks.clear();
        for inode in self.inodes.values_mut() {
            inode.open_files = 0;
        }
        self.collect();
    }

    /// Drops un-synced state for which `keeps` says false, then restarts.
    fn cut(&mut self, keeps: &mut dyn FnMut(u64) -> bool) {
        let all: BTreeSet<String> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in all {
            let (seen, durable) = (self.names.get(&name).copied(), self.durable_names.get(&name).copied());
            if seen != durable {
                let left = if keeps(0) { seen } else { durable };
                for names in [&mut self.names, &mut self.durable_names] {
                    match left {
                        Some(id) => names.insert(name.clone(), id),
                        None => names.remove(&name),
                    };
                }
            }
        }
        for inode in self.inodes.values_mut() {
            inode.cut(keeps);
        }
        self.restart();
    }

    /// Counts a call and says whether it may happen.
    fn enter(&mut self, operation: Operation, name: &str) -> io::Result<()> {
        if self.crashed {
            return Err(io::Error::other(Crashed));
        }
        self.calls += 1;
        *self.calls_by_operation.entry(operation).or_default() += 1;
        if self.crash_at == Some(self.calls) {
            self.crashed = true;
            return Err(io::Error::other(Crashed));
        }
        for refusal in &mut self.refusals {
            if refusal.operation == operation && name.starts_with(&refusal.file_prefix) && refusal.count > 0 {
                if refusal.skip > 0 {
                    refusal.skip -= 1;
                } else {
                    refusal.count -= 1;
                    return Err(refusal.error.into());
                }
            }
        }
        Ok(())
    }

    /// The first name of an inode, looked for only when a refusal may ask for it.
    fn name_of(&self, inode: u64) -> String {
        if self.refusals.is_empty() {
            return String::new();
        }
        self.names.iter().find(|(_, id)| **id == inode).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn add_inode(&mut self) -> u64 {
        let id = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(id, Inode::default());
        id
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let counts = |(id, inode): &(&u64, &Inode)| inode.open_files > 0 || named.contains(id);
        self.inodes.iter().filter(counts).map(|(_, inode)| inode.occupied_bytes()).sum()
    }

    /// Forgets inodes that no name leads to and no open file keeps.
    fn collect(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.inodes.retain(|id, inode| inode.open_files > 0 || named.contains(id));
    }
}

impl Disk for FakeDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.enter(Operation::Open, name)?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(&mut state, inode))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.enter(Operation::Create, name)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.add_inode();
        state.names.insert(name.to_owned(), inode);
        Ok(self.file(&mut state, inode))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.enter(Operation::List, "")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::Rename, from)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.collect();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::Remove, name)?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.collect();
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::SyncDir, "")?;
        state.durable_names = state.names.clone();
        state.collect();
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut state = self.state();
        state.enter(Operation::Lock, name)?;
        if !state.names.contains_key(name) {
            let inode = state.add_inode();
            state.names.insert(name.to_owned(), inode);
        }
        if !state.locks.insert(name.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(FakeLock { disk: self.clone(), name: name.to_owned(), epoch: state.epoch })))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.enter(Operation::FreeBytes, "")?;
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }
}

struct FakeLock {
    disk: FakeDisk,
    name: String,
    epoch: u64,
}

impl DiskLock for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            state.locks.remove(&self.name);
        }
    }
}

struct FakeFile {
    disk: FakeDisk,
    inode: u64,
    epoch: u64,
}

impl FakeFile {
    /// Counts the call and hands out the state, unless the process that opened this file is dead.
    fn enter(&self, operation: Operation) -> (MutexGuard<'_, State>, io::Result<()>) {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return (state, Err(io::Error::other(Crashed)));
        }
        let name = state.name_of(self.inode);
        let entered = state.enter(operation, &name);
        (state, entered)
    }

    fn inode<'a>(&self, state: &'a mut State) -> &'a mut Inode {
        state.inodes.get_mut(&self.inode).expect("an open file keeps its inode")
    }
}

impl Drop for FakeFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            self.inode(&mut state).open_files -= 1;
            state.collect();
        }
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut state, entered) = self.enter(Operation::Read);
        entered?;
        let read = self.inode(&mut state).read(offset, buffer);
        if state.rotten_reads > 0 && read > 0 {
            state.rotten_reads -= 1;
            let bit = state.random.below(read as u64 * 8);
            buffer[usize::try_from(bit / 8).expect("within the buffer")] ^= 1 << (bit % 8);
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch || state.crashed {
            return Err(io::Error::other(Crashed));
        }
        let name = state.name_of(self.inode);
        let mut entered = state.enter(Operation::Write, &name);
        let total: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        let mut part = total;
        if entered.is_err() {
            part = state.random.below(total + 1);
        }
        let free = state.capacity_bytes.saturating_sub(state.used_bytes());
        let occupied = self.inode(&mut state).occupied_bytes();
        if (offset + part).saturating_sub(occupied) > free {
            part = (occupied + free).saturating_sub(offset);
            entered = entered.and(Err(io::ErrorKind::StorageFull.into()));
        }
        let inode = self.inode(&mut state);
        let mut at = offset;
        for slice in slices.iter() {
            let size = (offset + part).saturating_sub(at).min(slice.len() as u64);
            inode.write(at, &slice[..usize::try_from(size).expect("at most a slice")]);
            at += size;
        }
        entered
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, entered) = self.enter(Operation::Sync);
        match entered {
            Ok(()) => self.inode(&mut state).sync(),
            Err(ref error) if Crashed::is(error) => {}
            Err(_) => self.inode(&mut state).fail_sync(),
        }
        entered
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let (mut state, entered) = self.enter(Operation::Allocate);
        entered?;
        let free = state.capacity_bytes.saturating_sub(state.used_bytes());
        let inode = self.inode(&mut state);
        if size.saturating_sub(inode.occupied_bytes()) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inode.allocate(size);
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let (mut state, entered) = self.enter(Operation::Truncate);
        entered?;
        self.inode(&mut state).truncate(size);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let (mut state, entered) = self.enter(Operation::Inspect);
        entered?;
        Ok(self.inode(&mut state).size())
    }

    fn link_count(&self) -> io::Result<u64> {
        let (state, entered) = self.enter(Operation::Inspect);
        entered?;
        Ok(state.names.values().filter(|id| **id == self.inode).count() as u64)
    }
}
