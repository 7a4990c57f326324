//! `raftq bench soak`: does a cluster stay as small as what waits in it, however long it is used?

mod leaving;
mod sample;

use super::gate::Gate;
use super::measure::Measure;
use super::publish::{Producing, When};
use super::{PROGRESS, Workers, same_cluster, whole};
use crate::commands::cluster::{self, View};
use crate::commands::storage;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::text::{counted, grouped, size};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use leaving::Leaving;
use raftqueue_client::{Client, v1};
use sample::{Judged, Sample, Watch};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Seconds in a year, which is long enough.
const SECONDS_MAX: u64 = 31_536_000;
/// Attempts after which a message is dead: more than one, as a fail-over costs one.
const ATTEMPTS_MAX: u32 = 3;
/// A topic from which nothing comes for so long is drained.
const DRAINED_AFTER: Duration = Duration::from_secs(2);
/// How long the workers may take to end after Ctrl-C.
const END_MAX: Duration = Duration::from_secs(10);

#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  raftq bench soak
  raftq bench soak --seconds 3600 --every 60
  raftq bench soak --rate 0 --leave 600
  raftq --output json bench soak --seconds 60 | jq 'select(.what == \"sample\").nodes[].used_bytes'

  RAFTQUEUE_SEGMENT_BYTES=4194304 raftq up --ephemeral
                        nodes whose segments are small: what takes hours elsewhere is seen in minutes

Every few seconds it prints what each node's data directory takes on its disk \
(DISK), in the order of the nodes' names, beside the most that it may take \
(BOUND): 8 segments, twice what is alive (LIVE: the messages that wait, are \
leased, delayed or dead, and 64 bytes for each) and two snapshots; 4 segments \
once nothing was published for half a minute. HOLDS says whether every node \
keeps to that. MEMORY is the resident memory of each node, LEFT how many \
messages were left for ever: one half delayed for ten years, the other half \
dead.

Ctrl-C ends it early, with what was seen. What was left stays in the topic: \
delete it to get rid of that. Exit code 0 says that the bound held all the \
time.")]
pub(crate) struct Soak {
    /// The topic; it is made if there is none. Give it one of its own: everything in it is consumed
    #[arg(long, value_name = "NAME", default_value = "soak")]
    topic: String,
    /// How long to publish and consume
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = whole(1..=SECONDS_MAX), allow_negative_numbers = true)]
    seconds: u64,
    /// How long to go on watching when nothing is published any more
    #[arg(long, value_name = "SECONDS", default_value_t = 35, value_parser = whole(0..=SECONDS_MAX), allow_negative_numbers = true)]
    rest: u64,
    /// How often to look at the nodes
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = whole(1..=86_400), allow_negative_numbers = true)]
    every: u64,
    /// Messages published a second; 0: as many as it can be
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = whole(0..=100_000_000), allow_negative_numbers = true)]
    rate: u64,
    /// Messages left for ever each minute
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = whole(0..=600_000), allow_negative_numbers = true)]
    leave: u64,
    /// Publish no more while so many messages wait
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = whole(1..=1_000_000_000), allow_negative_numbers = true)]
    backlog: u64,
    /// Consumers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    consumers: u64,
    #[command(flatten)]
    producing: Producing,
}

/// A soak that has begun.
struct Run {
    published: Arc<Measure>,
    consumed: Arc<Measure>,
    gate: Arc<Gate>,
    leaving: Arc<Leaving>,
    producers: Workers,
    consumers: Workers,
}

impl Soak {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        same_cluster(client).await?;
        let nodes =
            cluster::of_members(client, cluster::ask(client, client.endpoints().to_vec()).await, false).await;
        self.check_nodes(client, &nodes).await?;
        self.make_topic(client).await?;
        let mut run = self.begin(client).await?;
        let mut watch = Watch::new(nodes, output);
        let bar = self.bar();
        watch.show_header(&bar)?;
        let ended = self.watch(client, &mut run, &mut watch, &bar).await;
        bar.finish_and_clear();
        let is_cut = ended?;
        self.report(&run, &watch, is_cut, output)
    }

    /// Says early that no node tells what it keeps.
    async fn check_nodes(&self, client: &Client, nodes: &[View]) -> Result<(), Failure> {
        let kept = storage::ask(client, nodes).await;
        if kept.iter().any(Result::is_ok) {
            return Ok(());
        }
        let why = kept.into_iter().find_map(Result::err).unwrap_or_else(|| "no node was found".into());
        Err(Failure::Failed(format!("no node says what it keeps: {why}")))
    }

    /// A few failed attempts make a message dead, so that some can be left so.
    async fn make_topic(&self, client: &Client) -> Result<(), Failure> {
        let options = v1::TopicOptions { attempts_max: Some(ATTEMPTS_MAX), ..Default::default() };
        let create = v1::CreateTopicRequest {
            topic: self.topic.clone(),
            options: Some(options),
            ..Default::default()
        };
        match client.create_topic(create).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason == v1::Reason::TopicExists => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn begin(&self, client: &Client) -> Result<Run, Failure> {
        let producers = self.producing.open(client, std::slice::from_ref(&self.topic)).await?;
        let length = Duration::from_secs(self.seconds);
        let published = Arc::new(Measure::start("published", length).counting_late());
        // What waits at the end is consumed, too.
        let length = length + Duration::from_secs(self.rest);
        let consumed = Arc::new(Measure::start("consumed", length).counting_late());
        let gate = Arc::new(Gate::open(self.rate, self.backlog, &published, &consumed));
        let leaving = Arc::new(Leaving::new(client, &self.topic, self.producing.body()));
        let mut producers = producers.start_when(&When::Gate(Arc::clone(&gate)), &published);
        let consumers = leaving.consume(self.consumers, &consumed);
        if let Some(pause) =
            Duration::from_secs(60).checked_div(u32::try_from(self.leave).unwrap_or(u32::MAX))
        {
            let (leaving, published) = (Arc::clone(&leaving), Arc::clone(&published));
            producers.0.spawn(async move { leaving.leave(pause, &published).await });
        }
        Ok(Run { published, consumed, gate, leaving, producers, consumers })
    }

    fn bar(&self) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(self.seconds + self.rest);
        bar.set_style(ProgressStyle::with_template(PROGRESS).expect("a test reads this very template"));
        bar
    }

    /// Looks at the nodes until the end, or until Ctrl-C: says whether that came.
    async fn watch(
        &self,
        client: &Client,
        run: &mut Run,
        watch: &mut Watch<'_>,
        bar: &ProgressBar,
    ) -> Result<bool, Failure> {
        let begun = Instant::now();
        let mut looks = interval(Duration::from_secs(self.every));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one comes at once, and there is nothing to see yet.
        looks.tick().await;
        let mut seconds = interval(Duration::from_secs(1));
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let end = tokio::time::sleep_until((begun + Duration::from_secs(self.seconds + self.rest)).into());
        let mut end = std::pin::pin!(end);
        let (mut is_published, mut is_consumed) = (false, false);
        let is_cut = loop {
            tokio::select! {
                biased;
                _ = &mut interrupt => break true,
                ended = run.producers.ended(), if !is_published => {
                    ended?;
                    is_published = true;
                    watch.published();
                }
                ended = run.consumers.ended(), if !is_consumed => {
                    ended?;
                    is_consumed = true;
                }
                () = &mut end => break false,
                _ = seconds.tick() => {
                    bar.set_position(begun.elapsed().as_secs());
                    bar.set_message(format!("{}, {}", run.published.brief(), run.consumed.brief()));
                    if is_published && run.consumed.idle() >= DRAINED_AFTER {
                        run.consumed.end_now();
                    }
                }
                _ = looks.tick() => watch.look(client, run.sample(begun), bar).await?,
            }
        };
        run.published.end_now();
        run.consumed.end_now();
        let ending = async {
            run.producers.ended().await?;
            run.consumers.ended().await
        };
        // Whatever is under way when somebody wants to leave is not worth a long wait.
        match timeout(END_MAX, ending).await {
            Ok(ended) => ended?,
            Err(_) => eprintln!("not everything that was under way was answered within {END_MAX:?}"),
        }
        watch.look(client, run.sample(begun), bar).await?;
        Ok(is_cut)
    }

    fn report(&self, run: &Run, watch: &Watch<'_>, is_cut: bool, output: &Output) -> Result<(), Failure> {
        let (published, consumed) = (run.published.messages(), run.consumed.messages());
        let (publish_errors, last_publish_error) = run.published.errors();
        let (consume_errors, last_consume_error) = run.consumed.errors();
        let errors = publish_errors + consume_errors;
        let last_error = last_publish_error.or(last_consume_error);
        let (delayed, dead) = run.leaving.left();
        let worst = watch.worst();
        let what = if is_cut { "ended early" } else { "done" };
        let mut sentence = format!(
            "{what}: published {} of {}, consumed {}, left {} delayed and {} dead",
            grouped(published),
            size(published * self.producing.size),
            grouped(consumed),
            grouped(delayed),
            grouped(dead),
        );
        if let Some(error) = &last_error {
            sentence += &format!("; {}, the last: {error}", counted(errors, "error"));
        }
        if let Some(worst) = worst {
            sentence += &format!(
                "; {} {} its bound, with {} of {} on its disk after {} s; memory at most {}",
                worst.node,
                if worst.holds() { "came nearest to" } else { "went beyond" },
                size(worst.used_bytes),
                size(worst.bound_bytes),
                worst.seconds,
                size(watch.resident_bytes_max()),
            );
        }
        if delayed + dead > 0 {
            sentence += &format!("; `raftq topic delete {}` removes what was left", self.topic);
        }
        let mut conditions = self.producing.conditions();
        for (name, value) in [
            ("what", json!("soak")),
            ("topic", json!(self.topic)),
            ("seconds", json!(self.seconds)),
            ("rest", json!(self.rest)),
            ("rate", json!(self.rate)),
            ("leave", json!(self.leave)),
            ("backlog", json!(self.backlog)),
            ("consumers", json!(self.consumers)),
            ("ended_early", json!(is_cut)),
            ("published", json!(published)),
            ("consumed", json!(consumed)),
            ("left_delayed", json!(delayed)),
            ("left_dead", json!(dead)),
            ("errors", json!(errors)),
            ("last_error", json!(last_error)),
            ("holds", json!(worst.map(Judged::holds))),
            ("resident_bytes_max", json!(watch.resident_bytes_max())),
            ("worst", json!(worst.map(Judged::json))),
        ] {
            conditions[name] = value;
        }
        match output.format {
            // Only lines of what was seen, for `cut` and `awk`.
            Format::Plain => {}
            Format::Table | Format::Json => output.say(&sentence, &conditions)?,
        }
        if published == 0 {
            let why = last_error.unwrap_or_else(|| "no batch was acknowledged in time".into());
            return Err(Failure::Failed(format!("nothing was published: {why}")));
        }
        match worst {
            None => Err(Failure::Failed(
                "no node said what it keeps, so nobody knows whether the bound held".into(),
            )),
            Some(worst) if worst.holds() => Ok(()),
            Some(worst) => Err(Failure::Failed(format!(
                "the bound of the disk did not hold: after {} s {} had {}, and {} is the most",
                worst.seconds,
                worst.node,
                size(worst.used_bytes),
                size(worst.bound_bytes)
            ))),
        }
    }
}

impl Run {
    /// What the load has done by now.
    fn sample(&self, begun: Instant) -> Sample {
        let (delayed, dead) = self.leaving.left();
        Sample {
            at: begun.elapsed(),
            published: self.published.messages(),
            consumed: self.consumed.messages(),
            waiting: self.gate.waiting(),
            left: delayed + dead,
        }
    }
}
