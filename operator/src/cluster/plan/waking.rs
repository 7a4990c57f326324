//! A StatefulSet whose pod is missing for long is touched.
//!
//! Its controller makes no pod while the claim of that name is being deleted, says nothing, and does not notice when the claim is
//! gone: seen for 6.5 minutes, until something about the set changed. It watches no claims.

use super::step::Step;
use crate::cluster::observation::Observation;
use crate::cluster::validate::Asked;

/// How long a pod may be missing, and how long is waited between two touches, in seconds.
const MISSING_SECONDS_MAX: i64 = 30;

/// Absent unless it is due.
pub(super) fn decide(asked: &Asked, seen: &Observation, pods: i32) -> Option<Step> {
    let set = seen.set.as_ref().filter(|set| set.replicas == pods)?;
    // What it says about a claim that is being deleted it says for ever, also when that is gone.
    let is_old = |complaint: &String| complaint.contains("is being deleted");
    let complaint = set.complaint.as_ref().filter(|complaint| !is_old(complaint));
    let is_leaving = |node: &String| seen.claims.get(node).is_some_and(|claim| claim.deleting);
    let missing: Vec<String> =
        asked.nodes(pods).into_iter().filter(|node| !seen.pods.contains_key(node)).collect();
    let is_long = seen.unready_seconds.is_some_and(|seconds| seconds >= MISSING_SECONDS_MAX)
        && set.woken_seconds.is_none_or(|seconds| seconds >= MISSING_SECONDS_MAX);
    if missing.is_empty() || complaint.is_some() || missing.iter().all(is_leaving) || !is_long {
        return None;
    }
    Some(Step::Wake { set: asked.name.clone(), uid: set.uid.clone(), missing })
}
