//! Producers that go on, whatever happens to the nodes, and an account of the answers that they got.

use super::{Http, PATIENCE, Unanswered};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A status page must come within this, also without quorum.
const STATUS_MAX: Duration = Duration::from_millis(100);

/// Producers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    account: Arc<Mutex<Account>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Account {
    acknowledged: BTreeSet<String>,
    unknown: BTreeSet<String>,
    refused: usize,
    /// Longest time between two acknowledged messages of one producer.
    longest_gap: Duration,
    /// What it was told meanwhile.
    told_in_gap: Vec<Told>,
    /// When the last message of anybody was acknowledged.
    last: Option<Instant>,
    longest_pause: Duration,
    longest_pause_ever: Duration,
    statuses: usize,
    slow_statuses: Vec<Duration>,
}

/// What the producers were told, and what was there in the end.
#[derive(Debug)]
pub struct Report {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Messages of unknown outcome.
    pub unknown: usize,
    /// Messages that were refused.
    pub refused: usize,
    /// Longest time between two acknowledged messages of one producer.
    pub longest_gap: Duration,
    /// What it was told meanwhile.
    pub told_in_gap: Vec<Told>,
    /// Longest time in which no message of anybody was acknowledged.
    pub longest_pause: Duration,
    /// Status pages asked for.
    pub statuses: usize,
    /// Those that took longer than they may.
    pub slow_statuses: Vec<Duration>,
}

/// What a producer was told by one call.
#[derive(Clone, Debug)]
pub struct Told {
    /// The code of the answer, or why there is none.
    pub code: Result<u16, Unanswered>,
    /// How long that took.
    pub took: Duration,
}

/// So many answers of a gap are kept.
const TOLD_MAX: usize = 20;

impl Report {
    /// The longest time between two acknowledged messages of one producer, and what it was told meanwhile.
    #[must_use]
    pub fn gap(&self) -> String {
        let told = self.told_in_gap.iter().map(|told| match told.code {
            Ok(code) => format!("{code} after {:.2?}", told.took),
            Err(unanswered) => format!("{unanswered:?} after {:.2?}", told.took),
        });
        format!("{:.2?} ({})", self.longest_gap, told.collect::<Vec<_>>().join(", "))
    }
}

impl Load {
    /// Starts `producers` producers, each of which goes round the nodes, and one that asks every running node for its
    /// status.
    #[must_use]
    pub fn start(topic: &str, producers: usize, nodes: &[Http]) -> Self {
        Self::start_gently(topic, producers, nodes, Duration::ZERO)
    }

    /// The same with producers that rest after each message, for what takes minutes: all of it is taken out in the end.
    #[must_use]
    pub fn start_gently(topic: &str, producers: usize, nodes: &[Http], rest: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let account = Arc::new(Mutex::new(Account::default()));
        let mut threads = Vec::new();
        for producer in 0..producers {
            let (stop, account, nodes, topic) =
                (Arc::clone(&stop), Arc::clone(&account), nodes.to_vec(), topic.to_owned());
            threads
                .push(std::thread::spawn(move || produce(producer, &topic, &nodes, rest, &stop, &account)));
        }
        let (stop_watching, shared, nodes) = (Arc::clone(&stop), Arc::clone(&account), nodes.to_vec());
        threads.push(std::thread::spawn(move || watch(&nodes, &stop_watching, &shared)));
        Self { stop, account, threads }
    }

    /// How many messages are acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        lock(&self.account).acknowledged.len()
    }

    /// The longest time without an acknowledgement since this was asked last.
    #[must_use]
    pub fn take_pause(&self) -> Duration {
        let mut account = lock(&self.account);
        account.longest_pause_ever = account.longest_pause_ever.max(account.longest_pause);
        std::mem::take(&mut account.longest_pause)
    }

    /// Stops the producers, takes every message out of the topic and checks: nothing acknowledged is lost, nothing comes
    /// twice, nothing comes that was not sent, and every producer's messages come in its order.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn finish(self, topic: &str, nodes: &[Http]) -> Result<Report, String> {
        self.finish_with(topic, nodes, false)
    }

    /// The same where the machine has far too much to do: a call that got no answer in time may still be done when its client has
    /// long sent the next one. Whatever was acknowledged comes in order all the same.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn finish_late(self, topic: &str, nodes: &[Http]) -> Result<Report, String> {
        self.finish_with(topic, nodes, true)
    }

    fn finish_with(self, topic: &str, nodes: &[Http], may_be_late: bool) -> Result<Report, String> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a producer panicked".to_owned())?;
        }
        let account = std::mem::take(&mut *lock(&self.account));
        let popped = drain(topic, nodes)?;
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for message in &popped {
            if !seen.insert(message) {
                return Err(format!("{message} came twice"));
            }
            if !account.acknowledged.contains(message) && !account.unknown.contains(message) {
                return Err(format!("{message} was never sent, or refused"));
            }
            let (producer, number) =
                message.split_once('-').ok_or_else(|| format!("{message} is not one of ours"))?;
            let number: usize = number.parse().map_err(|_| format!("{message} is not one of ours"))?;
            let before = last.get(producer).copied();
            if let Some(before) = before.filter(|before| *before >= number) {
                let is_unknown = account.unknown.contains(message);
                if is_unknown && may_be_late {
                    continue;
                }
                let outcome = if is_unknown { "of unknown outcome" } else { "acknowledged" };
                return Err(format!("{message}, {outcome}, came after number {before} of its producer"));
            }
            last.insert(producer, number);
        }
        let lost: Vec<&String> =
            account.acknowledged.iter().filter(|message| !seen.contains(message)).collect();
        if !lost.is_empty() {
            return Err(format!("{} acknowledged messages are lost, the first is {}", lost.len(), lost[0]));
        }
        Ok(Report {
            acknowledged: account.acknowledged.len(),
            unknown: account.unknown.len(),
            refused: account.refused,
            longest_gap: account.longest_gap,
            told_in_gap: account.told_in_gap,
            longest_pause: account.longest_pause.max(account.longest_pause_ever),
            statuses: account.statuses,
            slow_statuses: account.slow_statuses,
        })
    }
}

fn lock(account: &Mutex<Account>) -> std::sync::MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

fn produce(
    producer: usize,
    topic: &str,
    nodes: &[Http],
    rest: Duration,
    stop: &AtomicBool,
    account: &Mutex<Account>,
) {
    let mut number = 0;
    let (mut last, mut told) = (Instant::now(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(rest);
        let message = format!("{producer}-{number:07}");
        let node = nodes[(producer + number) % nodes.len()];
        number += 1;
        let begun = Instant::now();
        let code = node.publish(topic, &message).map(|answer| answer.code);
        if told.len() < TOLD_MAX {
            told.push(Told { code, took: begun.elapsed() });
        }
        let mut account = lock(account);
        match code {
            Ok(201) => {
                let now = Instant::now();
                let told = std::mem::take(&mut told);
                if now - last > account.longest_gap {
                    (account.longest_gap, account.told_in_gap) = (now - last, told);
                }
                last = now;
                let pause = account.last.replace(now).map_or(Duration::ZERO, |before| now - before);
                account.longest_pause = account.longest_pause.max(pause);
                account.acknowledged.insert(message);
            }
            Ok(503 | 429) => account.refused += 1,
            Err(Unanswered::Refused | Unanswered::Unreachable(_)) => {
                drop(account);
                std::thread::yield_now();
            }
            Ok(_) | Err(Unanswered::Unknown) => {
                account.unknown.insert(message);
            }
        }
    }
}

fn watch(nodes: &[Http], stop: &AtomicBool, account: &Mutex<Account>) {
    while !stop.load(Ordering::Relaxed) {
        for node in nodes {
            let begun = Instant::now();
            if node.status().is_ok() {
                let took = begun.elapsed();
                let mut account = lock(account);
                account.statuses += 1;
                if took > STATUS_MAX {
                    account.slow_statuses.push(took);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes everything out of a topic, at any node, until it is empty. A pop that is repeated, because an election came
/// between it and its answer, gives the same message again.
fn drain(topic: &str, nodes: &[Http]) -> Result<Vec<String>, String> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let mut popped = Vec::new();
    let (mut id, mut since) = (NEXT_ID.fetch_add(1, Ordering::Relaxed), Instant::now());
    for node in nodes.iter().cycle() {
        match node.with_deadline(PATIENCE).with_request_id(id.into()).pop(topic) {
            Ok(answer) if answer.code == 200 => {
                popped.push(answer.body["message"].as_str().ok_or("a message that is no string")?.to_owned());
                (id, since) = (NEXT_ID.fetch_add(1, Ordering::Relaxed), Instant::now());
            }
            Ok(answer) if answer.code == 404 => return Ok(popped),
            Ok(answer) if [503, 504].contains(&answer.code) && since.elapsed() < PATIENCE => {}
            // It was just started and does not listen yet, or has just gone.
            Err(why @ (Unanswered::Refused | Unanswered::Unreachable(_))) if since.elapsed() < PATIENCE => {
                if why != Unanswered::Refused {
                    eprintln!(
                        "no connection for pop {} after {:.1?}: {why:?}",
                        popped.len(),
                        since.elapsed()
                    );
                }
                std::thread::yield_now();
            }
            other => return Err(format!("pop {} failed: {other:?}", popped.len())),
        }
    }
    Err("there are no nodes".to_owned())
}
