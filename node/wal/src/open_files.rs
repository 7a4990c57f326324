//! The files of segments that are open because somebody read them lately: at most so many, whatever a node holds.

use crate::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// How many are open at once, besides the segment that is written to.
pub(crate) const OPEN_FILES_MAX: usize = 64;

/// The files. Its lock is never held across IO.
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// By segment: when it was used last, and the file.
    files: BTreeMap<u64, (u64, Arc<dyn DiskFile>)>,
    uses: u64,
}

impl OpenFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> OpenFiles {
        OpenFiles { disk, open: Mutex::default() }
    }

    /// The file of a segment, opened if it is not open.
    pub(crate) fn get(&self, segment: u64, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        {
            let mut open = self.lock();
            open.uses += 1;
            let now = open.uses;
            if let Some((used, file)) = open.files.get_mut(&segment) {
                *used = now;
                return Ok(Arc::clone(file));
            }
        }
        let file = self.disk.open(name)?;
        self.add(segment, Arc::clone(&file));
        Ok(file)
    }

    /// Takes in a file that is open; the one that was used longest ago is closed if there are too many.
    pub(crate) fn add(&self, segment: u64, file: Arc<dyn DiskFile>) {
        let mut open = self.lock();
        open.uses += 1;
        let now = open.uses;
        let mut closed = open.files.insert(segment, (now, file));
        if open.files.len() > OPEN_FILES_MAX {
            let oldest = open.files.iter().min_by_key(|(_, (used, _))| *used).map(|(segment, _)| *segment);
            closed = oldest.and_then(|oldest| open.files.remove(&oldest));
        }
        drop(open);
        // Closing is IO, too.
        drop(closed);
    }

    /// Gives the file out of here; `None` if it is not open.
    pub(crate) fn take(&self, segment: u64) -> Option<Arc<dyn DiskFile>> {
        self.lock().files.remove(&segment).map(|(_, file)| file)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no code panics while it holds the open files")
    }
}
