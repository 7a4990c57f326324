//! Refusals that the gRPC library makes before a call reaches the node: a frame over the size limit, bytes that are no
//! such message, a method that does not exist.
//!
//! Such a call was certainly not done, and the client is told so in the same form as with every other refusal. Without
//! this it would have to take the outcome for unknown.

use super::errors;
use crate::api::{Failure, Reason};
use axum::response::Response;
use tonic::{Code, Status};

/// Adds the typed detail to a refusal that has none. Everything else passes unchanged.
///
/// A status in the *headers* of a response means that there was no answer at all, and one without a detail was not made
/// by this node's own code, which always adds one.
pub(super) async fn explain(response: Response) -> Response {
    match Status::from_header_map(response.headers()).and_then(|status| explanation(&status)) {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn explanation(status: &Status) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let (reason, code) = match status.code() {
        Code::OutOfRange => (Reason::TooLarge, None),
        Code::Internal => (Reason::InvalidArgument, None),
        Code::Unimplemented => (Reason::InvalidArgument, Some(Code::Unimplemented)),
        _ => return None,
    };
    let text = if status.code() == Code::Unimplemented && status.message().is_empty() {
        "this node knows no such method"
    } else {
        status.message()
    };
    let failure = Failure::not_done(reason, text);
    let code = code.unwrap_or(errors::codes(&failure).grpc);
    Some(raftqueue_proto::status::with_detail(code, text, &errors::detail(&failure, None)))
}
