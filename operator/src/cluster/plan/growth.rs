//! Disks grow: each claim asks for more, and then the StatefulSet is made anew without its pods, because what it says of new disks
//! can never change.
//!
//! Each step stands for itself: claims that have grown are not touched again, and a set that is gone is made for the new size.
//! Nothing of it restarts a pod.

use super::step::Step;
use crate::cluster::observation::{Observation, Ownership};
use crate::cluster::validate::Asked;
use crate::crd::thousandths;
use crate::names;

/// What is due for disks of so many pods; absent if they are as large as asked, or larger.
pub(super) fn decide(asked: &Asked, seen: &Observation, pods: i32) -> Option<Step> {
    let wanted = asked.disk_size()?;
    let is_smaller =
        |size: &Option<String>| size.as_ref().is_some_and(|size| thousandths(size) < thousandths(wanted));
    for node in asked.nodes(pods) {
        let Some(claim) = seen.claims.get(&node).filter(|claim| !claim.deleting && claim.bound) else {
            continue;
        };
        if is_smaller(&claim.size) {
            let (uid, version) = (claim.uid.clone(), claim.version.clone());
            return Some(Step::GrowClaim {
                claim: names::claim(&node),
                uid,
                version,
                size: wanted.to_owned(),
            });
        }
    }
    let set = seen.set.as_ref().filter(|set| is_smaller(&set.size))?;
    // All is there that it would make, so that nothing is missed while it is away.
    let is_whole = seen.pods.len() == usize::try_from(pods).unwrap_or(0)
        && seen.pods.values().all(|pod| !pod.deleting && pod.serves())
        && seen.children.values().all(|child| child.owner == Ownership::Ours);
    let (set, uid) = (asked.name.clone(), set.uid.clone());
    is_whole.then(|| Step::RemakeSet { set, uid, size: wanted.to_owned() })
}
