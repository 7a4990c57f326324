//! What only a whole replica shows. Everything else about it is the simulator's.

use super::{Actions, CallId, Event, LookedUp, LookupId, Now, Replica, Settings, Stage};
use crate::api::{Failure, NewMessage, Outcome, Reason, Request, Response, TopicOptions};
use crate::codec;
use bytes::BytesMut;
use raftqueue_queue::Candidate;
use raftqueue_raft::{
    self as raft, Configuration, Envelope, GroupId, Index, Member, MemberKind, Message, NodeId, Term,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A cluster of one, whose disk is never in the way.
struct Alone {
    replica: Replica,
    mono_ms: u64,
    answers: BTreeMap<CallId, Result<Response, Failure>>,
    /// Lookups are answered at once.
    looks_up: bool,
}

impl Alone {
    fn leading() -> Self {
        let own = NodeId(7);
        let recovered = raft::Recovered {
            hard_state: raft::HardState::default(),
            last_index: Index(0),
            term_runs: Vec::new(),
            configurations: Vec::new(),
        };
        let mut replica = Replica::new(Settings::new(raft::Settings::new(own, 1)), recovered);
        let member = Member { name: "a".into(), kind: MemberKind::Voter };
        let members = BTreeMap::from([(own, member)]);
        replica.form(Configuration { members, version: 1, ..Configuration::default() });
        let mut alone = Self { replica, mono_ms: 0, answers: BTreeMap::new(), looks_up: false };
        while !alone.replica.raft().is_leader() {
            alone.tick();
        }
        alone
    }

    fn tick(&mut self) {
        self.mono_ms += 10;
        self.handle(Event::Tick);
        self.perform();
    }

    fn handle(&mut self, event: Event) {
        self.replica.handle(Now { mono_ms: self.mono_ms, wall_ms: 1_000_000 + self.mono_ms }, event);
    }

    fn perform(&mut self) {
        loop {
            let Actions { write, replies, lookups, .. } = self.replica.take_actions();
            self.answers.extend(replies);
            let lookups = if self.looks_up { lookups } else { Vec::new() };
            if write.is_none() && lookups.is_empty() {
                break;
            }
            for lookup in lookups {
                // Every body here is of one byte.
                let message = NewMessage { body: "x".into(), ..NewMessage::default() };
                let (size, _) = codec::write_record(&mut BytesMut::new(), &message);
                let candidate = |offset| Candidate { offset, size, deadline_ms: None };
                let found = lookup.offsets.into_iter().map(candidate).collect();
                self.handle(Event::LookedUp(lookup.id, LookedUp { found, missing: Vec::new() }));
            }
            if let Some(write) = write {
                let persisted = write.persist(|_| Ok::<(), ()>(())).expect("this disk takes everything");
                self.handle(Event::Persisted(persisted));
            }
        }
    }

    fn call(&mut self, id: u64, request: Request, deadline_ms: u64) {
        let deadline_ms = self.mono_ms + deadline_ms;
        self.handle(Event::Call { id: CallId(id), request, deadline_ms });
    }
}

impl Alone {
    /// Another node says this, of a term so much later.
    fn hear(&mut self, terms_later: u64, message: Message) {
        let raft = self.replica.raft();
        let term = Term(raft.term().0 + terms_later);
        let envelope = Envelope { from: NodeId(9), to: raft.id(), group: GroupId(0), term, message };
        self.handle(Event::Receive(envelope, None));
    }

    /// Asks, and has the answer at once.
    fn ask(&mut self, id: u64, request: Request) -> Response {
        self.call(id, request, 1_000);
        self.perform();
        self.answers.remove(&CallId(id)).expect("answered").expect("without a failure")
    }
}

fn create() -> Request {
    Request::CreateTopic { topic: "t".into(), options: TopicOptions::default(), request_id: None }
}

fn publish() -> Request {
    let message = NewMessage { body: "x".into(), ..NewMessage::default() };
    Request::Publish { topic: "t".into(), session: None, messages: vec![message] }
}

/// A body of one byte, and what a record has around it.
const FOUND: Candidate = Candidate { offset: 0, size: 5, deadline_ms: None };

#[test]
fn rule_5_2_a_time_command_that_was_lost_with_the_lead_is_proposed_again() {
    let mut alone = Alone::leading();
    alone.ask(0, create());
    alone.ask(1, publish());
    alone.call(2, receive(0, Some(1_000)), 1_000);
    alone.perform();
    alone.handle(Event::LookedUp(LookupId(1), LookedUp { found: vec![FOUND], missing: Vec::new() }));
    alone.perform();
    assert!(alone.answers.remove(&CallId(2)).expect("leased").is_ok());
    while alone.replica.log_time_ms() < alone.replica.state().earliest_deadline_ms().expect("leased") {
        alone.mono_ms += 1;
        alone.handle(Event::Tick);
    }
    // The lease is over, and the command that says so waits when the lead goes and comes back between two ticks.
    let led = alone.replica.raft().term();
    alone.hear(1, Message::Heartbeat { commit: Index(0), round: 1 });
    alone.perform();
    alone.hear(0, Message::TimeoutNow);
    alone.perform();
    assert!(alone.replica.raft().is_leader() && alone.replica.raft().term() > led);
    (0..3).for_each(|_| alone.tick());
    assert_eq!(alone.replica.view().counters.leases_expired, 1);
}

#[test]
fn a_topic_that_goes_while_a_receive_looks_up_is_missed_only_at_a_read_index() {
    let mut alone = Alone::leading();
    alone.ask(0, create());
    alone.ask(1, publish());
    alone.call(2, long_poll(0), 1_000);
    alone.perform();
    alone.ask(3, Request::DeleteTopic { topic: "t".into() });
    alone.handle(Event::LookedUp(LookupId(1), LookedUp { found: vec![FOUND], missing: Vec::new() }));
    // Another leader may have made the topic again.
    assert_eq!(alone.replica.calls[&CallId(2)].stage, Stage::Reading);
    alone.perform();
    let failure = alone.answers.remove(&CallId(2)).expect("answered").expect_err("it is gone");
    assert_eq!(failure.reason, Reason::TopicNotFound);
}

fn long_poll(wait_ms: u64) -> Request {
    receive(wait_ms, None)
}

fn receive(wait_ms: u64, lease_ms: Option<u64>) -> Request {
    Request::Receive {
        topic: "t".into(),
        subscription: String::new(),
        messages_max: 1,
        bytes_max: 1,
        lease_ms,
        wait_ms,
    }
}

/// A replica with so many long polls.
fn crowded(polls: u64, wait_ms: u64) -> Alone {
    let mut alone = Alone::leading();
    let create =
        Request::CreateTopic { topic: "t".into(), options: TopicOptions::default(), request_id: None };
    alone.call(0, create, 1_000);
    alone.perform();
    assert!(alone.answers.remove(&CallId(0)).expect("created").is_ok());
    for id in 1..=polls {
        alone.call(id, long_poll(wait_ms), 60_000);
    }
    alone.perform();
    assert!(alone.answers.is_empty() && alone.replica.calls.len() as u64 == polls);
    assert!(alone.replica.calls.values().all(|call| call.stage == Stage::Waiting));
    alone
}

/// As many as a node takes. Going through the whole line for each of them would take half a minute, in which the node
/// would have lost its lead.
const POLLS: u64 = 60_000;
/// Far more than it takes.
const TAKES_MAX: Duration = Duration::from_secs(5);

#[test]
fn long_polls_that_end_together_are_answered_together() {
    let mut alone = crowded(POLLS, 500);
    let begun = Instant::now();
    for _ in 0..60 {
        alone.tick();
    }
    assert!(begun.elapsed() < TAKES_MAX, "it took {:?}", begun.elapsed());
    assert_eq!(alone.answers.len() as u64, POLLS);
    assert!(alone.answers.values().all(|answer| *answer == Ok(Response::Messages(Vec::new()))));
}

#[test]
fn long_polls_whose_clients_go_together_are_forgotten_together() {
    let mut alone = crowded(POLLS, 50_000);
    let begun = Instant::now();
    for id in 1..=POLLS {
        alone.handle(Event::Cancel(CallId(id)));
    }
    alone.tick();
    assert!(begun.elapsed() < TAKES_MAX, "it took {:?}", begun.elapsed());
    assert!(alone.answers.is_empty() && alone.replica.calls.is_empty());
    assert!(alone.replica.receives.lines_are_empty());
}

#[test]
fn a_call_that_waits_past_its_deadline_leaves_its_line() {
    let mut alone = crowded(2, 50_000);
    alone.mono_ms += 60_000;
    alone.tick();
    let failed = |answer: &Result<Response, Failure>| {
        answer.as_ref().is_err_and(|failure| failure.reason == Reason::DeadlineExceeded)
    };
    assert!(alone.answers.len() == 2 && alone.answers.values().all(failed), "{:?}", alone.answers);
    assert!(alone.replica.receives.lines_are_empty());
}

/// It was called a missing leader, which sent clients from a leader that is busy to nodes that are not one.
#[test]
fn a_busy_leader_says_what_a_call_waited_for() {
    let mut alone = crowded(0, 0);
    let body = bytes::Bytes::from_static(b"x");
    let message = NewMessage { body_crc: crc32c::crc32c(&body), body, ..NewMessage::default() };
    alone.call(1, Request::Publish { topic: "t".into(), session: None, messages: vec![message] }, 1_000);
    alone.perform();
    assert!(alone.answers.remove(&CallId(1)).expect("published").is_ok());
    for id in [2, 3] {
        alone.call(id, long_poll(0), 900);
    }
    alone.perform();
    // The disk does not say where the message is, so the second call has nothing to hope for but its return.
    alone.mono_ms += 900;
    alone.tick();
    for (id, words) in [(2, "the disk did not find"), (3, "on its way to a caller before")] {
        let failure = alone.answers.remove(&CallId(id)).expect("answered").expect_err("too late");
        assert_eq!((failure.reason, failure.outcome), (Reason::DeadlineExceeded, Outcome::NotDone));
        assert!(failure.text.contains(words), "{failure}");
    }
}

#[test]
fn rule_7_4_what_was_answered_to_nobody_is_ready_again_at_once() {
    let mut alone = crowded(0, 0);
    alone.looks_up = true;
    let message = NewMessage { body: "x".into(), body_crc: crc32c::crc32c(b"x"), ..NewMessage::default() };
    alone.call(1, Request::Publish { topic: "t".into(), session: None, messages: vec![message] }, 1_000);
    alone.perform();
    let receive = |alone: &mut Alone, id| {
        alone.call(id, long_poll(0), 1_000);
        alone.perform();
        match alone.answers.remove(&CallId(id)) {
            Some(Ok(Response::Messages(messages))) => messages,
            other => panic!("{other:?}"),
        }
    };
    let first = receive(&mut alone, 2);
    assert_eq!((first.len(), first[0].attempts), (1, 0));
    alone.handle(Event::AnswerUnheard(first.clone()));
    alone.perform();
    let second = receive(&mut alone, 3);
    assert_eq!((second.len(), second[0].attempts), (1, 0));
    // The same said again, of a lease that is another's by now, changes nothing.
    alone.handle(Event::AnswerUnheard(first));
    alone.perform();
    assert!(receive(&mut alone, 4).is_empty());
}

#[test]
fn what_cannot_be_read_is_given_back_and_not_offered_and_does_not_count_as_empty() {
    let mut alone = crowded(0, 0);
    alone.looks_up = true;
    let message = |body: &'static str| NewMessage {
        body: body.into(),
        body_crc: crc32c::crc32c(body.as_bytes()),
        ..NewMessage::default()
    };
    let messages = vec![message("a"), message("b")];
    alone.call(1, Request::Publish { topic: "t".into(), session: None, messages }, 1_000);
    alone.perform();
    let receive = |alone: &mut Alone, id| {
        alone.call(id, long_poll(0), 1_000);
        alone.perform();
        alone.answers.remove(&CallId(id)).expect("an answer")
    };
    let offset = |answer: &Result<Response, Failure>| match answer {
        Ok(Response::Messages(messages)) => messages[0].id.offset,
        other => panic!("{other:?}"),
    };
    let first = receive(&mut alone, 2);
    assert_eq!(offset(&first), 0);
    let Ok(Response::Messages(messages)) = first else { unreachable!("just seen") };
    alone.handle(Event::MessagesUnreadable { messages, are_leased: true });
    alone.perform();
    assert_eq!(offset(&receive(&mut alone, 3)), 1, "the next is offered in its place");
    let left = receive(&mut alone, 4).expect_err("something is left");
    assert_eq!((left.reason, left.outcome), (Reason::DataUnreadable, Outcome::NotDone));
    alone.mono_ms += 1_000;
    alone.tick();
    let again = receive(&mut alone, 5);
    assert_eq!(offset(&again), 0);
    let Ok(Response::Messages(messages)) = again else { unreachable!("just seen") };
    assert_eq!(messages[0].attempts, 0);
}
