//! The hands of the operator: applies children whole, and takes the one step of a plan.
//!
//! A child that was not seen is created, so that an object which somebody else made meanwhile under its name is never
//! touched. Two passes over different objects may want one name at the same moment, and an apply with force would give
//! it to the later one. A child that was seen is applied server-side, whole, by one field manager, and by its uid. So
//! what somebody changed by hand is put back, and fields of others are left alone. A child that is as it was applied last costs
//! no call: [`Known`].
//! Deletes name the uid, too.

mod certificates;
mod known;
mod members;

pub use certificates::certify;
pub use known::Known;

use crate::cluster::build::{Monitors, Resources, owner_of_disks};
use crate::cluster::observation::{Child, ClusterId, Fingerprint, KindSeen, Observation};
use crate::cluster::plan::{ClaimChange, ClaimMark, Step};
use crate::cluster::validate::Asked;
use crate::controller::Key;
use crate::crd::RaftQueue;
use crate::names::{MANAGER, REMOVED_FROM_ANNOTATION, WOKEN_ANNOTATION};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// A call to the API server that failed. Another pass repeats it.
///
/// NB: what was seen may have changed meanwhile. That is nobody's fault: [`ApplyError::is_race`].
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {object}: {}{}", said(&self.error), advice(self.action, &self.error))]
pub struct ApplyError {
    /// What was tried.
    pub action: &'static str,
    /// Kind and name of the object.
    pub object: String,
    /// What the API server said.
    pub error: Box<kube::Error>,
}

/// Brings all children in line. Returns true if the StatefulSet was made or changed: what was seen of its pods is older then.
/// Cancelling it leaves some of them for the next pass.
///
/// # Errors
/// The first call that the API server refused. Those behind it were not tried.
pub async fn apply(
    client: &Client,
    asked: &Asked,
    seen: &Observation,
    children: &Resources,
    known: &Known,
) -> Result<bool, ApplyError> {
    // Naming every field here makes a new child a compile error until it is applied.
    let Resources {
        service_account,
        config_map,
        headless_service,
        client_service,
        budget,
        network_policy,
        monitors,
        certificate,
        stateful_set,
        is_set_held,
    } = children;
    let Monitors { service_monitor, prometheus_rule, dashboards } = monitors;
    let hands = Hands { client, object: (asked.namespace.clone(), asked.name.clone()), seen, known };
    hands.bring_in_line(Child::ServiceAccount, service_account).await?;
    hands.bring_in_line(Child::ConfigMap, config_map).await?;
    hands.bring_in_line(Child::HeadlessService, headless_service).await?;
    hands.bring_in_line(Child::ClientService, client_service).await?;
    hands.make_or_delete(Child::Budget, budget.as_ref()).await?;
    hands.make_or_delete(Child::NetworkPolicy, network_policy.as_ref()).await?;
    // What Kubernetes does not know is told, and holds up nothing else.
    if seen.service_monitors == KindSeen::Usable {
        hands.make_or_delete(Child::ServiceMonitor, service_monitor.as_ref()).await?;
    }
    if seen.prometheus_rules == KindSeen::Usable {
        hands.make_or_delete(Child::PrometheusRule, prometheus_rule.as_ref()).await?;
    }
    hands.make_or_delete(Child::Dashboards, dashboards.as_ref()).await?;
    // Whether there is such a kind is looked at only where it is asked for.
    if seen.certificates == KindSeen::Usable
        && (certificate.is_some() || seen.own_child(Child::Certificate).is_some())
    {
        hands.make_or_delete(Child::Certificate, certificate.as_ref()).await?;
    }
    if *is_set_held {
        return Ok(false);
    }
    let generation = hands.bring_in_line(Child::StatefulSet, stateful_set).await?;
    Ok(generation != seen.set.as_ref().and_then(|set| set.generation))
}

/// A step that was not taken. Another pass looks again and decides anew.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The API server refused a call.
    #[error(transparent)]
    Api(#[from] ApplyError),
    /// The nodes refused a change of the members, or could not be asked.
    #[error("the nodes do not {step}: {text}")]
    Nodes {
        /// What they were asked for.
        step: &'static str,
        /// What they said.
        text: String,
        /// The members or their leader have changed since they were looked at.
        is_race: bool,
    },
}

impl TakeError {
    /// Whether something was changed meanwhile. Then another look is all that is needed.
    #[must_use]
    pub fn is_race(&self) -> bool {
        match self {
            Self::Api(error) => error.is_race(),
            Self::Nodes { is_race, .. } => *is_race,
        }
    }
}

/// Takes the step. Returns true if it was taken, false if its object is gone already.
///
/// # Errors
/// What the API server or the nodes refused.
pub async fn take(
    client: &Client,
    asked: &Asked,
    seen: &Observation,
    step: &Step,
) -> Result<bool, TakeError> {
    let namespace = asked.namespace.as_str();
    match step {
        Step::ReplaceStuckPod { pod, uid }
        | Step::RestartPod { pod, uid }
        | Step::DiscardPod { pod, uid } => {
            Ok(delete::<Pod>(client, namespace, pod, uid.clone(), None).await?)
        }
        Step::Wake { set, uid, .. } => wake(client, namespace, set, uid).await.map_err(TakeError::from),
        Step::GrowClaim { claim, uid, version, size } => {
            grow(client, namespace, claim, uid, version, size).await.map_err(TakeError::from)
        }
        Step::RemakeSet { set, uid, .. } => {
            Ok(delete_with::<StatefulSet>(client, namespace, set, uid.clone(), None, DeleteParams::orphan())
                .await?)
        }
        Step::DeleteDisk { claim, uid, version } | Step::DiscardDisk { claim, uid, version, .. } => {
            let version = Some(version.clone());
            Ok(delete::<PersistentVolumeClaim>(client, namespace, claim, uid.clone(), version).await?)
        }
        Step::AddLearners { .. }
        | Step::Promote { .. }
        | Step::Remove { .. }
        | Step::Replace { .. }
        | Step::HandOver { .. }
        | Step::Recover { .. } => members::change(seen, step).await.map(|()| true),
    }
}

/// Changes something about the set that nobody reads, so that its controller looks at it.
async fn wake(client: &Client, namespace: &str, set: &str, uid: &str) -> Result<bool, ApplyError> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let now = Timestamp::now().to_string();
    let patch = json!({"metadata": {"uid": uid, "annotations": {WOKEN_ANNOTATION: now}}});
    // By another name than that of the apply, which would take it off again.
    let params = PatchParams { field_manager: Some(format!("{MANAGER}-wake")), ..PatchParams::default() };
    let patched = api.patch_metadata(set, &params, &Patch::Merge(patch)).await;
    patched.map(|_| true).map_err(|error| failed::<StatefulSet>("touch", set, error))
}

/// A claim asks for a larger volume.
async fn grow(
    client: &Client,
    namespace: &str,
    claim: &str,
    uid: &str,
    version: &str,
    size: &str,
) -> Result<bool, ApplyError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let patch = json!({"metadata": {"uid": uid, "resourceVersion": version},
                       "spec": {"resources": {"requests": {"storage": size}}}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let grown = api.patch(claim, &params, &Patch::Merge(patch)).await;
    grown.map(|_| true).map_err(|error| failed::<PersistentVolumeClaim>(GROW, claim, error))
}

/// Marks claims as those of members that were removed from this cluster, or takes the mark off.
///
/// # Errors
/// The first call that the API server refused; of a claim that was changed meanwhile, too.
pub async fn mark_claims(
    client: &Client,
    asked: &Asked,
    cluster: ClusterId,
    marks: &[ClaimMark],
) -> Result<(), ApplyError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &asked.namespace);
    for ClaimMark { claim, uid, version, removed } in marks {
        let value = removed.then(|| cluster.to_string());
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": version,
                                        "annotations": {REMOVED_FROM_ANNOTATION: value}}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = api.patch_metadata(claim, &params, &Patch::Merge(patch)).await;
        patched.map_err(|error| failed::<PersistentVolumeClaim>("mark", claim, error))?;
    }
    Ok(())
}

/// Changes the owners of claims.
///
/// Kubernetes deletes a claim whose owner is gone. So a claim is given to the object only while the object is there and
/// is not being deleted, perhaps without its disks (`--cascade=orphan`). If the object goes at this very moment, its
/// claims are taken back.
///
/// # Errors
/// The first call that the API server refused. A claim that was changed meanwhile is left for the next pass.
pub async fn own_claims(client: &Client, asked: &Asked, changes: &[ClaimChange]) -> Result<(), ApplyError> {
    let owns = changes.iter().any(|change| change.own);
    if owns && !is_there(client, asked).await? {
        return Ok(());
    }
    for change in changes {
        let disowned = change.disown.iter().map(|uid| json!({"$patch": "delete", "uid": uid}));
        let owned = change.own.then(|| json!(owner_of_disks(asked)));
        let owners: Vec<Value> = disowned.chain(owned).collect();
        change_owners(client, asked, &change.claim, &change.uid, Some(&change.version), &owners).await?;
    }
    if owns && !is_there(client, asked).await? {
        for change in changes.iter().filter(|change| change.own) {
            let owners = [json!({"$patch": "delete", "uid": asked.uid})];
            change_owners(client, asked, &change.claim, &change.uid, None, &owners).await?;
        }
    }
    Ok(())
}

/// Whether this very object exists and is not being deleted.
async fn is_there(client: &Client, asked: &Asked) -> Result<bool, ApplyError> {
    let api: Api<PartialObjectMeta<RaftQueue>> = Api::namespaced(client.clone(), &asked.namespace);
    let found =
        api.get_opt(&asked.name).await.map_err(|error| failed::<RaftQueue>("read", &asked.name, error))?;
    Ok(found.is_some_and(|found| {
        found.metadata.uid.as_deref() == Some(asked.uid.as_str())
            && found.metadata.deletion_timestamp.is_none()
    }))
}

/// Patches the owners of a claim, which are merged by their uids.
async fn change_owners(
    client: &Client,
    asked: &Asked,
    claim: &str,
    uid: &str,
    version: Option<&str>,
    owners: &[Value],
) -> Result<(), ApplyError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &asked.namespace);
    let mut metadata = json!({"uid": uid, "ownerReferences": owners});
    if let Some(version) = version {
        metadata["resourceVersion"] = json!(version);
    }
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(claim, &params, &Patch::Strategic(json!({"metadata": metadata}))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(failed::<PersistentVolumeClaim>("change the owners of", claim, error)),
    }
}

/// An object of a namespace, of a kind that the operator makes or deletes.
trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// What children of one object are brought in line with.
struct Hands<'a> {
    client: &'a Client,
    object: Key,
    seen: &'a Observation,
    known: &'a Known,
}

impl Hands<'_> {
    /// Has the child as it is to be, or not at all: then our own one goes.
    async fn make_or_delete<K: Namespaced>(
        &self,
        child: Child,
        wanted: Option<&K>,
    ) -> Result<(), ApplyError> {
        let (namespace, name) = &self.object;
        match (wanted, self.seen.own_child(child)) {
            (Some(wanted), _) => self.bring_in_line(child, wanted).await.map(drop),
            (None, Some(uid)) => {
                let name = child.name(name);
                delete::<K>(self.client, namespace, &name, uid.to_owned(), None).await.map(drop)
            }
            (None, None) => Ok(()),
        }
    }

    /// Makes the child, or brings our own one in line where it is not as it was applied last. Returns its generation.
    async fn bring_in_line<K: Namespaced>(
        &self,
        child: Child,
        wanted: &K,
    ) -> Result<Option<i64>, ApplyError> {
        let seen = self.seen.fingerprints.get(&child).copied();
        let uid = self.seen.own_child(child);
        if uid.is_some() && self.known.is_applied(&self.object, child, wanted, seen) {
            return Ok(seen.and_then(|seen| seen.generation));
        }
        // If its answer is lost nobody knows how the child is.
        self.known.applied(&self.object, child, wanted, None);
        let left = bring_in_line(self.client, &self.object.0, wanted, uid).await?;
        // What was only just made is applied once more, so that all its fields are held by the apply.
        let settled = uid.map(|_| left);
        self.known.applied(&self.object, child, wanted, settled);
        Ok(left.generation)
    }
}

/// Makes the child, or brings the one with this uid in line. Returns how it is then.
async fn bring_in_line<K: Namespaced>(
    client: &Client,
    namespace: &str,
    object: &K,
    uid: Option<&str>,
) -> Result<Fingerprint, ApplyError> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    let Some(uid) = uid else {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let created = api.create(&params, object).await;
        return created
            .map(|created| Fingerprint::of(created.meta()))
            .map_err(|error| failed::<K>("make", &name, error));
    };
    let mut object = object.clone();
    object.meta_mut().uid = Some(uid.to_owned());
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    let applied = applied.map_err(|error| failed::<K>("apply", &name, error))?;
    match without_creation(applied.meta()) {
        None => Ok(Fingerprint::of(applied.meta())),
        Some(patch) => {
            let patched = api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched
                .map(|patched| Fingerprint::of(&patched.metadata))
                .map_err(|error| failed::<K>("take over the fields of", &name, error))
        }
    }
}

/// Gives up the fields that belong to us by the creation: by now all of them belong to us by an apply. As long as both
/// hold a field, an apply that leaves it out does not take it away. Absent: there is nothing to give up.
fn without_creation(metadata: &ObjectMeta) -> Option<Value> {
    let entries = metadata.managed_fields.as_ref()?;
    let is_creation = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Update")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    };
    let kept: Vec<&ManagedFieldsEntry> = entries.iter().filter(|entry| !is_creation(entry)).collect();
    if kept.len() == entries.len() {
        return None;
    }
    let version = &metadata.resource_version;
    Some(json!({"metadata": {"uid": metadata.uid, "resourceVersion": version, "managedFields": kept}}))
}

async fn delete<K: Namespaced>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: String,
    version: Option<String>,
) -> Result<bool, ApplyError> {
    delete_with::<K>(client, namespace, name, uid, version, DeleteParams::default()).await
}

/// The same, saying what becomes of what belongs to it.
async fn delete_with<K: Namespaced>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: String,
    version: Option<String>,
    how: DeleteParams,
) -> Result<bool, ApplyError> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let preconditions = Some(Preconditions { uid: Some(uid), resource_version: version });
    let params = DeleteParams { preconditions, ..how };
    match api.delete(name, &params).await {
        Ok(_) => Ok(true),
        // The object is gone, or another one has its name by now.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(failed::<K>("delete", name, error)),
    }
}

impl ApplyError {
    /// Whether something was made, changed or deleted meanwhile. Then another look is all that is needed.
    #[must_use]
    pub fn is_race(&self) -> bool {
        match &*self.error {
            kube::Error::Api(status) => status.is_conflict() || status.is_already_exists(),
            _ => false,
        }
    }
}

/// The call that enlarges a disk.
const GROW: &str = "enlarge";
/// The calls of a look.
pub(super) const LOOK: &str = "look";

/// What the API server said, without the object that it said it in.
pub(super) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => {
            format!("{} ({})", status.message, status.code)
        }
        _ => error.to_string(),
    }
}

/// What a person can do about a refusal.
pub(super) fn advice(action: &str, error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) if status.is_forbidden() && action == GROW => {
            ". If its storage class cannot enlarge volumes (allowVolumeExpansion), set spec.storage.size to status.diskSize or \
             leave it out"
        }
        kube::Error::Api(status) if status.is_forbidden() && status.message.contains("being terminated") => {
            ". Its namespace is being deleted, and the cluster with it"
        }
        kube::Error::Api(status) if status.is_forbidden() && !status.message.contains("exceeded quota") => {
            ". If a right of the operator is missing: kubectl apply -k deploy gives it all that it needs"
        }
        kube::Error::Api(status) if status.is_forbidden() => {
            ". Raise the quota of the namespace, or ask for less"
        }
        _ => "",
    }
}

fn failed<K: Resource<DynamicType = ()>>(action: &'static str, name: &str, error: kube::Error) -> ApplyError {
    ApplyError { action, object: format!("{} {name}", K::kind(&())), error: Box::new(error) }
}

#[cfg(test)]
mod tests;
