//! `raftq up`: a cluster on this machine, one process a node, for trying things out and for tests.
//!
//! How many nodes the cluster of a folder has stands there in `nodes`, once it was formed. A node that has no disk then waits
//! to be added; it is `raftq scale` that adds it.

mod control;

pub(crate) use control::{Link, Wanted};

use crate::failure::Failure;
use clap::Args;
use control::{Asked, NODES_MAX, Row};
use raftqueue_client::{Client, v1};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::process::{Child, Command as Process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Ports of one node: clients, peers, operations. The others are left free.
const PORTS_PER_NODE: u16 = 10;
/// First port of the cluster unless another one is given.
pub(super) const BASE_PORT_DEFAULT: u16 = 7420;
/// Pause before a node that died is started again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long a cluster may take to elect a leader before a message says that something is wrong.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Nodes of a new cluster.
const NODES_DEFAULT: u16 = 3;
/// The file that says how many nodes the cluster has.
const NODES: &str = "nodes";

/// Starts a cluster on this machine and runs it until Ctrl-C.
///
/// Node I serves clients (gRPC and HTTP) on port BASE+10*I, its peers on the next, and /metrics, /livez and /readyz on the
/// one after that. BASE+3 is for `raftq scale`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  raftq up                              three nodes, data kept in ./raftqueue-data
  raftq up --ephemeral                  the same, data thrown away at the end
  raftq up --nodes 5 --base-port 8420   five nodes on other ports

Kill a node with `kill -9 PID` and watch the others go on; it is started again after two seconds. `raftq scale 5` in another
terminal makes five nodes of three.")]
pub(crate) struct Up {
    /// How many nodes: 1, 3, 5, 7 or 9. An even number survives no more failures than one node less. Default: as many as
    /// the cluster in the folder has; 3 for a new one.
    #[arg(long, value_parser = nodes)]
    nodes: Option<u16>,

    /// Folder for the nodes' data and logs.
    #[arg(long, value_name = "DIR", default_value = "raftqueue-data", conflicts_with = "ephemeral")]
    data_dir: PathBuf,

    /// First port; each node takes the next ten.
    #[arg(long, value_name = "PORT", default_value_t = BASE_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1024..=65_400))]
    base_port: u16,

    /// Keep nothing: use a temporary folder and remove it at the end.
    #[arg(long)]
    ephemeral: bool,

    /// Do not start a node again that dies.
    #[arg(long)]
    no_restart: bool,

    /// Milliseconds without a leader before a follower campaigns.
    #[arg(long, value_name = "MS", default_value_t = raftqueue_node::config::ELECTION_TIMEOUT_MS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(50..=60_000))]
    election_timeout_ms: u64,
}

/// Reads a number of nodes.
pub(crate) fn nodes(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5 | 7 | 9)) => Ok(count),
        Ok(count) => Err(format!(
            "{count} is not 1, 3, 5, 7 or 9: an even number survives no more failures than one node less"
        )),
        Err(error) => Err(error.to_string()),
    }
}

struct Running {
    index: u16,
    folder: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    died: Option<Instant>,
}

impl Running {
    fn new(base: &Path, index: u16) -> Self {
        let (folder, log) = (base.join(format!("node-{index}")), base.join(format!("node-{index}.log")));
        Self { index, folder, log, child: None, died: None }
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
}

/// The nodes, and where they are.
struct Nodes {
    base: PathBuf,
    all: Vec<Running>,
    /// The cluster is formed: a node without a disk waits to be added.
    is_formed: bool,
}

impl Up {
    /// Runs the cluster until Ctrl-C.
    pub(super) async fn run(self) -> Result<(), Failure> {
        self.try_run().await.map_err(Failure::Failed)
    }

    async fn try_run(self) -> Result<(), String> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut stop = std::pin::pin!(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let temporary = if self.ephemeral {
            Some(tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?)
        } else {
            None
        };
        let base = temporary.as_ref().map_or(self.data_dir.as_path(), |dir| dir.path());
        std::fs::create_dir_all(base).map_err(|error| format!("cannot make {}: {error}", base.display()))?;
        let base = base.canonicalize().map_err(|error| format!("{}: {error}", base.display()))?;
        let listener = self.listen().await?;
        let (asked, mut asking) = mpsc::channel(1);
        let mut nodes = self.nodes_of(base.clone())?;
        let count = nodes.all.len();
        println!(
            "Starting {count} node{} on 127.0.0.1; data in {}{}",
            if count == 1 { "" } else { "s" },
            base.display(),
            if self.ephemeral { ", removed at the end" } else { ", kept: remove it to start afresh" }
        );
        let result = async {
            for index in 0..count {
                self.start(&mut nodes, index)?;
            }
            let ready = tokio::select! {
                ready = self.wait_for_leader(&mut nodes.all) => { ready?; true }
                () = &mut stop => false,
            };
            if ready {
                nodes.note(count)?;
                println!("\n{}\n{}", self.table(&nodes.all).await, self.examples(count));
                tokio::select! {
                    result = self.watch(&mut nodes, &mut asking) => result?,
                    () = control::serve(listener, asked) => {}
                    () = &mut stop => {}
                }
            }
            Ok(())
        }
        .await;
        println!("\nStopping.");
        stop_all(&mut nodes.all).await;
        result
    }

    /// Where `raftq scale` asks.
    async fn listen(&self) -> Result<TcpListener, String> {
        let port = control::port(self.base_port);
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        listener.map_err(|error| {
            format!("cannot listen on 127.0.0.1:{port}: {error}; if another `raftq up` runs, say another --base-port")
        })
    }

    /// The nodes of the cluster in a folder; of a new one as many as were asked for.
    fn nodes_of(&self, base: PathBuf) -> Result<Nodes, String> {
        let noted = base.join(NODES);
        // Whoever removed all disks begins anew.
        let has_disks = (0..NODES_MAX).any(|index| base.join(format!("node-{index}")).exists());
        let before = match std::fs::read_to_string(&noted) {
            Ok(text) if has_disks => {
                let count = text.trim().parse().ok().filter(|count| (1..=NODES_MAX).contains(count));
                Some(count.ok_or_else(|| format!("{}: `{text}` is no number of nodes", noted.display()))?)
            }
            _ => None,
        };
        if let (Some(before), Some(asked)) = (before, self.nodes)
            && before != asked
        {
            let base = base.display();
            return Err(format!(
                "the cluster in {base} has {before} nodes, not {asked}: start it without --nodes; once it runs, \
                 `raftq scale {asked}` changes their number"
            ));
        }
        let count = before.or(self.nodes).unwrap_or(NODES_DEFAULT);
        let all = (0..count).map(|index| Running::new(&base, index)).collect();
        Ok(Nodes { base, all, is_formed: before.is_some() })
    }

    fn port(&self, index: u16) -> u16 {
        self.base_port + PORTS_PER_NODE * index
    }

    fn endpoint(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.port(index))
    }

    fn start(&self, nodes: &mut Nodes, index: usize) -> Result<(), String> {
        let count = u16::try_from(nodes.all.len()).expect("at most nine");
        let is_formed = nodes.is_formed;
        let node = &mut nodes.all[index];
        let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&node.log)
            .map_err(|error| format!("cannot write {}: {error}", node.log.display()))?;
        let members: Vec<String> =
            (0..count).map(|i| format!("node-{i}=127.0.0.1:{}", self.port(i) + 1)).collect();
        let child = Process::new(own)
            .arg("node")
            .args(["--name", &format!("node-{}", node.index)])
            .args(["--members", &members.join(",")])
            .args(["--bootstrap", if is_formed { "join" } else { "form" }])
            .args(["--client-listen", &self.endpoint(node.index)])
            .args(["--operations-port", &(self.port(node.index) + 2).to_string()])
            // Everything is on loopback here.
            .arg("--console-changes")
            .args(["--election-timeout-ms", &self.election_timeout_ms.to_string()])
            .args(["--log-format", "human"])
            .arg("--data-dir")
            .arg(&node.folder)
            // The node stops when this end of the pipe is closed, so no node outlives this program.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for this program, which stops the nodes one after another.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start node {}: {error}", node.index))?;
        let pid = child.id().unwrap_or_default();
        std::fs::write(node.folder.with_extension("pid"), format!("{pid}\n")).map_err(|error| {
            format!("cannot write {}: {error}", node.folder.with_extension("pid").display())
        })?;
        node.child = Some(child);
        node.died = None;
        Ok(())
    }

    async fn wait_for_leader(&self, nodes: &mut [Running]) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            for node in nodes.iter_mut() {
                if let Some(status) = node.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                    return Err(format!(
                        "node {} ended with {status}:\n{}",
                        node.index,
                        last_lines(&node.log)
                    ));
                }
            }
            for index in nodes.iter().map(|node| node.index) {
                if self.role(index).await.is_some_and(|(role, ..)| role == "Leader") {
                    return Ok(());
                }
            }
            if begun.elapsed() > LEADER_TIMEOUT {
                return Err(format!(
                    "no leader after {LEADER_TIMEOUT:?}; see the logs:\n{}",
                    last_lines(&nodes[0].log)
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What a node says of itself: role and term.
    async fn role(&self, index: u16) -> Option<(String, u64)> {
        let endpoint = self.endpoint(index);
        let client = Client::connect([endpoint.clone()]).ok()?.with_timeout(Duration::from_millis(500));
        let status = client.status(&endpoint).await.ok()?;
        let role = match status.role() {
            v1::Role::Leader => "Leader",
            v1::Role::Candidate => "Candidate",
            _ => "Follower",
        };
        Some((role.to_owned(), status.term))
    }

    async fn table(&self, nodes: &[Running]) -> String {
        let mut rows = vec![["NODE", "PID", "ROLE", "CLIENTS", "METRICS", "DATA"].map(str::to_owned)];
        for node in nodes {
            let pid = node.pid().map_or_else(|| "-".into(), |pid| pid.to_string());
            let role =
                self.role(node.index).await.map_or_else(|| "-".into(), |(role, _)| role.to_lowercase());
            rows.push([
                format!("node-{}", node.index),
                pid,
                role,
                self.endpoint(node.index),
                format!("http://127.0.0.1:{}/metrics", self.port(node.index) + 2),
                node.folder.display().to_string(),
            ]);
        }
        let widths: Vec<usize> =
            (0..6).map(|c| rows.iter().map(|row| row[c].len()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }

    fn examples(&self, count: usize) -> String {
        let options = if self.base_port == BASE_PORT_DEFAULT && count == usize::from(NODES_DEFAULT) {
            String::new()
        } else {
            let endpoints: Vec<String> =
                (0..count).filter_map(|index| Some(self.endpoint(u16::try_from(index).ok()?))).collect();
            format!(" --endpoints {}", endpoints.join(","))
        };
        let program = std::env::args().next().unwrap_or_else(|| "raftq".into());
        let base = if self.base_port == BASE_PORT_DEFAULT {
            String::new()
        } else {
            format!(" --base-port {}", self.base_port)
        };
        let more = if count < usize::from(NODES_MAX) { count + 2 } else { count - 2 };
        format!(
            "Try, in another terminal:\n  \
             {program}{options} topic create orders\n  \
             {program}{options} publish orders 'hello' 'world'\n  \
             {program}{options} receive orders -n 10 --ack\n  \
             {program} scale {more}{base}\n\n\
             Ctrl-C stops the cluster."
        )
    }

    /// Starts nodes that die again, and does what `raftq scale` asks for, for ever.
    async fn watch(&self, nodes: &mut Nodes, asking: &mut mpsc::Receiver<Asked>) -> Result<(), String> {
        loop {
            tokio::select! {
                Some(Asked { wanted, answer }) = asking.recv() => {
                    let done = self.run_as_wanted(nodes, &wanted).await;
                    let row = |node: &Running| Row { endpoint: self.endpoint(node.index), pid: node.pid() };
                    // Whoever asked may have gone.
                    let _ = answer.send(done.map(|()| nodes.all.iter().map(row).collect()));
                }
                () = tokio::time::sleep(POLL) => {}
            }
            for index in 0..nodes.all.len() {
                let node = &mut nodes.all[index];
                if let Some(status) = node.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                    node.child = None;
                    node.died = Some(Instant::now());
                    let then = if self.no_restart { "and stays so" } else { "and is started again in 2 s" };
                    println!(
                        "node-{} ended with {status} {then}; its log is {}",
                        node.index,
                        node.log.display()
                    );
                }
                if !self.no_restart && node.died.is_some_and(|at| at.elapsed() >= RESTART_AFTER) {
                    self.start(nodes, index)?;
                    let pid = nodes.all[index].pid().unwrap_or_default();
                    println!("node-{index} started again with pid {pid}");
                }
            }
        }
    }

    /// Starts and stops nodes until those run that are wanted. The number is noted first: what is asked for again after this
    /// program was killed on the way is found half done, and goes on.
    async fn run_as_wanted(&self, nodes: &mut Nodes, wanted: &Wanted) -> Result<(), String> {
        let Some(count) = wanted.nodes.map(usize::from) else { return Ok(()) };
        if let Some(node) = wanted.blank.iter().find(|node| usize::from(**node) >= count) {
            return Err(format!("node-{node} is none of {count} nodes"));
        }
        nodes.note(count)?;
        if count < nodes.all.len() {
            let mut gone = nodes.all.split_off(count);
            stop_all(&mut gone).await;
            gone.iter()
                .for_each(|node| println!("node-{} is stopped: the cluster does without it", node.index));
        }
        for index in nodes.all.len()..count {
            nodes.all.push(Running::new(&nodes.base, u16::try_from(index).expect("at most nine")));
        }
        for index in &wanted.blank {
            let node = &mut nodes.all[usize::from(*index)];
            stop_all(std::slice::from_mut(node)).await;
            node.died = None;
            node.set_disk_aside()?;
        }
        for index in 0..count {
            if nodes.all[index].child.is_none() && nodes.all[index].died.is_none() {
                self.start(nodes, index)?;
                let node = u16::try_from(index).expect("at most nine");
                let pid = nodes.all[index].pid().unwrap_or_default();
                println!(
                    "node-{node} is started with pid {pid}, and serves clients on {}",
                    self.endpoint(node)
                );
            }
        }
        Ok(())
    }
}

impl Nodes {
    /// The cluster is formed, and has so many nodes.
    fn note(&mut self, count: usize) -> Result<(), String> {
        let (file, aside) = (self.base.join(NODES), self.base.join(format!("{NODES}.new")));
        let written =
            std::fs::write(&aside, format!("{count}\n")).and_then(|()| std::fs::rename(&aside, &file));
        written.map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        self.is_formed = true;
        Ok(())
    }
}

impl Running {
    /// What is on its disk is no cluster's any more: it is kept beside, in the place of what was kept there before.
    fn set_disk_aside(&self) -> Result<(), String> {
        if !self.folder.exists() {
            return Ok(());
        }
        let aside = self.folder.with_extension("removed");
        let cannot = |error| format!("cannot move {} to {}: {error}", self.folder.display(), aside.display());
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(cannot(error)),
            _ => {}
        }
        std::fs::rename(&self.folder, &aside).map_err(cannot)?;
        println!(
            "node-{} begins with a blank disk; what it had before is in {}",
            self.index,
            aside.display()
        );
        Ok(())
    }
}

/// Closes the nodes' pipes, which stops them, and waits. Kills a node that takes too long.
async fn stop_all(nodes: &mut [Running]) {
    for node in nodes.iter_mut() {
        if let Some(child) = &mut node.child {
            drop(child.stdin.take());
        }
    }
    for node in nodes {
        if let Some(mut child) = node.child.take()
            && tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err()
        {
            eprintln!("node-{} did not stop in time and is killed", node.index);
            let _ = child.kill().await;
        }
    }
}

fn last_lines(file: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
