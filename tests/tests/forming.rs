//! Clusters that form under bad conditions: killed on the way, with exchanged or restored disks, among strangers. There is
//! one cluster or none, and who does not belong is told so.

use raftqueue_tests::process::{CALM, Cluster, Running, programs, run_to_end, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status().expect("cp can be started");
    assert!(status.success());
}

/// The node whose name comes first: it forms the cluster.
fn seed(cluster: &Cluster) -> usize {
    let name = |node: &usize| format!("127.0.0.1:{}", cluster.ports(*node).1);
    (0..cluster.count()).min_by_key(name).expect("a cluster has nodes")
}

/// What a node says of itself, as soon as it answers.
fn standing(cluster: &Cluster, node: usize) -> (String, u64) {
    let standing = || cluster.standing(node).ok_or_else(|| "no answer".to_owned());
    cluster.wait_for(&format!("node {node} says what it is"), standing)
}

#[test]
fn nodes_killed_while_they_form_a_cluster_form_it_all_the_same() {
    for round in 0..4 {
        let mut cluster = Cluster::new(3);
        cluster.start_all();
        let seed = seed(&cluster);
        // Moments spread over the time that forming takes, for the seed and for the others.
        for step in 0..6 {
            std::thread::sleep(Duration::from_millis(7 * (round + step) % 40));
            let node = if step % 2 == 0 { seed } else { (seed + 1) % 3 };
            cluster.kill(node);
            cluster.start(node);
        }
        cluster.leader();
        cluster.make_topic("t");
    }
}

#[test]
fn rule_1_2_two_seeds_of_one_name_never_form_two_clusters() {
    let mut cluster = Cluster::new(3);
    let seed = seed(&cluster);
    let (one, other) = ((seed + 1) % 3, (seed + 2) % 3);
    // With the first disk the cluster is formed.
    cluster.start_all();
    cluster.leader();
    cluster.make_topic("t");
    // The node that keeps its disk has on it that it is a member: with one node gone, nothing is acknowledged without
    // it.
    cluster.kill(one);
    cluster.publish_until_taken(other, "t", "x");
    cluster.kill(seed);
    cluster.kill(other);
    // A second seed with an empty disk, and one other node that has lost its own: with the third they are all three.
    for node in [seed, one] {
        std::fs::remove_dir_all(cluster.data_dir(node)).unwrap();
    }
    cluster.start_all();
    cluster.wait_for_log("waiting to be added to a cluster");
    for node in 0..3 {
        let (role, _) = standing(&cluster, node);
        assert_ne!(role, "Leader", "{}", cluster.logs());
    }
    assert_eq!(cluster.patient(seed).create_topic("t").unwrap().code, 503);
    // The node that kept its disk was not asked to give it up.
    assert!(cluster.is_running(other) && standing(&cluster, other).1 > 0);
}

/// Waits until the leader hears so many members, itself among them.
fn until_heard(cluster: &Cluster, leader: usize, members: usize) {
    cluster.wait_for(&format!("the leader hears {members} members"), || {
        let answer =
            cluster.http(leader).request("GET", "/v1/cluster", b"").map_err(|why| format!("{why:?}"))?;
        let rows = answer.body["members"].as_array().ok_or_else(|| answer.body.to_string())?;
        let heard = rows.iter().filter(|row| row["active"] == true).count();
        if heard == members { Ok(()) } else { Err(answer.body.to_string()) }
    });
}

/// Waits until a member has on its disk what the leader has.
fn until_caught_up(cluster: &Cluster, leader: usize, member: usize) {
    let name = cluster.name(member);
    cluster.wait_for(&format!("{name} has caught up"), || {
        let answer =
            cluster.http(leader).request("GET", "/v1/members", b"").map_err(|why| format!("{why:?}"))?;
        let rows = answer.body["members"].as_array().ok_or_else(|| answer.body.to_string())?;
        let has_all = |row: &serde_json::Value| row["name"] == name && row["matched"] == answer.body["last"];
        if rows.iter().any(has_all) { Ok(()) } else { Err(answer.body.to_string()) }
    });
}

#[test]
fn rule_1_3_a_node_with_its_disk_set_back_is_stopped() {
    // In a new term nobody would know what the follower has acknowledged. So an election would hide what is tested. A leader
    // leaves once it knows that two others are gone: each is heard again before the next one ends.
    let mut cluster = Cluster::started_with(3, &CALM);
    let leader = cluster.leader();
    cluster.make_topic("t");
    let follower = (leader + 1) % 3;
    let (folder, backup) = (cluster.data_dir(follower), cluster.folder().join("backup"));
    cluster.kill(follower);
    until_heard(&cluster, leader, 2);
    copy_folder(&folder, &backup);
    cluster.start(follower);
    until_heard(&cluster, leader, 3);
    // The follower must have acknowledged more than the backup holds: with the third node gone, it has to.
    let third = (leader + 2) % 3;
    cluster.kill(third);
    until_heard(&cluster, leader, 2);
    cluster.publish_until_taken(leader, "t", "x");
    // The leader has its majority from the third node again, so that it goes on leading while the follower is away.
    cluster.start(third);
    until_heard(&cluster, leader, 3);
    cluster.publish_until_taken(third, "t", "y");
    cluster.kill(follower);
    std::fs::remove_dir_all(&folder).unwrap();
    copy_folder(&backup, &folder);
    let ended = run_to_end(&mut cluster.command(follower));
    let text = &ended.text;
    assert_eq!(ended.status.code(), Some(6), "{text}\n{}", cluster.logs());
    assert!(text.contains("its disk is a copy or was set back"), "{text}");
    cluster.publish_until_taken(leader, "t", "z");
}

#[test]
fn rule_1_1_nodes_with_each_others_disks_say_whose_they_are_and_change_nothing() {
    let mut cluster = Cluster::started(3);
    cluster.make_topic("t");
    cluster.publish_until_taken(0, "t", "x");
    let (one, other) = (cluster.data_dir(0), cluster.data_dir(1));
    [0, 1].into_iter().for_each(|node| cluster.kill(node));
    let aside = cluster.folder().join("aside");
    let exchange = || {
        for (from, to) in [(&one, &aside), (&other, &one), (&aside, &other)] {
            std::fs::rename(from, to).unwrap();
        }
    };
    exchange();
    for (node, whose) in [(0, 1), (1, 0)] {
        let ended = run_to_end(&mut cluster.command(node));
        assert_eq!(ended.status.code(), Some(3), "{}", ended.text);
        for name in [node, whose].map(|node| cluster.name(node)) {
            assert!(ended.text.contains(&name), "{name} is not named: {}", ended.text);
        }
        assert!(ended.text.contains("mount its own disk there"), "{}", ended.text);
    }
    exchange();
    [0, 1].into_iter().for_each(|node| cluster.start(node));
    assert_eq!(cluster.pop_until_answered(0, "t", 1).body["message"], "x");
}

/// The copy lacks what the node has acknowledged since, which a leader knows. Where the node itself leads by now, the copy is in
/// an earlier term.
#[test]
fn rule_1_3_a_copy_of_a_node_that_starts_beside_it_is_stopped() {
    let mut cluster = Cluster::started_with(3, &CALM);
    let leader = cluster.leader();
    cluster.make_topic("t");
    let (node, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let copy = cluster.folder().join("copy");
    // A copy from before its first entry would be one of a node that waits for its cluster to form.
    until_caught_up(&cluster, leader, node);
    cluster.kill(node);
    until_heard(&cluster, leader, 2);
    copy_folder(&cluster.data_dir(node), &copy);
    cluster.start(node);
    until_heard(&cluster, leader, 3);
    // It is needed for this: the third one is away.
    cluster.kill(third);
    until_heard(&cluster, leader, 2);
    cluster.publish_until_taken(leader, "t", "x");
    let members: Vec<String> = (0..3).map(|to| format!("{0}={0}", cluster.name(to))).collect();
    let mut beside = Command::new(programs().join("raftqueue-node"));
    beside
        .args(["--name", &cluster.name(node), "--members", &members.join(",")])
        .args(["--peer-listen", "127.0.0.1:0", "--client-listen", "127.0.0.1:0", "--operations-port", "0"])
        .args(["--log-format", "human", "--data-dir"])
        .arg(&copy)
        .args(CALM);
    let ended = run_to_end(&mut beside);
    assert_eq!(ended.status.code(), Some(6), "{}\n{}", ended.text, cluster.logs());
    assert!(ended.text.contains("its disk is a copy or was set back"), "{}", ended.text);
    assert!(ended.text.contains("clear the directory"), "{}", ended.text);
    cluster.start(third);
    cluster.kill(node);
    cluster.start(node);
    cluster.publish_until_taken(node, "t", "y");
    let pops = [1, 2].map(|id| cluster.pop_until_answered(node, "t", id).body["message"].clone());
    assert_eq!(pops, ["x", "y"]);
}

#[test]
fn a_node_whose_list_names_a_stranger_says_so_and_harms_nobody() {
    let cluster = Cluster::started(1);
    cluster.make_topic("t");
    let folder = cluster.folder().join("newcomer");
    std::fs::create_dir(&folder).unwrap();
    // The newcomer's name sorts first, so it is the seed of the list.
    let stranger = cluster.ports(0).1;
    let newcomer = Command::new(programs().join("raftqueue-node"))
        .current_dir(&folder)
        .args(["--name", "a", "--members", &format!("a=127.0.0.1:0,b=127.0.0.1:{stranger}")])
        .args(["--client-listen", "127.0.0.1:0", "--operations-port", "0", "--log-format", "human"])
        .stderr(std::fs::File::create(folder.join("log")).unwrap())
        .spawn();
    let newcomer = Running(newcomer.unwrap());
    wait_for(
        "it says that it met a stranger",
        || cluster.logs(),
        || {
            let text = std::fs::read_to_string(folder.join("log")).unwrap();
            let is_said = text.contains("a node of another cluster answers at a member's address");
            if is_said { Ok(()) } else { Err(text) }
        },
    );
    drop(newcomer);
    assert_eq!(cluster.patient(0).publish("t", "x").unwrap().code, 201);
}

#[test]
fn rule_1_7_a_blank_node_forms_or_joins_as_its_settings_say() {
    let mut cluster = Cluster::new(1).with_arguments(&["--settings", "settings.json"]);
    let settings = |settings: serde_json::Value, cluster: &Cluster| {
        std::fs::write(cluster.folder().join("settings.json"), settings.to_string()).unwrap();
    };
    // With nobody else to ask it would form a cluster at once.
    settings(serde_json::json!({"bootstrap": "join"}), &cluster);
    cluster.start(0);
    cluster.wait_for_log("waiting to be added to the cluster");
    assert_eq!(standing(&cluster, 0), ("Follower".to_owned(), 0));
    assert_eq!(cluster.patient(0).create_topic("t").unwrap().code, 503);
    cluster.kill(0);
    settings(serde_json::json!({"bootstrap": "form"}), &cluster);
    cluster.start(0);
    cluster.leader();
    assert_eq!(cluster.patient(0).create_topic("t").unwrap().code, 201);
    // Once it has a log it goes on with it.
    cluster.kill(0);
    settings(serde_json::json!({"bootstrap": "join"}), &cluster);
    cluster.start(0);
    cluster.leader();
    assert_eq!(cluster.patient(0).publish("t", "x").unwrap().code, 201);
}

#[test]
fn rule_1_7_a_node_with_the_disk_of_another_cluster_serves_nobody() {
    let mut cluster = Cluster::started(1);
    assert_eq!(cluster.patient(0).create_topic("t").unwrap().code, 201);
    cluster.kill(0);
    let other = "0123456789abcdef0123456789abcdef";
    cluster.set_arguments(&["--cluster-id", other]);
    cluster.start(0);
    cluster.wait_for_log(&format!("not to {other}"));
    assert_eq!(standing(&cluster, 0).0, "Follower");
    assert_eq!(cluster.patient(0).publish("t", "x").unwrap().code, 503);
    assert!(cluster.is_running(0));
    // With its own id, which it said, it serves again.
    let logs = cluster.whole_logs();
    let own = logs.split("belongs to cluster ").nth(1).and_then(|rest| rest.get(..32)).unwrap().to_owned();
    cluster.kill(0);
    cluster.set_arguments(&["--cluster-id", &own]);
    cluster.start(0);
    cluster.leader();
    assert_eq!(cluster.patient(0).publish("t", "x").unwrap().code, 201);
}
