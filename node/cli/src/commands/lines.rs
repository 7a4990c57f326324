//! Lines of a file or of standard input, read as bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// Longest line that is read, in bytes: longer than any message that a cluster can be set to take.
const LINE_BYTES_MAX: usize = 17 << 20;

/// Where lines come from.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    /// Bytes read so far, line ends included.
    pub(super) bytes: u64,
    /// Bytes in all, if that is known before.
    pub(super) bytes_total: Option<u64>,
}

impl Lines {
    /// Lines of standard input.
    pub(super) fn of_stdin() -> Self {
        Self { reader: Box::new(BufReader::new(io::stdin())), bytes: 0, bytes_total: None }
    }

    /// Lines of a file.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let bytes_total = metadata.is_file().then_some(metadata.len());
        Ok(Self { reader: Box::new(BufReader::with_capacity(1 << 16, file)), bytes: 0, bytes_total })
    }

    /// The next line without its end (`\n`; a `\r` before it belongs to the line). `None` after the last one. A last
    /// line without an end counts as a line.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is longer than any message.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut self.reader, LINE_BYTES_MAX as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.bytes += line.len() as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() == LINE_BYTES_MAX {
            return Err(io::Error::other(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(Some(line))
    }
}
