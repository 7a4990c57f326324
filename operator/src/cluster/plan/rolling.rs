//! Pods that were made before the last change are restarted: one at a time, the highest ordinal first, the leader last and only
//! after it has handed over.
//!
//! Nobody is restarted while another member is not well: not only ready, but caught up and complete, as the leader says. A pod
//! whose own node is the only one that is not well goes first, since nobody counts on it.

use super::Step;
use super::step::Named;
use crate::cluster::observation::{ClusterSeen, Membership, Observation};
use crate::cluster::validate::Asked;
use std::collections::BTreeMap;

/// Restarts that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rolling {
    /// The pods, in the order in which they are restarted.
    pub(super) older: Vec<String>,
    /// The step that is due.
    pub(super) step: Option<Step>,
    /// This step and those after it, in words.
    pub(super) ahead: Vec<String>,
}

impl Rolling {
    /// Nothing is restarted for now: what is waited for comes first.
    pub(super) fn wait_for(&mut self, what: &str) {
        self.step = None;
        self.ahead.insert(0, what.to_owned());
    }
}

/// What is due for a StatefulSet of so many pods; absent if all of them are of its newest template.
pub(super) fn decide(
    asked: &Asked,
    seen: &Observation,
    cluster: &ClusterSeen,
    membership: &Membership,
    pods: i32,
) -> Option<Rolling> {
    let newest = seen.set.as_ref()?.revision.as_ref()?;
    let leader = membership.members.iter().find(|member| member.id == cluster.leader);
    let leads = |name: &str| leader.is_some_and(|leader| leader.name == name);
    let is_older = |name: &String| {
        let revision = seen.pods.get(name).filter(|pod| !pod.deleting).and_then(|pod| pod.revision.as_ref());
        revision.is_some_and(|revision| revision != newest)
    };
    let nodes = asked.nodes(pods);
    let mut older: Vec<String> = nodes.iter().rev().filter(|name| is_older(name)).cloned().collect();
    // A stable sort: the leader goes last, the others keep their order.
    older.sort_by_key(|name| leads(name));
    let unwell = unwell(seen, membership, &nodes);
    // Who alone is not well goes first.
    if let [alone] = unwell.keys().collect::<Vec<_>>()[..] {
        older.sort_by_key(|name| name != *alone);
    }
    let first = older.first()?;
    let is_due = unwell.keys().all(|name| *name == first);
    let is_alone = nodes.len() == 1;
    let step = match leader {
        _ if !is_due => None,
        Some(leader) if leads(first) && !is_alone => {
            Some(Step::HandOver { from: Named { name: leader.name.clone(), id: leader.id.clone() } })
        }
        _ => {
            let uid = seen.pods.get(first).map(|pod| pod.uid.clone())?;
            Some(Step::RestartPod { pod: first.clone(), uid })
        }
    };
    let wait = (!is_due).then(|| {
        let why = unwell.iter().filter(|(name, _)| **name != first);
        let why = why.map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; ");
        format!("wait until all other nodes are well ({why})")
    });
    let restarts = older.iter().map(|name| match leads(name) && !is_alone {
        true => format!("have {name} hand over the lead, and restart it"),
        false => format!("restart {name}"),
    });
    let ahead = wait.into_iter().chain(restarts).collect();
    Some(Rolling { older, step, ahead })
}

/// Nodes that others cannot rely on now, with the reasons.
fn unwell<'a>(
    seen: &Observation,
    membership: &'a Membership,
    nodes: &'a [String],
) -> BTreeMap<&'a String, &'a str> {
    let mut unwell = BTreeMap::new();
    for name in nodes.iter().filter(|name| !seen.pods.get(*name).is_some_and(|pod| pod.serves())) {
        unwell.insert(name, "it is not ready");
    }
    for member in &membership.members {
        if let Some(why) = &member.unwell {
            unwell.insert(&member.name, why.as_str());
        }
    }
    unwell
}
