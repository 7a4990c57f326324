//! What is done about a `RaftQueue`: the pass over one object, and the rooms that are its steps.
//!
//! Nothing here knows when it runs, or how often: that is [`crate::controller`], of which [`Clusters`] is a kind.

pub mod apply;
mod blind;
pub mod build;
pub mod certificates;
mod definition;
mod dial;
pub mod encryption;
pub mod events;
pub mod metrics;
pub mod observation;
pub mod observe;
pub mod pass;
pub mod plan;
pub mod status;
pub mod validate;

use self::apply::Known;
use self::blind::Blind;
use self::definition::Lacking;
use self::metrics::ClusterMetrics;
use self::observation::{ClusterSeen, PodSeen, Way};
use self::observe::ask_all;
use self::pass::{PassError, pass};
use crate::controller::{Key, Kind, Looked, Watches};
use crate::crd::RaftQueue;
use crate::names::INSTANCE_LABEL;
use crate::recorder::Recorder;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::events::Event;
use kube::{Client, Resource};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// An object as it comes from the API server, readable or not.
type Guarded = DeserializeGuard<RaftQueue>;

/// RaftQueues, and what every pass over one needs.
pub struct Clusters {
    client: Client,
    recorder: Recorder,
    metrics: ClusterMetrics,
    node_image: String,
    /// The operator's own namespace.
    namespace: String,
    lacking: Lacking,
    known: Known,
    blind: Blind,
}

/// What the nodes said in a look. In a quiet cluster that is the only thing that no watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How they were called.
    way: Way,
    /// The pods, with what their nodes said.
    pods: BTreeMap<String, PodSeen>,
    /// What the leader said.
    cluster: Option<ClusterSeen>,
}

impl Clusters {
    /// For an operator of this name, in this namespace.
    #[must_use]
    pub fn new(
        client: Client,
        metrics: ClusterMetrics,
        node_image: String,
        namespace: String,
        identity: String,
    ) -> Self {
        let recorder = Recorder::new(client.clone(), identity);
        Self {
            client,
            recorder,
            metrics,
            node_image,
            namespace,
            lacking: Lacking::default(),
            known: Known::default(),
            blind: Blind::default(),
        }
    }

    async fn tell(&self, object: &RaftQueue, told: &[Event]) {
        let reference = object.object_ref(&());
        for event in told {
            let note = event.note.as_deref().unwrap_or_default();
            tracing::info!(reason = event.reason, "{note}");
            if let Err(error) = self.recorder.publish(event, &reference).await {
                tracing::warn!(%error, reason = event.reason, "cannot write an event");
            }
        }
    }
}

impl Kind for Clusters {
    type Object = RaftQueue;
    type Untold = Said;
    type Error = PassError;

    fn watch(&self, watches: Watches<RaftQueue>) -> Watches<RaftQueue> {
        watches
            .on::<Service>(owner_of)
            .on::<ConfigMap>(owner_of)
            .on::<ServiceAccount>(owner_of)
            .on::<PodDisruptionBudget>(owner_of)
            .on::<NetworkPolicy>(owner_of)
            .on::<StatefulSet>(owner_of)
            .on::<Pod>(whose)
            .on::<PersistentVolumeClaim>(whose)
    }

    async fn pass(&self, object: &ObjectMeta, is_first_failure: bool) -> Result<Looked<Said>, PassError> {
        Box::pin(pass(object, self, is_first_failure)).await
    }

    fn watch_refused(&self, why: &str) {
        self.blind.refused(why, Instant::now());
    }

    async fn is_still_so(&self, said: &Said) -> bool {
        if self.blind.told(Instant::now()).is_some() {
            return false;
        }
        let mut pods = said.pods.clone();
        let cluster = Box::pin(ask_all(&said.way, &mut pods)).await;
        said.pods == pods && said.cluster == cluster
    }

    fn keep_only(&self, there: &BTreeSet<Key>) {
        self.metrics.keep_only(there);
        self.known.keep_only(there);
    }
}

/// The object that controls a child.
fn owner_of(metadata: &ObjectMeta) -> Option<Key> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let is_queue = owner.kind == RaftQueue::kind(&()) && owner.api_version == RaftQueue::api_version(&());
    is_queue.then(|| (metadata.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// The object that a pod or a claim belongs to, by its labels: its owner is a StatefulSet, or nobody.
fn whose(metadata: &ObjectMeta) -> Option<Key> {
    let name = metadata.labels.as_ref()?.get(INSTANCE_LABEL)?;
    Some((metadata.namespace.clone()?, name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_belongs_to_whom_its_label_names() {
        let metadata = |label: &str| ObjectMeta {
            namespace: Some("shop".into()),
            labels: Some(BTreeMap::from([(label.to_owned(), "demo".to_owned())])),
            ..ObjectMeta::default()
        };
        assert_eq!(whose(&metadata(INSTANCE_LABEL)), Some(("shop".to_owned(), "demo".to_owned())));
        assert_eq!(whose(&metadata("app")), None);
    }
}
