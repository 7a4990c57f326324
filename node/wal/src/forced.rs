//! A forced recovery: the node that is left of a lost quorum goes on alone, in a new generation.
//!
//! It is decided by one file, `RECOVERY`, which is there whole or not at all. From then on nothing counts but what it says: the
//! next opening of the log appends the configuration in which this node is the only voter, in a term of its own, then writes the
//! generation into IDENTITY, then takes the file away. Each step is done again after a crash, and comes to the same. So a power
//! cut leaves the node as it was, or as it is to be.
//!
//! Who may decide it, and when, is not known here.

use crate::batch::Batch;
use crate::data_dir::DataDir;
use crate::disk::{self, remove_if_there};
use crate::error::{AppendError, IdentityError, OpenError, io_error};
use crate::format::recovery::encode_recovery;
use crate::identity::Identity;
use crate::names::RECOVERY;
use crate::opening::Recovered;
use crate::recovery::Recovery;
use crate::wal::Wal;
use raftqueue_raft::{Entry, HardState, Index, Payload};
use std::io;
use std::sync::Arc;

impl DataDir {
    /// Decides a forced recovery: the next opening of the log carries it out. Until then nothing may be appended to this log,
    /// and no vote may leave: a process that goes on as the old node would contradict what the next one says.
    ///
    /// # Errors
    /// [`IdentityError::NoSuchRecovery`]: it is not one of this node, as it is. [`IdentityError::NotFormatted`],
    /// [`IdentityError::Io`], after which it is decided or not.
    pub fn decide_recovery(&mut self, recovery: &Recovery) -> Result<(), IdentityError> {
        let identity = self.identity().ok_or(IdentityError::NotFormatted)?;
        let is_alone = recovery.configuration.voters().eq([recovery.node_id])
            && recovery.configuration.peers().len() == 1;
        let fits = identity.formation_id != 0
            && identity.node_id == recovery.node_id
            && identity.generation.checked_add(1) == Some(recovery.generation)
            && recovery.last.0 > Index(0)
            && recovery.term > recovery.last.1
            && is_alone;
        if !fits {
            return Err(IdentityError::NoSuchRecovery);
        }
        disk::replace(self.disk(), RECOVERY, &encode_recovery(recovery))
            .map_err(|source| IdentityError::Io { operation: "write RECOVERY", source })
    }

    /// Carries out a recovery that was decided.
    pub(crate) fn carry_out_recovery(
        &mut self,
        recovery: &Recovery,
        wal: &mut Wal,
        recovered: &mut Recovered,
    ) -> Result<(), OpenError> {
        // What it promised and no longer knows was promised to a generation that is past.
        let hard_state = recovered.hard_state.unwrap_or(recovered.framed);
        let identity = self.identity().cloned().ok_or(OpenError::NotFormatted)?;
        let end = (recovered.last_index, recovered.last_term);
        let done = (recovery.last.0.next(), recovery.term);
        let is_begun = identity.generation == recovery.generation;
        // The hard state goes before the entry.
        let promised = HardState { term: recovery.term, vote: Some(recovery.node_id) };
        let is_as_it_was =
            end == recovery.last && (hard_state.term < recovery.term || hard_state == promised);
        let fits = recovery.node_id == identity.node_id
            && (is_begun || identity.generation.checked_add(1) == Some(recovery.generation))
            && (end == done || !is_begun && is_as_it_was);
        if fits {
            if recovered.hard_state.is_none() {
                wal.renew_hard_state(hard_state).map_err(io_error("write HARDSTATE"))?;
                recovered.hard_state = Some(hard_state);
            }
            if end != done {
                append(wal, recovered, recovery).map_err(into_open)?;
            }
            if !is_begun {
                self.write_identity(Identity { generation: recovery.generation, ..identity }).map_err(
                    |error| match error {
                        IdentityError::Io { operation, source } => OpenError::Io { operation, source },
                        _ => OpenError::NotFormatted,
                    },
                )?;
            }
        }
        // One that does not fit was overtaken by a build that does not know such a file: nobody has heard of it.
        remove_if_there(self.disk(), RECOVERY)
            .and_then(|()| self.disk().sync_dir())
            .map_err(io_error("remove RECOVERY"))
    }
}

/// Appends the entry, and says so in what was found.
fn append(wal: &mut Wal, recovered: &mut Recovered, recovery: &Recovery) -> Result<(), AppendError> {
    let payload = Payload::Config(Arc::new(recovery.configuration.clone()));
    let entry = Entry { index: recovery.last.0.next(), term: recovery.term, payload };
    let hard_state = HardState { term: recovery.term, vote: Some(recovery.node_id) };
    let entries = std::slice::from_ref(&entry);
    wal.append(&Batch { hard_state, hard_state_changed: true, truncate_from: None, entries })?;
    wal.prove()?;
    wal.upkeep()?;
    recovered.hard_state = Some(hard_state);
    recovered.last_index = entry.index;
    recovered.last_term = entry.term;
    recovered.term_runs.push((entry.index, entry.term));
    recovered.configurations.push((entry.index, Arc::new(recovery.configuration.clone())));
    Ok(())
}

fn into_open(error: AppendError) -> OpenError {
    let (operation, source) = match error {
        AppendError::NoSpace { operation } => (operation, io::ErrorKind::StorageFull.into()),
        AppendError::Failed { operation, source } => (operation, source),
        AppendError::Poisoned { operation } => (operation, io::ErrorKind::Other.into()),
        AppendError::HardStateLost => ("append without a hard state", io::ErrorKind::Other.into()),
    };
    OpenError::Io { operation, source }
}
