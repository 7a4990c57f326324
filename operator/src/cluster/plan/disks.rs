//! With which object the disks are deleted: the owner references of their claims.
//!
//! `whenDeleted: Delete` makes the RaftQueue an owner of each claim, so that Kubernetes collects the disks with it,
//! without a finalizer; Retain takes that off again. `whenScaled` and `whenDeleted` of a StatefulSet would make the set
//! or a pod an owner: after one scale by hand the disk would be gone. Such owners are taken off, whoever put them
//! there.

use crate::cluster::observation::{ClaimSeen, Observation, OwnerSeen};
use crate::cluster::validate::Asked;
use crate::crd::{Disposal, RaftQueue};
use crate::names;
use kube::Resource;

/// A change of who owns a claim. It holds for the claim as it was seen: one that was changed meanwhile is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimChange {
    /// Name of the claim.
    pub claim: String,
    /// Which claim of that name.
    pub uid: String,
    /// The version that this was judged by.
    pub version: String,
    /// The RaftQueue becomes an owner.
    pub own: bool,
    /// Owners that are taken off, by their uids.
    pub disown: Vec<String>,
}

/// What must change about the owners of the claims; empty if all is as asked.
pub(super) fn changes(asked: &Asked, seen: &Observation) -> Vec<ClaimChange> {
    seen.claims.iter().filter_map(|(node, claim)| change(asked, node, claim)).collect()
}

fn change(asked: &Asked, node: &str, claim: &ClaimSeen) -> Option<ClaimChange> {
    let goes_with_it = asked.spec.storage.retention.when_deleted == Disposal::Delete;
    let is_queue = |owner: &OwnerSeen| owner.kind == RaftQueue::kind(&()) && owner.name == asked.name;
    let is_ours = |owner: &OwnerSeen| owner.uid == asked.uid;
    // The claim is being deleted, or will be with an earlier object of the same name, as was asked then.
    if claim.deleting || claim.owners.iter().any(|owner| is_queue(owner) && !is_ours(owner)) {
        return None;
    }
    let is_hazard = |owner: &OwnerSeen| match owner.kind.as_str() {
        "StatefulSet" => owner.name == asked.name,
        "Pod" => owner.name == node,
        _ => false,
    };
    let own = goes_with_it && !claim.owners.iter().any(is_ours);
    let unwanted = |owner: &&OwnerSeen| is_hazard(owner) || (is_ours(owner) && !goes_with_it);
    let disown: Vec<String> = claim.owners.iter().filter(unwanted).map(|owner| owner.uid.clone()).collect();
    (own || !disown.is_empty()).then(|| ClaimChange {
        claim: names::claim(node),
        uid: claim.uid.clone(),
        version: claim.version.clone(),
        own,
        disown,
    })
}
