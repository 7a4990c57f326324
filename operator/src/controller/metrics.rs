//! What the loop counts.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassResult {
    /// Everything was done that was due.
    Done,
    /// A call to the API server failed.
    Failed,
    /// It took too long.
    TimedOut,
    /// The object cannot be read.
    NotReadable,
}

impl PassResult {
    const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::TimedOut, Self::NotReadable];

    fn label(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Failed => "error",
            Self::TimedOut => "timeout",
            Self::NotReadable => "not_readable",
        }
    }
}

/// How many passes there were, and how long they took. Clones count together.
#[derive(Clone)]
pub struct PassMetrics {
    passes: IntCounterVec,
    duration: Histogram,
}

impl PassMetrics {
    /// All zero, and known to this registry.
    ///
    /// # Panics
    /// If the registry has them already.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let duration = HistogramOpts::new(
            "raftqueue_operator_reconcile_duration_seconds",
            "How long one look at a RaftQueue took, with everything done about it",
        );
        let passes =
            Opts::new("raftqueue_operator_reconciles_total", "Looks at RaftQueues, by how they ended");
        let metrics = Self {
            passes: IntCounterVec::new(passes, &["result"]).expect("a well-formed name"),
            duration: Histogram::with_opts(duration.buckets(buckets)).expect("ascending bounds"),
        };
        for result in PassResult::ALL {
            metrics.passes.with_label_values(&[result.label()]);
        }
        registry.register(Box::new(metrics.passes.clone())).expect("its name is registered once");
        registry.register(Box::new(metrics.duration.clone())).expect("its name is registered once");
        metrics
    }

    /// A pass ended.
    pub fn count(&self, result: PassResult, took: Duration) {
        self.passes.with_label_values(&[result.label()]).inc();
        self.duration.observe(took.as_secs_f64());
    }
}
