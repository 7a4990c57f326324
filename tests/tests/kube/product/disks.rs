//! No hand on a child takes the disks: scaled, deleted or orphaned, with the operator there and away, under both policies, the
//! claims stay who they are and every message is there.

use super::{
    BoxError, Queue, TOLD_WITHIN, Undo, bring_operator_back, condition_of, manifest, soon, take_operator_away,
};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::Error;
use raftqueue_tests::kube::kubectl::condition;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) const CASES: &[Case] = &[Case {
    name: "rule_10_7_no_hand_takes_the_disks",
    needs: Needs::OwnClusterAlone,
    run: rule_10_7_no_hand_takes_the_disks,
}];

/// A cluster, what its object says of its disks, and what it holds.
struct Kept<'a> {
    queue: Queue<'a>,
    when_deleted: &'static str,
    /// Uids of the claims.
    claims: BTreeMap<String, String>,
    messages: Vec<String>,
}

impl<'a> Kept<'a> {
    fn applied(room: &'a Room<'a>, name: &str, when_deleted: &'static str) -> Result<Self, BoxError> {
        let queue = Queue::applied_with(room, name, 3, &spec(when_deleted))?;
        Ok(Self { queue, when_deleted, claims: BTreeMap::new(), messages: Vec::new() })
    }

    fn apply(&self) -> Outcome {
        self.queue.room.apply(&manifest(&self.queue.name, 3, &spec(self.when_deleted)))?;
        Ok(())
    }

    /// Its claims as they are now: name, uid, kinds of owners.
    fn look(&self) -> Result<BTreeMap<String, (String, Vec<String>)>, BoxError> {
        let room = self.queue.room;
        let selector = self.queue.selector();
        let claims = room.cluster().json(&["get", "pvc", "-n", &room.namespace, "-l", &selector])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |claim: &Value| {
            let metadata = &claim["metadata"];
            assert!(metadata["deletionTimestamp"].is_null(), "a claim is being deleted: {metadata}");
            let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
            (
                text(&metadata["name"]),
                (text(&metadata["uid"]), owners.map(|owner| text(&owner["kind"])).collect()),
            )
        };
        Ok(claims["items"].as_array().into_iter().flatten().map(one).collect())
    }

    /// The claims are still those that they were.
    fn check_claims(&self, after: &str) -> Outcome {
        let now = self.look()?.into_iter().map(|(name, (uid, _))| (name, uid)).collect();
        assert_eq!(self.claims, now, "{} after {after}", self.queue.name);
        Ok(())
    }

    /// Every claim has these owners.
    fn wait_owners(&self, wanted: &[&str]) -> Outcome {
        soon("the owners of the claims", TOLD_WITHIN, || {
            let now = self.look().map_err(|error| error.to_string())?;
            let is_so = now.len() == 3 && now.values().all(|(_, owners)| owners == wanted);
            is_so.then_some(()).ok_or_else(|| format!("{now:?}"))
        })?;
        Ok(())
    }

    /// It serves, and the claims are those that they were; another message goes in.
    fn goes_on(&mut self, after: &str) -> Outcome {
        self.wait_settled()?;
        self.queue.wait_ready()?;
        self.check_claims(after)?;
        let message = format!("after {after}");
        self.queue.raftq(&format!("{}-0", self.queue.name), &["publish", "orders", &message])?;
        self.messages.push(message);
        Ok(())
    }

    /// The set is as it should be, Kubernetes has looked at it since, and none of its pods is about to go: until then everything may
    /// look well as it was before.
    fn wait_settled(&self) -> Outcome {
        let room = self.queue.room;
        let selector = self.queue.selector();
        soon("three pods that stay", TOLD_WITHIN, || {
            let text = |error: Error| error.to_string();
            let set = room.get("statefulset", &self.queue.name).map_err(text)?;
            let pods = room.cluster().json(&["get", "pods", "-n", &room.namespace, "-l", &selector]);
            let pods = pods.map_err(text)?;
            let is_seen = set["status"]["observedGeneration"] == set["metadata"]["generation"];
            let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
            let staying = pods["items"].as_array().into_iter().flatten().filter(stays).count();
            let all = pods["items"].as_array().map_or(0, Vec::len);
            let is_so = is_seen && set["spec"]["replicas"] == 3 && (staying, all) == (3, 3);
            is_so.then_some(()).ok_or_else(|| format!("{staying} of {all} pods stay: {}", set["status"]))
        })?;
        Ok(())
    }

    fn wait_pods(&self, count: usize) -> Outcome {
        let room = self.queue.room;
        soon(&format!("{count} pods"), TOLD_WITHIN, || {
            let pods = room.kubectl(&["get", "pods", "-l", &self.queue.selector(), "-o", "name"]);
            let pods = pods.map_err(|error| error.to_string())?;
            (pods.lines().count() == count).then_some(()).ok_or(pods)
        })?;
        Ok(())
    }

    fn scale(&self, replicas: &str) -> Outcome {
        self.queue.room.kubectl(&["scale", "statefulset", &self.queue.name, "--replicas", replicas])?;
        Ok(())
    }

    fn delete(&self, kind: &str, cascade: &str) -> Outcome {
        let cascade = format!("--cascade={cascade}");
        self.queue.room.kubectl(&["delete", kind, &self.queue.name, &cascade])?;
        Ok(())
    }
}

fn spec(when_deleted: &str) -> Value {
    json!({"storage": {"size": "1Gi", "retention": {"whenDeleted": when_deleted, "whenScaled": "Delete"}}})
}

/// What a hand does.
type Act = fn(&Kept<'_>) -> Outcome;

fn rule_10_7_no_hand_takes_the_disks(room: &Room<'_>) -> Outcome {
    let mut all = [Kept::applied(room, "keeps", "Retain")?, Kept::applied(room, "throws", "Delete")?];
    for kept in &mut all {
        kept.queue.wait_ready()?;
        kept.queue.raftq(&format!("{}-0", kept.queue.name), &["topic", "create", "orders"])?;
        kept.claims = kept.look()?.into_iter().map(|(name, (uid, _))| (name, uid)).collect();
        kept.goes_on("the beginning")?;
    }
    all[0].wait_owners(&[])?;
    all[1].wait_owners(&["RaftQueue"])?;

    // The operator is there: it puts right what was done, and tells of it.
    let acts: [(&str, Act); 4] = [
        ("a scale to one", |kept| kept.scale("1")),
        ("a scale to none", |kept| kept.scale("0")),
        ("the set's deletion", |kept| kept.delete("statefulset", "background")),
        ("the object's deletion without its children", |kept| {
            kept.delete("raftqueue", "orphan")?;
            kept.check_claims("the deletion")?;
            kept.apply()
        }),
    ];
    for (what, act) in acts {
        all.iter().try_for_each(act)?;
        all.iter_mut().try_for_each(|kept| kept.goes_on(what))?;
    }
    all.iter().try_for_each(|kept| kept.queue.wait_event("ScaledByHand", "set back to 3"))?;
    all[1].wait_owners(&["RaftQueue"])?;

    // The operator is away: nobody puts anything right, and the disks stay all the same.
    let bring_back = Undo::at_the_end(|| Ok(bring_operator_back(room)?));
    take_operator_away(room)?;
    for (replicas, pods) in [("1", 1), ("0", 0)] {
        all.iter().try_for_each(|kept| kept.scale(replicas))?;
        all.iter().try_for_each(|kept| kept.wait_pods(pods))?;
        all.iter().try_for_each(|kept| kept.check_claims("a scale with nobody there"))?;
    }
    all.iter().try_for_each(|kept| kept.delete("raftqueue", "orphan"))?;
    all.iter().try_for_each(|kept| kept.wait_owners(&[]))?;
    all.iter().try_for_each(|kept| kept.delete("statefulset", "background"))?;
    all.iter().try_for_each(|kept| kept.check_claims("everything was deleted"))?;
    bring_back.now()?;
    all.iter().try_for_each(Kept::apply)?;
    all.iter_mut().try_for_each(|kept| kept.goes_on("everything was deleted"))?;
    for kept in &all {
        assert_eq!(kept.queue.receive("orders", kept.messages.len())?, kept.messages, "{}", kept.queue.name);
    }

    two_disks_of_three_are_lost(&all[0])?;
    all[0].claims = all[0].look()?.into_iter().map(|(name, (uid, _))| (name, uid)).collect();

    // The policy turns, and turns back; then the object goes, and only where it says so its disks with it.
    let throws = &all[1];
    throws.wait_owners(&["RaftQueue"])?;
    room.apply(&manifest("throws", 3, &spec("Retain")))?;
    throws.wait_owners(&[])?;
    throws.apply()?;
    throws.wait_owners(&["RaftQueue"])?;
    all.iter().try_for_each(|kept| kept.delete("raftqueue", "background"))?;
    soon("the claims to go", TOLD_WITHIN, || {
        let left = room.kubectl(&["get", "pvc", "-l", &throws.queue.selector(), "-o", "name"]);
        let left = left.map_err(|error| error.to_string())?;
        left.trim().is_empty().then_some(()).ok_or(left)
    })?;
    all[0].wait_pods(0)?;
    all[0].check_claims("the object's deletion")
}

/// Two nodes get other, empty volumes. What is said of it is so, the commands that are named bring one of them back, and the
/// other one is replaced.
fn two_disks_of_three_are_lost(kept: &Kept<'_>) -> Outcome {
    let (queue, room) = (&kept.queue, kept.queue.room);
    queue.raftq("keeps-0", &["publish", "orders", "on two disks of three"])?;
    let lost = ["keeps-1", "keeps-2"];
    let volume = |node: &str| -> Result<String, BoxError> {
        let claim = room.get("pvc", &format!("data-{node}"))?;
        Ok(claim["spec"]["volumeName"].as_str().ok_or("a volume")?.to_owned())
    };
    let first = volume(lost[0])?;
    room.kubectl(&["delete", "pvc", "data-keeps-1", "data-keeps-2", "--wait=false"])?;
    queue.wait_condition("StorageReady", "False", Some("DiskLeaving"), TOLD_WITHIN)?;
    room.kubectl(&["delete", "pods", lost[0], lost[1]])?;

    let told = |words: &str| {
        let what = format!("the condition to say `{words}`");
        let get = ["raftqueue", queue.name.as_str(), "-n", &room.namespace];
        room.cluster().wait_until(&what, TOLD_WITHIN, &get, |object| {
            let found = condition_of(object, "StorageReady");
            let message = found["message"].as_str().unwrap_or_default();
            let is_so = found["reason"] == "DiskLost" && message.contains(words);
            is_so.then(|| (object.clone(), message.to_owned())).ok_or_else(|| object["status"].to_string())
        })
    };
    let (object, message) = told("keeps-1, keeps-2: the disk is empty. 1 of 3 members")?;
    assert_eq!(condition(&object, "Available").as_deref(), Some("False"), "{object}");
    for lie in ["goes on", "is on their disks"] {
        assert!(!object["status"]["conditions"].to_string().contains(lie), "{object}");
    }
    put_back(room, &message, &first)?;
    // With a majority again the operator itself replaces the other one.
    queue.wait_event("MemberReplaced", "keeps-2 has lost its disk")?;
    queue.wait_ready()?;
    assert_eq!(queue.receive("orders", 1)?, ["on two disks of three"]);
    Ok(())
}

/// Types the three commands of a message.
fn put_back(room: &Room<'_>, message: &str, volume: &str) -> Outcome {
    let (_, commands) = message.split_once("shows it): ").ok_or("commands")?;
    let commands: Vec<&str> = commands.split("; ").collect();
    assert_eq!(commands.len(), 3, "{message}");
    for command in commands {
        let command = command.replace("VOLUME", volume).replace('\'', "");
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(words[0], "kubectl", "{message}");
        room.cluster().run(&words[1..])?;
    }
    Ok(())
}
