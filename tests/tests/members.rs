//! Members that come and go under load, as processes: nothing acknowledged is lost, doubled or out of order, whatever is killed
//! meanwhile. Pauses are printed. `RAFTQUEUE_MEMBERS_KILLS=30` kills at ten moments of each change instead of one.

use raftqueue_client::{Client, Error, v1};
use raftqueue_tests::process::{CALM, Cluster, Http, Load, PATIENCE, env_number};
use raftqueue_wal::DataDir;
use raftqueue_wal::disk::RealDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Runtime;

const TOPIC: &str = "t";

/// A cluster whose first node stays, and is asked for everything.
struct Changing {
    cluster: Cluster,
    client: Client,
    runtime: Runtime,
}

impl Changing {
    fn start(formed: usize, room: usize) -> Self {
        let mut cluster = Cluster::with_room(formed, room);
        (0..formed).for_each(|node| cluster.start(node));
        cluster.leader();
        cluster.make_topic(TOPIC);
        let endpoint = format!("127.0.0.1:{}", cluster.ports(0).0);
        let client = Client::connect([endpoint]).expect("an address").with_timeout(Duration::from_secs(5));
        let changing = Self { cluster, client, runtime: Runtime::new().expect("threads") };
        // A node that is removed before it has an entry was no member as far as it knows, and asks about it much later.
        changing.wait_until("all to have the log", |members| {
            members.members.iter().all(|member| member.unwell.is_empty())
        });
        changing
    }

    fn load(&self) -> Load {
        Load::start(TOPIC, 4, &[self.cluster.http(0)])
    }

    fn nodes(&self) -> Vec<Http> {
        vec![self.cluster.http(0)]
    }

    fn members(&self) -> Result<v1::MembersResponse, Error> {
        self.runtime.block_on(self.client.members(v1::MembersRequest {}))
    }

    /// Waits until something is so of the members.
    fn wait_until(&self, what: &str, is_so: impl Fn(&v1::MembersResponse) -> bool) {
        self.cluster.wait_for(what, || match self.members() {
            Ok(members) if is_so(&members) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn names(&self, nodes: &[usize]) -> Vec<String> {
        nodes.iter().map(|node| self.cluster.name(*node)).collect()
    }

    /// The number of the node that leads.
    fn leader(&self) -> usize {
        let leads = || {
            let members = self.members().map_err(|error| error.to_string())?;
            let leader = members.members.iter().find(|member| member.leads).ok_or("nobody leads")?;
            let is_it = |node: &usize| self.cluster.name(*node) == leader.name;
            Ok::<_, String>((0..self.cluster.count()).find(is_it).expect("one of ours"))
        };
        self.cluster.wait_for("a leader", leads)
    }

    /// Asks again and again, until the members are so. What is of unknown outcome may have been done.
    fn change(
        &self,
        what: &str,
        ask: impl Fn() -> Result<(), Error>,
        is_done: impl Fn(&v1::MembersResponse) -> bool,
    ) {
        self.cluster.wait_for(what, || {
            let members = self.members().map_err(|error| error.to_string())?;
            if is_done(&members) && !members.joint && members.settled {
                return Ok(());
            }
            match ask() {
                Ok(()) => Err("it is done, and to be looked at".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Nodes are started and become voters.
    fn grow(&mut self, nodes: &[usize]) {
        let names = self.names(nodes);
        for node in nodes {
            if !self.cluster.is_running(*node) {
                self.cluster.start(*node);
            }
        }
        let is = |members: &v1::MembersResponse, name: &String, standing: &str| {
            members.members.iter().any(|member| member.name == *name && member.standing == standing)
        };
        let is_member = |members: &v1::MembersResponse, name: &String| {
            is(members, name, "learner") || is(members, name, "voter")
        };
        self.wait_until("the new nodes wait", |members| {
            let waits = |name: &String| members.waiting.iter().any(|node| node.name == *name);
            names.iter().all(|name| waits(name) || is_member(members, name))
        });
        let add = || {
            let members = self.members()?;
            let nodes = names.iter().filter(|name| !is_member(&members, name)).cloned().collect();
            let configuration_index = Some(members.configuration_index);
            let request = v1::AddLearnerRequest { nodes, configuration_index, dry: false };
            self.runtime.block_on(self.client.add_learner(request)).map(drop)
        };
        self.change("they are learners", add, |members| names.iter().all(|name| is_member(members, name)));
        let promote = || {
            let members = self.members()?;
            let nodes = names.iter().filter(|name| !is(&members, name, "voter")).cloned().collect();
            let configuration_index = Some(members.configuration_index);
            let request = v1::PromoteRequest { nodes, configuration_index, dry: false };
            self.runtime.block_on(self.client.promote(request)).map(drop)
        };
        self.change("they are voters", promote, |members| {
            names.iter().all(|name| is(members, name, "voter"))
        });
    }

    /// Members are removed.
    fn remove(&self, nodes: &[usize]) {
        let names = self.names(nodes);
        let is_member = |members: &v1::MembersResponse, name: &String| {
            members.members.iter().any(|member| member.name == *name)
        };
        let remove = || {
            let members = self.members()?;
            let nodes = names.iter().filter(|name| is_member(&members, name)).cloned().collect();
            let configuration_index = Some(members.configuration_index);
            let request = v1::RemoveRequest { nodes, configuration_index, dry: false, force: false };
            self.runtime.block_on(self.client.remove(request)).map(drop)
        };
        self.change("they are members no longer", remove, |members| {
            !names.iter().any(|name| is_member(members, name))
        });
    }

    /// A member is removed that has only its id left.
    fn remove_id(&self, id: &str) {
        let remove = || {
            let configuration_index = Some(self.members()?.configuration_index);
            let nodes = vec![id.to_owned()];
            let request = v1::RemoveRequest { nodes, configuration_index, dry: false, force: false };
            self.runtime.block_on(self.client.remove(request)).map(drop)
        };
        self.change("it is no member any longer", remove, |members| {
            members.members.iter().all(|member| member.id != id)
        });
    }

    /// They are removed, stopped, and lose their disks.
    fn shrink(&mut self, nodes: &[usize]) {
        self.remove(nodes);
        for node in nodes {
            self.cluster.kill(*node);
            self.cluster.wipe(*node);
        }
    }

    /// From now on another node is asked.
    fn ask_at(&mut self, node: usize) {
        let endpoint = format!("127.0.0.1:{}", self.cluster.ports(node).0);
        self.client = Client::connect([endpoint]).expect("an address").with_timeout(Duration::from_secs(5));
    }

    /// What a node says of itself.
    fn own_status(&self, node: usize) -> v1::StatusResponse {
        let endpoint = format!("127.0.0.1:{}", self.cluster.ports(node).0);
        self.runtime.block_on(self.client.status(&endpoint)).expect("it runs")
    }

    fn voters(&self) -> usize {
        let members = self.members().expect("a leader");
        members.members.iter().filter(|member| member.standing == "voter").count()
    }
}

#[test]
fn a_cluster_grows_and_shrinks_under_load_and_loses_doubles_and_reorders_nothing() {
    let mut changing = Changing::start(3, 2);
    let load = changing.load();
    let told = |what: &str| println!("{what}: no acknowledgement for at most {:?}", load.take_pause());
    changing.grow(&[3, 4]);
    told("3 to 5");
    // The leader among them, unless it is the one that stays.
    let leader = changing.leader();
    let gone = if leader == 0 { [1, 2] } else { [leader, 1 + leader % 4] };
    changing.shrink(&gone);
    told("5 to 3");
    changing.grow(&gone);
    told("3 to 5 again");
    let leader = changing.leader();
    if leader == 0 {
        let to = Some(changing.cluster.name(1));
        let request = v1::TransferLeadershipRequest { to };
        changing.runtime.block_on(changing.client.transfer_leadership(request)).expect("another one leads");
    }
    let led = changing.leader();
    let mut others: Vec<usize> = (1..5).collect();
    others.sort_by_key(|node| *node != led);
    changing.shrink(&others[2..]);
    changing.shrink(&others[..2]);
    told("5 to 3 to 1, with the leader");
    assert_eq!((changing.voters(), changing.leader()), (1, 0));
    changing.grow(&[3, 1]);
    told("1 to 3");
    assert_eq!(changing.voters(), 3);
    let report = load.finish(TOPIC, &changing.nodes()).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{report:?}");
    assert!(report.acknowledged > 0, "the load was none: {report:?}");
}

/// Asks every node again and again who leads, by itself, and remembers whoever said so in which term.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: JoinHandle<BTreeMap<u64, BTreeSet<usize>>>,
}

impl Watch {
    fn start(cluster: &Cluster) -> Self {
        let nodes: Vec<Http> = (0..cluster.count()).map(|node| cluster.http(node)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let seen = std::thread::spawn(move || {
            let mut seen: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for (node, http) in nodes.iter().enumerate() {
                    // Many are down at times.
                    let Ok(status) = http.status() else { continue };
                    if let (Some("Leader"), Some(term)) =
                        (status.body["role"].as_str(), status.body["term"].as_u64())
                    {
                        seen.entry(term).or_default().insert(node);
                    }
                }
            }
            seen
        });
        Self { stop, seen }
    }

    /// No term had two leaders.
    fn check(self) {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.seen.join().expect("it only asks");
        assert!(!seen.is_empty(), "nobody ever led");
        let split: Vec<_> = seen.iter().filter(|(_, leaders)| leaders.len() > 1).collect();
        assert!(split.is_empty(), "two leaders in a term: {split:?}");
    }
}

/// What happens to the members; two nodes come and go, and the first one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Grow,
    Replace,
    Shrink,
}

impl Changing {
    /// Asks once for the change, whatever comes of it.
    fn ask_once(&mut self, change: Change, lost: &str) {
        let names = self.names(&[3, 4]);
        match change {
            Change::Grow => {
                for node in [3, 4] {
                    if !self.cluster.is_running(node) {
                        self.cluster.start(node);
                    }
                }
                let request = v1::AddLearnerRequest { nodes: names, configuration_index: None, dry: false };
                let _ = self.runtime.block_on(self.client.add_learner(request));
            }
            Change::Replace => {
                self.cluster.kill(4);
                self.cluster.wipe(4);
                self.cluster.start(4);
                let _ = self.replace_lost(lost);
            }
            Change::Shrink => {
                let request = v1::RemoveRequest { nodes: names, ..v1::RemoveRequest::default() };
                let _ = self.runtime.block_on(self.client.remove(request));
            }
        }
    }

    /// One step towards the node that waits under a name in the place of the voter whose disk was lost.
    fn replace_lost(&self, lost: &str) -> Result<(), Error> {
        let (name, members) = (self.cluster.name(4), self.members()?);
        let is_new = |member: &&v1::MemberState| member.name == name && member.id != lost;
        if let Some(learner) = members.members.iter().find(is_new) {
            let (old, new) = (lost.to_owned(), learner.id.clone());
            let request = v1::ReplaceRequest { old, new, ..v1::ReplaceRequest::default() };
            return self.runtime.block_on(self.client.replace(request)).map(drop);
        }
        let Some(waits) = members.waiting.iter().find(|node| node.name == name) else { return Ok(()) };
        let request = v1::AddLearnerRequest { nodes: vec![waits.id.clone()], ..Default::default() };
        self.runtime.block_on(self.client.add_learner(request)).map(drop)
    }

    /// Asks until the change is done.
    fn carry_out(&mut self, change: Change, lost: &str) {
        match change {
            Change::Grow => self.grow(&[3, 4]),
            Change::Shrink => self.shrink(&[3, 4]),
            Change::Replace => {
                let name = self.cluster.name(4);
                let is_replaced = |members: &v1::MembersResponse| {
                    let is_new = |member: &v1::MemberState| {
                        member.name == name && member.id != lost && member.standing == "voter"
                    };
                    members.members.iter().any(is_new)
                };
                self.change("the lost one is replaced", || self.replace_lost(lost), is_replaced);
            }
        }
    }
}

/// The changes take turns; who is killed, and when, follows from the seed. Whoever is killed may be the one that comes, the one that
/// goes, or the leader; only the first node, which is asked for everything, stays unless it leads.
#[test]
fn members_killed_at_any_moment_of_a_change_leave_one_configuration() {
    let kills = env_number::<u32>("RAFTQUEUE_MEMBERS_KILLS").unwrap_or(3);
    let seed = env_number::<u64>("RAFTQUEUE_MEMBERS_SEED").unwrap_or(1);
    println!("RAFTQUEUE_MEMBERS_SEED={seed} RAFTQUEUE_MEMBERS_KILLS={kills}");
    let mut state = seed;
    let mut below = |end: u64| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    };
    let mut changing = Changing::start(3, 2);
    let watch = Watch::start(&changing.cluster);
    let load = changing.load();
    let order = [Change::Grow, Change::Replace, Change::Shrink];
    for (round, change) in (0..kills).zip(order.into_iter().cycle()) {
        let victim = match below(6) {
            5 => changing.leader(),
            node => usize::try_from(node).expect("small"),
        };
        let moment = Duration::from_millis(below(250));
        let name = changing.cluster.name(4);
        let members = changing.members().expect("a leader").members;
        let lost = members.into_iter().find(|member| member.name == name);
        let lost = lost.map(|member| member.id).unwrap_or_default();
        let pid = changing.cluster.is_running(victim).then(|| changing.cluster.pid(victim));
        let killer = std::thread::spawn(move || {
            // The moment is one of many: nothing waits for it.
            std::thread::sleep(moment);
            if let Some(pid) = pid {
                let _ = std::process::Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
            }
        });
        changing.ask_once(change, &lost);
        killer.join().expect("it only kills");
        if pid.is_some() && changing.cluster.is_running(victim) {
            changing.cluster.kill(victim);
            changing.cluster.start(victim);
        }
        changing.carry_out(change, &lost);
        changing.wait_until("one configuration", |members| !members.joint && members.settled);
        println!(
            "round {round}, {change:?}: node {victim} killed after {moment:?}, no acknowledgement for {:?}",
            load.take_pause()
        );
        assert_eq!(changing.voters(), if change == Change::Shrink { 3 } else { 5 });
    }
    watch.check();
    let report = load.finish(TOPIC, &changing.nodes()).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{report:?}");
    assert!(report.acknowledged > 0, "the load was none: {report:?}");
}

/// How often these nodes came to lead for a reason.
fn won(cluster: &Cluster, nodes: &[usize], cause: &str) -> f64 {
    let series = format!("raftqueue_raft_elections_won_total{{cause=\"{cause}\"}}");
    nodes.iter().map(|node| cluster.metric(*node, &series)).sum()
}

#[test]
fn removing_the_leader_costs_no_election_and_is_answered() {
    // Nobody who is alive is taken for silent.
    let mut cluster = Cluster::new(3).with_arguments(&CALM).with_operations();
    cluster.start_all();
    let leader = cluster.leader();
    cluster.make_topic(TOPIC);
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let causes = ["hint", "timeout", "hand_over"];
    let before = causes.map(|cause| won(&cluster, &others, cause));
    let endpoint = format!("127.0.0.1:{}", cluster.ports(leader).0);
    let client = Client::connect([endpoint]).expect("an address").with_timeout(PATIENCE);
    let request = v1::RemoveRequest { nodes: vec![cluster.name(leader)], ..v1::RemoveRequest::default() };
    let runtime = Runtime::new().expect("threads");
    cluster.wait_for("the others are well", || {
        let dry = v1::RemoveRequest { dry: true, ..request.clone() };
        let answer = runtime.block_on(client.remove(dry)).map_err(|error| error.text)?;
        if answer.refusal.is_empty() { Ok(()) } else { Err(answer.refusal) }
    });
    // It is asked once, and of the leader: what it answers is the end of the change, by which it leads no more.
    let answer = runtime.block_on(client.remove(request));
    assert!(answer.is_ok(), "{answer:?}\n{}", cluster.logs());
    let next = cluster.wait_for("another node leads", || {
        let leads = |node: &&usize| cluster.standing(**node).is_some_and(|(role, _)| role == "Leader");
        others.iter().find(leads).copied().ok_or_else(|| "none does".to_owned())
    });
    assert_eq!(cluster.patient(next).publish(TOPIC, "x").expect("it leads").code, 201);
    let after = causes.map(|cause| won(&cluster, &others, cause));
    let [hint, timeout, hand_over] = [0, 1, 2].map(|at| after[at] - before[at]);
    assert_eq!((hint, timeout, hand_over), (0.0, 0.0, 1.0), "by hint, by timeout, by hand-over");
}

#[test]
fn rule_1_5_a_removed_node_that_comes_back_with_its_disk_begins_anew() {
    let mut changing = Changing::start(3, 0);
    let leader = changing.leader();
    let victim = if leader == 1 { 2 } else { 1 };
    changing.cluster.publish_until_taken(0, TOPIC, "before");
    let id_of = |members: &v1::MembersResponse, name: &str| {
        let member = members.members.iter().find(|member| member.name == name);
        member.map(|member| member.id.clone())
    };
    let name = changing.cluster.name(victim);
    let old = id_of(&changing.members().expect("a leader"), &name).expect("a member");
    changing.cluster.kill(victim);
    changing.remove(&[victim]);
    changing.cluster.publish_until_taken(0, TOPIC, "while it is away");
    changing.cluster.start(victim);
    changing.wait_until("it waits", |members| {
        members.waiting.iter().any(|node| node.name == name && node.id != old)
    });
    let aside = changing.cluster.data_dir(victim).join(format!("removed-{old}"));
    assert!(aside.join("IDENTITY").exists(), "{}", changing.cluster.logs());
    changing.grow(&[victim]);
    assert_eq!(changing.voters(), 3);
    // What was set aside goes once the new node has caught up.
    changing.cluster.wait_until("it is gone", || !aside.exists());
    let pops =
        [1, 2].map(|id| changing.cluster.pop_until_answered(victim, TOPIC, id).body["message"].clone());
    assert_eq!(pops, ["before", "while it is away"]);
}

/// A node that formed its cluster alone, and was one of three when it lost its disk. The configuration in which it alone is a
/// quorum is history: it is another node, which waits, and the two that are left go on with everything.
#[test]
fn rule_1_1_a_founder_that_lost_its_disk_forms_no_second_cluster() {
    let mut changing = Changing::start(1, 2);
    changing.cluster.publish_until_taken(0, TOPIC, "alone");
    changing.grow(&[1, 2]);
    changing.cluster.publish_until_taken(0, TOPIC, "of three");
    let before = changing.members().expect("a leader");
    let name = changing.cluster.name(0);
    let old = before.members.iter().find(|member| member.name == name).expect("a member").id.clone();
    changing.cluster.kill(0);
    changing.cluster.wipe(0);
    // Its settings know of the others by now, and say that it is one of those that form the cluster.
    changing.cluster.list_all();
    changing.cluster.start(0);
    changing.ask_at(1);
    changing.wait_until("it waits under another id", |members| {
        members.waiting.iter().any(|node| node.name == name && node.id != old)
    });
    assert_eq!(changing.voters(), 3, "the lost one is a member until somebody replaces it");
    let alone = changing.own_status(0);
    assert!(alone.cluster_id.is_empty() && !alone.ready, "{alone:?}");
    changing.remove_id(&old);
    changing.grow(&[0]);
    let pops = [1, 2].map(|id| changing.cluster.pop_until_answered(0, TOPIC, id).body["message"].clone());
    assert_eq!(pops, ["alone", "of three"]);
}

/// A founder that never got an entry knows of no configuration that it could be left out of.
#[test]
fn rule_1_5_a_node_that_was_removed_before_it_had_an_entry_begins_anew() {
    let mut changing = Changing::start(3, 0);
    let victim = if changing.leader() == 1 { 2 } else { 1 };
    changing.cluster.kill(victim);
    changing.remove(&[victim]);
    let (dir, name) = (changing.cluster.data_dir(victim), changing.cluster.name(victim));
    let open = || DataDir::open(Arc::new(RealDisk::open(&dir).expect("its directory")), Some(&name));
    let founder = open().expect("nobody else has it").identity().cloned().expect("it was formed");
    std::fs::remove_dir_all(&dir).expect("nothing runs there");
    let mut blank = open().expect("a new directory");
    blank.format(founder.node_id, &name).expect("it is blank");
    blank.bind(founder.formation_id, founder.binding.expect("a founder is bound")).expect("it is not bound");
    drop(blank);
    changing.cluster.start(victim);
    let old = format!("{:016x}", founder.node_id.0);
    changing.wait_until("it waits", |members| {
        members.waiting.iter().any(|node| node.name == name && node.id != old)
    });
    changing.grow(&[victim]);
    assert_eq!(changing.voters(), 3);
}

/// It finds out that it was removed while it still drains. It does not begin anew: nobody would tell it to stop once more, and
/// whoever did would have to kill it.
#[test]
fn rule_1_5_a_removed_node_that_was_told_to_stop_ends() {
    let mut changing = Changing::start(3, 0);
    let victim = if changing.leader() == 1 { 2 } else { 1 };
    changing.cluster.stop(victim);
    // Longer than it takes to find out.
    changing.cluster.set_arguments(&["--drain-ms", "6000"]);
    changing.cluster.start(victim);
    changing
        .wait_until("it is back", |members| members.members.iter().all(|member| member.unwell.is_empty()));
    changing.remove(&[victim]);
    assert!(changing.cluster.stop(victim).success());
}

/// Whoever asks a node that is no member is told so at once: another one can be asked while that one waits for nobody.
#[test]
fn rule_1_5_a_removed_node_sends_its_clients_to_the_others() {
    let changing = Changing::start(3, 0);
    let victim = if changing.leader() == 1 { 2 } else { 1 };
    changing.remove(&[victim]);
    let is_told = |node: usize| {
        let body = br#"{"messages": [{"body": "x"}]}"#;
        let path = format!("/v1/topics/{TOPIC}/publish");
        match changing.cluster.http(node).request("POST", &path, body) {
            Ok(answer) if answer.code == 503 && answer.text.contains("no member of the cluster") => {
                assert_eq!(answer.body["outcome"], "NOT_DONE", "{}", answer.text);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    };
    // As the node that it was, or as the new one that waits.
    changing.cluster.wait_for("it says that it is no member", || is_told(victim));
    changing.wait_until("it waits", |members| !members.waiting.is_empty());
    changing.cluster.wait_for("it still does", || is_told(victim));
}
