//! What tells whether an object has changed, as far as somebody asked something of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// What changes whenever anything of an object does that somebody asked of it. Its status is not part of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// How often what is asked of it has changed, where that is counted.
    pub generation: Option<i64>,
    /// Its identity, its labels, annotations and owners, and who set which of its fields, hashed.
    rest: u64,
}

impl Fingerprint {
    /// Of the object with this metadata.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        let is_asked =
            |entry: &&ManagedFieldsEntry| entry.subresource.as_deref().unwrap_or_default().is_empty();
        let fields: Vec<&ManagedFieldsEntry> =
            metadata.managed_fields.iter().flatten().filter(is_asked).collect();
        let ObjectMeta { uid, labels, annotations, owner_references, deletion_timestamp, .. } = metadata;
        let all = serde_json::json!([uid, labels, annotations, owner_references, deletion_timestamp, fields]);
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        Self { generation: metadata.generation, rest: hasher.hash_one(all.to_string()) }
    }
}
