//! Whether the driver's loop turns at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A loop that should turn every few milliseconds and does not for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Whether the driver's loop turns. Before its first turn the node starts, which may take as long as it takes.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    /// Milliseconds after `start` of the last turn; 0 before the first.
    last_ms: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// The loop has turned.
    pub fn beat(&self) {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// The loop has ended, and the process goes on: it is not missed.
    pub fn ends(&self) {
        self.last_ms.store(0, Ordering::Relaxed);
    }

    /// How long ago the loop turned last, if that is too long ago.
    #[must_use]
    pub fn hangs_since(&self) -> Option<Duration> {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        let silence = self.start.elapsed().saturating_sub(Duration::from_millis(last_ms));
        (last_ms > 0 && silence > SILENCE_MAX).then_some(silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_is_missed_only_after_it_was_felt() {
        let pulse = |age_ms: u64, last_ms: u64| Pulse {
            start: Instant::now() - Duration::from_millis(age_ms),
            last_ms: AtomicU64::new(last_ms),
        };
        assert_eq!(pulse(3_600_000, 0).hangs_since(), None, "recovery takes as long as it takes");
        assert_eq!(pulse(20_000, 15_000).hangs_since(), None);
        let hanging = pulse(20_000, 5_000);
        assert!(hanging.hangs_since().is_some_and(|silence| silence >= Duration::from_secs(15)));
        hanging.ends();
        assert_eq!(hanging.hangs_since(), None);
        hanging.beat();
        assert_eq!(hanging.hangs_since(), None);
    }
}
