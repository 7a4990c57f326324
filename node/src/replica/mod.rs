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

mod apply;
mod aside;
mod calls;
mod clock;
mod commands;
mod expiry;
mod lines;
pub mod mutants;
mod propose;
mod reads;
mod receive;
mod results;
mod room;
mod steps;
mod unread;

pub use calls::CallId;
pub use clock::Now;
pub use results::{Results, Shell};
pub use room::RESERVE_BYTES_DEFAULT;

use crate::api::{Failure, MessageRef, Reason, Request};
use calls::{Call, HeldTransfer, Stage};
use clock::Clock;
use expiry::Deadlines;
use propose::{Proposed, Unproposed};
use raftqueue_queue::{MessageMeta, State, SubscriptionId, TopicId};
use raftqueue_raft::{
    self as raft, Alarm, Configuration, Envelope, Event as RaftEvent, Index, LoadRequest, LogSlice, NodeId,
    Payload, Persisted, Raft, RoleKind, RoleState, Term, Write,
};
use reads::Reads;
use receive::Receives;
use room::Room;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use steps::{Part, Steps};
use unread::Unread;

/// Election timeouts during which a node that could not read its log does not campaign, nor lead if others can.
const UNREADABLE_ELECTIONS: u32 = 4;

/// Settings of one replica. The leader writes those that decide what a command does into the command.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The protocol's.
    pub raft: raft::Settings,
    /// Bytes of messages after which an entry is closed; one command may be larger.
    pub entry_bytes_target: usize,
    /// Entries proposed and not applied. Beyond that calls wait, and the next entry grows.
    pub entries_in_flight_max: usize,
    /// Bytes of calls that wait to be proposed. Beyond that calls are refused as overloaded.
    pub queued_bytes_max: usize,
    /// Calls that are open at once. Beyond that calls are refused as overloaded.
    pub calls_max: usize,
    /// Steps after which a part of a turn leaves the rest to the next turn, and an entry is closed. A step is what moving one
    /// message costs.
    pub turn_steps: u64,
    /// Free bytes below which a disk counts as full: publishing stops, acknowledging goes on.
    pub reserve_bytes: u64,
    /// Most topics of the cluster.
    pub topics_max: u64,
    /// Most open sessions of the cluster.
    pub sessions_max: u64,
    /// Most (session, topic) pairs of the cluster.
    pub session_pairs_max: u64,
    /// Length of a lease in milliseconds if the caller names none.
    pub lease_ms_default: u64,
    /// Attempts after which a message is dead, for topics that do not say.
    pub attempts_max_default: u32,
}

impl Settings {
    /// The defaults, on top of the protocol's settings.
    #[must_use]
    pub fn new(raft: raft::Settings) -> Self {
        const MIB: usize = 1 << 20;
        Self {
            raft,
            entry_bytes_target: MIB,
            entries_in_flight_max: 4,
            queued_bytes_max: 64 * MIB,
            calls_max: 65_536,
            turn_steps: 10_000,
            reserve_bytes: RESERVE_BYTES_DEFAULT,
            topics_max: raftqueue_queue::TOPICS_MAX_DEFAULT,
            sessions_max: raftqueue_queue::SESSIONS_MAX_DEFAULT,
            session_pairs_max: raftqueue_queue::SESSION_PAIRS_MAX_DEFAULT,
            lease_ms_default: raftqueue_queue::LEASE_MS_DEFAULT,
            attempts_max_default: raftqueue_queue::ATTEMPTS_MAX_DEFAULT,
        }
    }
}

/// What the sender of a peer message says of itself along with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Bytes free on its data disk.
    pub free_bytes: u64,
}

/// Everything that can happen to a replica.
#[derive(Debug)]
pub enum Event {
    /// A tick (10 ms) has passed.
    Tick,
    /// A peer sent a message.
    Arrived(Envelope, Option<Vitals>),
    /// The write that was out is durable.
    Persisted(Persisted),
    /// Entries for a peer were read.
    Loaded(LogSlice),
    /// Entries to be applied were read: consecutive from the index asked for, without bodies; empty if they could not be
    /// read now.
    LoadedToApply(Vec<LoadedEntry>),
    /// The disk does not answer (true), or does again.
    DiskStalled(bool),
    /// An entry of this node's log that is needed, for a peer or to be applied, cannot be read: it rots, or the disk
    /// refuses. This is told each time, besides the empty answer.
    LogUnreadable,
    /// Bytes free on the data disk.
    FreeBytes(u64),
    /// A peer's process is gone, most likely.
    PeerGone(NodeId),
    /// A client's call; the shell mints the id and uses it once.
    Call {
        /// Names the call.
        id: CallId,
        /// What is asked.
        request: Request,
        /// On the monotonic clock; the call is answered by then, with success or without.
        deadline_ms: u64,
    },
    /// The client of a call has gone; it needs no reply, and is dropped if it was not proposed.
    Cancel(CallId),
    /// Answer to a [`Lookup`].
    LookedUp(LookupId, LookedUp),
    /// A receive was answered with these, and its client has gone: they go back.
    AnswerUnheard(Vec<MessageRef>),
    /// Messages of an answer could not be read here.
    MessagesUnreadable {
        /// The messages.
        messages: Vec<MessageRef>,
        /// The call has leased them, and nobody hears of that: they go back.
        are_leased: bool,
    },
    /// The process is about to stop: hand leadership over, if this node leads.
    HandOver,
}

/// An entry read back to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedEntry {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its content; `bodies` may be empty.
    pub payload: Payload,
}

/// Names one [`Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// Messages whose size and deadline are wanted from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Names the answer.
    pub id: LookupId,
    /// The topic.
    pub topic: TopicId,
    /// The messages.
    pub offsets: Vec<u64>,
    /// They are to be taken for good: at most so many bytes of them, but at least one. A message that cannot be read
    /// counts as not found. If `None`, only their places are looked at, not their bodies.
    pub takes_bytes_max: Option<usize>,
}

/// What a [`Lookup`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookedUp {
    /// Those of its messages that could be found, in the order asked for.
    pub found: Vec<raftqueue_queue::Candidate>,
    /// Those that could not.
    pub missing: Vec<u64>,
}

/// Where the messages of one publish stand in the log. Local to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The topic.
    pub topic: TopicId,
    /// The offset of the first message.
    pub first_offset: u64,
    /// Which command of the entry they are.
    pub command: u32,
    /// Bytes before these messages in the bodies of the entry.
    pub position: u64,
    /// When they were published, in log time.
    pub published_ms: u64,
    /// Size, CRC and deadline of each.
    pub messages: Arc<[MessageMeta]>,
}

/// A command entry that was applied, for those who read messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Its index.
    pub index: Index,
    /// Its bodies, unless it was read back without them. Until the index is durable here, they are only in memory.
    pub bodies: Option<bytes::Bytes>,
    /// The messages it published.
    pub placements: Vec<Placement>,
}

/// Everything the shell must do after a batch of events.
#[must_use = "dropping actions loses replies, messages and writes"]
#[derive(Debug, Default)]
pub struct Actions {
    /// To be made durable; the receipt goes back as [`Event::Persisted`].
    pub write: Option<Write>,
    /// To be sent.
    pub send: Vec<(Envelope, Vitals)>,
    /// To be read for peers.
    pub load: Vec<LoadRequest>,
    /// To be read and applied: entries from the first index to the second, both included.
    pub load_to_apply: Option<(Index, Index)>,
    /// Messages to be looked up.
    pub lookups: Vec<Lookup>,
    /// What applying led to, to be carried out.
    pub results: Results,
    /// The new role, term and leader, if one of them changed.
    pub role: Option<RoleState>,
    /// What should never happen; to be logged.
    pub alarms: Vec<Alarm>,
    /// This node cannot read a committed entry, so it cannot go on. It must stop without applying anything more.
    pub fatal: Option<String>,
}

/// Numbers that only rise, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after what they count")]
pub struct Counters {
    pub entries_proposed: u64,
    pub entries_overtaken: u64,
    pub commands_applied: u64,
    pub messages_published: u64,
    pub bytes_published: u64,
    pub messages_delivered: u64,
    pub messages_redelivered: u64,
    pub messages_acknowledged: u64,
    pub messages_nacked: u64,
    pub messages_released: u64,
    pub messages_died: u64,
    pub leases_expired: u64,
    pub calls_refused: u64,
    pub calls_expired: u64,
}

/// A node's own view of itself.
#[derive(Clone, Debug)]
pub struct View {
    /// The protocol's part.
    pub raft: raft::Status,
    /// Last applied index.
    pub applied: Index,
    /// The configuration in force.
    pub configuration: Arc<Configuration>,
    /// Calls that wait for something.
    pub calls: usize,
    /// Bytes of calls that wait to be proposed.
    pub queued_bytes: usize,
    /// On a leader, by how much log time is ahead of the voters' clocks. While it is ahead, it runs at nine tenths of
    /// their rate.
    pub log_time_ahead_ms: u64,
    /// Numbers that only rise.
    pub counters: Counters,
}

/// What a replica holds for what is under way; all zero when nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after what they count")]
pub struct Outstanding {
    pub calls: usize,
    pub queued_bytes: usize,
    /// Made by this node and not applied.
    pub entries: usize,
    /// The same, as the limit on them counts.
    pub in_flight: usize,
    pub reads: usize,
    pub lookups: usize,
    /// Messages that are offered to a call whose command is not applied.
    pub set_aside: usize,
    /// Calls in the lines of those that wait for messages.
    pub in_line: usize,
    /// Read back, to be applied.
    pub loaded: usize,
    /// Bytes that this node, as a leader, has not committed yet.
    pub uncommitted_bytes: usize,
}

/// See the module's header.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    raft: Raft,
    state: State,
    /// Everything up to here is applied to `state`.
    applied: Index,
    /// The active version as of `applied`.
    version: u32,
    now: Now,
    clock: Clock,
    calls: BTreeMap<CallId, Call>,
    unproposed: Unproposed,
    /// Entries made by this node that were not applied yet, by index and term.
    proposed: BTreeMap<(Index, Term), Proposed>,
    /// How many of them are of the current term.
    in_flight: usize,
    reads: Reads,
    receives: Receives,
    unread: Unread,
    deadlines: Deadlines,
    /// Topics that messages left since the last look.
    shrunk: BTreeSet<TopicId>,
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
}

impl Replica {
    /// A replica that goes on from what the disk holds. The state of its queue is empty until entries are applied again.
    #[must_use]
    pub fn new(settings: Settings, recovered: raft::Recovered) -> Self {
        Self {
            raft: Raft::new(settings.raft.clone(), recovered),
            steps: Steps::new(settings.turn_steps),
            settings,
            state: State::default(),
            applied: Index(0),
            version: 0,
            now: Now::default(),
            clock: Clock::default(),
            calls: BTreeMap::new(),
            unproposed: Unproposed::default(),
            proposed: BTreeMap::new(),
            in_flight: 0,
            reads: Reads::default(),
            receives: Receives::default(),
            unread: Unread::default(),
            deadlines: Deadlines::default(),
            shrunk: BTreeSet::new(),
            loaded: VecDeque::new(),
            loading_to_apply: false,
            room: Room::default(),
            actions: Actions::default(),
            counters: Counters::default(),
            disk_stalled: false,
            unreadable_ticks: 0,
            transfers: Vec::new(),
            held_transfers: Vec::new(),
            endings: VecDeque::new(),
            ends_calls: false,
            led: None,
        }
    }

    /// Forms a new cluster: see [`Raft::form`].
    pub fn form(&mut self, configuration: Configuration) {
        self.raft.form(configuration);
    }

    /// Raises the active version: see [`Raft::raise_version`]. Once that is applied here, what this node proposes has
    /// the new form.
    ///
    /// # Errors
    /// As there. The caller must be sure that every member supports the version: a member that does not will stop.
    pub fn raise_version(&mut self, version: u32) -> Result<(Term, Index), raft::Refused> {
        self.raft.raise_version(version)
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
            Event::FreeBytes(bytes) => {
                self.room.learn(self.raft.id(), bytes);
            }
            Event::PeerGone(id) => self.raft.step(RaftEvent::PeerGone(id)),
            Event::Call { id, request, deadline_ms } => self.on_call(id, request, deadline_ms),
            Event::Cancel(id) => self.cancel(id),
            Event::LookedUp(id, looked_up) => self.on_looked_up(id, looked_up),
            Event::AnswerUnheard(messages) => self.release(&messages),
            Event::MessagesUnreadable { messages, are_leased } => {
                self.on_messages_unreadable(&messages, are_leased);
            }
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
            self.end_calls();
            self.steps.enter(Part::Propose);
            self.propose_waiting();
            self.start_reads();
            self.perform_raft_output();
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
        self.version
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
            configuration: self.raft.configuration().clone(),
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
            calls: self.calls.len() + self.transfers.len() + self.held_transfers.len(),
            queued_bytes: self.unproposed.bytes(),
            entries: self.proposed.len(),
            in_flight: self.in_flight,
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
        self.ends_calls = true;
        self.steps.enter(Part::Tick);
        self.try_unread_again();
        self.propose_time();
        self.leave_full_disk();
        self.begin_held_transfers();
        self.answer_transfers();
        self.report_done();
    }

    /// A leader that cannot read what its followers lack feeds nobody and commits nothing, however well they hear it.
    /// So it gives way, like one whose disk hangs. Another node may have what it lacks.
    fn judge_disk(&mut self) {
        let is_unreadable = self.unreadable_ticks > 0 && !mutants::is(mutants::Mutant::UnreadableLeadsOn);
        let stalled = self.disk_stalled || is_unreadable;
        self.raft.step(RaftEvent::DiskStalled(stalled));
    }

    /// Says up to where the messages of a topic are done with, so that their places can be forgotten.
    fn report_done(&mut self) {
        while self.steps.has_room()
            && let Some(id) = self.shrunk.pop_first()
        {
            self.steps.take(1);
            if let Some(topic) = self.state.topic(id) {
                let first = topic.live_run_from(0).map_or(topic.next_offset(), |run| run.start);
                self.actions.results.add_done_before(id, first);
            }
        }
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
            self.in_flight = 0;
            self.unproposed.clear();
            // A `Time` that waited or was proposed may never be applied.
            self.deadlines.time_applied();
            self.reads.clear();
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
