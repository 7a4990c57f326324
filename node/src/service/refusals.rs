//! Why a call is not done here, in words.

use crate::api::{Failure, Outcome, Reason};

pub(super) fn unreadable(outcome: Outcome, text: &str) -> Failure {
    Failure { outcome, ..Failure::not_done(Reason::DataUnreadable, text).retry_after_ms(1_000) }
}

pub(super) fn shutting_down() -> Failure {
    Failure::not_done(Reason::ShuttingDown, "this node is shutting down: ask another one")
}

/// It runs to say so, and for nothing else.
pub(super) fn left_behind() -> Failure {
    let text = "this node was left behind by a forced recovery of its cluster, and is no member any more: ask another one";
    Failure::not_done(Reason::NoLeader, text).retry_after_ms(100)
}

/// Nobody tells such a node of a leader, so it is no use to wait.
pub(super) fn outside() -> Failure {
    let text = "this node is no member of the cluster, so it knows no leader: ask another one";
    Failure::not_done(Reason::NoLeader, text).retry_after_ms(100)
}

pub(super) fn overloaded() -> Failure {
    Failure::not_done(Reason::Overloaded, "too many calls wait for this node's driver").retry_after_ms(100)
}
