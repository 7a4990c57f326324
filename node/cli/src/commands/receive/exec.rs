//! `raftq receive --exec`: a command works on messages as they come.
//!
//! The consumer leases no more than the commands that may run get, and extends leases while they run. What it holds when
//! all ends and no command was started for is given back.

use super::process::{Ended, Job, Process, environment, stop};
use super::{CALL_MESSAGES_MAX, Receive};
use crate::commands::deliveries;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::signals::{Asked, Signals};
use crate::text::{counted, escaped};
use bytes::Bytes;
use raftqueue_client::{Client, Consumer, Delivery, Error, v1};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::task::JoinSet;

/// With --all: when nothing came for so long, the topic is looked at.
const QUIET: Duration = Duration::from_millis(250);
/// Longest rest of a message after its command failed, unless a longer one was asked for.
const RETRY_DELAY_MAX_MS: u64 = 300_000;

/// Runs the command until somebody asks for the end, or until nothing is left.
pub(super) async fn run(
    how: &Receive,
    command: &str,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let at_once = how.number.unwrap_or(1);
    if at_once > CALL_MESSAGES_MAX {
        return Err(Failure::Usage(format!(
            "a command gets at most {CALL_MESSAGES_MAX} messages, not {at_once}"
        )));
    }
    // Whether there is a cluster and a topic is told at once, and not after a long wait.
    let mut ready = how.ready(client).await?;
    let signals = Signals::listen()?;
    let at_once = usize::try_from(at_once).expect("at most a thousand");
    let mut work = Work {
        how,
        command,
        endpoints: client.endpoints(),
        at_once,
        is_json: output.format == Format::Json,
        signals,
        asked: Vec::new(),
        running: JoinSet::new(),
        groups: BTreeMap::new(),
        started: 0,
        tally: Tally::default(),
    };
    // What was on its way to a consumer that saw nothing for a while is ready again once that is closed: only a topic that
    // nobody consumes is known to be empty.
    let mut ended = Ok(());
    while ended.is_ok() && work.asked.is_empty() && (!how.all || ready > 0) {
        let mut consumer = how.consumer(client, at_once * usize::from(how.parallel))?;
        ended = work.consume(&mut consumer).await;
        let closed = work.close(consumer).await;
        ended = ended.and(closed);
        if how.all && ended.is_ok() {
            ready = how.ready(client).await?;
        }
    }
    work.report(ended, client).await
}

/// Commands at work.
struct Work<'a> {
    how: &'a Receive,
    command: &'a str,
    endpoints: &'a [String],
    /// Most messages of one command.
    at_once: usize,
    /// Commands read objects, not bodies.
    is_json: bool,
    signals: Signals,
    /// How often somebody asked for the end, and how.
    asked: Vec<Asked>,
    running: JoinSet<(u64, Settled)>,
    /// Processes of commands that run, by number of the command.
    groups: BTreeMap<u64, Pid>,
    /// Commands so far.
    started: u64,
    tally: Tally,
}

/// What became of messages.
#[derive(Clone, Copy, Default)]
struct Tally {
    acknowledged: u64,
    returned: u64,
    /// Done, and delivered again all the same.
    late: u64,
}

/// What became of one command's messages.
enum Settled {
    /// All of them are counted.
    Counted(Tally),
    /// Given back: nothing can work on them.
    CannotRun(String),
}

impl Work<'_> {
    /// Works on what comes, until somebody asks for the end, nothing comes any more, or nothing can be done.
    async fn consume(&mut self, consumer: &mut Consumer) -> Result<(), Failure> {
        let mut ended = Ok(());
        loop {
            let goes_on = self.asked.is_empty() && ended.is_ok();
            if !goes_on && self.running.is_empty() {
                return ended;
            }
            let has_room = goes_on && self.running.len() < usize::from(self.how.parallel);
            let may_be_done = self.how.all && goes_on && self.running.is_empty();
            tokio::select! {
                biased;
                asked = self.signals.next() => self.on_asked(asked),
                Some(done) = self.running.join_next() => {
                    let settled = self.on_settled(done);
                    ended = ended.and(settled);
                }
                received = consumer.receive_many(self.at_once), if has_room => match received {
                    Ok(deliveries) => self.start(deliveries),
                    Err(error) if error.is_passing() => {
                        eprintln!("warning: {}; still waiting", escaped(&error.text));
                    }
                    Err(error) => ended = Err(error.into()),
                },
                () = tokio::time::sleep(QUIET), if may_be_done => return ended,
            }
        }
    }

    /// Gives back what no command was started for. Whoever asks for the end once more does not wait for that.
    async fn close(&mut self, consumer: Consumer) -> Result<(), Failure> {
        tokio::select! {
            biased;
            closed = consumer.close() => Ok(closed?),
            asked = self.signals.next() => {
                self.asked.push(asked);
                Ok(())
            }
        }
    }

    /// The first time commands may finish, the second time they are asked to end, then they are ended.
    fn on_asked(&mut self, asked: Asked) {
        self.asked.push(asked);
        let signal = match self.asked.len() {
            1 => {
                let count = counted(self.running.len() as u64, "command");
                if asked == Asked::Interrupt && !self.running.is_empty() {
                    eprintln!("finishing {count}; Ctrl-C again stops what runs");
                }
                return;
            }
            2 => Signal::TERM,
            3 => Signal::KILL,
            // Only a cluster that does not answer can still be waited for. What is not settled comes again.
            _ => return self.running.abort_all(),
        };
        self.groups.values().for_each(|group| stop(*group, signal));
    }

    fn start(&mut self, deliveries: Vec<Delivery>) {
        let number = self.started;
        self.started += 1;
        let process = Process::start(self.job(&deliveries));
        if let Some(group) = process.as_ref().ok().and_then(Process::group) {
            self.groups.insert(number, group);
        }
        let retry_delay_ms = self.how.retry_delay;
        self.running.spawn(async move {
            let ended = match process {
                Ok(process) => process.wait().await,
                Err(error) => Err(error),
            };
            (number, settle(ended, deliveries, retry_delay_ms).await)
        });
    }

    fn job(&self, deliveries: &[Delivery]) -> Job {
        let known: Vec<&v1::Delivery> = deliveries.iter().map(|delivery| &**delivery).collect();
        let is_single = self.at_once == 1;
        let end: &'static [u8] = if self.how.null { b"\0" } else { b"\n" };
        let mut input = Vec::new();
        for delivery in &known {
            if self.is_json {
                input.push(Bytes::from(format!("{}\n", deliveries::json(delivery))));
                continue;
            }
            input.push(delivery.body.clone());
            input.extend((!is_single).then_some(Bytes::from_static(end)));
        }
        let environment = environment(&self.how.target.topic, self.endpoints, &known, is_single);
        Job { command: self.command.to_owned(), environment, input }
    }

    fn on_settled(&mut self, done: Result<(u64, Settled), tokio::task::JoinError>) -> Result<(), Failure> {
        let (number, settled) = done.map_err(|error| Failure::Failed(format!("a task ended: {error}")))?;
        self.groups.remove(&number);
        match settled {
            Settled::Counted(tally) => {
                self.tally.acknowledged += tally.acknowledged;
                self.tally.returned += tally.returned;
                self.tally.late += tally.late;
                Ok(())
            }
            Settled::CannotRun(why) => Err(Failure::Failed(format!(
                "the command cannot be run, and its messages are given back: {why}"
            ))),
        }
    }

    /// How it all ended.
    async fn report(&self, ended: Result<(), Failure>, client: &Client) -> Result<(), Failure> {
        let Tally { acknowledged, returned, late } = self.tally;
        if self.started > 0 {
            let late = if late > 0 { format!(", {late} too late") } else { String::new() };
            eprintln!("{} acknowledged, {returned} returned{late}", counted(acknowledged, "message"));
        }
        ended?;
        match self.asked.first() {
            Some(asked) => asked.ended(),
            None if self.started == 0 => Err(self.how.nothing(client).await),
            None if returned + late > 0 => Err(Failure::Failed(format!(
                "{} failed or came too late, and will be delivered again or is dead",
                counted(returned + late, "message")
            ))),
            None => Ok(()),
        }
    }
}

/// Acknowledges messages, returns them, or gives them back, as their command ended.
async fn settle(ended: io::Result<Ended>, deliveries: Vec<Delivery>, retry_delay_ms: u64) -> Settled {
    match ended {
        Ok(Ended::Done) => acknowledge(deliveries).await,
        Ok(Ended::Failed(why)) => give_back(deliveries, &why, retry_delay_ms).await,
        Ok(Ended::CannotRun(why)) => release(deliveries, why).await,
        Err(error) => release(deliveries, error.to_string()).await,
    }
}

async fn acknowledge(deliveries: Vec<Delivery>) -> Settled {
    let mut tally = Tally::default();
    let settling: Vec<_> = deliveries.into_iter().map(|delivery| (delivery.offset, delivery.ack())).collect();
    for (offset, settlement) in settling {
        match settlement.await {
            Ok(settled) if settled.is_done() => tally.acknowledged += 1,
            Ok(_) => {
                tally.late += 1;
                eprintln!("offset {offset}: done, but its lease had ended: it is delivered again");
            }
            Err(error) => {
                tally.late += 1;
                tell(offset, &error);
            }
        }
    }
    Settled::Counted(tally)
}

/// A failed attempt: the message rests, longer each time.
async fn give_back(deliveries: Vec<Delivery>, why: &str, retry_delay_ms: u64) -> Settled {
    let mut tally = Tally::default();
    let mut settling = Vec::new();
    for delivery in deliveries {
        let (offset, attempt) = (delivery.offset, u64::from(delivery.attempts) + 1);
        let delay = rest(retry_delay_ms, delivery.attempts);
        eprintln!(
            "offset {offset}, attempt {attempt}: {}; rests for {delay:?}, unless it is dead now",
            escaped(why)
        );
        settling.push((offset, delivery.nack(delay, why)));
    }
    for (offset, settlement) in settling {
        tally.returned += 1;
        // If the lease had ended, that was the failed attempt.
        if let Err(error) = settlement.await {
            tell(offset, &error);
        }
    }
    Settled::Counted(tally)
}

async fn release(deliveries: Vec<Delivery>, why: String) -> Settled {
    let settling: Vec<_> =
        deliveries.into_iter().map(|delivery| (delivery.offset, delivery.release())).collect();
    for (offset, settlement) in settling {
        if let Err(error) = settlement.await {
            tell(offset, &error);
        }
    }
    Settled::CannotRun(why)
}

fn tell(offset: u64, error: &Error) {
    eprintln!("offset {offset}: what was done could not be told to the cluster: {}", escaped(&error.text));
}

/// How long a message rests after so many failed attempts and one more.
fn rest(retry_delay_ms: u64, attempts: u32) -> Duration {
    let doubled = 1_u64.checked_shl(attempts).and_then(|times| retry_delay_ms.checked_mul(times));
    let most = RETRY_DELAY_MAX_MS.max(retry_delay_ms);
    Duration::from_millis(doubled.unwrap_or(most).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_rests_longer_after_each_attempt_and_never_for_too_long() {
        let seconds = |delay_ms, attempts| rest(delay_ms, attempts).as_secs_f64();
        assert_eq!(
            [0, 1, 2, 8, 9, 63, 64, u32::MAX].map(|attempts| seconds(1_000, attempts)),
            [1.0, 2.0, 4.0, 256.0, 300.0, 300.0, 300.0, 300.0]
        );
        assert_eq!([0, 5].map(|attempts| seconds(0, attempts)), [0.0, 0.0]);
        assert_eq!([0, 5].map(|attempts| seconds(600_000, attempts)), [600.0, 600.0]);
    }
}
