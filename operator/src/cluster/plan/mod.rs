//! What to do next, decided from what is asked and what was seen. PURE: the same input gives the same plan, and nothing here
//! can reach the API server or a node.
//!
//! A [`Plan`] is a [`Shape`] that the children are kept in, at most one [`Step`] that touches a running pod, and the findings
//! to tell. It is made anew in every pass and remembers nothing, so an operator that is killed between any two calls goes on
//! from what it then sees.
//!
//! Whatever was seen, a plan never asks nodes to form a cluster once one of them has a log or the status names a
//! cluster. It never stops a pod whose node is a member, changes members one step at a time and only by what their leader says,
//! touches nothing while there are disks of different clusters, and restarts no node that runs while another one is not well.

mod disks;
mod findings;
mod growth;
mod identity;
mod members;
mod recovery;
mod rolling;
mod step;
#[cfg(test)]
mod tests;
mod trouble;
mod waking;

pub use disks::ClaimChange;
pub use identity::Identity;
pub use members::ClaimMark;
use members::Decision;
pub use recovery::Offer;
pub use step::{Named, Step, Told};

use crate::cluster::build::encryption_kept;
use crate::cluster::certificates::{self, Orders};
use crate::cluster::encryption::{self, Encryption, Source};
use crate::cluster::observation::{Child, ClusterId, ClusterSeen, Observation, Ownership};
use crate::cluster::validate::{Asked, Refusal};
use crate::crd::{self, Finding, Phase};

/// What the operator will do, and what it has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the children are to be like; absent: they are left alone.
    pub shape: Option<Shape>,
    /// What is due about the certificates that the operator makes.
    pub certificates: Orders,
    /// How pods are made to speak from now on.
    pub encryption: Encryption,
    /// When the first of the certificates that pods have runs out, in seconds since 1970.
    pub expires: Option<i64>,
    /// What becomes of the disks when the object is deleted: changes to the owners of their claims.
    pub claims: Vec<ClaimChange>,
    /// Changes of others that are undone when the children are brought in line, as far as people should know.
    pub corrections: Vec<Correction>,
    /// Another number of pods than before, by this operator's own decision.
    pub resized: Option<Resized>,
    /// Claims that get or lose the mark of a removed member.
    pub marks: Vec<ClaimMark>,
    /// The one step that touches a running pod, a member or a disk, if any is due.
    pub step: Option<Step>,
    /// The steps ahead about members and restarts, in words, this one included. Empty: there are none.
    pub ahead: Vec<String>,
    /// The cluster that the nodes belong to, once enough of them say so: the status keeps it.
    pub cluster_id: Option<ClusterId>,
    /// How often that cluster was forced to recover, as far as somebody says so.
    pub generation: u32,
    /// Who could go on alone, while the quorum is lost.
    pub recovery: Option<Offer>,
    /// The image that the nodes get, kept in the status.
    pub image: String,
    /// The nodes that have pods, in order of their ordinals.
    pub nodes: Vec<String>,
    /// Findings, at most one about each condition.
    pub findings: Vec<Finding>,
    /// How the cluster is, in a word.
    pub phase: Phase,
    /// The same in a sentence.
    pub message: String,
    /// How soon to look again.
    pub next_look: NextLook,
}

/// What the children depend on beside the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pods. While members come or go there are more of them than voters.
    pub pods: i32,
    /// What a blank disk does.
    pub bootstrap: Bootstrap,
    /// The cluster, once it is certain: it is written down on children.
    pub cluster_id: Option<ClusterId>,
    /// Image of the nodes.
    pub image: String,
    /// The template of the pods as it was made before.
    pub template: Option<String>,
    /// The restart that a set which is made anew has to remember, or it would have its pods restarted; absent where there is a set.
    pub restarted: Option<String>,
    /// Size of the disks that are made.
    pub disk_size: String,
    /// Their storage class; absent: that of the Kubernetes cluster.
    pub disk_class: Option<String>,
    /// How pods are made to speak.
    pub encryption: Encryption,
    /// The authorities that clients are to trust, as PEM.
    pub authorities: Option<String>,
    /// cert-manager is to make the certificates, for the pods as they are made now or as they will be.
    pub is_asked_of_cert_manager: bool,
    /// The set is not made yet: its pods could not start. All else is made, such as what cert-manager is asked for.
    pub is_set_held: bool,
}

/// Fewest nodes for which a budget makes sense: one of them can be spared.
const BUDGET_PODS_MIN: i32 = 3;

impl Shape {
    /// Whether this child is among the children. What else has its name is then in nobody's way.
    #[must_use]
    pub fn has(&self, child: Child) -> bool {
        child != Child::Budget || self.pods >= BUDGET_PODS_MIN
    }
}

/// What a node does whose disk is blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// It takes part in forming the cluster.
    Form,
    /// It waits to be added, to this cluster where it is known. It never forms one.
    Join(Option<ClusterId>),
}

/// Something about the StatefulSet that is put right and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// It was scaled by hand.
    Scaled {
        /// To this many pods.
        by_hand: i32,
        /// What it is set back to.
        to: i32,
    },
    /// It would have deleted disks when scaled or deleted.
    Retention,
}

/// The StatefulSet gets another number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// So many until now.
    pub from: i32,
    /// So many from now on.
    pub to: i32,
}

/// How soon to look again if nothing calls for it earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextLook {
    /// Something is on its way or wrong.
    Soon,
    /// All is well.
    Steady,
}

/// Decides what to do.
#[must_use]
pub fn plan(asked: &Asked, refusals: &[Refusal], seen: &Observation) -> Plan {
    let asked = &asked.recalling(seen.cluster_id_kept());
    let identity = Identity::of(asked, seen);
    let mut shape = shape(asked, &identity, seen);
    let mut decision = members(asked, &identity, seen, shape.pods);
    let before = shape.pods;
    shape.pods = decision.as_ref().map_or(before, |decision| decision.pods);
    let template = seen.template_kept().and_then(|kept| encryption_kept(kept));
    let turn = encryption::decide(asked, seen, template.as_ref(), shape.pods);
    shape.encryption = turn.now.clone();
    shape.authorities = seen.authorities.clone().filter(|_| turn.now.source.is_some());
    shape.is_asked_of_cert_manager =
        [&turn.now, &turn.wanted].iter().any(|encryption| encryption.source == Some(Source::CertManager));
    if let Some(rolling) = decision.as_mut().and_then(|decision| decision.rolling.as_mut()) {
        // A pod that could not start again is not stopped.
        if turn.is_unstartable {
            rolling.wait_for("wait for the certificates that the pods need to start");
        }
    }
    let recovery = recovery::decide(asked, &identity, seen);
    let verdict = findings::judge(
        asked,
        refusals,
        seen,
        &identity,
        &shape,
        decision.as_ref(),
        recovery.as_ref(),
        &turn,
    );
    let is_free = refusals.is_empty()
        && !asked.spec.paused
        && !identity.is_mixed()
        && seen.children.iter().all(|(child, seen)| {
            matches!(seen.owner, Ownership::Ours | Ownership::Orphan) || !shape.has(*child)
        });
    // Pods that could not start are not made; those that are there go on.
    shape.is_set_held = seen.set.is_none() && turn.is_unstartable;
    let is_of_own_making =
        [&turn.now, &turn.wanted].iter().any(|encryption| encryption.source == Some(Source::Auto));
    // Certificates are renewed also where something else of the spec is refused.
    let is_certified =
        is_of_own_making && !asked.spec.paused && (is_free || seen.set.is_some()) && are_ours(seen);
    let certificates =
        if is_certified { certificates::orders(asked, seen, shape.pods) } else { Orders::default() };
    let secret = turn.now.source.as_ref().map(|source| source.secret(&asked.name));
    let resized =
        (seen.set.is_some() && before != shape.pods).then_some(Resized { from: before, to: shape.pods });
    let is_settled = decision.as_ref().is_some_and(Decision::is_settled);
    let Decision { marks, step, mut ahead, rolling, .. } = decision.unwrap_or_default();
    let mut step = recovery.as_ref().and_then(|recovery| recovery.step.clone()).or(step);
    if let Some(rolling) = rolling {
        step = step.or(rolling.step);
        ahead.extend(rolling.ahead);
    }
    ahead.extend(turn.ahead());
    step = step.or_else(|| waking::decide(asked, seen, shape.pods));
    if is_settled {
        step = step.or_else(|| growth::decide(asked, seen, shape.pods));
    }
    let known = seen.cluster.as_ref().map_or(0, |cluster| cluster.generation);
    Plan {
        cluster_id: identity.certain(),
        generation: known.max(asked.generation_kept),
        recovery: recovery.map(|recovery| recovery.offer),
        image: shape.image.clone(),
        nodes: asked.nodes(shape.pods),
        claims: if is_free { disks::changes(asked, seen) } else { Vec::new() },
        corrections: if is_free { corrections(&shape, seen) } else { Vec::new() },
        resized: resized.filter(|_| is_free),
        marks: if is_free { marks } else { Vec::new() },
        step: if is_free { replace_stuck_pod(seen).or(step) } else { None },
        ahead,
        findings: verdict.findings,
        phase: verdict.phase,
        message: verdict.message,
        next_look: verdict.next_look,
        certificates,
        // Where the children are left alone, pods are made as before.
        encryption: match is_free {
            true => turn.now,
            false => encryption::kept(asked, seen, template.as_ref()).unwrap_or_default(),
        },
        expires: secret.and_then(|secret| certificates::expires(seen, &secret)),
        shape: is_free.then_some(shape),
    }
}

/// Whether the Secrets that the operator fills are its own, as far as there are any.
fn are_ours(seen: &Observation) -> bool {
    let of_certificates = [Child::NodeTls, Child::NodeCa];
    of_certificates.iter().all(|child| !seen.children.contains_key(child) || seen.own_child(*child).is_some())
}

/// What is decided about members; absent while nobody can say who they are, or before the status names their cluster.
fn members(asked: &Asked, identity: &Identity, seen: &Observation, pods: i32) -> Option<Decision> {
    let id = identity.certain().filter(|id| asked.latched == Some(*id))?;
    let cluster = seen.cluster.as_ref().filter(|cluster| cluster.id == id)?;
    seen.set.as_ref()?;
    let membership = cluster.membership.as_ref()?;
    let mut decision = members::decide(asked, seen, membership, pods);
    // Members first: nothing is restarted while some come or go.
    if decision.ahead.is_empty() && decision.blocked.is_none() {
        decision.rolling = rolling::decide(asked, seen, cluster, membership, pods);
    }
    Some(decision)
}

fn shape(asked: &Asked, identity: &Identity, seen: &Observation) -> Shape {
    let set = seen.set.as_ref();
    let storage = &asked.spec.storage;
    Shape {
        pods: pods(asked, identity, seen),
        bootstrap: match identity {
            Identity::Blank => Bootstrap::Form,
            Identity::Certain(id) => Bootstrap::Join(Some(*id).filter(|_| asked.latched.is_some())),
            Identity::Found { .. } | Identity::Mixed { .. } => Bootstrap::Join(None),
        },
        cluster_id: identity.certain(),
        image: asked
            .spec
            .image
            .clone()
            .or_else(|| asked.image_kept.clone())
            .or_else(|| set.and_then(|set| set.image.clone()))
            .unwrap_or_else(|| asked.image_default.clone()),
        template: seen.template_kept().cloned(),
        restarted: seen.restart_kept().filter(|_| set.is_none()).cloned(),
        // A claim template can never change. What it says is kept, and the findings tell if the spec wants more. A size
        // that the spec leaves out enlarges nothing that exists.
        disk_size: set
            .and_then(|set| set.size.clone())
            .or_else(|| asked.disk_size().map(str::to_owned))
            .or_else(|| seen.disk_size())
            .unwrap_or_else(|| crd::SIZE_DEFAULT.to_owned()),
        disk_class: set.map_or_else(|| storage.storage_class_name.clone(), |set| set.class.clone()),
        // What is encrypted is decided once it is known how many pods there are.
        encryption: Encryption::default(),
        authorities: None,
        is_asked_of_cert_manager: false,
        is_set_held: false,
    }
}

/// How many pods there should be before members come or go: as many as the StatefulSet was made for, or as those need that are
/// known to be members. If kept disks turn out to be of a larger cluster, it is brought back whole first.
fn pods(asked: &Asked, identity: &Identity, seen: &Observation) -> i32 {
    let members = identity.pods_of_members(asked, seen);
    match &seen.set {
        None => members.unwrap_or(asked.spec.replicas),
        Some(set) => {
            let made_for = set.made_for.or(members).unwrap_or(set.replicas);
            let is_silent = |cluster: &ClusterSeen| cluster.membership.is_none();
            if members == Some(asked.spec.replicas) && seen.cluster.as_ref().is_some_and(is_silent) {
                // The spec and the leader agree. Where it tells how its members are, what is too much goes by steps.
                return asked.spec.replicas;
            }
            // Once the status names the cluster, what a node says that lags behind brings nobody back.
            members.filter(|_| asked.latched.is_none()).map_or(made_for, |members| members.max(made_for))
        }
    }
}

/// What about the StatefulSet is not as this operator made it.
fn corrections(shape: &Shape, seen: &Observation) -> Vec<Correction> {
    let Some(set) = &seen.set else { return Vec::new() };
    // If the operator itself changes the number, nobody else has changed it.
    let is_scaled = set.made_for == Some(shape.pods) && set.replicas != shape.pods;
    let scaled = is_scaled.then_some(Correction::Scaled { by_hand: set.replicas, to: shape.pods });
    scaled.into_iter().chain((!set.keeps_disks).then_some(Correction::Retention)).collect()
}

/// A pod that Kubernetes would leave stuck with an older template for ever (kubernetes#67250), lowest name first. Its node
/// does not run, so deleting it takes nothing from a quorum.
fn replace_stuck_pod(seen: &Observation) -> Option<Step> {
    let newest = seen.set.as_ref()?.revision.as_ref()?;
    seen.pods
        .iter()
        .find(|(_, pod)| {
            pod.trouble.is_some()
                && !pod.ready
                && !pod.deleting
                && pod.answer().is_none()
                && pod.revision.as_ref().is_some_and(|revision| revision != newest)
        })
        .map(|(name, pod)| Step::ReplaceStuckPod { pod: name.clone(), uid: pod.uid.clone() })
}
