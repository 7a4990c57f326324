//! The namespaces that one Kubernetes lives in: a network of its own under a name (`ip netns list` shows it), and mounts
//! and process numbers of its own, held by one first process.
//!
//! That buys a clean end: when the first process dies, the kernel kills all others inside (containers and their shims
//! too) and with them go the mounts, the network, its links and its packet filter. The first process dies by itself
//! when the lifeline breaks: a pipe whose other end is the process of the tests. So not even `kill -9` of that process
//! leaves anything running. What remains, a name, empty cgroups and a folder, [`super::stop`] clears away.

use super::command::{Seen, run, wait_for, write};
use super::error::Error;
use super::state::{ProcessMark, Record, State, stat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// Programs of the machine that are used, and the Debian packages that hold them.
pub(super) const MACHINE: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("kill", "procps"),
    ("sh", "dash"),
];

/// Folders of the host that are replaced by empty ones inside, because some program has a fixed path below them.
const HIDDEN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Kernel settings that a kubelet would change for the whole machine. Inside it finds them as it wants them.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The word that the lifeline carries when the Kubernetes is to outlive this process.
const STAY: &str = "stay";

/// How long the first process may take to make its room.
const HOLDER_WITHIN: Duration = Duration::from_secs(20);

/// The way into the namespaces, for this process or a later one.
#[derive(Clone, Debug)]
pub struct Entrance {
    network: PathBuf,
    holder_pid: u32,
    resolv_conf: PathBuf,
}

impl Entrance {
    /// The way into what the state folder describes.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if nothing of it is alive.
    pub fn of(state: &State) -> Result<Self, Error> {
        match state.read_record() {
            Record { holder: Some(holder), first: Some(first), .. } if first.is_alive() => Ok(Self {
                network: network_path(state),
                holder_pid: holder.pid,
                resolv_conf: state.path("resolv.conf"),
            }),
            _ => Err(Error::NotRunning { name: state.name().to_owned() }),
        }
    }

    /// A command in the network of the cluster, with the host's files and processes. The pid of the child is its own.
    #[must_use]
    pub fn in_network(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network.display())).arg("--").arg(program.as_ref());
        command
    }

    /// Runs something in the network of the cluster: in a thread of its own, and in those that this one starts. Sockets that
    /// it opens are that network's; what it opened before are the host's.
    ///
    /// # Errors
    /// [`Error::Io`] if the network cannot be entered.
    pub fn work_in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let enter = || -> Result<(), Error> {
            let problem = || format!("enter {}", self.network.display());
            let network = File::open(&self.network).map_err(Error::io(problem()))?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| Error::io(problem())(error.into()))
        };
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| enter().map(|()| work()));
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`Entrance::in_network`], and names of services and pods resolve: `NAME.NAMESPACE` is enough.
    #[must_use]
    pub fn in_network_with_names(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.in_network("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
            .arg(&self.resolv_conf)
            .arg(program.as_ref());
        command
    }

    /// A command inside everything. The pid of the child is that of a process outside that waits for it.
    #[must_use]
    pub fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.network.display()))
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder_pid))
            .arg(format!("--pid=/proc/{}/ns/pid_for_children", self.holder_pid))
            .arg("--")
            .arg(program.as_ref());
        command
    }
}

/// The namespaces, made and held by this process.
#[derive(Debug)]
pub struct Namespaces {
    entrance: Entrance,
    holder: Child,
    lifeline: Option<ChildStdin>,
}

impl Namespaces {
    /// Makes them. The state folder must exist, so that whatever is made can be cleared away.
    ///
    /// # Errors
    /// [`Error::HiddenFolder`], and [`Error::Failed`] or [`Error::TimedOut`] with what the machine said.
    pub fn create(state: &State, others: &[(&Path, &'static str)]) -> Result<Self, Error> {
        for &(folder, variable) in others.iter().chain(&[(state.folder(), "TMPDIR")]) {
            if let Some(hidden) = HIDDEN.into_iter().find(|hidden| folder.starts_with(hidden)) {
                return Err(Error::HiddenFolder { folder: folder.to_owned(), hidden, variable });
            }
        }
        run(Command::new("ip").args(["netns", "add", &state.kernel_name()]))?;
        let network = network_path(state);
        let mut enter = Command::new("nsenter");
        enter.arg(format!("--net={}", network.display()));
        run(enter.args(["ip", "link", "set", "lo", "up"]))?;
        write(&state.path("first.sh"), script(state)?)?;

        let log = state.log("namespaces");
        let file = File::create(&log).map_err(Error::io(format!("write {}", log.display())))?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", network.display()))
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh"])
            .arg(state.path("first.sh"))
            .stdin(Stdio::piped())
            .stdout(file.try_clone().map_err(Error::io("share a log"))?)
            .stderr(file);
        own_group(&mut command);
        let mut holder = command.spawn().map_err(Error::io("start nsenter"))?;
        let lifeline = holder.stdin.take();
        let first = wait_for("the namespaces", HOLDER_WITHIN, || {
            if let Some(status) = holder.try_wait().map_err(Error::io("wait for a child"))? {
                return Err(Error::Ended {
                    component: "the holder of the namespaces".to_owned(),
                    status,
                    log: log.clone(),
                    tail: super::command::tail(&log, 10),
                });
            }
            let is_ready = state.path("first.ready").exists();
            Ok(match child_of(holder.id()).filter(|_| is_ready) {
                Some(first) => Seen::Done(first),
                None => Seen::NotYet(super::command::tail(&log, 10)),
            })
        })?;
        let mut record = state.read_record();
        record.holder = ProcessMark::of(holder.id());
        record.first = Some(first);
        state.write_record(&record)?;
        Ok(Self { entrance: Entrance::of(state)?, holder, lifeline })
    }

    /// The way in.
    #[must_use]
    pub fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// Lets everything inside outlive this process.
    ///
    /// # Errors
    /// [`Error::Io`] if the first process is gone already.
    pub fn let_stay(mut self) -> Result<(), Error> {
        let mut lifeline = self.lifeline.take().expect("it is taken here only");
        writeln!(lifeline, "{STAY}").map_err(Error::io("tell the first process to stay"))
    }

    /// Waits for the holder, which ends when everything inside has ended.
    pub(super) fn wait(mut self) {
        drop(self.lifeline.take());
        let _ = self.holder.wait();
    }
}

/// A child in a process group of its own. Ctrl-C in a terminal is for the tests, which then stop their children.
pub(super) fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Where `ip netns` puts a network under its name.
pub(super) fn network_path(state: &State) -> PathBuf {
    Path::new("/run/netns").join(state.kernel_name())
}

/// The one child of a process.
fn child_of(parent: u32) -> Option<ProcessMark> {
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    pids.find(|&pid| stat(pid).is_some_and(|(its_parent, _)| its_parent == parent)).and_then(ProcessMark::of)
}

/// What the first process does: prepare everything, then wait until the lifeline breaks, and reap what others leave
/// behind.
fn script(state: &State) -> Result<String, Error> {
    let mut script = String::from("set -eu\nexec 3<&0 </dev/null\n");
    for folder in HIDDEN {
        script.push_str(&format!("mount -t tmpfs -o mode=755 raftqueue {folder}\n"));
    }
    script.push_str("mkdir -p /run/lock /var/lib/kubelet /var/log/containers\n");
    for (setting, value) in KERNEL_SETTINGS {
        let real = Path::new("/proc/sys").join(setting);
        if !real.exists() {
            continue;
        }
        let file = state.path(&format!("sysctl/{}", setting.replace('/', ".")));
        write(&file, value)?;
        script.push_str(&format!("mount --bind '{}' '{}'\n", file.display(), real.display()));
    }
    script.push_str(&format!(
        "trap 'exit 0' TERM\n\
         ( if ! read -r word <&3 || [ \"$word\" != {STAY} ]; then kill -s TERM 1; fi ) &\n\
         exec 3<&-\n\
         : > '{}'\n\
         while :; do sleep 86400 & wait $!; done\n",
        state.text("first.ready")
    ));
    Ok(script)
}
