//! What `raftq scale` does next, from what is there: a pure function, so that nothing need be remembered.

use raftqueue_client::v1;
use std::collections::{BTreeMap, BTreeSet};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something takes its time.
    Wait(String),
    /// So many nodes are to run; these begin anew with a blank disk.
    Run { nodes: u16, blank: Vec<u16> },
    /// Nodes that wait become learners: number and id of each, as in all that follow.
    Add(Vec<(u16, String)>),
    /// Learners become voters.
    Promote(Vec<(u16, String)>),
    /// A learner takes the place of the voter of its name, whose disk was lost.
    Replace { number: u16, old: String, new: String },
    /// Members are members no longer.
    Remove(Vec<(u16, String)>),
    /// It is as it was asked for.
    Done {
        /// Who leads.
        leader: String,
        /// Voters that are not well, and why.
        unwell: Vec<String>,
    },
}

/// How `raftq up` calls its nodes.
pub(super) fn name(number: u16) -> String {
    format!("node-{number}")
}

fn number(name: &str) -> Option<u16> {
    name.strip_prefix("node-")?.parse().ok().filter(|number| self::name(*number) == *name)
}

/// What this program knows of the nodes besides who is a member.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// So many are kept running.
    pub(super) running: u16,
    /// It began these anew.
    pub(super) started: BTreeSet<u16>,
    /// Ids of nodes that waited before their disks were set aside: they are no more.
    pub(super) gone: BTreeSet<String>,
}

/// The next step towards `want` voters, the first so many nodes.
///
/// # Errors
/// Somebody else changes the members by hand in a way that this does not go on with.
pub(super) fn next(want: u16, members: &v1::MembersResponse, known: &Known) -> Result<Step, String> {
    if members.joint || !members.settled {
        return Ok(Step::Wait("a change of the members is under way".into()));
    }
    let (mut voters, mut learners) = (BTreeMap::new(), BTreeMap::new());
    for member in &members.members {
        let number = number(&member.name).ok_or_else(|| {
            format!("`{}` is a member, and no node of `raftq up`: it is for `raftq members`", member.name)
        })?;
        let of_kind = if member.standing == "voter" { &mut voters } else { &mut learners };
        if of_kind.insert(number, member).is_some() {
            return Err(format!("two members are called {}: remove one by its id", member.name));
        }
    }
    if let Some(step) = heal(want, members, &voters, &learners, known) {
        return Ok(step);
    }
    if let Some(number) = learners.keys().find(|number| voters.contains_key(number)) {
        let name = name(*number);
        return Err(format!(
            "{name} is being replaced: end that with `raftq members replace`, or remove the learner"
        ));
    }
    let last = voters.keys().chain(learners.keys()).max().map_or(0, |last| last + 1);
    let needed = want.max(last);
    if known.running > needed {
        return Ok(Step::Run { nodes: needed, blank: Vec::new() });
    }
    let id = |number: &u16, member: &v1::MemberState| (*number, member.id.clone());
    // By two, or by one where the number is even: after each step it is odd.
    let at_a_time = if voters.len() % 2 == 0 { 1 } else { 2 };
    let missing: Vec<u16> = (0..want).filter(|number| !voters.contains_key(number)).take(at_a_time).collect();
    if !missing.is_empty() {
        return Ok(grow(&missing, members, &learners, known));
    }
    let unused: Vec<_> = learners.iter().map(|(number, member)| id(number, member)).take(3).collect();
    if !unused.is_empty() {
        return Ok(Step::Remove(unused));
    }
    let beyond = voters.iter().rev().filter(|(number, _)| **number >= want);
    let beyond: Vec<_> = beyond.map(|(number, member)| id(number, member)).take(at_a_time).collect();
    if !beyond.is_empty() {
        return Ok(Step::Remove(beyond));
    }
    let leader = members.members.iter().find(|member| member.leads);
    let leader = leader.map_or_else(|| members.leader.clone(), |leader| leader.name.clone());
    let unwell =
        members.members.iter().filter(|member| member.standing == "voter" && !member.unwell.is_empty());
    let unwell = unwell.map(|member| format!("{} {}", member.name, member.unwell)).collect();
    Ok(Step::Done { leader, unwell })
}

/// The next step towards a voter whose disk was lost being replaced by the node that waits, or learns, under its name. A voter that
/// is heard has its disk; one that is not may be away, as long as nobody waits in its place.
fn heal(
    want: u16,
    members: &v1::MembersResponse,
    voters: &BTreeMap<u16, &v1::MemberState>,
    learners: &BTreeMap<u16, &v1::MemberState>,
    known: &Known,
) -> Option<Step> {
    let silent = voters.iter().filter(|(number, voter)| **number < want && !voter.active);
    for (number, voter) in silent {
        if let Some(learner) = learners.get(number) {
            let name = name(*number);
            return Some(match learner.unwell.as_str() {
                "" => Step::Replace { number: *number, old: voter.id.clone(), new: learner.id.clone() },
                why => Step::Wait(format!("{name} lost its disk, and gets what it lacks: {why}")),
            });
        }
        let is_of_it = |node: &&v1::WaitingNode| node.name == name(*number) && !known.gone.contains(&node.id);
        let mut waiting = members.waiting.iter().filter(is_of_it);
        match (waiting.next(), waiting.next()) {
            (Some(node), None) => return Some(Step::Add(vec![(*number, node.id.clone())])),
            (Some(_), Some(_)) => {
                let text = format!("{} began anew, and its last disk is yet to be forgotten", name(*number));
                return Some(Step::Wait(text));
            }
            (None, _) => {}
        }
    }
    None
}

/// The next step towards these nodes voting.
fn grow(
    missing: &[u16],
    members: &v1::MembersResponse,
    learners: &BTreeMap<u16, &v1::MemberState>,
    known: &Known,
) -> Step {
    let waiting = |number: u16| -> Vec<&v1::WaitingNode> {
        let is_of_it = |node: &&v1::WaitingNode| node.name == name(number) && !known.gone.contains(&node.id);
        members.waiting.iter().filter(is_of_it).collect()
    };
    let is_learner = |number: u16| learners.contains_key(&number);
    // A learner whose disk was set aside before it had heard of its addition.
    let lost = missing.iter().find(|n| is_learner(**n) && !learners[n].active && !waiting(**n).is_empty());
    if let Some(number) = lost {
        return Step::Remove(vec![(*number, learners[number].id.clone())]);
    }
    // What runs and neither waits nor is a member has the disk of a node that was removed.
    let is_to_start = |number: u16| {
        let is_there = is_learner(number) || !waiting(number).is_empty() || known.started.contains(&number);
        number >= known.running || !is_there
    };
    if missing.iter().any(|number| is_to_start(*number)) {
        let nodes = missing.iter().map(|number| number + 1).max().unwrap_or(0).max(known.running);
        let blank = missing.iter().copied().filter(|n| is_to_start(*n) && !is_learner(*n)).collect();
        return Step::Run { nodes, blank };
    }
    let to_add: Vec<u16> = missing.iter().copied().filter(|number| !is_learner(*number)).collect();
    for number in &to_add {
        match waiting(*number).len() {
            0 => return Step::Wait(format!("{} starts", name(*number))),
            1 => {}
            _ => {
                return Step::Wait(format!(
                    "{} began anew, and its last disk is yet to be forgotten",
                    name(*number)
                ));
            }
        }
    }
    if !to_add.is_empty() {
        return Step::Add(to_add.into_iter().map(|n| (n, waiting(n)[0].id.clone())).collect());
    }
    if let Some(number) = missing.iter().find(|number| !learners[number].unwell.is_empty()) {
        let why = &learners[number].unwell;
        return Step::Wait(format!("{} gets what it lacks: {why}", name(*number)));
    }
    Step::Promote(missing.iter().map(|number| (*number, learners[number].id.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `raftq up` and its cluster, as far as it matters here.
    #[derive(Clone, Debug, Default)]
    struct World {
        index: u64,
        /// Name and id of each.
        voters: BTreeMap<u16, u64>,
        learners: BTreeMap<u16, u64>,
        /// What each node that runs has on its disk.
        disks: BTreeMap<u16, u64>,
        running: u16,
        next_id: u64,
        is_slow: bool,
    }

    impl World {
        fn new(count: u16) -> Self {
            let voters: BTreeMap<u16, u64> = (0..count).map(|n| (n, u64::from(n) + 1)).collect();
            Self { index: 1, disks: voters.clone(), voters, running: count, next_id: 100, ..Self::default() }
        }

        fn members(&self) -> v1::MembersResponse {
            let member = |(number, id): (&u16, &u64), standing: &str| v1::MemberState {
                id: format!("{id:016x}"),
                name: name(*number),
                standing: standing.to_owned(),
                leads: standing == "voter" && Some(*number) == self.voters.keys().next_back().copied(),
                active: *number < self.running && self.disks.get(number) == Some(id),
                unwell: if self.is_slow && standing == "learner" { "it lags".into() } else { String::new() },
                ..v1::MemberState::default()
            };
            let voters = self.voters.iter().map(|at| member(at, "voter"));
            let learners = self.learners.iter().map(|at| member(at, "learner"));
            // A disk with a log never waits.
            let waits = |(number, id): &(&u16, &u64)| **number < self.running && **id >= 1_000;
            let is_member = |id: &u64| self.voters.values().chain(self.learners.values()).any(|m| m == id);
            let waiting = self.disks.iter().filter(waits).filter(|(_, id)| !is_member(id));
            v1::MembersResponse {
                configuration_index: self.index,
                settled: true,
                members: voters.chain(learners).collect(),
                waiting: waiting
                    .map(|(number, id)| v1::WaitingNode {
                        id: format!("{id:016x}"),
                        name: name(*number),
                        ..v1::WaitingNode::default()
                    })
                    .collect(),
                ..v1::MembersResponse::default()
            }
        }

        /// Does a step; what it must never be is a panic.
        fn act(&mut self, step: &Step, known: &mut Known) {
            self.index += 1;
            let number_of =
                |(number, id): &(u16, String)| (*number, u64::from_str_radix(id, 16).expect("an id"));
            match step {
                Step::Wait(_) => self.is_slow = false,
                Step::Run { nodes, blank } => {
                    for number in *nodes..self.running {
                        assert!(!self.voters.contains_key(&number), "a voter is stopped");
                    }
                    self.running = *nodes;
                    for number in blank {
                        assert!(!self.voters.contains_key(number), "a voter loses its disk");
                        self.next_id += 1;
                        self.disks.insert(*number, 1_000 + self.next_id);
                    }
                    known.started.extend(blank);
                    known.running = *nodes;
                }
                Step::Add(nodes) => {
                    self.learners.extend(nodes.iter().map(number_of));
                    self.is_slow = true;
                }
                Step::Promote(nodes) => {
                    assert!(!self.is_slow, "they have everything");
                    for (number, id) in nodes.iter().map(number_of) {
                        assert_eq!(self.learners.remove(&number), Some(id));
                        self.voters.insert(number, id);
                    }
                    assert!(self.voters.len() % 2 == 1, "{self:?}");
                }
                Step::Remove(nodes) => {
                    let ids: Vec<(u16, u64)> = nodes.iter().map(number_of).collect();
                    let is_gone = |at: (&u16, &u64)| ids.contains(&(*at.0, *at.1));
                    self.voters.retain(|number, id| !is_gone((number, id)));
                    self.learners.retain(|number, id| !is_gone((number, id)));
                    // It has a log now.
                    self.disks.retain(|number, id| !is_gone((number, id)));
                    self.disks.extend(ids.iter().map(|(number, _)| (*number, 7)));
                    assert!(self.voters.len() % 2 == 1, "{self:?}");
                }
                Step::Replace { number, old, new } => {
                    assert!(!self.is_slow, "it has everything");
                    let [old, new] = [old, new].map(|id| u64::from_str_radix(id, 16).expect("an id"));
                    assert_eq!(self.voters.insert(*number, new), Some(old));
                    assert_eq!(self.learners.remove(number), Some(new));
                }
                Step::Done { .. } => {}
            }
        }
    }

    /// From any number to any other one, whatever step is the last before the program ends and is run again.
    #[test]
    fn it_gets_there_however_often_it_is_begun_again() {
        let numbers = [1, 3, 5, 7, 9];
        for (from, to) in numbers.iter().flat_map(|from| numbers.map(|to| (*from, to))) {
            for ends_every in 1..=12 {
                let mut world = World::new(from);
                let mut known = Known { running: from, ..Known::default() };
                let mut steps = Vec::new();
                loop {
                    let step = next(to, &world.members(), &known).expect("nobody else is at work");
                    world.act(&step, &mut known);
                    steps.push(step.clone());
                    assert!(steps.len() < 200, "from {from} to {to}: {steps:?}");
                    if let Step::Done { .. } = step {
                        break;
                    }
                    if steps.len() % ends_every == 0 {
                        known = Known { running: known.running, ..Known::default() };
                    }
                }
                assert!(world.voters.keys().copied().eq(0..to), "{world:?}");
                assert_eq!((world.learners.len(), world.running), (0, to));
            }
        }
    }

    /// A voter's directory is gone, and its node waits under the same name, whatever is asked for at that moment.
    #[test]
    fn a_voter_whose_disk_was_lost_is_replaced() {
        for (from, to) in [(3, 3), (3, 5), (5, 5), (5, 3)] {
            for lost in 0..from {
                let mut world = World::new(from);
                world.disks.insert(lost, 5_000);
                let mut known = Known { running: from, ..Known::default() };
                let mut steps = Vec::new();
                while steps.last().is_none_or(|step| !matches!(step, Step::Done { .. })) {
                    let step = next(to, &world.members(), &known).expect("nobody else is at work");
                    world.act(&step, &mut known);
                    steps.push(step);
                    assert!(steps.len() < 200, "from {from} to {to}: {steps:?}");
                }
                let replaced =
                    steps.iter().any(|step| matches!(step, Step::Replace { number, .. } if *number == lost));
                assert_eq!(replaced, lost < to, "{steps:?}");
                assert!(world.voters.keys().copied().eq(0..to) && world.learners.is_empty(), "{world:?}");
                assert!(world.voters.iter().all(|at| world.disks.get(at.0) == Some(at.1)), "{world:?}");
            }
        }
        // One that is away comes back by itself.
        let mut world = World::new(3);
        world.disks.remove(&1);
        let known = Known { running: 3, ..Known::default() };
        assert!(matches!(next(3, &world.members(), &known), Ok(Step::Done { .. })));
    }

    #[test]
    fn what_others_do_by_hand_is_not_undone() {
        let mut world = World::new(3);
        let known = Known { running: 3, ..Known::default() };
        let mut members = world.members();
        members.members[0].name = "mine".into();
        assert!(next(3, &members, &known).unwrap_err().contains("`mine` is a member"));
        world.learners.insert(1, 50);
        assert!(next(3, &world.members(), &known).unwrap_err().contains("node-1 is being replaced"));
        let joint = v1::MembersResponse { joint: true, ..World::new(3).members() };
        assert!(matches!(next(5, &joint, &known), Ok(Step::Wait(_))));
    }

    /// The disk of a node that waited was set aside, and the node is listed still: the id that it had is not added.
    #[test]
    fn a_node_that_is_no_more_is_not_added() {
        let mut world = World::new(1);
        (world.running, world.disks) = (3, BTreeMap::from([(0, 1), (1, 2_000), (2, 2_001)]));
        let mut known = Known { running: 3, ..Known::default() };
        let members = world.members();
        assert!(matches!(next(3, &members, &known), Ok(Step::Add(_))));
        known.started.extend([1, 2]);
        known.gone.extend(members.waiting.iter().map(|node| node.id.clone()));
        assert!(matches!(next(3, &members, &known), Ok(Step::Wait(_))));
        // It was added all the same: as soon as the new one waits, it goes.
        world.learners.insert(1, 500);
        let step = next(3, &world.members(), &Known { running: 3, ..Known::default() });
        assert_eq!(step, Ok(Step::Remove(vec![(1, format!("{:016x}", 500))])));
    }
}
