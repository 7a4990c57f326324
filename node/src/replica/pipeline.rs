//! Group commit: when the next entry begins.
//!
//! An entry costs the three nodes some 600 microseconds of processor however little it carries (2 cores, loopback: one write and one
//! sync each, the messages between them, and the threads that wake for it), and a small command in it some 25. So an entry that
//! carries little waits for the one that is on its way: what comes meanwhile shares its costs, and what that saves is worth more than
//! the wait. Few commands are an exception: they wait for nobody, since the next entry would carry no more. Much is another one: it
//! pays for itself, and keeps disks and network busy together.
//!
//! Nothing here depends on time. How long a flush takes decides by itself how much comes meanwhile.

use super::settings::Settings;

/// So many commands, on their way and waiting, are few.
const FEW: usize = 4;
/// So many commands are worth an entry of their own.
const MUCH: usize = 32;
/// So many bytes are.
const MUCH_BYTES: usize = 256 << 10;

/// The entries that this leader has proposed and not applied, in its current term.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    entries: usize,
    /// In these entries.
    commands: usize,
}

impl Pipeline {
    /// How many entries there are.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// An entry with so many commands is on its way.
    pub(super) fn began(&mut self, commands: usize) {
        self.entries += 1;
        self.commands += commands;
    }

    /// It is applied.
    pub(super) fn ended(&mut self, commands: usize) {
        self.entries = self.entries.saturating_sub(1);
        self.commands = self.commands.saturating_sub(commands);
    }

    /// Whether the next entry begins with what waits: so many commands, of so many bytes.
    pub(super) fn may_begin(&self, waiting: usize, bytes: usize, settings: &Settings) -> bool {
        let is_much = waiting >= MUCH || bytes >= MUCH_BYTES.min(settings.entry_bytes_target);
        let is_few = waiting + self.commands <= FEW;
        waiting > 0
            && self.entries < settings.entries_in_flight_max
            && (self.entries == 0 || is_much || is_few)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(raftqueue_raft::Settings::new(raftqueue_raft::NodeId(1), 0))
    }

    fn may_begin(pipeline: &Pipeline, waiting: usize, bytes: usize) -> bool {
        pipeline.may_begin(waiting, bytes, &settings())
    }

    #[test]
    fn few_commands_wait_for_no_entry() {
        let mut pipeline = Pipeline::default();
        for _ in 0..FEW {
            assert!(may_begin(&pipeline, 1, 1_024));
            pipeline.began(1);
        }
        assert_eq!(pipeline.entries(), FEW);
    }

    #[test]
    fn more_commands_wait_for_the_entry_that_is_on_its_way() {
        let mut pipeline = Pipeline::default();
        pipeline.began(10);
        for waiting in [1, 10] {
            assert!(!may_begin(&pipeline, waiting, 1_024), "{waiting} would be on their way with ten");
        }
        pipeline.ended(10);
        assert!(may_begin(&pipeline, 10, 10_240));
        pipeline.began(1);
        assert!(may_begin(&pipeline, 1, 1_024), "the ten are forgotten");
    }

    #[test]
    fn much_waits_for_nobody_until_the_pipeline_is_full() {
        let mut pipeline = Pipeline::default();
        pipeline.began(10);
        assert!(may_begin(&pipeline, MUCH, 1));
        pipeline.began(MUCH);
        assert!(may_begin(&pipeline, 1, MUCH_BYTES));
        while pipeline.entries() < settings().entries_in_flight_max {
            pipeline.began(1);
        }
        assert!(!may_begin(&pipeline, MUCH, MUCH_BYTES));
    }

    #[test]
    fn nothing_is_never_proposed() {
        assert!(!may_begin(&Pipeline::default(), 0, 0));
    }
}
