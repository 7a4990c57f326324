//! The calls that are made, against an API server that answers as each test says.

use super::*;
use crate::cluster::build::build;
use crate::cluster::observation::{ChildSeen, Ownership};
use crate::cluster::plan::plan;
use crate::crd::{RaftQueue as Queue, RaftQueueSpec};
use crate::fake::{Call, client, refusal};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn demo() -> Asked {
    let mut object = Queue::new("demo", RaftQueueSpec::default());
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("uid-1".into());
    crate::cluster::validate::asked(&object, "node:1")
}

fn headless() -> Service {
    let shape = plan(&demo(), &[], &Observation::default()).shape.unwrap();
    build(&demo(), &shape).headless_service
}

const SERVICES: &str = "/api/v1/namespaces/shop/services";

/// Seen: two objects whose children wanted one name, and an apply with force gave it to the later one, 7 of 7 times.
#[tokio::test]
async fn a_child_that_was_not_seen_is_created_and_nothing_of_others_is_touched() {
    let (client, calls) = client(|_: &Call| refusal(409, "AlreadyExists"));
    let error = bring_in_line(&client, "shop", &headless(), None).await.unwrap_err();
    assert!(error.is_race(), "{error}");
    assert_eq!(calls.what(), [format!("POST {SERVICES}")]);
}

#[tokio::test]
async fn a_child_that_was_seen_is_applied_by_its_uid() {
    let (client, calls) = client(|_: &Call| refusal(409, "Conflict"));
    let error = bring_in_line(&client, "shop", &headless(), Some("seen")).await.unwrap_err();
    assert!(error.is_race(), "another has its name by now: {error}");
    let [call] = &calls.all()[..] else { panic!("{:?}", calls.what()) };
    assert_eq!(call.what, format!("PATCH {SERVICES}/demo-headless"));
    assert_eq!(call.body["metadata"]["uid"], "seen");
    assert!(call.query.contains("force=true"), "{}", call.query);
}

#[tokio::test]
async fn a_refusal_is_told_with_what_to_do_about_it() {
    for (message, words) in [
        (
            "the storageclass must support resize",
            "allowVolumeExpansion), set spec.storage.size to status.diskSize",
        ),
        ("exceeded quota: pods", "allowVolumeExpansion"),
    ] {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                            "message": message});
        let (client, calls) = client(move |_: &Call| (403, status.clone()));
        let told = grow(&client, "shop", "data-demo-0", "u", "7", "2Gi").await.unwrap_err().to_string();
        assert!(
            told.starts_with(&format!("cannot enlarge PersistentVolumeClaim data-demo-0: {message} (403). ")),
            "{told}"
        );
        assert!(told.contains(words), "{told}");
        let [call] = &calls.all()[..] else { panic!("{:?}", calls.what()) };
        assert_eq!(call.body["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
    }
    for (message, words) in [
        ("pods is forbidden", "kubectl apply -k deploy"),
        ("exceeded quota: services", "Raise the quota"),
        ("unable to create new content in namespace shop because it is being terminated", "is being deleted"),
    ] {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                            "message": message});
        let (client, _) = client(move |_: &Call| (403, status.clone()));
        let told = bring_in_line(&client, "shop", &headless(), None).await.unwrap_err().to_string();
        assert!(told.contains(message) && told.contains(words), "{told}");
    }
}

#[tokio::test]
async fn a_set_is_woken_by_another_name_and_orphans_its_pods_when_it_is_made_anew() {
    let (client, calls) = client(|_: &Call| (200, json!({"metadata": {"name": "demo"}})));
    assert!(wake(&client, "shop", "demo", "set-1").await.unwrap());
    let remake = Step::RemakeSet { set: "demo".into(), uid: "set-1".into(), size: "2Gi".into() };
    let _ = take(&client, &demo(), &Observation::default(), &remake).await;
    let [woken, deleted] = &calls.all()[..] else { panic!("{:?}", calls.what()) };
    // Under the name of the apply, the next apply would take it off again.
    assert!(woken.query.contains("fieldManager=raftqueue-operator-wake"), "{}", woken.query);
    assert_eq!(woken.body["metadata"]["uid"], "set-1");
    assert_eq!(deleted.what, "DELETE /apis/apps/v1/namespaces/shop/statefulsets/demo");
    assert_eq!(deleted.body["propagationPolicy"], "Orphan");
    assert_eq!(deleted.body["preconditions"]["uid"], "set-1");
}

#[tokio::test]
async fn what_is_refused_for_other_reasons_is_a_failure() {
    let (client, _) = client(|_: &Call| refusal(403, "Forbidden"));
    for uid in [None, Some("seen")] {
        let error = bring_in_line(&client, "shop", &headless(), uid).await.unwrap_err();
        assert!(!error.is_race(), "{error}");
    }
}

/// As long as the creation holds a field too, an apply that leaves it out does not take it away.
#[tokio::test]
async fn the_first_apply_takes_over_the_fields_of_the_creation() {
    let entry = |manager: &str, operation: &str, subresource: Option<&str>| json!({"manager": manager, "operation": operation, "apiVersion": "v1", "subresource": subresource});
    let others = [
        entry("raftqueue-operator", "Apply", None),
        entry("kubectl-edit", "Update", None),
        entry("raftqueue-operator", "Update", Some("status")),
    ];
    for is_created in [true, false] {
        let created = is_created.then(|| entry("raftqueue-operator", "Update", None));
        let entries: Vec<Value> = created.into_iter().chain(others.clone()).collect();
        let (client, calls) = client(move |_: &Call| {
            let metadata = json!({"name": "demo-headless", "uid": "seen", "resourceVersion": "9",
                                  "managedFields": entries});
            (200, json!({"metadata": metadata}))
        });
        bring_in_line(&client, "shop", &headless(), Some("seen")).await.unwrap();
        assert_eq!(calls.all().len(), 1 + usize::from(is_created));
        if is_created {
            let metadata = calls.all()[1].body["metadata"].clone();
            let kept = metadata["managedFields"].as_array().unwrap();
            let managers: Vec<_> = kept.iter().map(|entry| &entry["manager"]).collect();
            assert_eq!(managers, ["raftqueue-operator", "kubectl-edit", "raftqueue-operator"]);
            assert_eq!((&metadata["uid"], &metadata["resourceVersion"]), (&json!("seen"), &json!("9")));
        }
    }
}

/// Our own headless service with this metadata, as a look sees it.
fn seen_service(metadata: &Value) -> Observation {
    let metadata = serde_json::from_value(metadata.clone()).unwrap();
    let (owner, uid) = (Ownership::Ours, "seen".to_owned());
    let child = ChildSeen { owner, holder: None, uid, cluster_id: None, template: None };
    Observation {
        children: BTreeMap::from([(Child::HeadlessService, child)]),
        fingerprints: BTreeMap::from([(Child::HeadlessService, Fingerprint::of(&metadata))]),
        ..Observation::default()
    }
}

/// As the API server answers: its fields are held by this manager.
fn service(manager: &str, operation: &str) -> Value {
    let holder = json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
                        "fieldsV1": {"f:spec": {"f:publishNotReadyAddresses": {}}}});
    json!({"name": "demo-headless", "uid": "seen", "resourceVersion": "9", "managedFields": [holder]})
}

#[tokio::test]
async fn a_child_is_applied_again_only_after_it_or_what_is_wanted_of_it_changed() {
    let applied = service("raftqueue-operator", "Apply");
    let answer = applied.clone();
    let (client, calls) = client(move |_: &Call| (200, json!({"metadata": answer})));
    let (known, mut wanted) = (Known::default(), headless());
    let object = ("shop".to_owned(), "demo".to_owned());
    let look = async |known: &Known, metadata: &Value, wanted: &Service| {
        let seen = seen_service(metadata);
        let hands = Hands { client: &client, object: object.clone(), seen: &seen, known };
        let before = calls.all().len();
        hands.bring_in_line(Child::HeadlessService, wanted).await.unwrap();
        calls.all().len() - before
    };
    assert_eq!(look(&known, &applied, &wanted).await, 1, "nothing is known of it yet");
    assert_eq!(look(&known, &applied, &wanted).await, 0);
    // A status is nobody's wish: its version alone is another one.
    let mut counted = applied.clone();
    counted["resourceVersion"] = json!("10");
    counted["managedFields"]
        .as_array_mut()
        .unwrap()
        .push(json!({"manager": "kube-controller-manager", "operation": "Update", "subresource": "status"}));
    assert_eq!(look(&known, &counted, &wanted).await, 0);
    // Somebody took a field over.
    assert_eq!(look(&known, &service("kubectl-edit", "Update"), &wanted).await, 1);
    for (field, value) in [
        ("labels", json!({"app.kubernetes.io/instance": "other"})),
        ("annotations", json!({"raftqueue.io/cluster-id": "0"})),
        ("ownerReferences", json!([])),
        ("generation", json!(2)),
        ("uid", json!("another")),
    ] {
        let mut edited = applied.clone();
        edited[field] = value;
        assert_eq!(look(&known, &edited, &wanted).await, 1, "{field} was edited");
        assert_eq!(look(&known, &applied, &wanted).await, 0, "{field} was put back");
    }
    wanted.spec.as_mut().unwrap().publish_not_ready_addresses = Some(false);
    assert_eq!(look(&known, &applied, &wanted).await, 1, "another thing is wanted");
    known.keep_only(&BTreeSet::new());
    assert_eq!(look(&known, &applied, &wanted).await, 1, "it was gone");
}

/// Seen: a ConfigMap that was no longer asked for stayed, since one of the object's own name was deleted, which there is not.
#[tokio::test]
async fn what_is_no_longer_asked_for_is_deleted_under_its_own_name() {
    let (client, calls) = client(|_: &Call| refusal(404, "NotFound"));
    let (known, mut seen) = (Known::default(), seen_service(&service("raftqueue-operator", "Apply")));
    let ours = seen.children[&Child::HeadlessService].clone();
    seen.children.extend([Child::Dashboards, Child::NetworkPolicy].map(|child| (child, ours.clone())));
    let object = ("shop".to_owned(), "demo".to_owned());
    let hands = Hands { client: &client, object, seen: &seen, known: &known };
    hands.make_or_delete::<ConfigMap>(Child::Dashboards, None).await.unwrap();
    hands.make_or_delete::<Service>(Child::HeadlessService, None).await.unwrap();
    hands.make_or_delete::<NetworkPolicy>(Child::NetworkPolicy, None).await.unwrap();
    let policies = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
    let paths = [
        "/api/v1/namespaces/shop/configmaps/demo-dashboards".to_owned(),
        format!("{SERVICES}/demo-headless"),
        format!("{policies}/demo"),
    ];
    assert_eq!(calls.what(), paths.map(|path| format!("DELETE {path}")));
    assert!(calls.all().iter().all(|call| call.body["preconditions"]["uid"] == "seen"));
}

#[tokio::test]
async fn what_was_only_created_is_applied_once_more() {
    let created = service("raftqueue-operator", "Update");
    let answer = created.clone();
    let (client, calls) = client(move |_: &Call| (200, json!({"metadata": answer})));
    let (known, object) = (Known::default(), ("shop".to_owned(), "demo".to_owned()));
    for seen in [Observation::default(), seen_service(&created)] {
        let hands = Hands { client: &client, object: object.clone(), seen: &seen, known: &known };
        hands.bring_in_line(Child::HeadlessService, &headless()).await.unwrap();
    }
    let methods: Vec<String> =
        calls.what().iter().filter_map(|what| Some(what.split_once(' ')?.0.to_owned())).collect();
    assert_eq!(methods, ["POST", "PATCH", "PATCH"], "made, applied, and the creation given up");
}

const OBJECT: &str = "GET /apis/raftqueue.io/v1alpha1/namespaces/shop/raftqueues/demo";
const CLAIM: &str = "PATCH /api/v1/namespaces/shop/persistentvolumeclaims/data-demo-0";

fn change(own: bool, disown: &[&str]) -> ClaimChange {
    ClaimChange {
        claim: "data-demo-0".into(),
        uid: "claim-0".into(),
        version: "7".into(),
        own,
        disown: disown.iter().map(|uid| (*uid).to_owned()).collect(),
    }
}

/// Answers with an object that is there for so many looks, and takes every patch.
fn there_for(looks: usize) -> impl Fn(&Call) -> (u16, Value) + Clone + Send + Sync + 'static {
    let left = Arc::new(AtomicUsize::new(looks));
    move |call| {
        if call.what != OBJECT {
            return (200, json!({"metadata": {"name": "data-demo-0"}}));
        }
        let is_there =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        match is_there {
            true => (200, json!({"metadata": {"name": "demo", "uid": "uid-1"}})),
            false => refusal(404, "NotFound"),
        }
    }
}

#[tokio::test]
async fn a_claim_is_given_to_an_object_that_is_there() {
    let (client, calls) = client(there_for(2));
    own_claims(&client, &demo(), &[change(true, &["set"])]).await.unwrap();
    assert_eq!(calls.what(), [OBJECT, CLAIM, OBJECT]);
    let patch = &calls.all()[1];
    assert_eq!(patch.content_type, "application/strategic-merge-patch+json");
    let owner =
        json!({"apiVersion": "raftqueue.io/v1alpha1", "kind": "RaftQueue", "name": "demo", "uid": "uid-1"});
    assert_eq!(
        patch.body,
        json!({"metadata": {"uid": "claim-0", "resourceVersion": "7",
               "ownerReferences": [{"$patch": "delete", "uid": "set"}, owner]}})
    );
}

/// Kubernetes deletes what belongs to an owner that is gone: `kubectl delete --cascade=orphan` in the middle of a pass.
#[tokio::test]
async fn no_claim_is_given_to_an_object_that_is_gone() {
    let (client, calls) = client(there_for(0));
    own_claims(&client, &demo(), &[change(true, &[])]).await.unwrap();
    assert_eq!(calls.what(), [OBJECT]);
}

#[tokio::test]
async fn a_claim_comes_back_from_an_object_that_went_meanwhile() {
    let (client, calls) = client(there_for(1));
    own_claims(&client, &demo(), &[change(true, &[])]).await.unwrap();
    assert_eq!(calls.what(), [OBJECT, CLAIM, OBJECT, CLAIM]);
    let given_back = json!({"metadata": {"uid": "claim-0",
                            "ownerReferences": [{"$patch": "delete", "uid": "uid-1"}]}});
    assert_eq!(calls.all()[3].body, given_back);
}

#[tokio::test]
async fn a_claim_that_was_changed_meanwhile_is_left_for_the_next_pass() {
    let (client, calls) = client(|_: &Call| refusal(409, "Conflict"));
    own_claims(&client, &demo(), &[change(false, &["uid-1"])]).await.unwrap();
    assert_eq!(calls.what(), [CLAIM], "taking off needs no look at the object");
}
