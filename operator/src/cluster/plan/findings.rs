//! What there is to say about a cluster: its problems in order of urgency, and the conditions that follow.
//!
//! A message names who is concerned, what is wrong, and what to do, or that nothing needs to be done.

mod children;
mod disks;
mod encryption;
mod serving;
mod spec;

use super::identity::members_of;
use super::members::Decision;
use super::recovery::Recovery;
use super::trouble::{self, shorten};
use super::{Identity, NextLook, Shape};
use crate::cluster::encryption::Turn;
use crate::cluster::observation::Observation;
use crate::cluster::validate::{Asked, Refusal};
use crate::crd::{ConditionType, Finding, Phase, Reason, Truth};
use std::collections::BTreeSet;

/// For how long a step may be the next one before that is called wrong, in seconds. Words of a step that change show that it goes on.
const STEP_SECONDS_MAX: i64 = 600;

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
    /// What is decided about members; absent while nobody can say who they are.
    decision: Option<&'a Decision>,
    /// What can be done about a quorum that is lost.
    recovery: Option<&'a Recovery>,
    /// What is encrypted.
    turn: &'a Turn,
    /// The nodes that have pods.
    nodes: Vec<String>,
    /// The nodes that vote, as far as that is known; else those that have pods.
    voters: Vec<String>,
    /// Those that serve.
    serving: BTreeSet<&'a str>,
}

/// Judges a cluster.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one thing that was decided, and all of them are looked at"
)]
pub(super) fn judge(
    asked: &Asked,
    refusals: &[Refusal],
    seen: &Observation,
    identity: &Identity,
    shape: &Shape,
    decision: Option<&Decision>,
    recovery: Option<&Recovery>,
    turn: &Turn,
) -> Verdict {
    let serving = seen.pods.iter().filter(|(_, pod)| pod.serves()).map(|(name, _)| name.as_str()).collect();
    let nodes = asked.nodes(shape.pods);
    let voters = voters(seen, identity).unwrap_or_else(|| nodes.clone());
    let case =
        Case { asked, refusals, seen, identity, shape, decision, recovery, turn, nodes, voters, serving };
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

/// The voters of a cluster that is certain, where somebody knows them.
fn voters(seen: &Observation, identity: &Identity) -> Option<Vec<String>> {
    let members = members_of(seen, identity.certain()?);
    let voters = members.into_iter().filter(|member| member.voter).map(|member| member.name);
    Some(voters.collect::<Vec<String>>()).filter(|voters| !voters.is_empty())
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
        self.voters.len() / 2 + 1
    }

    /// The next step, if it has been the next one for too long. Nothing else is begun instead, so people must know.
    fn overdue(&self) -> Option<String> {
        let decision = self.decision.filter(|_| !self.asked.spec.paused)?;
        let rolling = || decision.rolling.as_ref().and_then(|rolling| rolling.ahead.first());
        let next = decision.ahead.first().or_else(rolling)?;
        self.seen.step_seconds.filter(|seconds| *seconds >= STEP_SECONDS_MAX)?;
        let (step, _) = self.asked.step_kept.as_ref()?;
        (step == next).then(|| {
            format!(
                "this step has been the next one for more than {} minutes: {next}. It is still tried, and no other is begun instead; \
                 the conditions Ready and Degraded tell what is in its way",
                STEP_SECONDS_MAX / 60
            )
        })
    }

    fn all_well(&self) -> String {
        match self.voters.len() {
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
        if let Some((reason, message)) = self.turn.blocked.clone() {
            let phase = if self.seen.set.is_some() { Phase::Degraded } else { Phase::Pending };
            let weight =
                if reason == Reason::CertificatesMissing { Weight::Wrong } else { Weight::NotAsAsked };
            tell(reason, phase, weight, message);
        }
        let stuck = trouble::tell(self.asked, self.seen, self.shape);
        let is_formed = self.identity.is_formed();
        let serves = is_formed && self.seen.cluster.is_some();
        let phase = match () {
            () if serves => Phase::Degraded,
            () if is_formed => Phase::Unavailable,
            () => Phase::Forming,
        };
        if let Some((reason, message)) = self.recoverable() {
            tell(reason, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.stranded() {
            tell(Reason::DiskStranded, phase, Weight::Wrong, message);
        }
        if let Some((reason, message)) = stuck {
            tell(reason, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.not_made() {
            tell(Reason::PodNotMade, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.lost() {
            tell(Reason::DiskLost, phase, Weight::Wrong, message);
        }
        if let Some(message) = self.left_behind() {
            tell(Reason::DiskLeftBehind, phase, Weight::Wrong, message);
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
        if let Some((reason, message)) = self.not_the_members_asked_for() {
            let (phase, weight) = match reason {
                Reason::Scaling => (Phase::Scaling, Weight::OnItsWay),
                Reason::ReplacingMember => (phase, Weight::OnItsWay),
                _ => (Phase::Refused, Weight::NotAsAsked),
            };
            tell(reason, phase, weight, message);
        }
        match self.older_pods() {
            Some((true, message)) => tell(Reason::OlderPods, Phase::Updating, Weight::OnItsWay, message),
            Some((false, message)) => tell(Reason::OlderPods, Phase::Outdated, Weight::NotAsAsked, message),
            None => {}
        }
        if let Some(message) = self.changes_encryption() {
            tell(Reason::TlsChanging, Phase::Updating, Weight::OnItsWay, message);
        }
        if let Some((reason, message)) = self.disks()
            && !matches!(reason, Reason::DiskLeaving | Reason::DiskLeftBehind)
        {
            let weight = if reason == Reason::DisksGrow { Weight::OnItsWay } else { Weight::NotAsAsked };
            tell(reason, Phase::Ready, weight, message);
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
            match (self.overdue(), first(&[Weight::OnItsWay])) {
                (Some(message), _) => finding(About::Progressing, false, Reason::StepOverdue, message),
                (None, Some(problem)) => of(About::Progressing, problem, true),
                (None, None) => fine(About::Progressing, false, "nothing is on its way"),
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
                Reason::MembersByHand,
                Reason::MembersUnknown,
                Reason::CertificatesMissing,
                Reason::KindUnusable,
            ]) {
                Some(problem) => of(About::SpecAccepted, problem, false),
                // It keeps no node from serving, so it is no problem of the cluster's.
                None => match self.unusable() {
                    Some(message) => finding(About::SpecAccepted, false, Reason::KindUnusable, message),
                    None => fine(About::SpecAccepted, true, "the spec can be followed"),
                },
            },
            self.encrypted(),
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
        if self.voters.len() == 1 {
            let message = "one member keeps the only copy of every message: a lost disk loses them all, and nothing is served \
                           while the node restarts. Three members bear the loss of one";
            findings.push(finding(About::SingleMember, true, Reason::OneMember, message));
        }
        if let Some(problem) = among(&[Reason::MixedClusters]) {
            findings.push(of(About::ForeignDisk, problem, true));
        }
        if let Some(problem) = among(&[Reason::RecoveryOffered, Reason::RecoveryStale]) {
            findings.push(of(About::RecoveryPossible, problem, true));
        }
        findings
    }
}
