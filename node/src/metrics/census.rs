//! How full the queue is: counted a part at a time, so that the driver is not held up however many topics there are.
//!
//! One [`Census`] after another goes through all topics, [`TOPICS_AT_ONCE`] in a tick. What it found is shown when it
//! is through, so totals are of the last second or, with more topics, of the last seconds. A label for each of 100,000
//! topics would cost Prometheus more than the queue costs this node. So only some topics have series of their own:
//! those that hold the most messages, and those that moved the most lately. Topics that were among either within
//! [`SHOWN_TICKS`] stay, so that no series comes and goes with every scrape.
//!
//! Before the first census there is no series at all: a node that has only begun to apply its log would show depths of the
//! past.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use raftqueue_queue::{State, Stats, Topic, TopicId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

/// Topics looked at in one tick.
const TOPICS_AT_ONCE: usize = 500;
/// Ticks from the beginning of a census to the beginning of the next.
const EVERY_TICKS: u64 = 100;
/// Topics that are shown because they hold the most, and as many because they moved the most.
const LEADING_MAX: usize = 100;
/// Most topics that are shown at all. If there would be more, those that were leading last stay.
const SHOWN_MAX: usize = 400;
/// Ticks for which a topic is shown after it was among the leading: five minutes.
const SHOWN_TICKS: u64 = 30_000;
/// What a message that was published or settled adds to its topic's pace.
const PACE_UNIT: u64 = 1 << 16;
/// A pace loses this part of itself from one census to the next: half of it in about a minute.
const PACE_LOSS: u64 = 90;

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
    fn of(topic: &Topic, published_ms: impl Fn(TopicId, u64) -> Option<u64>) -> Self {
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
        depth
    }

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

impl Shown {
    fn new(topic: &Topic, depth: Depth) -> Self {
        Self { name: topic.name().to_owned(), published: topic.next_offset(), depth }
    }
}

/// What a census found of a topic, beside its counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSeen {
    /// Messages ever published.
    pub published: u64,
    /// Messages acknowledged, popped or purged.
    pub settled: u64,
    /// How long ago the oldest ready message was published, in milliseconds; `None` if none is ready, or it is not known.
    pub oldest_ready_ms: Option<u64>,
}

/// What a census found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Log time at the end.
    now_ms: u64,
    topics: u64,
    sessions: u64,
    total: Depth,
    shown: BTreeMap<TopicId, Shown>,
}

impl Found {
    /// What was found of each topic that is shown, by name, at this time of the node's clock.
    pub(super) fn topics(&self, wall_ms: u64) -> BTreeMap<String, TopicSeen> {
        let now_ms = wall_ms.max(self.now_ms);
        let seen = |shown: &Shown| TopicSeen {
            published: shown.published,
            settled: shown.published.saturating_sub(shown.depth.count()),
            oldest_ready_ms: shown.depth.oldest_ms.map(|at| now_ms.saturating_sub(at)),
        };
        self.shown.values().map(|shown| (shown.name.clone(), seen(shown))).collect()
    }

    /// How many messages are held, in any state, and their bytes.
    pub(super) fn held(&self) -> (u64, u64) {
        let Depth { ready, leased, delayed, dead, bytes, .. } = self.total;
        (ready + leased + delayed + dead, bytes)
    }
}

/// The topics with the greatest values, at most [`LEADING_MAX`]. Of two with the same value the older one is taken.
#[derive(Debug, Default)]
struct Leading(BTreeSet<(u64, Reverse<TopicId>)>);

impl Leading {
    /// True if the topic is among them so far. The topic that it replaces is not any more.
    fn enter(&mut self, value: u64, topic: TopicId) -> bool {
        let entry = (value, Reverse(topic));
        if self.0.len() == LEADING_MAX {
            if self.0.first().is_some_and(|least| *least > entry) {
                return false;
            }
            self.0.pop_first();
        }
        self.0.insert(entry)
    }

    fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.0.iter().map(|(_, Reverse(topic))| *topic)
    }
}

/// How fast messages come to a topic and leave it.
#[derive(Clone, Copy, Debug)]
struct Pace {
    topic: TopicId,
    /// Messages published and settled so far, together.
    moved: u64,
    /// How much of that was lately.
    pace: u64,
}

impl Pace {
    /// The pace of a topic that has moved so much now. `before`: as of the last census; `None` if that did not see it.
    fn next(topic: TopicId, moved: u64, before: Option<Pace>) -> Self {
        let Some(before) = before else { return Self { topic, moved, pace: 0 } };
        let more = moved.abs_diff(before.moved).saturating_mul(PACE_UNIT);
        let rest = before.pace - before.pace.div_ceil(PACE_LOSS);
        Self { topic, moved, pace: rest.saturating_add(more) }
    }
}

/// A census that is under way.
#[derive(Debug, Default)]
struct Counting {
    total: Depth,
    paces: Vec<Pace>,
    fullest: Leading,
    fastest: Leading,
    /// Everything that may be shown in the end.
    candidates: BTreeMap<TopicId, Shown>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Ticks since the first census.
    now: u64,
    /// Ticks since this census began.
    ticks: u64,
    /// The topic to go on from; `None` once all were seen.
    next: Option<TopicId>,
    counting: Counting,
    /// Of every topic as of the last census, in order; `None` before the first.
    paces: Option<Vec<Pace>>,
    /// Where in `paces` this census has come to.
    paces_seen: usize,
    /// The topics that are shown, and when they were last among the leading.
    shown: BTreeMap<TopicId, u64>,
    /// When the oldest ready message of each of them was published, as of the last census.
    ages: BTreeMap<TopicId, u64>,
}

impl Census {
    /// Goes on a part of the way. `published_ms` says when a message was published, if that is known. Returns what was
    /// found, once all topics were seen.
    pub(crate) fn tick(
        &mut self,
        state: &State,
        published_ms: impl Fn(TopicId, u64) -> Option<u64>,
    ) -> Option<Found> {
        self.now += 1;
        if self.next.is_none() && self.ticks.is_multiple_of(EVERY_TICKS) {
            self.ticks = 0;
            self.next = Some(TopicId(0));
        }
        self.ticks += 1;
        let mut topics = state.topics_from(self.next?);
        for topic in topics.by_ref().take(TOPICS_AT_ONCE) {
            self.count(topic, &published_ms);
        }
        self.next = topics.next().map(Topic::id);
        if self.next.is_some() {
            return None;
        }
        // A census that took longer than its time is followed by the next at once.
        self.ticks = self.ticks.min(EVERY_TICKS);
        let (mut total, mut shown) = self.end();
        self.keep_ages(&mut total, &mut shown);
        let (topics, sessions) = (state.topic_count() as u64, state.session_count() as u64);
        Some(Found { now_ms: state.now_ms(), topics, sessions, total, shown })
    }

    fn count(&mut self, topic: &Topic, published_ms: impl Fn(TopicId, u64) -> Option<u64>) {
        let (id, depth) = (topic.id(), Depth::of(topic, published_ms));
        // A message that dies has moved, too. It is settled only when it is redriven and acknowledged, or purged.
        let settled = topic.next_offset().saturating_sub(depth.count());
        let pace = self.pace(id, topic.next_offset() + settled + depth.dead);
        let counting = &mut self.counting;
        counting.total.add(&depth);
        counting.paces.push(pace);
        let is_full = counting.fullest.enter(depth.count(), id);
        let is_fast = pace.pace > 0 && counting.fastest.enter(pace.pace, id);
        if is_full || is_fast || self.shown.contains_key(&id) {
            counting.candidates.insert(id, Shown::new(topic, depth));
        }
    }

    fn pace(&mut self, topic: TopicId, moved: u64) -> Pace {
        let Some(paces) = &self.paces else { return Pace::next(topic, moved, None) };
        self.paces_seen += paces[self.paces_seen..].iter().take_while(|pace| pace.topic < topic).count();
        let before = paces.get(self.paces_seen).filter(|pace| pace.topic == topic).copied();
        // A new topic has moved everything that it ever had.
        Pace::next(topic, moved, before.or(Some(Pace { topic, moved: 0, pace: 0 })))
    }

    /// While the oldest message of a topic moves into a file, it is not known for a moment when it was published. What was known
    /// before stands in: an age that falls to nothing would tell that all is well.
    fn keep_ages(&mut self, total: &mut Depth, shown: &mut BTreeMap<TopicId, Shown>) {
        for (topic, Shown { depth, .. }) in shown.iter_mut().filter(|(_, shown)| shown.depth.ready > 0) {
            depth.oldest_ms = depth.oldest_ms.or_else(|| self.ages.get(topic).copied());
            total.oldest_ms = [total.oldest_ms, depth.oldest_ms].into_iter().flatten().min();
        }
        let age = |(topic, shown): (&TopicId, &Shown)| Some((*topic, shown.depth.oldest_ms?));
        self.ages = shown.iter().filter_map(age).collect();
    }

    /// Everything was counted: chooses what is shown.
    fn end(&mut self) -> (Depth, BTreeMap<TopicId, Shown>) {
        let Counting { total, paces, fullest, fastest, mut candidates } = std::mem::take(&mut self.counting);
        (self.paces, self.paces_seen) = (Some(paces), 0);
        for topic in fullest.topics().chain(fastest.topics()) {
            self.shown.insert(topic, self.now);
        }
        // A topic that was deleted is gone at once.
        self.shown.retain(|topic, at| self.now - *at < SHOWN_TICKS && candidates.contains_key(topic));
        while self.shown.len() > SHOWN_MAX {
            let oldest = self.shown.iter().min_by_key(|(_, at)| **at).map(|(topic, _)| *topic);
            oldest.and_then(|topic| self.shown.remove(&topic));
        }
        candidates.retain(|topic, _| self.shown.contains_key(topic));
        (total, candidates)
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
        let which = format!(
            "Of the {LEADING_MAX} topics that hold the most messages, the {LEADING_MAX} that moved the most lately, and \
             those that were among them in the last five minutes, {SHOWN_MAX} at most."
        );
        let of_topics = |name: &str, help: &str| Opts::new(name, format!("{help} {which}"));
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

impl super::Metrics {
    /// What was seen of the topics that have series of their own, by name; empty before the first census.
    #[must_use]
    pub fn topics(&self) -> BTreeMap<String, TopicSeen> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.map(|found| found.topics(wall_ms())).unwrap_or_default()
    }
}

/// This node's clock, in milliseconds since the Unix epoch.
pub(super) fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
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
    fn an_age_that_is_not_known_for_a_moment_does_not_fall_to_nothing() {
        let mut state = state(3);
        let mut census = Census::default();
        let (_, _, before) = ticks(&mut census, &state);
        let mut unknown = |state: &State| loop {
            if let Some(found) = census.tick(state, |_, _| None) {
                return found;
            }
        };
        assert_eq!(unknown(&state), before);
        assert_eq!(unknown(&state), before, "however long it takes");
        let purge = Command::DeleteTopic { name: "t2".into() };
        apply(&mut state, 100, &purge);
        let after = unknown(&state);
        let ages: Vec<_> = after.shown.values().map(|shown| shown.depth.oldest_ms).collect();
        assert_eq!(
            (ages.len(), after.total.oldest_ms),
            (2, before.shown.values().nth(1).and_then(|shown| shown.depth.oldest_ms))
        );
        assert_eq!(ages[0], None, "nothing is ready there");
    }

    #[test]
    fn many_topics_are_counted_in_parts_and_only_the_fullest_are_shown() {
        let state = state(10 * TOPICS_AT_ONCE as u64);
        let mut census = Census::default();
        let (count, _, found) = ticks(&mut census, &state);
        assert_eq!((count, found.topics, found.total.ready), (10, 5_000, 3));
        assert_eq!(found.shown.len(), LEADING_MAX);
        // Those that hold something, and of the others the oldest.
        let names: Vec<&str> = found.shown.values().map(|shown| shown.name.as_str()).collect();
        assert_eq!((names[0], &names[97..]), ("t0", &["t97", "t4998", "t4999"][..]));
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

    /// Topics of which the first hundred hold messages and the others have been drained, and a census of them.
    struct Busy {
        state: State,
        index: u64,
        census: Census,
    }

    impl Busy {
        fn new(topics: u64) -> Self {
            let mut busy = Self { state: state(topics), index: 2 * topics, census: Census::default() };
            (0..LEADING_MAX as u64).for_each(|topic| busy.publish(topic, 3));
            (topics - 2..topics).for_each(|topic| busy.purge(topic));
            busy.look();
            busy
        }

        fn apply(&mut self, command: &Command) {
            self.index += 1;
            apply(&mut self.state, self.index, command);
        }

        fn publish(&mut self, topic: u64, count: usize) {
            let messages = vec![MessageMeta { size: 100, ..MessageMeta::default() }; count];
            self.apply(&Command::Publish { topic: format!("t{topic}"), session: None, messages });
        }

        fn purge(&mut self, topic: u64) {
            let subscription = raftqueue_queue::SubscriptionId::DEFAULT;
            self.apply(&Command::Purge { topic: format!("t{topic}"), subscription });
        }

        /// So many messages come and go.
        fn pass_through(&mut self, topic: u64, count: usize) {
            self.publish(topic, count);
            self.purge(topic);
        }

        /// The topics that the next census shows.
        fn look(&mut self) -> Vec<String> {
            let (_, _, found) = ticks(&mut self.census, &self.state);
            found.shown.into_values().map(|shown| shown.name).collect()
        }

        fn shows(&mut self, topic: u64) -> bool {
            self.look().contains(&format!("t{topic}"))
        }
    }

    #[test]
    fn the_busiest_topic_is_shown_although_it_holds_nothing() {
        let mut busy = Busy::new(300);
        assert!(!busy.shows(299), "it is one of many that hold nothing");
        busy.pass_through(299, 5);
        assert_eq!(busy.look().len(), LEADING_MAX + 1);
        assert!(busy.shows(299));
        let delete = Command::DeleteTopic { name: "t299".into() };
        busy.apply(&delete);
        assert!(!busy.shows(299), "what is deleted goes at once");
    }

    #[test]
    fn a_topic_that_was_shown_stays_for_five_minutes() {
        let mut busy = Busy::new(300);
        busy.pass_through(299, 1);
        assert!(busy.shows(299));
        (150..150 + LEADING_MAX as u64).for_each(|topic| busy.pass_through(topic, 9));
        // From now on there are a hundred that hold more and a hundred that are faster.
        for _ in 1..SHOWN_TICKS / EVERY_TICKS {
            assert_eq!(busy.look().len(), 2 * LEADING_MAX + 1);
        }
        assert_eq!(busy.look().len(), 2 * LEADING_MAX);
    }

    #[test]
    fn however_many_topics_take_turns_few_are_shown() {
        let mut busy = Busy::new(1_000);
        for turn in 1..9 {
            (0..LEADING_MAX as u64).for_each(|n| busy.pass_through(turn * LEADING_MAX as u64 + n, 1 << turn));
            let shown = busy.look();
            assert_eq!(shown.len(), (LEADING_MAX * (1 + turn as usize)).min(SHOWN_MAX));
            assert!(shown.contains(&format!("t{}", turn * LEADING_MAX as u64)), "the newest is among them");
        }
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
