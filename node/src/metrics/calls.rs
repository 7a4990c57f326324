//! How many calls there are, how long they take, and how they fail: by method.

use crate::api::{Failure, Request};
use crate::wire::errors;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// Every method; [`method`] points into it.
const METHODS: [&str; 19] = [
    "create_topic",
    "delete_topic",
    "list_topics",
    "describe_topic",
    "publish",
    "receive",
    "pop",
    "ack",
    "nack",
    "extend",
    "release",
    "peek",
    "redrive_dead",
    "purge_dead",
    "purge",
    "open_session",
    "close_session",
    "cluster_status",
    "transfer_leadership",
];

/// A method: its place in [`METHODS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method(usize);

impl Method {
    /// The method that a request calls.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        Self(match request {
            Request::CreateTopic { .. } => 0,
            Request::DeleteTopic { .. } => 1,
            Request::ListTopics { .. } => 2,
            Request::DescribeTopic { .. } => 3,
            Request::Publish { .. } => 4,
            Request::Receive { .. } => 5,
            Request::Pop { .. } => 6,
            Request::Ack { .. } => 7,
            Request::Nack { .. } => 8,
            Request::Extend { .. } => 9,
            Request::Release { .. } => 10,
            Request::Peek { .. } => 11,
            Request::RedriveDead { .. } => 12,
            Request::PurgeDead { .. } => 13,
            Request::Purge { .. } => 14,
            Request::OpenSession { .. } => 15,
            Request::CloseSession { .. } => 16,
            Request::ClusterStatus => 17,
            Request::TransferLeadership { .. } => 18,
        })
    }

    fn name(self) -> &'static str {
        METHODS[self.0]
    }
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Calls {
    /// One for each method, so that none has to be looked up.
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
        let seconds = METHODS.iter().map(|method| seconds.with_label_values(&[*method])).collect();
        Self { seconds, failures, forwarded }
    }

    pub(super) fn ended(&self, method: Method, took: Duration, failure: Option<&Failure>) {
        self.seconds[method.0].observe(took.as_secs_f64());
        if let Some(failure) = failure {
            let labels = [method.name(), errors::reason_name(failure.reason)];
            self.failures.with_label_values(&labels).inc();
        }
    }

    pub(super) fn forwarded(&self) {
        self.forwarded.inc();
    }
}
