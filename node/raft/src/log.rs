//! What the core knows of its log: where it begins, the term of every index, the newest entries, and which index is durable.
//!
//! Entries live on disk. Memory holds those that are not durable yet, and a tail of older ones that is bounded in
//! bytes. Followers are fed and commits applied from that tail. The shell loads still older entries on request. The oldest
//! are gone: the log begins behind an index whose term and configuration it still knows. It knows nothing of what came
//! before.

mod beginning;

use crate::mutants::{self, Mutant};
use crate::{Configuration, Entry, HardState, Index, Payload, Recovered, Term, Write};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

/// Invariants:
/// - `runs` begins with the index before the first entry and its term; its indexes rise and its terms rise; it covers every
///   index from there to `last`;
/// - `configurations` holds the one in force where the log begins, and all behind it;
/// - `window` is contiguous and ends at `last`, or is empty;
/// - every index after `durable` and the beginning is in `window`; `durable < unwritten_from <= last + 1`;
/// - `durable` is 0 while the disk's log does not begin where this one does.
#[derive(Debug)]
pub(crate) struct Log {
    runs: Vec<(Index, Term)>,
    last: Index,
    window: VecDeque<Entry>,
    window_bytes: usize,
    configurations: Vec<(Index, Arc<Configuration>)>,
    empty: Arc<Configuration>,
    durable: Index,
    unwritten_from: Index,
    /// The disk's log has yet to begin behind this index.
    reset: Option<(Index, Term)>,
    truncate_from: Option<Index>,
    in_flight: Option<InFlight>,
    sequence: u64,
    hard_state: HardState,
    hard_state_durable: HardState,
}

/// The one write that is out.
#[derive(Debug)]
struct InFlight {
    sequence: u64,
    /// The index of *this* log that will be durable when the write is done. A truncation that overtakes the write
    /// lowers it, so the receipt for old entries never counts for those that replaced them.
    durable: Index,
    hard_state: HardState,
}

impl Log {
    pub(crate) fn new(recovered: Recovered) -> Self {
        let Recovered { hard_state, start, applied, last_index: last, term_runs, configurations } = recovered;
        assert!(
            start.0 <= applied && applied <= last,
            "applied up to {applied}, the log goes from {} to {last}",
            start.0
        );
        let mut runs = vec![start];
        runs.extend(term_runs.into_iter().filter(|(_, term)| *term != start.1));
        assert!(runs.windows(2).all(|w| w[0] < w[1] && w[0].1 < w[1].1), "term runs must rise: {runs:?}");
        let (run, term) = runs[runs.len() - 1];
        assert!(run <= last, "a term begins at {run}, the log ends at {last}");
        assert!(
            term <= hard_state.term,
            "the log knows term {term}, the hard state only {}",
            hard_state.term
        );
        assert!(
            configurations.windows(2).all(|w| w[0].0 < w[1].0)
                && configurations.last().is_none_or(|(index, _)| *index <= last),
            "configurations must rise and lie within the log"
        );
        assert!(
            start.0 == Index(0) || configurations.first().is_some_and(|(index, _)| *index <= start.0),
            "the configuration in force where the log begins must be known"
        );
        Self {
            runs,
            last,
            window: VecDeque::new(),
            window_bytes: 0,
            configurations,
            empty: Arc::default(),
            durable: last,
            unwritten_from: last.next(),
            reset: None,
            truncate_from: None,
            in_flight: None,
            sequence: 0,
            hard_state,
            hard_state_durable: hard_state,
        }
    }

    /// The index before the first entry, and its term: what is gone ends there.
    pub(crate) fn start(&self) -> (Index, Term) {
        self.runs[0]
    }

    pub(crate) fn last(&self) -> Index {
        self.last
    }

    pub(crate) fn last_term(&self) -> Term {
        self.term_at(self.last).expect("the last entry has a term")
    }

    /// The greatest index that is on this node's own disk, in this log.
    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// True if this term and vote would survive a crash now.
    pub(crate) fn is_hard_state_durable(&self) -> bool {
        mutants::is(Mutant::SkipVoteSync) || self.hard_state_durable == self.hard_state
    }

    /// Enters a term or casts a vote; neither ever goes back.
    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        let before = self.hard_state;
        assert!(
            hard_state.term > before.term
                || hard_state.term == before.term
                    && (before.vote.is_none() || hard_state.vote == before.vote),
            "hard state goes back: {before:?} to {hard_state:?}"
        );
        self.hard_state = hard_state;
    }

    /// The term of the entry at `index`; `None` beyond the end, and before the beginning, where it is not known any more.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        Some(self.runs[run].1)
    }

    /// The greatest index, up to `index`, whose term is not above `term`. A log that has `term` at `index` cannot agree
    /// with this one beyond it. `None` if that is before the beginning.
    pub(crate) fn find_agreement(&self, index: Index, term: Term) -> Option<(Index, Term)> {
        let index = index.min(self.last);
        let run = self.runs.partition_point(|(first, t)| *first <= index && *t <= term).checked_sub(1)?;
        let end = self.runs.get(run + 1).map_or(self.last, |(next, _)| next.prev());
        Some((end.min(index), self.runs[run].1))
    }

    /// The greatest index, up to `last`, that has the same term here and in a log whose terms begin at `runs`: up to there the
    /// two are the same. `None` if that is before the beginning of either.
    pub(crate) fn agreement_with(&self, runs: &[(Index, Term)], last: Index) -> Option<Index> {
        let run_at = |runs: &[(Index, Term)], index| {
            let run = runs.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
            Some(runs[run])
        };
        let mut index = last.min(self.last);
        loop {
            let ((own_first, own), (first, term)) = (run_at(&self.runs, index)?, run_at(runs, index)?);
            match own.cmp(&term) {
                Ordering::Equal => return Some(index),
                Ordering::Greater => index = own_first.prev(),
                Ordering::Less => index = first.prev(),
            }
        }
    }

    /// Where terms begin in this log. The first stands where the log begins, although its term may have begun before.
    pub(crate) fn term_runs(&self) -> &[(Index, Term)] {
        &self.runs
    }

    /// True if a log that ends with (`index`, `term`) holds everything that can be committed of this one.
    pub(crate) fn is_up_to_date(&self, index: Index, term: Term) -> bool {
        mutants::is(Mutant::VoteForShorterLog) || (term, index) >= (self.last_term(), self.last)
    }

    /// The configuration in force: the newest in the log, committed or not (Ongaro's dissertation, section 4.1).
    pub(crate) fn configuration(&self) -> &Arc<Configuration> {
        self.configurations.last().map_or(&self.empty, |(_, configuration)| configuration)
    }

    /// Where the configuration in force stands, which may be before the beginning; 0 if there is none.
    pub(crate) fn configuration_index(&self) -> Index {
        self.configurations.last().map_or(Index(0), |(index, _)| *index)
    }

    /// The newest configuration at or before `index`.
    pub(crate) fn configuration_at(&self, index: Index) -> Option<&Arc<Configuration>> {
        let count = self.configurations.partition_point(|(at, _)| *at <= index);
        count.checked_sub(1).map(|i| &self.configurations[i].1)
    }

    /// What the configuration at an index says, where that was not known.
    pub(crate) fn know_configuration(&mut self, index: Index, configuration: Arc<Configuration>) {
        // One that was cut off meanwhile, or has an entry of another leader in its place, is not known of any more.
        let is_here = index > self.start().0 && index <= self.durable && index < self.unwritten_from;
        let at = self.configurations.partition_point(|(at, _)| *at < index);
        if is_here && self.configurations.get(at).is_none_or(|(at, _)| *at != index) {
            self.configurations.insert(at, (index, configuration));
        }
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last.next(), "appended entries are consecutive");
        let last_term = self.last_term();
        assert!(entry.term >= last_term, "terms rise: {} after {last_term}", entry.term);
        if entry.term > last_term {
            self.runs.push((entry.index, entry.term));
        }
        if let Payload::Config(configuration) = &entry.payload {
            self.configurations.push((entry.index, Arc::clone(configuration)));
        }
        self.last = entry.index;
        self.window_bytes += entry.size();
        self.window.push_back(entry);
    }

    /// Cuts off everything from `from` on.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(
            from > self.start().0 && from <= self.last,
            "nothing to cut at {from}, the log goes from {} to {}",
            self.start().0,
            self.last
        );
        while let Some(entry) = self.window.pop_back_if(|entry| entry.index >= from) {
            self.window_bytes -= entry.size();
        }
        self.runs.retain(|(first, _)| *first < from);
        if !mutants::is(Mutant::KeepTruncatedConfiguration) {
            self.configurations.retain(|(index, _)| *index < from);
        }
        self.last = from.prev();
        if from < self.unwritten_from {
            self.truncate_from = Some(self.truncate_from.map_or(from, |earlier| earlier.min(from)));
            self.unwritten_from = from;
        }
        if !mutants::is(Mutant::StaleDurableAfterTruncation) {
            self.durable = self.durable.min(self.last);
            if let Some(in_flight) = &mut self.in_flight {
                in_flight.durable = in_flight.durable.min(self.last);
            }
        }
    }

    /// The entry at `index` if it is in memory.
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let first = self.window.front()?.index;
        self.window.get(usize::try_from(index.0.checked_sub(first.0)?).ok()?)
    }

    /// Entries from `from` on, up to `bytes_max` but at least one. `None` if the first is not in memory.
    pub(crate) fn slice(&self, from: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.window.front()?.index;
        let start = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let mut bytes = 0;
        let entries: Vec<_> = self
            .window
            .range(start..)
            .take_while(|entry| {
                bytes += entry.size();
                bytes <= bytes_max || bytes == entry.size()
            })
            .cloned()
            .collect();
        (!entries.is_empty()).then_some(entries)
    }

    /// The next write, if there is something to make durable and no other write is out.
    pub(crate) fn take_write(&mut self, bytes_max: usize) -> Option<Write> {
        let hard_state_changed = self.hard_state != self.hard_state_durable;
        let nothing = !hard_state_changed
            && self.reset.is_none()
            && self.truncate_from.is_none()
            && self.unwritten_from > self.last;
        if self.in_flight.is_some() || nothing {
            return None;
        }
        let entries = self.slice(self.unwritten_from, bytes_max).unwrap_or_default();
        self.unwritten_from = entries.last().map_or(self.unwritten_from, |entry| entry.index.next());
        self.sequence += 1;
        self.in_flight = Some(InFlight {
            sequence: self.sequence,
            durable: self.unwritten_from.prev(),
            hard_state: self.hard_state,
        });
        Some(Write {
            sequence: self.sequence,
            hard_state: self.hard_state,
            hard_state_changed,
            reset: self.reset.take(),
            truncate_from: self.truncate_from.take(),
            entries,
        })
    }

    pub(crate) fn persisted(&mut self, sequence: u64) {
        let in_flight = self.in_flight.take().expect("a receipt belongs to a write");
        assert_eq!(in_flight.sequence, sequence, "receipts come for the one write that is out");
        self.hard_state_durable = in_flight.hard_state;
        self.durable = if mutants::is(Mutant::StaleDurableAfterTruncation) {
            self.durable.max(in_flight.durable).min(self.last)
        } else {
            in_flight.durable
        };
    }

    /// Drops the oldest entries from memory: those that are durable and applied, down to `bytes_max`. If applying is
    /// far behind, it also drops entries that are only durable, down to four times `bytes_max`.
    pub(crate) fn evict(&mut self, applied: Index, bytes_max: usize) {
        while let Some(first) = self.window.front() {
            let over =
                self.window_bytes > bytes_max && first.index <= applied || self.window_bytes > 4 * bytes_max;
            if !over || first.index > self.durable {
                break;
            }
            self.window_bytes -= first.size();
            self.window.pop_front();
        }
    }

    pub(crate) fn window_bytes(&self) -> usize {
        self.window_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn entry(index: u64, term: u64) -> Entry {
        Entry { index: Index(index), term: Term(term), payload: Payload::Noop }
    }

    pub(super) fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(Recovered::default());
        for (i, term) in terms.iter().enumerate() {
            log.append(entry(i as u64 + 1, *term));
        }
        log
    }

    pub(super) fn persist(log: &mut Log) {
        let write = log.take_write(usize::MAX).unwrap();
        log.persisted(write.sequence);
    }

    #[test]
    fn terms_are_kept_as_runs() {
        let log = log(&[1, 1, 3, 3, 3, 7]);
        assert_eq!(log.runs.len(), 4);
        let terms: Vec<_> = (0..8).map(|i| log.term_at(Index(i)).map(|t| t.0)).collect();
        assert_eq!(terms, [Some(0), Some(1), Some(1), Some(3), Some(3), Some(3), Some(7), None]);
    }

    #[test]
    fn agreement_is_the_greatest_index_with_a_term_not_above() {
        let log = log(&[1, 1, 3, 3, 3, 7]);
        for (index, term, expected) in [
            (6, 7, (6, 7)),
            (9, 9, (6, 7)),
            (6, 6, (5, 3)),
            (4, 3, (4, 3)),
            (5, 2, (2, 1)),
            (1, 5, (1, 1)),
            (3, 0, (0, 0)),
        ] {
            let (i, t) = log.find_agreement(Index(index), Term(term)).expect("it begins at 0");
            assert_eq!((i.0, t.0), expected, "for index {index}, term {term}");
        }
    }

    #[test]
    fn a_receipt_for_overwritten_entries_makes_nothing_durable() {
        let mut log = log(&[1, 1, 1]);
        let old = log.take_write(usize::MAX).unwrap();
        log.truncate(Index(2));
        log.append(entry(2, 2));
        log.append(entry(3, 2));
        log.persisted(old.sequence);
        assert_eq!(log.durable(), Index(1));
        let new = log.take_write(usize::MAX).unwrap();
        assert_eq!(new.truncate_from(), Some(Index(2)));
        assert_eq!(new.entries().len(), 2);
        log.persisted(new.sequence);
        assert_eq!(log.durable(), Index(3));
    }

    #[test]
    fn truncating_what_was_never_written_needs_no_record() {
        let mut log = log(&[1]);
        persist(&mut log);
        log.append(entry(2, 1));
        log.truncate(Index(2));
        assert!(log.take_write(usize::MAX).is_none());
    }

    #[test]
    fn writes_are_cut_by_bytes_and_never_empty_handed() {
        let mut log = log(&[1, 1, 1]);
        let size = entry(1, 1).size();
        for (bytes_max, count) in [(1, 1), (2 * size, 2)] {
            let write = log.take_write(bytes_max).unwrap();
            assert_eq!(write.entries().len(), count);
            log.persisted(write.sequence);
        }
        assert_eq!(log.durable(), Index(3));
    }

    #[test]
    fn eviction_spares_what_is_not_durable() {
        let mut log = log(&[1, 1, 1]);
        log.evict(Index(3), 0);
        assert!(log.entry(Index(1)).is_some());
        persist(&mut log);
        log.evict(Index(2), entry(1, 1).size());
        assert!(log.entry(Index(2)).is_none() && log.entry(Index(3)).is_some());
        assert!(log.slice(Index(2), usize::MAX).is_none());
        assert_eq!(log.window_bytes(), entry(3, 1).size());
    }
}
