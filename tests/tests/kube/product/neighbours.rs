//! What a spec asks for of kinds that belong to others: who may reach the nodes, and who watches them.
//!
//! NB: nothing enforces a NetworkPolicy in the network of these tests, whose pods are joined by a plain bridge. That what is allowed is
//! what is dialled is shown beside the code that makes the policy.

use super::{Queue, TOLD_WITHIN, Undo, condition_of, soon};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::kubectl::condition;
use serde_json::json;

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_policy_and_a_monitor_are_made_where_their_kinds_are",
    needs: Needs::OwnClusterAlone,
    run: a_policy_and_a_monitor_are_made_where_their_kinds_are,
}];

const MONITORS: &str = "servicemonitors.monitoring.coreos.com";

/// The kind as far as an API server must know it; the Prometheus operator brings the whole.
fn monitor_definition() -> String {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let names = json!({"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"});
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": MONITORS},
           "spec": {"group": "monitoring.coreos.com", "names": names, "scope": "Namespaced", "versions": [version]}})
    .to_string()
}

fn a_policy_and_a_monitor_are_made_where_their_kinds_are(room: &Room<'_>) -> Outcome {
    let more = |enabled: bool| {
        json!({"networkPolicy": {"enabled": enabled, "clients": [{"podLabels": {"app": "shop"}}]},
               "monitoring": {"serviceMonitor": {"enabled": enabled, "labels": {"release": "prometheus"}}}})
    };
    let queue = Queue::applied_with(room, "demo", 1, &more(true))?;
    // Without the kind: told, and the cluster is Ready all the same.
    let object = queue.wait_condition("SpecAccepted", "False", Some("KindUnusable"), TOLD_WITHIN)?;
    let message = condition_of(&object, "SpecAccepted")["message"].to_string();
    assert!(message.contains("Install the Prometheus operator"), "{message}");
    queue.wait_event("KindUnusable", "serviceMonitor is enabled")?;
    queue.wait_ready()?;
    let policy = room.get("networkpolicy", "demo")?;
    let rules = policy["spec"]["ingress"].as_array().ok_or("rules")?;
    assert_eq!(rules[2]["from"], json!([{"podSelector": {"matchLabels": {"app": "shop"}}}]), "{policy}");
    assert_eq!(rules[2]["ports"], json!([{"port": 7420, "protocol": "TCP"}]), "{policy}");

    let definition = Undo::at_the_end(|| {
        room.cluster().run(&["delete", "crd", MONITORS, "--ignore-not-found"])?;
        Ok(())
    });
    room.cluster().apply(&monitor_definition())?;
    room.cluster().run(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        &format!("crd/{MONITORS}"),
    ])?;
    room.kubectl(&["annotate", "raftqueue", "demo", "touched=yes"])?;
    let get = ["servicemonitor", "demo", "-n", &room.namespace];
    let monitor = room.cluster().wait_until("a monitor", TOLD_WITHIN, &get, |monitor| Ok(monitor.clone()))?;
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus", "{monitor}");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "http-ops", "{monitor}");
    // What it selects is there: exactly one service has that port.
    let selector = queue.selector();
    let services = room.cluster().json(&["get", "services", "-n", &room.namespace, "-l", &selector])?;
    let ports = services["items"].as_array().into_iter().flatten().flat_map(|service| {
        service["spec"]["ports"].as_array().into_iter().flatten().map(|port| port["name"].clone())
    });
    assert_eq!(ports.filter(|port| port == "http-ops").count(), 1, "{services}");
    let object = queue.wait_condition("SpecAccepted", "True", None, TOLD_WITHIN)?;
    assert_eq!(condition(&object, "Ready").as_deref(), Some("True"), "{object}");

    // An edit of the policy is put right, and what is asked for no longer goes.
    room.kubectl(&["patch", "networkpolicy", "demo", "--type=merge", "-p", r#"{"spec":{"ingress":[]}}"#])?;
    let get = ["networkpolicy", "demo", "-n", &room.namespace];
    room.cluster().wait_until("the policy as before", TOLD_WITHIN, &get, |now| {
        (now["spec"] == policy["spec"]).then_some(()).ok_or_else(|| now["spec"].to_string())
    })?;
    room.apply(&super::manifest("demo", 1, &more(false)))?;
    for kind in ["networkpolicy", "servicemonitor"] {
        soon(&format!("no {kind}"), TOLD_WITHIN, || {
            let found = room.kubectl(&["get", kind, "-o", "name"]).map_err(|error| error.to_string())?;
            found.is_empty().then_some(()).ok_or(found)
        })?;
    }
    assert_eq!(queue.restarts()?, 0);
    definition.now()
}
