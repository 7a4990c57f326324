//! The steps that touch what runs: one home for what each is, what it is called in metrics, and the event that tells of it.

/// A step that touches a running pod, a member or a disk. At most one is taken in a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delete a pod whose node does not run and which was made from an older template, so that it is made anew from the
    /// newest. Kubernetes would keep it for ever.
    ReplaceStuckPod {
        /// Its name.
        pod: String,
        /// Which pod of that name: no other is deleted.
        uid: String,
    },
    /// Nodes that wait become learners.
    AddLearners {
        /// Which.
        nodes: Vec<Named>,
        /// The configuration that this was judged by: with another one in force the nodes refuse it.
        at: u64,
    },
    /// Learners become voters, in one step.
    Promote {
        /// Which.
        nodes: Vec<Named>,
        /// As above.
        at: u64,
    },
    /// Members are removed, in one step. A leader among them hands over.
    Remove {
        /// Which.
        nodes: Vec<Named>,
        /// As above.
        at: u64,
    },
    /// A learner takes the place of a voter whose disk is lost.
    Replace {
        /// The voter.
        old: Named,
        /// The learner.
        new: Named,
        /// As above.
        at: u64,
    },
    /// The leader hands over to another node.
    HandOver {
        /// The leader.
        from: Named,
    },
    /// Delete a pod whose node runs and which was made from an older template, so that it is made anew from the newest.
    RestartPod {
        /// Its name.
        pod: String,
        /// Which pod of that name: no other is deleted.
        uid: String,
    },
    /// A node goes on alone whose cluster has lost its quorum for good, because somebody said so.
    Recover {
        /// Which.
        node: Named,
        /// What it has shown, and what `spec.recovery` gives back.
        token: String,
        /// It does so only if it is forced, as it was told.
        force: bool,
        /// What it costs.
        costs: String,
    },
    /// Delete the claim of a disk that is of no use any more. It lasts as long as its pod.
    DiscardDisk {
        /// Its name.
        claim: String,
        /// Which claim of that name.
        uid: String,
        /// The version that this was judged by.
        version: String,
        /// The machine that its volume is on and which is gone; else the disk is of an older generation.
        machine: Option<String>,
    },
    /// Delete the pod whose disk is on its way out.
    DiscardPod {
        /// Its name.
        pod: String,
        /// Which pod of that name.
        uid: String,
    },
    /// Touch the StatefulSet, whose controller misses a pod and does not notice that it could make it.
    Wake {
        /// The set's name.
        set: String,
        /// Which set of that name.
        uid: String,
        /// Pods that are missing.
        missing: Vec<String>,
    },
    /// Enlarge a disk.
    GrowClaim {
        /// Name of its claim.
        claim: String,
        /// Which claim of that name.
        uid: String,
        /// The version that this was judged by.
        version: String,
        /// The size that it is to have.
        size: String,
    },
    /// Make the StatefulSet anew for larger disks, without its pods: what it says of the disks cannot be changed.
    RemakeSet {
        /// Its name.
        set: String,
        /// Which set of that name.
        uid: String,
        /// The size that new disks get from then on.
        size: String,
    },
    /// Delete the claim of a member that was removed and whose pod is gone.
    DeleteDisk {
        /// Its name.
        claim: String,
        /// Which claim of that name.
        uid: String,
        /// The version that this was judged by.
        version: String,
    },
}

/// A node by its name, and by the id of its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name, which is that of its pod.
    pub name: String,
    /// Its id: a node of the name with another disk is another node.
    pub id: String,
}

/// How a step is told once it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// In a word.
    pub reason: &'static str,
    /// What was done to what, in a word.
    pub action: &'static str,
    /// In a sentence.
    pub note: String,
    /// People should look at it.
    pub is_warning: bool,
}

impl Step {
    /// What each is called in metrics.
    pub const LABELS: [&str; 14] = [
        "replace_stuck_pod",
        "add_learners",
        "promote",
        "remove",
        "replace",
        "hand_over",
        "restart_pod",
        "delete_disk",
        "recover",
        "discard_disk",
        "discard_pod",
        "wake",
        "grow_claim",
        "remake_set",
    ];

    /// What it is called in metrics: one of [`Step::LABELS`].
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::ReplaceStuckPod { .. } => "replace_stuck_pod",
            Self::AddLearners { .. } => "add_learners",
            Self::Promote { .. } => "promote",
            Self::Remove { .. } => "remove",
            Self::Replace { .. } => "replace",
            Self::HandOver { .. } => "hand_over",
            Self::RestartPod { .. } => "restart_pod",
            Self::DeleteDisk { .. } => "delete_disk",
            Self::Recover { .. } => "recover",
            Self::DiscardDisk { .. } => "discard_disk",
            Self::DiscardPod { .. } => "discard_pod",
            Self::Wake { .. } => "wake",
            Self::GrowClaim { .. } => "grow_claim",
            Self::RemakeSet { .. } => "remake_set",
        }
    }

    /// How it is told once it is taken.
    #[must_use]
    pub fn told(&self) -> Told {
        let (reason, action, note) = match self {
            Self::ReplaceStuckPod { pod, .. } => (
                "StuckPodReplaced",
                "DeletePod",
                format!(
                    "{pod} did not run and was made from an older template: deleted, so that it is made anew"
                ),
            ),
            Self::AddLearners { nodes, .. } => (
                "LearnersAdded",
                "AddLearners",
                format!("{}: learners now, which get the log and do not vote yet", list(nodes)),
            ),
            Self::Promote { nodes, .. } => {
                ("VotersAdded", "Promote", format!("{}: voters now, with the whole log", list(nodes)))
            }
            Self::Remove { nodes, .. } => (
                "MembersRemoved",
                "Remove",
                format!("{}: removed from the cluster, which the others have confirmed", list(nodes)),
            ),
            Self::Replace { old, new, .. } => (
                "MemberReplaced",
                "Replace",
                format!(
                    "{} has lost its disk: what it is now (node {}) has the log and votes in the place of what it was (node {})",
                    new.name, new.id, old.id
                ),
            ),
            Self::HandOver { from } => (
                "LeadHandedOver",
                "TransferLeadership",
                format!("{} hands over the lead, to be restarted", from.name),
            ),
            Self::RestartPod { pod, .. } => (
                "PodRestarted",
                "DeletePod",
                format!(
                    "{pod} was made before the last change: deleted, so that it is made anew; all others are well"
                ),
            ),
            Self::DeleteDisk { claim, .. } => (
                "DiskDeleted",
                "DeleteClaim",
                format!(
                    "{claim}: deleted with its disk, as spec.storage.retention.whenScaled says; its member was removed before"
                ),
            ),
            Self::Recover { node, costs, .. } => (
                "QuorumRecovered",
                "Recover",
                format!("{} goes on alone, as spec.recovery asks: {costs}", node.name),
            ),
            Self::DiscardDisk { claim, machine: Some(machine), .. } => (
                "DiskGivenUp",
                "DeleteClaim",
                format!(
                    "{claim}: its volume is on the machine {machine}, which is gone. Deleted, so that the node gets an empty disk \
                     and the log from the others, who have all of it"
                ),
            ),
            Self::DiscardDisk { claim, machine: None, .. } => (
                "OldDiskDeleted",
                "DeleteClaim",
                format!(
                    "{claim}: its disk was left behind when the cluster was forced to recover. Deleted, as \
                     spec.storage.discardBeforeGeneration allows, so that the node gets an empty one and the log as it is now"
                ),
            ),
            Self::DiscardPod { pod, .. } => {
                ("PodDeleted", "DeletePod", format!("{pod}: deleted, so that it gets another disk"))
            }
            Self::Wake { set, missing, .. } => (
                "StatefulSetWoken",
                "Touch",
                format!(
                    "{}: missing for long, so StatefulSet {set} was touched to look again",
                    missing.join(", ")
                ),
            ),
            Self::GrowClaim { claim, size, .. } => (
                "DiskGrows",
                "PatchClaim",
                format!("{claim}: asks for {size} now, as spec.storage.size says"),
            ),
            Self::RemakeSet { set, size, .. } => (
                "StatefulSetRemade",
                "DeleteSet",
                format!("StatefulSet {set} is made anew, for new disks of {size}; its pods and claims stay"),
            ),
        };
        let is_warning = matches!(self, Self::Recover { .. } | Self::DiscardDisk { .. } | Self::Wake { .. });
        Told { reason, action, note, is_warning }
    }
}

fn list(nodes: &[Named]) -> String {
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_listed() {
        let code = include_str!("step.rs").split("pub fn label").nth(1).expect("the function");
        let code = code.split("pub fn told").next().expect("what comes before the next one");
        let labels: Vec<&str> = code.split('"').skip(1).step_by(2).collect();
        assert_eq!(labels, Step::LABELS);
    }
}
