//! The harness itself: what the product's cases rely on holds, and nothing is left behind.

use crate::case::{Case, Needs, Outcome, POD_WITHIN, Room};
use crate::traces;
use raftqueue_tests::kube::images::Image;
use raftqueue_tests::kube::kubectl::condition;
use raftqueue_tests::kube::node::PROBE_IMAGE;
use raftqueue_tests::kube::state::State;
use raftqueue_tests::kube::{Error, Kube, Options, Seen, wait_for};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long something that is expected at once may take.
const SOON: Duration = Duration::from_secs(30);

pub(crate) const CASES: [Case; 11] = [
    Case { name: "every_node_is_ready", needs: Needs::Cluster, run: every_node_is_ready },
    Case {
        name: "pods_have_names_and_services",
        needs: Needs::OwnCluster,
        run: pods_have_names_and_services,
    },
    Case {
        name: "claims_are_bound_and_kept_and_wiped",
        needs: Needs::OwnCluster,
        run: claims_are_bound_and_kept_and_wiped,
    },
    Case {
        name: "a_killed_process_is_started_again",
        needs: Needs::OwnCluster,
        run: a_killed_process_is_started_again,
    },
    Case {
        name: "a_missing_image_is_told_and_heals",
        needs: Needs::OwnCluster,
        run: a_missing_image_is_told_and_heals,
    },
    Case {
        name: "what_explains_a_failure_is_collected",
        needs: Needs::OwnCluster,
        run: what_explains_a_failure_is_collected,
    },
    Case {
        name: "the_api_server_comes_back_and_pods_stay",
        needs: Needs::OwnClusterAlone,
        run: the_api_server_comes_back_and_pods_stay,
    },
    Case { name: "names_go_and_come_back", needs: Needs::OwnClusterAlone, run: names_go_and_come_back },
    Case {
        name: "without_a_node_there_is_an_api_and_no_pods",
        needs: Needs::Machine,
        run: without_a_node_there_is_an_api_and_no_pods,
    },
    Case { name: "a_stopped_one_leaves_nothing", needs: Needs::Machine, run: a_stopped_one_leaves_nothing },
    Case {
        name: "a_killed_run_ends_at_once_and_is_cleared_by_the_next",
        needs: Needs::Machine,
        run: a_killed_run_ends_at_once_and_is_cleared_by_the_next,
    },
];

/// A pod under the restricted profile that answers `hello` on port 8080; `extra` goes into its container.
fn probe_pod(name: &str, image: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{name}"}}}},
"spec": {}}}"#,
        probe_spec(image, "")
    )
}

/// What a pod of the probe is to be.
pub(crate) fn probe_spec(image: &str, extra: &str) -> String {
    format!(
        r#"{{"terminationGracePeriodSeconds": 1, "enableServiceLinks": false,
"securityContext": {{"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {{"type": "RuntimeDefault"}}}},
"containers": [{{"name": "probe", "image": "{image}", "imagePullPolicy": "IfNotPresent",
"args": ["listen", ":8080", "hello"], {extra}
"securityContext": {{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
"capabilities": {{"drop": ["ALL"]}}}}}}]}}"#
    )
}

/// A StatefulSet of `replicas` probes with a volume each, its headless service `web`, and a service `front`.
pub(crate) fn probe_set(replicas: u32) -> String {
    let spec = probe_spec(PROBE_IMAGE, r#""volumeMounts": [{"name": "data", "mountPath": "/data"}],"#);
    format!(
        r#"{{"apiVersion": "v1", "kind": "List", "items": [
{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "web"}}, "spec": {{"clusterIP": "None",
"publishNotReadyAddresses": true, "selector": {{"app": "web"}}, "ports": [{{"port": 8080}}]}}}},
{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "front"}}, "spec": {{"selector": {{"app": "web"}},
"ports": [{{"port": 80, "targetPort": 8080}}]}}}},
{{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {{"name": "web"}}, "spec": {{"serviceName": "web",
"replicas": {replicas}, "podManagementPolicy": "Parallel", "selector": {{"matchLabels": {{"app": "web"}}}},
"template": {{"metadata": {{"labels": {{"app": "web"}}}}, "spec": {spec}}},
"volumeClaimTemplates": [{{"metadata": {{"name": "data"}}, "spec": {{"accessModes": ["ReadWriteOnce"],
"resources": {{"requests": {{"storage": "1Gi"}}}}}}}}]}}}}]}}"#
    )
}

/// Repeats what may fail for a moment, such as a name that was just made.
fn soon<T>(what: &str, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    wait_for(what, SOON, || {
        Ok(match attempt() {
            Ok(found) => Seen::Done(found),
            Err(error) => Seen::NotYet(error.to_string()),
        })
    })
}

fn every_node_is_ready(room: &Room<'_>) -> Outcome {
    let nodes = room.cluster().json(&["get", "nodes"])?;
    let nodes = nodes["items"].as_array().expect("a list has items");
    assert!(!nodes.is_empty(), "pods need a node");
    for node in nodes {
        assert_eq!(condition(node, "Ready").as_deref(), Some("True"), "{node}");
    }
    if let Ok(own) = room.kube().own("a look inside") {
        own.check()?;
    }
    Ok(())
}

fn pods_have_names_and_services(room: &Room<'_>) -> Outcome {
    room.apply(&probe_set(2))?;
    let namespace = &room.namespace;
    let mut addresses = Vec::new();
    for pod in ["web-0", "web-1"] {
        let object = room.wait_for_pod(pod)?;
        let address = object["status"]["podIP"].as_str().expect("a ready pod has an address").to_owned();
        let name = format!("{pod}.web.{namespace}.svc.cluster.local");
        // Its own name and that of the other, as both see them.
        for asker in ["web-0", "web-1"] {
            let resolved = soon(&name, || room.exec(asker, &["/probe", "resolve", &name]))?;
            assert_eq!(resolved, address, "{name} as {asker} sees it");
        }
        addresses.push(address);
    }
    addresses.sort();
    let all = room.exec("web-0", &["/probe", "resolve", "web"])?;
    assert_eq!(all, addresses.join(" "), "the headless service names both");

    let answer = soon("the service", || room.exec("web-0", &["/probe", "dial", "front:80"]))?;
    assert_eq!(answer, "hello");
    let mut outside = room.kube().command_inside(room.own().program("probe"));
    let output = outside.args(["dial", &format!("front.{namespace}:80")]).output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "hello", "{output:?}");
    Ok(())
}

fn claims_are_bound_and_kept_and_wiped(room: &Room<'_>) -> Outcome {
    room.apply(&probe_set(1))?;
    let first = room.wait_for_pod("web-0")?;
    room.exec("web-0", &["/probe", "write", "/data/kept", "something"])?;
    let folder = room.own().volumes().folder_of_claim(&room.namespace, "data-web-0")?;
    assert_eq!(std::fs::read_to_string(folder.join("kept"))?, "something", "{}", folder.display());

    room.kubectl(&["delete", "pod", "web-0", "--grace-period=0", "--force"])?;
    let uid = first["metadata"]["uid"].clone();
    let get = ["pod", "web-0", "-n", &room.namespace];
    room.cluster().wait_until("another pod of the same name", POD_WITHIN, &get, |pod| {
        let is_another = pod["metadata"]["uid"] != uid && condition(pod, "Ready").as_deref() == Some("True");
        is_another.then_some(()).ok_or_else(|| pod["status"].to_string())
    })?;
    assert_eq!(room.exec("web-0", &["/probe", "read", "/data/kept"])?, "something");

    room.kubectl(&["delete", "statefulset", "web"])?;
    room.kubectl(&["delete", "pod", "web-0", "--ignore-not-found"])?;
    room.kubectl(&["delete", "pvc", "data-web-0"])?;
    soon("the volume to be offered again", || {
        room.own().volumes().wipe_released()?;
        match folder.join("kept").exists() {
            false => Ok(()),
            true => Err(Error::Strange { what: "kept".to_owned(), text: folder.display().to_string() }),
        }
    })?;
    Ok(())
}

fn restarts(pod: &serde_json::Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

fn a_killed_process_is_started_again(room: &Room<'_>) -> Outcome {
    room.apply(&probe_pod("victim", PROBE_IMAGE))?;
    room.apply(&probe_pod("other", PROBE_IMAGE))?;
    assert_eq!(restarts(&room.wait_for_pod("victim")?), 0);
    room.wait_for_pod("other")?;
    room.kube().kill_in_pod(&room.namespace, "victim", "probe", "KILL")?;
    let get = ["pod", "victim", "-n", &room.namespace];
    room.cluster().wait_until("the restart", POD_WITHIN, &get, |pod| {
        let is_back = restarts(pod) == 1 && condition(pod, "Ready").as_deref() == Some("True");
        is_back.then_some(()).ok_or_else(|| pod["status"].to_string())
    })?;
    assert_eq!(restarts(&room.get("pod", "other")?), 0, "only the one that was named is killed");
    let wrong = room.kube().kill_in_pod(&room.namespace, "victim", "no-such-container", "KILL");
    assert!(matches!(wrong, Err(Error::Strange { .. })), "{wrong:?}");
    Ok(())
}

fn a_missing_image_is_told_and_heals(room: &Room<'_>) -> Outcome {
    let reference = format!("localhost/late-{}:1", std::process::id());
    room.apply(&probe_pod("late", &reference))?;
    let get = ["pod", "late", "-n", &room.namespace];
    room.cluster().wait_until("the missing image to be told", POD_WITHIN, &get, |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let is_told = waiting["reason"].as_str().is_some_and(|reason| reason.contains("Image"));
        is_told.then_some(()).ok_or_else(|| pod["status"].to_string())
    })?;
    let image = Image::new(&reference, &["/probe"]).with_file("probe", &room.own().program("probe"));
    room.own().load(&image)?;
    room.wait_for_pod("late")?;
    Ok(())
}

fn what_explains_a_failure_is_collected(room: &Room<'_>) -> Outcome {
    room.apply(&probe_pod("speaker", PROBE_IMAGE))?;
    room.apply(&probe_pod("lost", "localhost/no-such-image:1"))?;
    room.wait_for_pod("speaker")?;
    let get = ["events", "-n", &room.namespace];
    room.cluster().wait_until("the event of the failed pull", POD_WITHIN, &get, |events| {
        let text = events.to_string();
        text.contains("no-such-image").then_some(()).ok_or(text)
    })?;
    let title = format!("{}-seen", room.namespace);
    let folder = room.kube().collect(&title)?;
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    assert!(read("events.txt").contains("no-such-image"), "{}", folder.display());
    assert!(read("overview.txt").contains("speaker") && read("objects.yaml").contains("speaker"));
    assert!(read("pods.txt").contains("localhost/no-such-image:1"));
    for component in ["kubelet", "kube-apiserver", "containerd"] {
        let log = read(&format!("components/{component}.log"));
        assert!(!log.is_empty(), "no log of {component} in {}", folder.display());
    }
    assert!(folder.join(format!("pods/{}.speaker.probe.log", room.namespace)).is_file());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn the_api_server_comes_back_and_pods_stay(room: &Room<'_>) -> Outcome {
    room.apply(&probe_pod("stays", PROBE_IMAGE))?;
    let before = room.wait_for_pod("stays")?;
    let begun = Instant::now();
    room.own().restart_api_server(Duration::ZERO)?;
    eprintln!("the API server was back after {:.1?}", begun.elapsed());
    let after = room.wait_for_pod("stays")?;
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(restarts(&after), 0);
    room.own().check()?;
    room.apply(&probe_pod("later", PROBE_IMAGE))?;
    room.wait_for_pod("later")?;
    Ok(())
}

fn names_go_and_come_back(room: &Room<'_>) -> Outcome {
    room.apply(&probe_pod("asker", PROBE_IMAGE))?;
    room.wait_for_pod("asker")?;
    let ask = || room.exec("asker", &["/probe", "resolve", "kubernetes.default.svc.cluster.local."]);
    assert_eq!(ask()?, "10.96.0.1");
    room.own().stop_names()?;
    let refused = ask();
    room.own().start_names()?;
    assert!(refused.is_err(), "a name server that was stopped answered {refused:?}");
    assert_eq!(ask()?, "10.96.0.1");
    Ok(())
}

fn without_a_node_there_is_an_api_and_no_pods(_: &Room<'_>) -> Outcome {
    let kube = Kube::start(&Options { node: false, ..Options::default() })?;
    eprintln!("without a node, ready after {:.1?}", kube.own("this")?.ready_after());
    assert_eq!(kube.kubectl().json(&["get", "nodes"])?["items"], serde_json::json!([]));
    // The controllers work: a deployment gets its replica set, which gets a pod, which nobody runs.
    kube.kubectl().run(&["create", "deployment", "idle", "--image=localhost/idle:1"])?;
    let get = ["pods", "-n", "default"];
    kube.kubectl().wait_until("a pod of the deployment", SOON, &get, |pods| {
        let phase = &pods["items"][0]["status"]["phase"];
        (phase == "Pending").then_some(()).ok_or_else(|| pods.to_string())
    })?;
    kube.stop()?;
    Ok(())
}

fn a_stopped_one_leaves_nothing(_: &Room<'_>) -> Outcome {
    let filters = traces::packet_filters();
    let kube = Kube::start(&Options::default())?;
    let state = kube.own("this")?.state().clone();
    kube.kubectl().apply(&probe_pod("short", PROBE_IMAGE))?;
    kube.kubectl().wait_for_pod("default", "short", POD_WITHIN)?;
    // What is looked for is there while it runs, or looking for it afterwards says nothing.
    let during = traces::of(&state);
    for kind in ["process", "network", "cgroup", "folder"] {
        assert!(during.iter().any(|trace| trace.starts_with(kind)), "no {kind} among {during:#?}");
    }
    assert!(during.iter().any(|trace| trace.contains("shim")), "no shim of a pod among {during:#?}");
    assert_eq!(traces::packet_filters(), filters, "the host's packet filter is left alone");
    let begun = Instant::now();
    kube.stop()?;
    eprintln!("stopped in {:.1?}", begun.elapsed());
    assert_eq!(traces::of(&state), Vec::<String>::new());
    assert_eq!(traces::packet_filters(), filters);
    Ok(())
}

fn a_killed_run_ends_at_once_and_is_cleared_by_the_next(_: &Room<'_>) -> Outcome {
    let name = format!("killed-{}", std::process::id());
    let state = State::named(&name)?;
    let mut held = Command::new(env!("CARGO_BIN_EXE_kube"))
        .args(["hold", "--name", &name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(held.stdout.take().expect("it is piped")).read_line(&mut line)?;
    assert!(line.starts_with("held: "), "{line}");
    let folder = state.folder().display().to_string();
    assert!(!traces::processes(&folder).is_empty());

    held.kill()?;
    held.wait()?;
    wait_for("every process of the killed run to end", SOON, || {
        let left = traces::processes(&folder);
        Ok(if left.is_empty() { Seen::Done(()) } else { Seen::NotYet(left.join("\n")) })
    })?;
    assert!(!traces::of(&state).is_empty(), "nobody has cleared up yet");
    let next = Kube::start(&Options { node: false, volumes: 0, ..Options::default() })?;
    let left = traces::of(&state);
    next.stop()?;
    assert_eq!(left, Vec::<String>::new());
    Ok(())
}
