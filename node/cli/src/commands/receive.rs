//! `raftq receive`.

mod exec;
mod follow;
mod process;

use super::Target;
use super::deliveries::{self, Part, Showing, Which};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::text::{counted, parse_ms};
use clap::Args;
use raftqueue_client::{Client, Consumer, ConsumerSettings, v1};
use std::time::Duration;

/// Most messages of one call.
const CALL_MESSAGES_MAX: u64 = 1_000;
/// How long messages are leased while they are followed or a command works on them; that is extended as long as needed.
const LEASE_DEFAULT_MS: u64 = 30_000;
/// Bytes that are held at once.
const HELD_BYTES_MAX: usize = 16 << 20;
/// For how long leases are extended: a node grants no more.
const HOLD_MAX: Duration = Duration::from_secs(12 * 3_600);

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq receive orders
  raftq receive orders -n 100 --ack
  raftq receive orders --all --ack > orders.txt
  raftq receive orders --follow --ack
  raftq receive orders --exec ./handle.sh
  raftq receive orders --exec 'psql -c \"call handle($RAFTQ_OFFSET)\"' -P 4
  raftq receive orders --all -n 100 --exec 'gzip >> archive.gz'
  raftq receive orders -n 10 -o json | jq -r .lease | raftq ack orders

Without --ack the messages are leased to you: acknowledge them (raftq ack), \
return them (raftq nack), or they are delivered again when the lease ends. \
With --ack each is acknowledged once it is printed, so a crash in between \
prints it again another time, and loses none. Exit code 3 says that there was \
nothing.

Piped, messages are printed as their raw bodies, one a line. -o json has \
everything, the lease too. --follow prints messages as they come; what is not \
printed yet when it ends is given back.

--exec runs a command by /bin/sh for each message as it comes, until Ctrl-C; \
with --all until nothing is left. With -n N a command gets up to N messages. \
The body is its standard input; with -n a body a line (NUL behind each with \
-0); with -o json an object a line. Exit code 0 acknowledges; any other \
returns the message with the code and the last line of standard error as \
reason, and it is delivered again after --retry-delay, which doubles with each \
attempt up to 5 minutes, until the topic's last attempt: then it is dead \
(raftq dead). Codes 126 and 127 (the command cannot be run, or is not found) \
stop it all, and count no attempt. While a command runs its lease is extended, \
up to 12 hours. No more is leased than commands run (-P, -n), and 16 MiB at \
most. Ctrl-C or SIGTERM lets running commands finish and gives back the rest; \
the second one stops them by SIGTERM, a third by SIGKILL.

Commands have in their environment:
  RAFTQ_TOPIC, RAFTQ_COUNT    the topic, and how many messages there are
  RAFTQ_OFFSET, RAFTQ_ID      the message's place in its topic, and its id
  RAFTQ_DELIVERY              1 the first time, 2 after a failed attempt, ...
  RAFTQ_LEASE                 its lease, as for raftq extend
  RAFTQ_PUBLISHED_MS          when it was published, Unix time in ms
  RAFTQ_KEY                   its key, if it has one
  RAFTQ_HEADERS               its headers as JSON: [{\"name\":..., \"value\":...}]
  RAFTQ_HEADER_NAME           the header `name`, in capitals, _ for other signs
  RAFTQ_ENDPOINTS             the cluster, for raftq
With -n they have RAFTQ_OFFSETS and RAFTQ_LEASES, separated by spaces, and \
nothing else of single messages.")]
pub(crate) struct Receive {
    #[command(flatten)]
    target: Target,
    /// Most messages to receive; with --exec, most that one command gets
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    number: Option<u64>,
    /// Receive until nothing is left
    #[arg(long)]
    all: bool,
    /// Go on for ever, and print messages as they come
    #[arg(long, short, conflicts_with_all = ["all", "wait"])]
    follow: bool,
    /// Run this command for each message as it comes
    #[arg(long, short, value_name = "COMMAND", conflicts_with_all = ["ack", "bodies_only", "wait"])]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    exec: Option<String>,
    /// How many commands run at once
    #[arg(long, short = 'P', value_name = "N", default_value_t = 1, requires = "exec")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    parallel: u16,
    /// How long a message rests after its command failed, the first time
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_ms, requires = "exec")]
    retry_delay: u64,
    /// How long to wait for a first message, as in 20s
    #[arg(long, value_name = "DURATION", value_parser = parse_ms, default_value = "0s")]
    wait: u64,
    /// How long the messages are leased, as in 5m [default: the cluster's, 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_ms)]
    lease: Option<u64>,
    /// Acknowledge each message once it is printed
    #[arg(long)]
    ack: bool,
    /// Print raw bodies, one a line, also on a terminal
    #[arg(long)]
    bodies_only: bool,
    /// Print raw bodies, a NUL byte behind each, as for `xargs -0`
    #[arg(short = '0', long)]
    null: bool,
}

impl Receive {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.target.topic
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        if let Some(command) = &self.exec {
            return exec::run(&self, command, client, output).await;
        }
        if self.all && self.number.is_some() {
            let text = "--all and --number cannot be used together, unless with --exec";
            return Err(Failure::Usage(text.into()));
        }
        if self.follow {
            return follow::run(&self, client, output).await;
        }
        self.run_once(client, output).await
    }

    async fn run_once(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut left = if self.all { u64::MAX } else { self.number.unwrap_or(1) };
        let mut deliveries = self.receive(client, left.min(CALL_MESSAGES_MAX), self.wait).await?;
        if deliveries.is_empty() {
            return Err(self.nothing(client).await);
        }
        let mut count = 0;
        // More than one call may be needed.
        let part = if left > CALL_MESSAGES_MAX { Part::First } else { Part::All };
        while !deliveries.is_empty() {
            count += deliveries.len() as u64;
            left -= (deliveries.len() as u64).min(left);
            let part = if count > deliveries.len() as u64 { Part::Later } else { part };
            deliveries::show(output, &deliveries, self.showing(part))?;
            // One batch is acknowledged while the next is on its way. Only the first message is waited for; then come
            // those that are there already.
            let (acknowledged, next) = tokio::join!(self.acknowledge(client, deliveries), async {
                match left.min(CALL_MESSAGES_MAX) {
                    0 => Ok(Vec::new()),
                    count => self.receive(client, count, 0).await,
                }
            });
            acknowledged?;
            deliveries = next?;
        }
        if self.loses_leases(output) {
            eprintln!("{}", self.lost_leases(&counted(count, "message")));
        }
        Ok(())
    }

    fn showing(&self, part: Part) -> Showing {
        let end = if self.null { 0 } else { b'\n' };
        let which = if self.ack { Which::Acknowledged } else { Which::Received };
        Showing { which, bodies_only: self.bodies_only || self.null, end, part }
    }

    /// True if nobody sees the leases of what is printed, and nobody acknowledges it.
    fn loses_leases(&self, output: &Output) -> bool {
        !self.ack && (self.bodies_only || self.null || output.format == Format::Plain)
    }

    /// What is said of them then.
    fn lost_leases(&self, count: &str) -> String {
        format!(
            "warning: {count} printed without the lease, so it cannot be acknowledged and comes again when the \
             lease ends: give --ack, or -o json to see leases"
        )
    }

    /// What is said if nothing came: whatever else there is explains it.
    async fn nothing(&self, client: &Client) -> Failure {
        let topic = &self.target.topic;
        let request = v1::DescribeTopicRequest { topic: topic.clone() };
        let described = client.describe_topic(request).await.ok().and_then(|answer| answer.topic);
        let mut others = Vec::new();
        for subscription in described.unwrap_or_default().subscriptions {
            let v1::SubscriptionInfo { leased, delayed, dead, .. } = subscription;
            for (count, state) in [(leased, "leased"), (delayed, "delayed"), (dead, "dead")] {
                others.extend((count > 0).then(|| format!("{count} {state}")));
            }
        }
        Failure::Nothing(match others.is_empty() {
            true => format!("no message is ready in {topic}, and none is leased, delayed or dead"),
            false => format!("no message is ready in {topic} ({})", others.join(", ")),
        })
    }

    /// A consumer that holds at most so many messages.
    fn consumer(&self, client: &Client, messages_max: usize) -> Result<Consumer, Failure> {
        let settings = ConsumerSettings {
            subscription: self.target.subscription.clone(),
            credit_messages: messages_max,
            credit_bytes: HELD_BYTES_MAX,
            lease: Duration::from_millis(self.lease.unwrap_or(LEASE_DEFAULT_MS)),
            hold: HOLD_MAX,
            ..ConsumerSettings::default()
        };
        client.consumer_with(&self.target.topic, settings).map_err(|error| Failure::Usage(error.to_string()))
    }

    /// How many messages are ready; fails if there is no such topic, or no cluster.
    async fn ready(&self, client: &Client) -> Result<u64, Failure> {
        let request = v1::DescribeTopicRequest { topic: self.target.topic.clone() };
        let topic = client.describe_topic(request).await?.topic.unwrap_or_default();
        let name = if self.target.subscription.is_empty() { "default" } else { &self.target.subscription };
        let mut subscriptions = topic.subscriptions.iter();
        Ok(subscriptions.find(|subscription| subscription.name == name).map_or(0, |found| found.ready))
    }

    async fn receive(&self, client: &Client, count: u64, wait_ms: u64) -> Result<Vec<v1::Delivery>, Failure> {
        let request = v1::ReceiveRequest {
            topic: self.target.topic.clone(),
            subscription: self.target.subscription.clone(),
            messages_max: u32::try_from(count).expect("a call has at most a thousand"),
            bytes_max: 0,
            lease_ms: self.lease,
            wait_ms,
        };
        Ok(client.receive(request).await?.deliveries)
    }

    /// Acknowledges what is printed, if that is wanted.
    async fn acknowledge(&self, client: &Client, deliveries: Vec<v1::Delivery>) -> Result<(), Failure> {
        if !self.ack {
            return Ok(());
        }
        let request = v1::AckRequest {
            topic: self.target.topic.clone(),
            subscription: self.target.subscription.clone(),
            leases: deliveries.into_iter().map(|delivery| delivery.lease).collect(),
        };
        let results = client.ack(request).await?.results;
        let is_done = |result: &&i32| {
            [v1::LeaseResult::Done, v1::LeaseResult::Gone].into_iter().any(|done| i32::from(done) == **result)
        };
        match results.len() - results.iter().filter(is_done).count() {
            0 => Ok(()),
            late => Err(Failure::Failed(format!(
                "{} printed but not acknowledged: the lease had ended, so they are delivered again",
                counted(late as u64, "message")
            ))),
        }
    }
}
