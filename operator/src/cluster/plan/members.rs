//! Who is to be a member, and the next step towards it: pods, learners, voters, and the disks of those that are removed.
//!
//! Nothing is remembered: the step follows from what there is ([`scene`]), in one function ([`next`]). The steps ahead are found by
//! taking them in thought ([`ahead`]), so what a status tells is what will be done.
//!
//! Only the leader's word by a linearizable read counts. Without it, or where a node's image is too old to give it, nothing about
//! members is done, and the number of pods stays as it is.

mod ahead;
mod next;
mod scene;
mod words;

use super::Step;
use super::rolling::Rolling;
use super::step::Named;
use crate::cluster::observation::{Membership, Observation};
use crate::cluster::validate::Asked;
use crate::names;
use next::Move;
use scene::Scene;

/// What is decided about members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Pods that the StatefulSet is to have.
    pub(super) pods: i32,
    /// Claims that get or lose the mark of a removed member.
    pub(super) marks: Vec<ClaimMark>,
    /// A call to the nodes, or the deletion of a disk.
    pub(super) step: Option<Step>,
    /// The step and those after it, in words; empty if all is as asked.
    pub(super) ahead: Vec<String>,
    /// What keeps it from going on, where only people can help.
    pub(super) blocked: Option<String>,
    /// A voter is being replaced whose disk is lost.
    pub(super) replaces: Option<String>,
    /// Restarts that are due, once all members are as asked.
    pub(super) rolling: Option<Rolling>,
}

impl Decision {
    /// All members are as asked, and no restart is due.
    pub(super) fn is_settled(&self) -> bool {
        self.ahead.is_empty() && self.blocked.is_none() && self.rolling.is_none()
    }
}

/// A mark on a claim: that of a member which was removed, whose disk is to go. It holds for the claim as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMark {
    /// Name of the claim.
    pub claim: String,
    /// Which claim of that name.
    pub uid: String,
    /// The version that this was judged by.
    pub version: String,
    /// It gets the mark; else it loses it.
    pub removed: bool,
}

/// Decides, for a StatefulSet of so many pods.
pub(super) fn decide(asked: &Asked, seen: &Observation, membership: &Membership, pods: i32) -> Decision {
    let scene = Scene::of(asked, seen, membership, pods);
    let step = next::next(&scene);
    let mut decision = Decision {
        pods,
        marks: Vec::new(),
        step: None,
        ahead: ahead::ahead(&scene)
            .iter()
            .map(|(step, scene)| words::to_do(&asked.name, step, scene))
            .collect(),
        blocked: (step == Move::Blocked).then(|| words::blocked(&asked.name, &scene)),
        replaces: scene.lost().map(|ordinal| names::node(&asked.name, ordinal)),
        rolling: None,
    };
    let at = membership.at;
    let of = |ordinals: &[i32], id: &dyn Fn(i32) -> Option<String>| -> Vec<Named> {
        let named =
            |ordinal: &i32| Some(Named { name: names::node(&asked.name, *ordinal), id: id(*ordinal)? });
        ordinals.iter().filter_map(named).collect()
    };
    let waiting = |ordinal: i32| scene.waiting.get(&ordinal).cloned();
    let learner = |ordinal: i32| scene.learners.get(&ordinal).map(|member| member.id.clone());
    let voter = |ordinal: i32| scene.voters.get(&ordinal).map(|member| member.id.clone());
    match &step {
        Move::Wait(_) | Move::Blocked | Move::Done => {}
        Move::Pods(pods) => decision.pods = *pods,
        Move::Mark(ordinals) | Move::Unmark(ordinals) => {
            let removed = matches!(step, Move::Mark(_));
            let mark = |ordinal: &i32| {
                let node = names::node(&asked.name, *ordinal);
                let claim = seen.claims.get(&node)?;
                let (uid, version) = (claim.uid.clone(), claim.version.clone());
                Some(ClaimMark { claim: names::claim(&node), uid, version, removed })
            };
            decision.marks = ordinals.iter().filter_map(mark).collect();
        }
        Move::Add(ordinals) => decision.step = Some(Step::AddLearners { nodes: of(ordinals, &waiting), at }),
        Move::Promote(ordinals) => decision.step = Some(Step::Promote { nodes: of(ordinals, &learner), at }),
        Move::Remove(ordinals) => decision.step = Some(Step::Remove { nodes: of(ordinals, &voter), at }),
        Move::RemoveLearners(ordinals) => {
            decision.step = Some(Step::Remove { nodes: of(ordinals, &learner), at });
        }
        Move::Replace(ordinal) => {
            let (old, new) = (of(&[*ordinal], &voter).pop(), of(&[*ordinal], &learner).pop());
            decision.step = old.zip(new).map(|(old, new)| Step::Replace { old, new, at });
        }
        Move::DeleteDisk(ordinal) => {
            let node = names::node(&asked.name, *ordinal);
            decision.step = seen.claims.get(&node).map(|claim| Step::DeleteDisk {
                claim: names::claim(&node),
                uid: claim.uid.clone(),
                version: claim.version.clone(),
            });
        }
        Move::Discard(ordinal) => decision.step = discard(asked, seen, &scene, *ordinal),
    }
    decision
}

/// The claim first, which lasts as long as its pod, then the pod: the other way round another pod would take the same disk.
fn discard(asked: &Asked, seen: &Observation, scene: &Scene, ordinal: i32) -> Option<Step> {
    let node = names::node(&asked.name, ordinal);
    let machine = scene.stranded.get(&ordinal).cloned();
    if let Some(claim) = seen.claims.get(&node).filter(|claim| !claim.deleting) {
        let (uid, version) = (claim.uid.clone(), claim.version.clone());
        return Some(Step::DiscardDisk { claim: names::claim(&node), uid, version, machine });
    }
    let pod = seen.pods.get(&node).filter(|pod| !pod.deleting)?;
    Some(Step::DiscardPod { pod: node, uid: pod.uid.clone() })
}
