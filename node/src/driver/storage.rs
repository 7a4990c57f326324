//! The log's own thread: writes go in, receipts come out.
//!
//! One write is out at a time, so nothing ever waits in line for the thread; while it syncs, the core gathers the next
//! write. Nothing else in the process waits for the disk here.

use crate::driver::inbox::Notice;
use crate::metrics::Metrics;
use crate::replica::Event;
use raftqueue_raft::Write;
use raftqueue_wal::{AppendError, Batch, Wal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Idle for this long, the thread proves the last batch with an empty one.
const IDLE: Duration = Duration::from_millis(100);
/// Pause before a write is tried again on a full disk.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// How often the free bytes are looked at while nothing is written: others may use the disk, too.
const FREE_BYTES_EVERY: Duration = Duration::from_secs(1);

/// The driver's end of the thread.
#[derive(Debug)]
pub struct Storage {
    writes: Option<SyncSender<Write>>,
    since: Arc<Busy>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Since when a write is out, in milliseconds since the start plus one; 0 while none is.
#[derive(Debug)]
struct Busy {
    start: Instant,
    since_ms: AtomicU64,
}

impl Busy {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Storage {
    /// Starts the thread. Receipts and failures go to `notices`.
    pub fn start(wal: Wal, notices: mpsc::UnboundedSender<Notice>, metrics: Arc<Metrics>) -> Self {
        let (writes, jobs) = sync_channel(1);
        let since = Arc::new(Busy { start: Instant::now(), since_ms: AtomicU64::new(0) });
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker { wal, notices, metrics, since: Arc::clone(&since), stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new()
            .name("wal".into())
            .spawn(move || worker.run(&jobs))
            .expect("a process that has just started can start a thread");
        Self { writes: Some(writes), since, stop, thread: Mutex::new(Some(thread)) }
    }

    /// Hands a write to the thread. The core gives one at a time, so there is always room.
    pub fn write(&self, write: Write) {
        self.since.since_ms.store(self.since.now_ms() + 1, Ordering::Relaxed);
        if let Some(writes) = &self.writes {
            // Fails only when the thread has ended, which it has reported.
            let _ = writes.try_send(write);
        }
    }

    /// How long a write has been out, in milliseconds; 0 if none is.
    #[must_use]
    pub fn busy_ms(&self) -> u64 {
        match self.since.since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since_ms => (self.since.now_ms() + 1).saturating_sub(since_ms),
        }
    }

    /// Lets the thread finish its write and end. Blocks until it has.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writes = None;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the thread ends the process by itself.
            let _ = thread.join();
        }
    }
}

struct Worker {
    wal: Wal,
    notices: mpsc::UnboundedSender<Notice>,
    metrics: Arc<Metrics>,
    since: Arc<Busy>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Write>) {
        let mut looked = None;
        loop {
            let due = looked.is_none_or(|at: Instant| at.elapsed() >= FREE_BYTES_EVERY);
            if due {
                looked = Some(Instant::now());
                self.report_free_bytes();
            }
            let done = match jobs.recv_timeout(IDLE) {
                Ok(write) => self.append(write),
                Err(RecvTimeoutError::Timeout) => self.wal.prove().map(|_| ()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match done.and_then(|()| self.wal.upkeep()) {
                // A full disk is no reason to end. What was left out is done after the next write.
                Ok(()) | Err(AppendError::NoSpace { .. }) => {}
                Err(error) => {
                    let _ = self.notices.send(Notice::DiskFailed(error.to_string()));
                    return;
                }
            }
        }
        // Proves the last batch, so that the next start need not doubt it.
        let _ = self.wal.prove().and_then(|_| self.wal.upkeep());
    }

    /// Appends one write, and tries again while the disk is full: the core can do nothing else with it.
    fn append(&mut self, mut write: Write) -> Result<(), AppendError> {
        let mut told = false;
        assert!(write.reset().is_none(), "no snapshot of another node is ever taken yet");
        loop {
            let begun = Instant::now();
            let wal = &mut self.wal;
            let entries = write.entries().len();
            let bytes = write.entries().iter().map(raftqueue_raft::Entry::size).sum();
            match write.persist(|write| wal.append(&Batch::from(write)).map(|_| ())) {
                Ok(persisted) => {
                    self.metrics.wal_synced(begun.elapsed(), entries, bytes);
                    // Free bytes are looked at after every write: a fast producer uses up the whole reserve in a
                    // second, and then nothing can be acknowledged or deleted any more. It is done before the receipt,
                    // so that the replies which that releases carry the number.
                    self.report_free_bytes();
                    self.since.since_ms.store(0, Ordering::Relaxed);
                    let _ = self.notices.send(Notice::Event(Event::Persisted(persisted)));
                    return Ok(());
                }
                Err((AppendError::NoSpace { .. }, back)) if !self.stop.load(Ordering::Relaxed) => {
                    if !told {
                        tracing::error!("the disk is full: nothing more can be written until room is made");
                        let _ = self.notices.send(Notice::Event(Event::FreeBytes(0)));
                        told = true;
                    }
                    write = back;
                    std::thread::sleep(FULL_PAUSE);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn report_free_bytes(&self) {
        match self.wal.free_bytes() {
            Ok(bytes) => {
                self.metrics.free_bytes(bytes);
                let _ = self.notices.send(Notice::Event(Event::FreeBytes(bytes)));
            }
            Err(error) => tracing::warn!(%error, "cannot tell how much room the disk has"),
        }
    }
}
