//! A segment file: its name, its life's salt, and how one comes into being.

use crate::batch::{Draft, FrameContext};
use crate::disk::{Disk, DiskFile, SECTOR_BYTES};
use crate::format::segment::{SegmentHead, sector_end};
use crate::names::{number_of, numbered};
use crate::open_files::OpenFiles;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

const PREFIX: &str = "segment-";

/// One use of a segment file.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) name: String,
    /// The file while it must stay open: it is written to, or its name is gone and somebody still reads it.
    held: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Where it is found open, or opened, at all other times.
    open_files: Arc<OpenFiles>,
}

impl Segment {
    /// A segment whose file is opened when somebody asks for it.
    pub(crate) fn new(number: u64, salt: u64, open_files: &Arc<OpenFiles>) -> Segment {
        let (name, open_files) = (segment_name(number), Arc::clone(open_files));
        Segment { number, salt, name, held: Mutex::new(None), open_files }
    }

    /// The file, for as long as the caller needs it.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &*self.held() {
            return Ok(Arc::clone(file));
        }
        match self.open_files.get(self.number, &self.name) {
            // Its name may have been taken away in between; then it is held.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.held().clone().ok_or(error),
            other => other,
        }
    }

    /// Keeps the file open until [`Segment::let_go`].
    pub(crate) fn hold(&self, file: Arc<dyn DiskFile>) {
        *self.held() = Some(file);
    }

    /// From now on the file is open only while somebody uses it.
    pub(crate) fn let_go(&self) {
        if let Some(file) = self.held().take() {
            self.open_files.add(self.number, file);
        }
    }

    /// The file of a segment that nobody reads any more, closed for everybody else.
    pub(crate) fn into_file(self) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.file();
        self.open_files.take(self.number);
        file
    }

    /// Keeps the file for those who still read it, and out of the others' way, because its name goes.
    pub(crate) fn keep_for_readers(&self) -> io::Result<()> {
        let file = self.file()?;
        self.hold(file);
        self.open_files.take(self.number);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<dyn DiskFile>>> {
        self.held.lock().expect("no code panics while it holds a segment's file")
    }
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
    open_files: &Arc<OpenFiles>,
) -> Result<Arc<Segment>, BirthError> {
    let length = draft.batch_bytes(context.identities.len());
    head.born_to = sector_end(SECTOR_BYTES + length);
    let head_bytes = head.encode();
    draft
        .write(&**file, head.salt, SECTOR_BYTES, context, Some(&head_bytes))
        .and_then(|()| file.sync_data())
        .map_err(BirthError::Unnamed)?;
    let segment = Segment::new(head.number, head.salt, open_files);
    segment.hold(Arc::clone(file));
    disk.rename(spare_name, &segment.name).map_err(BirthError::Unnamed)?;
    disk.sync_dir().map_err(BirthError::Named)?;
    Ok(Arc::new(segment))
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
