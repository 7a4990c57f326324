//! What was seen in one look at a cluster: plain data, with everything that the planner judges by.
//!
//! [`crate::cluster::observe`] makes it from the API server's objects and from the nodes' answers; tests make it by hand.

mod fingerprint;
mod recovery;
mod secrets;

pub use fingerprint::Fingerprint;
pub use recovery::RecoverySeen;
pub use secrets::{AuthoritySeen, CertificateSeen, Credentials, OwnMade, Sealed, SecretSeen, Way};

use super::encryption::PodEncryption;
use crate::crd::thousandths;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

/// One look at everything that belongs to a RaftQueue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Objects that have the name of a child. What is absent does not exist.
    pub children: BTreeMap<Child, ChildSeen>,
    /// What tells whether they have changed.
    pub fingerprints: BTreeMap<Child, Fingerprint>,
    /// Whether ServiceMonitors can be made here.
    pub service_monitors: KindSeen,
    /// Whether PrometheusRules can.
    pub prometheus_rules: KindSeen,
    /// Whether Certificates of cert-manager can. Looked at only where they are asked for.
    pub certificates: KindSeen,
    /// The Secrets that somebody else fills and whose certificates nodes have or are to have, by their names.
    pub secrets: BTreeMap<String, SecretSeen>,
    /// What there is of the certificates that the operator makes; absent where nobody asks for them.
    pub own_certificates: Option<OwnMade>,
    /// The authorities that clients trust, as PEM, of the certificates that pods have.
    pub authorities: Option<String>,
    /// How nodes are called.
    pub way: Way,
    /// When it was looked, in seconds since 1970.
    pub now_seconds: i64,
    /// The StatefulSet, if it is there and ours.
    pub set: Option<SetSeen>,
    /// The pods of that StatefulSet by their names.
    pub pods: BTreeMap<String, PodSeen>,
    /// The disks by the names of their nodes.
    pub claims: BTreeMap<String, ClaimSeen>,
    /// The cluster as its leader sees it, by a linearizable read; absent if no node could give that.
    pub cluster: Option<ClusterSeen>,
    /// What each node with a log says that may have to go on alone, by the names of their pods. They are asked only while there is
    /// no leader.
    pub recoveries: BTreeMap<String, RecoverySeen>,
    /// For how many seconds the status has not called the object ready; absent while it does.
    pub unready_seconds: Option<i64>,
    /// For how many seconds the step that the status names as the next one has been the next one.
    pub step_seconds: Option<i64>,
}

/// A kind of child; there is one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// By which nodes find each other.
    HeadlessService,
    /// By which clients find ready nodes.
    ClientService,
    /// The nodes' settings.
    ConfigMap,
    /// The nodes' identity towards Kubernetes, with no rights.
    ServiceAccount,
    /// The pods.
    StatefulSet,
    /// Keeps drains from taking two nodes at once.
    Budget,
    /// Who may reach the nodes.
    NetworkPolicy,
    /// How Prometheus finds the nodes.
    ServiceMonitor,
    /// When it calls for people.
    PrometheusRule,
    /// The ConfigMap with what Grafana shows.
    Dashboards,
    /// The Secret with the certificates that the operator makes.
    NodeTls,
    /// The Secret with the authority that signs them.
    NodeCa,
    /// What cert-manager is asked for.
    Certificate,
}

/// Whether a kind of objects that belongs to others can be used here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KindSeen {
    /// It can.
    #[default]
    Usable,
    /// This Kubernetes does not know it.
    Unknown,
    /// The operator may not use it.
    Forbidden,
}

impl Child {
    /// Its name, of an object of this name.
    #[must_use]
    pub fn name(self, object: &str) -> String {
        match self {
            Self::HeadlessService => crate::names::headless(object),
            Self::ConfigMap => crate::names::config_map(object),
            Self::Dashboards => crate::names::dashboards(object),
            Self::NodeTls => crate::names::node_tls(object),
            Self::NodeCa => crate::names::node_ca(object),
            Self::Certificate => crate::names::cert_manager(object),
            _ => object.to_owned(),
        }
    }

    /// Its kind and name as people write them.
    #[must_use]
    pub fn describe(self, object: &str) -> String {
        let kind = match self {
            Self::HeadlessService | Self::ClientService => "Service",
            Self::ConfigMap | Self::Dashboards => "ConfigMap",
            Self::ServiceAccount => "ServiceAccount",
            Self::StatefulSet => "StatefulSet",
            Self::Budget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ServiceMonitor => "ServiceMonitor",
            Self::PrometheusRule => "PrometheusRule",
            Self::NodeTls | Self::NodeCa => "Secret",
            Self::Certificate => "Certificate",
        };
        format!("{kind} {}", self.name(object))
    }
}

/// An object that has the name of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSeen {
    /// Whose it is.
    pub owner: Ownership,
    /// Kind and name of the object that controls it; absent if none does.
    pub holder: Option<String>,
    /// Which one, among all that ever have this name.
    pub uid: String,
    /// The cluster that was written down on it.
    pub cluster_id: Option<ClusterId>,
    /// The template of the pods as it was written down on it.
    pub template: Option<String>,
}

/// Whose an object is that has the name of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This RaftQueue's.
    Ours,
    /// Nobody's, with our labels: left behind when an earlier object was deleted without its children. It is taken over.
    Orphan,
    /// It is being deleted, or belongs to an earlier object of the same name and soon will be.
    Leaving,
    /// Something else's.
    Foreign,
}

/// The StatefulSet as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSeen {
    /// Which set, among all that ever have this name.
    pub uid: String,
    /// The version that was seen.
    pub version: String,
    /// Pods that it asks for now, perhaps by somebody's hand.
    pub replicas: i32,
    /// How often what is asked of it has changed.
    pub generation: Option<i64>,
    /// Pods that it was made for.
    pub made_for: Option<i32>,
    /// Pods that it has.
    pub pods: i32,
    /// The template of its pods as it was made, and what it was made of.
    pub template: Option<String>,
    /// Image in its template.
    pub image: Option<String>,
    /// Size in its claim template.
    pub size: Option<String>,
    /// Storage class in its claim template.
    pub class: Option<String>,
    /// It deletes no claim, neither when it is scaled nor when it is deleted.
    pub keeps_disks: bool,
    /// Revision of its newest template; absent while Kubernetes has not looked at that template yet.
    pub revision: Option<String>,
    /// Why Kubernetes makes no pods, in its own words.
    pub complaint: Option<String>,
    /// How many seconds ago it was last touched to wake its controller; absent if never.
    pub woken_seconds: Option<i64>,
}

/// A pod as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// Which pod, among all that ever have this name.
    pub uid: String,
    /// Revision of the template that it was made from.
    pub revision: Option<String>,
    /// The restart that it was made for, as `kubectl rollout restart` says it; absent: none.
    pub restarted: Option<String>,
    /// Kubernetes calls it ready.
    pub ready: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Why its node does not run; absent if it runs, or is on its way.
    pub trouble: Option<Trouble>,
    /// What its node speaks.
    pub encryption: PodEncryption,
    /// Where its node can be asked, once its container runs.
    pub address: Option<String>,
    /// What its node says.
    pub node: NodeSeen,
}

/// Why the node of a pod does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub kind: TroubleKind,
    /// In the words of Kubernetes.
    pub detail: String,
}

/// A kind of trouble, told apart by what a person has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    /// The image cannot be had.
    Image,
    /// Its claim has no volume.
    Volume,
    /// It fits on no machine.
    Placing,
    /// The process ends again and again.
    Crashing,
    /// Kubernetes cannot start the container.
    Starting,
}

/// A disk's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSeen {
    /// Which claim, among all that ever have this name.
    pub uid: String,
    /// The version that was seen.
    pub version: String,
    /// It is being deleted, and goes once no pod uses it.
    pub deleting: bool,
    /// With whom it is deleted.
    pub owners: Vec<OwnerSeen>,
    /// It has a volume.
    pub bound: bool,
    /// The size it asks for.
    pub size: Option<String>,
    /// The size of its volume, as far as that is known.
    pub capacity: Option<String>,
    /// The machine to which its volume is bound and which is gone; absent if there is none such.
    pub stranded: Option<String>,
    /// Its storage class.
    pub class: Option<String>,
    /// The cluster whose member it was until that was removed.
    pub removed_from: Option<ClusterId>,
}

/// An owner of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSeen {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Which one, among all that ever have this name.
    pub uid: String,
}

/// What a node said when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSeen {
    /// It was not asked: its pod has no address yet.
    NotAsked,
    /// It did not answer: why.
    Silent(String),
    /// Its own view.
    Answered(NodeAnswer),
}

/// A node's own view. It may be out of date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAnswer {
    /// Its id; empty before its disk is formatted.
    pub id: String,
    /// The cluster of its log; absent while it has none.
    pub cluster_id: Option<ClusterId>,
    /// How often that cluster was forced to recover, as far as this node was there.
    pub generation: u32,
    /// It believes that it leads.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Members in its newest configuration.
    pub members: Vec<MemberSeen>,
    /// Fit to serve.
    pub ready: bool,
    /// Why not.
    pub not_ready_reason: String,
}

/// The cluster as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSeen {
    /// Which cluster.
    pub id: ClusterId,
    /// How often it was forced to recover.
    pub generation: u32,
    /// Id of the leader.
    pub leader: String,
    /// Its term.
    pub term: u64,
    /// All members.
    pub members: Vec<MemberSeen>,
    /// How each of them is, and who waits to be added; absent if the leader's image is too old to tell.
    pub membership: Option<Membership>,
}

/// The members as their leader sees them: what changes of members are judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The index of the configuration in force: a change that names another one is refused.
    pub at: u64,
    /// No change is under way.
    pub settled: bool,
    /// All members.
    pub members: Vec<MemberState>,
    /// Nodes that wait to be added.
    pub waiting: Vec<WaitingSeen>,
}

/// How a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub standing: Standing,
    /// Why others could not rely on it; absent if they could.
    pub unwell: Option<String>,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It votes.
    Voter,
    /// It gets the log, and does not vote.
    Learner,
    /// A voter until the change that is under way has ended.
    Leaving,
}

/// A node with a blank disk that waits to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingSeen {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSeen {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Counts in elections.
    pub voter: bool,
}

/// The identity of a cluster, minted when it was formed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId(u128);

impl ClusterId {
    /// Digits of its written form.
    const DIGITS: usize = 32;

    /// The id in this text; absent where there is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_written_so = text.len() == Self::DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_written_so { u128::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PodSeen {
    /// The node's own view, where it gave one.
    #[must_use]
    pub fn answer(&self) -> Option<&NodeAnswer> {
        match &self.node {
            NodeSeen::Answered(answer) => Some(answer),
            NodeSeen::NotAsked | NodeSeen::Silent(_) => None,
        }
    }

    /// Whether its node serves: it says so itself, and Kubernetes sends clients there.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.ready && !self.deleting && self.answer().is_some_and(|answer| answer.ready)
    }
}

impl Observation {
    /// The cluster that was written down on the children.
    #[must_use]
    pub fn cluster_id_kept(&self) -> Option<ClusterId> {
        let is_ours = |child: &&ChildSeen| matches!(child.owner, Ownership::Ours | Ownership::Orphan);
        self.children.values().filter(is_ours).find_map(|child| child.cluster_id)
    }

    /// The template of the pods as it was made, as long as a child keeps it.
    #[must_use]
    pub fn template_kept(&self) -> Option<&String> {
        // Where the set is there and does not say, somebody took that off to get the newest.
        if let Some(set) = &self.set {
            return set.template.as_ref();
        }
        let is_ours = |child: &&ChildSeen| matches!(child.owner, Ownership::Ours | Ownership::Orphan);
        self.children.get(&Child::ConfigMap).filter(is_ours)?.template.as_ref()
    }

    /// The last restart that `kubectl rollout restart` asked for, as far as the pods tell. The set has it in its template, so this is
    /// needed only where there is none: a set without it would have all pods restarted once more.
    #[must_use]
    pub fn restart_kept(&self) -> Option<&String> {
        // Each machine writes it in its own time zone.
        let moment = |text: &String| text.parse::<Timestamp>().ok();
        let staying = self.pods.values().filter(|pod| !pod.deleting);
        staying.filter_map(|pod| pod.restarted.as_ref()).max_by_key(|text| (moment(text), *text))
    }

    /// The child of this kind that this object may change: its own, or an orphan to be taken over.
    #[must_use]
    pub fn own_child(&self, child: Child) -> Option<&str> {
        let seen = self.children.get(&child)?;
        matches!(seen.owner, Ownership::Ours | Ownership::Orphan).then_some(seen.uid.as_str())
    }

    /// The size of the smallest disk; absent where there is none.
    #[must_use]
    pub fn disk_size(&self) -> Option<String> {
        self.claims
            .values()
            .filter_map(|claim| claim.size.as_ref())
            .min_by_key(|size| thousandths(size))
            .cloned()
    }

    /// The views of all nodes that answered, by their names.
    pub fn answers(&self) -> impl Iterator<Item = (&str, &NodeAnswer)> {
        self.pods.iter().filter_map(|(name, pod)| pod.answer().map(|answer| (name.as_str(), answer)))
    }
}
