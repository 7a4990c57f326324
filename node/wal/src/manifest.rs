//! The list of the files that live. It changes only as a whole.

use crate::names::{KEPT, PLACES, SNAPSHOT, numbered};
use raftqueue_raft::{Index, Term};
use std::collections::BTreeSet;

/// How many snapshots are kept.
pub(crate) const SNAPSHOTS_MAX: usize = 2;

/// The content of `MANIFEST`. What it does not name is a leftover of something that a crash cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The oldest segment of the log. It and all later ones are the log, each naming the one before.
    pub first_segment: u64,
    /// Above the number of every snapshot, places file and kept file so far.
    pub next_file: u64,
    /// Segments that are no longer part of the log and kept for their bodies, rising.
    pub released: Vec<u64>,
    /// Which messages stand in a segment; at most one for each, by rising segments.
    pub places: Vec<PlacesFile>,
    /// Files that keep bodies of segments that are gone.
    pub kept: Vec<KeptFile>,
    /// The older and the newer snapshot of the queue's state, or the only one, or none.
    pub snapshots: Vec<SnapshotFile>,
    /// Files that nothing looks into any more once the older snapshot covers that.
    pub retired: Vec<Retired>,
    /// Another node's snapshot was taken over, and messages that live may be lacking here.
    pub is_incomplete: bool,
}

/// One snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Checksum of its head.
    pub crc: u32,
    /// The last entry that it covers.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
}

impl SnapshotFile {
    /// Its name in the data directory.
    #[must_use]
    pub fn name(&self) -> String {
        numbered(SNAPSHOT, self.number)
    }
}

/// The list of the messages that stand in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacesFile {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Checksum of its end.
    pub crc: u32,
    /// The segment.
    pub segment: u64,
    /// Every entry of the segment up to here is in it.
    pub to: Index,
    /// How many messages it names. With none the segment need not be kept for its bodies.
    pub messages: u64,
}

/// One file of bodies that outlived their segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Checksum of its end.
    pub crc: u32,
    /// Its messages were live as of the snapshot at this index.
    pub since: Index,
}

/// A file that holds bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileId {
    /// The segment of this number.
    Segment(u64),
    /// The kept file of this number.
    Kept(u64),
}

/// A file whose live bodies stand elsewhere, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The file.
    pub file: FileId,
    /// From the snapshot at this index on nothing looks into it.
    pub at: Index,
}

/// A change of the set of live files. The files that it names are on the disk already, synced, and so is the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The newest snapshot. The former newest becomes the older one, and the former older one goes.
    pub snapshot: Option<SnapshotFile>,
    /// Each replaces the one of the same segment.
    pub places: Vec<PlacesFile>,
    /// New kept files.
    pub kept: Vec<KeptFile>,
    /// Files to retire.
    pub retire: Vec<Retired>,
    /// An install: the log is emptied and begins again behind the snapshot of this change, at this index and term.
    pub reset: Option<(Index, Term)>,
    /// From here on living messages may be lacking. With `reset` that is so anyway.
    pub incomplete: bool,
    /// No living message is lacking any more.
    pub complete: bool,
}

impl Manifest {
    /// The places file of a segment, if there is one.
    #[must_use]
    pub fn places_of(&self, segment: u64) -> Option<&PlacesFile> {
        self.places.binary_search_by_key(&segment, |file| file.segment).ok().map(|at| &self.places[at])
    }

    /// The names of all files that it names, segments left out.
    #[must_use]
    pub fn file_names(&self) -> BTreeSet<String> {
        let places = self.places.iter().map(|file| numbered(PLACES, file.number));
        let kept = self.kept.iter().map(|file| numbered(KEPT, file.number));
        let snapshots = self.snapshots.iter().map(|file| numbered(SNAPSHOT, file.number));
        places.chain(kept).chain(snapshots).collect()
    }

    /// True if a snapshot, places file or kept file of this number is named.
    pub(crate) fn names_file(&self, number: u64) -> bool {
        self.snapshots.iter().any(|file| file.number == number)
            || self.places.iter().any(|file| file.number == number)
            || self.kept.iter().any(|file| file.number == number)
    }

    /// True if a segment of this number is part of the log or kept for its bodies, if there is one.
    pub(crate) fn counts_segment(&self, number: u64) -> bool {
        number >= self.first_segment || self.released.binary_search(&number).is_ok()
    }
}

impl Default for Manifest {
    fn default() -> Manifest {
        Manifest {
            first_segment: 1,
            next_file: 1,
            released: Vec::new(),
            places: Vec::new(),
            kept: Vec::new(),
            snapshots: Vec::new(),
            retired: Vec::new(),
            is_incomplete: false,
        }
    }
}
