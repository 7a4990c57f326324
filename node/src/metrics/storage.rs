//! What stands on the data disk: segments of the log, snapshots, kept files, and how much of them is alive.
//!
//! Which files there are is told by the log's thread after each change, so it is true from the start on. How much of them is
//! alive is counted by the keeper, as of the last snapshot. Bytes on the disk are looked at when they are asked for, which
//! reads the folder: whoever asks is where it may block.

use super::{Metrics, as_gauge, counter, gauge};
use crate::api::{SnapshotInfo, StorageInfo};
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use raftqueue_metrics::Process;
use raftqueue_wal::{Manifest, SnapshotFile};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of the unit in which a file system counts what a file takes.
const BLOCK_BYTES: u64 = 512;

/// What the keeper found when it looked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Bytes of messages in files, dead ones included.
    pub message_bytes: u64,
    /// Of these, bytes of living messages.
    pub live_bytes: u64,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Series {
    /// The data directory, once it is known.
    folder: OnceLock<PathBuf>,
    /// The newest snapshot, if there is one.
    snapshot: Mutex<Option<SnapshotFile>>,
    segment_bytes: IntGauge,
    log_segments: IntGauge,
    released_segments: IntGauge,
    kept_files: IntGauge,
    kept_bytes: IntGauge,
    message_bytes: IntGauge,
    live_bytes: IntGauge,
    damaged_files: IntGauge,
    snapshots: IntCounter,
    snapshot_failures: IntCounter,
    snapshot_seconds: Histogram,
    snapshot_time: Gauge,
    snapshot_index: IntGauge,
    snapshot_bytes: IntGauge,
    snapshots_bytes: IntGauge,
    installed: IntCounter,
    is_incomplete: IntGauge,
    /// Has its one value while that is known.
    lacking: IntGaugeVec,
    lost: IntGauge,
    copied_bytes: IntCounter,
    filled_bytes: IntCounter,
    used_bytes: IntGauge,
    disk_bytes: IntGauge,
}

impl Series {
    pub(super) fn new(r: &Registry) -> Self {
        let snapshot_time = Gauge::new(
            "raftqueue_snapshot_timestamp_seconds",
            "When the newest snapshot was written, since the Unix epoch; 0 before there is one.",
        );
        let snapshot_time = snapshot_time.expect("the name is valid");
        r.register(Box::new(snapshot_time.clone())).expect("the name is new");
        let lacking = Opts::new(
            "raftqueue_install_messages_missing",
            "Messages that live and do not stand here yet, after another node's snapshot was taken over; absent until they \
             are counted.",
        );
        let lacking = IntGaugeVec::new(lacking, &[]).expect("the name is valid");
        r.register(Box::new(lacking.clone())).expect("the name is new");
        Self {
            folder: OnceLock::new(),
            snapshot: Mutex::default(),
            segment_bytes: gauge(r, "raftqueue_wal_segment_bytes", "Size of a segment file, as set."),
            log_segments: gauge(r, "raftqueue_wal_segments", "Segments of the log."),
            released_segments: gauge(
                r,
                "raftqueue_wal_released_segments",
                "Segments that are no longer part of the log and are kept for their messages.",
            ),
            kept_files: gauge(r, "raftqueue_kept_files", "Files with messages that outlived their segments."),
            kept_bytes: gauge(r, "raftqueue_kept_file_bytes", "Bytes of kept files."),
            message_bytes: gauge(
                r,
                "raftqueue_file_message_bytes",
                "Bytes of messages in segments and kept files as of the last snapshot, those that are done with included.",
            ),
            live_bytes: gauge(
                r,
                "raftqueue_file_live_bytes",
                "Of raftqueue_file_message_bytes, those of messages that are not done with.",
            ),
            damaged_files: gauge(
                r,
                "raftqueue_damaged_files",
                "Files that could not be used when this process started, and that its log names.",
            ),
            snapshots: counter(r, "raftqueue_snapshots_total", "Snapshots taken."),
            snapshot_failures: counter(
                r,
                "raftqueue_snapshot_failures_total",
                "Snapshots given up, because the disk was full as a rule.",
            ),
            snapshot_seconds: super::histogram(
                r,
                "raftqueue_snapshot_seconds",
                "Time to take a snapshot.",
                prometheus::exponential_buckets(0.001, 2.0, 16).expect("valid buckets"),
            ),
            snapshot_time,
            snapshot_index: gauge(r, "raftqueue_snapshot_index", "Index of the newest snapshot."),
            snapshot_bytes: gauge(r, "raftqueue_snapshot_bytes", "Size of the newest snapshot."),
            snapshots_bytes: gauge(
                r,
                "raftqueue_snapshot_files_bytes",
                "Size of the two snapshots that are kept.",
            ),
            installed: counter(
                r,
                "raftqueue_snapshots_installed_total",
                "Snapshots of other nodes that were taken over, because the log did not reach back far enough.",
            ),
            is_incomplete: gauge(
                r,
                "raftqueue_incomplete",
                "1 while messages are lacking here that others have: the node neither leads nor counts as caught up.",
            ),
            lacking,
            lost: gauge(
                r,
                "raftqueue_messages_lost",
                "Messages that live and that no member of the cluster has any more: they are not given to anybody.",
            ),
            copied_bytes: counter(
                r,
                "raftqueue_compaction_copied_bytes_total",
                "Bytes of living messages copied into kept files.",
            ),
            filled_bytes: counter(
                r,
                "raftqueue_install_bytes_total",
                "Bytes of messages that this node lacked and got from others.",
            ),
            used_bytes: gauge(
                r,
                "raftqueue_data_bytes",
                "Bytes that the files of the data directory take on its disk.",
            ),
            disk_bytes: gauge(r, "raftqueue_wal_disk_bytes", "Size of the data disk."),
        }
    }

    /// Says where the data directory is.
    pub(super) fn data_dir(&self, path: &Path) {
        // Said once, when the node starts.
        let _ = self.folder.set(path.to_owned());
    }

    /// Looks at the files. May block.
    pub(super) fn observe(&self) {
        let Some(folder) = self.folder.get() else { return };
        let newest = *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let written = newest.and_then(|file| fs::metadata(folder.join(file.name())).ok()?.modified().ok());
        let since = written.and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
        self.snapshot_time.set(since.unwrap_or_default().as_secs_f64());
        if let Some(bytes) = used_bytes(folder) {
            self.used_bytes.set(as_gauge(bytes));
        }
        if let Ok(space) = rustix::fs::statvfs(folder) {
            self.disk_bytes.set(as_gauge(space.f_blocks.saturating_mul(space.f_frsize)));
        }
    }

    fn filed(&self, manifest: &Manifest, log_segments: usize) {
        let newest = manifest.snapshots.last().copied();
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        self.log_segments.set(as_gauge(log_segments as u64));
        self.released_segments.set(as_gauge(manifest.released.len() as u64));
        self.kept_files.set(as_gauge(manifest.kept.len() as u64));
        self.kept_bytes.set(as_gauge(manifest.kept.iter().map(|file| file.size).sum()));
        self.snapshot_index.set(as_gauge(newest.map_or(0, |file| file.index.0)));
        self.snapshot_bytes.set(as_gauge(newest.map_or(0, |file| file.size)));
        self.snapshots_bytes.set(as_gauge(manifest.snapshots.iter().map(|file| file.size).sum()));
    }

    fn lacking(&self, messages: Option<u64>) {
        match messages {
            Some(messages) => self.lacking.with_label_values::<&str>(&[]).set(as_gauge(messages)),
            None => self.lacking.reset(),
        }
    }

    fn known_lacking(&self) -> Option<u64> {
        use prometheus::core::Collector;
        let families = self.lacking.collect();
        let is_known = families.iter().any(|family| !family.get_metric().is_empty());
        is_known.then(|| value(&self.lacking.with_label_values::<&str>(&[])))
    }
}

impl Metrics {
    /// The size of a segment file, as set.
    pub fn segment_bytes(&self, bytes: u64) {
        self.storage.segment_bytes.set(as_gauge(bytes));
    }

    /// So many files could not be used when the node started.
    pub fn damaged_files(&self, count: usize) {
        self.storage.damaged_files.set(as_gauge(count as u64));
    }

    /// The files are those of this manifest now, and the log has so many segments.
    pub(crate) fn filed(&self, manifest: &Manifest, log_segments: usize) {
        self.storage.filed(manifest, log_segments);
    }

    /// The log has so many segments.
    pub(crate) fn log_segments(&self, count: usize) {
        self.storage.log_segments.set(as_gauge(count as u64));
    }

    /// A snapshot was taken.
    pub(crate) fn snapshot_taken(&self, took: Duration) {
        self.storage.snapshots.inc();
        self.storage.snapshot_seconds.observe(took.as_secs_f64());
    }

    /// A snapshot was given up.
    pub(crate) fn snapshot_failed(&self) {
        self.storage.snapshot_failures.inc();
    }

    /// Another node's snapshot was taken over.
    pub(crate) fn snapshot_installed(&self) {
        self.storage.installed.inc();
    }

    /// Whether messages are lacking here that others have.
    pub(super) fn incomplete(&self, is_incomplete: bool) {
        self.storage.is_incomplete.set(i64::from(is_incomplete));
    }

    /// So many messages are lacking here; `None`: nobody has counted them.
    pub(crate) fn lacking(&self, messages: Option<u64>) {
        self.storage.lacking(messages);
    }

    /// So many messages are lacking here that no member of the cluster has.
    pub(crate) fn messages_lost(&self, count: u64) {
        self.storage.lost.set(as_gauge(count));
    }

    /// Messages that this node lacked have come from another.
    pub(crate) fn filled(&self, messages: u64, bytes: u64) {
        self.storage.filled_bytes.inc_by(bytes);
        if let Some(lacking) = self.storage.known_lacking() {
            self.storage.lacking(Some(lacking.saturating_sub(messages)));
        }
    }

    /// Living messages were copied into a kept file.
    pub(crate) fn copied(&self, bytes: u64) {
        self.storage.copied_bytes.inc_by(bytes);
    }

    /// How much of what stands on the disk is alive.
    pub(crate) fn stored(&self, stored: &Stored) {
        self.storage.message_bytes.set(as_gauge(stored.message_bytes));
        self.storage.live_bytes.set(as_gauge(stored.live_bytes));
    }

    /// What this node keeps, in the numbers of its series. Reads files: it may block.
    #[must_use]
    pub fn storage(&self) -> StorageInfo {
        self.process.observe();
        self.storage.observe();
        let s = &self.storage;
        let held = self
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(super::census::Found::held);
        let newest = *s.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let written = Duration::try_from_secs_f64(s.snapshot_time.get()).unwrap_or_default();
        let damage = self.repairs.told();
        StorageInfo {
            segment_bytes: value(&s.segment_bytes),
            log_segments: value(&s.log_segments),
            released_segments: value(&s.released_segments),
            kept_files: value(&s.kept_files),
            kept_bytes: value(&s.kept_bytes),
            stored_bytes: value(&s.message_bytes),
            live_bytes: value(&s.live_bytes),
            snapshot: newest.map(|file| SnapshotInfo {
                index: file.index.0,
                bytes: file.size,
                written_ms: u64::try_from(written.as_millis()).unwrap_or(u64::MAX),
            }),
            snapshots_bytes: value(&s.snapshots_bytes),
            incomplete: s.is_incomplete.get() != 0,
            lacking: s.known_lacking(),
            lost: value(&s.lost),
            damaged_files: value(&s.damaged_files),
            used_bytes: value(&s.used_bytes),
            free_bytes: value(&self.free_bytes),
            disk_bytes: value(&s.disk_bytes),
            messages: held.map(|(messages, _)| messages),
            message_bytes: held.map(|(_, bytes)| bytes),
            resident_bytes: self.process.resident_bytes(),
            cpu_ms: Process::cpu_ms(),
            log_holes: damage.log_holes,
            repairs: damage.repairs,
            scrubbed_bytes: damage.scrubbed_bytes,
            scrub_passes: damage.scrub_passes,
            scrub_damaged: damage.scrub_damaged,
        }
    }
}

fn value(gauge: &IntGauge) -> u64 {
    u64::try_from(gauge.get()).unwrap_or(0)
}

/// What the files of a folder take on their disk; `None` if it cannot be read.
fn used_bytes(folder: &Path) -> Option<u64> {
    let entries = fs::read_dir(folder).ok()?;
    // A file may go while they are counted.
    let files = entries.filter_map(|entry| entry.ok()?.metadata().ok()).filter(fs::Metadata::is_file);
    Some(files.map(|file| file.blocks() * BLOCK_BYTES).sum())
}
