//! Which files are the log: the list that changes only as a whole.

use crate::disk::{self, Disk};
use crate::error::{OpenError, io_error, malformed};
use crate::format::small::{decode_manifest, encode_manifest};
use std::io;

/// The file.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// Far more than any manifest: a bound for reading one.
const SIZE_MAX_BYTES: u64 = 64 << 20;

/// The content of `MANIFEST`. Segments from `first_segment` on are the log, each naming the one before; older ones are
/// leftovers of a release that a crash cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The oldest segment that counts.
    pub first_segment: u64,
    /// Files that keep bodies of segments that are gone.
    pub kept_files: Vec<KeptFile>,
    /// Snapshots of the queue's state.
    pub snapshots: Vec<SnapshotFile>,
}

/// One kept file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// CRC32C of its index.
    pub crc: u32,
}

/// One snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// CRC32C of its head.
    pub crc: u32,
}

impl Default for Manifest {
    fn default() -> Manifest {
        Manifest { first_segment: 1, kept_files: Vec::new(), snapshots: Vec::new() }
    }
}

impl Manifest {
    /// Reads it; `None` if there is none, which is so until a log was made.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Manifest>, OpenError> {
        match disk::read_small(disk, MANIFEST, SIZE_MAX_BYTES).map_err(io_error("read MANIFEST"))? {
            None => Ok(None),
            Some(bytes) => decode_manifest(&bytes).map(Some).map_err(|reason| malformed(MANIFEST, 0, reason)),
        }
    }

    /// Replaces it: old or new after a crash at any point.
    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        disk::replace(disk, MANIFEST, &encode_manifest(self))
    }
}
