//! The other way to install: the Helm chart renders the objects that `kubectl apply -k deploy` applies, and those of the overlay for
//! one namespace. `RAFTQUEUE_HELM=PROGRAM` names the helm that renders it.

use super::BoxError;
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::kube::cache::Programs;
use raftqueue_tests::kube::environment::helm;
use raftqueue_tests::process::repository;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "it_renders_the_objects_of_the_manifests",
        needs: Needs::Helm,
        run: it_renders_the_objects_of_the_manifests,
    },
    Case {
        name: "wrong_values_are_refused_in_words",
        needs: Needs::Helm,
        run: wrong_values_are_refused_in_words,
    },
];

/// Where the overlay for one namespace puts everything.
const NAMESPACE: &str = "queues";

/// What something is: kind, namespace, name.
type Key = (String, String, String);

fn chart() -> PathBuf {
    repository().join("deploy/chart")
}

/// The objects of a text of several documents.
fn objects(text: &str) -> BTreeMap<Key, Value> {
    let documents = text.split("\n---\n").filter(|text| text.lines().any(|line| line.starts_with("kind:")));
    documents
        .map(|text| {
            let object: Value =
                serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &object["metadata"];
            ((word(&object["kind"]), word(&metadata["namespace"]), word(&metadata["name"])), object)
        })
        .collect()
}

fn printed(command: &mut Command) -> Result<String, BoxError> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}

fn helm_template(namespace: &str, values: &[&str]) -> Result<String, BoxError> {
    let mut command = Command::new(helm().ok_or("helm")?);
    command.args(["template", "raftqueue"]).arg(chart()).args(["--namespace", namespace]);
    for value in values {
        command.args(["--set", value]);
    }
    printed(&mut command)
}

fn kustomize(folder: &str) -> Result<BTreeMap<Key, Value>, BoxError> {
    let kubectl = Programs::find()?.path("kubectl");
    Ok(objects(&printed(Command::new(kubectl).arg("kustomize").arg(repository().join(folder)))?))
}

/// The same but for what differs on purpose: a chart keeps its definition by an annotation.
fn without_keep(mut objects: BTreeMap<Key, Value>) -> BTreeMap<Key, Value> {
    for object in objects.values_mut().filter(|object| object["kind"] == "CustomResourceDefinition") {
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        assert_eq!(metadata.remove("annotations"), Some(json!({"helm.sh/resource-policy": "keep"})));
    }
    objects
}

fn assert_same(helm: &BTreeMap<Key, Value>, kustomize: &BTreeMap<Key, Value>) {
    assert_eq!(helm.keys().collect::<Vec<_>>(), kustomize.keys().collect::<Vec<_>>());
    helm.iter().for_each(|(key, object)| assert_eq!(object, &kustomize[key], "{key:?}"));
}

fn it_renders_the_objects_of_the_manifests(_: &Room<'_>) -> Outcome {
    // For all namespaces: all but the namespace, which helm makes by itself.
    let mut all = kustomize("deploy")?;
    all.retain(|(kind, ..), _| kind != "Namespace");
    assert!(all.len() >= 10, "{:?}", all.keys());
    assert_same(&without_keep(objects(&helm_template("raftqueue-system", &[])?)), &all);

    // For one namespace: without what is of the whole cluster.
    let mut one = kustomize("deploy/overlays/one-namespace")?;
    let deployment = one.get_mut(&("Deployment".into(), NAMESPACE.into(), "raftqueue-operator".into()));
    let variables =
        &mut deployment.ok_or("a Deployment")?["spec"]["template"]["spec"]["containers"][0]["env"];
    let watched = variables.as_array_mut().and_then(|all| all.last_mut()).ok_or("variables")?;
    let field = json!({"fieldRef": {"fieldPath": "metadata.namespace"}});
    assert_eq!(*watched, json!({"name": "RAFTQUEUE_OPERATOR_WATCH_NAMESPACE", "valueFrom": field}));
    *watched = json!({"name": "RAFTQUEUE_OPERATOR_WATCH_NAMESPACE", "value": NAMESPACE});
    assert!(one.keys().all(|(kind, namespace, _)| !kind.contains("Cluster") && namespace == NAMESPACE));
    let watch = format!("watchNamespace={NAMESPACE}");
    let values = [watch.as_str(), "crds=false", "userRoles=false"];
    assert_same(&objects(&helm_template(NAMESPACE, &values)?), &one);

    // With what watches all of it.
    let mut watched = kustomize("deploy/monitoring")?;
    assert_eq!(watched.len(), 2, "{:?}", watched.keys());
    watched.extend(all.clone());
    let values = ["monitoring.rules=true", "monitoring.dashboards=true"];
    assert_same(&without_keep(objects(&helm_template("raftqueue-system", &values)?)), &watched);
    let values = [values[0], values[1], "monitoring.labels.release=prometheus"];
    let labelled = objects(&helm_template("raftqueue-system", &values)?);
    let labelled = labelled.values().filter(|object| object["metadata"]["labels"]["release"] == "prometheus");
    assert_eq!(labelled.count(), 2);

    // What values change.
    let text = helm_template("raftqueue-system", &["image.prefix=ghcr.io/you", "replicas=2"])?;
    assert!(text.contains("image: ghcr.io/you/raftqueue-operator:"), "{text}");
    assert!(text.contains("value: ghcr.io/you/raftqueue-node:") && !text.contains("PREFIX"), "{text}");
    assert!(text.contains("replicas: 2"), "{text}");
    let elsewhere = objects(&helm_template("raftqueue-system", &["watchNamespace=shop"])?);
    let role = ("Role".into(), "shop".into(), "raftqueue-operator".into());
    let lease = ("Role".into(), "raftqueue-system".into(), "raftqueue-operator-lease".into());
    assert!(elsewhere.contains_key(&role) && elsewhere.contains_key(&lease), "{:?}", elsewhere.keys());
    let binding = &elsewhere[&("RoleBinding".into(), "shop".into(), "raftqueue-operator".into())];
    assert_eq!(binding["subjects"][0]["namespace"], "raftqueue-system");
    Ok(())
}

fn wrong_values_are_refused_in_words(_: &Room<'_>) -> Outcome {
    for (value, words) in [
        ("watchNamespaces=shop", "additional properties 'watchNamespaces' not allowed"),
        ("replicas=-1", "minimum"),
        ("image.prefix=not an image", "does not match pattern"),
        ("watchNamespace=Shop", "does not match pattern"),
        ("monitoring.rules=perhaps", "want boolean"),
    ] {
        let text = helm_template("raftqueue-system", &[value]).expect_err(value).to_string();
        assert!(text.contains(words), "{value}: `{words}` is not in: {text}");
    }
    Ok(())
}
