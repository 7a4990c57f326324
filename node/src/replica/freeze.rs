//! When a snapshot is taken, and of what.
//!
//! A snapshot bounds what a restart applies again and what the log keeps. So one is due when enough was applied since the
//! last one, by bytes of the log or by the work of applying it. On an idle cluster another one follows, at the same index if
//! need be, until the log behind the older of the two is short, and until both know of what was removed: the log is cut
//! before the older one only, and what no message needs any more goes once the older one says so. A purge is a few bytes of
//! the log and may be most of the disk.
//!
//! The state is frozen by cloning it: its maps share their chunks, so that costs one pointer for each 64 topics and sessions,
//! and whatever is changed later is copied a chunk at a time. The shell writes the clone where nobody waits.

use super::Replica;
use raftqueue_queue::State;
use raftqueue_raft::{CommittedLog, Configuration, Event as RaftEvent, Index, TERM_RUNS_MAX, Term};
use std::sync::Arc;

/// Ticks before another snapshot is tried after one that failed: a second.
const PAUSE_TICKS: u32 = 100;
/// Ticks at most from one snapshot that the keeper wants to the next.
const WANT_TICKS_MAX: u32 = 1_000;
/// What a message takes on the disk beside its bytes, about: its place, or its part of an entry.
const MESSAGE_BYTES: u64 = 64;

/// What an entry of so many bytes takes of the log, about. Where the load is light each has a write to itself, which takes
/// whole sectors of 512 bytes; where it is heavy entries are large, and that makes no difference.
pub(super) fn log_bytes(entry_bytes: u64) -> u64 {
    const FRAME_BYTES: u64 = 128;
    (entry_bytes + FRAME_BYTES).next_multiple_of(512)
}

/// The state as of one index: what a snapshot is made of.
#[derive(Clone, Debug)]
pub struct Freeze {
    /// Everything up to here is applied.
    pub index: Index,
    /// The term of the entry there.
    pub term: Term,
    /// Where the configuration in force at the index stands.
    pub configuration_index: Index,
    /// That configuration.
    pub configuration: Arc<Configuration>,
    /// Where the newest terms begin, up to the index: see [`CommittedLog`].
    pub term_runs: Vec<(Index, Term)>,
    /// The queue.
    pub state: State,
}

impl Freeze {
    /// What it tells of the log: everything in it is committed.
    pub(super) fn committed_log(&self, giver_term: Term) -> CommittedLog {
        CommittedLog { last: self.index, term_runs: self.term_runs.clone(), giver_term }
    }
}

/// When snapshots are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// Bytes of the log applied since the last snapshot after which another is due.
    pub bytes: u64,
    /// Steps of applying them after which another is due. A step is what moving one message costs.
    pub steps: u64,
    /// Ticks without anything applied after which the cluster counts as idle.
    pub idle_ticks: u32,
    /// Bytes that may stay on the disk of an idle cluster for nothing: of entries behind the older snapshot, and of messages
    /// that were removed since.
    pub idle_bytes: u64,
}

impl Default for SnapshotSettings {
    /// Two segments; what takes a second or two to apply; five seconds.
    fn default() -> Self {
        Self { bytes: 128 << 20, steps: 2_000_000, idle_ticks: 500, idle_bytes: 1 << 20 }
    }
}

/// How much was applied since snapshots were taken.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    newest: Index,
    /// Bytes and steps applied since the newest.
    bytes: u64,
    steps: u64,
    /// Bytes between the older snapshot and the newest.
    bytes_between: u64,
    /// Bytes of the messages in the older one and in the newest.
    held: [u64; 2],
    under_way: Option<UnderWay>,
    idle_ticks: u32,
    /// It was idle when a snapshot was last due.
    is_idle: bool,
    /// So many are due as soon as the cluster is idle and the log that the process began with is applied, however little that
    /// was. Each process begins a segment, so many starts would leave many.
    idle_due: u8,
    /// The end of that log, as far as it was not cut off since.
    begun_at: Index,
    pause_ticks: u32,
    /// The keeper wants one in so many ticks: bodies are lacking, and it gets them in its rounds.
    wanted_in: Option<u32>,
    /// Ticks to the next one that it wants after that.
    want_ticks: u32,
    /// Another node's snapshot waits for one that has everything applied here.
    is_awaited: bool,
}

/// A snapshot that is being made.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    index: Index,
    /// What had been applied since the one before.
    bytes: u64,
    steps: u64,
    /// Bytes of its messages.
    held: u64,
    /// It was begun on an idle cluster.
    is_idle: bool,
    /// The keeper wants it.
    is_wanted: bool,
}

impl Snapshots {
    /// A process begins with a snapshot of this state at `newest` and a log to `last`.
    pub(super) fn new(newest: Index, last: Index, state: &State) -> Self {
        let held = state.held_bytes(MESSAGE_BYTES);
        Self { newest, held: [held; 2], idle_due: 2, begun_at: last, ..Self::default() }
    }

    /// So many bytes of the log were applied, in so many steps.
    pub(super) fn applied(&mut self, bytes: u64, steps: u64) {
        self.bytes += bytes;
        self.steps += steps;
        self.idle_ticks = 0;
    }

    pub(super) fn tick(&mut self) {
        self.idle_ticks = self.idle_ticks.saturating_add(1);
        self.pause_ticks = self.pause_ticks.saturating_sub(1);
        self.wanted_in = self.wanted_in.map(|ticks| ticks.saturating_sub(1));
    }

    /// The log ends here now.
    fn log_ends(&mut self, last: Index) {
        self.begun_at = self.begun_at.min(last);
    }

    fn is_due(&mut self, applied: Index, settings: &SnapshotSettings, held: impl FnOnce() -> u64) -> bool {
        if self.under_way.is_some() || self.pause_ticks > 0 || applied == Index(0) {
            return false;
        }
        let is_much = self.bytes >= settings.bytes || self.steps >= settings.steps;
        let is_awaited = self.is_awaited && self.newest < applied;
        self.is_idle = self.idle_ticks >= settings.idle_ticks;
        let is_wanted = self.wanted_in == Some(0);
        if is_much || is_wanted || is_awaited || !self.is_idle {
            return is_much || is_wanted || is_awaited;
        }
        self.idle_ticks = 0; // It takes a step for each topic, so it is not looked at again at once.
        let is_long = self.bytes + self.bytes_between > settings.idle_bytes;
        self.idle_due > 0 && applied >= self.begun_at
            || is_long
            || held().saturating_add(settings.idle_bytes) < self.held[0].max(self.held[1])
    }

    fn begin(&mut self, index: Index, held: u64) {
        let is_wanted = self.wanted_in.take_if(|ticks| *ticks == 0).is_some();
        let (bytes, steps, is_idle) = (self.bytes, self.steps, self.is_idle);
        self.under_way = Some(UnderWay { index, bytes, steps, held, is_idle, is_wanted });
    }

    fn taken(&mut self) {
        let Some(UnderWay { index, bytes, steps, held, is_idle, .. }) = self.under_way.take() else {
            return;
        };
        self.newest = index;
        self.bytes_between = bytes;
        self.idle_due = self.idle_due.saturating_sub(u8::from(is_idle && index >= self.begun_at));
        self.held = [self.held[1], held];
        self.bytes = self.bytes.saturating_sub(bytes);
        self.steps = self.steps.saturating_sub(steps);
        // An idle cluster waits as long for the next.
        self.idle_ticks = 0;
    }

    /// The keeper wants one.
    pub(super) fn want(&mut self) {
        if self.wanted_in.is_none() {
            let ticks = self.want_ticks.clamp(PAUSE_TICKS, WANT_TICKS_MAX);
            self.wanted_in = Some(ticks);
            self.want_ticks = 2 * ticks;
        }
    }

    /// Another node's snapshot at this index is this node's now. One that is being made is of a state that is past.
    pub(super) fn installed(&mut self, index: Index, state: &State) {
        let under_way = self.under_way.map(|under_way| UnderWay { index, ..under_way });
        let held = [state.held_bytes(MESSAGE_BYTES); 2];
        *self = Self {
            newest: index,
            held,
            under_way,
            wanted_in: Some(0),
            idle_due: 2,
            begun_at: index,
            ..Self::default()
        };
    }

    /// Whether a snapshot has everything applied here. If not, one is taken soon.
    pub(super) fn is_up_to(&mut self, applied: Index) -> bool {
        let is_up_to = self.under_way.is_none() && self.newest >= applied;
        self.is_awaited = !is_up_to;
        is_up_to
    }

    pub(super) fn set_incomplete(&mut self, incomplete: bool) {
        self.wanted_in = incomplete.then_some(0);
        self.want_ticks = 0;
    }

    fn files_retired(&mut self) {
        self.idle_due = self.idle_due.max(1);
    }

    fn failed(&mut self) {
        let is_wanted = self.under_way.take().is_some_and(|under_way| under_way.is_wanted);
        self.pause_ticks = PAUSE_TICKS;
        if is_wanted {
            self.wanted_in = self.wanted_in.or(Some(PAUSE_TICKS));
        }
    }
}

impl Replica {
    /// Freezes the state if a snapshot is due. It never lies beyond what is durable here (RULES 3.1).
    pub(super) fn freeze_if_due(&mut self) {
        let index = self.applied;
        let held = || self.state.held_bytes(MESSAGE_BYTES);
        self.snapshots.log_ends(self.raft.last_index());
        if !self.snapshots.is_due(index, &self.settings.snapshots, held) {
            return;
        }
        self.raft.step(RaftEvent::Applied(index));
        if self.raft.snapshot_up_to().is_none_or(|most| most < index) {
            return;
        }
        // Without a state nothing is applied, and the log begins later: nothing could be kept (RULES 3.5).
        let Some(term) = self.raft.term_at(index) else { return };
        let (configuration_index, configuration) = self.configuration.clone();
        self.snapshots.begin(index, self.state.held_bytes(MESSAGE_BYTES));
        self.term_runs = term_runs_up_to(index, &self.term_runs, self.raft.term_runs());
        let (term_runs, state) = (self.term_runs.clone(), self.state.clone());
        self.actions.freeze =
            Some(Freeze { index, term, configuration_index, configuration, term_runs, state });
    }

    /// The snapshot that was being made counts; the log begins behind `start` now.
    pub(super) fn on_snapshot_taken(&mut self, start: (Index, Term)) {
        self.snapshots.taken();
        self.raft.step(RaftEvent::Compacted { to: start.0 });
    }

    /// The snapshot that was being made was given up: it is tried again later.
    pub(super) fn on_snapshot_failed(&mut self) {
        self.snapshots.failed();
    }

    /// Files go once the older snapshot does not need them.
    pub(super) fn on_files_retired(&mut self) {
        self.snapshots.files_retired();
    }

    /// The index of the newest snapshot.
    #[must_use]
    pub fn snapshot_index(&self) -> Index {
        self.snapshots.newest
    }
}

/// Where terms begin up to an index: those of an earlier snapshot, then those of the log, whose first is told from where the
/// log begins and has begun before. The newest [`TERM_RUNS_MAX`].
fn term_runs_up_to(index: Index, before: &[(Index, Term)], of_log: &[(Index, Term)]) -> Vec<(Index, Term)> {
    let mut runs = before.to_vec();
    for (first, term) in of_log.iter().filter(|(first, _)| *first > Index(0) && *first <= index) {
        if runs.last().is_none_or(|(_, last)| last < term) {
            runs.push((*first, *term));
        }
    }
    runs.drain(..runs.len().saturating_sub(TERM_RUNS_MAX));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &[(u64, u64)]) -> Vec<(Index, Term)> {
        runs.iter().map(|(first, term)| (Index(*first), Term(*term))).collect()
    }

    #[test]
    fn where_terms_begin_is_known_from_before_the_log_on() {
        let up_to = |index, before: &[(u64, u64)], of_log: &[(u64, u64)]| {
            term_runs_up_to(Index(index), &runs(before), &runs(of_log))
        };
        assert_eq!(up_to(9, &[], &[(0, 0), (1, 2), (5, 3), (10, 7)]), runs(&[(1, 2), (5, 3)]));
        assert_eq!(up_to(9, &[(1, 2), (5, 3)], &[(7, 3), (9, 4)]), runs(&[(1, 2), (5, 3), (9, 4)]));
        assert_eq!(up_to(9, &[(1, 2), (5, 3)], &[(3, 2), (5, 3)]), runs(&[(1, 2), (5, 3)]));
        assert_eq!(up_to(9, &[(1, 2)], &[(1, 2)]), runs(&[(1, 2)]));
        let many: Vec<_> = (1..=1_000).map(|at| (at, at)).collect();
        assert_eq!(up_to(900, &many[..500], &many[400..]), runs(&many[900 - TERM_RUNS_MAX..900]));
    }

    const SETTINGS: SnapshotSettings =
        SnapshotSettings { bytes: 100, steps: 1_000, idle_ticks: 5, idle_bytes: 10 };

    /// Another leader cut the end of the log that the process began with, and nothing comes any more.
    #[test]
    fn what_was_cut_off_is_not_waited_for() {
        let idle = |last: Option<Index>| {
            let mut snapshots = Snapshots::new(Index(7), Index(26), &State::default());
            last.into_iter().for_each(|last| snapshots.log_ends(last));
            (0..SETTINGS.idle_ticks).for_each(|_| snapshots.tick());
            snapshots.is_due(Index(24), &SETTINGS, || 0)
        };
        assert!(!idle(None) && !idle(Some(Index(26))) && idle(Some(Index(24))));
    }

    #[test]
    fn a_snapshot_is_due_by_bytes_or_by_steps() {
        for (bytes, steps) in [(100, 1), (1, 1_000)] {
            let mut snapshots = Snapshots::new(Index(7), Index(8), &State::default());
            snapshots.applied(bytes - 1, steps - 1);
            assert!(!snapshots.is_due(Index(8), &SETTINGS, || 0));
            snapshots.applied(1, 1);
            assert!(snapshots.is_due(Index(9), &SETTINGS, || 0));
            snapshots.begin(Index(9), 0);
            assert!(!snapshots.is_due(Index(9), &SETTINGS, || 0), "one at a time");
            snapshots.applied(50, 10);
            snapshots.failed();
            assert!(!snapshots.is_due(Index(9), &SETTINGS, || 0), "not again at once");
            (0..PAUSE_TICKS).for_each(|_| snapshots.tick());
            assert!(snapshots.is_due(Index(9), &SETTINGS, || 0));
        }
    }

    /// After what a start brings.
    fn settled() -> Snapshots {
        Snapshots { idle_due: 0, ..Snapshots::new(Index(7), Index(8), &State::default()) }
    }

    #[test]
    fn a_start_brings_two_snapshots_once_it_is_idle() {
        let mut snapshots = Snapshots::new(Index(7), Index(8), &State::default());
        let mut taken = Vec::new();
        for tick in 0..100 {
            snapshots.tick();
            if (10..20).contains(&tick) {
                // Traffic makes some due, too: they do not count.
                snapshots.applied(1, 1_000);
            }
            // Idle at first, since there is no leader: nobody knows yet whether the last entry is committed.
            let applied = if tick < 20 { Index(7) } else { Index(8) };
            if snapshots.is_due(applied, &SETTINGS, || 0) {
                snapshots.begin(applied, 0);
                snapshots.taken();
                taken.push(tick);
            }
        }
        let idle: Vec<_> = taken.into_iter().filter(|tick| *tick >= 20).collect();
        assert_eq!(idle, [24, 29], "the log was short before the first of them");
    }

    #[test]
    fn a_keeper_that_lacks_messages_gets_snapshots_more_and_more_rarely() {
        let mut snapshots = settled();
        let mut taken = Vec::new();
        snapshots.set_incomplete(true);
        for tick in 0..6_000 {
            snapshots.tick();
            if snapshots.is_due(Index(8), &SETTINGS, || 0) {
                snapshots.begin(Index(8), 0);
                // One that fails was wanted all the same.
                if taken.len() == 1 {
                    snapshots.failed();
                } else {
                    snapshots.taken();
                    snapshots.want();
                }
                taken.push(tick);
            }
        }
        let pauses: Vec<_> = taken.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..6], [100, 100, 200, 400, 800, 1_000], "{taken:?}");
        assert!(pauses[6..].iter().all(|pause| *pause == 1_000) && taken[0] == 0);
        snapshots.set_incomplete(false);
        (0..2_000).for_each(|_| snapshots.tick());
        assert!(!snapshots.is_due(Index(8), &SETTINGS, || 0));
    }

    #[test]
    fn a_snapshot_that_was_installed_takes_the_place_of_the_one_under_way() {
        for fails in [false, true] {
            let mut snapshots = Snapshots::new(Index(7), Index(8), &State::default());
            snapshots.applied(100, 1);
            snapshots.begin(Index(9), 0);
            snapshots.installed(Index(50), &State::default());
            snapshots.applied(100, 1);
            assert!(!snapshots.is_due(Index(51), &SETTINGS, || 0), "one at a time");
            if fails {
                snapshots.failed();
            } else {
                snapshots.taken();
            }
            assert_eq!(snapshots.newest, Index(50), "what was under way is of a state that is past");
        }
    }

    #[test]
    fn files_that_are_not_needed_any_more_bring_one_more_snapshot() {
        let mut snapshots = settled();
        let mut taken = Vec::new();
        for tick in 0..100 {
            snapshots.tick();
            if snapshots.is_due(Index(8), &SETTINGS, || 0) {
                snapshots.begin(Index(8), 0);
                snapshots.taken();
                taken.push(tick);
            }
            if tick == 20 {
                snapshots.files_retired();
            }
        }
        assert_eq!(taken, [24]);
    }

    #[test]
    fn an_idle_cluster_takes_snapshots_until_the_log_behind_the_older_one_is_short() {
        let mut snapshots = settled();
        snapshots.applied(11, 1);
        let mut count = 0;
        for _ in 0..100 {
            snapshots.tick();
            if snapshots.is_due(Index(8), &SETTINGS, || 0) {
                snapshots.begin(Index(8), 0);
                snapshots.taken();
                count += 1;
            }
        }
        assert_eq!(count, 2, "the second one makes the first the older one");
    }

    #[test]
    fn an_idle_cluster_takes_snapshots_until_both_know_what_was_removed() {
        let mut snapshots = settled();
        for (held, expected) in [(1_000, 0), (989, 2), (5_000, 0), (4_995, 0), (4_989, 2)] {
            let before = snapshots.held[1];
            if held > before {
                // What was published meanwhile is in a snapshot by now.
                (0..2).for_each(|_| {
                    snapshots.begin(Index(8), held);
                    snapshots.taken();
                });
            }
            let mut count = 0;
            for _ in 0..100 {
                snapshots.tick();
                if snapshots.is_due(Index(8), &SETTINGS, || held) {
                    snapshots.begin(Index(8), held);
                    snapshots.taken();
                    count += 1;
                }
            }
            assert_eq!(count, expected, "of {before} bytes {held} are left");
        }
    }
}
