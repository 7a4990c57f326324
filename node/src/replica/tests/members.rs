//! Changes of the members that are refused: each says what is wrong, and changes nothing.

use super::*;
use crate::api::{Change, ChangeMembers};
use crate::replica::{CAUGHT_UP_LAG_MAX, MEMBERS_MAX, WaitingNode};

/// The one that is heard.
const OTHER: u64 = 9;

impl Alone {
    fn waits(&mut self, id: u64, name: &str, versions: (u32, u32)) {
        let (name, address, client_address) = (name.into(), format!("{name}:7421"), format!("{name}:7420"));
        self.handle(Event::Waiting(Box::new(WaitingNode {
            id: NodeId(id),
            name,
            address,
            client_address,
            versions,
        })));
        self.perform();
    }

    fn changes(&mut self, change: Change) -> Result<Response, Failure> {
        self.ask(1, Request::Members(ChangeMembers { change, expected: None, force: false, dry: false }))
    }

    /// Why a change is refused, and that a dry call says so, too, unless what it names is not there.
    fn refuses(&mut self, change: Change) -> (Reason, String) {
        let in_force = self.replica.raft().configuration_index();
        let failure = self.changes(change.clone()).expect_err("it is refused");
        assert_eq!(failure.outcome, Outcome::NotDone, "{failure}");
        assert_eq!(self.replica.raft().configuration_index(), in_force, "{failure}");
        let dry = ChangeMembers { change, expected: None, force: false, dry: true };
        match self.ask(2, Request::Members(dry)) {
            Ok(Response::MembersChanged { refusal, .. }) => assert_eq!(refusal, Some(failure.text.clone())),
            other => panic!("{other:?}"),
        }
        (failure.reason, failure.text)
    }

    /// Of that kind, and in these words.
    fn refuses_with(&mut self, change: Change, reason: Reason, words: &str) {
        let (kind, text) = self.refuses(change);
        assert!(kind == reason && text.contains(words), "{kind:?}: {text}, not {words}");
    }

    /// What the learner says of itself when it answers a heartbeat.
    fn hears_learner(&mut self, disk_stalled: bool, replaying: bool, incomplete: bool) {
        let (round, received) = (0, Index(0));
        self.hear(0, Message::HeartbeatReply { round, received, disk_stalled, replaying, incomplete });
        self.perform();
    }
}

fn add(nodes: &[&str]) -> Change {
    Change::AddLearners(nodes.iter().map(ToString::to_string).collect())
}

fn promote(node: &str) -> Change {
    Change::Promote(vec![node.into()])
}

fn remove(node: &str) -> Change {
    Change::Remove(vec![node.into()])
}

fn replace(old: &str, new: &str) -> Change {
    Change::Replace { old: old.into(), new: new.into() }
}

/// A leader of one, and a learner that was not heard yet.
fn with_learner() -> Alone {
    let mut alone = Alone::leading();
    alone.waits(OTHER, "b", (1, 1));
    alone.changes(add(&["b"])).expect("it waits");
    alone
}

#[test]
fn who_is_not_what_a_change_takes_it_for_is_named() {
    let mut alone = with_learner();
    let none = Reason::NodeNotFound;
    alone.refuses_with(add(&["c"]), none, "there is no waiting node `c`: there is none");
    alone.refuses_with(promote("c"), none, "there is no learner `c`: b (");
    alone.refuses_with(remove("c"), none, "there is no member `c`");
    alone.refuses_with(replace("c", "b"), none, "there is no voter `c`: a (");
    alone.refuses_with(replace("a", "c"), none, "there is no learner `c`");
    let (own, learner) = (NodeId(7).to_string(), NodeId(OTHER).to_string());
    let precondition = Reason::FailedPrecondition;
    alone.refuses_with(add(&[&learner]), precondition, "is a member already");
    alone.refuses_with(promote(&own), precondition, "is a voter already");
    // Two disks wait under one name, as after one of them was lost twice.
    alone.waits(10, "c", (1, 1));
    alone.waits(11, "c", (1, 1));
    alone.refuses_with(add(&["c"]), precondition, "`c` is the name of several: say the id, one of");
    alone.changes(add(&[&NodeId(11).to_string()])).expect("there is one of that id");
}

#[test]
fn who_cannot_run_what_is_in_force_is_not_added() {
    let mut alone = Alone::leading();
    alone.waits(OTHER, "b", (2, 3));
    alone.refuses_with(
        add(&["b"]),
        Reason::FailedPrecondition,
        "runs the versions 2 to 3, and 1 is in force",
    );
}

#[test]
fn rule_4_4_a_cluster_has_so_many_members_and_no_more() {
    let mut alone = Alone::leading();
    let names: Vec<String> = (0..MEMBERS_MAX).map(|number| format!("n{number}")).collect();
    for (name, id) in names.iter().zip(20..) {
        alone.waits(id, name, (1, 1));
    }
    let (last, others) = names.split_last().expect("there are some");
    for name in others {
        alone.changes(add(&[name])).expect("there is room");
    }
    let words = format!("at most {MEMBERS_MAX} members");
    alone.refuses_with(add(&[last]), Reason::LimitReached, &words);
}

#[test]
fn a_learner_says_itself_why_it_does_not_vote_yet() {
    let mut alone = with_learner();
    let precondition = Reason::FailedPrecondition;
    let heard = |alone: &mut Alone, stalled, replaying, incomplete| {
        alone.hears_learner(stalled, replaying, incomplete);
    };
    alone.refuses_with(promote("b"), precondition, "it has yet to apply what was committed when it started");
    (0..1_000).for_each(|_| alone.tick());
    alone.refuses_with(promote("b"), precondition, "not heard within an election timeout");
    for ((stalled, replaying, incomplete), words) in [
        ((true, false, false), "its disk does not answer"),
        ((false, false, true), "it lacks messages that live"),
        ((false, true, false), "it has yet to apply what was committed when it started"),
    ] {
        heard(&mut alone, stalled, replaying, incomplete);
        alone.refuses_with(promote("b"), precondition, words);
        alone.refuses_with(replace("a", "b"), precondition, words);
    }
    heard(&mut alone, false, false, false);
    alone.refuses_with(
        replace("a", "b"),
        precondition,
        "`a` is well: its place is taken only if you force it",
    );
    alone.refuses_with(remove("a"), precondition, "no voter would be left");
    // Nor would the two be well together while the leader is not.
    alone.handle(Event::DiskStalled(true));
    alone.perform();
    alone.refuses_with(promote("b"), precondition, "a: its disk does not answer");
    alone.handle(Event::DiskStalled(false));
    alone.perform();
    alone.create(3, "t", TopicOptions::default());
    for _ in 0..=CAUGHT_UP_LAG_MAX {
        alone.ask(4, publish("t", 1, b"x")).expect("it leads");
    }
    heard(&mut alone, false, false, false);
    alone.refuses_with(promote("b"), precondition, "entries behind, at most 1000 count as caught up");
    // A leader that lacks messages counts no more than another voter that does.
    let mut lacking = with_learner();
    heard(&mut lacking, false, false, false);
    lacking.replica.begins_incomplete();
    lacking.perform();
    lacking.refuses_with(promote("b"), precondition, "a: it lacks messages that live");
}

#[test]
fn a_change_waits_for_the_one_before_it_and_for_the_members_that_its_caller_knows() {
    let mut alone = with_learner();
    alone.waits(10, "c", (1, 1));
    let in_force = alone.replica.raft().configuration_index();
    let asked = |expected: u64| {
        let change = add(&["c"]);
        Request::Members(ChangeMembers { change, expected: Some(expected), force: false, dry: false })
    };
    let failure = alone.ask(5, asked(in_force.0 - 1)).expect_err("it is an older one");
    assert_eq!(failure.reason, Reason::StaleConfiguration);
    let words =
        format!("the configuration at index {in_force} is in force, not the one at {}", in_force.0 - 1);
    assert!(failure.text.contains(&words), "{failure}");
    // The one before is not on the disk yet.
    alone.hangs = true;
    alone.call(6, asked(in_force.0), 60_000);
    alone.perform();
    alone.waits(11, "d", (1, 1));
    let in_force = alone.replica.raft().configuration_index();
    alone.call(7, asked(in_force.0), 60_000);
    alone.perform();
    let failure =
        alone.answers.remove(&CallId(7)).expect("it is refused at once").expect_err("it is refused");
    assert!(failure.text.contains("another change of the members is under way"), "{failure}");
    assert!(!alone.answers.contains_key(&CallId(6)), "the first one is");
}
