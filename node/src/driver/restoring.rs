//! From what the disk holds to a state to go on from: the newer snapshot, or the older one where that is damaged.
//!
//! What a node has beside the queue's state, and where it comes from after a start:
//!
//! | what | from |
//! |---|---|
//! | the queue's state, the configuration in force | the newest snapshot that can be read, and the log behind it, which is applied again |
//! | term and vote | `HARDSTATE` |
//! | log time | the state: the stamp of the last entry in it |
//! | where messages stand, and their deadlines | places files and kept files; of what is applied again, its entries |
//! | which files are looked into | the manifest: what was retired behind the snapshot in use counts again |
//! | whether messages may be lacking | the manifest; which ones is what lives and stands in no file |
//! | how much was applied since the last snapshot | nothing: an idle node takes two |
//! | open calls, long polls, what was given to readers | nothing: clients ask again, leases run out |
//! | counts of metrics | nothing |

use crate::api::codec::{self, Unreadable};
use crate::replica::Freeze;
use raftqueue_queue::StateBuilder;
use raftqueue_raft as raft;
use raftqueue_wal::disk::Disk;
use raftqueue_wal::{Manifest, OpenError, Recovered, SnapshotError, SnapshotFile, SnapshotReader};
use std::io;
use thiserror::Error;

/// Why a snapshot cannot be used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// The file is damaged, newer, or not there.
    #[error(transparent)]
    File(#[from] SnapshotError),
    /// The queue's part is damaged, or newer.
    #[error("a section of it cannot be read: {0}")]
    Section(#[from] Unreadable),
    /// Its parts contradict each other.
    #[error("its sections make no state: {0}")]
    Broken(#[from] raftqueue_queue::Broken),
}

/// The disk refuses to be read, which says nothing about what it holds.
#[derive(Debug, Error)]
#[error("{file} cannot be read now: {source}")]
pub struct ReadRefused {
    /// The snapshot.
    file: String,
    /// What the disk said.
    source: io::Error,
}

impl From<ReadRefused> for OpenError {
    fn from(refused: ReadRefused) -> Self {
        let source = io::Error::new(refused.source.kind(), refused.to_string());
        Self::Io { operation: "read a snapshot", source }
    }
}

/// What the snapshots of a node came to.
#[derive(Debug, Default)]
pub struct Restored {
    /// The state of the newest one that can be read; `None` where there never was one, and where the state is lost.
    pub freeze: Option<Freeze>,
    /// The numbers of those that cannot be read, of what was looked at.
    pub unusable: Vec<u64>,
    /// No snapshot can be read, and the log does not reach back to its beginning: nobody knows here any more what it is to
    /// be applied to. The text says what is wrong with each. Another node has it (RULES 3.5).
    pub lost: Option<String>,
}

/// The state of the newest snapshot that can be read.
///
/// # Errors
/// [`ReadRefused`]: the next start may read it.
pub fn restore(disk: &dyn Disk, recovered: &Recovered) -> Result<Restored, ReadRefused> {
    restore_from(disk, &recovered.manifest, recovered.start.0)
}

/// The same of a log that is not open yet, and begins behind `start`.
///
/// # Errors
/// As [`restore`].
pub fn restore_from(
    disk: &dyn Disk,
    manifest: &Manifest,
    start: raft::Index,
) -> Result<Restored, ReadRefused> {
    let (mut restored, mut told) = (Restored::default(), Vec::new());
    for file in manifest.snapshots.iter().rev() {
        match read(disk, file) {
            Ok(freeze) => return Ok(Restored { freeze: Some(freeze), ..restored }),
            Err(Unusable::File(SnapshotError::Io { file, source })) => {
                return Err(ReadRefused { file, source });
            }
            Err(error) => {
                tracing::error!(index = file.index.0, "a snapshot cannot be used: {error}");
                told.push(format!("{} of index {}: {error}", file.name(), file.index));
                restored.unusable.push(file.number);
            }
        }
    }
    restored.lost = (start > raft::Index(0)).then(|| told.join("; "));
    Ok(restored)
}

/// The state of one snapshot.
///
/// # Errors
/// [`Unusable`]: another one, or another node, may have it.
pub fn read(disk: &dyn Disk, file: &SnapshotFile) -> Result<Freeze, Unusable> {
    let (head, mut reader) = SnapshotReader::open(disk, file)?;
    let mut builder = StateBuilder::default();
    while let Some(section) = reader.next()? {
        builder.push(codec::read_section(head.configuration.version, &section)?)?;
    }
    Ok(Freeze {
        index: head.index,
        term: head.term,
        configuration_index: head.configuration_index,
        configuration: head.configuration,
        term_runs: head.term_runs,
        state: builder.finish()?,
    })
}

/// What the protocol goes on from.
#[must_use]
pub fn for_raft(
    hard_state: raft::HardState,
    recovered: Recovered,
    snapshot: Option<&Freeze>,
) -> raft::Recovered {
    let applied = snapshot.map_or(recovered.start.0, |freeze| freeze.index);
    let mut recovered = recovered.into_core(hard_state, applied);
    let start = recovered.start.0;
    if let Some(freeze) = snapshot
        && recovered.configurations.first().is_none_or(|(index, _)| *index > start)
    {
        // The one in force where the log begins was cut off with what came before. Everything up to the snapshot is
        // committed, so nobody asks which of those up to there was in force when: the snapshot's stands for them.
        let index = freeze.configuration_index.min(start);
        recovered.configurations.insert(0, (index, freeze.configuration.clone()));
    }
    if snapshot.is_none()
        && start > raft::Index(0)
        && recovered.configurations.first().is_none_or(|(at, _)| *at > start)
    {
        // It was lost with the snapshots. Until another node's is here nobody is a member as far as this node knows.
        recovered.configurations.insert(0, (start, std::sync::Arc::default()));
    }
    recovered
}
