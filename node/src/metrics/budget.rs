//! What a node holds for its clients, as it is when somebody asks.

use super::{as_gauge, gauge, gauges};
use crate::api::budget::{Budget, Share};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};
use std::sync::OnceLock;

/// The series of the budget.
#[derive(Debug)]
pub(super) struct Series {
    budget: OnceLock<Budget>,
    bytes_max: IntGauge,
    held: IntGaugeVec,
    refused: IntCounterVec,
}

impl Series {
    pub(super) fn new(registry: &Registry) -> Self {
        let shares = Share::ALL.map(Share::name);
        let held = gauges(
            registry,
            "raftqueue_client_bytes",
            "Bytes held in memory for clients, by what they are held for.",
            &["share"],
        );
        for share in shares {
            held.with_label_values(&[share]);
        }
        Self {
            budget: OnceLock::new(),
            bytes_max: gauge(
                registry,
                "raftqueue_client_bytes_max",
                "Most bytes held in memory for clients; what finds no room is refused.",
            ),
            held,
            refused: super::counters(
                registry,
                "raftqueue_client_bytes_refused_total",
                "Requests and answers for which there was no room, by what they would have been held for.",
                "share",
                &shares,
            ),
        }
    }

    /// From now on this budget is shown.
    pub(super) fn of(&self, budget: &Budget) {
        // Called once, when the node starts.
        let _ = self.budget.set(budget.clone());
    }

    pub(super) fn observe(&self) {
        let Some(budget) = self.budget.get() else { return };
        self.bytes_max.set(as_gauge(budget.bytes_max() as u64));
        for share in Share::ALL {
            self.held.with_label_values(&[share.name()]).set(as_gauge(budget.held(share) as u64));
            let refused = self.refused.with_label_values(&[share.name()]);
            refused.inc_by(budget.refused(share).saturating_sub(refused.get()));
        }
    }
}
