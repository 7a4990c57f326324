//! `raftq dead`: messages that were given up, and kept.

use super::deliveries::Which;
use super::{Target, confirm, peek};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::counted;
use clap::{Args, Subcommand};
use raftqueue_client::{Client, v1};
use serde_json::json;

/// Offsets of one call.
const CALL_OFFSETS_MAX: usize = 1_000;

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// Show dead messages, with the reason
    #[command(after_help = "\
Examples:
  raftq dead list orders
  raftq dead list orders --reason timeout
  raftq dead list orders -n 1000 | cut -f1 | xargs raftq dead redrive orders

Piped, a line has offset, attempts, time, reason and body, with tabs between.")]
    List(List),
    /// Make dead messages ready again, with no attempts counted
    #[command(after_help = "\
Examples:
  raftq dead redrive orders 17 18
  raftq dead redrive orders -n 10
  raftq dead redrive orders --reason 'exit code 7'
  raftq dead redrive orders --all

With -n or --reason the messages are looked up first, the oldest before the others, \
and then redriven by their offsets. What dies meanwhile is left alone.")]
    Redrive(Chosen),
    /// Drop dead messages
    #[command(after_help = "\
Examples:
  raftq dead purge orders 17 18
  raftq dead purge orders --reason expired --yes
  raftq dead purge orders --all --yes")]
    Purge(Purge),
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    window: peek::Window,
    /// Only those with this text in their reason
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Some dead messages, or all.
#[derive(Args)]
pub(crate) struct Chosen {
    #[command(flatten)]
    pub(super) target: Target,
    /// Offsets of dead messages, as `raftq dead list` shows them
    #[arg(required_unless_present_any = ["all", "number", "reason"], conflicts_with_all = ["all", "number", "reason"])]
    offsets: Vec<u64>,
    /// All dead messages
    #[arg(long, conflicts_with_all = ["number", "reason"])]
    all: bool,
    /// Only so many, the oldest ones
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    number: Option<u64>,
    /// Only those with this text in their reason
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
}

#[derive(Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(super) chosen: Chosen,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Chosen {
    /// The calls that name all that is chosen, by their offsets. None of them names none: that would mean all.
    async fn offsets(&self, client: &Client) -> Result<Vec<Vec<u64>>, Failure> {
        if self.all {
            return Ok(vec![Vec::new()]);
        }
        let mut offsets = self.offsets.clone();
        if offsets.is_empty() {
            offsets = self.looked_up(client).await?;
        }
        Ok(offsets.chunks(CALL_OFFSETS_MAX).map(<[u64]>::to_vec).collect())
    }

    /// Offsets of dead messages with that reason, oldest first.
    async fn looked_up(&self, client: &Client) -> Result<Vec<u64>, Failure> {
        let number = self.number.unwrap_or(u64::MAX);
        let reason = self.reason.as_deref().unwrap_or_default();
        let mut pages = peek::Pages::from(client, &self.target, Which::Dead, 0);
        let mut offsets: Vec<u64> = Vec::new();
        while (offsets.len() as u64) < number {
            let page = pages.next(CALL_OFFSETS_MAX as u64).await?;
            if page.is_empty() {
                break;
            }
            let is_meant = |delivery: &&v1::Delivery| delivery.dead_reason.contains(reason);
            offsets.extend(page.iter().filter(is_meant).map(|delivery| delivery.offset));
        }
        offsets.truncate(usize::try_from(number).unwrap_or(usize::MAX));
        Ok(offsets)
    }
}

impl DeadCommand {
    /// The topic whose dead messages it is about.
    pub(super) fn topic(&self) -> &str {
        match self {
            DeadCommand::List(List { target, .. }) | DeadCommand::Redrive(Chosen { target, .. }) => {
                &target.topic
            }
            DeadCommand::Purge(purge) => &purge.chosen.target.topic,
        }
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            DeadCommand::List(List { target, window, reason }) => {
                peek::show(&target, &window, Which::Dead, &reason, client, output).await
            }
            DeadCommand::Redrive(chosen) => redrive(&chosen, client, output).await,
            DeadCommand::Purge(Purge { chosen, yes }) => {
                confirm(yes, &format!("This drops dead messages of {}.", chosen.target.topic))?;
                purge(&chosen, client, output).await
            }
        }
    }
}

async fn redrive(chosen: &Chosen, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut done = 0;
    for offsets in chosen.offsets(client).await? {
        let Target { topic, subscription } = chosen.target.clone();
        let request = v1::RedriveDeadRequest { topic, subscription, offsets };
        let answer = client.redrive_dead(request).await;
        done += answer.map_err(|error| so_far(error.into(), done, "redriven"))?.count;
    }
    output.say(&format!("redriven: {}", counted(done, "message")), &json!({"count": done}))
}

async fn purge(chosen: &Chosen, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut done = 0;
    for offsets in chosen.offsets(client).await? {
        let Target { topic, subscription } = chosen.target.clone();
        let request = v1::PurgeDeadRequest { topic, subscription, offsets };
        let answer = client.purge_dead(request).await;
        done += answer.map_err(|error| so_far(error.into(), done, "dropped"))?.count;
    }
    output.say(&format!("dropped: {}", counted(done, "dead message")), &json!({"count": done}))
}

/// The failure of a call that others went before.
fn so_far(failure: Failure, done: u64, what: &str) -> Failure {
    if done == 0 { failure } else { failure.within(format!("{} {what}, then", counted(done, "message"))) }
}
