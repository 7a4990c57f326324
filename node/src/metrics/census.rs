//! How full the queue is: counted a part at a time, so that the driver is not held up however many topics there are.
//!
//! One [`Census`] after another goes through all topics, [`TOPICS_AT_ONCE`] in a tick. What it found is shown when it is
//! through, so totals are of the last second or, with more topics, of the last seconds. Topics have series of their own
//! only if they are among the [`TOPICS_SHOWN_MAX`] that hold the most messages: a label for each of 100,000 topics would
//! cost whoever scrapes more than the queue costs here.
//!
//! Before the first census there is no series at all: a node that has only begun to apply its log would show depths of the
//! past.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use raftqueue_queue::{State, Stats, Topic, TopicId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Topics looked at in one tick.
const TOPICS_AT_ONCE: usize = 500;
/// Ticks from the beginning of a census to the beginning of the next.
const EVERY_TICKS: u64 = 100;
/// Topics that have series of their own.
const TOPICS_SHOWN_MAX: usize = 100;

/// Where messages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Depth {
    ready: u64,
    leased: u64,
    delayed: u64,
    dead: u64,
    bytes: u64,
    /// When the oldest ready message was published.
    oldest_ms: Option<u64>,
}

impl Depth {
    fn count(&self) -> u64 {
        self.ready + self.leased + self.delayed + self.dead
    }

    fn by_state(&self) -> [(&'static str, u64); 4] {
        [("ready", self.ready), ("leased", self.leased), ("delayed", self.delayed), ("dead", self.dead)]
    }

    fn add(&mut self, other: &Self) {
        self.ready += other.ready;
        self.leased += other.leased;
        self.delayed += other.delayed;
        self.dead += other.dead;
        self.bytes += other.bytes;
        self.oldest_ms = [self.oldest_ms, other.oldest_ms].into_iter().flatten().min();
    }
}

/// A topic that has series of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    name: String,
    published: u64,
    depth: Depth,
}

/// What a census found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Log time at the end.
    now_ms: u64,
    topics: u64,
    sessions: u64,
    total: Depth,
    /// By messages held, fewest first; of two alike the older topic last.
    shown: BTreeMap<(u64, Reverse<TopicId>), Shown>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Ticks since this census began.
    ticks: u64,
    /// The topic to go on from; `None` once all were seen.
    next: Option<TopicId>,
    found: Found,
}

impl Census {
    /// Goes on a part of the way. `published_ms` says when a message was published, if that is known. Returns what was
    /// found, once all topics were seen.
    pub(crate) fn tick(
        &mut self,
        state: &State,
        published_ms: impl Fn(TopicId, u64) -> Option<u64>,
    ) -> Option<Found> {
        if self.next.is_none() && self.ticks.is_multiple_of(EVERY_TICKS) {
            self.ticks = 0;
            self.next = Some(TopicId(0));
        }
        self.ticks += 1;
        let mut topics = state.topics_from(self.next?);
        for topic in topics.by_ref().take(TOPICS_AT_ONCE) {
            self.found.add(topic, &published_ms);
        }
        self.next = topics.next().map(Topic::id);
        if self.next.is_some() {
            return None;
        }
        // A census that took longer than its time is followed by the next at once.
        self.ticks = self.ticks.min(EVERY_TICKS);
        let found = std::mem::take(&mut self.found);
        Some(Found {
            now_ms: state.now_ms(),
            topics: state.topic_count() as u64,
            sessions: state.session_count() as u64,
            ..found
        })
    }
}

impl Found {
    fn add(&mut self, topic: &Topic, published_ms: impl Fn(TopicId, u64) -> Option<u64>) {
        let mut depth = Depth::default();
        for (_, subscription) in topic.subscriptions() {
            let stats: Stats = subscription.stats();
            depth.add(&Depth {
                ready: stats.ready,
                leased: stats.leased,
                delayed: stats.delayed,
                dead: stats.dead,
                bytes: stats.ready_bytes + stats.leased_bytes + stats.delayed_bytes + stats.dead_bytes,
                oldest_ms: stats.oldest_ready_offset.and_then(|offset| published_ms(topic.id(), offset)),
            });
        }
        self.total.add(&depth);
        let place = (depth.count(), Reverse(topic.id()));
        if self.shown.len() == TOPICS_SHOWN_MAX {
            if self.shown.first_key_value().is_some_and(|(least, _)| *least > place) {
                return;
            }
            self.shown.pop_first();
        }
        let (name, published) = (topic.name().to_owned(), topic.next_offset());
        self.shown.insert(place, Shown { name, published, depth });
    }
}

/// The series that show the last census.
#[derive(Debug)]
pub(super) struct Series {
    topics: IntGaugeVec,
    sessions: IntGaugeVec,
    depth: IntGaugeVec,
    bytes: IntGaugeVec,
    oldest_seconds: GaugeVec,
    topic_depth: IntGaugeVec,
    topic_bytes: IntGaugeVec,
    topic_oldest_seconds: GaugeVec,
    topic_published: IntCounterVec,
    topic_settled: IntCounterVec,
}

impl Series {
    pub(super) fn new(registry: &Registry) -> Self {
        let of_topics = |name: &str, help: &str| {
            Opts::new(name, format!("{help} Of the {TOPICS_SHOWN_MAX} topics that hold the most messages."))
        };
        let seconds = |opts: Opts, labels: &[&str]| {
            let gauges = GaugeVec::new(opts, labels).expect("the name is valid");
            registry.register(Box::new(gauges.clone())).expect("the name is new");
            gauges
        };
        let counts = |opts: Opts, labels: &[&str]| {
            let gauges = IntGaugeVec::new(opts, labels).expect("the name is valid");
            registry.register(Box::new(gauges.clone())).expect("the name is new");
            gauges
        };
        let totals = |opts: Opts, labels: &[&str]| {
            let counters = IntCounterVec::new(opts, labels).expect("the name is valid");
            registry.register(Box::new(counters.clone())).expect("the name is new");
            counters
        };
        let since = "Time since the oldest ready message";
        let clock = "was published, by this node's clock; 0 if none is ready.";
        Self {
            topics: counts(Opts::new("raftqueue_topics", "Topics."), &[]),
            sessions: counts(Opts::new("raftqueue_sessions", "Open producer sessions."), &[]),
            depth: counts(
                Opts::new("raftqueue_messages", "Messages held, by state, over all topics, as applied here."),
                &["state"],
            ),
            bytes: counts(Opts::new("raftqueue_stored_bytes", "Bytes of all messages held."), &[]),
            oldest_seconds: seconds(
                Opts::new("raftqueue_oldest_ready_seconds", format!("{since} of any topic {clock}")),
                &[],
            ),
            topic_depth: counts(
                of_topics("raftqueue_topic_messages", "Messages held, by topic and state."),
                &["topic", "state"],
            ),
            topic_bytes: counts(
                of_topics("raftqueue_topic_bytes", "Bytes of messages held, by topic."),
                &["topic"],
            ),
            topic_oldest_seconds: seconds(
                of_topics("raftqueue_topic_oldest_ready_seconds", &format!("{since} {clock}")),
                &["topic"],
            ),
            topic_published: totals(
                of_topics("raftqueue_topic_published_total", "Messages ever published, by topic."),
                &["topic"],
            ),
            topic_settled: totals(
                of_topics(
                    "raftqueue_topic_settled_total",
                    "Messages acknowledged, popped or purged, by topic.",
                ),
                &["topic"],
            ),
        }
    }

    /// Shows what was found, at this time of the node's clock. Topics of another time are gone.
    pub(super) fn show(&self, found: &Found, wall_ms: u64) {
        let now_ms = wall_ms.max(found.now_ms);
        let age = |depth: &Depth| depth.oldest_ms.map_or(0.0, |at| seconds(now_ms.saturating_sub(at)));
        let all: [&str; 0] = [];
        self.topics.with_label_values(&all).set(super::as_gauge(found.topics));
        self.sessions.with_label_values(&all).set(super::as_gauge(found.sessions));
        self.bytes.with_label_values(&all).set(super::as_gauge(found.total.bytes));
        self.oldest_seconds.with_label_values(&all).set(age(&found.total));
        for (state, count) in found.total.by_state() {
            self.depth.with_label_values(&[state]).set(super::as_gauge(count));
        }
        self.topic_depth.reset();
        self.topic_bytes.reset();
        self.topic_oldest_seconds.reset();
        self.topic_published.reset();
        self.topic_settled.reset();
        for Shown { name, published, depth } in found.shown.values() {
            for (state, count) in depth.by_state() {
                self.topic_depth.with_label_values(&[name.as_str(), state]).set(super::as_gauge(count));
            }
            let topic = [name.as_str()];
            self.topic_bytes.with_label_values(&topic).set(super::as_gauge(depth.bytes));
            self.topic_oldest_seconds.with_label_values(&topic).set(age(depth));
            self.topic_published.with_label_values(&topic).inc_by(*published);
            self.topic_settled.with_label_values(&topic).inc_by(published.saturating_sub(depth.count()));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "ages are far below 2^52 ms")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftqueue_queue::{ApplyMeta, Command, MessageMeta, TopicSettings};
    use std::cell::Cell;

    const NOW_MS: u64 = 1_000_000;

    fn apply(state: &mut State, index: u64, command: &Command) {
        let _ = state.apply(&ApplyMeta { index, now_ms: NOW_MS, version: 1 }, command);
    }

    /// Topics `t0`, `t1`, ...; the last one holds two messages, the one before it one, the others none.
    fn state(topics: u64) -> State {
        let mut state = State::default();
        for n in 0..topics {
            let settings = TopicSettings { attempts_max: 16, ..TopicSettings::default() };
            let name = format!("t{n}");
            let create = Command::CreateTopic { name, settings, topics_max: topics, request_id: None };
            apply(&mut state, n + 1, &create);
        }
        for (n, topic) in [topics - 2, topics - 1, topics - 1].into_iter().enumerate() {
            let message = MessageMeta { size: 100, ..MessageMeta::default() };
            let topic = format!("t{topic}");
            let publish = Command::Publish { topic, session: None, messages: vec![message] };
            apply(&mut state, topics + 1 + n as u64, &publish);
        }
        state
    }

    /// Ticks until something was found; how many, and the most messages that were asked for in one of them.
    fn ticks(census: &mut Census, state: &State) -> (u64, u64, Found) {
        let (mut ticks, mut asked_max) = (0, 0);
        loop {
            let asked = Cell::new(0);
            let found = census.tick(state, |topic, offset| {
                asked.set(asked.get() + 1);
                Some(NOW_MS - 5_000 - topic.0 - offset)
            });
            ticks += 1;
            asked_max = asked_max.max(asked.get());
            if let Some(found) = found {
                return (ticks, asked_max, found);
            }
        }
    }

    #[test]
    fn few_topics_are_counted_once_a_second() {
        let state = state(3);
        let mut census = Census::default();
        let (first, asked, found) = ticks(&mut census, &state);
        assert_eq!((first, asked), (1, 2));
        assert_eq!((found.topics, found.total.ready, found.total.bytes), (3, 3, 300));
        assert_eq!(found.shown.values().map(|shown| shown.depth.count()).collect::<Vec<_>>(), [0, 1, 2]);
        let (again, _, same) = ticks(&mut census, &state);
        assert_eq!((again, same), (EVERY_TICKS, found));
    }

    #[test]
    fn many_topics_are_counted_in_parts_and_only_the_fullest_are_shown() {
        let state = state(10 * TOPICS_AT_ONCE as u64);
        let mut census = Census::default();
        let (count, _, found) = ticks(&mut census, &state);
        assert_eq!((count, found.topics, found.total.ready), (10, 5_000, 3));
        assert_eq!(found.shown.len(), TOPICS_SHOWN_MAX);
        let fullest: Vec<&str> =
            found.shown.values().rev().map(|shown| shown.name.as_str()).take(3).collect();
        assert_eq!(fullest, ["t4999", "t4998", "t0"]);
        let (again, ..) = ticks(&mut census, &state);
        assert_eq!(again, EVERY_TICKS, "the next begins a second after this one began");
    }

    #[test]
    #[ignore = "measures: cargo test --release -p raftqueue-node a_part_of_100_000_topics -- --ignored --nocapture"]
    fn a_part_of_100_000_topics_takes_little() {
        let state = state(100_000);
        let mut census = Census::default();
        let mut longest = std::time::Duration::ZERO;
        for _ in 0..400 {
            let begun = std::time::Instant::now();
            let _ = census.tick(&state, |_, _| None);
            longest = longest.max(begun.elapsed());
        }
        println!("the longest tick took {longest:?}");
    }

    #[test]
    fn a_topic_that_is_not_shown_any_more_leaves_no_series() {
        let registry = Registry::new();
        let series = Series::new(&registry);
        let (_, _, found) = ticks(&mut Census::default(), &state(3));
        series.show(&found, NOW_MS + 3_000);
        let oldest = found.total.oldest_ms.expect("some are ready");
        assert!(
            (series.oldest_seconds.with_label_values(&[""; 0]).get() - seconds(NOW_MS + 3_000 - oldest))
                .abs()
                < 1e-9
        );
        let published = |topic: &str| series.topic_published.with_label_values(&[topic]).get();
        assert_eq!((published("t2"), published("t1")), (2, 1));
        series.show(&Found::default(), NOW_MS);
        let topics = registry.gather().into_iter().filter(|family| family.name().contains("_topic_")).count();
        assert_eq!(topics, 0);
    }
}
