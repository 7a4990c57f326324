//! The alerts about one RaftQueue, for the Prometheus operator.

use super::labelled;
use super::scope::scoped;
use crate::cluster::validate::Asked;
use crate::crd::MonitorSettings;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What is recorded, and when an alert fires; the part of the kind that is used here.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "PrometheusRule",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct PrometheusRuleSpec {
    /// Rules that are worked out together.
    pub groups: Vec<RuleGroup>,
}

/// Rules that are worked out one after the other, as in a file of Prometheus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleGroup {
    /// Its name.
    pub name: String,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule: the name of what is recorded, or of an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The series that is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// What Prometheus is asked.
    pub expr: String,
    /// How long that has to be so.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
    /// Labels of the alert.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What people are told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A file of rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: Vec<RuleGroup>,
}

/// The files of rules: those about clusters, their topics and disks, and those about the operator.
const FILES: [&str; 4] = [
    include_str!("../../../../../deploy/monitoring/cluster-rules.yaml"),
    include_str!("../../../../../deploy/monitoring/queues-rules.yaml"),
    include_str!("../../../../../deploy/monitoring/storage-rules.yaml"),
    include_str!("../../../../../deploy/monitoring/operator-rules.yaml"),
];

/// What stands in them but for what is about the operator itself: that is nobody's object, and whoever installs the operator has the
/// alerts about it (`deploy/monitoring`, or the chart).
static GROUPS: LazyLock<Vec<RuleGroup>> = LazyLock::new(|| {
    let groups = FILES.iter().flat_map(|text| {
        let file: File = serde_saphyr::from_str(text).expect("a test reads them");
        file.groups
    });
    let about_objects = |mut group: RuleGroup| {
        group.rules.retain(|rule| {
            !rule.expr.contains("raftqueue_operator_") && !rule.expr.contains("raftqueue:operator_")
        });
        group
    };
    groups.map(about_objects).collect()
});

/// The rules with an object's namespace and name in each of their selectors.
pub(super) fn build_prometheus_rule(asked: &Asked, wanted: &MonitorSettings) -> PrometheusRule {
    let rule = |rule: &Rule| Rule { expr: scoped(&rule.expr, &asked.namespace, &asked.name), ..rule.clone() };
    let group = |group: &RuleGroup| RuleGroup {
        name: group.name.clone(),
        rules: group.rules.iter().map(rule).collect(),
    };
    PrometheusRule {
        metadata: labelled(asked, asked.name.clone(), &wanted.labels),
        spec: PrometheusRuleSpec { groups: GROUPS.iter().map(group).collect() },
    }
}
