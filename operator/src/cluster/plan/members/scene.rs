//! What the next step depends on: members, pods and disks by their ordinals.
//!
//! Ordinals are numbers: demo-10 comes after demo-9.

use crate::cluster::observation::{Membership, Observation, Standing};
use crate::cluster::validate::Asked;
use crate::crd::Disposal;
use crate::names;
use std::collections::{BTreeMap, BTreeSet};

/// How long nothing was well before a volume on a machine that is gone is given up, in seconds.
const STRANDED_SECONDS_MIN: i64 = 30;

/// Everything that the next step depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scene {
    /// Voters that are asked for: the first so many ordinals.
    pub(super) want: i32,
    /// Pods that the StatefulSet is for.
    pub(super) pods: i32,
    /// No change of the members is under way.
    pub(super) settled: bool,
    /// Voters; those that only wait for a change to end are not among them.
    pub(super) voters: BTreeMap<i32, Member>,
    /// Learners.
    pub(super) learners: BTreeMap<i32, Member>,
    /// Members that are none of these pods, by their names: somebody else's doing.
    pub(super) strangers: BTreeSet<String>,
    /// Nodes that wait to be added, each in the pod of its name.
    pub(super) waiting: BTreeMap<i32, String>,
    /// The pods that there are.
    pub(super) there: BTreeMap<i32, PodAt>,
    /// The claims that there are.
    pub(super) claims: BTreeMap<i32, ClaimAt>,
    /// The disks of removed members are deleted.
    pub(super) deletes: bool,
    /// Pods that wait for a volume whose machine is gone, with the name of that machine.
    pub(super) stranded: BTreeMap<i32, String>,
    /// The generation of the cluster, where nobody has said that disks of all older ones may be deleted.
    pub(super) keeps_before: Option<u32>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its id.
    pub(super) id: String,
    /// Why others could not rely on it; absent if they could.
    pub(super) unwell: Option<String>,
}

/// A pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodAt {
    /// It is being deleted.
    Leaving,
    /// Its node does not say yet which disk it has.
    Starting,
    /// Its disk has no log.
    Blank,
    /// Its disk has the log of this cluster.
    Logged,
    /// Its disk has the log of this cluster as it was before it was forced to recover: nobody takes anything from it any more.
    LeftBehind {
        /// Somebody said that it may be deleted.
        allowed: bool,
    },
}

/// A claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClaimAt {
    /// It is being deleted.
    pub(super) leaving: bool,
    /// It is marked as that of a member which was removed.
    pub(super) marked: bool,
}

impl Scene {
    /// What was seen, as far as the next step depends on it.
    pub(super) fn of(asked: &Asked, seen: &Observation, membership: &Membership, pods: i32) -> Self {
        let mut scene = Self {
            want: asked.spec.replicas,
            pods,
            settled: membership.settled,
            voters: BTreeMap::new(),
            learners: BTreeMap::new(),
            strangers: BTreeSet::new(),
            waiting: BTreeMap::new(),
            there: BTreeMap::new(),
            claims: BTreeMap::new(),
            deletes: asked.spec.storage.retention.when_scaled == Disposal::Delete,
            stranded: BTreeMap::new(),
            keeps_before: None,
        };
        let generation = seen.cluster.as_ref().map_or(0, |cluster| cluster.generation);
        let newest_old = generation.checked_sub(1);
        scene.keeps_before =
            newest_old.filter(|old| !asked.may_discard(*old, generation)).map(|_| generation);
        let is_member = |id: &str| membership.members.iter().any(|member| member.id == id);
        let ordinal = |name: &str| names::ordinal(&asked.name, name);
        for member in &membership.members {
            let one = Member { id: member.id.clone(), unwell: member.unwell.clone() };
            let of_kind = match member.standing {
                Standing::Voter => &mut scene.voters,
                Standing::Learner => &mut scene.learners,
                Standing::Leaving => continue,
            };
            match ordinal(&member.name).filter(|ordinal| !of_kind.contains_key(ordinal)) {
                Some(ordinal) => drop(of_kind.insert(ordinal, one)),
                None => drop(scene.strangers.insert(member.name.clone())),
            }
        }
        for (name, pod) in &seen.pods {
            let Some(ordinal) = ordinal(name) else { continue };
            let answer = pod.answer().filter(|answer| !answer.id.is_empty());
            let at = match answer {
                _ if pod.deleting => PodAt::Leaving,
                None => PodAt::Starting,
                Some(answer)
                    if answer.cluster_id.is_some()
                        && answer.generation < generation
                        && !is_member(&answer.id) =>
                {
                    PodAt::LeftBehind { allowed: asked.may_discard(answer.generation, generation) }
                }
                Some(answer) if answer.cluster_id.is_some() => PodAt::Logged,
                Some(_) => PodAt::Blank,
            };
            scene.there.insert(ordinal, at);
            // Others may have announced themselves under its name before: they are no more.
            if let Some(answer) = answer
                && membership.waiting.iter().any(|node| node.id == answer.id && node.name == *name)
            {
                scene.waiting.insert(ordinal, answer.id.clone());
            }
        }
        for (node, claim) in &seen.claims {
            if let Some(ordinal) = ordinal(node) {
                let marked = claim.removed_from.is_some() && claim.removed_from == asked.latched;
                scene.claims.insert(ordinal, ClaimAt { leaving: claim.deleting, marked });
                // A machine that only begins anew has its object back soon.
                if let Some(machine) = &claim.stranded
                    && seen.unready_seconds.is_some_and(|seconds| seconds >= STRANDED_SECONDS_MIN)
                {
                    scene.stranded.insert(ordinal, machine.clone());
                }
            }
        }
        scene
    }

    /// Behind the last member: so many pods are needed for those that there are.
    pub(super) fn behind_last_member(&self) -> i32 {
        self.voters.keys().chain(self.learners.keys()).max().map_or(0, |last| last + 1)
    }

    /// How many voters come or go at a time, so that their number is odd afterwards.
    pub(super) fn at_a_time(&self) -> usize {
        if self.voters.len().is_multiple_of(2) { 1 } else { 2 }
    }

    /// Voters that are still to come, the next ones only.
    pub(super) fn missing(&self) -> Vec<i32> {
        let missing = (0..self.want).filter(|ordinal| !self.voters.contains_key(ordinal));
        missing.take(self.at_a_time()).collect()
    }

    /// Voters that are to go, the next ones only, the highest first. If too few of those that stay for now would be well, those
    /// that are not well go first: nobody else counts on them.
    pub(super) fn beyond(&self) -> Vec<i32> {
        let all: Vec<i32> = self.voters.range(self.want..).rev().map(|(ordinal, _)| *ordinal).collect();
        let next: Vec<i32> = all.iter().copied().take(self.at_a_time()).collect();
        if self.is_majority_well_without(&next) {
            return next;
        }
        let (unwell, well): (Vec<i32>, Vec<i32>) =
            all.into_iter().partition(|ordinal| self.voters[ordinal].unwell.is_some());
        unwell.into_iter().chain(well).take(self.at_a_time()).collect()
    }

    fn is_majority_well_without(&self, going: &[i32]) -> bool {
        self.well_but_for(going) > (self.voters.len() - going.len()) / 2
    }

    /// A voter whose pod has got another, empty disk, or that is being replaced by one. One that is to go anyway is not replaced
    /// before.
    pub(super) fn lost(&self) -> Option<i32> {
        let is_lost = |(ordinal, voter): &(&i32, &Member)| {
            let is_other = self.waiting.get(ordinal).is_some_and(|id| *id != voter.id);
            is_other || (self.learners.contains_key(ordinal) && voter.unwell.is_some())
        };
        self.voters.range(..self.want).find(is_lost).map(|(ordinal, _)| *ordinal)
    }

    /// A learner that will never vote: its disk was lost, or the voter that it was to replace is well again.
    pub(super) fn lost_learner(&self) -> Option<i32> {
        let is_lost = |(ordinal, learner): &(&i32, &Member)| {
            let is_other = self.waiting.get(ordinal).is_some_and(|id| *id != learner.id);
            is_other || self.voters.get(ordinal).is_some_and(|voter| voter.unwell.is_none())
        };
        self.learners.iter().find(is_lost).map(|(ordinal, _)| *ordinal)
    }

    /// A disk of an older generation in the pod of a node that is asked for, and that may be deleted.
    pub(super) fn left_behind(&self) -> Option<i32> {
        let is_old = |(_, at): &(&i32, &PodAt)| **at == PodAt::LeftBehind { allowed: true };
        self.there.range(..self.want).find(is_old).map(|(ordinal, _)| *ordinal)
    }

    /// Nodes that are asked for and whose disks are of an older generation, without a word from anybody. Who deletes a claim by hand
    /// has said it.
    pub(super) fn held(&self) -> Vec<i32> {
        let is_held = |(ordinal, at): &(&i32, &PodAt)| {
            let is_leaving = self.claims.get(ordinal).is_some_and(|claim| claim.leaving);
            **at == PodAt::LeftBehind { allowed: false } && !is_leaving
        };
        self.there.range(..self.want).filter(is_held).map(|(ordinal, _)| *ordinal).collect()
    }

    /// Whether the disk of this ordinal may hold what the cluster lacks, because it may be of an older generation: it is no member's,
    /// and its node does not say otherwise.
    pub(super) fn may_be_needed(&self, ordinal: i32) -> bool {
        let is_member = self.voters.contains_key(&ordinal) || self.learners.contains_key(&ordinal);
        let is_new = match self.there.get(&ordinal) {
            Some(PodAt::Blank | PodAt::Logged | PodAt::LeftBehind { allowed: true }) => true,
            Some(PodAt::Leaving | PodAt::Starting | PodAt::LeftBehind { allowed: false }) | None => false,
        };
        self.keeps_before.is_some() && !is_member && !is_new
    }

    /// A node that is asked for and whose pod waits for a volume on a machine that is gone.
    pub(super) fn stranded(&self) -> Option<i32> {
        let waits = |(ordinal, _): &(&i32, &String)| self.there.get(ordinal) == Some(&PodAt::Starting);
        self.stranded.range(..self.want).find(waits).map(|(ordinal, _)| *ordinal)
    }

    /// Voters but for these that others can rely on.
    pub(super) fn well_but_for(&self, ordinals: &[i32]) -> usize {
        self.voters
            .iter()
            .filter(|(ordinal, voter)| !ordinals.contains(ordinal) && voter.unwell.is_none())
            .count()
    }

    /// Voters that others cannot rely on, with the reasons.
    pub(super) fn unwell(&self) -> BTreeMap<i32, &str> {
        self.voters.iter().filter_map(|(ordinal, voter)| Some((*ordinal, voter.unwell.as_deref()?))).collect()
    }

    /// Why these voters cannot go yet: those that stay for good and are not well, with the reasons; and if too few of those that
    /// stay for now are well for a majority, all of them. One that is to go anyway holds up nothing else.
    pub(super) fn unwell_that_stay(&self, going: &[i32]) -> BTreeMap<i32, &str> {
        let is_majority = self.is_majority_well_without(going);
        let others = self.voters.iter().filter(|(ordinal, _)| !going.contains(ordinal));
        others
            .filter(|(ordinal, _)| **ordinal < self.want || !is_majority)
            .filter_map(|(ordinal, voter)| Some((*ordinal, voter.unwell.as_deref()?)))
            .collect()
    }
}
