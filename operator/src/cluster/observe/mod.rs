//! One look at everything that belongs to a RaftQueue, from the API server and from the nodes themselves.
//!
//! It only reads. Every pass looks anew, by direct reads: an answer from a cache could be older than this operator's
//! last act. Watches only tell when to look.

mod machines;
mod monitors;
mod nodes;
mod pods;
mod secrets;

pub use nodes::ask_all;

use crate::cluster::build::encryption_kept;
use crate::cluster::observation::{
    Child, ChildSeen, ClaimSeen, ClusterId, Fingerprint, KindSeen, Observation, OwnerSeen, Ownership,
    SetSeen, Way,
};
use crate::cluster::validate::Asked;
use crate::crd::RaftQueue;
use crate::names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Most objects of a kind that are looked at for one RaftQueue. There are never as many pods.
const OBJECTS_MAX: u32 = 100;
/// Reasons of the events of a StatefulSet that tell whether Kubernetes can make its pods.
const MADE: &str = "SuccessfulCreate";
const NOT_MADE: &str = "FailedCreate";

/// Looks at the cluster. Cancelling it is safe at any point.
///
/// # Errors
/// An error of the API server, for the caller to report and try again. A node that does not answer is not an error.
pub async fn observe(client: &Client, asked: &Asked) -> Result<Observation, kube::Error> {
    let namespace = asked.namespace.as_str();
    let headless = names::headless(&asked.name);
    let config_map = names::config_map(&asked.name);
    let selector =
        ListParams::default().labels(&names::as_text(&names::selector(&asked.name))).limit(OBJECTS_MAX);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let (set, headless, service, config_map, account, budget, policy, monitors, pods, claims) = tokio::try_join!(
        sets.get_opt(&asked.name),
        metadata::<Service>(client, namespace, &headless),
        metadata::<Service>(client, namespace, &asked.name),
        metadata::<ConfigMap>(client, namespace, &config_map),
        metadata::<ServiceAccount>(client, namespace, &asked.name),
        metadata::<PodDisruptionBudget>(client, namespace, &asked.name),
        metadata::<NetworkPolicy>(client, namespace, &asked.name),
        monitors::look(client, asked),
        pods.list(&selector),
        claims.list(&selector),
    )?;
    let monitors::MonitorsSeen { service_monitors, prometheus_rules, found } = monitors;
    let now = Timestamp::now();
    let way = Way { domain: names::domain(&asked.name, &asked.namespace), credentials: None };
    let now_seconds = now.as_second();
    let mut seen =
        Observation { service_monitors, prometheus_rules, way, now_seconds, ..Observation::default() };
    let mut child = |child, found: Option<&ObjectMeta>| {
        if let Some(found) = found {
            let uid = found.uid.clone().unwrap_or_default();
            let kept = found.annotations.as_ref().and_then(|all| all.get(names::CLUSTER_ID_ANNOTATION));
            let cluster_id = kept.and_then(|text| ClusterId::parse(text));
            let template =
                found.annotations.as_ref().and_then(|all| all.get(names::TEMPLATE_ANNOTATION)).cloned();
            let (owner, holder) = (ownership(asked, found), holder(found));
            seen.fingerprints.insert(child, Fingerprint::of(found));
            seen.children.insert(child, ChildSeen { owner, holder, uid, cluster_id, template });
        }
    };
    child(Child::HeadlessService, headless.as_ref());
    child(Child::ClientService, service.as_ref());
    child(Child::ConfigMap, config_map.as_ref());
    child(Child::ServiceAccount, account.as_ref());
    child(Child::Budget, budget.as_ref());
    // One of somebody else under this name is in nobody's way while none is asked for.
    let spec = &asked.spec;
    let is_wanted = spec.network_policy.as_ref().is_some_and(|wanted| wanted.enabled);
    child(
        Child::NetworkPolicy,
        policy.as_ref().filter(|policy| is_wanted || is_ours(ownership(asked, policy))),
    );
    found.iter().for_each(|(kind, found)| child(*kind, Some(found)));
    child(Child::StatefulSet, set.as_ref().map(|set| &set.metadata));
    seen.claims = claims.items.iter().filter_map(|claim| see_claim(asked, claim)).collect();
    seen.unready_seconds = asked.unready_since.map(|since| now.as_second() - since);
    seen.step_seconds = asked.step_kept.as_ref().map(|(_, since)| now.as_second() - since);
    if set.as_ref().is_some_and(|set| !is_ours(ownership(asked, &set.metadata))) {
        return Ok(seen);
    }
    let uid = set.as_ref().and_then(ResourceExt::uid);
    let own: Vec<Pod> =
        pods.items.into_iter().filter(|pod| is_node(asked, &pod.metadata, uid.as_deref())).collect();
    if let (Some(set), Some(uid)) = (set, uid) {
        let mut set_seen = see_set(&set, now);
        if i32::try_from(own.len()).is_ok_and(|count| count < set_seen.replicas) {
            set_seen.complaint = complaint(client, namespace, &uid).await?;
        }
        seen.set = Some(set_seen);
    }
    seen.pods = pods::look(client, namespace, own, now).await?;
    let template = seen.template_kept().and_then(|kept| encryption_kept(kept));
    secrets::look(client, asked, &mut seen, template.as_ref()).await?;
    seen.cluster = ask_all(&seen.way, &mut seen.pods).await;
    if seen.cluster.is_none() {
        seen.recoveries = nodes::ask_what_is_left(&seen.way, &seen.pods).await;
    }
    let volumes = claims.items.iter().filter_map(|claim| {
        let node = names::node_of_claim(&asked.name, claim.metadata.name.as_ref()?)?;
        Some((node.to_owned(), claim.spec.as_ref()?.volume_name.clone()?))
    });
    machines::look(client, &mut seen, &volumes.collect()).await?;
    Ok(seen)
}

async fn metadata<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let api: Api<kube::core::PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?.map(|object| object.metadata))
}

/// The same of a kind that this Kubernetes may not know, or that an operator with older rights may not use.
async fn of_others<K>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<(KindSeen, Option<ObjectMeta>), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let api: Api<kube::core::PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    match api.get(name).await {
        Ok(found) => Ok((KindSeen::Usable, Some(found.metadata))),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok((KindSeen::Forbidden, None)),
        // An object that is missing is named in the answer; of an unknown kind not even the path is known.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let is_named = status.details.as_ref().is_some_and(|details| details.name == name);
            Ok((if is_named { KindSeen::Usable } else { KindSeen::Unknown }, None))
        }
        Err(error) => Err(error),
    }
}

/// Whose an object is that has the name of a child of ours.
fn ownership(asked: &Asked, found: &ObjectMeta) -> Ownership {
    let controller =
        found.owner_references.iter().flatten().find(|reference| reference.controller == Some(true));
    let is_labelled = || {
        let labels = found.labels.as_ref();
        let is = |key, value| labels.and_then(|labels| labels.get(key)).is_some_and(|label| label == value);
        is(names::MANAGED_BY_LABEL, names::MANAGER) && is(names::INSTANCE_LABEL, asked.name.as_str())
    };
    match controller {
        Some(owner) if owner.uid == asked.uid && found.deletion_timestamp.is_none() => Ownership::Ours,
        Some(owner) if owner.kind == RaftQueue::kind(&()) && owner.name == asked.name => Ownership::Leaving,
        Some(_) => Ownership::Foreign,
        None if !is_labelled() => Ownership::Foreign,
        None if found.deletion_timestamp.is_some() => Ownership::Leaving,
        None => Ownership::Orphan,
    }
}

/// Kind and name of whoever controls an object.
fn holder(found: &ObjectMeta) -> Option<String> {
    let owner = found.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    Some(format!("{} {}", owner.kind, owner.name))
}

fn is_ours(owner: Ownership) -> bool {
    matches!(owner, Ownership::Ours | Ownership::Orphan)
}

/// Whether a pod is that of a node: made by the StatefulSet of this uid, or left behind by one that was deleted without its pods. The
/// next set takes those over by their names, and meanwhile they serve.
fn is_node(asked: &Asked, pod: &ObjectMeta, set: Option<&str>) -> bool {
    let is_left = pod.owner_references.iter().flatten().all(|owner| owner.controller != Some(true));
    let has_name = || pod.name.as_ref().is_some_and(|name| names::ordinal(&asked.name, name).is_some());
    set.is_some_and(|uid| is_owned_by(pod, uid)) || (is_left && has_name())
}

fn is_owned_by(object: &ObjectMeta, uid: &str) -> bool {
    object.owner_references.iter().flatten().any(|owner| owner.uid == uid && owner.controller == Some(true))
}

fn see_set(set: &StatefulSet, now: Timestamp) -> SetSeen {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let claim = spec
        .volume_claim_templates
        .as_ref()
        .and_then(|claims| claims.first())
        .and_then(|claim| claim.spec.clone());
    let keeps = |policy: &Option<String>| policy.as_deref().is_none_or(|policy| policy == names::RETAIN);
    let retention = spec.persistent_volume_claim_retention_policy.as_ref();
    let container = spec.template.spec.as_ref().and_then(|pod| pod.containers.first());
    let woken =
        set.annotations().get(names::WOKEN_ANNOTATION).and_then(|text| text.parse::<Timestamp>().ok());
    SetSeen {
        uid: set.uid().unwrap_or_default(),
        version: set.resource_version().unwrap_or_default(),
        woken_seconds: woken.map(|woken| now.as_second() - woken.as_second()),
        replicas: spec.replicas.unwrap_or(1),
        generation: set.metadata.generation,
        made_for: set.annotations().get(names::MADE_FOR_ANNOTATION).and_then(|text| text.parse().ok()),
        pods: status.replicas,
        template: set.annotations().get(names::TEMPLATE_ANNOTATION).cloned(),
        image: container.and_then(|container| container.image.clone()),
        size: claim.as_ref().and_then(|claim| storage_of(claim.resources.as_ref()?.requests.as_ref()?)),
        class: claim.and_then(|claim| claim.storage_class_name),
        keeps_disks: retention
            .is_none_or(|retention| keeps(&retention.when_deleted) && keeps(&retention.when_scaled)),
        revision: status.update_revision.filter(|_| status.observed_generation >= set.metadata.generation),
        complaint: None,
    }
}

/// A claim of a node, which its name says; others with the same labels are none of ours.
fn see_claim(asked: &Asked, claim: &PersistentVolumeClaim) -> Option<(String, ClaimSeen)> {
    let node = names::node_of_claim(&asked.name, claim.metadata.name.as_ref()?)?.to_owned();
    let owner = |owner: &OwnerReference| OwnerSeen {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    };
    let spec = claim.spec.as_ref();
    let seen = ClaimSeen {
        uid: claim.uid().unwrap_or_default(),
        version: claim.resource_version().unwrap_or_default(),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        owners: claim.metadata.owner_references.iter().flatten().map(owner).collect(),
        bound: claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"),
        size: spec.and_then(|spec| storage_of(spec.resources.as_ref()?.requests.as_ref()?)),
        capacity: claim.status.as_ref().and_then(|status| storage_of(status.capacity.as_ref()?)),
        stranded: None,
        class: spec.and_then(|spec| spec.storage_class_name.clone()),
        removed_from: claim
            .annotations()
            .get(names::REMOVED_FROM_ANNOTATION)
            .and_then(|text| ClusterId::parse(text)),
    };
    Some((node, seen))
}

fn storage_of(
    requests: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
) -> Option<String> {
    requests.get("storage").map(|quantity| quantity.0.clone())
}

/// Why the StatefulSet's controller makes no pods, if that is the last thing it said about making one.
async fn complaint(client: &Client, namespace: &str, uid: &str) -> Result<Option<String>, kube::Error> {
    let said = events_of(client, namespace, uid).await?;
    let last = said
        .into_iter()
        .filter(|event| [MADE, NOT_MADE].map(Some).contains(&event.reason.as_deref()))
        .max_by_key(told_at);
    Ok(last.filter(|event| event.reason.as_deref() == Some(NOT_MADE)).and_then(|event| event.message))
}

/// What Kubernetes said about an object, in no order.
async fn events_of(client: &Client, namespace: &str, uid: &str) -> Result<Vec<Event>, kube::Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(OBJECTS_MAX);
    Ok(api.list(&about).await?.items)
}

/// When an event was told last.
fn told_at(event: &Event) -> Option<Timestamp> {
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let classic = event.last_timestamp.as_ref().map(|time| time.0);
    series.or(classic).or_else(|| event.event_time.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::build::ServiceMonitor;
    use crate::crd::RaftQueueSpec;
    use serde_json::{Value, json};

    fn asked() -> Asked {
        let mut object = RaftQueue::new("demo", RaftQueueSpec::default());
        object.metadata.namespace = Some("shop".into());
        object.metadata.uid = Some("ours".into());
        crate::cluster::validate::asked(&object, "node:1")
    }

    fn owner(kind: &str, name: &str, uid: &str) -> Value {
        json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
    }

    #[test]
    fn a_child_is_known_by_its_owner_and_not_by_its_name() {
        let labels = json!({"app.kubernetes.io/managed-by": "raftqueue-operator", "app.kubernetes.io/instance": "demo"});
        let gone = "2026-01-01T00:00:00Z";
        for (metadata, expected) in [
            (json!({"ownerReferences": owner("RaftQueue", "demo", "ours")}), Ownership::Ours),
            (
                json!({"ownerReferences": owner("RaftQueue", "demo", "ours"), "deletionTimestamp": gone}),
                Ownership::Leaving,
            ),
            (json!({"ownerReferences": owner("RaftQueue", "demo", "earlier")}), Ownership::Leaving),
            (json!({"ownerReferences": owner("RaftQueue", "other", "theirs")}), Ownership::Foreign),
            (json!({"ownerReferences": owner("Deployment", "demo", "theirs")}), Ownership::Foreign),
            (json!({}), Ownership::Foreign),
            (json!({"labels": {"app.kubernetes.io/instance": "demo"}}), Ownership::Foreign),
            (json!({"labels": labels}), Ownership::Orphan),
            (json!({"labels": labels, "deletionTimestamp": gone}), Ownership::Leaving),
        ] {
            let found: ObjectMeta = serde_json::from_value(metadata.clone()).unwrap();
            assert_eq!(ownership(&asked(), &found), expected, "{metadata}");
        }
    }

    #[test]
    fn a_pod_is_its_sets_or_was_left_by_an_earlier_one() {
        let of = |name: &str, owners: Value| -> ObjectMeta {
            serde_json::from_value(json!({"name": name, "ownerReferences": owners})).unwrap()
        };
        let owned = |uid: &str| owner("StatefulSet", "demo", uid);
        for (pod, set, expected) in [
            (of("demo-0", owned("set")), Some("set"), true),
            // It goes with the set that it was made by.
            (of("demo-0", owned("earlier")), Some("set"), false),
            (of("demo-0", owned("earlier")), None, false),
            (of("demo-0", json!([])), Some("set"), true),
            (of("demo-0", json!([])), None, true),
            (of("demo-0-debug", json!([])), None, false),
        ] {
            assert_eq!(is_node(&asked(), &pod, set), expected, "{pod:?} {set:?}");
        }
    }

    #[tokio::test]
    async fn pods_whose_set_was_deleted_without_them_are_looked_at() {
        let pod = json!({"metadata": {"name": "demo-0", "uid": "pod"}});
        let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
        let missing = crate::fake::refusal(404, "NotFound");
        let (client, _) = crate::fake::client(move |call| match call.what.rsplit('/').next() {
            Some("pods") => (200, list(json!([pod]))),
            Some("persistentvolumeclaims") => (200, list(json!([]))),
            _ => missing.clone(),
        });
        let seen = Box::pin(observe(&client, &asked())).await.unwrap();
        assert!(seen.set.is_none());
        assert_eq!(seen.pods.keys().collect::<Vec<_>>(), ["demo-0"]);
    }

    #[tokio::test]
    async fn a_kind_of_others_may_be_unknown_or_forbidden_and_neither_fails_a_look() {
        let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                             "message": "not found", "details": {"name": "demo", "kind": "servicemonitors"}});
        let there = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "demo"}});
        for ((code, answer), expected, is_there) in [
            ((200, there), KindSeen::Usable, true),
            ((404, missing), KindSeen::Usable, false),
            ((404, json!("404 page not found")), KindSeen::Unknown, false),
            (crate::fake::refusal(403, "Forbidden"), KindSeen::Forbidden, false),
        ] {
            let (client, _) = crate::fake::client(move |_| (code, answer.clone()));
            let (kind, found) = of_others::<ServiceMonitor>(&client, "shop", "demo").await.unwrap();
            assert_eq!((kind, found.is_some()), (expected, is_there));
        }
        let (client, _) = crate::fake::client(|_| crate::fake::refusal(500, "InternalError"));
        assert!(of_others::<ServiceMonitor>(&client, "shop", "demo").await.is_err());
    }

    #[test]
    fn a_revision_counts_once_kubernetes_has_looked_at_the_template() {
        let of = |generation: i64, observed: i64| {
            let set = json!({"metadata": {"name": "demo", "generation": generation},
                             "spec": {"selector": {}, "serviceName": "x", "template": {}},
                             "status": {"replicas": 3, "observedGeneration": observed, "updateRevision": "demo-1"}});
            see_set(&serde_json::from_value(set).unwrap(), Timestamp::UNIX_EPOCH).revision
        };
        assert_eq!(of(2, 2).as_deref(), Some("demo-1"));
        assert_eq!(of(3, 2), None);
    }
}
