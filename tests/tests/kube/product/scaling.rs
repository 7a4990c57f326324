//! `kubectl scale` and changed settings under load: members come and go, pods are restarted, the operator dies in between, disks
//! are kept, come back and are deleted, and everything acknowledged comes once and in order. The pauses are printed.

use super::{BoxError, Queue, TOLD_WITHIN, condition_of, kill_operator, manifest, soon, uids};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::Error;
use raftqueue_tests::process::Load;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "members_come_and_go_under_load",
        needs: Needs::OwnClusterAlone,
        run: members_come_and_go_under_load,
    },
    Case {
        name: "changed_settings_reach_every_pod_under_load",
        needs: Needs::OwnCluster,
        run: changed_settings_reach_every_pod_under_load,
    },
];

const PRODUCERS: usize = 4;
/// How long each rests after a message.
const REST: Duration = Duration::from_millis(40);
/// Acknowledged between two changes.
const STRIDE: usize = 100;
/// How long one number of members may take to become another one.
const SCALED_WITHIN: Duration = Duration::from_secs(150);

fn members_come_and_go_under_load(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    let service = queue.service()?;
    let outcome = room.kube().work_inside(|| -> Result<_, BoxError> {
        soon("the topic", TOLD_WITHIN, || match service.create_topic("load") {
            Ok(answer) if [201, 409].contains(&answer.code) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let load = Load::start_gently("load", PRODUCERS, &[service], REST);
        go_on(&load)?;
        let scale = |to: u64| scaled(&queue, &load, to);
        let first = uids(&queue, "pvc")?;

        // It says before what it will do, and dies while it does it.
        room.kubectl(&["scale", "raftqueue/demo", "--replicas=5"])?;
        queue.wait_event(
            "PodsAdded",
            "3 pods become 5: start demo-3 and demo-4; give demo-3 and demo-4 the log",
        )?;
        kill_operator(room)?;
        scale(5)?;
        queue.wait_event("VotersAdded", "demo-3, demo-4: voters now")?;
        let described = room.kubectl(&["describe", "raftqueue", "demo"])?;
        for word in ["PodsAdded", "LearnersAdded", "VotersAdded"] {
            assert!(described.contains(word), "{described}");
        }

        scale(3)?;
        let kept = uids(&queue, "pvc")?;
        assert_eq!(kept.len(), 5, "the disks of those that were removed are kept: {kept:?}");
        assert!(first.iter().all(|(name, uid)| kept.get(name) == Some(uid)), "{first:?} {kept:?}");

        // The same disks come back, with nodes that begin anew.
        let ids = ids(&queue)?;
        scale(5)?;
        assert_eq!(uids(&queue, "pvc")?, kept);
        let now = self::ids(&queue)?;
        assert!(ids.iter().all(|(name, id)| now.get(name) == Some(id)), "{ids:?} {now:?}");

        // Whether the lead is on one that goes is left to chance; four go, by two.
        room.apply(&manifest("demo", 5, &deleting()))?;
        scale(1)?;
        soon("the disks to go", TOLD_WITHIN, || {
            let left = uids(&queue, "pvc").map_err(|error| error.to_string())?;
            let is_so = left.keys().eq(["data-demo-0"]);
            if is_so { Ok(()) } else { Err(format!("{left:?}")) }
        })?;
        assert_eq!(uids(&queue, "pvc")?["data-demo-0"], first["data-demo-0"]);
        queue.wait_event("DiskDeleted", "data-demo-4")?;

        scale(3)?;
        Ok(load.finish("load", &[service])?)
    })??;
    assert_eq!(queue.restarts()?, 0);
    eprintln!(
        "{}: {} acknowledged, {} unknown, {} refused; longest pause of one producer {}",
        room.namespace,
        outcome.acknowledged,
        outcome.unknown,
        outcome.refused,
        outcome.gap()
    );
    Ok(())
}

fn changed_settings_reach_every_pod_under_load(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    let service = queue.service()?;
    room.kube().work_inside(|| -> Outcome {
        soon("the topic", TOLD_WITHIN, || match service.create_topic("load") {
            Ok(answer) if [201, 409].contains(&answer.code) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let load = Load::start("load", PRODUCERS, &[service]);
        go_on(&load)?;
        let before = uids(&queue, "pods")?;
        room.apply(&manifest("demo", 3, &json!({"config": {"drain-ms": "1000"}})))?;
        restarted(&queue, &load, "a setting", &before)?;
        queue.wait_event("PodRestarted", "all others are well")?;
        queue.wait_event("LeadHandedOver", "hands over the lead")?;
        let before = uids(&queue, "pods")?;
        room.kubectl(&["rollout", "restart", "statefulset/demo"])?;
        restarted(&queue, &load, "rollout restart", &before)?;
        the_set_goes_without_its_pods(&queue)?;
        let outcome = load.finish("load", &[service])?;
        eprintln!("{}: longest pause of one producer {}", room.namespace, outcome.gap());
        Ok(())
    })??;
    assert_eq!(queue.restarts()?, 0);
    Ok(())
}

/// The set that is made anew has the template of the old one, the restart that kubectl asked for included: no pod is older than it.
fn the_set_goes_without_its_pods(queue: &Queue<'_>) -> Outcome {
    let (room, before) = (queue.room, (uids(queue, "pods")?, uids(queue, "statefulset")?));
    room.kubectl(&["delete", "statefulset", "demo", "--cascade=orphan"])?;
    soon("a set of which the pods are", TOLD_WITHIN, || {
        let text = |error: Error| error.to_string();
        let set = room.get("statefulset", "demo").map_err(text)?;
        let pods = room.cluster().json(&["get", "pods", "-n", &room.namespace, "-l", &queue.selector()]);
        let pods = pods.map_err(text)?;
        let newest = &set["status"]["updateRevision"];
        let is_of_it = |pod: &Value| {
            newest.is_string() && pod["metadata"]["labels"]["controller-revision-hash"] == *newest
        };
        let all = pods["items"].as_array().cloned().unwrap_or_default();
        let is_so = set["metadata"]["uid"] != *before.1["demo"] && all.len() == 3 && all.iter().all(is_of_it);
        is_so.then_some(()).ok_or_else(|| format!("{newest}, pods {:?}", uids(queue, "pods")))
    })?;
    queue.wait_condition("UpToDate", "True", None, SCALED_WITHIN)?;
    queue.wait_ready()?;
    assert_eq!(uids(queue, "pods")?, before.0, "no pod was restarted");
    Ok(())
}

/// Waits until every pod is another one and all is as asked.
fn restarted(queue: &Queue<'_>, load: &Load, what: &str, before: &BTreeMap<String, String>) -> Outcome {
    let begun = Instant::now();
    let _ = load.take_pause();
    soon(&format!("other pods after {what}"), SCALED_WITHIN, || {
        let now = uids(queue, "pods").map_err(|error| error.to_string())?;
        let is_so = now.keys().eq(before.keys()) && now.iter().all(|(name, uid)| before[name] != *uid);
        if is_so { Ok(()) } else { Err(format!("{now:?}")) }
    })?;
    queue.wait_condition("UpToDate", "True", None, SCALED_WITHIN)?;
    queue.wait_ready()?;
    go_on(load)?;
    eprintln!(
        "{}: {what}: three pods restarted after {:.1?}, longest pause {:.2?}",
        queue.room.namespace,
        begun.elapsed(),
        load.take_pause()
    );
    Ok(())
}

fn deleting() -> Value {
    json!({"storage": {"size": "1Gi", "retention": {"whenScaled": "Delete"}}})
}

fn go_on(load: &Load) -> Result<(), BoxError> {
    let enough = load.acknowledged() + STRIDE;
    soon("acknowledgements", TOLD_WITHIN, || {
        let acknowledged = load.acknowledged();
        if acknowledged >= enough { Ok(()) } else { Err(format!("{acknowledged} of {enough}")) }
    })?;
    Ok(())
}

/// Asks for so many members and waits until they are there.
fn scaled(queue: &Queue<'_>, load: &Load, to: u64) -> Outcome {
    let (room, begun) = (queue.room, Instant::now());
    let _ = load.take_pause();
    room.kubectl(&["scale", "raftqueue/demo", &format!("--replicas={to}")])?;
    let object = queue.wait_condition("Ready", "True", None, SCALED_WITHIN)?;
    let took = begun.elapsed();
    let members = object["status"]["members"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = members.iter().filter_map(|member| member["name"].as_str()).collect();
    assert_eq!(names, queue.pods(to), "{}", condition_of(&object, "Ready"));
    let votes = |member: &Value| ["Leader", "Follower"].map(Value::from).contains(&member["role"]);
    assert!(members.iter().all(votes), "{members:?}");
    assert!(object["status"]["plan"].is_null(), "{}", object["status"]);
    let selector = queue.selector();
    soon("the pods of the members", TOLD_WITHIN, || {
        let pods = room.kubectl(&["get", "pods", "-l", &selector, "-o", "name"]);
        let pods = pods.map_err(|error| error.to_string())?;
        if u64::try_from(pods.lines().count()) == Ok(to) { Ok(()) } else { Err(pods) }
    })?;
    go_on(load)?;
    eprintln!("{}: {to} members after {took:.1?}, longest pause {:.2?}", room.namespace, load.take_pause());
    Ok(())
}

/// Names and ids of the nodes.
fn ids(queue: &Queue<'_>) -> Result<BTreeMap<String, String>, BoxError> {
    let object = queue.object()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |member: &Value| (text(&member["name"]), text(&member["id"]));
    Ok(object["status"]["members"].as_array().into_iter().flatten().map(one).collect())
}
