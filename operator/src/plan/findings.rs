//! What there is to say about a cluster: its problems in order of urgency, and the conditions that follow.
//!
//! A message names who is concerned, what is wrong, and what to do, or that nothing needs to be done.

mod disks;

use super::trouble::{self, shorten};
use super::{Identity, NextLook, Shape};
use crate::crd::{ConditionType, Finding, Phase, Reason, Truth};
use crate::names;
use crate::observation::{NodeSeen, Observation, Ownership};
use crate::validate::{Asked, Refusal};
use std::collections::BTreeSet;

/// What was found, as it goes into the plan.
pub(super) struct Verdict {
    pub(super) findings: Vec<Finding>,
    pub(super) phase: Phase,
    pub(super) message: String,
    pub(super) next_look: NextLook,
}

/// Something that keeps the cluster from being as the spec asks.
struct Problem {
    reason: Reason,
    message: String,
    phase: Phase,
    /// What a problem means for the conditions other than Ready.
    weight: Weight,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It goes away by itself.
    OnItsWay,
    /// The cluster serves, but not as the spec asks.
    NotAsAsked,
    /// Something is wrong.
    Wrong,
}

/// Everything that the findings look at.
struct Case<'a> {
    asked: &'a Asked,
    refusals: &'a [Refusal],
    seen: &'a Observation,
    identity: &'a Identity,
    shape: &'a Shape,
    /// The nodes that there should be.
    nodes: Vec<String>,
    /// Those that serve.
    serving: BTreeSet<&'a str>,
}

/// Judges a cluster.
pub(super) fn judge(
    asked: &Asked,
    refusals: &[Refusal],
    seen: &Observation,
    identity: &Identity,
    shape: &Shape,
) -> Verdict {
    let serving = seen.pods.iter().filter(|(_, pod)| pod.serves()).map(|(name, _)| name.as_str()).collect();
    let case = Case { asked, refusals, seen, identity, shape, nodes: asked.nodes(shape.replicas), serving };
    let problems = case.problems();
    let paused = asked.spec.paused;
    let (phase, message) = match problems.first() {
        _ if paused => (Phase::Paused, "spec.paused is set: the operator changes nothing".to_owned()),
        Some(problem) => (problem.phase, problem.message.clone()),
        None => (Phase::Ready, case.all_well()),
    };
    let findings = case.findings(&problems);
    let next_look = if problems.is_empty() { NextLook::Steady } else { NextLook::Soon };
    Verdict { findings, phase, message, next_look }
}

fn finding(
    about: ConditionType,
    holds: impl Into<Truth>,
    reason: Reason,
    message: impl Into<String>,
) -> Finding {
    Finding { about, holds: holds.into(), reason, message: message.into() }
}

impl Case<'_> {
    fn quorum(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    fn all_well(&self) -> String {
        match self.nodes.len() {
            1 => "the node serves".to_owned(),
            count => format!("all {count} nodes serve"),
        }
    }

    /// Everything that is not as it should be, most urgent first.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut tell = |reason, phase, weight, message: String| {
            problems.push(Problem { reason, message, phase, weight });
        };
        if let Some(message) = self.mixed() {
            tell(Reason::MixedClusters, Phase::ForeignDisk, Weight::Wrong, message);
        }
        if let Some(message) = self.taken() {
            tell(Reason::NameTaken, Phase::Refused, Weight::Wrong, message);
        }
        if let Some(message) = self.leaving() {
            tell(Reason::WaitingForDeletion, Phase::Pending, Weight::OnItsWay, message);
        }
        for refusal in self.refusals {
            tell(refusal.reason, Phase::Refused, Weight::NotAsAsked, refusal.text.clone());
        }
        let stuck = trouble::tell(self.asked, self.seen, self.shape);
        let is_formed = self.identity.is_formed();
        let serves = is_formed && self.seen.cluster.is_some();
        let phase = match () {
            () if serves => Phase::Degraded,
            () if is_formed => Phase::Unavailable,
            () => Phase::Forming,
        };
        if let Some((reason, message)) = stuck {
            tell(reason, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.not_made() {
            tell(Reason::PodNotMade, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.lost() {
            tell(Reason::DiskLost, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.disks_leaving() {
            tell(Reason::DiskLeaving, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.silent() {
            tell(Reason::NodeSilent, phase, Weight::Wrong, message);
        }
        if !is_formed || self.is_coming_together() {
            tell(Reason::Forming, Phase::Forming, Weight::OnItsWay, self.forming());
        } else if let Some((reason, message)) = self.unready() {
            let weight = if self.is_about_to_be_ready() { Weight::OnItsWay } else { Weight::Wrong };
            tell(reason, phase, weight, message);
        }
        if let Some(message) = self.replicas_fixed() {
            tell(Reason::ReplicasFixed, Phase::Refused, Weight::NotAsAsked, message);
        }
        if let Some(message) = self.older_pods() {
            tell(Reason::OlderPods, Phase::Outdated, Weight::NotAsAsked, message);
        }
        if let Some((reason, message)) = self.disks()
            && reason != Reason::DiskLeaving
        {
            tell(reason, Phase::Ready, Weight::NotAsAsked, message);
        }
        problems
    }

    fn findings(&self, problems: &[Problem]) -> Vec<Finding> {
        use ConditionType as About;
        let first = |weights: &[Weight]| problems.iter().find(|problem| weights.contains(&problem.weight));
        let of =
            |about, problem: &Problem, holds: bool| finding(about, holds, problem.reason, &problem.message);
        let fine = |about, holds: bool, message: &str| finding(about, holds, Reason::AsAsked, message);
        let among = |reasons: &[Reason]| problems.iter().find(|problem| reasons.contains(&problem.reason));

        let mut findings = vec![
            match problems.first() {
                Some(problem) => of(About::Ready, problem, false),
                None => fine(About::Ready, true, &self.all_well()),
            },
            self.available(),
            match first(&[Weight::OnItsWay]) {
                Some(problem) => of(About::Progressing, problem, true),
                None => fine(About::Progressing, false, "nothing is on its way"),
            },
            match first(&[Weight::Wrong]) {
                Some(problem) => of(About::Degraded, problem, true),
                None => fine(About::Degraded, false, "nothing is wrong"),
            },
            self.quorum_healthy(),
            match among(&[Reason::OlderPods]) {
                Some(problem) => of(About::UpToDate, problem, false),
                None => fine(About::UpToDate, true, "every pod was made from what the spec asks for"),
            },
            match self.lost().map(|message| (Reason::DiskLost, message)).or_else(|| self.disks()) {
                Some((reason, message)) => finding(About::StorageReady, false, reason, message),
                None => fine(About::StorageReady, true, "every node has its disk"),
            },
            match among(&[
                Reason::NameTaken,
                Reason::ConfigRefused,
                Reason::ReplicasRefused,
                Reason::NotReadable,
                Reason::ReplicasFixed,
            ]) {
                Some(problem) => of(About::SpecAccepted, problem, false),
                None => fine(About::SpecAccepted, true, "the spec can be followed"),
            },
            if self.asked.spec.paused {
                let message = "spec.paused is set: the operator changes nothing, and the nodes run on";
                finding(About::Paused, true, Reason::PausedBySpec, message)
            } else {
                finding(
                    About::Paused,
                    false,
                    Reason::NotPaused,
                    "the operator keeps the cluster as the spec asks",
                )
            },
        ];
        if self.nodes.len() == 1 {
            let message = "one member keeps the only copy of every message: a lost disk loses them all, and nothing is served \
                           while the node restarts. Three members bear the loss of one";
            findings.push(finding(About::SingleMember, true, Reason::OneMember, message));
        }
        if let Some(problem) = among(&[Reason::MixedClusters]) {
            findings.push(of(About::ForeignDisk, problem, true));
        }
        findings
    }

    fn available(&self) -> Finding {
        let about = ConditionType::Available;
        if let Some(cluster) = &self.seen.cluster {
            let leader = self.leader_name().unwrap_or(&cluster.leader);
            let message = format!("{leader} leads in term {}, and a majority follows", cluster.term);
            return finding(about, true, Reason::LeaderElected, message);
        }
        if !self.identity.is_formed() || self.is_coming_together() {
            return finding(about, false, Reason::Forming, "the nodes have not found each other yet");
        }
        let asked = self.seen.pods.values().filter(|pod| !matches!(pod.node, NodeSeen::NotAsked)).count();
        match self.silent() {
            Some(message) if self.seen.answers().count() == 0 && asked > 0 => {
                finding(about, Truth::Unknown, Reason::NotObserved, message)
            }
            _ => {
                let message = "no node leads with a majority behind it: nothing can be published or received until a majority \
                               of the nodes runs again";
                let disks = match self.lost() {
                    Some(_) => "with its disk; some disks are lost, as the condition StorageReady tells",
                    None => "What was acknowledged is on their disks",
                };
                let joint = if self.lost().is_some() { " " } else { ". " };
                finding(about, false, Reason::NoLeader, format!("{message}{joint}{disks}"))
            }
        }
    }

    fn quorum_healthy(&self) -> Finding {
        let (ready, all, quorum) = (self.serving.len(), self.nodes.len(), self.quorum());
        let message = format!("{ready} of {all} nodes are ready; {quorum} are a majority");
        let reason = match () {
            () if ready >= quorum => Reason::AsAsked,
            () if !self.identity.is_formed() || self.is_coming_together() => Reason::Forming,
            () => Reason::QuorumLost,
        };
        finding(ConditionType::QuorumHealthy, ready >= quorum, reason, message)
    }

    /// Name of the leader as the cluster itself says.
    fn leader_name(&self) -> Option<&String> {
        let cluster = self.seen.cluster.as_ref()?;
        cluster.members.iter().find(|member| member.id == cluster.leader).map(|member| &member.name)
    }

    fn mixed(&self) -> Option<String> {
        let Identity::Mixed(owners) = self.identity else { return None };
        let whose =
            |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (known, mut others) = (self.asked.latched, Vec::new());
        for (id, names) in owners.iter().filter(|(id, _)| Some(**id) != known) {
            others.push(format!("{} has the disk of cluster {id}", whose(names)));
        }
        let belongs = match known {
            Some(id) => format!("this RaftQueue is cluster {id}, but "),
            None => String::new(),
        };
        Some(format!(
            "{belongs}{}. Nothing is changed until the disks belong together: put the right volumes back, or delete the claim \
             and the pod of each node whose disk is not wanted (its messages go with it)",
            others.join("; ")
        ))
    }

    fn taken(&self) -> Option<String> {
        let taken: Vec<String> = self.children(Ownership::Foreign);
        if taken.is_empty() {
            return None;
        }
        Some(format!(
            "{} exists and belongs to something else. Delete or rename it, or give the RaftQueue another name",
            taken.join(", ")
        ))
    }

    fn leaving(&self) -> Option<String> {
        let leaving = self.children(Ownership::Leaving);
        let message = format!("waits until {} of an earlier RaftQueue is deleted", leaving.join(", "));
        Some(message).filter(|_| !leaving.is_empty())
    }

    fn children(&self, owner: Ownership) -> Vec<String> {
        let of_that = self.seen.children.iter().filter(|(_, seen)| seen.owner == owner);
        of_that.map(|(child, _)| child.describe(&self.asked.name)).collect()
    }

    fn not_made(&self) -> Option<String> {
        let complaint = self.seen.set.as_ref()?.complaint.as_ref()?;
        let missing: Vec<&str> = self
            .nodes
            .iter()
            .map(String::as_str)
            .filter(|name| !self.seen.pods.contains_key(*name))
            .collect();
        if missing.is_empty() {
            return None;
        }
        Some(format!(
            "{}: Kubernetes does not make the pod: {}. It tries again by itself",
            missing.join(", "),
            shorten(complaint)
        ))
    }

    /// Nodes that Kubernetes calls ready and that do not answer here.
    fn silent(&self) -> Option<String> {
        let mut why = None;
        let mut names = Vec::new();
        for (name, pod) in &self.seen.pods {
            if let NodeSeen::Silent(reason) = &pod.node
                && pod.ready
                && !pod.deleting
            {
                names.push(name.as_str());
                why.get_or_insert(reason);
            }
        }
        Some(format!(
            "{}: ready for Kubernetes, but the operator gets no answer at port {}: {}. If that stays so, a NetworkPolicy may \
             keep the operator out",
            names.join(", "),
            names::CLIENT_PORT,
            shorten(why?)
        ))
    }

    fn forming(&self) -> String {
        let waiting = self.waiting();
        match self.identity {
            Identity::Blank if waiting.is_empty() => "the nodes form the cluster".to_owned(),
            Identity::Blank => format!("the nodes form the cluster, which needs all of them once: {waiting}"),
            _ => format!("the members of the cluster find each other: {waiting}"),
        }
    }

    /// Whether enough members of a cluster that was just found may still turn up: nodes that have not answered yet, or
    /// that are bound and about to get the first entry.
    fn is_coming_together(&self) -> bool {
        match self.identity {
            Identity::Found { members, .. } => {
                let is_gone = |name: &str| {
                    let is_member =
                        |id: &str| members.iter().any(|member| member.name == name && member.id == id);
                    self.seen.pods.get(name).is_none_or(|pod| {
                        pod.trouble.is_some() || pod.answer().is_some_and(|answer| !is_member(&answer.id))
                    })
                };
                let hoped = members.iter().filter(|member| member.voter && !is_gone(&member.name)).count();
                hoped > members.len() / 2
            }
            Identity::Certain(_) => self.asked.latched.is_none(),
            Identity::Blank | Identity::Mixed(_) => false,
        }
    }

    /// Nodes that call themselves ready.
    fn up(&self) -> usize {
        let is_up = |name: &&String| {
            let pod = self.seen.pods.get(*name).filter(|pod| !pod.deleting);
            pod.and_then(|pod| pod.answer()).is_some_and(|answer| answer.ready)
        };
        self.nodes.iter().filter(is_up).count()
    }

    /// Every node calls itself ready, and Kubernetes has only not looked yet.
    fn is_about_to_be_ready(&self) -> bool {
        self.up() == self.nodes.len() && self.seen.cluster.is_some()
    }

    /// Why nodes are not ready, each in a few words.
    fn waiting(&self) -> String {
        let mut parts = Vec::new();
        for name in self.nodes.iter().filter(|name| !self.serving.contains(name.as_str())) {
            let why = match self.seen.pods.get(name) {
                None => "has no pod yet".to_owned(),
                Some(pod) if pod.deleting => "is being deleted".to_owned(),
                Some(pod) => match &pod.node {
                    _ if pod.trouble.is_some() => "does not run".to_owned(),
                    NodeSeen::NotAsked => "is starting".to_owned(),
                    NodeSeen::Silent(_) => "does not answer yet".to_owned(),
                    NodeSeen::Answered(answer) if answer.ready => "becomes ready".to_owned(),
                    NodeSeen::Answered(answer) if answer.not_ready_reason.is_empty() => {
                        "is not ready".to_owned()
                    }
                    NodeSeen::Answered(answer) => format!("says: {}", shorten(&answer.not_ready_reason)),
                },
            };
            parts.push(format!("{name} {why}"));
        }
        parts.join(", ")
    }

    /// Members of a formed cluster that do not serve.
    fn unready(&self) -> Option<(Reason, String)> {
        let (ready, all, quorum) = (self.serving.len(), self.nodes.len(), self.quorum());
        if let Identity::Found { id, members, found } = self.identity {
            let names = found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!(
                "disks of cluster {id} were found at {} of its {} members ({names}); a majority is needed. {}. Put the other \
                 volumes back; nothing is formed anew while these disks are there",
                found.len(),
                members.len(),
                self.waiting()
            );
            return Some((Reason::QuorumLost, message));
        }
        let waiting = self.waiting();
        if waiting.is_empty() && self.seen.cluster.is_some() {
            return None;
        }
        let up = self.up();
        let reason = match (&self.seen.cluster, up >= quorum) {
            (None, true) => Reason::NoLeader,
            (None, false) => Reason::QuorumLost,
            (Some(_), _) if up == quorum && all >= 3 => Reason::QuorumAtRisk,
            (Some(_), _) => Reason::MembersNotReady,
        };
        let mut message = format!("{ready} of {all} nodes are ready");
        match reason {
            Reason::QuorumAtRisk => message += "; one more failure would stop the cluster",
            Reason::QuorumLost => message += ", too few to serve",
            _ => {}
        }
        if !waiting.is_empty() {
            message += &format!(": {waiting}");
        }
        Some((reason, message))
    }

    fn replicas_fixed(&self) -> Option<String> {
        let (have, want) = (self.shape.replicas, self.asked.spec.replicas);
        let members = self.identity.members(self.asked, self.seen);
        let is_right = have == want && members.is_none_or(|members| members == have);
        if is_right || !self.refusals.is_empty() {
            return None;
        }
        Some(match members {
            Some(members) if members != have => format!(
                "spec.replicas is {want} and {have} pods were made, but the disks hold a cluster of {members} members. Set \
                 spec.replicas to {members}"
            ),
            _ => format!(
                "spec.replicas is {want}, but the cluster was made with {have}, and this version does not add or remove members: \
                 nothing is changed. Set spec.replicas back to {have}; for another number make a second RaftQueue and move \
                 the messages"
            ),
        })
    }

    fn older_pods(&self) -> Option<String> {
        let newest = self.seen.set.as_ref()?.revision.as_ref()?;
        let mut older: Vec<&str> = self
            .seen
            .pods
            .iter()
            // A pod whose node does not run is replaced without a request.
            .filter(|(_, pod)| !pod.deleting && pod.trouble.is_none())
            .filter(|(_, pod)| pod.revision.as_ref().is_some_and(|revision| revision != newest))
            .map(|(name, _)| name.as_str())
            .collect();
        let leader = self.leader_name().map(String::as_str);
        // A stable sort: the leader goes last, the others keep their order.
        older.sort_by_key(|name| Some(*name) == leader);
        let first = *older.first()?;
        let last = match older.last() {
            Some(last) if Some(*last) == leader && older.len() > 1 => format!(", the leader {last} last"),
            _ => String::new(),
        };
        Some(format!(
            "{} made before the last change of the image, the resources or the config. This version restarts no running node \
             by itself: delete the pods one at a time, each when all nodes are ready{last}. First: kubectl delete pod -n {} {first}",
            if older.len() == 1 { format!("{first} was") } else { format!("{} were", older.join(", ")) },
            self.asked.namespace,
        ))
    }
}
