//! Checks the content of a call against limits that nobody sets. Those that can be set are in
//! [`limits`](super::limits).

use super::{Failure, LeaseId, Reason, TopicOptions};
use raftqueue_queue as queue;
use std::fmt::Display;

/// Most bytes that a receive, pop or peek may ask for.
pub const RECEIVE_BYTES_MAX: usize = 16 << 20;
/// Most topics on one page of a listing.
pub const LIST_TOPICS_MAX: usize = 10_000;
/// Longest delay and longest time to live, in milliseconds: ten years.
pub const DELAY_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1_000;

/// A request that is refused as it is.
pub(crate) fn invalid(text: impl Into<String>) -> Failure {
    Failure::not_done(Reason::InvalidArgument, text)
}

/// Refuses a size over its limit.
pub(crate) fn check_size(what: &str, value: usize, max: usize) -> Result<(), Failure> {
    if value <= max {
        return Ok(());
    }
    Err(Failure::not_done(Reason::TooLarge, format!("{what}: {value} is over the limit of {max}")))
}

pub(super) fn check_range<T: PartialOrd + Display + Copy>(
    what: &str,
    value: T,
    min: T,
    max: T,
) -> Result<(), Failure> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(invalid(format!("{what}: {value} is not within {min} and {max}")))
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > queue::NAME_BYTES_MAX {
        return Err(invalid(format!(
            "{what}: a name has 1 to {} bytes of UTF-8, this one has {}",
            queue::NAME_BYTES_MAX,
            name.len()
        )));
    }
    match name.chars().find(|c| c.is_control()) {
        Some(c) => {
            Err(invalid(format!("{what}: a name has no control characters, this one has U+{:04X}", c as u32)))
        }
        None => Ok(()),
    }
}

pub(super) fn check_place(topic: &str, subscription: &str) -> Result<(), Failure> {
    check_name("topic", topic)?;
    if subscription.is_empty() { Ok(()) } else { check_name("subscription", subscription) }
}

pub(super) fn check_receive(messages_max: usize, bytes_max: usize) -> Result<(), Failure> {
    check_range("messages_max", messages_max, 1, queue::RECEIVE_MESSAGES_MAX)?;
    check_range("bytes_max", bytes_max, 1, RECEIVE_BYTES_MAX)
}

pub(super) fn check_lease_ms(lease_ms: Option<u64>) -> Result<(), Failure> {
    lease_ms.map_or(Ok(()), |lease_ms| {
        check_range("lease_ms", lease_ms, queue::LEASE_MS_MIN, queue::LEASE_MS_MAX)
    })
}

pub(super) fn check_leases(leases: &[LeaseId]) -> Result<(), Failure> {
    check_range("leases", leases.len(), 1, queue::SETTLE_LEASES_MAX)?;
    match leases.iter().find(|lease| lease.message.topic != leases[0].message.topic) {
        Some(other) => Err(invalid(format!(
            "leases of one call are of one topic, these are of topics {} and {}",
            leases[0].message.topic, other.message.topic
        ))),
        None => Ok(()),
    }
}

pub(super) fn check_options(options: &TopicOptions) -> Result<(), Failure> {
    if let Some(attempts_max) = options.attempts_max {
        check_range("attempts_max", attempts_max, 1, u32::MAX)?;
    }
    if let Some(messages_max) = options.messages_max {
        check_range("messages_max", messages_max, 1, u64::MAX)?;
    }
    if let Some(bytes_max) = options.bytes_max {
        check_range("bytes_max", bytes_max, 1, u64::MAX)?;
    }
    options.ttl_ms.map_or(Ok(()), |ttl_ms| check_range("ttl_ms", ttl_ms, 1, DELAY_MS_MAX))
}
