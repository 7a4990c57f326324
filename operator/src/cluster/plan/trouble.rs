//! Pods whose nodes do not run, in sentences that say what to do.

use super::Shape;
use crate::cluster::observation::{Observation, TroubleKind};
use crate::cluster::validate::Asked;
use crate::crd::Reason;
use crate::names;

/// Most characters of the words of Kubernetes, or of a node's last log lines, in a message.
const DETAIL_LENGTH_MAX: usize = 300;

/// The first trouble there is: pods with the same kind are told of together.
pub(super) fn tell(asked: &Asked, seen: &Observation, shape: &Shape) -> Option<(Reason, String)> {
    let troubles = || seen.pods.iter().filter_map(|(name, pod)| Some((name, pod.trouble.as_ref()?)));
    let kind = troubles().map(|(_, trouble)| trouble.kind).min()?;
    let mut names = Vec::new();
    let mut detail = None;
    for (name, trouble) in troubles().filter(|(_, trouble)| trouble.kind == kind) {
        names.push(name.as_str());
        detail.get_or_insert(trouble.detail.as_str());
    }
    let (pods, detail) = (names.join(", "), shorten(detail.unwrap_or_default()));
    let namespace = &asked.namespace;
    let first = names.first().copied().unwrap_or_default();
    Some(match kind {
        TroubleKind::Image => (
            Reason::ImageNotPulled,
            format!(
                "{pods}: the image {} cannot be had: {detail}. {}, or make the image available; the pods then go on by \
                 themselves",
                shape.image,
                match asked.spec.image {
                    Some(_) => "Correct spec.image",
                    None => "Set spec.image (without it the last one is kept)",
                }
            ),
        ),
        TroubleKind::Volume => {
            let class = match &shape.disk_class {
                Some(class) => format!("of class {class}"),
                None => "of the default class".to_owned(),
            };
            (
                Reason::VolumeUnbound,
                format!(
                    "{pods}: no volume for {}: {detail}. Make a PersistentVolume of at least {} {class}, or a storage class \
                     that makes volumes; the pods then go on by themselves",
                    names.iter().map(|name| names::claim(name)).collect::<Vec<_>>().join(", "),
                    shape.disk_size
                ),
            )
        }
        TroubleKind::Placing => (
            Reason::Unschedulable,
            format!(
                "{pods}: no machine has room: {detail}. Ask for less in spec.resources, or add machines; the pods then go on \
                 by themselves"
            ),
        ),
        TroubleKind::Crashing => (
            Reason::CrashLooping,
            format!(
                "{pods}: the node ends again and again: {detail}. Its log tells more: kubectl logs -n {namespace} {first} \
                 --previous"
            ),
        ),
        TroubleKind::Starting => (
            Reason::ContainerNotStarted,
            format!(
                "{pods}: the container cannot be started: {detail}. More: kubectl describe pod -n {namespace} {first}"
            ),
        ),
    })
}

/// Text of others on one line and of bounded length, without the full stop at its end.
pub(super) fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches('.');
    match line.char_indices().nth(DETAIL_LENGTH_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None if line.is_empty() => "no reason given".to_owned(),
        None => line.to_owned(),
    }
}
