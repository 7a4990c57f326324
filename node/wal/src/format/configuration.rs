//! A cluster configuration as the meta of a record.
//!
//! ```text
//! u8 form (1) | u32 active version
//! u32 members  | each: u64 id | u8 kind (0 voter, 1 learner) | u16 length | name | u16 length | address
//! u32 outgoing | each: u64 id
//! ```
//!
//! Ids stand in rising order, so one configuration has one encoding and one checksum on every node.

use super::{Cursor, Malformed, put_string};
use raftqueue_raft::{Configuration, Member, MemberKind, NodeId};

const FORM: u8 = 1;

/// Encodes a configuration.
///
/// # Panics
/// If a member's name or address is longer than 65,535 bytes.
#[must_use]
pub fn encode(configuration: &Configuration) -> Vec<u8> {
    let mut bytes = vec![FORM];
    bytes.extend_from_slice(&configuration.version.to_le_bytes());
    put_count(&mut bytes, configuration.members.len());
    for (id, member) in &configuration.members {
        bytes.extend_from_slice(&id.0.to_le_bytes());
        bytes.push(match member.kind {
            MemberKind::Voter => 0,
            MemberKind::Learner => 1,
        });
        put_string(&mut bytes, &member.name);
        put_string(&mut bytes, &member.address);
    }
    put_count(&mut bytes, configuration.outgoing.len());
    for id in &configuration.outgoing {
        bytes.extend_from_slice(&id.0.to_le_bytes());
    }
    bytes
}

/// Decodes what [`encode`] wrote, and nothing else: not a byte more, ids in rising order.
///
/// # Errors
/// [`Malformed`]; inside a record whose checksums hold it means that a newer build wrote it.
pub fn decode(bytes: &[u8]) -> Result<Configuration, Malformed> {
    let mut cursor = Cursor(bytes);
    if cursor.u8()? != FORM {
        return Err(Malformed::Field("configuration form"));
    }
    let mut configuration = Configuration { version: cursor.u32()?, ..Configuration::default() };
    for _ in 0..cursor.u32()? {
        let id = NodeId(cursor.u64()?);
        let kind = match cursor.u8()? {
            0 => MemberKind::Voter,
            1 => MemberKind::Learner,
            _ => return Err(Malformed::Field("member kind")),
        };
        let name = cursor.string("member name")?;
        let address = cursor.string("member address")?;
        if configuration.members.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(Malformed::Field("order of members"));
        }
        configuration.members.insert(id, Member { name, address, kind });
    }
    for _ in 0..cursor.u32()? {
        let id = NodeId(cursor.u64()?);
        if configuration.outgoing.last().is_some_and(|last| *last >= id) {
            return Err(Malformed::Field("order of outgoing voters"));
        }
        configuration.outgoing.insert(id);
    }
    cursor.end("configuration length")?;
    Ok(configuration)
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("far fewer members than 4 billion");
    bytes.extend_from_slice(&count.to_le_bytes());
}
