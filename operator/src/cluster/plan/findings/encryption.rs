//! What there is to say about what is encrypted.

use super::{Case, finding};
use crate::crd::{ConditionType, Finding, Reason, TlsStage};

impl Case<'_> {
    /// Pods are made anew, stage by stage, until they speak as is asked.
    pub(super) fn changes_encryption(&self) -> Option<String> {
        let (now, wanted) = (&self.turn.now, &self.turn.wanted);
        let is_waiting = self.turn.blocked.is_some() && now.source != wanted.source;
        (self.turn.is_under_way() && !is_waiting && self.seen.set.is_some()).then(|| {
            format!(
                "what is encrypted changes, by one restart of each pod after the other. Pods are made now for: {}. In the end: {}",
                now.words(),
                wanted.words()
            )
        })
    }

    /// Whether peers speak TLS only, and what clients speak.
    pub(super) fn encrypted(&self) -> Finding {
        let now = &self.turn.now;
        let pods = || self.seen.pods.values().map(|pod| pod.encryption.peers);
        let is_there = self.seen.set.is_some() || !self.turn.is_unstartable;
        let holds =
            is_there && now.peers == TlsStage::Required && pods().all(|peers| peers == TlsStage::Required);
        let (reason, message) = if let Some((reason, message)) = &self.turn.blocked {
            (*reason, message.clone())
        } else if let Some(message) = self.changes_encryption() {
            (Reason::TlsChanging, message)
        } else if self.turn.is_open_by_age {
            (Reason::OpenByAge, self.open_by_age())
        } else if now.source.is_none() {
            let message = "spec.tls.mode is Off: peers and clients speak in the open";
            (Reason::OpenByChoice, message.to_owned())
        } else {
            (Reason::AsAsked, format!("what is spoken: {}", now.words()))
        };
        finding(ConditionType::Encrypted, holds, reason, message)
    }

    fn open_by_age(&self) -> String {
        let (namespace, name) = (&self.asked.namespace, &self.asked.name);
        format!(
            "peers and clients speak in the open: this cluster is older than certificates. To encrypt its peers, by two restarts of \
             each pod, one at a time: kubectl patch raftqueue -n {namespace} {name} --type=merge -p \
             '{{\"spec\":{{\"tls\":{{\"mode\":\"Auto\"}}}}}}'. With the mode Off it stays as it is, by choice"
        )
    }
}
