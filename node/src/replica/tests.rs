//! What only a whole replica shows. The simulator tests everything else about it.

use super::{
    Actions, AppliedEntry, CallId, DueBlock, Event, Freeze, LoadedEntry, LookedUp, Lookup, Now, Replica,
    Settings, Shell, Stage,
};
use crate::api::codec::{self, EntryWriter};
use crate::api::{
    ClusterInfo, Dead, DeadAction, Failure, Look, MessageRef, MessageState, NewMessage, Outcome, Publish,
    Reason, Request, Response, Take, TakeKind, TopicOptions, Write,
};
use bytes::{BufMut, Bytes};
use proptest::prelude::*;
use raftqueue_queue::{
    Candidate, Command, DeadSelection, Dropped, Generation, LeaseId, MessageMeta, MessageSize, Overdue,
    SubscriptionId, Token, TopicId,
};
use raftqueue_raft::{
    self as raft, Configuration, Entry, Envelope, GroupId, HardState, Index, Member, MemberKind, Message,
    NodeId, Payload, Persisted, Term,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

mod installing;
mod members;
mod recovery;
mod room;
mod transfers;
mod turns;
mod versions;

const OWN: NodeId = NodeId(7);

/// No command, answer or event of these tests costs more steps: a publish of ten thousand, and what expires before it.
const ONE_THING_MAX: u64 = 12_000;

/// A cluster of one, whose disk hinders only if it is told to. Its driver is like the real one.
struct Alone {
    replica: Replica,
    mono_ms: u64,
    inbox: VecDeque<Event>,
    answers: BTreeMap<CallId, Result<Response, Failure>>,
    /// Every message that was published, as the log knows it.
    log: BTreeMap<(TopicId, u64), Candidate>,
    /// Blocks of publishes with deadlines: when to look at each.
    due: BTreeSet<(u64, DueBlock)>,
    /// Blocks that were given out because of their deadlines, so far.
    due_looks: usize,
    /// What is looked up waits here, if it is to wait.
    held: Option<Vec<Lookup>>,
    /// Everything that was written.
    entries: Vec<Entry>,
    hard_state: HardState,
    /// The disk does not come back with what is written from now on.
    hangs: bool,
    hung: Option<Persisted>,
    /// Turns so far, the most steps of one, and of all together.
    turns: usize,
    longest: u64,
    steps: u64,
    /// Runs and entries that were handed out to be freed, and states.
    dropped: usize,
    left: usize,
    /// The last state that was frozen for a snapshot.
    frozen: Option<Freeze>,
    /// What became of snapshots of other nodes, and where the log began again.
    judged: Vec<Option<Index>>,
    /// From where on it asked last for a snapshot of another node.
    wanted: Option<Index>,
    resets: Vec<Index>,
}

impl Alone {
    fn leading() -> Self {
        let mut alone = Self::recovered(raft::Recovered::default());
        let member = Member { name: "a".into(), address: String::new(), kind: MemberKind::Voter };
        let members = BTreeMap::from([(OWN, member)]);
        alone.replica.form(Configuration { members, version: 1, ..Configuration::default() });
        alone.lead();
        alone
    }

    fn recovered(recovered: raft::Recovered) -> Self {
        Self::recovered_in(0, recovered)
    }

    /// Of a disk of that generation.
    fn recovered_in(generation: u32, recovered: raft::Recovered) -> Self {
        let settings = Settings { generation, ..Settings::new(raft::Settings::new(OWN, 1)) };
        Self {
            hard_state: recovered.hard_state,
            replica: Replica::new(settings, recovered, None),
            mono_ms: 0,
            inbox: VecDeque::new(),
            answers: BTreeMap::new(),
            log: BTreeMap::new(),
            due: BTreeSet::new(),
            due_looks: 0,
            held: None,
            entries: Vec::new(),
            hangs: false,
            hung: None,
            turns: 0,
            longest: 0,
            dropped: 0,
            left: 0,
            frozen: None,
            judged: Vec::new(),
            wanted: None,
            resets: Vec::new(),
            steps: 0,
        }
    }

    /// The same node after its process was started again, leading.
    fn restarted(self) -> Self {
        self.restarted_in(0)
    }

    /// The same on a disk of that generation by now.
    fn restarted_in(self, generation: u32) -> Self {
        let mut term_runs: Vec<(Index, Term)> = Vec::new();
        let mut configurations = Vec::new();
        for entry in &self.entries {
            if term_runs.last().is_none_or(|(_, term)| *term < entry.term) {
                term_runs.push((entry.index, entry.term));
            }
            if let Payload::Config(configuration) = &entry.payload {
                configurations.push((entry.index, Arc::clone(configuration)));
            }
        }
        let last_index = self.entries.last().expect("something was written").index;
        let hard_state = self.hard_state;
        let recovered =
            raft::Recovered { hard_state, last_index, term_runs, configurations, ..Default::default() };
        let mut again = Self::recovered_in(generation, recovered);
        again.entries = self.entries;
        again.lead();
        again
    }

    fn lead(&mut self) {
        while !self.replica.raft().is_leader() {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.mono_ms += 10;
        self.handle(Event::Tick);
        self.perform();
    }

    fn handle(&mut self, event: Event) {
        self.inbox.push_back(event);
    }

    /// Turns until there is nothing more to do.
    fn perform(&mut self) {
        loop {
            self.turn();
            if self.inbox.is_empty() && !self.replica.is_unfinished() {
                break;
            }
        }
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, wall_ms: 1_000_000 + self.mono_ms }
    }

    /// The replica takes an event, and does nothing about it yet.
    fn handle_now(&mut self, event: Event) {
        self.replica.handle(self.now(), event);
    }

    /// Another node says this, of a term so much later.
    fn hear(&mut self, terms_later: u64, message: Message) {
        let term = Term(self.replica.raft().term().0 + terms_later);
        let envelope = Envelope { from: NodeId(9), to: OWN, group: GroupId(0), term, message };
        self.handle(Event::Arrived(envelope, None));
    }

    fn turn(&mut self) {
        let now = self.now();
        self.replica.begin_turn();
        while self.replica.takes_more()
            && let Some(event) = self.inbox.pop_front()
        {
            self.replica.handle(now, event);
        }
        loop {
            let actions = self.replica.take_actions();
            let at_once = self.act(actions);
            if at_once.is_empty() {
                break;
            }
            at_once.into_iter().for_each(|event| self.replica.handle(now, event));
        }
        self.turns += 1;
        self.longest = self.longest.max(self.replica.turn_steps());
        self.steps += self.replica.turn_steps();
        assert_eq!(self.replica.turn_excess(ONE_THING_MAX), None);
    }

    fn act(&mut self, actions: Actions) -> Vec<Event> {
        let Actions { write, results, lookups, look_for_due, load_to_apply, fatal, .. } = actions;
        assert_eq!(fatal, None);
        if actions.is_arrival_judged {
            self.judged.push(actions.installed);
        }
        self.wanted = actions.install.map(|install| install.start.0).or(self.wanted);
        self.left += usize::from(actions.left.is_some());
        self.frozen = actions.freeze.or(self.frozen.take());
        results.carry_out(self);
        if let Some(write) = write {
            self.resets.extend(write.reset().map(|start| start.0));
            self.entries.extend_from_slice(write.entries());
            self.hard_state = write.hard_state();
            let persisted = write.persist(|_| Ok::<(), ()>(())).expect("this disk takes everything");
            if self.hangs {
                self.hung = Some(persisted);
            } else {
                self.inbox.push_back(Event::Persisted(persisted));
            }
        }
        if let Some((from, to)) = load_to_apply {
            // All at once, however much it is.
            let wanted = self.entries.iter().filter(|entry| from <= entry.index && entry.index <= to);
            let loaded = wanted.map(|entry| LoadedEntry {
                index: entry.index,
                term: entry.term,
                payload: entry.payload.clone(),
                bytes: entry.size() as u64,
            });
            self.inbox.push_back(Event::LoadedToApply(loaded.collect()));
        }
        if let Some((now_ms, max)) = look_for_due {
            let mut blocks = Vec::new();
            while blocks.len() < max && self.due.first().is_some_and(|(when_ms, _)| *when_ms <= now_ms) {
                blocks.extend(self.due.pop_first().map(|(_, block)| block));
            }
            self.due_looks += blocks.len();
            self.inbox.push_back(Event::Due(blocks));
        }
        match &mut self.held {
            Some(held) => {
                held.extend(lookups);
                Vec::new()
            }
            None => lookups.iter().map(|lookup| self.find(lookup)).collect(),
        }
    }

    fn find(&self, lookup: &Lookup) -> Event {
        let mut looked_up = LookedUp { found: Vec::new(), missing: Vec::new() };
        for offset in &lookup.offsets {
            match self.log.get(&(lookup.topic, *offset)) {
                Some(found) => looked_up.found.push(*found),
                None => looked_up.missing.push(*offset),
            }
        }
        Event::LookedUp(lookup.id, looked_up)
    }

    /// Calls and takes the answer, which must be there at once.
    fn ask(&mut self, id: u64, request: Request) -> Result<Response, Failure> {
        self.call(id, request, 60_000);
        self.perform();
        self.answers.remove(&CallId(id)).expect("it is answered at once")
    }

    fn create(&mut self, id: u64, topic: &str, options: TopicOptions) {
        let create = Request::Write(Write::CreateTopic { topic: topic.into(), options, request_id: None });
        assert!(matches!(self.ask(id, create), Ok(Response::TopicCreated { .. })));
    }

    fn call(&mut self, id: u64, request: Request, deadline_ms: u64) {
        let deadline_ms = self.mono_ms + deadline_ms;
        self.handle(Event::Call { id: CallId(id), request, deadline_ms });
    }
}

impl Shell for Alone {
    fn applied(&mut self, entry: AppliedEntry) {
        for placement in entry.placements {
            let (topic, first_offset) = (placement.topic, placement.first_offset);
            let count = u32::try_from(placement.messages.len()).expect("a publish is limited");
            let deadlines = placement.messages.iter().filter_map(|m| m.deadline_ms(placement.published_ms));
            let block = DueBlock { topic, first_offset, count };
            self.due.extend(deadlines.min().map(|least_ms| (least_ms, block)));
            for (offset, message) in (placement.first_offset..).zip(placement.messages.iter()) {
                let deadline_ms = message.deadline_ms(placement.published_ms);
                let found = Candidate { offset, size: message.size, deadline_ms };
                self.log.insert((placement.topic, offset), found);
            }
        }
    }

    fn reply(&mut self, call: CallId, result: Result<Response, Failure>) {
        self.answers.insert(call, result);
    }

    fn confirmed(&mut self, call: CallId) {
        self.answers.insert(call, Ok(Response::Cluster(ClusterInfo::default())));
    }

    fn deleted(&mut self, _: TopicId) {}

    fn look_again(&mut self, block: DueBlock, when_ms: u64) {
        self.due.insert((when_ms, block));
    }

    fn dropped(&mut self, dropped: Dropped) {
        self.dropped += dropped.entries();
    }
}

fn long_poll(wait_ms: u64) -> Request {
    Request::Take(Take {
        topic: "t".into(),
        subscription: String::new(),
        messages_max: 1,
        bytes_max: 1,
        wait_ms,
        kind: TakeKind::Receive { lease_ms: None },
    })
}

#[test]
fn rule_5_2_a_time_command_that_was_lost_with_the_lead_is_proposed_again() {
    let mut alone = Alone::leading();
    alone.create(0, "t", TopicOptions::default());
    assert!(alone.ask(1, publish("t", 1, b"x")).is_ok());
    assert!(
        matches!(alone.ask(2, receive("t", 1, 1_000)), Ok(Response::Messages(found)) if found.len() == 1)
    );
    while alone.replica.log_time_ms() < alone.replica.state().earliest_deadline_ms().expect("leased") {
        alone.mono_ms += 1;
        alone.handle_now(Event::Tick);
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
    alone.create(0, "t", TopicOptions::default());
    assert!(alone.ask(1, publish("t", 1, b"x")).is_ok());
    alone.held = Some(Vec::new());
    alone.call(2, long_poll(0), 1_000);
    alone.perform();
    let held = alone.held.take().expect("just held");
    assert!(alone.ask(3, Request::Write(Write::DeleteTopic { topic: "t".into() })).is_ok());
    alone.handle_now(alone.find(&held[0]));
    // Another leader may have made the topic again.
    assert_eq!(alone.replica.calls[&CallId(2)].stage, Stage::Reading);
    alone.perform();
    let failure = alone.answers.remove(&CallId(2)).expect("answered").expect_err("it is gone");
    assert_eq!(failure.reason, Reason::TopicNotFound);
}

fn receive(topic: &str, messages_max: usize, lease_ms: u64) -> Request {
    Request::Take(Take {
        topic: topic.into(),
        subscription: String::new(),
        messages_max,
        bytes_max: 1 << 30,
        wait_ms: 0,
        kind: TakeKind::Receive { lease_ms: Some(lease_ms) },
    })
}

fn publish(topic: &str, count: usize, body: &'static [u8]) -> Request {
    let message = NewMessage { body: body.into(), body_crc: crc32c::crc32c(body), ..NewMessage::default() };
    Request::Publish(Publish { topic: topic.into(), session: None, messages: vec![message; count] })
}

fn empty() -> Result<Response, Failure> {
    Ok(Response::Messages(Vec::new()))
}

/// A dead or leased message that cannot be shown, and one that a pop has taken, wait for nobody.
#[test]
fn rule_6_4_what_is_not_ready_may_be_unreadable_and_the_topic_is_empty() {
    let mut alone = Alone::leading();
    alone.create(0, "t", TopicOptions::default());
    assert!(alone.ask(1, publish("t", 1, b"x")).is_ok());
    let Ok(Response::Messages(leased)) = alone.ask(2, receive("t", 1, 60_000)) else { panic!("it is there") };
    let shown = |messages| Event::MessagesUnreadable { messages, are_leased: false };
    alone.handle(shown(leased));
    alone.perform();
    assert_eq!(alone.ask(3, receive("t", 1, 60_000)), empty());

    // What is ready is kept back for a moment, and said to be there.
    assert!(alone.ask(4, publish("t", 1, b"y")).is_ok());
    let peek = Request::Look(Look::Peek {
        topic: "t".into(),
        subscription: String::new(),
        state: MessageState::Ready,
        from_offset: 0,
        messages_max: 1,
        bytes_max: 1,
    });
    let Ok(Response::Messages(ready)) = alone.ask(5, peek) else { panic!("it is there") };
    alone.handle(shown(ready));
    alone.perform();
    let refused = alone.ask(6, receive("t", 1, 60_000)).expect_err("it cannot be read");
    assert_eq!((refused.reason, refused.outcome), (Reason::DataUnreadable, Outcome::NotDone));
}

/// What goes between being chosen and being looked up is not there to be found, and is missed by nobody.
#[test]
fn rule_6_4_what_was_purged_meanwhile_is_not_called_unreadable() {
    let mut alone = Alone::leading();
    alone.create(0, "t", TopicOptions::default());
    assert!(alone.ask(1, publish("t", 3, b"x")).is_ok());
    alone.held = Some(Vec::new());
    alone.call(2, receive("t", 3, 60_000), 60_000);
    alone.perform();
    let purge = Request::Write(Write::Purge { topic: "t".into(), subscription: String::new() });
    assert_eq!(alone.ask(3, purge), Ok(Response::Count(3)));
    let lookups = alone.held.take().expect("they were held");
    assert_eq!(lookups.len(), 1);
    for lookup in lookups {
        let looked_up = LookedUp { found: Vec::new(), missing: lookup.offsets };
        alone.handle(Event::LookedUp(lookup.id, looked_up));
    }
    alone.perform();
    assert_eq!(alone.answers.remove(&CallId(2)), Some(empty()));
    assert_eq!(alone.ask(4, receive("t", 3, 60_000)), empty());
}

/// Lookups that find nothing, of more messages than are remembered, end; and what is there is tried again later.
#[test]
fn rule_10_1_a_topic_of_which_nothing_can_be_read_rests_as_a_whole() {
    let mut alone = Alone::leading();
    alone.create(0, "t", TopicOptions::default());
    for id in 1..=3 {
        assert!(alone.ask(id, publish("t", 10_000, b"x")).is_ok());
    }
    let log = std::mem::take(&mut alone.log);
    let turns = alone.turns;
    let refused = alone.ask(4, receive("t", 10, 60_000)).expect_err("nothing can be read");
    assert_eq!((refused.reason, refused.outcome), (Reason::DataUnreadable, Outcome::NotDone));
    alone.call(5, long_poll(20_000), 60_000);
    alone.perform();
    let turns_after = alone.turns - turns;
    assert!(turns_after < 10_000, "{turns_after} turns");
    assert!(!alone.answers.contains_key(&CallId(5)), "it waits");

    // The disk reads again.
    alone.log = log;
    let begun = alone.mono_ms;
    while !alone.answers.contains_key(&CallId(5)) {
        alone.tick();
        assert!(alone.mono_ms < begun + 5_000, "it is tried again after a second");
    }
    assert!(matches!(&alone.answers[&CallId(5)], Ok(Response::Messages(found)) if found.len() == 1));
}

/// A replica with so many long polls.
fn crowded(polls: u64, wait_ms: u64) -> Alone {
    let mut alone = Alone::leading();
    alone.create(0, "t", TopicOptions::default());
    for id in 1..=polls {
        alone.call(id, long_poll(wait_ms), 60_000);
    }
    alone.perform();
    assert!(alone.answers.is_empty() && alone.replica.calls.len() as u64 == polls);
    assert!(alone.replica.calls.values().all(|call| call.stage == Stage::Waiting));
    alone
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

/// This was once called a missing leader, and sent clients from a busy leader to nodes that do not lead.
#[test]
fn a_busy_leader_says_what_a_call_waited_for() {
    let mut alone = crowded(0, 0);
    assert!(alone.ask(1, publish("t", 1, b"x")).is_ok());
    alone.held = Some(Vec::new());
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
    assert!(alone.ask(1, publish("t", 1, b"x")).is_ok());
    let receive = |alone: &mut Alone, id| match alone.ask(id, long_poll(0)) {
        Ok(Response::Messages(messages)) => messages,
        other => panic!("{other:?}"),
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
    assert!(alone.ask(1, publish("t", 2, b"x")).is_ok());
    let offset = |answer: &Result<Response, Failure>| match answer {
        Ok(Response::Messages(messages)) => messages[0].id.offset,
        other => panic!("{other:?}"),
    };
    let first = alone.ask(2, long_poll(0));
    assert_eq!(offset(&first), 0);
    let Ok(Response::Messages(messages)) = first else { unreachable!("just seen") };
    alone.handle(Event::MessagesUnreadable { messages, are_leased: true });
    alone.perform();
    assert_eq!(offset(&alone.ask(3, long_poll(0))), 1, "the next is offered in its place");
    let left = alone.ask(4, long_poll(0)).expect_err("something is left");
    assert_eq!((left.reason, left.outcome), (Reason::DataUnreadable, Outcome::NotDone));
    alone.mono_ms += 1_000;
    alone.tick();
    let again = alone.ask(5, long_poll(0));
    assert_eq!(offset(&again), 0);
    let Ok(Response::Messages(messages)) = again else { unreachable!("just seen") };
    assert_eq!(messages[0].attempts, 0);
}

/// While the sizes of dead messages were looked up, their topic was deleted and another one made under its name, whose
/// dead messages have the same offsets. They stay as they are, whatever sizes the others had.
#[test]
fn rule_10_5_what_was_looked_up_is_redriven_and_purged_in_its_own_topic_only() {
    for (old, new) in [(&b"a long one"[..], &b"it"[..]), (b"it", b"a long one"), (b"same", b"same")] {
        for is_redrive in [true, false] {
            let mut alone = Alone::leading();
            let make_dead = |alone: &mut Alone, id: u64, body: &'static [u8]| {
                alone.create(id, "t", TopicOptions { attempts_max: Some(1), ..TopicOptions::default() });
                assert!(alone.ask(id + 1, publish("t", 3, body)).is_ok());
                let receive = Request::Take(Take {
                    topic: "t".into(),
                    subscription: String::new(),
                    messages_max: 2,
                    bytes_max: 1_000,
                    wait_ms: 0,
                    kind: TakeKind::Receive { lease_ms: Some(1_000) },
                });
                assert!(
                    matches!(alone.ask(id + 2, receive), Ok(Response::Messages(found)) if found.len() == 2)
                );
                (0..120).for_each(|_| alone.tick());
            };
            make_dead(&mut alone, 10, old);
            let (topic, subscription, offsets) = ("t".to_owned(), String::new(), vec![0, 1]);
            let request = if is_redrive {
                Request::Dead(Dead { topic, subscription, offsets, action: DeadAction::Redrive })
            } else {
                Request::Dead(Dead { topic, subscription, offsets, action: DeadAction::Purge })
            };
            alone.held = Some(Vec::new());
            alone.call(20, request, 60_000);
            alone.perform();
            let held = alone.held.take().expect("just held");
            assert_eq!(held.len(), 1);
            assert!(alone.ask(21, Request::Write(Write::DeleteTopic { topic: "t".into() })).is_ok());
            make_dead(&mut alone, 30, new);
            alone.handle(alone.find(&held[0]));
            alone.perform();
            let answer = alone.answers.remove(&CallId(20)).expect("answered");
            assert!(answer.is_err_and(|failure| failure.reason == Reason::TopicNotFound));
            alone.replica.state().check().expect("a living state keeps its rules");
            let topic = alone.replica.state().topics().next().expect("it was made again");
            let (_, subscription) = topic.subscriptions().next().expect("the default one");
            let stats = subscription.stats();
            let size = new.len() as u64 + 4;
            assert_eq!((stats.ready, stats.dead, stats.dead_bytes), (1, 2, 2 * size));
        }
    }
}

/// One command of each kind that takes lists, of a topic that has eight messages of five bytes: two dead, one leased.
fn lists(topic: TopicId, lease: LeaseId) -> Vec<Command> {
    let subscription = SubscriptionId::DEFAULT;
    let candidates = |offset| vec![Candidate { offset, size: 5, deadline_ms: Some(1 << 40) }];
    let leases = || vec![lease];
    let listed = || DeadSelection::Listed((0..2).map(|offset| MessageSize { offset, size: 5 }).collect());
    let message = MessageMeta { size: 5, crc: 9, delay_ms: 1, ttl_ms: Some(1) };
    vec![
        Command::Receive { topic, subscription, candidates: candidates(3), lease_ms: 30_000 },
        Command::Nack { topic, subscription, leases: leases(), delay_ms: 1, reason: None },
        Command::Extend { topic, subscription, leases: leases(), lease_ms: 30_000 },
        Command::Release { topic, subscription, leases: leases() },
        Command::Ack { topic, subscription, leases: leases() },
        Command::Pop { topic, subscription, candidates: candidates(4), count_max: 1, request_id: Some(1) },
        Command::Time { overdue: vec![Overdue { topic, subscription, candidates: candidates(5) }] },
        Command::RedriveDead { topic, subscription, selection: listed() },
        Command::PurgeDead { topic, subscription, selection: listed() },
        Command::Publish { topic: "t".into(), session: None, messages: vec![message; 2] },
        Command::OpenSession { name: None, sessions_max: 9, pairs_max: 9 },
        Command::RaiseGeneration { generation: Generation(1) },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    /// Entries whose bytes are altered here and there, so that they say anything that an entry can say.
    #[test]
    fn rule_10_5_whatever_an_entry_says_it_is_applied(
        entries in prop::collection::vec(
            prop::collection::vec((0..12usize, prop::collection::vec((any::<u16>(), any::<u8>()), 0..3)), 1..6),
            1..6,
        ),
    ) {
        let mut alone = Alone::leading();
        alone.create(1, "t", TopicOptions { attempts_max: Some(1), ..TopicOptions::default() });
        prop_assert!(alone.ask(2, publish("t", 8, b"a")).is_ok());
        prop_assert!(alone.ask(3, receive("t", 2, 1_000)).is_ok());
        alone.mono_ms += 1_200;
        (0..2).for_each(|_| alone.tick());
        let Ok(Response::Messages(leased)) = alone.ask(4, receive("t", 1, 30_000)) else { panic!("one is ready") };
        let MessageRef { id, token, .. } = leased[0];
        let lease =
            LeaseId { generation: Generation(id.generation), offset: id.offset, token: Token(token) };
        let topic = alone.replica.state().topics().next().expect("just made");
        let stats = topic.subscriptions().next().expect("the default one").1.stats();
        prop_assert_eq!((stats.dead, stats.leased, stats.ready), (2, 1, 5));
        let topic = topic.id();
        let mut propose = |entry: &[(usize, Vec<(u16, u8)>)]| {
            let commands = lists(topic, lease);
            let mut writer = EntryWriter::default();
            entry.iter().for_each(|(kind, _)| writer.push(&commands[*kind]));
            let meta = writer.finish(1, 2_000_000);
            let mut content = meta[..meta.len() - 4].to_vec();
            for (at, byte) in entry.iter().flat_map(|(_, changes)| changes) {
                let at = usize::from(*at) % content.len();
                content[at] = *byte;
            }
            content.put_u32_le(crc32c::crc32c(&content));
            if codec::read_entry(&content).is_ok() {
                let payload = Payload::Command { meta: Bytes::from(content), bodies: Bytes::new() };
                assert!(alone.replica.raft.propose(payload).is_ok());
                alone.perform();
                alone.replica.state().check().expect("a living state keeps its rules");
                alone.tick();
            }
        };
        entries.iter().for_each(|entry| propose(entry));
    }
}
