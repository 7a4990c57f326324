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
    /// There was nothing to give. Code 3; only the code says so.
    Nothing,
    /// It may have been done. Code 4.
    Unknown(String),
    /// The reader of the results has gone, as `head` does. Code 1; nobody is left to be told.
    ReaderGone,
}

impl Failure {
    /// Tells people by a text what happened, and scripts by the code.
    pub(crate) fn report(&self) -> ExitCode {
        let (code, text) = match self {
            Failure::Failed(text) => (1, Some(text.clone())),
            Failure::Usage(text) => (2, Some(text.clone())),
            Failure::Nothing => (3, None),
            Failure::Unknown(text) => (4, Some(format!("{text} (it may have been done all the same)"))),
            Failure::ReaderGone => (1, None),
        };
        if let Some(text) = text {
            let is_colourful = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let label = if is_colourful { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
            eprintln!("{label} {}", escaped(&text));
        }
        ExitCode::from(code)
    }

    /// The same failure, with what was done before in front of what went wrong.
    pub(crate) fn within(self, context: impl Display) -> Self {
        match self {
            Failure::Failed(text) => Failure::Failed(format!("{context}: {text}")),
            Failure::Usage(text) => Failure::Usage(format!("{context}: {text}")),
            Failure::Unknown(text) => Failure::Unknown(format!("{context}: {text}")),
            Failure::Nothing | Failure::ReaderGone => self,
        }
    }
}

/// What was wrong at an endpoint, for a place where the endpoint itself stands already. An error of a connection names it.
pub(crate) fn beside<'a>(endpoint: &str, error: &'a str) -> &'a str {
    error.strip_prefix(endpoint).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(error)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = match error.reason {
            v1::Reason::Unspecified => error.text,
            reason => format!("{}: {}", reason.as_str_name().trim_start_matches("REASON_"), error.text),
        };
        match error.outcome {
            Outcome::NotDone => Failure::Failed(text),
            // Who has to find out what became of it finds it in the logs by this.
            Outcome::Unknown => Failure::Unknown(match error.trace_id {
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
}
