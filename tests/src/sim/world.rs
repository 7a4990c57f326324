//! Everything of one life, and the loop that turns it.

use super::calls::{Answer, Call};
use super::checker::Checker;
use super::clients::Client;
use super::coverage::Coverage;
use super::digest::Durable;
use super::enumerate::{History, Order, Staged};
use super::leaving::Question;
use super::ledger::Ledger;
use super::members::{self, Membership};
use super::network::{Network, Packet};
use super::nodes::{Job, Node};
use super::oracle::Oracle;
use super::plan::{ELECTION_TICKS, MS, Micros, Plan, SECOND, TICK};
use super::random::Random;
use super::schedule::Schedule;
use super::summary::Summary;
use super::trace::{Telling, Trace};
use super::upgrades::Upgrades;
use super::{Life, Violation};
use raftqueue_node::peers::leaving::Told;
use raftqueue_node::replica::CallId;
use raftqueue_raft::NodeId;
use std::collections::BTreeMap;

/// What can happen next. `boot` names the life of a process: an event for an earlier life is dropped.
#[derive(Debug)]
pub(super) enum Event {
    Tick { node: usize, boot: u32 },
    Turn { node: usize, boot: u32 },
    Arrive(Box<Packet>),
    Written { node: usize, boot: u32, writes: u64 },
    FreeBytes { node: usize, boot: u32 },
    Upkeep { node: usize, boot: u32 },
    Idle { node: usize, boot: u32, writes: u64 },
    StallLook { node: usize, boot: u32, writes: u64 },
    Read { node: usize, boot: u32, job: Box<Job> },
    Keep { node: usize, boot: u32, round: u64 },
    Mend { node: usize, boot: u32 },
    Fetch { node: usize, boot: u32, from: NodeId },
    Hint { node: usize, boot: u32, gone: NodeId },
    CallArrives { call: CallId },
    Answer { call: CallId, answer: Box<Answer> },
    Patience { call: CallId },
    ClientTurn { client: usize },
    Fault,
    Clog { node: usize, until: Micros },
    Remount { node: usize },
    MakeRoom { node: usize },
    Unhang { node: usize, boot: u32, writes: u64 },
    Restart { node: usize },
    Resume { node: usize },
    Staged(Staged),
    Upgrade,
    Administrate,
    Told { question: Question, told: Told },
}

/// Where a life stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The cluster forms and the topics are made; no faults yet.
    Beginning,
    /// A script says what goes wrong, and nothing else does.
    Scripted,
    /// Faults come and clients work.
    Working,
    /// No faults any more; what is under way ends.
    Healing,
    /// Everything that is left is taken out.
    Draining,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Micros,
    pub(super) phase: Phase,
    pub(super) schedule: Schedule<Event>,
    pub(super) nodes: Vec<Node>,
    /// What each disk holds for certain.
    pub(super) disks: BTreeMap<NodeId, Durable>,
    pub(super) network: Network,
    pub(super) checker: Checker,
    pub(super) oracle: Oracle,
    pub(super) ledger: Ledger,
    pub(super) clients: Vec<Client>,
    pub(super) calls: BTreeMap<CallId, Call>,
    pub(super) last_call: u64,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) summary: Summary,
    pub(super) coverage: Coverage,
    /// Faults so far.
    pub(super) faults: u64,
    /// The disks that are slow, and until when.
    pub(super) slow_disk_until: BTreeMap<usize, Micros>,
    /// The node that each client asks, as long as it answers.
    pub(super) endpoints: BTreeMap<usize, usize>,
    /// The answers to calls of the simulator's own that nobody has looked at yet.
    pub(super) heard: BTreeMap<CallId, Answer>,
    /// All configurations so far.
    pub(super) configurations: members::History,
    /// Who asks for other ones.
    pub(super) membership: Membership,
    /// Newer binaries, if this life has any.
    pub(super) upgrades: Option<Upgrades>,
    /// The short life that this is, where crashes are enumerated.
    pub(super) history: Option<History>,
    /// A crash at one call of one disk, where crashes are enumerated.
    pub(super) order: Option<Order>,
    /// Calls of each disk before the life began, and up to the end of its working phase.
    pub(super) disk_calls: (Vec<u64>, Vec<u64>),
}

impl World {
    pub(super) fn new(plan: Plan, telling: Telling) -> Self {
        let mut random = Random::new(plan.seed);
        let nodes: Vec<Node> = plan
            .ids
            .iter()
            .chain(&plan.spares)
            .zip(0..)
            .map(|(id, number)| Node::new(number, *id, &plan, &mut random))
            .collect();
        let network = Network::new(nodes.len(), random.fork());
        let clients = Client::all(&plan, &mut random);
        Self {
            now: 0,
            phase: Phase::Beginning,
            schedule: Schedule::default(),
            disks: plan.ids.iter().chain(&plan.spares).map(|id| (*id, Durable::default())).collect(),
            nodes,
            network,
            checker: Checker::default(),
            oracle: Oracle::new(plan.seed, plan.body_bytes),
            ledger: Ledger::default(),
            clients,
            calls: BTreeMap::new(),
            last_call: 0,
            random,
            trace: Trace::new(telling),
            summary: Summary { seeds: 1, ..Summary::default() },
            coverage: Coverage::default(),
            faults: 0,
            slow_disk_until: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            heard: BTreeMap::new(),
            configurations: members::History::default(),
            membership: Membership::new(&plan),
            upgrades: Upgrades::new(&plan),
            history: None,
            order: None,
            disk_calls: (Vec::new(), Vec::new()),
            plan,
        }
    }

    /// The whole life.
    pub(super) fn live(&mut self) -> Result<Life, Violation> {
        self.begin()?;
        let limit = 300 * SECOND;
        self.phase = Phase::Working;
        self.wake_clients();
        if self.plan.has_faults() {
            self.schedule.add(self.now + self.plan.fault_every, Event::Fault);
        }
        self.upgrade_later();
        self.administrate_later();
        self.stage();
        while !self.is_lost() && (self.summary.events < self.plan.events || !self.has_seen_enough()) {
            Violation::unless(self.now < limit, || "the faults that every life has did not come".into())?;
            self.turn_once()?;
        }
        self.disk_calls.1 = self.count_disk_calls();
        self.stop()?;
        if self.is_lost() {
            self.refuse_all()?;
            self.recover_left()?;
        } else {
            self.heal()?;
            self.check_footprints()?;
            self.drain()?;
            self.finish()?;
            self.check_footprints()?;
        }
        self.summary.virtual_ms = self.now / MS;
        self.summary.packets = self.network.sent;
        self.summary.packets_lost = self.network.lost;
        self.summary.elections = self.checker.elections;
        self.summary.entries = self.checker.committed().0;
        self.summary.messages = self.oracle.messages;
        self.coverage.add(self.oracle.coverage());
        Ok(Life { summary: self.summary, coverage: self.coverage, hash: self.trace.hash })
    }

    pub(super) fn story(&self) -> Vec<String> {
        self.trace.lines.iter().cloned().collect()
    }

    /// Every life has a leader that dies and a power cut that loses something; but a reckless one may have no leader again.
    fn has_seen_enough(&self) -> bool {
        !self.plan.is_demanding
            || self.plan.is_reckless
            || self.summary.leader_crashes > 0 && self.summary.lossy_cuts > 0
    }

    /// Formats and starts all nodes; the first forms the cluster.
    pub(super) fn begin(&mut self) -> Result<(), Violation> {
        self.nodes.iter_mut().for_each(Node::format);
        self.disk_calls.0 = self.count_disk_calls();
        self.place_order();
        (0..self.nodes.len()).try_for_each(|node| self.start(node))?;
        self.run_until(30 * SECOND, |world| world.leader().is_some(), "a leader of the new cluster")?;
        self.make_topics()
    }

    /// Lives on until `is_done`.
    pub(super) fn run_until(
        &mut self,
        patience: Micros,
        is_done: impl Fn(&World) -> bool,
        what: &str,
    ) -> Result<(), Violation> {
        let end = self.now + patience;
        while !is_done(self) {
            Violation::unless(self.now < end, || format!("waited for {} ms for {what}", patience / MS))?;
            self.turn_once()?;
        }
        Ok(())
    }

    /// The node that leads with the greatest term among those that run.
    pub(super) fn leader(&self) -> Option<usize> {
        let leading = |node: &&Node| node.raft().is_some_and(raftqueue_raft::Raft::is_leader);
        let leader = self.nodes.iter().filter(leading).max_by_key(|node| node.raft().map(|raft| raft.term()));
        leader.map(|node| node.number)
    }

    fn turn_once(&mut self) -> Result<(), Violation> {
        let (at, event) = self.schedule.next().expect("ticks never end");
        self.now = at;
        match event {
            Event::Tick { node, boot } => {
                if self.nodes[node].lives(boot) {
                    let length = self.nodes[node].clockwork.tick();
                    self.schedule.add(self.now + length, Event::Tick { node, boot });
                    self.tick(node);
                }
            }
            Event::Turn { node, boot } => {
                if self.nodes[node].lives(boot) {
                    self.turn(node)?;
                }
            }
            Event::Arrive(packet) => self.arrive(*packet),
            Event::Written { node, boot, writes } => {
                if self.nodes[node].lives(boot) {
                    self.written(node, writes)?;
                }
            }
            Event::FreeBytes { node, boot } => {
                if self.nodes[node].lives(boot) {
                    self.look_at_free_bytes(node, boot);
                }
            }
            Event::Upkeep { node, boot } => {
                if self.nodes[node].lives(boot) {
                    self.upkeep(node)?;
                }
            }
            Event::Idle { node, boot, writes } => {
                if self.nodes[node].lives(boot) {
                    self.idle(node, writes)?;
                }
            }
            Event::StallLook { node, boot, writes } => {
                if self.nodes[node].lives(boot) {
                    self.look_for_stall(node, writes);
                }
            }
            Event::Read { node, boot, job } => {
                if self.nodes[node].lives(boot) {
                    self.read(node, *job)?;
                }
            }
            Event::Mend { node, boot } => {
                if self.nodes[node].lives(boot) {
                    self.mend(node)?;
                }
            }
            Event::Keep { node, boot, round } => {
                if self.nodes[node].lives(boot) {
                    self.keep(node, round)?;
                }
            }
            Event::Fetch { node, boot, from } => {
                if self.nodes[node].lives(boot) {
                    self.fetch(node, from)?;
                }
            }
            Event::Hint { node, boot, gone } => {
                if self.nodes[node].lives(boot) {
                    self.summary.hints += 1;
                    self.hand(node, raftqueue_node::replica::Event::PeerGone(gone));
                }
            }
            Event::CallArrives { call } => self.call_arrives(call),
            Event::Answer { call, answer } => self.answer_arrives(call, &answer)?,
            Event::Patience { call } => self.patience_ends(call)?,
            Event::ClientTurn { client } => self.client_turn(client),
            Event::Fault => self.fault()?,
            Event::Clog { node, until } => self.clog(node, until),
            Event::Remount { node } => self.remount(node)?,
            Event::MakeRoom { node } => self.make_room(node),
            Event::Unhang { node, boot, writes } => {
                if self.nodes[node].lives(boot) {
                    self.unhang(node, writes)?;
                }
            }
            Event::Restart { node } => {
                if !self.nodes[node].is_up() {
                    self.start(node)?;
                }
            }
            Event::Resume { node } => self.resume(node),
            Event::Upgrade => self.upgrade()?,
            Event::Administrate => self.administrate()?,
            Event::Told { question, told } => self.told(question, told)?,
            Event::Staged(staged) => self.staged(staged),
        }
        self.notice_crashes()
    }

    /// Whether faults may come.
    pub(super) fn is_working(&self) -> bool {
        self.phase == Phase::Working
    }

    /// Whether a script says what goes wrong.
    pub(super) fn is_scripted(&self) -> bool {
        self.phase == Phase::Scripted
    }

    /// The election timeout.
    pub(super) const ELECTION: Micros = ELECTION_TICKS as Micros * TICK;
}
