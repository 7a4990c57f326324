//! The small files of a data directory, which nothing reads between one start and the next: `HARDSTATE` and `MANIFEST`, and
//! `IDENTITY`. The node knows what is in them, so what rots there is written anew.

use crate::data_dir::{DataDir, IDENTITY, read_identity};
use crate::error::{AppendError, IdentityError, OpenError};
use crate::hard_state::{HARD_STATE, HardStateFile};
use crate::manifest::Manifest;
use crate::manifest_file::MANIFEST;
use crate::wal::Wal;
use std::io;

/// What a look at the small files of the log found.
#[derive(Debug, Default)]
pub struct SmallFiles {
    /// Those that did not say what this node knows, and do now.
    pub mended: Vec<&'static str>,
    /// The disk refused to give one of them: nothing is known of it.
    pub unread: Option<io::Error>,
}

impl Wal {
    /// Reads `HARDSTATE` and `MANIFEST`, and writes anew what does not say what this node knows. What is read may come from the
    /// kernel's cache: rot on the medium is met once the kernel has let it go.
    ///
    /// # Errors
    /// As those of an append: without room nothing has changed, and any other error ends the log.
    pub fn mend_small_files(&mut self) -> Result<SmallFiles, AppendError> {
        let mut found = SmallFiles::default();
        if let Some(mut known) = self.hard_state.take() {
            let mended = match HardStateFile::read_slots(&*self.disk) {
                Ok(slots) => known.put_right(&*self.disk, slots.map(Result::ok)),
                Err(error) => counts_as_whole(error).map_or_else(
                    |refused| {
                        found.unread = Some(refused);
                        Ok(false)
                    },
                    |is_whole| if is_whole { Ok(false) } else { known.put_right(&*self.disk, [None, None]) },
                ),
            };
            self.hard_state = Some(known);
            if self.judge(mended, "write HARDSTATE")? {
                found.mended.push(HARD_STATE);
            }
        }
        let is_whole = match Manifest::read(&*self.disk) {
            Ok(stored) => stored.as_ref() == Some(&self.manifest),
            Err(error) => counts_as_whole(error).unwrap_or_else(|refused| {
                found.unread = Some(refused);
                true
            }),
        };
        if !is_whole {
            let written = self.manifest.write(&*self.disk);
            self.judge(written, "write MANIFEST")?;
            found.mended.push(MANIFEST);
        }
        Ok(found)
    }
}

impl DataDir {
    /// The same of `IDENTITY`: its name if it was written anew.
    ///
    /// # Errors
    /// The disk refuses: the file is as it was, or as it should be.
    pub fn mend_identity(&mut self) -> Result<Option<&'static str>, IdentityError> {
        let Some(known) = self.identity().cloned() else { return Ok(None) };
        let refused = |source| IdentityError::Io { operation: "read IDENTITY", source };
        let is_whole = match read_identity(self.disk()) {
            Ok(found) => found.as_ref() == Some(&known),
            Err(error) => counts_as_whole(error).map_err(refused)?,
        };
        if is_whole {
            return Ok(None);
        }
        self.write_identity(known)?;
        Ok(Some(IDENTITY))
    }
}

/// Whether a file that cannot be read is to be taken for whole all the same. That the disk refuses it says nothing about it.
fn counts_as_whole(error: OpenError) -> io::Result<bool> {
    match error {
        OpenError::Io { source, .. } => Err(source),
        // A later build wrote it, and this one never writes over that.
        OpenError::Newer { .. } => Ok(true),
        _ => Ok(false),
    }
}
