//! Under load, pods are deleted and processes killed: everything acknowledged comes back once and in order. The longest
//! pauses are printed.

use super::{BoxError, Queue, soon};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::process::Load;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "the_leaders_pod_is_deleted", needs: Needs::OwnCluster, run: the_leaders_pod_is_deleted },
    Case {
        name: "the_leaders_process_is_killed",
        needs: Needs::OwnCluster,
        run: the_leaders_process_is_killed,
    },
    Case {
        name: "all_pods_are_deleted_at_once",
        needs: Needs::OwnCluster,
        run: all_pods_are_deleted_at_once,
    },
];

const PRODUCERS: usize = 4;
/// Acknowledged before a fault comes, and after it, before the next.
const STRIDE: usize = 200;
/// How long the load may take for that.
const STRIDE_WITHIN: Duration = Duration::from_secs(60);

/// Publishes through the service while `fault` comes `rounds` times.
fn under_load(
    room: &Room<'_>,
    rounds: usize,
    fault: impl Fn(&Queue<'_>) -> Outcome + Sync,
) -> Result<(), BoxError> {
    let queue = Queue::ready(room, "demo", 3)?;
    let service = queue.service()?;
    let outcome = room.kube().work_inside(|| -> Result<_, BoxError> {
        soon("the topic", STRIDE_WITHIN, || match service.create_topic("load") {
            Ok(answer) if [201, 409].contains(&answer.code) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let load = Load::start("load", PRODUCERS, &[service]);
        let go_on = |load: &Load| {
            let enough = load.acknowledged() + STRIDE;
            soon("acknowledgements", STRIDE_WITHIN, || {
                let acknowledged = load.acknowledged();
                if acknowledged >= enough { Ok(()) } else { Err(format!("{acknowledged} of {enough}")) }
            })
        };
        go_on(&load)?;
        for _ in 0..rounds {
            fault(&queue)?;
            queue.wait_ready()?;
            // The pause that a fault makes may come late: a process goes on for a while after its pod is deleted.
            go_on(&load)?;
        }
        Ok(load.finish("load", &[service])?)
    })??;
    eprintln!(
        "{}: {} acknowledged, {} unknown, {} refused; longest pause of all producers {:.2?}, of one {}",
        room.namespace,
        outcome.acknowledged,
        outcome.unknown,
        outcome.refused,
        outcome.longest_pause,
        outcome.gap()
    );
    Ok(())
}

fn the_leaders_pod_is_deleted(room: &Room<'_>) -> Outcome {
    under_load(room, 2, |queue| {
        let leader = queue.leader()?;
        let before = queue.room.get("pod", &leader)?["metadata"]["uid"].clone();
        queue.room.kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"])?;
        let get = ["pod", &leader, "-n", &queue.room.namespace];
        queue.room.cluster().wait_until("a new pod", STRIDE_WITHIN, &get, |pod| {
            (pod["metadata"]["uid"] != before).then_some(()).ok_or_else(|| pod["metadata"].to_string())
        })?;
        Ok(())
    })
}

fn the_leaders_process_is_killed(room: &Room<'_>) -> Outcome {
    under_load(room, 2, |queue| {
        let before = queue.restarts()?;
        let leader = queue.leader()?;
        room.kube().kill_in_pod(&queue.room.namespace, &leader, "node", "KILL")?;
        soon("the restart", STRIDE_WITHIN, || match queue.restarts() {
            Ok(now) if now == before + 1 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        Ok(())
    })
}

fn all_pods_are_deleted_at_once(room: &Room<'_>) -> Outcome {
    under_load(room, 1, |queue| {
        let selector = queue.selector();
        let uids = || -> Result<Vec<String>, BoxError> {
            let all = queue.room.kubectl(&[
                "get",
                "pods",
                "-l",
                &selector,
                "-o",
                "jsonpath={.items[*].metadata.uid}",
            ])?;
            Ok(all.split_whitespace().map(str::to_owned).collect())
        };
        let before = uids()?;
        assert_eq!(before.len(), 3);
        queue.room.kubectl(&["delete", "pods", "-l", &selector, "--grace-period=0", "--force"])?;
        soon("three new pods", STRIDE_WITHIN, || {
            let now = uids().map_err(|error| error.to_string())?;
            let is_new = now.len() == 3 && now.iter().all(|uid| !before.contains(uid));
            if is_new { Ok(()) } else { Err(format!("{now:?}")) }
        })?;
        Ok(())
    })
}
