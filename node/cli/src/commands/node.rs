//! `raftq node`: one node of a cluster that `raftq up` started. Hidden: people run `raftqueue-node`.

use clap::Args;
use raftqueue_node::config::NodeArgs;
use raftqueue_node::process::{self, StopWith};
use std::process::ExitCode;

/// The arguments of `raftqueue-node`.
#[derive(Args, Debug)]
pub(crate) struct Node {
    #[command(flatten)]
    node: NodeArgs,
}

impl Node {
    /// Runs the node until it is told to stop, or `raftq up` has gone: then the other end of its pipe is closed.
    pub(crate) fn run(self) -> ExitCode {
        process::main(self.node, StopWith::SignalsOrStandardInput)
    }
}
