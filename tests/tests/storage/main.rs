//! What stands on the disks of real nodes: as much as what waits, whatever goes through, and all of it readable, whoever is
//! killed when.
//!
//! `RAFTQUEUE_STORAGE_MIB` sets how much is published in each test (24 MiB by default), and `RAFTQUEUE_STORAGE_ROUNDS` how
//! often everything is killed, and how often an install is cut off in each way (3 and 1).

mod backlog;
mod installs;
mod traffic;

use raftqueue_client::{Client, v1};
use raftqueue_tests::process::{CALM, Cluster, PATIENCE, env_number};
use std::os::unix::fs::MetadataExt;
use tokio::runtime::Runtime;
use traffic::{Plan, Traffic};

const MIB: u64 = 1 << 20;
/// The smallest segments that there are.
const SEGMENT: u64 = MIB;
const ARGUMENTS: [&str; 2] = ["--segment-bytes", "1048576"];
const LEASE_MS: u64 = 600_000;
/// Everything is acknowledged at once.
const NOTHING_LEFT: Plan = Plan { body_bytes: 8 << 10, one_left_of: 0, lease_ms: LEASE_MS, is_calm: true };

/// Bytes to be published in one test.
fn volume() -> u64 {
    env_number("RAFTQUEUE_STORAGE_MIB").unwrap_or(24) * MIB
}

fn rounds(default: u32) -> u32 {
    env_number("RAFTQUEUE_STORAGE_ROUNDS").unwrap_or(default)
}

/// A cluster of three with a client.
struct Lives {
    cluster: Cluster,
    client: Client,
    runtime: Runtime,
}

impl Lives {
    fn started(arguments: &[&str]) -> Self {
        let arguments = [&ARGUMENTS, arguments].concat();
        let mut cluster = Cluster::new(3).with_operations().with_arguments(&arguments);
        cluster.start_all();
        cluster.leader();
        let endpoints = (0..3).map(|node| format!("127.0.0.1:{}", cluster.ports(node).0));
        let client = Client::connect(endpoints).expect("addresses").with_timeout(PATIENCE);
        Self { cluster, client, runtime: Runtime::new().expect("a runtime") }
    }

    fn traffic(&self, topic: &str, plan: Plan) -> Traffic {
        Traffic::start(self.runtime.handle(), &self.client, topic, plan)
    }

    /// Bytes that a node's folder takes on the disk, and those of them that its snapshots take.
    fn stored(&self, node: usize) -> (u64, u64) {
        let files = std::fs::read_dir(self.cluster.data_dir(node)).expect("the folder is there");
        let (mut all, mut snapshots) = (0, 0);
        for file in files.flatten() {
            // It may just have gone.
            let Ok(metadata) = file.metadata() else { continue };
            all += metadata.blocks() * 512;
            if file.file_name().to_string_lossy().starts_with("snapshot") {
                snapshots += metadata.blocks() * 512;
            }
        }
        (all, snapshots)
    }

    /// Waits until the folder of each node takes no more than so many segments, its snapshots, and twice what lives.
    fn until_small(&self, segments: u64, traffics: &[&Traffic]) {
        for node in 0..3 {
            self.cluster.wait_for(&format!("the disk of node {node} is small"), || {
                let living: u64 = traffics.iter().map(|traffic| traffic.living_bytes()).sum();
                let (all, snapshots) = self.stored(node);
                let most = segments * SEGMENT + 2 * living + snapshots;
                if all <= most { Ok(()) } else { Err(format!("{all} bytes, and {most} are enough")) }
            });
        }
    }

    /// Waits until so many bytes more are published.
    fn go_on(&self, traffic: &Traffic, bytes: u64) {
        let wanted = traffic.published_bytes() + bytes;
        self.cluster.wait_until("more is published", || traffic.published_bytes() >= wanted);
    }

    /// What goes through leaves nothing behind, while more comes and after that.
    fn until_all_went_through(&self, traffics: &[&Traffic]) {
        let steps = 8;
        for _ in 0..steps {
            for traffic in traffics {
                self.go_on(traffic, volume() / steps / traffics.len() as u64);
            }
            self.until_small(8, traffics);
        }
    }
}

#[test]
fn what_goes_through_leaves_nothing_on_the_disk() {
    let lives = Lives::started(&CALM);
    let mut traffics = ["a", "b"].map(|topic| lives.traffic(topic, NOTHING_LEFT));
    lives.until_all_went_through(&traffics.each_ref());
    traffics.iter_mut().for_each(Traffic::stop);
    lives.until_small(4, &traffics.each_ref());
    traffics.iter().for_each(|traffic| assert_eq!(traffic.check(), 0));
}

#[test]
fn what_is_left_for_ever_costs_the_disk_itself_and_is_all_readable() {
    let mut lives = Lives::started(&CALM);
    let plan = Plan { one_left_of: 61, ..NOTHING_LEFT };
    let mut traffics = ["a", "b"].map(|topic| lives.traffic(topic, plan));
    lives.until_all_went_through(&traffics.each_ref());
    traffics.iter_mut().for_each(Traffic::stop);
    lives.until_small(4, &traffics.each_ref());
    let check = || traffics.iter().map(Traffic::check).sum::<usize>();
    let count = check();
    for node in 0..3 {
        lives.cluster.kill(node);
    }
    lives.cluster.start_all();
    lives.cluster.leader();
    assert_eq!(check(), count);
    println!("{count} messages left");
}

#[test]
fn rule_3_3_processes_killed_at_any_moment_of_keeping_lose_and_mix_up_nothing() {
    let mut lives = Lives::started(&[]);
    let plan = Plan { one_left_of: 23, lease_ms: 1_000, is_calm: false, ..NOTHING_LEFT };
    let mut traffics = ["a", "b"].map(|topic| lives.traffic(topic, plan));
    let rounds = rounds(3);
    for round in 0..rounds {
        for traffic in &traffics {
            // At another moment between two snapshots each time.
            lives.go_on(traffic, volume() / 12 + u64::from(round % 7) * SEGMENT / 3);
        }
        for node in 0..3 {
            lives.cluster.kill(node);
        }
        lives.cluster.start_all();
        lives.cluster.leader();
    }
    traffics.iter_mut().for_each(Traffic::stop);
    let count: usize = traffics.iter().map(Traffic::check).sum();
    println!("{rounds} kills of everything, {count} messages left");
}

#[test]
fn a_killed_node_goes_on_from_its_snapshot() {
    const MESSAGES: u64 = 16;
    const BODY: usize = 4 << 10;
    let mut lives = Lives::started(&CALM);
    let create = v1::CreateTopicRequest { topic: "t".into(), ..Default::default() };
    lives.runtime.block_on(lives.client.create_topic(create)).expect("made");
    let message = v1::NewMessage { body: vec![7; BODY].into(), ..Default::default() };
    let entries = volume() / (MESSAGES * BODY as u64);
    for _ in 0..entries {
        let messages = vec![message.clone(); MESSAGES as usize];
        let request = v1::PublishRequest { topic: "t".into(), session: None, messages };
        lives.runtime.block_on(lives.client.publish(request)).expect("published");
    }
    // What is applied of the log between two snapshots, and while one is made.
    let replayed_max = (4 * SEGMENT / (MESSAGES * BODY as u64)) as f64;
    const SERIES: [&str; 2] = ["raftqueue_raft_applied_index", "raftqueue_snapshot_index"];
    for node in 0..3 {
        let behind = |lives: &Lives| {
            let [applied, snapshot] = lives.cluster.metrics_at_once(node, SERIES);
            // A follower hears with the next heartbeat that the last one is committed.
            let is_so = applied >= entries as f64 && applied - snapshot <= replayed_max;
            if is_so { Ok(()) } else { Err(format!("{applied} of {entries}, {snapshot}")) }
        };
        lives.cluster.wait_for("its snapshot is new", || behind(&lives));
        lives.cluster.kill(node);
        lives.cluster.start(node);
        lives.cluster.wait_ready(node);
        behind(&lives).expect("it began with its snapshot");
    }
    let mut count = 0;
    loop {
        let pop = v1::PopRequest { topic: "t".into(), messages_max: 1_000, ..Default::default() };
        let popped = lives.runtime.block_on(lives.client.pop(pop)).expect("popped").deliveries;
        if popped.is_empty() {
            break;
        }
        assert!(popped.iter().all(|delivery| delivery.body == message.body));
        count += popped.len() as u64;
    }
    assert_eq!(count, entries * MESSAGES);
}
