//! An example program while it runs: what it is given, and what it says.

use raftqueue_tests::process::{Cluster, Running, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines, as they come.
type Lines = Arc<Mutex<Vec<String>>>;

/// It is killed when this is dropped.
pub(super) struct Program {
    running: Running,
    said: Lines,
    noted: Lines,
}

/// What a program said until it ended.
#[derive(Debug)]
pub(super) struct Said {
    /// It ended well.
    pub(super) is_well: bool,
    /// On its standard output.
    pub(super) lines: Vec<String>,
    /// On its standard error.
    pub(super) notes: Vec<String>,
}

impl Program {
    /// Starts a program with all that it will ever be given.
    pub(super) fn start(program: &Path, endpoints: &[u16], arguments: &[&str], input: &str) -> Self {
        let endpoints: Vec<String> = endpoints.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut child = Command::new(program)
            .args(arguments)
            .env("RAFTQ_ENDPOINTS", endpoints.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut stdin = child.stdin.take().expect("it is piped");
        let said = listen(child.stdout.take().expect("it is piped"));
        let noted = listen(child.stderr.take().expect("it is piped"));
        let input = input.to_owned();
        // It may end before it has read everything.
        std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        Self { running: Running(child), said, noted }
    }

    /// What it has noted so far.
    pub(super) fn notes(&self) -> String {
        format!("{:#?}", taken(&self.noted))
    }

    /// Waits for its end.
    pub(super) fn end(mut self, cluster: &Cluster) -> Said {
        let notes = || format!("{:#?}\n{}", taken(&self.noted), cluster.logs());
        let child = &mut self.running.0;
        let status = wait_for("the program ends", notes, || {
            let ended = child.try_wait().expect("a child can be waited for");
            ended.ok_or_else(|| format!("it has said {:#?}", taken(&self.said).last()))
        });
        // Who listens holds the lines, too, until there are no more.
        for lines in [&self.said, &self.noted] {
            wait_for("everything is heard", String::new, || {
                (Arc::strong_count(lines) == 1).then_some(()).ok_or_else(|| "there is more".to_owned())
            });
        }
        Said { is_well: status.success(), lines: taken(&self.said), notes: taken(&self.noted) }
    }
}

fn taken(lines: &Lines) -> Vec<String> {
    lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn listen(from: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let into = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    lines
}
