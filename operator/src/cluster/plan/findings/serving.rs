//! What there is to say about the nodes as a cluster: who leads, who is ready, who is away.

use super::{Case, finding, shorten};
use crate::cluster::observation::NodeSeen;
use crate::cluster::plan::Identity;
use crate::crd::{ConditionType, Finding, Reason, Truth};
use crate::names;

impl Case<'_> {
    pub(super) fn available(&self) -> Finding {
        let about = ConditionType::Available;
        if let Some(cluster) = &self.seen.cluster {
            let leader = self.leader_name().unwrap_or(&cluster.leader);
            let message = format!("{leader} leads in term {}, and a majority follows", cluster.term);
            return finding(about, true, Reason::LeaderElected, message);
        }
        if !self.identity.is_formed() || self.is_coming_together() {
            return finding(about, false, Reason::Forming, "the nodes have not found each other yet");
        }
        let asked = self.seen.pods.values().filter(|pod| !matches!(pod.node, NodeSeen::NotAsked)).count();
        match self.silent() {
            Some(message) if self.seen.answers().count() == 0 && asked > 0 => {
                finding(about, Truth::Unknown, Reason::NotObserved, message)
            }
            _ => {
                let message = "no node leads with a majority behind it: nothing can be published or received until a majority \
                               of the nodes runs again";
                let disks = match self.lost() {
                    Some(_) => "with its disk; some disks are lost, as the condition StorageReady tells",
                    None => "What was acknowledged is on their disks",
                };
                let joint = if self.lost().is_some() { " " } else { ". " };
                finding(about, false, Reason::NoLeader, format!("{message}{joint}{disks}"))
            }
        }
    }

    pub(super) fn quorum_healthy(&self) -> Finding {
        let (ready, all, quorum) = (self.ready(), self.voters.len(), self.quorum());
        let message = format!("{ready} of {all} nodes are ready; {quorum} are a majority");
        let reason = match () {
            () if ready >= quorum => Reason::AsAsked,
            () if !self.identity.is_formed() || self.is_coming_together() => Reason::Forming,
            () => Reason::QuorumLost,
        };
        finding(ConditionType::QuorumHealthy, ready >= quorum, reason, message)
    }

    /// Name of the leader as the cluster itself says.
    pub(super) fn leader_name(&self) -> Option<&String> {
        let cluster = self.seen.cluster.as_ref()?;
        cluster.members.iter().find(|member| member.id == cluster.leader).map(|member| &member.name)
    }

    /// The quorum is lost, and somebody can say that one node is to go on alone.
    pub(super) fn recoverable(&self) -> Option<(Reason, String)> {
        let recovery = self.recovery?;
        let (text, quorum) = (&recovery.offer.text, self.quorum());
        let lost = format!("no majority ({quorum} of {}) of the voters runs: {text}", self.voters.len());
        Some(match &recovery.stale {
            Some(stale) => (Reason::RecoveryStale, format!("{stale}: nothing was done. Now: {lost}")),
            None => (Reason::RecoveryOffered, lost),
        })
    }

    /// Nodes that Kubernetes calls ready and that do not answer here.
    pub(super) fn silent(&self) -> Option<String> {
        let mut why = None;
        let mut names = Vec::new();
        for (name, pod) in &self.seen.pods {
            if let NodeSeen::Silent(reason) = &pod.node
                && pod.ready
                && !pod.deleting
            {
                names.push(name.as_str());
                why.get_or_insert(reason);
            }
        }
        Some(format!(
            "{}: ready for Kubernetes, but the operator gets no answer at port {}: {}. If that stays so, a NetworkPolicy may \
             keep the operator out",
            names.join(", "),
            names::CLIENT_PORT,
            shorten(why?)
        ))
    }

    pub(super) fn forming(&self) -> String {
        let waiting = self.waiting();
        match self.identity {
            Identity::Blank if waiting.is_empty() => "the nodes form the cluster".to_owned(),
            Identity::Blank => format!("the nodes form the cluster, which needs all of them once: {waiting}"),
            _ => format!("the members of the cluster find each other: {waiting}"),
        }
    }

    /// Whether enough members of a cluster that was just found may still turn up: nodes that have not answered yet, or
    /// that are bound and about to get the first entry.
    pub(super) fn is_coming_together(&self) -> bool {
        match self.identity {
            Identity::Found { members, .. } => {
                let is_gone = |name: &str| {
                    let is_member =
                        |id: &str| members.iter().any(|member| member.name == name && member.id == id);
                    self.seen.pods.get(name).is_none_or(|pod| {
                        pod.trouble.is_some() || pod.answer().is_some_and(|answer| !is_member(&answer.id))
                    })
                };
                let hoped = members.iter().filter(|member| member.voter && !is_gone(&member.name)).count();
                hoped > members.len() / 2
            }
            Identity::Certain(_) => self.asked.latched.is_none(),
            Identity::Blank | Identity::Mixed(_) => false,
        }
    }

    /// Nodes that call themselves ready.
    pub(super) fn up(&self) -> usize {
        let is_up = |name: &&String| {
            let pod = self.seen.pods.get(*name).filter(|pod| !pod.deleting);
            pod.and_then(|pod| pod.answer()).is_some_and(|answer| answer.ready)
        };
        self.voters.iter().filter(is_up).count()
    }

    /// Voters that serve.
    fn ready(&self) -> usize {
        self.voters.iter().filter(|name| self.serving.contains(name.as_str())).count()
    }

    /// Every node calls itself ready, and Kubernetes has only not looked yet.
    pub(super) fn is_about_to_be_ready(&self) -> bool {
        self.up() == self.voters.len() && self.seen.cluster.is_some()
    }

    /// Why nodes are not ready, each in a few words.
    pub(super) fn waiting(&self) -> String {
        let mut parts = Vec::new();
        for name in self.voters.iter().filter(|name| !self.serving.contains(name.as_str())) {
            let why = match self.seen.pods.get(name) {
                None => "has no pod yet".to_owned(),
                Some(pod) if pod.deleting => "is being deleted".to_owned(),
                Some(pod) => match &pod.node {
                    _ if pod.trouble.is_some() => "does not run".to_owned(),
                    NodeSeen::NotAsked => "is starting".to_owned(),
                    NodeSeen::Silent(_) => "does not answer yet".to_owned(),
                    NodeSeen::Answered(answer) if answer.ready => "becomes ready".to_owned(),
                    NodeSeen::Answered(answer) if answer.not_ready_reason.is_empty() => {
                        "is not ready".to_owned()
                    }
                    NodeSeen::Answered(answer) => format!("says: {}", shorten(&answer.not_ready_reason)),
                },
            };
            parts.push(format!("{name} {why}"));
        }
        parts.join(", ")
    }

    /// Members of a formed cluster that do not serve.
    pub(super) fn unready(&self) -> Option<(Reason, String)> {
        let (ready, all, quorum) = (self.ready(), self.voters.len(), self.quorum());
        if let Identity::Found { id, members, found } = self.identity {
            let names = found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!(
                "disks of cluster {id} were found at {} of its {} members ({names}); a majority is needed. {}. Put the other \
                 volumes back; nothing is formed anew while these disks are there",
                found.len(),
                members.len(),
                self.waiting()
            );
            return Some((Reason::QuorumLost, message));
        }
        let waiting = self.waiting();
        if waiting.is_empty() && self.seen.cluster.is_some() {
            return None;
        }
        let up = self.up();
        let reason = match (&self.seen.cluster, up >= quorum) {
            (None, true) => Reason::NoLeader,
            (None, false) => Reason::QuorumLost,
            (Some(_), _) if up == quorum && all >= 3 => Reason::QuorumAtRisk,
            (Some(_), _) => Reason::MembersNotReady,
        };
        let mut message = format!("{ready} of {all} nodes are ready");
        match reason {
            Reason::QuorumAtRisk => message += "; one more failure would stop the cluster",
            Reason::QuorumLost => message += ", too few to serve",
            _ => {}
        }
        if !waiting.is_empty() {
            message += &format!(": {waiting}");
        }
        Some((reason, message))
    }
}
