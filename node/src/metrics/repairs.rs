//! What of this node's disk does not verify, and what was put back.

use super::{Metrics, as_gauge, counter, gauge};
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
    snapshots: IntCounter,
    small_files: IntCounter,
    scrubbed: IntCounter,
    scrub_passes: IntCounter,
    scrub_damaged: IntCounter,
}

impl Series {
    pub(super) fn new(r: &Registry) -> Self {
        let repairs = Opts::new(
            "raftqueue_repairs_total",
            "Damaged places of this node's disk that were put back: a record of the log with what another node has, only the \
             head of one, a message that was got from another node, a snapshot that another one took the place of, term and \
             vote, once all others were heard, or a small file, with what this node knows.",
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
            snapshots: of("snapshot"),
            small_files: of("small_file"),
            scrubbed: counter(
                r,
                "raftqueue_scrub_bytes_total",
                "Bytes of this node's disk that were read in the background; those of the log twice.",
            ),
            scrub_passes: counter(
                r,
                "raftqueue_scrub_passes_total",
                "Times that the scrub has read everything that stands on this node's disk.",
            ),
            scrub_damaged: counter(
                r,
                "raftqueue_scrub_damaged_total",
                "Records, heads of batches, messages, pages, snapshots and small files that the scrub found not to verify, in each pass. What other nodes have is put back.",
            ),
        }
    }
}

/// What is told of it to whoever asks.
pub(super) struct Told {
    pub(super) log_holes: u64,
    pub(super) repairs: u64,
    pub(super) scrubbed_bytes: u64,
    pub(super) scrub_passes: u64,
    pub(super) scrub_damaged: u64,
}

impl Series {
    pub(super) fn told(&self) -> Told {
        Told {
            log_holes: u64::try_from(self.holes.get()).unwrap_or(0),
            repairs: [
                &self.given,
                &self.alone,
                &self.messages,
                &self.hard_state,
                &self.snapshots,
                &self.small_files,
            ]
            .map(|series| series.get())
            .iter()
            .sum(),
            scrubbed_bytes: self.scrubbed.get(),
            scrub_passes: self.scrub_passes.get(),
            scrub_damaged: self.scrub_damaged.get(),
        }
    }
}

impl Metrics {
    /// So many messages that could not be read here were got from another node.
    pub(crate) fn messages_repaired(&self, messages: u64) {
        self.repairs.messages.inc_by(messages);
    }

    /// So many snapshots that could not be read were replaced.
    pub(crate) fn snapshots_repaired(&self, snapshots: usize) {
        self.repairs.snapshots.inc_by(snapshots as u64);
    }

    /// So many small files did not say what this node knows, and do again.
    pub(crate) fn small_files_repaired(&self, files: usize) {
        self.repairs.small_files.inc_by(files as u64);
    }

    /// Term and vote were lost, and are known again.
    pub(crate) fn hard_state_renewed(&self) {
        self.repairs.hard_state.inc();
    }

    /// The scrub has read so many bytes more that verify, and met so many damaged places more.
    pub(crate) fn scrubbed(&self, bytes: u64, damaged: u64) {
        self.repairs.scrubbed.inc_by(bytes);
        self.repairs.scrub_damaged.inc_by(damaged);
    }

    /// The scrub has read everything once more.
    pub(crate) fn scrub_pass(&self) {
        self.repairs.scrub_passes.inc();
    }

    /// So many damaged records were given by another node, or mended alone. So many are left that are needed, and not needed.
    pub(crate) fn mended(&self, given: u64, alone: u64, needed: u64, unneeded: u64) {
        self.repairs.given.inc_by(given);
        self.repairs.alone.inc_by(alone);
        self.repairs.holes.set(as_gauge(needed));
        self.repairs.holes_left.set(as_gauge(unneeded));
    }
}
