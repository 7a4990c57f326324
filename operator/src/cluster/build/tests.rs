//! The children as YAML, compared with files: a change of one is a change of every cluster in the world.

mod encrypted;
mod monitors;

use super::{PrometheusRule, PrometheusRuleSpec, RuleGroup, build};
use crate::cluster::encryption::Encryption;
use crate::cluster::observation::ClusterId;
use crate::cluster::plan::{Bootstrap, Shape};
use crate::cluster::validate::{Asked, asked};
use crate::crd::{RaftQueue, RaftQueueSpec};
use crate::names;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use serde_json::{Value, json};

fn of(spec: Value) -> Asked {
    let spec: RaftQueueSpec = serde_json::from_value(spec).unwrap();
    let mut object = RaftQueue::new("demo", spec);
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    asked(&object, "raftqueue-node:0.1.0")
}

fn shape(asked: &Asked, bootstrap: Bootstrap) -> Shape {
    Shape {
        pods: asked.spec.replicas,
        bootstrap,
        cluster_id: if let Bootstrap::Join(id) = bootstrap { id } else { None },
        image: asked.spec.image.clone().unwrap_or_else(|| asked.image_default.clone()),
        template: None,
        restarted: None,
        disk_size: asked.disk_size().unwrap_or("10Gi").to_owned(),
        disk_class: asked.spec.storage.storage_class_name.clone(),
        encryption: Encryption::default(),
        authorities: None,
        is_asked_of_cert_manager: false,
        is_set_held: false,
    }
}

fn cluster() -> ClusterId {
    ClusterId::parse("0123456789abcdef0123456789abcdef").unwrap()
}

/// Compares with a file. `RAFTQUEUE_RECORD=1` writes it anew.
fn golden(asked: &Asked, shape: &Shape, name: &str) {
    let children = build(asked, shape);
    let mut text = String::new();
    let mut add = |object: &dyn erased::Serialized| text.push_str(&format!("---\n{}", object.yaml()));
    add(&children.service_account);
    add(&children.config_map);
    add(&children.headless_service);
    add(&children.client_service);
    if let Some(budget) = &children.budget {
        add(budget);
    }
    if let Some(policy) = &children.network_policy {
        add(policy);
    }
    if let Some(monitor) = &children.monitors.service_monitor {
        add(monitor);
    }
    // What is made of the files of `deploy/monitoring` changes with them: `monitors` says how.
    if let Some(rule) = &children.monitors.prometheus_rule {
        let groups = rule
            .spec
            .groups
            .iter()
            .map(|group| RuleGroup { rules: group.rules[..1].to_vec(), ..group.clone() });
        add(&PrometheusRule { spec: PrometheusRuleSpec { groups: groups.collect() }, ..rule.clone() });
    }
    if let Some(certificate) = &children.certificate {
        add(certificate);
    }
    if let Some(dashboards) = &children.monitors.dashboards {
        let data = dashboards.data.clone().unwrap_or_default();
        let data = data.into_keys().map(|file| (file, "a dashboard".to_owned())).collect();
        add(&ConfigMap { data: Some(data), ..dashboards.clone() });
    }
    add(&children.stateful_set);
    let path = format!("{}/src/cluster/build/golden/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(expected == text, "{path} differs from what is built:\n{text}");
}

mod erased {
    use super::Serialize;

    pub(super) trait Serialized {
        fn yaml(&self) -> String;
    }

    impl<T: Serialize> Serialized for T {
        fn yaml(&self) -> String {
            serde_saphyr::to_string(&serde_json::to_value(self).unwrap()).unwrap()
        }
    }
}

#[test]
fn three_nodes_with_the_defaults_that_form() {
    let asked = of(json!({}));
    golden(&asked, &shape(&asked, Bootstrap::Form), "three-forming");
}

#[test]
fn one_node_with_everything_said_that_joined() {
    let asked = of(json!({
        "replicas": 1, "image": "registry.example.com/node:9", "imagePullPolicy": "Always",
        "storage": {"size": "20Gi", "storageClassName": "fast", "retention": {"whenDeleted": "Delete", "whenScaled": "Delete"}},
        "resources": {"limits": {"memory": "1Gi"}},
        "networkPolicy": {"enabled": true, "clients": [{"podLabels": {"app": "shop"}},
            {"namespaceLabels": {"team": "web"}, "podLabels": {"app": "api"}}, {"namespaceLabels": {}}, {}]},
        "monitoring": {"serviceMonitor": {"enabled": true, "labels": {"release": "prometheus",
            "app.kubernetes.io/instance": "no"}, "interval": "15s"},
            "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": true, "labels": {"grafana_dashboard": "yes", "app.kubernetes.io/name": "no"}}},
        "config": {"drain-ms": "60000", "log-format": "json"}}))
    .of_operator_in("operators");
    golden(&asked, &shape(&asked, Bootstrap::Join(Some(cluster()))), "one-joined");
}

#[test]
fn who_may_reach_the_nodes_and_who_watches_them_is_made_only_where_it_is_asked_for() {
    for (spec, policy, monitor) in [
        (json!({}), false, false),
        (json!({"networkPolicy": {}, "monitoring": {}}), false, false),
        (
            json!({"networkPolicy": {"enabled": false}, "monitoring": {"serviceMonitor": {"labels": {"a": "b"}}}}),
            false,
            false,
        ),
        (json!({"networkPolicy": {"enabled": true}}), true, false),
        (json!({"monitoring": {"serviceMonitor": {"enabled": true}}}), false, true),
    ] {
        let asked = of(spec.clone());
        let children = build(&asked, &shape(&asked, Bootstrap::Form));
        assert_eq!(children.network_policy.is_some(), policy, "{spec}");
        assert_eq!(children.monitors.service_monitor.is_some(), monitor, "{spec}");
    }
}

/// A policy that let others at the peers' port would let them be peers; one that kept the operator out would stop it.
#[test]
fn only_peers_reach_the_port_of_peers_and_the_operator_reaches_the_rest() {
    let asked = of(json!({"networkPolicy": {"enabled": true}}));
    let policy = build(&asked, &shape(&asked, Bootstrap::Form)).network_policy.unwrap();
    let policy = serde_json::to_value(policy).unwrap();
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let own = serde_json::to_value(names::selector("demo")).unwrap();
    let ports = |rule: &Value| -> Vec<i64> {
        rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_i64().unwrap()).collect()
    };
    for rule in rules {
        let is_peers = rule["from"] == json!([{"podSelector": {"matchLabels": own}}]);
        assert_eq!(ports(rule).contains(&i64::from(names::PEER_PORT)), is_peers, "{rule}");
    }
    let operator = rules.iter().find(|rule| rule.to_string().contains(names::MANAGER)).unwrap();
    let namespace = &operator["from"][0]["namespaceSelector"]["matchLabels"];
    assert_eq!(*namespace, json!({"kubernetes.io/metadata.name": "raftqueue-system"}));
    assert_eq!(ports(operator), [i64::from(names::CLIENT_PORT), i64::from(names::OPERATIONS_PORT)]);
}

/// What the policy lets through is what is dialled, by the names and numbers that those who dial go by; and no port of a node is shut
/// to everybody.
#[test]
fn everybody_is_let_through_to_the_port_that_he_dials() {
    let asked =
        of(json!({"networkPolicy": {"enabled": true}, "monitoring": {"serviceMonitor": {"enabled": true}}}));
    let children = build(&asked, &shape(&asked, Bootstrap::Form));
    let policy = serde_json::to_value(&children.network_policy).unwrap();
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let allowed = |whose: &str| -> Vec<i64> {
        let rule = rules.iter().find(|rule| rule["from"].to_string().contains(whose)).unwrap();
        rule["ports"].as_array().unwrap().iter().filter_map(|port| port["port"].as_i64()).collect()
    };
    let set = serde_json::to_value(&children.stateful_set).unwrap();
    let of_nodes = set["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap().clone();
    let number = |port: &Value| match port.as_str() {
        Some(name) => of_nodes.iter().find(|port| port["name"] == name).unwrap()["containerPort"].as_i64(),
        None => port.as_i64(),
    };
    let behind = |service: Value, port: &str| {
        let ports = service["spec"]["ports"].as_array().unwrap().clone();
        let port = ports.into_iter().find(|found| found["name"] == port).unwrap();
        let target = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
        number(target).unwrap()
    };
    let uri: axum::http::Uri = names::client_uri("fd00::1", false).parse().unwrap();
    assert!(allowed(names::MANAGER).contains(&i64::from(uri.port_u16().unwrap())));
    let client = serde_json::to_value(&children.client_service).unwrap();
    for port in client["spec"]["ports"].as_array().unwrap() {
        let port = behind(client.clone(), port["name"].as_str().unwrap());
        assert!(allowed("{\"podSelector\":{}}").contains(&port), "clients dial {port}");
    }
    let monitor = children.monitors.service_monitor.unwrap();
    let headless = serde_json::to_value(&children.headless_service).unwrap();
    let scraped = behind(headless, &monitor.spec.endpoints[0].port);
    assert!(allowed("prometheus").contains(&scraped), "Prometheus dials {scraped}");
    // Peers dial each other at both: the log goes by one, calls that are passed on by the other.
    let of_peers = allowed("app.kubernetes.io/instance");
    assert!([names::CLIENT_PORT, names::PEER_PORT].iter().all(|port| of_peers.contains(&i64::from(*port))));
    for port in &of_nodes {
        let number = port["containerPort"].as_i64().unwrap();
        let is_open = rules.iter().any(|rule| rule["ports"].to_string().contains(&number.to_string()));
        assert!(is_open, "nobody may dial {port}");
    }
}

/// Scaled by a tired hand, a set that said anything else would take the disks of a majority.
#[test]
fn rule_10_7_the_set_keeps_its_claims_whatever_is_asked() {
    for policy in ["Retain", "Delete"] {
        let asked = of(json!({"storage": {"retention": {"whenDeleted": policy, "whenScaled": policy}}}));
        let set = build(&asked, &shape(&asked, Bootstrap::Form)).stateful_set;
        let retention = set.spec.unwrap().persistent_volume_claim_retention_policy.unwrap();
        let kept = |policy: Option<String>| assert_eq!(policy.as_deref(), Some("Retain"));
        kept(retention.when_deleted);
        kept(retention.when_scaled);
    }
}

/// A fresh cluster becomes ready without one restart: what changes when it has formed is not in the template.
#[test]
fn rule_1_7_forming_and_joining_have_one_template() {
    let asked = of(json!({}));
    let made: Vec<_> = [Bootstrap::Form, Bootstrap::Join(None), Bootstrap::Join(Some(cluster()))]
        .map(|bootstrap| build(&asked, &shape(&asked, bootstrap)))
        .into();
    assert!(made.windows(2).all(|pair| pair[0].stateful_set.spec == pair[1].stateful_set.spec));
    assert!(made.windows(2).all(|pair| pair[0].config_map != pair[1].config_map));
}

#[test]
fn a_change_of_the_config_is_a_change_of_the_template() {
    let template = |spec: Value| {
        let asked = of(spec);
        build(&asked, &shape(&asked, Bootstrap::Form)).stateful_set.spec.unwrap().template
    };
    let plain = template(json!({}));
    assert_ne!(plain, template(json!({"config": {"threads": "2"}})));
    assert_ne!(plain, template(json!({"resources": {"limits": {"cpu": "1"}}})));
    assert_ne!(plain, template(json!({"image": "other:1"})));
    assert_eq!(plain, template(json!({"paused": true})));
}

/// An upgrade of the operator restarts nothing: a template that another build of it made stays until the user changes something.
#[test]
fn a_template_is_kept_until_what_users_see_changes() {
    let asked = of(json!({}));
    let shape = shape(&asked, Bootstrap::Form);
    let set = |asked: &Asked, shape: &Shape| build(asked, shape).stateful_set;
    let kept = |set: &k8s_openapi::api::apps::v1::StatefulSet| {
        set.metadata.annotations.as_ref().unwrap()[names::TEMPLATE_ANNOTATION].clone()
    };
    let grace = |set: k8s_openapi::api::apps::v1::StatefulSet| {
        set.spec.unwrap().template.spec.unwrap().termination_grace_period_seconds
    };
    let made = set(&asked, &shape);
    // As another build would have made it.
    let mut other: Value = serde_json::from_str(&kept(&made)).unwrap();
    other["template"]["spec"]["terminationGracePeriodSeconds"] = json!(77);
    let upgraded = Shape { template: Some(other.to_string()), ..shape.clone() };
    let again = set(&asked, &upgraded);
    assert_eq!(serde_json::from_str::<Value>(&kept(&again)).unwrap(), other, "and it is kept on");
    assert_eq!(grace(again), Some(77));
    assert_eq!(
        grace(set(&of(json!({"replicas": 5})), &upgraded)),
        Some(77),
        "that is no matter of the template"
    );
    for change in [
        json!({"config": {"threads": "2"}}),
        json!({"resources": {"limits": {"cpu": "1"}}}),
        json!({"imagePullPolicy": "Always"}),
    ] {
        assert_eq!(grace(set(&of(change.clone()), &upgraded)), Some(30), "{change}");
    }
    assert_eq!(grace(set(&asked, &Shape { image: "other:1".into(), ..upgraded.clone() })), Some(30));
    // What nobody can read, or what would not fit the set, is made anew.
    let mut foreign = other.clone();
    foreign["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] = json!("other");
    for text in ["", "{}", "[1]", &foreign.to_string()] {
        assert_eq!(
            grace(set(&asked, &Shape { template: Some(text.to_owned()), ..shape.clone() })),
            Some(30),
            "{text}"
        );
    }
}

/// A set that is made anew for pods which are there says what the old one said: a template without it would be a newer one. It is
/// not part of what is kept, for kubectl writes the next one into the template only.
#[test]
fn a_set_that_is_made_anew_remembers_the_last_restart() {
    let asked = of(json!({"config": {"threads": "2"}}));
    let shape = shape(&asked, Bootstrap::Form);
    let plain = build(&asked, &shape).stateful_set;
    let moment = "2026-11-30T10:00:00+01:00";
    let anew = build(&asked, &Shape { restarted: Some(moment.into()), ..shape }).stateful_set;
    assert_eq!(anew.metadata, plain.metadata, "what is kept is the same");
    let annotations = |set: &k8s_openapi::api::apps::v1::StatefulSet| {
        let template = &set.spec.as_ref().unwrap().template;
        template.metadata.as_ref().unwrap().annotations.clone().unwrap()
    };
    let mut expected = annotations(&plain);
    assert!(!expected.is_empty());
    expected.insert("kubectl.kubernetes.io/restartedAt".into(), moment.into());
    assert_eq!(annotations(&anew), expected);
}

#[test]
fn the_settings_are_what_a_node_reads() {
    let asked = of(json!({"replicas": 3, "config": {"drain-ms": "5", "threads": "2"}}));
    let config = build(&asked, &shape(&asked, Bootstrap::Join(Some(cluster())))).config_map;
    let text = &config.data.unwrap()[names::SETTINGS_FILE];
    let settings: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        settings,
        json!({"bootstrap": "join", "cluster-id": "0123456789abcdef0123456789abcdef",
               "members": ["demo-0", "demo-1", "demo-2"], "service": "demo-headless.shop.svc",
               "drain-ms": "5", "lock-wait-ms": 60_000, "threads": "2"})
    );
}

/// Names within the limit stay within those of labels and of DNS.
#[test]
fn the_longest_name_still_fits() {
    let name = "a".repeat(crate::crd::NAME_LENGTH_MAX);
    // Kubernetes adds "-" and a hash of 10 to the name of the set, for a label of the pods.
    assert!(name.len() + 11 <= 63);
    for made in [
        names::headless(&name),
        names::config_map(&name),
        names::node(&name, 8),
        names::claim(&names::node(&name, 8)),
    ] {
        assert!(made.len() <= 63, "{made}");
    }
}
