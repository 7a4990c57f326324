//! What can go wrong, one variant per different reaction.

use crate::format::{FORMAT_VERSION, Malformed};
use crate::names::RECOVERY;
use raftqueue_raft::{Index, Term};
use std::fmt;
use std::io;
use thiserror::Error;

/// What somebody has to do whose disk is damaged beyond what a node puts right itself.
const WAY_OUT_OF_DAMAGE: &str = "nothing was changed here. If a majority of the other members is well, replace this one: clear the \
     directory and start the node; it waits as a new one, whose id `raftq members list` shows beside the old one; then `raftq \
     members add NEW-ID` and `raftq members replace OLD-ID NEW-ID`. A cluster of one needs its disk back: restore the directory \
     from a backup";

/// The same where it cannot be read what a forced recovery was to do: nobody else may have what this disk has.
const WAY_OUT_OF_RECOVERY: &str = "nothing was changed here. What it says is decided and not carried out: move the file away, start \
     the node, and decide it again with `raftq recover`";

/// The name of one record that is the same on every node that has it: what a repair asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its entry checksum, over the checksums of meta and bodies.
    pub crc: u32,
}

/// Which part of a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RottenPart {
    /// The first sector of a segment.
    SegmentHead,
    /// The front of a batch.
    Frame,
    /// The second copy of identities behind a frame.
    Identities,
    /// The sealed index at the end of a segment.
    SealedIndex,
    /// The front of a record.
    RecordHeader,
    /// A record's meta.
    Meta,
    /// A record's bodies.
    Bodies,
    /// The first sector of a places file or kept file.
    Head,
    /// A page of 63 blocks there.
    Page,
    /// The table of topics there.
    Topics,
    /// The directory of pages there.
    Directory,
    /// The end of the file, which says where its parts are.
    Tail,
    /// A body in a kept file.
    KeptBody,
}

/// One damaged place in what was once acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotten {
    /// The file.
    pub file: String,
    /// Where the damaged part begins.
    pub offset: u64,
    /// Which part it is.
    pub part: RottenPart,
    /// The record that it belongs to, if either copy of the name can still be read.
    pub record: Option<RecordName>,
}

impl fmt::Display for Rotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {:?}", self.file, self.offset, self.part)?;
        match self.record {
            Some(name) => write!(f, " of index {} term {} crc {:08x}", name.index, name.term, name.crc),
            None => Ok(()),
        }
    }
}

struct List<'a>(&'a [Rotten]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, rotten) in self.0.iter().enumerate() {
            write!(f, "{}{rotten}", if position == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

struct Oldest(Option<u64>);

impl fmt::Display for Oldest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(found) => write!(f, "the oldest one here is segment {found}"),
            None => f.write_str("there is no segment here"),
        }
    }
}

/// Why a data directory or its log cannot be opened. The node says so and ends, unless a variant says otherwise.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The lock is held.
    #[error("another process uses this directory")]
    AnotherProcess,
    /// A disk of another node is mounted here: the operator of the cluster must look.
    #[error(
        "the directory belongs to node {found:?}, and this node is {expected:?}: mount its own disk there, or a blank one"
    )]
    OtherNode {
        /// The name in `IDENTITY`.
        found: String,
        /// The name that the node was started with.
        expected: String,
    },
    /// A newer build wrote this: start that build.
    #[error("{file} has format version {found}, this build reads up to {supported}")]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// Written by a build before the first release. Nothing was changed; only an empty directory helps.
    #[error(
        "{file} was written by a build before the first release, which no release can read: start with an empty folder"
    )]
    Unreleased {
        /// The file.
        file: String,
    },
    /// The directory was never formatted; [`crate::DataDir::format`] does it.
    #[error("the directory has no identity")]
    NotFormatted,
    /// There is a log but no `IDENTITY`: a damaged disk, never formatted over.
    #[error("the directory has a log ({file}) but no IDENTITY")]
    IdentityMissing {
        /// A file of the log.
        file: String,
    },
    /// A file cannot be read that is only ever replaced or synced as a whole: the disk is damaged.
    #[error("{file} is damaged at {offset}: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// How.
        reason: Malformed,
    },
    /// The oldest segment of the log is not there.
    #[error("the log begins with segment {first}, as MANIFEST says, but {}", Oldest(*found))]
    FirstSegmentMissing {
        /// The segment that `MANIFEST` names.
        first: u64,
        /// The oldest one that is there, if there is any.
        found: Option<u64>,
    },
    /// A segment between two others is not there.
    #[error(
        "segment {found} names segment {named} as the one before it, but that is segment {expected} here"
    )]
    BrokenChain {
        /// The segment whose head was read.
        found: u64,
        /// The predecessor that it names.
        named: u64,
        /// The segment that stands before it.
        expected: u64,
    },
    /// There are files that only a `MANIFEST` could name, and there is none: a damaged disk. Nothing was removed.
    #[error("the directory has {file} but no MANIFEST")]
    ManifestMissing {
        /// Such a file.
        file: String,
    },
    /// The log does not reach from one snapshot to the other: entries between them are lost.
    #[error(
        "the log goes on behind index {start} and ends with index {last}, which does not fit the snapshots at {snapshots:?}"
    )]
    SnapshotsApart {
        /// The last index before the first entry that is there.
        start: Index,
        /// The last index.
        last: Index,
        /// What the snapshots cover, the older one first.
        snapshots: Vec<Index>,
    },
    /// No snapshot can be read, the log does not reach back to its beginning, and nobody else could have what came before. Nothing
    /// was changed.
    #[error(
        "no snapshot can be read, and the log begins only behind index {start}: {why}; there is no other node that could have \
         what came before"
    )]
    StateLost {
        /// The last index before the first entry that is there.
        start: Index,
        /// What is wrong with each snapshot.
        why: String,
    },
    /// An index goes back, or ahead, without a truncation that says so.
    #[error("{file} at {offset}: index {found} where {expected} must follow")]
    IndexOrder {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// The index found.
        found: Index,
        /// The index that had to come.
        expected: Index,
    },
    /// What was once acknowledged does not verify. Nothing is truncated and nothing was changed.
    #[error("rot in what was acknowledged: {}", List(places))]
    Rot {
        /// Every damaged place.
        places: Vec<Rotten>,
    },
    /// The disk refused a call.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

impl OpenError {
    /// What somebody has to do, and what to type, where that is more than the text says; `None` where the disk only refused a call,
    /// or the text is all that there is to know.
    #[must_use]
    pub fn way_out(&self) -> Option<&'static str> {
        match self {
            Self::AnotherProcess
            | Self::OtherNode { .. }
            | Self::Unreleased { .. }
            | Self::NotFormatted
            | Self::Io { .. } => None,
            Self::StateLost { .. } => Some("nothing was changed here. Restore the directory from a backup"),
            Self::Newer { .. } => {
                Some("nothing was changed here. Start the build that wrote it, or a later one")
            }
            Self::Damaged { file, .. } if file == RECOVERY => Some(WAY_OUT_OF_RECOVERY),
            Self::IdentityMissing { .. }
            | Self::Damaged { .. }
            | Self::FirstSegmentMissing { .. }
            | Self::BrokenChain { .. }
            | Self::ManifestMissing { .. }
            | Self::SnapshotsApart { .. }
            | Self::IndexOrder { .. }
            | Self::Rot { .. } => Some(WAY_OUT_OF_DAMAGE),
        }
    }
}

/// Why an append (or any other call of the writer) did not succeed.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The disk is full. Nothing of the batch counts; the same call may be made again.
    #[error("no space left to {operation}")]
    NoSpace {
        /// What was tried.
        operation: &'static str,
    },
    /// The disk failed just now. The log is poisoned: what of the batch is durable is unknown, and the process must end.
    #[error("cannot {operation}: {source}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk failed earlier. The process must end.
    #[error("the log is closed: earlier it could not {operation}")]
    Poisoned {
        /// What was tried then.
        operation: &'static str,
    },
    /// Neither slot of `HARDSTATE` could be read when the log was opened. This node may have promised what it no longer
    /// knows, and must be replaced.
    #[error("the hard state is lost: this node must be replaced")]
    HardStateLost,
}

/// Why entries cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The entry was released, since a snapshot covers it.
    #[error("index {asked} was released, the log begins at {first}")]
    Released {
        /// The index asked for.
        asked: Index,
        /// The first one that is there.
        first: Index,
    },
    /// Not durable yet, or truncated.
    #[error("index {asked} is beyond the last durable index {last}")]
    Beyond {
        /// The index asked for.
        asked: Index,
        /// The last durable one.
        last: Index,
    },
    /// The range is not inside the bodies of the entry.
    #[error("bytes {offset}..{end} of index {index}, whose bodies are {size} bytes")]
    OutOfBodies {
        /// The entry.
        index: Index,
        /// First byte asked for.
        offset: u64,
        /// End of the bytes asked for.
        end: u64,
        /// Bytes that there are.
        size: u64,
    },
    /// The bytes are damaged: never served. A peer that holds exactly this record can repair it.
    #[error("rot: {0}")]
    Rot(Rotten),
    /// The checksums hold, but the form is unknown: a newer build wrote it.
    #[error("index {index}: {reason}")]
    Unknown {
        /// The entry.
        index: Index,
        /// How.
        reason: Malformed,
    },
    /// The disk refused to read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl ReadError {
    /// True if the entry is there and the disk does not give it back: it rots, or reading fails.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        matches!(self, Self::Rot(_) | Self::Io { .. })
    }
}

/// Why the identity was not changed.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is an identity already. It is never formatted over, damaged or not.
    #[error("the directory belongs to node {name:?}")]
    AlreadyFormatted {
        /// Its name.
        name: String,
    },
    /// There is no identity yet.
    #[error("the directory has no identity")]
    NotFormatted,
    /// Bound to another formation, or to this one with another seed or other members.
    #[error("bound to formation {bound:032x}, not {asked:032x}")]
    BoundElsewhere {
        /// The formation that the node is bound to.
        bound: u128,
        /// The one asked for.
        asked: u128,
    },
    /// The log holds entries: the node is a member of its cluster for good.
    #[error("the log holds entries")]
    HasLog,
    /// A forced recovery of another node, of another generation, or not of one node alone.
    #[error("this recovery is not one of this node as it is")]
    NoSuchRecovery,
    /// The log cannot be judged.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The disk refused; the old identity or the new one stands, and the process must end.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

/// Adds the operation to an error of the disk.
pub(crate) fn io_error(operation: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { operation, source }
}

/// What a decoder's complaint means for the whole directory.
pub(crate) fn malformed(file: &str, offset: u64, reason: Malformed) -> OpenError {
    match reason {
        Malformed::Newer { found } => {
            OpenError::Newer { file: file.to_owned(), found, supported: FORMAT_VERSION }
        }
        Malformed::Unreleased => OpenError::Unreleased { file: file.to_owned() },
        reason => OpenError::Damaged { file: file.to_owned(), offset, reason },
    }
}
