//! What a spec asks for of kinds that belong to others: who may reach the nodes, and who watches them.
//!
//! NB: nothing enforces a NetworkPolicy in the network of these tests, whose pods are joined by a plain bridge. That what is allowed is
//! what is dialled is shown beside the code that makes the policy.

use super::{BoxError, Queue, TOLD_WITHIN, Undo, condition_of, soon};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::kubectl::condition;
use serde_json::json;

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_policy_and_a_monitor_are_made_where_their_kinds_are",
    needs: Needs::OwnClusterAlone,
    run: a_policy_and_a_monitor_are_made_where_their_kinds_are,
}];

/// Has Kubernetes know a kind of the Prometheus operator's, as far as an API server must; that operator brings the whole. It is
/// forgotten when what this returns is dropped.
pub(crate) fn define<'a>(
    room: &'a Room<'_>,
    kind: &str,
) -> Result<Undo<impl FnMut() -> Outcome + 'a>, BoxError> {
    define_of(room, "monitoring.coreos.com", kind)
}

/// The same of a kind of another group.
pub(crate) fn define_of<'a>(
    room: &'a Room<'_>,
    group: &str,
    kind: &str,
) -> Result<Undo<impl FnMut() -> Outcome + 'a>, BoxError> {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let name = format!("{plural}.{group}");
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let names = json!({"kind": kind, "plural": plural, "singular": singular});
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let spec = json!({"group": group, "names": names, "scope": "Namespaced", "versions": [version]});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                            "metadata": {"name": name}, "spec": spec});
    let crd = format!("crd/{name}");
    let undo = Undo::at_the_end(move || {
        room.cluster().run(&["delete", "crd", &name, "--ignore-not-found"])?;
        Ok(())
    });
    room.cluster().apply(&definition.to_string())?;
    room.cluster().run(&["wait", "--for=condition=Established", "--timeout=60s", &crd])?;
    Ok(undo)
}

fn a_policy_and_a_monitor_are_made_where_their_kinds_are(room: &Room<'_>) -> Outcome {
    let more = |enabled: bool| {
        json!({"networkPolicy": {"enabled": enabled, "clients": [{"podLabels": {"app": "shop"}}]},
               "monitoring": {"serviceMonitor": {"enabled": enabled, "labels": {"release": "prometheus"}},
                              "prometheusRule": {"enabled": enabled}, "dashboards": {"enabled": enabled}}})
    };
    let queue = Queue::applied_with(room, "demo", 1, &more(true))?;
    // Without the kind: told, and the cluster is Ready all the same.
    let object = queue.wait_condition("SpecAccepted", "False", Some("KindUnusable"), TOLD_WITHIN)?;
    let message = condition_of(&object, "SpecAccepted")["message"].to_string();
    assert!(message.contains("Install the Prometheus operator"), "{message}");
    queue.wait_event(
        "KindUnusable",
        "spec.monitoring.serviceMonitor and spec.monitoring.prometheusRule are enabled",
    )?;
    queue.wait_ready()?;
    let policy = room.get("networkpolicy", "demo")?;
    let rules = policy["spec"]["ingress"].as_array().ok_or("rules")?;
    assert_eq!(rules[2]["from"], json!([{"podSelector": {"matchLabels": {"app": "shop"}}}]), "{policy}");
    assert_eq!(rules[2]["ports"], json!([{"port": 7420, "protocol": "TCP"}]), "{policy}");

    // Dashboards need no kind of others.
    let dashboards = room.get("configmap", "demo-dashboards")?;
    assert_eq!(dashboards["metadata"]["labels"]["grafana_dashboard"], "1", "{dashboards}");
    assert_eq!(dashboards["data"].as_object().map(serde_json::Map::len), Some(3), "{dashboards}");

    let definitions = [define(room, "ServiceMonitor")?, define(room, "PrometheusRule")?];
    room.kubectl(&["annotate", "raftqueue", "demo", "touched=yes"])?;
    let get = ["servicemonitor", "demo", "-n", &room.namespace];
    let monitor = room.cluster().wait_until("a monitor", TOLD_WITHIN, &get, |monitor| Ok(monitor.clone()))?;
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus", "{monitor}");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "http-ops", "{monitor}");
    let get = ["prometheusrule", "demo", "-n", &room.namespace];
    let rule = room.cluster().wait_until("a rule", TOLD_WITHIN, &get, |rule| Ok(rule.clone()))?;
    let leader = rule["spec"]["groups"][0]["rules"].as_array().into_iter().flatten();
    let leader: Vec<_> = leader.filter(|rule| rule["alert"] == "RaftQueueNoLeader").collect();
    let about = format!("raftqueue_raft_has_leader{{namespace=\"{}\", raftqueue=\"demo\"}}", room.namespace);
    assert!(leader[0]["expr"].as_str().is_some_and(|query| query.contains(&about)), "{rule}");
    // What the monitor selects is there: exactly one service has that port.
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
    for (kind, name) in [
        ("networkpolicy", "demo"),
        ("servicemonitor", "demo"),
        ("prometheusrule", "demo"),
        ("configmap", "demo-dashboards"),
    ] {
        soon(&format!("no {kind}"), TOLD_WITHIN, || {
            let get = ["get", kind, name, "-o", "name", "--ignore-not-found"];
            let found = room.kubectl(&get).map_err(|error| error.to_string())?;
            found.is_empty().then_some(()).ok_or(found)
        })?;
    }
    assert_eq!(queue.restarts()?, 0);
    definitions.into_iter().try_for_each(Undo::now)
}
