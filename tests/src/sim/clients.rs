//! The clients: each has one call open at a time, so what it saw before counts for what it sees next.

use super::Violation;
use super::calls::{Answer, Call};
use super::consumers::{Consumer, Popper};
use super::leaving::DOUBTER;
use super::ledger::Ledger;
use super::members::ADMIN;
use super::plan::{MS, Micros, Plan};
use super::producers::Producer;
use super::random::Random;
use super::world::{Event, Phase, World};
use raftqueue_node::api::{Dead, DeadAction, Look, MessageState, Request, TopicChange, TopicOptions, Write};
use raftqueue_node::replica::CallId;

/// The client that the simulator itself is, when it makes topics and drains them.
pub(super) const NOBODY: usize = usize::MAX;
/// Topics that come and go and are purged; the others stay.
pub(super) const PASSING_TOPICS: u64 = 2;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    kind: Kind,
    open: Option<CallId>,
    random: Random,
}

#[derive(Debug)]
enum Kind {
    Producer(Producer),
    Consumer(Consumer),
    Popper(Popper),
    Looker,
    Administrator,
}

/// What a client asks next, and how long it allows.
pub(super) type Ask = (Request, Micros);

impl Client {
    pub(super) fn all(plan: &Plan, random: &mut Random) -> Vec<Client> {
        let mut clients = Vec::new();
        for (kind, count) in plan.clients.iter().enumerate() {
            for _ in 0..*count {
                let number = u32::try_from(clients.len()).expect("few");
                let kind = match kind {
                    0 => Kind::Producer(Producer::new(number, false, random)),
                    1 => Kind::Producer(Producer::new(number, true, random)),
                    2 => Kind::Consumer(Consumer::default()),
                    3 => Kind::Popper(Popper::default()),
                    4 => Kind::Looker,
                    _ => Kind::Administrator,
                };
                clients.push(Client { kind, open: None, random: random.fork() });
            }
        }
        clients
    }

    fn next(&mut self, plan: &Plan) -> Ask {
        let random = &mut self.random;
        match &mut self.kind {
            Kind::Producer(producer) => producer.next(plan, random),
            Kind::Consumer(consumer) => consumer.next(plan, random),
            Kind::Popper(popper) => popper.next(plan, random),
            Kind::Looker => (look(plan, random), allowed(random)),
            Kind::Administrator => (administrate(plan, random), allowed(random)),
        }
    }

    /// Returns true if the call will be repeated. `log_ms` is log time.
    fn hear(
        &mut self,
        request: &Request,
        answer: &Answer,
        log_ms: u64,
        ledger: &mut Ledger,
    ) -> Result<bool, Violation> {
        match &mut self.kind {
            Kind::Producer(producer) => producer.hear(answer, &mut self.random, ledger),
            Kind::Consumer(consumer) => Ok(consumer.hear(request, answer, &mut self.random, ledger)),
            Kind::Popper(popper) => Ok(popper.hear(request, answer, log_ms, ledger)),
            Kind::Looker | Kind::Administrator => Ok(false),
        }
    }
}

/// How long a client allows a call.
pub(super) fn allowed(random: &mut Random) -> Micros {
    random.pick(&[100, 400, 900, 2_000]) * MS
}

/// A topic that stays.
pub(super) fn lasting_topic(plan: &Plan, random: &mut Random) -> String {
    format!("t{}", random.index(plan.topics))
}

pub(super) fn passing_topic(random: &mut Random) -> String {
    format!("x{}", random.below(PASSING_TOPICS))
}

/// Any topic, mostly one that stays.
pub(super) fn any_topic(plan: &Plan, random: &mut Random) -> String {
    if random.percent(20) { passing_topic(random) } else { lasting_topic(plan, random) }
}

fn look(plan: &Plan, random: &mut Random) -> Request {
    match random.below(6) {
        0 => Request::Look(Look::ListTopics {
            after: random.percent(30).then(|| random.below(10)),
            topics_max: random.pick(&[1, 2, 100]),
        }),
        1 | 2 => Request::Look(Look::DescribeTopic { topic: any_topic(plan, random) }),
        3 => Request::Look(Look::ClusterStatus),
        _ => Request::Look(Look::Peek {
            topic: any_topic(plan, random),
            subscription: String::new(),
            state: random.pick(&[
                MessageState::Ready,
                MessageState::Leased,
                MessageState::Delayed,
                MessageState::Dead,
            ]),
            from_offset: random.pick(&[0, 0, 5, 40]),
            messages_max: random.pick(&[1, 5, 50]),
            bytes_max: random.pick(&[100, 100_000]),
        }),
    }
}

fn administrate(plan: &Plan, random: &mut Random) -> Request {
    let subscription = String::new();
    match random.below(10) {
        0..=2 => Request::Write(Write::CreateTopic {
            topic: passing_topic(random),
            options: TopicOptions {
                ttl_ms: random.percent(50).then_some(1_500),
                messages_max: random.percent(50).then_some(30),
                ..TopicOptions::default()
            },
            request_id: random.percent(50).then(|| u128::from(random.below(4))),
        }),
        3 if plan.has_upgrades && random.percent(60) => Request::Write(Write::UpdateTopic {
            topic: passing_topic(random),
            change: TopicChange {
                attempts_max: random
                    .percent(70)
                    .then(|| random.percent(80).then(|| 1 + random.below(3) as u32)),
                messages_max: random.percent(50).then(|| random.percent(50).then(|| 1 + random.below(30))),
                ..TopicChange::default()
            },
        }),
        3 => Request::Write(Write::DeleteTopic { topic: passing_topic(random) }),
        4 => Request::Write(Write::Purge { topic: passing_topic(random), subscription }),
        5 => Request::Dead(Dead {
            topic: passing_topic(random),
            subscription,
            offsets: if random.percent(50) { Vec::new() } else { (0..random.below(20) + 1).collect() },
            action: DeadAction::Purge,
        }),
        6 | 7 => Request::Dead(Dead {
            topic: any_topic(plan, random),
            subscription,
            offsets: if random.percent(50) { Vec::new() } else { (0..random.below(20) + 1).collect() },
            action: DeadAction::Redrive,
        }),
        8 => Request::TransferLeadership { to: None },
        _ => Request::TransferLeadership { to: Some(format!("node-{}", random.index(plan.nodes()))) },
    }
}

impl World {
    pub(super) fn wake_clients(&mut self) {
        for client in 0..self.clients.len() {
            let at = self.now + self.random.below(self.plan.think + 1);
            self.schedule.add(at, Event::ClientTurn { client });
        }
    }

    pub(super) fn client_turn(&mut self, client: usize) {
        if !self.is_working() || self.clients[client].open.is_some() {
            return;
        }
        let (request, allowed) = self.clients[client].next(&self.plan);
        let call = self.place_call(client, request, allowed);
        self.clients[client].open = Some(call);
    }

    pub(super) fn client_hears(&mut self, id: CallId, call: &Call, answer: &Answer) -> Result<(), Violation> {
        if !answer.is_of_leader() {
            self.endpoints.remove(&call.client);
        }
        if call.client == NOBODY {
            self.heard.insert(id, answer.clone());
            return Ok(());
        }
        if call.client == ADMIN {
            self.admin_hears(id, call, answer);
            return Ok(());
        }
        if call.client == DOUBTER {
            self.doubter_hears(id, answer);
            return Ok(());
        }
        let client = &mut self.clients[call.client];
        client.open = None;
        let log_ms = self.oracle.state().now_ms();
        let repeats = client.hear(&call.request, answer, log_ms, &mut self.ledger)?;
        self.summary.retries += u64::from(repeats);
        let mut pause = self.random.waiting(self.plan.think);
        if answer.is_not_done() {
            pause += 20 * MS;
        }
        self.schedule.add(self.now + pause, Event::ClientTurn { client: call.client });
        Ok(())
    }

    /// The clients have asked for the last time.
    pub(super) fn stop_clients(&mut self) {
        for client in &mut self.clients {
            if let Kind::Popper(popper) = &mut client.kind {
                popper.stop(&mut self.ledger);
            }
        }
    }

    /// True if every call has ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.phase != Phase::Working && self.calls.values().all(|call| call.is_cancelled)
    }
}
