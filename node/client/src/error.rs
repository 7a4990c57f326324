//! What a call that failed says.

use raftqueue_proto::{status, v1};
use std::error::Error as _;
use tonic::{Code, ConnectError, Status};

/// The header in which a node says by what its log knows a call that failed.
const TRACE_HEADER: &str = "raftqueue-trace-id";

/// What the HTTP/2 library says of bytes that are none of its frames, as those of another protocol.
const NO_FRAME: &str = "frame with invalid size";
/// How it says that a server wants TLS, which a node tells in the words of HTTP/2.
const WANTS_TLS: &str = "security properties do not meet minimum requirements";

/// Whether a call that failed may have happened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not happen and never will. It is safe to repeat.
    NotDone,
    /// It may have happened, or may still.
    Unknown,
}

/// A call that was not answered with success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// Why, in the words of the contract. `Unspecified` if no node said why: no connection, a broken one, or no answer
    /// in time.
    pub reason: v1::Reason,
    /// Whether the call may have happened.
    pub outcome: Outcome,
    /// What was wrong, for people.
    pub text: String,
    /// When to try again, in milliseconds, if waiting helps.
    pub retry_after_ms: Option<u64>,
    /// By what the logs and the traces of the nodes know this call, if a node said why it failed: 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// Where the leader is, as the node that refused knows it.
    pub(crate) leader_hint: Option<String>,
    /// Another attempt may succeed without anybody doing anything. Whether it is safe, the outcome says.
    pub(crate) is_passing: bool,
    /// Endpoints that all refused a connection; empty if that is not what was wrong.
    pub(crate) refused_at: Box<[String]>,
    /// Hardly any node answers in this way: something else may be there.
    pub(crate) is_foreign: bool,
}

impl Error {
    /// A request that never left this process, and would fail again in the same way.
    pub(crate) fn not_sent(text: impl Into<String>) -> Self {
        Self {
            reason: v1::Reason::Unspecified,
            outcome: Outcome::NotDone,
            text: text.into(),
            retry_after_ms: None,
            trace_id: None,
            leader_hint: None,
            is_passing: false,
            refused_at: Box::default(),
            is_foreign: false,
        }
    }

    /// A request that never left this process, since every one of these endpoints refused a connection.
    pub(crate) fn refused(text: impl Into<String>, endpoints: Vec<String>) -> Self {
        Self { refused_at: endpoints.into(), ..Self::unreachable(text) }
    }

    /// A request that never left this process because no node could be reached.
    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self { is_passing: true, ..Self::not_sent(text) }
    }

    /// A request that left, and was not answered.
    pub(crate) fn unheard(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, ..Self::unreachable(text) }
    }

    /// True if another attempt may succeed without anybody doing anything, as during an election. Whether that is safe, the
    /// outcome says.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.is_passing
    }

    /// The endpoints, if that is what was wrong: every one of them refused a connection, so no node runs there.
    #[must_use]
    pub fn refused_at(&self) -> Option<&[String]> {
        Some(&*self.refused_at).filter(|endpoints| !endpoints.is_empty())
    }

    /// True if no node made this error: then the connection is to blame.
    pub(crate) fn is_of_connection(&self) -> bool {
        self.reason == v1::Reason::Unspecified && self.is_passing
    }
}

impl From<&Status> for Error {
    /// With our detail, these are the node's own words. Without it the outcome is unknown, unless the request never
    /// left.
    fn from(status: &Status) -> Self {
        if let Some(detail) = status::detail(status) {
            return Self {
                reason: detail.reason(),
                outcome: match detail.outcome() {
                    v1::Outcome::NotDone => Outcome::NotDone,
                    v1::Outcome::Unknown | v1::Outcome::Unspecified => Outcome::Unknown,
                },
                text: status.message().to_owned(),
                retry_after_ms: detail.retry_after_ms,
                trace_id: trace_id(status),
                leader_hint: Some(detail.leader_hint.clone()).filter(|hint| !hint.is_empty()),
                is_passing: is_passing(detail.reason()),
                refused_at: Box::default(),
                is_foreign: false,
            };
        }
        let text = format!("{:?}: {}", status.code(), with_causes(status));
        match status.code() {
            _ if never_left(status) => Self::unreachable(text),
            _ if text.contains(NO_FRAME) || text.contains(WANTS_TLS) => {
                Self { is_foreign: true, ..Self::unheard(text) }
            }
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Aborted => Self::unheard(text),
            Code::Cancelled | Code::DeadlineExceeded => Self::unheard("no answer in time"),
            // Whoever says so has carried out nothing.
            Code::Unimplemented => Self {
                is_foreign: true,
                ..Self::not_sent("this node does not know the call: it is older than this client")
            },
            // A server that answers like this is no node of a queue. Asking again changes nothing.
            _ => Self { is_passing: false, ..Self::unheard(text) },
        }
    }
}

/// What the header of an error says, as far as it is such an id.
fn trace_id(status: &Status) -> Option<String> {
    let id = status.metadata().get(TRACE_HEADER)?.to_str().ok()?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// True for what passes by itself: an election, a hand-over, a moment of too much work.
fn is_passing(reason: v1::Reason) -> bool {
    use v1::Reason as R;
    matches!(
        reason,
        R::NoLeader
            | R::NotLeader
            | R::Overloaded
            | R::DeadlineExceeded
            | R::ForwardingBroken
            | R::ShuttingDown
            // Another node may be able to read it, and may take the lead.
            | R::DataUnreadable
    )
}

/// The words of a library, with those of the causes. Its own words for a connection that ended are "h2 protocol error";
/// only a cause says, for example, that the other side found too many calls reset.
fn with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// True if the connection could not even be made.
fn never_left(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_1_an_error_without_our_detail_is_of_unknown_outcome() {
        for status in
            [Status::unavailable("connection reset"), Status::unknown("h2"), Status::not_found("proxy")]
        {
            let error = Error::from(&status);
            assert_eq!(
                (error.reason, error.outcome),
                (v1::Reason::Unspecified, Outcome::Unknown),
                "{status:?}"
            );
        }
    }

    #[test]
    fn rule_8_1_what_a_server_does_not_know_it_has_not_done() {
        let error = Error::from(&Status::unimplemented(""));
        assert_eq!((error.outcome, error.is_passing), (Outcome::NotDone, false));
        assert!(error.text.contains("older than this client"), "{error}");
    }

    #[test]
    fn a_connection_that_ended_says_why() {
        let cause = std::io::Error::other("too_many_resets");
        let error = Error::from(&Status::from_error(Box::new(cause)));
        assert!(error.text.contains("too_many_resets"), "{error}");
        assert_eq!(error.text.matches("too_many_resets").count(), 1, "{error}");
    }

    #[test]
    fn rule_8_1_a_request_that_never_left_was_not_done() {
        let status = Status::from_error(Box::new(ConnectError(Box::from("connection refused"))));
        let error = Error::from(&status);
        assert_eq!((error.outcome, error.is_passing), (Outcome::NotDone, true));
    }

    #[test]
    fn rule_8_1_with_our_detail_the_nodes_word_counts() {
        let detail = v1::ErrorDetail {
            reason: v1::Reason::NoLeader.into(),
            outcome: v1::Outcome::NotDone.into(),
            retry_after_ms: Some(7),
            leader_hint: String::new(),
        };
        let error = Error::from(&status::with_detail(Code::Unavailable, "no leader", &detail));
        assert_eq!((error.reason, error.outcome), (v1::Reason::NoLeader, Outcome::NotDone));
        assert_eq!(
            (error.text.as_str(), error.retry_after_ms, error.is_passing),
            ("no leader", Some(7), true)
        );
    }
}
