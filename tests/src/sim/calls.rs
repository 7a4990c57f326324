//! One call of a client, as the simulator keeps it while it is open.

use super::plan::Micros;
use raftqueue_node::api::{Delivery, Failure, Outcome, Reason, Request, Response};
use raftqueue_raft::Index;

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    OnItsWay,
    /// At the node, in this life of its process.
    AtNode(u32),
    /// Answered, and its bodies are being read.
    Reading(u32),
    /// The answer is on its way back.
    Answered,
}

/// A call that is open.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) client: usize,
    pub(super) request: Request,
    pub(super) node: usize,
    pub(super) stage: Stage,
    /// How long it may take.
    pub(super) allowed: Micros,
    /// The last index committed when it began: its own command comes later.
    pub(super) committed_before: Index,
    /// The greatest index that any answer had spoken of when it began: its own answer must know that.
    pub(super) acknowledged_before: Index,
    /// When it is answered at the latest, once it has arrived.
    pub(super) due: Micros,
    /// The client does not wait for the answer any more.
    pub(super) is_abandoned: bool,
    /// The node was told so: it answers no more, as a rule.
    pub(super) is_cancelled: bool,
}

/// What a client hears.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An answer without bodies.
    Response(Response),
    /// Messages.
    Deliveries(Vec<Delivery>),
    /// The node said no.
    Failure(Failure),
    /// The connection was refused: the call never left.
    Refused,
    /// The connection broke, or the client's own patience ended.
    Broken,
}

impl Answer {
    /// True if the call certainly did not happen.
    pub(super) fn is_not_done(&self) -> bool {
        match self {
            Answer::Refused => true,
            Answer::Failure(failure) => failure.outcome == Outcome::NotDone,
            Answer::Response(_) | Answer::Deliveries(_) | Answer::Broken => false,
        }
    }

    /// True if whoever answered led, as it thought: the client goes on asking there.
    pub(super) fn is_of_leader(&self) -> bool {
        match self {
            Answer::Response(_) | Answer::Deliveries(_) => true,
            Answer::Failure(failure) => !matches!(failure.reason, Reason::NotLeader | Reason::NoLeader),
            Answer::Refused | Answer::Broken => false,
        }
    }

    /// True if the call may have happened, unheard.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Answer::Broken => true,
            Answer::Failure(failure) => failure.outcome == Outcome::Unknown,
            Answer::Response(_) | Answer::Deliveries(_) | Answer::Refused => false,
        }
    }
}
