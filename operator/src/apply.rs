//! The hands of the operator: applies children whole, and takes the one step of a plan.
//!
//! Every child is applied server-side, whole, by one field manager: what somebody changed by hand is put back, fields of others
//! are left alone, and an unchanged child is not written. Deletes name the uid, so that nothing made meanwhile is hit.

use crate::build::Resources;
use crate::names::MANAGER;
use crate::observation::{Child, Observation, Ownership};
use crate::plan::Step;
use crate::validate::Asked;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
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
