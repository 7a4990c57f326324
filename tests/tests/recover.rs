//! A cluster whose majority is gone for good, as processes: the node that is left goes on alone, in the next generation. What it
//! had is served; what only the others had answers as rules 1.6 and 4.1 say; their disks are refused when they come back.

use raftqueue_tests::process::{Answer, Cluster, PATIENCE, programs, run_to_end};
use serde_json::{Value, json};
use std::process::Command;

const TOPIC: &str = "t";
/// The node that is left, and the two that are lost.
const LEFT: usize = 2;
const LOST: [usize; 2] = [0, 1];

fn post(cluster: &Cluster, node: usize, path: &str, body: &Value) -> Answer {
    let http = cluster.patient(node);
    cluster.wait_for(&format!("node {node} answers {path}"), || {
        let answer = http.request("POST", path, body.to_string().as_bytes());
        answer.map_err(|error| format!("{error:?}"))
    })
}

/// The same until it is done.
fn done(cluster: &Cluster, node: usize, path: &str, body: &Value) -> Value {
    cluster.wait_for(&format!("node {node} does {path}"), || {
        let answer = post(cluster, node, path, body);
        if answer.code == 200 { Ok(answer.body) } else { Err(answer.text) }
    })
}

fn recover(cluster: &Cluster, body: &Value) -> Answer {
    post(cluster, LEFT, "/v1/recover", body)
}

fn publish(cluster: &Cluster, node: usize, bodies: &[&str], session: Option<(&str, u64)>) -> Value {
    let messages: Vec<Value> = bodies.iter().map(|body| json!({"body": body})).collect();
    let mut request = json!({ "messages": messages });
    if let Some((session, sequence)) = session {
        request["session"] = json!({"session": session, "sequence": sequence});
    }
    done(cluster, node, &format!("/v1/topics/{TOPIC}/publish"), &request)
}

fn session(cluster: &Cluster, node: usize) -> String {
    done(cluster, node, "/v1/sessions", &json!({}))["session"].as_str().expect("a session").to_owned()
}

/// Leases messages; returns each with its lease.
fn receive(cluster: &Cluster, node: usize, count: u64) -> Vec<(String, String)> {
    let request = json!({"messages_max": count, "lease_ms": 600_000, "wait_ms": 20_000});
    let answer = done(cluster, node, &format!("/v1/topics/{TOPIC}/receive"), &request);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let deliveries = answer["deliveries"].as_array().expect("a list").iter();
    deliveries.map(|delivery| (text(&delivery["body"]), text(&delivery["lease"]))).collect()
}

fn ack(cluster: &Cluster, lease: &str) -> Value {
    done(cluster, LEFT, &format!("/v1/topics/{TOPIC}/ack"), &json!({"leases": [lease]}))["results"][0].clone()
}

fn last_index(cluster: &Cluster, node: usize) -> u64 {
    let status = cluster.patient(node).request("GET", "/v1/status", b"").expect("it runs").body;
    status["last"].as_u64().unwrap_or(0)
}

/// What `raftq` returns, and what it says.
fn raftq(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String) {
    let endpoint = format!("127.0.0.1:{}", cluster.ports(LEFT).0);
    let mut command = Command::new(programs().join("raftq"));
    command.args(["--endpoints", &endpoint]).args(arguments);
    let ended = run_to_end(&mut command);
    (ended.status.code(), ended.text)
}

/// Blank nodes become voters of the cluster that the node leads which was left.
fn join(cluster: &Cluster, nodes: &[usize]) {
    let names: Vec<String> = nodes.iter().map(|node| cluster.name(*node)).collect();
    let list = || cluster.patient(LEFT).request("GET", "/v1/members", b"").map(|answer| answer.body);
    let is_voter = |members: &Value, name: &String| {
        let of_name = |member: &&Value| member["name"] == **name && member["standing"] == "voter";
        members["members"].as_array().into_iter().flatten().any(|member| of_name(&member))
    };
    cluster.wait_for("they are voters", || {
        let members = list().map_err(|error| format!("{error:?}"))?;
        if names.iter().all(|name| is_voter(&members, name)) {
            return Ok(());
        }
        let ask = |path, node: &String| post(cluster, LEFT, path, &json!({"nodes": [node]})).text;
        let told: Vec<String> = names
            .iter()
            .filter(|name| !is_voter(&members, name))
            .flat_map(|name| [ask("/v1/members/add-learner", name), ask("/v1/members/promote", name)])
            .collect();
        Err(told.join("; "))
    });
}

#[test]
fn rule_1_6_the_node_that_is_left_of_a_lost_quorum_goes_on_and_nothing_of_the_lost_counts_again() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.leader();
    cluster.make_topic(TOPIC);
    let kept_session = session(&cluster, LEFT);
    publish(&cluster, LEFT, &["a", "b", "c", "d"], Some((&kept_session, 1)));
    let kept_lease = receive(&cluster, LEFT, 1).remove(0);
    assert_eq!(kept_lease.0, "a");

    // With its quorum nobody goes on alone.
    let refused = recover(&cluster, &json!({})).body;
    assert_ne!(refused["refusal"], "", "{refused}");
    assert_eq!((&refused["token"], &refused["decided"]), (&json!(""), &json!(false)));
    let forced = recover(&cluster, &json!({"token": "5d1c", "force": true}));
    assert_eq!(
        (forced.code, &forced.body["reason"]),
        (409, &json!("FAILED_PRECONDITION")),
        "{}",
        forced.text
    );
    let (code, said) = raftq(&cluster, &["recover", "--token", "5d1c"]);
    assert!(code == Some(1) && said.contains("no node can go on alone"), "{said}");

    // What is acknowledged while it is away is what will be lost.
    cluster.wait_until("the node has everything", || {
        last_index(&cluster, LEFT) == last_index(&cluster, LOST[0])
    });
    cluster.kill(LEFT);
    cluster.leader();
    let lost_session = session(&cluster, LOST[0]);
    let lost = publish(&cluster, LOST[0], &["lost"], Some((&lost_session, 1)));
    let leased = receive(&cluster, LOST[0], 4);
    let lost_lease = leased.iter().find(|(body, _)| body == "lost").expect("it was leased").1.clone();
    let old_disk = cluster.folder().join("old-disk");
    for node in LOST {
        cluster.kill(node);
    }
    std::fs::rename(cluster.data_dir(LOST[1]), &old_disk).expect("it can be set aside");
    LOST.iter().for_each(|node| cluster.wipe(*node));

    cluster.start(LEFT);
    let pid = cluster.pid(LEFT);
    let info = cluster.wait_for("it may go on", || {
        let info = recover(&cluster, &json!({})).body;
        if info["refusal"] == "" { Ok(info) } else { Err(info.to_string()) }
    });
    assert_eq!(
        (&info["generation"], &info["complete"], &info["intact"]),
        (&json!(0), &json!(true), &json!(true))
    );
    let members = info["members"].as_array().expect("members");
    assert!(members.len() == 3 && members.iter().all(|member| member["heard"] == member["own"]), "{info}");
    let token = info["token"].as_str().expect("a token").to_owned();
    let wrong = recover(&cluster, &json!({"token": "0123456789abcdef", "force": true}));
    assert_eq!((wrong.code, &wrong.body["reason"]), (409, &json!("STALE_CONFIGURATION")), "{}", wrong.text);
    let long = recover(&cluster, &json!({"token": "0".repeat(65)}));
    assert_eq!((long.code, &long.body["reason"]), (400, &json!("INVALID_ARGUMENT")), "{}", long.text);

    let (code, said) = raftq(&cluster, &["recover", "--token", &token]);
    assert_eq!(code, Some(0), "{said}\n{}", cluster.logs());
    assert_eq!(cluster.pid(LEFT), pid, "the process is the same, with the next program in it");
    let again = recover(&cluster, &json!({"token": token}));
    assert_eq!(again.code, 409, "the token is of a state that is past: {}", again.text);
    let status = cluster.patient(LEFT).request("GET", "/v1/status", b"").expect("it runs").body;
    assert_eq!((&status["generation"], status["members"].as_array().map(Vec::len)), (&json!(1), Some(1)));

    // Leases, sessions and ids of both generations.
    assert_eq!(ack(&cluster, &kept_lease.1), "DONE");
    assert_eq!(ack(&cluster, &lost_lease), "GONE");
    publish(&cluster, LEFT, &["e"], Some((&kept_session, 2)));
    let expired = json!({"messages": [{"body": "x"}], "session": {"session": lost_session, "sequence": 2}});
    let expired = post(&cluster, LEFT, &format!("/v1/topics/{TOPIC}/publish"), &expired);
    assert_eq!(expired.body["reason"], "SESSION_EXPIRED", "{}", expired.text);
    let new = publish(&cluster, LEFT, &["f"], None);
    assert_eq!(new["first_offset"].as_u64(), lost["first_offset"].as_u64().map(|offset| offset + 1));
    let (first, second) = (publish(&cluster, LEFT, &["g"], None), &lost["first_id"]);
    assert_ne!(&first["first_id"], second);

    LOST.iter().for_each(|node| cluster.start(*node));
    join(&cluster, &LOST);
    let bodies: Vec<Value> =
        (1..=6).map(|id| cluster.pop_until_answered(LOST[0], TOPIC, id).body["message"].clone()).collect();
    assert_eq!(bodies, ["b", "c", "d", "e", "f", "g"]);

    // An old disk comes back.
    let new_disk = cluster.folder().join("new-disk");
    cluster.kill(LOST[1]);
    std::fs::rename(cluster.data_dir(LOST[1]), &new_disk).expect("it can be set aside");
    std::fs::rename(&old_disk, cluster.data_dir(LOST[1])).expect("it can be put back");
    cluster.start(LOST[1]);
    let why = cluster.wait_for("it says that it was left behind", || {
        let status = cluster.http(LOST[1]).with_timeout(PATIENCE).request("GET", "/v1/status", b"");
        let status = status.map_err(|error| format!("{error:?}"))?.body;
        let why = status["not_ready_reason"].as_str().unwrap_or_default().to_owned();
        if why.contains("was left behind") { Ok(why) } else { Err(status.to_string()) }
    });
    assert!(why.contains("generation 1") && why.contains("Clear its data directory"), "{why}");
    assert_eq!(cluster.http(LOST[1]).publish(TOPIC, "x").map(|answer| answer.code), Ok(503));
    cluster.publish_until_taken(LOST[0], TOPIC, "h");
    cluster.kill(LOST[1]);
    std::fs::remove_dir_all(cluster.data_dir(LOST[1])).expect("it is cleared");
    std::fs::rename(&new_disk, cluster.data_dir(LOST[1])).expect("it can be put back");
    cluster.start(LOST[1]);
    assert_eq!(cluster.pop_until_answered(LOST[1], TOPIC, 7).body["message"], "h");
}

/// Two of three lost what they promised. They run, and can elect nobody: nothing says that they do, and the third goes on alone.
#[test]
fn rule_2_6_nodes_that_lost_what_they_promised_are_no_quorum_for_the_one_that_did_not() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.leader();
    cluster.make_topic(TOPIC);
    publish(&cluster, LEFT, &["a", "b"], None);
    cluster.wait_until("all have everything", || {
        LOST.iter().all(|node| last_index(&cluster, *node) == last_index(&cluster, LEFT))
    });
    (0..3).for_each(|node| cluster.kill(node));
    for node in LOST {
        let path = cluster.data_dir(node).join("HARDSTATE");
        let size = std::fs::metadata(&path).expect("it is there").len();
        std::fs::write(&path, vec![0; usize::try_from(size).expect("a few KiB")]).expect("it can be written");
    }
    (0..3).for_each(|node| cluster.start(node));
    for node in LOST {
        cluster.wait_for("it says what helps", || {
            let status = cluster.patient(node).request("GET", "/v1/status", b"");
            let status = status.map_err(|error| format!("{error:?}"))?.body;
            let why = status["not_ready_reason"].as_str().unwrap_or_default();
            let is_said =
                why.contains("run `raftq recover` on one that did not") && why.contains("lost its own");
            if is_said { Ok(()) } else { Err(status.to_string()) }
        });
    }
    let info = cluster.wait_for("it may go on", || {
        let info = recover(&cluster, &json!({})).body;
        if info["refusal"] == "" { Ok(info) } else { Err(info.to_string()) }
    });
    let (code, said) = raftq(&cluster, &["recover", "--token", info["token"].as_str().expect("a token")]);
    assert_eq!(code, Some(0), "{said}\n{}", cluster.logs());
    for node in LOST {
        cluster.kill(node);
        cluster.wipe(node);
        cluster.start(node);
    }
    join(&cluster, &LOST);
    let pops = [1, 2].map(|id| cluster.pop_until_answered(LOST[0], TOPIC, id).body["message"].clone());
    assert_eq!(pops, ["a", "b"]);
}
