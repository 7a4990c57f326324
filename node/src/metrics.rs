//! What a node tells Prometheus. All series begin with `raftqueue_`; labels have few, fixed values.

mod calls;
mod process;

use crate::api::Failure;
use crate::replica::{Counters, View};
use calls::Calls;
pub use calls::Method;
use process::Process;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use raftqueue_queue::State;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// All series of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    has_leader: IntGauge,
    is_leader: IntGauge,
    term: IntGauge,
    commit_index: IntGauge,
    applied_index: IntGauge,
    last_index: IntGauge,
    durable_index: IntGauge,
    leader_changes: IntCounter,
    uncommitted_bytes: IntGauge,
    fsync_seconds: Histogram,
    batch_bytes: Histogram,
    batch_entries: Histogram,
    calls: Calls,
    process: Process,
    free_bytes: IntGauge,
    disk_stalled: IntGauge,
    peer_messages: IntCounterVec,
    peer_refusals: IntCounterVec,
    open_calls: IntGauge,
    queued_bytes: IntGauge,
    entries_proposed: IntCounter,
    commands_applied: IntCounter,
    messages: IntCounterVec,
    bytes_published: IntCounter,
    leases_expired: IntCounter,
    calls_refused: IntCounter,
    calls_expired: IntCounter,
    topics: IntGauge,
    sessions: IntGauge,
    depth: IntGaugeVec,
    stored_bytes: IntGauge,
    tick_lag_seconds: Gauge,
    last: Mutex<(Counters, Option<u64>)>,
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("the name is valid");
    registry.register(Box::new(gauge.clone())).expect("the name is new");
    gauge
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("the name is valid");
    registry.register(Box::new(counter.clone())).expect("the name is new");
    counter
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label]).expect("the name is valid");
    registry.register(Box::new(counters.clone())).expect("the name is new");
    counters
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets));
    let histogram = histogram.expect("the name is valid");
    registry.register(Box::new(histogram.clone())).expect("the name is new");
    histogram
}

impl Metrics {
    /// All series, at zero.
    #[must_use]
    pub fn new(node: &str) -> Self {
        let r = Registry::new();
        let info = IntGaugeVec::new(
            Opts::new("raftqueue_info", "Always 1; labels say what runs here."),
            &["node", "version"],
        )
        .expect("the name is valid");
        r.register(Box::new(info.clone())).expect("the name is new");
        info.with_label_values(&[node, env!("CARGO_PKG_VERSION")]).set(1);
        let fsync_seconds = Histogram::with_opts(
            HistogramOpts::new("raftqueue_wal_sync_seconds", "Time to write and sync one batch of the log.")
                .buckets(prometheus::exponential_buckets(0.000_05, 2.0, 18).expect("valid buckets")),
        )
        .expect("the name is valid");
        r.register(Box::new(fsync_seconds.clone())).expect("the name is new");
        let batch_bytes = histogram(
            &r,
            "raftqueue_wal_batch_bytes",
            "Bytes of the entries that were written and synced together.",
            prometheus::exponential_buckets(256.0, 4.0, 9).expect("valid buckets"),
        );
        let batch_entries = histogram(
            &r,
            "raftqueue_wal_batch_entries",
            "Entries that were written and synced together.",
            prometheus::exponential_buckets(1.0, 2.0, 10).expect("valid buckets"),
        );
        let depth = IntGaugeVec::new(
            Opts::new(
                "raftqueue_messages",
                "Messages held, by state, over all topics, as of the last applied entry.",
            ),
            &["state"],
        )
        .expect("the name is valid");
        r.register(Box::new(depth.clone())).expect("the name is new");
        let tick_lag_seconds =
            Gauge::new("raftqueue_loop_lag_seconds", "How late the driver's last tick was.")
                .expect("the name is valid");
        r.register(Box::new(tick_lag_seconds.clone())).expect("the name is new");
        Self {
            has_leader: gauge(&r, "raftqueue_raft_has_leader", "1 if this node knows a leader."),
            is_leader: gauge(&r, "raftqueue_raft_is_leader", "1 if this node leads."),
            term: gauge(&r, "raftqueue_raft_term", "The current term."),
            commit_index: gauge(&r, "raftqueue_raft_commit_index", "Last committed index."),
            applied_index: gauge(&r, "raftqueue_raft_applied_index", "Last applied index."),
            last_index: gauge(&r, "raftqueue_raft_last_index", "Last index in the log."),
            durable_index: gauge(&r, "raftqueue_raft_durable_index", "Last index on this disk."),
            leader_changes: counter(
                &r,
                "raftqueue_raft_leader_changes_total",
                "Changes of the leader seen here.",
            ),
            uncommitted_bytes: gauge(
                &r,
                "raftqueue_raft_uncommitted_bytes",
                "Bytes that wait to be committed.",
            ),
            fsync_seconds,
            batch_bytes,
            batch_entries,
            calls: Calls::new(&r),
            process: Process::new(&r),
            free_bytes: gauge(&r, "raftqueue_wal_free_bytes", "Bytes free on the data disk."),
            disk_stalled: gauge(
                &r,
                "raftqueue_wal_stalled",
                "1 while a write is out for longer than an election timeout.",
            ),
            peer_messages: counters(
                &r,
                "raftqueue_peer_messages_total",
                "Messages to peers, sent or dropped.",
                "result",
            ),
            peer_refusals: counters(
                &r,
                "raftqueue_peer_refusals_total",
                "Peers refused, by reason.",
                "reason",
            ),
            open_calls: gauge(&r, "raftqueue_calls_open", "Calls that wait for something."),
            queued_bytes: gauge(
                &r,
                "raftqueue_calls_queued_bytes",
                "Bytes of calls that wait to be proposed.",
            ),
            entries_proposed: counter(
                &r,
                "raftqueue_entries_proposed_total",
                "Entries that this node proposed.",
            ),
            commands_applied: counter(&r, "raftqueue_commands_applied_total", "Commands applied."),
            messages: counters(&r, "raftqueue_messages_total", "Messages by what happened to them.", "event"),
            bytes_published: counter(&r, "raftqueue_published_bytes_total", "Bytes published."),
            leases_expired: counter(&r, "raftqueue_leases_expired_total", "Leases that ran out."),
            calls_refused: counter(
                &r,
                "raftqueue_calls_refused_total",
                "Calls refused because too much waited.",
            ),
            calls_expired: counter(&r, "raftqueue_calls_expired_total", "Calls whose deadline passed."),
            topics: gauge(&r, "raftqueue_topics", "Topics."),
            sessions: gauge(&r, "raftqueue_sessions", "Open producer sessions."),
            depth,
            stored_bytes: gauge(&r, "raftqueue_stored_bytes", "Bytes of all messages held."),
            tick_lag_seconds,
            last: Mutex::default(),
            registry: r,
        }
    }

    /// The text format that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        self.process.observe();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory succeeds");
        text
    }

    /// A batch of the log was synced: so many entries, of so many bytes.
    pub fn wal_synced(&self, took: Duration, entries: usize, bytes: usize) {
        self.fsync_seconds.observe(took.as_secs_f64());
        self.batch_entries.observe(as_float(entries));
        self.batch_bytes.observe(as_float(bytes));
    }

    /// A call has ended, with a failure or without.
    pub fn call_ended(&self, method: Method, took: Duration, failure: Option<&Failure>) {
        self.calls.ended(method, took, failure);
    }

    /// A call was passed on to the leader.
    pub fn call_forwarded(&self) {
        self.calls.forwarded();
    }

    /// Bytes free on the data disk.
    pub fn free_bytes(&self, bytes: u64) {
        self.free_bytes.set(as_gauge(bytes));
    }

    /// A message to a peer was sent, or dropped.
    pub fn peer_message(&self, sent: bool) {
        self.peer_messages.with_label_values(&[if sent { "sent" } else { "dropped" }]).inc();
    }

    /// A peer was refused.
    pub fn peer_refused(&self, reason: &'static str) {
        self.peer_refusals.with_label_values(&[reason]).inc();
    }

    /// What the driver sees on a tick.
    pub fn observe(&self, view: &View, disk_stalled: bool, tick_lag: Duration) {
        self.has_leader.set(i64::from(view.raft.role.leader.is_some()));
        self.is_leader.set(i64::from(view.raft.role.role == raftqueue_raft::RoleKind::Leader));
        self.term.set(as_gauge(view.raft.role.term.0));
        self.commit_index.set(as_gauge(view.raft.commit.0));
        self.applied_index.set(as_gauge(view.applied.0));
        self.last_index.set(as_gauge(view.raft.last.0));
        self.durable_index.set(as_gauge(view.raft.durable.0));
        self.uncommitted_bytes.set(as_gauge(view.raft.uncommitted_bytes as u64));
        self.disk_stalled.set(i64::from(disk_stalled));
        self.open_calls.set(as_gauge(view.calls as u64));
        self.queued_bytes.set(as_gauge(view.queued_bytes as u64));
        self.tick_lag_seconds.set(tick_lag.as_secs_f64());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let leader = view.raft.role.leader.map(|leader| leader.0);
        if leader.is_some() && leader != last.1 {
            self.leader_changes.inc();
            last.1 = leader;
        }
        let (now, then) = (view.counters, last.0);
        last.0 = now;
        drop(last);
        self.entries_proposed.inc_by(now.entries_proposed - then.entries_proposed);
        self.commands_applied.inc_by(now.commands_applied - then.commands_applied);
        self.bytes_published.inc_by(now.bytes_published - then.bytes_published);
        self.leases_expired.inc_by(now.leases_expired - then.leases_expired);
        self.calls_refused.inc_by(now.calls_refused - then.calls_refused);
        self.calls_expired.inc_by(now.calls_expired - then.calls_expired);
        for (event, rise) in [
            ("published", now.messages_published - then.messages_published),
            ("delivered", now.messages_delivered - then.messages_delivered),
            ("redelivered", now.messages_redelivered - then.messages_redelivered),
            ("acknowledged", now.messages_acknowledged - then.messages_acknowledged),
            ("died", now.messages_died - then.messages_died),
        ] {
            self.messages.with_label_values(&[event]).inc_by(rise);
        }
    }

    /// How full the queue is. Costs time by topics, so it is called now and then.
    pub fn observe_queue(&self, state: &State) {
        let (mut ready, mut leased, mut delayed, mut dead, mut bytes) = (0, 0, 0, 0, 0);
        for topic in state.topics() {
            for (_, subscription) in topic.subscriptions() {
                let stats = subscription.stats();
                ready += stats.ready;
                leased += stats.leased;
                delayed += stats.delayed;
                dead += stats.dead;
                bytes += stats.ready_bytes + stats.leased_bytes + stats.delayed_bytes + stats.dead_bytes;
            }
        }
        self.topics.set(as_gauge(state.topic_count() as u64));
        self.sessions.set(as_gauge(state.session_count() as u64));
        self.stored_bytes.set(as_gauge(bytes));
        for (name, count) in [("ready", ready), ("leased", leased), ("delayed", delayed), ("dead", dead)] {
            self.depth.with_label_values(&[name]).set(as_gauge(count));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of batches are far below 2^52")]
fn as_float(number: usize) -> f64 {
    number as f64
}

fn as_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Reason, Request};

    /// The value of a series in the text that Prometheus reads.
    fn value(metrics: &Metrics, series: &str) -> f64 {
        let text = String::from_utf8(metrics.render()).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{series} is not in\n{text}"))
    }

    #[test]
    fn calls_are_counted_by_method_and_reason() {
        let metrics = Metrics::new("node-0");
        let method = Method::of(&Request::DescribeTopic { topic: "orders".into() });
        let failure = Failure::not_done(Reason::TopicNotFound, "none");
        metrics.call_ended(method, Duration::from_millis(3), None);
        metrics.call_ended(method, Duration::from_millis(3), Some(&failure));
        metrics.call_forwarded();
        let series = "raftqueue_call_seconds_count{method=\"describe_topic\"}";
        assert!((value(&metrics, series) - 2.0).abs() < f64::EPSILON);
        let series = "raftqueue_call_failures_total{method=\"describe_topic\",reason=\"TOPIC_NOT_FOUND\"}";
        assert!((value(&metrics, series) - 1.0).abs() < f64::EPSILON);
        assert!((value(&metrics, "raftqueue_calls_forwarded_total") - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn batches_and_the_process_are_seen() {
        let metrics = Metrics::new("node-0");
        metrics.wal_synced(Duration::from_millis(1), 3, 5_000);
        assert!((value(&metrics, "raftqueue_wal_batch_entries_sum") - 3.0).abs() < f64::EPSILON);
        assert!((value(&metrics, "raftqueue_wal_batch_bytes_sum") - 5_000.0).abs() < f64::EPSILON);
        for series in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
            assert!(value(&metrics, series) > 0.0, "{series}");
        }
        assert!(value(&metrics, "process_start_time_seconds") > 1e9);
    }
}
