//! Records of the log that do not verify are made whole, with what other nodes have (RULES 2.5).
//!
//! The log names them: what its opening found, and what a read met since. While there is one this node does not lead; it
//! votes, takes entries and gives what it can read. Each is asked for by its name, of one node after the other: no leader is
//! needed for that. A record that no node has as an entry any more is part of their snapshots. If this node has applied it,
//! it needs it no longer; if not, it needs such a snapshot.

use crate::driver::inbox::Notice;
use crate::metrics::Metrics;
use crate::replica::{Asked, Event};
use raftqueue_raft::{Configuration, Entry, Index};
use raftqueue_wal::disk::is_no_space;
use raftqueue_wal::{MendError, Mended, Reader, RecordName};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// How often it is looked whether there is something to mend.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Records asked for in one round: what the round found is told between two of them.
const ROUND_MAX: usize = 64;

/// The other nodes, asked one after the other for a record.
pub trait Holder {
    /// Asks for the record of this name. `passed` of the nodes that could be asked were asked already.
    ///
    /// # Errors
    /// Nobody more can be asked now; the text says why.
    fn record(&mut self, passed: usize, name: RecordName) -> Result<Asked, String>;
}

/// What came of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Records that another node gave.
    pub given: u64,
    /// Records of which only the head was damaged.
    pub alone: u64,
    /// What configurations say that were not known before.
    pub known: Vec<(Index, Arc<Configuration>)>,
    /// Records that do not verify and are needed.
    pub needed: usize,
    /// Records that do not verify and are not needed any more.
    pub unneeded: usize,
    /// The first record that is needed and is only in snapshots of others.
    pub cut: Option<Index>,
    /// Why something could not be mended.
    pub why: Option<String>,
}

/// Mends, round by round.
pub struct Mender {
    reader: Reader,
    /// What nobody has as an entry any more, and this node has applied.
    unneeded: BTreeSet<RecordName>,
}

impl Mender {
    /// For the log that `reader` reads.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self { reader, unneeded: BTreeSet::new() }
    }

    /// Whether there is anything to mend.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.reader.holes().iter().any(|hole| !self.unneeded.contains(&hole.name))
    }

    /// Mends what can be mended now. Everything up to `applied` was applied here, and is in a snapshot or in memory.
    ///
    /// # Errors
    /// The disk refuses a write: the process must end.
    pub fn round(&mut self, applied: Index, holder: &mut dyn Holder) -> Result<Round, MendError> {
        let mut round = Round::default();
        let holes = self.reader.holes();
        self.unneeded.retain(|name| holes.iter().any(|hole| hole.name == *name));
        for (asked, hole) in holes.iter().enumerate() {
            if self.unneeded.contains(&hole.name) {
                round.unneeded += 1;
                continue;
            }
            if asked >= ROUND_MAX {
                round.needed += 1;
                continue;
            }
            let mut mended = self.reader.mend_alone(hole);
            let is_alone = !matches!(mended, Ok(Mended::Lacking));
            if !is_alone {
                match get(holder, hole.name) {
                    Ok(entry) => mended = self.reader.mend(hole, &entry),
                    Err(Missing::Cut) if hole.name.index <= applied => {
                        self.unneeded.insert(hole.name);
                        round.unneeded += 1;
                        continue;
                    }
                    Err(missing) => {
                        if let Missing::Cut = missing {
                            round.cut =
                                Some(round.cut.map_or(hole.name.index, |cut| cut.min(hole.name.index)));
                        }
                        round.why.get_or_insert_with(|| missing.to_string());
                    }
                }
            }
            match mended {
                Ok(Mended::Whole { configuration, is_written }) => {
                    *if is_alone { &mut round.alone } else { &mut round.given } += u64::from(is_written);
                    round.known.extend(configuration.map(|content| (hole.name.index, content)));
                }
                Ok(Mended::Gone) => {}
                Ok(Mended::Lacking) => round.needed += 1,
                Err(MendError::Io { file, source }) if !is_no_space(&source) => {
                    return Err(MendError::Io { file, source });
                }
                Err(error) => {
                    round.needed += 1;
                    round.why.get_or_insert_with(|| error.to_string());
                }
            }
        }
        Ok(round)
    }
}

/// Why nobody gave a record.
enum Missing {
    Cut,
    Nobody(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cut => f.write_str("the others have it in their snapshots only"),
            Self::Nobody(why) => f.write_str(why),
        }
    }
}

/// Asks one node after the other.
fn get(holder: &mut dyn Holder, name: RecordName) -> Result<Entry, Missing> {
    let mut is_cut = false;
    for passed in 0.. {
        match holder.record(passed, name) {
            Ok(Asked::Record(entry)) => return Ok(entry),
            Ok(Asked::Cut) => is_cut = true,
            Ok(Asked::Unknown) => {}
            Err(_) if is_cut => return Err(Missing::Cut),
            Err(why) => return Err(Missing::Nobody(why)),
        }
    }
    unreachable!("nobody has that many nodes")
}

/// The driver's end of the thread that mends.
#[derive(Debug)]
pub(crate) struct MendingThread {
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works with.
pub(crate) struct Worker {
    pub(crate) mender: Mender,
    pub(crate) holders: Box<dyn Holder + Send>,
    /// Everything up to here was applied.
    pub(crate) applied: Arc<AtomicU64>,
    /// Hears what became known.
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    pub(crate) metrics: Arc<Metrics>,
    /// The replica was told that the log is damaged.
    pub(crate) is_damaged: bool,
    pub(crate) handle: Handle,
}

impl MendingThread {
    /// Starts the thread, which ends when `stop` says so.
    pub(crate) fn start(worker: Worker, stop: watch::Sender<bool>) -> Self {
        let stopped = stop.subscribe();
        let thread = std::thread::Builder::new()
            .name("mender".into())
            .spawn(move || worker.run(stopped))
            .expect("a process that has just started can start a thread");
        Self { stop, thread: Mutex::new(Some(thread)) }
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
    fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut told = None;
        loop {
            if (self.is_damaged || self.mender.is_due()) && !self.round(&mut told) {
                return;
            }
            let handle = self.handle.clone();
            // A timer is made where a runtime is at hand, and this thread has none of its own.
            let pause = async { tokio::time::timeout(LOOK_EVERY, stopped.wait_for(|stops| *stops)).await };
            // It is over when that is told, or whoever tells it has gone.
            if handle.block_on(pause).is_ok() {
                return;
            }
        }
    }

    /// One round; false if the thread is to end.
    fn round(&mut self, told: &mut Option<String>) -> bool {
        if self.mender.is_due() && !self.is_damaged {
            self.is_damaged = true;
            self.tell(Event::Damaged(true));
        }
        let applied = Index(self.applied.load(Ordering::Acquire));
        let round = match self.mender.round(applied, &mut *self.holders) {
            Ok(round) => round,
            Err(error) => {
                let _ = self.notices.send(Notice::DiskFailed(format!("mending the log: {error}")));
                return false;
            }
        };
        self.metrics.mended(round.given, round.alone, round.needed as u64, round.unneeded as u64);
        if round.given + round.alone > 0 {
            let (given, alone, left) = (round.given, round.alone, round.needed);
            tracing::warn!(given, alone, left, "damaged records of the log were mended");
        }
        if round.why != *told {
            if let Some(why) = &round.why {
                tracing::error!(
                    left = round.needed,
                    "a damaged record of the log cannot be mended now: {why}"
                );
            }
            told.clone_from(&round.why);
        }
        for (index, configuration) in round.known {
            self.tell(Event::Known(index, configuration));
        }
        if let Some(index) = round.cut {
            self.tell(Event::Cut(index));
        }
        if self.is_damaged != (round.needed > 0) {
            self.is_damaged = round.needed > 0;
            self.tell(Event::Damaged(self.is_damaged));
        }
        true
    }

    fn tell(&self, event: Event) {
        // Fails only when the node has stopped.
        let _ = self.notices.send(Notice::Event(event));
    }
}
