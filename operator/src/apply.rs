//! The hands of the operator: applies children whole, and takes the one step of a plan.
//!
//! Every child is applied server-side, whole, by one field manager: what somebody changed by hand is put back, fields of others
//! are left alone, and an unchanged child is not written. Deletes name the uid, so that nothing made meanwhile is hit.

use crate::build::{Resources, owner_of_disks};
use crate::crd::RaftQueue;
use crate::names::MANAGER;
use crate::observation::{Child, Observation, Ownership};
use crate::plan::{ClaimChange, Step};
use crate::validate::Asked;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// A call to the API server that failed. Another pass repeats it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {object}: {error}")]
pub struct ApplyError {
    /// What was tried.
    pub action: &'static str,
    /// Kind and name of the object.
    pub object: String,
    /// What the API server said.
    pub error: Box<kube::Error>,
}

/// Brings all children in line. Cancelling it leaves some of them for the next pass.
///
/// # Errors
/// The first that the API server refused; those behind it were not tried.
pub async fn apply(
    client: &Client,
    asked: &Asked,
    seen: &Observation,
    children: &Resources,
) -> Result<(), ApplyError> {
    // Naming every field here makes a new child a compile error until it is applied.
    let Resources { service_account, config_map, headless_service, client_service, budget, stateful_set } =
        children;
    let namespace = asked.namespace.as_str();
    apply_one(client, namespace, service_account).await?;
    apply_one(client, namespace, config_map).await?;
    apply_one(client, namespace, headless_service).await?;
    apply_one(client, namespace, client_service).await?;
    match budget {
        Some(budget) => apply_one(client, namespace, budget).await?,
        None if matches!(seen.children.get(&Child::Budget), Some(Ownership::Ours | Ownership::Orphan)) => {
            delete::<PodDisruptionBudget>(client, namespace, &asked.name, None).await?;
        }
        None => {}
    }
    apply_one(client, namespace, stateful_set).await
}

/// Takes the step. True: it was taken; false: what it was about is gone already.
///
/// # Errors
/// What the API server refused.
pub async fn take(client: &Client, asked: &Asked, step: &Step) -> Result<bool, ApplyError> {
    match step {
        Step::ReplaceStuckPod { pod, uid } => {
            delete::<Pod>(client, &asked.namespace, pod, Some(uid.clone())).await
        }
    }
}

/// Changes the owners of claims.
///
/// A claim whose owner is gone is deleted by Kubernetes, so a claim is given to the object only while that is there and is not
/// being deleted, perhaps without its disks (`--cascade=orphan`). An object that goes at this very moment gives them back.
///
/// # Errors
/// The first that the API server refused. A claim that was changed meanwhile is left for the next pass.
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

async fn apply_one<K>(client: &Client, namespace: &str, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    let params = PatchParams::apply(MANAGER).force();
    match api.patch(&name, &params, &Patch::Apply(object)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed::<K>("apply", &name, error)),
    }
}

async fn delete<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<String>,
) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let preconditions = uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(true),
        // Gone, or another object has its name by now: what was to be deleted is no more.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(failed::<K>("delete", name, error)),
    }
}

fn failed<K: Resource<DynamicType = ()>>(action: &'static str, name: &str, error: kube::Error) -> ApplyError {
    ApplyError { action, object: format!("{} {name}", K::kind(&())), error: Box::new(error) }
}

#[cfg(test)]
mod tests;
