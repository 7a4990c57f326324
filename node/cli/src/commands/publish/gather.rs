//! Lines become batches: full ones, or what came within a moment.

use crate::commands::lines::Chunk;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long the first line of a batch waits for others: who watches does not notice it.
const LINGER: Duration = Duration::from_millis(100);

/// See the module's header. What is read and not handed out is bounded by a batch and a chunk.
pub(super) struct Gather {
    chunks: mpsc::Receiver<io::Result<Chunk>>,
    lines_max: usize,
    bytes_max: usize,
    /// Read, and not in a batch that was handed out.
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// When the batch leaves, though it is not full.
    due: Option<Instant>,
    is_at_end: bool,
    /// Why it ended early.
    failed: Option<io::Error>,
    /// Bytes of the input that were read so far.
    pub(super) bytes_read: u64,
}

impl Gather {
    /// Batches of so many lines at most, that are full with so many bytes.
    pub(super) fn new(chunks: mpsc::Receiver<io::Result<Chunk>>, lines_max: usize, bytes_max: usize) -> Self {
        let (lines, bytes, bytes_read) = (VecDeque::new(), 0, 0);
        let (due, is_at_end, failed) = (None, false, None);
        Self { chunks, lines_max, bytes_max, lines, bytes, due, is_at_end, failed, bytes_read }
    }

    /// The next batch; empty behind the last one. Cancelling is safe: what was read stays.
    ///
    /// # Errors
    ///
    /// The input cannot be read. What was read before comes first.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Bytes>> {
        while !self.is_at_end && self.lines.len() < self.lines_max && self.bytes < self.bytes_max {
            let far = Instant::now() + Duration::from_secs(86_400);
            match timeout_at(self.due.unwrap_or(far), self.chunks.recv()).await {
                Ok(Some(Ok(chunk))) if !chunk.lines.is_empty() => self.take(chunk),
                Ok(Some(Err(error))) => {
                    self.failed = Some(error);
                    self.is_at_end = true;
                }
                Ok(None | Some(Ok(_))) => self.is_at_end = true,
                Err(_) if self.due.is_some() => break,
                Err(_) => {}
            }
        }
        match self.failed.take_if(|_| self.lines.is_empty()) {
            Some(error) => Err(error),
            None => Ok(self.at_hand()),
        }
    }

    fn take(&mut self, chunk: Chunk) {
        self.bytes_read = chunk.bytes_read;
        self.bytes += chunk.lines.iter().map(Bytes::len).sum::<usize>();
        self.lines.extend(chunk.lines);
        self.due.get_or_insert_with(|| Instant::now() + LINGER);
    }

    /// A batch of what was read and not handed out, without waiting for more.
    pub(super) fn at_hand(&mut self) -> Vec<Bytes> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.lines_max && bytes < self.bytes_max {
            let Some(line) = self.lines.pop_front() else { break };
            bytes += line.len();
            batch.push(line);
        }
        self.bytes -= bytes;
        // What is left was there as early as what leaves now: it need not wait again.
        self.due = if self.lines.is_empty() { None } else { self.due };
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Chunks = mpsc::Sender<io::Result<Chunk>>;

    fn gather(lines_max: usize, bytes_max: usize) -> (Chunks, Gather) {
        let (chunks, taken) = mpsc::channel(16);
        (chunks, Gather::new(taken, lines_max, bytes_max))
    }

    fn put(chunks: &Chunks, lines: &[&'static str]) {
        let lines = lines.iter().map(|line| Bytes::from_static(line.as_bytes())).collect();
        chunks.try_send(Ok(Chunk { lines, bytes_read: 0 })).expect("there is room");
    }

    /// The clock stands unless everybody waits: then it jumps to whoever waits for the shortest time.
    #[tokio::test(start_paused = true)]
    async fn a_line_waits_a_moment_for_others_and_not_for_the_end() {
        let (chunks, mut gather) = gather(10, 100);
        put(&chunks, &["a", "b"]);
        let begun = Instant::now();
        assert_eq!(gather.next().await.expect("lines"), ["a", "b"], "though more may come");
        assert_eq!(begun.elapsed(), LINGER);
        let writer = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            put(&chunks, &["c"]);
            tokio::time::sleep(LINGER / 2).await;
            put(&chunks, &["d"]);
        };
        let (batch, ()) = tokio::join!(gather.next(), writer);
        assert_eq!(batch.expect("lines"), ["c", "d"]);
        assert_eq!(begun.elapsed(), Duration::from_secs(7) + 2 * LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_waits_for_nobody_and_the_end_is_an_empty_one() {
        let (chunks, mut gather) = gather(2, 4);
        let begun = Instant::now();
        put(&chunks, &["a", "b", "c"]);
        put(&chunks, &["12345", "d"]);
        drop(chunks);
        let mut batches = Vec::new();
        loop {
            let batch = gather.next().await.expect("lines");
            if batch.is_empty() {
                break;
            }
            batches.push(batch);
        }
        assert_eq!(batches, [vec!["a", "b"], vec!["c", "12345"], vec!["d"]]);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_before_a_failure_comes_before_it() {
        let (chunks, mut gather) = gather(10, 100);
        put(&chunks, &["a"]);
        chunks.try_send(Err(io::Error::other("the disk is gone"))).expect("there is room");
        assert_eq!(gather.next().await.expect("lines"), ["a"]);
        assert_eq!(gather.next().await.expect_err("no more").to_string(), "the disk is gone");
        assert!(gather.next().await.expect("the end").is_empty());
    }
}
