//! Whole clusters of the core in one thread: nodes, their disks, and a network that does as it is told.

use crate::checker::{Checker, Observed};
use crate::disk::Disk;
use crate::show;
use bytes::Bytes;
use raftqueue_raft::{
    CommittedLog, Configuration, Entry, Envelope, Event, Found, HardState, Index, Install, Installed,
    LoadRequest, LogSlice, Member, MemberKind, NodeId, Output, Payload, Raft, ReadId, Refused, RoleKind,
    RoleState, Settings, Term, Write,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Deliveries in one go before the cluster counts as one that never gets quiet.
const DELIVERIES_MAX: usize = 100_000;

/// A cluster, and the story of what happened in it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The settings of every node, but for id and seed.
    pub(crate) template: Settings,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) disks: BTreeMap<NodeId, Disk>,
    pub(crate) links: BTreeMap<(NodeId, NodeId), VecDeque<Envelope>>,
    /// Directions in which nothing arrives.
    pub(crate) cuts: BTreeSet<(NodeId, NodeId)>,
    pub(crate) checker: Checker,
    /// What happened since it was last taken; `None` if nobody listens.
    pub(crate) story: Option<Vec<String>>,
    /// Tell of every message that is delivered.
    pub(crate) show_messages: bool,
}

/// One node, up or down.
#[derive(Debug)]
pub(crate) struct Node {
    /// `None` while it is down.
    pub(crate) raft: Option<Raft>,
    pub(crate) write: Option<Write>,
    /// Its disk takes a write and does not answer.
    pub(crate) disk_held: bool,
    pub(crate) loads: Vec<LoadRequest>,
    pub(crate) loads_held: bool,
    /// A snapshot that another node gave, on its way here.
    pub(crate) coming: Option<(CommittedLog, Installed)>,
    /// It is told that it needs a snapshot.
    pub(crate) wanting: Option<Install>,
    /// Snapshots that it needs are not got.
    pub(crate) installs_held: bool,
    pub(crate) applied: Index,
    /// What it commits is not applied.
    pub(crate) applying_held: bool,
    starts: u64,
}

/// The configuration with the given voters and learners.
pub(crate) fn configuration(voters: &[u64], learners: &[u64]) -> Configuration {
    let member =
        |id: &u64, kind| (NodeId(*id), Member { name: format!("n{id}"), address: String::new(), kind });
    let voters = voters.iter().map(|id| member(id, MemberKind::Voter));
    let learners = learners.iter().map(|id| member(id, MemberKind::Learner));
    Configuration { members: voters.chain(learners).collect(), ..Configuration::default() }
}

/// A command entry's payload.
pub(crate) fn command(name: &str, bytes: usize) -> Payload {
    Payload::Command { meta: Bytes::copy_from_slice(name.as_bytes()), bodies: Bytes::from(vec![0; bytes]) }
}

impl Cluster {
    /// An empty cluster; election timeout 10 ticks, heartbeat every 2.
    pub(crate) fn new(seed: u64) -> Self {
        let template = Settings {
            election_ticks: 10,
            heartbeat_ticks: 2,
            stall_pause_ticks: 200,
            ..Settings::new(NodeId(1), seed)
        };
        Self {
            template,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            checker: Checker::default(),
            story: None,
            show_messages: false,
        }
    }

    /// Members that all hold entry 1, the configuration, of term 1.
    pub(crate) fn add_members(&mut self, voters: &[u64], learners: &[u64]) {
        let payload = Payload::Config(Arc::new(configuration(voters, learners)));
        let entry = Entry { index: Index(1), term: Term(1), payload };
        for id in voters.iter().chain(learners) {
            let hard_state = HardState { term: Term(1), vote: None };
            self.add(NodeId(*id), Disk::with(hard_state, vec![entry.clone()]));
        }
    }

    /// Adds a node with this disk and starts it.
    pub(crate) fn add(&mut self, id: NodeId, disk: Disk) {
        self.checker.saw_log(disk.start().1, disk.entries());
        self.disks.insert(id, disk);
        let node = Node {
            raft: None,
            write: None,
            disk_held: false,
            loads: Vec::new(),
            loads_held: false,
            coming: None,
            wanting: None,
            installs_held: true,
            applied: Index(0),
            applying_held: false,
            starts: 0,
        };
        self.nodes.insert(id, node);
        self.restart(id);
    }

    pub(crate) fn raft(&self, id: NodeId) -> Option<&Raft> {
        self.nodes.get(&id)?.raft.as_ref()
    }

    /// Nodes that are up.
    pub(crate) fn live(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.raft.is_some()).map(|(id, _)| *id).collect()
    }

    /// Nodes that believe that they lead.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        self.live().into_iter().filter(|id| self.raft(*id).is_some_and(Raft::is_leader)).collect()
    }

    /// Adds to the story, if anybody listens.
    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(what());
        }
    }

    /// Steps one node, if it is up, and does what it says.
    pub(crate) fn step(&mut self, id: NodeId, event: Event) {
        if let Some(raft) = self.nodes.get_mut(&id).and_then(|node| node.raft.as_mut()) {
            raft.step(event);
            self.drain(id);
        }
    }

    /// Calls a node, if it is up, and does what it says.
    pub(crate) fn call<T>(&mut self, id: NodeId, call: impl FnOnce(&mut Raft) -> T) -> Option<T> {
        let answer = call(self.nodes.get_mut(&id)?.raft.as_mut()?);
        self.drain(id);
        Some(answer)
    }

    /// Asks a node to read, if it is up.
    pub(crate) fn read(&mut self, id: NodeId) -> Option<Result<ReadId, Refused>> {
        let answer = self.nodes.get_mut(&id)?.raft.as_mut()?.read();
        if let Ok(read) = answer {
            self.checker.asked(id, read);
        }
        self.drain(id);
        Some(answer)
    }

    pub(crate) fn tick(&mut self, id: NodeId) {
        self.step(id, Event::Tick);
    }

    /// Does everything that a node wants done.
    fn drain(&mut self, id: NodeId) {
        loop {
            let node = self.nodes.get_mut(&id).expect("a node that was added");
            let Some(raft) = &mut node.raft else { return };
            let output = raft.take_output();
            let observed = Observed { id, raft, applied: node.applied };
            self.checker.output(&observed, &self.disks, &output);
            if !self.perform(id, output) {
                return;
            }
        }
    }

    /// Returns true if the node was stepped again.
    fn perform(&mut self, id: NodeId, output: Output) -> bool {
        if let Some(role) = output.role {
            self.tell(|| tell_role(id, role));
        }
        for envelope in output.send {
            self.post(envelope);
        }
        for (read, answer) in output.reads {
            self.tell(|| match answer {
                Ok(index) => format!("n{id} answers read {} as of {index}", read.0),
                Err(refused) => format!("n{id} refuses read {}: {refused}", read.0),
            });
        }
        if let Some(Install { leader, start }) = output.install {
            self.tell(|| {
                format!("n{id} needs a snapshot: n{leader}'s log begins behind {}@{}", start.0, start.1)
            });
            self.nodes.get_mut(&id).expect("a node that was added").wanting = Some(Install { leader, start });
        }
        if let Some((index, term)) = output.installed {
            self.tell(|| format!("n{id} begins behind {index}@{term}, with a snapshot"));
            self.nodes.get_mut(&id).expect("a node that was added").applied = index;
        }
        let mut stepped = false;
        if let Some(commit) = output.committed {
            self.tell(|| format!("n{id} commits {commit}"));
            stepped = self.apply(id);
        }
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        node.loads.extend(output.load);
        if let Some(write) = output.write {
            if node.disk_held
                && let Some(story) = &mut self.story
            {
                story.push(format!("n{id}'s disk holds {}", show::write(&write)));
            }
            node.write = Some(write);
        }
        let (disk_held, loads_held) = (node.disk_held, node.loads_held);
        if !disk_held {
            stepped |= self.persist(id);
        }
        if !loads_held {
            stepped |= self.serve_loads(id);
        }
        stepped
    }

    /// Applies what is committed, unless that is held; the caller drains.
    fn apply(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        let Some(raft) = node.raft.as_mut().filter(|_| !node.applying_held) else { return false };
        node.applied = raft.commit();
        raft.step(Event::Applied(node.applied));
        true
    }

    /// Applying goes on.
    pub(crate) fn release_applying(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("a node that was added").applying_held = false;
        self.apply(id);
        self.drain(id);
    }

    /// Completes the write that is out; the caller drains. Returns false if there is none.
    fn persist(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        let (Some(raft), Some(write)) = (&mut node.raft, node.write.take()) else { return false };
        let disk = self.disks.get_mut(&id).expect("every node has a disk");
        let checker = &mut self.checker;
        let receipt = write.persist(|write| {
            disk.store(write);
            for entry in write.entries() {
                checker.saw_entry(disk.term_at(entry.index.prev()).expect("just stored"), entry);
            }
            Ok::<_, ()>(())
        });
        raft.step(Event::Persisted(receipt.expect("this store does not fail")));
        true
    }

    /// Completes the write that a held disk has, and no later one.
    pub(crate) fn persist_held(&mut self, id: NodeId) -> bool {
        let done = self.persist(id);
        self.drain(id);
        done
    }

    /// The disk answers again.
    pub(crate) fn release_disk(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("a node that was added").disk_held = false;
        self.persist_held(id);
    }

    fn serve_loads(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        let Some(raft) = &mut node.raft else { return false };
        let requests = std::mem::take(&mut node.loads);
        for request in &requests {
            raft.step(Event::Loaded(self.disks[&id].load(request)));
        }
        !requests.is_empty()
    }

    /// Answers the oldest load that is held; `fail` as one that could not be read.
    pub(crate) fn serve_load(&mut self, id: NodeId, fail: bool) -> bool {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        if node.raft.is_none() || node.loads.is_empty() {
            return false;
        }
        let request = node.loads.remove(0);
        let slice = if fail {
            LogSlice { to: request.to, from: request.from, found: Found::Unreadable }
        } else {
            self.disks[&id].load(&request)
        };
        self.step(id, Event::Loaded(slice));
        true
    }

    /// Takes a snapshot of everything up to `snapshot`, and cuts the log up to `to`. The core is told, now or never.
    pub(crate) fn compact(&mut self, id: NodeId, to: Index, snapshot: Index, told: bool) {
        self.disks.get_mut(&id).expect("every node has a disk").compact(to, snapshot);
        if told {
            self.step(id, Event::Compacted { to });
        }
    }

    /// `from` gives a snapshot of everything up to `at`, or of as much as it can. It is on its way to `id` then.
    pub(crate) fn ask_for_snapshot(&mut self, id: NodeId, from: NodeId, at: Option<Index>) -> bool {
        let Some(giver) = self.raft(from) else { return false };
        let Some(most) = giver.snapshot_up_to() else { return false };
        let index = at.unwrap_or(most).min(most);
        let disk = &self.disks[&from];
        let (Some(term), Some(in_force)) = (giver.term_at(index), disk.configuration_at(index)) else {
            return false;
        };
        let giver_term = giver.term();
        let runs = giver.term_runs().iter().filter(|(first, _)| *first > Index(0) && *first <= index);
        let told = CommittedLog { last: index, term_runs: runs.copied().collect(), giver_term };
        let installed = Installed { index, term, configurations: vec![in_force], giver_term };
        self.nodes.get_mut(&id).expect("a node that was added").coming = Some((told, installed));
        true
    }

    /// The snapshot that is on its way tells what is committed.
    pub(crate) fn tell_committed(&mut self, id: NodeId) {
        let Some((told, _)) = self.nodes[&id].coming.clone() else { return };
        self.step(id, Event::Committed(told));
    }

    /// The snapshot that was on its way is here whole.
    pub(crate) fn install(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        let Some((_, installed)) = node.coming.take_if(|_| node.raft.is_some()) else { return };
        node.wanting = None;
        self.disks.get_mut(&id).expect("every node has a disk").stage(&installed);
        self.step(id, Event::Installed(installed));
    }

    /// Gets the snapshot that a node needs from the first that has it.
    pub(crate) fn serve_install(&mut self, id: NodeId) {
        let Some(wanting) = self.nodes[&id].wanting else { return };
        for giver in self.live().into_iter().filter(|giver| *giver != id) {
            let has = self.raft(giver).and_then(Raft::snapshot_up_to) >= Some(wanting.start.0);
            if has && self.ask_for_snapshot(id, giver, None) {
                self.tell_committed(id);
                return self.install(id);
            }
        }
    }

    fn post(&mut self, envelope: Envelope) {
        let link = (envelope.from, envelope.to);
        if !self.cuts.contains(&link) {
            self.links.entry(link).or_default().push_back(envelope);
        }
    }

    /// Delivers one message now.
    pub(crate) fn receive(&mut self, envelope: Envelope) {
        if self.show_messages {
            self.tell(|| show::envelope(&envelope));
        }
        self.step(envelope.to, Event::Arrived(envelope));
    }

    /// Delivers messages between these nodes, link by link in turn, until there are none.
    pub(crate) fn deliver(&mut self, among: impl Fn(NodeId) -> bool) {
        for _ in 0..DELIVERIES_MAX {
            let next: Vec<_> = self
                .links
                .iter_mut()
                .filter(|((from, to), _)| among(*from) && among(*to))
                .filter_map(|(_, queue)| queue.pop_front())
                .collect();
            if next.is_empty() {
                return;
            }
            for envelope in next {
                self.receive(envelope);
            }
        }
        panic!("messages never end");
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
        self.links.remove(&(from, to));
    }

    /// Takes a node down. Of a write that was out, the first `parts` parts reach the disk.
    pub(crate) fn crash(&mut self, id: NodeId, parts: usize) {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        node.raft = None;
        node.loads.clear();
        (node.coming, node.wanting) = (None, None);
        if let Some(write) = node.write.take() {
            self.disks.get_mut(&id).expect("every node has a disk").store_parts(&write, parts);
        }
        self.checker.crashed(id);
    }

    /// Starts a node from its disk, which answers at once again.
    pub(crate) fn restart(&mut self, id: NodeId) {
        let recovered = self.disks[&id].recover();
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        node.starts += 1;
        node.disk_held = false;
        node.loads_held = false;
        node.applying_held = false;
        node.applied = recovered.applied;
        let seed = self.template.seed ^ (id.0 << 32) ^ (node.starts << 16);
        let settings = Settings { id, seed, ..self.template.clone() };
        node.raft = Some(Raft::new(settings, recovered));
        self.drain(id);
    }

    /// One tick of every node that is up, and everything delivered that follows from it.
    pub(crate) fn run_tick(&mut self) {
        for id in self.live() {
            self.tick(id);
        }
        self.deliver(|_| true);
        for id in self.live() {
            if !self.nodes[&id].installs_held {
                self.serve_install(id);
            }
        }
        self.deliver(|_| true);
    }
}

fn tell_role(id: NodeId, role: RoleState) -> String {
    let RoleState { role, term, leader } = role;
    match (role, leader) {
        (RoleKind::Follower, Some(leader)) => format!("n{id} follows n{leader} in term {term}"),
        (RoleKind::Follower, None) => format!("n{id} follows nobody in term {term}"),
        (RoleKind::PreCandidate, _) => format!("n{id} asks for pre-votes, still in term {term}"),
        (RoleKind::Candidate, _) => format!("n{id} campaigns in term {term}"),
        (RoleKind::Leader, _) => format!("n{id} leads term {term}"),
    }
}
