//! `raftq bench mixed`.

use super::measure::{Measure, Report};
use super::publish::Producing;
use super::{Load, consume, show_progress, whole};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::signals::Asked;
use clap::Args;
use raftqueue_client::Client;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  raftq bench mixed
  raftq bench mixed --producers 4 --consumers 4 --batch 256 --seconds 30
  raftq --output json bench mixed | jq '.published.messages_per_second, .consumed.messages_per_second'

Latencies are those of `bench publish` and `bench consume`. As JSON it is one \
object: what was consumed, with both sides in full under `published` and \
`consumed`.")]
pub(crate) struct Mixed {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    producing: Producing,
    /// Consumers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    consumers: u64,
}

impl Mixed {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let (topic, length) = (&self.load.topic, Duration::from_secs(self.load.seconds));
        let producers = self.producing.open(client, std::slice::from_ref(topic)).await?;
        let published = Arc::new(Measure::start("published", length));
        let consumed = Arc::new(Measure::start("consumed", length));
        let producers = producers.start(&published);
        let consumers = consume::start(client, topic, self.consumers, self.producing.batch, &consumed);
        let asked = show_progress(&[&published, &consumed], consumed.end()).await?;
        producers.finish().await?;
        consumers.finish().await?;
        let mut own = self.producing.conditions();
        own["consumers"] = json!(self.consumers);
        let conditions = self.load.conditions(client, own);
        report(output, &published.report(conditions.clone()), &consumed.report(conditions))?;
        asked.map_or(Ok(()), Asked::ended)
    }
}

fn report(output: &Output, published: &Report, consumed: &Report) -> Result<(), Failure> {
    published.check()?;
    consumed.check()?;
    if output.format == Format::Json {
        output.say("", &both(published.json(), consumed.json()))?;
    } else {
        let mut table = published.table();
        consumed.add_to(&mut table);
        output.print(&table)?;
    }
    published.check_errors()?;
    consumed.check_errors()
}

/// One object: what was consumed, the errors of both sides, and both sides in full.
fn both(published: Value, consumed: Value) -> Value {
    let mut both = consumed.clone();
    let errors = [&published, &consumed].iter().filter_map(|side| side["errors"].as_u64()).sum::<u64>();
    both["what"] = json!("mixed");
    both["errors"] = json!(errors);
    if both["last_error"].is_null() {
        both["last_error"] = published["last_error"].clone();
    }
    both["published"] = published;
    both["consumed"] = consumed;
    both
}
