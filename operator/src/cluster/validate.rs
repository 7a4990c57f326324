//! From an object as it is stored to what is asked of the operator: checks that the API server may not have made.
//!
//! The rules of the definition refuse all of this when an object is written. But an object may be older than a rule,
//! and rules can be switched off. Behind this file there is no spec with which a node could not start.

use crate::cluster::encryption::Encryption;
use crate::cluster::observation::ClusterId;
use crate::crd::{self, RaftQueue, RaftQueueSpec, Reason};
use crate::names;
use kube::ResourceExt;

/// Everything that is asked, and what earlier looks have found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The object's name, and that of the cluster.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Which object, among all that ever have this name.
    pub uid: String,
    /// What the user wants.
    pub spec: RaftQueueSpec,
    /// The cluster that the status names, or else the children.
    pub latched: Option<ClusterId>,
    /// The image that the status names.
    pub image_kept: Option<String>,
    /// How pods are made to speak, as the status says.
    pub encryption_kept: Option<Encryption>,
    /// Pods that those need whom the status lists.
    pub pods_kept: i32,
    /// How often the cluster was forced to recover, as the status says.
    pub generation_kept: u32,
    /// Since when the status does not call the object ready, in seconds since 1970; absent while it does.
    pub unready_since: Option<i64>,
    /// The step that the status names as the next one, and since when it is, in seconds since 1970.
    pub step_kept: Option<(String, i64)>,
    /// The image for an object that names none and has got none yet.
    pub image_default: String,
    /// Namespace of the operator, whose pods must reach the nodes.
    pub operator_namespace: String,
}

/// Why a spec cannot be followed. The user must change it; the text says to what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// For the condition.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

/// What the object asks.
///
/// # Panics
/// If the object has no name, namespace or uid: one that was read from an API server has them.
#[must_use]
pub fn asked(object: &RaftQueue, image_default: &str) -> Asked {
    let status = object.status.clone().unwrap_or_default();
    Asked {
        name: object.name_any(),
        namespace: object.namespace().expect("objects of this kind live in a namespace"),
        uid: object.uid().expect("an object that was read has a uid"),
        spec: object.spec.clone(),
        latched: status.cluster_id.as_deref().and_then(ClusterId::parse),
        image_kept: status.image,
        encryption_kept: status
            .tls
            .as_ref()
            .and_then(|status| Encryption::of_status(&object.name_any(), status)),
        pods_kept: status
            .members
            .iter()
            .filter_map(|member| names::ordinal(&object.name_any(), &member.name))
            .max()
            .map_or(0, |last| last + 1),
        generation_kept: status.generation.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        unready_since: crd::condition(&status.conditions, crd::ConditionType::Ready)
            .filter(|ready| ready.status == "False")
            .map(|ready| ready.last_transition_time.0.as_second()),
        step_kept: status.plan.into_iter().next().zip(status.step_since.map(|since| since.0.as_second())),
        image_default: image_default.to_owned(),
        operator_namespace: names::NAMESPACE_DEFAULT.to_owned(),
    }
}

/// Every reason why the spec cannot be followed; empty if it can.
#[must_use]
pub fn validate(asked: &Asked) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |reason, text: String| refusals.push(Refusal { reason, text });
    let replicas = asked.spec.replicas;
    if replicas % 2 != 1 || !(crd::REPLICAS_MIN..=crd::REPLICAS_MAX).contains(&replicas) {
        refuse(
            Reason::ReplicasRefused,
            format!(
                "spec.replicas is {replicas}, but must be odd, from {} to {}: one node more than an odd number bears no \
                 more failures",
                crd::REPLICAS_MIN,
                crd::REPLICAS_MAX
            ),
        );
    }
    for refused in crd::check_config(&asked.spec.config) {
        refuse(Reason::ConfigRefused, format!("spec.{refused}"));
    }
    if let Some(size) = asked.disk_size()
        && crd::thousandths(size) < crd::thousandths(crd::SIZE_MIN)
    {
        refuse(
            Reason::ConfigRefused,
            format!("spec.storage.size is {size}, but must be a quantity of at least {}", crd::SIZE_MIN),
        );
    }
    if asked.name.chars().count() > crd::NAME_LENGTH_MAX || asked.name.contains('.') {
        refuse(
            Reason::NotReadable,
            format!(
                "the name {} has more than {} characters, or a dot, and pods cannot be named after it; make a RaftQueue \
                 with another name",
                asked.name,
                crd::NAME_LENGTH_MAX
            ),
        );
    }
    refusals
}

impl Asked {
    /// The same, asked of an operator in that namespace.
    #[must_use]
    pub fn of_operator_in(self, namespace: &str) -> Self {
        Self { operator_namespace: namespace.to_owned(), ..self }
    }

    /// The same, with the cluster that was written down on the children if the status names none.
    #[must_use]
    pub fn recalling(&self, kept: Option<ClusterId>) -> Self {
        Self { latched: self.latched.or(kept), ..self.clone() }
    }

    /// The size that the disks are to have, where the spec says one.
    #[must_use]
    pub fn disk_size(&self) -> Option<&str> {
        self.spec.storage.size.as_ref().map(|size| size.0.as_str())
    }

    /// Whether a disk of this generation may be deleted in a cluster of that one, which was forced to recover since: the spec says
    /// so, and names no generation that is yet to come.
    #[must_use]
    pub fn may_discard(&self, disk: u32, cluster: u32) -> bool {
        let before =
            self.spec.storage.discard_before_generation.and_then(|before| u32::try_from(before).ok());
        before.is_some_and(|before| before <= cluster && disk < before)
    }

    /// The nodes of a cluster of this size, in order of their ordinals.
    #[must_use]
    pub fn nodes(&self, replicas: i32) -> Vec<String> {
        names::nodes(&self.name, replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn of(change: impl FnOnce(&mut RaftQueue)) -> Vec<Refusal> {
        let mut object = RaftQueue::new("demo", RaftQueueSpec::default());
        object.metadata.namespace = Some("shop".into());
        object.metadata.uid = Some("u".into());
        change(&mut object);
        validate(&asked(&object, "node:1"))
    }

    #[test]
    fn the_defaults_can_be_followed() {
        assert_eq!(of(|_| ()), []);
    }

    #[test]
    fn what_an_older_definition_let_in_is_refused_with_what_would_be_right() {
        type Change = Box<dyn FnOnce(&mut RaftQueue)>;
        let cases: Vec<(Change, Reason, &str)> = vec![
            (
                Box::new(|o| o.spec.replicas = 2),
                Reason::ReplicasRefused,
                "spec.replicas is 2, but must be odd",
            ),
            (Box::new(|o| o.spec.replicas = 0), Reason::ReplicasRefused, "spec.replicas is 0"),
            (Box::new(|o| o.spec.replicas = 11), Reason::ReplicasRefused, "from 1 to 9"),
            (Box::new(|o| o.spec.replicas = -1), Reason::ReplicasRefused, "spec.replicas is -1"),
            (
                Box::new(|o| o.spec.config = [("colour".to_owned(), "red".to_owned())].into()),
                Reason::ConfigRefused,
                "spec.config has no key colour",
            ),
            (
                Box::new(|o| o.spec.config = [("threads".to_owned(), "0".to_owned())].into()),
                Reason::ConfigRefused,
                "spec.config threads is 0, but must be a whole number",
            ),
            (
                Box::new(|o| o.spec.storage.size = Some(Quantity("100Mi".into()))),
                Reason::ConfigRefused,
                "at least 1Gi",
            ),
            (
                Box::new(|o| o.spec.storage.size = Some(Quantity("big".into()))),
                Reason::ConfigRefused,
                "is big",
            ),
            (Box::new(|o| o.metadata.name = Some("a.b".into())), Reason::NotReadable, "the name a.b has"),
            (Box::new(|o| o.metadata.name = Some("a".repeat(41))), Reason::NotReadable, "more than 40"),
        ];
        for (change, reason, text) in cases {
            let refusals = of(change);
            assert_eq!(refusals.len(), 1, "{text}: {refusals:?}");
            assert_eq!(refusals[0].reason, reason);
            assert!(refusals[0].text.contains(text), "{text}: {refusals:?}");
        }
    }

    #[test]
    fn a_cluster_id_that_is_none_is_not_taken_for_one() {
        let mut object = RaftQueue::new("demo", RaftQueueSpec::default());
        object.metadata.namespace = Some("shop".into());
        object.metadata.uid = Some("u".into());
        for (text, is_id) in [
            ("0123456789abcdef0123456789abcdef", true),
            ("0123", false),
            ("+123456789abcdef0123456789abcdef", false),
        ] {
            object.status =
                Some(crd::RaftQueueStatus { cluster_id: Some(text.into()), ..Default::default() });
            assert_eq!(asked(&object, "node:1").latched.is_some(), is_id, "{text}");
        }
    }
}
