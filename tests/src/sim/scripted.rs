//! Schedules told step by step: the world of the other lives, in which only that goes wrong which a script says.
//!
//! A [`Script`] begins with a cluster that has a leader and one topic. Its steps do something to a node, a disk, a link
//! or a clock, or ask for something as a client; in between virtual time passes, and a node that is down stays down until
//! it is started. Every turn, answer and disk is judged as in all other lives, and [`Script::end`] heals everything and
//! takes out what is left. A broken rule is a panic with the last lines of the story.

mod members;

use super::calls::Answer;
use super::clients::NOBODY;
use super::ledger::key;
use super::message::Origin;
use super::nodes::EPOCH_MS;
use super::plan::{LeftOut, MS, Micros, Plan, SECOND};
use super::trace::Telling;
use super::world::{Phase, World};
use super::{Violation, view};
use raftqueue_node::api::{
    LeaseId, LeaseResult, Look, NewMessage, Outcome, Publish, Reason, Request, Response, SessionId,
    SessionStep, Settle, Settlement, Take, TakeKind, TopicInfo, Write,
};
use raftqueue_node::replica::{self, CallId, Counters};
use std::collections::BTreeMap;

/// The one topic of a script.
pub const TOPIC: &str = "t0";
/// How long a client waits for its answer, if nothing else is said.
const PATIENCE: Micros = 2 * SECOND;
/// How long something may take that has to come by itself.
const LIMIT: Micros = 60 * SECOND;

/// A life in the hands of a test.
pub struct Script {
    world: World,
    /// What was asked, until its answer is looked at.
    asked: BTreeMap<CallId, Request>,
}

/// Bits that were flipped and can be flipped back.
#[derive(Clone, Debug)]
pub struct Rot {
    node: usize,
    places: Vec<(String, u64)>,
}

impl Script {
    /// A cluster of so many nodes that has a leader and the topic [`TOPIC`].
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self::with(nodes, |_| {})
    }

    /// As [`Script::new`], with something about it changed.
    #[must_use]
    pub fn with(nodes: usize, change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = Plan::quiet(nodes);
        change(&mut plan);
        let mut script = Self { world: World::new(plan, Telling::LastLines), asked: BTreeMap::new() };
        script.step(World::begin);
        script.world.phase = Phase::Scripted;
        script.catch_up();
        script
    }

    /// Everything that was cut, stopped or filled is well again; what was acknowledged must be there, and nothing else.
    pub fn end(mut self) {
        self.step(World::stop);
        self.step(World::heal);
        self.step(World::drain);
        self.step(World::finish);
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut World) -> Result<T, Violation>) -> T {
        match act(&mut self.world) {
            Ok(value) => value,
            Err(Violation(rule)) => panic!("{rule}\n  {}", self.world.story().join("\n  ")),
        }
    }

    /// Says in the story what comes next.
    pub fn say(&mut self, what: &str) {
        let now = self.world.now;
        self.world.trace.note(now, &[50], || format!("--- {what}"));
    }

    // Time.

    /// So much time passes.
    pub fn pass_ms(&mut self, ms: u64) {
        self.step(|world| world.pass(ms * MS));
    }

    /// Waits for something that has to come by itself.
    fn wait(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        self.step(|world| world.run_until(LIMIT, is_so, what));
    }

    /// The queue's own time as of the last committed entry, in milliseconds since the epoch.
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.world.oracle.state().now_ms()
    }

    /// What a good clock shows, in milliseconds since the epoch.
    #[must_use]
    pub fn true_time_ms(&self) -> u64 {
        EPOCH_MS + self.world.now / MS
    }

    /// Entries committed so far.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.world.oracle.committed().0
    }

    // Who leads.

    /// Waits until a node leads and has committed in its term.
    pub fn leader(&mut self) -> usize {
        self.leader_among(|_| true)
    }

    /// Waits until another node leads than this one.
    pub fn leader_after(&mut self, before: usize) -> usize {
        self.leader_among(|node| node != before)
    }

    fn leader_among(&mut self, counts: impl Fn(usize) -> bool) -> usize {
        let found = |world: &World| world.leader().filter(|node| counts(*node) && world.leads_firmly(*node));
        self.wait("a leader", |world| found(world).is_some());
        found(&self.world).expect("just seen")
    }

    /// Whether the node leads, as it thinks itself.
    #[must_use]
    pub fn thinks_it_leads(&self, node: usize) -> bool {
        self.world.nodes[node].raft().is_some_and(raftqueue_raft::Raft::is_leader)
    }

    /// All nodes but one.
    #[must_use]
    pub fn others(&self, node: usize) -> Vec<usize> {
        (0..self.world.nodes.len()).filter(|other| *other != node).collect()
    }

    /// This node is made the leader.
    pub fn make_leader(&mut self, node: usize) {
        let leader = self.leader();
        if leader != node {
            let request = Request::TransferLeadership { to: Some(self.world.nodes[node].name()) };
            let answer = self.ask(request);
            assert!(matches!(answer, Answer::Response(Response::Transferred { .. })), "{answer:?}");
        }
        assert_eq!(self.leader(), node);
    }

    /// Waits until every node that runs has applied all that is committed.
    pub fn catch_up(&mut self) {
        self.wait("all to have the same", |world| {
            let committed = world.oracle.committed();
            let mut running = world.members().filter_map(|node| node.replica());
            running.all(|replica| replica.applied() == committed)
        });
    }

    /// Whether a node that runs has yet to apply what was committed when it started.
    #[must_use]
    pub fn is_replaying(&self, node: usize) -> bool {
        self.world.nodes[node].raft().is_none_or(raftqueue_raft::Raft::is_replaying)
    }

    /// What a node that runs has counted since it was started.
    #[must_use]
    pub fn counters(&self, node: usize) -> Counters {
        self.world.nodes[node].replica().map(|replica| replica.view().counters).unwrap_or_default()
    }

    /// The last index of a node's log, as it knows it.
    #[must_use]
    pub fn last_index(&self, node: usize) -> u64 {
        self.world.nodes[node].raft().map_or(0, |raft| raft.last_index().0)
    }

    /// The index of the first entry of a node's log.
    #[must_use]
    pub fn log_start(&self, node: usize) -> u64 {
        self.world.nodes[node].raft().map_or(0, |raft| raft.status().start.0 + 1)
    }

    /// The index of a node's newest snapshot.
    #[must_use]
    pub fn snapshot_index(&self, node: usize) -> u64 {
        self.world.nodes[node].replica().map_or(0, |replica| replica.snapshot_index().0)
    }

    /// How often a process has begun with a snapshot.
    #[must_use]
    pub fn starts_from_snapshots(&self) -> u64 {
        self.world.summary.restored
    }

    // Processes and machines.

    /// The process dies; what it wrote stays in the page cache.
    pub fn kill(&mut self, node: usize) {
        self.step(|world| world.crash(node, false));
    }

    /// The machine loses power, and with it all that was not synced.
    pub fn cut_power(&mut self, node: usize) {
        if self.is_up(node) {
            self.step(|world| world.crash(node, true));
        } else {
            self.step(|world| world.lose(node, true));
        }
    }

    /// Waits for the next write of a node, and kills its process between writing and syncing.
    pub fn kill_before_sync(&mut self, node: usize) {
        self.wait("a write", |world| world.nodes[node].has_write_out());
        // The write is one call, the sync the next.
        self.step(|world| world.crash_at(node, false, Some(2)));
    }

    /// Starts a process that is down.
    pub fn start(&mut self, node: usize) {
        self.step(|world| world.start(node));
    }

    /// Whether the process runs. One that refused its disk does not.
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.world.nodes[node].is_up()
    }

    /// The process stands still.
    pub fn pause(&mut self, node: usize) {
        self.world.nodes[node].paused_until = Some(0);
    }

    /// The process goes on.
    pub fn resume(&mut self, node: usize) {
        self.world.resume(node);
    }

    /// The wall clock of a machine jumps.
    pub fn jump_clock(&mut self, node: usize, ms: i64) {
        self.world.nodes[node].clockwork.skew_ms += ms;
    }

    // Links.

    /// The node does not hear the others, nor they it, until [`Script::join`]. Clients reach it all the same.
    pub fn cut_off(&mut self, node: usize) {
        for other in self.others(node) {
            self.cut_link(node, other);
        }
    }

    /// Two nodes do not hear each other until [`Script::join`].
    pub fn cut_link(&mut self, one: usize, other: usize) {
        self.world.network.cut(one, other, Micros::MAX);
        self.world.network.cut(other, one, Micros::MAX);
    }

    /// Every link is whole again.
    pub fn join(&mut self) {
        self.world.network.join();
    }

    // Disks.

    /// The disk has room for so many bytes more.
    pub fn fill_disk(&mut self, node: usize, room: u64) {
        let at = &mut self.world.nodes[node];
        at.was_tight = true;
        at.disk.set_capacity(at.disk.used_bytes() + room);
        // Beyond the second in which nodes look at it, and a heartbeat.
        self.pass_ms(1_500);
    }

    /// The disk has all the room again.
    pub fn make_room(&mut self, node: usize) {
        self.world.make_room(node);
        self.pass_ms(1_500);
    }

    /// The next write of this node does not come back until [`Script::unhang_disk`].
    pub fn hang_disk(&mut self, node: usize) {
        self.world.nodes[node].hangs_next = true;
    }

    /// What hangs comes back.
    pub fn unhang_disk(&mut self, node: usize) {
        self.world.nodes[node].hangs_next = false;
        if let Some(writes) = self.world.nodes[node].running.as_ref().map(|running| running.writes) {
            self.step(|world| world.unhang(node, writes));
        }
    }

    /// On this disk, the body of a message rots wherever it stands.
    pub fn rot_message(&mut self, node: usize, number: u32) -> Rot {
        let body = self.message(number).body;
        let disk = &self.world.nodes[node].disk;
        let places: Vec<(String, u64)> = (disk.names().into_iter())
            .flat_map(|name| {
                let bytes = disk.bytes(&name).unwrap_or_default();
                let found = bytes.windows(body.len()).zip(0..).filter(|(window, _)| *window == body);
                found.map(|(_, at)| (name.clone(), at + 1)).collect::<Vec<_>>()
            })
            .collect();
        assert!(!places.is_empty(), "message {number} does not stand on the disk of node {node}");
        let rot = Rot { node, places };
        self.flip(&rot);
        self.world.nodes[node].is_damaged = true;
        rot
    }

    /// What happened so far.
    #[must_use]
    pub fn story(&self) -> String {
        self.world.story().join("\n  ")
    }

    /// Whether every byte of a node's disk that was acknowledged verifies.
    #[must_use]
    pub fn is_whole(&mut self, node: usize) -> bool {
        self.world.is_whole(node)
    }

    /// Both copies of what a node has promised rot.
    pub fn rot_hard_state(&mut self, node: usize) {
        let disk = &self.world.nodes[node].disk;
        let bytes = disk.bytes("HARDSTATE").expect("every formatted disk has one").len() as u64;
        (0..bytes).for_each(|at| assert!(disk.corrupt("HARDSTATE", at, 1)));
        self.world.nodes[node].is_damaged = true;
    }

    /// Somebody has put the bits right again by hand, and the node may be started.
    pub fn undo(&mut self, rot: &Rot) {
        self.flip(rot);
        let at = &mut self.world.nodes[rot.node];
        (at.is_damaged, at.out) = (false, None);
    }

    fn flip(&self, rot: &Rot) {
        for (name, at) in &rot.places {
            assert!(self.world.nodes[rot.node].disk.corrupt(name, *at, 1));
        }
    }

    /// Everything that stands on a disk, by the names of its files.
    #[must_use]
    pub fn disk_content(&self, node: usize) -> BTreeMap<String, Vec<u8>> {
        let disk = &self.world.nodes[node].disk;
        disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name).unwrap_or_default())).collect()
    }

    // Clients.

    /// Asks whoever leads, and waits for the answer.
    pub fn ask(&mut self, request: Request) -> Answer {
        let call = self.call(request);
        self.answer(call)
    }

    /// Asks whoever leads.
    pub fn call(&mut self, request: Request) -> CallId {
        let leader = self.leader();
        self.call_at(leader, request)
    }

    /// Asks this node, which believes to lead or not.
    pub fn call_at(&mut self, node: usize, request: Request) -> CallId {
        let call = self.world.place_call_at(NOBODY, node, request.clone(), PATIENCE);
        self.asked.insert(call, request);
        // It has arrived when the next step begins, unless the process stands still.
        self.pass_ms(5);
        call
    }

    /// The client of a call has gone, and the node hears of it.
    pub fn cancel(&mut self, call: CallId) {
        let request = self.asked.remove(&call).expect("asked before");
        let open = self.world.calls.get_mut(&call).expect("not answered yet");
        (open.is_abandoned, open.is_cancelled) = (true, true);
        let node = open.node;
        self.note(&request, &Answer::Broken);
        self.world.hand(node, replica::Event::Cancel(call));
        self.pass_ms(5);
    }

    /// Waits for the answer to a call.
    pub fn answer(&mut self, call: CallId) -> Answer {
        let answer = self.step(|world| world.await_answer(call));
        let request = self.asked.remove(&call).expect("asked before, and answered once");
        self.note(&request, &answer);
        answer
    }

    /// The answer to a call, if it has come.
    #[must_use]
    pub fn has_answer(&self, call: CallId) -> bool {
        self.world.heard.contains_key(&call)
    }

    /// Keeps the books of the clients.
    fn note(&mut self, request: &Request, answer: &Answer) {
        let ledger = &mut self.world.ledger;
        match (request, answer) {
            (
                Request::Publish(Publish { messages, .. }),
                Answer::Response(Response::Published { topic, first_offset, .. }),
            ) => {
                for (origin, offset) in
                    messages.iter().filter_map(|m| Origin::of(&m.body)).zip(*first_offset..)
                {
                    ledger.keep((*topic, offset), origin);
                }
            }
            (Request::Take(Take { kind: TakeKind::Pop { .. }, .. }), Answer::Deliveries(deliveries)) => {
                deliveries.iter().for_each(|delivery| ledger.take(key(delivery.message.id)));
            }
            (Request::Take(Take { topic, messages_max, kind: TakeKind::Pop { .. }, .. }), answer)
                if answer.is_unknown() =>
            {
                ledger.allow(topic, *messages_max);
            }
            (
                Request::Settle(Settle { leases, settlement: Settlement::Ack, .. }),
                Answer::Response(Response::Leases(results)),
            ) => {
                let is_taken = |result| matches!(result, LeaseResult::Done | LeaseResult::Gone);
                for (lease, _) in leases.iter().zip(results).filter(|(_, result)| is_taken(**result)) {
                    ledger.take(key(lease.message));
                }
            }
            (Request::Settle(Settle { leases, settlement: Settlement::Ack, .. }), answer)
                if answer.is_unknown() =>
            {
                leases.iter().for_each(|lease| ledger.perhaps_take(key(lease.message)));
            }
            _ => {}
        }
    }

    /// The message of this number: no delay, no time to live.
    #[must_use]
    pub fn message(&self, number: u32) -> NewMessage {
        let plan = &self.world.plan;
        let message = Origin { producer: 0, number }.message(plan.seed, plan.body_bytes);
        NewMessage { delay_ms: 0, ttl_ms: None, ..message }
    }

    /// A publish of these messages.
    #[must_use]
    pub fn publishing(&self, numbers: &[u32]) -> Request {
        let messages = numbers.iter().map(|number| self.message(*number)).collect();
        Request::Publish(Publish { topic: TOPIC.into(), session: None, messages })
    }

    /// A publish of one message within a session.
    #[must_use]
    pub fn publishing_in(&self, session: SessionId, sequence: u64, number: u32) -> Request {
        let session = Some(SessionStep { session, sequence });
        Request::Publish(Publish { topic: TOPIC.into(), session, messages: vec![self.message(number)] })
    }

    /// Publishes and expects success: the offset of the first message.
    pub fn publish(&mut self, numbers: &[u32]) -> u64 {
        let answer = self.ask(self.publishing(numbers));
        answer.first_offset().unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// Publishes a message that must be taken within so much log time.
    pub fn publish_for_ms(&mut self, number: u32, ttl_ms: u64) {
        let message = NewMessage { ttl_ms: Some(ttl_ms), ..self.message(number) };
        let answer = self.ask(Request::Publish(Publish {
            topic: TOPIC.into(),
            session: None,
            messages: vec![message],
        }));
        assert!(answer.first_offset().is_some(), "{answer:?}");
    }

    /// Opens a session, of a named producer or not.
    pub fn open_session(&mut self, name: Option<&str>) -> SessionId {
        match self.ask(Request::Write(Write::OpenSession { name: name.map(str::to_owned) })) {
            Answer::Response(Response::SessionOpened { session }) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Pops and expects success: the numbers of the messages.
    pub fn pop(&mut self, messages_max: usize) -> Vec<u32> {
        self.ask(popping(messages_max, None)).numbers()
    }

    /// Leases one message and expects success.
    pub fn lease(&mut self, lease_ms: u64) -> LeaseId {
        let answer = self.ask(receiving(1, lease_ms));
        let leases = answer.leases();
        assert_eq!(leases.len(), 1, "{answer:?}");
        leases[0]
    }

    /// Acknowledges a lease and expects an answer: what became of it.
    pub fn ack(&mut self, lease: LeaseId) -> LeaseResult {
        match self.ask(acknowledging(lease)) {
            Answer::Response(Response::Leases(results)) => results[0],
            other => panic!("{other:?}"),
        }
    }

    /// Looks at the topic: (ready, leased, delayed, dead) as committed, without asking anybody.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        view::counts(self.world.oracle.state(), TOPIC)
    }

    /// Asks for the topic.
    pub fn describe(&mut self) -> TopicInfo {
        match self.ask(Request::Look(Look::DescribeTopic { topic: TOPIC.into() })) {
            Answer::Response(Response::Topic(info)) => info,
            other => panic!("{other:?}"),
        }
    }
}

/// A pop that does not wait.
#[must_use]
pub fn popping(messages_max: usize, request_id: Option<u128>) -> Request {
    let subscription = String::new();
    let (topic, bytes_max) = (TOPIC.into(), usize::MAX);
    Request::Take(Take {
        topic,
        subscription,
        messages_max,
        bytes_max,
        wait_ms: 0,
        kind: TakeKind::Pop { request_id },
    })
}

/// A receive that does not wait.
#[must_use]
pub fn receiving(messages_max: usize, lease_ms: u64) -> Request {
    let (topic, subscription, bytes_max) = (TOPIC.into(), String::new(), usize::MAX);
    Request::Take(Take {
        topic,
        subscription,
        messages_max,
        bytes_max,
        wait_ms: 0,
        kind: TakeKind::Receive { lease_ms: Some(lease_ms) },
    })
}

/// The ack of one lease.
#[must_use]
pub fn acknowledging(lease: LeaseId) -> Request {
    Request::Settle(Settle {
        topic: TOPIC.into(),
        subscription: String::new(),
        leases: vec![lease],
        settlement: Settlement::Ack,
    })
}

impl Answer {
    /// The first offset of what was published.
    #[must_use]
    pub fn first_offset(&self) -> Option<u64> {
        match self {
            Answer::Response(Response::Published { first_offset, .. }) => Some(*first_offset),
            _ => None,
        }
    }

    /// Why it failed, and whether it may have happened all the same.
    #[must_use]
    pub fn failure(&self) -> Option<(Reason, Outcome)> {
        match self {
            Answer::Failure(failure) => Some((failure.reason, failure.outcome)),
            _ => None,
        }
    }

    /// The numbers of the messages that came.
    ///
    /// # Panics
    /// If it is no answer that brings messages, or none.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        match self {
            Answer::Response(Response::Messages(messages)) if messages.is_empty() => Vec::new(),
            Answer::Deliveries(deliveries) => {
                let number = |body: &bytes::Bytes| Origin::of(body).expect("a message of the script").number;
                deliveries.iter().map(|delivery| number(&delivery.body)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The leases that came.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        let Answer::Deliveries(deliveries) = self else { return Vec::new() };
        let lease =
            |message: &raftqueue_node::api::MessageRef| LeaseId { message: message.id, token: message.token };
        deliveries.iter().map(|delivery| lease(&delivery.message)).collect()
    }
}

impl Plan {
    /// A cluster in which nothing happens by itself: good clocks, quick disks, a network that loses nothing.
    fn quiet(nodes: usize) -> Self {
        let plan = Plan::new(0);
        Self {
            ids: (1..=nodes as u64).map(|id| raftqueue_raft::NodeId(0x1000 + id)).collect(),
            spares: Vec::new(),
            struck_percent: 0,
            packet_delay: 300,
            loss_percent: 0,
            doubled_percent: 0,
            reorders: false,
            write_delay: MS,
            read_delay: 200,
            turn_delay: 10,
            segment_bytes: 64 << 10,
            retained_bytes: 1 << 20,
            cache_bytes: 0,
            append_bytes: 64 << 10,
            window_messages: 16,
            write_bytes: 1 << 20,
            entry_bytes: 64 << 10,
            entries_in_flight: 4,
            topics: 1,
            clients: [0; 6],
            body_bytes: 300,
            skew_ms: 0,
            left_out: LeftOut::default(),
            is_demanding: false,
            ..plan
        }
    }
}

impl World {
    /// The node leads and has committed an entry of its term.
    fn leads_firmly(&self, node: usize) -> bool {
        self.nodes[node]
            .raft()
            .is_some_and(|raft| raft.is_leader() && raft.term_at(raft.commit()) == Some(raft.term()))
    }
}
