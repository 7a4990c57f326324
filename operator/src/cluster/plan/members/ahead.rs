//! The steps ahead, found by taking them in thought: each is what would be decided if the one before it had gone well.

use super::next::{Move, Wait, next};
use super::scene::{ClaimAt, Member, PodAt, Scene};

/// Most steps that are told.
const STEPS_MAX: usize = 24;

/// The steps from here on until all is as asked, or until somebody has to help. Of what is waited for only the first is told.
pub(super) fn ahead(scene: &Scene) -> Vec<(Move, Scene)> {
    let mut scene = scene.clone();
    let mut steps = Vec::new();
    for _ in 0..STEPS_MAX {
        let step = next(&scene);
        if matches!(step, Move::Done | Move::Blocked) {
            break;
        }
        let after = after(&scene, &step);
        if after == scene {
            break;
        }
        if !matches!(step, Move::Wait(_)) || steps.is_empty() {
            steps.push((step, scene));
        }
        scene = after;
    }
    steps
}

/// What there will be once the step is taken and everybody has done their part.
fn after(scene: &Scene, step: &Move) -> Scene {
    let mut scene = scene.clone();
    match step {
        Move::Wait(Wait::Change) => scene.settled = true,
        Move::Wait(Wait::Gone(ordinals)) => {
            for ordinal in ordinals {
                scene.there.remove(ordinal);
                if scene.claims.get(ordinal).is_some_and(|claim| claim.leaving) {
                    scene.claims.remove(ordinal);
                }
            }
            start(&mut scene);
        }
        Move::Wait(Wait::Announced(ordinals)) => announce(&mut scene, ordinals),
        Move::Wait(Wait::Consent(ordinals)) => {
            scene.keeps_before = None;
            for ordinal in ordinals {
                let at = scene.there.get_mut(ordinal);
                if let Some(PodAt::LeftBehind { allowed }) = at {
                    *allowed = true;
                }
            }
        }
        Move::Wait(Wait::CaughtUp(_) | Wait::Others | Wait::Majority) => {
            scene.learners.values_mut().for_each(|member| member.unwell = None);
            // Whose disk is lost does not get well by waiting.
            let (waiting, stranded) = (&scene.waiting, &scene.stranded);
            let is_there = |ordinal: &i32| !waiting.contains_key(ordinal) && !stranded.contains_key(ordinal);
            let voters = scene.voters.iter_mut().filter(|(ordinal, _)| is_there(ordinal));
            voters.for_each(|(_, member)| member.unwell = None);
        }
        Move::Blocked | Move::Done => {}
        Move::Pods(pods) => {
            scene.there.split_off(pods);
            scene.waiting.split_off(pods);
            scene.pods = *pods;
            start(&mut scene);
        }
        Move::Mark(ordinals) | Move::Unmark(ordinals) => {
            let marked = matches!(step, Move::Mark(_));
            let claims = ordinals.iter().map(|ordinal| (*ordinal, ClaimAt { leaving: false, marked }));
            scene.claims.extend(claims);
        }
        Move::Add(ordinals) => {
            for ordinal in ordinals {
                let id = scene.waiting.remove(ordinal).unwrap_or_default();
                scene.learners.insert(*ordinal, Member { id, unwell: None });
            }
        }
        Move::Promote(ordinals) => {
            for ordinal in ordinals {
                let learner = scene.learners.remove(ordinal);
                scene.voters.extend(learner.map(|learner| (*ordinal, learner)));
            }
        }
        Move::Replace(ordinal) => {
            let learner = scene.learners.remove(ordinal);
            scene.voters.extend(learner.map(|learner| (*ordinal, learner)));
        }
        Move::Remove(ordinals) => ordinals.iter().for_each(|ordinal| drop(scene.voters.remove(ordinal))),
        Move::RemoveLearners(ordinals) => {
            ordinals.iter().for_each(|ordinal| drop(scene.learners.remove(ordinal)));
        }
        Move::DeleteDisk(ordinal) => drop(scene.claims.remove(ordinal)),
        Move::Discard(ordinal) => {
            scene.there.remove(ordinal);
            scene.claims.remove(ordinal);
            scene.stranded.remove(ordinal);
            if let Some(voter) = scene.voters.get_mut(ordinal) {
                voter.unwell = Some("its disk is lost".to_owned());
            }
            start(&mut scene);
        }
    }
    scene
}

/// Kubernetes makes the pods that are lacking, with their claims.
fn start(scene: &mut Scene) {
    for ordinal in 0..scene.pods {
        scene.there.entry(ordinal).or_insert(PodAt::Blank);
        scene.claims.entry(ordinal).or_insert(ClaimAt { leaving: false, marked: false });
    }
    let is_new = |ordinal: &i32| {
        !scene.voters.contains_key(ordinal) || scene.there.get(ordinal) == Some(&PodAt::Blank)
    };
    let new: Vec<i32> = (0..scene.pods).filter(is_new).collect();
    announce(scene, &new);
}

fn announce(scene: &mut Scene, ordinals: &[i32]) {
    for ordinal in ordinals.iter().filter(|ordinal| !scene.learners.contains_key(ordinal)) {
        scene.waiting.entry(*ordinal).or_insert_with(|| "new".to_owned());
    }
}
