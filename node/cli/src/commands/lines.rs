//! Lines of a file or of standard input, read as bytes.

use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::thread;
use tokio::sync::mpsc;

/// Longest line that is read, in bytes: longer than any message that a cluster can be set to take.
const LINE_BYTES_MAX: usize = 17 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 16;
/// Lines that are handed over at once, in bytes and in number: what waits to be published is bounded by these.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_LINES: usize = 1_000;
/// Chunks that wait to be taken.
const CHUNKS_AHEAD: usize = 2;

/// Where lines come from.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    /// What ends a line.
    end: u8,
    /// Bytes read so far, line ends included.
    bytes: u64,
    /// Bytes in all, if that is known before.
    pub(super) bytes_total: Option<u64>,
    /// Somebody types them.
    pub(super) is_terminal: bool,
}

impl Lines {
    /// Lines of standard input. What ends them need not be `\n`.
    pub(super) fn of_stdin(end: u8) -> Self {
        let is_terminal = io::stdin().is_terminal();
        Self { is_terminal, ..Self::of(Box::new(io::stdin()), end, None) }
    }

    /// Lines of a file; `-` is standard input.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(super) fn of_file(path: &Path, end: u8) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::of_stdin(end));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let bytes_total = metadata.is_file().then_some(metadata.len());
        Ok(Self::of(Box::new(file), end, bytes_total))
    }

    fn of(from: Box<dyn Read + Send>, end: u8, bytes_total: Option<u64>) -> Self {
        let reader = BufReader::with_capacity(READ_BYTES, from);
        Self { reader, end, bytes: 0, bytes_total, is_terminal: false }
    }

    /// The next line without its end (a `\r` before a `\n` belongs to the line). `None` after the last one. A last line
    /// without an end counts as a line.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is longer than any message.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut limited = Read::take(&mut self.reader, LINE_BYTES_MAX as u64);
        if limited.read_until(self.end, &mut line)? == 0 {
            return Ok(None);
        }
        self.bytes += line.len() as u64;
        if line.last() == Some(&self.end) {
            line.pop();
        } else if line.len() == LINE_BYTES_MAX {
            return Err(io::Error::other(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(Some(line))
    }

    /// Reads on a thread of its own, so that nobody waits for a line who has something else to do.
    pub(super) fn chunks(self) -> mpsc::Receiver<io::Result<Chunk>> {
        let (chunks, taken) = mpsc::channel(CHUNKS_AHEAD);
        thread::spawn(move || self.hand_over(&chunks));
        taken
    }

    /// Reads until the end, or until nobody takes lines any more.
    fn hand_over(mut self, chunks: &mpsc::Sender<io::Result<Chunk>>) {
        loop {
            let chunk = self.chunk();
            let is_last = match &chunk {
                Ok(chunk) => chunk.lines.is_empty(),
                Err(_) => true,
            };
            if chunks.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    }

    /// Waits for a line, and takes those that are there already with it. None of them: there are no more.
    fn chunk(&mut self) -> io::Result<Chunk> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while let Some(line) = self.next()? {
            bytes += line.len();
            lines.push(Bytes::from(line));
            let is_full = lines.len() >= CHUNK_LINES || bytes >= CHUNK_BYTES;
            if is_full || !self.reader.buffer().contains(&self.end) {
                break;
            }
        }
        Ok(Chunk { lines, bytes_read: self.bytes })
    }
}

/// Lines that were there together.
pub(super) struct Chunk {
    /// In order; none behind the last line.
    pub(super) lines: Vec<Bytes>,
    /// Bytes read so far, line ends included.
    pub(super) bytes_read: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what each read brings, then ends.
    struct Reads(Vec<&'static [u8]>);

    impl Read for Reads {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let read = self.0.remove(0);
            into[..read.len()].copy_from_slice(read);
            Ok(read.len())
        }
    }

    fn chunks(reads: &[&'static [u8]], end: u8) -> Vec<Vec<Bytes>> {
        let mut lines = Lines::of(Box::new(Reads(reads.to_vec())), end, None);
        let all = std::iter::from_fn(|| lines.chunk().ok().map(|chunk| chunk.lines));
        all.take_while(|lines| !lines.is_empty()).collect()
    }

    #[test]
    fn lines_that_are_there_together_are_taken_together_and_nobody_waits_for_more() {
        assert_eq!(chunks(&[b"a\nb\nc", b"d\n", b"e"], b'\n'), [vec!["a", "b"], vec!["cd"], vec!["e"]]);
        assert_eq!(chunks(&[b"\n\n"], b'\n'), [["", ""]]);
        assert_eq!(chunks(&[], b'\n'), Vec::<Vec<Bytes>>::new());
    }

    #[test]
    fn any_byte_can_end_a_line() {
        assert_eq!(chunks(&[b"a\nb\0c\r\n\0"], 0), [["a\nb", "c\r\n"]]);
        assert_eq!(chunks(&[b"1,2,3"], b','), [vec!["1", "2"], vec!["3"]]);
    }
}
