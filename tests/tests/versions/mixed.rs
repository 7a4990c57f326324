//! Clusters of two builds: this one, and the one of an earlier commit.

use super::traffic::{Plan, Traffic};
use super::{ARGUMENTS, client};
use raftqueue_client::{Client, v1};
use raftqueue_tests::process::{Cluster, programs, repository};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::runtime::Runtime;

const MIB: u64 = 1 << 20;
/// So much goes through that the log no longer reaches back to where it was.
const PAST_THE_LOG: u64 = 12 * MIB;
const PLAN: Plan = Plan { body_bytes: 8 << 10, one_left_of: 23, lease_ms: 1_000, is_calm: false };

/// The node of a commit, built in `target/before`. The path of a program stands for itself.
fn build(commit: &OsStr) -> PathBuf {
    let given = PathBuf::from(commit);
    if given.is_file() {
        return given;
    }
    let folder = programs().parent().expect("it is in the target folder").join("before");
    let source = folder.join("source");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir_all(&source).expect("there is room");
    let archive = source.join("archive.tar");
    let run = |command: &mut Command| {
        let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(status.success(), "{command:?}: {status}");
    };
    run(Command::new("git").current_dir(repository()).arg("archive").arg("-o").arg(&archive).arg(commit));
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source));
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "raftqueue-node", "--bin", "raftqueue-node", "--target-dir"])
        .arg(&folder)
        .current_dir(&source));
    folder.join("debug/raftqueue-node")
}

struct Lives {
    cluster: Cluster,
    client: Client,
    runtime: Runtime,
    before: PathBuf,
}

/// From one build to the other node by node and back, twice, with messages that stay, and installs between the two.
pub(crate) fn lives(commit: &OsStr) {
    let before = build(commit);
    let mut cluster = Cluster::new(3).with_operations().with_arguments(&ARGUMENTS);
    for node in 0..3 {
        cluster.set_program(node, Some(&before));
    }
    cluster.start_all();
    cluster.leader();
    let mut lives =
        Lives { client: client(&cluster), cluster, runtime: Runtime::new().expect("a runtime"), before };
    let mut past = Vec::new();
    for (round, is_new) in [true, false, true].into_iter().enumerate() {
        let mut traffic =
            Traffic::start(lives.runtime.handle(), &lives.client, &format!("round {round}"), PLAN);
        for step in 0..3 {
            // One of each round is away for so long that it gets everything from the others.
            lives.change((round + step) % 3, is_new, step == 1, &traffic);
        }
        traffic.stop();
        past.push(traffic);
        // Whoever leads reads all of it, also what was written by the other build.
        for node in 0..3 {
            lives.lead(node);
            let count: usize = past.iter().map(Traffic::check).sum();
            let bytes: u64 = past.iter().map(Traffic::living_bytes).sum();
            println!("round {round}, node {node} leads: {count} messages with {bytes} bytes are left");
        }
    }
    lives.raise();
    let count: usize = past.iter().map(Traffic::check).sum();
    println!("the version is raised: {count} messages are left");
}

impl Lives {
    /// A node goes over to the other build, and then leads.
    fn change(&mut self, node: usize, is_new: bool, is_long: bool, traffic: &Traffic) {
        self.go_on(traffic, MIB);
        self.cluster.stop(node);
        self.go_on(traffic, if is_long { PAST_THE_LOG } else { MIB });
        let program: Option<&Path> = if is_new { None } else { Some(&self.before) };
        self.cluster.set_program(node, program);
        self.cluster.start(node);
        self.cluster.wait_ready(node);
        if is_long {
            self.cluster.reaches(node, "raftqueue_snapshots_installed_total", |count| count >= 1.0);
            self.cluster.reaches(node, "raftqueue_incomplete", |is_incomplete| is_incomplete < 0.5);
        }
        for leader in [node, (node + 1) % 3] {
            self.lead(leader);
            self.go_on(traffic, MIB);
        }
    }

    /// The version that both know is in force. Where the older build knows no newer one, the newest is raised to, and it is refused
    /// from then on.
    fn raise(&mut self) {
        let members = self.runtime.block_on(self.client.members(v1::MembersRequest {})).expect("listed");
        let newest = members.members.iter().map(|member| member.version_max).min().expect("there are some");
        if members.version == newest {
            return;
        }
        let raised = self.runtime.block_on(self.client.raise_version(v1::RaiseVersionRequest::default()));
        raised.expect("all run it");
        self.cluster.stop(0);
        self.cluster.set_program(0, Some(&self.before));
        self.cluster.start(0);
        self.cluster.wait_for_log(&format!("version {newest} is in force: run a newer image there"));
        self.cluster.stop(0);
        self.cluster.set_program(0, None);
        self.cluster.start(0);
        self.cluster.wait_ready(0);
    }

    fn go_on(&self, traffic: &Traffic, bytes: u64) {
        let wanted = traffic.published_bytes() + bytes;
        self.cluster.wait_until("more is published", || traffic.published_bytes() >= wanted);
    }

    fn lead(&self, node: usize) {
        let address = format!("127.0.0.1:{}", self.cluster.ports(node).0);
        self.cluster.wait_for(&format!("node {node} leads"), || {
            let status = self.runtime.block_on(self.client.cluster_status(v1::ClusterStatusRequest {}));
            let members = status.map_err(|error| error.to_string())?.members;
            let member = members.into_iter().find(|member| member.client_address == address);
            let member = member.ok_or("it is not connected")?;
            if member.role == "leader" {
                return Ok(());
            }
            let request = v1::TransferLeadershipRequest { to: Some(member.name) };
            let transferred = self.runtime.block_on(self.client.transfer_leadership(request));
            Err(format!("{transferred:?}"))
        });
    }
}
