//! What monitoring is given, where the spec asks for it and Kubernetes knows the kind.
//!
//! The kinds belong to the Prometheus operator, and a cluster without it does not know them: [`crate::cluster::observe`] finds out
//! at each look, and what cannot be made is told and holds up nothing else.
//!
//! How to add one: its field in [`crate::crd::Monitoring`], a function in a file below, a field in [`Monitors`], and a
//! [`crate::cluster::observation::Child`].

mod alerts;
mod dashboards;
mod scope;

pub use alerts::{PrometheusRule, PrometheusRuleSpec, Rule, RuleGroup};

use super::child;
use crate::cluster::plan::Shape;
use crate::cluster::validate::Asked;
use crate::crd::{ServiceMonitorSettings, TlsStage};
use crate::names;
use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapKeySelector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How Prometheus finds the nodes; the part of the kind that is used here.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "ServiceMonitor",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitorSpec {
    /// Label of the service that becomes the label `job`.
    pub job_label: String,
    /// Services whose pods are asked.
    pub selector: LabelSelector,
    /// What they are asked.
    pub endpoints: Vec<MetricsEndpoint>,
}

/// One thing that Prometheus asks of each pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsEndpoint {
    /// Name of the service's port.
    pub port: String,
    /// Path.
    pub path: String,
    /// How often; absent: as Prometheus does by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How; absent: plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<Trust>,
    /// Labels that are added.
    pub relabelings: Vec<Relabeling>,
}

/// Whom Prometheus trusts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// The authorities.
    pub ca: TrustSource,
    /// What a node's certificate must be for.
    pub server_name: String,
}

/// Where authorities stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustSource {
    /// In this ConfigMap.
    pub config_map: ConfigMapKeySelector,
}

/// A label that every series gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relabeling {
    /// What it is made of.
    pub source_labels: Vec<String>,
    /// Its name.
    pub target_label: String,
}

/// What monitoring is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Monitors {
    /// How Prometheus finds the nodes.
    pub service_monitor: Option<ServiceMonitor>,
    /// The alerts about this cluster.
    pub prometheus_rule: Option<PrometheusRule>,
    /// Its dashboards.
    pub dashboards: Option<ConfigMap>,
}

pub(super) fn build_monitors(asked: &Asked, shape: &Shape) -> Monitors {
    let Some(wanted) = &asked.spec.monitoring else { return Monitors::default() };
    let service_monitor = wanted.service_monitor.as_ref().filter(|wanted| wanted.enabled);
    let prometheus_rule = wanted.prometheus_rule.as_ref().filter(|wanted| wanted.enabled);
    let dashboards = wanted.dashboards.as_ref().filter(|wanted| wanted.enabled);
    Monitors {
        service_monitor: service_monitor.map(|wanted| build_service_monitor(asked, shape, wanted)),
        prometheus_rule: prometheus_rule.map(|wanted| alerts::build_prometheus_rule(asked, wanted)),
        dashboards: dashboards.map(|wanted| dashboards::build_dashboards(asked, wanted)),
    }
}

/// Metadata of a child with labels that a user wants beside ours. Ours say what belongs to us: those of users do not go over them.
fn labelled(asked: &Asked, name: String, wanted: &BTreeMap<String, String>) -> ObjectMeta {
    let mut metadata = child(asked, name);
    let mut labels = wanted.clone();
    labels.extend(metadata.labels.take().unwrap_or_default());
    ObjectMeta { labels: Some(labels), ..metadata }
}

/// Nodes are asked by their addresses, and known by the name of their service.
fn trust(asked: &Asked) -> Trust {
    let config_map = ConfigMapKeySelector {
        name: names::config_map(&asked.name),
        key: names::AUTHORITIES_FILE.into(),
        optional: None,
    };
    Trust { ca: TrustSource { config_map }, server_name: format!("{}.{}.svc", asked.name, asked.namespace) }
}

/// Asks every node, ready or not: of both services only the headless one has the port of operations.
fn build_service_monitor(asked: &Asked, shape: &Shape, wanted: &ServiceMonitorSettings) -> ServiceMonitor {
    // Where nodes take either the plain way goes on.
    let is_encrypted = shape.encryption.clients == TlsStage::Required;
    ServiceMonitor {
        // A Prometheus chooses its monitors by labels.
        metadata: labelled(asked, asked.name.clone(), &wanted.labels),
        spec: ServiceMonitorSpec {
            job_label: "app.kubernetes.io/name".into(),
            selector: LabelSelector {
                match_labels: Some(names::selector(&asked.name)),
                ..LabelSelector::default()
            },
            endpoints: vec![MetricsEndpoint {
                port: "http-ops".into(),
                path: "/metrics".into(),
                interval: wanted.interval.clone(),
                scheme: is_encrypted.then(|| "https".to_owned()),
                tls_config: is_encrypted.then(|| trust(asked)),
                relabelings: vec![Relabeling {
                    source_labels: vec!["__meta_kubernetes_service_label_app_kubernetes_io_instance".into()],
                    target_label: "raftqueue".into(),
                }],
            }],
        },
    }
}
