//! `raftq up` and `raftq scale`, as people type them, with real processes and messages that flow.

use raftqueue_client::{Client, v1};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Far longer than anything takes: a mistake fails, and does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ports for five nodes, below those that other tests take. No two tests of this process get the same ones.
fn free_base_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(7) + 50 * TAKEN.fetch_add(1, Ordering::Relaxed);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all = (0..50).map(|step| 2_000 + 50 * u16::try_from((first + step) % 100).expect("below 100"));
    let mut free = all.filter(|base| (0..5).all(|node| (0..4).all(|at| is_free(base + 10 * node + at))));
    free.next().expect("some ports are free")
}

fn raftq(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftq"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Nobody who is alive is taken for silent, however busy the machine is.
const CALM: [&str; 2] = ["--election-timeout-ms", "2000"];

/// `raftq up`; stopped when it is dropped.
struct Up {
    child: Child,
    lines: Receiver<String>,
}

impl Up {
    fn start(folder: &Path, base_port: u16) -> Self {
        let folder = folder.to_str().expect("a path in UTF-8");
        let port = base_port.to_string();
        let mut command = raftq(&["up", "--data-dir", folder, "--base-port", &port]);
        let mut child = command.args(CALM).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = heard(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// Waits until it says this; what it said until then.
    fn says(&self, what: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(_) => panic!("it does not say `{what}`, but: {seen:#?}"),
            }
            if seen.last().is_some_and(|line| line.contains(what)) {
                return seen;
            }
        }
    }

    /// As with Ctrl-C.
    fn stop(self) {
        drop(self);
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status();
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

/// Runs `raftq scale` to its end; what it says of waiting is left out.
fn scale(base_port: u16, nodes: u16) -> (i32, String, String) {
    let output = raftq(&["scale", &nodes.to_string(), "--base-port", &base_port.to_string()]).output();
    let output = output.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lines = text(&output.stdout);
    let steps = lines.lines().filter(|line| !line.starts_with("waiting")).map(|line| format!("{line}\n"));
    (output.status.code().expect("it was not killed"), steps.collect(), text(&output.stderr))
}

/// Publishes numbers, one by one, until it is told to stop.
struct Publishing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Publishing {
    fn start(endpoint: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("threads");
            runtime.block_on(async {
                let client = Client::connect([endpoint]).expect("an endpoint").with_timeout(PATIENCE);
                // A session: what is repeated is stored once.
                let mut producer = client.producer("numbers").await.expect("a session");
                let mut number = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let body = number.to_string().into_bytes().into();
                    let message = v1::NewMessage { body, ..v1::NewMessage::default() };
                    producer.publish(vec![message]).await.expect("a majority is always there");
                    number += 1;
                }
                number
            })
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("all were published")
    }
}

#[test]
fn a_cluster_grows_and_shrinks_while_it_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_port = free_base_port();
    let endpoint = format!("127.0.0.1:{base_port}");
    let up = Up::start(folder.path(), base_port);
    up.says("Ctrl-C stops");
    let run = |arguments: &[&str]| {
        raftq(&[arguments, &["--endpoints", &endpoint]].concat()).output().expect("it runs")
    };
    assert!(run(&["topic", "create", "numbers"]).status.success());
    let publishing = Publishing::start(endpoint.clone());

    let (code, said, error) = scale(base_port, 5);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    let steps: Vec<&str> = said.lines().collect();
    assert_eq!(
        steps[..3],
        [
            "node-3, node-4 are started",
            "node-3, node-4 are learners now, and get the log",
            "node-3, node-4 are voters now"
        ]
    );
    assert!(steps.len() == 4 && steps[3].starts_with("done: there are 5 voters, and node-"), "{said}");
    up.says("node-4 is started with pid");
    // Nothing is left to do.
    let (code, said, _) = scale(base_port, 5);
    assert_eq!((code, said.lines().count()), (0, 1), "{said}");

    // Killed after its first step, and run again.
    let mut killed = raftq(&["scale", "1", "--base-port", &base_port.to_string()]);
    let mut killed = killed.stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = heard(killed.stdout.take().expect("it is piped"));
    let first = lines.recv_timeout(PATIENCE).expect("it says what it did");
    assert_eq!(first, "node-4, node-3 are members no longer");
    killed.kill().expect("it can be killed");
    killed.wait().expect("it was started");
    let (code, said, error) = scale(base_port, 1);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    assert!(
        said.ends_with("node-2, node-1 are stopped\ndone: there is 1 voter, and node-0 leads\n"),
        "{said}"
    );

    // The disks of those that were removed are there, and not used.
    let (code, said, error) = scale(base_port, 3);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    assert!(folder.path().join("node-1.removed").join("IDENTITY").exists());
    let published = publishing.end();

    // It has as many nodes when it is started again.
    up.stop();
    let refused = raftq(&["up", "--nodes", "5", "--data-dir", folder.path().to_str().expect("UTF-8")])
        .args(["--base-port", &base_port.to_string()])
        .output()
        .expect("it runs");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1)
            && why.contains("this folder holds a cluster of 3: use --nodes 3, then raftq scale 5"),
        "{why}"
    );
    let up = Up::start(folder.path(), base_port);
    let table = up.says("Ctrl-C stops");
    assert_eq!(table.iter().filter(|line| line.starts_with("node-")).count(), 3, "{table:#?}");
    let received = run(&["receive", "numbers", "--all", "--ack", "--wait", "10s"]);
    let received = String::from_utf8(received.stdout).expect("numbers");
    let all: String = (0..published).map(|number| format!("{number}\n")).collect();
    assert!(
        published > 0 && received == all,
        "{published} were published, {} came",
        received.lines().count()
    );
}

#[test]
fn scale_says_what_is_wrong() {
    let base_port = free_base_port();
    let (code, _, error) = scale(base_port, 3);
    assert_eq!(code, 1);
    assert!(error.contains("no `raftq up` answers") && error.contains("--base-port"), "{error}");
    let (code, _, error) = scale(base_port, 4);
    assert!(code == 2 && error.contains("4 is not 1, 3, 5, 7 or 9"), "{error}");
    // Somebody else is there.
    let listener = TcpListener::bind(("127.0.0.1", base_port + 3)).expect("it was free");
    let other = std::thread::spawn(move || drop(listener.accept()));
    let (code, _, error) = scale(base_port, 3);
    assert!(code == 1 && error.contains("is no `raftq up`"), "{error}");
    other.join().expect("it only accepts");
}
