//! The small files IDENTITY and HARDSTATE. Each is an envelope (see [`super`]) around the fields shown here.

use super::{Cursor, GROUP, Malformed, put_string, unwrap, wrap};
use crate::identity::{Binding, Identity};
use raftqueue_raft::{HardState, NodeId, Term};

/// Where the second slot of HARDSTATE begins: on a block of its own, so that no write touches both.
pub(crate) const HARD_STATE_SLOT_BYTES: u64 = 4096;

const IDENTITY_MAGIC: [u8; 4] = *b"RQid";
const HARD_STATE_MAGIC: [u8; 4] = *b"RQhs";

/// ```text
/// u128 formation id (0: not bound) | u32 generation | u64 node id | u16 length, name
/// u8 bound | if 1: u64 seed id | u32 members | each: u16 length, name | u8 known | if 1: u64 id
/// ```
pub(crate) fn encode_identity(identity: &Identity) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&identity.formation_id.to_le_bytes());
    bytes.extend_from_slice(&identity.generation.to_le_bytes());
    bytes.extend_from_slice(&identity.node_id.0.to_le_bytes());
    put_string(&mut bytes, &identity.name);
    bytes.push(u8::from(identity.binding.is_some()));
    if let Some(binding) = &identity.binding {
        bytes.extend_from_slice(&binding.seed_id.0.to_le_bytes());
        let count = u32::try_from(binding.members.len()).expect("far fewer members than 4 billion");
        bytes.extend_from_slice(&count.to_le_bytes());
        for (name, id) in &binding.members {
            put_string(&mut bytes, name);
            bytes.push(u8::from(id.is_some()));
            if let Some(id) = id {
                bytes.extend_from_slice(&id.0.to_le_bytes());
            }
        }
    }
    wrap(IDENTITY_MAGIC, &bytes)
}

pub(crate) fn decode_identity(bytes: &[u8]) -> Result<Identity, Malformed> {
    let mut cursor = Cursor(unwrap(IDENTITY_MAGIC, bytes)?);
    let formation_id = cursor.u128()?;
    let generation = cursor.u32()?;
    let node_id = NodeId(cursor.u64()?);
    let name = cursor.string("node name")?;
    let mut binding = None;
    if cursor.bool("bound")? {
        let seed_id = NodeId(cursor.u64()?);
        let mut members = Vec::new();
        for _ in 0..cursor.u32()? {
            let name = cursor.string("member name")?;
            let id = if cursor.bool("known")? { Some(NodeId(cursor.u64()?)) } else { None };
            members.push((name, id));
        }
        binding = Some(Binding { seed_id, members });
    }
    cursor.end("identity length")?;
    if node_id.0 == 0 {
        return Err(Malformed::Field("node id"));
    }
    Ok(Identity { formation_id, generation, node_id, name, binding, format_version: super::FORMAT_VERSION })
}

/// ```text
/// u32 group | u64 term | u64 vote (0: none)
/// ```
/// One slot, at most one sector long.
pub(crate) fn encode_hard_state(hard_state: HardState) -> Vec<u8> {
    let mut bytes = GROUP.to_le_bytes().to_vec();
    bytes.extend_from_slice(&hard_state.term.0.to_le_bytes());
    bytes.extend_from_slice(&encode_vote(hard_state.vote).to_le_bytes());
    wrap(HARD_STATE_MAGIC, &bytes)
}

pub(crate) fn decode_hard_state(bytes: &[u8]) -> Result<HardState, Malformed> {
    let mut cursor = Cursor(unwrap(HARD_STATE_MAGIC, bytes)?);
    cursor.group()?;
    let term = Term(cursor.u64()?);
    let vote = decode_vote(cursor.u64()?);
    cursor.end("hard state length")?;
    Ok(HardState { term, vote })
}

/// A vote as a number: node ids are never 0.
pub(crate) fn encode_vote(vote: Option<NodeId>) -> u64 {
    vote.map_or(0, |id| id.0)
}

pub(crate) fn decode_vote(vote: u64) -> Option<NodeId> {
    (vote != 0).then_some(NodeId(vote))
}
