//! `raftq up`: a cluster on this machine, one process a node, for trying things out and for tests.

use crate::failure::Failure;
use clap::Args;
use raftqueue_client::{Client, v1};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command as Process};
use tokio::signal::unix::{SignalKind, signal};

/// Ports of one node: clients, peers, operations. The others are left free.
const PORTS_PER_NODE: u16 = 10;
/// Pause before a node that died is started again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long a cluster may take to elect a leader before a message says that something is wrong.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Starts a cluster on this machine and runs it until Ctrl-C.
///
/// Node I serves clients (gRPC and HTTP) on port BASE+10*I, its peers on the next, and /metrics, /livez and /readyz on the
/// one after that.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  raftq up                              three nodes, data kept in ./raftqueue-data
  raftq up --ephemeral                  the same, data thrown away at the end
  raftq up --nodes 5 --base-port 8420   five nodes on other ports

Kill a node with `kill -9 PID` and watch the others go on; it is started again after two seconds.")]
pub(crate) struct Up {
    /// How many nodes: 1, 3, 5, 7 or 9. An even number survives no more failures than one node less.
    #[arg(long, default_value_t = 3, value_parser = nodes)]
    nodes: u16,

    /// Folder for the nodes' data and logs.
    #[arg(long, value_name = "DIR", default_value = "raftqueue-data", conflicts_with = "ephemeral")]
    data_dir: PathBuf,

    /// First port; each node takes the next ten.
    #[arg(long, value_name = "PORT", default_value_t = 7420, value_parser = clap::value_parser!(u16).range(1024..=65_400))]
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

fn nodes(text: &str) -> Result<u16, String> {
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
        println!(
            "Starting {} node{} on 127.0.0.1; data in {}{}",
            self.nodes,
            if self.nodes == 1 { "" } else { "s" },
            base.display(),
            if self.ephemeral { ", removed at the end" } else { ", kept: remove it to start afresh" }
        );
        let mut nodes: Vec<Running> = (0..self.nodes)
            .map(|index| Running {
                index,
                folder: base.join(format!("node-{index}")),
                log: base.join(format!("node-{index}.log")),
                child: None,
                died: None,
            })
            .collect();
        let result = async {
            for node in &mut nodes {
                self.start(node)?;
            }
            let ready = tokio::select! {
                ready = self.wait_for_leader(&mut nodes) => { ready?; true }
                () = &mut stop => false,
            };
            if ready {
                println!("\n{}\n{}", self.table(&nodes).await, self.examples());
                tokio::select! {
                    result = self.watch(&mut nodes) => result?,
                    () = &mut stop => {}
                }
            }
            Ok(())
        }
        .await;
        println!("\nStopping.");
        stop_all(&mut nodes).await;
        result
    }

    fn port(&self, index: u16) -> u16 {
        self.base_port + PORTS_PER_NODE * index
    }

    fn endpoint(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.port(index))
    }

    fn start(&self, node: &mut Running) -> Result<(), String> {
        let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&node.log)
            .map_err(|error| format!("cannot write {}: {error}", node.log.display()))?;
        let members: Vec<String> =
            (0..self.nodes).map(|i| format!("node-{i}=127.0.0.1:{}", self.port(i) + 1)).collect();
        let child = Process::new(own)
            .arg("node")
            .args(["--name", &format!("node-{}", node.index)])
            .args(["--members", &members.join(",")])
            .args(["--client-listen", &self.endpoint(node.index)])
            .args(["--operations-port", &(self.port(node.index) + 2).to_string()])
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
            for index in 0..self.nodes {
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
            let pid =
                node.child.as_ref().and_then(Child::id).map_or_else(|| "-".into(), |pid| pid.to_string());
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

    fn examples(&self) -> String {
        let options = if self.base_port == 7420 && self.nodes == 3 {
            String::new()
        } else {
            let endpoints: Vec<String> = (0..self.nodes).map(|index| self.endpoint(index)).collect();
            format!(" --endpoints {}", endpoints.join(","))
        };
        let program = std::env::args().next().unwrap_or_else(|| "raftq".into());
        format!(
            "Try, in another terminal:\n  \
             {program}{options} topic create orders\n  \
             {program}{options} publish orders 'hello' 'world'\n  \
             {program}{options} receive orders -n 10 --ack\n\n\
             Ctrl-C stops the cluster."
        )
    }

    /// Starts nodes that die again, for ever.
    async fn watch(&self, nodes: &mut [Running]) -> Result<(), String> {
        loop {
            tokio::time::sleep(POLL).await;
            for node in nodes.iter_mut() {
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
                    self.start(node)?;
                    let pid = node.child.as_ref().and_then(Child::id).unwrap_or_default();
                    println!("node-{} started again with pid {pid}", node.index);
                }
            }
        }
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
