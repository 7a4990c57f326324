//! Who may reach the nodes, and who watches them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most entries of a list of selectors.
const SELECTORS_MAX: usize = 16;
/// Most labels of a selector.
const LABELS_MAX: usize = 16;

/// Who may reach the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::without_null)]
pub struct NetworkPolicySettings {
    /// Makes a NetworkPolicy: nodes reach each other, the operator asks them, clients reach port 7420, Prometheus port 7422, and
    /// nobody else anything. Kubernetes enforces it where its network plugin can.
    #[serde(default)]
    pub enabled: bool,

    /// Pods that are clients. Where the list is empty: every pod of the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SELECTORS_MAX))]
    pub clients: Vec<PeerSelector>,

    /// Pods that read metrics. Where the list is empty: pods labelled `app.kubernetes.io/name: prometheus`, in all namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SELECTORS_MAX))]
    pub monitors: Vec<PeerSelector>,
}

/// Pods that are chosen by their labels and by those of their namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::without_null)]
pub struct PeerSelector {
    /// Labels that the pods have. Where it is left out, or empty: all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = LABELS_MAX))]
    pub pod_labels: Option<BTreeMap<String, String>>,

    /// Labels that their namespaces have; empty: all namespaces. Where it is left out: the namespace of the RaftQueue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = LABELS_MAX))]
    pub namespace_labels: Option<BTreeMap<String, String>>,
}

/// What watches the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::without_null)]
pub struct Monitoring {
    /// Has the Prometheus operator read the metrics of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_monitor: Option<ServiceMonitorSettings>,

    /// Gives the Prometheus operator the alerts about this cluster, and what they are made of. Whoever has them once for all
    /// RaftQueues (`deploy/monitoring`, or the chart) needs none of these: Prometheus would list each twice, and Alertmanager, which
    /// knows alerts by their labels, would still tell it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus_rule: Option<MonitorSettings>,

    /// Gives Grafana's sidecar the dashboards about this cluster: a ConfigMap labelled `grafana_dashboard: "1"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboards: Option<MonitorSettings>,
}

/// Something that monitoring is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::without_null)]
pub struct MonitorSettings {
    /// Makes it. A kind that this Kubernetes does not have is told in the condition SpecAccepted, and holds up nothing else.
    #[serde(default)]
    pub enabled: bool,

    /// Labels of it, by which others choose what they take, such as `release: prometheus`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = LABELS_MAX))]
    pub labels: BTreeMap<String, String>,
}

/// A ServiceMonitor.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::schema::without_null)]
pub struct ServiceMonitorSettings {
    /// Makes a ServiceMonitor. A Kubernetes without that kind is told in the condition SpecAccepted, and lacks nothing else.
    #[serde(default)]
    pub enabled: bool,

    /// Labels of the ServiceMonitor, by which a Prometheus chooses what it reads, such as `release: prometheus`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = LABELS_MAX))]
    pub labels: BTreeMap<String, String>,

    /// How often metrics are read, such as 30s. Default: that of Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,5}(ms|s|m|h)$')").message(
        "interval must be a time such as 30s or 1m"
    ))]
    pub interval: Option<String>,
}
