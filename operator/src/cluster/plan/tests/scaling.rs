//! Whole lives of a formed cluster that is scaled: a model of Kubernetes and of Raft, in which users change their minds, pods and
//! disks are lost, hands meddle, and the operator is killed between any two calls.
//!
//! The nodes of the model check less than real ones: what they would refuse is a panic here.

use super::*;
use crate::cluster::observation::{RecoverySeen, WaitingSeen};
use crate::cluster::plan::Named;
use crate::crd::{Disposal, Recovery};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Rounds that a cluster may take to be as asked once nothing disturbs it any more. From 13 voters to one are six removals.
const ROUNDS_TO_SETTLE: usize = 120;

/// What happens next.
#[derive(Clone, Debug)]
enum Happening {
    /// A pass of the operator, killed after this many calls.
    Pass { calls: usize },
    /// Kubernetes makes and deletes what it should.
    Kubernetes,
    /// The nodes run for a while.
    Nodes,
    /// The user asks for so many.
    Want(i32),
    /// What becomes of the disks of removed members.
    Deletes(bool),
    /// A pod goes.
    KillPod(i32),
    /// A pod goes, and its disk with it.
    LoseDisk(i32),
    /// A pod goes, and its disk with it, whatever is left then; not the last one.
    LoseDiskForGood(i32),
    /// A machine does not answer.
    Away(i32),
    /// It answers again.
    Back(i32),
    /// A machine is gone, and with it the disk of its node.
    Strand(i32),
    /// Somebody gives back the token that was shown last.
    Consent,
    /// Somebody lets a node go on alone without asking the operator.
    RecoverByHand(i32),
    /// Somebody allows old disks to be deleted: those of generations below this one.
    Allow(u32),
    /// Somebody deletes a claim, which goes once its pod does.
    DeleteClaim(i32),
    /// A node is not well in the next pass.
    Unwell(i32),
    /// Somebody scales the StatefulSet.
    ScaleByHand(i32),
    /// The template changes.
    Template,
}

#[derive(Clone, Debug)]
struct Disk {
    claim: u32,
    leaving: bool,
    removed: bool,
    /// Id of its node.
    node: u32,
    /// It has a log of the cluster.
    logged: bool,
    /// Of this generation.
    generation: u32,
    /// Its machine is gone.
    stranded: bool,
}

/// A member, by the id of its disk.
#[derive(Clone, Copy, Debug)]
struct Voting {
    ordinal: i32,
    votes: bool,
    caught_up: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pod {
    uid: u32,
    leaving: bool,
    revision: u32,
}

struct World {
    want: i32,
    deletes: bool,
    replicas: i32,
    made_for: i32,
    pods: BTreeMap<i32, Pod>,
    /// The newest template.
    revision: u32,
    /// The member that leads, as long as it can.
    leader: u32,
    disks: BTreeMap<i32, Disk>,
    members: BTreeMap<u32, Voting>,
    at: u64,
    settled: bool,
    unwell: Option<i32>,
    /// How often the cluster was forced to recover.
    generation: u32,
    /// What the status showed last.
    offered: Option<Recovery>,
    /// What the spec asks for.
    consent: Option<Recovery>,
    /// Disks of generations below this one may be deleted, as the spec says.
    allowed: u32,
    away: BTreeSet<i32>,
    counter: u32,
}

fn id_text(id: u32) -> String {
    format!("{id:016x}")
}

impl World {
    fn new(voters: i32) -> Self {
        let mut world = Self {
            want: voters.min(9),
            deletes: false,
            replicas: voters,
            made_for: voters,
            pods: BTreeMap::new(),
            revision: 1,
            leader: 0,
            disks: BTreeMap::new(),
            members: BTreeMap::new(),
            at: 1,
            settled: true,
            unwell: None,
            generation: 0,
            offered: None,
            consent: None,
            allowed: 0,
            away: BTreeSet::new(),
            counter: 0,
        };
        world.kubernetes();
        for ordinal in 0..voters {
            let disk = world.disks.get_mut(&ordinal).unwrap();
            disk.logged = true;
            let member = Voting { ordinal, votes: true, caught_up: true };
            world.members.insert(disk.node, member);
        }
        world
    }

    fn count(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    fn runs(&self, node: u32, ordinal: i32) -> bool {
        self.answers(ordinal) && self.disks.get(&ordinal).is_some_and(|disk| disk.node == node)
    }

    fn answers(&self, ordinal: i32) -> bool {
        let is_stranded = self.disks.get(&ordinal).is_some_and(|disk| disk.stranded);
        self.pods.contains_key(&ordinal) && !self.away.contains(&ordinal) && !is_stranded
    }

    /// What the node shows that would go on alone.
    fn token(&self, node: u32) -> String {
        format!("{node}-{}-{}", self.at, self.generation)
    }

    /// Whether a disk of a voter is left beside this one.
    fn is_one_left_but_for(&self, ordinal: i32) -> bool {
        self.members.iter().any(|(id, member)| {
            let disk = self.disks.get(&member.ordinal);
            member.votes
                && member.ordinal != ordinal
                && disk.is_some_and(|disk| disk.node == *id && !disk.stranded)
        })
    }

    fn is_well(&self, node: u32) -> bool {
        let member = self.members[&node];
        member.caught_up && self.runs(node, member.ordinal) && self.unwell != Some(member.ordinal)
    }

    fn is_quorum(&self, members: &BTreeMap<u32, Voting>) -> bool {
        let voters: Vec<u32> = members.iter().filter(|(_, member)| member.votes).map(|(id, _)| *id).collect();
        let running =
            voters.iter().filter(|id| members[id].caught_up && self.runs(**id, members[id].ordinal));
        running.count() > voters.len() / 2
    }

    /// Who leads: as before where it can, else the first that can.
    fn leading(&mut self) -> u32 {
        let can = |id: &u32| {
            self.members.get(id).is_some_and(|member| member.votes && self.runs(*id, member.ordinal))
        };
        if !can(&self.leader) {
            self.leader = self.members.keys().copied().find(can).expect("a majority runs");
        }
        self.leader
    }

    fn asked(&self) -> Asked {
        let mut asked = latched(self.want, cluster(7));
        let policy = if self.deletes { Disposal::Delete } else { Disposal::Retain };
        asked.spec.storage.retention.when_scaled = policy;
        asked.spec.recovery.clone_from(&self.consent);
        asked.spec.storage.discard_before_generation = i32::try_from(self.allowed).ok();
        asked.generation_kept = self.generation;
        asked
    }

    fn observe(&mut self) -> Observation {
        let mut seen = made(self.made_for);
        seen.set.as_mut().unwrap().replicas = self.replicas;
        seen.set.as_mut().unwrap().revision = Some(self.revision.to_string());
        for (ordinal, one) in &self.disks {
            let mut claim = disk(*ordinal);
            claim.uid = one.claim.to_string();
            claim.deleting = one.leaving;
            claim.removed_from = one.removed.then(|| cluster(7));
            // It is seen only where a pod waits for it.
            let waits = one.stranded && self.pods.contains_key(ordinal);
            claim.stranded = waits.then(|| "gone".to_owned());
            seen.claims.insert(names::node("demo", *ordinal), claim);
        }
        let leads = self.is_quorum(&self.members);
        seen.unready_seconds = Some(60);
        for (ordinal, one) in &self.pods {
            let disk = &self.disks[ordinal];
            let answer = NodeAnswer {
                id: id_text(disk.node),
                cluster_id: disk.logged.then(|| cluster(7)),
                generation: disk.generation,
                term: 1,
                ready: leads && self.members.contains_key(&disk.node),
                ..NodeAnswer::default()
            };
            let mut pod = fresh(1).pods["demo-0"].clone();
            pod.uid = one.uid.to_string();
            pod.revision = Some(one.revision.to_string());
            pod.deleting = one.leaving;
            pod.ready = answer.ready && self.answers(*ordinal);
            if self.answers(*ordinal) {
                if !leads && self.members.get(&disk.node).is_some_and(|member| member.caught_up) {
                    let learner = !self.members[&disk.node].votes;
                    let said = RecoverySeen {
                        id: answer.id.clone(),
                        generation: disk.generation,
                        last: self.at,
                        caution: learner.then(|| "it is a learner".to_owned()),
                        token: self.token(disk.node),
                        ..RecoverySeen::default()
                    };
                    seen.recoveries.insert(names::node("demo", *ordinal), said);
                }
                pod.node = NodeSeen::Answered(answer);
            } else {
                pod.node = if disk.stranded { NodeSeen::NotAsked } else { NodeSeen::Silent("away".into()) };
            }
            seen.pods.insert(names::node("demo", *ordinal), pod);
        }
        if leads {
            let leader = id_text(self.leading());
            let state = |(id, member): (&u32, &Voting)| MemberState {
                id: id_text(*id),
                name: names::node("demo", member.ordinal),
                standing: if member.votes { Standing::Voter } else { Standing::Learner },
                unwell: (!self.is_well(*id)).then(|| "not well".to_owned()),
            };
            let members: Vec<MemberState> = self.members.iter().map(state).collect();
            let waits = |(ordinal, disk): (&i32, &Disk)| {
                let waits = self.answers(*ordinal) && !disk.logged;
                waits.then(|| WaitingSeen { id: id_text(disk.node), name: names::node("demo", *ordinal) })
            };
            let plain = members.iter().map(|member| MemberSeen {
                id: member.id.clone(),
                name: member.name.clone(),
                voter: member.standing == Standing::Voter,
            });
            seen.cluster = Some(ClusterSeen {
                id: cluster(7),
                generation: self.generation,
                leader,
                term: 1,
                members: plain.collect(),
                membership: Some(Membership {
                    at: self.at,
                    settled: self.settled,
                    waiting: self.disks.iter().filter_map(waits).collect(),
                    members,
                }),
            });
        }
        seen
    }

    /// A pass of the operator, as [`crate::controller`] makes it, killed after so many calls.
    fn pass(&mut self, calls: usize) -> Option<Plan> {
        let asked = self.asked();
        let seen = self.observe();
        let plan = planned(&asked, &seen);
        assert_eq!(plan, planned(&asked, &seen), "the same input gives the same plan");
        let mut left = calls;
        let mut is_alive = || {
            let is_alive = left > 0;
            left = left.saturating_sub(1);
            is_alive
        };
        self.offered = plan
            .recovery
            .as_ref()
            .map(|offer| Recovery { member: offer.node.name.clone(), token: offer.token.clone() });
        let shape = plan.shape.as_ref().expect("nothing stops it");
        if !is_alive() {
            return None;
        }
        self.resize(shape.pods);
        for mark in &plan.marks {
            if !is_alive() {
                return None;
            }
            let disk = self.disks.values_mut().find(|disk| disk.claim.to_string() == mark.uid).unwrap();
            disk.removed = mark.removed;
        }
        if let Some(step) = &plan.step {
            if !is_alive() {
                return None;
            }
            self.take(step);
        }
        self.unwell = None;
        is_alive().then_some(plan)
    }

    /// The operator applies the StatefulSet.
    fn resize(&mut self, pods: i32) {
        let last = self.members.values().map(|member| member.ordinal).max().unwrap();
        assert!(pods > last || pods >= self.made_for, "the pod of a member is stopped: {pods}, {last}");
        let change = pods - self.made_for;
        assert!(change == 0 || self.settled, "while a change is under way");
        (self.made_for, self.replicas) = (pods, pods);
    }

    fn take(&mut self, step: &Step) {
        let id = |node: &Named| u32::from_str_radix(&node.id, 16).unwrap();
        let ids = |nodes: &[Named]| nodes.iter().map(id).collect::<Vec<u32>>();
        let voters_before = self.members.values().filter(|member| member.votes).count();
        let before = self.members.clone();
        match step {
            Step::AddLearners { nodes, at } => {
                self.check_change(*at);
                for id in ids(nodes) {
                    let (ordinal, disk) = self.disks.iter_mut().find(|(_, disk)| disk.node == id).unwrap();
                    assert!(!disk.logged, "only blank nodes are added");
                    (disk.logged, disk.generation) = (true, self.generation);
                    self.members.insert(id, Voting { ordinal: *ordinal, votes: false, caught_up: false });
                }
            }
            Step::Promote { nodes, at } => {
                self.check_change(*at);
                for id in ids(nodes) {
                    assert!(self.is_well(id), "a learner that lacks something");
                    self.members.get_mut(&id).unwrap().votes = true;
                }
            }
            Step::Remove { nodes, at } => {
                self.check_change(*at);
                let gone = ids(nodes);
                let voters: Vec<u32> = gone.iter().copied().filter(|id| self.members[id].votes).collect();
                for id in &gone {
                    self.members.remove(id).unwrap();
                }
                if !voters.is_empty() {
                    self.check_removed(&before, &voters);
                }
            }
            Step::Replace { old, new, at } => {
                self.check_change(*at);
                let (old, new) = (id(old), id(new));
                assert!(!self.is_well(old), "it is well");
                assert!(self.is_well(new), "a learner that lacks something");
                self.members.remove(&old).unwrap();
                self.members.get_mut(&new).unwrap().votes = true;
                assert!(self.is_quorum(&self.members));
            }
            Step::DeleteDisk { claim, uid, .. } => {
                assert!(self.deletes, "it is to be kept");
                let (ordinal, disk) =
                    self.disks.iter_mut().find(|(_, disk)| disk.claim.to_string() == *uid).unwrap();
                assert_eq!(*claim, format!("data-demo-{ordinal}"));
                assert!(!self.members.contains_key(&disk.node), "the disk of a member");
                assert!(!self.pods.contains_key(ordinal) && *ordinal >= self.made_for, "it is in use");
                disk.leaving = true;
                let ordinal = *ordinal;
                return self.check_allowed(ordinal);
            }
            Step::HandOver { from } => {
                assert_eq!(id(from), self.leader);
                let others = self.members.iter().filter(|(id, member)| **id != self.leader && member.votes);
                let other = others.map(|(id, _)| *id).find(|id| self.is_well(*id));
                self.leader = other.expect("somebody can take over");
                return;
            }
            Step::RestartPod { pod, uid } => {
                let ordinal = names::ordinal("demo", pod).unwrap();
                let one = self.pods[&ordinal];
                assert_eq!(one.uid.to_string(), *uid);
                assert!(self.settled && one.revision != self.revision);
                for (id, member) in self.members.iter().filter(|(_, member)| member.ordinal != ordinal) {
                    assert!(self.is_well(*id), "{ordinal} is restarted while {} is not well", member.ordinal);
                }
                assert!(self.members.len() == 1 || self.members[&self.leader].ordinal != ordinal, "it leads");
                self.pods.remove(&ordinal);
                return;
            }
            Step::Recover { node, token, force, .. } => return self.recover(id(node), token, *force),
            Step::DiscardDisk { claim, uid, machine, .. } => {
                let ordinal = self.check_discarded(|disk| disk.claim.to_string() == *uid);
                assert_eq!(*claim, format!("data-demo-{ordinal}"));
                let disk = self.disks.get_mut(&ordinal).unwrap();
                assert_eq!(machine.is_some(), disk.stranded);
                disk.leaving = true;
                return self.check_allowed(ordinal);
            }
            Step::DiscardPod { pod, uid } => {
                let ordinal = names::ordinal("demo", pod).unwrap();
                assert_eq!(self.pods[&ordinal].uid.to_string(), *uid);
                let disk = &self.disks[&ordinal];
                assert!(disk.leaving, "another pod would take the same disk");
                if self.members.get(&disk.node).is_some_and(|member| member.votes) {
                    let claim = disk.claim;
                    self.check_discarded(|one| one.claim == claim);
                }
                self.pods.remove(&ordinal);
                return;
            }
            Step::Wake { .. } => return,
            Step::ReplaceStuckPod { .. } => panic!("no pod is stuck"),
            Step::GrowClaim { .. } | Step::RemakeSet { .. } => panic!("no disk is to grow"),
        }
        let voters = self.members.values().filter(|member| member.votes).count();
        // Where a voter that was not well went before higher ones, or anyone was left of a lost quorum, the way to the voters that
        // are asked for leads over even numbers.
        let had_gap = {
            let voting = before.values().filter(|member| member.votes).map(|member| member.ordinal);
            !voting.collect::<BTreeSet<_>>().into_iter().eq(0..i32::try_from(voters_before).unwrap())
        };
        assert!(
            voters % 2 == 1 || voters_before == voters || self.generation > 0 || had_gap,
            "{voters_before} voters become {voters} by {step:?}"
        );
        self.at += 1;
        self.settled = voters == voters_before;
    }

    fn recover(&mut self, node: u32, token: &str, force: bool) {
        assert!(!self.is_quorum(&self.members), "the others lead");
        assert_eq!(token, self.token(node), "it is of another state");
        let ordinal = self.members[&node].ordinal;
        assert!(self.runs(node, ordinal) && self.members[&node].caught_up);
        assert!(self.members[&node].votes || force, "a learner goes on only if it is forced");
        let consent = self.consent.as_ref().expect("nobody asked for it");
        assert_eq!(
            (consent.member.as_str(), consent.token.as_str()),
            (names::node("demo", ordinal).as_str(), token)
        );
        self.go_on_alone(node, ordinal);
    }

    fn go_on_alone(&mut self, node: u32, ordinal: i32) {
        self.members = BTreeMap::from([(node, Voting { ordinal, votes: true, caught_up: true })]);
        self.generation += 1;
        self.disks.get_mut(&ordinal).unwrap().generation = self.generation;
        self.at += 1;
        self.settled = false;
    }

    /// A disk that may hold what the cluster lacks is deleted only if the spec says so.
    fn check_allowed(&self, ordinal: i32) {
        let disk = &self.disks[&ordinal];
        let is_old =
            disk.logged && disk.generation < self.generation && !self.members.contains_key(&disk.node);
        let is_allowed = disk.generation < self.allowed && self.allowed <= self.generation;
        assert!(!is_old || is_allowed, "nobody said that the disk of {ordinal} may go");
    }

    /// The disk of this kind is of no use to anybody, or all others have everything.
    fn check_discarded(&self, is_it: impl Fn(&Disk) -> bool) -> i32 {
        let (ordinal, disk) = self.disks.iter().find(|(_, disk)| is_it(disk)).unwrap();
        assert!(self.is_quorum(&self.members) && self.settled, "without anybody who could say so");
        if !disk.stranded {
            assert!(!self.members.contains_key(&disk.node), "the disk of a member");
            assert!(disk.logged && disk.generation < self.generation, "it is not old");
        } else if self.members.get(&disk.node).is_some_and(|member| member.votes) {
            let voters = self.members.iter().filter(|(_, member)| member.votes);
            let others = voters.clone().filter(|(id, _)| **id != disk.node && self.is_well(**id));
            assert!(others.count() > voters.count() / 2, "no majority without it has everything");
        }
        *ordinal
    }

    fn check_change(&self, at: u64) {
        assert!(self.settled, "two changes at once");
        assert_eq!(at, self.at, "judged by the configuration in force");
        assert!(self.is_quorum(&self.members));
    }

    /// Voters were removed: the highest ones, or such as are not well; none that is asked for, while all are well that stay for
    /// good.
    fn check_removed(&self, before: &BTreeMap<u32, Voting>, gone: &[u32]) {
        let ordinals = || gone.iter().map(|id| before[id].ordinal);
        assert!(ordinals().all(|ordinal| ordinal >= self.want), "one that is asked for");
        let was_well =
            |id: &u32| self.runs(*id, before[id].ordinal) && self.unwell != Some(before[id].ordinal);
        let lowest = gone.iter().filter(|id| was_well(id)).map(|id| before[id].ordinal).min();
        for (id, member) in self.members.iter().filter(|(_, member)| member.votes) {
            assert!(
                lowest.is_none_or(|lowest| member.ordinal < lowest),
                "a lower one than {}",
                member.ordinal
            );
            assert!(member.ordinal >= self.want || self.is_well(*id), "while {} is not well", member.ordinal);
        }
        let left: Vec<u32> =
            self.members.iter().filter(|(_, member)| member.votes).map(|(id, _)| *id).collect();
        let well = left.iter().filter(|id| self.is_well(**id)).count();
        assert!(well > left.len() / 2, "no majority of those that stay is well");
        assert!(self.members.values().any(|member| member.votes), "the last voter");
    }

    fn kubernetes(&mut self) {
        self.pods.retain(|_, pod| !pod.leaving);
        for (ordinal, pod) in &mut self.pods {
            pod.leaving |= *ordinal >= self.replicas;
        }
        let pods = &self.pods;
        self.disks.retain(|ordinal, disk| !disk.leaving || pods.contains_key(ordinal));
        for ordinal in 0..self.replicas {
            if !self.pods.contains_key(&ordinal) {
                let (claim, node) = (self.count(), self.count());
                let (generation, stranded) = (0, false);
                let new =
                    Disk { claim, leaving: false, removed: false, node, logged: false, generation, stranded };
                self.disks.entry(ordinal).or_insert(new);
                let pod = Pod { uid: self.count(), leaving: false, revision: self.revision };
                self.pods.insert(ordinal, pod);
            }
        }
    }

    /// Learners get the log, changes end, and who was removed begins anew.
    fn nodes(&mut self) {
        if !self.is_quorum(&self.members) {
            return;
        }
        self.settled = true;
        let runs: BTreeSet<u32> = self
            .members
            .iter()
            .filter(|(id, member)| self.runs(**id, member.ordinal))
            .map(|(id, _)| *id)
            .collect();
        for (id, member) in &mut self.members {
            member.caught_up |= runs.contains(id);
        }
        let removed = |(ordinal, disk): &(&i32, &Disk)| {
            // One that was left behind is refused, and stays what it is.
            let is_removed = disk.logged && !self.members.contains_key(&disk.node);
            is_removed && self.answers(**ordinal) && disk.generation == self.generation
        };
        let anew: Vec<i32> = self.disks.iter().filter(removed).map(|(ordinal, _)| *ordinal).collect();
        for ordinal in anew {
            let node = self.count();
            let disk = self.disks.get_mut(&ordinal).unwrap();
            (disk.node, disk.logged) = (node, false);
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Pass { calls } => drop(self.pass(calls)),
            Happening::Kubernetes => self.kubernetes(),
            Happening::Nodes => self.nodes(),
            Happening::Want(want) => self.want = want,
            Happening::Deletes(deletes) => self.deletes = deletes,
            Happening::KillPod(ordinal) => drop(self.pods.remove(&ordinal)),
            Happening::LoseDisk(ordinal) => {
                // As long as a majority keeps theirs: without one nothing could be done here.
                let mut left = self.members.clone();
                let lost = self.disks.get(&ordinal).map(|disk| disk.node);
                left.values_mut().filter(|member| !member.votes).for_each(|member| member.caught_up = false);
                let has_disk = |id: &u32, member: &Voting| {
                    Some(*id) != lost && self.disks.get(&member.ordinal).is_some_and(|disk| disk.node == *id)
                };
                let voters = left.values().filter(|member| member.votes).count();
                let kept = left.iter().filter(|(id, member)| member.votes && has_disk(id, member)).count();
                if kept > voters / 2 && self.is_one_left_but_for(ordinal) {
                    self.pods.remove(&ordinal);
                    self.disks.remove(&ordinal);
                }
            }
            Happening::LoseDiskForGood(ordinal) => {
                if self.is_one_left_but_for(ordinal) {
                    self.pods.remove(&ordinal);
                    self.disks.remove(&ordinal);
                }
            }
            Happening::Away(ordinal) => drop(self.away.insert(ordinal)),
            Happening::Back(ordinal) => drop(self.away.remove(&ordinal)),
            Happening::Strand(ordinal) => {
                let is_last = !self.is_one_left_but_for(ordinal);
                if let Some(disk) = self.disks.get_mut(&ordinal).filter(|_| !is_last) {
                    disk.stranded = true;
                }
            }
            Happening::Consent => self.consent.clone_from(&self.offered),
            Happening::RecoverByHand(ordinal) => {
                let node = self.disks.get(&ordinal).map(|disk| disk.node);
                let can = |node: &u32| {
                    let member = self.members.get(node);
                    self.runs(*node, ordinal) && member.is_some_and(|member| member.votes && member.caught_up)
                };
                if let Some(node) = node.filter(can).filter(|_| !self.is_quorum(&self.members)) {
                    self.go_on_alone(node, ordinal);
                }
            }
            Happening::Allow(before) => self.allowed = before,
            Happening::DeleteClaim(ordinal) => {
                let is_member = self.members.values().any(|member| member.ordinal == ordinal);
                if let Some(disk) = self.disks.get_mut(&ordinal).filter(|_| !is_member) {
                    disk.leaving = true;
                }
            }
            Happening::Unwell(ordinal) => self.unwell = Some(ordinal),
            Happening::ScaleByHand(replicas) => self.replicas = replicas,
            Happening::Template => self.revision += 1,
        }
    }

    /// Everybody does their part until nothing is left to do, and once more.
    fn settle(&mut self) -> Plan {
        self.unwell = None;
        self.away.clear();
        let mut calm = 0;
        for round in 1.. {
            if self.offered.is_some() {
                self.consent.clone_from(&self.offered);
            }
            self.allowed = self.generation;
            self.kubernetes();
            self.nodes();
            let plan = self.pass(usize::MAX).expect("it was not killed");
            let is_calm = found(&plan, ConditionType::Ready).holds == Truth::True && plan.step.is_none();
            calm = if is_calm { calm + 1 } else { 0 };
            if calm == 3 || round == ROUNDS_TO_SETTLE {
                return plan;
            }
        }
        unreachable!("the rounds end")
    }
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let ordinal = 0..7_i32;
    let want = prop_oneof![Just(1), Just(3), Just(5), Just(7)];
    let one = prop_oneof![
        12 => (0..4_usize).prop_map(|calls| Happening::Pass { calls }),
        6 => Just(Happening::Kubernetes),
        6 => Just(Happening::Nodes),
        4 => want.prop_map(Happening::Want),
        2 => any::<bool>().prop_map(Happening::Deletes),
        2 => ordinal.clone().prop_map(Happening::KillPod),
        2 => ordinal.clone().prop_map(Happening::LoseDisk),
        1 => ordinal.clone().prop_map(Happening::LoseDiskForGood),
        1 => ordinal.clone().prop_map(Happening::Away),
        1 => ordinal.clone().prop_map(Happening::Back),
        1 => ordinal.clone().prop_map(Happening::Strand),
        2 => Just(Happening::Consent),
        2 => ordinal.clone().prop_map(Happening::RecoverByHand),
        1 => (0..3_u32).prop_map(Happening::Allow),
        1 => ordinal.clone().prop_map(Happening::DeleteClaim),
        2 => ordinal.clone().prop_map(Happening::Unwell),
        1 => (0..9_i32).prop_map(Happening::ScaleByHand),
        1 => Just(Happening::Template),
    ];
    proptest::collection::vec(one, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happened and wherever the operator was killed: no step is one that it must not take, and in the end there are the
    /// voters that are asked for, their pods, and no disk that was to go.
    #[test]
    fn every_life_ends_with_the_members_asked_for(
        voters in prop_oneof![Just(1), Just(3), Just(5), Just(13)],
        happenings in happenings(),
    ) {
        live(voters, &happenings);
    }
}

fn live(voters: i32, happenings: &[Happening]) {
    let mut world = World::new(voters);
    for happening in happenings {
        world.happen(happening);
    }
    let plan = world.settle();
    let ready = found(&plan, ConditionType::Ready);
    assert_eq!(ready.holds, Truth::True, "{} {:?}", &ready.message, &plan.ahead);
    let voting: BTreeSet<i32> = world.members.values().map(|member| member.ordinal).collect();
    assert!(voting.iter().copied().eq(0..world.want), "{voting:?}");
    assert!(world.members.values().all(|member| member.votes));
    assert!(world.pods.keys().copied().eq(0..world.want), "{:?}", &world.pods);
    assert!(world.pods.values().all(|pod| pod.revision == world.revision), "{:?}", &world.pods);
    let kept = world.disks.iter().filter(|(ordinal, disk)| **ordinal >= world.want && disk.removed);
    assert!(!world.deletes || kept.count() == 0, "{:?}", &world.disks);
}

/// Members with lost disks go first, and then more are asked for than are left in a row: the gap is filled by one voter, over an
/// even number of them.
#[test]
fn a_gap_between_the_voters_is_filled() {
    use Happening::{Kubernetes, LoseDisk, LoseDiskForGood, Nodes, Pass, Want};
    let happenings = [
        LoseDisk(1),
        Want(1),
        LoseDiskForGood(5),
        Pass { calls: 2 },
        LoseDisk(2),
        LoseDiskForGood(4),
        Nodes,
        Pass { calls: 1 },
        LoseDisk(3),
        Kubernetes,
        Kubernetes,
        Pass { calls: 2 },
        Want(5),
    ];
    live(13, &happenings);
}
