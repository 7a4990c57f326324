//! Reads what stands on this node's disk, slowly, again and again: rot is found while others still have what it hit, and not
//! only when somebody needs it (RULES 2.5).
//!
//! A pass reads the log, the files that tell where older messages stand, those messages, and both snapshots. It mends
//! nothing. A record that does not verify is one of the [`Reader::holes`] from then on, a message that cannot be read is
//! noted with the [`Bodies`], a snapshot that is damaged wants another one: each is put right as if a reader had met it.

use super::bodies::{Bodies, Ended, Pace, Pass, go_on};
use crate::driver::giving::Counted;
use crate::driver::inbox::Notice;
use crate::metrics::Metrics;
use crate::replica::Event;
use raftqueue_raft::Index;
use raftqueue_wal::{ReadError, Reader, SnapshotError, SnapshotFile, SnapshotReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// Bytes of entries that are read at once.
const BYTES_AT_ONCE: u64 = 256 << 10;
/// From the beginning of one pass to that of the next, at least: what is small is not read without end.
const PASS_EVERY: Duration = Duration::from_secs(600);

/// Reads everything once; `met` is told of snapshots that are damaged.
///
/// # Errors
/// [`Ended`]
pub fn scrub(
    reader: &Reader,
    bodies: &Bodies,
    snapshots: &[SnapshotFile],
    met: &mut dyn FnMut(SnapshotFile),
    pace: &mut Pace<'_>,
) -> Result<Pass, Ended> {
    let mut pass = Pass::default();
    scrub_log(reader, &mut pass, pace)?;
    for file in bodies.files() {
        bodies.scrub(&file, &mut pass, pace)?;
    }
    for file in snapshots {
        let before = pass.snapshots;
        scrub_snapshot(reader, file, &mut pass, pace)?;
        if pass.snapshots > before {
            met(*file);
        }
    }
    Ok(pass)
}

fn scrub_snapshot(
    reader: &Reader,
    file: &SnapshotFile,
    pass: &mut Pass,
    pace: &mut Pace<'_>,
) -> Result<(), Ended> {
    let mut sections = match SnapshotReader::open(&*reader.disk(), file) {
        Ok((_, sections)) => sections,
        // Another one took its place meanwhile.
        Err(SnapshotError::Missing { .. }) => return Ok(()),
        Err(error) => return snapshot_failed(error, pass),
    };
    loop {
        match sections.next() {
            Ok(Some(section)) => pass.bytes += section.len() as u64,
            Ok(None) => return Ok(()),
            Err(error) => return snapshot_failed(error, pass),
        }
        go_on(pass, pace)?;
    }
}

/// The entries of the log.
fn scrub_log(reader: &Reader, pass: &mut Pass, pace: &mut Pace<'_>) -> Result<(), Ended> {
    let mut at = reader.first_index();
    loop {
        match reader.entries(at, Index(u64::MAX), BYTES_AT_ONCE) {
            Ok(entries) => {
                pass.bytes += entries.iter().map(|entry| entry.size() as u64).sum::<u64>();
                at = entries.last().map_or(at, |entry| entry.index).next();
            }
            Err(ReadError::Released { first, .. }) => at = first,
            Err(ReadError::Beyond { .. }) => return Ok(()),
            Err(ReadError::Io { source, .. }) => return Err(Ended::Refused(source)),
            Err(ReadError::Rot(rotten)) => {
                tracing::error!("{rotten}: found by the scrub");
                // It may read well by now, or be gone.
                if let Err(ReadError::Io { source, .. }) = reader.doubt(at) {
                    return Err(Ended::Refused(source));
                }
                pass.records += 1;
                at = at.next();
            }
            Err(ReadError::OutOfBodies { .. } | ReadError::Unknown { .. }) => at = at.next(),
        }
        go_on(pass, pace)?;
    }
}

fn snapshot_failed(error: SnapshotError, pass: &mut Pass) -> Result<(), Ended> {
    if let SnapshotError::Io { source, .. } = error {
        return Err(Ended::Refused(source));
    }
    tracing::error!("{error}: found by the scrub");
    pass.snapshots += 1;
    Ok(())
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
            match scrub(&self.reader, &self.bodies, &self.counted.snapshots(), &mut met, &mut pace) {
                Ok(pass) => {
                    self.metrics.scrub_pass();
                    if pass.snapshots > 0 {
                        // Fails only when the node has stopped.
                        let _ = self.notices.send(Notice::Event(Event::SnapshotWanted));
                    }
                    if pass.damaged() > 0 {
                        tracing::warn!(?pass, "a scrub of this node's disk found damage");
                    }
                }
                Err(Ended::Stopped) => return,
                // Whoever needs what stands there meets it, and the log's own writes say whether the disk is good.
                Err(Ended::Refused(error)) => {
                    tracing::error!("a scrub of this node's disk is given up: {error}");
                }
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
