//! Whole lives of a cluster: a model of Kubernetes, of nodes and of users, in which the operator is killed between any two calls.
//!
//! The nodes of the model are more careless than real ones: blank nodes that were told to form do so as soon as all of them run,
//! and ask nobody. What keeps them from forming a second cluster is the operator alone.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Most nodes in a life.
const NODES_MAX: i32 = 5;
/// Rounds that a cluster may take to be well once nothing disturbs it any more.
const ROUNDS_TO_HEAL: usize = 20;

/// What happens next.
#[derive(Clone, Debug)]
enum Happening {
    /// A pass of the operator, killed after this many calls.
    Pass { calls: usize },
    /// Kubernetes makes and deletes what it should.
    Kubernetes,
    /// The nodes run for a while.
    Nodes,
    /// A pod goes.
    KillPod(i32),
    /// A node does not answer in the next pass.
    Silence(i32),
    /// The user asks for so many nodes.
    Replicas(i32),
    /// The user names an image, which exists or not.
    Image(bool),
    /// The object is deleted.
    DeleteObject,
    /// The object is applied.
    ApplyObject,
    /// Somebody scales the StatefulSet.
    ScaleByHand(i32),
    /// Somebody deletes the StatefulSet.
    DeleteSet,
    /// The disk of another cluster is put in a node's place.
    ForeignDisk(i32),
}

#[derive(Clone, Debug)]
struct Object {
    uid: u32,
    replicas: i32,
    image_exists: bool,
    latched: Option<ClusterId>,
    pods_kept: i32,
}

#[derive(Clone, Debug)]
struct Set {
    owner: u32,
    replicas: i32,
    made_for: i32,
    image_exists: bool,
    revision: u32,
}

#[derive(Clone, Debug)]
struct Pod {
    uid: u32,
    revision: u32,
    image_exists: bool,
    /// What the ConfigMap said when it started.
    bootstrap: Bootstrap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Log {
    cluster: ClusterId,
    members: i32,
}

#[derive(Default)]
struct World {
    object: Option<Object>,
    config: Option<(u32, Bootstrap)>,
    set: Option<Set>,
    pods: BTreeMap<i32, Pod>,
    /// Disks with a log. They outlive everything.
    disks: BTreeMap<i32, Log>,
    /// The user's own disks where a foreign one is in their place.
    displaced: BTreeMap<i32, Option<Log>>,
    silent: Option<i32>,
    /// Clusters formed so far.
    formed: u8,
    counter: u32,
}

const FOREIGN: u8 = 99;

impl World {
    fn count(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    fn asked(&self) -> Option<Asked> {
        let object = self.object.as_ref()?;
        let mut asked = demo(object.replicas);
        asked.uid = format!("uid-{}", object.uid);
        asked.spec.image = Some(if object.image_exists { "good:1" } else { "bad:1" }.into());
        asked.latched = object.latched;
        asked.pods_kept = object.pods_kept;
        Some(asked)
    }

    fn is_running(&self, ordinal: i32) -> bool {
        self.pods.get(&ordinal).is_some_and(|pod| pod.image_exists)
    }

    /// The cluster of which a majority runs.
    fn leading(&self) -> Option<Log> {
        let running = |log: &Log| {
            self.disks.iter().filter(|(ordinal, other)| *other == log && self.is_running(**ordinal)).count()
        };
        let majority = |log: &Log| running(log) > usize::try_from(log.members / 2).unwrap();
        self.disks.values().find(|log| majority(log)).cloned()
    }

    fn observe(&mut self) -> Observation {
        let Some(uid) = self.object.as_ref().map(|object| object.uid) else { return Observation::default() };
        let mut seen = Observation::default();
        let silent = self.silent.take();
        let owned = |owner: u32| child(if owner == uid { Ownership::Ours } else { Ownership::Leaving });
        if let Some((owner, _)) = self.config {
            seen.children.insert(Child::ConfigMap, owned(owner));
        }
        let Some(set) = &self.set else { return seen };
        seen.children.insert(Child::StatefulSet, owned(set.owner));
        if set.owner != uid {
            return seen;
        }
        let mut set_seen = made(set.made_for).set.unwrap();
        set_seen.replicas = set.replicas;
        set_seen.revision = Some(set.revision.to_string());
        seen.set = Some(set_seen);
        let leading = self.leading();
        for (ordinal, pod) in &self.pods {
            let log = self.disks.get(ordinal);
            let serves = log.is_some() && log == leading.as_ref();
            let answer = NodeAnswer {
                id: node_id(*ordinal),
                cluster_id: log.map(|log| log.cluster),
                term: 1,
                members: log.map(|log| members(log.members)).unwrap_or_default(),
                ready: serves,
                ..NodeAnswer::default()
            };
            let node = match () {
                () if !pod.image_exists => NodeSeen::NotAsked,
                () if silent == Some(*ordinal) => NodeSeen::Silent("away".into()),
                () => NodeSeen::Answered(answer),
            };
            let one = PodSeen {
                uid: pod.uid.to_string(),
                revision: Some(pod.revision.to_string()),
                restarted: None,
                ready: serves && pod.image_exists,
                deleting: false,
                trouble: if pod.image_exists { None } else { trouble(TroubleKind::Image, "no such image") },
                encryption: PodEncryption::default(),
                address: None,
                node,
            };
            seen.claims.insert(names::node("demo", *ordinal), disk(*ordinal));
            seen.pods.insert(names::node("demo", *ordinal), one);
        }
        seen.cluster = leading.map(|log| ClusterSeen {
            id: log.cluster,
            generation: 0,
            leader: node_id(0),
            term: 1,
            members: members(log.members),
            membership: None,
        });
        seen
    }

    /// A pass of the operator, as [`crate::controller`] makes it, killed after so many calls.
    fn pass(&mut self, calls: usize) -> Option<Plan> {
        let asked = self.asked()?;
        let seen = self.observe();
        let plan = planned(&asked, &seen);
        assert_eq!(plan, planned(&asked, &seen), "the same input gives the same plan");
        self.check(&asked, &seen, &plan);
        let object = self.object.clone()?;
        let mut left = calls;
        let mut is_alive = || {
            let is_alive = left > 0;
            left = left.saturating_sub(1);
            is_alive
        };
        if let Some(shape) = &plan.shape {
            if !is_alive() {
                return None;
            }
            self.config = Some((object.uid, shape.bootstrap));
            if !is_alive() {
                return None;
            }
            let image_exists = shape.image == "good:1";
            let before = self.set.clone();
            let same = before.as_ref().filter(|set| set.image_exists == image_exists);
            let revision = same.map(|set| set.revision).unwrap_or_else(|| self.count());
            let made_for = shape.pods;
            self.set =
                Some(Set { owner: object.uid, replicas: shape.pods, made_for, image_exists, revision });
        }
        if let Some(Step::ReplaceStuckPod { pod, uid }) = &plan.step {
            if !is_alive() {
                return None;
            }
            self.pods.retain(|ordinal, seen| {
                names::node("demo", *ordinal) != *pod || seen.uid.to_string() != *uid
            });
        }
        if !is_alive() {
            return None;
        }
        let object = self.object.as_mut()?;
        object.latched = object.latched.or(plan.cluster_id);
        object.pods_kept = i32::try_from(plan.nodes.len()).unwrap();
        Some(plan)
    }

    /// What holds for every plan.
    fn check(&self, asked: &Asked, seen: &Observation, plan: &Plan) {
        let logs: std::collections::BTreeSet<ClusterId> =
            seen.answers().filter_map(|(_, answer)| answer.cluster_id).chain(asked.latched).collect();
        if let Some(shape) = &plan.shape {
            assert!(
                logs.is_empty() || shape.bootstrap != Bootstrap::Form,
                "forms beside a kept disk: {seen:?}"
            );
            assert!(logs.len() < 2, "acts on mixed disks");
            // Once the cluster has formed and its pods were made for its members, that many it stays.
            let made_for = seen.set.as_ref().and_then(|set| set.made_for);
            let formed = seen.answers().find(|(_, answer)| answer.cluster_id.is_some());
            if let Some((_, answer)) = formed
                && made_for == i32::try_from(answer.members.len()).ok()
            {
                assert_eq!(Some(shape.pods), made_for, "changes the replicas of a cluster that has formed");
            }
        }
        if let Some(Step::ReplaceStuckPod { pod, uid }) = &plan.step {
            assert!(logs.len() < 2, "acts on mixed disks");
            let pod = &seen.pods[pod];
            assert_eq!(*uid, pod.uid);
            assert!(
                pod.trouble.is_some() && !pod.serves() && pod.answer().is_none(),
                "deletes a pod whose node runs"
            );
        }
        let mut about: Vec<_> = plan.findings.iter().map(|finding| finding.about).collect();
        about.sort();
        about.dedup();
        assert_eq!(about.len(), plan.findings.len(), "one finding about each condition");
        assert!(plan.findings.iter().all(|finding| !finding.message.is_empty()));
        // What a status says can be concluded, and read back.
        let now =
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let status =
            crate::cluster::status::answer(asked, &Default::default(), Some(1), plan, seen, None, &now);
        assert!(condition(&status.conditions, ConditionType::Ready).is_some());
    }

    fn kubernetes(&mut self) {
        let uid = self.object.as_ref().map(|object| object.uid);
        // Children of an object that is gone go.
        self.config = self.config.filter(|(owner, _)| Some(*owner) == uid);
        if self.set.as_ref().is_some_and(|set| Some(set.owner) != uid) {
            self.set = None;
        }
        let Some(set) = self.set.clone() else {
            self.pods.clear();
            return;
        };
        self.pods.retain(|ordinal, _| *ordinal < set.replicas);
        let Some((_, bootstrap)) = self.config else { return };
        for ordinal in 0..set.replicas {
            if !self.pods.contains_key(&ordinal) {
                let uid = self.count();
                let pod = Pod { uid, revision: set.revision, image_exists: set.image_exists, bootstrap };
                self.pods.insert(ordinal, pod);
            }
        }
    }

    /// Blank nodes that were told to form do so as soon as all initial members run, careless of other disks.
    fn nodes(&mut self) {
        let Some(set) = &self.set else { return };
        let all = 0..set.made_for;
        let forms = |ordinal: i32| {
            let told = self.pods.get(&ordinal).is_some_and(|pod| pod.bootstrap == Bootstrap::Form);
            told && self.is_running(ordinal) && !self.disks.contains_key(&ordinal)
        };
        if !all.is_empty() && all.clone().all(forms) {
            let members = set.made_for;
            self.formed += 1;
            let cluster = cluster(self.formed);
            for ordinal in all {
                self.disks.insert(ordinal, Log { cluster, members });
            }
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Pass { calls } => {
                self.pass(calls);
            }
            Happening::Kubernetes => self.kubernetes(),
            Happening::Nodes => self.nodes(),
            Happening::KillPod(ordinal) => {
                self.pods.remove(&ordinal);
            }
            Happening::Silence(ordinal) => self.silent = Some(ordinal),
            Happening::Replicas(replicas) => {
                if let Some(object) = &mut self.object {
                    object.replicas = replicas;
                }
            }
            Happening::Image(exists) => {
                if let Some(object) = &mut self.object {
                    object.image_exists = exists;
                }
            }
            Happening::DeleteObject => self.object = None,
            Happening::ApplyObject => self.apply_object(3),
            Happening::ScaleByHand(replicas) => {
                if let Some(set) = &mut self.set {
                    set.replicas = replicas;
                }
            }
            Happening::DeleteSet => self.set = None,
            Happening::ForeignDisk(ordinal) => {
                let log = Log { cluster: cluster(FOREIGN), members: 3 };
                let own = self.disks.insert(ordinal, log);
                self.displaced.entry(ordinal).or_insert(own);
                self.pods.remove(&ordinal);
            }
        }
    }

    fn apply_object(&mut self, replicas: i32) {
        if self.object.is_none() {
            let uid = self.count();
            self.object = Some(Object { uid, replicas, image_exists: true, latched: None, pods_kept: 0 });
        }
    }

    /// The user puts right what only a user can; then everybody does what they should.
    fn heal(&mut self) -> Plan {
        for (ordinal, own) in std::mem::take(&mut self.displaced) {
            self.pods.remove(&ordinal);
            match own {
                Some(log) => self.disks.insert(ordinal, log),
                None => self.disks.remove(&ordinal),
            };
        }
        self.silent = None;
        self.apply_object(3);
        let members = self.disks.values().next().map(|log| log.members);
        let made_for =
            self.set.as_ref().filter(|set| self.object.as_ref().map(|object| object.uid) == Some(set.owner));
        let replicas = members.or(made_for.map(|set| set.made_for)).unwrap_or(3);
        // A foreign disk that was latched, or formed with, is another life: only the user's own may be there.
        let object = self.object.as_mut().expect("applied above");
        object.replicas = replicas;
        object.image_exists = true;
        if object.latched == Some(cluster(FOREIGN)) {
            object.latched = None;
        }
        let mut plan = None;
        for _ in 0..ROUNDS_TO_HEAL {
            self.kubernetes();
            self.nodes();
            plan = self.pass(usize::MAX);
            self.delete_a_pod_that_asks_for_it();
        }
        plan.expect("the object is there")
    }
}

impl World {
    /// Does what the condition UpToDate asks for. It also helps a node that was told to join while a foreign disk was
    /// there: it says that it waits to be added, but by now there is no cluster to be added to.
    fn delete_a_pod_that_asks_for_it(&mut self) {
        let (Some(set), Some((_, told))) = (&self.set, self.config) else { return };
        let asks = |(ordinal, pod): &(&i32, &Pod)| {
            let waits =
                told == Bootstrap::Form && pod.bootstrap != told && !self.disks.contains_key(*ordinal);
            pod.revision != set.revision || waits
        };
        if let Some(ordinal) = self.pods.iter().find(asks).map(|(ordinal, _)| *ordinal) {
            self.pods.remove(&ordinal);
        }
    }
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let ordinal = 0..NODES_MAX;
    let replicas = prop_oneof![Just(1), Just(3), Just(5)];
    let one = prop_oneof![
        8 => (0..6_usize).prop_map(|calls| Happening::Pass { calls }),
        6 => Just(Happening::Kubernetes),
        6 => Just(Happening::Nodes),
        3 => ordinal.clone().prop_map(Happening::KillPod),
        2 => ordinal.clone().prop_map(Happening::Silence),
        2 => replicas.prop_map(Happening::Replicas),
        2 => any::<bool>().prop_map(Happening::Image),
        1 => Just(Happening::DeleteObject),
        3 => Just(Happening::ApplyObject),
        1 => (0..=NODES_MAX).prop_map(Happening::ScaleByHand),
        1 => Just(Happening::DeleteSet),
        1 => ordinal.prop_map(Happening::ForeignDisk),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happened and wherever the operator was killed: no plan does what it must not, and in the end the cluster is well.
    #[test]
    fn every_life_keeps_its_cluster_and_ends_well(happenings in happenings()) {
        let mut world = World::default();
        world.apply_object(3);
        for happening in &happenings {
            world.happen(happening);
        }
        let own = world.disks.values().filter(|log| log.cluster != cluster(FOREIGN)).count();
        let formed = world.formed;
        let plan = world.heal();
        let ready = found(&plan, ConditionType::Ready);
        prop_assert_eq!(ready.holds, Truth::True, "{}", ready.message);
        if own > 0 {
            prop_assert_eq!(world.formed, formed, "formed anew beside kept disks");
        }
    }
}
