//! What a consumer says, and how it ends.

use super::super::guard::Ticket;
use crate::api::budget::Part;
use crate::edges::request_end::RequestEnd;
use raftqueue_proto::v1;
use std::sync::Arc;
use tonic::{Status, Streaming};

/// How a stream has ended.
pub(super) enum Ended {
    /// The consumer closed its side.
    Closed,
    /// It was reset, or its connection is gone.
    Broken,
}

/// What a consumer says.
pub(super) struct Requests {
    pub(super) requests: Streaming<v1::ConsumeRequest>,
    pub(super) end: RequestEnd,
    pub(super) ticket: Option<Arc<Ticket>>,
}

impl Requests {
    /// The next request, with what is held for it, or how the consumer has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Result<(v1::ConsumeRequest, Option<Part>), Ended>, Status> {
        match self.requests.message().await {
            Ok(Some(request)) => {
                Ok(Ok((request, self.ticket.as_ref().and_then(|ticket| ticket.take_message()))))
            }
            // The library says the same of a stream that was reset and of one that was closed.
            Ok(None) if !self.end.is_broken() => Ok(Err(Ended::Closed)),
            Ok(None) => Ok(Err(Ended::Broken)),
            Err(_) if self.end.is_broken() => Ok(Err(Ended::Broken)),
            Err(status) => Err(status),
        }
    }
}
