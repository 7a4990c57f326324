//! The keeper's own thread: one round after another.

use super::{Filled, Giver, Job, KeepError, Keeper, LostMessages};
use crate::driver::bodies::Bodies;
use crate::driver::inbox::Notice;
use crate::driver::storage::Switcher;
use crate::metrics::Metrics;
use crate::replica::{Event, Freeze};
use raftqueue_queue::State;
use raftqueue_raft::Index;
use raftqueue_wal::disk::is_no_space;
use raftqueue_wal::{Change, Switched};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Bytes a second that the keeper reads and writes: a fraction of what a disk gives, so that appends hardly feel it.
const BYTES_PER_SECOND: u64 = 128 << 20;
/// How often it is looked whether messages were met that cannot be read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Counting what is lacking is taken to cost as much as this, if it costs less.
const COUNT_TAKES_MIN: Duration = Duration::from_millis(50);

/// The driver's end of the thread.
#[derive(Debug)]
pub(crate) struct KeeperThread {
    jobs: Option<SyncSender<Job>>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl KeeperThread {
    /// Starts the thread, which ends when `stop` says so: its worker hears of that.
    pub(crate) fn start(worker: Worker, stop: watch::Sender<bool>) -> Self {
        let (jobs, taken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || worker.run(&taken))
            .expect("a process that has just started can start a thread");
        Self { jobs: Some(jobs), stop, thread: Mutex::new(Some(thread)) }
    }

    /// Begins a round. The replica waits for the end of each snapshot before the next, so there is always room.
    pub(crate) fn begin(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Fails only when the thread has ended, which it has reported.
            let _ = jobs.try_send(job);
        }
    }

    /// Ends the thread, in the midst of a round too. Blocks until it has ended.
    pub(crate) fn stop(mut self) {
        self.stop.send_replace(true);
        self.jobs = None;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the thread ends the process by itself.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
pub(crate) struct Worker {
    pub(crate) keeper: Keeper,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) switcher: Switcher,
    /// Hears what came of each round.
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    pub(crate) metrics: Arc<Metrics>,
    /// What the log did when it went over to another node's snapshot.
    pub(crate) went_over: Receiver<(Index, Switched)>,
    pub(crate) givers: Box<dyn Giver + Send>,
    /// Messages may be lacking.
    pub(crate) is_incomplete: bool,
    /// Messages were met that cannot be read here: they are got from others.
    pub(crate) has_lost: bool,
    /// Messages that no member of the cluster has, as was told last.
    pub(crate) lost: LostMessages,
    /// The state that the process began with, until it was measured.
    pub(crate) restored: Option<State>,
    /// When what is lacking was counted last, and how long that took.
    pub(crate) counted: Option<(Instant, Duration)>,
    /// True once the thread is to end.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        self.metrics.lacking((!self.is_incomplete).then_some(0));
        if let Some(state) = self.restored.take() {
            self.metrics.stored(&self.keeper.measure(&state));
        }
        // What is left to be compacted as of the last snapshot.
        let mut rest: Option<Freeze> = None;
        loop {
            let job = match (&rest, jobs.try_recv()) {
                (_, Ok(job)) => Some(job),
                (Some(_), Err(TryRecvError::Empty)) => None,
                (None, Err(TryRecvError::Empty)) => match jobs.recv_timeout(LOOK_EVERY) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => {
                        self.look_for_lost();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                (_, Err(TryRecvError::Disconnected)) => return,
            };
            if let Some(job) = job {
                self.note_going_over();
                let event = match self.take_snapshot(&job) {
                    Ok(start) => {
                        self.note_lacking(&job.freeze);
                        rest = Some(job.freeze);
                        Event::SnapshotTaken { start }
                    }
                    Err(error) if !outlives(&self.notices, &error, "a snapshot") => return,
                    Err(_) => {
                        self.metrics.snapshot_failed();
                        Event::SnapshotFailed
                    }
                };
                // Fails only when the node has stopped.
                let _ = self.notices.send(Notice::Event(event));
            }
            let Some(freeze) = rest.take() else { continue };
            self.note_going_over();
            match self.fill(&freeze) {
                Ok(true) => {
                    rest = Some(freeze);
                    continue;
                }
                Ok(false) => {}
                Err(error) if !outlives(&self.notices, &error, "getting messages") => return,
                // Whoever wants to read what was lost tells of it again.
                Err(_) => self.forget_lost(),
            }
            if self.is_incomplete || self.has_lost {
                // In a later state, and more and more rarely.
                let _ = self.notices.send(Notice::Event(Event::SnapshotWanted));
            }
            match self.compact(&freeze) {
                Ok(true) => rest = Some(freeze),
                Ok(false) => {}
                Err(error) if !outlives(&self.notices, &error, "compaction") => return,
                Err(_) => {}
            }
        }
    }

    /// Messages were met that cannot be read here: with the next snapshot they are got from others.
    fn look_for_lost(&mut self) {
        let is_page_lost = self.bodies.take_page_lost();
        let lost = self.bodies.take_lost();
        if is_page_lost || !lost.is_empty() {
            self.keeper.lose(lost);
            if !std::mem::replace(&mut self.has_lost, true) {
                let _ = self.notices.send(Notice::Event(Event::SnapshotWanted));
            }
        }
    }

    /// It may have turned out that it is not known where messages stand.
    fn note_lacking(&mut self, freeze: &Freeze) {
        if self.keeper.lacks_messages() && !std::mem::replace(&mut self.is_incomplete, true) {
            self.counted = None;
            self.metrics.lacking(None);
            let _ = self.notices.send(Notice::Event(Event::Incomplete(freeze.index)));
        }
    }

    fn forget_lost(&mut self) {
        self.has_lost = false;
        self.keeper.forget_lost();
    }

    fn take_snapshot(&mut self, job: &Job) -> Result<(Index, raftqueue_raft::Term), KeepError> {
        let begun = Instant::now();
        let stop = self.stop.clone();
        let mut pace = pace(&stop);
        let change = self.keeper.take_snapshot(job, &mut pace)?;
        let switched = self.switch(&change, &job.freeze, job.blocks.len())?;
        self.metrics.snapshot_taken(begun.elapsed());
        Ok(switched.start)
    }

    /// The log may have gone over to another node's snapshot: files are gone, and messages may be lacking.
    fn note_going_over(&mut self) {
        while let Ok((index, switched)) = self.went_over.try_recv() {
            self.is_incomplete = true;
            self.counted = None;
            self.metrics.lacking(None);
            self.tell_lost(LostMessages::default());
            match self.keeper.went_over(index, &switched) {
                Ok(filed) => drop(self.bodies.filed(0, filed.added, &filed.removed, |_| true)),
                Err(error) => tracing::error!("files of the log that was left: {error}"),
            }
        }
    }

    /// One part of getting what is lacking; says whether there may be more to get as of the same state.
    fn fill(&mut self, freeze: &Freeze) -> Result<bool, KeepError> {
        self.look_for_lost();
        if !self.is_incomplete && !self.has_lost {
            return Ok(false);
        }
        if self.is_incomplete {
            self.count_missing(freeze);
        }
        let stop = self.stop.clone();
        let mut pace = pace(&stop);
        let filled = self.keeper.fill(freeze, &mut *self.givers, &mut pace)?;
        if self.is_incomplete && self.lost.count > 0 && !matches!(filled, Filled::Whole | Filled::Lost(_)) {
            // Other messages are lacking now, or somebody has what was lost.
            self.tell_lost(LostMessages::default());
            let _ = self.notices.send(Notice::Event(Event::Incomplete(freeze.index)));
        }
        match filled {
            Filled::Part(change) => {
                self.switch(&change, freeze, 0)?;
                let bytes = change.kept.iter().map(|file| file.size).sum();
                let messages = self.keeper.messages_in(&change.kept);
                self.metrics.filled(messages, bytes);
                if self.has_lost || self.keeper.lacks_messages() {
                    self.metrics.messages_repaired(messages);
                    tracing::warn!(
                        messages,
                        "messages that could not be read here were got from another node"
                    );
                }
                Ok(true)
            }
            Filled::Whole if !self.is_incomplete => {
                self.has_lost = false;
                self.tell_lost(LostMessages::default());
                Ok(false)
            }
            Filled::Whole => {
                let retire = self.keeper.retire_unusable(freeze.index);
                self.switch(&Change { complete: true, retire, ..Change::default() }, freeze, 0)?;
                (self.is_incomplete, self.has_lost) = (false, false);
                self.tell_lost(LostMessages::default());
                self.metrics.lacking(Some(0));
                tracing::info!("every message that lives is here");
                let _ = self.notices.send(Notice::Event(Event::Complete(freeze.index)));
                Ok(false)
            }
            Filled::Lost(lost) => {
                self.has_lost = self.keeper.remember_lost();
                let _ =
                    self.notices.send(Notice::Event(Event::Lost { index: freeze.index, count: lost.count }));
                self.tell_lost(lost);
                Ok(false)
            }
            other @ (Filled::WholeAt(_) | Filled::Lacking(_)) => {
                tracing::info!("{other}");
                if matches!(other, Filled::Lacking(_)) {
                    self.forget_lost();
                }
                Ok(false)
            }
        }
    }

    /// Says which messages are lost for good, once for all of them.
    fn tell_lost(&mut self, lost: LostMessages) {
        self.metrics.messages_lost(lost.count);
        if lost == self.lost {
            return;
        }
        if lost.count > 0 {
            tracing::error!(count = lost.count, "{lost}; whoever receives passes over them");
        } else {
            tracing::warn!(
                count = self.lost.count,
                "the messages that were lost are here again, or done with"
            );
        }
        self.lost = lost;
    }

    /// Counts what is lacking, for people who watch: in a tenth of the time at most.
    fn count_missing(&mut self, freeze: &Freeze) {
        if self.counted.is_some_and(|(at, took)| at.elapsed() < 10 * took.max(COUNT_TAKES_MIN)) {
            return;
        }
        let begun = Instant::now();
        // What cannot be read is told by whoever looks for it next.
        if let Ok(missing) = self.keeper.missing(&freeze.state) {
            self.metrics.lacking(Some(missing));
        }
        self.counted = Some((Instant::now(), begun.elapsed()));
    }

    /// One part of compacting; says whether there may be more to do.
    fn compact(&mut self, freeze: &Freeze) -> Result<bool, KeepError> {
        let stop = self.stop.clone();
        let mut pace = pace(&stop);
        let change = self.keeper.compact(freeze, &mut pace);
        self.metrics.stored(&self.keeper.stored());
        let Some(change) = change? else { return Ok(false) };
        self.metrics.copied(change.kept.iter().map(|file| file.size).sum());
        self.switch(&change, freeze, 0)?;
        if !change.retire.is_empty() {
            // Fails only when the node has stopped.
            let _ = self.notices.send(Notice::Event(Event::FilesRetired));
        }
        Ok(true)
    }

    /// Makes a change count, first on the disk, then for the readers.
    fn switch(&mut self, change: &Change, freeze: &Freeze, frozen: usize) -> Result<Switched, KeepError> {
        let switched = self.switcher.switch(change, freeze.index).inspect_err(|error| {
            // Otherwise nobody knows whether a manifest names its files.
            if error.is_undone() {
                self.keeper.give_up(change);
            }
        })?;
        let filed = self.keeper.filed(change, &switched)?;
        let is_live = |topic| freeze.state.topic(topic).is_some();
        drop(self.bodies.filed(frozen, filed.added, &filed.removed, is_live));
        Ok(switched)
    }
}

/// Says whether the thread goes on after an error, and tells of it.
fn outlives(notices: &mpsc::UnboundedSender<Notice>, error: &KeepError, what: &str) -> bool {
    match error {
        KeepError::Stopped => false,
        KeepError::Past => true,
        KeepError::Nobody(_) => {
            tracing::warn!("{what}: {error}");
            true
        }
        KeepError::Io { source, .. } if is_no_space(source) => {
            tracing::warn!("the disk is too full for {what}: it is tried again later");
            true
        }
        KeepError::Io { .. } => {
            let _ = notices.send(Notice::DiskFailed(format!("{what}: {error}")));
            false
        }
        KeepError::Read { .. } => {
            tracing::error!("{what} is given up: {error}");
            true
        }
    }
}

/// Sleeps so that no more than [`BYTES_PER_SECOND`] are moved.
fn pace(stop: &watch::Receiver<bool>) -> impl FnMut(u64) -> Result<(), KeepError> + use<'_> {
    let begun = Instant::now();
    let mut moved = 0;
    move |bytes| {
        moved += bytes;
        if *stop.borrow() {
            return Err(KeepError::Stopped);
        }
        let earliest = Duration::from_micros(moved.saturating_mul(1_000_000) / BYTES_PER_SECOND);
        std::thread::sleep(earliest.saturating_sub(begun.elapsed()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftqueue_wal::ReadError;
    use std::io;

    #[test]
    fn rule_2_7_only_a_write_that_fails_ends_the_process_and_it_says_which() {
        let written =
            |kind: io::ErrorKind| KeepError::Io { operation: "write a snapshot", source: kind.into() };
        let source = ReadError::Io { file: "places-1".into(), source: io::ErrorKind::Other.into() };
        let read = KeepError::Read { operation: "look for messages", source };
        for (error, lives, told) in [
            (written(io::ErrorKind::Other), false, Some("a snapshot: write a snapshot: other error")),
            (written(io::ErrorKind::StorageFull), true, None),
            (read, true, None),
            (KeepError::Nobody("they are away".into()), true, None),
            (KeepError::Past, true, None),
            (KeepError::Stopped, false, None),
        ] {
            let (notify, mut notices) = mpsc::unbounded_channel();
            assert_eq!(outlives(&notify, &error, "a snapshot"), lives, "{error}");
            let said = notices.try_recv().ok().map(|notice| match notice {
                Notice::DiskFailed(why) => why,
                other => panic!("{other:?}"),
            });
            assert_eq!(said.as_deref(), told, "{error}");
        }
    }
}
