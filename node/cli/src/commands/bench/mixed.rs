//! `raftq bench mixed`.

use super::consume::Consumers;
use super::measure::{Measure, Report};
use super::publish::Producing;
use super::{Load, numbered, show_progress, whole};
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
  raftq bench mixed --topics 1000 --producers 1000 --consumers 1000 --consumer-connections 8 --batch 1
  raftq --output json bench mixed | jq '.published.messages_per_second, .consumed.messages_per_second'

Latencies are those of `bench publish` and `bench consume`. As JSON it is one \
object: what was consumed, with both sides in full under `published` and \
`consumed`.")]
pub(crate) struct Mixed {
    #[command(flatten)]
    load: Load,
    /// Topics, each with its part of the producers and consumers. If there is more than one, each has a number behind its name
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    topics: u64,
    #[command(flatten)]
    producing: Producing,
    /// Consumers
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    consumers: u64,
    /// Connections that the consumers share [default: one for each]
    #[arg(long, value_name = "N", value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    consumer_connections: Option<u64>,
}

impl Mixed {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        self.check()?;
        let (topics, length) =
            (numbered(&self.load.topic, self.topics), Duration::from_secs(self.load.seconds));
        let producers = self.producing.open(client, &topics).await?;
        let published = Arc::new(Measure::start("published", length));
        let consumed = Arc::new(Measure::start("consumed", length));
        let producers = producers.start(&published);
        let taking = Consumers {
            count: self.consumers,
            connections: self.consumer_connections(),
            batch: self.producing.batch,
        };
        let consumers = taking.start(client, &topics, &consumed);
        let asked = show_progress(&[&published, &consumed], consumed.end()).await?;
        producers.finish().await?;
        consumers.finish().await?;
        let mut own = self.producing.conditions();
        own["topics"] = json!(self.topics);
        own["consumers"] = json!(self.consumers);
        own["consumer_connections"] = json!(self.consumer_connections());
        let conditions = self.load.conditions(client, own);
        report(output, &published.report(conditions.clone()), &consumed.report(conditions))?;
        asked.map_or(Ok(()), Asked::ended)
    }

    fn consumer_connections(&self) -> u64 {
        self.consumer_connections.unwrap_or(self.consumers)
    }

    /// Refuses topics that nobody would take from, and connections without a consumer.
    fn check(&self) -> Result<(), Failure> {
        if self.topics > self.consumers {
            return Err(Failure::Usage(format!(
                "--topics {} is more than --consumers {}: nobody would take from some of them",
                self.topics, self.consumers
            )));
        }
        if self.consumer_connections() > self.consumers {
            return Err(Failure::Usage(format!(
                "--consumer-connections {} is more than --consumers {}: a consumer has one",
                self.consumer_connections(),
                self.consumers
            )));
        }
        Ok(())
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
