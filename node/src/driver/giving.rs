//! What this node has to give to others that lack it.
//!
//! The driver says which messages live and where they stand; they are read on threads that may block. A snapshot is read
//! from its file, without the driver. A node that lacks messages itself gives no snapshot while there is somebody else who
//! does: whoever took it would ask for more than there is to give. Of messages it gives those that it has; what has not come
//! yet counts as unreadable here.

use super::bodies::Bodies;
use super::inbox::{Order, Wanted};
use crate::peers::transport::Giving;
use crate::replica::Gift;
use crate::wire::giving::GIVEN_BYTES_MAX;
use futures_util::future::BoxFuture;
use raftqueue_queue::TopicId;
use raftqueue_raft::{Index, Term};
use raftqueue_wal::SnapshotFile;
use raftqueue_wal::disk::Disk;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};

/// Why an incomplete node gives no snapshot.
const INCOMPLETE: &str = "it lacks messages itself, and gets them from others";

/// What counts on the disk: the log's thread says so after each change.
#[derive(Debug)]
pub(crate) struct Counted {
    /// The newest last; those that can be read, as far as that is known.
    snapshots: RwLock<Vec<SnapshotFile>>,
    /// The numbers of others that turned out to be damaged, until the log's thread has heard of them.
    damaged: Mutex<Vec<u64>>,
    term: AtomicU64,
}

impl Counted {
    /// As a node starts: the snapshots that it does not know to be damaged, and the term on its disk.
    pub(crate) fn new(snapshots: Vec<SnapshotFile>, term: Term) -> Self {
        let (snapshots, damaged) = (RwLock::new(snapshots), Mutex::default());
        Self { snapshots, damaged, term: AtomicU64::new(term.0) }
    }

    /// The snapshots that a manifest names, the newest last.
    pub(crate) fn snapshots(&self) -> Vec<SnapshotFile> {
        self.snapshots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These are the snapshots that a manifest names, the newest last.
    pub(crate) fn snapshots_count(&self, files: &[SnapshotFile]) {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        // What turned out to be damaged meanwhile is none that counts.
        let usable = files.iter().filter(|file| !damaged.contains(&file.number)).copied().collect();
        *self.snapshots.write().unwrap_or_else(PoisonError::into_inner) = usable;
    }

    /// A snapshot that counts cannot be read: it is given to nobody, and the next one takes its place.
    pub(crate) fn snapshot_is_damaged(&self, file: SnapshotFile) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(file.number);
        let mut snapshots = self.snapshots.write().unwrap_or_else(PoisonError::into_inner);
        snapshots.retain(|counted| counted.number != file.number);
    }

    /// Those that turned out to be damaged since this was asked last.
    pub(crate) fn take_damaged(&self) -> Vec<u64> {
        std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The term on the disk.
    pub(crate) fn term_counts(&self, term: Term) {
        self.term.store(term.0, Ordering::Release);
    }

    /// The newest snapshot, and the term.
    pub(super) fn newest(&self) -> (Option<SnapshotFile>, Term) {
        // The term is never older than the snapshot.
        let snapshot = self.snapshots.read().unwrap_or_else(PoisonError::into_inner).last().copied();
        (snapshot, Term(self.term.load(Ordering::Acquire)))
    }
}

/// This node, as the one that gives.
pub(crate) struct OwnGifts {
    orders: mpsc::Sender<Order>,
    bodies: Arc<Bodies>,
    disk: Arc<dyn Disk>,
    counted: Arc<Counted>,
    is_incomplete: Arc<AtomicBool>,
}

impl fmt::Debug for OwnGifts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnGifts").field("counted", &self.counted).finish_non_exhaustive()
    }
}

impl OwnGifts {
    /// The driver takes `orders`, and keeps `is_incomplete` true.
    pub(crate) fn new(
        orders: mpsc::Sender<Order>,
        bodies: Arc<Bodies>,
        disk: Arc<dyn Disk>,
        counted: Arc<Counted>,
        is_incomplete: Arc<AtomicBool>,
    ) -> Self {
        Self { orders, bodies, disk, counted, is_incomplete }
    }

    /// What lives here of what is wanted, also of a node that is incomplete itself: it may have what the other lacks.
    async fn give(&self, topic: TopicId, wanted: Vec<Range<u64>>) -> Result<Gift, String> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Give { topic, wanted, reply };
        self.orders.send(order).await.map_err(|_| "it stops")?;
        let Wanted { living, located } = answer.await.map_err(|_| "it stops")?;
        let bodies = Arc::clone(&self.bodies);
        let read = tokio::task::spawn_blocking(move || bodies.give(&located, GIVEN_BYTES_MAX));
        let gift = read.await.map_err(|_| "the read was cut off")?;
        Ok(living.answer(gift))
    }
}

impl Giving for OwnGifts {
    fn newest_snapshot(&self, least: Index) -> Result<(Arc<dyn Disk>, SnapshotFile, Term), String> {
        let (file, term) = self.counted.newest();
        // Only now: a snapshot that was installed counts when the node is incomplete already.
        if self.is_incomplete.load(Ordering::Acquire) {
            return Err(INCOMPLETE.into());
        }
        if let Some(file) = file.filter(|file| file.index >= least) {
            return Ok((Arc::clone(&self.disk), file, term));
        }
        // An idle node may make none for ever. If it is busy it makes one soon by itself.
        let _ = self.orders.try_send(Order::MakeSnapshot);
        Err(match file {
            Some(file) => {
                format!("its snapshot is of index {}, before {least}: it makes a newer one", file.index)
            }
            None => "it has not made a snapshot yet".into(),
        })
    }

    fn messages(&self, topic: TopicId, wanted: Vec<Range<u64>>) -> BoxFuture<'_, Result<Gift, String>> {
        Box::pin(self.give(topic, wanted))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]

    use super::*;
    use crate::api::{MessageId, MessageRef};
    use crate::driver::bodies::Located;
    use crate::replica::Living;
    use raftqueue_wal::disk::RealDisk;
    use tempfile::TempDir;

    #[test]
    fn no_more_is_answered_than_was_looked_at_and_read() {
        let read = |through| Gift { through, unreadable: 2, ..Gift::default() };
        let living = |through, gone_at| Living { messages: Vec::new(), through, gone_at };
        let gone_at = Some(Index(7));
        assert_eq!(living(30, gone_at).answer(read(u64::MAX)), Gift { gone_at, ..read(30) });
        assert_eq!(living(30, None).answer(read(20)), read(20));
    }

    #[test]
    fn the_newest_snapshot_is_given_with_the_term_on_the_disk_unless_messages_are_lacking() {
        let (_folder, disk) = blank();
        let (orders, mut taken) = mpsc::channel(1);
        let file = |number| SnapshotFile { number, size: 1, crc: 2, index: Index(3), term: Term(4) };
        let counted = Arc::new(Counted::new(Vec::new(), Term(4)));
        let is_incomplete = Arc::new(AtomicBool::new(false));
        let newest = |gifts: &OwnGifts| gifts.newest_snapshot(Index(0)).map(|(_, file, term)| (file, term));
        let gifts = OwnGifts {
            orders,
            bodies: no_bodies(&disk),
            disk,
            counted: Arc::clone(&counted),
            is_incomplete: Arc::clone(&is_incomplete),
        };
        assert!(newest(&gifts).expect_err("there is none").contains("not made a snapshot"));
        counted.snapshots_count(&[file(1)]);
        counted.snapshots_count(&[file(1), file(2)]);
        counted.term_counts(Term(5));
        assert_eq!(newest(&gifts), Ok((file(2), Term(5))));
        assert!(matches!(taken.try_recv(), Ok(Order::MakeSnapshot)), "there was none");
        assert!(gifts.newest_snapshot(Index(4)).expect_err("it is older").contains("of index 3, before 4"));
        assert!(matches!(taken.try_recv(), Ok(Order::MakeSnapshot)));
        counted.snapshot_is_damaged(file(2));
        assert_eq!(newest(&gifts), Ok((file(1), Term(5))));
        counted.snapshots_count(&[file(1), file(2)]);
        assert_eq!(newest(&gifts), Ok((file(1), Term(5))), "it is no better for being named once more");
        assert_eq!((counted.take_damaged(), counted.take_damaged()), (vec![2], vec![]));
        is_incomplete.store(true, Ordering::Release);
        assert_eq!(newest(&gifts), Err(INCOMPLETE.into()));
    }

    #[tokio::test]
    async fn messages_are_given_by_a_node_that_lacks_some_and_count_as_unreadable_where_it_does() {
        let (_folder, disk) = blank();
        let (orders, mut taken) = mpsc::channel(1);
        let gifts = OwnGifts {
            orders,
            bodies: no_bodies(&disk),
            disk,
            counted: Arc::new(Counted::new(Vec::new(), Term(4))),
            is_incomplete: Arc::new(AtomicBool::new(true)),
        };
        let asked = gifts.messages(TopicId(1), vec![3..5]);
        let looked = async {
            let Some(Order::Give { wanted, reply, .. }) = taken.recv().await else { unreachable!() };
            assert_eq!(wanted, [3..5]);
            let id = MessageId { generation: 0, topic: 1, offset: 4 };
            let message = MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
            let living = Living { messages: vec![message.clone()], through: 5, gone_at: Some(Index(9)) };
            assert!(reply.send(Wanted { living, located: Located::nowhere(vec![message]) }).is_ok());
        };
        let gift = Gift { through: 5, gone_at: Some(Index(9)), unreadable: 1, ..Gift::default() };
        assert_eq!(tokio::join!(asked, looked).0, Ok(gift));
    }

    fn blank() -> (TempDir, Arc<dyn Disk>) {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = RealDisk::open(folder.path()).expect("a disk");
        (folder, Arc::new(disk))
    }

    fn no_bodies(disk: &Arc<dyn Disk>) -> Arc<Bodies> {
        let mut dir = raftqueue_wal::DataDir::open(Arc::clone(disk), None).expect("a blank disk");
        dir.format(raftqueue_raft::NodeId(7), "a").expect("a blank disk");
        let options = raftqueue_wal::Options { segment_bytes: 1 << 20, ..raftqueue_wal::Options::default() };
        let (wal, _) = dir.open_log(options).expect("a blank log");
        Arc::new(Bodies::new(wal.reader(), 1_024, Vec::new()))
    }
}
