//! What a pod's status tells: whether its node runs, and if not, what kind of trouble it is.

use super::{events_of, told_at};
use crate::cluster::encryption::PodEncryption;
use crate::cluster::observation::{NodeSeen, PodSeen, Trouble, TroubleKind};
use crate::crd::TlsStage;
use crate::names;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use std::collections::BTreeMap;

/// How long a pod may wait for a machine or a volume before that is called trouble, in seconds. Making a volume takes a
/// moment.
const PLACING_SECONDS_MAX: i64 = 5;
/// How long the start of a container may take before the reason is looked for, in seconds.
const STARTING_SECONDS_MAX: i64 = 20;

/// These pods by their names; their nodes are not asked yet.
pub(super) async fn look(
    client: &Client,
    namespace: &str,
    pods: Vec<Pod>,
    now: Timestamp,
) -> Result<BTreeMap<String, PodSeen>, kube::Error> {
    let mut seen = BTreeMap::new();
    for pod in pods {
        let mut one = see(&pod, now);
        if one.trouble.is_none() && !one.deleting && is_long_in_the_making(&pod, now) {
            let said = events_of(client, namespace, &one.uid).await?;
            let last = said
                .into_iter()
                .filter(|event| event.type_.as_deref() == Some("Warning"))
                .max_by_key(told_at);
            one.trouble = last
                .and_then(|event| event.message)
                .map(|detail| Trouble { kind: TroubleKind::Starting, detail });
        }
        seen.insert(pod.name_any(), one);
    }
    Ok(seen)
}

fn see(pod: &Pod, now: Timestamp) -> PodSeen {
    let deleting = pod.metadata.deletion_timestamp.is_some();
    PodSeen {
        uid: pod.uid().unwrap_or_default(),
        revision: pod.labels().get(names::REVISION_LABEL).cloned(),
        restarted: pod.annotations().get(names::RESTARTED_ANNOTATION).cloned(),
        ready: has_condition(pod, "Ready", "True"),
        deleting,
        trouble: if deleting {
            None
        } else {
            unplaced(pod, now).or_else(|| container(pod).and_then(stopped))
        },
        encryption: encryption(pod),
        address: container(pod)
            .and_then(|container| container.state.as_ref()?.running.as_ref())
            .and_then(|_| pod.status.as_ref()?.pod_ip.clone()),
        node: NodeSeen::NotAsked,
    }
}

/// What a node speaks, by the arguments and the volumes that its pod was made with.
fn encryption(pod: &Pod) -> PodEncryption {
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    let arguments: Vec<&String> = containers
        .filter(|one| one.name == names::CONTAINER)
        .flat_map(|one| one.args.iter().flatten())
        .collect();
    let stage = |flag: &str| {
        let mut pairs = arguments.windows(2).filter(|pair| pair[0] == flag);
        pairs.next().and_then(|pair| TlsStage::of_flag(pair[1])).unwrap_or_default()
    };
    let volumes = || spec.into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    let secret =
        volumes().find(|volume| volume.name == names::TLS_VOLUME).and_then(|volume| volume.secret.as_ref());
    PodEncryption {
        secret: secret.and_then(|secret| secret.secret_name.clone()),
        peers: stage(names::PEERS_FLAG),
        clients: stage(names::CLIENTS_FLAG),
        has_auth: volumes().any(|volume| volume.name == names::AUTH_VOLUME),
    }
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let all = pod.status.as_ref()?.container_statuses.as_ref()?;
    all.iter().find(|container| container.name == names::CONTAINER)
}

fn has_condition(pod: &Pod, about: &str, status: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == about && condition.status == status)
}

fn unplaced(pod: &Pod, now: Timestamp) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let since = condition.last_transition_time.as_ref()?.0;
    if now.as_second() - since.as_second() < PLACING_SECONDS_MAX {
        return None;
    }
    let detail = condition.message.clone().unwrap_or_default();
    let lower = detail.to_lowercase();
    let is_volume = ["persistentvolumeclaim", "persistent volume", "volume node affinity"];
    let kind = if is_volume.iter().any(|words| lower.contains(words)) {
        TroubleKind::Volume
    } else {
        TroubleKind::Placing
    };
    Some(Trouble { kind, detail })
}

/// Why a container is not running, if that does not look like a matter of moments.
fn stopped(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let said = waiting.message.as_deref().unwrap_or_default();
    let (kind, detail) = match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => (TroubleKind::Image, format!("{reason}: {said}")),
        "CrashLoopBackOff" => {
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let detail = last.map_or_else(
                || said.to_owned(),
                |last| {
                    format!("exit code {}: {}", last.exit_code, last.message.as_deref().unwrap_or_default())
                },
            );
            (TroubleKind::Crashing, detail)
        }
        "ContainerCreating" | "PodInitializing" => return None,
        _ => (TroubleKind::Starting, format!("{reason}: {said}")),
    };
    Some(Trouble { kind, detail })
}

fn is_long_in_the_making(pod: &Pod, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let waits = container(pod).is_none_or(|container| {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("ContainerCreating"))
    });
    waits && started.is_some_and(|started| now.as_second() - started.0.as_second() >= STARTING_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn trouble(status: &Value) -> Option<(TroubleKind, String)> {
        let pod = json!({"metadata": {"name": "demo-0", "uid": "u"}, "status": status});
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        see(&serde_json::from_value(pod).unwrap(), now).trouble.map(|trouble| (trouble.kind, trouble.detail))
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"containerStatuses": [{"name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": {"terminated": {"exitCode": 2, "message": "there is no setting `x`"}}}]})
    }

    fn unscheduled(since: &str, message: &str) -> Value {
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                               "lastTransitionTime": since, "message": message}]})
    }

    #[test]
    fn trouble_is_told_apart_by_what_a_person_has_to_do() {
        let early = "2026-01-01T00:00:00Z";
        for (status, kind, words) in [
            (waiting("ErrImagePull", "not found"), TroubleKind::Image, "ErrImagePull: not found"),
            (waiting("ImagePullBackOff", "x"), TroubleKind::Image, "ImagePullBackOff: x"),
            (
                waiting("CrashLoopBackOff", "back-off"),
                TroubleKind::Crashing,
                "exit code 2: there is no setting `x`",
            ),
            (
                waiting("CreateContainerConfigError", "no map"),
                TroubleKind::Starting,
                "CreateContainerConfigError: no map",
            ),
            (
                unscheduled(
                    early,
                    "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                ),
                TroubleKind::Volume,
                "unbound",
            ),
            (
                unscheduled(early, "0/1 nodes are available: 1 Insufficient memory."),
                TroubleKind::Placing,
                "memory",
            ),
        ] {
            let (found, detail) = trouble(&status).unwrap();
            assert_eq!(found, kind, "{status}");
            assert!(detail.contains(words), "{detail}");
        }
    }

    #[test]
    fn what_a_node_speaks_is_told_by_what_its_pod_was_made_with() {
        let of = |spec: Value| {
            let pod = json!({"metadata": {"name": "demo-0", "uid": "u"}, "spec": spec});
            see(&serde_json::from_value(pod).unwrap(), Timestamp::UNIX_EPOCH).encryption
        };
        let older = json!({"containers": [{"name": "node", "args": ["--discovery", "dns"]}]});
        assert_eq!(of(older), PodEncryption::default());
        let words = ["--tls-peers", "required", "--tls-clients", "optional"];
        let encrypted = json!({"containers": [{"name": "other", "args": ["--tls-peers", "off"]}, {"name": "node", "args": words}],
            "volumes": [{"name": "tls", "secret": {"secretName": "demo-node-tls"}}, {"name": "auth", "configMap": {"name": "g"}}]});
        let expected = PodEncryption {
            secret: Some("demo-node-tls".into()),
            peers: TlsStage::Required,
            clients: TlsStage::Optional,
            has_auth: true,
        };
        assert_eq!(of(encrypted), expected);
        let strange =
            json!({"containers": [{"name": "node", "args": ["--tls-peers", "often", "--tls-clients"]}]});
        assert_eq!(of(strange), PodEncryption::default());
    }

    #[test]
    fn what_is_a_matter_of_moments_is_no_trouble() {
        let running = json!({"podIP": "10.0.0.1", "containerStatuses": [{"name": "node", "image": "", "imageID": "",
            "ready": false, "restartCount": 1, "state": {"running": {}}}]});
        let just_now = "2026-01-01T00:00:57Z";
        for status in [
            json!({}),
            waiting("ContainerCreating", ""),
            waiting("PodInitializing", ""),
            unscheduled(just_now, "pod has unbound immediate PersistentVolumeClaims"),
            running,
        ] {
            assert_eq!(trouble(&status), None, "{status}");
        }
    }
}
