//! What the shell must do.

use super::{Freeze, Lookup, Results, Vitals};
use raftqueue_queue::State;
use raftqueue_raft::{Alarm, Envelope, Index, Install, LoadRequest, RoleState, Write};

/// Everything the shell must do after a batch of events.
#[must_use = "dropping actions loses replies, messages and writes"]
#[derive(Debug, Default)]
pub struct Actions {
    /// To be made durable; the receipt goes back as [`Event::Persisted`](super::Event::Persisted).
    pub write: Option<Write>,
    /// To be sent.
    pub send: Vec<(Envelope, Vitals)>,
    /// To be read for peers.
    pub load: Vec<LoadRequest>,
    /// To be read and applied: entries from the first index to the second, both included.
    pub load_to_apply: Option<(Index, Index)>,
    /// Messages to be looked up.
    pub lookups: Vec<Lookup>,
    /// Blocks of messages whose deadlines have come by this log time are wanted, at most so many; the answer goes back as
    /// [`Event::Due`](super::Event::Due).
    pub look_for_due: Option<(u64, usize)>,
    /// A snapshot is to be taken of this: after everything in `results` was carried out. The answer goes back as
    /// [`Event::SnapshotTaken`](super::Event::SnapshotTaken) or [`Event::SnapshotFailed`](super::Event::SnapshotFailed).
    pub freeze: Option<Freeze>,
    /// A snapshot of another node is wanted, the leader's own as a rule. Said again and again until one is here.
    pub install: Option<Install>,
    /// An [`Event::Installed`](super::Event::Installed) was judged. Unless `installed` names it, what arrived is of no use.
    pub is_arrival_judged: bool,
    /// The snapshot that arrived is taken: the state is of this index now. It becomes this node's own on the disk with the
    /// write that has a reset.
    pub installed: Option<Index>,
    /// A state that nobody needs any more, to be dropped where nobody waits.
    pub left: Option<State>,
    /// What applying led to, to be carried out.
    pub results: Results,
    /// The new role, term and leader, if one of them changed.
    pub role: Option<RoleState>,
    /// What should never happen; to be logged.
    pub alarms: Vec<Alarm>,
    /// This node cannot read a committed entry, so it cannot go on. It must stop without applying anything more.
    pub fatal: Option<String>,
}
