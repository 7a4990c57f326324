//! The node of one group: what it remembers, and the way of every event through it.
//!
//! The parts: `election` (timeouts, pre-votes, votes), `follower` (taking entries), `leading` (appending, heartbeats,
//! committing), `feeding` (sending entries), `transferring` (handing over), `stalling` (a disk that hangs), `reads`
//! (answers that are known to be fresh), `membership` (changes of the configuration), `replay` (whether what was committed
//! at the start is applied), `installing` (a log whose beginning moves), `status` (what a node says of itself). Each goes on
//! with `impl Raft`, and sees what is private here. Outside, `log` knows what is durable, `progress` what each peer has.

mod election;
mod feeding;
mod follower;
mod installing;
mod leading;
mod membership;
mod reads;
mod replay;
mod stalling;
mod status;
mod transferring;

pub use membership::MemberChange;

use crate::event::{
    Alarm, Cause, Event, Install, LoadRequest, Output, ReadId, Recovered, Refused, RoleKind, RoleState,
    Settings,
};
use crate::log::Log;
use crate::random::Random;
use crate::{Configuration, Entry, Envelope, GroupId, HardState, Index, Message, NodeId, Payload, Term};
use leading::Leader;
use replay::Replay;
use std::collections::BTreeMap;
use std::sync::Arc;

/// No honest cluster gets to this term. A message with a greater one is malformed; so terms cannot overflow.
const TERM_MAX: Term = Term(u64::MAX / 2);

/// One node's part in the protocol. See the crate's header for the contract with the shell.
#[derive(Debug)]
pub struct Raft {
    settings: Settings,
    random: Random,
    log: Log,
    commit: Index,
    applied: Index,
    role: Role,
    /// The leader of the current term, as far as known.
    leader: Option<NodeId>,
    /// Ticks since that leader was heard. Once they reach the election timeout, that leader no longer keeps this node
    /// from voting.
    leader_silent_ticks: u32,
    /// The shell says that the leader's process is gone: it does not keep this node from voting either.
    leader_gone: bool,
    /// The greatest commit index that the leader of this term has told, whether those entries are here or not.
    leader_commit: Index,
    /// Whether this node has applied what was committed when its process started.
    replay: Replay,
    /// For so many ticks more this node believes that the leader's process is gone. No leader is judged by it.
    hinted_ticks: u32,
    /// Why this node campaigned last.
    cause: Cause,
    /// Ticks until this node campaigns.
    campaign_in_ticks: u32,
    /// Ticks until a node that asks for votes asks those again that have not answered.
    ask_again_in_ticks: u32,
    /// This node has asked for pre-votes since it last heard a leader.
    has_tried: bool,
    /// Up to here the log is known to agree with that of the current term's leader. Never less than what is committed: a
    /// leader has all that was committed before its term, and this node learns of a commit in the term in which it is made
    /// or a later one.
    verified: Index,
    /// The leader waits to hear that entries are durable which are not yet.
    reply_due: bool,
    disk_stalled: bool,
    /// For so many ticks, as a leader.
    stalled_ticks: u32,
    /// It lacks bodies of messages.
    incomplete: bool,
    /// Records of its log do not verify.
    damaged: bool,
    /// It has no state that the log could be applied to.
    stateless: bool,
    /// Ticks until a stalled disk may cause a hand-over again.
    stall_pause_ticks: u32,
    /// Messages that promise a term or vote which is not durable yet: the newest of each kind for each peer, so that a
    /// disk that hangs cannot fill the memory with answers.
    held: Vec<Envelope>,
    send: Vec<Envelope>,
    load: Vec<LoadRequest>,
    install: Option<Install>,
    installed: Option<(Index, Term)>,
    reads: Vec<(ReadId, Result<Index, Refused>)>,
    next_read: u64,
    alarms: Vec<Alarm>,
    reported_commit: Index,
    reported_role: RoleState,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// Answers so far, this node's own included.
    PreCandidate {
        answers: BTreeMap<NodeId, bool>,
    },
    /// Answers so far; this node's own vote is added once it is durable.
    Candidate {
        answers: BTreeMap<NodeId, bool>,
    },
    Leader(Box<Leader>),
}

impl Raft {
    /// A node that goes on from what its disk holds.
    ///
    /// # Panics
    /// If the settings contradict each other, or the recovered parts do.
    #[must_use]
    pub fn new(settings: Settings, recovered: Recovered) -> Self {
        assert!(settings.id != NodeId(0), "0 is not a node id");
        assert!(
            settings.election_ticks >= 4,
            "an election timeout of fewer than 4 ticks cannot be randomised"
        );
        assert!(
            settings.heartbeat_ticks >= 1 && 3 * settings.heartbeat_ticks <= settings.election_ticks,
            "an election timeout must outlast three heartbeats"
        );
        let applied = recovered.applied;
        let log = Log::new(recovered);
        let random = Random::new(settings.seed);
        let role = RoleState { role: RoleKind::Follower, term: log.hard_state().term, leader: None };
        let mut raft = Self {
            settings,
            random,
            log,
            commit: applied,
            applied,
            role: Role::Follower,
            leader: None,
            leader_silent_ticks: 0,
            leader_gone: false,
            leader_commit: Index(0),
            replay: Replay::default(),
            hinted_ticks: 0,
            cause: Cause::Timeout,
            campaign_in_ticks: 0,
            ask_again_in_ticks: 0,
            has_tried: false,
            verified: applied,
            reply_due: false,
            disk_stalled: false,
            stalled_ticks: 0,
            incomplete: false,
            damaged: false,
            stateless: false,
            stall_pause_ticks: 0,
            held: Vec::new(),
            send: Vec::new(),
            load: Vec::new(),
            install: None,
            installed: None,
            reads: Vec::new(),
            next_read: 1,
            alarms: Vec::new(),
            reported_commit: applied,
            reported_role: role,
        };
        raft.wait_for_leader();
        raft
    }

    /// Writes entry 1 of a new cluster: its first configuration. Only for the node that forms it, after every member
    /// has durably bound itself to this very formation; repeated after a restart if the log is still empty.
    ///
    /// # Panics
    /// If the log is not empty, or this node is not a voter of the configuration.
    pub fn form(&mut self, configuration: Configuration) {
        assert_eq!(self.log.last(), Index(0), "a cluster is formed on an empty log");
        assert!(
            configuration.is_voter(self.settings.id),
            "the node that forms a cluster is one of its voters"
        );
        let term = self.term().max(Term(1));
        self.log.set_hard_state(HardState { term, ..self.log.hard_state() }.max(self.log.hard_state()));
        self.log.append(Entry { index: Index(1), term, payload: Payload::Config(Arc::new(configuration)) });
        self.campaign_in_ticks = 0;
    }

    /// Takes one event. Anything may come in any order; what no longer matters is ignored.
    ///
    /// # Panics
    /// If a receipt does not belong to the write that is out, or what is not durable and applied is said to be compacted:
    /// the shell is broken.
    pub fn step(&mut self, event: Event) {
        match event {
            Event::Tick => self.on_tick(),
            Event::Arrived(envelope) => self.on_envelope(envelope),
            Event::Persisted(persisted) => {
                self.log.persisted(persisted.sequence);
                self.on_persisted();
            }
            Event::Loaded(slice) => self.on_loaded(slice),
            Event::Applied(index) => {
                self.applied = self.applied.max(index);
                self.look_at_replay();
            }
            Event::Compacted { to } => self.on_compacted(to),
            Event::Committed(told) => self.on_committed(&told),
            Event::Installed(installed) => self.on_installed(&installed),
            Event::Incomplete(incomplete) => self.incomplete = incomplete,
            Event::Damaged(damaged) => self.damaged = damaged,
            Event::Stateless(stateless) => self.stateless = stateless,
            Event::Known(index, configuration) => self.log.know_configuration(index, configuration),
            Event::DiskStalled(stalled) => self.on_disk_stalled(stalled),
            Event::PeerGone(id) => self.on_peer_gone(id),
        }
    }

    /// Appends an entry and returns where it stands. It counts only once it is committed *with this term*: another
    /// leader may overwrite it, and then something else is committed at its index.
    ///
    /// # Errors
    /// [`Refused`]: the entry was not appended and never will be.
    pub fn propose(&mut self, payload: Payload) -> Result<(Term, Index), Refused> {
        self.check_may_propose()?;
        Ok((self.term(), self.append_as_leader(payload)))
    }

    /// Whether a proposal would be taken now.
    ///
    /// # Errors
    /// [`Refused`], as [`Raft::propose`] would say.
    pub fn may_propose(&self) -> Result<(), Refused> {
        self.check_may_propose()
    }

    /// Where the current term of this leader begins: once that is applied, so is everything its predecessors committed.
    /// `None` if this node does not lead.
    #[must_use]
    pub fn term_start(&self) -> Option<Index> {
        match &self.role {
            Role::Leader(leader) => Some(leader.first_index),
            _ => None,
        }
    }

    /// Everything to do since the last call. Call it once a drained batch of events: proposals, writes and messages of
    /// one call travel together.
    pub fn take_output(&mut self) -> Output {
        self.advance_commit();
        self.start_reads();
        self.answer_reads();
        self.feed_peers();
        self.log.evict(self.applied, self.settings.retained_bytes_max);
        let role = self.role_state();
        let output = Output {
            write: self.log.take_write(self.settings.write_bytes_max),
            send: std::mem::take(&mut self.send),
            load: std::mem::take(&mut self.load),
            install: self.install.take(),
            installed: self.installed.take(),
            committed: (self.commit > self.reported_commit).then_some(self.commit),
            reads: std::mem::take(&mut self.reads),
            role: (role != self.reported_role).then_some(role),
            alarms: std::mem::take(&mut self.alarms),
        };
        self.reported_commit = self.commit;
        self.reported_role = role;
        output
    }

    /// Returns this node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.log.hard_state().term
    }

    /// The commit index.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The index before the first entry of the log, and its term: what came up to there is gone.
    #[must_use]
    pub fn start(&self) -> (Index, Term) {
        self.log.start()
    }

    /// The last index in the log.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.log.last()
    }

    /// The last index on this node's disk.
    #[must_use]
    pub fn durable_index(&self) -> Index {
        self.log.durable()
    }

    /// True if this node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Role, term and leader.
    #[must_use]
    pub fn role_state(&self) -> RoleState {
        let role = match self.role {
            Role::Follower => RoleKind::Follower,
            Role::PreCandidate { .. } => RoleKind::PreCandidate,
            Role::Candidate { .. } => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        };
        RoleState { role, term: self.term(), leader: self.leader }
    }

    /// Why this node campaigned last. Without meaning if it never did.
    #[must_use]
    pub fn campaign_cause(&self) -> Cause {
        self.cause
    }

    /// The configuration in force: the newest in the log, committed or not. Empty on a blank node.
    #[must_use]
    pub fn configuration(&self) -> &Arc<Configuration> {
        self.log.configuration()
    }

    /// Where the configuration in force stands. The start of the log, or before it, if a snapshot holds it.
    #[must_use]
    pub fn configuration_index(&self) -> Index {
        self.log.configuration_index()
    }

    /// The newest configuration at or before `index`; `None` before the first that is known.
    #[must_use]
    pub fn configuration_at(&self, index: Index) -> Option<&Arc<Configuration>> {
        self.log.configuration_at(index)
    }

    /// The entry at `index`, if it is in memory: entries that are not durable always are, applied ones often.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.entry(index)
    }

    /// The term of the entry at `index`; `None` beyond the end and before the beginning.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Where terms begin, rising. The first stands where the log begins, although its term may have begun before.
    #[must_use]
    pub fn term_runs(&self) -> &[(Index, Term)] {
        self.log.term_runs()
    }

    fn on_tick(&mut self) {
        self.leader_silent_ticks = self.leader_silent_ticks.saturating_add(1);
        self.stall_pause_ticks = self.stall_pause_ticks.saturating_sub(1);
        if self.is_leader() {
            self.tick_leader();
        } else {
            self.tick_election();
        }
    }

    fn on_persisted(&mut self) {
        if self.log.is_hard_state_durable() {
            let term = self.term();
            let campaigns = matches!(self.role, Role::Candidate { .. });
            let released = std::mem::take(&mut self.held);
            self.send.extend(released.into_iter().filter(|envelope| {
                // A candidate may have given up while its own vote was on the way to the disk. It then asks nobody.
                envelope.term == term && (campaigns || !matches!(envelope.message, Message::Vote { .. }))
            }));
            self.count_own_vote();
        }
        if self.reply_due && !self.is_leader() {
            self.reply_durable();
        }
    }

    /// Terms first (Raft, figure 2, "Rules for servers"), then the message itself.
    fn on_envelope(&mut self, envelope: Envelope) {
        let Envelope { from, to, group, term, message } = envelope;
        if to != self.settings.id || group != GroupId(0) || from == self.settings.id {
            return;
        }
        if term > TERM_MAX {
            return self.alarms.push(Alarm::Malformed { from });
        }
        match message {
            // Neither changes the term here: a pre-vote only asks.
            Message::PreVote { last_index, last_term, replaying } => {
                return self.on_pre_vote(from, term, (last_term, last_index), replaying);
            }
            Message::PreVoteReply { granted: true } => return self.on_pre_vote_granted(from, term),
            _ => {}
        }
        if term > self.term() {
            if matches!(message, Message::Vote { transfer: false, .. }) && self.is_leader_fresh() {
                return; // A leader that is well protects its followers from whoever cannot hear it.
            }
            self.become_follower(term, None);
        }
        if term < self.term() {
            return self.on_old_term(from, &message);
        }
        match message {
            Message::PreVote { .. } | Message::PreVoteReply { granted: true } => {
                unreachable!("returned above")
            }
            Message::PreVoteReply { granted: false } => self.on_pre_vote_refused(from),
            Message::Vote { last_index, last_term, .. } => self.on_vote(from, last_index, last_term),
            Message::VoteReply { granted } => self.on_vote_reply(from, granted),
            Message::Append { prev_index, prev_term, entries, commit } => {
                self.on_append(from, prev_index, prev_term, entries, commit);
            }
            Message::AppendReply { outcome, disk_stalled } => {
                self.on_append_reply(from, outcome, disk_stalled);
            }
            Message::Heartbeat { commit, round } => self.on_heartbeat(from, commit, round),
            Message::HeartbeatReply { round, received, disk_stalled, replaying, incomplete } => {
                self.on_heartbeat_reply(from, round, received);
                self.on_peer_state(from, disk_stalled, replaying, incomplete);
            }
            Message::TimeoutNow => self.on_timeout_now(from),
            Message::Install { start } => self.on_install(from, start),
        }
    }

    /// A message of a term that is over. Whoever still leads or campaigns in it is told; answers are ignored.
    fn on_old_term(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Install { .. } => {
                let reply = self.heartbeat_reply(0, Index(0));
                self.send_to(from, reply);
            }
            Message::Vote { .. } => self.send_to(from, Message::VoteReply { granted: false }),
            // A refusal with an older term still answers the round that is under way.
            Message::PreVoteReply { granted: false } => self.on_pre_vote_refused(from),
            _ => {}
        }
    }

    /// Sends in the current term; holds the message back while that term, or the vote in it, is not durable.
    fn send_to(&mut self, to: NodeId, message: Message) {
        let envelope = Envelope { from: self.settings.id, to, group: GroupId(0), term: self.term(), message };
        if self.log.is_hard_state_durable() {
            self.send.push(envelope);
            return;
        }
        let kind = std::mem::discriminant(&envelope.message);
        let earlier =
            self.held.iter_mut().find(|held| held.to == to && std::mem::discriminant(&held.message) == kind);
        match earlier {
            Some(earlier) => *earlier = envelope,
            None => self.held.push(envelope),
        }
    }

    /// Follows in `term`, led by `leader` if that is known. Entering a greater term forgets the vote.
    fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        if term > self.term() {
            self.log.set_hard_state(HardState { term, vote: None });
            self.verified = self.commit;
            self.leader_commit = Index(0);
            self.reply_due = false;
            self.held.clear();
        }
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Follower) {
            let refused = Refused::NotLeader { leader: None };
            self.reads.extend(leader.into_reads().map(|read| (read, Err(refused))));
            self.verified = self.commit;
        }
        self.leader = leader;
        self.leader_gone = false;
        self.wait_for_leader();
    }
}
