//! Places files and kept files: which messages stand where, on disk and not in memory.
//!
//! A *places file* says which messages stand in one segment of the log; a *kept file* holds bodies that outlived their
//! segment, and says which they are. Both are written once, from beginning to end, and never change
//! ([`PlacesWriter`]); both are read by binary search over a directory of pages ([`Places`]). Of an open file memory
//! holds 48 bytes a topic and 32 bytes a page of 63 blocks; pages are read when they are asked for, through one
//! [`PageCache`] that all files share and that is bounded in bytes. [`Merge`] makes one file of several, and a
//! [`PlacesMap`] says which of them may hold a message and which pages are due.
//!
//! The form is [`crate::format::places`]. Which files count is the manifest's to say: a file that it does not name is a
//! leftover, so a crash while one is written leaves nothing that anybody opens.
//!
//! Every open file holds a descriptor, as segments do: it must stay readable after its name is gone, so it cannot be opened
//! again by name. There is one places file a segment; the node raises its limit of descriptors to the hard one.

mod blocks;
mod cache;
mod map;
mod merge;
mod reader;
mod writer;

pub use crate::format::places::{Block, PlacesKind, Spot, TopicPlaces};
pub use blocks::Blocks;
pub use cache::PageCache;
pub use map::{DroppedTopic, DuePage, Filed, PlacesMap, Stepped};
pub use merge::{Keep, LostBody, Merge, MergeError, Merged, Step, merge};
pub use reader::Places;
pub use writer::{PlacesWriter, Written};
