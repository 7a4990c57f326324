//! Random hands on a cluster, from a seed that is printed: edits that are right and wrong, deletions of pods, disks and children,
//! drains, ends of the operator and of the API server. After each the cluster is as asked again, and a client finds everything that
//! was acknowledged once and in order; what is refused is refused in words.
//!
//! `RAFTQUEUE_HANDS=SECONDS` goes on for so long, `RAFTQUEUE_HANDS_SEED` begins with another seed.

use super::gated::{Killer, Operator};
use super::{
    BoxError, Queue, Undo, bring_operator_back, condition_of, install, manifest, soon, take_operator_away,
};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::environment::hands;
use raftqueue_tests::process::Load;
use raftqueue_tests::sim::Random;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[Case {
    name: "random_hands_lose_nothing_and_are_answered",
    needs: Needs::OwnClusterAlone,
    run: random_hands_lose_nothing_and_are_answered,
}];

/// How long a cluster may take to be as asked after an act, on a machine that others need, too.
const CONVERGES_WITHIN: Duration = Duration::from_secs(600);
/// How long acts go on usually.
const USUALLY: Duration = Duration::from_secs(12);
/// How long the producer rests after a message.
const REST: Duration = Duration::from_millis(20);
/// Volumes that may be in use.
const VOLUMES: usize = 16;

/// The cluster, and what its object asks for.
struct Hands<'a> {
    queue: Queue<'a>,
    operator: &'a Operator,
    random: Random,
    replicas: i64,
    /// Acts that were not drawn yet in this round.
    left: Vec<Act<'a>>,
}

/// What is done; it returns that in words.
type Act<'a> = fn(&mut Hands<'a>) -> Result<String, BoxError>;

/// All kinds of acts. Each is drawn once before any is drawn again.
fn acts<'a>() -> Vec<Act<'a>> {
    vec![
        Hands::scale,
        Hands::set,
        Hands::wrong_edit,
        Hands::delete_pod,
        Hands::delete_disk,
        Hands::delete_child,
        Hands::edit_child,
        Hands::scale_set,
        Hands::evict,
        Hands::drain,
        Hands::kill_operator,
        Hands::restart_api_server,
        Hands::pause,
        Hands::restart_pods,
        Hands::orphan,
        Hands::delete_and_apply,
    ]
}

impl<'a> Hands<'a> {
    fn kubectl(&self, words: &[&str]) -> Result<String, BoxError> {
        Ok(self.queue.room.kubectl(words)?)
    }

    fn draw(&mut self) -> Act<'a> {
        if self.left.is_empty() {
            self.left = acts();
        }
        let drawn = self.random.index(self.left.len());
        self.left.swap_remove(drawn)
    }

    fn apply(&self) -> Outcome {
        self.queue.room.apply(&manifest("demo", self.replicas, &json!({})))?;
        Ok(())
    }

    fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<String, BoxError> {
        self.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()])
    }

    fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.random.index(of.len())]
    }

    fn pod(&mut self) -> String {
        format!("demo-{}", self.random.below(u64::try_from(self.replicas).unwrap_or(1)))
    }

    fn scale(&mut self) -> Result<String, BoxError> {
        self.replicas = *self.pick(&[1, 3, 3, 5]);
        self.kubectl(&["scale", "raftqueue/demo", &format!("--replicas={}", self.replicas)])?;
        Ok(format!("scale to {}", self.replicas))
    }

    fn set(&mut self) -> Result<String, BoxError> {
        let lease = 1_000 * self.random.between(20, 60);
        let edits = [
            json!({"spec": {"config": {"lease-ms": lease.to_string()}}}),
            json!({"spec": {"storage": {"retention": {"whenScaled": "Delete"}}}}),
            json!({"spec": {"storage": {"retention": {"whenScaled": "Retain", "whenDeleted": "Retain"}}}}),
            json!({"metadata": {"labels": {"touched": lease.to_string()}}}),
        ];
        let edit = self.pick(&edits);
        self.patch("raftqueue", "demo", edit)?;
        Ok(format!("set {edit}"))
    }

    fn wrong_edit(&mut self) -> Result<String, BoxError> {
        let edits = [
            (json!({"spec": {"replicas": 2}}), "must be odd"),
            (json!({"spec": {"replicas": 11}}), "less than or equal to 9"),
            (json!({"spec": {"storage": {"size": "512Mi"}}}), "at least 1Gi"),
            (json!({"spec": {"storage": {"storageClassName": "other"}}}), "cannot change"),
            (json!({"spec": {"config": {"colour": "red"}}}), "config takes these keys"),
            (json!({"spec": {"config": {"threads": "0"}}}), "from 1 to 64"),
            (json!({"spec": {"image": "not an image"}}), "must be a reference"),
            (json!({"spec": {"recovery": {"member": ""}}}), "token: Required value"),
            (json!({"spec": {"storage": {"discardBeforeGeneration": 0}}}), "greater than or equal to 1"),
        ];
        let (edit, words) = self.pick(&edits);
        let refused = self.patch("raftqueue", "demo", edit).expect_err(&edit.to_string()).to_string();
        assert!(refused.contains(words), "{edit}: `{words}` is not in: {refused}");
        Ok(format!("wrong edit {edit}"))
    }

    fn delete_pod(&mut self) -> Result<String, BoxError> {
        let pod = self.pod();
        let force = *self.pick(&["--force=false", "--force=true"]);
        self.kubectl(&["delete", "pod", &pod, "--wait=false", force])?;
        Ok(format!("delete pod {pod} {force}"))
    }

    /// The only copy of everything is left alone.
    fn delete_disk(&mut self) -> Result<String, BoxError> {
        if self.replicas < 3 {
            return self.delete_pod();
        }
        let pod = self.pod();
        self.kubectl(&["delete", "pvc", &format!("data-{pod}"), "--wait=false"])?;
        self.kubectl(&["delete", "pod", &pod, "--wait=false"])?;
        Ok(format!("delete the disk of {pod}"))
    }

    /// Its children, but for the set and its pods.
    fn children(&self) -> Vec<&'static str> {
        let mut children =
            vec!["service/demo-headless", "service/demo", "configmap/demo-config", "serviceaccount/demo"];
        // One node alone has none: nobody could ever be spared.
        if self.replicas > 1 {
            children.push("poddisruptionbudget/demo");
        }
        children
    }

    fn delete_child(&mut self) -> Result<String, BoxError> {
        let children = [self.children(), vec!["statefulset/demo"]].concat();
        let child = *self.pick(&children);
        self.kubectl(&["delete", child, "--wait=false"])?;
        Ok(format!("delete {child}"))
    }

    fn edit_child(&mut self) -> Result<String, BoxError> {
        let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
        let mut edits = vec![
            ("statefulset", "demo", json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}})),
            ("configmap", "demo-config", json!({"data": {"settings.json": "{}"}})),
            ("service", "demo", json!({"spec": {"selector": {"app.kubernetes.io/instance": "other"}}})),
            ("service", "demo-headless", json!({"spec": {"publishNotReadyAddresses": false}})),
            ("poddisruptionbudget", "demo", json!({"spec": {"maxUnavailable": 3}})),
        ];
        if self.replicas == 1 {
            edits.pop();
        }
        let (kind, name, edit) = self.pick(&edits);
        self.patch(kind, name, edit)?;
        Ok(format!("edit {kind} {name}: {edit}"))
    }

    fn scale_set(&mut self) -> Result<String, BoxError> {
        let to = *self.pick(&[0, 1, 2, 4, 7]);
        self.kubectl(&["scale", "statefulset/demo", &format!("--replicas={to}")])?;
        Ok(format!("scale the set to {to} by hand"))
    }

    fn evict(&mut self) -> Result<String, BoxError> {
        let (pod, namespace) = (self.pod(), &self.queue.room.namespace);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}});
        let arguments = ["create", "--raw", &path, "-f", "-"];
        let evicted = self.queue.room.cluster().with_manifest(&arguments, &eviction.to_string());
        Ok(format!("evict {pod}: {}", if evicted.is_ok() { "it goes" } else { "refused by its budget" }))
    }

    /// A drain of the only machine takes one pod after the other, which find no place before it is open again.
    fn drain(&mut self) -> Result<String, BoxError> {
        let cluster = self.queue.room.cluster();
        let machine = cluster.run(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
        let open = Undo::at_the_end(|| Ok(cluster.run(&["uncordon", &machine]).map(drop)?));
        let selector = "--pod-selector=app.kubernetes.io/instance=demo";
        let drained = cluster.output(&[
            "drain",
            &machine,
            selector,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=3s",
        ])?;
        open.now()?;
        Ok(format!("drain {machine} for 3 s: {}", drained.status))
    }

    fn kill_operator(&mut self) -> Result<String, BoxError> {
        let pod = self.pod();
        self.kubectl(&["delete", "pod", &pod, "--wait=false"])?;
        // The moment is one of many: nothing waits for it.
        std::thread::sleep(Duration::from_millis(self.random.below(700)));
        self.operator.kill();
        Ok(format!("delete {pod}, and kill the operator soon after"))
    }

    fn restart_api_server(&mut self) -> Result<String, BoxError> {
        let pod = self.pod();
        self.kubectl(&["delete", "pod", &pod, "--wait=false"])?;
        self.queue.room.own().restart_api_server(Duration::from_millis(self.random.below(3_000)))?;
        Ok(format!("delete {pod}, and restart the API server"))
    }

    /// Nobody puts anything right while it is paused.
    fn pause(&mut self) -> Result<String, BoxError> {
        self.patch("raftqueue", "demo", &json!({"spec": {"paused": true}}))?;
        self.queue.wait_condition("Paused", "True", None, CONVERGES_WITHIN)?;
        self.kubectl(&["delete", "service", "demo"])?;
        // That nothing happens has no sign to wait for; it is made anew within a moment where it is not paused.
        std::thread::sleep(Duration::from_millis(500));
        let left = self.kubectl(&["get", "service", "demo", "--ignore-not-found", "-o", "name"])?;
        assert_eq!(left, "", "paused, and the service is made again");
        self.patch("raftqueue", "demo", &json!({"spec": {"paused": false}}))?;
        Ok("pause, delete the service, go on".to_owned())
    }

    fn restart_pods(&mut self) -> Result<String, BoxError> {
        self.kubectl(&["rollout", "restart", "statefulset/demo"])?;
        Ok("rollout restart".to_owned())
    }

    fn orphan(&mut self) -> Result<String, BoxError> {
        self.kubectl(&["delete", "statefulset", "demo", "--cascade=orphan"])?;
        Ok("delete the set without its pods".to_owned())
    }

    fn delete_and_apply(&mut self) -> Result<String, BoxError> {
        self.kubectl(&["delete", "raftqueue", "demo"])?;
        self.apply()?;
        Ok("delete the object, and apply it again".to_owned())
    }

    /// One act, under load; how long it took, and why the cluster said meanwhile that it is not as asked.
    fn act(&mut self, number: usize) -> Result<String, BoxError> {
        let topic = format!("load-{number}");
        let service = self.queue.service()?;
        soon("the topic", CONVERGES_WITHIN, || match service.create_topic(&topic) {
            Ok(answer) if [201, 409].contains(&answer.code) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let load = Load::start_gently(&topic, 1, &[service], REST);
        let begun = Instant::now();
        let what = self.draw()(self)?;
        let said = self.converges().map_err(|error| format!("after `{what}`: {error}"))?;
        let service = self.queue.service()?;
        let report =
            load.finish_late(&topic, &[service]).map_err(|error| format!("after `{what}`: {error}"))?;
        Ok(format!(
            "{what}: as asked after {:.1?}, said {said:?}; {} acknowledged, longest pause {:.1?}",
            begun.elapsed(),
            report.acknowledged,
            report.longest_pause
        ))
    }

    /// Waits until everything is as asked, and Kubernetes has nothing left to do. Returns the reasons that were given meanwhile.
    fn converges(&self) -> Result<BTreeSet<String>, BoxError> {
        let mut said = BTreeSet::new();
        let room = self.queue.room;
        let selector = self.queue.selector();
        soon("the cluster to be as asked", CONVERGES_WITHIN, || {
            let text = |error: raftqueue_tests::kube::Error| error.to_string();
            let object = self.queue.object().map_err(text)?;
            let ready = condition_of(&object, "Ready");
            let reason = ready["reason"].as_str().unwrap_or("nothing yet");
            let is_told = ready["observedGeneration"] == object["metadata"]["generation"];
            if ready["status"] != "True" || !is_told {
                said.insert(reason.to_owned());
                return Err(object["status"].to_string());
            }
            let set = room.get("statefulset", "demo").map_err(text)?;
            let pods = room
                .cluster()
                .json(&["get", "pods", "-n", &room.namespace, "-l", &selector])
                .map_err(text)?;
            let pods: Vec<Value> = pods["items"].as_array().cloned().unwrap_or_default();
            let newest = &set["status"]["updateRevision"];
            let stays = pods.iter().all(|pod| {
                let is_ready =
                    raftqueue_tests::kube::kubectl::condition(pod, "Ready").as_deref() == Some("True");
                let metadata = &pod["metadata"];
                is_ready
                    && metadata["deletionTimestamp"].is_null()
                    && metadata["labels"]["controller-revision-hash"] == *newest
            });
            let is_seen = set["status"]["observedGeneration"] == set["metadata"]["generation"];
            let is_whole = set["spec"]["replicas"] == self.replicas && pods.len() as i64 == self.replicas;
            for child in self.children() {
                room.kubectl(&["get", child]).map_err(text)?;
            }
            (stays && is_seen && is_whole)
                .then_some(())
                .ok_or_else(|| format!("{} pods: {}", pods.len(), set["status"]))
        })?;
        Ok(said)
    }
}

fn random_hands_lose_nothing_and_are_answered(room: &Room<'_>) -> Outcome {
    install(room)?;
    let (budget, seed) = hands()?;
    let seed = match seed {
        Some(seed) => seed,
        None => std::time::UNIX_EPOCH.elapsed()?.as_secs(),
    };
    let bring_back = Undo::at_the_end(|| Ok(bring_operator_back(room)?));
    take_operator_away(room)?;
    room.own().volumes().make(VOLUMES)?;
    let operator = Operator::with(room, &Killer::new())?;
    let queue = Queue { room, name: "demo".to_owned() };
    let mut hands =
        Hands { queue, operator: &operator, random: Random::new(seed), replicas: 3, left: Vec::new() };
    hands.apply()?;
    hands.converges()?;
    eprintln!("{}: seed {seed}", room.namespace);
    room.kube().work_inside(|| -> Outcome {
        let begun = Instant::now();
        for number in 1.. {
            let line = hands.act(number).map_err(|error| format!("seed {seed}, act {number}: {error}"))?;
            eprintln!("  {number}. {line}");
            room.own().volumes().wipe_released()?;
            if begun.elapsed() > budget.unwrap_or(USUALLY) {
                break;
            }
        }
        Ok(())
    })??;
    drop(operator);
    bring_back.now()
}
