//! The long calls of the contract: publishing and consuming on one stream.
//!
//! A stream is only a way to make many calls of the contract. Each batch, receive and settlement goes through the
//! [`Edge`](crate::edges::edge::Edge) as if it had come alone, with the same checks and answers. A stream adds that
//! many are under way at once, in order, and bounds how many.

mod asked;
mod consume;
mod credit;
mod publish;

pub(super) use consume::{Consuming, consume};
pub(super) use publish::Publishing;

use crate::api::Failure;
use crate::edges::edge::Edge;
use crate::edges::service::Service;
use crate::wire::errors;
use tonic::Status;

/// The failure as it ends a stream. If this node does not lead, the leader's address goes with it.
fn refuse<S: Service>(edge: &Edge<S>, failure: &Failure) -> Status {
    errors::into_status(failure, edge.local_status().leader_hint())
}

#[cfg(test)]
mod tests;
