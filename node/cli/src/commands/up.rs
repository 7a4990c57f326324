//! `raftq up`: a cluster on this machine, one process a node, for trying things out and for tests.
//!
//! How many nodes the cluster of a folder has stands there, once it was formed ([`folder`]). A node that has no disk then waits
//! to be added; it is `raftq scale` that adds it.

/// Says something to whoever started it, who may have gone, as in `raftq up | head`: the cluster goes on.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod control;
mod ending;
mod folder;
mod looking;
mod ports;
mod words;

pub(crate) use control::{Link, Request, Row, Wanted, base_ports};

use crate::failure::Failure;
use clap::Args;
use control::{Asked, NODES_MAX};
use ending::Ending;
use folder::{Folder, Found};
use looking::Leader;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::process::{Child, Command as Process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Ports of one node: clients, peers, operations.
const NODE_PORTS: u16 = 3;
/// Ports from one node to the next. The others are left free.
const PORTS_PER_NODE: u16 = 10;
/// First port of the cluster unless another one is given.
const BASE_PORT_DEFAULT: u16 = 7420;
/// Greatest first port.
const BASE_PORT_MAX: u16 = 65_400;
/// Pause before a node that died is started again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node waits for another process that has its data, in milliseconds.
const LOCK_WAIT_MS: &str = "10000";
const POLL: Duration = Duration::from_millis(50);
/// Pause between two looks at which cluster it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Nodes of a new cluster.
const NODES_DEFAULT: u16 = 3;

/// Starts a cluster on this machine and runs it until Ctrl-C.
///
/// Node I serves clients (gRPC and HTTP) on port BASE+10*I, its peers on the next, and /metrics, /livez and /readyz on the
/// one after that. BASE+3 is for `raftq scale` and `raftq kill`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  raftq up                              three nodes, data kept in ./raftqueue-data
  raftq up --ephemeral                  the same, data thrown away at the end
  raftq up --nodes 5 --base-port 8420   five nodes on other ports

In another terminal `raftq kill --leader` kills a node as a crash would: watch \
the others go on. It is started again after two seconds. `raftq scale 5` makes \
five nodes of three.

A folder is of one `raftq up` at a time, and each has ports of its own. A node \
that cannot start (its port is taken, its data is refused) is not started again \
and again: what it says is shown.")]
pub(crate) struct Up {
    /// How many nodes: 1, 3, 5, 7 or 9. An even number survives no more failures than one node less. Default: as many as
    /// the cluster in the folder has; 3 for a new one.
    #[arg(long, value_parser = nodes)]
    nodes: Option<u16>,

    /// Folder for the nodes' data and logs.
    #[arg(long, value_name = "DIR", default_value = "raftqueue-data", conflicts_with = "ephemeral")]
    data_dir: PathBuf,

    /// First port; each node takes the next ten.
    #[arg(long, value_name = "PORT", default_value_t = BASE_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1024..=i64::from(BASE_PORT_MAX)))]
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
        Ok(count) if count % 2 == 0 => Err(format!(
            "{count} is not 1, 3, 5, 7 or 9: an even number survives no more failures than one node less"
        )),
        Ok(count) => Err(format!("{count} is not 1, 3, 5, 7 or 9: one machine has no use for more nodes")),
        Err(error) => Err(error.to_string()),
    }
}

struct Running {
    index: u16,
    child: Option<Child>,
    /// How long its log was when it was started.
    log_begun: u64,
    /// When to start it again, if it is.
    again_at: Option<Instant>,
}

impl Running {
    fn new(index: u16) -> Self {
        Self { index, child: None, log_begun: 0, again_at: None }
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
}

/// The nodes, and where they are.
struct Nodes {
    folder: Folder,
    all: Vec<Running>,
    /// The cluster is formed: a node without a disk waits to be added.
    is_formed: bool,
    /// Its id, once it is known: a disk of another cluster is refused.
    cluster_id: Option<String>,
    /// Who led when somebody looked last.
    leader: Option<Leader>,
    /// Looks who leads since a node has died.
    looking: Option<JoinHandle<Option<Leader>>>,
}

impl Up {
    /// Runs the cluster until Ctrl-C.
    pub(super) async fn run(self) -> Result<(), Failure> {
        self.try_run().await.map_err(Failure::Failed)
    }

    async fn try_run(self) -> Result<(), String> {
        let temporary = if self.ephemeral {
            Some(tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?)
        } else {
            None
        };
        let told = temporary.as_ref().map_or(self.data_dir.as_path(), |dir| dir.path());
        let mut nodes = self.nodes_of(Folder::take(told)?)?;
        let count = nodes.all.len();
        let as_port = u16::try_from(count).expect("at most nine");
        ports::free(self.base_port, as_port, nodes.folder.was_left).await?;
        let listener = self.listen().await?;
        nodes.folder.begin();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut stop = std::pin::pin!(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let (asked, mut asking) = mpsc::channel(1);
        say!(
            "Starting {count} node{} on 127.0.0.1; data in {}{}",
            if count == 1 { "" } else { "s" },
            nodes.folder.path.display(),
            if self.ephemeral { ", removed at the end" } else { ", kept: remove it to start afresh" }
        );
        let result = async {
            if !nodes.is_formed {
                nodes.folder.note_forming(count)?;
            }
            for index in 0..count {
                self.start(&mut nodes, index)?;
            }
            let ready = tokio::select! {
                ready = self.wait_for_leader(&mut nodes) => Some(ready?),
                () = &mut stop => None,
            };
            if let Some(leader) = ready {
                if leader.is_some() {
                    tokio::select! {
                        () = self.wait_for_followers(&nodes) => {}
                        () = &mut stop => return Ok(()),
                    }
                } else {
                    say!("\n{}", words::NO_LEADER);
                }
                nodes.note(count)?;
                nodes.leader = leader;
                say!("\n{}\n{}", self.table(&nodes).await, self.examples(count));
                tokio::select! {
                    result = self.watch(&mut nodes, &mut asking) => result?,
                    () = control::serve(listener, asked) => {}
                    () = &mut stop => {}
                }
            }
            Ok(())
        }
        .await;
        say!("\nStopping.");
        stop_all(&mut nodes.all).await;
        result
    }

    /// Where `raftq scale` and `raftq kill` ask.
    async fn listen(&self) -> Result<TcpListener, String> {
        let port = control::port(self.base_port);
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        listener.map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}"))
    }

    /// The nodes of the cluster in a folder; of a new one as many as were asked for.
    fn nodes_of(&self, folder: Folder) -> Result<Nodes, String> {
        let wished = self.nodes.unwrap_or(NODES_DEFAULT);
        let found = folder.cluster(wished)?;
        if let (Some(Found { nodes, is_formed, .. }), Some(asked)) = (&found, self.nodes)
            && *nodes != asked
        {
            let what = match is_formed {
                true => format!("a cluster of {nodes}: use --nodes {nodes}, then raftq scale {asked}"),
                false => format!(
                    "what is to be a cluster of {nodes}: use --nodes {nodes}, or remove it to start afresh"
                ),
            };
            return Err(format!("{}: this folder holds {what}", folder.path.display()));
        }
        let Found { nodes, is_formed, id } =
            found.unwrap_or(Found { nodes: wished, is_formed: false, id: None });
        let all = (0..nodes).map(Running::new).collect();
        Ok(Nodes { folder, all, is_formed, cluster_id: id, leader: None, looking: None })
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
        let log_file = nodes.folder.log(node.index);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_file)
            .map_err(|error| format!("cannot write {}: {error}", log_file.display()))?;
        node.log_begun = ending::length(&log_file);
        let members: Vec<String> =
            (0..count).map(|i| format!("node-{i}=127.0.0.1:{}", self.port(i) + 1)).collect();
        let cluster_id = nodes.cluster_id.as_ref().map(|id| format!("--cluster-id={id}"));
        let child = Process::new(own)
            .arg("node")
            .args(cluster_id)
            .args(["--name", &format!("node-{}", node.index)])
            .args(["--members", &members.join(",")])
            .args(["--bootstrap", if is_formed { "join" } else { "form" }])
            .args(["--client-listen", &self.endpoint(node.index)])
            .args(["--operations-port", &(self.port(node.index) + 2).to_string()])
            // Everything is on loopback here.
            .arg("--console-changes")
            .args(["--election-timeout-ms", &self.election_timeout_ms.to_string()])
            // A node of a `raftq up` that was killed may be on its way out. Nobody else has this folder.
            .args(["--lock-wait-ms", LOCK_WAIT_MS])
            .args(["--log-format", "human"])
            .arg("--data-dir")
            .arg(nodes.folder.disk(node.index))
            // The node stops when this end of the pipe is closed, so no node outlives this program.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for this program, which stops the nodes one after another.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start node {}: {error}", node.index))?;
        nodes.folder.note_pid(node.index, child.id().unwrap_or_default())?;
        node.child = Some(child);
        node.again_at = None;
        Ok(())
    }

    /// Starts nodes that die again, and does what is asked on the port for that, until no node is left.
    async fn watch(&self, nodes: &mut Nodes, asking: &mut mpsc::Receiver<Asked>) -> Result<(), String> {
        let mut looked: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(Asked { request, answer }) = asking.recv() => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.answer(nodes, request).await);
                }
                () = tokio::time::sleep(POLL) => {}
            }
            if nodes.cluster_id.is_none() && looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                self.note_cluster(nodes).await?;
                looked = Some(Instant::now());
            }
            for index in 0..nodes.all.len() {
                self.look_after(nodes, index)?;
            }
            if nodes.all.iter().all(|node| node.child.is_none() && node.again_at.is_none()) {
                // Who asked for the last death has its answer first.
                tokio::time::sleep(POLL).await;
                return Err("no node is left: none of them is started again".into());
            }
            self.say_who_leads(nodes).await;
        }
    }

    /// Notes that a node has died, and starts it again after a while if that can help.
    fn look_after(&self, nodes: &mut Nodes, index: usize) -> Result<(), String> {
        if let Some(Ending { text, comes_again }) = nodes.ending(index) {
            let node = &mut nodes.all[index];
            node.child = None;
            nodes.folder.forget_pid(node.index);
            let is_again = !self.no_restart && !comes_again;
            node.again_at = is_again.then(|| Instant::now() + RESTART_AFTER);
            say!(
                "{}",
                words::died(node.index, &text, self.no_restart, comes_again, &nodes.folder.log(node.index))
            );
            nodes.looking = Some(self.look_for_leader(nodes));
        }
        if nodes.all[index].again_at.is_some_and(|at| Instant::now() >= at) {
            let has_disk = nodes.folder.disk(nodes.all[index].index).join("IDENTITY").exists();
            self.start(nodes, index)?;
            say!("node-{index} is started again with pid {}", nodes.all[index].pid().unwrap_or_default());
            if nodes.is_formed && !has_disk {
                let count = nodes.all.len();
                say!(
                    "its folder was lost, so it waits to be a member: `raftq scale {count}` gives it its place again"
                );
            }
        }
        Ok(())
    }

    /// After a death: who leads now, once that is known.
    async fn say_who_leads(&self, nodes: &mut Nodes) {
        let Some(looking) = nodes.looking.take_if(|looking| looking.is_finished()) else { return };
        let Ok(found) = looking.await else { return };
        say!("{}", words::leads(nodes.leader.as_ref(), found.as_ref()));
        nodes.leader = found;
    }

    /// Writes down which cluster it is, once a node that leads says it.
    async fn note_cluster(&self, nodes: &mut Nodes) -> Result<(), String> {
        if let Some(leader) = looking::leader_of(&self.statuses(nodes).await) {
            nodes.folder.note_cluster(&leader.cluster_id)?;
            nodes.cluster_id = Some(leader.cluster_id.clone());
            nodes.leader = Some(leader);
        }
        Ok(())
    }

    fn row(&self, node: &Running) -> Row {
        Row { endpoint: self.endpoint(node.index), pid: node.pid(), restarts: !self.no_restart }
    }

    async fn answer(&self, nodes: &mut Nodes, request: Request) -> Result<Vec<Row>, String> {
        match request {
            Request::Look => {}
            Request::Run(wanted) => self.run_as_wanted(nodes, &wanted).await?,
            Request::Kill(index) => return self.kill(nodes, index).await.map(|row| vec![row]),
        }
        Ok(nodes.all.iter().map(|node| self.row(node)).collect())
    }

    /// Kills a node, and returns what it was. It is noted as any other death.
    async fn kill(&self, nodes: &mut Nodes, index: u16) -> Result<Row, String> {
        let node = nodes.all.get_mut(usize::from(index));
        let node = node.ok_or_else(|| format!("there is no node-{index}"))?;
        let row = self.row(node);
        match &mut node.child {
            Some(child) if row.pid.is_some() => {
                child.kill().await.map_err(|error| format!("node-{index} cannot be killed: {error}"))?;
                Ok(row)
            }
            _ => Err(format!("node-{index} does not run")),
        }
    }

    /// Starts and stops nodes until those run that are wanted. The number is noted first: what is asked for again after this
    /// program was killed on the way is found half done, and goes on.
    async fn run_as_wanted(&self, nodes: &mut Nodes, wanted: &Wanted) -> Result<(), String> {
        let Some(count) = wanted.nodes.map(usize::from) else { return Ok(()) };
        if let Some(node) = wanted.blank.iter().find(|node| usize::from(**node) >= count) {
            return Err(format!("node-{node} is none of {count} nodes"));
        }
        let more = (nodes.all.len()..count).filter_map(|node| u16::try_from(node).ok());
        ports::of_nodes_free(self.base_port, more)?;
        nodes.note(count)?;
        if count < nodes.all.len() {
            let mut gone = nodes.all.split_off(count);
            stop_all(&mut gone).await;
            for node in gone {
                nodes.folder.forget_pid(node.index);
                say!("node-{} is stopped: the cluster does without it", node.index);
            }
        }
        for index in nodes.all.len()..count {
            nodes.all.push(Running::new(u16::try_from(index).expect("at most nine")));
        }
        for index in &wanted.blank {
            let node = &mut nodes.all[usize::from(*index)];
            stop_all(std::slice::from_mut(node)).await;
            node.again_at = None;
            nodes.folder.forget_pid(*index);
            if let Some(aside) = nodes.folder.set_disk_aside(*index)? {
                say!("node-{index} begins with a blank disk; what it had before is in {}", aside.display());
            }
        }
        for index in 0..count {
            if nodes.all[index].child.is_none() && nodes.all[index].again_at.is_none() {
                self.start(nodes, index)?;
                let node = u16::try_from(index).expect("at most nine");
                let pid = nodes.all[index].pid().unwrap_or_default();
                say!("node-{node} is started with pid {pid}, and serves clients on {}", self.endpoint(node));
            }
        }
        Ok(())
    }
}

impl Nodes {
    /// The cluster is formed, and has so many nodes.
    fn note(&mut self, count: usize) -> Result<(), String> {
        self.folder.note_nodes(count)?;
        self.is_formed = true;
        Ok(())
    }

    /// How a node ended, if it ran and does not any more.
    fn ending(&mut self, index: usize) -> Option<Ending> {
        let node = &mut self.all[index];
        let status = node.child.as_mut()?.try_wait().ok().flatten()?;
        Some(Ending::read(status, &self.folder.log(node.index), node.log_begun))
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
