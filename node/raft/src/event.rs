//! What goes into the core and what comes out.

use crate::{
    Configuration, Entry, Envelope, HardState, Index, NodeId, Persisted, ProgressState, Term, Write,
};
use std::fmt;
use std::sync::Arc;

/// Settings of one node, fixed for its life. Times are in ticks; the shell decides how long a tick is (10 ms).
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub id: NodeId,
    /// T: a follower that heard no leader for T to 2T ticks campaigns; at least 4.
    pub election_ticks: u32,
    /// Ticks between two heartbeats; less than a third of `election_ticks`.
    pub heartbeat_ticks: u32,
    /// After a hand-over because of a stalled disk, this many ticks pass before another one.
    pub stall_pause_ticks: u32,
    /// The only source of randomness.
    pub seed: u64,
    /// Bytes of entries in one append message, at least one entry.
    pub append_bytes_max: usize,
    /// Append messages in flight to one peer.
    pub window_messages_max: usize,
    /// Bytes in flight to one peer.
    pub window_bytes_max: usize,
    /// Bytes of entries in one write, at least one entry.
    pub write_bytes_max: usize,
    /// Bytes that a leader takes in before they commit; beyond, proposals are refused.
    pub uncommitted_bytes_max: usize,
    /// Bytes of durable, applied entries kept in memory for followers that lag a little.
    pub retained_bytes_max: usize,
}

impl Settings {
    /// The defaults, for a tick of 10 ms: an election timeout of 300 ms, a heartbeat every 50 ms.
    #[must_use]
    pub fn new(id: NodeId, seed: u64) -> Self {
        const MIB: usize = 1 << 20;
        Self {
            id,
            election_ticks: 30,
            heartbeat_ticks: 5,
            stall_pause_ticks: 6_000,
            seed,
            append_bytes_max: MIB,
            window_messages_max: 64,
            window_bytes_max: 16 * MIB,
            write_bytes_max: 8 * MIB,
            uncommitted_bytes_max: 64 * MIB,
            retained_bytes_max: 32 * MIB,
        }
    }
}

/// What the disk holds when a node starts. All of it is durable.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The index before the first entry, and the term of the entry that stood there. (0, 0) if nothing is gone.
    pub start: (Index, Term),
    /// The state machine begins with everything up to here, out of its snapshot. At least the start's index.
    pub applied: Index,
    /// The last index; the start's if there are no entries.
    pub last_index: Index,
    /// The first index of each term in the log, in order.
    pub term_runs: Vec<(Index, Term)>,
    /// The configuration in force at the start, which may stand before it, and every one behind, in order.
    pub configurations: Vec<(Index, Arc<Configuration>)>,
}

/// Everything that can happen to a node.
#[derive(Debug)]
pub enum Event {
    /// A tick of time has passed.
    Tick,
    /// A message arrived.
    Arrived(Envelope),
    /// The write that was out is durable.
    Persisted(Persisted),
    /// Entries asked for by a [`LoadRequest`] were read.
    Loaded(LogSlice),
    /// The state machine has applied everything up to this index.
    Applied(Index),
    /// The log up to `to` is gone from the disk, for good. A snapshot has everything up to there.
    Compacted {
        /// The last index that is gone: applied and durable.
        to: Index,
    },
    /// A snapshot of another node tells which entries are committed. What this log holds of them is committed here too.
    Committed(CommittedLog),
    /// A snapshot of another node is here whole. The core says in [`Output::installed`] whether it becomes this node's own.
    Installed(Installed),
    /// This node lacks bodies of messages that its queue holds (true), or has them all (false). While it lacks some it does
    /// not campaign, is handed no lead, and says so.
    Incomplete(bool),
    /// Records of this node's log do not verify (true), or all do again (false). It says of its log what their names say, and
    /// votes by that. Until they are mended it does not lead: it could neither apply them nor give them to others.
    Damaged(bool),
    /// The state that the log goes on from is lost (true), or another node's has taken its place (false). The log is what it
    /// was: this node votes by it and takes entries. It applies none, so it does not lead, and any snapshot that reaches up to
    /// where the log begins is good for it. It lacks messages, too, which [`Event::Incomplete`] says.
    Stateless(bool),
    /// What the configuration at an index says, which could not be read before.
    Known(Index, Arc<Configuration>),
    /// A write has been out for longer than an election timeout (true), or has ended (false).
    DiskStalled(bool),
    /// The connection to a node was reset and its port refuses: its process is gone, most likely. Only a hint.
    PeerGone(NodeId),
}

/// Old entries wanted for a peer that lags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    /// The peer.
    pub to: NodeId,
    /// The first index wanted.
    pub from: Index,
    /// Up to this many bytes, but at least one entry.
    pub bytes_max: usize,
}

/// The answer to a [`LoadRequest`].
#[derive(Clone, Debug)]
pub struct LogSlice {
    /// The request's peer.
    pub to: NodeId,
    /// The request's first index.
    pub from: Index,
    /// What was there.
    pub found: Found,
}

/// What was found in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Consecutive entries from the first index on, at least one.
    Entries(Vec<Entry>),
    /// They cannot be read now: the core asks again later.
    Unreadable,
    /// They are gone: the log begins behind the first index. The core is told so by [`Event::Compacted`] too, perhaps later.
    Released,
}

/// A snapshot is wanted that covers the start of the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// The leader. The snapshot may come from any node that has it.
    pub leader: NodeId,
    /// The index before the first entry of the leader's log, and its term: the least that will do.
    pub start: (Index, Term),
}

/// Term runs that go with a snapshot at most: the newest. A cluster has a few elections in the time that a node is away.
pub const TERM_RUNS_MAX: usize = 256;

/// The terms of a log, all of whose entries up to an index are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedLog {
    /// The index.
    pub last: Index,
    /// Where terms begin, rising, from index 1 on: the newest [`TERM_RUNS_MAX`] at most. What comes before is not told.
    pub term_runs: Vec<(Index, Term)>,
    /// The term of the node that tells it: everything was found committed in that or an earlier one.
    pub giver_term: Term,
}

/// A snapshot of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// It has everything up to here.
    pub index: Index,
    /// The term of the entry there.
    pub term: Term,
    /// The configuration in force there, and where it stands; earlier ones may come before it.
    pub configurations: Vec<(Index, Arc<Configuration>)>,
    /// The term that its giver was in when it gave it: everything up to `index` was committed in that term or before. A
    /// leader of an earlier term need not have it, so this node enters that term.
    pub giver_term: Term,
}

/// Names one read; never used twice by one [`crate::Raft`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Why the core did not take a call. Nothing was done, and nothing will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another node leads, or none: ask there, or wait.
    NotLeader {
        /// The leader as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Too much is uncommitted: wait for commits.
    Full {
        /// Bytes that wait.
        uncommitted_bytes: usize,
    },
    /// Leadership is being handed over: wait for the end of that.
    Transferring,
    /// An earlier membership change is not finished, or this term has not committed anything yet: wait.
    ChangePending,
    /// The change makes no sense; the text says why.
    InvalidChange(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(leader) } => write!(f, "not the leader; that is node {leader}"),
            Self::NotLeader { leader: None } => write!(f, "not the leader, and none is known"),
            Self::Full { uncommitted_bytes } => write!(f, "{uncommitted_bytes} bytes wait to be committed"),
            Self::Transferring => write!(f, "leadership is being handed over"),
            Self::ChangePending => write!(f, "an earlier change is not committed yet"),
            Self::InvalidChange(why) => f.write_str(why),
        }
    }
}

/// What a node does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Takes entries from a leader, or waits for one.
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Why a node campaigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was told that the leader's process is gone ([`Event::PeerGone`]).
    Hint,
    /// It heard no leader for an election timeout.
    Timeout,
    /// The leader handed over to it.
    HandOver,
}

/// Role, term and leader as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleState {
    /// The role.
    pub role: RoleKind,
    /// The current term.
    pub term: Term,
    /// The leader of that term, as far as this node knows.
    pub leader: Option<NodeId>,
}

/// Something that cannot happen while every node keeps to the protocol. The shell logs it; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A leader's message would overwrite what is committed here.
    ConflictBelowCommit {
        /// Who sent it.
        from: NodeId,
        /// The index in conflict.
        index: Index,
        /// The commit index here.
        commit: Index,
    },
    /// Another node claims to lead this very term.
    SecondLeader {
        /// Who claims it.
        from: NodeId,
        /// The term.
        term: Term,
    },
    /// A snapshot of another node was not taken.
    SnapshotRefused {
        /// Where it ends.
        index: Index,
        /// The term of the entry there, it says.
        term: Term,
        /// Why.
        why: &'static str,
    },
    /// A message contradicts itself (entries out of order, terms from the future); it was dropped.
    Malformed {
        /// Who sent it.
        from: NodeId,
    },
}

/// Everything the shell must do after a batch of events. All parts may be done in any order and side by side.
#[must_use = "dropping an output loses messages and stops the disk"]
#[derive(Debug, Default)]
pub struct Output {
    /// To be made durable; the receipt goes back as [`Event::Persisted`].
    pub write: Option<Write>,
    /// To be sent; everything here may leave at once.
    pub send: Vec<Envelope>,
    /// To be read; the answer goes back as [`Event::Loaded`].
    pub load: Vec<LoadRequest>,
    /// The leader no longer has what this node lacks: a snapshot is to be got. Said again and again until there is one.
    pub install: Option<Install>,
    /// An [`Event::Installed`] was taken: the log begins there, and the state machine is that of the snapshot. To be carried
    /// out before anything is applied. The snapshot becomes this node's own with the [`Write::reset`] that follows.
    pub installed: Option<(Index, Term)>,
    /// The new commit index, if it moved: everything up to it may be applied.
    pub committed: Option<Index>,
    /// Reads that are decided. A read may be served once everything up to its index is applied.
    pub reads: Vec<(ReadId, Result<Index, Refused>)>,
    /// The new role, term and leader, if one of them changed.
    pub role: Option<RoleState>,
    /// What should never happen.
    pub alarms: Vec<Alarm>,
}

/// One peer in a leader's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub id: NodeId,
    /// The last index durable there.
    pub matched: Index,
    /// Heard from lately.
    pub active: bool,
    /// Its disk does not answer.
    pub disk_stalled: bool,
    /// It has not applied yet what was committed when it started. Assumed until it says otherwise.
    pub replaying: bool,
    /// It lacks bodies of messages that its queue holds, it says: it is no successor.
    pub incomplete: bool,
    /// How it is fed.
    pub state: ProgressState,
}

/// A node's own view, for status pages and metrics.
#[derive(Clone, Debug)]
pub struct Status {
    /// Role, term, leader.
    pub role: RoleState,
    /// Last committed index.
    pub commit: Index,
    /// The index before the first entry of the log: what came up to there is gone.
    pub start: Index,
    /// Last index in the log.
    pub last: Index,
    /// Last index on this disk.
    pub durable: Index,
    /// Bytes of entries in memory.
    pub window_bytes: usize,
    /// Bytes that wait to be committed (leader only).
    pub uncommitted_bytes: usize,
    /// A hand-over is under way.
    pub transferring: bool,
    /// The greatest commit index that the leader has told, whether those entries are here or not. On a leader, its own.
    pub leader_commit: Index,
    /// What was committed when this process started is not applied yet.
    pub replaying: bool,
    /// The index up to which it must apply; `None` while that is not known.
    pub replay_until: Option<Index>,
    /// This node lacks bodies of messages that its queue holds.
    pub incomplete: bool,
    /// The peers (leader only).
    pub peers: Vec<PeerStatus>,
}
