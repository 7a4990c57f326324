//! Whole lives of clusters: one node alone, two of one name beside each other, and one whose object goes and comes back.

use super::{Queue, TOLD_WITHIN, Undo, condition_of, manifest, soon, wait_for_no_series};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::kubectl::condition;
use serde_json::json;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "one_node_works_warns_and_is_drainable",
        needs: Needs::OwnClusterAlone,
        run: one_node_works_warns_and_is_drainable,
    },
    Case {
        name: "a_drain_takes_one_node_at_a_time",
        needs: Needs::OwnCluster,
        run: a_drain_takes_one_node_at_a_time,
    },
    Case {
        name: "two_clusters_of_one_name_do_not_touch",
        needs: Needs::Cluster,
        run: two_clusters_of_one_name_do_not_touch,
    },
    Case {
        name: "rule_1_7_an_object_that_comes_back_finds_its_messages",
        needs: Needs::Cluster,
        run: rule_1_7_an_object_that_comes_back_finds_its_messages,
    },
];

fn one_node_works_warns_and_is_drainable(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "solo", 1)?;
    let object = queue.object()?;
    assert_eq!(condition(&object, "SingleMember").as_deref(), Some("True"), "{object}");
    queue.wait_event("OneMember", "one member")?;
    queue.publish("orders", &["one", "two"])?;

    let machine =
        room.get("pod", "solo-0")?["spec"]["nodeName"].as_str().ok_or("it runs somewhere")?.to_owned();
    let selector = format!("--pod-selector={}", queue.selector());
    let uncordon = Undo::at_the_end(|| {
        room.cluster().run(&["uncordon", &machine])?;
        Ok(())
    });
    room.cluster().run(&[
        "drain",
        &machine,
        &selector,
        "--delete-emptydir-data",
        "--ignore-daemonsets",
        "--timeout=60s",
    ])?;
    uncordon.now()?;
    queue.wait_ready()?;
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    Ok(())
}

fn a_drain_takes_one_node_at_a_time(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    let evict = |pod: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": room.namespace}});
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", room.namespace);
        room.cluster().with_manifest(&["create", "--raw", &path, "-f", "-"], &eviction.to_string())
    };
    let get = ["poddisruptionbudget", "demo", "-n", &room.namespace];
    room.cluster().wait_until("the budget to allow one", TOLD_WITHIN, &get, |budget| {
        let status = &budget["status"];
        (status["disruptionsAllowed"] == 1).then_some(()).ok_or_else(|| status.to_string())
    })?;
    evict("demo-0")?;
    let refused = evict("demo-1").expect_err("one is away already").to_string();
    assert!(refused.contains("disruption budget"), "{refused}");
    // Once the first is back the next may go.
    soon("the next eviction", TOLD_WITHIN, || evict("demo-1").map_err(|error| error.to_string()))?;
    queue.wait_ready()?;

    // Unready are not spare: none goes while a majority is not ready, for it may be about to be.
    let pods = queue.pods(3);
    let signal_all = |signal: &str| -> Outcome {
        let send = |pod: &String| room.kube().kill_in_pod(&room.namespace, pod, "node", signal);
        // Each of them, whatever becomes of another.
        let sent: Vec<_> = pods.iter().map(send).collect();
        sent.into_iter().try_for_each(|sent| Ok(sent?))
    };
    // One whose container was replaced meanwhile, because it did not live, needs nothing.
    let go_on = Undo::at_the_end(|| {
        if let Err(error) = signal_all("CONT") {
            eprintln!("{}: one does not hear that it may go on: {error}", room.namespace);
        }
        Ok(())
    });
    signal_all("STOP")?;
    room.cluster().wait_until("the budget to see none ready", TOLD_WITHIN, &get, |budget| {
        let status = &budget["status"];
        (status["currentHealthy"] == 0).then_some(()).ok_or_else(|| status.to_string())
    })?;
    for pod in &pods {
        let refused = evict(pod).expect_err("all are unready").to_string();
        assert!(refused.contains("disruption budget"), "{refused}");
    }
    go_on.now()?;
    queue.wait_ready()?;
    Ok(())
}

fn two_clusters_of_one_name_do_not_touch(room: &Room<'_>) -> Outcome {
    let other = Room { kube: room.kube, namespace: format!("{}-b", room.namespace) };
    room.cluster().run(&["create", "namespace", &other.namespace])?;
    let clear = Undo::at_the_end(|| {
        room.cluster().run(&["delete", "namespace", &other.namespace, "--wait=false"])?;
        Ok(())
    });
    side_by_side(room, &other)?;
    clear.now()
}

fn side_by_side(here: &Room<'_>, there: &Room<'_>) -> Outcome {
    // Forming at the same time, they must tell apart whom they hear.
    super::install(here)?;
    for room in [here, there] {
        room.apply(&manifest("demo", 3, &json!({})))?;
    }
    let (left, right) = (Queue::ready(here, "demo", 3)?, Queue::ready(there, "demo", 3)?);
    let id = |queue: &Queue<'_>| queue.object().map(|object| object["status"]["clusterId"].clone());
    assert_ne!(id(&left)?, id(&right)?);
    left.publish("orders", &["left"])?;
    right.publish("orders", &["right"])?;

    here.kubectl(&["delete", "raftqueue", "demo"])?;
    assert_eq!(right.receive("orders", 1)?, ["right"]);
    right.wait_ready()?;
    assert_eq!(right.restarts()?, 0);
    here.apply(&manifest("demo", 3, &json!({})))?;
    left.wait_ready()?;
    assert_eq!(left.receive("orders", 1)?, ["left"]);
    Ok(())
}

fn rule_1_7_an_object_that_comes_back_finds_its_messages(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    let messages: Vec<String> = (0..100).map(|number| format!("message {number}")).collect();
    queue.publish("orders", &messages.iter().map(String::as_str).collect::<Vec<_>>())?;
    let id = queue.object()?["status"]["clusterId"].clone();
    assert!(id.is_string(), "{id}");

    room.kubectl(&["delete", "raftqueue", "demo"])?;
    let selector = queue.selector();
    let kinds = "statefulset,service,configmap,serviceaccount,poddisruptionbudget,pod";
    soon("the children to go", TOLD_WITHIN, || {
        let left = room.kubectl(&["get", kinds, "-l", &selector, "-o", "name"]);
        match left {
            Ok(left) if left.trim().is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let claims = room.kubectl(&["get", "pvc", "-l", &selector, "-o", "name"])?;
    assert_eq!(claims.lines().count(), 3, "the claims are kept: {claims}");
    wait_for_no_series(room)?;

    room.apply(&manifest("demo", 3, &json!({})))?;
    let object = queue.wait_ready()?;
    assert_eq!(object["status"]["clusterId"], id, "{}", condition_of(&object, "Ready"));
    assert_eq!(queue.receive("orders", messages.len())?, messages);
    assert_eq!(queue.restarts()?, 0);
    Ok(())
}
