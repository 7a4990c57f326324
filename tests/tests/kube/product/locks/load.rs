//! Clients that speak TLS, at work: one that goes on by the connection that it has, and one that makes a connection for each call.
//! No call of theirs may fail.

use crate::case::Room;
use crate::product::{BoxError, TOLD_WITHIN, soon};
use raftqueue_tests::kube::images::program_folder;
use raftqueue_tests::kube::namespace::Entrance;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The topic that they publish to.
pub(super) const TOPIC: &str = "load";
/// How long each rests after a message.
const REST: Duration = Duration::from_millis(50);
/// Calls between two changes.
const STRIDE: usize = 10;
/// How long a call of `raftq` may take, with the repeats that it makes by itself.
const CALL_WITHIN: &str = "20s";

/// What a client of the case knows: where nodes are, whom it trusts, and what it shows.
#[derive(Clone)]
pub(super) struct Known {
    entrance: Entrance,
    /// The domain beneath which each node has its name.
    pub(super) domain: String,
    /// The file of authorities.
    pub(super) trust: PathBuf,
    /// The file of a token.
    token: Option<PathBuf>,
}

impl Known {
    /// Of the cluster `demo` of a case.
    pub(super) fn of(room: &Room<'_>, trust: PathBuf, token: Option<PathBuf>) -> Self {
        let domain = format!("demo-headless.{}.svc", room.namespace);
        Self { entrance: room.own().entrance().clone(), domain, trust, token }
    }

    /// `raftq`, that knows all nodes.
    pub(super) fn raftq(&self, words: &[&str]) -> Command {
        let mut command = self.entrance.in_network_with_names(program_folder().join("raftq"));
        let nodes: Vec<String> = (0..3).map(|node| format!("demo-{node}.{}", self.domain)).collect();
        command.args(["--timeout", CALL_WITHIN, "--endpoints", &nodes.join(",")]);
        command.arg("--ca-file").arg(&self.trust);
        if let Some(token) = &self.token {
            command.arg("--token-file").arg(token);
        }
        command.args(words);
        command
    }

    /// `curl`, that trusts the same authorities. Its output ends with a line of the status code.
    pub(super) fn curl(&self, words: &[&str]) -> Command {
        let mut command = self.entrance.in_network_with_names("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]);
        command.arg("--cacert").arg(&self.trust).args(words);
        command
    }
}

/// What a command has said, whatever that is.
pub(super) fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

/// How the second client makes its calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// By `raftq`, which repeats a call that a restarting node cuts off.
    Repeated,
    /// By `curl`, which repeats nothing: for changes in which no node restarts.
    Once,
}

type Work = JoinHandle<Result<Vec<String>, String>>;

/// Both clients.
pub(super) struct TlsLoad {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    known: Known,
    work: Vec<Work>,
}

impl TlsLoad {
    /// Starts them; the topic is there.
    pub(super) fn start(known: &Known, calls: Calls) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stream_stop, of_stream) = (Arc::clone(&stop), known.clone());
        let stream = std::thread::spawn(move || stream(&of_stream, &stream_stop));
        let (calls_stop, calls_count, of_calls) = (Arc::clone(&stop), Arc::clone(&count), known.clone());
        let single = std::thread::spawn(move || single(&of_calls, calls, &calls_stop, &calls_count));
        Self { stop, calls: count, known: known.clone(), work: vec![stream, single] }
    }

    /// Waits until calls have succeeded that were begun after this was asked.
    ///
    /// # Errors
    /// A call has failed.
    pub(super) fn go_on(&self) -> Result<(), BoxError> {
        let enough = self.calls.load(Ordering::Relaxed) + STRIDE;
        let failed = soon("calls by TLS", TOLD_WITHIN, || {
            let calls = self.calls.load(Ordering::Relaxed);
            let has_failed = self.work.iter().any(JoinHandle::is_finished);
            (has_failed || calls >= enough).then_some(has_failed).ok_or(format!("{calls} of {enough}"))
        })?;
        if failed { Err("a client that speaks TLS has ended early: see its end".into()) } else { Ok(()) }
    }

    /// Ends both, takes everything out of the topic, and returns how many messages that were: each that was acknowledged, once, and in
    /// the order of its client.
    ///
    /// # Errors
    /// A call has failed, or a message is lost, comes twice or too late.
    pub(super) fn finish(self) -> Result<usize, BoxError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for work in self.work {
            sent.push(work.join().map_err(|_| "a client panicked")??);
        }
        let count: usize = sent.iter().map(Vec::len).sum();
        let wanted = (count + 1).to_string();
        let taken = self.known.raftq(&["receive", TOPIC, "-n", &wanted, "--wait", "1s", "--ack"]).output()?;
        if !taken.status.success() {
            return Err(said(&taken).into());
        }
        let taken = String::from_utf8_lossy(&taken.stdout).into_owned();
        for (client, sent) in ["stream", "single"].into_iter().zip(&sent) {
            let taken: Vec<&str> = taken.lines().filter(|message| message.starts_with(client)).collect();
            if taken != *sent {
                let at = taken.iter().zip(sent).position(|(taken, sent)| taken != sent);
                let (came, went) = (taken.len(), sent.len());
                return Err(
                    format!("{client}: {came} came of {went}, the first other one is at {at:?}").into()
                );
            }
        }
        Ok(count)
    }
}

/// One process that publishes line by line until the end.
fn stream(known: &Known, stop: &AtomicBool) -> Result<Vec<String>, String> {
    let strange = |error: std::io::Error| error.to_string();
    let mut command = known.raftq(&["publish", TOPIC, "--file", "-", "--batch", "1"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(strange)?;
    let mut lines = child.stdin.take().ok_or("it has an input")?;
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let message = format!("stream-{:06}", sent.len());
        // One that has ended says why.
        if writeln!(lines, "{message}").and_then(|()| lines.flush()).is_err() {
            break;
        }
        sent.push(message);
        std::thread::sleep(REST);
    }
    drop(lines);
    let output = child.wait_with_output().map_err(strange)?;
    let is_whole = output.status.success() && stop.load(Ordering::Relaxed);
    if is_whole { Ok(sent) } else { Err(format!("after {} messages: {}", sent.len(), said(&output))) }
}

/// A process, and a connection, for each message.
fn single(
    known: &Known,
    calls: Calls,
    stop: &AtomicBool,
    count: &AtomicUsize,
) -> Result<Vec<String>, String> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let message = format!("single-{:06}", sent.len());
        let (mut command, is_ok): (_, fn(&Output) -> bool) = match calls {
            Calls::Repeated => (known.raftq(&["publish", TOPIC, &message]), |output| output.status.success()),
            Calls::Once => {
                let node = sent.len() % 3;
                let url = format!("https://demo-{node}.{}:7420/v1/topics/{TOPIC}/publish", known.domain);
                let body = format!(r#"{{"messages": [{{"body": "{message}"}}]}}"#);
                (known.curl(&["-d", &body, &url]), |output| output.stdout.ends_with(b"\n200"))
            }
        };
        let output = command.output().map_err(|error| error.to_string())?;
        if !is_ok(&output) {
            return Err(format!("{message}: {}", said(&output)));
        }
        sent.push(message);
        count.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(REST);
    }
    Ok(sent)
}
