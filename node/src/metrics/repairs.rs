//! What of this node's disk does not verify, and what was put back.

use super::{Metrics, as_gauge, gauge};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// See the module's header.
#[derive(Debug)]
pub(super) struct Series {
    holes: IntGauge,
    holes_left: IntGauge,
    given: IntCounter,
    alone: IntCounter,
    messages: IntCounter,
    hard_state: IntCounter,
}

impl Series {
    pub(super) fn new(r: &Registry) -> Self {
        let repairs = Opts::new(
            "raftqueue_repairs_total",
            "Damaged places of this node's disk that were put back: a record of the log with what another node has, only the \
             head of one, a message that was got from another node, or term and vote, once all others were heard.",
        );
        let repairs = IntCounterVec::new(repairs, &["what"]).expect("the name is valid");
        r.register(Box::new(repairs.clone())).expect("the name is new");
        let of = |what| repairs.with_label_values(&[what]);
        Self {
            holes: gauge(
                r,
                "raftqueue_log_holes",
                "Records of the log that do not verify and are needed: until they are mended this node does not lead.",
            ),
            holes_left: gauge(
                r,
                "raftqueue_log_holes_unneeded",
                "Records of the log that do not verify and that no node has any more, since they are in snapshots.",
            ),
            given: of("record"),
            alone: of("head"),
            messages: of("message"),
            hard_state: of("hard_state"),
        }
    }
}

impl Metrics {
    /// So many messages that could not be read here were got from another node.
    pub(crate) fn messages_repaired(&self, messages: u64) {
        self.repairs.messages.inc_by(messages);
    }

    /// Term and vote were lost, and are known again.
    pub(crate) fn hard_state_renewed(&self) {
        self.repairs.hard_state.inc();
    }

    /// So many damaged records were given by another node, or mended alone. So many are left that are needed, and not needed.
    pub(crate) fn mended(&self, given: u64, alone: u64, needed: u64, unneeded: u64) {
        self.repairs.given.inc_by(given);
        self.repairs.alone.inc_by(alone);
        self.repairs.holes.set(as_gauge(needed));
        self.repairs.holes_left.set(as_gauge(unneeded));
    }
}
