//! A real Prometheus beside Kubernetes, as `deploy/monitoring/prometheus-kubernetes.yaml` configures it: the operator's alerts fire and
//! clear, and every panel of its dashboard shows something. One that knows Kubernetes finds nodes and operator by itself.

use super::neighbours::define;
use super::{
    BoxError, Queue, TOLD_WITHIN, Undo, bring_operator_back, install, manifest, soon, take_operator_away,
};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::cache::find_prometheus;
use raftqueue_tests::process::prometheus::{Prometheus, Start};
use raftqueue_tests::process::watch::{Watch, empty_panels, faster, read, rules};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const CASES: &[Case] = &[Case {
    name: "alerts_about_the_operator_fire_and_clear_and_every_panel_shows_something",
    needs: Needs::Prometheus,
    run: alerts_about_the_operator_fire_and_clear_and_every_panel_shows_something,
}];

/// Where Prometheus answers, in the network of the cluster, where nobody else has this port.
const PORT: u16 = 9090;
/// An image that nobody has.
const NO_IMAGE: &str = "localhost/none:1";

/// The configuration as it is delivered, but for the way to the API server: in a pod it is found without being told.
fn configuration(room: &Room<'_>) -> Result<Value, BoxError> {
    let mut configuration: Value = serde_saphyr::from_str(&read("prometheus-kubernetes.yaml"))?;
    for job in configuration["scrape_configs"].as_array_mut().ok_or("jobs")? {
        let kubeconfig = room.own().state().path("kubeconfig");
        job["kubernetes_sd_configs"][0]["kubeconfig_file"] = json!(kubeconfig);
    }
    Ok(configuration)
}

/// One of two objects is unavailable. Its own alert and that about all objects have the same labels, by which an Alertmanager knows
/// that they are one, and by which Prometheus has one series of both.
fn it_is_told_once(prometheus: &Prometheus, namespace: &str) -> Outcome {
    let name = "RaftQueueUnavailable";
    // Objects of cases that have ended may be on their way out still.
    let own = format!("alertname=\"{name}\", namespace=\"{namespace}\"");
    let firing = prometheus.query(&format!("ALERTS{{alertstate=\"firing\", {own}}}"))?;
    assert!(
        matches!(&firing[..], [(labels, _)] if labels["name"] == "stuck"),
        "once, of two objects: {firing:?}"
    );
    let (first, second) = soon("both alerts to fire", TOLD_WITHIN, || {
        let all = prometheus.ask("alerts")?;
        let is_it = |alert: &&Value| {
            alert["labels"]["alertname"] == name
                && alert["labels"]["namespace"] == namespace
                && alert["state"] == "firing"
        };
        let found: Vec<&Value> = all["alerts"].as_array().into_iter().flatten().filter(is_it).collect();
        match found[..] {
            [first, second] => Ok((first.clone(), second.clone())),
            _ => Err(all.to_string()),
        }
    })?;
    assert_eq!(first["labels"], second["labels"]);
    assert_eq!(first["annotations"], second["annotations"]);
    Ok(())
}

/// Ends the hands that do not rest, also where what is waited for does not come.
struct Rest<'a>(&'a AtomicBool);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A child is missing that the operator may not make, and somebody touches all objects as fast as kubectl can.
fn errors_without_rest(room: &Room<'_>, watch: &mut Watch) -> Outcome {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-more"},
        "spec": {"hard": {"count/services": "0"}}});
    room.apply(&quota.to_string())?;
    let get = ["resourcequota", "no-more", "-n", &room.namespace];
    room.cluster().wait_until("the quota to be counted", TOLD_WITHIN, &get, |quota| {
        let hard = &quota["status"]["hard"];
        hard.is_object().then_some(()).ok_or_else(|| quota.to_string())
    })?;
    room.kubectl(&["delete", "service", "stuck"])?;
    let rests = AtomicBool::new(false);
    let alerts = ["RaftQueueReconcileErrors", "RaftQueueOperatorRunaway"];
    std::thread::scope(|scope| {
        let _rest = Rest(&rests);
        scope.spawn(|| {
            for number in 0_u64.. {
                if rests.load(Ordering::Relaxed) {
                    break;
                }
                let touched = format!("touched={number}");
                // One that fails is followed by others.
                let _ = room.kubectl(&["annotate", "raftqueues", "--all", "--overwrite", &touched]);
            }
        });
        watch.wait("a quota, and hands that do not rest", &alerts, true);
    });
    room.kubectl(&["delete", "resourcequota", "no-more"])?;
    watch.wait("no quota, and hands that rest", &alerts, false);
    Ok(())
}

/// Two disks of three are lost: somebody has to decide. Here the whole cluster is given up.
fn a_quorum_is_lost(demo: &Queue<'_>, watch: &mut Watch) -> Outcome {
    let room = demo.room;
    room.kubectl(&["delete", "pvc", "data-demo-1", "data-demo-2", "--wait=false"])?;
    room.kubectl(&["delete", "pod", "demo-1", "demo-2", "--wait=false"])?;
    watch.wait("two disks of three are lost", &["RaftQueueRecoveryPossible"], true);
    room.kubectl(&["delete", "raftqueue", "demo"])?;
    watch.wait("the cluster is given up", &["RaftQueueRecoveryPossible"], false);
    Ok(())
}

fn alerts_about_the_operator_fire_and_clear_and_every_panel_shows_something(room: &Room<'_>) -> Outcome {
    let programs = find_prometheus()?;
    install(room)?;
    // Connections are made where pods can be reached.
    room.kube().work_inside(|| watched(room, &programs))?
}

fn watched(room: &Room<'_>, programs: &Path) -> Outcome {
    // One cluster asks for what this Kubernetes does not know, another one for an image that there is not.
    let definition = define(room, "PrometheusRule")?;
    let monitored = |enabled: bool| json!({"monitoring": {"serviceMonitor": {"enabled": enabled}, "prometheusRule": {"enabled": true}}});
    let with_image =
        |image: &str| json!({"image": image, "monitoring": {"prometheusRule": {"enabled": true}}});
    let demo = Queue::applied_with(room, "demo", 3, &monitored(true))?;
    room.apply(&manifest("stuck", 1, &with_image(NO_IMAGE)))?;
    demo.wait_ready()?;

    // Each object has its own alerts, and those about the operator come with the operator: there stand those about all objects, too.
    let given = |name: &str| -> Result<Value, BoxError> {
        let get = ["prometheusrule", name, "-n", &room.namespace];
        let told = |rule: &Value| Ok(rule["spec"].clone());
        Ok(room.cluster().wait_until("the alerts of an object", TOLD_WITHIN, &get, told)?)
    };
    let (of_demo, of_stuck) = (given("demo")?, given("stuck")?);

    let start = Start {
        command: room.own().entrance().in_network(programs.join("prometheus")),
        port: PORT,
        configuration: configuration(room)?,
        rules: &[of_demo, of_stuck, rules("operator")].map(faster),
    };
    // What is about the operator itself has the namespace of that.
    let about = format!("{}|{}", room.namespace, super::SYSTEM);
    let mut watch = Watch::begin(Prometheus::start_with(start), &about);
    soon("all nodes and the operator to be found", TOLD_WITHIN, || {
        let namespace = &room.namespace;
        let nodes = format!("sum(raftqueue_ready{{namespace=\"{namespace}\", raftqueue=\"demo\"}})");
        for (query, expected) in [(nodes.as_str(), 3.0), ("sum(raftqueue_operator_leads)", 1.0)] {
            let found = watch.prometheus.query(query)?;
            let is_so = matches!(&found[..], [(_, count)] if (count - expected).abs() < 0.5);
            is_so.then_some(()).ok_or_else(|| format!("{query}: {found:?}\n{}", watch.prometheus.log()))?;
        }
        Ok(())
    })?;
    let stuck = ["RaftQueueUnavailable", "RaftQueueNotReady"];
    watch.wait("an image that there is not", &stuck, true);
    watch.wait("a kind that there is not", &["RaftQueueNeedsHelp"], true);
    it_is_told_once(&watch.prometheus, &room.namespace)?;
    soon("every panel to show something", TOLD_WITHIN, || empty_panels(&watch.prometheus, &["operator"]))?;
    let image = demo.object()?["status"]["image"].as_str().ok_or("an image")?.to_owned();
    // What is said of an object has its namespace, and the operator's process that of the operator.
    let said = "raftqueue_status_condition{name=\"demo\", type=\"Ready\"} == 1";
    let (said, process) = (
        watch.prometheus.query(said)?,
        watch.prometheus.query("process_open_fds{job=\"raftqueue-operator\"}")?,
    );
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].0["namespace"], room.namespace);
    assert_eq!(process.len(), 1, "{process:?}");
    assert_eq!(process[0].0["namespace"], super::SYSTEM);

    room.apply(&manifest("stuck", 1, &with_image(&image)))?;
    room.apply(&manifest("demo", 3, &monitored(false)))?;
    watch.wait("an image that there is", &stuck, false);
    watch.wait("the kind is not asked for", &["RaftQueueNeedsHelp"], false);

    errors_without_rest(room, &mut watch)?;
    a_quorum_is_lost(&demo, &mut watch)?;

    let back = Undo::at_the_end(|| bring_operator_back(room).map_err(BoxError::from));
    take_operator_away(room)?;
    watch.wait("the operator is taken away", &["RaftQueueOperatorDown"], true);
    back.now()?;
    watch.wait("it is brought back", &["RaftQueueOperatorDown"], false);
    eprintln!("{}", watch.told());
    definition.now()
}
