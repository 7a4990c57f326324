//! The next step about members, from what there is: the one place that decides it.
//!
//! The order is that of urgency, and each line leaves what is above it as it is. One thing at a time: nothing begins while a
//! change of the members is under way, while pods or disks that are to go have not gone, or while another step is half done.
//!
//! What was begun is finished: learners of a growth become voters before anything shrinks, unless they are not asked for any more
//! (a learner counts in no majority, so it can go at any moment), and after members are removed their pods go, then their
//! disks, before the next ones are removed.

use super::scene::{ClaimAt, PodAt, Scene};

/// A step about members. Nodes are told by their ordinals, in the order in which they are to be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Something takes its time.
    Wait(Wait),
    /// Nothing is done before somebody has put something right.
    Blocked,
    /// The StatefulSet is to have so many pods.
    Pods(i32),
    /// The claims of these are marked as those of members that were removed, so that they can be deleted once their pods are
    /// gone.
    Mark(Vec<i32>),
    /// These claims are needed again.
    Unmark(Vec<i32>),
    /// Nodes that wait become learners.
    Add(Vec<i32>),
    /// Learners become voters.
    Promote(Vec<i32>),
    /// Voters are removed.
    Remove(Vec<i32>),
    /// Learners are removed.
    RemoveLearners(Vec<i32>),
    /// The node with the new disk takes the place of the voter of its name.
    Replace(i32),
    /// The disk of a removed member is deleted.
    DeleteDisk(i32),
    /// A disk that is of no use any more is deleted, and its pod after it, so that the node begins with an empty one.
    Discard(i32),
    /// All is as asked.
    Done,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// A change of the members is half way.
    Change,
    /// Pods or claims are being deleted.
    Gone(Vec<i32>),
    /// Nodes are yet to announce themselves.
    Announced(Vec<i32>),
    /// Learners get the log.
    CaughtUp(Vec<i32>),
    /// Voters that stay are to be well before others go.
    Others,
    /// A majority without the lost disk is to be well.
    Majority,
    /// Somebody is to say that old disks may be deleted, which may hold what the cluster lacks.
    Consent(Vec<i32>),
}

/// The next step.
pub(super) fn next(scene: &Scene) -> Move {
    if !scene.settled {
        return Move::Wait(Wait::Change);
    }
    if !scene.strangers.is_empty() || scene.voters.is_empty() {
        return Move::Blocked;
    }
    if let Some(learner) = scene.lost_learner() {
        return Move::RemoveLearners(vec![learner]);
    }
    if let Some(stranded) = scene.stranded() {
        return discard_stranded(scene, stranded);
    }
    if let Some(lost) = scene.lost() {
        return replace(scene, lost);
    }
    if let Some(old) = scene.left_behind() {
        return Move::Discard(old);
    }
    let needed = scene.want.max(scene.behind_last_member());
    if scene.pods > needed {
        return lower(scene, needed);
    }
    if let Some(step) = clear(scene) {
        return step;
    }
    let held = scene.held();
    if !held.is_empty() {
        return Move::Wait(Wait::Consent(held));
    }
    let missing = scene.missing();
    if !missing.is_empty() {
        return grow(scene, &missing);
    }
    let unused: Vec<i32> = scene.learners.keys().rev().copied().take(3).collect();
    if !unused.is_empty() {
        return Move::RemoveLearners(unused);
    }
    let beyond = scene.beyond();
    if beyond.is_empty() {
        return Move::Done;
    }
    if !scene.unwell_that_stay(&beyond).is_empty() {
        return Move::Wait(Wait::Others);
    }
    Move::Remove(beyond)
}

/// A voter has lost its disk.
fn replace(scene: &Scene, lost: i32) -> Move {
    if scene.well_but_for(&[lost]) <= scene.voters.len() / 2 {
        return Move::Wait(Wait::Majority);
    }
    match scene.learners.get(&lost) {
        None => Move::Add(vec![lost]),
        Some(learner) if learner.unwell.is_some() => Move::Wait(Wait::CaughtUp(vec![lost])),
        Some(_) => Move::Replace(lost),
    }
}

/// The disk of a node is on a machine that is gone. If that is a voter, its copy is given up, so a majority without it has to be
/// there with everything.
fn discard_stranded(scene: &Scene, stranded: i32) -> Move {
    let is_voter = scene.voters.contains_key(&stranded);
    if is_voter && scene.well_but_for(&[stranded]) <= scene.voters.len() / 2 {
        return Move::Wait(Wait::Majority);
    }
    if scene.may_be_needed(stranded) {
        return Move::Wait(Wait::Consent(vec![stranded]));
    }
    Move::Discard(stranded)
}

/// Pods of nodes that are members no longer go. A disk that may hold what the cluster lacks stays.
fn lower(scene: &Scene, needed: i32) -> Move {
    let is_new = |(ordinal, claim): &(&i32, &ClaimAt)| {
        (needed..scene.pods).contains(*ordinal)
            && !claim.marked
            && !claim.leaving
            && !scene.may_be_needed(**ordinal)
    };
    let unmarked: Vec<i32> = scene.claims.iter().filter(is_new).map(|(ordinal, _)| *ordinal).collect();
    if scene.deletes && !unmarked.is_empty() { Move::Mark(unmarked) } else { Move::Pods(needed) }
}

/// What members left behind that were removed goes, before anything else begins.
fn clear(scene: &Scene) -> Option<Move> {
    let leaving: Vec<i32> = scene.there.range(scene.pods..).map(|(ordinal, _)| *ordinal).collect();
    if !leaving.is_empty() {
        return Some(Move::Wait(Wait::Gone(leaving)));
    }
    // Those that are asked for again are wanted back.
    let again: Vec<i32> = scene
        .claims
        .range(..scene.want)
        .filter(|(_, claim)| claim.marked && !claim.leaving)
        .map(|(o, _)| *o)
        .collect();
    if !again.is_empty() {
        return Some(Move::Unmark(again));
    }
    let is_due = |(ordinal, claim): &(&i32, &ClaimAt)| {
        claim.marked && !claim.leaving && !scene.may_be_needed(**ordinal)
    };
    let due = scene.claims.range(scene.pods..).rev().find(is_due).filter(|_| scene.deletes);
    due.map(|(ordinal, _)| Move::DeleteDisk(*ordinal))
}

/// More voters are asked for.
fn grow(scene: &Scene, missing: &[i32]) -> Move {
    let is_leaving = |ordinal: &i32| {
        scene.there.get(ordinal) == Some(&PodAt::Leaving)
            || scene.claims.get(ordinal).is_some_and(|claim| claim.leaving)
    };
    let leaving: Vec<i32> = missing.iter().copied().filter(is_leaving).collect();
    if !leaving.is_empty() {
        // A claim that somebody deleted goes with its pod, and the StatefulSet, which would keep that pod, makes none while the
        // claim goes. Nobody behind the last member is needed yet.
        let members = scene.behind_last_member();
        if scene.pods > members {
            return Move::Pods(members);
        }
        // Behind it there is a member, so its pod cannot go that way; it goes alone.
        let is_held = |ordinal: &&i32| scene.there.get(ordinal).is_some_and(|at| *at != PodAt::Leaving);
        let held = leaving.iter().find(is_held);
        return held.map_or_else(|| Move::Wait(Wait::Gone(leaving.clone())), |held| Move::Discard(*held));
    }
    let needed = missing.iter().max().map_or(0, |last| last + 1);
    if scene.pods < needed {
        return Move::Pods(needed);
    }
    let to_add: Vec<i32> =
        missing.iter().copied().filter(|ordinal| !scene.learners.contains_key(ordinal)).collect();
    let away: Vec<i32> =
        to_add.iter().copied().filter(|ordinal| !scene.waiting.contains_key(ordinal)).collect();
    if !away.is_empty() {
        return Move::Wait(Wait::Announced(away));
    }
    if !to_add.is_empty() {
        return Move::Add(to_add);
    }
    let is_behind = |ordinal: &i32| scene.learners[ordinal].unwell.is_some();
    let behind: Vec<i32> = missing.iter().copied().filter(is_behind).collect();
    if !behind.is_empty() {
        return Move::Wait(Wait::CaughtUp(behind));
    }
    Move::Promote(missing.to_vec())
}
