//! An open loop: batches are due at a fixed rate, whether or not those before them are answered.
//!
//! A load that waits for its answers asks less often while a cluster stands still, and so hardly sees it. Here latency counts
//! from the moment at which a batch was due, so a stall shows in every batch that came due in it, also in one that fails or that nobody has time to
//! send.

use super::measure::Measure;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The clock's shortest sleep. The system wakes a thread about as late.
const STEP: Duration = Duration::from_micros(50);

/// Lets batches go when they are due.
#[derive(Debug)]
pub(super) struct Pace {
    begun: Instant,
    batches_per_second: f64,
    /// A permit for each batch that is due and that nobody has taken.
    due: Semaphore,
    came_due: AtomicU64,
    taken: AtomicU64,
}

impl Pace {
    /// Starts the clock, which stops with the measure. It is a thread: timers of the runtime count in milliseconds.
    pub(super) fn start(
        messages_per_second: u64,
        batch: u64,
        measure: &Arc<Measure>,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let pace = Arc::new(Self {
            begun: Instant::now(),
            batches_per_second: messages_per_second as f64 / batch as f64,
            due: Semaphore::new(0),
            came_due: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        let (clock, measure) = (Arc::clone(&pace), Arc::clone(measure));
        (pace, thread::spawn(move || clock.run(&measure)))
    }

    fn run(&self, measure: &Measure) {
        let mut told = 0;
        while measure.goes_on() {
            while self.due_at(told) <= Instant::now() {
                told += 1;
                self.came_due.store(told, Ordering::Relaxed);
                self.due.add_permits(1);
            }
            let next = self.due_at(told).min(measure.end());
            thread::sleep(next.saturating_duration_since(Instant::now()).max(STEP));
        }
        self.due.close();
    }

    /// When a batch is due that so many go before.
    fn due_at(&self, before: u64) -> Instant {
        self.begun + Duration::from_secs_f64(before as f64 / self.batches_per_second)
    }

    /// Waits for the next batch, and says when it was due. `None` once the measure has ended.
    pub(super) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        Some(self.due_at(self.taken.fetch_add(1, Ordering::Relaxed)))
    }

    /// When those were due that nobody had time for. Everybody who takes batches has ended.
    pub(super) fn missed(&self) -> impl Iterator<Item = Instant> {
        let all = self.taken.load(Ordering::Relaxed)..self.came_due.load(Ordering::Relaxed);
        all.map(|before| self.due_at(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever comes late is told when his batch was due, and what nobody takes is missed.
    #[tokio::test]
    async fn batches_are_due_at_their_rate_whoever_waits_for_them() {
        let measure = Arc::new(Measure::start("published", Duration::from_secs(600)));
        let (pace, clock) = Pace::start(2_000, 2, &measure);
        while pace.came_due.load(Ordering::Relaxed) < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for before in 0..5 {
            let due = pace.next().await.expect("it goes on");
            assert_eq!(due, pace.begun + Duration::from_millis(before));
        }
        measure.end_now();
        clock.join().expect("it ends with the measure");
        assert_eq!(pace.next().await, None);
        assert!(pace.missed().count() >= 15);
        assert_eq!(pace.missed().next(), Some(pace.begun + Duration::from_millis(5)));
    }
}
