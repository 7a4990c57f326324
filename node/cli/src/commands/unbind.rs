//! `raftq unbind`: frees a node whose cluster was never formed.

use crate::failure::Failure;
use clap::Args;
use raftqueue_wal::DataDir;
use raftqueue_wal::disk::RealDisk;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq unbind ./raftqueue-data/node-2

While a cluster is being formed, each node binds itself to it for good. Where \
the first node's disk is lost before all are bound, the others wait for ever; \
this frees them, one by one, each while it is stopped. A node that has a log \
is refused: it may hold what was acknowledged.")]
pub(crate) struct Unbind {
    /// The data directory of a node that does not run
    directory: PathBuf,
}

impl Unbind {
    pub(super) fn run(self) -> Result<(), Failure> {
        let at =
            |error: &dyn std::error::Error| Failure::Failed(format!("{}: {error}", self.directory.display()));
        let disk = RealDisk::open_existing(&self.directory).map_err(|error| at(&error))?;
        let mut dir = DataDir::open(Arc::new(disk), None).map_err(|error| at(&error))?;
        dir.unbind().map_err(|error| at(&error))?;
        println!("{} is bound to no cluster now", self.directory.display());
        Ok(())
    }
}
