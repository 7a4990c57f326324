//! The template of the pods is kept as it was made, until what a user can see of it changes.
//!
//! A newer operator may make another template of the same spec. If it were applied, an upgrade of the operator would make the pods
//! of every cluster older than their set. So the template stands in an annotation of the StatefulSet, beside what it was made
//! of, and is made anew only when that changes. Taking the annotation off has the same effect, which is how one asks for
//! the newest template of the same spec.

use super::stateful_set::build_template;
use crate::cluster::encryption::Encryption;
use crate::cluster::plan::Shape;
use crate::cluster::validate::Asked;
use crate::names;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where the annotation says how pods are made to speak.
const ENCRYPTION: &str = "encryption";

/// What stands in the annotation.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the template was made of, as far as users can see it.
    of: Value,
    /// The template.
    template: PodTemplateSpec,
}

/// The template of the pods, and the annotation that keeps it.
pub(super) fn keep_or_build(asked: &Asked, shape: &Shape) -> (PodTemplateSpec, String) {
    let of = visible(asked, shape);
    let kept = shape.template.as_deref().and_then(|text| serde_json::from_str::<Kept>(text).ok());
    let is_fit = |kept: &Kept| {
        let labels = kept.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
        kept.of == of && labels == Some(&names::labels(&asked.name))
    };
    let kept = match kept.filter(is_fit) {
        Some(kept) => kept,
        None => Kept { of, template: build_template(asked, shape) },
    };
    let text = serde_json::to_string(&kept).expect("maps of texts and numbers can be written");
    (kept.template, text)
}

/// How the pods of a template that was kept are made; absent if it cannot be read.
#[must_use]
pub fn encryption_kept(kept: &str) -> Option<Encryption> {
    let kept: Kept = serde_json::from_str(kept).ok()?;
    match kept.of.get(ENCRYPTION) {
        // Nothing stands there where all is open, as it was before there was a choice.
        None => Some(Encryption::default()),
        Some(encryption) => serde_json::from_value(encryption.clone()).ok(),
    }
}

/// Everything in the template that a user can change.
fn visible(asked: &Asked, shape: &Shape) -> Value {
    let mut visible = json!({
        "image": shape.image,
        "imagePullPolicy": asked.spec.image_pull_policy,
        "resources": asked.spec.resources,
        "config": asked.spec.config,
    });
    // NB: templates that were kept before there was a choice have no such field, and must stay what they are.
    if !shape.encryption.is_open() {
        visible[ENCRYPTION] = json!(shape.encryption);
    }
    visible
}
