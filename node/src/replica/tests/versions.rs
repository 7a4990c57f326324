//! When the active version rises, and what waits for it.

use super::*;
use crate::api::{Change, ChangeMembers, TopicChange};
use crate::replica::WaitingNode;

const LEARNER: NodeId = NodeId(9);

impl Alone {
    fn raise(&mut self, version: Option<u32>) -> Result<Response, Failure> {
        let change = Change::RaiseVersion(version);
        self.ask(1, Request::Members(ChangeMembers { change, expected: None, force: false, dry: false }))
    }

    /// In these words; and a dry call says the same.
    fn does_not_rise(&mut self, version: Option<u32>, words: &str) {
        let at = self.replica.raft().configuration_index();
        let failure = self.raise(version).expect_err("it is refused");
        assert_eq!((failure.reason, failure.outcome), (Reason::FailedPrecondition, Outcome::NotDone));
        assert!(failure.text.contains(words), "{}", failure.text);
        let change = Change::RaiseVersion(version);
        let dry = ChangeMembers { change, expected: None, force: false, dry: true };
        let answer = self.ask(2, Request::Members(dry));
        let refusal = Some(failure.text);
        assert_eq!(answer, Ok(Response::MembersChanged { configuration_index: at.0, refusal }));
        assert_eq!(self.replica.raft().configuration_index(), at);
    }

    fn update(&mut self, attempts_max: u32) -> Result<Response, Failure> {
        let change = TopicChange { attempts_max: Some(Some(attempts_max)), ..TopicChange::default() };
        self.ask(3, Request::Write(Write::UpdateTopic { topic: "t".into(), change }))
    }

    /// The learner is heard, and says what it runs.
    fn learner_runs(&mut self, versions: (u32, u32)) {
        self.handle(Event::Runs(LEARNER, versions));
        let (round, received, disk_stalled, replaying, incomplete) = (0, Index(0), false, false, false);
        self.hear(0, Message::HeartbeatReply { round, received, disk_stalled, replaying, incomplete });
        self.perform();
    }
}

#[test]
fn rule_9_1_what_needs_a_newer_version_waits_until_it_is_raised() {
    let mut alone = Alone::leading();
    alone.create(1, "t", TopicOptions::default());
    let refused = alone.update(3).expect_err("version 1 is in force");
    assert_eq!((refused.reason, refused.outcome), (Reason::FailedPrecondition, Outcome::NotDone));
    assert!(refused.text.contains("raftq members raise-version"), "{}", refused.text);
    alone.does_not_rise(Some(3), "version 3 is not run by every member: `a` runs 2 at most");
    let raised = alone.raise(None).expect("all run version 2");
    assert!(matches!(raised, Response::MembersChanged { refusal: None, .. }), "{raised:?}");
    let options = TopicOptions { attempts_max: Some(3), ..TopicOptions::default() };
    assert_eq!(alone.update(3), Ok(Response::TopicUpdated(options)));
    alone.does_not_rise(None, "version 2 is in force, and is the newest that all members run");
    alone.does_not_rise(Some(1), "version 2 is in force already, and it only rises");
    // It is in the log, and so is what needs it.
    let mut again = alone.restarted();
    assert!(again.update(4).is_ok());
}

#[test]
fn rule_9_1_the_version_rises_only_where_every_member_was_heard_to_run_it() {
    let mut alone = Alone::leading();
    let (name, address, client_address) = ("b".into(), "b:7421".into(), "b:7420".into());
    let node = WaitingNode { id: LEARNER, name, address, client_address, versions: (1, 2) };
    alone.handle(Event::Waiting(Box::new(node)));
    alone.perform();
    let change = Change::AddLearners(vec!["b".into()]);
    let add = ChangeMembers { change, expected: None, force: false, dry: false };
    alone.ask(1, Request::Members(add)).expect("it waits");
    alone.does_not_rise(None, "`b` was not heard within an election timeout");
    alone.learner_runs((1, 1));
    alone.does_not_rise(Some(2), "version 2 is not run by every member: `b` runs 1 at most");
    alone.does_not_rise(None, "version 1 is in force, and is the newest that all members run");
    alone.learner_runs((1, 2));
    // It went back to an older build, and then away.
    alone.learner_runs((1, 1));
    alone.does_not_rise(Some(2), "`b` runs 1 at most");
    alone.learner_runs((1, 2));
    (0..1_000).for_each(|_| alone.tick());
    alone.does_not_rise(None, "`b` was not heard within an election timeout");
    alone.learner_runs((1, 2));
    alone.raise(None).expect("all run version 2");
}

#[test]
#[should_panic(expected = "puts version 3 of commands and formats in force; this binary knows 1 to 2")]
fn rule_9_1_a_node_stops_before_a_version_that_it_does_not_know() {
    let mut alone = Alone::leading();
    alone.replica.raise_version(3).expect("nobody has asked the members");
    alone.perform();
}

/// What comes while a raise is on its way is judged by the version that it finds.
#[test]
fn rule_9_1_a_change_that_comes_with_a_raise_waits_for_it() {
    let mut alone = Alone::leading();
    alone.create(1, "t", TopicOptions::default());
    alone.replica.raise_version(2).expect("nothing is under way");
    assert!(alone.update(3).is_ok());
}
