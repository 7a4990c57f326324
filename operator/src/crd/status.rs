//! What the operator answers: how the cluster is.
//!
//! Nothing here is a memory of its own but `step_since`, whose loss begins ten minutes anew: all else can be found again from the
//! nodes, their disks and the children of the object. Numbers that could exceed what JSON readers keep exactly (node ids, the cluster id) are text.

use super::schema;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How the cluster is, as the operator last saw it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
pub struct RaftQueueStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// How the cluster is, in a word, for display; conditions are for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_text")]
    pub phase: Option<Phase>,

    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// What the operator will do about members, step by step, the next one first. Absent: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,

    /// Since when the first of these steps is the next one. If that is too long ago, the condition Progressing is false, with the
    /// reason StepOverdue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_since: Option<Time>,

    /// Findings, one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Pods of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// Nodes that are ready to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,

    /// Labels that select the pods of the cluster, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Name of the node that leads; absent while none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,

    /// Raft term of that leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,

    /// The cluster that the nodes' disks belong to: 32 hexadecimal digits, kept from the first time the nodes report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "status.clusterId cannot change to that of another cluster: the disks found are not those of this RaftQueue"
    ).reason(Reason::FieldValueForbidden))]
    pub cluster_id: Option<String>,

    /// How often the cluster was forced to recover from a lost quorum: 0 unless somebody ever did that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,

    /// What can be done about a quorum that is lost: absent unless it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryOffer>,

    /// What is encrypted, as pods are made now; kept while `spec.tls` is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<super::TlsStatus>,

    /// Image of the nodes, kept when the operator is upgraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Size of the disks, of the smallest one where they differ; absent before there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = super::storage::QUANTITY_LENGTH_MAX))]
    pub disk_size: Option<String>,

    /// The members of the cluster and the nodes that wait to become one, in order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<MemberStatus>,
}

impl RaftQueueStatus {
    /// The same with these steps ahead. The next one keeps its time while it is the same.
    #[must_use]
    pub fn with_plan(self, before: &Self, plan: Vec<String>, now: &Time) -> Self {
        let since = before.step_since.clone().filter(|_| plan.first() == before.plan.first());
        let step_since = plan.first().map(|_| since.unwrap_or_else(|| now.clone()));
        Self { plan, step_since, ..self }
    }
}

/// The node that has most of what is left of a cluster whose quorum is lost.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
pub struct RecoveryOffer {
    /// Its name.
    pub member: String,
    /// What goes into `spec.recovery` together with it. It fits only what the node is now.
    pub token: String,
    /// What is known, and what it would cost.
    pub message: String,
}

/// One member of the cluster, or a node that waits to become one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_null)]
pub struct MemberStatus {
    /// Name of the node, which is that of its pod.
    pub name: String,
    /// Node id, 16 hexadecimal digits; absent before the node has formatted its disk. A node whose disk was replaced has
    /// another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its part in the cluster.
    #[schemars(schema_with = "schema::open_text")]
    pub role: Role,
    /// Whether it is ready to serve.
    pub ready: bool,
}

/// A member's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// A voter that leads.
    Leader,
    /// A voter that follows.
    Follower,
    /// Receives everything and does not vote yet.
    Learner,
    /// A blank node that is not a member yet.
    Waiting,
    /// The node did not say, or an operator of another version wrote something else.
    #[serde(other)]
    Unknown,
}

/// How the cluster is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was made yet.
    Pending,
    /// The nodes start and form the cluster.
    Forming,
    /// All is as the spec asks.
    Ready,
    /// Members are added or removed.
    Scaling,
    /// Pods are restarted, one at a time, with a newer image or newer settings.
    Updating,
    /// It serves; some nodes still run an older image or older settings.
    Outdated,
    /// The spec asks for what cannot be; the nodes run on as they were.
    Refused,
    /// It serves, but not all members are well.
    Degraded,
    /// A majority is missing, or none leads: nothing can be published or received.
    Unavailable,
    /// Disks of another cluster were found.
    ForeignDisk,
    /// The operator was told to change nothing.
    Paused,
    /// An operator of another version wrote something else.
    #[serde(other)]
    Unknown,
}
