//! Snapshot files: written once, section by section, and read back the same way.
//!
//! A snapshot counts once the manifest names it; until then its file is a leftover that the next
//! opening removes. Both directions hold at most a few MiB, whatever the file's size.
//!
//! What is deliberately not here: what the sections mean (the node's codec), and when a snapshot is taken.

use crate::disk::{Disk, DiskFile};
use crate::format::snapshot::{
    FRONT_BYTES, SECTION_HEAD_BYTES, SectionKind, decode_front, decode_head, decode_section_head,
    decode_tail, encode_front, encode_head, encode_section_head, encode_tail, section_crc,
};
use crate::format::{FORMAT_VERSION, Malformed};
use crate::manifest::SnapshotFile;
use crate::names::{SNAPSHOT, numbered};
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::sync::Arc;
use thiserror::Error;

pub use crate::format::snapshot::{SECTION_BYTES_MAX, SnapshotHead};

/// Bytes of one write, unless a section is longer.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes after which what was written is synced, so that the log's own syncs never wait for all of a snapshot.
const SYNC_BYTES: u64 = 8 << 20;
/// Bytes of one read, unless a section is longer.
const READ_BYTES: u64 = 256 << 10;

/// Writes one snapshot. It has its final name from the start and is durable after [`SnapshotWriter::finish`].
pub struct SnapshotWriter {
    file: Arc<dyn DiskFile>,
    number: u64,
    head: SnapshotHead,
    head_crc: u32,
    buffer: Vec<u8>,
    /// Bytes written before the buffer.
    written: u64,
    synced: u64,
    sections: u64,
    content_bytes: u64,
}

impl SnapshotWriter {
    /// Makes the file of snapshot `number`, a number that was never used.
    ///
    /// # Errors
    /// What the disk said. If it is full the snapshot can be tried again later, under another number.
    ///
    /// # Panics
    /// If the head is longer than a section can be: a configuration has few members.
    pub fn create(disk: &dyn Disk, number: u64, head: &SnapshotHead) -> io::Result<SnapshotWriter> {
        let encoded = encode_head(head);
        assert!(encoded.len() <= SECTION_BYTES_MAX, "a snapshot's head of {} bytes", encoded.len());
        let file = disk.create(&numbered(SNAPSHOT, number))?;
        let mut writer = SnapshotWriter {
            file,
            number,
            head: head.clone(),
            head_crc: section_crc(number, 0, SectionKind::Head, &encoded),
            buffer: encode_front(number),
            written: 0,
            synced: 0,
            sections: 0,
            content_bytes: 0,
        };
        writer.put(0, SectionKind::Head, &encoded);
        Ok(writer)
    }

    /// Adds a section of content. Written once about a MiB has come together.
    ///
    /// # Errors
    /// What the disk said; the snapshot cannot be finished then, see [`SnapshotWriter::abandon`].
    ///
    /// # Panics
    /// If the section is longer than [`SECTION_BYTES_MAX`].
    pub fn section(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() <= SECTION_BYTES_MAX, "a section of {} bytes", bytes.len());
        self.sections += 1;
        self.content_bytes += bytes.len() as u64;
        self.put(self.sections, SectionKind::Content, bytes);
        if self.buffer.len() < WRITE_BYTES {
            return Ok(());
        }
        self.flush()?;
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Ends the file and makes it and its name durable. What it gives goes into [`crate::Change::snapshot`].
    ///
    /// # Errors
    /// What the disk said; the file was removed then, as far as that was possible.
    pub fn finish(mut self, disk: &dyn Disk) -> io::Result<SnapshotFile> {
        self.put(self.sections + 1, SectionKind::Tail, &encode_tail(self.sections, self.content_bytes));
        let done = self.flush().and_then(|()| self.file.sync_data()).and_then(|()| disk.sync_dir());
        if let Err(error) = done {
            self.abandon(disk);
            return Err(error);
        }
        let SnapshotHead { index, term, .. } = self.head;
        Ok(SnapshotFile { number: self.number, size: self.written, crc: self.head_crc, index, term })
    }

    /// Gives up: removes the file. Should that fail, the next opening does it.
    pub fn abandon(self, disk: &dyn Disk) {
        let _ = disk.remove(&numbered(SNAPSHOT, self.number));
    }

    fn put(&mut self, ordinal: u64, kind: SectionKind, bytes: &[u8]) {
        self.buffer.extend_from_slice(&encode_section_head(self.number, ordinal, kind, bytes));
        self.buffer.extend_from_slice(bytes);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &mut [IoSlice::new(&self.buffer)])?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Why a snapshot cannot be read. The other one, or a peer, still may have what it had.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The manifest names it, and it is not there.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: String,
    },
    /// Shorter than it was when it was finished.
    #[error("{file} is truncated: {size} of {expected} bytes")]
    Truncated {
        /// The file.
        file: String,
        /// Bytes that there are.
        size: u64,
        /// Bytes that the manifest names.
        expected: u64,
    },
    /// What is there does not verify.
    #[error("{file} is damaged at {offset}: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// Where the damaged part begins.
        offset: u64,
        /// How.
        reason: Malformed,
    },
    /// A newer build wrote it: start that build.
    #[error("{file} has format version {found}, this build reads up to {supported}")]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// The disk refused to read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

/// Removes a snapshot that no manifest names. If that fails, the next opening does it.
pub fn remove_snapshot(disk: &dyn Disk, file: &SnapshotFile) {
    let _ = disk.remove(&numbered(SNAPSHOT, file.number));
}

/// Reads one snapshot. A section is given only after its checksum held, and the end only after the counts did.
pub struct SnapshotReader {
    file: Arc<dyn DiskFile>,
    name: String,
    number: u64,
    size: u64,
    /// Where the next section begins.
    position: u64,
    buffer: Bytes,
    buffer_start: u64,
    sections: u64,
    content_bytes: u64,
    is_done: bool,
}

impl SnapshotReader {
    /// Opens a snapshot that the manifest names and reads its head.
    ///
    /// # Errors
    /// [`SnapshotError`]; all but [`SnapshotError::Io`] say that this file is of no use any more.
    pub fn open(
        disk: &dyn Disk,
        file: &SnapshotFile,
    ) -> Result<(SnapshotHead, SnapshotReader), SnapshotError> {
        let name = numbered(SNAPSHOT, file.number);
        let io_error = |source: io::Error| SnapshotError::Io { file: name.clone(), source };
        let opened = match disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::Missing { file: name });
            }
            other => other.map_err(io_error)?,
        };
        let size = opened.size().map_err(io_error)?;
        if size < file.size {
            return Err(SnapshotError::Truncated { file: name, size, expected: file.size });
        }
        let mut reader = SnapshotReader {
            file: opened,
            name,
            number: file.number,
            size,
            position: FRONT_BYTES as u64,
            buffer: Bytes::new(),
            buffer_start: 0,
            sections: 0,
            content_bytes: 0,
            is_done: false,
        };
        let front = reader.get(0, FRONT_BYTES)?;
        decode_front(&front, file.number).map_err(|reason| reader.malformed(0, reason))?;
        if size > file.size {
            return Err(reader.malformed(file.size, Malformed::Field("length")));
        }
        let at = reader.position;
        let (kind, crc, bytes) = reader.take(0)?;
        if kind != SectionKind::Head || crc != file.crc {
            return Err(reader.malformed(at, Malformed::Field("head")));
        }
        let head = decode_head(&bytes).map_err(|reason| reader.malformed(at, reason))?;
        if (head.index, head.term) != (file.index, file.term) {
            return Err(reader.malformed(at, Malformed::Field("index")));
        }
        Ok((head, reader))
    }

    /// The next section; `None` behind the last one, when everything was there.
    ///
    /// # Errors
    /// As [`SnapshotReader::open`]. Sections that were given before are whole, but the snapshot as such is not.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot end with an error and stay ended")]
    pub fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.is_done {
            return Ok(None);
        }
        let at = self.position;
        let (kind, _, bytes) = self.take(self.sections + 1)?;
        match kind {
            SectionKind::Content => {
                self.sections += 1;
                self.content_bytes += bytes.len() as u64;
                Ok(Some(bytes))
            }
            SectionKind::Tail => {
                let counts = decode_tail(&bytes).map_err(|reason| self.malformed(at, reason))?;
                if counts != (self.sections, self.content_bytes) || self.position != self.size {
                    return Err(self.malformed(at, Malformed::Field("counts")));
                }
                self.is_done = true;
                Ok(None)
            }
            SectionKind::Head => Err(self.malformed(at, Malformed::Field("section kind"))),
        }
    }

    /// Takes the section at the position, the `ordinal`-th of the file, and verifies it.
    fn take(&mut self, ordinal: u64) -> Result<(SectionKind, u32, Bytes), SnapshotError> {
        let at = self.position;
        let head = self.get(at, SECTION_HEAD_BYTES)?;
        let (length, crc, kind) = decode_section_head(&head).map_err(|reason| self.malformed(at, reason))?;
        // A damaged length may ask for more than there is.
        let end = at + (SECTION_HEAD_BYTES + length) as u64;
        if end > self.size {
            return Err(self.malformed(at, Malformed::Short));
        }
        let bytes = self.get(at + SECTION_HEAD_BYTES as u64, length)?;
        if section_crc(self.number, ordinal, kind, &bytes) != crc {
            return Err(self.malformed(at, Malformed::Checksum));
        }
        self.position = end;
        Ok((kind, crc, bytes))
    }

    /// The bytes at `offset`.
    fn get(&mut self, offset: u64, count: usize) -> Result<Bytes, SnapshotError> {
        let end = offset + count as u64;
        if end > self.size {
            return Err(self.malformed(offset, Malformed::Short));
        }
        if offset < self.buffer_start || end > self.buffer_start + self.buffer.len() as u64 {
            let wanted = (count as u64).max(READ_BYTES).min(self.size - offset);
            let mut buffer = vec![0; usize::try_from(wanted).expect("about a MiB")];
            let read = self
                .file
                .read_at(offset, &mut buffer)
                .map_err(|source| SnapshotError::Io { file: self.name.clone(), source })?;
            if read < count {
                return Err(self.malformed(offset, Malformed::Short));
            }
            buffer.truncate(read);
            (self.buffer, self.buffer_start) = (Bytes::from(buffer), offset);
        }
        let from = usize::try_from(offset - self.buffer_start).expect("inside the buffer");
        Ok(self.buffer.slice(from..from + count))
    }

    fn malformed(&self, offset: u64, reason: Malformed) -> SnapshotError {
        let file = self.name.clone();
        match reason {
            Malformed::Newer { found } => SnapshotError::Newer { file, found, supported: FORMAT_VERSION },
            reason => SnapshotError::Damaged { file, offset, reason },
        }
    }
}
