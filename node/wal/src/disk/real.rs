//! The [`Disk`] that is a directory of the operating system.

use super::{Disk, DiskFile, DiskLock};
use rustix::fs::{FallocateFlags, FlockOperation};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Slices that one `pwritev` takes at most (Linux: `IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// A directory of the operating system. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RealDisk {
    path: PathBuf,
    directory: Arc<File>,
}

impl RealDisk {
    /// Opens the directory, and makes it (and its parents) if it does not exist.
    ///
    /// # Errors
    /// What the operating system said; the caller ends the process with it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<RealDisk> {
        let path = path.as_ref();
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        RealDisk::open_existing(path)
    }

    /// Opens a directory that exists, changing nothing.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn open_existing(path: impl AsRef<Path>) -> io::Result<RealDisk> {
        let path = path.as_ref().to_path_buf();
        let directory = Arc::new(File::open(&path)?);
        Ok(RealDisk { path, directory })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

struct RealFile(File);

struct RealLock {
    /// Closing the file gives the lock back.
    _file: File,
}

impl DiskLock for RealLock {}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            // A reader of somebody else's directory (a dump) may have no right to write; writing then fails later.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                File::open(&path)?
            }
            other => other?,
        };
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in std::fs::read_dir(&self.path)? {
            let item = item?;
            // Names that are not UTF-8 are not ours.
            if let (true, Ok(name)) = (item.file_type()?.is_file(), item.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path.join(name))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.directory)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, mut offset: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let count = slices.len().min(SLICES_MAX);
            match rustix::io::pwritev(&self.0, &slices[..count], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not retried when interrupted: it is not defined what a second call says about the pages of the first.
        rustix::fs::fdatasync(&self.0)?;
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, size) {
            // This file system cannot reserve. The length alone still keeps later syncs from changing it.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(size),
            other => Ok(other?),
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn link_count(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.nlink())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_names_and_locks_behave_like_the_trait_says() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path().join("a/b")).unwrap();
        let file = disk.create("one").unwrap();
        assert_eq!(disk.create("one").err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        file.allocate(4096).unwrap();
        let many = vec![b"xy".as_slice(); 3000];
        let mut slices: Vec<_> = many.iter().map(|bytes| IoSlice::new(bytes)).collect();
        file.write_at(10, &mut slices).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.size().unwrap(), 6010);
        let mut buffer = [0; 8];
        assert_eq!(file.read_at(6006, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"xyxy");
        assert_eq!(file.link_count().unwrap(), 1);
        std::fs::hard_link(disk.path().join("one"), disk.path().join("two")).unwrap();
        assert_eq!(file.link_count().unwrap(), 2);
        disk.rename("two", "three").unwrap();
        disk.remove("one").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["three"]);
        assert_eq!(disk.open("one").err().unwrap().kind(), io::ErrorKind::NotFound);
        file.truncate(100).unwrap();
        assert_eq!(disk.open("three").unwrap().size().unwrap(), 100);

        let held = disk.lock("LOCK").unwrap();
        assert!(held.is_some());
        assert!(disk.lock("LOCK").unwrap().is_none());
        drop(held);
        assert!(disk.lock("LOCK").unwrap().is_some());
        assert!(disk.free_bytes().unwrap() > 0);
    }
}
