//! `raftq purge`.

use super::{Target, confirm};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::counted;
use clap::Args;
use raftqueue_client::{Client, v1};
use serde_json::json;

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq purge orders
  raftq purge orders --yes

Leased and dead messages stay: see raftq dead purge.")]
pub(crate) struct Purge {
    #[command(flatten)]
    target: Target,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Purge {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.target.topic
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let Target { topic, subscription } = self.target;
        confirm(self.yes, &format!("This drops every message that waits in {topic}."))?;
        let count = client.purge(v1::PurgeRequest { topic, subscription }).await?.count;
        output.say(&format!("dropped: {}", counted(count, "message")), &json!({"count": count}))
    }
}
