//! `GET /v1/storage`: what the asked node keeps, spelled in JSON.

use raftqueue_proto::v1;
use serde::Serialize;

/// A snapshot of the queue's state on one node's disk.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Snapshot {
    /// The last entry that it covers.
    index: u64,
    /// Its size in bytes.
    bytes: u64,
    /// When it was written, in milliseconds since the Unix epoch, by the node's clock.
    written_ms: u64,
}

/// What one node keeps, as it sees it itself. All sizes are in bytes.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Storage {
    /// Node id; empty before the data directory is formatted.
    node_id: String,
    /// The node's name.
    name: String,
    /// Size of a segment file, as set.
    segment_bytes: u64,
    /// Segments of the log.
    log_segments: u64,
    /// Segments that are no longer part of the log and are kept for their messages.
    released_segments: u64,
    /// Files with messages that outlived their segments.
    kept_files: u64,
    /// Size of these.
    kept_bytes: u64,
    /// Messages in segments and kept files as of the newest snapshot, those that are done with included.
    stored_bytes: u64,
    /// Of these, messages that are not done with.
    live_bytes: u64,
    /// The newest snapshot; absent before there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Snapshot>,
    /// Size of the two snapshots that are kept.
    snapshots_bytes: u64,
    /// Messages are lacking here that others have: the node is being installed.
    incomplete: bool,
    /// How many messages are lacking; absent while nobody has counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacking: Option<u64>,
    /// Messages that live and that no member of the cluster has: they are not given to anybody.
    lost: u64,
    /// Files that could not be used when the process started. The node's log names them.
    damaged_files: u64,
    /// What the files of the data directory take on their disk.
    used_bytes: u64,
    /// What is free on that disk.
    free_bytes: u64,
    /// The size of that disk.
    disk_bytes: u64,
    /// Messages held, in any state, counted about once a second; absent while the node replays its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    /// Size of these messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_bytes: Option<u64>,
    /// Resident memory of the process.
    resident_bytes: u64,
    /// Processor time that the process has used, user and system, in milliseconds.
    cpu_ms: u64,
    /// Records of the log that do not verify and are needed: until others have given them the node does not lead.
    log_holes: u64,
    /// Damaged places of its disk that were put back since the process started.
    repairs: u64,
    /// Bytes of its disk that were read in the background to find damage, since the process started.
    scrubbed_bytes: u64,
    /// Times that everything was read so.
    scrub_passes: u64,
    /// Damaged places that were found so.
    scrub_damaged: u64,
}

impl From<v1::StorageResponse> for Storage {
    fn from(storage: v1::StorageResponse) -> Self {
        let snapshot = storage.snapshot;
        Self {
            node_id: storage.node_id,
            name: storage.name,
            segment_bytes: storage.segment_bytes,
            log_segments: storage.log_segments,
            released_segments: storage.released_segments,
            kept_files: storage.kept_files,
            kept_bytes: storage.kept_bytes,
            stored_bytes: storage.stored_bytes,
            live_bytes: storage.live_bytes,
            snapshot: snapshot.map(|v1::Snapshot { index, bytes, written_ms }| Snapshot {
                index,
                bytes,
                written_ms,
            }),
            snapshots_bytes: storage.snapshots_bytes,
            incomplete: storage.incomplete,
            lacking: storage.lacking,
            lost: storage.lost,
            damaged_files: storage.damaged_files,
            used_bytes: storage.used_bytes,
            free_bytes: storage.free_bytes,
            disk_bytes: storage.disk_bytes,
            messages: storage.messages,
            message_bytes: storage.message_bytes,
            resident_bytes: storage.resident_bytes,
            cpu_ms: storage.cpu_ms,
            log_holes: storage.log_holes,
            repairs: storage.repairs,
            scrubbed_bytes: storage.scrubbed_bytes,
            scrub_passes: storage.scrub_passes,
            scrub_damaged: storage.scrub_damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{SnapshotInfo, StorageInfo};
    use crate::fake::leading;
    use crate::wire::storage::write_storage;
    use serde_json::json;

    #[test]
    fn every_number_stands_under_its_name() {
        let storage = StorageInfo {
            segment_bytes: 1,
            log_segments: 2,
            released_segments: 3,
            kept_files: 4,
            kept_bytes: 5,
            stored_bytes: 6,
            live_bytes: 7,
            snapshot: Some(SnapshotInfo { index: 8, bytes: 9, written_ms: 10 }),
            snapshots_bytes: 11,
            incomplete: true,
            lacking: Some(12),
            damaged_files: 13,
            used_bytes: 14,
            free_bytes: 15,
            disk_bytes: 16,
            messages: Some(17),
            message_bytes: Some(18),
            resident_bytes: 19,
            cpu_ms: 26,
            log_holes: 20,
            repairs: 21,
            scrubbed_bytes: 22,
            scrub_passes: 23,
            scrub_damaged: 24,
            lost: 25,
        };
        let told = |storage: &StorageInfo| {
            serde_json::to_value(Storage::from(write_storage(&leading(), storage))).expect("plain fields")
        };
        let expected = json!({
            "node_id": "00000000000000a1", "name": "node-0", "segment_bytes": 1, "log_segments": 2,
            "released_segments": 3, "kept_files": 4, "kept_bytes": 5, "stored_bytes": 6, "live_bytes": 7,
            "snapshot": {"index": 8, "bytes": 9, "written_ms": 10}, "snapshots_bytes": 11, "incomplete": true,
            "lacking": 12, "damaged_files": 13, "used_bytes": 14, "free_bytes": 15, "disk_bytes": 16, "messages": 17,
            "message_bytes": 18, "resident_bytes": 19, "cpu_ms": 26, "log_holes": 20, "repairs": 21, "scrubbed_bytes": 22,
            "scrub_passes": 23, "scrub_damaged": 24, "lost": 25
        });
        assert_eq!(told(&storage), expected);
        // What is not known is left out.
        let blank = told(&StorageInfo::default());
        for field in ["snapshot", "lacking", "messages", "message_bytes"] {
            assert!(blank.get(field).is_none(), "{field}: {blank}");
        }
    }
}
