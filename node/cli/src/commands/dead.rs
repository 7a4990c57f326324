//! `raftq dead`: messages that were given up, and kept.

use super::{Target, confirm, peek};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::counted;
use clap::{Args, Subcommand};
use raftqueue_client::{Client, v1};
use serde_json::json;

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// Show dead messages, with the reason
    #[command(after_help = "\
Examples:
  raftq dead list orders
  raftq dead list orders -n 1000 -o json | jq -r '[.offset, .dead_reason] | @tsv'")]
    List(List),
    /// Make dead messages ready again, with no attempts counted
    #[command(after_help = "\
Examples:
  raftq dead redrive orders 17 18
  raftq dead redrive orders --all")]
    Redrive(Chosen),
    /// Drop dead messages
    #[command(after_help = "\
Examples:
  raftq dead purge orders 17 18
  raftq dead purge orders --all --yes")]
    Purge(Purge),
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    window: peek::Window,
}

/// Some dead messages, or all.
#[derive(Args)]
pub(crate) struct Chosen {
    #[command(flatten)]
    target: Target,
    /// Offsets of dead messages
    #[arg(required_unless_present = "all")]
    offsets: Vec<u64>,
    /// All dead messages
    #[arg(long, conflicts_with = "offsets")]
    all: bool,
}

#[derive(Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl DeadCommand {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            DeadCommand::List(List { target, window }) => {
                peek::show(&target, &window, v1::MessageState::Dead, client, output).await
            }
            DeadCommand::Redrive(Chosen { target, offsets, all: _ }) => {
                let Target { topic, subscription } = target;
                let request = v1::RedriveDeadRequest { topic, subscription, offsets };
                let count = client.redrive_dead(request).await?.count;
                output.say(&format!("redriven: {}", counted(count, "message")), &json!({"count": count}))
            }
            DeadCommand::Purge(Purge { chosen, yes }) => {
                let Chosen { target: Target { topic, subscription }, offsets, all: _ } = chosen;
                confirm(yes, &format!("This drops dead messages of {topic}."))?;
                let request = v1::PurgeDeadRequest { topic, subscription, offsets };
                let count = client.purge_dead(request).await?.count;
                output.say(&format!("dropped: {}", counted(count, "dead message")), &json!({"count": count}))
            }
        }
    }
}
