//! `raftq ack`, `nack`, `extend` and `release`: what becomes of leased messages.

use super::Target;
use super::lines::Lines;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::text::parse_ms;
use bytes::Bytes;
use clap::Args;
use raftqueue_client::{Client, v1};
use raftqueue_proto::text::{hex, unhex};
use serde_json::json;

/// Most leases of one call.
const CALL_LEASES_MAX: usize = 1_000;

/// Leases as they are typed or piped.
#[derive(Args)]
struct Leases {
    #[command(flatten)]
    target: Target,
    /// Leases, as `raftq receive` showed them; without any, one from each line of standard input
    leases: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq ack orders 02000c8d01e807
  raftq receive orders -n 10 -o json | tee messages.json | jq -r .lease | raftq ack orders

Results: DONE; GONE, it was done with before; STALE, the lease is no longer \
yours; INVALID, no such message. STALE and INVALID make the exit code 1.")]
pub(crate) struct Ack {
    #[command(flatten)]
    leases: Leases,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq nack orders 02000c8d01e807
  raftq nack orders 02000c8d01e807 --delay 5m --reason 'the shop is closed'

After the topic's last attempt a message is dead: see raftq dead.")]
pub(crate) struct Nack {
    #[command(flatten)]
    leases: Leases,
    /// Not delivered again before this time has passed, as in 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_ms, default_value = "0s")]
    delay: u64,
    /// Why; kept with the message if this was its last attempt
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq extend orders 02000c8d01e807 --lease 10m")]
pub(crate) struct Extend {
    #[command(flatten)]
    leases: Leases,
    /// The lease ends this long from now, as in 10m [default: the cluster's, 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_ms)]
    lease: Option<u64>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq release orders 02000c8d01e807")]
pub(crate) struct Release {
    #[command(flatten)]
    leases: Leases,
}

impl Ack {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.leases.target.topic
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut settled = Settled::default();
        for leases in self.leases.batches()? {
            let (topic, subscription) = self.leases.target();
            let request = v1::AckRequest { topic, subscription, leases: leases.clone() };
            settled.add(leases, client.ack(request).await?.results);
        }
        settled.show(output)
    }
}

impl Nack {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.leases.target.topic
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut settled = Settled::default();
        for leases in self.leases.batches()? {
            let (topic, subscription) = self.leases.target();
            let (delay_ms, reason) = (self.delay, self.reason.clone());
            let request = v1::NackRequest { topic, subscription, leases: leases.clone(), delay_ms, reason };
            settled.add(leases, client.nack(request).await?.results);
        }
        settled.show(output)
    }
}

impl Extend {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.leases.target.topic
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut settled = Settled::default();
        for leases in self.leases.batches()? {
            let (topic, subscription) = self.leases.target();
            let request =
                v1::ExtendRequest { topic, subscription, leases: leases.clone(), lease_ms: self.lease };
            settled.add(leases, client.extend(request).await?.results);
        }
        settled.show(output)
    }
}

impl Release {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.leases.target.topic
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut settled = Settled::default();
        for leases in self.leases.batches()? {
            let (topic, subscription) = self.leases.target();
            let request = v1::ReleaseRequest { topic, subscription, leases: leases.clone() };
            settled.add(leases, client.release(request).await?.results);
        }
        settled.show(output)
    }
}

impl Leases {
    fn target(&self) -> (String, String) {
        (self.target.topic.clone(), self.target.subscription.clone())
    }

    /// All leases. They are read before the first one is used, so that a mistyped one stops everything.
    fn batches(&self) -> Result<Vec<Vec<Bytes>>, Failure> {
        let mut typed = self.leases.clone();
        if typed.is_empty() {
            let mut lines = Lines::of_stdin(b'\n');
            while let Some(line) = lines.next()? {
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                typed.extend(Some(line).filter(|line| !line.is_empty()));
            }
        }
        if typed.is_empty() {
            return Err(Failure::Nothing("no lease on standard input".into()));
        }
        let read = |lease: &String| {
            let bytes = unhex(lease).filter(|bytes| !bytes.is_empty());
            bytes.map(Bytes::from).ok_or_else(|| {
                Failure::Usage(format!("{lease} is not a lease: a lease has hexadecimal digits only"))
            })
        };
        let leases = typed.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(leases.chunks(CALL_LEASES_MAX).map(<[Bytes]>::to_vec).collect())
    }
}

/// What became of the leases.
#[derive(Default)]
struct Settled(Vec<(Bytes, v1::LeaseResult)>);

impl Settled {
    fn add(&mut self, leases: Vec<Bytes>, results: Vec<i32>) {
        let results = results.into_iter().map(|result| v1::LeaseResult::try_from(result).unwrap_or_default());
        self.0.extend(leases.into_iter().zip(results));
    }

    fn show(&self, output: &Output) -> Result<(), Failure> {
        let mut table = Table::new(&["LEASE", "RESULT"]);
        let mut refused = 0;
        for (lease, result) in &self.0 {
            refused += usize::from(!matches!(result, v1::LeaseResult::Done | v1::LeaseResult::Gone));
            let result = result.as_str_name().trim_start_matches("LEASE_RESULT_");
            table.add(vec![hex(lease), result.into()], json!({"lease": hex(lease), "result": result}));
        }
        output.print(&table)?;
        match refused {
            0 => Ok(()),
            refused => Err(Failure::Failed(format!(
                "{refused} of {} leases were not yours, or not any more",
                self.0.len()
            ))),
        }
    }
}
