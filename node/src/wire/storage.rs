//! What a node keeps, as it stands in the contract.

use super::convert::write_node_id;
use crate::api::{LocalStatus, StorageInfo};
use raftqueue_proto::v1;

/// The answer to `Storage`, of the node that `status` is of.
pub(crate) fn write_storage(status: &LocalStatus, storage: &StorageInfo) -> v1::StorageResponse {
    let snapshot = storage.snapshot.map(|snapshot| v1::Snapshot {
        index: snapshot.index,
        bytes: snapshot.bytes,
        written_ms: snapshot.written_ms,
    });
    v1::StorageResponse {
        node_id: status.node_id.map(write_node_id).unwrap_or_default(),
        name: status.name.clone(),
        segment_bytes: storage.segment_bytes,
        log_segments: storage.log_segments,
        released_segments: storage.released_segments,
        kept_files: storage.kept_files,
        kept_bytes: storage.kept_bytes,
        stored_bytes: storage.stored_bytes,
        live_bytes: storage.live_bytes,
        snapshot,
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
