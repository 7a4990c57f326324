//! How many calls there are, how long they take, and how they fail: by method.

use crate::api::{Failure, Method};
use crate::wire::errors;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Calls {
    /// One for each method, in their order, so that none has to be looked up.
    seconds: Vec<Histogram>,
    failures: IntCounterVec,
    forwarded: IntCounter,
}

impl Calls {
    pub(super) fn new(registry: &Registry) -> Self {
        let buckets = prometheus::exponential_buckets(0.000_25, 2.0, 16).expect("valid buckets");
        let text = "Time of calls, by method; a call that waits for messages has that wait in it.";
        let options = HistogramOpts::new("raftqueue_call_seconds", text).buckets(buckets);
        let seconds = HistogramVec::new(options, &["method"]).expect("the name is valid");
        registry.register(Box::new(seconds.clone())).expect("the name is new");
        let options = Opts::new("raftqueue_call_failures_total", "Calls that failed, by method and reason.");
        let failures = IntCounterVec::new(options, &["method", "reason"]).expect("the name is valid");
        registry.register(Box::new(failures.clone())).expect("the name is new");
        let text = "Calls that this node passed on to the leader.";
        let forwarded = super::counter(registry, "raftqueue_calls_forwarded_total", text);
        let seconds = Method::ALL.iter().map(|method| seconds.with_label_values(&[method.label()]));
        Self { seconds: seconds.collect(), failures, forwarded }
    }

    pub(super) fn ended(&self, method: Method, took: Duration, failure: Option<&Failure>) {
        self.seconds[method as usize].observe(took.as_secs_f64());
        if let Some(failure) = failure {
            let labels = [method.label(), errors::reason_name(failure.reason)];
            self.failures.with_label_values(&labels).inc();
        }
    }

    pub(super) fn forwarded(&self) {
        self.forwarded.inc();
    }
}
