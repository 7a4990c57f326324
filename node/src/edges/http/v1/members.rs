//! `/v1/members`: who is a member, and what becomes of a change, spelled in JSON.

use raftqueue_proto::v1;
use serde::Serialize;

/// One member, as the leader sees it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct MemberState {
    /// Node id, 16 hexadecimal digits.
    id: String,
    /// Its name.
    name: String,
    /// Where the other nodes find it, as HOST:PORT, as the configuration says.
    address: String,
    /// `voter`, `learner`, or `leaving` for a voter that counts only until the joint configuration is left.
    standing: String,
    /// It leads.
    leads: bool,
    /// Heard from within an election timeout.
    active: bool,
    /// Last index durable there.
    matched: u64,
    /// Entries it is behind the leader's last.
    lag: u64,
    /// It has every message that lives.
    complete: bool,
    /// It has yet to apply what was committed when its process started.
    replaying: bool,
    /// Its disk does not answer.
    disk_stalled: bool,
    /// Why it does not count as well; empty if it does. Learners that are well can be promoted.
    unwell: String,
    /// Why it must not be stopped now; empty: it may.
    stop_refusal: String,
    /// Bytes free on its data disk; absent where the leader has not heard of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    /// Oldest version of commands and formats that it can run; 0 where the leader has not heard of it.
    version_min: u32,
    /// Newest version that it can run; 0 where the leader has not heard of it.
    version_max: u32,
}

/// A node that announced itself and waits to be added.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct WaitingNode {
    /// Node id, 16 hexadecimal digits.
    id: String,
    /// Its name.
    name: String,
    /// Where the other nodes find it, as it said.
    address: String,
    /// Where clients find it, as it said.
    client_address: String,
}

/// All members, as the leader sees them.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct MemberList {
    /// Where the configuration in force stands in the log. It rises with every change.
    configuration_index: u64,
    /// It is joint: a change is half way.
    joint: bool,
    /// No change is under way.
    settled: bool,
    /// The leader's node id.
    leader: String,
    /// Its term.
    term: u64,
    /// The last index of its log.
    last: u64,
    /// All members, by id.
    members: Vec<MemberState>,
    /// Nodes that wait to be added, by id.
    waiting: Vec<WaitingNode>,
    /// Active version of commands and formats.
    version: u32,
}

/// Leadership is with this node now.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Transferred {
    /// Its node id.
    leader: String,
}

impl From<v1::TransferLeadershipResponse> for Transferred {
    fn from(answer: v1::TransferLeadershipResponse) -> Self {
        Self { leader: answer.leader }
    }
}

/// The members have changed.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct MemberChange {
    /// Where the configuration in force stands, now that the change is committed.
    configuration_index: u64,
    /// Of a dry call: why it would be refused; empty if it would not.
    refusal: String,
}

impl From<v1::MembersResponse> for MemberList {
    fn from(members: v1::MembersResponse) -> Self {
        Self {
            configuration_index: members.configuration_index,
            joint: members.joint,
            settled: members.settled,
            leader: members.leader,
            term: members.term,
            last: members.last,
            members: members.members.into_iter().map(Into::into).collect(),
            waiting: members.waiting.into_iter().map(Into::into).collect(),
            version: members.version,
        }
    }
}

impl From<v1::MemberState> for MemberState {
    fn from(member: v1::MemberState) -> Self {
        Self {
            id: member.id,
            name: member.name,
            address: member.address,
            standing: member.standing,
            leads: member.leads,
            active: member.active,
            matched: member.matched,
            lag: member.lag,
            complete: member.complete,
            replaying: member.replaying,
            disk_stalled: member.disk_stalled,
            unwell: member.unwell,
            stop_refusal: member.stop_refusal,
            free_bytes: member.free_bytes,
            version_min: member.version_min,
            version_max: member.version_max,
        }
    }
}

impl From<v1::WaitingNode> for WaitingNode {
    fn from(node: v1::WaitingNode) -> Self {
        let v1::WaitingNode { id, name, address, client_address } = node;
        Self { id, name, address, client_address }
    }
}

impl From<v1::MemberChangeResponse> for MemberChange {
    fn from(answer: v1::MemberChangeResponse) -> Self {
        Self { configuration_index: answer.configuration_index, refusal: answer.refusal }
    }
}
