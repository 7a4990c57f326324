//! What the log needs of a file system, so that everything else can run on a disk that fails on purpose.
//!
//! A [`Disk`] is one flat directory. Every IO call of this crate goes through it or through a [`DiskFile`] that it
//! opened; all of them block. [`RealDisk`] is the directory itself; the `FakeDisk` (feature `fake`) loses, tears and
//! refuses what a real one may.
//!
//! Errors are plain [`io::Error`]s. Only one kind is treated apart: [`is_no_space`].

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod real;

pub use real::RealDisk;

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The unit in which a disk writes: a power cut leaves each sector as it was or as it was to become, never a mixture.
/// Batches begin at a sector of their own, so that a torn write never touches what was synced before it.
pub const SECTOR_BYTES: u64 = 512;

/// The guard of a [`Disk::lock`]; dropping it gives the lock back.
pub trait DiskLock: Send + Sync {}

/// One directory with its files.
pub trait Disk: Send + Sync {
    /// Opens a file that exists, for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none of that name; else what the disk said.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a new, empty file. Its name is durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken; else what the disk said.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of all files, sorted. Directories are left out.
    ///
    /// # Errors
    /// What the disk said.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what had that name. Durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the disk said.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away. The bytes go with the last name and the last open [`DiskFile`].
    ///
    /// # Errors
    /// What the disk said.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, rename and removal so far durable.
    ///
    /// # Errors
    /// What the disk said; which of them are durable is then unknown.
    fn sync_dir(&self) -> io::Result<()>;

    /// Takes the exclusive lock on the file `name`, creating it if need be; `None` if another holder has it.
    ///
    /// # Errors
    /// What the disk said.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>>;

    /// Bytes that an ordinary process may still allocate.
    ///
    /// # Errors
    /// What the disk said.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file. It outlives its name, and can be read by many threads while one writes elsewhere in it.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    /// What the disk said.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `slices`, one after another, at `offset`, in as few calls as the system allows.
    ///
    /// # Errors
    /// What the disk said; any part may then have been written.
    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes every byte written so far, and the length, durable.
    ///
    /// # Errors
    /// What the disk said. What was written since the last success may then be lost, and a later success says nothing
    /// about it.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the file at least `size` bytes long and reserves the room: a write inside it does not run out of space.
    ///
    /// # Errors
    /// What the disk said; no space is the expected one.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Cuts the file off at `size` bytes and gives the room back.
    ///
    /// # Errors
    /// What the disk said.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// What the disk said.
    fn size(&self) -> io::Result<u64>;

    /// How many names it has. If there is more than one, somebody keeps it by a hard link. A link does not protect
    /// bytes from being overwritten.
    ///
    /// # Errors
    /// What the disk said.
    fn link_count(&self) -> io::Result<u64>;
}

/// True if the error says that the disk is full (or the user's share of it): the one error that can be undone and
/// tried again.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads exactly `size` bytes at `offset`; `None` if the file ends before.
pub(crate) fn read_exactly(file: &dyn DiskFile, offset: u64, size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; size];
    let read = file.read_at(offset, &mut buffer)?;
    Ok((read == size).then_some(buffer))
}

/// Reads a small file whole; `None` if it does not exist. At most `size_max` bytes are read: nothing that this crate
/// writes there is longer.
pub(crate) fn read_small(disk: &dyn Disk, name: &str, size_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.size()?.min(size_max)).expect("bounded by size_max, which is small");
    let mut buffer = vec![0; size];
    let read = file.read_at(0, &mut buffer)?;
    buffer.truncate(read);
    Ok(Some(buffer))
}

/// Takes a name away, if it is there.
pub(crate) fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Replaces the file `name` so that a crash leaves the old bytes or the new ones: written aside, synced, renamed,
/// directory synced.
pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_aside(disk, name, bytes)?;
    name_aside(disk, name).map_err(|error| match error {
        NameError::Rename(error) | NameError::Sync(error) => error,
    })
}

/// Writes what is to replace the file `name`, and syncs it. Nothing has changed until [`name_aside`].
pub(crate) fn write_aside(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let aside = format!("{name}{ASIDE_SUFFIX}");
    remove_if_there(disk, &aside)?;
    let file = disk.create(&aside)?;
    file.write_at(0, &mut [IoSlice::new(bytes)])?;
    file.sync_data()
}

/// Puts what was written aside in the place of the file `name`.
pub(crate) fn name_aside(disk: &dyn Disk, name: &str) -> Result<(), NameError> {
    disk.rename(&format!("{name}{ASIDE_SUFFIX}"), name).map_err(NameError::Rename)?;
    disk.sync_dir().map_err(NameError::Sync)
}

/// How far a replacement got.
pub(crate) enum NameError {
    /// The old file has the name.
    Rename(io::Error),
    /// The new one has it, perhaps not durably.
    Sync(io::Error),
}

/// What the temporary name of a small file ends in.
pub(crate) const ASIDE_SUFFIX: &str = ".aside";

impl fmt::Debug for dyn Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl fmt::Debug for dyn DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskFile")
    }
}
