//! A `raftq up` beside a test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// `raftq up`; stopped as by Ctrl-C, with its nodes, when it is dropped.
#[derive(Debug)]
pub struct Up(Child);

impl Up {
    /// Starts it by this command, whose process it must be, and waits until its cluster serves. Returns what it said until then, line
    /// by line.
    ///
    /// # Panics
    /// It cannot be started, or says nothing for so long.
    #[must_use]
    pub fn start(command: &mut Command, patience: Duration) -> (Self, Vec<String>) {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let up = Self(child);
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(said.send(line))));
        let mut seen = Vec::new();
        loop {
            let line = heard.recv_timeout(patience);
            seen.push(line.unwrap_or_else(|_| panic!("{command:?} said only: {seen:#?}")));
            if seen.last().is_some_and(|line| line.starts_with("Ctrl-C")) {
                return (up, seen);
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
