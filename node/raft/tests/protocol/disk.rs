//! A store in memory that is as strict as a write allows, and as forgetful as a crash may be.

use raftqueue_raft::{
    Configuration, Entry, Found, HardState, Index, Installed, LoadRequest, LogSlice, Payload, Recovered,
    Term, Write,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one node has durably.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    hard_state: HardState,
    /// What was there up to here is gone.
    start: (Index, Term),
    /// The configuration in force there.
    configuration: Option<(Index, Arc<Configuration>)>,
    /// The newest snapshot has everything up to here.
    snapshot: Index,
    /// Snapshots of other nodes that are not this disk's own yet: where each ends, and the configuration in force there.
    staged: BTreeMap<Index, (Index, Arc<Configuration>)>,
    entries: Vec<Entry>,
}

impl Disk {
    /// A disk that was filled before the story begins.
    pub(crate) fn with(hard_state: HardState, entries: Vec<Entry>) -> Self {
        Self { hard_state, entries, ..Self::default() }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(crate) fn start(&self) -> (Index, Term) {
        self.start
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.start.0.0 + self.entries.len() as u64)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.0.checked_sub(self.start.0.0 + 1)?).ok()?)
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.0 { Some(self.start.1) } else { self.entry(index).map(|entry| entry.term) }
    }

    /// The newest configuration at or before `index`.
    pub(crate) fn configuration_at(&self, index: Index) -> Option<(Index, Arc<Configuration>)> {
        let of = |entry: &Entry| match &entry.payload {
            Payload::Config(configuration) => Some((entry.index, Arc::clone(configuration))),
            _ => None,
        };
        let before = self.entries.iter().rev().filter(|entry| entry.index <= index);
        before.filter_map(of).next().or_else(|| self.configuration.clone())
    }

    /// A snapshot is taken of everything up to `snapshot`, and the log is cut up to `to`.
    pub(crate) fn compact(&mut self, to: Index, snapshot: Index) {
        assert!(to <= snapshot && snapshot <= self.last(), "a snapshot of what is not on the disk");
        self.snapshot = self.snapshot.max(snapshot);
        if let Some(term) = self.term_at(to) {
            self.configuration = self.configuration_at(to);
            self.entries.retain(|entry| entry.index > to);
            self.start = (to, term);
        }
    }

    /// A snapshot of another node is here. It becomes this disk's own with the write that says so.
    pub(crate) fn stage(&mut self, installed: &Installed) {
        let in_force = installed.configurations.last().expect("a snapshot has a configuration");
        self.staged.insert(installed.index, in_force.clone());
    }

    /// The log begins behind this index from now on. What follows the entry there stays if it is here.
    fn reset(&mut self, (index, term): (Index, Term)) {
        let configuration = self.staged.remove(&index).expect("a log begins anew with a snapshot");
        let keeps = self.term_at(index) == Some(term);
        self.entries.retain(|entry| keeps && entry.index > index);
        self.start = (index, term);
        self.snapshot = index;
        self.configuration = Some(configuration);
    }

    /// Stores a whole write.
    pub(crate) fn store(&mut self, write: &Write) {
        self.store_parts(write, usize::MAX);
    }

    /// Stores the first `parts` parts of a write, as a crash may leave them: the hard state, the reset, the truncation, then
    /// one entry after another.
    pub(crate) fn store_parts(&mut self, write: &Write, parts: usize) {
        assert!(write.hard_state() >= self.hard_state, "hard state goes back on disk");
        assert_eq!(write.hard_state_changed(), write.hard_state() != self.hard_state);
        if parts >= 1 {
            self.hard_state = write.hard_state();
        }
        if let Some(start) = write.reset()
            && parts >= 2
        {
            self.reset(start);
        }
        if let Some(from) = write.truncate_from()
            && parts >= 3
        {
            assert!(from <= self.last(), "a truncation at {from} of a log that ends at {}", self.last());
            assert!(
                from > self.snapshot,
                "a truncation at {from} of what the snapshot at {} has",
                self.snapshot
            );
            self.entries.retain(|entry| entry.index < from);
        }
        for entry in write.entries().iter().take(parts.saturating_sub(3)) {
            assert_eq!(entry.index, self.last().next(), "a write leaves a gap");
            self.entries.push(entry.clone());
        }
    }

    /// Reads what was asked for.
    pub(crate) fn load(&self, request: &LoadRequest) -> LogSlice {
        let mut bytes = 0;
        let wanted = self.entries.iter().filter(|entry| entry.index >= request.from).take_while(|entry| {
            bytes += entry.size();
            bytes <= request.bytes_max || bytes == entry.size()
        });
        let found = if request.from <= self.start.0 {
            Found::Released
        } else {
            match wanted.cloned().collect::<Vec<_>>() {
                entries if entries.is_empty() => Found::Unreadable,
                entries => Found::Entries(entries),
            }
        };
        LogSlice { to: request.to, from: request.from, found }
    }

    /// What a node finds when it starts.
    pub(crate) fn recover(&self) -> Recovered {
        let mut term_runs: Vec<(Index, Term)> = Vec::new();
        let mut configurations = Vec::from_iter(self.configuration.clone());
        for entry in &self.entries {
            if term_runs.last().is_none_or(|(_, term)| *term < entry.term) {
                term_runs.push((entry.index, entry.term));
            }
            if let Payload::Config(configuration) = &entry.payload {
                configurations.push((entry.index, configuration.clone()));
            }
        }
        Recovered {
            hard_state: self.hard_state,
            start: self.start,
            applied: self.snapshot,
            last_index: self.last(),
            term_runs,
            configurations,
        }
    }
}
