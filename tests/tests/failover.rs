//! How long nobody is served when a leader's process dies, seen by clients that know all nodes; and what must not cost a
//! lead: followers that come and go, and a leader that stops for a moment.
//!
//! No time is ever asserted: only that nothing acknowledged is lost, and that there is no election without need. The
//! times are printed. `RAFTQUEUE_FAILOVER_KILLS=100` kills so many leaders in each of the four runs instead of a few,
//! and `RAFTQUEUE_FAILOVER_DISTURBANCES=50` disturbs so many followers in each way, at an election timeout of 300 ms;
//! both want a machine of their own, `--release` and `--nocapture`.

use raftqueue_client::{Client, v1};
use raftqueue_tests::process::{Cluster, PATIENCE, env_number};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const TOPIC: &str = "orders";

/// What clients were told.
#[derive(Default)]
struct Account {
    /// When each acknowledgement came.
    times: Vec<Instant>,
    acknowledged: BTreeSet<String>,
}

/// Clients that publish, one call after the other, each at most so often.
struct Load {
    account: Arc<Mutex<Account>>,
    stop: Arc<AtomicBool>,
    publishers: JoinSet<()>,
    client: Client,
    runtime: Runtime,
}

impl Load {
    fn start(cluster: &Cluster, publishers: usize, every: Duration) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let endpoints = (0..cluster.count()).map(|node| format!("127.0.0.1:{}", cluster.ports(node).0));
        let client = Client::connect(endpoints).expect("addresses");
        let topic = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
        runtime.block_on(client.clone().with_timeout(PATIENCE).create_topic(topic)).expect("created");
        let (account, stop) = (Arc::<Mutex<Account>>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for publisher in 0..publishers {
            let (account, stop) = (Arc::clone(&account), Arc::clone(&stop));
            let publishing = publish(client.clone(), publisher, every, account, stop);
            tasks.spawn_on(publishing, runtime.handle());
        }
        Self { account, stop, publishers: tasks, client, runtime }
    }

    fn acknowledged(&self) -> usize {
        self.account.lock().expect("nobody panicked").times.len()
    }

    /// Waits until so many more are acknowledged.
    fn go_on(&self, count: usize, cluster: &Cluster) {
        let wanted = self.acknowledged() + count;
        cluster.wait_until("more is acknowledged", || self.acknowledged() >= wanted);
    }

    /// Waits until every node is there and has what the leader has, but for the newest.
    fn until_whole(&self, cluster: &Cluster) {
        cluster.wait_until("every node has what the leader has", || {
            let status = self.runtime.block_on(self.client.cluster_status(v1::ClusterStatusRequest {}));
            let is_whole = |members: &[v1::Member]| members.iter().all(|m| m.active && m.lag < 50);
            status.is_ok_and(|status| is_whole(&status.members))
        });
    }

    /// The longest time without an acknowledgement since `from`, counted from the last one before it.
    fn pause_since(&self, from: Instant) -> Duration {
        let times = &self.account.lock().expect("nobody panicked").times;
        let first = times.partition_point(|time| *time <= from).saturating_sub(1);
        times[first..].windows(2).map(|pair| pair[1] - pair[0]).max().expect("some were acknowledged since")
    }

    /// Ends it; everything that was acknowledged must be there, once.
    fn finish(mut self, cluster: &Cluster) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let runtime = self.runtime;
        let client = self.client.with_timeout(PATIENCE);
        runtime.block_on(async {
            while let Some(ended) = self.publishers.join_next().await {
                ended.expect("it does not panic");
            }
            let mut missing = std::mem::take(&mut self.account.lock().expect("nobody panicked").acknowledged);
            let count = missing.len();
            let mut seen = BTreeSet::new();
            loop {
                let pop = v1::PopRequest { topic: TOPIC.into(), messages_max: 1_000, ..Default::default() };
                let popped = client.pop(pop).await.expect("popped").deliveries;
                if popped.is_empty() {
                    break;
                }
                for delivery in popped {
                    let body = String::from_utf8(delivery.body.to_vec()).expect("text");
                    missing.remove(&body);
                    assert!(seen.insert(body.clone()), "{body} is there twice");
                }
            }
            assert_eq!(missing.first(), None, "{} of {count} are lost\n{}", missing.len(), cluster.logs());
            count
        })
    }
}

async fn publish(
    client: Client,
    publisher: usize,
    every: Duration,
    account: Arc<Mutex<Account>>,
    stop: Arc<AtomicBool>,
) {
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let number = AtomicUsize::new(0);
    while !stop.load(Ordering::Relaxed) {
        turns.tick().await;
        let body = format!("{publisher}-{}", number.fetch_add(1, Ordering::Relaxed));
        let message = v1::NewMessage { body: body.clone().into(), ..Default::default() };
        let request = v1::PublishRequest { topic: TOPIC.into(), session: None, messages: vec![message] };
        // What became of a failed one is not known, and does not matter here: the next one is another message.
        if client.publish(request).await.is_ok() {
            let mut account = account.lock().expect("nobody panicked");
            account.times.push(Instant::now());
            account.acknowledged.insert(body);
        }
    }
}

/// Why the node that leads came to lead.
fn cause(cluster: &Cluster, leader: usize) -> &'static str {
    let won = |cause: &str| {
        let series = format!("raftqueue_raft_elections_won_total{{cause=\"{cause}\"}}");
        cluster.metric(leader, &series) > 0.5
    };
    // A process that leads after a kill has mostly won once in its life.
    cluster.wait_for("a leader has won", || {
        let cause = ["hint", "timeout", "hand_over"].into_iter().find(|cause| won(cause));
        cause.ok_or_else(|| "it has not".to_owned())
    })
}

/// Kills leaders and tells how long nobody was served.
fn kill_leaders(nodes: usize, publishers: usize, every: Duration, kills: usize) {
    let mut cluster = Cluster::new(nodes).with_operations();
    cluster.start_all();
    cluster.leader();
    let load = Load::start(&cluster, publishers, every);
    let mut pauses = Vec::new();
    let mut causes = BTreeMap::<&str, usize>::new();
    for _ in 0..kills {
        load.until_whole(&cluster);
        load.go_on(40 * publishers, &cluster);
        let leader = cluster.leader();
        let begun = Instant::now();
        cluster.kill(leader);
        load.go_on(10 * publishers, &cluster);
        pauses.push(load.pause_since(begun));
        let leads_now = cluster.leader();
        *causes.entry(cause(&cluster, leads_now)).or_default() += 1;
        cluster.start(leader);
    }
    let count = load.finish(&cluster);
    pauses.sort();
    let at = |part: usize| pauses[(pauses.len() * part).div_ceil(100).max(1) - 1].as_secs_f64();
    println!(
        "{nodes} nodes, {publishers} publishers every {every:?}: {kills} leaders killed, {count} acknowledged and none lost; \
         nobody was served for {:.3} s (median), {:.3} s (95 of 100), {:.3} s (all); decided by {causes:?}",
        at(50),
        at(95),
        at(100)
    );
}

#[test]
fn leaders_that_are_killed_lose_nothing_idle_or_under_load() {
    let kills = env_number("RAFTQUEUE_FAILOVER_KILLS").unwrap_or(2);
    for nodes in [3, 5] {
        kill_leaders(nodes, 1, Duration::from_millis(5), kills);
        kill_leaders(nodes, 20, Duration::from_millis(20), kills);
    }
}

#[test]
fn followers_that_come_and_go_and_a_leader_that_stops_for_a_moment_cause_no_election() {
    let full = env_number("RAFTQUEUE_FAILOVER_DISTURBANCES");
    // A busy machine must not be taken for a silent leader.
    let timeout_ms: u64 = if full.is_some() { 300 } else { 5_000 };
    let rounds = full.unwrap_or(1);
    let timeout = timeout_ms.to_string();
    let mut cluster =
        Cluster::new(3).with_links().with_operations().with_arguments(&["--election-timeout-ms", &timeout]);
    cluster.start_all();
    let leader = cluster.leader();
    let load = Load::start(&cluster, 1, Duration::from_millis(5));
    load.until_whole(&cluster);
    let before = standing(&cluster, leader);
    for round in 0..rounds {
        let follower = (leader + 1 + round % 2) % 3;
        // From a moment to more than any timeout.
        let while_away = Duration::from_millis(timeout_ms * (1 + round as u64 % 5) / 2 + timeout_ms / 8);
        let check = |cluster: &Cluster, what: &str| {
            must_stand(cluster, &load, leader, &before, &format!("{what}, round {round}"));
        };
        cluster.signal(follower, "STOP");
        std::thread::sleep(while_away);
        cluster.signal(follower, "CONT");
        check(&cluster, "a follower was paused");
        cluster.isolate(follower, true);
        std::thread::sleep(while_away + 2 * Duration::from_millis(timeout_ms));
        cluster.isolate(follower, false);
        check(&cluster, "a follower was cut off");
        cluster.kill(follower);
        std::thread::sleep(while_away / 4 * (round as u32 % 2));
        cluster.start(follower);
        check(&cluster, "a follower was killed and started again");
        if round < 20 {
            cluster.signal(leader, "STOP");
            std::thread::sleep(Duration::from_millis(timeout_ms * 2 / 5));
            cluster.signal(leader, "CONT");
            check(&cluster, "the leader stopped for a moment");
        }
    }
    let count = load.finish(&cluster);
    println!(
        "{rounds} followers paused, cut off and killed each: no election, {count} acknowledged, none lost"
    );
}

/// The cluster is whole, its clients are served, and it is led by the same node in the same term.
fn must_stand(cluster: &Cluster, load: &Load, leader: usize, before: &(String, u64), what: &str) {
    load.until_whole(cluster);
    load.go_on(20, cluster);
    assert_eq!(&standing(cluster, leader), before, "{what}:\n{}", cluster.logs());
}

/// What a node says of itself, as soon as it answers.
fn standing(cluster: &Cluster, node: usize) -> (String, u64) {
    let standing = || cluster.standing(node).ok_or_else(|| "no answer".to_owned());
    cluster.wait_for(&format!("node {node} says what it is"), standing)
}
