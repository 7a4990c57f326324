//! `raftq topic`.

use super::confirm;
use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use crate::text::{escaped, exact, parse_ms, utc};
use clap::{ArgGroup, Args, Subcommand};
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
  raftq topic create orders --attempts-max 5 --ttl 7d
  raftq topic create orders --if-not-exists

With --if-not-exists a topic that is there already is left as it is; \
if it has other settings than those that are given, that is said.")]
    Create(Create),
    /// Change what a topic allows; what it holds stays
    #[command(
        override_usage = "raftq topic update [OPTIONS] <TOPIC>",
        after_help = "\
`none` lifts a limit. Nothing that is held is dropped: beyond a lower limit publishing is refused until less is held, a message \
that has failed as often as is allowed now is dead after its next failure, and --ttl holds for messages that are published from \
then on.

Examples:
  raftq topic update orders --attempts-max 5
  raftq topic update orders --messages-max none --ttl 7d"
    )]
    Update(Update),
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
    /// Do nothing if there is a topic of this name
    #[arg(long)]
    if_not_exists: bool,
}

/// A limit, or none.
#[derive(Clone, Copy)]
struct Change(Option<u64>);

#[derive(Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["attempts_max", "messages_max", "bytes_max", "ttl"]))]
pub(crate) struct Update {
    /// The topic
    topic: String,
    /// Failed attempts after which a message is dead, and kept; `none`: the cluster's
    #[arg(long, value_name = "N", value_parser = parse_attempts)]
    attempts_max: Option<Change>,
    /// Most messages held; publishing beyond is refused
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    messages_max: Option<Change>,
    /// Most bytes held; publishing beyond is refused
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    bytes_max: Option<Change>,
    /// How long a message may wait before it is dead, as in 7d
    #[arg(long, value_name = "DURATION|none", value_parser = parse_ttl)]
    ttl: Option<Change>,
}

fn parse_limit(text: &str) -> Result<Change, String> {
    match text {
        "none" => Ok(Change(None)),
        number => number.parse().map(|max| Change(Some(max))).map_err(|_| "a number, or none".into()),
    }
}

fn parse_attempts(text: &str) -> Result<Change, String> {
    match parse_limit(text)? {
        Change(Some(max)) if max > u64::from(u32::MAX) => Err(format!("at most {}", u32::MAX)),
        change => Ok(change),
    }
}

fn parse_ttl(text: &str) -> Result<Change, String> {
    match text {
        "none" => Ok(Change(None)),
        duration => parse_ms(duration).map(|ms| Change(Some(ms))).map_err(|error| error.to_string()),
    }
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
    /// The topic that it is about, if that must be there.
    pub(super) fn existing(&self) -> Option<&str> {
        match self {
            TopicCommand::Describe(Name { topic })
            | TopicCommand::Update(Update { topic, .. })
            | TopicCommand::Delete(Delete { topic, .. }) => Some(topic),
            TopicCommand::Create(_) | TopicCommand::List => None,
        }
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            TopicCommand::Create(command) => create(command, client, output).await,
            TopicCommand::Update(command) => update(command, client, output).await,
            TopicCommand::List => list(client, output).await,
            TopicCommand::Describe(command) => describe(command, client, output).await,
            TopicCommand::Delete(command) => delete(command, client, output).await,
        }
    }
}

async fn create(command: Create, client: &Client, output: &Output) -> Result<(), Failure> {
    let Create { topic, attempts_max, messages_max, bytes_max, ttl, if_not_exists } = command;
    let options = v1::TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms: ttl };
    let request =
        v1::CreateTopicRequest { topic: topic.clone(), options: Some(options), ..Default::default() };
    let id = match client.create_topic(request).await {
        Ok(created) => created.topic_id,
        Err(error) if if_not_exists && error.reason == v1::Reason::TopicExists => {
            return exists(topic, options, client, output).await;
        }
        Err(error) => return Err(error.into()),
    };
    output.say(&format!("topic {topic} is created"), &json!({"topic": topic, "id": id, "created": true}))
}

/// Says that there is a topic, and in which of the settings that were asked for it differs.
async fn exists(
    topic: String,
    wanted: v1::TopicOptions,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let answer = client.describe_topic(v1::DescribeTopicRequest { topic: topic.clone() }).await?;
    let found = answer.topic.unwrap_or_default();
    let is = found.options.unwrap_or_default();
    let settings = [
        ("--attempts-max", wanted.attempts_max.map(u64::from), is.attempts_max.map(u64::from)),
        ("--messages-max", wanted.messages_max, is.messages_max),
        ("--bytes-max", wanted.bytes_max, is.bytes_max),
        ("--ttl (ms)", wanted.ttl_ms, is.ttl_ms),
    ];
    for (name, wanted, is) in settings {
        if let Some(wanted) = wanted.filter(|wanted| is != Some(*wanted)) {
            let is = is.map_or("none".to_owned(), |is| is.to_string());
            let topic = escaped(&topic);
            eprintln!(
                "warning: topic {topic} has {name} {is}, not {wanted}; raftq topic update changes that"
            );
        }
    }
    output.say(&format!("topic {topic} exists"), &json!({"topic": topic, "id": found.id, "created": false}))
}

async fn update(command: Update, client: &Client, output: &Output) -> Result<(), Failure> {
    let Update { topic, attempts_max, messages_max, bytes_max, ttl } = command;
    let value = |change: Option<Change>| change.and_then(|Change(max)| max);
    let options = v1::TopicOptions {
        attempts_max: value(attempts_max).and_then(|max| u32::try_from(max).ok()),
        messages_max: value(messages_max),
        bytes_max: value(bytes_max),
        ttl_ms: value(ttl),
    };
    let all = [
        ("attempts_max", attempts_max),
        ("messages_max", messages_max),
        ("bytes_max", bytes_max),
        ("ttl_ms", ttl),
    ];
    let lifted = all.into_iter().filter(|(_, change)| matches!(change, Some(Change(None))));
    let unset = lifted.map(|(name, _)| name.to_owned()).collect();
    let request = v1::UpdateTopicRequest { topic: topic.clone(), options: Some(options), unset };
    let now = client.update_topic(request).await?.options.unwrap_or_default();
    let limit = |limit: Option<u64>| limit.map_or("none".to_owned(), |limit| limit.to_string());
    let sentence = format!(
        "topic {topic} allows now: {} attempts, messages {}, bytes {}, time to live {}",
        now.attempts_max.unwrap_or_default(),
        limit(now.messages_max),
        limit(now.bytes_max),
        now.ttl_ms.map_or("for ever".to_owned(), exact)
    );
    let object = json!({"topic": topic, "attempts_max": now.attempts_max, "messages_max": now.messages_max,
        "bytes_max": now.bytes_max, "ttl_ms": now.ttl_ms});
    output.say(&sentence, &object)
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
