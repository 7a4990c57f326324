//! A life of the log as a list of steps, and what may be true after it was cut short.

use super::support::*;
use crate::disk::fake::FakeDisk;
use crate::{AppendError, Batch, DataDir, OpenError, Recovered, Wal};
use raftqueue_raft::{Entry, HardState, Index};

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append { hard_state: HardState, truncate_from: Option<u64>, entries: Vec<Entry> },
    Prove,
    Upkeep,
    Release(u64),
    Reopen,
}

/// What was promised, and what was being promised when the life ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) hard_state: HardState,
    /// Every entry ever, released ones included.
    pub(super) log: Vec<Entry>,
    /// Entries before this index may be gone.
    pub(super) released: u64,
}

impl Model {
    pub(super) fn after(&self, step: &Step) -> Model {
        let mut model = self.clone();
        match step {
            Step::Append { hard_state, truncate_from, entries } => {
                model.hard_state = *hard_state;
                if let Some(from) = truncate_from {
                    model.log.truncate(*from as usize - 1);
                }
                model.log.extend(entries.iter().cloned());
            }
            Step::Release(index) => model.released = model.released.max(*index),
            Step::Prove | Step::Upkeep | Step::Reopen => {}
        }
        model
    }

    /// True if a recovered log is this one.
    fn has_log(&self, recovered: &Recovered, read: &[Entry]) -> bool {
        let start = recovered.start.0.0 as usize;
        start <= self.log.len()
            && start < (self.released.max(1)) as usize
            && self.log[start..] == *read
            && recovered.last_index == Index(self.log.len() as u64)
    }
}

/// How a life ended.
pub(super) struct End {
    pub(super) acknowledged: Model,
    /// The step that failed, applied.
    pub(super) asked: Model,
    pub(super) is_done: bool,
}

impl End {
    /// Asserts that what was recovered is what was acknowledged, or that and what was asked for last.
    pub(super) fn check(&self, recovered: &Recovered, wal: &Wal, context: &dyn Fn() -> String) {
        let read = read_all(&wal.reader());
        assert!(recovered.damaged_copies.is_empty(), "{}: {:?}", context(), recovered.damaged_copies);
        let hard_state = recovered.hard_state.expect("a crash never loses both slots");
        let is_allowed = [(&self.acknowledged, &self.acknowledged), (&self.asked, &self.acknowledged)]
            .into_iter()
            .chain([(&self.asked, &self.asked)])
            .any(|(promise, log)| {
                promise.hard_state == hard_state && log.has_log_or_released(recovered, &read, self)
            });
        assert!(
            is_allowed,
            "{}\nrecovered {hard_state:?} {:?}..={} {:?}\nacknowledged {:?} {:?}\nasked {:?} {:?}",
            context(),
            recovered.start,
            recovered.last_index,
            shape(&read),
            self.acknowledged.hard_state,
            shape(&self.acknowledged.log),
            self.asked.hard_state,
            shape(&self.asked.log),
        );
        let mut runs = recovered.term_runs.iter().peekable();
        for entry in &read {
            let run = runs.next_if(|run| run.0 == entry.index);
            assert!(run.is_none_or(|run| run.1 == entry.term), "{}", context());
        }
        assert!(runs.next().is_none(), "{}", context());
    }
}

impl Model {
    fn has_log_or_released(&self, recovered: &Recovered, read: &[Entry], end: &End) -> bool {
        let released = end.asked.released.max(self.released);
        Model { released, ..self.clone() }.has_log(recovered, read)
    }
}

pub(super) fn shape(entries: &[Entry]) -> Vec<(u64, u64)> {
    entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect()
}

/// Opens the log and takes the steps until one fails.
pub(super) fn live(disk: &FakeDisk, steps: &[Step], from: &Model) -> End {
    let mut model = from.clone();
    let failed = |acknowledged: Model, asked: Model| End { acknowledged, asked, is_done: false };
    let Ok(mut dir) = DataDir::open(shared(disk), Some("a")) else { return failed(model.clone(), model) };
    let Ok((wal, _)) = dir.open_log(options(1)) else { return failed(model.clone(), model) };
    let mut wal = Some(wal);
    for (position, step) in steps.iter().enumerate() {
        let asked = model.after(step);
        if let Step::Reopen = step {
            drop(wal.take());
            match dir.open_log(options(100 + position as u64)) {
                Ok((again, _)) => wal = Some(again),
                Err(_) => return failed(model, asked),
            }
            continue;
        }
        if take(wal.as_mut().expect("reopened above"), step).is_err() {
            return failed(model, asked);
        }
        model = asked;
    }
    End { acknowledged: model.clone(), asked: model, is_done: true }
}

pub(super) fn take(wal: &mut Wal, step: &Step) -> Result<(), AppendError> {
    match step {
        Step::Append { hard_state, truncate_from, entries } => wal
            .append(&Batch {
                hard_state: *hard_state,
                hard_state_changed: wal.hard_state() != Some(*hard_state),
                truncate_from: truncate_from.map(Index),
                entries,
            })
            .map(drop),
        Step::Prove => wal.prove().map(drop),
        Step::Upkeep => wal.upkeep(),
        Step::Release(index) => cut(wal, Index(*index)).map(drop),
        Step::Reopen => unreachable!("the caller reopens"),
    }
}

/// Recovers and checks; gives back what was reported, so that a later recovery can be held to it.
pub(super) fn recover_and_check(
    disk: &FakeDisk,
    entropy: u64,
    end: &End,
    context: &dyn Fn() -> String,
) -> Result<End, OpenError> {
    let (wal, recovered) = open(disk, entropy)?;
    end.check(&recovered, &wal, context);
    // From now on it has been reported: exactly this must be found again.
    let is_asked = recovered.last_index.0 as usize == end.asked.log.len() && {
        let read = read_all(&wal.reader());
        end.asked.log.ends_with(&read)
    };
    let log = if is_asked { end.asked.log.clone() } else { end.acknowledged.log.clone() };
    let released = end.asked.released;
    let model = Model { hard_state: recovered.hard_state.expect("checked"), log, released };
    Ok(End { acknowledged: model.clone(), asked: model, is_done: end.is_done })
}
