//! What cannot be: refused at once in words that teach, or told in a condition and an event, and healed by itself when the
//! cause goes.

use super::{BoxError, Queue, TOLD_WITHIN, Undo, condition_of, install, manifest, soon};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::environment::outage;
use raftqueue_tests::kube::kubectl::condition;
use raftqueue_tests::process::repository;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Most calls of the operator in two seconds about a cluster that is as asked but for its definition.
const CALLS_MAX: usize = 100;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "specs_that_cannot_be_are_refused_in_words",
        needs: Needs::Cluster,
        run: specs_that_cannot_be_are_refused_in_words,
    },
    Case {
        name: "an_image_that_does_not_exist_is_told",
        needs: Needs::Cluster,
        run: an_image_that_does_not_exist_is_told,
    },
    Case {
        name: "a_volume_that_is_not_there_is_told",
        needs: Needs::OwnCluster,
        run: a_volume_that_is_not_there_is_told,
    },
    Case {
        name: "a_name_that_is_taken_is_told_and_left_alone",
        needs: Needs::Cluster,
        run: a_name_that_is_taken_is_told_and_left_alone,
    },
    Case {
        name: "an_older_definition_is_told_and_forgets_no_cluster",
        needs: Needs::OwnClusterAlone,
        run: an_older_definition_is_told_and_forgets_no_cluster,
    },
    Case {
        name: "without_names_for_a_minute_clusters_form_late_and_serve_on",
        needs: Needs::OwnClusterAlone,
        run: without_names_for_a_minute_clusters_form_late_and_serve_on,
    },
    Case {
        name: "the_api_server_restarts_in_the_middle",
        needs: Needs::OwnClusterAlone,
        run: the_api_server_restarts_in_the_middle,
    },
];

fn specs_that_cannot_be_are_refused_in_words(room: &Room<'_>) -> Outcome {
    install(room)?;
    let long = "a".repeat(41);
    let nothing = json!({});
    let wrong = [
        ("demo", 2, nothing.clone(), "replicas must be odd"),
        ("demo", 0, nothing.clone(), "greater than or equal to 1"),
        ("demo", -3, nothing.clone(), "greater than or equal to 1"),
        ("demo", 11, nothing.clone(), "less than or equal to 9"),
        (&long, 3, nothing.clone(), "at most 40 characters"),
        ("a.b", 3, nothing.clone(), "must not contain dots"),
        ("demo-headless", 3, nothing.clone(), "must not end in -headless"),
        ("3demo", 3, nothing, "must begin with a letter"),
        (
            "demo",
            3,
            json!({"config": {"election-timeout": "300"}}),
            "config takes these keys: election-timeout-ms",
        ),
        ("demo", 3, json!({"config": {"election-timeout-ms": "5"}}), "from 50 to 60000"),
        ("demo", 3, json!({"storage": {"size": "1Mi"}}), "at least 1Gi"),
        ("demo", 3, json!({"storage": {"size": "plenty"}}), "a quantity such as 10Gi"),
        ("demo", 3, json!({"image": "not an image"}), "image must be a reference"),
    ];
    for (name, replicas, more, words) in wrong {
        let refused = room.apply(&manifest(name, replicas, &more));
        let text = refused.expect_err(&format!("{name} {replicas} {more} is wrong")).to_string();
        assert!(text.contains(words), "{name} {replicas} {more}: `{words}` is not in: {text}");
    }
    let left = room.kubectl(&["get", "raftqueues", "-o", "name"])?;
    assert_eq!(left, "", "nothing that was refused is there");

    // What only a change makes wrong.
    let queue = Queue::ready(room, "demo", 1)?;
    assert_eq!(queue.object()?["status"]["diskSize"], "1Gi");
    let sized = |size: &str| manifest("demo", 1, &json!({"storage": {"size": size}}));
    // What is left out enlarges nothing, and comes back as it was.
    for same in [manifest("demo", 1, &json!({"storage": {}})), sized("1Gi"), sized("1024Mi")] {
        room.apply(&same)?;
        let object = queue.wait_ready()?;
        assert_eq!(condition(&object, "StorageReady").as_deref(), Some("True"), "{object}");
    }
    Ok(())
}

/// Objects of somebody's own under names of children of `demo`, each with what the operator calls it.
fn of_somebody() -> [(&'static str, Value); 5] {
    let named = |api: &str, kind: &str, name: &str, more: Value| {
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}});
        object.as_object_mut().expect("it is one").extend(more.as_object().cloned().unwrap_or_default());
        object
    };
    let service = json!({"spec": {"selector": {"app": "shop"}, "ports": [{"name": "http", "port": 80}]}});
    let budget = json!({"spec": {"maxUnavailable": 2, "selector": {"matchLabels": {"app": "shop"}}}});
    [
        ("ServiceAccount demo", named("v1", "ServiceAccount", "demo", json!({}))),
        ("Service demo-headless", named("v1", "Service", "demo-headless", service.clone())),
        ("Service demo", named("v1", "Service", "demo", service)),
        (
            "ConfigMap demo-config",
            named("v1", "ConfigMap", "demo-config", json!({"data": {"colour": "red"}})),
        ),
        ("PodDisruptionBudget demo", named("policy/v1", "PodDisruptionBudget", "demo", budget)),
    ]
}

/// Before the object and after it: what is somebody's own is never taken over, and the object says who has what.
fn a_name_that_is_taken_is_told_and_left_alone(room: &Room<'_>) -> Outcome {
    install(room)?;
    let read = |what: &str| -> Result<Value, BoxError> {
        let (kind, name) = what.split_once(' ').ok_or("a kind and a name")?;
        let mut object = room.get(kind, name)?;
        // Kubernetes counts what a budget covers, which is no hand on it.
        object["status"] = Value::Null;
        object["metadata"]["resourceVersion"] = Value::Null;
        object["metadata"]["managedFields"] = Value::Null;
        Ok(object)
    };
    let all = of_somebody();
    let mut before = Vec::new();
    for (what, object) in &all {
        room.apply(&object.to_string())?;
        before.push(read(what)?);
    }
    let queue = Queue::applied(room, "demo", 3)?;
    let object = queue.wait_condition("SpecAccepted", "False", Some("NameTaken"), TOLD_WITHIN)?;
    let message = condition_of(&object, "SpecAccepted")["message"].to_string();
    for ((what, _), before) in all.iter().zip(&before) {
        assert!(
            message.contains(&format!("{what} exists and belongs to something else")),
            "{what}: {message}"
        );
        assert_eq!(read(what)?, *before, "{what} is not touched");
    }
    assert_eq!(room.kubectl(&["get", "statefulset,pods", "-o", "name"])?, "", "nothing is begun");
    for (what, _) in &all {
        let (kind, name) = what.split_once(' ').ok_or("a kind and a name")?;
        room.kubectl(&["delete", kind, name])?;
    }
    queue.wait_ready()?;

    // Somebody replaces children by what is their own.
    for (what, object) in &all {
        room.cluster().with_manifest(&["-n", &room.namespace, "replace", "-f", "-"], &object.to_string())?;
        let taken = format!("{what} exists and belongs to something else");
        let get = ["raftqueue", "demo", "-n", &room.namespace];
        room.cluster().wait_until(&taken, TOLD_WITHIN, &get, |object| {
            let told = condition_of(object, "SpecAccepted")["message"].to_string();
            told.contains(&taken).then_some(()).ok_or(told)
        })?;
    }
    let after: Vec<Value> = all.iter().map(|(what, _)| read(what)).collect::<Result<_, _>>()?;
    room.kubectl(&["label", "raftqueue", "demo", "touched=yes"])?;
    for ((what, _), after) in all.iter().zip(&after) {
        assert!(after["metadata"]["ownerReferences"].is_null(), "{what} is not taken over: {after}");
        let (kind, name) = what.split_once(' ').ok_or("a kind and a name")?;
        assert_eq!(read(what)?, *after, "{what} is not touched");
        room.kubectl(&["delete", kind, name])?;
    }
    queue.wait_ready()?;
    assert_eq!(queue.restarts()?, 0);
    Ok(())
}

/// A patch that makes the definition what it was before the newest fields of the status and the newest rules.
fn older(mut definition: Value) -> Result<String, BoxError> {
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let fields = schema["properties"]["status"]["properties"].as_object_mut().ok_or("a status")?;
    for field in ["diskSize", "clusterId"] {
        fields.remove(field).ok_or(field)?;
    }
    let rules = schema["x-kubernetes-validations"].as_array_mut().ok_or("rules")?;
    let before = rules.len();
    rules
        .retain(|rule| !["diskSize", "-headless"].iter().any(|word| rule["rule"].to_string().contains(word)));
    assert_eq!(rules.len(), before - 2);
    let path = "/spec/versions/0/schema/openAPIV3Schema";
    Ok(json!([{"op": "replace", "path": path, "value": schema}]).to_string())
}

/// A definition that is older than the operator: the object is still told how it is, and its cluster is not forgotten. Without the
/// rule on names, two objects want one service.
fn an_older_definition_is_told_and_forgets_no_cluster(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    queue.publish("orders", &["one"])?;
    let id = queue.object()?["status"]["clusterId"].clone();
    let settings = room.get("configmap", "demo-config")?["data"].clone();
    let definition = room.cluster().json(&["get", "crd", "raftqueues.raftqueue.io"])?;
    let patch = older(definition)?;
    let deploy = repository().join("deploy");
    let newer = Undo::at_the_end(|| {
        room.cluster().run(&["apply", "-k", &deploy.display().to_string()])?;
        Ok(())
    });
    room.cluster().run(&["patch", "crd", "raftqueues.raftqueue.io", "--type=json", "-p", &patch])?;
    // A reason to look: the pods go, all at once.
    room.kubectl(&["delete", "pods", "-l", &queue.selector(), "--wait=false"])?;
    let object = queue.wait_condition("Reconciled", "False", Some("OlderDefinition"), TOLD_WITHIN)?;
    let message = condition_of(&object, "Reconciled")["message"].to_string();
    for words in ["status.clusterId, status.diskSize", "kubectl apply -k deploy"] {
        assert!(message.contains(words), "{message}");
    }
    queue.wait_event("OlderDefinition", "kubectl apply -k deploy")?;
    queue.wait_ready()?;
    assert_eq!(queue.object()?["status"].get("clusterId"), None, "the definition does not keep it");
    assert_eq!(room.get("configmap", "demo-config")?["data"], settings, "nothing is formed again");
    assert_eq!(queue.receive("orders", 1)?, ["one"]);
    // What cannot be kept is no reason to write it all the time.
    let before = room.own().calls_about(&room.namespace)?;
    std::thread::sleep(Duration::from_secs(2));
    let calls = room.own().calls_about(&room.namespace)? - before;
    assert!(calls <= CALLS_MAX, "{calls} calls in two seconds");
    two_that_want_one_service(room)?;
    newer.now()?;
    room.kubectl(&["annotate", "raftqueue", "demo", "touched=yes"])?;
    let object = queue.wait_condition("Reconciled", "True", None, TOLD_WITHIN)?;
    assert_eq!(object["status"]["clusterId"], id);
    Ok(())
}

/// `c` and `c-headless`, applied at once: the first to make the service keeps it, and the other says so.
fn two_that_want_one_service(room: &Room<'_>) -> Outcome {
    let both: Vec<Value> = ["c", "c-headless"]
        .iter()
        .map(|name| serde_json::from_str(&manifest(name, 1, &json!({}))))
        .collect::<Result<_, _>>()?;
    room.apply(&json!({"apiVersion": "v1", "kind": "List", "items": both}).to_string())?;
    let of = |name: &str| Queue { room, name: name.to_owned() };
    let owner = soon("one to have the service", TOLD_WITHIN, || {
        let service = room.get("service", "c-headless").map_err(|error| error.to_string())?;
        let owner = &service["metadata"]["ownerReferences"][0]["name"];
        owner.as_str().map(str::to_owned).ok_or_else(|| service.to_string())
    })?;
    let (has, lacks) = if owner == "c" { ("c", "c-headless") } else { ("c-headless", "c") };
    of(lacks).wait_condition("SpecAccepted", "False", Some("NameTaken"), TOLD_WITHIN)?;
    of(has).wait_ready()?;
    let service = room.get("service", "c-headless")?;
    assert_eq!(service["metadata"]["ownerReferences"][0]["name"], has, "{service}");
    assert_eq!(service["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1), "{service}");
    room.kubectl(&["delete", "raftqueue", has])?;
    of(lacks).wait_ready()?;
    room.kubectl(&["delete", "raftqueue", lacks])?;
    Ok(())
}

fn an_image_that_does_not_exist_is_told(room: &Room<'_>) -> Outcome {
    let missing = "localhost/no-such-raftqueue:1";
    let queue = Queue::applied_with(room, "demo", 3, &json!({"image": missing}))?;
    let object = queue.wait_condition("Degraded", "True", Some("ImageNotPulled"), TOLD_WITHIN)?;
    let message = condition_of(&object, "Degraded")["message"].to_string();
    assert!(message.contains(missing) && message.contains("Correct spec.image"), "{message}");
    queue.wait_event("ImageNotPulled", missing)?;
    // The pods that cannot start are replaced without anybody deleting them.
    let version = env!("CARGO_PKG_VERSION");
    room.apply(&manifest(
        "demo",
        3,
        &json!({"image": format!("docker.io/library/raftqueue-node:{version}")}),
    ))?;
    queue.wait_ready()?;
    Ok(())
}

fn a_volume_that_is_not_there_is_told(room: &Room<'_>) -> Outcome {
    let class = room.namespace.clone();
    let more = json!({"storage": {"size": "1Gi", "storageClassName": class}});
    let queue = Queue::applied_with(room, "demo", 1, &more)?;
    let object = queue.wait_condition("Degraded", "True", Some("VolumeUnbound"), TOLD_WITHIN)?;
    let message = condition_of(&object, "Degraded")["message"].to_string();
    assert!(message.contains("Make a PersistentVolume of at least 1Gi"), "{message}");
    queue.wait_event("VolumeUnbound", "data-demo-0")?;
    room.own().volumes().make_of_class(&class, 1)?;
    queue.wait_ready()?;
    Ok(())
}

fn without_names_for_a_minute_clusters_form_late_and_serve_on(room: &Room<'_>) -> Outcome {
    let minute = Duration::from_secs(60);
    let formed = Queue::ready(room, "formed", 3)?;
    formed.publish("orders", &["one"])?;
    let names = Undo::at_the_end(|| Ok(room.own().start_names()?));
    room.own().stop_names()?;
    let begun = Instant::now();
    // One that has to form, and one that loses a pod, whose address changes while nobody can look it up.
    let late = Queue::applied(room, "late", 3)?;
    room.kubectl(&["delete", "pod", "formed-2", "--grace-period=0", "--force"])?;
    while begun.elapsed() < minute {
        formed.raftq("formed-0", &["--endpoints", "127.0.0.1:7420", "publish", "orders", "more"])?;
        std::thread::sleep(Duration::from_secs(5));
    }
    let ready = condition_of(&late.object()?, "Ready").clone();
    assert_eq!(ready["status"], "False", "{ready}");
    eprintln!("{}: without names, late says: {}", room.namespace, ready["message"]);
    // All its pods run and none is ready. A drain takes none of them: they may be about to come back.
    let pod = "late-0";
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", room.namespace);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let evicted = room.cluster().with_manifest(&["create", "--raw", &path, "-f", "-"], &eviction.to_string());
    let refused = evicted.expect_err("a budget forbids it").to_string();
    assert!(refused.contains("would violate the pod's disruption budget"), "{refused}");
    names.now()?;
    let back = Instant::now();
    late.wait_ready()?;
    formed.wait_ready()?;
    eprintln!("{}: all Ready {:.1?} after names came back", room.namespace, back.elapsed());
    assert_eq!((late.restarts()?, formed.restarts()?), (0, 0));
    Ok(())
}

fn the_api_server_restarts_in_the_middle(room: &Room<'_>) -> Outcome {
    let formed = Queue::ready(room, "formed", 3)?;
    formed.publish("orders", &["one"])?;
    let queue = Queue::applied(room, "demo", 3)?;
    room.own().restart_api_server(Duration::ZERO)?;
    queue.wait_ready()?;
    formed.wait_ready()?;
    assert_eq!((queue.restarts()?, formed.restarts()?), (0, 0));
    assert_eq!(formed.receive("orders", 1)?, ["one"]);
    // What comes later is seen as soon as before: the watches are back too. And again when the operator had to give up its lease.
    let later = Queue::ready(room, "later", 1)?;
    for lasting in [Duration::ZERO, outage()?] {
        room.own().restart_api_server(lasting)?;
        let back = Instant::now();
        room.kubectl(&["delete", "service", &later.name])?;
        let get = ["service", &later.name, "-n", &room.namespace];
        room.cluster().wait_until("the service again", TOLD_WITHIN, &get, |_| Ok(()))?;
        eprintln!(
            "{}: after {lasting:.0?} without API server seen after {:.1?}",
            room.namespace,
            back.elapsed()
        );
    }
    let pods = room.cluster().json(&["get", "pods", "-n", super::SYSTEM, "-l", super::OPERATOR])?;
    let restarts = &pods["items"][0]["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(*restarts, 0, "an operator without its API server waits for it");
    Ok(())
}
