//! Dead messages as runs by reason and attempts.

use crate::map::Map;
use crate::tally::Tally;
use crate::{DeadReason, MessageSize};
use std::ops::Range;

/// The dead messages of one subscription. They cost by runs of neighbours that died alike, not by messages.
///
/// The map goes from the end of a run to the rest of it, as in [`Runs`](crate::runs::Runs). Invariants: runs are not
/// empty and do not overlap; two that touch differ in reason or attempts. Only the sum of the sizes is known: whoever
/// takes single messages out must bring their sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeadRuns {
    runs: Map<u64, Run>,
    count: u64,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    attempts: u32,
    reason: DeadReason,
}

impl Run {
    fn is_like(&self, attempts: u32, reason: &DeadReason) -> bool {
        self.attempts == attempts && self.reason == *reason
    }
}

/// Neighbouring dead messages of one subscription that died alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRun {
    /// Their offsets.
    pub offsets: Range<u64>,
    /// Leases of each that ended by nack or expiry.
    pub attempts: u32,
    /// Why they are dead.
    pub reason: DeadReason,
}

impl DeadRuns {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Whether the sizes of these can be true, as far as can be told.
    pub(crate) fn fit(&self, listed: &[MessageSize]) -> bool {
        let tally = Tally { count: self.count, bytes: self.bytes };
        tally.can_spare(listed.iter().map(|message| (message.offset, message.size)), |offset| {
            self.contains(offset)
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.runs.first().map(|(_, run)| run.start)
    }

    pub(crate) fn run_of(&self, offset: u64) -> Option<Range<u64>> {
        let (&end, run) = self.runs.ceiling(&offset.saturating_add(1))?;
        (run.start <= offset).then_some(run.start..end)
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.run_of(offset).is_some()
    }

    /// The runs in order, from `offset` on; the first is cut there.
    pub(crate) fn iter_from(&self, offset: u64) -> impl Iterator<Item = DeadRun> {
        self.runs.iter_from(&offset.saturating_add(1)).map(move |(&end, run)| DeadRun {
            offsets: run.start.max(offset)..end,
            attempts: run.attempts,
            reason: run.reason.clone(),
        })
    }

    /// Adds one message that is not there yet.
    pub(crate) fn insert(&mut self, offset: u64, size: u32, attempts: u32, reason: DeadReason) {
        self.count += 1;
        self.bytes += u64::from(size);
        let right = self.runs.ceiling(&(offset + 1)).map(|(&end, run)| {
            assert!(offset < run.start, "{offset} is dead already");
            (end, run.start == offset + 1 && run.is_like(attempts, &reason))
        });
        let joins_left = self.runs.get(&offset).is_some_and(|run| run.is_like(attempts, &reason));
        let start = match joins_left {
            true => self.runs.remove(&offset).expect("it was just looked at").start,
            false => offset,
        };
        match right {
            Some((end, true)) => self.runs.get_mut(&end).expect("it was just looked at").start = start,
            _ => {
                self.runs.insert(offset + 1, Run { start, attempts, reason });
            }
        }
    }

    /// Takes one message out; says whether it was there.
    pub(crate) fn remove(&mut self, offset: u64, size: u32) -> bool {
        let Some(held) = self.run_of(offset) else { return false };
        let run = self.runs.get_mut(&held.end).expect("the run was just found");
        let left = Run { start: held.start, ..run.clone() };
        run.start = offset + 1;
        if held.end == offset + 1 {
            self.runs.remove(&held.end);
        }
        if held.start < offset {
            self.runs.insert(offset, left);
        }
        self.count -= 1;
        self.bytes = self.bytes.checked_sub(u64::from(size)).expect("the caller saw that it fits");
        true
    }

    /// The runs as offsets only, from `offset` on; the first is cut there.
    pub(crate) fn offsets_from(&self, offset: u64) -> impl Iterator<Item = Range<u64>> {
        let runs = self.runs.iter_from(&offset.saturating_add(1));
        runs.map(move |(&end, run)| run.start.max(offset)..end)
    }

    /// The runs as offsets only, in order.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().map(|(&end, run)| run.start..end)
    }

    /// Takes all of it away, without the bytes: these stay with whoever counts the messages now.
    pub(crate) fn take_runs(&mut self) -> DeadRuns {
        DeadRuns { bytes: 0, ..std::mem::take(self) }
    }

    /// Takes the first run away, where nobody counts bytes.
    pub(crate) fn pop_first(&mut self) -> Option<Range<u64>> {
        let (end, run) = self.runs.pop_first()?;
        self.count -= end - run.start;
        Some(run.start..end)
    }

    /// Without messages yet, and with the bytes of those that [`DeadRuns::append`] adds.
    pub(crate) fn with_bytes(bytes: u64) -> DeadRuns {
        DeadRuns { bytes, ..DeadRuns::default() }
    }

    /// Adds a run behind all others, unless it is empty, overlaps the last one, or should be one with it; says whether it
    /// did.
    pub(crate) fn append(&mut self, run: DeadRun) -> bool {
        let DeadRun { offsets, attempts, reason } = run;
        let is_apart = self.runs.last().is_none_or(|(&end, last)| match last.is_like(attempts, &reason) {
            true => end < offsets.start,
            false => end <= offsets.start,
        });
        let fits = is_apart && offsets.start < offsets.end;
        if fits {
            self.count += offsets.end - offsets.start;
            self.runs.insert(offsets.end, Run { start: offsets.start, attempts, reason });
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn reason(kind: u32) -> DeadReason {
        match kind {
            0 => DeadReason::Expired,
            1 => DeadReason::NackedBecause("a".into()),
            _ => DeadReason::NackedBecause("b".into()),
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_of_messages(steps in proptest::collection::vec((0u64..40, 0u32..3, 0u32..2), 1..150)) {
            let mut dead = DeadRuns::default();
            let mut model: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
            for (offset, kind, attempts) in steps {
                let size = offset as u32 + 1;
                prop_assert_eq!(dead.contains(offset), model.contains_key(&offset));
                if model.remove(&offset).is_some() {
                    prop_assert!(dead.remove(offset, size));
                } else {
                    prop_assert!(!dead.remove(offset, size));
                    dead.insert(offset, size, attempts, reason(kind));
                    model.insert(offset, (attempts, kind));
                }
                let held: Vec<_> = dead.iter_from(0).flat_map(|run| {
                    run.offsets.map(move |offset| (offset, run.attempts, run.reason.clone()))
                }).collect();
                let wanted: Vec<_> = model.iter().map(|(&o, &(attempts, kind))| (o, attempts, reason(kind))).collect();
                prop_assert_eq!(held, wanted);
                prop_assert_eq!(dead.count(), model.len() as u64);
                prop_assert_eq!(dead.bytes(), model.keys().map(|offset| offset + 1).sum::<u64>());
                // Also says that the runs are maximal.
                let mut again = DeadRuns::with_bytes(dead.bytes());
                for run in dead.iter_from(0) {
                    prop_assert!(again.append(run));
                }
                prop_assert_eq!(&again, &dead);
            }
        }
    }
}
