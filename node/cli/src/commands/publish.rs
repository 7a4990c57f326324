//! `raftq publish`.

use super::lines::Lines;
use crate::failure::Failure;
use crate::output::Output;
use crate::text::{counted, parse_header, parse_ms};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use raftqueue_client::{Acknowledgement, Client, Producer, Publisher, PublisherSettings, v1};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Bytes of one batch: a quarter of what one publish may have, so that it leaves soon.
const BATCH_BYTES: usize = 1 << 20;
/// Batches under way at once.
const WINDOW: usize = 8;
/// How progress looks.
const PROGRESS: &str = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg} messages, {eta} left";

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq publish orders hello
  raftq publish orders --file lines.txt
  tail -f app.log | raftq publish logs --batch 1
  raftq publish orders --delay 10m --header source=web \"remind me\"

Lines are published in batches, each in one piece and stored once, also when a node fails meanwhile. When it ends early
the message says how many lines are stored; they are always the first ones.")]
pub(crate) struct Publish {
    /// The topic
    topic: String,
    /// Messages; without any, lines of standard input, or of a file
    messages: Vec<String>,
    /// A file with a message on each line
    #[arg(long, short, value_name = "FILE", conflicts_with = "messages")]
    file: Option<PathBuf>,
    /// Ordering key of every message
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    key: String,
    /// A header of every message; can be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// Not delivered before this time has passed, as in 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_ms, default_value = "0s")]
    delay: u64,
    /// Dead if it still waits after this time, as in 7d [default: the topic's]
    #[arg(long, value_name = "DURATION", value_parser = parse_ms)]
    ttl: Option<u64>,
    /// Most lines of one batch
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
}

/// What has been stored so far.
#[derive(Default)]
struct Stored {
    count: u64,
    first_offset: Option<u64>,
    last_offset: Option<u64>,
}

impl Publish {
    pub(super) async fn run(mut self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut stored = Stored::default();
        let ended = if self.messages.is_empty() {
            self.publish_lines(client, &mut stored).await
        } else {
            let bodies = std::mem::take(&mut self.messages);
            self.publish_arguments(client, &mut stored, bodies).await
        };
        if let Err(failure) = ended {
            return Err(failure.within(format!("{} stored, then", counted(stored.count, "message"))));
        }
        let Stored { count, first_offset, last_offset } = stored;
        let json = json!({
            "topic": self.topic, "count": count, "first_offset": first_offset, "last_offset": last_offset
        });
        output.say(&format!("published to {}: {}", self.topic, counted(count, "message")), &json)
    }

    async fn publish_arguments(
        &self,
        client: &Client,
        stored: &mut Stored,
        bodies: Vec<String>,
    ) -> Result<(), Failure> {
        let messages: Vec<_> = bodies.into_iter().map(|body| self.message(body.into())).collect();
        let mut producer = client.producer(&self.topic).await?;
        let published = publish(&mut producer, stored, messages).await;
        close(producer).await;
        published
    }

    async fn publish_lines(&self, client: &Client, stored: &mut Stored) -> Result<(), Failure> {
        let mut lines = match &self.file {
            Some(path) => Lines::of_file(path)
                .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?,
            None => Lines::of_stdin(),
        };
        let progress = progress(&lines);
        let settings =
            PublisherSettings { window: WINDOW, timeout: client.timeout(), ..PublisherSettings::default() };
        let publisher = client.publisher_with(&self.topic, settings).await?;
        let mut sent = VecDeque::new();
        let mut ended = self.send_lines(&publisher, &mut lines, &mut sent, stored, &progress).await;
        // What is under way counts, even if the next line cannot be read.
        for batch in sent {
            ended = take_in(stored, batch).await.and(ended);
        }
        progress.finish_and_clear();
        publisher.close().await;
        ended
    }

    /// Hands all lines over, and takes in acknowledgements meanwhile.
    async fn send_lines(
        &self,
        publisher: &Publisher,
        lines: &mut Lines,
        sent: &mut VecDeque<Sent>,
        stored: &mut Stored,
        progress: &ProgressBar,
    ) -> Result<(), Failure> {
        loop {
            let (batch, is_last) = self.next_batch(lines)?;
            if !batch.is_empty() {
                let count = batch.len() as u64;
                sent.push_back((publisher.send_batch(batch).await?, count));
            }
            if is_last {
                return Ok(());
            }
            if sent.len() >= 2 * WINDOW {
                take_in(stored, sent.pop_front().expect("just seen")).await?;
            }
            progress.set_position(lines.bytes);
            progress.set_message(stored.count.to_string());
        }
    }

    /// As many lines as fit a batch, and whether they are the last ones.
    fn next_batch(&self, lines: &mut Lines) -> Result<(Vec<v1::NewMessage>, bool), Failure> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while (batch.len() as u64) < self.batch && bytes < BATCH_BYTES {
            // Reading blocks this thread, which has nothing else to do meanwhile.
            match lines.next()? {
                Some(line) => {
                    bytes += line.len();
                    batch.push(self.message(line.into()));
                }
                None => return Ok((batch, true)),
            }
        }
        Ok((batch, false))
    }

    fn message(&self, body: Bytes) -> v1::NewMessage {
        let header =
            |(name, value): &(String, String)| v1::Header { name: name.clone(), value: value.clone().into() };
        v1::NewMessage {
            body,
            key: self.key.clone().into(),
            headers: self.header.iter().map(header).collect(),
            delay_ms: self.delay,
            ttl_ms: self.ttl,
            body_crc32c: None,
        }
    }
}

/// A batch under way, and how many messages it has.
type Sent = (Acknowledgement, u64);

async fn publish(
    producer: &mut Producer,
    stored: &mut Stored,
    messages: Vec<v1::NewMessage>,
) -> Result<(), Failure> {
    let count = messages.len() as u64;
    stored.add(&producer.publish(messages).await?, count);
    Ok(())
}

/// Waits for a batch. The first failure is that of the first batch that is not stored. Those behind it are not stored
/// either.
async fn take_in(stored: &mut Stored, (acknowledgement, count): Sent) -> Result<(), Failure> {
    stored.add(&acknowledgement.await?, count);
    Ok(())
}

impl Stored {
    fn add(&mut self, published: &v1::PublishResponse, count: u64) {
        self.count += count;
        if !published.already_done {
            self.first_offset.get_or_insert(published.first_offset);
            self.last_offset = Some(published.first_offset + count.saturating_sub(1));
        }
    }
}

/// Ends the session. If that fails, the session ends by itself; nothing that was published depends on it.
async fn close(producer: Producer) {
    let _ = producer.close().await;
}

/// A progress bar, if somebody can see it.
fn progress(lines: &Lines) -> ProgressBar {
    let bar = match lines.bytes_total {
        Some(bytes_total) if io::stderr().is_terminal() => ProgressBar::new(bytes_total),
        _ => return ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template(PROGRESS).expect("a test reads this very template");
    bar.with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_progress_bar_can_be_read() {
        assert!(ProgressStyle::with_template(PROGRESS).is_ok());
    }
}
