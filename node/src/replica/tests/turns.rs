//! No turn of the driver is long, whatever comes together. [`Alone::turn`] holds every turn against the bound.

use super::*;
use crate::api::{Dead, DeadAction, Look, Settle, Settlement, TopicInfo, Write};

/// As many long polls as a node takes. Going through the whole line for each of them would take half a minute, in which the
/// node would have lost its lead.
const POLLS: u64 = 60_000;

impl Alone {
    /// What one of so many costs, all of whom were done since the counts began, in no long turn.
    fn each(&self, count: u64) -> u64 {
        assert!(self.longest < 60_000, "{} steps", self.longest);
        self.steps / count
    }

    fn count_anew(&mut self) {
        (self.longest, self.steps) = (0, 0);
    }
}

fn ready(alone: &Alone) -> u64 {
    let topic = alone.replica.state().topics().next().expect("there is one");
    let (_, subscription) = topic.subscriptions().next().expect("the default one");
    subscription.stats().ready
}

#[test]
fn rule_10_1_long_polls_that_end_together_are_answered_together() {
    let mut alone = crowded(POLLS, 500);
    alone.count_anew();
    for _ in 0..60 {
        alone.tick();
    }
    assert!(alone.each(POLLS) < 10, "{} steps each", alone.each(POLLS));
    assert_eq!(alone.answers.len() as u64, POLLS);
    assert!(alone.answers.values().all(|answer| *answer == Ok(Response::Messages(Vec::new()))));
    assert!(alone.replica.receives.lines_are_empty());
}

#[test]
fn rule_10_1_long_polls_whose_clients_go_together_are_forgotten_together() {
    let mut alone = crowded(POLLS, 50_000);
    alone.count_anew();
    for id in 1..=POLLS {
        alone.handle(Event::Cancel(CallId(id)));
    }
    alone.tick();
    assert!(alone.each(POLLS) < 10, "{} steps each", alone.each(POLLS));
    assert!(alone.answers.is_empty() && alone.replica.calls.is_empty());
    assert!(alone.replica.receives.lines_are_empty());
}

#[test]
fn rule_10_1_deadlines_that_pass_together_are_answered_a_part_at_a_time() {
    let mut alone = crowded(POLLS, 90_000);
    let before = alone.turns;
    alone.mono_ms += 61_000;
    alone.tick();
    assert_eq!(alone.answers.len() as u64, POLLS);
    assert!(alone.turns > before + 2);
}

#[test]
fn rule_10_1_who_waits_where_the_lead_is_lost_is_told_a_part_at_a_time() {
    let mut alone = crowded(POLLS, 50_000);
    let before = alone.turns;
    alone.hear(1, Message::Heartbeat { commit: Index(0), round: 1 });
    alone.perform();
    assert_eq!(alone.answers.len() as u64, POLLS);
    let is_told = |answer: &Result<Response, Failure>| {
        answer.as_ref().is_err_and(|failure| failure.reason == Reason::NotLeader)
    };
    assert!(alone.answers.values().all(is_told) && alone.replica.outstanding().calls == 0);
    assert!(alone.turns > before + 5);
}

/// Each of ten thousand that wait gets one of ten thousand that come: in the order in which they wait, and without going
/// past what the others were offered.
#[test]
fn rule_10_1_ten_thousand_that_wait_are_served_by_one_publish() {
    let mut alone = crowded(10_000, 50_000);
    assert!(alone.each(10_000) < 10, "{} steps each", alone.each(10_000));
    alone.count_anew();
    let turns = alone.turns;
    alone.call(20_000, publish("t", 10_000, b""), 60_000);
    alone.perform();
    assert!(alone.answers.remove(&CallId(20_000)).expect("published").is_ok());
    for id in 1..=10_000 {
        let answer = alone.answers.remove(&CallId(id)).expect("served");
        let Ok(Response::Messages(messages)) = answer else { panic!("{answer:?}") };
        assert!(messages.len() == 1 && messages[0].id.offset == id - 1, "call {id} got {messages:?}");
    }
    assert!(alone.each(10_000) < 30, "{} steps each", alone.each(10_000));
    assert!(alone.turns > turns + 3);
}

/// What was given back in the midst is offered next, and is not looked for from the start.
#[test]
fn rule_10_1_what_comes_back_is_found_again() {
    let mut alone = crowded(0, 0);
    assert!(alone.ask(1, publish("t", 10_000, b"")).is_ok());
    alone.held = Some(Vec::new());
    for id in 10..5_010 {
        alone.call(id, receive("t", 1, 30_000), 60_000);
    }
    alone.perform();
    // Every other one goes before its lookup is answered; then as many come anew.
    for id in (10..5_010).step_by(2) {
        alone.handle(Event::Cancel(CallId(id)));
    }
    let held = alone.held.replace(Vec::new()).expect("just held");
    let found: Vec<Event> = held.iter().map(|lookup| alone.find(lookup)).collect();
    found.into_iter().for_each(|event| alone.handle(event));
    alone.perform();
    alone.held = None;
    alone.count_anew();
    for id in 6_000..8_500 {
        alone.call(id, receive("t", 1, 30_000), 60_000);
    }
    alone.perform();
    for id in 6_000..8_500 {
        let answer = alone.answers.remove(&CallId(id)).expect("served");
        let Ok(Response::Messages(messages)) = answer else { panic!("{answer:?}") };
        assert_eq!(messages[0].id.offset, 2 * (id - 6_000));
    }
    assert!(alone.each(2_500) < 40, "{} steps each", alone.each(2_500));
}

#[test]
fn rule_10_1_ten_thousand_queued_calls_are_given_up_at_once() {
    let mut alone = crowded(0, 0);
    alone.hangs = true;
    for id in 1..=20_000 {
        alone.call(id, publish("t", 1, b"x"), 60_000);
        if id <= 8 {
            // So that no more entries are made.
            alone.perform();
        }
    }
    alone.perform();
    let queued = alone.replica.outstanding().queued_bytes;
    assert!(queued > 1_000_000, "{queued}");
    alone.count_anew();
    // In the worst order for who looks for them from the front.
    for id in (11..=20_000).rev() {
        alone.handle(Event::Cancel(CallId(id)));
    }
    alone.perform();
    assert!(alone.each(20_000) < 5, "{} steps each", alone.each(20_000));
    assert!(alone.replica.outstanding().queued_bytes < 1_000);
    alone.hangs = false;
    let hung = alone.hung.take().expect("a write was out");
    alone.handle(Event::Persisted(hung));
    alone.perform();
    assert_eq!((alone.answers.len(), alone.replica.outstanding().queued_bytes), (10, 0));
}

/// A start reads back megabytes of entries at once; heartbeats go out between them.
#[test]
fn rule_10_1_a_replay_is_applied_a_part_at_a_time() {
    let mut alone = crowded(0, 0);
    for id in 1..=40 {
        assert!(alone.ask(id, publish("t", 10_000, b"")).is_ok());
    }
    let mut again = alone.restarted();
    again.perform();
    assert_eq!(ready(&again), 400_000);
    assert!(again.turns > 20, "{} turns", again.turns);
    assert!(again.longest < 40_000, "{} steps", again.longest);
}

/// A hundred thousand leases end while small commands wait: an entry has fewer of them then, since each ends a thousand.
#[test]
fn rule_10_1_leases_that_end_together_do_so_over_several_entries() {
    let mut alone = crowded(0, 0);
    for id in 1..=10 {
        assert!(alone.ask(id, publish("t", 10_000, b"")).is_ok());
    }
    for id in 100..200 {
        let answer = alone.ask(id, receive("t", 1_000, 1_000));
        assert!(matches!(answer, Ok(Response::Messages(messages)) if messages.len() == 1_000));
    }
    assert_eq!(ready(&alone), 0);
    alone.mono_ms += 2_000;
    alone.longest = 0;
    for id in 1_000..4_000 {
        alone.call(id, publish("t", 1, b""), 60_000);
    }
    alone.perform();
    (0..100).for_each(|_| alone.tick());
    assert!((1_000..4_000).all(|id| alone.answers.remove(&CallId(id)).is_some_and(|answer| answer.is_ok())));
    assert_eq!(ready(&alone), 103_000);
    assert!(alone.longest < 60_000, "{} steps", alone.longest);
}

#[test]
fn rule_10_1_messages_that_expire_together_do_so_over_several_ticks() {
    let mut alone = Alone::leading();
    alone.create(1, "t", TopicOptions { ttl_ms: Some(1_000), ..TopicOptions::default() });
    for id in 2..22 {
        assert!(alone.ask(id, publish("t", 10_000, b"")).is_ok());
    }
    alone.mono_ms += 1_200;
    alone.longest = 0;
    (0..300).for_each(|_| alone.tick());
    assert_eq!(ready(&alone), 0);
    assert!(alone.longest < 60_000, "{} steps", alone.longest);
    (0..200).for_each(|_| alone.tick());
    assert!(alone.due.is_empty(), "what is dead is not looked at for ever: {:?}", alone.due.first());
    let blocks = alone.due_looks;
    (0..2_000).for_each(|_| alone.tick());
    assert_eq!(alone.due_looks, blocks);
    // What is acknowledged, and what its topic took with it, costs one look.
    alone.create(30, "u", TopicOptions { ttl_ms: Some(5_000), ..TopicOptions::default() });
    for id in 100..2_100 {
        alone.call(id, publish("u", 1, b""), 60_000);
    }
    alone.perform();
    assert!(alone.ask(40, Request::Write(Write::DeleteTopic { topic: "u".into() })).is_ok());
    alone.mono_ms += 6_000;
    let looks = alone.due_looks;
    (0..300).for_each(|_| alone.tick());
    assert!(alone.due.is_empty());
    assert_eq!(alone.due_looks, looks + 2_000);
}

#[test]
fn rule_10_1_many_long_listings_are_answered_a_part_at_a_time() {
    let mut alone = Alone::leading();
    for id in 0..1_000 {
        alone.create(id, &format!("t{id}"), TopicOptions::default());
    }
    let turns = alone.turns;
    for id in 2_000..2_200 {
        alone.call(id, Request::Look(Look::ListTopics { after: None, topics_max: 1_000 }), 60_000);
    }
    alone.perform();
    let is_whole = |answer: &Result<Response, Failure>| match answer {
        Ok(Response::Topics { topics, more: false }) => {
            topics.len() == 1_000 && topics.iter().map(|topic: &TopicInfo| topic.id).is_sorted()
        }
        _ => false,
    };
    assert!((2_000..2_200).all(|id| alone.answers.get(&CallId(id)).is_some_and(is_whole)));
    assert!(alone.turns > turns + 10 && alone.longest < 40_000, "{} steps", alone.longest);
}

/// A purge, a redrive and a deletion of twenty thousand runs: each moves them away whole, and a redrive makes them ready a
/// thousand at a time.
#[test]
fn rule_10_1_commands_that_drop_much_are_short() {
    let mut alone = Alone::leading();
    for name in ["a", "b", "c"] {
        let id = 1_000_000 + u64::from(name.as_bytes()[0]) * 100;
        alone.create(id, name, TopicOptions { attempts_max: Some(1), ..TopicOptions::default() });
        for publish_id in 1..=2 {
            assert!(alone.ask(id + publish_id, publish(name, 10_000, b"")).is_ok());
        }
        // Every other message dies, with a reason of its own: as many runs as there are messages.
        for turn in 0..20 {
            let answer = alone.ask(id + 10 + turn, receive(name, 1_000, 30_000));
            let Ok(Response::Messages(messages)) = answer else { panic!("{answer:?}") };
            let lease =
                |message: &MessageRef| crate::api::LeaseId { message: message.id, token: message.token };
            for (reason, is_odd) in [("odd", 1), ("even", 0)] {
                let leases =
                    messages.iter().filter(|message| message.id.offset % 2 == is_odd).map(lease).collect();
                let nack = Request::Settle(Settle {
                    topic: name.into(),
                    subscription: String::new(),
                    leases,
                    settlement: Settlement::Nack { delay_ms: 0, reason: reason.into() },
                });
                assert!(alone.ask(id + 50 + 2 * turn + is_odd, nack).is_ok());
            }
        }
    }
    alone.longest = 0;
    let all = |is_redrive: bool, topic: &str| {
        let (topic, subscription, offsets) = (topic.to_owned(), String::new(), Vec::new());
        if is_redrive {
            Request::Dead(Dead { topic, subscription, offsets, action: DeadAction::Redrive })
        } else {
            Request::Dead(Dead { topic, subscription, offsets, action: DeadAction::Purge })
        }
    };
    alone.call(1, all(true, "a"), 60_000);
    alone.call(2, all(false, "b"), 60_000);
    alone.call(3, Request::Write(Write::DeleteTopic { topic: "c".into() }), 60_000);
    alone.perform();
    assert_eq!(alone.answers.remove(&CallId(1)), Some(Ok(Response::Count(20_000))));
    assert_eq!(alone.answers.remove(&CallId(2)), Some(Ok(Response::Count(20_000))));
    assert_eq!(alone.answers.remove(&CallId(3)), Some(Ok(Response::TopicDeleted)));
    assert!(alone.longest < 12_000, "{} steps", alone.longest);
    // Two of the three were dropped whole; of the third each run waits for its turn, also when nobody calls.
    assert!(alone.dropped >= 40_000, "{} dropped", alone.dropped);
    assert_eq!(ready(&alone), 20_000);
    let topic = alone.replica.state().topic_id("a").expect("it is there");
    let listed = |alone: &Alone| {
        let held = alone.replica.state().subscription(topic, SubscriptionId::DEFAULT);
        held.expect("the default one").ready_from(0).count()
    };
    assert!(listed(&alone) < 20_000);
    (0..100).for_each(|_| alone.tick());
    assert_eq!((listed(&alone), ready(&alone)), (20_000, 20_000));
    assert!(alone.longest < 12_000, "{} steps", alone.longest);
}
