//! One cluster under random faults, from one seed: the same seed is the same life.

use crate::cluster::{Cluster, command};
use crate::disk::Disk;
use raftqueue_raft::{Event, Index, Member, MemberChange, MemberKind, NodeId, Raft, Refused, Term};
use std::collections::BTreeMap;

/// Messages that wait on one link at most; the oldest is lost then.
const LINK_MESSAGES_MAX: usize = 100;
/// Election timeouts after which a healed cluster must have come to rest.
const PATIENCE_TIMEOUTS: u32 = 40;

/// The line of the story with which the faults end.
pub(crate) const FAULTS_END: &str = "all faults end";

/// The tests' own generator (SplitMix64): the schedule must not share numbers with the nodes.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True in `permille` of 1,000 cases.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).expect("a small number"))
    }
}

/// How hard the schedule is on the cluster. Each schedule has its own mixture: some bugs show only when one of the
/// faults is off.
#[derive(Debug)]
struct Faults {
    lost_permille: u64,
    doubled_permille: u64,
    reordered_permille: u64,
    slow_disks: bool,
    crashes: bool,
    cuts: bool,
    stalls: bool,
    hints: bool,
    transfers: bool,
    changes: bool,
    slow_applying: bool,
    compactions: bool,
    installs: bool,
    gaps: bool,
}

/// A cluster, its faults, and the dice that decide.
pub(crate) struct Chaos {
    pub(crate) cluster: Cluster,
    dice: Dice,
    faults: Faults,
    proposals: u64,
}

impl Chaos {
    /// `voters` members, and two blank nodes that may be added.
    pub(crate) fn new(seed: u64, voters: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut cluster = Cluster::new(seed);
        let some = |dice: &mut Dice, values: &[usize]| *dice.pick(values).expect("never empty");
        cluster.template.append_bytes_max = some(&mut dice, &[1, 200, 100_000]);
        cluster.template.window_messages_max = some(&mut dice, &[1, 3, 64]);
        cluster.template.window_bytes_max = some(&mut dice, &[1, 1_000, 100_000]);
        cluster.template.write_bytes_max = some(&mut dice, &[1, 200, 100_000]);
        cluster.template.uncommitted_bytes_max = some(&mut dice, &[500, 100_000]);
        cluster.template.retained_bytes_max = some(&mut dice, &[0, 300, 100_000]);
        cluster.template.stall_pause_ticks = 50;
        let voters: Vec<_> = (1..=voters).collect();
        cluster.add_members(&voters, &[]);
        for spare in 1..=2 {
            cluster.add(NodeId(voters.len() as u64 + spare), Disk::default());
        }
        let rate = |dice: &mut Dice| if dice.chance(400) { 0 } else { dice.below(300) };
        let faults = Faults {
            lost_permille: rate(&mut dice),
            doubled_permille: rate(&mut dice),
            reordered_permille: rate(&mut dice),
            slow_disks: dice.chance(600),
            crashes: dice.chance(600),
            cuts: dice.chance(500),
            stalls: dice.chance(300),
            hints: dice.chance(400),
            transfers: dice.chance(400),
            changes: dice.chance(400),
            slow_applying: dice.chance(400),
            compactions: dice.chance(500),
            installs: dice.chance(300),
            gaps: dice.chance(200),
        };
        let mut chaos = Self { cluster, dice, faults, proposals: 0 };
        for id in chaos.cluster.live() {
            chaos.hold(id);
        }
        chaos
    }

    fn hold(&mut self, id: NodeId) {
        let slow = self.faults.slow_disks;
        let node = self.cluster.nodes.get_mut(&id).expect("it exists");
        node.disk_held = slow;
        node.loads_held = slow;
        node.applying_held = self.faults.slow_applying;
    }

    /// `steps` random events.
    pub(crate) fn rage(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.dice.below(100) {
                0..55 => self.deliver_one(),
                55..73 => self.tick(),
                73..88 => self.use_disks(),
                88..95 => self.use_clients(),
                _ => self.disturb(),
            }
        }
    }

    fn any_node(&mut self) -> NodeId {
        let nodes: Vec<_> = self.cluster.nodes.keys().copied().collect();
        *self.dice.pick(&nodes).expect("there are nodes")
    }

    fn deliver_one(&mut self) {
        let busy: Vec<_> =
            self.cluster.links.iter().filter(|(_, q)| !q.is_empty()).map(|(link, _)| *link).collect();
        let Some(link) = self.dice.pick(&busy).copied() else { return };
        let queue = self.cluster.links.get_mut(&link).expect("just seen");
        while queue.len() > LINK_MESSAGES_MAX {
            queue.pop_front();
        }
        let at = if self.dice.chance(self.faults.reordered_permille) {
            self.dice.below(queue.len() as u64)
        } else {
            0
        };
        let envelope = queue.remove(usize::try_from(at).expect("a small number")).expect("within the queue");
        if self.dice.chance(self.faults.doubled_permille) {
            queue.push_back(envelope.clone());
        }
        if !self.dice.chance(self.faults.lost_permille) {
            self.cluster.receive(envelope);
        }
    }

    fn tick(&mut self) {
        if self.dice.chance(700) {
            for id in self.cluster.live() {
                self.cluster.tick(id);
            }
        } else {
            let id = self.any_node();
            self.cluster.tick(id);
        }
    }

    fn use_disks(&mut self) {
        let id = self.any_node();
        if self.faults.slow_applying && self.dice.chance(100) {
            self.cluster.release_applying(id);
        } else if self.dice.chance(700) {
            self.cluster.persist_held(id);
        } else {
            let fail = self.dice.chance(200);
            self.cluster.serve_load(id, fail);
        }
    }

    fn use_clients(&mut self) {
        let leaders = self.cluster.leaders();
        let Some(id) = self.dice.pick(&leaders).copied() else { return };
        if self.dice.chance(300) {
            self.cluster.read(id);
            return;
        }
        for _ in 0..=self.dice.below(3) {
            self.proposals += 1;
            let (name, bytes) =
                (format!("p{}", self.proposals), usize::try_from(self.dice.below(300)).expect("small"));
            let answer = self.cluster.call(id, |raft| raft.propose(command(&name, bytes)));
            self.cluster.tell(|| format!("n{id} is asked to take {name}: {answer:?}"));
        }
    }

    fn disturb(&mut self) {
        let id = self.any_node();
        let faults = &self.faults;
        match self.dice.below(13) {
            0 if faults.crashes => self.crash_or_restart(id),
            1 | 2 if faults.cuts => self.cut_or_heal(id),
            3 if faults.stalls => {
                let stalled = self.dice.chance(500);
                self.cluster.tell(|| format!("n{id}'s disk is {}", if stalled { "stalled" } else { "well" }));
                self.cluster.step(id, Event::DiskStalled(stalled));
            }
            4 if faults.hints => {
                let gone = self.any_node();
                self.cluster.tell(|| format!("n{id} hears that n{gone} is gone"));
                self.cluster.step(id, Event::PeerGone(gone));
            }
            5 if faults.transfers => {
                let leaders = self.cluster.leaders();
                if let Some(leader) = self.dice.pick(&leaders).copied() {
                    let answer = self.cluster.call(leader, |raft| raft.transfer_leadership(id));
                    self.cluster.tell(|| format!("n{leader} is asked to hand over to n{id}: {answer:?}"));
                }
            }
            6 if faults.changes => self.change(id),
            7 | 8 if faults.compactions => self.compact(id),
            9 | 10 if faults.compactions => self.ask_for_snapshot(id),
            11 if faults.compactions || faults.installs => {
                self.cluster.tell_committed(id);
                if self.dice.chance(700) {
                    self.cluster.install(id);
                }
            }
            12 if faults.gaps => {
                let has_gaps = self.dice.chance(500);
                self.cluster.tell(|| format!("n{id} has {} messages", if has_gaps { "some" } else { "all" }));
                self.cluster.step(id, Event::Incomplete(has_gaps));
                let is_damaged = self.dice.chance(300);
                self.cluster.step(id, Event::Damaged(is_damaged));
            }
            _ if faults.installs => self.ask_for_snapshot(id),
            _ => {}
        }
    }

    /// The log is cut somewhere up to a snapshot. The core may hear of it only later.
    fn compact(&mut self, id: NodeId) {
        let Some(most) = self.cluster.raft(id).and_then(Raft::snapshot_up_to) else { return };
        let start = self.cluster.disks[&id].start().0;
        let to = Index(start.0 + self.dice.below(most.0 - start.0 + 1));
        let snapshot = Index(to.0 + self.dice.below(most.0 - to.0 + 1));
        let told = self.dice.chance(700);
        self.cluster.tell(|| format!("n{id} has a snapshot up to {snapshot} and cuts its log up to {to}"));
        self.cluster.compact(id, to, snapshot, told);
    }

    /// A snapshot is given to a node, whether it needs one or not. It may come much later, or another first.
    fn ask_for_snapshot(&mut self, id: NodeId) {
        let from = self.any_node();
        let wanted = self.cluster.nodes[&id].wanting.map(|install| install.start.0);
        let at = wanted.filter(|_| self.dice.chance(300));
        if (wanted.is_some() || self.faults.installs) && self.cluster.ask_for_snapshot(id, from, at) {
            self.cluster.tell(|| format!("n{from} gives n{id} a snapshot"));
        }
    }

    fn crash_or_restart(&mut self, id: NodeId) {
        if self.cluster.raft(id).is_none() {
            self.cluster.tell(|| format!("n{id} restarts"));
            self.cluster.restart(id);
            self.hold(id);
        } else {
            let parts = usize::try_from(self.dice.below(7)).expect("small");
            self.cluster.tell(|| format!("n{id} crashes, {parts} parts of its write done"));
            self.cluster.crash(id, parts);
        }
    }

    fn cut_or_heal(&mut self, id: NodeId) {
        let other = self.any_node();
        match self.dice.below(4) {
            0 => {
                self.cluster.tell(|| format!("n{id} is cut off"));
                for peer in self.cluster.nodes.keys().copied().collect::<Vec<_>>() {
                    self.cluster.cut(id, peer);
                    self.cluster.cut(peer, id);
                }
            }
            1 => {
                self.cluster.tell(|| format!("n{id} cannot reach n{other}"));
                self.cluster.cut(id, other);
            }
            _ => {
                self.cluster.tell(|| "the network heals".to_owned());
                self.cluster.cuts.clear();
            }
        }
    }

    fn change(&mut self, id: NodeId) {
        let leaders = self.cluster.leaders();
        let Some(leader) = self.dice.pick(&leaders).copied() else { return };
        let mut change = MemberChange::default();
        let second = self.any_node();
        for id in [id, second] {
            let kind = if self.dice.chance(700) { MemberKind::Voter } else { MemberKind::Learner };
            if self.dice.chance(600) {
                change.set.insert(id, Member { name: format!("n{id}"), address: String::new(), kind });
            } else {
                change.remove.insert(id);
            }
        }
        let answer = self.cluster.call(leader, |raft| raft.change_members(change.clone()));
        self.cluster.tell(|| format!("n{leader} is asked to change {change:?}: {answer:?}"));
    }

    /// All faults end. Whatever was lost on the way, the cluster comes to rest by itself, and then takes a proposal.
    pub(crate) fn heal_and_rest(&mut self) {
        self.cluster.tell(|| FAULTS_END.to_owned());
        self.cluster.cuts.clear();
        let nodes: Vec<_> = self.cluster.nodes.keys().copied().collect();
        for id in &nodes {
            if self.cluster.raft(*id).is_none() {
                self.cluster.restart(*id);
            }
            let node = self.cluster.nodes.get_mut(id).expect("it exists");
            node.loads_held = false;
            node.installs_held = false;
            while self.cluster.serve_load(*id, false) {}
            self.cluster.release_disk(*id);
            self.cluster.release_applying(*id);
            self.cluster.step(*id, Event::DiskStalled(false));
            self.cluster.step(*id, Event::Incomplete(false));
            self.cluster.step(*id, Event::Damaged(false));
            let (to, _) = self.cluster.disks[id].start();
            self.cluster.step(*id, Event::Compacted { to });
        }
        self.rest("after the faults");
        let leader = self.cluster.leaders()[0];
        let answer = self.cluster.call(leader, |raft| raft.propose(command("last", 1)));
        assert!(matches!(answer, Some(Ok(_))), "a leader at rest refuses: {answer:?}");
        let read = self.cluster.read(leader);
        assert!(matches!(read, Some(Ok(_))), "a leader at rest refuses a read: {read:?}");
        self.rest("after a proposal");
        self.check_logs();
        self.check_stability();
    }

    fn rest(&mut self, when: &str) {
        for _ in 0..PATIENCE_TIMEOUTS * self.cluster.template.election_ticks {
            if self.is_at_rest() {
                return;
            }
            self.cluster.run_tick();
        }
        let status: BTreeMap<_, _> =
            self.cluster.live().into_iter().map(|id| (id, self.cluster.raft(id).map(Raft::status))).collect();
        panic!("not at rest {when}: {status:#?}");
    }

    /// One leader; all members have and know everything; nothing waits.
    fn is_at_rest(&self) -> bool {
        let leaders = self.cluster.leaders();
        let [leader] = leaders[..] else { return false };
        let raft = self.cluster.raft(leader).expect("it leads");
        let status = raft.status();
        let last = status.last;
        let waits =
            status.transferring || status.uncommitted_bytes > 0 || self.cluster.checker.open_reads() > 0;
        let members = raft.configuration().peers();
        let agrees = |id: &NodeId| {
            self.cluster.raft(*id).is_some_and(|raft| {
                raft.commit() == last && raft.durable_index() == last && !raft.is_replaying()
            })
        };
        !waits
            && !raft.configuration().is_joint()
            && members.iter().all(agrees)
            && status.peers.iter().all(|peer| peer.matched == last && !peer.replaying)
    }

    /// Every member's disk holds what was ever committed.
    fn check_logs(&self) {
        let leader = self.cluster.leaders()[0];
        let members = self.cluster.raft(leader).expect("it leads").configuration().peers();
        for id in members {
            let disk = &self.cluster.disks[&id];
            let (start, start_term) = disk.start();
            let (gone, kept) = self.cluster.checker.committed_entries().split_at(start.0 as usize);
            assert_eq!(disk.entries(), kept, "node {id} lost something");
            assert_eq!(
                gone.last().map_or(Term(0), |entry| entry.term),
                start_term,
                "node {id} begins elsewhere"
            );
        }
    }

    /// Without faults nobody disturbs the leader: no removed member, no blank node, and no late message.
    fn check_stability(&mut self) {
        let before = self.cluster.leaders();
        let term = self.cluster.raft(before[0]).map(Raft::term);
        for _ in 0..5 * self.cluster.template.election_ticks {
            self.cluster.run_tick();
        }
        assert_eq!(self.cluster.leaders(), before, "the leader changed for no reason");
        assert_eq!(self.cluster.raft(before[0]).map(Raft::term), term, "the term changed for no reason");
    }

    /// Reads that nobody answers because the leader has gone are refused; this names what else refuses.
    pub(crate) fn refuses_when_not_leading(&mut self) {
        let leaders = self.cluster.leaders();
        for id in self.cluster.live() {
            if !leaders.contains(&id) {
                let answer = self.cluster.call(id, |raft| raft.propose(command("no", 0)));
                assert!(matches!(answer, Some(Err(Refused::NotLeader { .. }))));
            }
        }
    }
}
