//! When a message expires.

/// The log time at which a message expires, in the 8 bytes that a lease can afford.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// The message brought none.
    pub(crate) const NEVER: Deadline = Deadline(u64::MAX);
    /// The message was redriven: its own deadline does not count any more.
    pub(crate) const WAIVED: Deadline = Deadline(u64::MAX - 1);
    /// The latest possible deadline. Later ones mean this one.
    const LAST: u64 = u64::MAX - 2;

    pub(crate) fn new(deadline_ms: Option<u64>) -> Deadline {
        deadline_ms.map_or(Deadline::NEVER, |ms| Deadline(ms.min(Deadline::LAST)))
    }

    pub(crate) fn has_passed(self, now_ms: u64) -> bool {
        self.0 <= Deadline::LAST && self.0 <= now_ms
    }

    pub(crate) fn is_waived(self) -> bool {
        self == Deadline::WAIVED
    }

    /// The time, unless there is none or it is waived.
    pub(crate) fn as_ms(self) -> Option<u64> {
        (self.0 <= Deadline::LAST).then_some(self.0)
    }
}
