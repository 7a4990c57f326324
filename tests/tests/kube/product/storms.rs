//! An API server that refuses, forgets and hangs up, a namespace that goes, and many objects at once: the operator bears it, says
//! what is wrong where it can, makes no more calls than it must, and all heals by itself.

use super::gated::Operator;
use super::{
    Queue, TOLD_WITHIN, Undo, bring_operator_back, condition_of, install, manifest, soon, take_operator_away,
};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::environment::operator_objects;
use raftqueue_tests::kube::gate::{Call, Porter, Verdict};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "an_api_server_that_misbehaves_is_borne",
        needs: Needs::OwnClusterAlone,
        run: an_api_server_that_misbehaves_is_borne,
    },
    Case {
        name: "many_objects_cost_a_bounded_number_of_calls",
        needs: Needs::OwnClusterAlone,
        run: many_objects_cost_a_bounded_number_of_calls,
    },
];

/// How long each kind of bad weather lasts.
const LASTS: Duration = Duration::from_secs(2);
/// Most calls of an operator in that time about one object, whatever is answered. Each of the nine watches may try four times a
/// second, and a list goes before each.
const CALLS_MAX: usize = 120;
/// Of so many calls one is answered badly in showers: a look alone is a dozen of them.
const SHOWERS_EVERY: usize = 30;
/// Most calls that an object may cost until it has all children and says why it has no pods, and most a minute later on.
const CALLS_EACH_MAX: usize = 400;
/// Most memory that an object may cost an operator, in KiB.
const KIB_EACH_MAX: u64 = 256;
/// What an operator without objects may have, in KiB.
const KIB_MAX: u64 = 64 << 10;

/// What the API server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fair,
    /// Now and then a call is answered like this.
    Showers,
    /// All that is written is answered like this, but for leases.
    Writes(u16, &'static str),
    /// Only what is written about services.
    Services,
    /// Watches are answered like this.
    Watches(u16, &'static str),
    /// Watches hang up at once.
    HangUp,
    /// Nothing but leases passes.
    Nothing(u16, &'static str),
}

struct Sky {
    weather: Mutex<Weather>,
    calls: AtomicUsize,
    /// Whole looks at an object: each asks for one budget.
    looks: AtomicUsize,
    /// What was written, leases left out.
    written: Mutex<Vec<String>>,
}

impl Sky {
    fn new(weather: Weather) -> Arc<Self> {
        Arc::new(Self {
            weather: Mutex::new(weather),
            calls: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            written: Mutex::default(),
        })
    }

    /// Returns the number of calls until now, and counts from here.
    fn turn(&self, weather: Weather) -> usize {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
        self.calls.swap(0, Ordering::Relaxed)
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    /// What was written since this was asked last.
    fn written(&self) -> Vec<String> {
        std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What showers bring, in turn.
const SHOWERS: [Verdict; 5] = [
    Verdict::Answer { code: 409, reason: "Conflict" },
    Verdict::Answer { code: 429, reason: "TooManyRequests" },
    Verdict::Answer { code: 500, reason: "InternalError" },
    Verdict::Silence,
    Verdict::Answer { code: 504, reason: "Timeout" },
];

impl Porter for Sky {
    fn judge(&self, call: &Call) -> Verdict {
        if call.is_about("leases") {
            return Verdict::Pass;
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if call.is_about("poddisruptionbudgets") && !call.writes() && !call.watches() {
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
        if call.writes() {
            let path = call.path.split('?').next().unwrap_or_default();
            let line = format!("{} {path}", call.method);
            self.written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        match weather {
            Weather::Showers if call.watches() => Verdict::Cut(Duration::from_millis(700)),
            Weather::Showers if number % SHOWERS_EVERY == 1 => {
                SHOWERS[number / SHOWERS_EVERY % SHOWERS.len()]
            }
            Weather::Writes(code, reason) if call.writes() => Verdict::Answer { code, reason },
            Weather::Services if call.writes() && call.is_about("services") => {
                Verdict::Answer { code: 500, reason: "InternalError" }
            }
            Weather::Watches(code, reason) if call.watches() => Verdict::Answer { code, reason },
            Weather::HangUp if call.watches() => Verdict::Cut(Duration::ZERO),
            Weather::Nothing(code, reason) => Verdict::Answer { code, reason },
            _ => Verdict::Pass,
        }
    }
}

fn an_api_server_that_misbehaves_is_borne(room: &Room<'_>) -> Outcome {
    install(room)?;
    let bring_back = Undo::at_the_end(|| Ok(bring_operator_back(room)?));
    take_operator_away(room)?;
    let sky = Sky::new(Weather::Showers);
    let operator = Operator::behind(room, Arc::clone(&sky) as Arc<dyn Porter>)?;
    // In showers a cluster is made, and grows.
    room.apply(&manifest("demo", 1, &json!({})))?;
    let queue = Queue { room, name: "demo".to_owned() };
    queue.wait_ready()?;
    queue.publish("orders", &["one", "two"])?;
    room.kubectl(&["scale", "raftqueue/demo", "--replicas=3"])?;
    queue.wait_ready()?;
    let showers = sky.turn(Weather::Fair);
    queue.wait_condition("Reconciled", "True", None, TOLD_WITHIN)?;
    sky.turn(Weather::Services);

    // What cannot be done is told with what the API server said, and done once it can.
    room.kubectl(&["delete", "service", "demo"])?;
    let object = queue.wait_condition("Reconciled", "False", Some("CallFailed"), TOLD_WITHIN)?;
    let message = condition_of(&object, "Reconciled")["message"].to_string();
    assert!(message.contains("Service demo") && message.contains("InternalError (500)"), "{message}");
    sky.turn(Weather::Fair);
    queue.wait_condition("Reconciled", "True", None, TOLD_WITHIN)?;
    room.get("service", "demo")?;

    for weather in [
        Weather::Writes(409, "Conflict"),
        Weather::Writes(429, "TooManyRequests"),
        Weather::Nothing(500, "InternalError"),
        Weather::Watches(410, "Expired"),
        Weather::HangUp,
    ] {
        sky.turn(weather);
        room.kubectl(&["delete", "service", "demo", "--ignore-not-found"])?;
        // So many calls in so long a time is what is asked about.
        std::thread::sleep(LASTS);
        let calls = sky.turn(Weather::Fair);
        eprintln!("{}: {weather:?}: {calls} calls in {LASTS:.0?}", room.namespace);
        assert!(calls <= CALLS_MAX, "{calls} calls in {LASTS:?} of {weather:?}");
        soon("the service again", TOLD_WITHIN, || {
            room.get("service", "demo").map(drop).map_err(|error| error.to_string())
        })?;
    }
    queue.wait_ready()?;
    looks_at_what_is_well_write_nothing(&queue, &sky)?;
    assert_eq!(queue.restarts()?, 0);
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    eprintln!("{}: {showers} calls in showers", room.namespace);

    // The namespace goes, and with it everything: nothing is made in it any more.
    let before = sky.calls();
    room.cluster().run(&["delete", "namespace", &room.namespace, "--timeout=120s"])?;
    let calls = sky.calls() - before;
    eprintln!("{}: {calls} calls until the namespace was gone", room.namespace);
    assert!(calls <= 3 * CALLS_MAX, "{calls} calls about a namespace that goes");
    drop(operator);
    bring_back.now()
}

/// Somebody touches the object, and it is looked at whole: nothing is written. A child that somebody edits is put back, which is
/// the one write then; it is not written again.
fn looks_at_what_is_well_write_nothing(queue: &Queue<'_>, sky: &Sky) -> Outcome {
    let room = queue.room;
    let touch = |looks: usize| -> Result<(), String> {
        let now = format!("touched={}", std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
        let touch = ["annotate", "raftqueue", "demo", "--overwrite", &now];
        room.kubectl(&touch).map_err(|error| error.to_string())?;
        let seen = || if sky.looks() >= looks { Ok(()) } else { Err(format!("{} looks", sky.looks())) };
        soon("a look", TOLD_WITHIN, seen).map_err(|error| error.to_string())
    };
    // The second look begins only once the first has ended.
    let look = || -> Result<Vec<String>, String> {
        let before = sky.looks();
        sky.written();
        touch(before + 1)?;
        touch(before + 2)?;
        Ok(sky.written())
    };
    // What is still to be said of the weather before is said in one of the first looks.
    let is_well =
        |written: Vec<String>| if written.is_empty() { Ok(()) } else { Err(format!("{written:?}")) };
    soon("a look that writes nothing", TOLD_WITHIN, || is_well(look()?))?;
    let edit = json!({"metadata": {"labels": {"app.kubernetes.io/instance": "other"}}, "spec": {"maxUnavailable": 3}});
    room.kubectl(&["patch", "poddisruptionbudget", "demo", "--type=merge", "-p", &edit.to_string()])?;
    let get = ["poddisruptionbudget", "demo", "-n", &room.namespace];
    room.cluster().wait_until("the budget as before", TOLD_WITHIN, &get, |budget| {
        let is_back = budget["spec"]["maxUnavailable"] == 1
            && budget["metadata"]["labels"]["app.kubernetes.io/instance"] == "demo";
        is_back.then_some(()).ok_or_else(|| budget.to_string())
    })?;
    let children = ["services", "configmaps", "serviceaccounts", "statefulsets"];
    let written = sky.written();
    let is_of_others = |write: &String| children.iter().any(|kind| write.contains(&format!("/{kind}/")));
    assert!(!written.iter().any(is_of_others), "one child was edited, and others were written: {written:?}");
    soon("a look that writes nothing once more", TOLD_WITHIN, || is_well(look()?))?;
    Ok(())
}

/// Objects whose pods a quota forbids: they are never well, and each says why. `RAFTQUEUE_OBJECTS` is how many there are.
fn many_objects_cost_a_bounded_number_of_calls(room: &Room<'_>) -> Outcome {
    install(room)?;
    let bring_back = Undo::at_the_end(|| Ok(bring_operator_back(room)?));
    take_operator_away(room)?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    room.apply(&quota.to_string())?;
    let objects = operator_objects()?;
    let names: Vec<String> = (0..objects).map(|number| format!("many-{number}")).collect();
    let items: Vec<Value> = names
        .iter()
        .map(|name| serde_json::from_str(&manifest(name, 3, &json!({}))))
        .collect::<Result<_, _>>()?;
    room.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let sky = Sky::new(Weather::Fair);
    let operator = Operator::behind(room, Arc::clone(&sky) as Arc<dyn Porter>)?;
    let begun = Instant::now();
    let get = ["raftqueues", "-n", &room.namespace];
    room.cluster().wait_until("every object to say why it has no pods", 10 * TOLD_WITHIN, &get, |all| {
        // Hundreds of objects are read with each look.
        std::thread::sleep(Duration::from_secs(1));
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let is_told = |object: &&Value| condition_of(object, "Ready")["reason"] == "PodNotMade";
        let told = items.iter().filter(is_told).count();
        (told == objects).then_some(()).ok_or_else(|| format!("{told} of {objects}"))
    })?;
    let made = sky.turn(Weather::Fair) / objects;
    eprintln!(
        "{}: {objects} objects said so after {:.1?}, {made} calls each",
        room.namespace,
        begun.elapsed()
    );
    // Later there is nothing new to say.
    std::thread::sleep(LASTS);
    sky.turn(Weather::Fair);
    let begun = Instant::now();
    std::thread::sleep(3 * LASTS);
    let calls = sky.turn(Weather::Fair);
    let later = calls * 60 / usize::try_from(begun.elapsed().as_secs())?.max(1) / objects;
    let kib = operator.memory_kib()?;
    eprintln!("{}: {later} calls a minute each, {kib} KiB in all", room.namespace);
    assert!(made <= CALLS_EACH_MAX && later <= CALLS_EACH_MAX, "{made} calls, and {later} a minute");
    assert!(kib <= KIB_MAX + KIB_EACH_MAX * u64::try_from(objects)?, "{kib} KiB for {objects} objects");
    drop(operator);
    bring_back.now()
}
