//! Conditions: the findings of the operator in the form that generic tools wait for and alert on.
//!
//! Types and reasons are enums, so that a misspelt one does not compile and every one has a meaning written down. In the
//! object they are text, since an operator must be able to read what a newer one wrote before it was rolled back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::fmt;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// True: all members serve and everything is as the spec asks. The one to wait for after `kubectl apply`.
    Ready,
    /// True: there is a leader and a majority, so messages can be published and received.
    Available,
    /// True: something is on its way that needs nobody's help.
    Progressing,
    /// True: something is wrong, and its message says what to do.
    Degraded,
    /// True: a majority of the voters is ready.
    QuorumHealthy,
    /// True: every pod was made from the image, the settings and the resources that the spec asks for.
    UpToDate,
    /// True: every node has a disk of the size that the spec asks for.
    StorageReady,
    /// True: everything that the spec asks for can be done.
    SpecAccepted,
    /// True: the nodes speak nothing but TLS with each other. The message says what clients speak.
    Encrypted,
    /// True: the operator was told to change nothing.
    Paused,
    /// True: the last look at the cluster ended without an error.
    Reconciled,
    /// True: the cluster has one member, so one lost disk loses every message.
    SingleMember,
    /// True: disks of another cluster were found, and no step is taken until they are gone.
    ForeignDisk,
    /// True: the quorum is lost, and one node could go on alone. The message says what is known, what it costs and how.
    RecoveryPossible,
}

impl ConditionType {
    /// All of them, in the order in which they stand in a status.
    pub const ALL: &'static [ConditionType] = &[
        Self::Ready,
        Self::Available,
        Self::Progressing,
        Self::Degraded,
        Self::QuorumHealthy,
        Self::UpToDate,
        Self::StorageReady,
        Self::SpecAccepted,
        Self::Encrypted,
        Self::Paused,
        Self::Reconciled,
        Self::SingleMember,
        Self::ForeignDisk,
        Self::RecoveryPossible,
    ];
}

/// Why a condition is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Everything is as the spec asks.
    AsAsked,
    /// The nodes start and form the cluster, or begin again on the disks that they find.
    Forming,
    /// Children of an earlier object of the same name are still being deleted.
    WaitingForDeletion,
    /// A node leads and a majority follows.
    LeaderElected,
    /// No node leads.
    NoLeader,
    /// Some members are not ready; a majority is.
    MembersNotReady,
    /// One more failure would cost the majority.
    QuorumAtRisk,
    /// A majority of the voters is not ready.
    QuorumLost,
    /// A node of the cluster has lost its disk, or got an empty one.
    DiskLost,
    /// A disk's claim is being deleted.
    DiskLeaving,
    /// A disk is of an older generation of the cluster, and nobody has said that it may be deleted.
    DiskLeftBehind,
    /// Pods run that were made before the last change of the spec.
    OlderPods,
    /// Disks are smaller than the spec asks for, and grow.
    DisksGrow,
    /// Disks are larger than the spec asks for, and do not shrink.
    DisksCannotShrink,
    /// One node could go on alone, if somebody says so.
    RecoveryOffered,
    /// `spec.recovery` does not fit what is so.
    RecoveryStale,
    /// A volume is bound to a machine that is gone.
    DiskStranded,
    /// Some disks have no volume yet.
    DisksMissing,
    /// A node's image cannot be pulled.
    ImageNotPulled,
    /// No volume is there for a node's disk.
    VolumeUnbound,
    /// No machine has room for a pod.
    Unschedulable,
    /// A node ends again and again.
    CrashLooping,
    /// Kubernetes cannot start the container of a pod.
    ContainerNotStarted,
    /// Kubernetes does not make a pod.
    PodNotMade,
    /// A pod runs, but its node does not answer the operator.
    NodeSilent,
    /// The cluster has one member.
    OneMember,
    /// Disks that belong to different clusters were found.
    MixedClusters,
    /// A setting in `spec.config` is not known or cannot have its value.
    ConfigRefused,
    /// `spec.replicas` cannot be as asked.
    ReplicasRefused,
    /// Members are added or removed, as `spec.replicas` asks.
    Scaling,
    /// A voter whose disk is lost is replaced.
    ReplacingMember,
    /// The next step has been the next one for too long.
    StepOverdue,
    /// Somebody has changed members by hand in a way that the operator does not go on with.
    MembersByHand,
    /// The nodes do not tell their members in a way that this operator understands.
    MembersUnknown,
    /// The object cannot be read.
    NotReadable,
    /// An object with the name of a child exists and belongs to something else.
    NameTaken,
    /// Something is asked for that needs a kind of objects which this Kubernetes does not know, or which the operator may not
    /// use.
    KindUnusable,
    /// The cluster was formed before peers were encrypted by default, and nobody has said what it is to be.
    OpenByAge,
    /// `spec.tls.mode` is Off.
    OpenByChoice,
    /// Encryption is on its way to what is asked for, by one restart of each pod after the other.
    TlsChanging,
    /// The certificates that are asked for are not there, or cannot be used.
    CertificatesMissing,
    /// `spec.paused` is set.
    PausedBySpec,
    /// `spec.paused` is not set.
    NotPaused,
    /// A call to the API server failed.
    CallFailed,
    /// The nodes could not be asked.
    NotObserved,
    /// The definition of the custom resource is older than the operator.
    OlderDefinition,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be said.
    Unknown,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What the operator found about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub about: ConditionType,
    /// Whether it holds.
    pub holds: Truth,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// The conditions that follow from what was found, in the order of [`ConditionType::ALL`].
///
/// A condition keeps its time of transition while its truth stays the same, whatever becomes of its reason and message.
/// Conditions of `before` that were not found again are dropped, those of types not known here too: a status is always
/// written whole.
///
/// # Panics
/// If two findings are about the same condition.
#[must_use]
pub fn conclude(
    before: &[Condition],
    mut found: Vec<Finding>,
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    found.sort_by_key(|finding| finding.about);
    for pair in found.windows(2) {
        assert!(pair[0].about != pair[1].about, "two findings about {}", pair[0].about);
    }
    let conclude_one = |finding: Finding| {
        let status = format!("{:?}", finding.holds);
        let same = condition(before, finding.about).filter(|earlier| earlier.status == status);
        Condition {
            type_: finding.about.to_string(),
            status,
            reason: finding.reason.to_string(),
            message: finding.message,
            observed_generation: generation,
            last_transition_time: same.map_or(now, |earlier| &earlier.last_transition_time).clone(),
        }
    };
    found.into_iter().map(conclude_one).collect()
}

/// The condition of this type, if there is one.
#[must_use]
pub fn condition(conditions: &[Condition], about: ConditionType) -> Option<&Condition> {
    let name = about.to_string();
    conditions.iter().find(|condition| condition.type_ == name)
}
