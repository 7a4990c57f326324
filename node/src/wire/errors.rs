//! How a failure looks from outside: one table for all edges.
//!
//! A failure of unknown outcome is gRPC UNKNOWN and HTTP 504, whatever its reason, so that no middleware repeats it.
//! UNAVAILABLE, which middleware repeats, says that nothing was done.

use crate::api::{Failure, Outcome, Reason};
use raftqueue_proto::{status, v1};
use tonic::{Code, Status};

/// The codes of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    /// As gRPC says it.
    pub grpc: Code,
    /// As HTTP says it.
    pub http: u16,
}

/// One row of the table: a reason, its codes when nothing was done, and its name on the wire.
const TABLE: [(Reason, Code, u16, v1::Reason); 24] = [
    (Reason::InvalidArgument, Code::InvalidArgument, 400, v1::Reason::InvalidArgument),
    (Reason::TopicNotFound, Code::NotFound, 404, v1::Reason::TopicNotFound),
    (Reason::TopicExists, Code::AlreadyExists, 409, v1::Reason::TopicExists),
    (Reason::SubscriptionNotFound, Code::NotFound, 404, v1::Reason::SubscriptionNotFound),
    (Reason::TooLarge, Code::OutOfRange, 413, v1::Reason::TooLarge),
    (Reason::LimitReached, Code::ResourceExhausted, 429, v1::Reason::LimitReached),
    (Reason::Overloaded, Code::ResourceExhausted, 429, v1::Reason::Overloaded),
    (Reason::DiskFull, Code::ResourceExhausted, 507, v1::Reason::DiskFull),
    (Reason::SessionExpired, Code::FailedPrecondition, 409, v1::Reason::SessionExpired),
    (Reason::Fenced, Code::FailedPrecondition, 409, v1::Reason::Fenced),
    (Reason::OutOfSequence, Code::FailedPrecondition, 409, v1::Reason::OutOfSequence),
    (Reason::SequenceReused, Code::FailedPrecondition, 409, v1::Reason::SequenceReused),
    (Reason::AlreadyDone, Code::FailedPrecondition, 409, v1::Reason::AlreadyDone),
    (Reason::NoLeader, Code::Unavailable, 503, v1::Reason::NoLeader),
    (Reason::NotLeader, Code::Unavailable, 503, v1::Reason::NotLeader),
    (Reason::DeadlineExceeded, Code::Unavailable, 503, v1::Reason::DeadlineExceeded),
    (Reason::ForwardingBroken, Code::Unavailable, 503, v1::Reason::ForwardingBroken),
    (Reason::ShuttingDown, Code::Unavailable, 503, v1::Reason::ShuttingDown),
    (Reason::DataUnreadable, Code::DataLoss, 503, v1::Reason::DataUnreadable),
    (Reason::NodeNotFound, Code::NotFound, 404, v1::Reason::NodeNotFound),
    (Reason::FailedPrecondition, Code::FailedPrecondition, 409, v1::Reason::FailedPrecondition),
    (Reason::StaleConfiguration, Code::FailedPrecondition, 409, v1::Reason::StaleConfiguration),
    (Reason::Unauthenticated, Code::Unauthenticated, 401, v1::Reason::Unauthenticated),
    (Reason::PermissionDenied, Code::PermissionDenied, 403, v1::Reason::PermissionDenied),
];

/// How long to wait before a repeat, in milliseconds, for failures that must carry a hint and have none.
const RETRY_AFTER_MS_DEFAULT: u64 = 1_000;

/// The row of a reason; the table has one for each, in their order.
fn row(reason: Reason) -> &'static (Reason, Code, u16, v1::Reason) {
    TABLE.iter().find(|row| row.0 == reason).expect("the table has a row for each reason")
}

/// The codes of a failure.
#[must_use]
pub fn codes(failure: &Failure) -> Codes {
    match failure.outcome {
        Outcome::Unknown => Codes { grpc: Code::Unknown, http: 504 },
        Outcome::NotDone => {
            let (_, grpc, http, _) = *row(failure.reason);
            Codes { grpc, http }
        }
    }
}

/// When to repeat, in milliseconds: RESOURCE_EXHAUSTED always says so.
#[must_use]
pub fn retry_after_ms(failure: &Failure) -> Option<u64> {
    match codes(failure).grpc {
        Code::ResourceExhausted => failure.retry_after_ms.or(Some(RETRY_AFTER_MS_DEFAULT)),
        _ => failure.retry_after_ms,
    }
}

/// The reason's name, as in the contract: `TOPIC_NOT_FOUND`.
#[must_use]
pub fn reason_name(reason: Reason) -> &'static str {
    row(reason).3.as_str_name().trim_start_matches("REASON_")
}

/// The outcome's name: `NOT_DONE` or `UNKNOWN`.
#[must_use]
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NotDone => "NOT_DONE",
        Outcome::Unknown => "UNKNOWN",
    }
}

/// The failure as it travels to clients and peers.
#[must_use]
pub fn detail(failure: &Failure, leader_hint: Option<&str>) -> v1::ErrorDetail {
    let outcome = match failure.outcome {
        Outcome::NotDone => v1::Outcome::NotDone,
        Outcome::Unknown => v1::Outcome::Unknown,
    };
    v1::ErrorDetail {
        reason: row(failure.reason).3.into(),
        outcome: outcome.into(),
        retry_after_ms: retry_after_ms(failure),
        leader_hint: leader_hint.unwrap_or_default().to_owned(),
    }
}

/// The failure that a detail describes. If its reason is one of a newer version, it is read as
/// [`Reason::FailedPrecondition`]; an outcome of a newer version is read as unknown.
#[must_use]
pub fn failure(detail: &v1::ErrorDetail, text: String) -> Failure {
    let reason =
        TABLE.iter().find(|row| row.3 == detail.reason()).map_or(Reason::FailedPrecondition, |row| row.0);
    let outcome = match detail.outcome() {
        v1::Outcome::NotDone => Outcome::NotDone,
        v1::Outcome::Unknown | v1::Outcome::Unspecified => Outcome::Unknown,
    };
    Failure { reason, outcome, text, retry_after_ms: detail.retry_after_ms }
}

/// The failure as a gRPC status with its detail.
#[must_use]
pub fn into_status(failure: &Failure, leader_hint: Option<&str>) -> Status {
    status::with_detail(codes(failure).grpc, &failure.text, &detail(failure, leader_hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_contract_has_exactly_one_row() {
        for number in 1..=24 {
            let reason = v1::Reason::try_from(number).expect("the contract numbers its reasons without gaps");
            assert_eq!(TABLE.iter().filter(|row| row.3 == reason).count(), 1, "{reason:?}");
        }
        assert!(v1::Reason::try_from(25).is_err(), "a new reason needs a row");
        for (position, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, position, "one row for each reason, in their order");
        }
        assert_eq!(Reason::PermissionDenied as usize + 1, TABLE.len(), "the last reason is the last row");
    }

    #[test]
    fn rule_8_1_an_unknown_outcome_is_unknown_and_504_whatever_the_reason() {
        for (reason, ..) in TABLE {
            let unknown = Failure::unknown(reason, "");
            assert_eq!(codes(&unknown), Codes { grpc: Code::Unknown, http: 504 });
        }
    }

    #[test]
    fn rule_8_1_unavailable_always_says_that_nothing_was_done() {
        for (reason, ..) in TABLE {
            for sent in [Failure::not_done(reason, "text"), Failure::unknown(reason, "text")] {
                let status = into_status(&sent, Some("127.0.0.1:7420"));
                let detail = status::detail(&status).expect("always there");
                assert_eq!(detail.leader_hint, "127.0.0.1:7420");
                if status.code() == Code::Unavailable {
                    assert_eq!(detail.outcome(), v1::Outcome::NotDone);
                }
                let read = failure(&detail, status.message().to_owned());
                assert_eq!(read, Failure { retry_after_ms: retry_after_ms(&sent), ..sent });
            }
        }
    }

    #[test]
    fn rule_8_1_resource_exhausted_carries_a_hint() {
        for (reason, code, ..) in TABLE {
            let failure = Failure::not_done(reason, "");
            assert_eq!(retry_after_ms(&failure).is_some(), code == Code::ResourceExhausted, "{reason:?}");
            assert_eq!(retry_after_ms(&failure.retry_after_ms(7)), Some(7));
        }
    }

    #[test]
    fn codes_of_http_are_those_that_its_contract_lists() {
        for (reason, _, http, _) in TABLE {
            assert!([400, 401, 403, 404, 409, 413, 429, 503, 507].contains(&http), "{reason:?}");
        }
    }

    #[test]
    fn a_detail_of_a_newer_version_is_of_unknown_outcome() {
        let newer =
            v1::ErrorDetail { reason: 99, outcome: 99, retry_after_ms: None, leader_hint: String::new() };
        let read = failure(&newer, "later".into());
        assert_eq!(read, Failure::unknown(Reason::FailedPrecondition, "later"));
    }

    #[test]
    fn names_are_those_of_the_contract() {
        assert_eq!(reason_name(Reason::TopicNotFound), "TOPIC_NOT_FOUND");
        assert_eq!(outcome_name(Outcome::NotDone), "NOT_DONE");
    }
}
