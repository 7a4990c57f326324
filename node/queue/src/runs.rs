//! A set of offsets as runs, so that a backlog costs nothing.

use crate::map::Map;
use std::ops::Range;

/// A set of offsets, held as maximal runs. It costs by runs, not by offsets.
///
/// The map goes from the end of a run (the first offset behind it) to its start. So the commonest change, taking from
/// the front of a run, changes no key. Invariants: runs are not empty, do not overlap and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    starts: Map<u64, u64>,
    count: u64,
}

impl Runs {
    /// How many offsets there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How many runs hold them.
    pub(crate) fn run_count(&self) -> usize {
        self.starts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.starts.first().map(|(_, &start)| start)
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.run_of(offset).is_some()
    }

    /// The run that holds this offset.
    pub(crate) fn run_of(&self, offset: u64) -> Option<Range<u64>> {
        let (&end, &start) = self.starts.ceiling(&offset.saturating_add(1))?;
        (start <= offset).then_some(start..end)
    }

    /// The runs in order, from `offset` on; the first is cut there.
    pub(crate) fn iter_from(&self, offset: u64) -> impl Iterator<Item = Range<u64>> {
        self.starts.iter_from(&offset.saturating_add(1)).map(move |(&end, &start)| start.max(offset)..end)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.starts.iter().map(|(&end, &start)| start..end)
    }

    /// Adds a run; none of its offsets may be there yet.
    pub(crate) fn insert(&mut self, run: Range<u64>) {
        assert!(run.start < run.end, "a run must not be empty: {run:?}");
        let right = self.starts.ceiling(&(run.start + 1)).map(|(&end, &start)| start..end);
        if let Some(right) = &right {
            assert!(run.end <= right.start, "{run:?} overlaps {right:?}");
        }
        let start = self.starts.remove(&run.start).unwrap_or(run.start);
        match right {
            Some(right) if right.start == run.end => {
                *self.starts.get_mut(&right.end).expect("the run was just found") = start;
            }
            _ => {
                self.starts.insert(run.end, start);
            }
        }
        self.count += run.end - run.start;
    }

    /// Takes away a run; all of its offsets must be there.
    pub(crate) fn remove(&mut self, run: Range<u64>) {
        let held = self.run_of(run.start).filter(|held| run.end <= held.end && run.start < run.end);
        let Some(held) = held else { panic!("{run:?} is not all there") };
        if run.end == held.end {
            self.starts.remove(&held.end);
        } else {
            *self.starts.get_mut(&held.end).expect("the run was just found") = run.end;
        }
        if held.start < run.start {
            self.starts.insert(run.start, held.start);
        }
        self.count -= run.end - run.start;
    }

    /// Adds a run unless some of its offsets are there. Returns whether it did.
    pub(crate) fn insert_new(&mut self, run: Range<u64>) -> bool {
        let is_new =
            run.start < run.end && self.iter_from(run.start).next().is_none_or(|held| run.end <= held.start);
        if is_new {
            self.insert(run);
        }
        is_new
    }

    /// Takes one offset away; says whether it was there.
    pub(crate) fn remove_one(&mut self, offset: u64) -> bool {
        let held = self.contains(offset);
        if held {
            self.remove(offset..offset + 1);
        }
        held
    }

    /// Adds a run behind all others, apart from the last; says whether it did.
    pub(crate) fn append(&mut self, run: Range<u64>) -> bool {
        let is_apart = self.starts.last().is_none_or(|(&end, _)| end < run.start);
        let fits = is_apart && run.start < run.end;
        if fits {
            self.starts.insert(run.end, run.start);
            self.count += run.end - run.start;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn model_runs(model: &BTreeSet<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for &offset in model {
            match runs.last_mut() {
                Some(run) if run.end == offset => run.end += 1,
                _ => runs.push(offset..offset + 1),
            }
        }
        runs
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_offsets(steps in proptest::collection::vec((0u64..120, 1u64..12, 0u8..3), 1..120)) {
            let mut runs = Runs::default();
            let mut model = BTreeSet::new();
            for (start, length, kind) in steps {
                let range = start..start + length;
                match kind {
                    0 if range.clone().all(|offset| !model.contains(&offset)) => {
                        runs.insert(range.clone());
                        model.extend(range);
                    }
                    1 if range.clone().all(|offset| model.contains(&offset)) => {
                        runs.remove(range.clone());
                        model.retain(|offset| !range.contains(offset));
                    }
                    2 => prop_assert_eq!(runs.remove_one(start), model.remove(&start)),
                    _ => {}
                }
                prop_assert_eq!(runs.iter().collect::<Vec<_>>(), model_runs(&model));
                prop_assert_eq!(runs.count(), model.len() as u64);
                prop_assert_eq!(runs.contains(start), model.contains(&start));
                let tail: BTreeSet<u64> = model.range(start..).copied().collect();
                prop_assert_eq!(runs.iter_from(start).collect::<Vec<_>>(), model_runs(&tail));
                let mut again = Runs::default();
                for run in runs.iter() {
                    prop_assert!(again.append(run));
                }
                prop_assert_eq!(&again, &runs);
            }
        }
    }

    #[test]
    fn runs_that_touch_overlap_or_are_empty_are_not_taken() {
        for bad in [&[(3, 3)][..], &[(1, 4), (4, 6)], &[(1, 4), (2, 9)], &[(5, 6), (1, 2)], &[(7, 5)]] {
            let mut runs = Runs::default();
            let taken: Vec<bool> = bad.iter().map(|&(start, end)| runs.append(start..end)).collect();
            let mut wanted = vec![true; bad.len()];
            *wanted.last_mut().unwrap() = false;
            assert_eq!(taken, wanted, "{bad:?}");
        }
    }
}
