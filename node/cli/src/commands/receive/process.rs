//! One run of the command that works on messages.

use bytes::Bytes;
use raftqueue_client::v1;
use raftqueue_proto::text::hex;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;

/// Longest last line of standard error that is kept, in bytes; a reason holds less.
const LINE_BYTES_MAX: usize = 512;
/// How long to read on what a command said, once it has ended: something that it started may still hold its end.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// What shells return if a command cannot be run, and if there is none of this name.
const CANNOT_RUN: [i32; 2] = [126, 127];

/// What a command gets.
pub(super) struct Job {
    pub(super) command: String,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) input: Vec<Bytes>,
}

/// A command that runs.
pub(super) struct Process {
    child: Child,
    input: Vec<Bytes>,
    /// Its process group: Ctrl-C on the terminal does not reach it.
    group: Option<Pid>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Exit code 0.
    Done,
    /// Any other end, and why.
    Failed(String),
    /// The shell could not run it: no message is to blame.
    CannotRun(String),
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// The system starts no process.
    pub(super) fn start(job: Job) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(job.command).envs(job.environment);
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, input: job.input, group })
    }

    /// The group to send signals to.
    pub(super) fn group(&self) -> Option<Pid> {
        self.group
    }

    /// Gives it its input, passes on what it says, and waits for its end.
    pub(super) async fn wait(mut self) -> io::Result<Ended> {
        let (stdin, stderr) = (self.child.stdin.take(), self.child.stderr.take());
        let input = std::mem::take(&mut self.input);
        let feeding = tokio::spawn(async move {
            if let Some(stdin) = stdin {
                feed(stdin, input).await;
            }
        });
        let mut listening = tokio::spawn(async move {
            let mut last = LastLine::default();
            if let Some(stderr) = stderr {
                pass_on(stderr, &mut last).await;
            }
            last.text()
        });
        let status = self.child.wait().await?;
        // What it did not read it did not want.
        feeding.abort();
        let last = timeout(LAST_WORDS_MAX, &mut listening).await.ok().and_then(Result::ok);
        listening.abort();
        Ok(Ended::of(status, &last.unwrap_or_default()))
    }
}

/// Asks all processes of a group to end. It may have ended already.
pub(super) fn stop(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// A command need not read all.
async fn feed(mut stdin: ChildStdin, input: Vec<Bytes>) {
    for bytes in input {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn pass_on(mut stderr: ChildStderr, last: &mut LastLine) {
    let mut buffer = [0; 4_096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        last.read(&buffer[..count]);
        // Nobody may be there to read it.
        let _ = io::stderr().write_all(&buffer[..count]);
    }
}

impl Ended {
    fn of(status: ExitStatus, last: &str) -> Self {
        let why = match (status.code(), status.signal()) {
            (Some(0), _) => return Ended::Done,
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        let text = if last.is_empty() { why } else { format!("{why}: {last}") };
        match status.code() {
            Some(code) if CANNOT_RUN.contains(&code) => Ended::CannotRun(text),
            _ => Ended::Failed(text),
        }
    }
}

/// The last line of what was read that is not blank; only its beginning if it is long.
#[derive(Default)]
struct LastLine {
    whole: Vec<u8>,
    begun: Vec<u8>,
}

impl LastLine {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.begun.trim_ascii().is_empty() => self.begun.clear(),
                b'\n' => self.whole = std::mem::take(&mut self.begun),
                byte if self.begun.len() < LINE_BYTES_MAX => self.begun.push(*byte),
                _ => {}
            }
        }
    }

    fn text(&self) -> String {
        let last = if self.begun.trim_ascii().is_empty() { &self.whole } else { &self.begun };
        String::from_utf8_lossy(last.trim_ascii()).into_owned()
    }
}

/// What a command knows of the messages that it gets. `is_single`: it never gets more than one.
pub(super) fn environment(
    topic: &str,
    endpoints: &[String],
    deliveries: &[&v1::Delivery],
    is_single: bool,
) -> Vec<(OsString, OsString)> {
    let mut all: VecDeque<(String, OsString)> = VecDeque::new();
    let mut set = |name: &str, value: &[u8]| {
        // No variable can hold a NUL byte; a value with one is in the JSON of --output json.
        if !value.contains(&0) {
            all.push_back((format!("RAFTQ_{name}"), OsStr::from_bytes(value).to_owned()));
        }
    };
    set("TOPIC", topic.as_bytes());
    set("COUNT", deliveries.len().to_string().as_bytes());
    set("ENDPOINTS", endpoints.join(",").as_bytes());
    match deliveries {
        [delivery] if is_single => of_one(delivery, &mut set),
        _ => {
            let joined = |value: &dyn Fn(&v1::Delivery) -> String| {
                deliveries.iter().map(|delivery| value(delivery)).collect::<Vec<_>>().join(" ")
            };
            set("OFFSETS", joined(&|delivery| delivery.offset.to_string()).as_bytes());
            set("LEASES", joined(&|delivery| hex(&delivery.lease)).as_bytes());
        }
    }
    all.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn of_one(delivery: &v1::Delivery, set: &mut impl FnMut(&str, &[u8])) {
    set("OFFSET", delivery.offset.to_string().as_bytes());
    set("ID", hex(&delivery.id).as_bytes());
    set("DELIVERY", (u64::from(delivery.attempts) + 1).to_string().as_bytes());
    set("LEASE", hex(&delivery.lease).as_bytes());
    set("PUBLISHED_MS", delivery.published_ms.to_string().as_bytes());
    if !delivery.key.is_empty() {
        set("KEY", &delivery.key);
    }
    let json = crate::commands::deliveries::json(delivery);
    let headers = json.get("headers").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    set("HEADERS", headers.to_string().as_bytes());
    for header in &delivery.headers {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = header.name.chars().map(letter).collect();
        set(&format!("HEADER_{name}"), &header.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(reads: &[&str]) -> String {
        let mut last = LastLine::default();
        reads.iter().for_each(|read| last.read(read.as_bytes()));
        last.text()
    }

    #[test]
    fn the_last_line_that_says_something_is_the_reason() {
        assert_eq!(last(&[]), "");
        assert_eq!(last(&["one\ntwo\n"]), "two");
        assert_eq!(last(&["one\ntw", "o"]), "two");
        assert_eq!(last(&["one\n\n  \n"]), "one");
        assert_eq!(last(&["one\r\n", "\n"]), "one");
        assert_eq!(last(&[&"x".repeat(10_000)]).len(), LINE_BYTES_MAX);
    }

    fn delivery() -> v1::Delivery {
        let header = |name: &str, value: &'static [u8]| v1::Header { name: name.into(), value: value.into() };
        v1::Delivery {
            offset: 7,
            attempts: 2,
            key: "k".into(),
            lease: vec![1, 0xab].into(),
            headers: vec![header("trace-id", b"t"), header("bad", b"\0"), header("größe", b"\xff")],
            ..v1::Delivery::default()
        }
    }

    #[test]
    fn a_command_knows_its_message() {
        let delivery = delivery();
        let all = environment("orders", &["h:1".into(), "h:2".into()], &[&delivery], true);
        let value = |name: &str| {
            let found = all.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_bytes().to_vec()).map(|value| value.escape_ascii().to_string())
        };
        for (name, expected) in [
            ("RAFTQ_TOPIC", Some("orders")),
            ("RAFTQ_COUNT", Some("1")),
            ("RAFTQ_ENDPOINTS", Some("h:1,h:2")),
            ("RAFTQ_OFFSET", Some("7")),
            ("RAFTQ_DELIVERY", Some("3")),
            ("RAFTQ_LEASE", Some("01ab")),
            ("RAFTQ_KEY", Some("k")),
            ("RAFTQ_HEADER_TRACE_ID", Some("t")),
            ("RAFTQ_HEADER_GR__E", Some(r"\xff")),
            ("RAFTQ_HEADER_BAD", None),
            ("RAFTQ_OFFSETS", None),
        ] {
            assert_eq!(value(name).as_deref(), expected, "{name}");
        }
        let headers = value("RAFTQ_HEADERS").expect("always there").replace('\\', "");
        assert!(headers.contains(r#""name":"trace-id","value":"t""#), "{headers}");
    }

    #[test]
    fn a_command_for_several_messages_knows_all_of_them() {
        let (one, mut other) = (delivery(), delivery());
        other.offset = 9;
        let all = environment("orders", &[], &[&one, &other], false);
        let value = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        assert_eq!(value("RAFTQ_OFFSETS"), Some("7 9".into()));
        assert_eq!(value("RAFTQ_LEASES"), Some("01ab 01ab".into()));
        assert_eq!(value("RAFTQ_OFFSET"), None);
        let all = environment("orders", &[], &[&one], false);
        assert!(all.contains(&("RAFTQ_OFFSETS".into(), "7".into())), "one that came alone looks the same");
    }
}
