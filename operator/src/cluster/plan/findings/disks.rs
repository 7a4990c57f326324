//! What there is to say about the disks: those that are lost, that are about to go, that have no volume, and that are too small.

use super::Case;
use crate::cluster::observation::{ClaimSeen, NodeAnswer, PodSeen};
use crate::cluster::plan::Identity;
use crate::cluster::plan::identity::members_of;
use crate::crd::{Disposal, Reason, thousandths};
use crate::names;
use std::collections::BTreeSet;

impl Case<'_> {
    /// Nodes whose disk is blank although the cluster has a member of their name.
    pub(super) fn lost(&self) -> Option<String> {
        let id = match self.identity {
            Identity::Certain(id) | Identity::Found { id, .. } => *id,
            Identity::Blank | Identity::Mixed(_) => return None,
        };
        let members = members_of(self.seen, id);
        let blank =
            self.seen.answers().filter(|(_, answer)| answer.cluster_id.is_none() && !answer.id.is_empty());
        let lost: BTreeSet<&str> = blank
            .filter(|(name, answer)| {
                let own = members.iter().find(|member| member.name == *name);
                // Who is no member is new, and waits to become one. If nobody knows the members, all are.
                own.map_or(self.asked.latched.is_some() && members.is_empty(), |member| {
                    member.id != answer.id
                })
            })
            .map(|(name, _)| name)
            .collect();
        if lost.is_empty() {
            return None;
        }
        let names = lost.iter().copied().collect::<Vec<_>>().join(", ");
        let put_back = self.put_back(lost.first()?);
        let voters = members.iter().filter(|member| member.voter).map(|member| &member.name);
        // If no node that answers knows the members, they are the nodes that there should be.
        let all: Vec<&String> =
            if members.is_empty() { self.nodes.iter().collect() } else { voters.collect() };
        let (left, all) = (all.iter().filter(|name| !lost.contains(name.as_str())).count(), all.len());
        Some(match () {
            () if left == 0 => format!(
                "{names}: the disk is empty, and no node has the log of cluster {id}: its messages are gone unless its volumes \
                 are put back. {put_back}. To begin anew without them, delete the RaftQueue and apply it again"
            ),
            () if left <= all / 2 => format!(
                "{names}: the disk is empty. {left} of {all} members of cluster {id} have their disks, and a majority is needed: \
                 nothing can be published or received, and the newest acknowledged messages may be on the lost disks alone. \
                 {put_back}"
            ),
            () if self.seen.cluster.is_some() => format!(
                "{names}: the disk is empty. Cluster {id} goes on with the {left} of {all} members that have their disks. {}",
                match self.decision {
                    Some(decision) if decision.replaces.is_some() => {
                        "The operator puts what the node is now in the place of what it was, once it has the log".to_owned()
                    }
                    Some(decision) if !decision.ahead.is_empty() => format!("Next: {}", decision.ahead[0]),
                    _ => "What the node is now waits to be added".to_owned(),
                }
            ),
            () => format!(
                "{names}: the disk is empty. {left} of {all} members of cluster {id} have their disks, enough for a majority \
                 once they run. {put_back}"
            ),
        })
    }

    /// How a node that has got an empty volume gets its own back.
    fn put_back(&self, node: &str) -> String {
        let (namespace, claim) = (&self.asked.namespace, names::claim(node));
        format!(
            "To put the volume of {node} back (kubectl get pv shows it): kubectl patch pv VOLUME -p \
             '{{\"spec\":{{\"claimRef\":{{\"namespace\":\"{namespace}\",\"name\":\"{claim}\",\"uid\":null,\
             \"resourceVersion\":null}}}}}}'; kubectl delete pvc -n {namespace} {claim} --wait=false; \
             kubectl delete pod -n {namespace} {node}"
        )
    }

    /// Volumes on machines that are gone.
    pub(super) fn stranded(&self) -> Option<String> {
        let stranded =
            self.seen.claims.iter().filter_map(|(node, claim)| Some((node, claim.stranded.as_ref()?)));
        let (nodes, machines): (Vec<&str>, Vec<&str>) =
            stranded.map(|(node, machine)| (node.as_str(), machine.as_str())).unzip();
        let (first, machine) = (nodes.first()?, machines.first()?);
        let next = match self.decision.and_then(|decision| decision.ahead.first()) {
            Some(next) => format!("Next: {next}"),
            None => format!(
                "After half a minute, and once a majority without {first} has every message, the operator gives that volume up"
            ),
        };
        Some(format!(
            "{}: the volume is on the machine {machine}, which is gone, so the pod cannot start. {next}",
            nodes.join(", ")
        ))
    }

    /// Disks of an older generation that nobody has allowed to delete, and what to write.
    pub(super) fn left_behind(&self) -> Option<String> {
        let cluster = self.seen.cluster.as_ref()?;
        let is_member = |id: &str| cluster.members.iter().any(|member| member.id == id);
        let is_held = |(_, answer): &(&str, &NodeAnswer)| {
            answer.cluster_id == Some(cluster.id)
                && answer.generation < cluster.generation
                && !is_member(&answer.id)
                && !self.asked.may_discard(answer.generation, cluster.generation)
        };
        // Nobody can ask the disk of a member that was removed: it may have been so before the cluster was forced to recover.
        let deletes = self.asked.spec.storage.retention.when_scaled == Disposal::Delete
            && cluster
                .generation
                .checked_sub(1)
                .is_some_and(|old| !self.asked.may_discard(old, cluster.generation));
        let is_due = |(node, claim): &(&String, &ClaimSeen)| {
            let is_marked = claim.removed_from == Some(cluster.id) && !claim.deleting;
            deletes && is_marked && !self.seen.pods.contains_key(*node)
        };
        let held = self.seen.answers().filter(is_held).map(|(name, _)| name.to_owned());
        let due = self.seen.claims.iter().filter(is_due).map(|(node, _)| names::claim(node));
        let nodes: Vec<String> = held.chain(due).collect();
        if nodes.is_empty() {
            return None;
        }
        let wish = self.asked.spec.storage.discard_before_generation;
        let wish = wish
            .map(|wish| format!("; spec.storage.discardBeforeGeneration is {wish}, which allows none of it"));
        let (generation, namespace, name) = (cluster.generation, &self.asked.namespace, &self.asked.name);
        Some(format!(
            "{}: the disk is from before the cluster was forced to recover to generation {generation}, and may hold messages that the \
             cluster lacks. It is not deleted before somebody says so{}. Set persistentVolumeReclaimPolicy of its volume to Retain \
             if you want to look at it later; then let the operator delete it: kubectl patch raftqueue -n {namespace} {name} \
             --type=merge -p '{{\"spec\":{{\"storage\":{{\"discardBeforeGeneration\":{generation}}}}}}}'",
            nodes.join(", "),
            wish.unwrap_or_default(),
        ))
    }

    /// The operator itself has deleted it: the disk is of an older generation, or on a machine that is gone.
    fn is_given_up(&self, node: &str, claim: &ClaimSeen) -> bool {
        let generation = self.seen.cluster.as_ref().map_or(0, |cluster| cluster.generation);
        let answer = self.seen.pods.get(node).and_then(PodSeen::answer);
        let is_old = |answer: &NodeAnswer| answer.cluster_id.is_some() && answer.generation < generation;
        claim.stranded.is_some() || answer.is_some_and(is_old)
    }

    /// Claims that somebody has deleted, and that last only as long as their pods.
    pub(super) fn disks_leaving(&self) -> Option<String> {
        let leaving: Vec<&str> = self
            .seen
            .claims
            .iter()
            .filter(|(node, claim)| claim.deleting && !self.is_given_up(node, claim))
            .map(|(node, _)| node.as_str())
            .collect();
        let first = leaving.first()?;
        let claims = leaving.iter().map(|node| names::claim(node)).collect::<Vec<_>>().join(", ");
        Some(format!(
            "{claims}: somebody has deleted the claim, and it goes with its disk when the pod {first} ends, which Kubernetes \
             cannot take back. If that was not meant, set persistentVolumeReclaimPolicy of its volume to Retain before"
        ))
    }

    pub(super) fn disks(&self) -> Option<(Reason, String)> {
        if let Some(message) = self.disks_leaving() {
            return Some((Reason::DiskLeaving, message));
        }
        if let Some(message) = self.left_behind() {
            return Some((Reason::DiskLeftBehind, message));
        }
        let claims = || self.nodes.iter().map(|node| (node, self.seen.claims.get(node)));
        let unbound: Vec<String> = claims()
            .filter(|(_, claim)| claim.is_none_or(|claim| !claim.bound))
            .map(|(node, _)| names::claim(node))
            .collect();
        if !unbound.is_empty() {
            let message = format!("{} has no volume yet", unbound.join(", "));
            return Some((Reason::DisksMissing, message));
        }
        let wanted = self.asked.disk_size()?;
        let sized = |pick: fn(&ClaimSeen) -> Option<&String>,
                     is_so: fn(Option<u128>, Option<u128>) -> bool| {
            claims().find_map(|(node, claim)| {
                let size = pick(claim?)?;
                is_so(thousandths(size), thousandths(wanted)).then(|| (names::claim(node), size.clone()))
            })
        };
        if let Some((claim, size)) = sized(|claim| claim.size.as_ref(), |size, wanted| size < wanted) {
            let message = format!(
                "spec.storage.size is {wanted}, and {claim} asks for {size}: the claims are enlarged one after the other, which their \
                 storage class has to allow (allowVolumeExpansion: true)"
            );
            return Some((Reason::DisksGrow, message));
        }
        if let Some((claim, size)) = sized(|claim| claim.size.as_ref(), |size, wanted| size > wanted) {
            let message = format!(
                "spec.storage.size is {wanted}, but {claim} has {size}, and disks do not shrink. Set it to {size} or leave it out; \
                 for smaller disks make a second RaftQueue and move the messages"
            );
            return Some((Reason::DisksCannotShrink, message));
        }
        if let Some((claim, size)) = sized(|claim| claim.capacity.as_ref(), |size, wanted| size < wanted) {
            let message = format!(
                "{claim} asks for {wanted}, and its volume has {size} yet: the driver of its storage class enlarges it"
            );
            return Some((Reason::DisksGrow, message));
        }
        let set =
            self.seen.set.as_ref()?.size.as_ref().filter(|size| thousandths(size) < thousandths(wanted))?;
        let message = format!(
            "StatefulSet {} makes new disks of {set} and is made anew for {wanted}, without its pods, once all nodes serve",
            self.asked.name
        );
        Some((Reason::DisksGrow, message))
    }
}
