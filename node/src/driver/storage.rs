//! The log's own thread: writes go in, receipts come out.
//!
//! One write is out at a time, so the thread never has a queue; while it syncs, the core gathers the next write. Between two
//! writes it makes changes of the set of files count ([`Switcher`]): it alone writes the manifest.

use crate::driver::giving::Counted;
use crate::driver::inbox::Notice;
use crate::driver::keeper::KeepError;
use crate::metrics::Metrics;
use crate::replica::Event;
use raftqueue_raft::{Index, Write};
use raftqueue_wal::{AppendError, Batch, Change, SmallFiles, SnapshotFile, Switched, Wal};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
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

#[cfg(test)]
mod tests;

/// The driver's end of the thread.
#[derive(Debug)]
pub struct Storage {
    jobs: SyncSender<Job>,
    /// Snapshots of other nodes, to the last of which the next write with a reset goes over.
    arrived: Vec<SnapshotFile>,
    since: Arc<Busy>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread is asked to do.
#[derive(Debug)]
enum Job {
    /// A write, and the snapshots of other nodes that arrived before it: with a reset it goes over to the last of them. They
    /// come with it, so that a write that waits for room never meets a later one.
    Write(Write, Vec<SnapshotFile>),
    /// A new manifest; whoever asks waits for the answer.
    Switch(Change, Index, SyncSender<Reply>),
    /// A look at the small files that are this thread's; whoever asks waits for the answer.
    MendSmallFiles(SyncSender<Result<SmallFiles, String>>),
    /// Nothing more comes.
    Stop,
}

/// What became of a change of the set of files; `None` if it is of a state that is past.
type Reply = Option<Result<Switched, AppendError>>;

/// Makes a change of the set of files count, for the one thread that waits until it does; and has the small files looked at, for
/// another one.
#[derive(Clone, Debug)]
pub struct Switcher(SyncSender<Job>);

impl Switcher {
    /// Blocks until a manifest says so. The change was worked out from the state as of an index.
    ///
    /// # Errors
    /// [`KeepError`]: nothing changed. Of a disk that failed the thread has told already.
    pub fn switch(&self, change: &Change, as_of: Index) -> Result<Switched, KeepError> {
        let (reply, answer) = sync_channel(1);
        self.0.send(Job::Switch(change.clone(), as_of, reply)).map_err(|_| KeepError::Stopped)?;
        let switched = answer.recv().map_err(|_| KeepError::Stopped)?.ok_or(KeepError::Past)?;
        switched.map_err(|error| match error {
            AppendError::NoSpace { operation } => {
                KeepError::Io { operation, source: io::ErrorKind::StorageFull.into() }
            }
            _ => KeepError::Stopped,
        })
    }
}

impl Switcher {
    /// Blocks until `HARDSTATE` and `MANIFEST` say what this node knows. Says which of them did not.
    ///
    /// # Errors
    /// There is no room to write one, or the thread has ended.
    pub fn mend_small_files(&self) -> Result<SmallFiles, String> {
        let ended = || "the log's thread has ended".to_owned();
        let (reply, answer) = sync_channel(1);
        self.0.send(Job::MendSmallFiles(reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }
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
    /// Starts the thread. Receipts and failures go to `notices`, and what is on the disk then to `counted`.
    pub(crate) fn start(
        wal: Wal,
        notices: mpsc::UnboundedSender<Notice>,
        metrics: Arc<Metrics>,
        went_over: Sender<(Index, Switched)>,
        counted: Arc<Counted>,
    ) -> Self {
        // One write, one change, one look at small files and the end: nobody who sends one of these ever waits for room.
        let (jobs, taken) = sync_channel(4);
        let since = Arc::new(Busy { start: Instant::now(), since_ms: AtomicU64::new(0) });
        let worker = Worker {
            wal,
            arrived: None,
            went_over_at: Index(0),
            went_over,
            counted,
            notices,
            metrics,
            since: Arc::clone(&since),
            waiting: None,
            is_full_told: false,
        };
        let thread = std::thread::Builder::new()
            .name("wal".into())
            .spawn(move || worker.run(&taken))
            .expect("a process that has just started can start a thread");
        Self { jobs, arrived: Vec::new(), since, thread: Mutex::new(Some(thread)) }
    }

    /// Hands a write to the thread. The core gives one at a time, so there is always room.
    pub fn write(&mut self, write: Write) {
        self.since.since_ms.store(self.since.now_ms() + 1, Ordering::Relaxed);
        let sent = self.jobs.try_send(Job::Write(write, std::mem::take(&mut self.arrived)));
        assert!(!matches!(sent, Err(TrySendError::Full(_))), "one write is out at a time");
        // Otherwise the thread has ended, which it has reported.
    }

    /// The next write with a reset goes over to this snapshot.
    pub fn arrived(&mut self, file: SnapshotFile) {
        self.arrived.push(file);
    }

    /// For whoever changes the set of files.
    #[must_use]
    pub fn switcher(&self) -> Switcher {
        Switcher(self.jobs.clone())
    }

    /// How long a write has been out, in milliseconds; 0 if none is.
    #[must_use]
    pub fn busy_ms(&self) -> u64 {
        match self.since.since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since_ms => (self.since.now_ms() + 1).saturating_sub(since_ms),
        }
    }

    /// Lets the thread finish its write and end, unless the disk has no room for it. Blocks until it has.
    pub fn stop(self) {
        // Fails only when the thread has ended.
        let _ = self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the thread ends the process by itself.
            let _ = thread.join();
        }
    }
}

/// Makes a write durable: the hard state first, then another node's snapshot if it goes over to one, then the entries.
/// `arrived` is that snapshot, until it counts; `went_over` hears what that did to the files.
///
/// # Errors
/// As [`Wal::append`]. Without space the same may be tried again, whatever part of it is done.
pub fn persist(
    wal: &mut Wal,
    write: &Write,
    arrived: &mut Option<SnapshotFile>,
    went_over: &mut dyn FnMut(Index, Switched),
) -> Result<(), AppendError> {
    let batch = Batch::from(write);
    if let Some(start) = write.reset()
        && let Some(file) = *arrived
    {
        wal.append(&Batch { truncate_from: None, entries: &[], ..batch })?;
        // With that entry in the log what follows it stays.
        let reset = (wal.reader().term(start.0) != Some(start.1)).then_some(start);
        // But of what was not applied here nobody knows where it stands.
        let change = Change { snapshot: Some(file), reset, incomplete: true, ..Change::default() };
        let switched = wal.switch(&change)?;
        *arrived = None;
        went_over(file.index, switched);
    }
    wal.append(&batch).map(drop)
}

/// A snapshot that lies before the newest one that can be read.
#[must_use]
pub fn is_behind(wal: &Wal, change: &Change) -> bool {
    let newest = wal.usable_snapshots().pop();
    newest.zip(change.snapshot).is_some_and(|(newest, new)| new.index < newest.index)
}

struct Worker {
    wal: Wal,
    /// A snapshot of another node that the next write with a reset goes over to.
    arrived: Option<SnapshotFile>,
    /// The index of the last one that it went over to: changes that were worked out from earlier states are past.
    went_over_at: Index,
    /// Tells the keeper that this has happened.
    went_over: Sender<(Index, Switched)>,
    /// Knows what is on the disk.
    counted: Arc<Counted>,
    notices: mpsc::UnboundedSender<Notice>,
    metrics: Arc<Metrics>,
    since: Arc<Busy>,
    /// A write for which the disk has no room.
    waiting: Option<Write>,
    /// It was said that the disk is full.
    is_full_told: bool,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut looked = None;
        self.metrics.filed(self.wal.manifest(), self.wal.log_segments());
        loop {
            let is_due = looked.is_none_or(|at: Instant| at.elapsed() >= FREE_BYTES_EVERY);
            // While a write waits the disk is full, whatever it says.
            if is_due && self.waiting.is_none() {
                looked = Some(Instant::now());
                self.report_free_bytes();
            }
            let wait = if self.waiting.is_some() { FULL_PAUSE } else { IDLE };
            let done = match jobs.recv_timeout(wait) {
                Ok(Job::Write(write, arrived)) => {
                    arrived.into_iter().for_each(|file| self.arrive(file));
                    self.append(write)
                }
                Ok(Job::Switch(change, as_of, reply)) => self.switch(&change, as_of, &reply),
                Ok(Job::MendSmallFiles(reply)) => {
                    let (found, done) = match self.wal.mend_small_files() {
                        Ok(found) => (Ok(found), Ok(())),
                        Err(error) => (Err(error.to_string()), Err(error)),
                    };
                    // Fails only when whoever asked has ended.
                    let _ = reply.send(found);
                    done
                }
                Err(RecvTimeoutError::Timeout) => match self.waiting.take() {
                    Some(write) => self.append(write),
                    None => self.wal.prove().map(|_| ()),
                },
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            };
            let is_waiting = self.waiting.is_some();
            match done.and_then(|()| if is_waiting { Ok(()) } else { self.wal.upkeep() }) {
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

    /// The next write with a reset goes over to this snapshot. One that came before it is of no use any more.
    fn arrive(&mut self, file: SnapshotFile) {
        if let Some(passed) = self.arrived.replace(file) {
            raftqueue_wal::remove_snapshot(&*self.wal.disk(), &passed);
        }
    }

    /// Makes a change of the set of files count, unless it is of a state that is past.
    fn switch(
        &mut self,
        change: &Change,
        as_of: Index,
        reply: &SyncSender<Reply>,
    ) -> Result<(), AppendError> {
        for number in self.counted.take_damaged() {
            self.wal.give_up_snapshot(number);
        }
        if as_of < self.went_over_at || is_behind(&self.wal, change) {
            // Fails only when whoever asked has ended, here and below.
            let _ = reply.send(None);
            return Ok(());
        }
        let damaged = self.wal.unusable_snapshots();
        let switched = self.wal.switch(change);
        self.metrics.snapshots_repaired(damaged - self.wal.unusable_snapshots());
        self.metrics.filed(self.wal.manifest(), self.wal.log_segments());
        match switched {
            Ok(switched) => {
                self.counted.snapshots_count(&switched.snapshots);
                let _ = reply.send(Some(Ok(switched)));
                if self.waiting.is_none() {
                    self.report_free_bytes();
                }
                Ok(())
            }
            Err(AppendError::NoSpace { operation }) => {
                let _ = reply.send(Some(Err(AppendError::NoSpace { operation })));
                Ok(())
            }
            // Whoever asked hears that this thread has ended.
            Err(error) => Err(error),
        }
    }

    /// Appends one write. While the disk is full it waits and is tried again: the core can do nothing else with it. Changes
    /// of the set of files go before it then, since they make room.
    fn append(&mut self, write: Write) -> Result<(), AppendError> {
        let begun = Instant::now();
        let entries = write.entries().len();
        let bytes = write.entries().iter().map(raftqueue_raft::Entry::size).sum();
        let (term, other) = (write.hard_state().term, self.arrived);
        let damaged = self.wal.unusable_snapshots();
        let Self { wal, arrived, went_over, went_over_at, counted, .. } = self;
        let mut tell = |index, switched: Switched| {
            *went_over_at = index;
            counted.term_counts(term);
            counted.snapshots_count(&switched.snapshots);
            // Fails only when the keeper has ended.
            drop(went_over.send((index, switched)));
        };
        let done = write.persist(|write| persist(wal, write, arrived, &mut tell));
        if other.is_some() && self.arrived.is_none() {
            self.metrics.snapshot_installed();
            self.metrics.snapshots_repaired(damaged - self.wal.unusable_snapshots());
            self.metrics.filed(self.wal.manifest(), self.wal.log_segments());
        }
        match done {
            Ok(persisted) => {
                self.is_full_told = false;
                self.counted.term_counts(term);
                self.metrics.log_segments(self.wal.log_segments());
                self.metrics.wal_synced(begun.elapsed(), entries, bytes);
                // Free bytes are looked at after every write: a fast producer uses up the whole reserve in a
                // second, and then nothing can be acknowledged or deleted any more.
                let free_bytes = self.free_bytes();
                self.since.since_ms.store(0, Ordering::Relaxed);
                let _ = self.notices.send(Notice::Written(persisted, free_bytes));
                Ok(())
            }
            Err((AppendError::NoSpace { .. }, back)) => {
                if !std::mem::replace(&mut self.is_full_told, true) {
                    tracing::error!("the disk is full: nothing more can be written until room is made");
                    let _ = self.notices.send(Notice::Event(Event::FreeBytes(0)));
                }
                self.waiting = Some(back);
                Ok(())
            }
            Err((error, _)) => Err(error),
        }
    }

    fn report_free_bytes(&self) {
        if let Some(bytes) = self.free_bytes() {
            let _ = self.notices.send(Notice::Event(Event::FreeBytes(bytes)));
        }
    }

    /// What the disk says, which the metrics show from then on.
    fn free_bytes(&self) -> Option<u64> {
        let free = self.wal.free_bytes();
        let free = free.inspect_err(|error| tracing::warn!(%error, "cannot tell how much room the disk has"));
        free.ok().inspect(|bytes| self.metrics.free_bytes(*bytes))
    }
}
