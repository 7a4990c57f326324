//! Reads what stands on this node's disk, slowly, again and again: rot is found while others still have what it hit, and not
//! only when somebody needs it (RULES 2.5).
//!
//! A pass looks at the small files, which it has written anew where they rot, and reads the log, the heads of its batches, the
//! files that tell where older messages stand, those messages, and both snapshots. Of these it mends nothing. A record that does
//! not verify is one of the [`Reader::holes`] from then on, a message that cannot be read is noted with the [`Bodies`], a snapshot
//! that is damaged wants another one: each is put right as if a reader had met it.

use super::bodies::{Bodies, Ended, Pace, Pass, go_on};
use crate::driver::giving::Counted;
use crate::driver::inbox::Notice;
use crate::driver::storage::Switcher;
use crate::metrics::Metrics;
use crate::peers::forming::Forming;
use crate::replica::Event;
use raftqueue_raft::Index;
use raftqueue_wal::{
    DataDir, Doubt, Heads, ReadError, Reader, SmallFiles, SnapshotError, SnapshotFile, SnapshotReader,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// Bytes of entries that are read at once.
const BYTES_AT_ONCE: u64 = 256 << 10;
/// Records that are read one by one where the disk refuses a read of many.
const SINGLY: u64 = 4_096;
/// From the beginning of one pass to that of the next, at least: what is small is not read without end.
const PASS_EVERY: Duration = Duration::from_secs(600);

/// Reads everything once; `met` is told of snapshots that are damaged. An entry or a snapshot that the disk refuses to give back
/// twice counts as damaged, what leads to them at once: a look more costs little.
///
/// # Errors
/// [`Ended`]; what was found until then is in the pass.
pub fn scrub(
    reader: &Reader,
    bodies: &Bodies,
    snapshots: &[SnapshotFile],
    met: &mut dyn FnMut(SnapshotFile),
    pass: &mut Pass,
    pace: &mut Pace<'_>,
) -> Result<(), Ended> {
    scrub_log(reader, pass, pace)?;
    scrub_heads(reader, pass, pace)?;
    for file in bodies.files() {
        bodies.scrub(&file, pass, pace)?;
    }
    for file in snapshots {
        if !is_snapshot_good(reader, file, pass, pace)? {
            met(*file);
        }
    }
    Ok(())
}

/// Reads a snapshot; one that the disk refuses is read once more.
fn is_snapshot_good(
    reader: &Reader,
    file: &SnapshotFile,
    pass: &mut Pass,
    pace: &mut Pace<'_>,
) -> Result<bool, Ended> {
    for is_last in [false, true] {
        match read_snapshot(reader, file, pass, pace)? {
            // Another one took its place meanwhile.
            Ok(()) | Err(SnapshotError::Missing { .. }) => return Ok(true),
            Err(error) => {
                tracing::error!("{error}: found by the scrub");
                let is_refused = matches!(error, SnapshotError::Io { .. });
                if let SnapshotError::Io { source, .. } = error {
                    pass.refuse(source)?;
                }
                if is_last || !is_refused {
                    break;
                }
            }
        }
    }
    pass.snapshots += 1;
    Ok(false)
}

fn read_snapshot(
    reader: &Reader,
    file: &SnapshotFile,
    pass: &mut Pass,
    pace: &mut Pace<'_>,
) -> Result<Result<(), SnapshotError>, Ended> {
    let mut sections = match SnapshotReader::open(&*reader.disk(), file) {
        Ok((_, sections)) => sections,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        match sections.next() {
            Ok(Some(section)) => pass.bytes += section.len() as u64,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
        go_on(pass, pace)?;
    }
}

/// The entries of the log.
fn scrub_log(reader: &Reader, pass: &mut Pass, pace: &mut Pace<'_>) -> Result<(), Ended> {
    let mut at = reader.first_index();
    // Where the disk refuses a read of many records, up to here each is read by itself.
    let mut singly_to = Index(0);
    loop {
        let bytes_max = if at < singly_to { 0 } else { BYTES_AT_ONCE };
        match reader.entries(at, Index(u64::MAX), bytes_max) {
            Ok(entries) => {
                pass.bytes += entries.iter().map(|entry| entry.size() as u64).sum::<u64>();
                at = entries.last().map_or(at, |entry| entry.index).next();
            }
            Err(ReadError::Released { first, .. }) => at = first,
            Err(ReadError::Beyond { .. }) => return Ok(()),
            Err(ReadError::Io { .. }) if at >= singly_to => singly_to = Index(at.0 + SINGLY),
            Err(error) => {
                at = scrub_record(reader, at, &error, pass)?;
            }
        }
        go_on(pass, pace)?;
    }
}

/// What leads to the entries of the segments that are full. Nobody needs it while the node runs, and a start does without one of
/// it; so it is not mended, but those segments are to go.
fn scrub_heads(reader: &Reader, pass: &mut Pass, pace: &mut Pace<'_>) -> Result<(), Ended> {
    for segment in reader.segments() {
        match reader.look_at_heads(segment) {
            Ok(Heads { damaged, bytes }) => {
                pass.bytes += bytes;
                damaged.iter().for_each(|rotten| tracing::error!("{rotten}: found by the scrub"));
                pass.heads += damaged.len() as u64;
            }
            Err(source) => {
                pass.refuse(source)?;
                pass.heads += 1;
            }
        }
        go_on(pass, pace)?;
    }
    Ok(())
}

/// A record that could not be read. Says where to go on.
fn scrub_record(reader: &Reader, at: Index, error: &ReadError, pass: &mut Pass) -> Result<Index, Ended> {
    if error.is_of_disk() {
        tracing::error!("{error}: found by the scrub");
        // It may read well by now, or be gone.
        match reader.doubt(at) {
            Ok(Doubt::Verifies | Doubt::Gone) => {}
            Ok(Doubt::Rots) => pass.records += 1,
            Err(refused) => {
                if let ReadError::Io { source, .. } = refused {
                    pass.refuse(source)?;
                }
                reader.give_up(at);
                pass.records += 1;
            }
        }
    }
    Ok(at.next())
}

/// The driver's end of the thread that scrubs.
#[derive(Debug)]
pub(crate) struct ScrubbingThread {
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works with.
pub(crate) struct Worker {
    pub(crate) reader: Reader,
    pub(crate) bodies: Arc<Bodies>,
    /// Knows the snapshots that count, and hears which of them are damaged.
    pub(crate) counted: Arc<Counted>,
    /// Asks the log's thread.
    pub(crate) switcher: Switcher,
    /// Has the identity.
    pub(crate) forming: Arc<Forming>,
    /// Bytes a second that it reads; not 0.
    pub(crate) bytes_per_second: u64,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handle: Handle,
}

impl ScrubbingThread {
    /// Starts the thread, which ends when [`ScrubbingThread::stop`] says so; without a worker there is none.
    pub(crate) fn start(worker: Option<Worker>) -> Self {
        let stop = watch::Sender::new(false);
        let stopped = stop.subscribe();
        let run = |worker: Worker| {
            std::thread::Builder::new()
                .name("scrubber".into())
                .spawn(move || worker.run(stopped))
                .expect("a process that has just started can start a thread")
        };
        let thread = Mutex::new(worker.map(run));
        Self { stop, thread }
    }

    /// Ends the thread. Blocks until it has ended.
    pub(crate) fn stop(self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the thread ends the process by itself.
            let _ = thread.join();
        }
    }
}

impl Worker {
    /// What nothing reads until the next start: this node knows what should stand there. Returns how many were damaged.
    fn mend_small_files(&self) -> u64 {
        let not_looked_at = |error: &dyn std::fmt::Display| {
            tracing::error!("a small file of this node cannot be looked at: {error}");
        };
        let SmallFiles { mut mended, unread } = self.switcher.mend_small_files().unwrap_or_else(|error| {
            not_looked_at(&error);
            SmallFiles::default()
        });
        unread.iter().for_each(|error| not_looked_at(error));
        match self.forming.with_dir(DataDir::mend_identity) {
            Ok(name) => mended.extend(name),
            Err(error) => not_looked_at(&error),
        }
        for name in &mended {
            tracing::error!(
                "{name} did not verify: found by the scrub, and written anew with what this node knows"
            );
        }
        self.metrics.small_files_repaired(mended.len());
        mended.len() as u64
    }

    fn run(self, mut stopped: watch::Receiver<bool>) {
        loop {
            let begun = Instant::now();
            let mut told = Pass::default();
            let mut pace = |pass: &Pass| {
                let bytes = pass.bytes - told.bytes;
                let damaged = pass.damaged() - told.damaged();
                self.metrics.scrubbed(bytes, damaged);
                told = *pass;
                let earliest =
                    Duration::from_micros(pass.bytes.saturating_mul(1_000_000) / self.bytes_per_second);
                !waits(&self.handle, &mut stopped, earliest.saturating_sub(begun.elapsed()))
            };
            let mut met = |file| self.counted.snapshot_is_damaged(file);
            let mut pass = Pass { small_files: self.mend_small_files(), ..Pass::default() };
            let snapshots = self.counted.snapshots();
            match scrub(&self.reader, &self.bodies, &snapshots, &mut met, &mut pass, &mut pace) {
                Ok(()) => self.metrics.scrub_pass(),
                Err(Ended::Stopped) => return,
                // Whoever needs what stands there meets it, and the log's own writes say whether the disk is good.
                Err(Ended::Refused(error)) => {
                    tracing::error!("a scrub of this node's disk is given up: {error}");
                }
            }
            // What was found since it was waited last.
            self.metrics.scrubbed(pass.bytes - told.bytes, pass.damaged() - told.damaged());
            if pass.wants_snapshot() {
                // Fails only when the node has stopped.
                let _ = self.notices.send(Notice::Event(Event::SnapshotWanted));
            }
            if pass.damaged() > 0 {
                tracing::warn!(?pass, "a scrub of this node's disk found damage");
            }
            if waits(&self.handle, &mut stopped, PASS_EVERY.saturating_sub(begun.elapsed())) {
                return;
            }
        }
    }
}

/// Waits for so long; true if the thread is to end.
fn waits(handle: &Handle, stopped: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    if pause.is_zero() {
        // It is over when that is told, or whoever tells it has gone.
        return *stopped.borrow() || stopped.has_changed().is_err();
    }
    // A timer is made where a runtime is at hand, and this thread has none of its own.
    let pause = async { tokio::time::timeout(pause, stopped.wait_for(|stops| *stops)).await };
    handle.block_on(pause).is_ok()
}
