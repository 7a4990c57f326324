//! How long another node may take to answer: more at each attempt that it was late for. With one time for all attempts a
//! machine that has too much to do would never answer anybody: each attempt would be given up for one that begins anew.

use std::time::Duration;

/// As many times as long as at first, one is waited for at most.
const GROWTH_MAX: u32 = 8;

/// See the module's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    first: Duration,
    now: Duration,
}

impl Patience {
    /// It may take so long at first.
    pub(super) fn new(first: Duration) -> Self {
        Self { first, now: first }
    }

    /// How long it may take now.
    pub(super) fn timeout(&self) -> Duration {
        self.now
    }

    /// It did not answer in time. It is not asked to be faster afterwards: what is slow once is slow again.
    pub(super) fn was_late(&mut self) {
        self.now = (2 * self.now).min(GROWTH_MAX * self.first);
    }
}
