//! Schedules with a name: what could go wrong with a rule of the design, played through by whole clusters in the simulator.
//!
//! Each test is a story with a leader, its followers and a client. What it expects is said in the test; that nothing
//! acknowledged is lost, doubled or invented is judged behind it by the checker and the oracle of all simulated lives.
//! Rules of one part alone are tested beside that part, under the same kind of name.

use raftqueue_node::api::{
    LeaseResult, Look, MessageState, Outcome, Publish, Reason, Request, Response, TopicOptions, Write,
};
use raftqueue_node::replica::SnapshotSettings;
use raftqueue_tests::sim::Answer;
use raftqueue_tests::sim::scripted::{Script, TOPIC, acknowledging, popping, receiving};

/// The leader of three nodes, and the two others.
fn three(script: &mut Script) -> (usize, usize, usize) {
    let leader = script.leader();
    let others = script.others(leader);
    (leader, others[0], others[1])
}

#[test]
fn rule_2_3_a_tail_that_was_read_back_and_counted_survives_a_power_cut() {
    let mut script = Script::with(3, |plan| plan.write_delay = 40_000);
    let (leader, witness, absent) = three(&mut script);
    script.publish(&[1]);
    script.cut_off(absent);
    let call = script.call_at(leader, script.publishing(&[2]));
    script.say("the witness is killed between writing and syncing: what it wrote is in the page cache alone");
    script.kill_before_sync(witness);
    assert!(!script.has_answer(call));
    script.start(witness);
    script.say("it finds it there, the leader counts it, and the client hears of success");
    assert_eq!(script.answer(call).first_offset(), Some(1));
    script.cut_power(witness);
    script.kill(leader);
    script.join();
    script.start(witness);
    assert_eq!(script.leader_after(leader), witness, "the other has not got it");
    assert_eq!(script.pop(10), [1, 2]);
    script.end();
}

#[test]
fn rule_2_3_what_was_acknowledged_survives_a_power_cut_of_all_machines() {
    let mut script = Script::new(3);
    script.publish(&[1, 2, 3]);
    let lease = script.lease(30_000);
    assert_eq!(script.ack(lease), LeaseResult::Done);
    for round in 0..3 {
        script.publish(&[10 + round]);
        (0..3).for_each(|node| script.cut_power(node));
        (0..3).for_each(|node| script.start(node));
    }
    assert_eq!(script.pop(10), [2, 3, 10, 11, 12]);
    script.end();
}

#[test]
fn rule_2_4_what_was_cut_off_is_not_counted_before_its_successor_is_written() {
    let mut script = Script::new(3);
    let (old, _, _) = three(&mut script);
    script.publish(&[1]);
    script.cut_off(old);
    let lost: Vec<_> = (10..14).map(|number| script.call_at(old, script.publishing(&[number]))).collect();
    script.say("the old leader has four entries on its disk that nobody else has");
    let leader = script.leader_after(old);
    let third = 3 - old - leader;
    script.publish(&[2]);
    script.hang_disk(old);
    script.join();
    script.cut_off(third);
    let call = script.call_at(leader, script.publishing(&[3]));
    script.pass_ms(600);
    script.say("the old leader has received other entries in their place, and its disk hangs");
    assert!(!script.has_answer(call), "nobody but the leader has it on disk");
    script.unhang_disk(old);
    assert_eq!(script.answer(call).first_offset(), Some(2));
    for call in lost {
        assert_eq!(
            script.answer(call).failure().map(|(_, outcome)| outcome),
            Some(Outcome::NotDone),
            "it was overtaken"
        );
    }
    assert_eq!(script.pop(10), [1, 2, 3]);
    script.end();
}

#[test]
fn rule_2_5_rot_in_another_entry_on_each_node_heals_after_a_power_cut() {
    let mut script = Script::with(3, |plan| plan.snapshots = SnapshotSettings::default());
    for number in 0..6 {
        script.publish(&[number]);
    }
    script.catch_up();
    script.pass_ms(500);
    for node in 0..3 {
        let _ = script.rot_message(node, 1 + node as u32);
    }
    (0..3).for_each(|node| script.cut_power(node));
    (0..2).for_each(|node| script.start(node));
    script.cut_off(2);
    script.say("two nodes have what the other lacks, and mend each other without a leader");
    script.pass_ms(3_000);
    (0..2).for_each(|node| assert!(script.is_whole(node), "node {node}: {}", script.story()));
    script.start(2);
    script.say("the third one hears nobody: it has nobody to ask");
    script.pass_ms(3_000);
    assert!(script.is_up(2) && !script.is_whole(2) && !script.thinks_it_leads(2));
    script.join();
    script.pass_ms(3_000);
    assert!(script.is_whole(2));
    assert_eq!(script.pop(10), [0, 1, 2, 3, 4, 5]);
    script.end();
}

#[test]
fn rule_2_5_a_node_whose_log_rots_is_one_of_a_majority() {
    let mut script = Script::with(3, |plan| plan.snapshots = SnapshotSettings::default());
    for number in 0..4 {
        script.publish(&[number]);
    }
    script.catch_up();
    script.pass_ms(500);
    let (one, other, third) = three(&mut script);
    for node in [one, other, third] {
        script.cut_power(node);
    }
    let _ = script.rot_message(other, 2);
    script.start(other);
    script.pass_ms(5_000);
    assert!(script.is_up(other) && !script.is_whole(other) && !script.thinks_it_leads(other));
    script.say("one that is whole needs its vote");
    script.start(one);
    assert_eq!(script.pop(10), [0, 1, 2, 3]);
    script.start(third);
    script.end();
}

#[test]
fn rule_2_5_an_old_entry_that_rots_is_neither_served_nor_cut() {
    let mut script = Script::with(3, |plan| plan.segment_bytes = 8 << 10);
    for number in 0..60 {
        script.publish(&[number]);
    }
    script.catch_up();
    let rot: Vec<_> = (0..3).map(|node| script.rot_message(node, 1 + node as u32)).collect();
    script.say("old segments are not read at a start: the nodes come back, and meet the rot when they read");
    (0..3).for_each(|node| script.cut_power(node));
    (0..3).for_each(|node| script.start(node));
    let leader = script.leader();
    script.catch_up();
    let peeking = |from_offset, messages_max| {
        Request::Look(Look::Peek {
            topic: TOPIC.into(),
            subscription: String::new(),
            state: MessageState::Ready,
            from_offset,
            messages_max,
            bytes_max: usize::MAX,
        })
    };
    for offset in 0..5 {
        let answer = script.ask(peeking(offset, 1));
        if offset == 1 + leader as u64 {
            assert_eq!(
                answer.failure().map(|(reason, _)| reason),
                Some(Reason::DataUnreadable),
                "{answer:?}"
            );
        } else {
            assert_eq!(answer.numbers(), [offset as u32]);
        }
    }
    rot.iter().for_each(|rot| script.undo(rot));
    script.say("what could not be read is offered again after a second");
    script.pass_ms(1_100);
    assert_eq!(script.pop(100), (0..60).collect::<Vec<_>>());
    script.end();
}

#[test]
fn rule_2_6_a_node_that_lost_what_it_promised_takes_no_part_until_all_others_were_heard() {
    let mut script = Script::new(3);
    let (leader, lost, third) = three(&mut script);
    script.publish(&[1]);
    script.catch_up();
    script.kill(lost);
    script.rot_hard_state(lost);
    script.cut_power(third);
    script.start(lost);
    assert!(
        !script.is_up(lost),
        "it may have voted for the one that is down, and does not know in which term"
    );
    script.start(third);
    script.publish(&[2]);
    script.say("two of three are needed, and two are left");
    script.cut_power(leader);
    script.start(lost);
    script.pass_ms(5_000);
    assert!(!script.is_up(lost) && !script.thinks_it_leads(third));
    script.start(leader);
    script.start(lost);
    assert!(script.is_up(lost), "nothing that it promised is of the term that it begins in");
    script.catch_up();
    script.cut_power(leader);
    script.say("its vote counts again");
    assert_eq!(script.pop(10), [1, 2]);
    script.start(leader);
    script.end();
}

#[test]
fn rule_2_6_two_of_five_that_lost_what_they_promised_come_back() {
    let mut script = Script::new(5);
    let leader = script.leader();
    let others = script.others(leader);
    let (one, other) = (others[0], others[1]);
    script.publish(&[1]);
    script.catch_up();
    for node in [one, other] {
        script.kill(node);
        script.rot_hard_state(node);
    }
    script.start(one);
    assert!(!script.is_up(one), "the other one is down, and may have been voted for");
    script.start(other);
    script.say("the other one asks, too: whoever it was asks for no votes any more");
    assert!(script.is_up(other));
    script.start(one);
    assert!(script.is_up(one));
    script.publish(&[2]);
    assert_eq!(script.pop(10), [1, 2]);
    script.end();
}

#[test]
fn rule_2_7_a_full_quorum_refuses_publishes_and_goes_on_acknowledging() {
    let mut script = Script::new(3);
    let (_, one, other) = three(&mut script);
    let options = TopicOptions::default();
    let _ = script.ask(Request::Write(Write::CreateTopic { topic: "x0".into(), options, request_id: None }));
    script.publish(&[1, 2, 3]);
    let lease = script.lease(60_000);
    script.fill_disk(one, 20_000);
    script.publish(&[4]);
    script.fill_disk(other, 20_000);
    let refused = script.ask(script.publishing(&[5]));
    assert_eq!(refused.failure(), Some((Reason::DiskFull, Outcome::NotDone)));
    assert_eq!(script.ack(lease), LeaseResult::Done);
    assert_eq!(script.pop(1), [2]);
    let deleted = script.ask(Request::Write(Write::DeleteTopic { topic: "x0".into() }));
    assert!(matches!(deleted, Answer::Response(Response::TopicDeleted)), "{deleted:?}");
    script.make_room(one);
    assert_eq!(script.publish(&[5]), 4, "the refused one took no offset");
    script.end();
}

#[test]
fn rule_2_7_a_leader_whose_disk_alone_is_full_hands_over() {
    let mut script = Script::new(3);
    let (full, _, _) = three(&mut script);
    script.publish(&[1]);
    script.fill_disk(full, 20_000);
    assert!(!script.thinks_it_leads(full));
    script.publish(&[2, 3]);
    assert_ne!(script.leader(), full);
    script.make_room(full);
    assert_eq!(script.pop(10), [1, 2, 3]);
    script.end();
}

#[test]
fn rule_2_7_a_leader_whose_disk_is_full_hands_over_to_one_that_has_room() {
    for full_too in 0..4 {
        let mut script = Script::new(5);
        let leader = script.leader();
        let full_too = script.others(leader)[full_too];
        script.publish(&[1]);
        script.fill_disk(full_too, 20_000);
        script.fill_disk(leader, 20_000);
        assert!(!script.thinks_it_leads(leader), "three others have room");
        assert_ne!(script.leader(), full_too);
        script.publish(&[2]);
        script.make_room(full_too);
        script.make_room(leader);
        assert_eq!(script.pop(10), [1, 2]);
        script.end();
    }
}

#[test]
fn rule_2_8_a_leader_whose_disk_hangs_hands_over_to_one_whose_disk_does_not() {
    let mut script = Script::new(5);
    let leader = script.leader();
    // Everybody whose disk hangs answers as quickly as the others.
    let hangs_too = script.others(leader)[0];
    script.hang_disk(hangs_too);
    script.publish(&[1]);
    script.pass_ms(500);
    script.hang_disk(leader);
    let call = script.call_at(leader, script.publishing(&[2]));
    let next = script.leader_after(leader);
    assert_ne!(next, hangs_too);
    assert!(!script.thinks_it_leads(leader));
    script.publish(&[3]);
    script.unhang_disk(leader);
    script.unhang_disk(hangs_too);
    let _ = script.answer(call);
    let messages = script.pop(10);
    assert!(messages.starts_with(&[1]) && messages.ends_with(&[3]), "{messages:?}");
    script.end();
}

#[test]
fn rule_2_8_nobody_hands_over_while_a_quorum_of_disks_hangs() {
    let mut script = Script::new(3);
    let (leader, one, _) = three(&mut script);
    script.hang_disk(one);
    script.publish(&[1]);
    script.pass_ms(500);
    script.hang_disk(leader);
    let before = script.committed();
    let call = script.call_at(leader, script.publishing(&[2]));
    for _ in 0..15 {
        script.pass_ms(100);
        assert!(script.thinks_it_leads(leader), "no other could lead better");
    }
    assert_eq!((script.committed(), script.has_answer(call)), (before, false));
    script.unhang_disk(one);
    script.unhang_disk(leader);
    assert_eq!(script.answer(call).first_offset(), Some(1));
    script.end();
}

#[test]
fn rule_2_8_a_leader_waits_to_hear_whether_the_other_disks_hang_too() {
    let mut script = Script::new(3);
    let leader = script.leader();
    script.publish(&[1]);
    script.catch_up();
    script.say("whatever all disks stand on hangs");
    (0..3).for_each(|node| script.hang_disk(node));
    let call = script.call_at(leader, script.publishing(&[2]));
    for _ in 0..15 {
        script.pass_ms(100);
        assert!(script.thinks_it_leads(leader), "no other could lead better");
    }
    (0..3).for_each(|node| script.unhang_disk(node));
    assert_eq!(script.answer(call).first_offset(), Some(1));
    script.end();
}

#[test]
fn rule_4_2_what_a_leader_had_set_aside_is_free_when_its_term_ends() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    script.publish(&[1, 2]);
    script.cut_off(leader);
    script.say("both messages are set aside for a receive that nobody will ever commit");
    let lost = script.call_at(leader, receiving(2, 30_000));
    script.leader_after(leader);
    script.join();
    assert_eq!(
        script.answer(lost).failure().map(|(_, outcome)| outcome),
        Some(Outcome::NotDone),
        "it was overtaken"
    );
    script.catch_up();
    script.make_leader(leader);
    assert_eq!(script.pop(2), [1, 2]);
    script.end();
}

#[test]
fn rule_4_2_what_is_set_aside_for_another_is_not_called_empty() {
    let mut script = Script::with(3, |plan| plan.entries_in_flight = 1);
    let (leader, one, other) = three(&mut script);
    script.publish(&[1]);
    script.catch_up();
    script.say("nothing can be committed, but both followers confirm that the leader leads");
    script.hang_disk(one);
    script.hang_disk(other);
    let published = script.call_at(leader, script.publishing(&[2]));
    let first = script.call_at(leader, popping(1, None));
    let second = script.call_at(leader, popping(1, None));
    script.pass_ms(300);
    assert!(!script.has_answer(second), "the first may still leave the message to it");
    script.cancel(first);
    script.unhang_disk(one);
    script.unhang_disk(other);
    assert_eq!(script.answer(published).first_offset(), Some(1));
    assert_eq!(script.answer(second).numbers(), [1]);
    script.end();
}

const HOUR_MS: i64 = 3_600_000;

/// Log time is where good clocks are, give or take half a second and the time that a step takes.
fn assert_time_is_good(script: &Script) {
    let off = script.log_time_ms().abs_diff(script.true_time_ms());
    assert!(off <= 600, "log time is off by {off} ms");
}

#[test]
fn rule_5_1_an_hour_on_the_leaders_clock_ends_no_lease_and_no_message() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    script.publish(&[1]);
    let lease = script.lease(30_000);
    script.publish_for_ms(2, 30_000);
    for (jump, number) in [(HOUR_MS, 10), (-2 * HOUR_MS, 20)] {
        script.jump_clock(leader, jump);
        script.publish(&[number]);
        script.pass_ms(2_000);
        script.publish(&[number + 1]);
        assert_time_is_good(&script);
        assert_eq!((script.counts().1, script.counts().3), (1, 0), "one is leased, none is dead");
    }
    assert_eq!(script.leader(), leader);
    assert_eq!(script.ack(lease), LeaseResult::Done);
    script.end();
}

#[test]
fn rule_5_1_a_new_leader_whose_clock_is_an_hour_ahead_knows_better_ones() {
    let mut script = Script::new(3);
    let (leader, ahead, _) = three(&mut script);
    script.publish(&[1]);
    let lease = script.lease(30_000);
    script.jump_clock(ahead, HOUR_MS);
    script.make_leader(ahead);
    script.publish(&[2]);
    assert_time_is_good(&script);
    script.say("and so does one that was elected by a single vote");
    script.kill(leader);
    script.make_leader(ahead);
    script.publish(&[3]);
    assert_time_is_good(&script);
    assert_eq!(script.counts().1, 1);
    assert_eq!(script.ack(lease), LeaseResult::Done);
    script.end();
}

#[test]
fn rule_5_1_clocks_that_were_all_set_back_make_a_lease_at_most_a_ninth_longer() {
    for nodes in [1, 3] {
        let mut script = Script::new(nodes);
        script.publish(&[1]);
        script.lease(10_000);
        (0..nodes).for_each(|node| script.jump_clock(node, -HOUR_MS));
        script.pass_ms(9_500);
        assert_eq!(script.counts().1, 1, "it never ends early");
        script.pass_ms(1_700);
        assert_eq!((script.counts().0, script.counts().1), (1, 0), "{nodes} nodes");
        script.end();
    }
}

#[test]
fn rule_5_2_leases_and_messages_expire_while_nobody_asks_for_anything() {
    let mut script = Script::new(3);
    script.publish(&[1]);
    let lease = script.lease(2_000);
    script.publish_for_ms(2, 2_500);
    assert_eq!(script.counts(), (1, 1, 0, 0));
    script.pass_ms(2_300);
    assert_eq!(script.counts(), (2, 0, 0, 0), "the lease is over");
    script.pass_ms(800);
    assert_eq!(script.counts(), (1, 0, 0, 1), "the message is dead");
    let idle = script.committed();
    script.pass_ms(5_000);
    assert_eq!(script.committed(), idle, "nothing is due, and nothing is written");
    let dead = script.ask(Request::Look(Look::Peek {
        topic: TOPIC.into(),
        subscription: String::new(),
        state: MessageState::Dead,
        from_offset: 0,
        messages_max: 10,
        bytes_max: usize::MAX,
    }));
    let Answer::Deliveries(dead) = dead else { panic!("{dead:?}") };
    assert_eq!((dead.len(), dead[0].message.reason.as_str()), (1, "expired"));
    assert_eq!(script.ack(lease), LeaseResult::Done, "it was not leased again");
    script.end();
}

#[test]
fn rule_6_2_a_late_ack_at_the_next_leader_counts_until_the_message_is_leased_again() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    script.publish(&[1, 2]);
    let (first, second) = (script.lease(1_000), script.lease(1_000));
    script.kill(leader);
    script.leader_after(leader);
    script.pass_ms(1_500);
    assert_eq!(script.counts().0, 2, "both leases have merely expired");
    assert_eq!(script.ack(first), LeaseResult::Done);
    let again = script.lease(30_000);
    assert_eq!(again.message, second.message);
    assert!(again.token > second.token, "tokens rise across leaders (rule 5.3)");
    assert_eq!(script.ack(second), LeaseResult::Stale);
    assert_eq!(script.ack(again), LeaseResult::Done);
    script.start(leader);
    script.catch_up();
    script.make_leader(leader);
    assert_eq!(script.ack(first), LeaseResult::Gone);
    assert_eq!(script.ack(second), LeaseResult::Gone, "acknowledged under another token");
    script.end();
}

#[test]
fn rule_6_2_an_ack_of_unknown_outcome_can_be_repeated_at_the_next_leader() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    script.publish(&[1, 2]);
    let (heard, unheard) = (script.lease(30_000), script.lease(30_000));
    let call = script.call_at(leader, acknowledging(heard));
    script.cut_off(leader);
    let lost = script.call_at(leader, acknowledging(unheard));
    script.leader_after(leader);
    assert_eq!(script.ack(heard), LeaseResult::Gone);
    assert_eq!(script.ack(unheard), LeaseResult::Done);
    let _ = (script.answer(call), script.answer(lost));
    script.end();
}

#[test]
fn rule_6_4_an_empty_answer_costs_no_entry() {
    let mut script = Script::new(3);
    let before = script.committed();
    for _ in 0..20 {
        assert_eq!(script.pop(1), [0; 0]);
        assert_eq!(script.ask(receiving(1, 30_000)).numbers(), [0; 0]);
    }
    assert_eq!(script.committed(), before);
    script.end();
}

#[test]
fn rule_6_4_a_leader_of_the_past_never_says_that_a_topic_is_empty() {
    let mut script = Script::new(3);
    let (old, _, _) = three(&mut script);
    script.cut_off(old);
    script.pause(old);
    let stale = script.call_at(old, popping(1, None));
    script.leader_after(old);
    script.publish(&[1]);
    script.resume(old);
    let later = script.call_at(old, Request::Look(Look::DescribeTopic { topic: TOPIC.into() }));
    assert!(script.thinks_it_leads(old));
    for call in [stale, later] {
        let answer = script.answer(call);
        assert_eq!(answer.failure().map(|(_, outcome)| outcome), Some(Outcome::NotDone), "{answer:?}");
    }
    script.join();
    assert_eq!(script.pop(1), [1]);
    script.end();
}

#[test]
fn rule_6_5_a_pop_repeated_at_the_next_leader_brings_the_same_message() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    script.publish(&[1, 2]);
    assert_eq!(script.ask(popping(1, Some(7))).numbers(), [1]);
    script.say("its client did not hear that, and asks whoever leads next");
    script.kill(leader);
    script.leader_after(leader);
    assert_eq!(script.ask(popping(1, Some(7))).numbers(), [1]);
    (0..3).for_each(|node| script.cut_power(node));
    (0..3).for_each(|node| script.start(node));
    assert_eq!(script.ask(popping(1, Some(7))).numbers(), [1]);
    assert_eq!(script.ask(popping(1, Some(8))).numbers(), [2]);
    script.pass_ms(61_000);
    script.publish(&[3]);
    let late = script.ask(popping(1, Some(7)));
    assert_eq!(late.failure().map(|(reason, _)| reason), Some(Reason::AlreadyDone), "{late:?}");
    assert_eq!(script.pop(10), [3]);
    script.end();
}

#[test]
fn rule_7_1_a_named_producer_is_fenced_also_by_the_next_leader() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    let old = script.open_session(Some("p"));
    assert_eq!(script.ask(script.publishing_in(old, 1, 1)).first_offset(), Some(0));
    let new = script.open_session(Some("p"));
    script.kill(leader);
    script.leader_after(leader);
    let late = script.ask(script.publishing_in(old, 2, 2));
    assert_eq!(late.failure(), Some((Reason::Fenced, Outcome::NotDone)));
    assert_eq!(script.ask(script.publishing_in(new, 1, 1)).first_offset(), Some(0), "known from before");
    assert_eq!(script.ask(script.publishing_in(new, 2, 3)).first_offset(), Some(1));
    script.end();
}

#[test]
fn rule_7_2_a_late_retry_gets_the_first_offset_and_later_none_but_never_a_second_message() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    let session = script.open_session(None);
    let publish = |script: &mut Script, sequence: u64, number: u32| {
        script.ask(script.publishing_in(session, sequence, number))
    };
    for (sequence, number) in (1..=3).zip(1..) {
        assert_eq!(publish(&mut script, sequence, number).first_offset(), Some(sequence - 1));
    }
    script.say("the client gave up on the first one, and now its retry arrives at another leader");
    script.kill(leader);
    script.leader_after(leader);
    assert_eq!(publish(&mut script, 1, 1).first_offset(), Some(0));
    assert_eq!(publish(&mut script, 3, 3).first_offset(), Some(2));
    for (sequence, number) in (4..=1_026).zip(4..) {
        assert_eq!(publish(&mut script, sequence, number).first_offset(), Some(sequence - 1));
    }
    let old = publish(&mut script, 1, 1);
    assert!(matches!(old, Answer::Response(Response::AlreadyDone)), "1,024 later: {old:?}");
    assert_eq!(script.counts().0, 1_026);
    script.end();
}

#[test]
fn rule_7_2_a_refused_publish_takes_no_number_and_its_earlier_self_may_still_come() {
    let mut script = Script::new(3);
    let options = TopicOptions { messages_max: Some(1), ..TopicOptions::default() };
    let topic = "x0".to_owned();
    let made =
        script.ask(Request::Write(Write::CreateTopic { topic: topic.clone(), options, request_id: None }));
    assert!(matches!(made, Answer::Response(Response::TopicCreated { .. })), "{made:?}");
    let session = script.open_session(None);
    let publishing =
        |script: &Script, sequence: u64, number: u32| match script.publishing_in(session, sequence, number) {
            Request::Publish(Publish { session, messages, .. }) => {
                Request::Publish(Publish { topic: topic.clone(), session, messages })
            }
            other => unreachable!("{other:?}"),
        };
    assert_eq!(script.ask(publishing(&script, 1, 1)).first_offset(), Some(0));
    let refused = script.ask(publishing(&script, 2, 2));
    assert_eq!(refused.failure().map(|(reason, _)| reason), Some(Reason::LimitReached));
    let gap = script.ask(publishing(&script, 3, 3));
    assert_eq!(gap.failure().map(|(reason, _)| reason), Some(Reason::OutOfSequence), "2 is free");
    let subscription = String::new();
    let _ = script.ask(Request::Write(Write::Purge { topic: topic.clone(), subscription }));
    script.say("the first attempt at 2 was on its way all the time; there is room for it now");
    assert_eq!(script.ask(publishing(&script, 2, 2)).first_offset(), Some(1));
    let other = script.ask(publishing(&script, 2, 4));
    assert_eq!(
        other.failure(),
        Some((Reason::SequenceReused, Outcome::NotDone)),
        "2 was published after all"
    );
    assert_eq!(script.ask(publishing(&script, 2, 2)).first_offset(), Some(1));
    script.end();
}

#[test]
fn rule_7_2_a_publish_that_a_lost_leader_kept_is_one_message_when_it_is_repeated() {
    let mut script = Script::new(3);
    let (leader, heir, _) = three(&mut script);
    let session = script.open_session(None);
    script.say("one follower has the publish, and nobody knows of a majority");
    script.cut_off(3 - leader - heir);
    script.hang_disk(leader);
    let call = script.call_at(leader, script.publishing_in(session, 1, 1));
    script.kill(leader);
    assert!(matches!(script.answer(call), Answer::Broken));
    script.join();
    assert_eq!(script.leader_after(leader), heir, "it has the longer log");
    assert_eq!(script.ask(script.publishing_in(session, 1, 1)).first_offset(), Some(0));
    assert_eq!(script.pop(10), [1]);
    script.end();
}

#[test]
fn rule_7_4_a_call_whose_client_has_gone_is_dropped_before_it_is_proposed() {
    let mut script = Script::with(3, |plan| plan.entries_in_flight = 1);
    let (leader, _, _) = three(&mut script);
    script.cut_off(leader);
    let first = script.call_at(leader, script.publishing(&[1]));
    let gone = script.call_at(leader, script.publishing(&[2]));
    let last = script.call_at(leader, script.publishing(&[3]));
    script.cancel(gone);
    script.join();
    assert_eq!(script.answer(first).first_offset(), Some(0));
    assert_eq!(script.answer(last).first_offset(), Some(1));
    assert_eq!(script.pop(10), [1, 3]);
    script.end();
}

#[test]
fn rule_6_2_what_was_leased_for_a_client_that_has_gone_goes_back_at_once() {
    let mut script = Script::new(3);
    let (leader, one, other) = three(&mut script);
    script.publish(&[1, 2]);
    script.catch_up();
    script.say(
        "a consumer goes while its receive is under way: neither it nor anybody else knows of the lease",
    );
    script.hang_disk(one);
    script.hang_disk(other);
    let gone = script.call_at(leader, receiving(1, 3_600_000));
    script.cancel(gone);
    script.unhang_disk(one);
    script.unhang_disk(other);
    script.catch_up();
    script.pass_ms(100);
    assert_eq!(script.counts(), (2, 0, 0, 0), "it is not away for an hour");
    assert_eq!(script.pop(10), [1, 2]);
    script.end();
}

#[test]
fn rule_7_4_calls_that_wait_to_be_proposed_keep_their_order() {
    let mut script = Script::with(3, |plan| {
        plan.entries_in_flight = 1;
        plan.entry_bytes = 300;
    });
    let (leader, _, _) = three(&mut script);
    script.cut_off(leader);
    let calls: Vec<_> = (0..20).map(|number| script.call_at(leader, script.publishing(&[number]))).collect();
    script.join();
    for (call, offset) in calls.into_iter().zip(0..) {
        assert_eq!(script.answer(call).first_offset(), Some(offset));
    }
    assert_eq!(script.pop(100), (0..20).collect::<Vec<_>>());
    script.end();
}

#[test]
fn rule_8_1_a_call_that_was_proposed_is_of_unknown_outcome_and_one_that_was_not_is_not_done() {
    let mut script = Script::with(3, |plan| plan.entries_in_flight = 1);
    let (leader, _, _) = three(&mut script);
    script.cut_off(leader);
    let proposed = script.call_at(leader, script.publishing(&[1]));
    let queued = script.call_at(leader, script.publishing(&[2]));
    script.leader_after(leader);
    assert_eq!(script.answer(proposed).failure().map(|(_, outcome)| outcome), Some(Outcome::Unknown));
    assert_eq!(script.answer(queued).failure().map(|(_, outcome)| outcome), Some(Outcome::NotDone));
    let asked = script.call_at(leader, script.publishing(&[3]));
    assert_eq!(script.answer(asked).failure(), Some((Reason::NotLeader, Outcome::NotDone)));
    script.join();
    script.end();
}

#[test]
fn rule_8_2_a_creation_can_be_repeated_at_the_next_leader() {
    let mut script = Script::new(3);
    let (leader, _, _) = three(&mut script);
    let creating = |request_id| {
        Request::Write(Write::CreateTopic {
            topic: "x1".into(),
            options: TopicOptions::default(),
            request_id,
        })
    };
    let made = script.ask(creating(Some(9)));
    let Answer::Response(Response::TopicCreated { topic }) = made else { panic!("{made:?}") };
    script.kill(leader);
    script.leader_after(leader);
    let again = script.ask(creating(Some(9)));
    assert!(matches!(again, Answer::Response(Response::TopicCreated { topic: same }) if same == topic));
    for other in [None, Some(10)] {
        let refused = script.ask(creating(other));
        assert_eq!(refused.failure().map(|(reason, _)| reason), Some(Reason::TopicExists));
    }
    script.end();
}

#[test]
fn rule_10_4_a_node_counts_what_happens_after_its_replay() {
    let mut script = Script::new(3);
    let (_, one, other) = three(&mut script);
    script.publish(&[1, 2, 3]);
    script.catch_up();
    assert_eq!(script.counters(one).messages_published, 3);
    script.kill(one);
    script.publish(&[4]);
    script.start(one);
    assert!(script.is_replaying(one));
    script.catch_up();
    assert!(!script.is_replaying(one));
    assert_eq!(script.counters(one).commands_applied, 0, "four were published, none of them since");
    script.publish(&[5]);
    script.catch_up();
    assert_eq!(script.counters(one).messages_published, 1);
    script.say("nor does a leader count what its predecessors have done");
    (0..3).for_each(|node| script.kill(node));
    script.start(one);
    script.start(other);
    script.publish(&[6, 7]);
    script.catch_up();
    for node in [one, other] {
        assert_eq!(script.counters(node).messages_published, 2);
    }
    script.end();
}

#[test]
fn rule_10_4_a_node_that_replays_does_not_lead_while_another_is_ready() {
    let mut script = Script::new(3);
    let (leader, one, other) = three(&mut script);
    script.publish(&[1]);
    for round in 0..10 {
        script.catch_up();
        script.say("one of the others has just started when the leader dies, and has heard of nobody yet");
        let (ready, late) = if round % 2 == 0 { (one, other) } else { (other, one) };
        script.kill(late);
        script.kill(leader);
        script.start(late);
        assert_eq!(script.leader_after(leader), ready);
        script.start(leader);
        script.make_leader(leader);
    }
    script.end();
}

#[test]
fn rule_7_2_a_publish_of_unknown_outcome_is_one_message_also_after_a_start_from_a_snapshot() {
    let often = SnapshotSettings { bytes: 1, steps: 1, idle_ticks: 20, idle_bytes: 0 };
    let mut script = Script::with(3, |plan| plan.snapshots = often);
    three(&mut script);
    let named = script.open_session(Some("importer"));
    let session = script.open_session(None);
    assert_eq!(script.ask(script.publishing_in(session, 1, 1)).first_offset(), Some(0));
    assert_eq!(script.ask(script.publishing_in(named, 1, 2)).first_offset(), Some(1));
    script.say("every node has it in a snapshot, and starts from that");
    let published = script.committed();
    script.pass_ms(3_000);
    (0..3).for_each(|node| assert!(script.snapshot_index(node) >= published, "node {node}"));
    let before = script.starts_from_snapshots();
    (0..3).for_each(|node| script.kill(node));
    (0..3).for_each(|node| script.start(node));
    script.leader();
    assert!(script.starts_from_snapshots() - before >= 3);
    assert_eq!(script.ask(script.publishing_in(session, 1, 1)).first_offset(), Some(0));
    let other = script.ask(script.publishing_in(session, 1, 9));
    assert_eq!(other.failure().map(|(reason, _)| reason), Some(Reason::SequenceReused));
    assert_eq!(script.ask(script.publishing_in(session, 2, 3)).first_offset(), Some(2));
    assert_eq!(script.ask(script.publishing_in(named, 1, 2)).first_offset(), Some(1));
    assert_eq!(script.pop(10), [1, 2, 3]);
    script.end();
}
