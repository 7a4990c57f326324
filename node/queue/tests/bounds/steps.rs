//! No command is long, whatever a topic holds: it does a bounded number of steps, moves what it drops away whole, and leaves
//! what is too much for one command to the next ones.

use crate::queue::{DEFAULT, Queue};
use raftqueue_queue::{
    Candidate, Command, DeadSelection, Effects, MessageMeta, POP_KEPT_MS, Refused, Reply, SESSION_IDLE_MS,
    Sequenced, State, Stats, TopicId,
};

/// As many entries as there are of each kind; a hundred times as many would cost a command the same.
const COUNT: u64 = 20_000;
/// Most steps of one command here: a thousand things that end, of two steps each, and some of its own.
const STEPS_MAX: u64 = 3_100;

impl Queue {
    /// Applies a command that must be short.
    fn briefly(&mut self, command: &Command) -> (Reply, Effects) {
        let (reply, effects) = self.apply_wholly(command);
        assert!(effects.steps <= STEPS_MAX, "{} steps for {command:?}", effects.steps);
        (reply, effects)
    }

    fn publish_many(&mut self, name: &str) {
        (0..COUNT / 10_000).for_each(|_| self.publish(name, 10_000));
    }

    /// Nothing of a topic is ready any more: all of it is dead, in as many runs as there are messages.
    fn kill_many(&mut self, topic: TopicId) {
        for first in (0..COUNT).step_by(1_000) {
            for _ in 0..2 {
                let token = self.receive(topic, first..first + 1_000);
                let part = |odd: u64| (first..first + 1_000).filter(move |offset| offset % 2 == odd);
                self.nack_because(topic, token, part(0), "even");
                self.nack_because(topic, token, part(1), "odd");
            }
        }
        let stats = self.stats(topic);
        assert_eq!((stats.dead, stats.entries), (COUNT, COUNT));
    }

    /// Time passes in as many commands as it takes.
    fn settle(&mut self) -> usize {
        let mut commands = 0;
        while self.state.earliest_deadline_ms().is_some_and(|ms| ms <= self.state.now_ms()) {
            self.briefly(&Command::Time { overdue: Vec::new() });
            commands += 1;
            assert!(commands < 1_000, "it comes to an end");
        }
        self.state.check().expect("a living state keeps its rules");
        commands
    }
}

fn redrive(topic: TopicId) -> Command {
    Command::RedriveDead { topic, subscription: DEFAULT, selection: DeadSelection::All }
}

fn purge(name: &str) -> Command {
    Command::Purge { topic: name.to_string(), subscription: DEFAULT }
}

fn delete(name: &str) -> Command {
    Command::DeleteTopic { name: name.to_string() }
}

#[test]
fn rule_10_1_a_topic_of_leases_is_deleted_in_few_steps() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish_many("topic");
    for first in (0..COUNT).step_by(1_000) {
        queue.receive(topic, first..first + 1_000);
    }
    assert_eq!(queue.stats(topic).leased, COUNT);
    let (_, effects) = queue.briefly(&delete("topic"));
    assert!(effects.dropped.entries() as u64 >= COUNT, "{:?}", effects.dropped);
    queue.state.check().expect("a living state keeps its rules");
}

#[test]
fn rule_10_1_delayed_messages_are_purged_in_few_steps() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    let message = MessageMeta { size: 100, delay_ms: 60_000, ..MessageMeta::default() };
    for _ in 0..COUNT / 10_000 {
        let messages = vec![message; 10_000];
        queue.apply(&Command::Publish { topic: "topic".to_string(), session: None, messages });
    }
    let (reply, effects) = queue.briefly(&purge("topic"));
    assert_eq!(reply, Reply::Purged { count: COUNT, bytes: 100 * COUNT });
    assert!(effects.dropped.entries() as u64 >= COUNT, "{:?}", effects.dropped);
    assert_eq!(queue.stats(topic), Stats::default());
    assert_eq!(queue.state.earliest_deadline_ms(), None);
    queue.state.check().expect("a living state keeps its rules");
}

#[test]
fn rule_10_1_ready_runs_and_retried_messages_are_purged_in_few_steps() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish_many("topic");
    for first in (0..COUNT).step_by(1_000) {
        let token = queue.receive(topic, (first..first + 1_000).filter(|offset| offset % 2 == 0));
        queue.ack(topic, token, (first..first + 1_000).filter(|offset| offset % 2 == 0));
        let token = queue.receive(topic, (first..first + 1_000).filter(|offset| offset % 2 == 1));
        queue.nack(topic, token, (first..first + 1_000).filter(|offset| offset % 2 == 1));
    }
    assert_eq!(queue.stats(topic).entries, COUNT);
    let (reply, effects) = queue.briefly(&purge("topic"));
    assert_eq!(reply, Reply::Purged { count: COUNT / 2, bytes: 50 * COUNT });
    assert_eq!(effects.dropped.entries() as u64, COUNT);
    assert_eq!(queue.stats(topic), Stats::default());
}

#[test]
fn rule_10_1_dead_runs_are_purged_in_few_steps() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish_many("topic");
    queue.kill_many(topic);
    let selection = DeadSelection::All;
    let (reply, effects) = queue.briefly(&Command::PurgeDead { topic, subscription: DEFAULT, selection });
    assert_eq!(reply, Reply::Purged { count: COUNT, bytes: 100 * COUNT });
    assert_eq!(effects.dropped.entries() as u64, COUNT);
    assert_eq!(queue.stats(topic), Stats::default());
}

/// What is small is freed at once: handing it on would cost more.
#[test]
fn what_is_small_is_not_handed_on() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish("topic", 1_000);
    queue.receive(topic, (0..1_000).step_by(2));
    let (_, effects) = queue.briefly(&purge("topic"));
    assert!(effects.dropped.is_empty() && effects.steps > 400, "{effects:?}");
    let (_, effects) = queue.briefly(&delete("topic"));
    assert!(effects.dropped.is_empty());
}

/// Each of many dead runs is ready in its turn, and meanwhile everybody is told the truth.
#[test]
fn rule_10_1_a_redrive_of_many_runs_goes_on_behind_other_commands() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish_many("topic");
    queue.kill_many(topic);
    let (reply, effects) = queue.briefly(&redrive(topic));
    assert_eq!(reply, Reply::Redriven { count: COUNT });
    assert_eq!(effects.ready, vec![(topic, DEFAULT, 0)]);
    let stats = queue.stats(topic);
    assert_eq!((stats.ready, stats.ready_bytes, stats.dead), (COUNT, 100 * COUNT, 0));
    assert_eq!((stats.oldest_offset, stats.oldest_ready_offset), (Some(0), Some(0)));
    let listed = |queue: &Queue| {
        queue.state.subscription(topic, DEFAULT).expect("the topic was made").ready_from(0).count() as u64
    };
    assert!((1..COUNT).contains(&listed(&queue)), "{}", listed(&queue));
    assert!((0..COUNT).all(|offset| queue.state.is_live(topic, offset)));
    assert_eq!(queue.state.topic(topic).expect("it was made").live_run_from(0).map(|run| run.start), Some(0));
    queue.state.check().expect("a living state keeps its rules");

    // A second one waits for the first.
    assert_eq!(queue.briefly(&redrive(topic)).0, Reply::Refused(Refused::RedriveUnfinished));

    // As long as some are to come, something is ready, however fast it is taken.
    let mut received = 0;
    while received < COUNT / 2 {
        let (first, end) = {
            let held = queue.state.subscription(topic, DEFAULT).expect("the topic was made");
            let run = held.ready_runs_from(0).next().expect("something is ready");
            (run.start, run.end.min(run.start + 1_000))
        };
        assert_eq!(first, received, "in order");
        queue.receive(topic, first..end);
        received = end;
    }

    // A node that starts from a snapshot of the midst does the same from there on.
    let mut again = queue.copy();
    again.state = State::from_sections(queue.state.sections()).expect("a living state keeps its rules");
    assert_eq!(again.state, queue.state);
    queue.publish("topic", 1);
    again.publish("topic", 1);
    assert_eq!(again.state, queue.state);

    assert!(queue.settle() > 1);
    assert_eq!(listed(&queue), COUNT - received + 1);
    assert_eq!(queue.stats(topic).leased, received);
    assert_eq!(queue.briefly(&redrive(topic)).0, Reply::Redriven { count: 0 });
}

/// Other things may take all that a command may spend on what is unfinished, and a receive all that is listed: then more is
/// listed all the same, or the next receive would be told that nothing is ready.
#[test]
fn rule_10_1_something_is_ready_as_long_as_a_redrive_goes_on() {
    let mut queue = Queue::default();
    let (topic, other) = (queue.create("topic"), queue.create("other"));
    queue.publish_many("topic");
    queue.kill_many(topic);
    queue.publish("other", 1_000);
    let token = queue.receive(other, 0..1_000);
    queue.nack(other, token, 0..1_000);
    queue.receive(other, 0..1_000);
    queue.briefly(&redrive(topic));
    queue.now_ms += 30_000;
    queue.receive(topic, 0..1_000);
    assert_eq!(queue.stats(other).dead, 1_000, "a thousand leases ended first");
    assert!(queue.state.subscription(topic, DEFAULT).expect("the topic was made").has_ready());
    queue.state.check().expect("a living state keeps its rules");
}

#[test]
fn rule_10_1_an_unfinished_redrive_ends_with_a_purge_or_its_topic() {
    for ends in [purge("topic"), delete("topic")] {
        let mut queue = Queue::default();
        let topic = queue.create("topic");
        queue.publish_many("topic");
        queue.kill_many(topic);
        queue.briefly(&redrive(topic));
        let (reply, effects) = queue.briefly(&ends);
        assert!(effects.dropped.entries() > 1_000, "{:?}", effects.dropped);
        if let Reply::Purged { count, bytes } = reply {
            assert_eq!((count, bytes, queue.stats(topic)), (COUNT, 100 * COUNT, Stats::default()));
        }
        assert_eq!(queue.state.earliest_deadline_ms(), None);
        queue.state.check().expect("a living state keeps its rules");
    }
}

fn publish_in_session(queue: &mut Queue, topic: &str, session: raftqueue_queue::SessionId) {
    let sequenced = Sequenced { session, epoch: 0, sequence: 1, batch_crc: 0 };
    let messages = vec![MessageMeta::default()];
    let publish = Command::Publish { topic: topic.to_string(), session: Some(sequenced), messages };
    assert!(matches!(queue.apply(&publish), Reply::Published { .. }));
}

fn open(queue: &mut Queue) -> raftqueue_queue::SessionId {
    match queue.apply(&Command::OpenSession { name: None, sessions_max: 10_000, pairs_max: 100_000 }) {
        Reply::SessionOpened { session, .. } => session,
        other => panic!("{other:?}"),
    }
}

/// Five thousand producers of one topic.
#[test]
fn rule_10_1_what_sessions_counted_in_a_deleted_topic_goes_a_part_at_a_time() {
    let mut queue = Queue::default();
    queue.create("topic");
    queue.create("other");
    let sessions: Vec<_> = (0..5_000).map(|_| open(&mut queue)).collect();
    for &session in &sessions {
        publish_in_session(&mut queue, "topic", session);
    }
    publish_in_session(&mut queue, "other", sessions[4_999]);
    queue.briefly(&delete("topic"));
    let left = queue.state.session_pair_count();
    assert!((2..5_000).contains(&left), "{left}");
    queue.state.check().expect("a living state keeps its rules");
    let again = State::from_sections(queue.state.sections()).expect("a living state keeps its rules");
    assert_eq!(again, queue.state);
    // A session that still counts there may end meanwhile.
    queue.briefly(&Command::CloseSession { session: sessions[4_999], epoch: 0 });
    queue.state.check().expect("a living state keeps its rules");
    // The topic of the same name is another one.
    queue.create("topic");
    publish_in_session(&mut queue, "topic", sessions[4_998]);
    queue.settle();
    assert_eq!(queue.state.session_pair_count(), 1);
}

/// Sessions with a thousand topics each, all idle.
#[test]
fn rule_10_1_sessions_that_end_together_do_so_over_several_commands() {
    let mut queue = Queue::default();
    for number in 0..500 {
        queue.create(&format!("topic {number}"));
    }
    for _ in 0..10 {
        let session = open(&mut queue);
        (0..500).for_each(|number| publish_in_session(&mut queue, &format!("topic {number}"), session));
    }
    queue.now_ms += SESSION_IDLE_MS;
    assert!(queue.settle_from_now() >= 4);
    assert_eq!((queue.state.session_count(), queue.state.session_pair_count()), (0, 0));
}

/// Kept pops of a thousand messages each, none of which are neighbours.
#[test]
fn rule_10_1_pops_that_are_let_go_of_together_are_so_over_several_commands() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish_many("topic");
    for request_id in 0..9 {
        let first = 2_000 * request_id as u64;
        let candidate = |step: u64| Candidate { offset: first + 2 * step, size: 100, deadline_ms: None };
        let candidates = (0..1_000).map(candidate).collect();
        let request_id = Some(request_id);
        queue.apply(&Command::Pop { topic, subscription: DEFAULT, candidates, count_max: 1_000, request_id });
    }
    queue.now_ms += POP_KEPT_MS;
    assert!(queue.settle_from_now() >= 8);
    assert!(!queue.state.is_live(topic, 0));
}

impl Queue {
    /// As [`Queue::settle`], with a first command that brings the time.
    fn settle_from_now(&mut self) -> usize {
        self.briefly(&Command::Time { overdue: Vec::new() });
        1 + self.settle()
    }
}
