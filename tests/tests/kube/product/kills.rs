//! The operator dies right after a write, in every flow and at every one of its writes: the end is the same each time, and a client
//! that knows nothing of it finds everything once and in order.
//!
//! Each flow begins and ends with the same three nodes, so it is repeated on one cluster. Usually four of the short flows with a
//! write each are drawn from a seed that is printed, and a creation is tried with an operator that dies after every write.
//! `RAFTQUEUE_OPERATOR_KILLS=SECONDS` takes all flows, each first with an operator that dies after every write, and then after
//! one of them at a time. `RAFTQUEUE_OPERATOR_KILLS_FROM=roll:8,disk:4` goes on where another run has ended.

use super::gated::{Dies, Killer, Operator};
use super::{BoxError, Queue, Undo, bring_operator_back, install, manifest, soon, take_operator_away};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::environment::{operator_kills, operator_kills_from};
use raftqueue_tests::process::{Http, Load};
use raftqueue_tests::sim::Random;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[Case {
    name: "it_dies_after_any_write_and_the_end_is_the_same",
    needs: Needs::OwnClusterAlone,
    run: it_dies_after_any_write_and_the_end_is_the_same,
}];

/// How long a flow may take to come to a rest, beside others and with an operator that dies all the time.
const RESTS_WITHIN: Duration = Duration::from_secs(240);
/// Pairs of a flow and a write that are usually tried.
const PAIRS: usize = 4;
/// Volumes that a flow may have in use.
const VOLUMES_EACH: usize = 7;
/// How long the producer rests after a message.
const REST: Duration = Duration::from_millis(20);

/// What people do to a cluster of three.
struct Flow {
    name: &'static str,
    /// Writes of the operator in it, about.
    writes: u64,
    /// Messages flow meanwhile.
    is_under_load: bool,
    act: fn(&Life<'_>) -> Outcome,
}

const FLOWS: [Flow; 7] = [
    Flow { name: "create", writes: 30, is_under_load: false, act: create },
    Flow { name: "scale", writes: 90, is_under_load: true, act: scale },
    Flow { name: "roll", writes: 50, is_under_load: true, act: roll },
    Flow { name: "image", writes: 35, is_under_load: true, act: image },
    Flow { name: "disk", writes: 20, is_under_load: true, act: disk },
    Flow { name: "quorum", writes: 36, is_under_load: false, act: quorum },
    Flow { name: "again", writes: 36, is_under_load: false, act: again },
];

/// A cluster that a flow is repeated on.
struct Life<'a> {
    queue: Queue<'a>,
    killer: Arc<Killer>,
    dies: Dies,
    round: usize,
}

impl Life<'_> {
    fn room(&self) -> &Room<'_> {
        self.queue.room
    }

    fn apply(&self) -> Outcome {
        self.room().apply(&spec())?;
        Ok(())
    }

    fn patch(&self, spec: &Value) -> Outcome {
        let patch = json!({ "spec": spec }).to_string();
        self.room().kubectl(&["patch", "raftqueue", "demo", "--type=merge", "-p", &patch])?;
        Ok(())
    }

    /// Waits until all is as asked, by a watch: many look at the same time.
    fn rests(&self) -> Outcome {
        let timeout = format!("--timeout={}s", RESTS_WITHIN.as_secs());
        self.room().kubectl(&["wait", "raftqueue/demo", "--for=condition=Ready", &timeout])?;
        Ok(())
    }

    fn uid(&self, kind: &str, name: &str) -> Result<Value, BoxError> {
        Ok(self.room().get(kind, name)?["metadata"]["uid"].clone())
    }

    /// Nothing of these is left.
    fn gone(&self, kinds: &str) -> Outcome {
        soon(&format!("no {kinds}"), RESTS_WITHIN, || {
            let left = self.room().kubectl(&["get", kinds, "-l", &self.queue.selector(), "-o", "name"]);
            let left = left.map_err(|error| error.to_string())?;
            left.trim().is_empty().then_some(()).ok_or(left)
        })?;
        Ok(())
    }

    /// The pods of these nodes are others, on other disks.
    fn lose(&self, ordinals: &[usize]) -> Outcome {
        let names = |prefix: &str| ordinals.iter().map(|ordinal| format!("{prefix}-{ordinal}")).collect();
        let (pods, claims): (Vec<String>, Vec<String>) = (names("demo"), names("data-demo"));
        let before = claims.iter().map(|claim| self.uid("pvc", claim)).collect::<Result<Vec<_>, _>>()?;
        let words = |first: &[&str], names: &[String]| -> Outcome {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.room().kubectl(&[first, &names[..], &["--wait=false"]].concat())?;
            Ok(())
        };
        words(&["delete", "pvc"], &claims)?;
        words(&["delete", "pod"], &pods)?;
        soon("other disks", RESTS_WITHIN, || {
            let now = claims.iter().map(|claim| self.uid("pvc", claim)).collect::<Result<Vec<_>, _>>();
            let now = now.map_err(|error| error.to_string())?;
            let is_new = now.iter().zip(&before).all(|(now, before)| now != before);
            is_new.then_some(()).ok_or_else(|| format!("{now:?}"))
        })?;
        Ok(())
    }

    fn topic(&self) -> String {
        format!("orders-{}", self.round)
    }

    fn published(&self, messages: &[&str]) -> Outcome {
        self.queue.publish(&self.topic(), messages)?;
        Ok(())
    }

    fn has(&self, messages: &[&str]) -> Outcome {
        assert_eq!(self.queue.receive(&self.topic(), messages.len())?, messages);
        Ok(())
    }
}

fn spec() -> String {
    let more = json!({"storage": {"size": "1Gi", "retention": {"whenScaled": "Delete"}}});
    manifest("demo", 3, &more)
}

fn create(life: &Life<'_>) -> Outcome {
    life.killer.arm(Dies::Never);
    life.room().kubectl(&["delete", "raftqueue", "demo"])?;
    life.gone("statefulsets,pods,services,configmaps")?;
    life.room().kubectl(&["delete", "pvc", "-l", &life.queue.selector()])?;
    wipe(life.room())?;
    life.killer.arm(life.dies);
    life.apply()?;
    life.rests()?;
    life.published(&["one", "two"])?;
    life.has(&["one", "two"])
}

fn scale(life: &Life<'_>) -> Outcome {
    for replicas in [5, 3, 1, 3] {
        life.room().kubectl(&["scale", "raftqueue/demo", &format!("--replicas={replicas}")])?;
        life.rests()?;
    }
    Ok(())
}

fn roll(life: &Life<'_>) -> Outcome {
    life.patch(&json!({"config": {"lease-ms": (30_000 + life.round).to_string()}}))?;
    life.rests()
}

fn image(life: &Life<'_>) -> Outcome {
    let node = format!("docker.io/library/raftqueue-node:{}", env!("CARGO_PKG_VERSION"));
    life.patch(&json!({"image": "localhost/no-such-raftqueue:1"}))?;
    life.queue.wait_condition("Degraded", "True", Some("ImageNotPulled"), RESTS_WITHIN)?;
    life.patch(&json!({ "image": node }))?;
    life.rests()
}

fn disk(life: &Life<'_>) -> Outcome {
    life.lose(&[life.round % 3])?;
    life.rests()
}

/// Two disks of three are lost. The leader has everything that was acknowledged.
fn quorum(life: &Life<'_>) -> Outcome {
    life.published(&["one", "two"])?;
    let leader = life.queue.leader()?;
    let others: Vec<usize> = (0..3).filter(|ordinal| format!("demo-{ordinal}") != leader).collect();
    life.lose(&others)?;
    let object = life.queue.wait_condition("RecoveryPossible", "True", None, RESTS_WITHIN)?;
    let offer = &object["status"]["recovery"];
    assert_eq!(offer["member"], leader, "{offer}");
    life.patch(&json!({"recovery": {"member": leader, "token": offer["token"]}}))?;
    life.rests()?;
    life.has(&["one", "two"])
}

fn again(life: &Life<'_>) -> Outcome {
    life.published(&["one", "two"])?;
    life.room().kubectl(&["delete", "raftqueue", "demo"])?;
    life.apply()?;
    life.rests()?;
    life.has(&["one", "two"])
}

/// What there is once a flow has come to its end, without what differs each time.
fn end(room: &Room<'_>) -> Result<Value, BoxError> {
    let names = |kinds: &str| -> Result<Vec<String>, BoxError> {
        let all = room.kubectl(&["get", kinds, "-l", "app.kubernetes.io/instance=demo", "-o", "name"])?;
        Ok(all.lines().map(str::to_owned).collect())
    };
    let object = room.get("raftqueue", "demo")?;
    let (status, set) = (&object["status"], room.get("statefulset", "demo")?);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let member = |member: &Value| {
        let votes = ["Leader", "Follower"].map(Value::from).contains(&member["role"]);
        json!([member["name"], votes, member["ready"]])
    };
    let members: Vec<Value> = list(&status["members"]).iter().map(member).collect();
    let condition = |found: &Value| json!([found["type"], found["status"], found["reason"]]);
    // A recovery that was asked for once says nothing of what is so now.
    let told: Vec<Value> = list(&status["conditions"]).iter().map(condition).collect();
    let pods = room.cluster().json(&[
        "get",
        "pods",
        "-n",
        &room.namespace,
        "-l",
        "app.kubernetes.io/instance=demo",
    ])?;
    let revision = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"].to_string();
    let revisions: BTreeSet<String> = list(&pods["items"]).iter().map(revision).collect();
    let newest = BTreeSet::from([set["status"]["updateRevision"].to_string()]);
    Ok(json!({
        "children": names("services,configmaps,serviceaccounts,poddisruptionbudgets,statefulsets")?,
        "pods": names("pods")?,
        "claims": names("pvc")?,
        "all pods are of the newest revision": revisions == newest,
        "replicas": set["spec"]["replicas"],
        "members": members,
        "conditions": told,
        "plan": status["plan"],
    }))
}

/// The end is the one that there is without any death; what was deleted may take a moment to go.
fn same_end(life: &Life<'_>, wanted: &Value) -> Outcome {
    soon("the same end", RESTS_WITHIN, || {
        let found = end(life.room()).map_err(|error| error.to_string())?;
        (found == *wanted).then_some(()).ok_or_else(|| format!("{found} and not {wanted}"))
    })?;
    Ok(())
}

/// One repetition of a flow, and how long its producer had to wait at most.
fn repeat(life: &Life<'_>, flow: &Flow, wanted: &Value) -> Result<Option<Duration>, BoxError> {
    life.killer.arm(life.dies);
    if !flow.is_under_load {
        (flow.act)(life)?;
        same_end(life, wanted)?;
        return Ok(None);
    }
    let service: Http = life.queue.service()?;
    let topic = life.topic();
    soon("the topic", RESTS_WITHIN, || match service.create_topic(&topic) {
        Ok(answer) if [201, 409].contains(&answer.code) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let load = Load::start_gently(&topic, 1, &[service], REST);
    (flow.act)(life)?;
    same_end(life, wanted)?;
    let report = load.finish_late(&topic, &[service])?;
    assert!(report.acknowledged > 0, "nothing was published");
    Ok(Some(report.longest_pause))
}

/// Volumes of claims that are gone can be used again.
fn wipe(room: &Room<'_>) -> Outcome {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    room.own().volumes().wipe_released()?;
    Ok(())
}

/// Repeats a flow on a cluster of its own, with these deaths, until the time is over or no write is left. What was tried, a line.
fn live(room: &Room<'_>, flow: &Flow, deaths: Vec<Dies>, until: Instant) -> Result<Vec<String>, BoxError> {
    room.cluster().run(&["create", "namespace", &room.namespace])?;
    let remove = Undo::at_the_end(|| {
        room.cluster().run(&["delete", "namespace", &room.namespace, "--wait=false"])?;
        Ok(())
    });
    let killer = Killer::new();
    let operator = Operator::with(room, &killer)?;
    let queue = Queue { room, name: "demo".to_owned() };
    let mut life = Life { queue, killer: Arc::clone(&killer), dies: Dies::Never, round: 0 };
    life.apply()?;
    life.rests()?;
    let wanted = end(room)?;
    // A run that takes long tells how far it has come.
    let is_long = deaths.len() > PAIRS;
    let mut lines = Vec::new();
    let mut tell = |line: String| {
        if is_long {
            eprintln!("  {line}");
        }
        lines.push(line);
    };
    for dies in deaths {
        if Instant::now() > until {
            tell(format!("{}: no time left for {dies:?}", flow.name));
            break;
        }
        (life.dies, life.round) = (dies, life.round + 1);
        let begun = Instant::now();
        let pause =
            repeat(&life, flow, &wanted).map_err(|error| format!("{} {dies:?}: {error}", flow.name))?;
        let (writes, died) = killer.disarm();
        let pause = pause.map(|pause| format!(", longest pause {pause:.2?}")).unwrap_or_default();
        let at = match died.len() {
            0..=1 => died.join(""),
            count => format!("{count} deaths"),
        };
        tell(format!("{} {dies:?} of {writes} writes ({at}): {:.1?}{pause}", flow.name, begun.elapsed()));
        wipe(room)?;
        if matches!(dies, Dies::After(_)) && died.is_empty() {
            break;
        }
    }
    drop(operator);
    remove.now()?;
    Ok(lines)
}

fn it_dies_after_any_write_and_the_end_is_the_same(room: &Room<'_>) -> Outcome {
    install(room)?;
    let budget = operator_kills()?;
    let bring_back = Undo::at_the_end(|| Ok(bring_operator_back(room)?));
    take_operator_away(room)?;
    let begun = Instant::now();
    let seed = u64::from(std::process::id()) ^ u64::from(std::time::UNIX_EPOCH.elapsed()?.subsec_nanos());
    let mut random = Random::new(seed);
    // Scaling up and down twice takes as long as all others do beside each other.
    let from = operator_kills_from()?;
    let unknown = from.keys().find(|name| !FLOWS.iter().any(|flow| flow.name == **name));
    assert_eq!(unknown, None, "no flow has this name");
    let is_tried = |flow: &&Flow| match budget {
        Some(_) => from.is_empty() || from.contains_key(flow.name),
        None => flow.name != "scale",
    };
    let mut chosen: Vec<&Flow> = FLOWS.iter().filter(is_tried).collect();
    while budget.is_none() && chosen.len() > PAIRS {
        chosen.remove(random.index(chosen.len()));
    }
    room.own().volumes().make((chosen.len() + 1) * VOLUMES_EACH)?;
    let mut plans: Vec<(&Flow, Vec<Dies>)> = chosen
        .into_iter()
        .map(|flow| match budget {
            None => (flow, vec![Dies::After(usize::try_from(random.between(1, flow.writes)).unwrap_or(1))]),
            Some(_) => {
                let first = from.get(flow.name).copied();
                let all = first.is_none().then_some([Dies::Never, Dies::Always]).into_iter().flatten();
                (flow, all.chain((first.unwrap_or(1)..1_000).map(Dies::After)).collect())
            }
        })
        .collect();
    // A creation in which no life writes more than once is always among them.
    if budget.is_none() {
        match plans.iter_mut().find(|(flow, _)| flow.name == FLOWS[0].name) {
            Some((_, deaths)) => deaths.insert(0, Dies::Always),
            None => plans.push((&FLOWS[0], vec![Dies::Always])),
        }
    }
    let until = begun + budget.unwrap_or(RESTS_WITHIN);
    let results: Vec<Result<Vec<String>, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = plans
            .into_iter()
            .map(|(flow, deaths)| {
                scope.spawn(move || {
                    let namespace = format!("{}-{}", flow.name, room.namespace.replace("kills-", ""));
                    let own = Room { kube: room.kube, namespace: namespace.chars().take(40).collect() };
                    let lived = room.kube().work_inside(|| live(&own, flow, deaths, until));
                    lived.map_err(BoxError::from).flatten().map_err(|error| {
                        let evidence =
                            room.kube().collect(&own.namespace).map(|folder| folder.display().to_string());
                        format!("{error}\n{evidence:?}")
                    })
                })
            })
            .collect();
        let panicked = |_| Err("a flow panicked; what it said is above".to_owned());
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked)).collect()
    });
    eprintln!("{}: seed {seed}, {:.1?}", room.namespace, begun.elapsed());
    for line in results.iter().flatten().flatten().filter(|_| budget.is_none()) {
        eprintln!("  {line}");
    }
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bring_back.now()
}
