//! The messages of one subscription that are offered to calls whose commands are not applied yet.

use raftqueue_queue::{SubscriptionId, TopicId};
use std::collections::BTreeMap;
use std::ops::Range;

/// A subscription of a topic.
pub(super) type Target = (TopicId, SubscriptionId);

/// Offsets as runs: they are chosen in order, so ten thousand of them are a run or two. Runs do not overlap or touch.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// The end of each run by its start.
    runs: BTreeMap<u64, u64>,
    count: usize,
    /// Every ready message before this one is set aside: where to look first.
    first_free: u64,
}

impl Aside {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn first_free(&self) -> u64 {
        self.first_free
    }

    /// Something is, or may be, ready and free from this offset on.
    pub(super) fn is_free_from(&mut self, offset: u64) {
        self.first_free = self.first_free.min(offset);
    }

    /// Sets aside the first `count_max` offsets of these runs that are not set aside yet. The runs must rise and begin
    /// at [`Aside::first_free`]. The cost is by runs; also returns how many were looked at.
    pub(super) fn choose(
        &mut self,
        ready: impl Iterator<Item = Range<u64>>,
        count_max: usize,
    ) -> (Vec<u64>, usize) {
        let mut chosen = Vec::new();
        let mut taken: Vec<Range<u64>> = Vec::new();
        let mut looked_at = 0;
        // If everything ready was seen, the next message to become ready must be told.
        let mut first_free = u64::MAX;
        'ready: for run in ready {
            let mut from = run.start;
            while from < run.end {
                looked_at += 1;
                let before = self.runs.range(..=from).next_back().map(|(_, end)| *end);
                if let Some(end) = before.filter(|end| from < *end) {
                    from = end;
                    continue;
                }
                let next = self.runs.range(from..).next().map_or(run.end, |(start, _)| run.end.min(*start));
                let room = (count_max - chosen.len()) as u64;
                let to = next.min(from.saturating_add(room));
                if from < to {
                    chosen.extend(from..to);
                    taken.push(from..to);
                }
                if chosen.len() == count_max {
                    first_free = to;
                    break 'ready;
                }
                from = to;
            }
        }
        taken.into_iter().for_each(|run| self.insert(run));
        self.first_free = first_free;
        (chosen, looked_at)
    }

    /// Adds a run; none of its offsets may be there.
    fn insert(&mut self, run: Range<u64>) {
        self.count += usize::try_from(run.end - run.start).expect("what is chosen is in memory");
        let end = self.runs.remove(&run.end).unwrap_or(run.end);
        if let Some((_, left)) = self.runs.range_mut(..run.start).next_back()
            && *left == run.start
        {
            *left = end;
        } else {
            self.runs.insert(run.start, end);
        }
    }

    /// Sets a run aside, even if parts of it are already, and whether it is ready or not.
    pub(super) fn keep(&mut self, run: Range<u64>) {
        let first_free = self.first_free;
        self.remove(run.clone());
        self.insert(run);
        self.first_free = first_free;
    }

    /// Gives back those offsets of a run that are set aside.
    pub(super) fn remove(&mut self, run: Range<u64>) {
        self.is_free_from(run.start);
        while let Some((&start, &end)) = self.runs.range(..run.end).next_back()
            && run.start < end
        {
            self.runs.remove(&start);
            if start < run.start {
                self.runs.insert(start, run.start);
            }
            if run.end < end {
                self.runs.insert(run.end, end);
            }
            let (from, to) = (start.max(run.start), end.min(run.end));
            self.count -= usize::try_from(to - from).expect("it was counted");
        }
    }
}

/// Neighbours among rising offsets, together.
pub(super) fn runs(offsets: impl Iterator<Item = u64>) -> impl Iterator<Item = Range<u64>> {
    let mut offsets = offsets.peekable();
    std::iter::from_fn(move || {
        let start = offsets.next()?;
        let mut end = start.saturating_add(1);
        while offsets.next_if_eq(&end).is_some() {
            end += 1;
        }
        Some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_offsets(
            ready in prop::collection::btree_set(0u64..150, 0..100),
            steps in prop::collection::vec((any::<bool>(), 0u64..150, 1u64..20), 0..80),
        ) {
            let mut aside = Aside::default();
            let mut model: BTreeSet<u64> = BTreeSet::new();
            let mut ready = ready;
            for (chooses, from, count) in steps {
                if chooses {
                    let wanted: Vec<u64> =
                        ready.iter().filter(|offset| !model.contains(offset)).take(count as usize).copied().collect();
                    let first = aside.first_free();
                    prop_assert!(ready.range(..first).all(|offset| model.contains(offset)), "before {}", first);
                    let offered = runs(ready.range(first..).copied());
                    let (chosen, _) = aside.choose(offered, count as usize);
                    prop_assert_eq!(&chosen, &wanted);
                    model.extend(chosen);
                } else if count % 4 == 3 {
                    aside.keep(from..from + count);
                    model.extend(from..from + count);
                } else if count % 3 == 0 {
                    // These were taken for good, which is reported like giving back.
                    (from..from + count).for_each(|offset| {
                        ready.remove(&offset);
                        model.remove(&offset);
                    });
                    aside.remove(from..from + count);
                } else if count % 3 == 1 {
                    aside.remove(from..from + count);
                    (from..from + count).for_each(|offset| {
                        model.remove(&offset);
                    });
                } else {
                    ready.insert(from);
                    aside.is_free_from(from);
                }
                prop_assert_eq!(aside.count(), model.len());
                let held: Vec<u64> = aside.runs.iter().flat_map(|(start, end)| *start..*end).collect();
                prop_assert_eq!(held, model.iter().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn ten_thousand_that_choose_one_each_look_at_a_run_or_two() {
        let mut aside = Aside::default();
        for offset in 0..10_000 {
            let first = aside.first_free();
            let (chosen, looked_at) = aside.choose(std::iter::once(first..10_000), 1);
            assert!(chosen == [offset] && looked_at <= 2, "{looked_at} for {chosen:?}");
        }
        assert_eq!((aside.runs.len(), aside.count()), (1, 10_000));
    }
}
