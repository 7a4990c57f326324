//! The dashboards about one RaftQueue, as a ConfigMap that the sidecar of Grafana takes.
//!
//! Grafana has one folder of files and one name of each dashboard for all that is taken, so both have the object in them.

use super::labelled;
use super::scope::scoped;
use crate::cluster::validate::Asked;
use crate::crd::MonitorSettings;
use crate::names;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The label by which the sidecar knows what to take, as it is installed by default.
const LABEL: &str = "grafana_dashboard";

/// What there is a dashboard about, and the dashboard.
const DASHBOARDS: [(&str, &str); 3] = [
    ("cluster", include_str!("../../../../../deploy/monitoring/cluster-dashboard.json")),
    ("queues", include_str!("../../../../../deploy/monitoring/queues-dashboard.json")),
    ("storage", include_str!("../../../../../deploy/monitoring/storage-dashboard.json")),
];

/// The dashboards with an object's namespace and name in each of their queries.
pub(super) fn build_dashboards(asked: &Asked, wanted: &MonitorSettings) -> ConfigMap {
    let object = format!("{}/{}", asked.namespace, asked.name);
    let one = |(topic, text): &(&str, &str)| {
        let mut dashboard: Value = serde_json::from_str(text).expect("a test reads it");
        scope(&mut dashboard, &asked.namespace, &asked.name);
        let title = dashboard["title"].as_str().unwrap_or_default();
        dashboard["title"] = format!("{title}: {object}").into();
        dashboard["uid"] = format!("raftqueue-{topic}-{:016x}", digest(&object)).into();
        // The links lead to what has all these tags: the other dashboards of this object.
        let tags = json!(["raftqueue", object]);
        for link in dashboard["links"].as_array_mut().into_iter().flatten() {
            link["tags"] = tags.clone();
        }
        dashboard["tags"] = tags;
        (format!("raftqueue-{}-{}-{topic}.json", asked.namespace, asked.name), dashboard.to_string())
    };
    let mut labels = BTreeMap::from([(LABEL.to_owned(), "1".to_owned())]);
    labels.extend(wanted.labels.clone());
    ConfigMap {
        metadata: labelled(asked, names::dashboards(&asked.name), &labels),
        data: Some(DASHBOARDS.iter().map(one).collect()),
        ..ConfigMap::default()
    }
}

/// Narrows every query of a dashboard: those of its panels, and those that its variables are chosen by.
fn scope(part: &mut Value, namespace: &str, name: &str) {
    match part {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                        *text = scoped(text, namespace, name);
                    }
                    value => scope(value, namespace, name),
                }
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(|part| scope(part, namespace, name)),
        _ => {}
    }
}

/// Of the same text always the same, whatever it was built with: people keep links to dashboards. It is FNV-1a.
fn digest(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}
