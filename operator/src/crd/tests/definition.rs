//! The definition as it is installed, the samples, and what the defaults are.

use super::super::{RaftQueue, RaftQueueSpec, RaftQueueStatus, manifest};
use super::admission;
use kube::CustomResourceExt;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Most bytes of the definition. `kubectl apply` keeps a copy in an annotation, and that holds 256 KiB; a definition that
/// grows past this embeds something it should not.
const MANIFEST_BYTES_MAX: usize = 100_000;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_installed_definition_is_that_of_the_types() {
    let path = deploy().join("crd.yaml");
    if std::env::var_os("RAFTQUEUE_RECORD").is_some() {
        std::fs::write(&path, manifest()).unwrap();
    }
    let is_same = read(&path) == manifest();
    assert!(
        is_same,
        "deploy/crd.yaml is not what the types say; write it anew with\n\
         cargo run -p raftqueue-operator --bin crdgen > deploy/crd.yaml"
    );
}

#[test]
fn the_definition_is_small_and_reads_back_as_itself() {
    let text = manifest();
    assert!(text.len() < MANIFEST_BYTES_MAX, "{} bytes of at most {MANIFEST_BYTES_MAX}", text.len());
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(read, serde_json::to_value(RaftQueue::crd()).unwrap());
}

#[test]
fn names_and_subresources_are_those_that_tools_look_for() {
    let definition = serde_json::to_value(RaftQueue::crd()).unwrap();
    assert_eq!(definition["metadata"]["name"], "raftqueues.raftqueue.io");
    let spec = &definition["spec"];
    assert_eq!(spec["scope"], "Namespaced");
    assert_eq!(
        spec["names"],
        json!({"kind": "RaftQueue", "plural": "raftqueues", "singular": "raftqueue", "shortNames": ["rq"],
               "categories": ["all"]})
    );
    let version = &spec["versions"][0];
    assert_eq!(version["name"], "v1alpha1");
    assert_eq!(
        version["subresources"],
        json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
               "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}})
    );
    let columns: Vec<&str> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Desired", "Ready", "Leader", "Status", "Age", "Message"]);
}

#[test]
fn lists_of_the_status_are_merged_by_their_keys() {
    let status = &admission::schema()["properties"]["status"]["properties"];
    for (list, key) in [("conditions", "type"), ("members", "name")] {
        assert_eq!(status[list]["x-kubernetes-list-type"], "map", "{list}");
        assert_eq!(status[list]["x-kubernetes-list-map-keys"], json!([key]), "{list}");
    }
}

/// API servers warn of integer formats that they do not know, and a null that is kept defeats the defaults.
#[test]
fn nothing_is_nullable_and_integers_have_formats_that_api_servers_know() {
    fn walk(schema: &Value, path: &str) {
        if let Some(fields) = schema.as_object() {
            assert_eq!(fields.get("nullable").filter(|_| fields.contains_key("type")), None, "{path}");
            if fields.get("type") == Some(&json!("integer")) {
                let format = fields["format"].as_str().unwrap();
                assert!(["int32", "int64"].contains(&format), "{path}: {format}");
            }
            fields.iter().for_each(|(name, inner)| walk(inner, &format!("{path}.{name}")));
        }
    }
    let schema = admission::schema();
    walk(&schema["properties"]["spec"], "spec");
    walk(&schema["properties"]["status"]["properties"], "status");
}

#[test]
fn an_empty_spec_means_the_defaults_of_the_type() {
    let empty = json!({"apiVersion": "raftqueue.io/v1alpha1", "kind": "RaftQueue", "metadata": {"name": "demo"},
                       "spec": {}});
    let admitted = admission::create(&empty).unwrap();
    assert_eq!(admitted.spec, RaftQueueSpec::default());
    assert_eq!(serde_json::from_value::<RaftQueueSpec>(json!({})).unwrap(), RaftQueueSpec::default());
    assert_eq!(
        serde_json::to_value(&admitted.spec).unwrap(),
        json!({"replicas": 3, "paused": false,
               "storage": {"retention": {"whenDeleted": "Retain", "whenScaled": "Retain"}},
               "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}}})
    );
}

#[test]
fn half_given_storage_is_filled_up() {
    let object = json!({"apiVersion": "raftqueue.io/v1alpha1", "kind": "RaftQueue", "metadata": {"name": "demo"},
                        "spec": {"storage": {"retention": {"whenScaled": "Delete"}}}});
    let storage = serde_json::to_value(admission::create(&object).unwrap().spec.storage).unwrap();
    assert_eq!(storage, json!({"retention": {"whenDeleted": "Retain", "whenScaled": "Delete"}}));
}

#[test]
fn a_status_of_a_newer_operator_can_be_read() {
    let newer = json!({"phase": "Dreaming", "selector": "a=b", "other": 1,
                       "members": [{"name": "demo-0", "role": "Witness", "ready": true, "id": "ffffffffffffffff"}],
                       "conditions": [{"type": "Odd", "status": "True", "reason": "New", "message": "",
                                       "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let status: RaftQueueStatus = serde_json::from_value(newer).unwrap();
    assert_eq!(status.phase, Some(super::super::Phase::Unknown));
    assert_eq!(status.members[0].role, super::super::Role::Unknown);
    assert_eq!(status.conditions[0].type_, "Odd");
}

#[test]
fn every_sample_is_admitted() {
    let mut count = 0;
    for entry in std::fs::read_dir(deploy().join("samples")).unwrap() {
        let path = entry.unwrap().path();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&read(&path)).unwrap();
        for object in documents.iter().filter(|object| object["kind"] == "RaftQueue") {
            assert_eq!(object["apiVersion"], "raftqueue.io/v1alpha1", "{}", path.display());
            admission::create(object).unwrap_or_else(|wrong| panic!("{}: {wrong:?}", path.display()));
            count += 1;
        }
    }
    assert!(count >= 1, "no sample of a RaftQueue");
}

#[test]
fn kustomize_installs_the_definition_and_names_only_what_is_there() {
    let text = read(&deploy().join("kustomization.yaml"));
    let kustomization: Value = serde_saphyr::from_str(&text).unwrap();
    let resources: Vec<&str> =
        kustomization["resources"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(resources.contains(&"crd.yaml"));
    for name in resources {
        assert!(deploy().join(name).exists(), "{name}");
    }
}
