//! Who is a member, as far as this node knows, and what it is itself.

use super::{Metrics, as_gauge, gauge, gauges};
use crate::api::MemberStanding;
use crate::replica::View;
use prometheus::{IntGauge, IntGaugeVec, Registry};
use raftqueue_raft::Index;

/// Said of a blank node that belongs to no cluster yet.
const WAITING: &str = "waiting";
/// Said of a node that has a log, and that the newest configuration in it lacks.
const REMOVED: &str = "removed";

/// See the module's header.
#[derive(Debug)]
pub(super) struct Series {
    members: IntGaugeVec,
    own: IntGaugeVec,
    configuration_index: IntGauge,
    generation: IntGauge,
}

impl Series {
    pub(super) fn new(r: &Registry) -> Self {
        let members = gauges(
            r,
            "raftqueue_members",
            "Members by what they are in the newest configuration that this node has; besides, the blank nodes that announced \
             themselves to it and wait to be added.",
            &["standing"],
        );
        let own = gauges(
            r,
            "raftqueue_standing",
            "1 for what this node is, as far as it knows. It waits while it has no log; it is removed if it has one whose newest \
             configuration lacks it.",
            &["standing"],
        );
        for standing in MemberStanding::ALL {
            members.with_label_values(&[standing.name()]);
            own.with_label_values(&[standing.name()]);
        }
        members.with_label_values(&[WAITING]);
        own.with_label_values(&[WAITING]);
        own.with_label_values(&[REMOVED]);
        let configuration_index = gauge(
            r,
            "raftqueue_configuration_index",
            "Where the newest configuration stands in this node's log: it rises with every change of the members.",
        );
        let generation = gauge(
            r,
            "raftqueue_generation",
            "How often the cluster was forced to recover from a lost quorum, as far as this node has applied its log: 0 as a \
             rule. Nodes of two generations never work together.",
        );
        Self { members, own, configuration_index, generation }
    }

    fn is(&self, own: &str) {
        let all = MemberStanding::ALL.map(MemberStanding::name);
        for standing in all.into_iter().chain([WAITING, REMOVED]) {
            self.own.with_label_values(&[standing]).set(i64::from(standing == own));
        }
    }

    pub(super) fn observe(&self, view: &View) {
        self.generation.set(i64::from(view.generation));
        let peers = view.configuration.peers();
        for standing in MemberStanding::ALL {
            let count = peers.iter().filter(|id| view.standing(**id) == Some(standing)).count();
            self.members.with_label_values(&[standing.name()]).set(as_gauge(count as u64));
        }
        self.members.with_label_values(&[WAITING]).set(as_gauge(view.waiting as u64));
        self.configuration_index.set(as_gauge(view.configuration_index.0));
        self.is(match view.standing(view.own) {
            Some(standing) => standing.name(),
            None if view.raft.last == Index(0) => WAITING,
            None => REMOVED,
        });
    }
}

impl Metrics {
    /// This node has no log: it forms a cluster, or waits to be added to one.
    pub(crate) fn waits(&self) {
        self.members.is(WAITING);
    }
}
