//! Every rule, with objects that it must let through and one that it alone refuses.

use super::admission::{create, schema, update};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn named(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "raftqueue.io/v1alpha1", "kind": "RaftQueue", "metadata": {"name": name, "generation": 1},
           "spec": spec})
}

fn demo(spec: &Value) -> Value {
    named("demo", spec)
}

fn with_cluster_id(id: Option<&str>) -> Value {
    let mut object = demo(&json!({}));
    object["status"] = id.map_or(json!({}), |id| json!({"clusterId": id}));
    object
}

/// An object whose disks have 10Gi, and that asks for this.
fn sized(size: Option<&str>) -> Value {
    let mut object = demo(&size.map_or(json!({}), |size| json!({"storage": {"size": size}})));
    object["status"] = json!({"diskSize": "10Gi"});
    object
}

/// Objects that one thing is wrong with, and what they are told.
fn refused_at_creation() -> Vec<(Value, &'static str)> {
    let spec = |spec: Value| demo(&spec);
    let mut cases = vec![
        (
            demo(&json!({"monitoring": {"serviceMonitor": {"interval": "often"}}})),
            "interval must be a time such as 30s",
        ),
        (named(&"a".repeat(41), &json!({})), "at most 40 characters"),
        (named("a.b", &json!({})), "must not contain dots"),
        (named("1a", &json!({})), "must begin with a letter"),
        (named("demo-headless", &json!({})), "must not end in -headless"),
        (spec(json!({"replicas": 2})), "replicas must be odd"),
        (spec(json!({"image": "https://example.com/node"})), "image must be a reference"),
        (spec(json!({"storage": {"size": "many"}})), "must be a quantity"),
        (spec(json!({"storage": {"size": "1023Mi"}})), "at least 1Gi"),
        (spec(json!({"resources": {"requests": {"cpu": "some"}}})), "resources must be quantities"),
        (
            spec(json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})),
            "cannot exceed resources.limits",
        ),
        (spec(json!({"tls": {"mode": "Secret"}})), "tls.mode Secret needs tls.secretName"),
        (spec(json!({"tls": {"secretName": "own"}})), "tls.secretName is for tls.mode Secret"),
        (spec(json!({"tls": {"mode": "CertManager"}})), "tls.mode CertManager needs tls.issuerRef"),
        (spec(json!({"tls": {"issuerRef": {"name": "ca"}}})), "tls.issuerRef is for tls.mode CertManager"),
        (spec(json!({"tls": {"mode": "Off", "clients": "Required"}})), "tls.clients needs certificates"),
        (
            spec(json!({"tls": {"mode": "Off"}, "auth": {"configMapName": "grants"}})),
            "auth needs certificates, and tls.mode is Off",
        ),
        (spec(json!({"config": {"name": "me"}})), "everything else about a node is set by the operator"),
    ];
    for (key, value, told) in [
        ("election-timeout-ms", "49", "from 50 to 60000"),
        ("drain-ms", "600001", "from 0 to 600000"),
        ("body-bytes-max", "16777217", "from 1 to 16777216"),
        ("client-bytes-max", "67108863", "from 67108864 to 1125899906842624"),
        ("connections-per-address-max", "0", "from 1 to 4294967295"),
        ("lease-ms", "999", "from 1000 to 43200000"),
        ("attempts-max", "0", "from 1 to 4294967295"),
        ("reserve-bytes", "1Gi", "from 0 to 1125899906842624"),
        ("segment-bytes", "1048575", "from 1048576 to 1073741824"),
        ("scrub-bytes-per-second", "-1", "from 0 to 1073741824"),
        ("threads", "65", "from 1 to 64"),
        ("log-format", "JSON", "one of auto, human, json"),
    ] {
        cases.push((spec(json!({"config": {key: value}})), told));
    }
    cases
}

/// Pairs of good objects of which the second must not replace the first, and what is said.
fn refused_at_change() -> Vec<(Value, Value, &'static str)> {
    let class = |class: &str| demo(&json!({"storage": {"storageClassName": class}}));
    vec![
        (sized(Some("10Gi")), sized(Some("9Gi")), "must not be below that of the disks"),
        (sized(Some("10Gi")), sized(Some("10239Mi")), "must not be below that of the disks"),
        (sized(None), sized(Some("9Gi")), "must not be below that of the disks"),
        (class("fast"), class("slow"), "storageClassName cannot change"),
        (class("fast"), demo(&json!({})), "storageClassName cannot change"),
        (demo(&json!({})), class("fast"), "storageClassName cannot change"),
        (with_cluster_id(Some("0a")), with_cluster_id(Some("0b")), "clusterId cannot change"),
    ]
}

/// What is wrong, when it is exactly one thing. Then nothing but the rule that speaks has refused the object: without it
/// the object would be admitted.
fn only(wrong: Result<crate::crd::RaftQueue, Vec<String>>, object: &Value) -> String {
    let wrong = wrong.expect_err(&format!("admitted: {object}"));
    assert_eq!(wrong.len(), 1, "{object}: {wrong:?}");
    wrong[0].clone()
}

fn messages_in(schema: &Value, into: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message = rule["message"].as_str().unwrap_or_else(|| panic!("no message: {rule}"));
        assert!((30..=1024).contains(&message.len()), "too terse or too long: {message}");
        assert!(!message.contains('\n') && !message.contains("  "), "{message}");
        assert!(into.insert(message.to_owned()), "two rules say: {message}");
    }
    let inner = [schema["properties"].as_object()].into_iter().flatten().flat_map(serde_json::Map::values);
    inner
        .chain(schema.get("additionalProperties"))
        .chain(schema.get("items"))
        .for_each(|inner| messages_in(inner, into));
}

#[test]
fn every_rule_refuses_an_object_that_nothing_else_refuses() {
    let mut unheard = BTreeSet::new();
    messages_in(&schema(), &mut unheard);
    assert_eq!(unheard.len(), schema().to_string().matches(r#""rule":"#).count(), "every rule was found");
    for (object, told) in refused_at_creation() {
        let message = only(create(&object), &object);
        assert!(message.contains(told), "{object}: {message}");
        unheard.remove(&message);
    }
    for (old, new, told) in refused_at_change() {
        let message = only(update(&old, &new), &new);
        assert!(message.contains(told), "{new}: {message}");
        unheard.remove(&message);
    }
    assert!(unheard.is_empty(), "rules that no object here breaks: {unheard:#?}");
}

#[test]
fn bounds_of_the_schema_hold_on_both_sides() {
    for replicas in [1, 3, 5, 7, 9] {
        create(&demo(&json!({"replicas": replicas}))).unwrap();
    }
    for (spec, told) in [
        (json!({"replicas": -1}), "minimum"),
        (json!({"replicas": 11}), "maximum"),
        (json!({"replicas": "3"}), "type"),
        (json!({"replica": 3}), "unknown field"),
        (json!({"imagePullPolicy": "Sometimes"}), "enum"),
        (json!({"storage": {"retention": {"whenScaled": "Keep"}}}), "enum"),
        (json!({"storage": {"storageClassName": ""}}), "minLength"),
        (json!({"storage": {"size": 10}}), "type"),
        (json!({"config": {"threads": 2}}), "type"),
        (json!({"resources": {"claims": []}}), "unknown field"),
    ] {
        let wrong = create(&demo(&spec)).expect_err(&format!("admitted: {spec}"));
        assert!(wrong.iter().any(|message| message.contains(told)), "{spec}: {wrong:?}");
    }
}

/// Two lines of YAML encrypt what clients speak.
#[test]
fn what_is_left_out_of_tls_is_filled_up() {
    let of =
        |tls: Value| serde_json::to_value(create(&demo(&json!({"tls": tls}))).unwrap().spec.tls).unwrap();
    assert_eq!(of(json!({})), json!({"mode": "Auto", "clients": "Off"}));
    assert_eq!(of(json!({"clients": "Required"})), json!({"mode": "Auto", "clients": "Required"}));
    let issuer = json!({"name": "ca", "kind": "Issuer", "group": "cert-manager.io"});
    let asked = json!({"mode": "CertManager", "issuerRef": {"name": "ca"}});
    assert_eq!(of(asked), json!({"mode": "CertManager", "clients": "Off", "issuerRef": issuer}));
    let own = json!({"mode": "Secret", "secretName": "own", "clients": "Optional"});
    assert_eq!(of(own.clone()), own);
    let auth = create(&demo(&json!({"auth": {"configMapName": "grants"}}))).unwrap().spec.auth;
    assert_eq!(serde_json::to_value(auth).unwrap(), json!({"configMapName": "grants", "tokenReview": false}));
}

#[test]
fn names_up_to_the_limit_are_good() {
    for name in ["a", "demo-2", &"a".repeat(40)] {
        create(&named(name, &json!({}))).unwrap();
    }
}

/// One that is there already, and so has a status, goes on: refused, it could not even be given another.
#[test]
fn a_rule_about_names_that_came_later_is_for_new_objects() {
    let mut old = named("demo-headless", &json!({}));
    assert!(create(&old).is_err());
    old["status"] = json!({"phase": "Ready"});
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(5);
    update(&old, &new).unwrap();
}

#[test]
fn images_are_what_registries_serve() {
    let digest = format!("@sha256:{}", "0123456789abcdef".repeat(4));
    for good in [
        "node",
        "raftqueue-node:0.1.0",
        "localhost:5000/raftqueue/node",
        "registry.example.com:443/a/b_c/d-e.f:v1_2.3-x",
        &format!("ghcr.io/raftqueue/node:0.1.0{digest}"),
        &format!("node{digest}"),
    ] {
        create(&demo(&json!({"image": good}))).unwrap_or_else(|wrong| panic!("{good}: {wrong:?}"));
    }
    for bad in
        ["", " node", "node:", "a//b", "node@sha256:12", "node:a:b", "a/B", "node\n", "/node", "node latest"]
    {
        let wrong = create(&demo(&json!({"image": bad}))).expect_err(bad);
        assert!(wrong[0].contains("image must be a reference"), "{bad}: {wrong:?}");
    }
}

#[test]
fn a_size_may_be_left_out_and_return_to_that_of_the_disks() {
    for (old, new) in [
        (Some("10Gi"), Some("10240Mi")),
        (Some("10Gi"), None),
        (None, None),
        (None, Some("10Gi")),
        // Stored before there was this rule: it may stay, and return.
        (Some("20Gi"), Some("20Gi")),
        (Some("20Gi"), Some("10Gi")),
        (Some("20Gi"), None),
        (Some("5Gi"), Some("10Gi")),
    ] {
        update(&sized(old), &sized(new)).unwrap_or_else(|wrong| panic!("{old:?} to {new:?}: {wrong:?}"));
    }
    // Something else may change beside a size that was stored before, in the spec and in the status.
    let mut other = sized(Some("20Gi"));
    other["spec"]["replicas"] = json!(5);
    other["status"]["diskSize"] = json!("11Gi");
    update(&sized(Some("20Gi")), &other).unwrap();
    // Before there are disks any size may be asked for.
    let size = |size: &str| demo(&json!({"storage": {"size": size}}));
    for (old, new) in [("10Gi", "11Gi"), ("2Gi", "1Gi")] {
        update(&size(old), &size(new)).unwrap_or_else(|wrong| panic!("{old} to {new}: {wrong:?}"));
    }
}

#[test]
fn everything_but_the_storage_class_can_change() {
    let old = demo(&json!({"storage": {"storageClassName": "fast"}}));
    let new = demo(&json!({
        "replicas": 5, "image": "node:2", "imagePullPolicy": "Always", "paused": true,
        "storage": {"storageClassName": "fast", "size": "20Gi",
                    "retention": {"whenDeleted": "Delete", "whenScaled": "Delete"}},
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "1Gi", "cpu": "1500m"}},
        "config": {"threads": "2", "log-format": "json"}}));
    let changed = update(&old, &new).unwrap();
    assert_eq!(changed.spec.replicas, 5);
}

#[test]
fn resources_may_be_limits_alone_or_nothing() {
    for resources in [
        json!({}),
        json!({"limits": {"memory": "1Gi"}}),
        json!({"requests": {"cpu": 2}, "limits": {"cpu": 2}}),
        json!({"requests": {"memory": "1Gi"}, "limits": {"cpu": "10m"}}),
        json!({"requests": {"example.com/device": 1}, "limits": {"example.com/device": "1"}}),
    ] {
        create(&demo(&json!({"resources": resources})))
            .unwrap_or_else(|wrong| panic!("{resources}: {wrong:?}"));
    }
}

#[test]
fn rule_1_7_the_cluster_id_is_latched_once() {
    let id = with_cluster_id(Some("000102030405060708090a0b0c0d0e0f"));
    update(&with_cluster_id(None), &id).unwrap();
    update(&id, &id).unwrap();
    // Taking it out by hand is how a person says that the disks were replaced on purpose.
    update(&id, &with_cluster_id(None)).unwrap();
}
