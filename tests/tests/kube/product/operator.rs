//! The operator dies at the wrong moment, and somebody else edits what is its own: the end is the same.

use super::{BoxError, Queue, READY_WITHIN, TOLD_WITHIN, kill_operator, soon, wait_for_operator};
use crate::case::{Case, Needs, Outcome, Room};
use serde_json::{Value, json};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "it_dies_while_a_pod_is_replaced",
        needs: Needs::OwnClusterAlone,
        run: it_dies_while_a_pod_is_replaced,
    },
    Case { name: "an_edited_child_is_put_right", needs: Needs::Cluster, run: an_edited_child_is_put_right },
    Case { name: "a_deleted_child_is_made_again", needs: Needs::Cluster, run: a_deleted_child_is_made_again },
];

/// Kinds and names of the children of `demo`.
const CHILDREN: [(&str, &str); 6] = [
    ("serviceaccount", "demo"),
    ("configmap", "demo-config"),
    ("service", "demo-headless"),
    ("service", "demo"),
    ("poddisruptionbudget", "demo"),
    ("statefulset", "demo"),
];

fn it_dies_while_a_pod_is_replaced(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    queue.publish("orders", &["one", "two", "three"])?;
    let before = room.get("pod", "demo-1")?["metadata"]["uid"].clone();
    room.kubectl(&["delete", "pod", "demo-1", "--wait=false"])?;
    kill_operator(room)?;
    let get = ["pod", "demo-1", "-n", &room.namespace];
    room.cluster().wait_until("another pod", READY_WITHIN, &get, |pod| {
        (pod["metadata"]["uid"] != before).then_some(()).ok_or_else(|| pod["status"].to_string())
    })?;
    // Something that only an operator does: what the object says of itself may be from before.
    room.kubectl(&["delete", "service", "demo"])?;
    soon("the service again", TOLD_WITHIN, || {
        room.get("service", "demo").map(drop).map_err(|error| error.to_string())
    })?;
    queue.wait_ready()?;
    // The end of a pod and the end of an operator that is asked politely.
    room.cluster().run(&["rollout", "restart", "deployment/raftqueue-operator", "-n", super::SYSTEM])?;
    wait_for_operator(room.cluster())?;
    queue.wait_ready()?;
    assert_eq!(queue.restarts()?, 0);
    assert_eq!(queue.receive("orders", 3)?, ["one", "two", "three"]);
    Ok(())
}

/// What the operator wrote into a child; what others add (`status`, defaults, counters) is left out.
fn content(child: &Value) -> Value {
    let mut child = child.clone();
    child["status"] = Value::Null;
    // An edit and its repair count.
    for field in ["resourceVersion", "generation", "managedFields"] {
        child["metadata"][field] = Value::Null;
    }
    child
}

fn an_edited_child_is_put_right(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    queue.publish("orders", &["one", "two"])?;
    let edits = [
        // First, and so after a while without any change: what an apply under way puts right unseen is not told.
        (
            "statefulset",
            "demo",
            json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}}),
        ),
        ("serviceaccount", "demo", json!({"automountServiceAccountToken": true})),
        ("configmap", "demo-config", json!({"data": {"settings.json": "{}"}})),
        ("service", "demo-headless", json!({"spec": {"publishNotReadyAddresses": false}})),
        ("service", "demo", json!({"spec": {"selector": {"app.kubernetes.io/instance": "other"}}})),
        ("service", "demo", json!({"metadata": {"labels": {"app.kubernetes.io/instance": "other"}}})),
        ("poddisruptionbudget", "demo", json!({"spec": {"maxUnavailable": 3}})),
        (
            "statefulset",
            "demo",
            json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}),
        ),
    ];
    for (kind, name, edit) in edits {
        let before = content(&room.get(kind, name)?);
        let edited = room.kubectl(&["patch", kind, name, "--type=merge", "-p", &edit.to_string()])?;
        assert!(!edited.contains("no change"), "{kind} {name}: {edit} changes nothing");
        let get = [kind, name, "-n", &room.namespace];
        room.cluster().wait_until(&format!("{kind} {name} as before"), TOLD_WITHIN, &get, |child| {
            let now = content(child);
            (now == before).then_some(()).ok_or_else(|| now.to_string())
        })?;
    }
    queue.wait_event("RetentionCorrected", "would have deleted disks")?;
    queue.wait_ready()?;
    assert_eq!(queue.restarts()?, 0);
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    Ok(())
}

fn a_deleted_child_is_made_again(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    queue.publish("orders", &["one", "two"])?;
    let uid = |kind: &str, name: &str| -> Result<Value, BoxError> {
        Ok(room.get(kind, name)?["metadata"]["uid"].clone())
    };
    for (kind, name) in CHILDREN {
        let before = uid(kind, name)?;
        room.kubectl(&["delete", kind, name, "--wait=false"])?;
        soon(&format!("another {kind} {name}"), TOLD_WITHIN, || match uid(kind, name) {
            Ok(now) if now != before => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
    }
    // With the StatefulSet went its pods.
    queue.wait_ready()?;
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    Ok(())
}
