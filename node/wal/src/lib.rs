//! The log on disk: segments, hard state, identity, recovery.
//!
//! [`DataDir`] is a node's data directory: it keeps other processes out and says who the node is. [`DataDir::open_log`]
//! recovers the log and gives a [`Wal`], the one writer, and what was found ([`Recovered`]). A [`Reader`] reads entries
//! back on any thread while the writer appends. [`Places`] says which messages stand where in segments that are full, and
//! keeps bodies whose segments are gone.
//!
//! The promises, each kept by the module named:
//! - what [`Wal::append`] acknowledged survives a power cut: one vectored write and one sync a batch (`wal`);
//! - bytes of an earlier life of a file never verify: every use of a segment has a random salt (`format::segment`);
//! - a torn batch is cut whole, and what was acknowledged is never cut: damage there is rot, which is named, never served,
//!   and mended with what another node has (`scan`, `recover`, `holes`);
//! - what was read back after a crash is made durable before it is reported: the log goes on in a fresh segment, whose
//!   head names the proven end of the one before (`recover`);
//! - a forced recovery is decided by one file, and carried out by the next opening, whatever cuts it short (`forced`);
//! - a failed write or sync ends the log: every later call is refused (`wal`). A full disk does not: the batch is undone
//!   and can be tried again.
//!
//! The files of a data directory: `IDENTITY`, `HARDSTATE`, `MANIFEST`, `LOCK`, `segment-*`, `snapshot-*`, `places-*` (which
//! messages stand in a segment), `kept-*` (bodies that outlived their segments), `spare-*` (files that wait for reuse),
//! `RECOVERY` (a forced recovery that was decided and is not carried out yet), and `*.aside` (small files being replaced).
//!
//! On purpose this crate does not decide anything about the protocol (raft does), know what a command means (queue
//! does), start threads, read clocks, or make random numbers (the caller gives [`Options::entropy`]).

mod batch;
mod data_dir;
pub mod disk;
mod dump;
mod error;
mod forced;
pub mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hard_state;
mod heads;
mod holes;
mod identity;
mod log;
mod manifest;
mod manifest_file;
mod names;
mod open_files;
mod opening;
mod places;
mod random;
mod reader;
mod recover;
mod recovery;
mod recovery_file;
mod scan;
mod segment;
mod small_files;
mod snapshot;
mod spare;
mod switch;
mod wal;

#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use data_dir::DataDir;
pub use dump::{DumpSink, DumpSummary, Line, LineKind, LineValue, dump, dump_lines};
pub use error::{AppendError, IdentityError, OpenError, ReadError, RecordName, Rotten, RottenPart};
pub use heads::Heads;
pub use holes::{Doubt, Hole, MendError, Mended};
pub use identity::{Binding, Identity};
pub use manifest::{Change, FileId, KeptFile, Manifest, PlacesFile, Retired, SnapshotFile};
pub use opening::{CutBatch, DamagedFile, FileDamage, Options, Preview, Recovered};
pub use places::{
    Block, Blocks, DroppedTopic, DuePage, Filed, Keep, LostBody, Merge, MergeError, Merged, PageCache,
    Places, PlacesKind, PlacesMap, PlacesWriter, Spot, Step, Stepped, TopicPlaces, Written, merge,
};
pub use reader::{EntryMeta, MetaPayload, Pinned, Reader, SegmentSpan};
pub use recovery::Recovery;
pub use small_files::SmallFiles;
pub use snapshot::{
    SECTION_BYTES_MAX, SnapshotError, SnapshotHead, SnapshotReader, SnapshotWriter, remove_snapshot,
};
pub use switch::Switched;
pub use wal::{Place, Receipt, Wal};
