//! `raftq publish`.

mod gather;

use super::lines::Lines;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::{Asked, Signals};
use crate::text::{counted, parse_delimiter, parse_header, parse_ms};
use bytes::Bytes;
use clap::Args;
use gather::Gather;
use indicatif::{ProgressBar, ProgressStyle};
use raftqueue_client::{Acknowledgement, Client, Publisher, PublisherSettings, v1};
use serde_json::json;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

/// Bytes of one batch: a quarter of what one publish may have, so that it leaves soon.
const BATCH_BYTES: usize = 1 << 20;
/// Batches under way at once; in a session that has a name each has one message.
const WINDOW: usize = 8;
const SESSION_WINDOW: usize = 512;
/// Bytes of a file that is one message: more than a cluster can be set to take.
const FILE_BYTES_MAX: u64 = 17 << 20;
/// How progress looks.
const PROGRESS: &str = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg} messages, {eta} left";

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq publish orders hello
  raftq publish orders --file lines.txt
  tail -f app.log | raftq publish logs
  find . -print0 | raftq publish files -0
  raftq publish pictures --body-file cat.png --header type=image/png
  raftq publish orders --delay 10m --header source=web \"remind me\"
  raftq publish orders --session nightly --file lines.txt

Lines are published in batches, each in one piece and stored once, also when a \
node fails meanwhile. A batch leaves when it is full, or 100 ms after its first \
line. When it ends early the message says how many lines are stored; they are \
always the first ones.

With --session the same command can be repeated, also after it was killed or \
failed with an unknown outcome: what is stored already is not stored again. The \
number of a message is its step in the session: the first line, argument or \
file is step 1, the next one step 2, whatever came of earlier runs. So a repeat \
must have the same messages in the same order, with the same key, headers and \
times, and may have more behind them. Another message at a step that is taken \
is refused (SEQUENCE_REUSED), and so is an input that is over 1,024 messages \
shorter than what the session has. A second run fences one that still goes on. \
A session ends an hour after its last use; a repeat then stores all again. Give \
each input a name of its own, such as import-2026-05-01.")]
pub(crate) struct Publish {
    /// The topic
    topic: String,
    /// Messages; without any, lines of standard input, or of a file
    messages: Vec<String>,
    /// A file with a message on each line; - is standard input
    #[arg(long, short, value_name = "FILE", conflicts_with = "messages")]
    file: Option<PathBuf>,
    /// A file that is one message, whatever it holds; - is standard input. Can be
    /// given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["messages", "file"])]
    body_file: Vec<PathBuf>,
    /// A NUL byte ends a message, not the end of a line
    #[arg(short = '0', long, conflicts_with_all = ["messages", "body_file", "delimiter"])]
    null: bool,
    /// This byte ends a message, as in ',' or '\x1e' [default: '\n']
    #[arg(long, short, value_name = "BYTE", value_parser = parse_delimiter, conflicts_with_all = ["messages", "body_file"])]
    delimiter: Option<u8>,
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
    /// A name by which a repeat of the same command stores nothing twice
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    session: Option<String>,
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
    /// Steps of a session that had been stored before this command began.
    repeated: u64,
    /// Offsets from here on are given by this command, or meanwhile.
    begun_at: u64,
    /// The last step was stored so long ago that only its number is known.
    is_behind: bool,
}

/// A batch under way, and how many messages it has.
type Sent = (Acknowledgement, u64);

impl Publish {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) async fn run(mut self, client: &Client, output: &Output) -> Result<(), Failure> {
        let mut stored = Stored::default();
        let bodies = std::mem::take(&mut self.messages);
        let ended = self.publish(client, bodies, &mut stored).await;
        let Stored { count, first_offset, last_offset, repeated, .. } = stored;
        let asked = ended.map_err(|failure| told(failure, count))?;
        let mut json = json!({
            "topic": self.topic, "count": count, "first_offset": first_offset, "last_offset": last_offset
        });
        let mut sentence = format!("published to {}: {}", self.topic, counted(count, "message"));
        if self.session.is_some() {
            json["repeated"] = json!(repeated);
            sentence += &format!(", and {repeated} that had been stored before");
        }
        output.say(&sentence, &json)?;
        asked.map_or(Ok(()), Asked::ended)
    }

    /// Publishes all of it. Says if somebody asked for an earlier end.
    async fn publish(
        &self,
        client: &Client,
        bodies: Vec<String>,
        stored: &mut Stored,
    ) -> Result<Option<Asked>, Failure> {
        if self.session.is_some() {
            let request = v1::DescribeTopicRequest { topic: self.topic.clone() };
            stored.begun_at = client.describe_topic(request).await?.topic.unwrap_or_default().next_offset;
        }
        let publisher = client.publisher_with(&self.topic, self.settings(client)).await?;
        let mut sending = Sending { how: self, publisher: &publisher, sent: VecDeque::new(), stored };
        let mut ended = if !bodies.is_empty() {
            let all = bodies.into_iter().map(Bytes::from).collect();
            sending.send(all).await.map(|()| None)
        } else if !self.body_file.is_empty() {
            sending.send_files(&self.body_file).await.map(|()| None)
        } else {
            sending.send_lines().await
        };
        // What is under way counts, even if the next line cannot be read. The first failure is that of the first batch
        // that is not stored. Those behind it are not stored either.
        while !sending.sent.is_empty() {
            ended = first_of(ended, sending.take_in().await);
        }
        publisher.close().await;
        let asked = ended?;
        match stored.is_behind {
            true => Err(Failure::Failed(self.is_shorter())),
            false => Ok(asked),
        }
    }

    fn settings(&self, client: &Client) -> PublisherSettings {
        let (window, timeout, session) = (self.window(), client.timeout(), self.session.clone());
        PublisherSettings { window, timeout, session, ..PublisherSettings::default() }
    }

    fn window(&self) -> usize {
        if self.session.is_some() { SESSION_WINDOW } else { WINDOW }
    }

    /// What is said of an input that cannot be the one that its session has stored.
    fn is_shorter(&self) -> String {
        format!(
            "session {} has stored over 1,024 messages more than these: this is another input, so give it \
             another --session name",
            self.session.as_deref().unwrap_or_default()
        )
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

    /// What ends a message in a file or a stream.
    fn end(&self) -> u8 {
        if self.null { 0 } else { self.delimiter.unwrap_or(b'\n') }
    }
}

/// Messages on their way.
struct Sending<'a> {
    how: &'a Publish,
    publisher: &'a Publisher,
    sent: VecDeque<Sent>,
    stored: &'a mut Stored,
}

impl Sending<'_> {
    /// Hands messages over: as one batch, or each as a step of the session.
    async fn send(&mut self, bodies: Vec<Bytes>) -> Result<(), Failure> {
        let at_once = if self.how.session.is_some() { 1 } else { bodies.len().max(1) };
        for batch in bodies.chunks(at_once) {
            if self.sent.len() >= 2 * self.how.window() {
                self.take_in().await?;
            }
            let messages: Vec<_> = batch.iter().map(|body| self.how.message(body.clone())).collect();
            let count = messages.len() as u64;
            self.sent.push_back((self.publisher.send_batch(messages).await?, count));
        }
        Ok(())
    }

    async fn send_files(&mut self, files: &[PathBuf]) -> Result<(), Failure> {
        for path in files {
            let body =
                whole(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
            self.send(vec![body.into()]).await?;
        }
        Ok(())
    }

    /// Hands all lines over as they come, and takes in acknowledgements meanwhile.
    async fn send_lines(&mut self) -> Result<Option<Asked>, Failure> {
        let lines = match &self.how.file {
            Some(path) => Lines::of_file(path, self.how.end())
                .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?,
            None => Lines::of_stdin(self.how.end()),
        };
        if lines.is_terminal {
            eprintln!("publishing each line that is typed to {}; Ctrl-D ends", self.how.topic);
        }
        let mut signals = Signals::listen()?;
        let progress = progress(lines.bytes_total);
        let lines_max = usize::try_from(self.how.batch).expect("at most 10,000");
        let mut gather = Gather::new(lines.chunks(), lines_max, BATCH_BYTES);
        let asked = loop {
            let is_under_way = !self.sent.is_empty();
            let batch = tokio::select! {
                biased;
                asked = signals.next() => break Some(asked),
                answer = answered(&mut self.sent), if is_under_way => {
                    self.note(answer)?;
                    continue;
                }
                batch = gather.next() => batch?,
            };
            if batch.is_empty() {
                break None;
            }
            self.send(batch).await?;
            progress.set_position(gather.bytes_read);
            progress.set_message(self.stored.count.to_string());
        };
        // What was read before somebody asked for the end is not lost.
        while asked.is_some() {
            let batch = gather.at_hand();
            if batch.is_empty() {
                break;
            }
            self.send(batch).await?;
        }
        progress.finish_and_clear();
        Ok(asked)
    }

    /// Waits for the oldest batch.
    async fn take_in(&mut self) -> Result<(), Failure> {
        let answer = answered(&mut self.sent).await;
        self.note(answer)
    }

    /// Takes in what became of the oldest batch.
    fn note(&mut self, answer: Result<v1::PublishResponse, raftqueue_client::Error>) -> Result<(), Failure> {
        let (_, count) = self.sent.pop_front().expect("it was just waited for");
        match answer {
            Ok(published) => {
                self.stored.add(&published, count, self.how.session.is_some());
                Ok(())
            }
            Err(error) => Err(self.why(error)),
        }
    }

    /// Why a batch is not stored, in the words of who has a session.
    fn why(&self, error: raftqueue_client::Error) -> Failure {
        let Some(name) = &self.how.session else { return error.into() };
        let step = self.stored.count + self.stored.repeated + 1;
        let context = match error.reason {
            v1::Reason::SequenceReused => format!(
                "session {name} has stored another message as number {step}: another input needs another \
                 --session name"
            ),
            v1::Reason::Fenced => format!("another command publishes as session {name} now"),
            _ => return error.into(),
        };
        Failure::from(error).within(context)
    }
}

/// The answer to the oldest batch, which stays where it is: cancelling is safe.
async fn answered(sent: &mut VecDeque<Sent>) -> Result<v1::PublishResponse, raftqueue_client::Error> {
    let (acknowledgement, _) = sent.front_mut().expect("a batch is under way");
    acknowledgement.await
}

/// A file as one message.
fn whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let from: Box<dyn Read> =
        if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    from.take(FILE_BYTES_MAX).read_to_end(&mut body)?;
    if body.len() as u64 == FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it has {FILE_BYTES_MAX} bytes or more: no message is so large"
        )));
    }
    Ok(body)
}

/// A failure with what is known to be stored before it. Of nothing no number is said: beside an unknown outcome it would be
/// taken for one.
fn told(failure: Failure, stored: u64) -> Failure {
    if stored == 0 {
        return failure.doubting("whether anything is stored is not known");
    }
    let failure = failure.doubting("whether the next ones are stored, too, is not known");
    failure.within(format!("{} stored, then", counted(stored, "message")))
}

/// The failure that comes first; but one that leaves something unknown is not hidden by one that does not.
fn first_of<T>(one: Result<T, Failure>, next: Result<(), Failure>) -> Result<T, Failure> {
    match (one, next) {
        (one, Ok(())) => one,
        (Ok(_), Err(next)) => Err(next),
        (Err(one), Err(next)) => {
            let is_worse = matches!(next, Failure::Unknown { .. }) && !matches!(one, Failure::Unknown { .. });
            Err(if is_worse { next } else { one })
        }
    }
}

impl Stored {
    fn add(&mut self, published: &v1::PublishResponse, count: u64, is_in_session: bool) {
        self.is_behind = published.already_done;
        // An offset that was given before this command began is one of an earlier run.
        if published.already_done || (is_in_session && published.first_offset < self.begun_at) {
            self.repeated += count;
            return;
        }
        self.count += count;
        self.first_offset.get_or_insert(published.first_offset);
        self.last_offset = Some(published.first_offset + count.saturating_sub(1));
    }
}

/// A progress bar, if somebody can see it.
fn progress(bytes_total: Option<u64>) -> ProgressBar {
    let bar = match bytes_total {
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

    #[test]
    fn what_an_earlier_run_stored_is_not_counted_as_stored() {
        let mut stored = Stored { begun_at: 10, ..Stored::default() };
        let answer = |first_offset, already_done| v1::PublishResponse {
            first_offset,
            count: 1,
            already_done,
            ..v1::PublishResponse::default()
        };
        for published in [answer(0, true), answer(9, false), answer(10, false), answer(12, false)] {
            stored.add(&published, 1, true);
        }
        assert_eq!((stored.count, stored.repeated, stored.is_behind), (2, 2, false));
        assert_eq!((stored.first_offset, stored.last_offset), (Some(10), Some(12)));
        stored.add(&answer(0, true), 1, true);
        assert!(stored.is_behind);
    }

    #[test]
    fn a_number_is_said_where_it_is_known_and_beside_no_doubt_about_it() {
        let said = |failure, stored| match told(failure, stored) {
            Failure::Failed(text) => text,
            Failure::Unknown { text, doubt } => format!("{text} ({doubt})"),
            other => panic!("{other:?}"),
        };
        let refused = || Failure::Failed("no such topic".into());
        assert_eq!(said(refused(), 0), "no such topic");
        assert_eq!(said(refused(), 2), "2 messages stored, then: no such topic");
        assert_eq!(said(Failure::unknown("late"), 0), "late (whether anything is stored is not known)");
        assert_eq!(
            said(Failure::unknown("late"), 1),
            "1 message stored, then: late (whether the next ones are stored, too, is not known)"
        );
    }

    #[test]
    fn the_first_failure_is_told_unless_a_later_one_leaves_more_open() {
        let refused = |text: &str| Err(Failure::Failed(text.into()));
        let text = |result: Result<(), Failure>| match result {
            Err(Failure::Failed(text) | Failure::Unknown { text, .. }) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(first_of(refused("a"), refused("b"))), "a");
        assert_eq!(text(first_of(refused("a"), Ok(()))), "a");
        assert_eq!(text(first_of(Ok(()), refused("b"))), "b");
        assert_eq!(text(first_of(refused("a"), Err(Failure::unknown("b")))), "b");
        assert_eq!(text(first_of(Err(Failure::unknown("a")), refused("b"))), "a");
    }
}
