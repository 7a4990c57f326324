//! Real node processes on loopback, to be killed, paused and restarted, and a client that shares no code with the
//! product.

pub mod browser;
mod http;
mod links;
mod load;
mod patience;
pub mod prometheus;
mod rights;
mod small_disk;
mod up;
pub mod watch;

pub use http::{Answer, Http, Unanswered};
pub use load::{Load, Report, Told};
pub use patience::{CALM, Ended, PATIENCE, Running, env_number, run_to_end, series_value, wait_for};
pub use rights::{RIGHTS, Rights};
pub use small_disk::SmallDisk;
pub use up::Up;

use links::Links;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder of the product's programs, built the way users get them: without any test-only feature.
///
/// # Panics
/// If they cannot be built.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = repository();
        // .../target/PROFILE/deps/this-test -> .../target/PROFILE
        let own = std::env::current_exe().expect("a test knows its own path");
        let folder = own.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
        let is_release = folder.file_name().is_some_and(|profile| profile == "release");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "raftqueue-node", "-p", "raftq", "--bins"])
            .args(is_release.then_some("--release"))
            .current_dir(root)
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the programs do not build");
        folder.to_owned()
    })
}

/// The repository's folder.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

/// A cluster of processes, started from the address file; everything is stopped and removed when it is dropped.
pub struct Cluster {
    folder: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    operations: Vec<u16>,
    has_operations: bool,
    nodes: Vec<Option<Child>>,
    arguments: Vec<String>,
    files_max: Option<u32>,
    /// The program of each node that has another than this build's.
    others: Vec<Option<PathBuf>>,
    links: Option<Links>,
    /// So many of the nodes form the cluster.
    formed: usize,
    /// Nodes that wait to be added where their disks are blank.
    joins: BTreeSet<usize>,
    /// Every node is told of all of them, and may form a cluster with them.
    is_one_list: bool,
}

impl Cluster {
    /// Makes room for `count` nodes; none is started.
    ///
    /// # Panics
    /// If there is no room for temporary files.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self::with_room(count, 0)
    }

    /// As [`Cluster::new`], with further nodes that wait to be added when they are started.
    ///
    /// # Panics
    /// If there is no room for temporary files.
    #[must_use]
    pub fn with_room(formed: usize, room: usize) -> Self {
        let count = formed + room;
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let all = free_ports(3 * count);
        let ports: Vec<(u16, u16)> = all[..2 * count].chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let addresses: Vec<_> = ports[..formed]
            .iter()
            .map(|(port, internal)| json!({"ip": "127.0.0.1", "port": port, "internal_port": internal}))
            .collect();
        let config = json!({ "addresses": addresses }).to_string();
        std::fs::write(folder.path().join("config.json"), config).expect("a temporary file can be written");
        Self {
            folder,
            ports,
            operations: all[2 * count..].to_vec(),
            has_operations: false,
            nodes: (0..count).map(|_| None).collect(),
            arguments: Vec::new(),
            files_max: None,
            others: vec![None; count],
            links: None,
            formed,
            joins: (formed..count).collect(),
            is_one_list: false,
        }
    }

    /// The name under which a node is a member.
    #[must_use]
    pub fn name(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node].1)
    }

    /// A node that does not run loses its disk. When it is started again it waits to be added.
    ///
    /// # Panics
    /// If its data cannot be removed.
    pub fn wipe(&mut self, node: usize) {
        assert!(!self.is_running(node), "node {node} runs");
        match std::fs::remove_dir_all(self.data_dir(node)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => drop(self.joins.insert(node)),
        }
    }

    /// Nodes that start from now on are told of all nodes as those that form the cluster, as after it was grown.
    pub fn list_all(&mut self) {
        self.is_one_list = true;
    }

    /// Nodes reach each other through relays, by which [`Cluster::isolate`] can cut them off.
    #[must_use]
    pub fn with_links(mut self) -> Self {
        let peer_ports: Vec<u16> = self.ports.iter().map(|(_, peers)| *peers).collect();
        self.links = Some(Links::new(&peer_ports));
        self
    }

    /// Cuts a node off from all others, or lets it reach them again. Its clients reach it all the time.
    ///
    /// # Panics
    /// If the cluster was not made [with links](Cluster::with_links).
    pub fn isolate(&self, node: usize, is_cut_off: bool) {
        self.links.as_ref().expect("the cluster has links").isolate(node, is_cut_off);
    }

    /// Starts every node with these further arguments.
    #[must_use]
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.set_arguments(arguments);
        self
    }

    /// Nodes that are started from now on get these further arguments, instead of the earlier ones.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// From its next start on a node runs this program; `None` for this build's.
    pub fn set_program(&mut self, node: usize, program: Option<&Path>) {
        self.others[node] = program.map(Path::to_owned);
    }

    /// Starts every node with its operations port open.
    #[must_use]
    pub fn with_operations(mut self) -> Self {
        self.has_operations = true;
        self
    }

    /// Starts every node with at most so many open files.
    #[must_use]
    pub fn with_files_max(mut self, files_max: u32) -> Self {
        self.files_max = Some(files_max);
        self
    }

    /// A cluster of `count` nodes that has elected a leader.
    #[must_use]
    pub fn started(count: usize) -> Self {
        Self::started_with(count, &[])
    }

    /// The same with further arguments for every node.
    #[must_use]
    pub fn started_with(count: usize, arguments: &[&str]) -> Self {
        let mut cluster = Self::new(count).with_arguments(arguments);
        cluster.start_all();
        cluster.leader();
        cluster
    }

    /// How many nodes it has, running or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) {
        for node in 0..self.count() {
            if self.nodes[node].is_none() {
                self.start(node);
            }
        }
    }

    /// Starts a node.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&mut self, node: usize) {
        assert!(self.nodes[node].is_none(), "node {node} runs already");
        let child = self.command(node).spawn().expect("the node can be started");
        self.nodes[node] = Some(child);
    }

    /// The command that starts a node.
    ///
    /// # Panics
    /// If its log cannot be written.
    #[must_use]
    pub fn command(&self, node: usize) -> Command {
        let log =
            File::options().create(true).append(true).open(self.log(node)).expect("the log can be written");
        let program = match &self.others[node] {
            Some(program) => program.clone(),
            None => programs().join("raftqueue-node"),
        };
        let mut command = match self.files_max {
            None => Command::new(program),
            Some(files_max) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {files_max}; exec \"$0\" \"$@\"")]).arg(program);
                shell
            }
        };
        command
            .current_dir(self.folder.path())
            .args(self.addresses(node))
            .args(["--log-format", "human"])
            .args(&self.arguments)
            .args(self.operations_argument(node))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    /// A node that is started by its name serves operations in any case: at a port of its own, and not where all would.
    fn operations_argument(&self, node: usize) -> Option<String> {
        let is_named = self.links.is_some() || self.is_one_list || self.joins.contains(&node);
        let is_open = self.has_operations || is_named;
        is_open.then(|| format!("--operations-port={}", self.operations[node]))
    }

    /// Which node it is and where the others are, as arguments.
    fn addresses(&self, node: usize) -> Vec<String> {
        if self.joins.contains(&node) || self.is_one_list {
            let listed = if self.is_one_list { self.count() } else { self.formed };
            let members: Vec<String> = (0..listed).map(|to| format!("{0}={0}", self.name(to))).collect();
            return [
                format!("--name={}", self.name(node)),
                format!("--members={}", members.join(",")),
                format!("--bootstrap={}", if self.is_one_list { "form" } else { "join" }),
                format!("--peer-listen={}", self.name(node)),
                format!("--client-listen=127.0.0.1:{}", self.ports[node].0),
                format!("--data-dir={}", self.data_dir(node).display()),
            ]
            .into();
        }
        let Some(links) = &self.links else {
            return ["--config", "config.json", "--index", &node.to_string()].map(String::from).into();
        };
        let members = (0..self.count()).map(|to| {
            let port = if to == node { self.ports[to].1 } else { links.port(node, to) };
            format!("n{to}=127.0.0.1:{port}")
        });
        [
            format!("--name=n{node}"),
            format!("--members={}", members.collect::<Vec<_>>().join(",")),
            format!("--peer-listen=127.0.0.1:{}", self.ports[node].1),
            format!("--client-listen=127.0.0.1:{}", self.ports[node].0),
            format!("--data-dir={}", self.data_dir(node).display()),
        ]
        .into()
    }

    /// Kills a node with SIGKILL and waits for its end.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks a node to stop and waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn stop(&mut self, node: usize) -> ExitStatus {
        self.signal(node, "TERM");
        let mut running = Running(self.nodes[node].take().expect("the node runs"));
        self.wait_for(&format!("node {node} stops"), || {
            let ended = running.0.try_wait().expect("a child can be waited for");
            ended.ok_or_else(|| "it runs".to_owned())
        })
    }

    /// Sends a signal to a node.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, node: usize, signal: &str) {
        let pid = self.nodes[node].as_ref().expect("the node runs").id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill can be started");
        assert!(status.success(), "cannot send {signal} to node {node}");
    }

    /// True if the node's process runs.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node].is_some()
    }

    /// A client of one node.
    #[must_use]
    pub fn http(&self, node: usize) -> Http {
        Http::new(self.ports[node].0)
    }

    /// The port of a node at which it tells how it is.
    #[must_use]
    pub fn operations_port(&self, node: usize) -> u16 {
        self.operations[node]
    }

    /// What a node tells Prometheus.
    ///
    /// # Panics
    /// If its operations port is not open.
    #[must_use]
    pub fn metrics(&self, node: usize) -> String {
        self.try_metrics(node).expect("the operations port is open")
    }

    /// The same of a node whose operations port may not be open yet.
    #[must_use]
    pub fn try_metrics(&self, node: usize) -> Option<String> {
        let http = Http::new(self.operations[node]).with_timeout(PATIENCE);
        http.request("GET", "/metrics", b"").ok().map(|answer| answer.text)
    }

    /// The value of a series of a node, such as `name` or `name{label="value"}`.
    ///
    /// # Panics
    /// If there is no such series.
    #[must_use]
    pub fn metric(&self, node: usize, series: &str) -> f64 {
        let [value] = self.metrics_at_once(node, [series]);
        value
    }

    /// The values of series of a node, all of one moment.
    ///
    /// # Panics
    /// If one is not there.
    #[must_use]
    pub fn metrics_at_once<const N: usize>(&self, node: usize, series: [&str; N]) -> [f64; N] {
        let text = self.metrics(node);
        series
            .map(|series| series_value(&text, series).unwrap_or_else(|| panic!("{series} is not in\n{text}")))
    }

    /// The peak of a node's memory since it was started, or since the peak was forgotten.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn peak_bytes(&self, node: usize) -> u64 {
        let pid = self.pid(node);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has not ended");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Forgets a node's peak; returns what it has now, from which the next one starts.
    ///
    /// # Panics
    /// If it does not run.
    pub fn forget_peak(&self, node: usize) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid(node)), "5").expect("the node runs");
        self.peak_bytes(node)
    }

    /// The process id of a node.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].as_ref().expect("the node runs").id()
    }

    /// The ports of a node: clients', peers'.
    #[must_use]
    pub fn ports(&self, node: usize) -> (u16, u16) {
        self.ports[node]
    }

    /// The node that says it leads, once there is one.
    ///
    /// # Panics
    /// If there is none within [`PATIENCE`].
    pub fn leader(&mut self) -> usize {
        self.wait_for("a node leads", || {
            let leader = (0..self.count()).find(|node| self.says_it_leads(*node));
            leader.ok_or_else(|| "none does".to_owned())
        })
    }

    /// Waits until a node says that it is ready.
    ///
    /// # Panics
    /// If it is not ready within [`PATIENCE`], or its operations port is not open.
    pub fn wait_ready(&self, node: usize) {
        self.wait_until(&format!("node {node} is ready"), || self.is_ready(node));
    }

    /// Whether a node says that it is ready; one that cannot be asked is not.
    #[must_use]
    pub fn is_ready(&self, node: usize) -> bool {
        let http = Http::new(self.operations[node]).with_timeout(PATIENCE);
        http.request("GET", "/readyz", b"").is_ok_and(|answer| answer.code == 200)
    }

    /// What a node says of itself: its role and its term; `None` while it does not answer.
    #[must_use]
    pub fn standing(&self, node: usize) -> Option<(String, u64)> {
        let status = self.http(node).status().ok()?.body;
        Some((status["role"].as_str()?.to_owned(), status["term"].as_u64()?))
    }

    fn says_it_leads(&self, node: usize) -> bool {
        self.is_running(node)
            && self.http(node).status().is_ok_and(|answer| answer.body["role"].as_str() == Some("Leader"))
    }

    /// The folder of everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory of a node.
    #[must_use]
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join("raftqueue-data").join(format!("127.0.0.1-{}", self.ports[node].0))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("node-{node}.log"))
    }

    /// All logs, whole.
    #[must_use]
    pub fn whole_logs(&self) -> String {
        (0..self.count()).map(|node| std::fs::read_to_string(self.log(node)).unwrap_or_default()).collect()
    }

    /// The last lines of all logs, for messages of failed tests.
    #[must_use]
    pub fn logs(&self) -> String {
        let last = |node: usize| {
            let text = std::fs::read_to_string(self.log(node)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- node {node}\n{}\n", lines[lines.len().saturating_sub(12)..].join("\n"))
        };
        (0..self.count()).map(last).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.count() {
            self.kill(node);
        }
    }
}

/// Ports that nobody uses now. They lie below those that the system gives to whoever connects to something: a node that is
/// started later, or again, finds its own still free.
///
/// # Panics
/// If the machine has none left.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Several test processes may look for ports at once. Each begins at a number of its own.
    let first = std::process::id().wrapping_mul(7_919);
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..COUNT {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + number).expect("below 65,536");
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
        if listeners.len() == count {
            return listeners.iter().map(|l| l.local_addr().expect("it is bound").port()).collect();
        }
    }
    panic!("no {count} ports are free");
}
