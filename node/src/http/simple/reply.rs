//! What the simple API says: a status, a few headers, and a body of exactly the fields of its contract.
//!
//! Bodies are spaced as the contract prints them (`{"success": true}`), so that they equal it byte for byte.

use crate::api::Failure;
use crate::grpc::{LEADER_METADATA, errors};
use crate::handle::LocalStatus;
use crate::sent::Outgoing;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use raftqueue_proto::text::base64;

const OUTCOME_HEADER: HeaderName = HeaderName::from_static("raftqueue-outcome");
const REASON_HEADER: HeaderName = HeaderName::from_static("raftqueue-reason");
const RETRY_AFTER_MS_HEADER: HeaderName = HeaderName::from_static("raftqueue-retry-after-ms");
const ENCODING_HEADER: HeaderName = HeaderName::from_static("raftqueue-encoding");
const LEADER_HEADER: HeaderName = HeaderName::from_static(LEADER_METADATA);

/// An answer of the simple API.
pub(in crate::http) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
    outgoing: Option<Outgoing>,
}

impl Reply {
    /// A reply of JSON.
    pub(in crate::http) fn new(status: StatusCode, body: impl Into<String>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { status, headers, body: body.into(), outgoing: None }
    }

    /// The same, with what is to be known of how it gets through.
    pub(in crate::http) fn with_outgoing(self, outgoing: Option<Outgoing>) -> Self {
        Self { outgoing, ..self }
    }

    /// Done, and nothing more to say.
    pub(super) fn success(status: StatusCode) -> Self {
        Self::new(status, r#"{"success": true}"#)
    }

    /// The names of all topics.
    pub(super) fn topics(names: &[String]) -> Self {
        let names: Vec<_> = names.iter().map(|name| json_string(name)).collect();
        Self::new(StatusCode::OK, format!(r#"{{"success": true, "topics": [{}]}}"#, names.join(", ")))
    }

    /// A message taken out of its topic: as it is, or, where it is no text, in base64 and marked so.
    pub(super) fn message(body: &[u8]) -> Self {
        let reply = |text: &str| {
            Self::new(StatusCode::OK, format!(r#"{{"success": true, "message": {}}}"#, json_string(text)))
        };
        match std::str::from_utf8(body) {
            Ok(text) => reply(text),
            Err(_) => reply(&base64(body)).with(ENCODING_HEADER, HeaderValue::from_static("base64")),
        }
    }

    /// What this node says of itself.
    pub(super) fn status(role: &'static str, term: u64) -> Self {
        Self::new(StatusCode::OK, format!(r#"{{"role": "{role}", "term": {term}}}"#))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The reply with the leader's address, where this node does not lead and knows it.
    pub(in crate::http) fn of_node(self, local: &LocalStatus) -> Self {
        match local.leader_hint().and_then(|hint| HeaderValue::from_str(hint).ok()) {
            Some(hint) => self.with(LEADER_HEADER, hint),
            None => self,
        }
    }
}

/// An unknown route or method, or an empty topic.
pub(in crate::http) fn not_found() -> Reply {
    Reply::new(StatusCode::NOT_FOUND, r#"{"success": false}"#)
}

/// A call that was not answered with success.
pub(super) fn failure_reply(failure: &Failure) -> Reply {
    failure_reply_with(failure, r#"{"success": false}"#)
}

/// The same with a body of the caller's.
pub(in crate::http) fn failure_reply_with(failure: &Failure, body: impl Into<String>) -> Reply {
    let status = StatusCode::from_u16(errors::codes(failure).http).expect("the table holds codes of HTTP");
    let reply = Reply::new(status, body)
        .with(OUTCOME_HEADER, HeaderValue::from_static(errors::outcome_name(failure.outcome)))
        .with(REASON_HEADER, HeaderValue::from_static(errors::reason_name(failure.reason)));
    match errors::retry_after_ms(failure) {
        Some(ms) => reply.with(RETRY_AFTER_MS_HEADER, ms.into()).with(RETRY_AFTER, ms.div_ceil(1_000).into()),
        None => reply,
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.headers, self.body).into_response();
        if let Some(outgoing) = self.outgoing {
            response.extensions_mut().insert(outgoing);
        }
        response
    }
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("every string can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_and_not_more_than_that() {
        assert_eq!(
            Reply::message("a\"b\\\n\u{1}ö".as_bytes()).body,
            r#"{"success": true, "message": "a\"b\\\n\u0001ö"}"#
        );
        assert_eq!(Reply::topics(&[]).body, r#"{"success": true, "topics": []}"#);
    }
}
