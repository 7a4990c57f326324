//! The pods.
//!
//! `Parallel`, since no node becomes ready before a majority runs. `OnDelete`, since only the operator knows when a pod
//! can be spared. A change of the template here reaches a cluster when its spec changes, and not by an upgrade of the operator
//! ([`super::template`]).
//!
//! It never deletes a claim, neither when it is scaled nor when it is deleted: one mistaken `kubectl scale` would take
//! the disks of a majority. Owner references of the claims say what becomes of the disks
//! ([`crate::cluster::plan::ClaimChange`]).

use super::encryption::{encryption_arguments, encryption_variables, encryption_volumes};
use super::settings::DRAIN_MS_DEFAULT;
use super::template::keep_or_build;
use super::{child, with_cluster_id};
use crate::cluster::plan::Shape;
use crate::cluster::validate::Asked;
use crate::names;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecurityContext,
    TopologySpreadConstraint, Volume, VolumeMount, VolumeResourceRequirements, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Least time between asking a node to end and killing it, in seconds.
const GRACE_SECONDS_MIN: i64 = 30;
/// What a node may need to end beside its drain, in seconds: handing over leadership, and a last flush.
const END_SECONDS_MAX: i64 = 20;
const CONFIG_VOLUME: &str = "config";
const CONFIG_PATH: &str = "/etc/raftqueue";
const DATA_PATH: &str = "/data";
/// Everybody in the pod may read the settings.
const CONFIG_MODE: i32 = 0o444;

pub(super) fn build_stateful_set(asked: &Asked, shape: &Shape) -> StatefulSet {
    let mut metadata = with_cluster_id(child(asked, asked.name.clone()), shape);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(names::MADE_FOR_ANNOTATION.to_owned(), shape.pods.to_string());
    let (mut template, kept) = keep_or_build(asked, shape);
    annotations.insert(names::TEMPLATE_ANNOTATION.to_owned(), kept);
    if let Some(restarted) = &shape.restarted {
        let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
        annotations.insert(names::RESTARTED_ANNOTATION.to_owned(), restarted.clone());
    }
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(shape.pods),
            service_name: Some(names::headless(&asked.name)),
            pod_management_policy: Some("Parallel".into()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                rolling_update: None,
            }),
            selector: select(asked),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(names::RETAIN.into()),
                when_scaled: Some(names::RETAIN.into()),
            }),
            volume_claim_templates: Some(vec![build_claim(asked, shape)]),
            template,
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn select(asked: &Asked) -> LabelSelector {
    LabelSelector { match_labels: Some(names::selector(&asked.name)), ..LabelSelector::default() }
}

fn build_claim(asked: &Asked, shape: &Shape) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_VOLUME.into()),
            labels: Some(names::labels(&asked.name)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: shape.disk_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(shape.disk_size.clone()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

pub(super) fn build_template(asked: &Asked, shape: &Shape) -> PodTemplateSpec {
    let config = serde_json::to_string(&asked.spec.config).expect("a map of texts can be written");
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(names::labels(&asked.name)),
            annotations: Some(BTreeMap::from([(names::CONFIG_ANNOTATION.to_owned(), config)])),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(asked.name.clone()),
            automount_service_account_token: Some(false),
            // A service called raftqueue would become the environment variable RAFTQUEUE_PORT, which a node might take for its own.
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(grace_seconds(asked)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                fs_group: Some(names::USER),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            affinity: Some(spread_over_machines(asked)),
            topology_spread_constraints: Some(vec![spread_over_zones(asked)]),
            containers: vec![build_container(asked, shape)],
            volumes: Some(build_volumes(asked, shape).into_iter().map(|(volume, _)| volume).collect()),
            ..PodSpec::default()
        }),
    }
}

/// The volumes of a pod beside its disk, and where they are mounted.
fn build_volumes(asked: &Asked, shape: &Shape) -> Vec<(Volume, VolumeMount)> {
    let config = Volume {
        name: CONFIG_VOLUME.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::config_map(&asked.name),
            default_mode: Some(CONFIG_MODE),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mut all = vec![(config, CONFIG_PATH)];
    all.extend(encryption_volumes(asked, &shape.encryption));
    let mount = |(volume, path): (Volume, &str)| {
        let mount = VolumeMount {
            name: volume.name.clone(),
            mount_path: path.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        (volume, mount)
    };
    all.into_iter().map(mount).collect()
}

fn build_container(asked: &Asked, shape: &Shape) -> Container {
    let settings = format!("{CONFIG_PATH}/{}", names::SETTINGS_FILE);
    let own = ["--discovery", "dns", "--settings", &settings, "--data-dir", DATA_PATH].map(str::to_owned);
    let arguments = own.into_iter().chain(encryption_arguments(&shape.encryption));
    let disk = VolumeMount {
        name: names::DATA_VOLUME.into(),
        mount_path: DATA_PATH.into(),
        ..VolumeMount::default()
    };
    let name = EnvVar {
        name: "RAFTQUEUE_NAME".into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".into(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    };
    let mounts = build_volumes(asked, shape).into_iter().map(|(_, mount)| mount);
    Container {
        name: names::CONTAINER.into(),
        image: Some(shape.image.clone()),
        image_pull_policy: asked.spec.image_pull_policy.map(|policy| format!("{policy:?}")),
        args: Some(arguments.collect()),
        env: Some(std::iter::once(name).chain(encryption_variables(&shape.encryption)).collect()),
        ports: Some(vec![
            port("grpc", names::CLIENT_PORT),
            port("grpc-peer", names::PEER_PORT),
            port("http-ops", names::OPERATIONS_PORT),
        ]),
        resources: Some(asked.spec.resources.clone()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        // A node reports its recovery from the first second. If it gives no answer for a minute, it hangs.
        startup_probe: Some(probe("/livez", 1, 2, 60)),
        liveness_probe: Some(probe("/livez", 10, 5, 6)),
        readiness_probe: Some(probe("/readyz", 1, 2, 2)),
        // The last words of a node that ends by itself become part of the pod's status, where the operator finds them.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(std::iter::once(disk).chain(mounts).collect()),
        ..Container::default()
    }
}

/// How long a node may take to end: its drain, and what comes after.
fn grace_seconds(asked: &Asked) -> i64 {
    let drain_ms =
        asked.spec.config.get("drain-ms").and_then(|text| text.parse().ok()).unwrap_or(DRAIN_MS_DEFAULT);
    let drain = i64::try_from(drain_ms.div_ceil(1_000)).unwrap_or(i64::MAX - END_SECONDS_MAX);
    (drain + END_SECONDS_MAX).max(GRACE_SECONDS_MIN)
}

/// Puts nodes on different machines if there are enough. A single machine takes all of them.
fn spread_over_machines(asked: &Asked) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    label_selector: Some(select(asked)),
                    topology_key: "kubernetes.io/hostname".into(),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Spreads nodes evenly over zones, as far as possible.
fn spread_over_zones(asked: &Asked) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(select(asked)),
        ..TopologySpreadConstraint::default()
    }
}

fn probe(path: &str, period_seconds: i32, timeout_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http-ops".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(timeout_seconds),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}
