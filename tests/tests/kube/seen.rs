//! What Kubernetes does that one would not guess, and that the operator counts on or guards against. A version that does otherwise
//! is noticed by the case that is named.
//!
//! | what it does | case |
//! |---|---|
//! | A set that is scaled up again while its old pod still ends gets the old claim and its data; `whenScaled: Delete` takes its owner off again, but only while a container of the pod still runs: one that has ended is passed over, and the claim goes with it | `scaling::members_come_and_go`, [`a_set_sleeps`] |
//! | A set that waits for a claim to go makes no pod when it has gone, until it is touched | [`a_set_sleeps`] |
//! | A set that is scaled down deletes its highest pod at once, whatever a budget says | `disks::rule_10_7` |
//! | Under `OnDelete` `currentRevision` stays behind, and only a pod's `controller-revision-hash` tells what it was made from | [`revisions`], `scaling::changed_settings` |
//! | `kubectl rollout status` refuses a set that is `OnDelete`; on a RaftQueue all of `rollout` and `set image` is refused | [`revisions`], `words` |
//! | Names above 52 characters make pods whose label is too long: a RaftQueue's has 40 | `refusals::specs_that_cannot_be` |
//! | Applied without `replicas` by the one who had it, a set falls to 1 | [`a_set_without_a_number`] |
//! | A set that is deleted without its pods takes no claim, and another of its name adopts them; their template is the same only with `restartedAt` | `disks::rule_10_7`, `scaling::changed_settings` |
//! | Whether a claim goes with an object is said by its owners, and follows a policy that turns only where somebody changes them | `disks::rule_10_7` |
//! | An owner that is gone, or never was, is accepted; what it owns is deleted | [`an_owner_that_never_was`], `lives::rule_1_7` |
//! | A pod on a lost machine stays for ever | none: it takes six minutes and a second machine. A machine that is gone is in `mending::a_disk_on_a_machine` |
//! | A rule on a field is obeyed by the scale subresource, too, and named in its words | `words` |
//! | A new rule on a field leaves objects alone that were made before it; one at the root refuses their labels and their status | [`rules_of_a_definition`] |
//! | A rule about old and new values is got round by leaving the field out; one on its parent is not | `words` |
//! | `quantity` of a number fails where it is judged | `words` |
//! | An autoscaler that is refused says so in one condition only, and needs `status.selector` | `words` |
//! | `kubectl scale --timeout` fails though it has scaled; `--sort-by` what nobody has finds nothing | `words` |
//! | A status that is written with the object is ignored in silence; fields that a definition lacks are dropped | `words`, `refusals::an_older_definition` |
//! | What `kubectl scale` has set is a conflict for who applies another number | `words` |
//! | Quantities come back in another spelling | `refusals::specs_that_cannot_be` |
//! | Settings reach a pod that runs a minute later: the operator restarts pods instead | `scaling::changed_settings` |
//! | Names of pods that are not ready are there, by the service of the set alone | every cluster that forms: each node needs all names first |
//! | With `IfHealthyBudget` and all pods unready no eviction takes one | `refusals::without_names` |
//! | A namespace that goes: creates are 403 "being terminated", and claims go whatever the policy | `storms::an_api_server_that_misbehaves` |
//! | The deletion of an owner is in no order | `disks::rule_10_7`, `lives::rule_1_7` |
//! | The usual watcher comes back up to half a minute after the API server: the operator has its own pace | `refusals::the_api_server_restarts` |
//! | Several changes during a pass give one further pass | unit tests of the operator's loop |
//! | Prometheus takes `text/plain` and OpenMetrics, and nothing without a content type | `watched` |

use crate::case::{Case, Needs, Outcome, POD_WITHIN, Room};
use crate::harness::probe_spec;
use crate::product::{BoxError, TOLD_WITHIN, Undo, soon};
use raftqueue_tests::kube::node::PROBE_IMAGE;
use serde_json::{Value, json};

pub(crate) const CASES: &[Case] = &[Case {
    name: "kubernetes_does_what_the_operator_counts_on",
    needs: Needs::OwnCluster,
    run: kubernetes_does_what_the_operator_counts_on,
}];

fn kubernetes_does_what_the_operator_counts_on(room: &Room<'_>) -> Outcome {
    an_owner_that_never_was(room)?;
    a_set_without_a_number(room)?;
    revisions(room)?;
    let wake = a_set_sleeps(room)?;
    rules_of_a_definition(room)?;
    wake(room)?;
    soon("what belongs to nobody to go", TOLD_WITHIN, || {
        match room.kubectl(&["get", "configmap", "owned", "--ignore-not-found", "-o", "name"]) {
            Ok(left) if left.trim().is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    Ok(())
}

/// The operator reads its object from the API server before it makes children of it.
fn an_owner_that_never_was(room: &Room<'_>) -> Outcome {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "00000000-0000-4000-8000-000000000000"});
    let owned = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "owned", "ownerReferences": [owner]}});
    room.apply(&owned.to_string())?;
    Ok(())
}

/// A set of probes with a volume each.
fn set(name: &str, replicas: Option<u32>) -> Value {
    let labels = json!({"app": name});
    let spec = probe_spec(PROBE_IMAGE, r#""volumeMounts": [{"name": "data", "mountPath": "/data"}],"#);
    let spec: Value = serde_json::from_str(&spec).expect("it is JSON");
    let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": {
        "serviceName": name, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"},
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Delete"},
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}]}});
    if let Some(replicas) = replicas {
        set["spec"]["replicas"] = replicas.into();
    }
    set
}

/// The operator always says how many.
fn a_set_without_a_number(room: &Room<'_>) -> Outcome {
    room.apply(&set("bare", Some(0)).to_string())?;
    room.apply(&set("bare", None).to_string())?;
    assert_eq!(room.get("statefulset", "bare")?["spec"]["replicas"], 1);
    room.kubectl(&["delete", "statefulset", "bare", "--wait=false"])?;
    Ok(())
}

/// Which template a pod was made from is told by the pod, and not by what the set says of itself.
fn revisions(room: &Room<'_>) -> Outcome {
    room.apply(&set("web", Some(2)).to_string())?;
    let pods = [room.wait_for_pod("web-0")?, room.wait_for_pod("web-1")?];
    let of = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"].clone();
    let first = of(&pods[0]);
    // The newer pods end late, which `a_set_sleeps` needs.
    let late = json!({"name": "probe", "lifecycle": {"preStop": {"sleep": {"seconds": 20}}}});
    let spec = json!({"terminationGracePeriodSeconds": 30, "containers": [late]});
    let edit = json!({"spec": {"template": {"spec": spec}}}).to_string();
    room.kubectl(&["patch", "statefulset", "web", "-p", &edit])?;
    let get = ["statefulset", "web", "-n", &room.namespace];
    let newer = |set: &Value| {
        let (status, generation) = (&set["status"], &set["metadata"]["generation"]);
        let is_seen = status["observedGeneration"] == *generation && status["updateRevision"] != first;
        is_seen.then(|| status.clone()).ok_or_else(|| status.to_string())
    };
    room.cluster().wait_until("a newer revision", TOLD_WITHIN, &get, newer)?;
    let rollout = room.kubectl(&["rollout", "status", "statefulset/web"]).expect_err("it is OnDelete");
    let refused = "rollout status is only available for RollingUpdate strategy type";
    assert!(rollout.to_string().contains(refused), "{rollout}");
    for (name, before) in ["web-0", "web-1"].into_iter().zip(&pods) {
        assert_eq!(
            room.get("pod", name)?["metadata"]["uid"],
            before["metadata"]["uid"],
            "nobody restarts it"
        );
        room.kubectl(&["delete", "pod", name])?;
        assert_ne!(of(&room.wait_for_pod(name)?), first);
    }
    let status = room.cluster().wait_until("two newer pods", TOLD_WITHIN, &get, |set| {
        let status = newer(set)?;
        (status["readyReplicas"] == 2).then(|| status.clone()).ok_or_else(|| status.to_string())
    })?;
    assert_eq!(status["currentRevision"], first, "though no pod is of it: {status}");
    Ok(())
}

/// Scaled up again while the old pod still ends, the set gives the old claim back. While the claim is held up on its way out there is
/// no pod. Returns what wakes the set once the claim has gone.
fn a_set_sleeps(room: &Room<'_>) -> Result<fn(&Room<'_>) -> Outcome, BoxError> {
    let scale = |replicas: &str| room.kubectl(&["scale", "statefulset/web", "--replicas", replicas]);
    let claim = || room.get("pvc", "data-web-1");
    let before = claim()?["metadata"]["uid"].clone();
    room.exec("web-1", &["/probe", "write", "/data/kept", "something"])?;
    let hold = |kind: &str, name: &str, finalizers: Value| {
        let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
        room.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch])
    };
    let wait_until_deleted = |kind: &str, name: &str| {
        let get = [kind, name, "-n", &room.namespace];
        room.cluster().wait_until("what is held to be deleted", TOLD_WITHIN, &get, |held| {
            let deleted = &held["metadata"]["deletionTimestamp"];
            deleted.is_string().then_some(()).ok_or_else(|| held["metadata"].to_string())
        })
    };
    let wait_until_seen = || {
        let get = ["statefulset", "web", "-n", &room.namespace];
        room.cluster().wait_until("the set to be looked at", TOLD_WITHIN, &get, |set| {
            let is_seen = set["status"]["observedGeneration"] == set["metadata"]["generation"];
            is_seen.then_some(()).ok_or_else(|| set["status"].to_string())
        })
    };
    // The pod needs no longer to end than this, now that what it was to wait for has happened.
    let end_now = || room.kubectl(&["delete", "pod", "web-1", "--grace-period=1", "--wait=false"]);
    // The pod's container runs on until the set has seen that it is wanted again: the set passes over the claims of a pod whose
    // containers have ended, however often it looks.
    scale("1")?;
    wait_until_deleted("pod", "web-1")?;
    scale("2")?;
    // The set looks at the claims that it remembers, which may be those of before: then the claim still belongs to the pod, and goes
    // with it if nothing makes the set look once more.
    let get = ["pvc", "data-web-1", "-n", &room.namespace];
    let mut touches = 0_u32;
    room.cluster().wait_until("the claim to be the set's again", TOLD_WITHIN, &get, |claim| {
        let owner = &claim["metadata"]["ownerReferences"][0]["kind"];
        if owner == "StatefulSet" {
            return Ok(());
        }
        touches += 1;
        room.kubectl(&["annotate", "statefulset", "web", "--overwrite", &format!("touched={touches}")])
            .map_err(|error| error.to_string())?;
        let pod = room.get("pod", "web-1").map_err(|error| error.to_string())?;
        Err(format!("{owner}, with the pod {}", pod["status"]["phase"]))
    })?;
    // The one that ends is ready until its container has ended.
    let ending = room.get("pod", "web-1")?["metadata"]["uid"].clone();
    end_now()?;
    soon("another pod", POD_WITHIN, || {
        let pod = room.get("pod", "web-1").map_err(|error| error.to_string())?;
        (pod["metadata"]["uid"] != ending).then_some(()).ok_or_else(|| pod["status"].to_string())
    })?;
    room.wait_for_pod("web-1")?;
    let back = claim()?;
    assert_eq!(back["metadata"]["uid"], before, "{back}");
    assert_eq!(room.exec("web-1", &["/probe", "read", "/data/kept"])?, "something");

    hold("pvc", "data-web-1", json!(["kubernetes.io/pvc-protection", "raftqueue.io/held"]))?;
    scale("1")?;
    wait_until_deleted("pod", "web-1")?;
    end_now()?;
    wait_until_deleted("pvc", "data-web-1")?;
    room.kubectl(&["wait", "pod/web-1", "--for=delete", "--timeout=60s"])?;
    scale("2")?;
    wait_until_seen()?;
    hold("pvc", "data-web-1", Value::Null)?;
    room.kubectl(&["wait", "pvc/data-web-1", "--for=delete", "--timeout=60s"])?;
    Ok(|room| {
        let left = room.kubectl(&["get", "pod", "web-1", "--ignore-not-found", "-o", "name"])?;
        assert_eq!(left.trim(), "", "the set has noticed by itself that the claim is gone");
        room.kubectl(&["annotate", "statefulset", "web", "woken=yes"])?;
        room.cluster().wait_for_pod(&room.namespace, "web-1", POD_WITHIN)?;
        room.kubectl(&["delete", "statefulset", "web", "--wait=false"])?;
        Ok(())
    })
}

/// A definition of a kind of its own, with a rule on a field, at the root, or without one.
fn definition(on_field: bool, at_root: bool) -> String {
    let rule = |path: &str, message: &str| json!([{"rule": format!("{path} % 2 == 1"), "message": message}]);
    let mut count = json!({"type": "integer"});
    if on_field {
        count["x-kubernetes-validations"] = rule("self", "count must be odd");
    }
    let mut schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"count": count, "colour": {"type": "string"}}},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}});
    if at_root {
        schema["x-kubernetes-validations"] = rule("self.spec.count", "the whole must be odd");
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.seen.raftqueue.io"}, "spec": {
            "group": "seen.raftqueue.io", "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}}]}})
    .to_string()
}

/// The rules at the root of a RaftQueue judge only what is being changed.
fn rules_of_a_definition(room: &Room<'_>) -> Outcome {
    let delete = ["delete", "crd", "things.seen.raftqueue.io", "--wait=false"];
    let gone = Undo::at_the_end(|| Ok(room.cluster().run(&delete).map(drop)?));
    let thing = |name: &str| {
        json!({"apiVersion": "seen.raftqueue.io/v1", "kind": "Thing", "metadata": {"name": name},
            "spec": {"count": 2, "colour": "red"}})
        .to_string()
    };
    room.cluster().apply(&definition(false, false))?;
    soon("the kind to be known", TOLD_WITHIN, || {
        room.apply(&thing("old")).map_err(|error| error.to_string())
    })?;
    // A rule is there once it is obeyed by an object that is new.
    let ruled = |on_field: bool, at_root: bool, words: &str| -> Outcome {
        room.cluster().apply(&definition(on_field, at_root))?;
        let create = ["-n", room.namespace.as_str(), "create", "--dry-run=server", "-f", "-"];
        soon(&format!("`{words}`"), TOLD_WITHIN, || {
            match room.cluster().with_manifest(&create, &thing("new")) {
                Err(error) if error.to_string().contains(words) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        Ok(())
    };
    let patched = |more: &[&str], patch: &str| {
        room.kubectl(&[&["patch", "thing", "old", "--type=merge", "-p", patch], more].concat())
    };
    let refused = |more: &[&str], patch: &str, words: &str| {
        let said = patched(more, patch).expect_err(patch).to_string();
        assert!(said.contains(words), "{patch}: {said}");
    };
    ruled(true, false, "count must be odd")?;
    patched(&[], r#"{"metadata": {"labels": {"a": "b"}}, "spec": {"colour": "blue"}}"#)?;
    patched(&["--subresource=status"], r#"{"status": {"phase": "Well"}}"#)?;
    refused(&[], r#"{"spec": {"count": 4}}"#, "count must be odd");
    ruled(false, true, "the whole must be odd")?;
    refused(&[], r#"{"metadata": {"labels": {"a": "c"}}}"#, "the whole must be odd");
    refused(&["--subresource=status"], r#"{"status": {"phase": "Ill"}}"#, "the whole must be odd");
    gone.now()
}
