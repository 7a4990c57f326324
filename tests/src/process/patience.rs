//! How tests wait: for a state and not for a time, on a machine that may be slow. If the wait fails, it says what was
//! seen.

use super::{Answer, Cluster, Http};
use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long anything is waited for at most: far longer than it takes, so that a slow machine changes nothing, and a mistake
/// fails and does not hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of nodes that are to elect once and not again: a machine that does other work as well must not be taken for a
/// leader that is silent.
pub const CALM: [&str; 2] = ["--election-timeout-ms", "5000"];

/// How often what is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A number that the environment sets; `None` if it does not.
///
/// # Panics
/// If it is not such a number: a mistyped budget must not count as the default.
#[must_use]
pub fn env_number<N: FromStr>(name: &str) -> Option<N> {
    #[expect(clippy::disallowed_methods, reason = "tests take their budgets from the environment")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

/// Waits until `look` is `Ok`, and returns what is in it.
///
/// # Panics
/// If it is not within [`PATIENCE`]: with what the last look found instead, and with `logs`.
pub fn wait_for<T>(
    what: &str,
    logs: impl FnOnce() -> String,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if begun.elapsed() > PATIENCE => {
                panic!("it does not come to this: {what}; instead: {seen}\n{}", logs())
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// What a process left that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on its standard error.
    pub text: String,
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started, or runs on beyond [`PATIENCE`]: with what it said. It is killed.
pub fn run_to_end(command: &mut Command) -> Ended {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.expect("it can be started"));
    let mut said = running.0.stderr.take().expect("it was asked for");
    let listening = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = said.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let begun = Instant::now();
    loop {
        if let Some(status) = running.0.try_wait().expect("a child can be waited for") {
            return Ended { status, text: listening.join().expect("it only reads") };
        }
        if begun.elapsed() > PATIENCE {
            drop(running);
            panic!("{command:?} does not end:\n{}", listening.join().expect("it only reads"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cluster {
    /// A client of one node that waits as long as it takes, and tells the node so. For whatever is not about the second
    /// that a node and its clients give each other otherwise.
    #[must_use]
    pub fn patient(&self, node: usize) -> Http {
        self.http(node).with_deadline(PATIENCE)
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// If it is not within [`PATIENCE`].
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        self.wait_for(what, || if is_so() { Ok(()) } else { Err("not yet".to_owned()) });
    }

    /// Waits until `look` is `Ok`, and returns what is in it.
    ///
    /// # Panics
    /// If it is not within [`PATIENCE`]: with what the last look found instead.
    pub fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        wait_for(what, || self.logs(), look)
    }

    /// Waits until a node's series is there and its value is good.
    ///
    /// # Panics
    /// If it is not within [`PATIENCE`].
    pub fn reaches(&self, node: usize, series: &str, is_good: impl Fn(f64) -> bool) {
        self.wait_for(&format!("{series} of node {node}"), || {
            let value = self.try_metrics(node).and_then(|text| series_value(&text, series));
            value.filter(|value| is_good(*value)).map(drop).ok_or_else(|| format!("{value:?}"))
        });
    }

    /// Waits until somebody's log says something.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`].
    pub fn wait_for_log(&self, text: &str) {
        self.wait_until(&format!("a log says `{text}`"), || self.whole_logs().contains(text));
    }

    /// Makes a topic that is not there yet, whoever leads.
    ///
    /// # Panics
    /// If nobody makes it within [`PATIENCE`], or it is there already.
    pub fn make_topic(&self, topic: &str) {
        // An election may come between a call and its answer.
        let mut may_be_there = false;
        self.wait_for(&format!("the topic {topic}"), || {
            let node = (0..self.count()).find(|node| self.is_running(*node)).expect("a node runs");
            let answer = self.patient(node).create_topic(topic);
            match answer.as_ref().map(|answer| answer.code) {
                Ok(201) => return Ok(()),
                Ok(409) if may_be_there => return Ok(()),
                Ok(409) => panic!("{topic} was there: {answer:?}"),
                Ok(503) => {}
                _ => may_be_there = true,
            }
            Err(format!("{answer:?}"))
        });
    }

    /// Pops at a node until the answer is a message, or that there is none. A repeat has the same id, and so takes no
    /// more than once.
    ///
    /// # Panics
    /// If it is not answered within [`PATIENCE`].
    #[must_use]
    pub fn pop_until_answered(&self, node: usize, topic: &str, id: u128) -> Answer {
        self.wait_for(&format!("node {node} answers a pop"), || {
            match self.patient(node).with_request_id(id).pop(topic) {
                Ok(answer) if [200, 404].contains(&answer.code) => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Publishes a message at a node until it is acknowledged. After an unknown outcome it may be there twice.
    ///
    /// # Panics
    /// If it is not within [`PATIENCE`].
    pub fn publish_until_taken(&self, node: usize, topic: &str, message: &str) {
        self.wait_for(&format!("node {node} takes a message"), || {
            let answer = self.patient(node).publish(topic, message);
            let is_taken = answer.as_ref().is_ok_and(|answer| answer.code == 201);
            if is_taken { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }
}

/// The value of a series, such as `name` or `name{label="value"}`, in what a node tells Prometheus.
#[must_use]
pub fn series_value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}
