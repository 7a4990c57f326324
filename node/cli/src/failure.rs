//! What a command that fails says, and which code it returns.

use crate::text::escaped;
use raftqueue_client::{Error, Outcome, v1};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// A command that failed: one variant for each exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Refused or failed. Code 1.
    Failed(String),
    /// The arguments contradict each other or a value makes no sense. Code 2.
    Usage(String),
    /// No such topic: refused. Code 1.
    NoTopic(String),
    /// There was nothing to give. Code 3; the text says of what.
    Nothing(String),
    /// It may have been done. Code 4. What went wrong, and what nobody knows now.
    Unknown { text: String, doubt: &'static str },
    /// The reader of the results has gone, as `head` does. Code 1; nobody is left to be told.
    ReaderGone,
    /// Ended by Ctrl-C, and all that was begun is done or given back. Code 130; who pressed it knows.
    Interrupted,
}

/// What nobody knows of a call without an answer, where nothing better can be said.
const DOUBT: &str = "it may have been done all the same";

impl Failure {
    /// Something of which nobody knows whether it was done.
    pub(crate) fn unknown(text: impl Into<String>) -> Self {
        Failure::Unknown { text: text.into(), doubt: DOUBT }
    }

    /// The same failure; if it is of unknown outcome, in better words.
    pub(crate) fn doubting(self, doubt: &'static str) -> Self {
        match self {
            Failure::Unknown { text, .. } => Failure::Unknown { text, doubt },
            other => other,
        }
    }

    /// No node runs where one was looked for.
    pub(crate) fn no_cluster(endpoints: &[String]) -> Self {
        Failure::Failed(no_cluster(endpoints))
    }

    /// Tells people by a text what happened, and scripts by the code.
    pub(crate) fn report(&self) -> ExitCode {
        let (code, text) = match self {
            Failure::Failed(text) => (1, Some(text.clone())),
            Failure::Usage(text) => (2, Some(text.clone())),
            Failure::NoTopic(text) => (1, Some(text.clone())),
            Failure::Nothing(text) => {
                eprintln!("{}", escaped(text));
                (3, None)
            }
            Failure::Interrupted => (130, None),
            Failure::Unknown { text, doubt } => (4, Some(format!("{text} ({doubt})"))),
            Failure::ReaderGone => (1, None),
        };
        if let Some(text) = text {
            let is_colourful = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let label = if is_colourful { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
            eprintln!("{label} {}", lines(&text));
        }
        ExitCode::from(code)
    }

    /// The same failure, with what was done before in front of what went wrong.
    pub(crate) fn within(self, context: impl Display) -> Self {
        match self {
            Failure::Failed(text) => Failure::Failed(format!("{context}: {text}")),
            Failure::Usage(text) => Failure::Usage(format!("{context}: {text}")),
            Failure::Unknown { text, doubt } => {
                Failure::Unknown { text: format!("{context}: {text}"), doubt }
            }
            Failure::NoTopic(text) => Failure::NoTopic(format!("{context}: {text}")),
            Failure::Nothing(_) | Failure::ReaderGone | Failure::Interrupted => self,
        }
    }
}

/// Text of one line or several, each harmless to a terminal.
fn lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// That no node runs where one was looked for, and what to do.
fn no_cluster(endpoints: &[String]) -> String {
    let is_here =
        |endpoint: &String| ["127.", "localhost:", "[::1]:"].iter().any(|own| endpoint.starts_with(own));
    let remedy = match endpoints.iter().all(is_here) {
        true => "start one with raftq up, or say where it is: --endpoints, RAFTQ_ENDPOINTS",
        false => "is that the right place? --endpoints, RAFTQ_ENDPOINTS or a context say it",
    };
    format!("no cluster at {}; {remedy}", endpoints.join(", "))
}

/// What was wrong at an endpoint, for a place where the endpoint itself stands already. An error of a connection names it.
pub(crate) fn beside<'a>(endpoint: &str, error: &'a str) -> &'a str {
    error.strip_prefix(endpoint).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(error)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Some(endpoints) = error.refused_at() {
            return Failure::no_cluster(endpoints);
        }
        let text = match error.reason {
            v1::Reason::Unspecified => error.text,
            reason => format!("{}: {}", reason.as_str_name().trim_start_matches("REASON_"), error.text),
        };
        match error.outcome {
            Outcome::NotDone if error.reason == v1::Reason::TopicNotFound => Failure::NoTopic(text),
            Outcome::NotDone => Failure::Failed(text),
            // Who has to find out what became of it finds it in the logs by this.
            Outcome::Unknown => Failure::unknown(match error.trace_id {
                Some(trace_id) => format!("{text} [trace {trace_id}]"),
                None => text,
            }),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_not_said_twice() {
        for (error, said) in [
            ("h:1: Connection refused", "Connection refused"),
            ("no answer in time", "no answer in time"),
            ("h:10: Connection refused", "h:10: Connection refused"),
        ] {
            assert_eq!(beside("h:1", error), said);
        }
    }

    #[test]
    fn whoever_finds_no_cluster_is_told_where_and_what_to_do() {
        let said =
            |endpoints: &[&str]| no_cluster(&endpoints.iter().map(|&at| at.to_owned()).collect::<Vec<_>>());
        let here = said(&["127.0.0.1:7420", "localhost:7430"]);
        assert!(
            here.starts_with("no cluster at 127.0.0.1:7420, localhost:7430; start one with raftq up"),
            "{here}"
        );
        assert!(!said(&["127.0.0.1:7420", "queue:7420"]).contains("raftq up"), "it is not of this machine");
    }

    #[test]
    fn what_is_said_has_its_lines_and_moves_no_cursor() {
        assert_eq!(lines("one\ntwo\x1b[2J"), "one\ntwo\\u{1b}[2J");
    }
}
