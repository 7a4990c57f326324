//! The file `RECOVERY`: a forced recovery that was decided.

use super::{Cursor, GROUP, Malformed, configuration, unwrap, wrap};
use crate::recovery::Recovery;
use raftqueue_raft::{Index, NodeId, Term};

const MAGIC: [u8; 4] = *b"RQrc";

/// ```text
/// u32 group | u64 node id | u32 generation | u64 last index | u64 its term | u64 term of the entry that follows
/// its configuration, to the end
/// ```
pub(crate) fn encode_recovery(recovery: &Recovery) -> Vec<u8> {
    let mut bytes = GROUP.to_le_bytes().to_vec();
    bytes.extend_from_slice(&recovery.node_id.0.to_le_bytes());
    bytes.extend_from_slice(&recovery.generation.to_le_bytes());
    bytes.extend_from_slice(&recovery.last.0.0.to_le_bytes());
    bytes.extend_from_slice(&recovery.last.1.0.to_le_bytes());
    bytes.extend_from_slice(&recovery.term.0.to_le_bytes());
    bytes.extend_from_slice(&configuration::encode(&recovery.configuration));
    wrap(MAGIC, &bytes)
}

pub(crate) fn decode_recovery(bytes: &[u8]) -> Result<Recovery, Malformed> {
    let mut cursor = Cursor(unwrap(MAGIC, bytes)?);
    cursor.group()?;
    Ok(Recovery {
        node_id: NodeId(cursor.u64()?),
        generation: cursor.u32()?,
        last: (Index(cursor.u64()?), Term(cursor.u64()?)),
        term: Term(cursor.u64()?),
        configuration: configuration::decode(cursor.0)?,
    })
}
