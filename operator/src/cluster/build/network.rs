//! Who may reach the nodes: a NetworkPolicy, where the spec asks for one.
//!
//! Kubernetes enforces it where its network plugin can. What comes from the machine of a pod is never held up, so probes
//! and `kubectl port-forward` go on working.

use super::child;
use crate::cluster::validate::Asked;
use crate::crd::PeerSelector;
use crate::names;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// The label that Kubernetes gives to a namespace: its name.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// The label of what the usual ways to install it call Prometheus.
const PROMETHEUS: (&str, &str) = ("app.kubernetes.io/name", "prometheus");

/// Peers reach each other, and only they the peers' port; clients theirs; the operator and Prometheus what they ask.
pub(super) fn build_network_policy(asked: &Asked) -> Option<NetworkPolicy> {
    let wanted = asked.spec.network_policy.as_ref().filter(|wanted| wanted.enabled)?;
    let own = NetworkPolicyPeer {
        pod_selector: Some(labels(names::selector(&asked.name))),
        ..NetworkPolicyPeer::default()
    };
    let operator = NetworkPolicyPeer {
        pod_selector: Some(labels(names::operator_selector())),
        namespace_selector: Some(label(NAMESPACE_LABEL, &asked.operator_namespace)),
        ..NetworkPolicyPeer::default()
    };
    let ingress = vec![
        rule(vec![own], &[names::CLIENT_PORT, names::PEER_PORT]),
        rule(vec![operator], &[names::CLIENT_PORT, names::OPERATIONS_PORT]),
        rule(clients(&wanted.clients), &[names::CLIENT_PORT]),
        rule(monitors(&wanted.monitors), &[names::OPERATIONS_PORT]),
    ];
    Some(NetworkPolicy {
        metadata: child(asked, asked.name.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels(names::selector(&asked.name))),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(ingress),
            egress: None,
        }),
    })
}

/// Those that are named, else every pod of the namespace.
fn clients(named: &[PeerSelector]) -> Vec<NetworkPolicyPeer> {
    let everybody =
        NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    if named.is_empty() { vec![everybody] } else { named.iter().map(peer).collect() }
}

/// Those that are named, else what is labelled as Prometheus, in any namespace.
fn monitors(named: &[PeerSelector]) -> Vec<NetworkPolicyPeer> {
    let prometheus = NetworkPolicyPeer {
        pod_selector: Some(label(PROMETHEUS.0, PROMETHEUS.1)),
        namespace_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    };
    if named.is_empty() { vec![prometheus] } else { named.iter().map(peer).collect() }
}

/// NB: Kubernetes refuses a peer without any selector. One that says nothing here means every pod of the namespace.
fn peer(named: &PeerSelector) -> NetworkPolicyPeer {
    let namespaces = named.namespace_labels.clone().map(labels);
    let pods = named.pod_labels.clone().or_else(|| namespaces.is_none().then(BTreeMap::new)).map(labels);
    NetworkPolicyPeer { pod_selector: pods, namespace_selector: namespaces, ip_block: None }
}

fn rule(from: Vec<NetworkPolicyPeer>, ports: &[i32]) -> NetworkPolicyIngressRule {
    let ports = ports
        .iter()
        .map(|port| NetworkPolicyPort {
            port: Some(IntOrString::Int(*port)),
            protocol: Some("TCP".into()),
            end_port: None,
        })
        .collect();
    NetworkPolicyIngressRule { from: Some(from), ports: Some(ports) }
}

fn label(key: &str, value: &str) -> LabelSelector {
    labels(BTreeMap::from([(key.to_owned(), value.to_owned())]))
}

fn labels(labels: BTreeMap<String, String>) -> LabelSelector {
    // The empty selector selects everything, and is written down as such.
    let match_labels = Some(labels).filter(|labels| !labels.is_empty());
    LabelSelector { match_labels, ..LabelSelector::default() }
}
