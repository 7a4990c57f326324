//! A segment file: its name, its life's salt, and how one comes into being.

use crate::batch::{Draft, FrameContext};
use crate::disk::{Disk, DiskFile, SECTOR_BYTES};
use crate::format::segment::{SegmentHead, sector_end};
use crate::names::{number_of, numbered};
use std::io::{self, IoSlice};
use std::sync::Arc;

const PREFIX: &str = "segment-";

/// One use of a segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// The name of segment `number`.
pub(crate) fn segment_name(number: u64) -> String {
    numbered(PREFIX, number)
}

/// The number in a segment's name; `None` for other files.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    number_of(PREFIX, name)
}

/// Turns a spare file into segment `head.number`, born with one batch: head and batch are written under the spare's
/// name and synced; the rename is the switch; the directory is synced.
///
/// Sets `head.born_to`. An error before the rename leaves a spare file. An error of the directory's sync
/// ([`BirthError::Named`]) must end the log, because the file has its name by then.
pub(crate) fn give_birth(
    disk: &dyn Disk,
    spare_name: &str,
    file: &Arc<dyn DiskFile>,
    mut head: SegmentHead,
    draft: &Draft,
    context: &FrameContext<'_>,
) -> Result<Segment, BirthError> {
    let length = draft.batch_bytes(context.identities.len());
    head.born_to = sector_end(SECTOR_BYTES + length);
    let head_bytes = head.encode();
    draft
        .write(&**file, head.salt, SECTOR_BYTES, context, Some(&head_bytes))
        .and_then(|()| file.sync_data())
        .map_err(BirthError::Unnamed)?;
    let name = segment_name(head.number);
    disk.rename(spare_name, &name).map_err(BirthError::Unnamed)?;
    disk.sync_dir().map_err(BirthError::Named)?;
    Ok(Segment { number: head.number, salt: head.salt, name, file: Arc::clone(file) })
}

/// How far a birth got.
pub(crate) enum BirthError {
    /// The file is still a spare.
    Unnamed(io::Error),
    /// The file has its name, perhaps not durably.
    Named(io::Error),
}

impl BirthError {
    pub(crate) fn into_inner(self) -> io::Error {
        match self {
            BirthError::Unnamed(error) | BirthError::Named(error) => error,
        }
    }
}

/// Writes `step` zeros from `from` on. Later writes there change no metadata, so their syncs are cheaper.
pub(crate) fn write_zeros(file: &dyn DiskFile, from: u64, step: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut slices = Vec::new();
    let mut left = usize::try_from(step).expect("a step is a few MiB");
    while left > 0 {
        let size = left.min(zeros.len());
        slices.push(IoSlice::new(&zeros[..size]));
        left -= size;
    }
    file.write_at(from, &mut slices)
}
