//! kubectl on a RaftQueue, word by word: what works, and in which words it says what does not. A version of Kubernetes that says
//! something else is noticed here.

use super::{TOLD_WITHIN, manifest, soon};
use crate::case::{Case, Needs, Outcome, Room};
use raftqueue_tests::process::repository;
use serde_json::json;

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

/// The object is paused, and says nothing but what is asked: no node is needed for this.
fn kubectl_does_what_people_expect_or_says_why_not(room: &Room<'_>) -> Outcome {
    room.cluster().run(&["apply", "-f", &repository().join("deploy/crd.yaml").display().to_string()])?;
    let paused = |replicas: i64| manifest("demo", replicas, &json!({"paused": true}));
    soon("the kind to be known", TOLD_WITHIN, || room.apply(&paused(1)).map_err(|error| error.to_string()))?;
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
    says(room, &["autoscale", "rq/demo", "--min=1", "--max=3", "--cpu=80%"], 0, "demo autoscaled")?;

    let path = format!("/apis/raftqueue.io/v1alpha1/namespaces/{}/raftqueues/demo/scale", room.namespace);
    says(room, &["get", "--raw", &path], 0, "\"kind\":\"Scale\"")?;
    says(room, &["get", "--raw", &path], 0, "\"spec\":{\"replicas\":1}")?;

    // What kubectl knows of its own kinds only.
    let unknown = "no kind \"RaftQueue\" is registered for version \"raftqueue.io/v1alpha1\"";
    for word in ["status", "restart", "history", "undo"] {
        says(room, &["rollout", word, "rq/demo"], 1, unknown)?;
    }
    says(room, &["set", "image", "rq/demo", "node=other:1"], 1, unknown)?;

    // What would change.
    let diff = ["-n", &room.namespace, "diff", "--server-side", "--force-conflicts", "-f", "-"];
    room.cluster().with_manifest(&diff, &paused(1))?;
    let differs = room.cluster().with_manifest(&diff, &paused(5)).expect_err("it differs").to_string();
    assert!(differs.contains("+  replicas: 5"), "{differs}");
    says(room, &["delete", "rq", "demo", "--cascade=orphan"], 0, "deleted")?;
    explain(room)
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
