//! `raftq wal`: a node's log on disk, looked at from outside.

use crate::failure::Failure;
use clap::{Args, Subcommand};
use raftqueue_wal::disk::RealDisk;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum WalCommand {
    /// Print all that a data directory holds, and where it is damaged; changes nothing
    #[command(after_help = "\
Examples:
  raftq wal dump ./raftqueue-data/127.0.0.1-7420
  raftq wal dump /var/lib/raftqueue | grep DAMAGED

The node may run meanwhile. Exit code 1 says that something is damaged.")]
    Dump(Dump),
}

#[derive(Args)]
pub(crate) struct Dump {
    /// The data directory of a node
    directory: PathBuf,
}

impl WalCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let WalCommand::Dump(Dump { directory }) = self;
        let at = |error: std::io::Error| Failure::from(error).within(directory.display());
        let disk = RealDisk::open_existing(&directory).map_err(at)?;
        let mut out = BufWriter::new(stdout().lock());
        let summary = raftqueue_wal::dump(&disk, &mut out).map_err(at)?;
        out.flush()?;
        match summary.damaged {
            0 => Ok(()),
            damaged => Err(Failure::Failed(format!("{damaged} damaged places"))),
        }
    }
}
