//! What is left of a cluster that has lost its quorum, and what a person may do about it.
//!
//! Nobody goes on alone by the operator's own decision. The node that has most is shown with its token, which fits only what it is
//! at that moment. `spec.recovery` gives both back; then it is done, once: afterwards the token fits nothing any more.
//!
//! Where a node may be one of a majority that only this operator cannot reach, nothing is offered.

use super::Identity;
use super::step::{Named, Step};
use crate::cluster::observation::{NodeSeen, Observation, RecoverySeen};
use crate::cluster::validate::Asked;
use std::cmp::Reverse;

/// Who can go on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The node.
    pub node: Named,
    /// What `spec.recovery` has to give back.
    pub token: String,
    /// What is known, and what it costs.
    pub text: String,
}

/// What is decided about a quorum that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    pub(super) offer: Offer,
    /// Somebody said so.
    pub(super) step: Option<Step>,
    /// `spec.recovery` asks for something else.
    pub(super) stale: Option<String>,
}

/// Absent while there is a leader, or where no node could go on.
pub(super) fn decide(asked: &Asked, identity: &Identity, seen: &Observation) -> Option<Recovery> {
    let id = identity.certain().filter(|id| asked.latched == Some(*id))?;
    if seen.cluster.is_some() || may_be_elsewhere(seen) {
        return None;
    }
    let is_able = |(name, said): &(&String, &RecoverySeen)| {
        let answer = seen.pods.get(*name).filter(|pod| !pod.deleting).and_then(|pod| pod.answer());
        // A disk that an earlier recovery left behind would begin another history of the same generation.
        answer.is_some_and(|answer| answer.cluster_id == Some(id) && answer.id == said.id)
            && said.generation >= asked.generation_kept
            && said.refusal.is_none()
            && !said.token.is_empty()
    };
    let has = |(name, said): &(&String, &RecoverySeen)| {
        (said.generation, said.caution.is_none(), said.last_term, said.last, Reverse((*name).clone()))
    };
    let (name, said) = seen.recoveries.iter().filter(is_able).max_by_key(has)?;
    let node = Named { name: name.clone(), id: said.id.clone() };
    let text = describe(asked, seen, name, said);
    let mut recovery = Recovery {
        offer: Offer { node: node.clone(), token: said.token.clone(), text },
        step: None,
        stale: None,
    };
    match &asked.spec.recovery {
        Some(wish) if wish.member == node.name && wish.token.trim() == said.token => {
            let costs = said.costs.join("; ");
            let (token, force) = (said.token.clone(), said.caution.is_some());
            recovery.step = Some(Step::Recover { node, token, force, costs });
        }
        Some(wish) => {
            recovery.stale = Some(format!(
                "spec.recovery names {} and the token {}, which is not what is so now",
                wish.member, wish.token
            ));
        }
        None => {}
    }
    Some(recovery)
}

/// Whether a node that does not answer here serves others, as Kubernetes says.
fn may_be_elsewhere(seen: &Observation) -> bool {
    seen.pods.values().any(|pod| pod.ready && !pod.deleting && matches!(pod.node, NodeSeen::Silent(_)))
}

fn describe(asked: &Asked, seen: &Observation, name: &str, said: &RecoverySeen) -> String {
    let others: Vec<String> = seen
        .recoveries
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(other, said)| {
            format!("{other} has its log up to index {} of term {}", said.last, said.last_term)
        })
        .collect();
    let others =
        if others.is_empty() { "no other node answers with its log".into() } else { others.join(", ") };
    let caution = said.caution.as_ref().map(|why| format!("; it is forced to: {why}")).unwrap_or_default();
    format!(
        "{name} (generation {}) has the log up to index {} of term {}, and knows it to be committed up to {}; {others}. If a \
         majority may come back with its disks, start those nodes instead. {name} can go on alone: kubectl patch raftqueue -n {} {} \
         --type=merge -p '{{\"spec\":{{\"recovery\":{{\"member\":\"{name}\",\"token\":\"{}\"}},\"storage\":\
         {{\"discardBeforeGeneration\":{}}}}}}}'. What that costs: {}; the operator then deletes the old disks of the other nodes, unless \
         you leave storage out{caution}",
        said.generation,
        said.last,
        said.last_term,
        said.commit,
        asked.namespace,
        asked.name,
        said.token,
        u64::from(said.generation) + 1,
        said.costs.join("; "),
    )
}
