//! What opening a log asks for, and what it finds.

use crate::disk::Disk;
use crate::error::Rotten;
use crate::format::Malformed;
use crate::manifest::Manifest;
use raftqueue_raft::{Configuration, HardState, Index, Term};
use std::fmt;
use std::sync::Arc;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment file, 64 MiB by default; a multiple of 512. A batch that does not fit gets a file of its own
    /// size. May change from one start to the next.
    pub segment_bytes: u64,
    /// Randomness of this opening, out of which the salts of segments are made. Hazard: it must be fresh every time
    /// (from the operating system), or bytes of an earlier life of a file could verify.
    pub entropy: u64,
    /// How many released segment files are kept for reuse, 2 by default.
    pub spare_files_max: usize,
    /// Bytes of the disk that publishing must leave free for hard state, acks, deletes, a snapshot and a kept file;
    /// 0 by default. Kept here for [`crate::Wal::reserve_bytes`]; the log itself never refuses because of it.
    pub reserve_bytes: u64,
    /// Read every byte of every segment when opening, not only those of the last segment. Off by default: the reads
    /// that meet rot in old segments find it.
    pub verify_all: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            entropy: 0,
            spare_files_max: 2,
            reserve_bytes: 0,
            verify_all: false,
        }
    }
}

/// What is known of a log before anything on the disk is changed.
#[allow(missing_debug_implementations, reason = "a disk has none")]
pub struct Preview<'a> {
    /// Where it stands.
    pub disk: &'a dyn Disk,
    /// The live files.
    pub manifest: &'a Manifest,
    /// The last index before the first entry that is there.
    pub start: Index,
    /// The members that the log names last, or that it will name by a forced recovery that is decided; `None` if it names none
    /// that can be read.
    pub configuration: Option<&'a Configuration>,
}

/// What was found, and is durable by the time it is reported.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The hard state; `None` if neither slot of `HARDSTATE` can be read. The node may then have promised what it no
    /// longer knows, so it neither votes nor counts, and every append is refused.
    pub hard_state: Option<HardState>,
    /// The greatest hard state that stands in a frame: all that is known of it where [`Recovered::hard_state`] is lost.
    pub framed: HardState,
    /// The last index before the first entry that is there, and its term: what a snapshot covers.
    pub start: (Index, Term),
    /// The last index; that of `start` if there are no entries.
    pub last_index: Index,
    /// The term of the entry there.
    pub last_term: Term,
    /// The terms of all entries: each with the first index of its run.
    pub term_runs: Vec<(Index, Term)>,
    /// Every configuration in the log, in order; the last one is in force.
    pub configurations: Vec<(Index, Arc<Configuration>)>,
    /// The torn batch that was cut off, if there was one.
    pub cut: Option<CutBatch>,
    /// Damaged second copies of identities: everything they stand for is whole in its first copy.
    pub damaged_copies: Vec<Rotten>,
    /// What is damaged of the entries of the log. What they are is known, and so is their place; [`crate::Reader::mend`] puts
    /// back what another node has. Until then reads of them fail.
    pub holes: Vec<Rotten>,
    /// The live files: the older and the newer snapshot, segments that are kept for their bodies, places files, kept files.
    pub manifest: Manifest,
    /// Files of bodies and of places that are not what the manifest says. The node runs without the messages that stand
    /// there; peers have them.
    pub damaged_files: Vec<DamagedFile>,
}

impl Recovered {
    /// What the protocol's core goes on from, if its state machine begins with everything up to `applied`.
    #[must_use]
    pub fn into_core(self, hard_state: HardState, applied: Index) -> raftqueue_raft::Recovered {
        let Recovered { start, last_index, term_runs, configurations, .. } = self;
        raftqueue_raft::Recovered { hard_state, start, applied, last_index, term_runs, configurations }
    }
}

/// A file that the manifest names and that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedFile {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub damage: FileDamage,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDamage {
    /// It is not there.
    Missing,
    /// It has another length than the manifest says.
    Size {
        /// Its length in bytes.
        found: u64,
        /// What the manifest says.
        expected: u64,
    },
    /// Its head does not verify.
    Head(Malformed),
}

impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match self.damage {
            FileDamage::Missing => write!(f, "{file} is missing"),
            FileDamage::Size { found, expected } => {
                write!(f, "{file} has {found} bytes, MANIFEST says {expected}")
            }
            FileDamage::Head(reason) => write!(f, "{file} is damaged at 0: {reason}"),
        }
    }
}

/// A batch that was never acknowledged and did not arrive whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutBatch {
    /// The segment's file.
    pub file: String,
    /// Where it began.
    pub offset: u64,
    /// How many of its records could be found.
    pub records: usize,
}
