//! Where a log begins, and how that moves: by compaction, or by a snapshot that another node made.

use super::Log;
use crate::mutants::{self, Mutant};
use crate::{Configuration, Index, Term};
use std::sync::Arc;

impl Log {
    /// The log up to `to` is gone from the disk: what is known of it goes too, but for its last term and configuration.
    pub(crate) fn compact(&mut self, to: Index) {
        let Some(term) = self.term_at(to) else { return };
        assert!(to <= self.durable, "what is gone up to {to} was durable only up to {}", self.durable);
        self.begin_behind(to, term);
        let in_force = self.configurations.partition_point(|(at, _)| *at <= to).saturating_sub(1);
        let forgets = usize::from(mutants::is(Mutant::ForgetConfigurationAtStart));
        self.configurations.drain(..in_force + forgets);
    }

    /// A snapshot has everything up to `start`, with these configurations: the log begins there. What follows the entry
    /// stays if this log holds it, else nothing does. Nothing of this log is durable before the disk's begins there too.
    pub(crate) fn reset(&mut self, start: (Index, Term), configurations: Vec<(Index, Arc<Configuration>)>) {
        let (index, term) = start;
        let keeps = self.term_at(index) == Some(term) && !mutants::is(Mutant::InstallDropsTail);
        if keeps {
            self.begin_behind(index, term);
        } else {
            (self.runs, self.last) = (vec![start], index);
            self.window.clear();
            self.window_bytes = 0;
        }
        if !mutants::is(Mutant::InstallKeepsMembers) {
            self.configurations.retain(|(at, _)| keeps && *at > index);
            self.configurations.splice(0..0, configurations);
        }
        self.unwritten_from = if keeps { self.unwritten_from.max(index.next()) } else { index.next() };
        self.truncate_from = self.truncate_from.filter(|from| keeps && *from > index);
        self.reset = Some(start);
        let of_this_log = |durable: Index| match mutants::is(Mutant::InstalledIsDurable) {
            true => index,
            false if keeps && durable >= index => durable,
            false => Index(0),
        };
        self.durable = of_this_log(self.durable);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.durable = of_this_log(in_flight.durable);
        }
    }

    fn begin_behind(&mut self, index: Index, term: Term) {
        self.runs.retain(|(first, _)| *first > index);
        self.runs.insert(0, (index, term));
        while let Some(entry) = self.window.pop_front_if(|entry| entry.index <= index) {
            self.window_bytes -= entry.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, log, persist};
    use super::*;

    #[test]
    fn what_was_compacted_is_unknown_and_the_rest_is_as_before() {
        let mut log = log(&[1, 1, 3, 3, 3, 7]);
        persist(&mut log);
        let whole = format!("{:?}", log.slice(Index(5), usize::MAX));
        for (to, starts) in [(1, (1, 1)), (4, (4, 3)), (2, (4, 3)), (4, (4, 3))] {
            log.compact(Index(to));
            assert_eq!(log.start(), (Index(starts.0), Term(starts.1)));
        }
        let terms: Vec<_> = (0..8).map(|i| log.term_at(Index(i)).map(|t| t.0)).collect();
        assert_eq!(terms, [None, None, None, None, Some(3), Some(3), Some(7), None]);
        assert_eq!(log.find_agreement(Index(9), Term(6)), Some((Index(5), Term(3))));
        assert_eq!(log.find_agreement(Index(4), Term(3)), Some((Index(4), Term(3))));
        assert_eq!(log.find_agreement(Index(3), Term(9)), None);
        assert_eq!(log.find_agreement(Index(9), Term(2)), None);
        assert!(log.slice(Index(4), usize::MAX).is_none() && log.entry(Index(4)).is_none());
        assert_eq!(format!("{:?}", log.slice(Index(5), usize::MAX)), whole);
        log.compact(Index(6));
        assert_eq!((log.last(), log.last_term(), log.durable()), (Index(6), Term(7), Index(6)));
        assert!(log.window_bytes() == 0 && log.is_up_to_date(Index(6), Term(7)));
        log.append(entry(7, 7));
        assert_eq!(log.take_write(usize::MAX).unwrap().entries().len(), 1);
    }

    #[test]
    #[should_panic(expected = "nothing to cut at 4")]
    fn nothing_is_cut_off_that_was_compacted() {
        let mut log = log(&[1, 1, 3, 3, 3, 7]);
        persist(&mut log);
        log.compact(Index(4));
        log.truncate(Index(4));
    }

    fn reset(log: &mut Log, index: u64, term: u64) {
        log.reset((Index(index), Term(term)), vec![(Index(index - 1), Arc::default())]);
    }

    #[test]
    fn a_receipt_for_a_log_that_a_snapshot_replaced_makes_nothing_durable() {
        let mut log = log(&[1, 1, 1]);
        persist(&mut log);
        (4..=9).for_each(|index| log.append(entry(index, 1)));
        let old = log.take_write(usize::MAX).unwrap();
        log.truncate(Index(7));
        reset(&mut log, 5, 3);
        assert_eq!((log.last(), log.last_term(), log.durable()), (Index(5), Term(3), Index(0)));
        log.persisted(old.sequence);
        assert_eq!(log.durable(), Index(0));
        log.append(entry(6, 3));
        let new = log.take_write(usize::MAX).unwrap();
        assert_eq!((new.reset(), new.truncate_from()), (Some((Index(5), Term(3))), None));
        assert_eq!((new.entries().len(), log.durable()), (1, Index(0)));
        log.persisted(new.sequence);
        assert_eq!((log.durable(), log.configuration_index()), (Index(6), Index(4)));
        assert!(log.take_write(usize::MAX).is_none());
    }

    #[test]
    fn what_follows_a_snapshot_stays_as_durable_as_it_is() {
        for (written, at, durable) in [(6, 4, 6), (3, 4, 0), (4, 4, 4)] {
            let mut log = log(&[1, 1, 1, 2, 2, 2]);
            let write = log.take_write(written * entry(1, 1).size()).unwrap();
            log.persisted(write.sequence);
            reset(&mut log, at, 2);
            assert_eq!((log.start(), log.last()), ((Index(at), Term(2)), Index(6)));
            assert_eq!(log.durable(), Index(durable), "of {written} written");
            let rest = log.take_write(usize::MAX).unwrap();
            assert_eq!(rest.reset(), Some((Index(at), Term(2))));
            assert_eq!(rest.entries().len() as u64, 6 - at.max(written as u64));
            log.persisted(rest.sequence);
            assert_eq!(log.durable(), Index(6));
        }
    }

    #[test]
    fn a_truncation_is_written_only_where_it_is_behind_the_snapshot() {
        for (from, at, written) in [(3, 4, None), (5, 4, Some(Index(5)))] {
            let mut log = log(&[1, 1, 1, 1, 1, 1]);
            persist(&mut log);
            log.truncate(Index(from));
            (from..=6).for_each(|index| log.append(entry(index, 2)));
            let term = log.term_at(Index(at)).unwrap();
            reset(&mut log, at, term.0);
            assert_eq!(log.durable(), if from > at { Index(from - 1) } else { Index(0) });
            assert_eq!(log.take_write(usize::MAX).unwrap().truncate_from(), written);
        }
    }
}
