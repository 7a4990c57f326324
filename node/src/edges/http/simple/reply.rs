//! What the simple API says: a status, a few headers, and a body of exactly the fields of its contract.
//!
//! Bodies are spaced as the contract prints them (`{"success": true}`), so that they equal it byte for byte.

use crate::api::budget::{Account, Budget, Share, bytes_with};
use crate::api::{Failure, LocalStatus};
use crate::edges::grpc::LEADER_METADATA;
use crate::edges::sent::Outgoing;
use crate::edges::sliced::{Piece, SLICE_BYTES, Sliced};
use crate::wire::errors;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use raftqueue_proto::text::base64;
use std::collections::VecDeque;
use std::sync::Arc;

const OUTCOME_HEADER: HeaderName = HeaderName::from_static("raftqueue-outcome");
const REASON_HEADER: HeaderName = HeaderName::from_static("raftqueue-reason");
const MESSAGE_HEADER: HeaderName = HeaderName::from_static("raftqueue-message");
const RETRY_AFTER_MS_HEADER: HeaderName = HeaderName::from_static("raftqueue-retry-after-ms");
const ENCODING_HEADER: HeaderName = HeaderName::from_static("raftqueue-encoding");
const LEADER_HEADER: HeaderName = HeaderName::from_static(LEADER_METADATA);

/// What cannot stand in a header as it is, and the sign that begins what stands there instead: as in `grpc-message`.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// As much of what is said stands in the header; clients and proxies bound all headers together to some KiB.
const MESSAGE_BYTES_MAX: usize = 512;

/// Answers that are shorter do not count.
const COUNTED_BYTES_MIN: usize = 16 << 10;

/// An answer of the simple API.
pub(in crate::edges::http) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    outgoing: Option<Outgoing>,
}

/// The body of an answer.
enum Content {
    /// Ready, with what is held for it if that is much.
    Whole(String, Option<Arc<Account>>),
    /// Made while it is sent.
    Sliced(Sliced),
}

impl Reply {
    /// A reply of JSON.
    pub(in crate::edges::http) fn new(status: StatusCode, body: impl Into<String>) -> Self {
        Self::with_content(status, Content::Whole(body.into(), None))
    }

    /// A reply of JSON that is made while it is sent.
    pub(in crate::edges::http) fn sliced(status: StatusCode, body: Sliced) -> Self {
        Self::with_content(status, Content::Sliced(body))
    }

    fn with_content(status: StatusCode, content: Content) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { status, headers, content, outgoing: None }
    }

    /// The same, with what tells how much of it got through.
    pub(in crate::edges::http) fn with_outgoing(self, outgoing: Option<Outgoing>) -> Self {
        Self { outgoing, ..self }
    }

    /// The same, held by this account until it is sent.
    pub(in crate::edges::http) fn held_by(mut self, account: Option<Arc<Account>>) -> Self {
        if let Content::Whole(_, held) = &mut self.content {
            *held = account;
        }
        self
    }

    /// The same, counted until it is sent, if it is long and not counted yet.
    pub(in crate::edges::http) fn counted(self, budget: &Budget) -> Self {
        match &self.content {
            Content::Whole(body, None) if body.len() >= COUNTED_BYTES_MIN => {
                self.held_by(Some(Arc::new(Account::new(budget, Share::Replies))))
            }
            _ => self,
        }
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

    /// A message taken out of its topic: as it is or, if it is not text, in base64 and marked so.
    pub(super) fn message(body: Bytes, held: Option<Arc<Account>>) -> Self {
        if let Some(account) = held.clone().filter(|_| body.len() >= SLICE_BYTES) {
            let head = Piece::Raw(Bytes::from_static(b"{\"success\": true, \"message\": \""));
            let (inside, is_text) = Piece::json(body);
            let pieces = VecDeque::from([head, inside, Piece::Raw(Bytes::from_static(b"\"}"))]);
            return Self::sliced(StatusCode::OK, Sliced::of_one(pieces, account)).text(is_text);
        }
        let (text, is_text) = match std::str::from_utf8(&body) {
            Ok(text) => (json_string(text), true),
            Err(_) => (json_string(&base64(&body)), false),
        };
        Self::new(StatusCode::OK, format!(r#"{{"success": true, "message": {text}}}"#))
            .held_by(held)
            .text(is_text)
    }

    /// Marked, if its message is not text.
    fn text(self, is_text: bool) -> Self {
        if is_text { self } else { self.with(ENCODING_HEADER, HeaderValue::from_static("base64")) }
    }

    /// What this node says of itself.
    pub(super) fn status(role: &'static str, term: u64) -> Self {
        Self::new(StatusCode::OK, format!(r#"{{"role": "{role}", "term": {term}}}"#))
    }

    /// The reply with what it means, in words.
    fn saying(self, text: &str) -> Self {
        // A refusal may quote what was sent, however long that is.
        let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
        let escaped = utf8_percent_encode(&text[..end], ESCAPED).to_string();
        let value = HeaderValue::from_str(&escaped).expect("what no header takes is escaped");
        self.with(MESSAGE_HEADER, value)
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The reply with the leader's address, if this node does not lead and knows it.
    pub(in crate::edges::http) fn of_node(self, local: &LocalStatus) -> Self {
        match local.leader_hint().and_then(|hint| HeaderValue::from_str(hint).ok()) {
            Some(hint) => self.with(LEADER_HEADER, hint),
            None => self,
        }
    }
}

/// Nothing is there: this says what would be.
pub(in crate::edges::http) fn not_found(text: &str) -> Reply {
    Reply::new(StatusCode::NOT_FOUND, r#"{"success": false}"#).saying(text)
}

/// A call that was not answered with success.
pub(super) fn failure_reply(failure: &Failure) -> Reply {
    failure_reply_with(failure, r#"{"success": false}"#).saying(&failure.text)
}

/// The same with a body of the caller's.
pub(in crate::edges::http) fn failure_reply_with(failure: &Failure, body: impl Into<String>) -> Reply {
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
        let body = match self.content {
            Content::Whole(body, None) => Body::from(body),
            Content::Whole(body, Some(account)) => {
                let part = account.part(body.len());
                Body::from(bytes_with(Bytes::from(body), part))
            }
            Content::Sliced(body) => Body::new(body),
        };
        let mut response = (self.status, self.headers, body).into_response();
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
        let body = |reply: Reply| match reply.content {
            Content::Whole(body, _) => body,
            Content::Sliced(_) => panic!("short answers are made at once"),
        };
        assert_eq!(
            body(Reply::message("a\"b\\\n\u{1}ö".into(), None)),
            r#"{"success": true, "message": "a\"b\\\n\u0001ö"}"#
        );
        assert_eq!(body(Reply::topics(&[])), r#"{"success": true, "topics": []}"#);
    }
}
