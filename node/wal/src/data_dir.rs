//! A node's data directory: one process at a time, one identity, one log.
//!
//! Formatting writes HARDSTATE first and IDENTITY last, each durable before the next, so a directory with an identity
//! has a hard state, and a damaged one is never taken for a blank one.

use crate::disk::{self, Disk, DiskLock};
use crate::error::{IdentityError, OpenError, io_error, malformed};
use crate::format::FORMAT_VERSION;
use crate::format::small::{decode_identity, encode_identity};
use crate::hard_state::HardStateFile;
use crate::identity::{Binding, Identity};
use crate::manifest_file::MANIFEST;
use crate::names::file_number;
use crate::opening::{Options, Preview, Recovered};
use crate::recover::recover;
use crate::recovery_file::read_recovery;
use crate::segment::segment_number;
use crate::wal::Wal;
use raftqueue_raft::{HardState, NodeId};
use std::sync::{Arc, Weak};

/// The file that says who the node is.
pub(crate) const IDENTITY: &str = "IDENTITY";
const LOCK: &str = "LOCK";
/// Far more than any identity: a bound for reading one.
const SIZE_MAX_BYTES: u64 = 16 << 20;

/// The directory, held against other processes until this and every [`Wal`] opened from it are dropped.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    lock: Arc<dyn DiskLock>,
    identity: Option<Identity>,
    /// The lock that the open [`Wal`] holds: there is one writer at most.
    wal: Weak<WalLock>,
}

/// Keeps the directory's lock for a [`Wal`]; while it lives, that [`Wal`] is open.
struct WalLock {
    _lock: Arc<dyn DiskLock>,
}

impl DiskLock for WalLock {}

impl DataDir {
    /// Locks the directory and reads its identity. `name` is the name that this node was started with, if it has one.
    /// What was read is durable when this returns.
    ///
    /// # Errors
    /// [`OpenError::AnotherProcess`], [`OpenError::OtherNode`], [`OpenError::Newer`], [`OpenError::Damaged`],
    /// [`OpenError::IdentityMissing`]: the operator of the cluster must look; nothing was changed.
    pub fn open(disk: Arc<dyn Disk>, name: Option<&str>) -> Result<DataDir, OpenError> {
        let lock =
            disk.lock(LOCK).map_err(io_error("lock the directory"))?.ok_or(OpenError::AnotherProcess)?;
        // The last process may have given a name that is in the cache only.
        disk.sync_dir().map_err(io_error("sync the directory"))?;
        let identity = read_identity(&*disk)?;
        match (&identity, name) {
            (Some(identity), Some(expected)) if identity.name != expected => {
                let (found, expected) = (identity.name.clone(), expected.to_owned());
                return Err(OpenError::OtherNode { found, expected });
            }
            (None, _) => {
                let names = disk.list().map_err(io_error("list the directory"))?;
                let is_of_log =
                    |name: &String| name == MANIFEST || segment_number(name).or(file_number(name)).is_some();
                if let Some(file) = names.into_iter().find(is_of_log) {
                    return Err(OpenError::IdentityMissing { file });
                }
                // Left by a formatting that did not come to its end, or by a build whose data must not be written over.
                HardStateFile::read(&*disk)?;
            }
            _ => {}
        }
        Ok(DataDir { disk, lock: Arc::from(lock), identity, wal: Weak::new() })
    }

    /// Who the node is; `None` in a blank directory.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// True if there is an identity and neither slot of HARDSTATE can be read: a damaged disk. It is never formatted
    /// over; the node asks to be replaced.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn is_hard_state_lost(&self) -> Result<bool, OpenError> {
        Ok(self.identity.is_some() && HardStateFile::read(&*self.disk)?.is_none())
    }

    /// Makes a blank directory the directory of node `node_id`, which the caller minted at random.
    ///
    /// # Errors
    /// [`IdentityError::AlreadyFormatted`]; [`IdentityError::Io`], after which the directory is blank or formatted.
    ///
    /// # Panics
    /// If the id is 0.
    pub fn format(&mut self, node_id: NodeId, name: &str) -> Result<(), IdentityError> {
        assert!(node_id != NodeId(0), "0 is no node id");
        if let Some(identity) = &self.identity {
            return Err(IdentityError::AlreadyFormatted { name: identity.name.clone() });
        }
        HardStateFile::create(&*self.disk, HardState::default())
            .map_err(|source| IdentityError::Io { operation: "write HARDSTATE", source })?;
        self.write_identity(Identity {
            formation_id: 0,
            generation: 0,
            node_id,
            name: name.to_owned(),
            binding: None,
            format_version: FORMAT_VERSION,
        })
    }

    /// Binds the node durably to a formation. Only after that may it answer the seed. Binding again to the same one
    /// succeeds (ids of members may have become known).
    ///
    /// # Errors
    /// [`IdentityError::BoundElsewhere`]: refuse the seed. [`IdentityError::NotFormatted`], [`IdentityError::Io`].
    ///
    /// # Panics
    /// If the formation id is 0.
    pub fn bind(&mut self, formation_id: u128, binding: Binding) -> Result<(), IdentityError> {
        assert!(formation_id != 0, "0 is no formation id");
        let identity = self.identity.clone().ok_or(IdentityError::NotFormatted)?;
        if identity.binding.is_none() && identity.formation_id != 0 {
            return Err(IdentityError::BoundElsewhere { bound: identity.formation_id, asked: formation_id });
        }
        if let Some(bound) = &identity.binding {
            if identity.formation_id != formation_id || !bound.agrees_with(&binding) {
                return Err(IdentityError::BoundElsewhere {
                    bound: identity.formation_id,
                    asked: formation_id,
                });
            }
            if *bound == binding {
                return Ok(());
            }
        }
        self.write_identity(Identity { formation_id, binding: Some(binding), ..identity })
    }

    /// Makes a node that is bound to nothing one of a cluster that exists: it was added there. Again to the same one succeeds,
    /// and to a later generation of it as long as it has no entry.
    ///
    /// # Errors
    /// [`IdentityError::BoundElsewhere`], [`IdentityError::NotFormatted`], [`IdentityError::Io`]; [`IdentityError::HasLog`] if it
    /// has entries of an older generation.
    ///
    /// # Panics
    /// If the cluster id is 0.
    pub fn join(&mut self, cluster_id: u128, generation: u32) -> Result<(), IdentityError> {
        assert!(cluster_id != 0, "0 is no cluster id");
        let identity = self.identity.clone().ok_or(IdentityError::NotFormatted)?;
        match (identity.formation_id, &identity.binding) {
            (0, None) => self.write_identity(Identity { formation_id: cluster_id, generation, ..identity }),
            // It was added before a forced recovery, and none of its log ever came.
            (own, None) if own == cluster_id && generation > identity.generation => {
                self.check_no_entries()?;
                self.write_identity(Identity { generation, ..identity })
            }
            (own, None) if own == cluster_id => Ok(()),
            (bound, _) => Err(IdentityError::BoundElsewhere { bound, asked: cluster_id }),
        }
    }

    /// Takes the binding back, so that the node can be part of another formation. The node id stays.
    ///
    /// # Errors
    /// [`IdentityError::HasLog`] once the log holds an entry; [`IdentityError::NotFormatted`], [`IdentityError::Io`].
    pub fn unbind(&mut self) -> Result<(), IdentityError> {
        let identity = self.identity.clone().ok_or(IdentityError::NotFormatted)?;
        self.check_no_entries()?;
        self.write_identity(Identity { formation_id: 0, binding: None, ..identity })
    }

    /// Makes a node without a log, bound or not, a new unbound node: the id is new, the name stays.
    ///
    /// # Errors
    /// As [`DataDir::unbind`].
    ///
    /// # Panics
    /// If the id is 0.
    pub fn reformat(&mut self, node_id: NodeId) -> Result<(), IdentityError> {
        assert!(node_id != NodeId(0), "0 is no node id");
        let identity = self.identity.clone().ok_or(IdentityError::NotFormatted)?;
        self.check_no_entries()?;
        self.write_identity(Identity { formation_id: 0, binding: None, node_id, ..identity })
    }

    /// Recovers the log (or makes an empty one) and gives its writer. Everything in [`Recovered`] is durable. A forced recovery
    /// that was decided is carried out.
    ///
    /// # Errors
    /// [`OpenError::Rot`] if it is not known any more which records there were: it names every such place and changes
    /// nothing. The others as they say. Records that are damaged and known are no error, see [`Recovered::holes`].
    ///
    /// # Panics
    /// If a [`Wal`] of this directory is still open, or the segment size is no multiple of 512 or below 4 KiB.
    pub fn open_log(&mut self, options: Options) -> Result<(Wal, Recovered), OpenError> {
        self.open_log_if(options, |_| Ok(()))
    }

    /// The same, unless `judge` refuses what there is. Then nothing was changed.
    ///
    /// # Errors
    /// As [`DataDir::open_log`], and what `judge` says.
    ///
    /// # Panics
    /// As [`DataDir::open_log`].
    pub fn open_log_if(
        &mut self,
        options: Options,
        judge: impl FnOnce(&Preview<'_>) -> Result<(), OpenError>,
    ) -> Result<(Wal, Recovered), OpenError> {
        assert!(self.wal.strong_count() == 0, "there is one writer");
        let is_sane =
            options.segment_bytes >= 4096 && options.segment_bytes.is_multiple_of(disk::SECTOR_BYTES);
        assert!(is_sane, "segments of {} bytes", options.segment_bytes);
        if self.identity.is_none() {
            return Err(OpenError::NotFormatted);
        }
        let recovery = read_recovery(self.disk())?;
        let opened = recover(&self.disk, &options, recovery.as_ref(), judge)?;
        let lock = Arc::new(WalLock { _lock: Arc::clone(&self.lock) });
        self.wal = Arc::downgrade(&lock);
        let (mut wal, mut recovered) = Wal::new(Arc::clone(&self.disk), options, lock, opened);
        if let Some(recovery) = recovery {
            self.carry_out_recovery(&recovery, &mut wal, &mut recovered)?;
        }
        Ok((wal, recovered))
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn write_identity(&mut self, identity: Identity) -> Result<(), IdentityError> {
        disk::replace(&*self.disk, IDENTITY, &encode_identity(&identity))
            .map_err(|source| IdentityError::Io { operation: "write IDENTITY", source })?;
        self.identity = Some(identity);
        Ok(())
    }

    fn check_no_entries(&self) -> Result<(), IdentityError> {
        if crate::recover::holds_entries(&self.disk)? { Err(IdentityError::HasLog) } else { Ok(()) }
    }
}

/// Reads `IDENTITY`; `None` if there is none.
pub(crate) fn read_identity(disk: &dyn Disk) -> Result<Option<Identity>, OpenError> {
    match disk::read_small(disk, IDENTITY, SIZE_MAX_BYTES).map_err(io_error("read IDENTITY"))? {
        None => Ok(None),
        Some(bytes) => decode_identity(&bytes).map(Some).map_err(|reason| malformed(IDENTITY, 0, reason)),
    }
}
