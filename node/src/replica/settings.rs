//! What a replica is told once, when it is made.

use super::SnapshotSettings;
use super::room::RESERVE_BYTES_DEFAULT;
use raftqueue_raft as raft;

/// Settings of one replica. The leader writes those that decide what a command does into the command.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The protocol's.
    pub raft: raft::Settings,
    /// The generation that the node is of: a leader raises that of the replicated state to it.
    pub generation: u32,
    /// Bytes of messages after which an entry is closed; one command may be larger.
    pub entry_bytes_target: usize,
    /// Entries proposed and not applied. Beyond that calls wait, and the next entry grows.
    pub entries_in_flight_max: usize,
    /// Bytes of calls that wait to be proposed. Beyond that calls are refused as overloaded.
    pub queued_bytes_max: usize,
    /// Calls that are open at once. Beyond that calls are refused as overloaded.
    pub calls_max: usize,
    /// Steps after which a part of a turn leaves the rest to the next turn, and an entry is closed. A step is what moving one
    /// message costs.
    pub turn_steps: u64,
    /// Free bytes below which a disk counts as full: publishing stops, acknowledging goes on.
    pub reserve_bytes: u64,
    /// Most topics of the cluster.
    pub topics_max: u64,
    /// Most open sessions of the cluster.
    pub sessions_max: u64,
    /// Most (session, topic) pairs of the cluster.
    pub session_pairs_max: u64,
    /// Length of a lease in milliseconds if the caller names none.
    pub lease_ms_default: u64,
    /// Attempts after which a message is dead, for topics that do not say.
    pub attempts_max_default: u32,
    /// When snapshots are taken.
    pub snapshots: SnapshotSettings,
}

impl Settings {
    /// The defaults, on top of the protocol's settings.
    #[must_use]
    pub fn new(raft: raft::Settings) -> Self {
        const MIB: usize = 1 << 20;
        Self {
            raft,
            generation: 0,
            entry_bytes_target: MIB,
            entries_in_flight_max: 4,
            queued_bytes_max: 64 * MIB,
            calls_max: 65_536,
            turn_steps: 10_000,
            reserve_bytes: RESERVE_BYTES_DEFAULT,
            topics_max: raftqueue_queue::TOPICS_MAX_DEFAULT,
            sessions_max: raftqueue_queue::SESSIONS_MAX_DEFAULT,
            session_pairs_max: raftqueue_queue::SESSION_PAIRS_MAX_DEFAULT,
            lease_ms_default: raftqueue_queue::LEASE_MS_DEFAULT,
            attempts_max_default: raftqueue_queue::ATTEMPTS_MAX_DEFAULT,
            snapshots: SnapshotSettings::default(),
        }
    }
}
