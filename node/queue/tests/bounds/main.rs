//! What scripts are too short for: a backlog's cost in memory, the bounds of sessions, cheap clones, damaged snapshots.

mod contents;
mod damage;
mod queue;
mod steps;

use queue::{DEFAULT, Queue};
use raftqueue_queue::{
    Command, DeadSelection, Limit, MessageMeta, Refused, Reply, SESSION_TOPICS_MAX, Section, Sequenced, Stats,
};

#[test]
fn rule_4_2_a_million_waiting_messages_cost_two_runs() {
    let mut queue = Queue::default();
    let (left, right) = (queue.create("left"), queue.create("right"));
    for _ in 0..5_000 {
        queue.publish("left", 99);
        queue.publish("right", 100);
        // Single publishes, as interleaved as they can be.
        queue.publish("left", 1);
    }
    for topic in [left, right] {
        let stats = queue.stats(topic);
        assert_eq!((stats.ready, stats.ready_bytes, stats.entries), (500_000, 50_000_000, 1));
    }
    queue.state.check().expect("a living state keeps its rules");

    // Consumed from the front, it stays one run and as many leases as are out.
    for first in (0..100_000).step_by(1_000) {
        let token = queue.receive(left, first..first + 1_000);
        assert_eq!(queue.stats(left).entries, 1_001);
        queue.ack(left, token, first..first + 1_000);
        assert_eq!(queue.stats(left).entries, 1);
    }

    // Every other message gone is the worst that can be: a run for each that is left, and not more.
    let odd = |first: u64| (first..first + 2_000).filter(|offset| offset % 2 == 1);
    for first in (0..500_000).step_by(2_000) {
        let token = queue.receive(right, odd(first));
        queue.ack(right, token, odd(first));
    }
    let stats = queue.stats(right);
    assert_eq!((stats.ready, stats.entries), (250_000, 250_000));
    queue.state.check().expect("a living state keeps its rules");

    // Gone on both sides, the holes join again.
    let even = |first: u64| (first..first + 2_000).filter(|offset| offset % 2 == 0);
    for first in (0..500_000).step_by(2_000) {
        let token = queue.receive(right, even(first));
        queue.ack(right, token, even(first));
    }
    assert_eq!(queue.stats(right), Stats::default());
}

#[test]
fn rule_6_3_dead_neighbours_cost_one_run_also_when_a_backlog_of_them_is_redriven() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish("topic", 10_000);
    queue.publish("topic", 10_000);
    for _ in 0..2 {
        for first in (0..20_000).step_by(1_000) {
            let token = queue.receive(topic, first..first + 1_000);
            queue.nack(topic, token, first..first + 1_000);
        }
    }
    let stats = queue.stats(topic);
    assert_eq!((stats.dead, stats.dead_bytes, stats.entries), (20_000, 2_000_000, 1));

    // One ready run, and one that waives the deadlines.
    let redrive = Command::RedriveDead { topic, subscription: DEFAULT, selection: DeadSelection::All };
    assert_eq!(queue.apply(&redrive), Reply::Redriven { count: 20_000 });
    let stats = queue.stats(topic);
    assert_eq!((stats.ready, stats.ready_bytes, stats.entries), (20_000, 2_000_000, 2));
    queue.state.check().expect("a living state keeps its rules");
}

#[test]
fn rule_7_2_a_session_counts_in_a_thousand_topics() {
    let mut queue = Queue::default();
    let open = Command::OpenSession { name: None, sessions_max: 1, pairs_max: 100_000 };
    let Reply::SessionOpened { session, .. } = queue.apply(&open) else { panic!("the table is empty") };
    let first = |queue: &mut Queue, position: usize, sequence: u64| {
        let sequenced = Sequenced { session, epoch: 0, sequence, batch_crc: 0 };
        let messages = vec![MessageMeta::default()];
        queue.apply(&Command::Publish {
            topic: format!("topic {position}"),
            session: Some(sequenced),
            messages,
        })
    };
    for position in 0..=SESSION_TOPICS_MAX {
        queue.create(&format!("topic {position}"));
        let reply = first(&mut queue, position, 1);
        if position < SESSION_TOPICS_MAX {
            assert!(matches!(reply, Reply::Published { .. }), "{position}: {reply:?}");
        } else {
            let (limit, max) = (Limit::SessionTopics, SESSION_TOPICS_MAX as u64);
            assert_eq!(reply, Reply::Refused(Refused::OverLimit { limit, max, value: max + 1 }));
        }
    }
    // In those it goes on.
    assert!(matches!(first(&mut queue, 7, 2), Reply::Published { .. }));
    assert_eq!(queue.state.session_pair_count(), SESSION_TOPICS_MAX as u64);
    queue.state.check().expect("a living state keeps its rules");
}

#[test]
fn rule_3_1_a_clone_keeps_what_it_saw_while_everything_changes() {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.publish("topic", 10_000);
    let token = queue.receive(topic, 0..1_000);
    let frozen = queue.state.clone();
    let sections: Vec<Section> = frozen.sections().collect();
    queue.ack(topic, token, 0..500);
    queue.nack(topic, token, 500..1_000);
    queue.publish("topic", 1);
    queue.apply(&Command::DeleteTopic { name: "topic".to_string() });
    assert!(frozen.sections().eq(sections));
    frozen.check().expect("a clone keeps its rules");
}
