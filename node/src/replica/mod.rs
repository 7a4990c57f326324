//! One node's whole decision-making, as a pure function: Raft, the queue, and the calls that wait for either.
//!
//! [`Replica::handle`] takes one [`Event`]. [`Replica::take_actions`] says what the shell must do about everything
//! handled since. It is called once for each drained batch: so one entry carries every call that waited, one write
//! every entry, one round of heartbeats every read. The driver performs the actions and decides nothing. The simulator
//! drives this very type.
//!
//! The way of a call: [`Event::Call`] notes it; `propose` makes commands of what waits and one entry of the commands;
//! `apply` applies what is committed and finds the calls that it answers. Receives and pops first choose candidates,
//! whose sizes the shell looks up ([`Lookup`]); reads wait for a confirmed read index. A call ends by exactly one
//! reply, at its deadline at the latest. The reply says whether the call may have happened.
//!
//! No turn of the driver is long: large work is done in parts, some in each turn (`steps`).
//!
//! There is no IO here, no clock, no thread and no lock. Message bodies only pass through, on their way into an entry.

mod actions;
mod apply;
mod aside;
mod calls;
mod clock;
mod commands;
mod due;
mod event;
mod expiry;
mod freeze;
mod installing;
mod lines;
mod lookup;
mod members;
pub mod mutants;
mod pipeline;
mod propose;
mod reads;
mod receive;
mod recovery;
mod results;
mod room;
mod settings;
mod steps;
mod unread;
mod versions;
mod view;

pub use actions::Actions;
pub use calls::CallId;
pub use clock::Now;
pub use due::DueBlock;
pub use event::{Event, LoadedEntry, Vitals};
pub use freeze::{Freeze, SnapshotSettings};
pub use installing::{Arrived, Asked, Gift, Given, Living};
pub use lookup::{LookedUp, Lookup, LookupId};
pub use members::{CAUGHT_UP_LAG_MAX, MEMBERS_MAX, WaitingNode};
pub use recovery::Decision;
pub use results::{AppliedEntry, Placement, Results, Shell};
pub use room::RESERVE_BYTES_DEFAULT;
pub use settings::Settings;
pub use view::{Counters, Outstanding, View};

use crate::api::{Failure, Reason};
use calls::{Call, HeldTransfer, Stage};
use clock::Clock;
use expiry::Deadlines;
use freeze::Snapshots;
use members::Members;
use pipeline::Pipeline;
use propose::{Proposed, Unproposed};
use raftqueue_queue::{State, SubscriptionId};
use raftqueue_raft::{
    self as raft, Configuration, Event as RaftEvent, Index, NodeId, Raft, RoleKind, RoleState, Term,
};
use reads::Reads;
use receive::Receives;
use room::Room;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use steps::{Part, Steps};
use unread::Unread;

/// Election timeouts during which a node that could not read its log does not campaign, nor lead if others can.
const UNREADABLE_ELECTIONS: u32 = 4;

/// See the module's header.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    raft: Raft,
    state: State,
    /// Everything up to here is applied to `state`.
    applied: Index,
    /// The configuration as of `applied`, and where it stands.
    configuration: (Index, Arc<Configuration>),
    now: Now,
    clock: Clock,
    calls: BTreeMap<CallId, Call>,
    unproposed: Unproposed,
    /// Entries made by this node that were not applied yet, by index and term.
    proposed: BTreeMap<(Index, Term), Proposed>,
    /// Those of the current term.
    pipeline: Pipeline,
    reads: Reads,
    receives: Receives,
    unread: Unread,
    deadlines: Deadlines,
    snapshots: Snapshots,
    /// Where terms begin, up to the newest snapshot.
    term_runs: Vec<(Index, Term)>,
    /// A snapshot of another node that the protocol has not judged yet.
    arrived: Option<Freeze>,
    /// A snapshot of another node that waits until everything applied here is in one of this node's own.
    arrival: Option<Arrived>,
    /// The entry at this index cannot be had any more, and is not applied: only another node's snapshot has it.
    cut_at: Option<Index>,
    /// Messages may be lacking here, as of the snapshot of another node at this index, or a later state.
    incomplete_since: Option<Index>,
    /// All that is lacking is lost for good, as far as anybody knows: so many messages.
    lost: u64,
    /// Its snapshots are lost: there is nothing that the log could be applied to.
    is_stateless: bool,
    loaded: VecDeque<LoadedEntry>,
    loading_to_apply: bool,
    /// What is left on the disks.
    room: Room,
    actions: Actions,
    counters: Counters,
    /// What the shell last said of the disk.
    disk_stalled: bool,
    /// For so many ticks this node leaves leading to others, because its log could not be read.
    unreadable_ticks: u32,
    /// Who waits to be a member, and calls that wait for a change to be done.
    members: Members,
    /// Calls that asked for a transfer of leadership.
    transfers: Vec<CallId>,
    /// Those whose target is not known to have replayed its log.
    held_transfers: Vec<HeldTransfer>,
    /// Calls that did not happen and are still to be told so, and why.
    endings: VecDeque<(CallId, &'static str)>,
    /// Calls and long polls whose time is up may be left from the last tick.
    ends_calls: bool,
    /// What this turn took.
    steps: Steps,
    /// The term in which this node led when it last looked.
    led: Option<Term>,
    /// The term in which this node proposed that the generation rises.
    raised_in: Option<Term>,
}

impl Replica {
    /// A replica that goes on from what the disk holds: from a snapshot, or from an empty queue where there is none. What
    /// was committed behind that is applied again.
    #[must_use]
    pub fn new(settings: Settings, recovered: raft::Recovered, snapshot: Option<Freeze>) -> Self {
        let (applied, configuration, term_runs, state) = match snapshot {
            None => (Index(0), (Index(0), Arc::default()), Vec::new(), State::default()),
            Some(Freeze { index, configuration_index, configuration, term_runs, state, .. }) => {
                (index, (configuration_index, configuration), term_runs, state)
            }
        };
        let mut clock = Clock::default();
        clock.passed(state.now_ms(), Now::default());
        let snapshots = Snapshots::new(applied, recovered.last_index, &state);
        Self {
            raft: Raft::new(settings.raft.clone(), recovered),
            steps: Steps::new(settings.turn_steps),
            settings,
            state,
            applied,
            configuration,
            now: Now::default(),
            clock,
            calls: BTreeMap::new(),
            unproposed: Unproposed::default(),
            proposed: BTreeMap::new(),
            pipeline: Pipeline::default(),
            reads: Reads::default(),
            receives: Receives::default(),
            unread: Unread::default(),
            deadlines: Deadlines::default(),
            snapshots,
            term_runs,
            arrived: None,
            arrival: None,
            cut_at: None,
            incomplete_since: None,
            lost: 0,
            is_stateless: false,
            loaded: VecDeque::new(),
            loading_to_apply: false,
            room: Room::default(),
            actions: Actions::default(),
            counters: Counters::default(),
            disk_stalled: false,
            unreadable_ticks: 0,
            members: Members::default(),
            transfers: Vec::new(),
            held_transfers: Vec::new(),
            endings: VecDeque::new(),
            ends_calls: false,
            led: None,
            raised_in: None,
        }
    }

    /// Forms a new cluster: see [`Raft::form`].
    pub fn form(&mut self, configuration: Configuration) {
        self.raft.form(configuration);
    }

    /// A turn of the driver begins: what was left from the last one may go on.
    pub fn begin_turn(&mut self) {
        self.steps.begin_turn();
    }

    /// Whether this turn has room for one more event. What is not taken now is taken in the next turn.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.steps.has_room()
    }

    /// Whether something was left to the next turn, which has to come even if nothing happens.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.steps.is_cut()
    }

    /// The steps taken in this turn.
    #[must_use]
    pub fn turn_steps(&self) -> u64 {
        self.steps.taken()
    }

    /// Which part of this turn was too long, if any. No single command, answer or event may cost more than `one_thing`.
    #[must_use]
    pub fn turn_excess(&self, one_thing: u64) -> Option<String> {
        let (part, taken, max) = self.steps.excess(one_thing)?;
        Some(format!("its part {part:?} takes {taken} steps, at most {max} are allowed"))
    }

    /// Takes one event. `now` must not go back on its monotonic side.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        self.steps.enter(Part::Events);
        match event {
            Event::Tick => self.on_tick(),
            Event::Arrived(envelope, vitals) => {
                if let Some(vitals) = vitals {
                    self.clock.note_clock(envelope.from, vitals.wall_ms, now);
                    self.room.learn(envelope.from, vitals.free_bytes);
                }
                self.raft.step(RaftEvent::Arrived(envelope));
            }
            Event::Persisted(persisted) => self.raft.step(RaftEvent::Persisted(persisted)),
            Event::Loaded(slice) => self.raft.step(RaftEvent::Loaded(slice)),
            Event::LoadedToApply(entries) => {
                self.loading_to_apply = false;
                self.loaded = entries.into();
            }
            Event::DiskStalled(stalled) => {
                self.disk_stalled = stalled;
                self.judge_disk();
            }
            Event::LogUnreadable => {
                // That is long enough for a hand-over to fail, and for the others to elect without this node.
                self.unreadable_ticks = UNREADABLE_ELECTIONS * self.settings.raft.election_ticks;
                self.judge_disk();
            }
            Event::Damaged(damaged) => self.raft.step(RaftEvent::Damaged(damaged)),
            Event::Known(index, configuration) => self.raft.step(RaftEvent::Known(index, configuration)),
            Event::Cut(index) => self.on_cut(index),
            Event::FreeBytes(bytes) => {
                self.room.learn(self.raft.id(), bytes);
            }
            Event::PeerGone(id) => self.raft.step(RaftEvent::PeerGone(id)),
            Event::Runs(id, versions) => self.on_runs(id, versions),
            Event::Call { id, request, deadline_ms } => self.on_call(id, request, deadline_ms),
            Event::Cancel(id) => self.cancel(id),
            Event::LookedUp(id, looked_up) => self.on_looked_up(id, looked_up),
            Event::AnswerUnheard(messages) => self.release(&messages),
            Event::MessagesUnreadable { messages, are_leased } => {
                self.on_messages_unreadable(&messages, are_leased);
            }
            Event::Due(blocks) => self.on_due(blocks),
            Event::SnapshotTaken { start } => self.on_snapshot_taken(start),
            Event::SnapshotFailed => self.on_snapshot_failed(),
            Event::SnapshotWanted => self.snapshots.want(),
            Event::FilesRetired => self.on_files_retired(),
            Event::Installed(arrived) => self.on_arrived(*arrived),
            Event::Complete(index) => self.on_complete(index),
            Event::Incomplete(index) => self.on_incomplete(index),
            Event::Lost { index, count } => self.on_lost(index, count),
            Event::Waiting(node) => self.on_waiting(*node),
            Event::HandOver => {
                if let Some(to) = self.raft.best_successor() {
                    // It is refused only while another hand-over is under way, which is as good.
                    let _ = self.raft.transfer_leadership(to);
                }
            }
        }
        self.steps.enter(Part::Events);
    }

    /// Everything to do about the events handled since the last call.
    pub fn take_actions(&mut self) -> Actions {
        if self.actions.fatal.is_none() {
            self.judge_arrival();
            self.end_calls();
            self.steps.enter(Part::Propose);
            self.propose_waiting();
            self.start_reads();
            self.perform_raft_output();
            self.leave_refused();
            self.steps.enter(Part::Apply);
            self.apply_committed();
            self.steps.enter(Part::Read);
            self.answer_reads();
            // Messages that became ready by applying may be asked for, and proposed, at once.
            self.steps.enter(Part::Serve);
            self.serve_waiting();
            self.steps.enter(Part::Propose);
            self.propose_waiting();
            self.perform_raft_output();
            self.steps.enter(Part::Apply);
            self.apply_committed();
            self.freeze_if_due();
        }
        self.steps.enter(Part::Events);
        std::mem::take(&mut self.actions)
    }

    /// The queue as of the last applied index: for checkers and metrics.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The protocol's core: for checkers.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The last applied index.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The active version as of the last applied index; 0 on a blank node.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.configuration.1.version
    }

    /// How many receives and pops wait for messages. The cost is by the topics where they wait.
    #[must_use]
    pub fn receives_waiting(&self) -> usize {
        self.receives.waiting_count()
    }

    /// This node's own view of itself.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            raft: self.raft.status(),
            applied: self.applied,
            generation: self.state.generation().0.max(self.settings.generation),
            configuration: self.raft.configuration().clone(),
            configuration_index: self.raft.configuration_index(),
            own: self.raft.id(),
            waiting: self.waiting().count(),
            calls: self.calls.len(),
            queued_bytes: self.unproposed.bytes(),
            log_time_ahead_ms: if self.raft.is_leader() { self.clock.ahead_ms() } else { 0 },
            counters: self.counters,
        }
    }

    /// What is under way, for checkers: in the end nothing may be left.
    #[must_use]
    pub fn outstanding(&self) -> Outstanding {
        let (lookups, set_aside, in_line) = self.receives.outstanding();
        Outstanding {
            calls: self.calls.len()
                + self.transfers.len()
                + self.held_transfers.len()
                + self.members.outstanding(),
            queued_bytes: self.unproposed.bytes(),
            entries: self.proposed.len(),
            in_flight: self.pipeline.entries(),
            reads: self.reads.outstanding(),
            lookups,
            // A message that cannot be read rests. Nothing is under way with it.
            set_aside: set_aside.saturating_sub(self.unread.count()),
            in_line,
            loaded: self.loaded.len() + usize::from(self.loading_to_apply),
            uncommitted_bytes: self.raft.status().uncommitted_bytes,
        }
    }

    fn on_tick(&mut self) {
        if self.unreadable_ticks > 0 {
            self.unreadable_ticks -= 1;
            self.judge_disk();
        }
        self.raft.step(RaftEvent::Tick);
        self.want_state();
        self.ends_calls = true;
        self.snapshots.tick();
        self.steps.enter(Part::Tick);
        self.try_unread_again();
        self.propose_time();
        self.leave_full_disk();
        self.begin_held_transfers();
        self.answer_transfers();
    }

    /// A leader that cannot read what its followers lack feeds nobody and commits nothing, however well they hear it.
    /// So it gives way, like one whose disk hangs. Another node may have what it lacks.
    fn judge_disk(&mut self) {
        let is_unreadable = self.unreadable_ticks > 0;
        let stalled = self.disk_stalled || is_unreadable;
        self.raft.step(RaftEvent::DiskStalled(stalled));
    }

    fn perform_raft_output(&mut self) {
        self.raft.step(RaftEvent::Applied(self.applied));
        let output = self.raft.take_output();
        let vitals = Vitals { wall_ms: self.now.wall_ms, free_bytes: self.room.free_bytes(self.raft.id()) };
        if let Some(write) = output.write {
            assert!(self.actions.write.is_none(), "one write is out at a time");
            self.actions.write = Some(write);
        }
        self.actions.send.extend(output.send.into_iter().map(|envelope| (envelope, vitals)));
        self.actions.load.extend(output.load);
        self.actions.install = output.install.or(self.actions.install.take());
        if let Some((index, _)) = output.installed {
            self.take_over(index);
        }
        self.actions.alarms.extend(output.alarms);
        for (read, result) in output.reads {
            self.on_read(read, result);
        }
        if let Some(role) = output.role {
            self.actions.role = Some(role);
            self.on_role(role);
        }
    }

    /// Leadership came or went. Calls that were not proposed can be made to the next leader. Calls that were proposed
    /// are answered when their index is applied, whoever leads by then.
    fn on_role(&mut self, role: RoleState) {
        let leads = (role.role == RoleKind::Leader).then_some(role.term);
        if self.led.is_some() && self.led != leads {
            self.pipeline = Pipeline::default();
            self.unproposed.clear();
            // A `Time` that waited or was proposed may never be applied.
            self.deadlines.time_applied();
            self.reads.clear();
            let now_ms = self.state.now_ms();
            Self::look_again_at(&mut self.actions.results, self.receives.overdue_blocks(), now_ms);
            self.receives.clear();
            self.unread.leave();
            self.steps.look_at(self.calls.len());
            let dropped = self
                .calls
                .iter()
                .filter(|(_, call)| !matches!(call.stage, Stage::Proposed | Stage::Transferring))
                .map(|(id, _)| (*id, "this node no longer leads"));
            self.endings.extend(dropped);
        }
        self.led = leads;
        self.answer_transfers();
    }

    /// The subscription of that name. Every topic has `default`, and so far only that.
    fn subscription(name: &str) -> Result<SubscriptionId, Failure> {
        if name.is_empty() || name == SubscriptionId::DEFAULT_NAME {
            return Ok(SubscriptionId::DEFAULT);
        }
        Err(Failure::not_done(
            Reason::SubscriptionNotFound,
            format!("there is no subscription `{name}`; every topic has `{}`", SubscriptionId::DEFAULT_NAME),
        ))
    }

    /// True if this leader's peer has not said yet that it has applied what was committed when it started.
    fn is_peer_replaying(&self, peer: NodeId) -> bool {
        self.raft.status().peers.iter().any(|status| status.id == peer && status.replaying)
    }
}

#[cfg(test)]
mod tests;
