//! `raftq topic`.

use super::confirm;
use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use crate::text::{parse_ms, utc};
use clap::{Args, Subcommand};
use raftqueue_client::{Client, v1};
use serde_json::{Value, json};

/// Topics of one page of a listing.
const PAGE_TOPICS: u32 = 1_000;

#[derive(Subcommand)]
pub(crate) enum TopicCommand {
    /// Make a topic
    #[command(after_help = "\
Examples:
  raftq topic create orders
  raftq topic create orders --attempts-max 5 --ttl 7d")]
    Create(Create),
    /// List all topics in order of creation, with their counts
    #[command(after_help = "\
Examples:
  raftq topic list
  raftq topic list | cut -f1
  raftq topic list -o json | jq -r 'select(.dead > 0).topic'")]
    List,
    /// Show one topic with its settings and counts
    #[command(after_help = "\
Examples:
  raftq topic describe orders
  raftq topic describe orders -o json | jq .bytes")]
    Describe(Name),
    /// Delete a topic with all its messages, dead ones included
    #[command(after_help = "\
Examples:
  raftq topic delete orders
  raftq topic delete orders --yes")]
    Delete(Delete),
}

#[derive(Args)]
pub(crate) struct Create {
    /// The topic: 1 to 255 bytes, no control characters
    topic: String,
    /// Failed attempts after which a message is dead, and kept [default: the cluster's, 16]
    #[arg(long, value_name = "N")]
    attempts_max: Option<u32>,
    /// Most messages held; publishing beyond is refused [default: no limit]
    #[arg(long, value_name = "N")]
    messages_max: Option<u64>,
    /// Most bytes held; publishing beyond is refused [default: no limit]
    #[arg(long, value_name = "N")]
    bytes_max: Option<u64>,
    /// How long a message may wait before it is dead, as in 7d [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = parse_ms)]
    ttl: Option<u64>,
}

#[derive(Args)]
pub(crate) struct Name {
    /// The topic
    topic: String,
}

#[derive(Args)]
pub(crate) struct Delete {
    /// The topic
    topic: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl TopicCommand {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            TopicCommand::Create(command) => create(command, client, output).await,
            TopicCommand::List => list(client, output).await,
            TopicCommand::Describe(command) => describe(command, client, output).await,
            TopicCommand::Delete(command) => delete(command, client, output).await,
        }
    }
}

async fn create(command: Create, client: &Client, output: &Output) -> Result<(), Failure> {
    let Create { topic, attempts_max, messages_max, bytes_max, ttl } = command;
    let options = Some(v1::TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms: ttl });
    let request = v1::CreateTopicRequest { topic: topic.clone(), options, ..Default::default() };
    let id = client.create_topic(request).await?.topic_id;
    output.say(&format!("topic {topic} is created"), &json!({"topic": topic, "id": id}))
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let mut table = Table::new(&["TOPIC", "READY", "LEASED", "DELAYED", "DEAD", "BYTES", "CREATED"]);
    let mut after = None;
    loop {
        let request = v1::ListTopicsRequest { after, topics_max: PAGE_TOPICS };
        let page = client.list_topics(request).await?;
        after = page.topics.last().map(|topic| topic.id);
        for topic in &page.topics {
            table.add(row(topic), json(topic));
        }
        if !page.more || after.is_none() {
            return output.print(&table);
        }
    }
}

async fn describe(command: Name, client: &Client, output: &Output) -> Result<(), Failure> {
    let request = v1::DescribeTopicRequest { topic: command.topic };
    let answer = client.describe_topic(request).await?;
    let topic = answer.topic.ok_or_else(|| Failure::Failed("the node answered without a topic".into()))?;
    if output.format == Format::Json {
        return output.say("", &json(&topic));
    }
    let options = topic.options.unwrap_or_default();
    let limit = |limit: Option<u64>| limit.map_or("none".into(), |limit| limit.to_string());
    let default = |attempts: u32| attempts.to_string();
    let mut table = Table::new(&["FIELD", "VALUE"]);
    let fields = [
        ("topic", topic.name.clone()),
        ("id", topic.id.to_string()),
        ("created", utc(topic.created_ms)),
        ("next offset", topic.next_offset.to_string()),
        ("bytes", topic.bytes.to_string()),
        ("attempts max", options.attempts_max.map_or("default".into(), default)),
        ("messages max", limit(options.messages_max)),
        ("bytes max", limit(options.bytes_max)),
        ("ttl ms", limit(options.ttl_ms)),
    ];
    for (field, value) in fields {
        table.add(vec![field.into(), value], Value::Null);
    }
    for subscription in &topic.subscriptions {
        let v1::SubscriptionInfo { name, ready, leased, delayed, dead } = subscription;
        for (state, count) in [("ready", ready), ("leased", leased), ("delayed", delayed), ("dead", dead)] {
            table.add(vec![format!("{name} {state}"), count.to_string()], Value::Null);
        }
    }
    output.print(&table)
}

async fn delete(command: Delete, client: &Client, output: &Output) -> Result<(), Failure> {
    let topic = command.topic;
    confirm(command.yes, &format!("This deletes the topic {topic} with all its messages."))?;
    client.delete_topic(v1::DeleteTopicRequest { topic: topic.clone() }).await?;
    output.say(&format!("topic {topic} is deleted"), &json!({"topic": topic}))
}

/// Messages in one state, over all subscriptions.
fn sum(topic: &v1::TopicInfo, count: impl Fn(&v1::SubscriptionInfo) -> u64) -> u64 {
    topic.subscriptions.iter().map(count).sum()
}

fn row(topic: &v1::TopicInfo) -> Vec<String> {
    vec![
        topic.name.clone(),
        sum(topic, |s| s.ready).to_string(),
        sum(topic, |s| s.leased).to_string(),
        sum(topic, |s| s.delayed).to_string(),
        sum(topic, |s| s.dead).to_string(),
        topic.bytes.to_string(),
        utc(topic.created_ms),
    ]
}

fn json(topic: &v1::TopicInfo) -> Value {
    let options = topic.options.unwrap_or_default();
    let subscription = |s: &v1::SubscriptionInfo| json!({"name": s.name, "ready": s.ready, "leased": s.leased, "delayed": s.delayed, "dead": s.dead});
    json!({
        "topic": topic.name,
        "id": topic.id,
        "created_ms": topic.created_ms,
        "next_offset": topic.next_offset,
        "bytes": topic.bytes,
        "ready": sum(topic, |s| s.ready),
        "leased": sum(topic, |s| s.leased),
        "delayed": sum(topic, |s| s.delayed),
        "dead": sum(topic, |s| s.dead),
        "attempts_max": options.attempts_max,
        "messages_max": options.messages_max,
        "bytes_max": options.bytes_max,
        "ttl_ms": options.ttl_ms,
        "subscriptions": topic.subscriptions.iter().map(subscription).collect::<Vec<_>>(),
    })
}
