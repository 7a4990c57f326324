//! How far a call came in the driver, and when: noted by the driver, read by whoever waits for the answer.

use crate::replica::{CallId, Replica};
use raftqueue_raft::Index;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Calls that are watched at a time, at most. More are answered all the same, without their steps.
const WATCHED_MAX: usize = 4_096;

/// When a call came to each of its steps. What it never came to is missing.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// The driver took it.
    pub(crate) taken: OnceLock<Instant>,
    /// It was in an entry, of this index or an earlier one.
    pub(crate) proposed: OnceLock<(Instant, Index)>,
    /// That entry was committed.
    pub(crate) committed: OnceLock<Instant>,
    /// It was answered.
    pub(crate) answered: OnceLock<Instant>,
}

/// The calls whose steps the driver notes.
#[derive(Debug, Default)]
pub(crate) struct Watched(Vec<(CallId, Arc<Steps>)>);

impl Watched {
    /// A call was taken that is to be watched.
    pub(crate) fn take(&mut self, call: CallId, steps: Arc<Steps>) {
        if self.0.len() < WATCHED_MAX {
            steps.taken.get_or_init(Instant::now);
            self.0.push((call, steps));
        }
    }

    /// A turn has ended.
    pub(crate) fn turned(&mut self, replica: &Replica) {
        if self.0.is_empty() {
            return;
        }
        let now = Instant::now();
        let (last, commit) = (replica.raft().last_index(), replica.raft().commit());
        self.0.retain(|(call, steps)| {
            if steps.proposed.get().is_none() && replica.is_proposed(*call) {
                steps.proposed.get_or_init(|| (now, last));
            }
            if steps.proposed.get().is_some_and(|(_, index)| *index <= commit) {
                steps.committed.get_or_init(|| now);
            }
            // Somebody else knows of it as long as it is waited for.
            Arc::strong_count(steps) > 1 && steps.answered.get().is_none()
        });
    }

    /// A call is answered now, with success or not.
    pub(crate) fn answer(&mut self, call: CallId, is_done: bool) {
        if let Some(at) = self.0.iter().position(|(watched, _)| *watched == call) {
            let (_, steps) = self.0.swap_remove(at);
            let now = Instant::now();
            if is_done && steps.proposed.get().is_some() {
                steps.committed.get_or_init(|| now);
            }
            steps.answered.get_or_init(|| now);
        }
    }
}
