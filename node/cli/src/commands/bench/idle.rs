//! `raftq bench idle`: what those cost the nodes who are there and want nothing yet.

use super::{INTERRUPTED, make_topic, same_cluster, whole};
use crate::commands::cluster::{self, View};
use crate::commands::storage;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::text::{counted, size};
use clap::Args;
use raftqueue_client::{Client, v1};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Connections that are being made at a time.
const OPENING_MAX: usize = 32;
/// Receives that share a connection.
const RECEIVES_EACH: u64 = 100;
/// How long a receive waits before it asks again, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// What has just begun is no idling yet.
const SETTLING: Duration = Duration::from_secs(2);

#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  raftq bench idle
  raftq bench idle --connections 5000 --receives 10000 --seconds 30
  raftq --output json bench idle | jq '[.what, .cpu_percent, .bytes_each]'

It looks at the nodes three times for so many seconds: as they are, with the \
connections, and with receives of an empty topic as well, 100 of which share a \
connection. CPU is the processor time of all nodes together, in percent of one \
core; MEMORY is their resident memory, and EACH what one more connection or \
receive took of it. A node closes connections beyond what its limit of open \
files allows, and this program needs as many itself: see `ulimit -n`.")]
pub(crate) struct Idle {
    /// The topic; it is made if there is none, and must be empty
    #[arg(long, value_name = "NAME", default_value = "bench-idle")]
    topic: String,
    /// How long to look, each time
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = whole(1..=3_600), allow_negative_numbers = true)]
    seconds: u64,
    /// Connections that say nothing
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = whole(1..=100_000), allow_negative_numbers = true)]
    connections: u64,
    /// Receives that wait
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = whole(1..=1_000_000), allow_negative_numbers = true)]
    receives: u64,
}

/// What all nodes together had used at a time.
#[derive(Clone, Copy)]
struct Used {
    cpu_ms: u64,
    resident_bytes: u64,
}

/// One look at the nodes.
struct Look {
    what: &'static str,
    count: u64,
    cpu_percent: f64,
    resident_bytes: u64,
}

impl Idle {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        tokio::select! {
            done = self.measure(client, output) => done,
            _ = tokio::signal::ctrl_c() => std::process::exit(INTERRUPTED),
        }
    }

    async fn measure(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        same_cluster(client).await?;
        make_topic(client, &self.topic).await?;
        let nodes =
            cluster::of_members(client, cluster::ask(client, client.endpoints().to_vec()).await, false).await;
        let before = self.look(client, &nodes, "nothing", 0).await?;
        eprintln!("making {}", counted(self.connections, "connection"));
        let open = connect(client, &nodes, self.connections).await?;
        let connected = self.look(client, &nodes, "connections", self.connections).await?;
        eprintln!("starting {}", counted(self.receives, "receive"));
        let mut waiting = Waiting::start(client, &self.topic, self.receives);
        let received = self.look(client, &nodes, "receives", self.receives).await;
        let ended = waiting.end();
        drop(open);
        report(output, &[before, connected, received?])?;
        ended
    }

    /// Looks at the nodes for as long as was asked for.
    async fn look(
        &self,
        client: &Client,
        nodes: &[View],
        what: &'static str,
        count: u64,
    ) -> Result<Look, Failure> {
        tokio::time::sleep(SETTLING).await;
        let (before, begun) = (used(client, nodes).await?, Instant::now());
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
        let (after, seconds) = (used(client, nodes).await?, begun.elapsed().as_secs_f64());
        let cpu_ms = after.cpu_ms.saturating_sub(before.cpu_ms);
        let cpu_percent = cpu_ms as f64 / 10.0 / seconds;
        Ok(Look { what, count, cpu_percent, resident_bytes: after.resident_bytes })
    }
}

/// Asks all nodes what they have used.
async fn used(client: &Client, nodes: &[View]) -> Result<Used, Failure> {
    let mut all = Used { cpu_ms: 0, resident_bytes: 0 };
    for kept in storage::ask_again(client, nodes).await {
        let kept =
            kept.map_err(|error| Failure::Failed(format!("a node does not say what it uses: {error}")))?;
        all.cpu_ms += kept.cpu_ms;
        all.resident_bytes += kept.resident_bytes;
    }
    Ok(all)
}

/// Makes so many connections, to the nodes in turn. They are open as long as what is returned lives.
async fn connect(client: &Client, nodes: &[View], count: u64) -> Result<Vec<Client>, Failure> {
    let mut left: VecDeque<&str> =
        nodes.iter().map(|node| node.endpoint.as_str()).cycle().take(number(count)).collect();
    let (mut opening, mut open) = (JoinSet::new(), Vec::with_capacity(number(count)));
    loop {
        while opening.len() < OPENING_MAX
            && let Some(endpoint) = left.pop_front()
        {
            let (own, endpoint) = (client.independent(), endpoint.to_owned());
            opening.spawn(async move { own.status(&endpoint).await.map(|_| own) });
        }
        let Some(opened) = opening.join_next().await else { return Ok(open) };
        let opened = opened.map_err(|error| Failure::Failed(format!("a connection ended: {error}")))?;
        open.push(opened.map_err(|error| {
            let text = format!("only {} could be made: {error}", counted(open.len() as u64, "connection"));
            Failure::Failed(text)
        })?);
    }
}

/// Receives that wait, again and again.
struct Waiting {
    all: JoinSet<()>,
    /// How many failed or brought something, and why the last of them.
    failed: Arc<(AtomicU64, std::sync::Mutex<String>)>,
}

impl Waiting {
    fn start(client: &Client, topic: &str, count: u64) -> Self {
        let connections: Vec<Client> =
            (0..count.div_ceil(RECEIVES_EACH)).map(|_| client.independent()).collect();
        let mut all = JoinSet::new();
        let failed = Arc::new((AtomicU64::new(0), std::sync::Mutex::new(String::new())));
        for client in connections.iter().cycle().take(number(count)) {
            let (client, failed, topic) = (client.clone(), Arc::clone(&failed), topic.to_owned());
            all.spawn(async move {
                loop {
                    let request =
                        v1::ReceiveRequest { topic: topic.clone(), wait_ms: WAIT_MS, ..Default::default() };
                    let why = match client.receive(request).await {
                        Ok(received) if received.deliveries.is_empty() => continue,
                        Ok(_) => "the topic was not empty".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    failed.0.fetch_add(1, Ordering::Relaxed);
                    *failed.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = why;
                    tokio::time::sleep(SETTLING).await;
                }
            });
        }
        Self { all, failed }
    }

    /// Ends them.
    ///
    /// # Errors
    /// Some did not wait: the figures are none of idling.
    fn end(&mut self) -> Result<(), Failure> {
        self.all.abort_all();
        match self.failed.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => {
                let why = self.failed.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                Err(Failure::Failed(format!("{} did not wait, the last: {why}", counted(failed, "receive"))))
            }
        }
    }
}

fn number(count: u64) -> usize {
    usize::try_from(count).expect("at most a million")
}

fn report(output: &Output, looks: &[Look]) -> Result<(), Failure> {
    let mut table = Table::new(&["WHAT", "COUNT", "CPU", "MEMORY", "EACH"]);
    let mut before: Option<&Look> = None;
    for look in looks {
        let more = before.map_or(0, |before| look.resident_bytes.saturating_sub(before.resident_bytes));
        let each = more.checked_div(look.count);
        let cells = vec![
            look.what.to_owned(),
            look.count.to_string(),
            format!("{:.1} %", look.cpu_percent),
            size(look.resident_bytes),
            each.map_or("-".to_owned(), size),
        ];
        let object = json!({
            "what": look.what, "count": look.count, "cpu_percent": (look.cpu_percent * 100.0).round() / 100.0,
            "resident_bytes": look.resident_bytes, "bytes_each": each,
        });
        table.add(cells, object);
        before = Some(look);
    }
    output.print(&table)
}
