//! From a shape to the children: typed objects, whole, as they are to be. PURE: nothing here can reach the API server.
//!
//! Every child carries the labels of [`crate::names`] and an owner reference to its RaftQueue, so that Kubernetes
//! deletes both together. The StatefulSet makes the claims, without such a reference: `spec.storage.retention` says
//! what becomes of the disks.
//!
//! How to add a child: a function in a file of its own, a field in [`Resources`], and [`crate::cluster::apply`] stops compiling until
//! it applies that.

mod access;
mod encryption;
mod monitoring;
mod network;
mod settings;
mod stateful_set;
mod template;
#[cfg(test)]
mod tests;

pub use encryption::{Certificate, CertificateSpec, build_secret_metadata};
pub use monitoring::{
    MetricsEndpoint, Monitors, PrometheusRule, PrometheusRuleSpec, Relabeling, Rule, RuleGroup,
    ServiceMonitor, ServiceMonitorSpec,
};

pub use template::encryption_kept;

use crate::cluster::observation::Child;
use crate::cluster::plan::Shape;
use crate::cluster::validate::Asked;
use crate::crd::RaftQueue;
use crate::names;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// The children, in the order in which they are applied: what pods need comes before the pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// The nodes' identity.
    pub service_account: ServiceAccount,
    /// The nodes' settings.
    pub config_map: ConfigMap,
    /// By which nodes find each other.
    pub headless_service: Service,
    /// By which clients find ready nodes.
    pub client_service: Service,
    /// Keeps drains from taking two nodes at once; absent for a single node, which could never be drained with it.
    pub budget: Option<PodDisruptionBudget>,
    /// Who may reach the nodes; absent where the spec asks for none.
    pub network_policy: Option<NetworkPolicy>,
    /// What monitoring is given.
    pub monitors: Monitors,
    /// What cert-manager is asked for; absent where it is not to make the certificates.
    pub certificate: Option<Certificate>,
    /// The pods.
    pub stateful_set: StatefulSet,
    /// They are not made yet.
    pub is_set_held: bool,
}

/// All children of this shape.
#[must_use]
pub fn build(asked: &Asked, shape: &Shape) -> Resources {
    Resources {
        service_account: access::build_service_account(asked),
        config_map: settings::build_config_map(asked, shape),
        headless_service: access::build_headless_service(asked),
        client_service: access::build_client_service(asked),
        budget: shape.has(Child::Budget).then(|| access::build_budget(asked)),
        network_policy: network::build_network_policy(asked),
        monitors: monitoring::build_monitors(asked, shape),
        certificate: encryption::build_certificate(asked, shape),
        stateful_set: stateful_set::build_stateful_set(asked, shape),
        is_set_held: shape.is_set_held,
    }
}

/// The RaftQueue as the owner of a claim: deleted with it, and controlled by nobody.
#[must_use]
pub fn owner_of_disks(asked: &Asked) -> OwnerReference {
    OwnerReference {
        api_version: RaftQueue::api_version(&()).into_owned(),
        kind: RaftQueue::kind(&()).into_owned(),
        name: asked.name.clone(),
        uid: asked.uid.clone(),
        ..OwnerReference::default()
    }
}

/// Metadata of a child of this name.
fn child(asked: &Asked, name: String) -> ObjectMeta {
    // Deleting the RaftQueue in the foreground waits until its pods are gone.
    let owner =
        OwnerReference { controller: Some(true), block_owner_deletion: Some(true), ..owner_of_disks(asked) };
    ObjectMeta {
        name: Some(name),
        namespace: Some(asked.namespace.clone()),
        labels: Some(names::labels(&asked.name)),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

/// The same with the cluster written down on it, once that is known.
fn with_cluster_id(mut metadata: ObjectMeta, shape: &Shape) -> ObjectMeta {
    if let Some(id) = shape.cluster_id {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(names::CLUSTER_ID_ANNOTATION.to_owned(), id.to_string());
    }
    metadata
}
