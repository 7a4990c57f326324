//! Holds producers to a pace, and to what consumers keep up with.

use super::measure::Measure;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often whoever waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What every batch passes before it is published.
#[derive(Debug)]
pub(super) struct Gate {
    begun: Instant,
    /// Messages a second; 0: as many as it can be.
    rate: u64,
    passed: AtomicU64,
    /// No batch passes while more than this wait.
    waiting_max: u64,
    published: Arc<Measure>,
    consumed: Arc<Measure>,
}

impl Gate {
    /// A gate that opens now.
    pub(super) fn open(
        rate: u64,
        waiting_max: u64,
        published: &Arc<Measure>,
        consumed: &Arc<Measure>,
    ) -> Self {
        let (published, consumed) = (Arc::clone(published), Arc::clone(consumed));
        Self { begun: Instant::now(), rate, passed: AtomicU64::new(0), waiting_max, published, consumed }
    }

    /// Messages that were published and not consumed yet.
    pub(super) fn waiting(&self) -> u64 {
        self.published.messages().saturating_sub(self.consumed.messages())
    }

    /// Waits until so many messages may go, or the measure ends.
    pub(super) async fn pass(&self, messages: u64, measure: &Measure) {
        let before = self.passed.fetch_add(messages, Ordering::Relaxed);
        while measure.goes_on()
            && (self.begun.elapsed() < self.due(before) || self.waiting() > self.waiting_max)
        {
            let early = self.due(before).saturating_sub(self.begun.elapsed());
            let pause = if early.is_zero() { LOOK_EVERY } else { early.min(LOOK_EVERY) };
            tokio::time::sleep(pause).await;
        }
    }

    /// When a message goes that so many go before.
    fn due(&self, before: u64) -> Duration {
        if self.rate == 0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(before as f64 / self.rate as f64)
        }
    }
}
