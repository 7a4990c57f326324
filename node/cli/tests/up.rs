//! `raftq up` and `raftq kill` as people type them, with real processes: one folder and its ports for one of them, what is said
//! when a node dies, and what is left behind.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Far longer than anything takes: a mistake fails, and does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ports for five nodes, below those that other tests take. No two tests of this process get the same ones.
fn free_base_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(13) + TAKEN.fetch_add(1, Ordering::Relaxed) * 25;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all = (0..100).map(|step| 2_000 + 50 * u16::try_from((first + step) % 100).expect("below 100"));
    let mut free = all.filter(|base| (0..5).all(|node| (0..4).all(|at| is_free(base + 10 * node + at))));
    free.next().expect("some ports are free")
}

fn raftq(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftq"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RAFTQ_ENDPOINTS");
    command
}

fn up(folder: &Path, base_port: u16, more: &[&str]) -> Command {
    let (folder, port) = (folder.to_str().expect("a path in UTF-8"), base_port.to_string());
    let mut command = raftq(&["up", "--data-dir", folder, "--base-port", &port]);
    // Nobody who is alive is taken for silent, however busy the machine is.
    command.args(["--election-timeout-ms", "2000"]).args(more);
    command
}

/// Code and standard error of a command that ends.
fn ended(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("it runs");
    (status.code(), String::from_utf8(stderr).expect("UTF-8"))
}

/// A `raftq up` that runs; stopped as by Ctrl-C when it is dropped.
struct Up {
    child: Child,
    lines: Receiver<String>,
}

impl Up {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let (said, lines) = channel();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(said.send(line)));
        });
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
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let _ = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn pids(folder: &Path) -> Vec<String> {
    let pid = |node: u16| std::fs::read_to_string(folder.join(format!("node-{node}.pid"))).ok();
    (0..9).filter_map(pid).map(|pid| pid.trim().to_owned()).collect()
}

#[test]
fn a_folder_and_its_ports_are_of_one_up_which_a_second_one_leaves_alone() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let base_port = free_base_port();
    let first = Up::start(&mut up(folder.path(), base_port, &["--nodes", "1"]));
    let said = first.says("Ctrl-C stops");
    let open: Vec<&String> = said.iter().filter(|line| line.contains("is open")).collect();
    assert!(
        open.len() == 1 && open[0].contains("no TLS and no authentication, on loopback only"),
        "{said:#?}"
    );
    assert!(open[0].contains("node/LOCKS.md"), "it says where to read on: {open:?}");
    let export = format!("export RAFTQ_ENDPOINTS=127.0.0.1:{base_port}");
    let exported = said.iter().filter(|line| line.contains(&export)).count();
    let told =
        said.iter().filter(|line| line.contains("RAFTQ_ENDPOINTS") || line.contains("--endpoints")).count();
    assert_eq!((exported, told), (1, 1), "the endpoints are told once: {said:#?}");
    let (pid, before) = (first.child.id(), pids(folder.path()));
    assert_eq!(before.len(), 1);

    let (code, why) = ended(up(folder.path(), base_port + 10, &[]));
    let said = format!("is in use by another raftq up (pid {pid}): stop it, or use --data-dir\n");
    assert!(code == Some(1) && why.starts_with("error: ") && why.ends_with(&said), "{why}");
    assert_eq!(pids(folder.path()), before, "its files are untouched");

    // Its nodes have three of these ports, and it has one itself: it is who must be stopped.
    let (code, why) = ended(up(other.path(), base_port, &["--nodes", "1"]));
    let ports: Vec<String> = (0..4).map(|at| (base_port + at).to_string()).collect();
    let said = format!("{} by another raftq up (pid {pid}). Stop it, or use --base-port ", ports.join(", "));
    assert!(code == Some(1) && why.contains(&said), "{why}");
    assert_eq!((pids(other.path()).len(), other.path().join("node-0").exists()), (0, false), "nothing began");

    drop(first);
    assert!(pids(folder.path()).is_empty(), "what has ended leaves no pids");
    let (code, why) = ended(up(folder.path(), base_port, &["--nodes", "3"]));
    let said = "this folder holds a cluster of 1: use --nodes 1, then raftq scale 3\n";
    assert!(code == Some(1) && why.ends_with(said), "{why}");
    assert!(!folder.path().join("node-1").exists(), "nothing was started");
}

#[test]
fn a_node_that_dies_is_named_with_who_leads_then_and_begins_again_if_that_helps() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_port = free_base_port();
    let first = Up::start(&mut up(folder.path(), base_port, &[]));
    let table = first.says("Ctrl-C stops");
    let role = |role: &str| table.iter().filter(|line| line.contains(&format!("  {role}"))).count();
    assert_eq!((role("leader"), role("follower")), (1, 2), "{table:#?}");
    let kill = |whom: &str| {
        let endpoints = format!("127.0.0.1:{},127.0.0.1:{}", base_port + 10, base_port + 20);
        let output = raftq(&["kill", whom]).env("RAFTQ_ENDPOINTS", endpoints).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let killed = kill("--leader");
    let node = killed.split(' ').next().expect("a name").to_owned();
    assert!(killed.ends_with(") is killed, and is started again in 2 s\n"), "{killed}");
    let seen = first.says(" leads now, in term ");
    let death = format!("{node} was killed, and is started again in 2 s");
    assert!(seen.iter().any(|line| line.starts_with(&death)), "{seen:#?}");
    assert!(!seen.last().expect("a line").starts_with(&node), "another one leads: {seen:#?}");
    first.says(&format!("{node} is started again with pid"));

    // The nodes of one that is killed end by themselves, and the next one waits for their ports.
    let mut second = up(folder.path(), base_port, &[]);
    let mut first = first;
    first.child.kill().expect("it can be killed");
    first.child.wait().expect("it was started");
    assert_eq!(pids(folder.path()).len(), 3, "nobody could remove them");
    let second = Up::start(&mut second);
    second.says("Ctrl-C stops");
    drop(second);

    // A disk that is refused now will be refused again.
    std::fs::write(folder.path().join("node-2").join("IDENTITY"), "no identity").expect("written");
    let third = Up::start(&mut up(folder.path(), base_port, &[]));
    let seen = third.says("It is not started again");
    let death: Vec<&String> = seen.iter().filter(|line| line.starts_with("node-2 ended")).collect();
    assert_eq!(death.len(), 1, "{seen:#?}");
    let how = "node-2 ended: its data folder is refused (exit code 3): ";
    assert!(death[0].starts_with(how) && death[0].contains("IDENTITY"), "{seen:#?}");
    assert_eq!(pids(folder.path()).len(), 2, "what does not run has no pid");
}

#[test]
fn kill_says_what_is_wrong() {
    let base_port = free_base_port();
    let port = base_port.to_string();
    let (code, why) = ended(raftq(&["kill", "--leader", "--base-port", &port]));
    assert!(code == Some(1) && why.contains("no `raftq up` answers"), "{why}");
    let (code, _) = ended(raftq(&["kill"]));
    assert_eq!(code, Some(2), "whom?");
    let (code, why) = ended(raftq(&["kill", "node-0", "--endpoints", "queue.example"]));
    assert!(code == Some(2) && why.contains("of this machine") && why.contains("--base-port"), "{why}");
}
