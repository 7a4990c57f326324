//! Counts how much a replica does in one turn of its driver, so that no turn is long: a leader whose heartbeats wait
//! too long for a turn loses its lead.
//!
//! A step is what moving one message costs, some hundred nanoseconds. A turn has parts. Each does at least one thing,
//! and leaves the rest to the next turn once it has taken [`Settings::turn_steps`](super::Settings::turn_steps). So a
//! part takes at most that number and one thing more, and no part starves another. Nothing here depends on time. In the
//! simulator turns cost no time, so it asks after every turn for [`Replica::turn_excess`](super::Replica::turn_excess).

/// Parts of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Taking events in.
    Events,
    /// What a tick does.
    Tick,
    /// Ending calls for which nobody waits any more.
    Ends,
    /// Ending long polls.
    Waits,
    /// Making entries.
    Propose,
    /// Applying entries.
    Apply,
    /// Answering calls that only look.
    Read,
    /// Looking for messages for those who wait.
    Serve,
}

const PARTS: [Part; 8] =
    [Part::Events, Part::Tick, Part::Ends, Part::Waits, Part::Propose, Part::Apply, Part::Read, Part::Serve];

impl Part {
    /// How often a part may take its number of steps and one thing more.
    fn things(self) -> u64 {
        match self {
            // What five parts choose comes back in the same turn, once it is looked up.
            Part::Events => 6,
            // The one thing is an entry, which is closed one command late.
            Part::Propose | Part::Apply => 2,
            Part::Tick | Part::Ends | Part::Waits | Part::Read | Part::Serve => 1,
        }
    }
}

/// So many things that are only looked at, in memory and in order, count as one step.
const LOOKED_AT: usize = 16;

/// The steps of this turn.
#[derive(Debug)]
pub(super) struct Steps {
    bound: u64,
    part: Part,
    taken: [u64; PARTS.len()],
    /// The most steps that one applied command took. Before its own work it ends up to a thousand things whose time is
    /// over.
    greatest: u64,
    /// Something was left to the next turn.
    is_cut: bool,
}

impl Steps {
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, part: Part::Events, taken: [0; PARTS.len()], greatest: 0, is_cut: false }
    }

    /// The part that took more than it may, how much it took, and the most that it may: its number of steps and one
    /// thing more. When entries are applied the greatest command does not count: the part ends after it.
    pub(super) fn excess(&self, one_thing: u64) -> Option<(Part, u64, u64)> {
        let held = |part: Part| {
            let greatest = if part == Part::Apply { self.greatest } else { 0 };
            (part, self.taken[part as usize] - greatest, part.things() * (self.bound + one_thing))
        };
        PARTS.into_iter().map(held).find(|(_, taken, max)| taken > max)
    }

    pub(super) fn begin_turn(&mut self) {
        *self = Self::new(self.bound);
    }

    /// From here on steps are of this part.
    pub(super) fn enter(&mut self, part: Part) {
        self.part = part;
    }

    pub(super) fn take(&mut self, steps: usize) {
        self.taken[self.part as usize] += steps as u64;
        if self.part == Part::Apply {
            self.greatest = self.greatest.max(steps as u64);
        }
    }

    /// So many were only looked at.
    pub(super) fn look_at(&mut self, count: usize) {
        self.take(count / LOOKED_AT);
    }

    /// Whether this part may do one thing more.
    pub(super) fn has_room(&self) -> bool {
        self.taken[self.part as usize] < self.bound
    }

    /// Whether this part may do one of the things that are still there; if not, they are left to the next turn.
    pub(super) fn may_go_on(&mut self) -> bool {
        let may = self.has_room();
        self.is_cut |= !may;
        may
    }

    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.iter().sum()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }
}
