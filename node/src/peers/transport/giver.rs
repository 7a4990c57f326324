//! Answers nodes that lack something: a snapshot, chunk by chunk, and messages.
//!
//! Both come over a connection of their own, so they never stand in a heartbeat's way; and each asker gets at most
//! [`BYTES_PER_SECOND`], so that the disk and the clients have the rest. What is held for askers is bounded by their number
//! ([`GIVEN_AT_ONCE`]) and counts in no budget: it is a few MiB, and a budget that clients have used up must not keep a
//! node from getting what it lacks.

use crate::replica::Gift;
use crate::wire::giving;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_queue::TopicId;
use raftqueue_raft::{Index, Term};
use raftqueue_wal::disk::Disk;
use raftqueue_wal::{SnapshotError, SnapshotFile, SnapshotHead, SnapshotReader};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes a second that one asker gets.
const BYTES_PER_SECOND: u64 = 64 << 20;
/// Snapshots under way at once, and answers with messages.
const GIVEN_AT_ONCE: usize = 4;
/// How long an asker may take no byte of a snapshot before it is given up.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Times that a snapshot may be replaced while it is opened.
const OPENINGS_MAX: usize = 3;

/// What this node has to give.
pub(crate) trait Giving: Send + Sync {
    /// The newest snapshot that counts, the disk that it is on, and the term of this node as it is on its disk. One that is of
    /// an index before `least` is of no use: then a newer one is made.
    ///
    /// # Errors
    /// There is none to give now; the text says why.
    fn newest_snapshot(&self, least: Index) -> Result<(Arc<dyn Disk>, SnapshotFile, Term), String>;

    /// Messages of a topic: ranges of offsets, rising, of at most [`giving::GIVEN_MAX`] offsets together. At least the first
    /// one is answered.
    ///
    /// # Errors
    /// There is nothing to give now; the text says why.
    fn messages(&self, topic: TopicId, wanted: Vec<Range<u64>>) -> BoxFuture<'_, Result<Gift, String>>;
}

/// Where what is to be given comes from, once the node has opened its disk.
pub(crate) type Source = Arc<OnceLock<Arc<dyn Giving>>>;

/// The chunks of a snapshot on its way.
pub(super) type Chunks = ReceiverStream<Result<pb::SnapshotChunk, Status>>;

/// Answers askers.
pub(super) struct Giver {
    source: Source,
    snapshots: Arc<Semaphore>,
    answers: Semaphore,
    paces: Arc<Paces>,
}

impl Giver {
    pub(super) fn new(source: Source) -> Self {
        let (snapshots, answers) = (Arc::new(Semaphore::new(GIVEN_AT_ONCE)), Semaphore::new(GIVEN_AT_ONCE));
        Self { source, snapshots, answers, paces: Arc::default() }
    }

    fn source(&self) -> Result<Arc<dyn Giving>, Status> {
        let source = self.source.get().cloned();
        source.ok_or_else(|| Status::unavailable("it has not opened its data directory yet"))
    }

    /// The newest snapshot, for the node `from`, which needs one of index `least` or a later one.
    pub(super) async fn snapshot(&self, from: u64, least: Index) -> Result<Chunks, Status> {
        let source = self.source()?;
        let busy = |_| Status::resource_exhausted("it gives snapshots to several others already");
        let permit = Arc::clone(&self.snapshots).try_acquire_owned().map_err(busy)?;
        let opened = tokio::task::spawn_blocking(move || open(&*source, least)).await.map_err(cut_off)??;
        let (chunks, outgoing) = mpsc::channel(1);
        let paces = Arc::clone(&self.paces);
        // Ends with the snapshot, or when nobody takes it.
        tokio::spawn(async move {
            if let Err(status) = give(opened, from, &paces, &chunks, permit).await {
                let _ = chunks.send(Err(status)).await;
            }
        });
        Ok(ReceiverStream::new(outgoing))
    }

    /// Messages, for the node `from`.
    pub(super) async fn messages(
        &self,
        from: u64,
        topic: TopicId,
        wanted: &[pb::OffsetRange],
    ) -> Result<pb::MessagesReply, Status> {
        let source = self.source()?;
        let wanted = giving::read_wanted(wanted).map_err(Status::invalid_argument)?;
        let _permit = self.answers.acquire().await.map_err(|_| Status::unavailable("the node stops"))?;
        let gift = source.messages(topic, wanted).await.map_err(Status::failed_precondition)?;
        let bytes = gift.messages.iter().map(|given| given.record.len()).sum();
        tokio::time::sleep(self.paces.book(from, bytes, Instant::now())).await;
        Ok(giving::write_gift(gift))
    }
}

fn cut_off(_: tokio::task::JoinError) -> Status {
    Status::internal("the read was cut off")
}

fn damaged(error: &SnapshotError) -> Status {
    Status::data_loss(format!("its snapshot cannot be read: {error}"))
}

/// A snapshot that is open: it stays readable when another one takes its place.
struct Opened {
    head: SnapshotHead,
    giver_term: Term,
    size: u64,
    reader: SnapshotReader,
}

fn open(source: &dyn Giving, least: Index) -> Result<Opened, Status> {
    let mut left = OPENINGS_MAX;
    loop {
        let (disk, file, giver_term) = source.newest_snapshot(least).map_err(Status::failed_precondition)?;
        left -= 1;
        match SnapshotReader::open(&*disk, &file) {
            Ok((head, reader)) => return Ok(Opened { head, giver_term, size: file.size, reader }),
            // It went between the two steps.
            Err(SnapshotError::Missing { .. }) if left > 0 => {}
            Err(error) => return Err(damaged(&error)),
        }
    }
}

async fn give(
    opened: Opened,
    from: u64,
    paces: &Paces,
    chunks: &mpsc::Sender<Result<pb::SnapshotChunk, Status>>,
    _permit: OwnedSemaphorePermit,
) -> Result<(), Status> {
    let Opened { head, giver_term, size, mut reader } = opened;
    send(chunks, giving::write_head(&head, giver_term, size)).await?;
    let (mut sections, mut bytes) = (0, 0);
    loop {
        let read: Result<Option<Bytes>, _>;
        (reader, read) = tokio::task::spawn_blocking(move || {
            let read = reader.next();
            (reader, read)
        })
        .await
        .map_err(cut_off)?;
        let Some(section) = read.map_err(|error| damaged(&error))? else { break };
        sections += 1;
        bytes += section.len() as u64;
        tokio::time::sleep(paces.book(from, section.len(), Instant::now())).await;
        send(chunks, giving::write_section(section)).await?;
    }
    send(chunks, giving::write_end(sections, bytes)).await
}

async fn send(
    chunks: &mpsc::Sender<Result<pb::SnapshotChunk, Status>>,
    chunk: pb::SnapshotChunk,
) -> Result<(), Status> {
    let sent = tokio::time::timeout(TAKEN_WITHIN, chunks.send(Ok(chunk))).await;
    sent.map_err(|_| Status::deadline_exceeded("nothing of the snapshot was taken for a minute"))?
        .map_err(|_| Status::cancelled("the asker has gone"))
}

/// When each asker may get more.
#[derive(Debug, Default)]
struct Paces(Mutex<BTreeMap<u64, Instant>>);

impl Paces {
    /// Books so many bytes for an asker: how long they have to wait.
    fn book(&self, from: u64, bytes: usize, now: Instant) -> Duration {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.retain(|_, free| *free > now);
        let free = paces.entry(from).or_insert(now);
        let wait = free.saturating_duration_since(now);
        *free += Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / BYTES_PER_SECOND);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asker_gets_no_more_than_its_share_and_others_do_not_wait_for_it() {
        let (paces, start) = (Paces::default(), Instant::now());
        let second = usize::try_from(BYTES_PER_SECOND).expect("64 MiB");
        assert_eq!(paces.book(1, second, start), Duration::ZERO);
        assert_eq!(paces.book(1, second, start), Duration::from_secs(1));
        assert_eq!(paces.book(2, second, start), Duration::ZERO);
        assert_eq!(paces.book(1, 1, start + Duration::from_millis(1_500)), Duration::from_millis(500));
        // What was not used is not made up for, and who has gone is forgotten.
        let later = start + Duration::from_secs(60);
        assert_eq!(paces.book(3, second, later), Duration::ZERO);
        assert_eq!(paces.book(3, 1, later), Duration::from_secs(1));
        assert_eq!(paces.0.lock().expect("not poisoned").len(), 1);
    }
}
