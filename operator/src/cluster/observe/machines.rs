//! Volumes that are bound to machines which are gone.
//!
//! A local volume names the machine that it is on. When that machine's object is deleted, Kubernetes keeps the pod waiting for it
//! for ever. Only pods that found no machine are looked at, so a cluster that is well costs no call.

use super::OBJECTS_MAX;
use crate::cluster::observation::{Observation, TroubleKind};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use std::collections::BTreeMap;

/// The label by which a volume names its machine.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Notes for each claim of a pod that finds no machine whether the machine of its volume is gone. `volumes` are the names of the
/// volumes by the nodes' names. What may not be read is taken to be there: nothing is given up on a guess.
pub(super) async fn look(
    client: &Client,
    seen: &mut Observation,
    volumes: &BTreeMap<String, String>,
) -> Result<(), kube::Error> {
    let unplaced = seen.pods.iter().filter(|(_, pod)| {
        let kind = pod.trouble.as_ref().map(|trouble| trouble.kind);
        matches!(kind, Some(TroubleKind::Placing | TroubleKind::Volume)) && pod.answer().is_none()
    });
    let unplaced: Vec<String> = unplaced.map(|(name, _)| name.clone()).collect();
    for node in unplaced {
        let Some(claim) = seen.claims.get_mut(&node).filter(|claim| claim.bound) else { continue };
        let Some(volume) = volumes.get(&node) else { continue };
        let api: Api<PersistentVolume> = Api::all(client.clone());
        let Some(volume) = readable(api.get_opt(volume).await)?.flatten() else { continue };
        let machines = machines_of(&volume);
        if !machines.is_empty() && is_gone(client, &machines).await? {
            claim.stranded = Some(machines.join(", "));
        }
    }
    Ok(())
}

/// The machines on which a volume can be used; empty if it does not say, or says it in a way that is not understood.
fn machines_of(volume: &PersistentVolume) -> Vec<String> {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    let mut machines = Vec::new();
    for term in affinity.iter().flat_map(|affinity| &affinity.node_selector_terms) {
        let named = term.match_expressions.iter().flatten();
        let named =
            named.filter(|one| one.key == HOSTNAME && one.operator == "In").flat_map(|one| &one.values);
        let before = machines.len();
        machines.extend(named.flatten().cloned());
        if machines.len() == before {
            // By this term, machines of other names will do.
            return Vec::new();
        }
    }
    machines
}

async fn is_gone(client: &Client, machines: &[String]) -> Result<bool, kube::Error> {
    let api: Api<PartialObjectMeta<Node>> = Api::all(client.clone());
    let of_name = format!("{HOSTNAME} in ({})", machines.join(","));
    let found =
        readable(api.list_metadata(&ListParams::default().labels(&of_name).limit(OBJECTS_MAX)).await)?;
    Ok(found.is_some_and(|found| found.items.is_empty()))
}

/// Absent where this operator may not read that.
fn readable<T>(read: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(terms: &Value) -> Vec<String> {
        let volume = json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
        machines_of(&serde_json::from_value(volume).unwrap())
    }

    #[test]
    fn a_volume_names_its_machine_or_is_not_judged() {
        let named = |key: &str, operator: &str| json!({"matchExpressions": [{"key": key, "operator": operator, "values": ["m1"]}]});
        assert_eq!(of(&json!([named(HOSTNAME, "In")])), ["m1"]);
        assert_eq!(of(&json!([named(HOSTNAME, "NotIn")])), Vec::<String>::new());
        assert_eq!(of(&json!([named("zone", "In")])), Vec::<String>::new());
        assert_eq!(of(&json!([named(HOSTNAME, "In"), named("zone", "In")])), Vec::<String>::new());
        assert_eq!(of(&json!([])), Vec::<String>::new());
    }
}
