//! The README's picture of a message's life is what the queue does: everything that can happen to a message is tried in every
//! state, and what moves it is an arrow of the picture; no arrow is there that nothing draws.

use super::page;
use raftqueue_queue::{
    ApplyMeta, Candidate, Command, DeadSelection, Generation, LeaseId, MessageMeta, Overdue, Reply, State,
    SubscriptionId, Token, TopicId, TopicSettings,
};
use std::collections::BTreeSet;

const TOPIC: &str = "topic";
const SUBSCRIPTION: SubscriptionId = SubscriptionId::DEFAULT;
const LEASE_MS: u64 = 30_000;
const DELAY_MS: u64 = 600_000;
const TTL_MS: u64 = 3_600_000;

/// What can happen to a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Publish,
    PublishLater,
    Receive,
    Ack,
    Nack,
    NackLater,
    Release,
    LeaseEnds,
    DelayEnds,
    TimeToLiveEnds,
    Redrive,
    Pop,
    Purge,
    PurgeDead,
}

/// In every state each of these is tried, with its words in the picture.
const CAUSES: [(Cause, &str); 14] = [
    (Cause::Publish, "publish"),
    (Cause::PublishLater, "publish with a delay"),
    (Cause::Receive, "receive"),
    (Cause::Ack, "ack"),
    (Cause::Nack, "nack"),
    (Cause::NackLater, "nack with a delay"),
    (Cause::Release, "release"),
    (Cause::LeaseEnds, "end of the lease"),
    (Cause::DelayEnds, "its time has come"),
    (Cause::TimeToLiveEnds, "its time to live is over"),
    (Cause::Redrive, "redrive"),
    (Cause::Pop, "pop"),
    (Cause::Purge, "purge"),
    (Cause::PurgeDead, "purge of the dead"),
];

/// Ways into each state, by which attempts are left, and those into the last attempt, and behind a lease that ended.
const WAYS: [(&str, &[Cause]); 7] = [
    ("", &[]),
    ("", &[Cause::Publish]),
    ("", &[Cause::PublishLater]),
    ("", &[Cause::Publish, Cause::Receive]),
    ("last ", &[Cause::Publish, Cause::Receive, Cause::Nack, Cause::Receive]),
    ("late ", &[Cause::Publish, Cause::Receive, Cause::LeaseEnds]),
    ("", &[Cause::Publish, Cause::Receive, Cause::Nack, Cause::Receive, Cause::Nack]),
];

/// A topic with at most one message, which may fail twice.
struct Life {
    state: State,
    index: u64,
    now_ms: u64,
    topic: TopicId,
    token: Token,
}

impl Life {
    fn begin() -> Life {
        let settings = TopicSettings { attempts_max: 2, ..TopicSettings::default() };
        let create = Command::CreateTopic { name: TOPIC.into(), settings, topics_max: 1, request_id: None };
        let mut life = Life {
            state: State::default(),
            index: 0,
            now_ms: 0,
            topic: TopicId::default(),
            token: Token::default(),
        };
        let Reply::Created { topic, .. } = life.apply(&create) else { panic!("a topic can be made") };
        Life { topic, ..life }
    }

    fn apply(&mut self, command: &Command) -> Reply {
        self.index += 1;
        let meta = ApplyMeta { index: self.index, now_ms: self.now_ms, version: 1 };
        self.state.apply(&meta, command).0
    }

    /// Where the message is, by the name of its state in the picture.
    fn is(&self) -> &'static str {
        let stats = self.state.subscription(self.topic, SUBSCRIPTION).expect("the topic was made").stats();
        match (stats.ready, stats.leased, stats.delayed, stats.dead) {
            (0, 0, 0, 0) => "[*]",
            (1, 0, 0, 0) => "ready",
            (0, 1, 0, 0) => "leased",
            (0, 0, 1, 0) => "delayed",
            (0, 0, 0, 1) => "dead",
            other => panic!("a message is in one state: {other:?}"),
        }
    }

    fn happens(&mut self, cause: Cause) {
        let (topic, subscription) = (self.topic, SUBSCRIPTION);
        let candidates = vec![Candidate { offset: 0, size: 1, deadline_ms: Some(TTL_MS) }];
        let leases = vec![LeaseId { generation: Generation::default(), offset: 0, token: self.token }];
        let publish = |delay_ms| {
            let message = MessageMeta { size: 1, delay_ms, ttl_ms: Some(TTL_MS), ..MessageMeta::default() };
            Command::Publish { topic: TOPIC.into(), session: None, messages: vec![message] }
        };
        let command = match cause {
            Cause::Publish => publish(0),
            Cause::PublishLater => publish(DELAY_MS),
            Cause::Receive => Command::Receive { topic, subscription, candidates, lease_ms: LEASE_MS },
            Cause::Ack => Command::Ack { topic, subscription, leases },
            Cause::Nack => Command::Nack { topic, subscription, leases, delay_ms: 0, reason: None },
            Cause::NackLater => {
                Command::Nack { topic, subscription, leases, delay_ms: DELAY_MS, reason: None }
            }
            Cause::Release => Command::Release { topic, subscription, leases },
            Cause::LeaseEnds => self.time(LEASE_MS, Vec::new()),
            Cause::DelayEnds => self.time(DELAY_MS, Vec::new()),
            Cause::TimeToLiveEnds => self.time(TTL_MS, vec![Overdue { topic, subscription, candidates }]),
            Cause::Redrive => Command::RedriveDead { topic, subscription, selection: DeadSelection::All },
            Cause::Pop => Command::Pop { topic, subscription, candidates, count_max: 1, request_id: None },
            Cause::Purge => Command::Purge { topic: TOPIC.into(), subscription },
            Cause::PurgeDead => Command::PurgeDead { topic, subscription, selection: DeadSelection::All },
        };
        if let Reply::Received { token, deliveries, .. } = self.apply(&command)
            && !deliveries.is_empty()
        {
            self.token = token;
        }
    }

    fn time(&mut self, passed_ms: u64, overdue: Vec<Overdue>) -> Command {
        self.now_ms += passed_ms;
        Command::Time { overdue }
    }
}

/// Whether this is tried in this state. Time that ends one thing passes for the others, too, so it is tried only where what
/// it ends is; and a message is published once.
fn is_tried(cause: Cause, from: &str) -> bool {
    match cause {
        Cause::Publish | Cause::PublishLater => from == "[*]",
        Cause::LeaseEnds => from == "leased",
        Cause::DelayEnds => from == "delayed",
        Cause::TimeToLiveEnds => from == "ready",
        _ => true,
    }
}

/// What moves a message, as arrows: from, to, and why.
fn arrows() -> BTreeSet<(String, String, String)> {
    let mut arrows = BTreeSet::new();
    for (which, way) in WAYS {
        for (cause, words) in CAUSES {
            let mut life = Life::begin();
            way.iter().for_each(|step| life.happens(*step));
            let from = life.is();
            if !is_tried(cause, from) {
                continue;
            }
            life.happens(cause);
            let (to, is_other) = (life.is(), life.is() != from);
            // An attempt that is the last one differs in what makes it fail, a lease that ended in that it can still be acked.
            let is_special = match which {
                "last " => to == "dead",
                "late " => cause == Cause::Ack,
                _ => false,
            };
            if is_other {
                // The last nack is one, whatever delay it asks for.
                let words = if is_special && cause == Cause::NackLater { "nack" } else { words };
                let words = if is_special { format!("{which}{words}") } else { words.to_owned() };
                arrows.insert((from.to_owned(), to.to_owned(), words));
            }
        }
    }
    arrows
}

#[test]
fn the_picture_of_a_messages_life_is_what_the_queue_does() {
    let readme = page("README.md");
    let picture = readme.split("stateDiagram-v2\n").nth(1).and_then(|rest| rest.split("```").next());
    let picture = picture.expect("the README has the picture");
    let mut drawn = BTreeSet::new();
    for line in picture.lines().filter(|line| line.contains("-->")) {
        let (from, rest) = line.split_once("-->").expect("an arrow");
        let (to, causes) = rest.split_once(':').expect("a cause");
        for cause in causes.split(',') {
            drawn.insert((from.trim().to_owned(), to.trim().to_owned(), cause.trim().to_owned()));
        }
    }
    let arrows = arrows();
    let undrawn: Vec<_> = arrows.difference(&drawn).collect();
    let untrue: Vec<_> = drawn.difference(&arrows).collect();
    assert!(undrawn.is_empty() && untrue.is_empty(), "not drawn: {undrawn:#?}\nnot so: {untrue:#?}");
}
