//! The queue against a naive model: random commands and random time, every reply, every effect and the whole observable
//! state compared after each. The same run checks that a snapshot plus the rest of the log equals a full replay, and
//! that a frozen clone never changes.
//!
//! `PROPTEST_CASES` makes it longer.

mod model;
mod observe;
mod steps;

use model::Model;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use raftqueue_queue::{ApplyMeta, Effects, Refused, Reply, Section, State, SubscriptionId, TopicId};
use std::collections::BTreeMap;
use steps::{Step, steps};

/// Runs the steps through both; says which kinds of answers were met.
fn run(steps: &[Step], cut: usize) -> Result<BTreeMap<String, usize>, TestCaseError> {
    let mut met = BTreeMap::new();
    let mut state = State::default();
    let mut model = Model::default();
    let mut restored: Option<State> = None;
    let mut frozen = None;
    let (mut index, mut now_ms) = (0, 1_000_000);
    for (position, step) in steps.iter().enumerate() {
        if position == cut {
            let sections: Vec<Section> = state.sections().collect();
            restored = Some(State::from_sections(sections.clone()).expect("a living state keeps its rules"));
            frozen = Some((state.clone(), sections));
        }
        now_ms += step.wait_ms;
        index += u64::from(!step.is_same_entry);
        let command = step.command(&model, now_ms);
        let meta = ApplyMeta { index, now_ms, version: 1 };
        let before = state.clone();
        let replied = state.apply(&meta, &command);
        let wanted = model.apply(index, now_ms, &command);
        check_lowest(&before, &state, &replied.1)?;
        check_deadlines(&before, &state, &model)?;
        check_live(&state, u64::from(step.wait_ms as u32) % 40)?;
        prop_assert_eq!(&Model::knowable(replied), &wanted, "step {} was {:?}", position, command);
        for kind in kinds(&wanted.0, &wanted.1) {
            *met.entry(kind).or_default() += 1;
        }
        if let Some(restored) = &mut restored {
            let replied = Model::knowable(restored.apply(&meta, &command));
            prop_assert_eq!(&replied, &wanted, "after the snapshot, {:?}", command);
        }
        if let Err(broken) = state.check() {
            return Err(TestCaseError::fail(format!("step {position} was {command:?}: {broken}")));
        }
        let (seen, wanted) = (observe::state(&state), observe::model(&model));
        prop_assert_eq!(seen, wanted, "step {} was {:?}", position, command);
    }
    if let (Some(restored), Some((frozen, sections))) = (restored, frozen) {
        prop_assert_eq!(&restored, &state, "snapshot and rest must equal the full replay");
        prop_assert!(frozen.sections().eq(sections), "a clone must not change");
    }
    Ok(met)
}

/// No message became ready below the lowest one that is told.
fn check_lowest(before: &State, after: &State, effects: &Effects) -> Result<(), TestCaseError> {
    for topic in after.topics() {
        for (id, subscription) in topic.subscriptions() {
            let was_ready =
                |offset| before.subscription(topic.id(), id).is_some_and(|held| held.is_ready(offset));
            let first = subscription.ready_from(0).find(|&offset| !was_ready(offset));
            let told = effects.ready.iter().find(|ready| (ready.0, ready.1) == (topic.id(), id));
            let is_right = first.is_none_or(|first| told.is_some_and(|told| told.2 <= first));
            prop_assert!(is_right, "{:?} of topic {} is ready, told was {:?}", first, topic.id(), told);
        }
    }
    Ok(())
}

/// Nothing that was there before became ready with a deadline that has passed, unless it was redriven: a leader that has
/// looked at a message once after its deadline need not look again.
fn check_deadlines(before: &State, after: &State, model: &Model) -> Result<(), TestCaseError> {
    for topic in &model.topics {
        let id = TopicId(topic.id);
        let Some(old) = before.topic(id) else { continue };
        let held = after.subscription(id, SubscriptionId::DEFAULT).expect("every topic has a default");
        let was_ready = |offset| {
            old.subscription(SubscriptionId::DEFAULT)
                .is_some_and(|subscription| subscription.is_ready(offset))
        };
        for (offset, message) in (0..old.next_offset()).zip(&topic.messages) {
            let has_passed = message.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= after.now_ms());
            let returned = held.is_ready(offset) && !was_ready(offset);
            let is_right = !(has_passed && returned) || held.is_deadline_waived(offset);
            prop_assert!(is_right, "{} of topic {} came back after its deadline", offset, id);
        }
    }
    Ok(())
}

/// What is counted and listed as live, and as undead, is what is, from any offset on.
fn check_live(state: &State, from: u64) -> Result<(), TestCaseError> {
    for topic in state.topics() {
        let (id, next) = (topic.id(), topic.next_offset());
        let is_undead = |offset: &u64| {
            topic.subscriptions().any(|(_, held)| {
                held.is_live(*offset) && !held.dead_from(*offset).any(|run| run.offsets.contains(offset))
            })
        };
        for range in [0..next, from..next, from..from + 7, 3..from] {
            let offsets = range.start..range.end.min(next);
            let live: Vec<u64> = offsets.filter(|offset| state.is_live(id, *offset)).collect();
            prop_assert_eq!(state.live_count(id, range.clone()), live.len() as u64, "{:?} of {}", range, id);
            let runs: Vec<_> = state.live_runs(id, range).collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?} stand apart", runs);
            prop_assert_eq!(runs.into_iter().flatten().collect::<Vec<_>>(), live);
        }
        let mut undead = Vec::new();
        let mut at = from;
        while let Some(run) = state.undead_run_from(id, at) {
            at = run.end;
            undead.extend(run);
        }
        prop_assert_eq!(undead, (from..next).filter(is_undead).collect::<Vec<_>>());
    }
    prop_assert_eq!(state.live_count(TopicId(u64::MAX), 0..u64::MAX), 0);
    prop_assert_eq!(state.undead_run_from(TopicId(u64::MAX), 0), None);
    Ok(())
}

/// What an answer is, in few enough words to count.
fn kinds(reply: &Reply, effects: &Effects) -> Vec<String> {
    let first_word = |text: String| text.split([' ', '(']).next().unwrap_or_default().to_string();
    let mut kinds = vec![match reply {
        Reply::Refused(Refused::OverLimit { limit, .. }) => format!("over {}", limit.name()),
        Reply::Refused(refused) => first_word(format!("{refused:?}")),
        Reply::Created { repeated: true, .. }
        | Reply::Published { repeated: true, .. }
        | Reply::Popped { repeated: true, .. } => format!("{} again", first_word(format!("{reply:?}"))),
        Reply::SessionOpened { resumed: true, .. } => "session resumed".to_string(),
        other => first_word(format!("{other:?}")),
    }];
    match reply {
        Reply::Settled { results } => kinds.extend(results.iter().map(|result| format!("{result:?}"))),
        Reply::Extended { extensions } => {
            kinds.extend(extensions.iter().map(|extension| format!("extended {:?}", extension.result)));
        }
        Reply::Redriven { count: 1.. } => kinds.push("redriven some".to_string()),
        Reply::Purged { count: 1.., .. } => kinds.push("purged some".to_string()),
        Reply::Received { deliveries, .. } if !deliveries.is_empty() => {
            kinds.push("received some".to_string());
        }
        Reply::Popped { deliveries, .. } if !deliveries.is_empty() => kinds.push("popped some".to_string()),
        _ => {}
    }
    let counts = [
        (effects.died, "died"),
        (effects.leases_expired, "lease expired"),
        (effects.sessions_expired, "session expired"),
    ];
    kinds.extend(counts.iter().filter(|(count, _)| *count > 0).map(|(_, what)| (*what).to_string()));
    kinds
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_behaves_like_the_model((steps, cut) in steps().prop_flat_map(|steps| {
        let length = steps.len();
        (Just(steps), 0..length)
    })) {
        run(&steps, cut)?;
    }
}

/// A model that is never asked proves nothing: a few hundred runs must meet every kind of answer many times.
#[test]
fn the_random_commands_meet_every_kind_of_answer() {
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..600 {
        let steps = steps().new_tree(&mut runner).expect("steps can always be made").current();
        for (kind, count) in run(&steps, steps.len() / 2).expect("the queue behaves like the model") {
            *met.entry(kind).or_default() += count;
        }
    }
    let wanted = [
        "Created",
        "Created again",
        "Updated",
        "Deleted",
        "Published",
        "Published again",
        "Received",
        "received some",
        "Popped",
        "popped some",
        "Popped again",
        "Settled",
        "Done",
        "Gone",
        "Stale",
        "Invalid",
        "Extended",
        "extended Done",
        "extended Gone",
        "extended Stale",
        "extended Invalid",
        "Redriven",
        "redriven some",
        "Purged",
        "purged some",
        "SessionOpened",
        "session resumed",
        "SessionClosed",
        "AlreadyDone",
        "NoSuchTopic",
        "TopicExists",
        "over topics",
        "over topic_messages",
        "over topic_bytes",
        "over sessions",
        "over session_pairs",
        "SessionExpired",
        "Fenced",
        "OutOfSequence",
        "SequenceReused",
        "RequestIdReused",
        "GenerationNotAbove",
        "died",
        "lease expired",
        "session expired",
    ];
    for kind in wanted {
        let count = met.get(kind).copied().unwrap_or(0);
        assert!(count >= 10, "{kind} was met {count} times: {met:?}");
    }
}
