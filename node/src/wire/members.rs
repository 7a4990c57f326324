//! Members and waiting nodes on the wire.

use super::convert::{read_node_id, write_node_id};
use crate::api::{MemberStanding, MemberState, MembersInfo, WaitingInfo};
use raftqueue_proto::v1;

pub(super) fn write(members: MembersInfo) -> v1::MembersResponse {
    v1::MembersResponse {
        configuration_index: members.configuration_index,
        joint: members.joint,
        settled: members.settled,
        leader: write_node_id(members.leader),
        term: members.term,
        last: members.last,
        version: members.version,
        members: members.members.into_iter().map(write_member).collect(),
        waiting: members.waiting.into_iter().map(write_waiting).collect(),
    }
}

/// `None` if a part of it cannot be read.
pub(super) fn read(members: v1::MembersResponse) -> Option<MembersInfo> {
    Some(MembersInfo {
        configuration_index: members.configuration_index,
        joint: members.joint,
        settled: members.settled,
        leader: read_node_id(&members.leader)?,
        term: members.term,
        last: members.last,
        version: members.version,
        members: members.members.into_iter().map(read_member).collect::<Option<_>>()?,
        waiting: members.waiting.into_iter().map(read_waiting).collect::<Option<_>>()?,
    })
}

fn write_member(member: MemberState) -> v1::MemberState {
    v1::MemberState {
        id: write_node_id(member.id),
        name: member.name,
        address: member.address,
        standing: member.standing.name().to_owned(),
        leads: member.leads,
        active: member.active,
        matched: member.matched,
        lag: member.lag,
        complete: member.complete,
        replaying: member.replaying,
        disk_stalled: member.disk_stalled,
        unwell: member.unwell.unwrap_or_default(),
        stop_refusal: member.stop_refusal.unwrap_or_default(),
        free_bytes: member.free_bytes,
        version_min: member.versions.map_or(0, |(oldest, _)| oldest),
        version_max: member.versions.map_or(0, |(_, newest)| newest),
    }
}

fn read_member(member: v1::MemberState) -> Option<MemberState> {
    Some(MemberState {
        id: read_node_id(&member.id)?,
        name: member.name,
        address: member.address,
        standing: MemberStanding::of_name(&member.standing)?,
        leads: member.leads,
        active: member.active,
        matched: member.matched,
        lag: member.lag,
        complete: member.complete,
        replaying: member.replaying,
        disk_stalled: member.disk_stalled,
        unwell: read_why(member.unwell),
        stop_refusal: read_why(member.stop_refusal),
        free_bytes: member.free_bytes,
        versions: (member.version_max > 0).then_some((member.version_min, member.version_max)),
    })
}

fn write_waiting(waiting: WaitingInfo) -> v1::WaitingNode {
    let WaitingInfo { id, name, address, client_address } = waiting;
    v1::WaitingNode { id: write_node_id(id), name, address, client_address }
}

fn read_waiting(waiting: v1::WaitingNode) -> Option<WaitingInfo> {
    let v1::WaitingNode { id, name, address, client_address } = waiting;
    Some(WaitingInfo { id: read_node_id(&id)?, name, address, client_address })
}

/// A reason; on the wire none is an empty text.
pub(super) fn read_why(why: String) -> Option<String> {
    (!why.is_empty()).then_some(why)
}
