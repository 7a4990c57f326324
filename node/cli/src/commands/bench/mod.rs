//! `raftq bench`: how fast a cluster, or a disk, is.

mod consume;
mod cpu;
mod disk;
mod gate;
mod idle;
mod measure;
mod mixed;
mod pace;
mod publish;
mod soak;

use crate::failure::Failure;
use crate::output::Output;
use crate::signals::{Asked, Signals};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use measure::{Measure, Report};
use raftqueue_client::{Client, v1};
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How progress looks.
const PROGRESS: &str = "{bar:40} {elapsed}/{len}s {msg}";
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// The exit code of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;
/// How long an endpoint may take to say which cluster it is of.
const STATUS_MAX: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Publish as fast as acknowledgements come back
    Publish(publish::Publish),
    /// Receive and acknowledge as fast as messages come
    Consume(consume::Consume),
    /// Publish and consume at once
    Mixed(mixed::Mixed),
    /// Hold connections and receives that only wait, and see what they cost the nodes
    Idle(idle::Idle),
    /// Publish and consume for long, leave a few messages for ever, and watch disk and memory of every node
    Soak(soak::Soak),
    /// Write and sync as a node does, without a node: how fast the disk is at best
    Disk(disk::Disk),
}

/// What every load has.
#[derive(Args, Clone)]
struct Load {
    /// The topic; it is made if there is none
    #[arg(long, value_name = "NAME", default_value = "bench")]
    topic: String,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = whole(1..=86_400), allow_negative_numbers = true)]
    seconds: u64,
}

/// Takes a whole number of `range`. For anything else the error says what would be right.
fn whole(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("{text} is not in {}..={}", range.start(), range.end()))
    }
}

impl BenchCommand {
    pub(super) async fn run(
        self,
        connect: impl FnOnce() -> Result<Client, Failure>,
        output: &Output,
    ) -> Result<(), Failure> {
        match self {
            BenchCommand::Publish(command) => command.run(&connect()?, output).await,
            BenchCommand::Consume(command) => command.run(&connect()?, output).await,
            BenchCommand::Mixed(command) => command.run(&connect()?, output).await,
            BenchCommand::Idle(command) => command.run(&connect()?, output).await,
            BenchCommand::Soak(command) => command.run(&connect()?, output).await,
            BenchCommand::Disk(command) => command.run(output).await,
        }
    }
}

/// Makes a topic unless it is there.
async fn make_topic(client: &Client, topic: &str) -> Result<(), Failure> {
    let create = v1::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
    match client.create_topic(create).await {
        Ok(_) => Ok(()),
        Err(error) if error.reason == v1::Reason::TopicExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The names of so many topics: the name itself, or the name with numbers behind it.
fn numbered(name: &str, topics: u64) -> Vec<String> {
    match topics {
        1 => vec![name.to_owned()],
        count => (1..=count).map(|number| format!("{name}-{number}")).collect(),
    }
}

impl Load {
    /// The conditions of a measurement: its own, and those that every load has.
    fn conditions(&self, client: &Client, own: Value) -> Value {
        let mut conditions = own;
        conditions["topic"] = json!(self.topic);
        conditions["seconds"] = json!(self.seconds);
        conditions["endpoints"] = json!(client.endpoints());
        conditions
    }
}

/// Refuses endpoints of different clusters. Endpoints that do not answer are not judged: the calls to them will fail.
async fn same_cluster(client: &Client) -> Result<(), Failure> {
    if client.endpoints().len() < 2 {
        return Ok(());
    }
    let mut asking = JoinSet::new();
    for endpoint in client.endpoints().iter().cloned() {
        let client = client.clone().with_timeout(client.timeout().min(STATUS_MAX));
        asking.spawn(async move { (client.status(&endpoint).await, endpoint) });
    }
    let mut clusters: Vec<(String, String)> = Vec::new();
    for (status, endpoint) in asking.join_all().await {
        clusters.extend(status.ok().map(|s| (s.cluster_id, endpoint)).filter(|known| !known.0.is_empty()));
    }
    clusters.sort();
    match (clusters.first(), clusters.last()) {
        (Some((id, one)), Some((other_id, other))) if id != other_id => Err(Failure::Usage(format!(
            "{one} belongs to cluster {id} and {other} to cluster {other_id}: give endpoints of one cluster"
        ))),
        _ => Ok(()),
    }
}

/// Producers or consumers at work.
struct Workers(JoinSet<Result<(), Failure>>);

impl Workers {
    /// Waits until everything that all of them sent is answered. An error is one that kept a worker from working at
    /// all.
    async fn finish(mut self) -> Result<(), Failure> {
        self.ended().await
    }

    /// Resolves at the first such error, or when all have ended. Dropped, it can be called again.
    async fn ended(&mut self) -> Result<(), Failure> {
        while let Some(ended) = self.0.join_next().await {
            ended.map_err(|error| Failure::Failed(format!("a worker ended: {error}")))??;
        }
        Ok(())
    }
}

/// Shows how far a measurement has come until it ends, if somebody can see it. Ctrl-C ends it early: what was measured by
/// then counts. Says if that was asked for.
async fn show_progress(measures: &[&Measure], end: Instant) -> Result<Option<Asked>, Failure> {
    let mut signals = Signals::listen()?;
    let asked = tokio::select! {
        () = progress(measures, end) => return Ok(None),
        asked = signals.next() => asked,
    };
    measures.iter().for_each(|measure| measure.end_now());
    // What is under way is waited for; whoever asks once more does not want that.
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(Some(asked))
}

async fn progress(measures: &[&Measure], end: Instant) {
    if !io::stderr().is_terminal() {
        return tokio::time::sleep_until(end.into()).await;
    }
    let seconds = end.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a day")]
    let bar = ProgressBar::new(seconds as u64);
    bar.set_style(ProgressStyle::with_template(PROGRESS).expect("a test reads this very template"));
    let begun = Instant::now();
    while Instant::now() < end {
        tokio::time::sleep(PROGRESS_EVERY).await;
        bar.set_position(begun.elapsed().as_secs());
        let counts: Vec<String> = measures.iter().map(|measure| measure.brief()).collect();
        bar.set_message(counts.join(", "));
    }
    bar.finish_and_clear();
}

/// Prints what was measured, if anything was; it is a failure if some of it failed.
fn report(output: &Output, report: &Report, asked: Option<Asked>) -> Result<(), Failure> {
    report.check()?;
    output.print(&report.table())?;
    report.check_errors()?;
    asked.map_or(Ok(()), Asked::ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_progress_bar_can_be_read() {
        assert!(ProgressStyle::with_template(PROGRESS).is_ok());
    }
}
