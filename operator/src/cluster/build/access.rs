//! How nodes, clients and drains get at the pods: services, the service account, the budget.

use super::child;
use crate::cluster::validate::Asked;
use crate::names;
use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A node needs no rights towards Kubernetes, so no token is mounted.
pub(super) fn build_service_account(asked: &Asked) -> ServiceAccount {
    ServiceAccount {
        metadata: child(asked, asked.name.clone()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Gives each pod a name of its own in DNS, also before it is ready. Nodes find each other by these names to form the
/// cluster, and are not ready before that.
pub(super) fn build_headless_service(asked: &Asked) -> Service {
    Service {
        metadata: child(asked, names::headless(&asked.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(&asked.name)),
            ports: Some(vec![
                port("grpc", names::CLIENT_PORT),
                port("grpc-peer", names::PEER_PORT),
                port("http-ops", names::OPERATIONS_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// One address for clients, of whatever nodes are ready: any of them serves any call.
pub(super) fn build_client_service(asked: &Asked) -> Service {
    Service {
        metadata: child(asked, asked.name.clone()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(names::selector(&asked.name)),
            ports: Some(vec![port("grpc", names::CLIENT_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Lets drains take one node at a time, and none while more than one is not ready: those nodes may be about to get
/// ready, and without them there is no majority. If a single node is not ready, it may go, for the others serve.
pub(super) fn build_budget(asked: &Asked) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: child(asked, asked.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(&asked.name)),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("IfHealthyBudget".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(name.into())),
        ..ServicePort::default()
    }
}
