//! `raftqueue-node`: one node of a RaftQueue cluster.

use clap::Parser;
use raftqueue_node::process::{self, StopWith};
use std::process::ExitCode;

/// One node of a RaftQueue cluster: a replicated message queue that acknowledges only what a majority has on disk.
#[derive(Parser)]
#[command(name = "raftqueue-node", version, after_help = process::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    node: raftqueue_node::config::NodeArgs,
}

fn main() -> ExitCode {
    process::main(Cli::parse().node, StopWith::Signals)
}
