//! The custom resource `RaftQueue`, version `raftqueue.io/v1alpha1`.
//!
//! The types here are the only source of the schema: `crdgen` prints [`manifest`], `deploy/crd.yaml` is that text, and a
//! test fails when the two differ. Rules are CEL expressions that the API server evaluates; each carries a message that
//! says what would be right, and why.
//!
//! How to change it: v1alpha1 grows by optional fields only. A rule can be relaxed later, never tightened, as objects that
//! were admitted before would be refused at their next change. Every string and map that a rule looks at has an upper
//! bound, since the API server refuses a definition whose rules could cost too much. Nothing in the spec is nullable, so
//! that `field: null` means the default, as it does for the API server's own types. What the status says is open text: an
//! operator that was rolled back must be able to read what a newer one wrote.
//!
//! What is not here: building anything from a `RaftQueue`, and checks that need more than the object itself.

#![expect(unreachable_pub, reason = "the derived schema makes hidden copies of the public types")]

mod conditions;
mod neighbours;
mod quantity;
mod resources;
mod schema;
mod settings;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod tls;

pub use conditions::{ConditionType, Finding, Reason, Truth, conclude, condition};
pub use neighbours::{
    MonitorSettings, Monitoring, NetworkPolicySettings, PeerSelector, ServiceMonitorSettings,
};
pub use quantity::thousandths;
pub use resources::{CPU_REQUEST_DEFAULT, MEMORY_REQUEST_DEFAULT};
pub use settings::{
    CONFIG_ENTRIES_MAX, CONFIG_VALUE_LENGTH_MAX, SETTINGS, Setting, SettingRefused, SettingValue,
    check_config,
};
pub use status::{MemberStatus, Phase, RaftQueueStatus, RecoveryOffer, Role};
pub use storage::{Disposal, Retention, SIZE_DEFAULT, SIZE_MIN, Storage};
pub use tls::{Auth, IssuerRef, Tls, TlsMode, TlsStage, TlsStatus};

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Greatest length of a RaftQueue's name, in characters. Kubernetes labels the pods of a StatefulSet with its name and a
/// hash, and a label has at most 63.
pub const NAME_LENGTH_MAX: usize = 40;
/// Fewest nodes of a cluster.
pub const REPLICAS_MIN: i32 = 1;
/// Most nodes of a cluster. Every publish waits for a majority, so more nodes make it slower, not faster.
pub const REPLICAS_MAX: i32 = 9;
/// Nodes of a cluster that does not say.
pub const REPLICAS_DEFAULT: i32 = 3;
/// Greatest length of an image reference, in characters.
pub const IMAGE_LENGTH_MAX: usize = 512;
/// Greatest length of the name of a node, or of a token, in characters.
pub const RECOVERY_LENGTH_MAX: usize = 64;

/// Where the disks are made, a size that is new is not below theirs, or none. An unchanged one is not looked at again: it may be older than
/// this rule, and must not hold up a change of something else.
const SIZE_RULE: &str = "!has(self.spec.storage) || !has(self.spec.storage.size) || !has(self.status) || \
    !has(self.status.diskSize) || (has(oldSelf.spec.storage) && has(oldSelf.spec.storage.size) && \
    self.spec.storage.size == oldSelf.spec.storage.size) || !isQuantity(self.spec.storage.size) || \
    !isQuantity(self.status.diskSize) || \
    quantity(self.spec.storage.size).compareTo(quantity(self.status.diskSize)) >= 0";

/// Who may do what is asked only where the operator can prove who it is.
const AUTH_RULE: &str = "!has(self.spec.auth) || !has(self.spec.tls) || self.spec.tls.mode != 'Off'";

/// What a user asks for.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "raftqueue.io",
    version = "v1alpha1",
    kind = "RaftQueue",
    plural = "raftqueues",
    singular = "raftqueue",
    shortname = "rq",
    category = "all",
    namespaced,
    derive = "PartialEq",
    doc = "A replicated message queue: a cluster of nodes that keep every acknowledged message on a majority of disks.",
    status = "RaftQueueStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas", description = "Nodes asked for"),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Nodes that serve"
    ),
    printcolumn(
        name = "Leader",
        type_ = "string",
        json_path = ".status.leader",
        description = "The node that leads"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.phase",
        description = "How the cluster is, in a word"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What there is to say, most urgent first",
        priority = 1
    ),
    validation = Rule::new(format!("self.metadata.name.size() <= {NAME_LENGTH_MAX}")).message(format!(
        "metadata.name may have at most {NAME_LENGTH_MAX} characters: Kubernetes adds a hash to it in a label of the pods, \
         and a label holds 63"
    ).as_str()),
    validation = Rule::new("!self.metadata.name.contains('.')").message(
        "metadata.name must not contain dots: it becomes part of the nodes' DNS names, where a dot separates names"
    ),
    validation = Rule::new("has(self.status) || !self.metadata.name.endsWith('-headless')").message(
        "metadata.name must not end in -headless: the service by which the nodes of another RaftQueue find each other may \
         have that name"
    ),
    validation = Rule::new(SIZE_RULE).message(
        "storage.size must not be below that of the disks (status.diskSize tells it): a disk can grow and never shrinks. Make a \
         second RaftQueue with smaller disks and move the messages"
    ),
    validation = Rule::new(AUTH_RULE).message(
        "auth needs certificates, and tls.mode is Off: set tls.mode to Auto, Secret or CertManager. The operator, too, has to prove who \
         it is"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]')").message(
        "metadata.name must begin with a letter: the services of the cluster are named after it, and a service's name does"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
pub struct RaftQueueSpec {
    /// Nodes of the cluster: 1, 3, 5, 7 or 9. Three bear the loss of one without losing a message or stopping, five the
    /// loss of two. `kubectl scale` works: members come and go by two, each step confirmed by the others, while the cluster
    /// serves; `status.plan` tells the steps ahead.
    #[serde(default = "replicas_default")]
    #[schemars(range(min = REPLICAS_MIN, max = REPLICAS_MAX))]
    #[x_kube(validation = Rule::new("self % 2 == 1").message(
        "replicas must be odd: one node more than an odd number makes every publish wait for a larger majority and bears no \
         more failures (3 bear the loss of one, 5 of two)"
    ))]
    pub replicas: i32,

    /// Image of the nodes. Where it is left out the cluster gets the image that goes with the operator. It keeps the last
    /// one when the operator is upgraded, and when the field is removed (`status.image` says which).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = IMAGE_LENGTH_MAX))]
    #[x_kube(validation = Rule::new(format!("self.matches('{IMAGE_PATTERN}')")).message(
        "image must be a reference such as registry.example.com/raftqueue/node:0.1.0, optionally followed by @sha256: and \
         a digest of 64 hexadecimal digits"
    ))]
    pub image: Option<String>,

    /// When the image is pulled. Default: always for the tag `latest`, else only where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// The disks that hold the log, one a node.
    #[serde(default)]
    pub storage: Storage,

    /// Processor and memory of each node. A backlog costs disk, not memory. A change restarts
    /// the pods, one at a time and the leader last.
    #[serde(default = "resources::resources_default")]
    #[schemars(schema_with = "resources::resources_schema")]
    pub resources: ResourceRequirements,

    /// Settings of the nodes by their names, all values in quotes: election-timeout-ms, drain-ms, body-bytes-max,
    /// client-bytes-max, connections-per-address-max, lease-ms, attempts-max, reserve-bytes, segment-bytes,
    /// scrub-bytes-per-second, threads, log-format. A change restarts the pods, one at a time and the leader last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "settings::config_schema")]
    pub config: BTreeMap<String, String>,

    /// For a cluster that has lost its quorum for good: lets one node go on alone, without what only the others had.
    /// `status.recovery` says which node has most, what it would cost, and the token. Nothing is done unless both fit what is
    /// so at that moment, and then it is done once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,

    /// Who may reach the nodes. Default: everybody that Kubernetes lets at them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicySettings>,

    /// What is encrypted. Default: the peers of a cluster that forms from now on, by certificates that the operator makes and renews; one
    /// that has formed before stays as it is, and the condition Encrypted tells that it is open. Clients speak plain until `tls.clients`
    /// says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// Who may do what. Default: everybody may do everything. It needs certificates, since the operator shows one: clients can speak
    /// TLS from then on even if `tls.clients` is Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,

    /// What watches the nodes. Default: nothing; each node serves `/metrics` on port 7422.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,

    /// Stops the operator from changing anything; the nodes run on, and the status is still kept up to date.
    #[serde(default)]
    pub paused: bool,
}

/// Which node is to go on alone.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
pub struct Recovery {
    /// Its name, as in `status.recovery.member`.
    #[schemars(length(min = 1, max = RECOVERY_LENGTH_MAX))]
    pub member: String,
    /// The token, as in `status.recovery.token`.
    #[schemars(length(min = 1, max = RECOVERY_LENGTH_MAX))]
    pub token: String,
}

/// When a node's image is pulled; the names are those of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Before every start.
    Always,
    /// Where the machine does not have it.
    IfNotPresent,
    /// Never: the machine has it already.
    Never,
}

/// What an image reference looks like: host or first name, port, path, tag, digest.
const IMAGE_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*\
    (:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?$";

impl Default for RaftQueueSpec {
    /// What the API server makes of `spec: {}`.
    fn default() -> Self {
        Self {
            replicas: REPLICAS_DEFAULT,
            image: None,
            image_pull_policy: None,
            storage: Storage::default(),
            resources: resources::resources_default(),
            config: BTreeMap::new(),
            recovery: None,
            network_policy: None,
            tls: None,
            auth: None,
            monitoring: None,
            paused: false,
        }
    }
}

fn replicas_default() -> i32 {
    REPLICAS_DEFAULT
}

/// The definition of the custom resource as a YAML document, for `deploy/crd.yaml`.
///
/// # Panics
/// Never: the definition is the same at every call, and tests make it.
#[must_use]
pub fn manifest() -> String {
    let definition =
        serde_saphyr::to_string(&RaftQueue::crd()).expect("a definition holds only maps, lists and scalars");
    format!("# Printed by crdgen; change the types in operator/src/crd instead.\n{definition}")
}
