//! The words for each step: what is about to be done, and what is waited for.

use super::next::{Move, Wait};
use super::scene::{PodAt, Scene};
use crate::names;

/// Names of these nodes, in words.
pub(super) fn listed(name: &str, ordinals: &[i32]) -> String {
    let names: Vec<String> = ordinals.iter().map(|ordinal| names::node(name, *ordinal)).collect();
    match names.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}

/// The step as something to do.
pub(super) fn to_do(name: &str, step: &Move, scene: &Scene) -> String {
    let nodes = |ordinals: &[i32]| listed(name, ordinals);
    let at_once = |ordinals: &[i32]| if ordinals.len() > 1 { ", in one step" } else { "" };
    match step {
        Move::Wait(wait) => waited_for(name, wait, scene),
        Move::Blocked => blocked(name, scene),
        Move::Pods(pods) if *pods > scene.pods => {
            let new: Vec<i32> = (scene.pods..*pods).collect();
            format!("start {}", nodes(&new))
        }
        Move::Pods(pods) => {
            let old: Vec<i32> = (*pods..scene.pods).rev().collect();
            let disks = if scene.deletes { "" } else { " and keep what they had on their disks" };
            format!("stop {}{disks}", nodes(&old))
        }
        Move::Mark(ordinals) => format!("note that the disks of {} are to go", nodes(ordinals)),
        Move::Unmark(ordinals) => format!("note that the disks of {} are wanted again", nodes(ordinals)),
        Move::Add(ordinals) => format!("give {} the log, as learners", nodes(ordinals)),
        Move::Promote(ordinals) => format!(
            "make {} voters{}: {} of them then",
            nodes(ordinals),
            at_once(ordinals),
            scene.voters.len() + ordinals.len()
        ),
        Move::Remove(ordinals) => format!(
            "remove {} from the cluster{}: {} voters then",
            nodes(ordinals),
            at_once(ordinals),
            scene.voters.len() - ordinals.len()
        ),
        Move::RemoveLearners(ordinals) => {
            format!("remove {} from the cluster, who did not vote", nodes(ordinals))
        }
        Move::Replace(ordinal) => {
            format!("let {} vote with its new disk, in the place of what it had", nodes(&[*ordinal]))
        }
        Move::DeleteDisk(ordinal) => format!("delete the disk of {}", nodes(&[*ordinal])),
        Move::Discard(ordinal) => {
            let node = nodes(&[*ordinal]);
            if scene.claims.get(ordinal).is_some_and(|claim| claim.leaving) {
                return format!(
                    "delete the pod {node}, whose disk is being deleted, so that it gets another one"
                );
            }
            let why = match scene.stranded.get(ordinal) {
                Some(machine) => format!("is on the machine {machine}, which is gone"),
                None => "was left behind when the cluster was forced to recover".to_owned(),
            };
            format!(
                "delete the disk of {node}, which {why}, and its pod, so that it begins with an empty one"
            )
        }
        Move::Done => "nothing".to_owned(),
    }
}

fn waited_for(name: &str, wait: &Wait, scene: &Scene) -> String {
    let nodes = |ordinals: &[i32]| listed(name, ordinals);
    match wait {
        Wait::Change => "wait until the change of the members that is under way has ended".to_owned(),
        Wait::Gone(ordinals) => {
            format!("wait until what is being deleted of {} is gone", nodes(ordinals))
        }
        Wait::Announced(ordinals) => {
            let logged = |ordinal: &i32| scene.there.get(ordinal) == Some(&PodAt::Logged);
            let (returning, new): (Vec<i32>, Vec<i32>) = ordinals.iter().partition(|ordinal| logged(ordinal));
            let returning = (!returning.is_empty())
                .then(|| format!("{} has set aside what it had before it was removed", nodes(&returning)));
            let new = (!new.is_empty()).then(|| {
                let verb = if new.len() == 1 { "runs and waits" } else { "run and wait" };
                format!("{} {verb} to be added", nodes(&new))
            });
            let all: Vec<String> = returning.into_iter().chain(new).collect();
            format!("wait until {}", all.join(", and "))
        }
        Wait::Consent(ordinals) => format!(
            "wait until spec.storage.discardBeforeGeneration is {}: the old disks of {} may hold messages that the cluster lacks",
            scene.keeps_before.unwrap_or_default(),
            nodes(ordinals)
        ),
        Wait::CaughtUp(ordinals) => {
            let behind = ordinals.iter().map(|ordinal| {
                let why = scene.learners.get(ordinal).and_then(|learner| learner.unwell.as_deref());
                format!("{} ({})", names::node(name, *ordinal), why.unwrap_or("it gets the log"))
            });
            format!("wait until all messages are on {}", behind.collect::<Vec<_>>().join(" and "))
        }
        Wait::Others | Wait::Majority => {
            let unwell = match wait {
                Wait::Others => scene.unwell_that_stay(&scene.beyond()),
                _ => scene.unwell(),
            };
            let unwell =
                unwell.iter().map(|(ordinal, why)| format!("{}: {why}", names::node(name, *ordinal)));
            let unwell = unwell.collect::<Vec<_>>().join("; ");
            match wait {
                Wait::Others => format!("wait until the voters that stay are well ({unwell})"),
                _ => format!("wait until a majority of the others is well ({unwell})"),
            }
        }
    }
}

/// What somebody has to put right.
pub(super) fn blocked(name: &str, scene: &Scene) -> String {
    let strangers = scene.strangers.iter().cloned().collect::<Vec<_>>().join(", ");
    if strangers.is_empty() {
        return format!("no voter of the cluster has the name of a pod of {name}");
    }
    format!(
        "{strangers} is a member and no pod of {name}, or the second one of its name: somebody added it by hand. Members are \
         added or removed again once it is removed: kubectl exec {} -- raftq members remove {strangers}",
        names::node(name, 0)
    )
}
