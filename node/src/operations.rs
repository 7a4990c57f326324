//! The operations port: `/metrics`, `/livez`, `/readyz`. Open before recovery begins.
//!
//! `/livez` says that the driver's loop turns; it never fails for want of a quorum, since restarting the node would not
//! bring one. `/readyz` says that the node is a member, has known a leader lately, has applied what was committed when it
//! started, and lags little; its text says what is missing.

use crate::handle::LocalStatus;
use crate::metrics::Metrics;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

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

    /// How long ago the loop turned last, if that is too long ago.
    #[must_use]
    pub fn hangs_since(&self) -> Option<Duration> {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        let silence = self.start.elapsed().saturating_sub(Duration::from_millis(last_ms));
        (last_ms > 0 && silence > SILENCE_MAX).then_some(silence)
    }
}

/// The routes of the operations port. `stopping` is set when the node is about to end.
pub fn router(
    metrics: Arc<Metrics>,
    status: watch::Receiver<Arc<LocalStatus>>,
    stopping: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
) -> Router {
    let alive = move || {
        let hangs = pulse.hangs_since();
        async move {
            match hangs {
                None => (StatusCode::OK, "alive\n".to_owned()),
                Some(silence) => {
                    let text = format!("the driver has not turned for {} s\n", silence.as_secs());
                    (StatusCode::INTERNAL_SERVER_ERROR, text)
                }
            }
        }
    };
    let standing = Standing { status, stopping };
    let asked = standing.clone();
    let ready = move || {
        let not_ready = asked.not_ready();
        async move {
            match not_ready {
                None => (StatusCode::OK, "ready\n".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }
        }
    };
    let metrics = move || async move {
        metrics.standing(&standing.status.borrow().cluster_id, standing.not_ready().is_none());
        let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
        (content_type, metrics.render()).into_response()
    };
    Router::new().route("/metrics", get(metrics)).route("/livez", get(alive)).route("/readyz", get(ready))
}

/// What the node is, as it says itself.
#[derive(Clone)]
struct Standing {
    status: watch::Receiver<Arc<LocalStatus>>,
    stopping: Arc<AtomicBool>,
}

impl Standing {
    /// Why the node is not ready, unless it is.
    fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("shutting down".into());
        }
        self.status.borrow().not_ready.clone()
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
        hanging.beat();
        assert_eq!(hanging.hangs_since(), None);
    }
}
