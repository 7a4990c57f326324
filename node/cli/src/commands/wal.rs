//! `raftq wal`: a node's log on disk, looked at from outside.

mod printing;

use crate::failure::Failure;
use crate::output::{Format, Output};
use clap::{Args, Subcommand};
use printing::{Chosen, Printing};
use raftqueue_wal::disk::RealDisk;
use std::fs;
use std::io::{self, BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

/// What a node's data directory has, whatever else is damaged or missing: one of these.
const OF_A_NODE: [&str; 3] = ["IDENTITY", "HARDSTATE", "MANIFEST"];

#[derive(Subcommand)]
pub(crate) enum WalCommand {
    /// Print all that a data directory holds, and where it is damaged; changes nothing
    #[command(after_help = "\
Examples:
  raftq wal dump ./raftqueue-data/node-0 --summary
  raftq wal dump ./raftqueue-data/node-0 --from 1200 --limit 20
  raftq wal dump /var/lib/raftqueue | grep DAMAGED
  raftq wal dump /var/lib/raftqueue -o json | jq 'select(.kind == \"record\")'

The node may run meanwhile. Exit code 1 says that something is damaged: all is \
read and checked, also what --summary, --from and --limit leave out, and damage \
is always shown.")]
    Dump(Dump),
}

#[derive(Args)]
pub(crate) struct Dump {
    /// The data directory of a node
    directory: PathBuf,
    /// Files with their sums, and no batches, records, pages or blocks
    #[arg(long, conflicts_with_all = ["from", "limit"])]
    summary: bool,
    /// Records from this index on, with their batches
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// At most so many records
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u64>,
}

impl WalCommand {
    pub(super) fn run(self, output: &Output) -> Result<(), Failure> {
        let WalCommand::Dump(Dump { directory, summary, from, limit }) = self;
        let at = |error: io::Error| Failure::from(error).within(directory.display());
        let disk = RealDisk::open_existing(&directory).map_err(at)?;
        is_of_a_node(&directory)?;
        let mut out = BufWriter::new(stdout().lock());
        let chosen = Chosen { is_summary: summary, from, limit };
        let mut printing = Printing::new(&mut out, chosen, output.format == Format::Json);
        let summary = raftqueue_wal::dump_lines(&disk, &mut printing).map_err(at)?;
        let hidden = printing.records_hidden();
        out.flush()?;
        if let Some(next) = hidden {
            eprintln!("there are more records: --from {next} shows them");
        }
        match summary.damaged {
            0 => Ok(()),
            1 => Err(Failure::Failed("1 damaged place".into())),
            damaged => Err(Failure::Failed(format!("{damaged} damaged places"))),
        }
    }
}

/// Refuses a directory that is no node's, and says which ones in it are.
fn is_of_a_node(directory: &Path) -> Result<(), Failure> {
    let has = |directory: &Path, name: &str| directory.join(name).exists();
    let is_node = |directory: &Path| OF_A_NODE.iter().any(|name| has(directory, name));
    let mut nodes = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Segments alone are worth a look, too.
        if name.starts_with("segment-") {
            return Ok(());
        }
        if path.is_dir() && is_node(&path) {
            nodes.push(path.display().to_string());
        }
    }
    if is_node(directory) {
        return Ok(());
    }
    nodes.sort();
    let hint = match nodes.as_slice() {
        [] => String::new(),
        [node] => format!(": did you mean {node}?"),
        nodes => format!(": it holds those of several nodes, take one of {}", nodes.join(", ")),
    };
    Err(Failure::Failed(format!(
        "{} is not the data directory of a node: it has no IDENTITY, no HARDSTATE, no MANIFEST and no \
         segments{hint}",
        directory.display()
    )))
}
