//! What a node says of itself, at once and possibly out of date.

use super::MemberInfo;

/// What a node believes that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Leads, as far as it knows.
    Leader,
    /// Follows; also a blank node and a learner.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
}

impl Role {
    /// The role as people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "Leader",
            Role::Follower => "Follower",
            Role::Candidate => "Candidate",
        }
    }
}

/// One node's own view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStatus {
    /// Its id; `None` before its data directory is formatted.
    pub node_id: Option<u64>,
    /// Its name.
    pub name: String,
    /// The cluster it belongs to, 32 hexadecimal digits; empty for a node that belongs to none.
    pub cluster_id: String,
    /// Forced recoveries of that cluster.
    pub generation: u32,
    /// Active version of commands and formats.
    pub version: u32,
    /// What it believes that it is.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Where clients reach that leader, as HOST:PORT.
    pub leader_address: Option<String>,
    /// Last index that it knows to be committed.
    pub commit: u64,
    /// Last index applied.
    pub applied: u64,
    /// Last index in its log.
    pub last: u64,
    /// Members as in its newest configuration.
    pub members: Vec<MemberInfo>,
    /// Why it is not fit to serve; `None` if it is. Then it is a member, has known a leader recently, has applied
    /// everything that was committed when it started, and lags little.
    pub not_ready: Option<String>,
    /// What somebody should look at although it serves, such as a disk that is nearly full.
    pub note: Option<String>,
}

impl LocalStatus {
    /// The client address to hint at in answers: the leader's, when that is another node and its address is known.
    #[must_use]
    pub fn leader_hint(&self) -> Option<&str> {
        match self.role {
            Role::Leader => None,
            Role::Follower | Role::Candidate => {
                self.leader_address.as_deref().filter(|address| !address.is_empty())
            }
        }
    }
}

/// A snapshot, as the node that has it sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last entry that it covers.
    pub index: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub written_ms: u64,
}

/// What a node keeps on its disk and in memory, as it sees it itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageInfo {
    /// Bytes of a segment file, as set.
    pub segment_bytes: u64,
    /// Segments of the log.
    pub log_segments: u64,
    /// Segments that are no longer part of the log and are kept for their messages.
    pub released_segments: u64,
    /// Files with messages that outlived their segments.
    pub kept_files: u64,
    /// Bytes of these.
    pub kept_bytes: u64,
    /// Bytes of messages in segments and kept files as of the newest snapshot, those that are done with included.
    pub stored_bytes: u64,
    /// Of these, bytes of messages that are not done with.
    pub live_bytes: u64,
    /// The newest snapshot; `None` before there is one.
    pub snapshot: Option<SnapshotInfo>,
    /// Bytes of the two snapshots that are kept.
    pub snapshots_bytes: u64,
    /// Messages are lacking here that others have: the node is being installed.
    pub incomplete: bool,
    /// How many; `None` while nobody has counted them.
    pub lacking: Option<u64>,
    /// Messages that live and that no member of the cluster has.
    pub lost: u64,
    /// Files that could not be used when the process started.
    pub damaged_files: u64,
    /// Bytes that the files of the data directory take on their disk.
    pub used_bytes: u64,
    /// Bytes free on that disk.
    pub free_bytes: u64,
    /// Its size.
    pub disk_bytes: u64,
    /// Messages held, in any state, counted about once a second; `None` while the node replays its log.
    pub messages: Option<u64>,
    /// Their bytes.
    pub message_bytes: Option<u64>,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// Processor time that it has used, user and system, in milliseconds.
    pub cpu_ms: u64,
    /// Records of the log that do not verify and are needed.
    pub log_holes: u64,
    /// Damaged places that were put back since the process started.
    pub repairs: u64,
    /// Bytes that the scrub has read since then.
    pub scrubbed_bytes: u64,
    /// Times that it has read everything.
    pub scrub_passes: u64,
    /// Damaged places that it met.
    pub scrub_damaged: u64,
}
