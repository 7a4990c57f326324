//! What a node tells Prometheus: `metrics/series.txt` lists it all.
//!
//! All series begin with `raftqueue_`, or with `process_` where every client library has them. Labels have few, fixed
//! values; only [`census`] names topics, and only so many. What never happened shows as 0, so that a rate can be taken
//! from the first time on. But what the queue holds is not shown before this node knows it. Counters count what this
//! process did, without what it only applies again when it starts.

mod budget;
mod calls;
mod census;
mod connections;
mod entry_times;
mod members;
mod pulse;
mod repairs;
mod storage;

use crate::api::budget::Budget;
use crate::api::{Failure, Method};
use crate::replica::{Counters, View};
use calls::Calls;
pub(crate) use census::Census;
pub use census::TopicSeen;
pub(crate) use connections::Connections;
pub use connections::{Crowded, Meter, Open};
pub(crate) use entry_times::{EntryTimes, Progress};
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
pub use pulse::Pulse;
use raftqueue_metrics::{Form, Process};
use raftqueue_raft::{Cause, RoleKind, RoleState};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
pub use storage::Stored;

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
    elections: IntCounter,
    elections_won: IntCounterVec,
    peers_ended: IntCounterVec,
    ready: IntGauge,
    cluster: IntGaugeVec,
    uncommitted_bytes: IntGauge,
    fsync_seconds: Histogram,
    batch_bytes: Histogram,
    batch_entries: Histogram,
    calls: Calls,
    process: Process,
    entry_times: entry_times::Series,
    free_bytes: IntGauge,
    reserve_bytes: IntGauge,
    disk_stalled: IntGauge,
    peer_messages: IntCounterVec,
    peer_refusals: IntCounterVec,
    connections: Connections,
    open_calls: IntGauge,
    queued_bytes: IntGauge,
    receives_waiting: IntGauge,
    entries_proposed: IntCounter,
    entries_overtaken: IntCounter,
    commands_applied: IntCounter,
    log_time_ahead_seconds: Gauge,
    messages: IntCounterVec,
    bytes_published: IntCounter,
    leases_expired: IntCounter,
    calls_refused: IntCounter,
    calls_expired: IntCounter,
    tick_lag_seconds: Histogram,
    census: census::Series,
    found: Mutex<Option<census::Found>>,
    budget: budget::Series,
    storage: storage::Series,
    repairs: repairs::Series,
    members: members::Series,
    rendering: Mutex<()>,
    last: Mutex<Last>,
}

/// What was seen last, to count what has changed since.
#[derive(Debug, Default)]
struct Last {
    counters: Counters,
    leader: Option<u64>,
    /// The last term for which this node stood.
    stood: u64,
    /// The last term that this node came to lead.
    won: u64,
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

/// A counter for each value of a label. Those of the values given are there from the start.
fn counters(registry: &Registry, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label]).expect("the name is valid");
    registry.register(Box::new(counters.clone())).expect("the name is new");
    for value in values {
        counters.with_label_values(&[*value]);
    }
    counters
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect("the name is valid");
    registry.register(Box::new(gauges.clone())).expect("the name is new");
    gauges
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
        let info = gauges(&r, "raftqueue_info", "Always 1; labels say what runs here.", &["node", "version"]);
        info.with_label_values(&[node, env!("CARGO_PKG_VERSION")]).set(1);
        let fsync_seconds = histogram(
            &r,
            "raftqueue_wal_sync_seconds",
            "Time to write and sync one batch of the log.",
            prometheus::exponential_buckets(0.000_05, 2.0, 18).expect("valid buckets"),
        );
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
        let tick_lag_seconds = histogram(
            &r,
            "raftqueue_loop_lag_seconds",
            "How late the ticks of the driver were, one every 10 ms.",
            vec![0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
        );
        let log_time_ahead_seconds = Gauge::new(
            "raftqueue_log_time_ahead_seconds",
            "How far log time is ahead of the voters' clocks, on the leader. Until they have caught up it runs at nine tenths \
             of their rate.",
        )
        .expect("the name is valid");
        r.register(Box::new(log_time_ahead_seconds.clone())).expect("the name is new");
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
            elections: counter(
                &r,
                "raftqueue_raft_elections_total",
                "Terms for which this node stood as a candidate.",
            ),
            elections_won: counters(
                &r,
                "raftqueue_raft_elections_won_total",
                "Terms that this node came to lead: on the hint that the leader's process was gone, after an election \
                 timeout without a word of it, or by a hand-over.",
                "cause",
                &["hint", "timeout", "hand_over"],
            ),
            peers_ended: counters(
                &r,
                "raftqueue_peer_connections_ended_total",
                "Connections to peers that ended, by whether the peer's process was found to be gone.",
                "process",
                &["gone", "unknown"],
            ),
            ready: gauge(&r, "raftqueue_ready", "1 if /readyz says ready."),
            cluster: gauges(
                &r,
                "raftqueue_cluster_info",
                "Always 1; the cluster that this node belongs to, once it does.",
                &["cluster_id"],
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
            entry_times: entry_times::Series::new(&r),
            free_bytes: gauge(&r, "raftqueue_wal_free_bytes", "Bytes free on the data disk."),
            reserve_bytes: gauge(
                &r,
                "raftqueue_wal_reserve_bytes",
                "Free bytes that publishing leaves alone.",
            ),
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
                &["sent", "dropped"],
            ),
            peer_refusals: counters(
                &r,
                "raftqueue_peer_refusals_total",
                "Peers refused, by reason.",
                "reason",
                &[
                    "malformed",
                    "format",
                    "cluster",
                    "generation",
                    "node",
                    "version",
                    "clone",
                    "certificate",
                    "handshake",
                ],
            ),
            connections: Connections::new(&r),
            open_calls: gauge(&r, "raftqueue_calls_open", "Calls that wait for something."),
            queued_bytes: gauge(
                &r,
                "raftqueue_calls_queued_bytes",
                "Bytes of calls that wait to be proposed.",
            ),
            receives_waiting: gauge(
                &r,
                "raftqueue_receives_waiting",
                "Receives, pops and consumers that wait at this leader for messages.",
            ),
            entries_proposed: counter(
                &r,
                "raftqueue_entries_proposed_total",
                "Entries that this node proposed.",
            ),
            entries_overtaken: counter(
                &r,
                "raftqueue_entries_overtaken_total",
                "Entries that this node proposed and another leader replaced.",
            ),
            commands_applied: counter(
                &r,
                "raftqueue_commands_applied_total",
                "Commands applied since this node has replayed its log.",
            ),
            log_time_ahead_seconds,
            messages: counters(
                &r,
                "raftqueue_message_events_total",
                "Messages by what happened to them, as applied here since this node has replayed its log.",
                "event",
                &EVENTS,
            ),
            bytes_published: counter(&r, "raftqueue_published_bytes_total", "Bytes published."),
            leases_expired: counter(&r, "raftqueue_leases_expired_total", "Leases that ran out."),
            calls_refused: counter(
                &r,
                "raftqueue_calls_refused_total",
                "Calls refused because too much waited.",
            ),
            calls_expired: counter(&r, "raftqueue_calls_expired_total", "Calls whose deadline passed."),
            tick_lag_seconds,
            census: census::Series::new(&r),
            budget: budget::Series::new(&r),
            storage: storage::Series::new(&r),
            repairs: repairs::Series::new(&r),
            members: members::Series::new(&r),
            found: Mutex::default(),
            rendering: Mutex::default(),
            last: Mutex::default(),
            registry: r,
        }
    }

    /// What Prometheus scrapes, in the form that it asked for. Reads files: it may block.
    #[must_use]
    pub fn render(&self, form: Form) -> Vec<u8> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // One at a time: series of topics are taken away and made anew.
        let _alone = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        self.process.observe();
        self.budget.observe();
        self.storage.observe();
        if let Some(found) = found {
            self.census.show(&found, census::wall_ms());
        }
        form.write(&self.registry.gather())
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

    /// Counts the connections to this port.
    #[must_use]
    pub fn connections(&self, port: &'static str) -> Meter {
        self.connections.meter(port)
    }

    /// What connections are encrypted with.
    pub(crate) fn tls(&self) -> &Connections {
        &self.connections
    }

    /// Bytes free on the data disk.
    pub fn free_bytes(&self, bytes: u64) {
        self.free_bytes.set(as_gauge(bytes));
    }

    /// Free bytes that publishing leaves alone, as set.
    pub fn reserve_bytes(&self, bytes: u64) {
        self.reserve_bytes.set(as_gauge(bytes));
    }

    /// A message to a peer was sent, or dropped.
    pub fn peer_message(&self, sent: bool) {
        self.peer_messages.with_label_values(&[if sent { "sent" } else { "dropped" }]).inc();
    }

    /// A peer was refused.
    pub fn peer_refused(&self, reason: &'static str) {
        self.peer_refusals.with_label_values(&[reason]).inc();
    }

    /// The connections to a peer ended; its process was found to be gone, or not.
    pub fn peer_ended(&self, is_gone: bool) {
        self.peers_ended.with_label_values(&[if is_gone { "gone" } else { "unknown" }]).inc();
    }

    /// What the driver sees on a tick.
    pub fn observe(&self, view: &View, disk_stalled: bool, tick_lag: Duration) {
        self.has_leader.set(i64::from(view.raft.role.leader.is_some()));
        self.is_leader.set(i64::from(view.raft.role.role == RoleKind::Leader));
        self.term.set(as_gauge(view.raft.role.term.0));
        self.commit_index.set(as_gauge(view.raft.commit.0));
        self.applied_index.set(as_gauge(view.applied.0));
        self.last_index.set(as_gauge(view.raft.last.0));
        self.durable_index.set(as_gauge(view.raft.durable.0));
        self.uncommitted_bytes.set(as_gauge(view.raft.uncommitted_bytes as u64));
        self.disk_stalled.set(i64::from(disk_stalled));
        self.incomplete(view.raft.incomplete);
        self.members.observe(view);
        self.open_calls.set(as_gauge(view.calls as u64));
        self.queued_bytes.set(as_gauge(view.queued_bytes as u64));
        self.log_time_ahead_seconds.set(Duration::from_millis(view.log_time_ahead_ms).as_secs_f64());
        self.tick_lag_seconds.observe(tick_lag.as_secs_f64());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let leader = view.raft.role.leader.map(|leader| leader.0);
        if leader.is_some() && leader != last.leader {
            self.leader_changes.inc();
            last.leader = leader;
        }
        let (now, then) = (view.counters, last.counters);
        last.counters = now;
        drop(last);
        self.entries_proposed.inc_by(now.entries_proposed - then.entries_proposed);
        self.entries_overtaken.inc_by(now.entries_overtaken - then.entries_overtaken);
        self.commands_applied.inc_by(now.commands_applied - then.commands_applied);
        self.bytes_published.inc_by(now.bytes_published - then.bytes_published);
        self.leases_expired.inc_by(now.leases_expired - then.leases_expired);
        self.calls_refused.inc_by(now.calls_refused - then.calls_refused);
        self.calls_expired.inc_by(now.calls_expired - then.calls_expired);
        for ((event, now), (_, then)) in events(&now).into_iter().zip(events(&then)) {
            self.messages.with_label_values(&[event]).inc_by(now - then);
        }
    }

    /// Role, term or leader changed; `cause` is why this node campaigned last.
    pub fn role_changed(&self, role: &RoleState, cause: Cause) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A node that is alone leads before anybody sees a candidate.
        if matches!(role.role, RoleKind::Candidate | RoleKind::Leader) && role.term.0 > last.stood {
            last.stood = role.term.0;
            self.elections.inc();
        }
        if role.role == RoleKind::Leader && role.term.0 > last.won {
            last.won = role.term.0;
            let cause = match cause {
                Cause::Hint => "hint",
                Cause::Timeout => "timeout",
                Cause::HandOver => "hand_over",
            };
            self.elections_won.with_label_values(&[cause]).inc();
        }
    }

    /// How far the log has come, after a turn of the driver's loop that began at `begun`.
    pub(crate) fn turned(&self, times: &mut EntryTimes, now: Progress, begun: Instant) {
        times.turned(now, begun, &self.entry_times);
    }

    /// How full the queue is, and how many calls wait for messages.
    pub(crate) fn counted(&self, found: census::Found, receives_waiting: usize) {
        self.receives_waiting.set(as_gauge(receives_waiting as u64));
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }

    /// What the node is, as of now: a cluster's member, and ready.
    pub fn standing(&self, cluster_id: &str, is_ready: bool) {
        self.ready.set(i64::from(is_ready));
        if !cluster_id.is_empty() {
            self.cluster.with_label_values(&[cluster_id]).set(1);
        }
    }

    /// This is what is held for clients.
    pub fn budget(&self, budget: &Budget) {
        self.budget.of(budget);
    }

    /// Where the data directory is or will be: from now on what it takes and the size of its disk are seen.
    pub fn data_dir(&self, path: &Path) {
        self.storage.data_dir(path);
    }
}

/// What happens to messages.
const EVENTS: [&str; 7] =
    ["published", "delivered", "redelivered", "acknowledged", "nacked", "released", "died"];

/// How often it happened.
fn events(counters: &Counters) -> [(&'static str, u64); 7] {
    let counts = [
        counters.messages_published,
        counters.messages_delivered,
        counters.messages_redelivered,
        counters.messages_acknowledged,
        counters.messages_nacked,
        counters.messages_released,
        counters.messages_died,
    ];
    std::array::from_fn(|event| (EVENTS[event], counts[event]))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of batches are far below 2^52")]
fn as_float(number: usize) -> f64 {
    number as f64
}

fn as_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
