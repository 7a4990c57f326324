//! What a node says that may have to go on alone, as it stands in the contract.

use super::convert::write_node_id;
use crate::api::{Recover, RecoveryInfo, RecoveryMember};
use raftqueue_proto::v1;

/// What is asked.
pub(crate) fn read_recover(asked: v1::RecoverRequest) -> Recover {
    Recover { token: asked.token, force: asked.force }
}

/// The answer.
pub(crate) fn write_recovery(info: RecoveryInfo) -> v1::RecoverResponse {
    v1::RecoverResponse {
        node_id: write_node_id(info.node_id),
        name: info.name,
        cluster_id: info.cluster_id,
        generation: info.generation,
        term: info.term,
        last: info.last,
        last_term: info.last_term,
        commit: info.commit,
        applied: info.applied,
        configuration_index: info.configuration_index,
        joint: info.joint,
        complete: info.complete,
        intact: info.intact,
        members: info.members.into_iter().map(write_member).collect(),
        costs: info.costs,
        refusal: info.refusal.unwrap_or_default(),
        caution: info.caution.unwrap_or_default(),
        token: info.token,
        decided: info.decided,
    }
}

fn write_member(member: RecoveryMember) -> v1::RecoveryMember {
    let RecoveryMember { id, name, address, standing, is_own, is_heard } = member;
    let standing = standing.name().to_owned();
    v1::RecoveryMember { id: write_node_id(id), name, address, standing, own: is_own, heard: is_heard }
}
