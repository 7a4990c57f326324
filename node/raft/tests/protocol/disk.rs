//! A store in memory that is as strict as a write allows, and as forgetful as a crash may be.

use raftqueue_raft::{Entry, HardState, Index, LoadRequest, LogSlice, Payload, Recovered, Term, Write};
use std::collections::VecDeque;

/// What one node has durably.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    hard_state: HardState,
    entries: Vec<Entry>,
}

impl Disk {
    /// A disk that was filled before the story begins.
    pub(crate) fn with(hard_state: HardState, entries: Vec<Entry>) -> Self {
        Self { hard_state, entries }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == Index(0) { Some(Term(0)) } else { self.entry(index).map(|entry| entry.term) }
    }

    /// Stores a whole write.
    pub(crate) fn store(&mut self, write: &Write) {
        self.store_parts(write, usize::MAX);
    }

    /// Stores the first `parts` parts of a write, as a crash may leave them: the hard state, the truncation, then one
    /// entry after another.
    pub(crate) fn store_parts(&mut self, write: &Write, parts: usize) {
        assert!(write.hard_state() >= self.hard_state, "hard state goes back on disk");
        assert_eq!(write.hard_state_changed(), write.hard_state() != self.hard_state);
        if parts >= 1 {
            self.hard_state = write.hard_state();
        }
        if let Some(from) = write.truncate_from()
            && parts >= 2
        {
            assert!(from <= self.last(), "a truncation at {from} of a log that ends at {}", self.last());
            self.entries.truncate(from.0 as usize - 1);
        }
        for entry in write.entries().iter().take(parts.saturating_sub(2)) {
            assert_eq!(entry.index, self.last().next(), "a write leaves a gap");
            self.entries.push(entry.clone());
        }
    }

    /// Reads what was asked for.
    pub(crate) fn load(&self, request: &LoadRequest) -> LogSlice {
        let mut bytes = 0;
        let mut entries = VecDeque::new();
        for entry in &self.entries[(request.from.0 as usize - 1).min(self.entries.len())..] {
            bytes += entry.size();
            if bytes > request.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push_back(entry.clone());
        }
        LogSlice { to: request.to, from: request.from, entries: entries.into() }
    }

    /// What a node finds when it starts.
    pub(crate) fn recover(&self) -> Recovered {
        let mut term_runs: Vec<(Index, Term)> = Vec::new();
        let mut configurations = Vec::new();
        for entry in &self.entries {
            if term_runs.last().is_none_or(|(_, term)| *term < entry.term) {
                term_runs.push((entry.index, entry.term));
            }
            if let Payload::Config(configuration) = &entry.payload {
                configurations.push((entry.index, configuration.clone()));
            }
        }
        Recovered { hard_state: self.hard_state, last_index: self.last(), term_runs, configurations }
    }
}
