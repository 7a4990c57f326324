//! How a typed error travels inside a gRPC status.
//!
//! `grpc-status-details-bin` holds a `google.rpc.Status` (the form that every gRPC language understands), whose details
//! hold one [`ErrorDetail`]. A status without it was made on the way, by a library or a proxy.

use crate::v1::ErrorDetail;
use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

/// The type under which an [`ErrorDetail`] stands among the details.
const TYPE_URL: &str = "type.googleapis.com/raftqueue.v1.ErrorDetail";

/// `google.rpc.Status`, as published by Google under this layout.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A status that carries `detail`.
#[must_use]
pub fn with_detail(code: Code, text: &str, detail: &ErrorDetail) -> Status {
    let any = RpcAny { type_url: TYPE_URL.to_owned(), value: detail.encode_to_vec().into() };
    let status = RpcStatus { code: code as i32, message: text.to_owned(), details: vec![any] };
    Status::with_details(code, text, status.encode_to_vec().into())
}

/// The detail that a status carries; `None` when it carries none that can be read, so that nothing is known of the
/// call's outcome.
#[must_use]
pub fn detail(status: &Status) -> Option<ErrorDetail> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let any = details.into_iter().find(|any| any.type_url == TYPE_URL)?;
    ErrorDetail::decode(any.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Outcome, Reason};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_detail_comes_back_as_it_was_sent(
            reason in 0..22, outcome in 0..3, retry_after_ms: Option<u64>, leader_hint: String, text: String,
        ) {
            let sent = ErrorDetail { reason, outcome, retry_after_ms, leader_hint };
            let status = with_detail(Code::Unavailable, &text, &sent);
            prop_assert_eq!(status.message(), text);
            prop_assert_eq!(detail(&status), Some(sent));
        }

        #[test]
        fn garbage_in_the_details_is_no_detail_and_no_panic(garbage: Vec<u8>) {
            let status = Status::with_details(Code::Unavailable, "", garbage.into());
            // Random bytes may decode as some status, but not as one that names our type.
            prop_assert_eq!(detail(&status), None);
        }
    }

    #[test]
    fn rule_8_1_a_status_of_another_maker_has_no_detail() {
        assert_eq!(detail(&Status::unavailable("connection reset")), None);
    }

    #[test]
    fn values_of_a_newer_version_read_as_unspecified() {
        let newer =
            ErrorDetail { reason: 9_999, outcome: 9_999, retry_after_ms: None, leader_hint: String::new() };
        let read = detail(&with_detail(Code::Unknown, "", &newer)).expect("it was put there");
        assert_eq!((read.reason(), read.outcome()), (Reason::Unspecified, Outcome::Unspecified));
    }
}
