//! Refusals that the gRPC library makes before a call reaches the node: of a frame over the size limit, of bytes that
//! are not such a message, of a method that does not exist.
//!
//! Such a call was certainly not done. The client is told so in the same form as with every other refusal; otherwise it
//! would have to take the outcome for unknown. On a stream such a refusal ends what follows, and what came before was
//! answered.

use crate::api::{Failure, Reason};
use crate::wire::errors;
use axum::response::Response;
use futures_util::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::{Code, Status};

/// Adds the typed detail to a refusal that has none. Everything else passes unchanged.
///
/// A status in the *headers* of a response means that there was no answer at all. A status without a detail was not
/// made by this node's own code, which always adds one.
pub(super) async fn explain(response: Response) -> Response {
    match Status::from_header_map(response.headers()).and_then(|status| explanation(&status)) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// The answers on a stream, whose end is explained in the same way.
pub(super) struct Explained<T>(pub(super) T);

impl<T: Stream<Item = Result<R, Status>> + Unpin, R> Stream for Explained<T> {
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0)
            .poll_next(context)
            .map(|item| item.map(|answer| answer.map_err(|status| explanation(&status).unwrap_or(status))))
    }
}

/// A refusal of a service that this node does not have.
pub(crate) fn no_such_service(path: &str) -> Status {
    refusal(Code::Unimplemented, Reason::InvalidArgument, &format!("{path}: no such service"))
}

fn explanation(status: &Status) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let (code, reason) = match status.code() {
        // A frame is over the limit.
        code @ Code::OutOfRange => (code, Reason::TooLarge),
        // Not what the protocol says, or no message of this type.
        Code::Internal => (Code::InvalidArgument, Reason::InvalidArgument),
        // A method that does not exist, or compression. Asked of health alone: a service that does not exist.
        code @ (Code::Unimplemented | Code::NotFound) => (code, Reason::InvalidArgument),
        _ => return None,
    };
    let text = if status.code() == Code::Unimplemented && status.message().is_empty() {
        "this node knows no such method"
    } else {
        status.message()
    };
    let mut explained = refusal(code, reason, text);
    // What else the library says, such as which compression it would take.
    *explained.metadata_mut() = status.metadata().clone();
    Some(explained)
}

fn refusal(code: Code, reason: Reason, text: &str) -> Status {
    let detail = errors::detail(&Failure::not_done(reason, text), None);
    raftqueue_proto::status::with_detail(code, text, &detail)
}

#[cfg(test)]
mod tests;
