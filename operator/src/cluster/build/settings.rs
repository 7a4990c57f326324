//! The settings file of the nodes, in a ConfigMap, and beside it the authorities that clients trust: whoever may read the Secret with
//! the certificates would have the keys, too.
//!
//! Whether nodes form or join stands here and not in the pods' template. A node reads it when it starts, so a cluster
//! that has formed changes to joining without a restart.

use super::template::keep_or_build;
use super::{child, with_cluster_id};
use crate::cluster::plan::{Bootstrap, Shape};
use crate::cluster::validate::Asked;
use crate::names;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How long a stopping node goes on answering, unless `spec.config` says otherwise. Clients learn of its end in that
/// time.
pub(super) const DRAIN_MS_DEFAULT: u64 = 3_000;
/// How long a node waits for the process that it replaces. A pod that is deleted without grace is gone from the API
/// while its process still ends. If the new container failed instead of waiting, Kubernetes would hold it back for ten
/// seconds and more.
const LOCK_WAIT_MS: u64 = 60_000;

pub(super) fn build_config_map(asked: &Asked, shape: &Shape) -> ConfigMap {
    let text = serde_json::to_string_pretty(&Value::Object(settings(asked, shape)))
        .expect("a map of texts and numbers can be written");
    let mut metadata = with_cluster_id(child(asked, names::config_map(&asked.name)), shape);
    // The set is made anew when its disks grow, and its template must not change by that.
    let (_, kept) = keep_or_build(asked, shape);
    metadata.annotations.get_or_insert_default().insert(names::TEMPLATE_ANNOTATION.to_owned(), kept);
    let mut data = BTreeMap::from([(names::SETTINGS_FILE.to_owned(), text + "\n")]);
    if let Some(authorities) = &shape.authorities {
        data.insert(names::AUTHORITIES_FILE.to_owned(), authorities.clone());
    }
    ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
}

fn settings(asked: &Asked, shape: &Shape) -> Map<String, Value> {
    let mut settings = Map::new();
    let mut set = |key: &str, value: Value| settings.insert(key.to_owned(), value);
    match shape.bootstrap {
        Bootstrap::Form => {
            set("bootstrap", json!("form"));
        }
        Bootstrap::Join(cluster) => {
            set("bootstrap", json!("join"));
            if let Some(id) = cluster {
                set("cluster-id", json!(id.to_string()));
            }
        }
    }
    set("members", json!(asked.nodes(shape.pods)));
    set("service", json!(names::domain(&asked.name, &asked.namespace)));
    set("drain-ms", json!(DRAIN_MS_DEFAULT));
    set("lock-wait-ms", json!(LOCK_WAIT_MS));
    for (key, value) in &asked.spec.config {
        set(key, json!(value));
    }
    settings
}
