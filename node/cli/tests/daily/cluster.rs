//! A real `raftq up`, and commands beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far longer than anything takes: a mistake fails, and does not hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// `raftq up` with one node, in a folder of its own; stopped when it is dropped.
pub(crate) struct Cluster {
    folder: TempDir,
    endpoint: String,
    up: Running,
    _reserved: UdpSocket,
}

/// What a command left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Ran {
    /// What was printed by a command that did what it should.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    pub(crate) fn json(self) -> Vec<serde_json::Value> {
        self.done().lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
    }

    /// Checks the code, and that what was said names all of this.
    pub(crate) fn says(self, code: i32, named: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        named.iter().for_each(|named| assert!(self.error.contains(named), "{named} is not named: {self:?}"));
        self
    }
}

/// A command that runs; killed when it is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = heard(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// The next line that it prints.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it prints a line")
    }

    /// Types something into it.
    pub(crate) fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads");
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Ends its input, and waits for its end. What it printed since the last line that was asked for is in `out`.
    pub(crate) fn end(mut self) -> Ran {
        drop(self.child.stdin.take());
        self.end_by_itself()
    }

    /// The same, and its input stays open.
    pub(crate) fn end_by_itself(mut self) -> Ran {
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("it is ours") {
                Some(status) => break status,
                None if begun.elapsed() > PATIENCE => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut error = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut error).expect("UTF-8");
        let out = self.lines.iter().map(|line| line + "\n").collect();
        Ran { code: status.code().unwrap_or(-1), out, error }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn heard(from: impl Read + Send + 'static) -> Receiver<String> {
    let (said, heard) = channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).for_each(|line| drop(said.send(line)));
    });
    heard
}

/// A port with three behind it, where no other test looks for one. It is this cluster's as long as the socket is there: what
/// looks for ports at the same time takes that first, which nothing else of a cluster uses.
fn free_base_port() -> (u16, UdpSocket) {
    let first = std::process::id().wrapping_mul(37);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all = (0..240).map(|step| 7_500 + 10 * u16::try_from((first + step) % 240).expect("below 240"));
    let mut reserved = all.filter_map(|base| Some((base, UdpSocket::bind(("127.0.0.1", base)).ok()?)));
    reserved.find(|(base, _)| (0..4).all(|at| is_free(base + at))).expect("some ports are free")
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, reserved) = free_base_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftq"));
        command.args(["up", "--nodes", "1", "--base-port", &port.to_string(), "--data-dir"]);
        command.arg(folder.path().join("data"));
        let up = Running::start(command);
        while !up.line().contains("Ctrl-C stops") {}
        Self { folder, endpoint: format!("127.0.0.1:{port}"), up, _reserved: reserved }
    }

    /// A cluster with a topic `orders`.
    pub(crate) fn with_topic(settings: &str) -> Self {
        let cluster = Self::start();
        cluster.run(&format!("topic create orders {settings}")).done();
        cluster
    }

    /// The folder in which commands run.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn command(&self, before: &str, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{before} exec {} {line}", env!("CARGO_BIN_EXE_raftq"))]);
        command.current_dir(self.folder.path()).env("RAFTQ_ENDPOINTS", &self.endpoint);
        command
    }

    /// Runs a command to its end, typed as in a shell.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.begin(line).end()
    }

    /// The same with this as its standard input.
    pub(crate) fn run_with(&self, line: &str, input: &str) -> Ran {
        let mut running = self.begin(line);
        running.type_in(input);
        running.end()
    }

    /// Starts a command.
    pub(crate) fn begin(&self, line: &str) -> Running {
        Running::start(self.command("", line))
    }

    /// The same as nohup does it.
    pub(crate) fn begin_ignoring_hang_ups(&self, line: &str) -> Running {
        Running::start(self.command("trap '' HUP;", line))
    }

    /// Waits for a file that a command makes.
    pub(crate) fn wait_for_file(&self, name: &str) {
        self.wait_for(&format!("file {name}"), || self.folder.path().join(name).exists());
    }

    /// Waits until something is so.
    pub(crate) fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a command wrote into a file.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.folder.path().join(name), content).expect("it can be written");
    }

    /// How many messages of `orders` are ready, leased, delayed and dead.
    pub(crate) fn counts(&self) -> [u64; 4] {
        let topic = self.run("topic describe orders -o json").json().remove(0);
        ["ready", "leased", "delayed", "dead"].map(|state| topic[state].as_u64().expect("a count"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.up.signal("INT");
        let _ = self.up.child.wait();
    }
}
