//! kubectl on a RaftQueue, word by word: what works, and in which words it says what does not. A version of Kubernetes that says
//! something else is noticed here.

use super::{TOLD_WITHIN, condition_of, install, manifest, soon};
use crate::case::{Case, Needs, Outcome, Room};
use serde_json::{Value, json};

pub(crate) const CASES: &[Case] = &[Case {
    name: "kubectl_does_what_people_expect_or_says_why_not",
    needs: Needs::Cluster,
    run: kubectl_does_what_people_expect_or_says_why_not,
}];

/// What kubectl says, and how it ends.
fn says(room: &Room<'_>, words: &[&str], code: i32, expected: &str) -> Outcome {
    let output = room.cluster().output(&[&["-n", room.namespace.as_str()], words].concat())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "kubectl {words:?}: {out}{err}");
    let is_said = out.contains(expected) || err.contains(expected);
    assert!(is_said, "kubectl {words:?}: `{expected}` is not in: {out}{err}");
    Ok(())
}

fn paused(name: &str, replicas: i64) -> String {
    manifest(name, replicas, &json!({"paused": true}))
}

/// The object is paused, and the operator only says how it is: no node is needed for this.
fn kubectl_does_what_people_expect_or_says_why_not(room: &Room<'_>) -> Outcome {
    install(room)?;
    room.apply(&paused("demo", 1))?;
    room.apply(&paused("sized", 1))?;
    // It takes its time until it knows a new kind, so it is asked what became of it at the end.
    says(room, &["autoscale", "rq/sized", "--min=3", "--max=5", "--cpu=80%"], 0, "sized autoscaled")?;
    says(room, &["get", "rq", "demo", "--watch", "--request-timeout=1s"], 0, "DESIRED")?;
    says(room, &["get", "all"], 0, "raftqueue.raftqueue.io/demo")?;
    says(
        room,
        &["wait", "--for=jsonpath={.spec.replicas}=1", "rq/demo", "--timeout=60s"],
        0,
        "condition met",
    )?;

    // Sizes: by hand, by an autoscaler, by whoever writes the scale subresource (KEDA does).
    says(room, &["scale", "rq/demo", "--replicas=2"], 1, "replicas must be odd")?;
    says(room, &["scale", "rq/demo", "--replicas=3"], 0, "raftqueue.raftqueue.io/demo scaled")?;
    let scale = ["patch", "rq", "demo", "--subresource=scale", "--type=merge", "-p"];
    says(room, &[&scale[..], &[r#"{"spec":{"replicas":1}}"#]].concat(), 0, "scale.autoscaling/demo patched")?;
    says(room, &[&scale[..], &[r#"{"spec":{"replicas":4}}"#]].concat(), 1, "replicas must be odd")?;
    let path = format!("/apis/raftqueue.io/v1alpha1/namespaces/{}/raftqueues/demo/scale", room.namespace);
    says(room, &["get", "--raw", &path], 0, "\"kind\":\"Scale\"")?;
    says(room, &["get", "--raw", &path], 0, "\"spec\":{\"replicas\":1}")?;

    what_is_not_done_or_not_said(room)?;

    // What kubectl knows of its own kinds only.
    let unknown = "no kind \"RaftQueue\" is registered for version \"raftqueue.io/v1alpha1\"";
    for word in ["status", "restart", "history", "undo"] {
        says(room, &["rollout", word, "rq/demo"], 1, unknown)?;
    }
    says(room, &["set", "image", "rq/demo", "node=other:1"], 1, unknown)?;

    // What would change.
    let diff = ["-n", &room.namespace, "diff", "--server-side", "--force-conflicts", "-f", "-"];
    room.cluster().with_manifest(&diff, &paused("demo", 1))?;
    let differs =
        room.cluster().with_manifest(&diff, &paused("demo", 5)).expect_err("it differs").to_string();
    assert!(differs.contains("+  replicas: 5"), "{differs}");
    says(room, &["delete", "rq", "demo", "--cascade=orphan"], 0, "deleted")?;
    explain(room)?;
    an_autoscaler_writes_what_may_be(room)
}

/// What fails though it was done, what is done though nothing changes, and what somebody else has set.
fn what_is_not_done_or_not_said(room: &Room<'_>) -> Outcome {
    let timed_out = "timed out waiting for \"demo\" to be synced";
    says(room, &["scale", "rq/demo", "--replicas=3", "--timeout=1s"], 1, timed_out)?;
    assert_eq!(room.get("rq", "demo")?["spec"]["replicas"], 3, "it was scaled");
    let conflict = room.apply(&paused("demo", 1)).expect_err("kubectl scale has set another").to_string();
    assert!(conflict.contains("conflict") && conflict.contains(".spec.replicas"), "{conflict}");
    says(room, &["scale", "rq/demo", "--replicas=1"], 0, "scaled")?;
    says(room, &["get", "rq", "--sort-by=.status.nobodyHasThis"], 0, "No resources found")?;
    let status = ["patch", "rq", "demo", "--type=merge", "-p", r#"{"status":{"message":"all is well"}}"#];
    says(room, &status, 0, "patched")?;
    assert_ne!(room.get("rq", "demo")?["status"]["message"], "all is well");

    // A field that is left out and comes back with another value would get round a rule of its own.
    let with = |storage: &Value| manifest("classy", 1, &json!({"paused": true, "storage": storage}));
    room.apply(&with(&json!({"storageClassName": "slow"})))?;
    for storage in [json!({}), json!({"storageClassName": "fast"})] {
        let refused = room.apply(&with(&storage)).expect_err("a class stays").to_string();
        assert!(refused.contains("storage.storageClassName cannot change"), "{storage}: {refused}");
    }
    // Quantities may be numbers.
    let numbers = json!({"paused": true, "resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}});
    let refused =
        room.apply(&manifest("numbers", 1, &numbers)).expect_err("more than it may have").to_string();
    assert!(refused.contains("resources.requests cannot exceed resources.limits"), "{refused}");
    Ok(())
}

/// An autoscaler finds out how many there are, and asks for as many as it is told to. What it may not ask for it says itself, in the
/// words of the definition, and nothing changes.
fn an_autoscaler_writes_what_may_be(room: &Room<'_>) -> Outcome {
    let sized = || room.get("rq", "sized").map_err(|error| error.to_string());
    soon("the autoscaler to ask for three", TOLD_WITHIN, || {
        let object = sized()?;
        (object["spec"]["replicas"] == 3).then_some(()).ok_or_else(|| {
            let scaler = room.get("hpa", "sized").map(|scaler| scaler["status"].to_string());
            format!("{} {scaler:?}", object["spec"])
        })
    })?;
    room.kubectl(&["patch", "hpa", "sized", "--type=merge", "-p", r#"{"spec":{"minReplicas":4}}"#])?;
    let get = ["hpa", "sized", "-n", &room.namespace];
    let scaler = room.cluster().wait_until("the autoscaler to be refused", TOLD_WITHIN, &get, |scaler| {
        let able = condition_of(scaler, "AbleToScale");
        (able["reason"] == "FailedUpdateScale")
            .then(|| able.clone())
            .ok_or_else(|| scaler["status"].to_string())
    })?;
    assert_eq!(scaler["status"], "False", "{scaler}");
    assert!(scaler["message"].to_string().contains("replicas must be odd"), "{scaler}");
    assert_eq!(sized()?["spec"]["replicas"], 3);
    says(room, &["get", "hpa", "sized"], 0, "RaftQueue/sized")
}

/// What a field is for can be read without leaving the terminal.
fn explain(room: &Room<'_>) -> Outcome {
    let explained = |path: &str| room.kubectl(&["explain", path]);
    // A definition that was made just now is not explained yet.
    let spec = soon("an explanation", TOLD_WITHIN, || {
        explained("raftqueue.spec").map_err(|error| error.to_string())
    })?;
    for words in [
        "KIND:       RaftQueue",
        "VERSION:    v1alpha1",
        "What a user asks for.",
        "replicas\t<integer>",
        "storage\t<Object>",
        "networkPolicy\t<Object>",
        "Nodes of the cluster: 1, 3, 5, 7 or 9.",
    ] {
        assert!(spec.contains(words), "`{words}` is not in: {spec}");
    }
    let retention = explained("rq.spec.storage.retention.whenScaled")?;
    assert!(retention.contains("ENUM:\n    Retain\n    Delete"), "{retention}");
    let interval = explained("rq.spec.monitoring.serviceMonitor.interval")?;
    assert!(interval.contains("such as 30s"), "{interval}");
    let plan = explained("rq.status.plan")?;
    assert!(plan.contains("step by step"), "{plan}");
    Ok(())
}
