//! A forced recovery, from the question to the decision. Whoever runs the driver writes it down once the driver has ended, and
//! starts the node again.

use super::{Driver, Ended};
use crate::api::{Failure, Recover, RecoveryInfo};
use crate::replica::Decision;
use tokio::sync::oneshot;

/// A node is to go on alone: nothing happens to its log any more until that is written down.
#[derive(Debug)]
pub struct Recovering {
    /// What is to be.
    pub(crate) decision: Decision,
    /// What the node knew, for the answer.
    pub(crate) info: RecoveryInfo,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Result<RecoveryInfo, Failure>>,
}

impl Driver {
    /// Answers what was asked since the last turn, at the end of one: nothing may come in between the decision and the end.
    pub(super) fn answer_recoveries(&mut self) {
        for (asked, reply) in std::mem::take(&mut self.recoveries) {
            if self.ended.is_some() {
                return; // Whoever asked hears that the node stopped.
            }
            self.recover(&asked, reply);
        }
    }

    fn recover(&mut self, asked: &Recover, reply: oneshot::Sender<Result<RecoveryInfo, Failure>>) {
        let (own, transport) = (&self.parts.own, &self.parts.transport);
        let identity = own.identity.borrow().expect("a node that runs knows which one it is");
        let is_heard = |node| transport.takes_part(node);
        let mut info = self.parts.replica.recovery(identity.generation, is_heard);
        info.name.clone_from(&own.name);
        info.cluster_id = identity.cluster_id.map(|id| format!("{id:032x}")).unwrap_or_default();
        if asked.token.is_none() {
            let _ = reply.send(Ok(info));
            return;
        }
        let decided = self.parts.replica.decide_recovery(&info, asked, (&own.name, &own.peer_address));
        match decided {
            Ok(decision) => {
                let recovering = Recovering { decision, info, reply };
                self.ended = Some(Ended::Recovers(Box::new(recovering)));
            }
            Err(failure) => drop(reply.send(Err(failure))),
        }
    }
}
