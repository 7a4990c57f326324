//! Processor and memory of a node: the type is that of Kubernetes, the schema is narrower.
//!
//! Claims of devices are left out: they refer to a list in the pod that a `RaftQueue` has no place for, so none could ever
//! work. Bounds are added, because rules look at the quantities.

use super::schema::rule;
use super::storage::QUANTITY_LENGTH_MAX;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Processor that a node asks for where the object says nothing of resources.
pub const CPU_REQUEST_DEFAULT: &str = "100m";
/// Memory that a node asks for where the object says nothing of resources.
pub const MEMORY_REQUEST_DEFAULT: &str = "256Mi";
/// Most kinds of resources named in requests, and in limits.
const KINDS_MAX: usize = 16;

/// Requests of 100m and 256Mi, no limits.
pub(super) fn resources_default() -> ResourceRequirements {
    let requests = [("cpu", CPU_REQUEST_DEFAULT), ("memory", MEMORY_REQUEST_DEFAULT)]
        .map(|(kind, quantity)| (kind.to_owned(), Quantity(quantity.to_owned())));
    ResourceRequirements { requests: Some(BTreeMap::from(requests)), ..ResourceRequirements::default() }
}

pub(super) fn resources_schema(_: &mut SchemaGenerator) -> Schema {
    let requests = quantities(
        "Least that a node gets. Default: 100m of cpu and 256Mi of memory; if only limits are given, those.",
    );
    let limits = quantities("Most that a node may use. A node that exceeds its memory is killed.");
    schemars::json_schema!({
        "type": "object",
        "properties": {"requests": requests, "limits": limits},
        "x-kubernetes-validations": [
            rule(
                "(!has(self.requests) || self.requests.all(kind, isQuantity(string(self.requests[kind])))) && \
                 (!has(self.limits) || self.limits.all(kind, isQuantity(string(self.limits[kind]))))",
                "resources must be quantities such as 500m of cpu or 1Gi of memory",
            ),
            rule(
                "!has(self.requests) || !has(self.limits) || self.requests.all(kind, \
                 !(kind in self.limits) || \
                 !isQuantity(string(self.requests[kind])) || !isQuantity(string(self.limits[kind])) || \
                 quantity(string(self.requests[kind])).compareTo(quantity(string(self.limits[kind]))) <= 0)",
                "resources.requests cannot exceed resources.limits: Kubernetes would refuse to make the pods",
            ),
        ],
    })
}

fn quantities(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "maxProperties": KINDS_MAX,
        "additionalProperties": {"x-kubernetes-int-or-string": true, "maxLength": QUANTITY_LENGTH_MAX},
    })
}
