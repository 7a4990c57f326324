//! A real Prometheus beside Kubernetes, as `deploy/monitoring/prometheus-kubernetes.yaml` configures it: the operator's alerts fire and
//! clear, and every panel of its dashboard shows something. One that knows Kubernetes finds nodes and operator by itself.

use super::neighbours::define;
use super::{
    BoxError, Queue, TOLD_WITHIN, Undo, bring_operator_back, install, manifest, soon, take_operator_away,
};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::process::prometheus::{self, Prometheus, Start};
use raftqueue_tests::process::watch::{Watch, empty_panels, faster, read, rules};
use serde_json::{Value, json};
use std::path::Path;

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

fn alerts_about_the_operator_fire_and_clear_and_every_panel_shows_something(room: &Room<'_>) -> Outcome {
    let programs = prometheus::folder().ok_or("the case says that it needs one")?;
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

    // The alerts about an object are those that it was given; those about the operator come with the operator.
    let given = |name: &str| -> Result<Value, BoxError> {
        let get = ["prometheusrule", name, "-n", &room.namespace];
        let told = |rule: &Value| Ok(rule["spec"].clone());
        Ok(room.cluster().wait_until("the alerts of an object", TOLD_WITHIN, &get, told)?)
    };
    let (of_demo, of_stuck) = (given("demo")?, given("stuck")?);
    let mut of_operator = rules("operator");
    let told = of_demo.to_string();
    let kept = of_operator["groups"][0]["rules"].as_array_mut().ok_or("rules")?;
    kept.retain(|rule| !told.contains(&format!("\"alert\":{}", rule["alert"])));
    assert!((3..8).contains(&kept.len()), "{of_operator}");

    let start = Start {
        command: room.own().entrance().in_network(programs.join("prometheus")),
        port: PORT,
        configuration: configuration(room)?,
        rules: &[of_demo, of_stuck, of_operator].map(faster),
    };
    let mut watch = Watch::begin(Prometheus::start_with(start), &room.namespace);
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
    let firing = "ALERTS{alertstate=\"firing\", alertname=\"RaftQueueUnavailable\"}";
    let firing = watch.prometheus.query(firing)?;
    assert!(
        matches!(&firing[..], [(labels, _)] if labels["name"] == "stuck"),
        "once, of two objects: {firing:?}"
    );
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

    let back = Undo::at_the_end(|| bring_operator_back(room).map_err(BoxError::from));
    take_operator_away(room)?;
    watch.wait("the operator is taken away", &["RaftQueueOperatorDown"], true);
    back.now()?;
    watch.wait("it is brought back", &["RaftQueueOperatorDown"], false);
    eprintln!("{}", watch.told());
    definition.now()
}
