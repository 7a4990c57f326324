//! Damaged sections are refused: whatever a snapshot says, it neither panics nor makes a state that breaks its rules.

use crate::queue::{DEFAULT, Queue};
use proptest::prelude::*;
use raftqueue_queue::{
    Candidate, Command, DeadRun, DeadSelection, DelayedMessage, Generation, Head, LeasedMessage, MessageMeta,
    MessageSize, PairSection, PopSection, RetriedMessage, SECTION_BYTES_MAX, SECTION_ITEMS_MAX, Section,
    Sequenced, SessionHead, SessionId, State, StateBuilder, SubscriptionHead, Token, TopicHead, TopicId,
};

/// A state with something of everything.
fn rich() -> State {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.create("other");
    let open = |name: Option<&str>| Command::OpenSession {
        name: name.map(str::to_string),
        sessions_max: 9,
        pairs_max: 9,
    };
    queue.apply(&open(None));
    queue.apply(&open(Some("producer")));
    let sequenced = |sequence| Sequenced {
        session: SessionId { generation: Generation(0), number: 3 },
        epoch: 0,
        sequence,
        batch_crc: 7,
    };
    for sequence in 1..4 {
        let delayed = MessageMeta { size: 100, delay_ms: 900_000, ttl_ms: Some(5), ..MessageMeta::default() };
        let messages = vec![MessageMeta { size: 100, ..MessageMeta::default() }, delayed];
        queue.apply(&Command::Publish {
            topic: "topic".to_string(),
            session: Some(sequenced(sequence)),
            messages,
        });
    }
    queue.publish("topic", 20);
    let token = queue.receive(topic, 6..12);
    queue.nack(topic, token, 6..9);
    let token = queue.receive(topic, 6..8);
    queue.nack(topic, token, 6..8);
    queue.apply(&Command::RedriveDead {
        topic,
        subscription: DEFAULT,
        selection: DeadSelection::Listed(vec![MessageSize { offset: 7, size: 100 }]),
    });
    queue.now_ms = 40_000;
    for (request_id, offset) in [(1, 13), (2, 14)] {
        let candidates = vec![Candidate { offset, size: 100, deadline_ms: None }];
        let request_id = Some(request_id);
        queue.apply(&Command::Pop { topic, subscription: DEFAULT, candidates, count_max: 1, request_id });
        queue.now_ms += 30_000;
    }
    queue.now_ms += 1;
    queue.apply(&Command::RaiseGeneration { generation: Generation(2) });
    queue.publish("topic", 1);
    queue.receive(topic, 20..22);
    queue.state
}

/// Sections of a state, to be damaged. The first of each kind is at hand under its name; each kind but the pops stands once,
/// in the first topic or session.
#[derive(Clone, Debug)]
struct Sections(Vec<Section>);

macro_rules! first {
    ($($name:ident: $variant:ident($type:ty)),* $(,)?) => {
        impl Sections {
            $(
                fn $name(&mut self) -> &mut $type {
                    let found = self.0.iter_mut().find_map(|section| match section {
                        Section::$variant(content) => Some(content),
                        _ => None,
                    });
                    found.expect("there is one of every kind")
                }
            )*
        }
    };
}

first! {
    head: Head(Head),
    topic: Topic(TopicHead),
    generations: Generations(Vec<(Generation, u64)>),
    subscription: Subscription(SubscriptionHead),
    ready: Ready(Vec<(u64, u64)>),
    retried: Retried(Vec<RetriedMessage>),
    waived: Waived(Vec<(u64, u64)>),
    leased: Leased(Vec<LeasedMessage>),
    delayed: Delayed(Vec<DelayedMessage>),
    dead: Dead(Vec<DeadRun>),
    session: Session(SessionHead),
    pair: Pair(PairSection),
    pops: Pops(Vec<PopSection>),
}

impl Sections {
    fn rich() -> Sections {
        Sections(rich().sections().collect())
    }

    fn of(&self, name: &str) -> Vec<usize> {
        (0..self.0.len()).filter(|&at| self.0[at].name() == name).collect()
    }

    /// Puts a copy of the section behind itself.
    fn repeat(&mut self, at: usize) {
        self.0.insert(at, self.0[at].clone());
    }

    /// Makes the heads say what follows, so that a damage is not seen by the count alone.
    fn recount(mut self) -> Sections {
        let mut heads = self.0.clone();
        let count = |name: &str, heads: &[Section]| {
            heads.iter().filter(|section| section.name() == name).count() as u64
        };
        let (topics, sessions) = (count("topic", &heads), count("session", &heads));
        let mut pops = 0;
        for (at, head) in heads.iter_mut().enumerate() {
            // Up to where another one of the same or a wider kind begins.
            let rank = |section: &Section| match section {
                Section::Head(_) => 3,
                Section::Topic(_) | Section::Session(_) | Section::Pops(_) => 2,
                Section::Subscription(_) => 1,
                _ => 0,
            };
            let own = rank(&self.0[at]);
            let end = (at + 1..self.0.len()).find(|&end| rank(&self.0[end]) >= own).unwrap_or(self.0.len());
            let rest = &self.0[at + 1..end];
            let sum = |name: &str| -> u64 {
                let length = |section: &Section| match section {
                    Section::Ready(some) | Section::Waived(some) => some.len() as u64,
                    Section::Retried(some) => some.len() as u64,
                    Section::Leased(some) => some.len() as u64,
                    Section::Delayed(some) => some.len() as u64,
                    Section::Dead(some) | Section::Redriven(some) => some.len() as u64,
                    Section::Generations(some) => some.len() as u64,
                    _ => 1,
                };
                rest.iter().filter(|section| section.name() == name).map(length).sum()
            };
            match head {
                Section::Topic(head) => {
                    (head.generations, head.subscriptions) = (sum("generations"), sum("subscription"));
                }
                Section::Subscription(head) => {
                    (head.ready, head.retried, head.waived) = (sum("ready"), sum("retried"), sum("waived"));
                    (head.leased, head.delayed, head.dead) = (sum("leased"), sum("delayed"), sum("dead"));
                    head.redriven = sum("redriven");
                }
                Section::Session(head) => head.pairs = sum("pair"),
                Section::Pops(some) => pops += some.len() as u64,
                _ => {}
            }
        }
        self.0 = heads;
        let head = self.head();
        (head.topics, head.sessions, head.pops) = (topics, sessions, pops);
        self
    }
}

#[test]
fn rich_sections_hold_something_of_everything() {
    let mut sections = Sections::rich();
    assert!(sections.generations().len() == 2 && sections.ready().len() > 1 && sections.retried().len() > 1);
    assert!(sections.retried().iter().any(|retried| retried.late_ack.is_some()));
    assert!(sections.leased().len() > 1 && sections.delayed().len() > 1 && !sections.dead().is_empty());
    assert!(!sections.waived().is_empty());
    assert_eq!(
        (sections.of("topic").len(), sections.of("session").len(), sections.of("pair").len()),
        (2, 2, 1)
    );
    assert_eq!((sections.pops().len(), sections.head().pops_kept), (2, 1));
    let counted = sections.clone().recount();
    assert_eq!(counted.0, sections.0, "a living state counts right");
    assert_eq!(State::from_sections(sections.0).expect("they come from a living state"), rich());
}

/// Ways to damage sections: each takes a number that says where and how.
type Damage = fn(&mut Sections, u64);

/// Each of these breaks a rule whatever the number is, also where the heads count right.
const DAMAGE: &[(&str, Damage)] = &[
    ("no head", |sections, _| drop(sections.0.remove(0))),
    ("a head twice", |sections, _| sections.repeat(0)),
    ("a topic twice", |sections, n| {
        let at = sections.of("topic")[n as usize % 2];
        let of = sections.of("subscription")[n as usize % 2];
        let again = sections.0[at..=of].to_vec();
        let end = sections.of("session")[0];
        sections.0.splice(end..end, again);
    }),
    ("a topic without anything", |sections, n| {
        let at = sections.of("topic")[n as usize % 2];
        sections.repeat(at);
    }),
    ("a name twice", |sections, _| {
        let name = sections.topic().name.clone();
        let at = sections.of("topic")[1];
        let Section::Topic(other) = &mut sections.0[at] else { panic!("it is a topic") };
        other.name = name;
    }),
    ("a bad name", |sections, _| sections.topic().name.push('\n')),
    ("an id that was not given", |sections, n| sections.head().last_id = n % 2),
    ("a counter that cannot be", |sections, n| sections.head().last_token = Token(u64::MAX - n % 9)),
    ("no attempts", |sections, _| sections.topic().settings.attempts_max = 0),
    ("no subscription", |sections, _| {
        let first = sections.of("subscription")[0];
        let next = sections.of("topic")[1];
        sections.0.drain(first..next);
    }),
    ("a subscription twice", |sections, _| {
        let first = sections.of("subscription")[0];
        let next = sections.of("topic")[1];
        let again = sections.0[first..next].to_vec();
        sections.0.splice(next..next, again);
    }),
    ("a subscription in a session", |sections, _| {
        let head = sections.0.remove(sections.of("subscription")[1]);
        let at = sections.of("session")[0];
        sections.0.insert(at + 1, head);
    }),
    ("offsets that were not given", |sections, n| sections.topic().next_offset = n % 27),
    ("offsets of no generation", |sections, _| sections.generations().clear()),
    ("a generation to come", |sections, n| sections.generations()[1].0 = Generation(3 + (n % 9) as u32)),
    ("generations out of order", |sections, _| sections.generations().reverse()),
    ("generations after a subscription", |sections, _| {
        let (from, to) = (sections.of("generations")[0], sections.of("subscription")[0]);
        sections.0[from..=to].rotate_left(1);
    }),
    ("bytes too few", |sections, n| sections.subscription().bytes = n % 1_300),
    ("bytes too many", |sections, n| sections.subscription().bytes = u64::MAX - n % 1_000),
    ("dead bytes too many", |sections, _| sections.subscription().dead_bytes = u64::MAX),
    ("a ready run twice", |sections, n| {
        let ready = sections.ready();
        ready.push(ready[n as usize % ready.len()]);
    }),
    ("a section twice", |sections, n| {
        let held = ["ready", "retried", "waived", "leased", "delayed", "dead", "pair", "pops"];
        let at = sections.of(held[n as usize % held.len()])[0];
        sections.repeat(at);
    }),
    ("sections out of order", |sections, n| {
        let first = sections.of("ready")[0];
        sections.0.swap(first + n as usize % 5, first + 5);
    }),
    ("a session among topics", |sections, _| {
        let (at, to) = (sections.of("session")[1], sections.of("topic")[1]);
        let session = sections.0.remove(at);
        sections.0.insert(to, session);
    }),
    ("a topic among sessions", |sections, _| {
        let (from, end) = (sections.of("topic")[1], sections.of("session")[1]);
        sections.0[from..end].rotate_left(2);
    }),
    ("a run of nothing", |sections, _| sections.ready()[0].1 = 0),
    ("runs that touch", |sections, _| {
        let ready = sections.ready();
        let end = ready.last().expect("something is ready").1;
        ready.push((end, end + 1));
    }),
    ("ready and leased", |sections, _| {
        let offset = sections.ready()[0].0;
        let leased = sections.leased();
        let again = LeasedMessage { offset, ..leased[0] };
        leased.insert(0, again);
    }),
    ("a lease twice", |sections, n| {
        let leased = sections.leased();
        leased.push(leased[n as usize % leased.len()]);
    }),
    ("a lease under no token", |sections, n| sections.leased()[0].token = Token((n % 2) * u64::MAX)),
    ("a lease too long", |sections, n| sections.leased()[0].expires_ms = u64::MAX - n % 9),
    ("a lease of the future", |sections, _| sections.leased()[0].granted_ms = u64::MAX),
    ("a waived deadline", |sections, _| {
        let lease = &mut sections.leased()[0];
        (lease.is_waived, lease.deadline_ms) = (true, Some(7));
    }),
    ("too many attempts", |sections, _| sections.leased()[0].attempts = u32::MAX),
    ("a retried message that is not ready", |sections, n| {
        sections.retried().last_mut().expect("there is one").offset = 1_000 + n % 9;
    }),
    ("a retried message without attempts", |sections, _| sections.retried()[0].attempts = 0),
    ("a waived message that is not ready", |sections, n| sections.waived().push((1_000, 1_001 + n % 9))),
    ("a delay twice", |sections, n| {
        let delayed = sections.delayed();
        delayed.push(delayed[n as usize % delayed.len()]);
    }),
    ("a dead run twice", |sections, n| {
        let dead = sections.dead();
        dead.push(dead[n as usize % dead.len()].clone());
    }),
    ("a session twice", |sections, n| {
        let at = sections.of("session")[n as usize % 2];
        sections.repeat(at);
    }),
    ("a session of a topic that was never made", |sections, n| {
        sections.pair().topic = TopicId(900 + n % 9);
    }),
    ("a session used in the future", |sections, n| sections.session().used_ms = u64::MAX - n % 9),
    ("a reply too few", |sections, _| sections.pair().replies.truncate(2)),
    ("a reply beyond the topic", |sections, n| sections.pair().replies[2].first_offset = 1_000 + n % 9),
    ("a reply of nothing", |sections, n| sections.pair().replies[n as usize % 3].count = 0),
    ("a pair that never began", |sections, _| {
        let pair = sections.pair();
        (pair.last_sequence, pair.replies) = (0, Vec::new());
    }),
    ("a pair of no session", |sections, _| {
        let at = sections.of("pair")[0];
        let pair = sections.0.remove(at);
        sections.0.push(pair);
    }),
    ("more pops kept than there are", |sections, n| sections.head().pops_kept = 3 + n % 9),
    ("more pops forgotten than there can be", |sections, n| {
        sections.head().pops_forgotten = u64::MAX - n % 9;
    }),
    ("a pop twice", |sections, n| {
        let pops = sections.pops();
        pops.push(pops[n as usize % 2].clone());
    }),
    ("pops out of order", |sections, _| sections.pops().reverse()),
    ("a kept pop without messages", |sections, _| sections.pops()[1].deliveries.clear()),
    ("a kept pop of a message that is still there", |sections, _| {
        sections.pops()[1].deliveries[0].offset = 20;
    }),
    ("a kept pop of a message that never was", |sections, n| {
        sections.pops()[1].deliveries[0].offset = 1_000 + n % 9;
    }),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_sections_are_refused_and_never_panic(
        damage in proptest::collection::vec((0..DAMAGE.len(), any::<u64>()), 1..4),
        is_counted in any::<bool>(),
    ) {
        let mut sections = Sections::rich();
        for (position, number) in damage {
            // A second damage may find nothing left to damage: then its own indexing panics, not the state.
            let mut damaged = sections.clone();
            let is_possible = std::panic::catch_unwind(move || {
                DAMAGE[position].1(&mut damaged, number);
                damaged
            });
            if let Ok(damaged) = is_possible {
                sections = damaged;
            }
        }
        if is_counted && !sections.of("head").is_empty() {
            sections = sections.recount();
        }
        if let Ok(state) = State::from_sections(sections.0) {
            prop_assert_eq!(state.check(), Ok(()));
        }
    }

    /// In any order, some left out and some twice.
    #[test]
    fn sections_in_any_order_never_panic(order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let sections = Sections::rich().0;
        let mixed = order.iter().map(|at| sections[at.index(sections.len())].clone());
        if let Ok(state) = State::from_sections(mixed) {
            prop_assert_eq!(state.check(), Ok(()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn sections_of_random_numbers_never_panic(
        numbers in proptest::collection::vec(prop_oneof![8 => 0u64..30, 1 => Just(u64::MAX), 1 => Just(1 << 62)], 40),
        texts in any::<bool>(),
    ) {
        let mut numbers = numbers.into_iter();
        let mut next = move || numbers.next().unwrap_or(3);
        let mut sections = Sections::rich();
        let head = sections.head();
        (head.now_ms, head.last_id, head.pops_kept, head.pops_forgotten) = (next(), next(), next(), next());
        let pops = sections.pops();
        (pops[1].popped_ms, pops[1].deliveries[0].offset) = (next(), next());
        sections.topic().next_offset = next();
        *sections.generations() = vec![(Generation(next() as u32), next()), (Generation(next() as u32), next())];
        let held = sections.subscription();
        (held.bytes, held.dead_bytes) = (next(), next());
        *sections.ready() = vec![(next(), next()), (next(), next())];
        *sections.waived() = vec![(next(), next())];
        sections.retried()[0].offset = next();
        let lease = &mut sections.leased()[0];
        (lease.offset, lease.granted_ms, lease.expires_ms) = (next(), next(), next());
        lease.deadline_ms = texts.then(&mut next);
        let delayed = &mut sections.delayed()[0];
        (delayed.offset, delayed.due_ms) = (next(), next());
        sections.dead()[0].offsets = next()..next();
        let session = sections.session();
        (session.used_ms, session.epoch) = (next(), next());
        let pair = sections.pair();
        (pair.last_sequence, pair.replies[0].first_offset) = (next(), next());
        let sections = sections.recount().0;
        if let Ok(state) = State::from_sections(sections.clone()) {
            prop_assert!(state.sections().eq(sections));
        }
    }
}

#[test]
fn every_kind_of_damage_is_seen() {
    for (name, damage) in DAMAGE {
        for number in [0, 1, 2, 5, 1_234_567, u64::MAX] {
            let mut sections = Sections::rich();
            damage(&mut sections, number);
            assert!(State::from_sections(sections.0.clone()).is_err(), "{name}, {number}");
            if !sections.of("head").is_empty() {
                assert!(
                    State::from_sections(sections.recount().0).is_err(),
                    "{name}, {number}, counted right"
                );
            }
        }
    }
}

#[test]
fn a_section_that_is_missing_is_named() {
    let sections = Sections::rich();
    for at in 0..sections.0.len() {
        let mut rest = sections.0.clone();
        let missing = rest.remove(at);
        let broken = State::from_sections(rest).expect_err(missing.name());
        let is_named = matches!(broken.rule, "as many follow as the head says" | "sections come in order")
            || (missing.name() == "topic" && broken.rule == "what stands in sections rises");
        assert!(is_named, "without {}: {broken}", missing.name());
    }
}

#[test]
fn a_builder_goes_on_saying_what_was_broken() {
    let mut sections = Sections::rich();
    let wrong = sections.0.remove(1);
    let mut builder = StateBuilder::default();
    let broken = builder.push(wrong).expect_err("a topic is no beginning");
    for section in Sections::rich().0 {
        assert_eq!(builder.push(section), Err(broken.clone()));
    }
    assert_eq!(builder.finish(), Err(broken));
}

/// Of everything more than a section holds.
#[test]
fn sections_are_bounded_and_made_one_by_one() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    for _ in 0..9 {
        queue.publish("topic", 1_000);
    }
    let text = "why ".repeat(64);
    let offsets = |first: u64| (0..1_000).map(move |step| first + 2 * step);
    // Dead runs with long reasons, retried ones, waived ones, leased ones, each apart from its neighbours.
    for (first, reason) in [(0, text.as_str()), (2_000, text.as_str()), (4_000, "")] {
        for _ in 0..2 {
            let token = queue.receive(topic, offsets(first));
            queue.nack_because(topic, token, offsets(first), reason);
        }
    }
    let listed = offsets(4_000).map(|offset| MessageSize { offset, size: 100 }).collect();
    let selection = DeadSelection::Listed(listed);
    queue.apply(&Command::RedriveDead { topic, subscription: DEFAULT, selection });
    let token = queue.receive(topic, offsets(6_000));
    queue.nack(topic, token, offsets(6_000));
    queue.receive(topic, offsets(7_001).take(900));
    let sections: Vec<Section> = queue.state.sections().collect();
    let size = |section: &Section| match section {
        Section::Ready(some) | Section::Waived(some) => (some.len(), 16 * some.len()),
        Section::Retried(some) => (some.len(), 32 * some.len()),
        Section::Leased(some) => (some.len(), 64 * some.len()),
        Section::Dead(some) => (some.len(), some.len() * (32 + text.len())),
        _ => (1, 0),
    };
    for section in &sections {
        let (items, bytes) = size(section);
        let is_bounded = items <= SECTION_ITEMS_MAX && bytes <= SECTION_BYTES_MAX + 32 + text.len();
        assert!(is_bounded, "{} has {items} items of {bytes} bytes", section.name());
    }
    let count = |name| sections.iter().filter(|section| section.name() == name).count();
    assert!(count("dead") > 5 && count("ready") > 1, "{} and {}", count("dead"), count("ready"));
    assert_eq!(State::from_sections(sections).expect("they come from a living state"), queue.state);
}
