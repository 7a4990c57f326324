//! The file `MANIFEST`: read whole, replaced whole.

use crate::disk::{self, Disk};
use crate::error::{OpenError, io_error, malformed};
use crate::format::manifest::{decode_manifest, encode_manifest};
use crate::manifest::Manifest;
use std::io;

/// The file.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// Far more than any manifest: a bound for reading one.
const SIZE_MAX_BYTES: u64 = 64 << 20;

impl Manifest {
    /// Reads it; `None` until a log was made.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Manifest>, OpenError> {
        match disk::read_small(disk, MANIFEST, SIZE_MAX_BYTES).map_err(io_error("read MANIFEST"))? {
            None => Ok(None),
            Some(bytes) => decode_manifest(&bytes).map(Some).map_err(|reason| malformed(MANIFEST, 0, reason)),
        }
    }

    /// Replaces it. A crash leaves the old file or the new one.
    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        disk::replace(disk, MANIFEST, &encode_manifest(self))
    }

    /// The first half of that: everything but its name.
    pub(crate) fn write_aside(&self, disk: &dyn Disk) -> io::Result<()> {
        disk::write_aside(disk, MANIFEST, &encode_manifest(self))
    }
}
