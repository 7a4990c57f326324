//! What things are called: children, labels, ports, and the paths inside a pod.
//!
//! Selectors and the names of claims can never change for a cluster that exists: Kubernetes keeps them as they were made.

use std::collections::BTreeMap;

/// Who this operator is in field ownership, in events and in the Lease.
pub const MANAGER: &str = "raftqueue-operator";
/// Namespace where `deploy` puts the operator.
pub const NAMESPACE_DEFAULT: &str = "raftqueue-system";
/// Port for clients: gRPC and HTTP.
pub const CLIENT_PORT: i32 = 7420;
/// Port for peers.
pub const PEER_PORT: i32 = 7421;
/// Port for metrics and probes.
pub const OPERATIONS_PORT: i32 = 7422;
/// The container of the node in a pod.
pub const CONTAINER: &str = "node";
/// The claim template, and the volume, that hold the log.
pub const DATA_VOLUME: &str = "data";
/// The volume with certificates.
pub const TLS_VOLUME: &str = "tls";
/// The volume with what says who may do what.
pub const AUTH_VOLUME: &str = "auth";
/// The flag of a node that says what peers speak.
pub const PEERS_FLAG: &str = "--tls-peers";
/// The flag of a node that says what clients speak.
pub const CLIENTS_FLAG: &str = "--tls-clients";
/// The file with the authorities that clients trust, in the ConfigMap.
pub const AUTHORITIES_FILE: &str = "ca.crt";
/// The file with a node's settings, in the ConfigMap.
pub const SETTINGS_FILE: &str = "settings.json";
/// What a StatefulSet says to keep its claims.
pub const RETAIN: &str = "Retain";
/// User and group of the node's image.
pub const USER: i64 = 65532;

/// Label of everything that this operator makes, and what the watches select.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Label with the name of the RaftQueue.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Label that Kubernetes puts on a pod: the revision of the template that it was made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Annotation of the StatefulSet: how many nodes it was made for. The set's own count may be edited by hand; this one
/// says what it has to be.
pub const MADE_FOR_ANNOTATION: &str = "raftqueue.io/made-for-replicas";
/// Annotation of the StatefulSet and the ConfigMap: the cluster that the disks belong to, as the status has it too. A status can
/// be lost: an older definition of the custom resource does not keep it, a backup leaves it out.
pub const CLUSTER_ID_ANNOTATION: &str = "raftqueue.io/cluster-id";
/// Annotation of the StatefulSet, and of the ConfigMap for the moments when there is no set: the template of the pods as it was
/// made, and what of the spec it was made of. An upgrade of the operator changes neither.
pub const TEMPLATE_ANNOTATION: &str = "raftqueue.io/template";
/// Annotation of a claim: the cluster whose member it was until that was removed. Its disk is to go once its pod is gone.
pub const REMOVED_FROM_ANNOTATION: &str = "raftqueue.io/removed-from";
/// Annotation of the StatefulSet: when it was touched because a pod was missing for long. Its controller does not notice by itself
/// that a claim which it waits for is gone.
pub const WOKEN_ANNOTATION: &str = "raftqueue.io/woken";
/// Annotation of the pods that `kubectl rollout restart` makes: when somebody last asked for that. It stands in the template of the set,
/// and nowhere else.
pub const RESTARTED_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";
/// Annotation of the pods: the settings of `spec.config` that they were made for. By it a change of the settings
/// changes the template. Whether nodes form or join stands beside the settings and is left out on purpose.
pub const CONFIG_ANNOTATION: &str = "raftqueue.io/config";

/// The headless service, by which nodes find each other.
#[must_use]
pub fn headless(name: &str) -> String {
    format!("{name}-headless")
}

/// The ConfigMap with the nodes' settings.
#[must_use]
pub fn config_map(name: &str) -> String {
    format!("{name}-config")
}

/// The ConfigMap with the cluster's dashboards.
#[must_use]
pub fn dashboards(name: &str) -> String {
    format!("{name}-dashboards")
}

/// The Secret with the certificates of the nodes and of the operator, where the operator makes them.
#[must_use]
pub fn node_tls(name: &str) -> String {
    format!("{name}-node-tls")
}

/// The Secret with the authority that signs those, which no pod has.
#[must_use]
pub fn node_ca(name: &str) -> String {
    format!("{name}-node-ca")
}

/// The Secret that cert-manager fills, and the Certificate by which it does.
#[must_use]
pub fn cert_manager(name: &str) -> String {
    format!("{name}-cert-manager")
}

/// The domain of the nodes: that of their headless service.
#[must_use]
pub fn domain(name: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc", headless(name))
}

/// The pod of a node, which is also the node's name.
#[must_use]
pub fn node(name: &str, ordinal: i32) -> String {
    format!("{name}-{ordinal}")
}

/// The ordinal of a node of this cluster; absent for any other name.
#[must_use]
pub fn ordinal(name: &str, node: &str) -> Option<i32> {
    let digits = node.strip_prefix(name)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok().filter(|ordinal| *ordinal >= 0 && *ordinal < i32::MAX)?;
    // Another spelling of the number is another name.
    (self::node(name, ordinal) == node).then_some(ordinal)
}

/// Where the node at this address serves its clients.
#[must_use]
pub fn client_uri(address: &str, is_encrypted: bool) -> String {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let scheme = if is_encrypted { "https" } else { "http" };
    format!("{scheme}://{host}:{CLIENT_PORT}")
}

/// The claim of a node's disk.
#[must_use]
pub fn claim(node: &str) -> String {
    format!("{DATA_VOLUME}-{node}")
}

/// The node whose claim this is; absent if it is not a claim of a node of this cluster.
#[must_use]
pub fn node_of_claim<'a>(name: &str, claim: &'a str) -> Option<&'a str> {
    let node = claim.strip_prefix(DATA_VOLUME)?.strip_prefix('-')?;
    let ordinal = node.strip_prefix(name)?.strip_prefix('-')?;
    (!ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit())).then_some(node)
}

/// The nodes of a cluster of this size, in order of their ordinals.
#[must_use]
pub fn nodes(name: &str, replicas: i32) -> Vec<String> {
    (0..replicas).map(|ordinal| node(name, ordinal)).collect()
}

/// Labels that select the pods of a cluster.
#[must_use]
pub fn selector(name: &str) -> BTreeMap<String, String> {
    labels_of(&[("name", "raftqueue"), ("instance", name), ("component", "node")])
}

/// Labels that select the operator's own pods, as `deploy/operator/operator.yaml` has them.
#[must_use]
pub fn operator_selector() -> BTreeMap<String, String> {
    labels_of(&[("name", MANAGER)])
}

/// Labels of every child.
#[must_use]
pub fn labels(name: &str) -> BTreeMap<String, String> {
    let mut labels = selector(name);
    labels.extend(labels_of(&[("managed-by", MANAGER), ("part-of", "raftqueue")]));
    labels
}

/// Labels as a selector in text.
#[must_use]
pub fn as_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn labels_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (format!("app.kubernetes.io/{key}"), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_names_its_ordinal_as_a_number() {
        for (node, expected) in [
            ("demo-0", Some(0)),
            ("demo-10", Some(10)),
            ("demo-01", None),
            ("demo-+1", None),
            ("demo--1", None),
            ("demo-", None),
            ("demo", None),
            ("demo-1-0", None),
            ("other-1", None),
            ("demo-99999999999", None),
        ] {
            assert_eq!(ordinal("demo", node), expected, "{node}");
        }
    }

    #[test]
    fn a_claim_names_its_node() {
        assert_eq!(node_of_claim("demo", &claim("demo-12")), Some("demo-12"));
        for other in
            ["data-demo-1-copy", "data-demo-", "data-demo", "data-demo-a-1", "old-demo-1", "data-shop-1"]
        {
            assert_eq!(node_of_claim("demo", other), None, "{other}");
        }
    }
}
