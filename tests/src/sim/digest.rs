//! Logs as running hashes: two logs that agree at one index agree before it.

use super::random::chain;
use raftqueue_raft::{Entry, HardState, Index, Payload, Term};

/// One index of a log: the term of its entry, and a hash of everything up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) term: Term,
    pub(super) hash: u64,
}

/// A whole log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    steps: Vec<Step>,
}

/// What a disk holds for certain: what the worst power cut would leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) hard_state: HardState,
    pub(super) trail: Trail,
}

impl Trail {
    pub(super) fn last(&self) -> Index {
        Index(self.steps.len() as u64)
    }

    pub(super) fn at(&self, index: Index) -> Option<Step> {
        self.steps.get(position(index)?).copied()
    }

    pub(super) fn truncate(&mut self, from: Index) {
        self.steps.truncate(position(from).expect("nothing is cut before the first entry"));
    }

    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// The step that `entry` makes when it follows this log.
    pub(super) fn step_of(&self, entry: &Entry) -> Step {
        step_after(self.steps.last().map_or(0, |step| step.hash), entry)
    }

    /// The log up to an index, if the entry there is of this term.
    pub(super) fn up_to(&self, index: Index, term: Term) -> Option<Self> {
        let count = usize::try_from(index.0).ok()?;
        let steps = self.steps.get(..count)?;
        let held = steps.last().map_or(Term(0), |step| step.term);
        (held == term).then(|| Self { steps: steps.to_vec() })
    }

    /// The terms as a log on disk reports them that begins behind an index: the first index of each run.
    pub(super) fn term_runs_behind(&self, start: Index) -> Vec<(Index, Term)> {
        let mut runs: Vec<(Index, Term)> = Vec::new();
        let skipped = usize::try_from(start.0).expect("an index in memory");
        for (step, index) in self.steps.iter().zip(1..).skip(skipped) {
            if runs.last().is_none_or(|(_, term)| *term != step.term) {
                runs.push((Index(index), step.term));
            }
        }
        runs
    }
}

/// The step of an entry behind a log with this hash.
pub(super) fn step_after(hash: u64, entry: &Entry) -> Step {
    Step { term: entry.term, hash: chain(chain(hash, entry.term.0), content(&entry.payload)) }
}

fn content(payload: &Payload) -> u64 {
    match payload {
        Payload::Noop => 1,
        Payload::Config(configuration) => {
            let members = configuration.members.keys().map(|id| id.0);
            let outgoing = configuration.outgoing.iter().map(|id| id.0);
            members.chain([0]).chain(outgoing).fold(u64::from(configuration.version), chain)
        }
        Payload::Command { meta, bodies } => {
            let sizes = chain(meta.len() as u64, bodies.len() as u64);
            let sums = u64::from(crc32c::crc32c(meta)) << 32 | u64::from(crc32c::crc32c(bodies));
            chain(sizes, sums)
        }
    }
}

fn position(index: Index) -> Option<usize> {
    usize::try_from(index.0.checked_sub(1)?).ok()
}
