//! `raftq receive`.

use super::{Target, deliveries};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::{counted, parse_ms};
use clap::Args;
use raftqueue_client::{Client, v1};

/// Most messages of one call.
const CALL_MESSAGES_MAX: u64 = 1_000;

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq receive orders
  raftq receive orders -n 100 --ack
  raftq receive orders --all --ack > orders.txt
  raftq receive orders -n 10 --wait 20s -o json | jq -r .lease | raftq ack orders

Without --ack the messages are leased to you: acknowledge them (raftq ack), return them (raftq nack), or they are
delivered again when the lease ends. With --ack each is acknowledged once it is printed, so a crash in between prints it
again another time, and loses none. Exit code 3 says that there was nothing.

Piped, messages are printed as their raw bodies, one a line. -o json has everything, the lease too.")]
pub(crate) struct Receive {
    #[command(flatten)]
    target: Target,
    /// Most messages to receive
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    number: u64,
    /// Receive until nothing is left
    #[arg(long, conflicts_with = "number")]
    all: bool,
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
}

impl Receive {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut left = if self.all { u64::MAX } else { self.number };
        let mut deliveries = self.receive(client, left.min(CALL_MESSAGES_MAX), self.wait).await?;
        if deliveries.is_empty() {
            return Err(Failure::Nothing);
        }
        while !deliveries.is_empty() {
            left -= (deliveries.len() as u64).min(left);
            deliveries::show(output, &deliveries, self.bodies_only)?;
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
        Ok(())
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
