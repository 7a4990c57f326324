//! The disks of the nodes.

use super::schema;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// Size of a disk that is made where none is given.
pub const SIZE_DEFAULT: &str = "10Gi";
/// Smallest disk: what a node leaves free (192Mi), and room for its log of 64Mi segments beside it.
pub const SIZE_MIN: &str = "1Gi";
/// Greatest length of a quantity, in characters.
pub(super) const QUANTITY_LENGTH_MAX: usize = 32;
/// Greatest length of the name of a storage class, in characters: that of any DNS name.
const CLASS_LENGTH_MAX: usize = 253;

/// The disks that hold the log, one a node.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
#[x_kube(validation = Rule::new(
    "has(self.storageClassName) == has(oldSelf.storageClassName) && \
     (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
).message(
    "storage.storageClassName cannot change: a disk stays in the class that it was made in. Make a second RaftQueue with \
     the other class and move the messages"
).reason(Reason::FieldValueForbidden))]
pub struct Storage {
    /// Size of each node's disk, such as 10Gi; at least 1Gi. Where it is left out disks that exist stay as they are, and
    /// new ones get 10Gi. A larger size enlarges the disks that exist, one after the other and without a restart, if
    /// their storage class says `allowVolumeExpansion`. They never shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub size: Option<Quantity>,

    /// Storage class of the disks. Default: that of the Kubernetes cluster. It cannot be changed, added or removed
    /// later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = CLASS_LENGTH_MAX))]
    pub storage_class_name: Option<String>,

    /// What becomes of the disks of nodes that are gone.
    #[serde(default)]
    pub retention: Retention,

    /// Allows the operator to delete disks that were left behind when the cluster was forced to recover: those of a generation below
    /// this one. They may hold messages that the cluster lacks, so they stay, and their nodes away, until this is
    /// `status.generation`. A number that the cluster has not reached allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub discard_before_generation: Option<i32>,
}

/// What becomes of the disks of nodes that are gone; the names are those of a StatefulSet.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// When the RaftQueue is deleted. A kept disk is found again by a RaftQueue of the same name. Delete throws all
    /// messages away with it: the RaftQueue becomes an owner of each claim. Deleting or scaling only the StatefulSet
    /// never deletes a disk.
    #[serde(default)]
    pub when_deleted: Disposal,
    /// When `spec.replicas` gets smaller. A kept disk is used again when the cluster grows: its node sets aside what it had and
    /// gets the log anew. Delete is the operator's own act, after the other members have confirmed that the node was removed
    /// and its pod is gone; the StatefulSet always keeps its claims.
    #[serde(default)]
    pub when_scaled: Disposal,
}

impl Default for Retention {
    fn default() -> Self {
        Self { when_deleted: Disposal::Retain, when_scaled: Disposal::Retain }
    }
}

/// What to do with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disposal {
    /// Keep it.
    #[default]
    Retain,
    /// Delete it with everything on it.
    Delete,
}

/// A quantity that must be written as text, so that rules can compare it.
fn size_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "string",
        "maxLength": QUANTITY_LENGTH_MAX,
        "x-kubernetes-validations": [
            schema::rule("isQuantity(self)", "storage.size must be a quantity such as 10Gi or 500Gi"),
            schema::rule(
                &format!("!isQuantity(self) || quantity(self).compareTo(quantity('{SIZE_MIN}')) >= 0"),
                &format!(
                    "storage.size must be at least {SIZE_MIN}: a node leaves 192Mi free so that consumers can go on \
                     acknowledging when its disk is full, and its log is written in segments of 64Mi"
                ),
            ),
        ],
    })
}
