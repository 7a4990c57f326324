//! What only the operator can mend: a quorum that is lost for good, a disk on a machine that is gone, disks that are to grow.

use super::{Queue, TOLD_WITHIN, Undo, condition_of, manifest, soon, uids};
use crate::case::{Case, Needs, Outcome, Room};
use serde_json::{Value, json};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_lost_quorum_goes_on_with_what_is_left",
        needs: Needs::OwnClusterAlone,
        run: a_lost_quorum_goes_on_with_what_is_left,
    },
    Case {
        name: "a_disk_on_a_machine_that_is_gone_is_given_up",
        needs: Needs::OwnCluster,
        run: a_disk_on_a_machine_that_is_gone_is_given_up,
    },
    Case {
        name: "disks_grow_without_a_restart",
        needs: Needs::OwnCluster,
        run: disks_grow_without_a_restart,
    },
];

fn patch(queue: &Queue<'_>, spec: &Value) -> Outcome {
    let patch = json!({ "spec": spec }).to_string();
    queue.room.kubectl(&["patch", "raftqueue", &queue.name, "--type=merge", "-p", &patch])?;
    Ok(())
}

/// Two of three pods find no machine, and their disks come back only after somebody has let the third node go on alone.
fn a_lost_quorum_goes_on_with_what_is_left(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    queue.publish("orders", &["one", "two"])?;
    let before = uids(&queue, "pvc")?;
    let machine = room.cluster().run(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let open = Undo::at_the_end(|| Ok(room.cluster().run(&["uncordon", &machine]).map(drop)?));
    room.cluster().run(&["cordon", &machine])?;
    room.kubectl(&["delete", "pods", "demo-0", "demo-1"])?;

    let object = queue.wait_condition("RecoveryPossible", "True", Some("RecoveryOffered"), TOLD_WITHIN)?;
    let offer = &object["status"]["recovery"];
    assert_eq!(offer["member"], "demo-2", "{offer}");
    let words = offer["message"].as_str().unwrap_or_default();
    assert!(words.contains("is lost: this node never got it"), "{words}");
    assert_eq!(condition_of(&object, "Available")["status"], "False", "{object}");
    // What does not fit is answered, and nothing is done.
    patch(&queue, &json!({"recovery": {"member": "demo-2", "token": "5d1c"}}))?;
    let object = queue.wait_condition("RecoveryPossible", "True", Some("RecoveryStale"), TOLD_WITHIN)?;
    assert_eq!(object["status"]["generation"], 0, "{object}");

    type_command(room, words)?;
    queue.wait_condition("Available", "True", Some("LeaderElected"), TOLD_WITHIN)?;
    queue.wait_event("GenerationRaised", "generation 1")?;
    queue.wait_event("QuorumRecovered", "demo-2 goes on alone")?;
    queue.raftq("demo-2", &["publish", "orders", "three"])?;
    assert_eq!(uids(&queue, "pvc")?, before, "nobody's disk is touched while its node does not even run");

    // The old disks come back: they are of no use any more.
    open.now()?;
    let object = queue.wait_ready()?;
    assert_eq!(object["status"]["generation"], 1, "{object}");
    assert!(object["status"]["recovery"].is_null(), "{object}");
    queue.wait_event("OldDiskDeleted", "was left behind")?;
    let after = uids(&queue, "pvc")?;
    let kept = |name: &str| before[name] == after[name];
    assert_eq!([kept("data-demo-0"), kept("data-demo-1"), kept("data-demo-2")], [false, false, true]);

    // The same by hand, without a word to the operator: the disks that come back stay until the spec allows them to go.
    room.cluster().run(&["cordon", &machine])?;
    let open = Undo::at_the_end(|| Ok(room.cluster().run(&["uncordon", &machine]).map(drop)?));
    room.kubectl(&["delete", "pods", "demo-0", "demo-1"])?;
    let object = queue.wait_condition("RecoveryPossible", "True", Some("RecoveryStale"), TOLD_WITHIN)?;
    let token = object["status"]["recovery"]["token"].as_str().unwrap_or_default();
    queue.raftq("demo-2", &["recover", "demo-2", "--token", token])?;
    queue.wait_event("GenerationRaised", "generation 2")?;
    open.now()?;
    let object = queue.wait_condition("StorageReady", "False", Some("DiskLeftBehind"), TOLD_WITHIN)?;
    let words = condition_of(&object, "StorageReady")["message"].as_str().unwrap_or_default();
    assert!(words.contains("is 1, which allows none of it"), "{words}");
    assert_eq!(uids(&queue, "pvc")?, after, "nobody has allowed that a disk goes");
    type_command(room, words)?;
    let object = queue.wait_ready()?;
    assert_eq!(object["status"]["generation"], 2, "{object}");
    assert_ne!(uids(&queue, "pvc")?, after);
    assert_eq!(queue.receive("orders", 3)?, ["one", "two", "three"]);
    Ok(())
}

/// Types the patch that a message tells, as a person would.
fn type_command(room: &Room<'_>, message: &str) -> Outcome {
    let (_, rest) = message.split_once("kubectl patch").ok_or("a command")?;
    let mut parts = rest.split('\'');
    let (words, patch) = (parts.next().ok_or("words")?, parts.next().ok_or("a patch")?);
    let words: Vec<&str> = words.split_whitespace().collect();
    room.cluster().run(&[&["patch"], &words[..], &[patch]].concat())?;
    Ok(())
}

/// A pod gets a volume that lies on a machine which is no more: it would wait for ever.
fn a_disk_on_a_machine_that_is_gone_is_given_up(room: &Room<'_>) -> Outcome {
    let queue = Queue::ready(room, "demo", 3)?;
    queue.publish("orders", &["one", "two"])?;
    let name = format!("gone-{}", room.namespace);
    let terms = json!([{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["machine-that-is-gone"]}]}]);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "local", "local": {"path": "/nowhere"},
        "claimRef": {"namespace": room.namespace, "name": "data-demo-2"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
    room.cluster().apply(&volume.to_string())?;
    let remove =
        Undo::at_the_end(|| Ok(room.cluster().run(&["delete", "pv", &name, "--wait=false"]).map(drop)?));
    room.kubectl(&["delete", "pvc", "data-demo-2", "--wait=false"])?;
    room.kubectl(&["delete", "pod", "demo-2"])?;
    let object = queue.wait_condition("Ready", "False", Some("DiskStranded"), TOLD_WITHIN)?;
    let message = condition_of(&object, "Ready")["message"].to_string();
    assert!(message.contains("machine machine-that-is-gone, which is gone"), "{message}");
    queue.wait_event("DiskGivenUp", "the log from the others")?;
    queue.wait_ready()?;
    let claim = room.get("pvc", "data-demo-2")?;
    assert_ne!(claim["spec"]["volumeName"], json!(name), "{claim}");
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    remove.now()
}

/// The claims ask for more, the set is made anew, and no pod notices.
fn disks_grow_without_a_restart(room: &Room<'_>) -> Outcome {
    let class = format!("growing-{}", room.namespace);
    let object = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate", "reclaimPolicy": "Retain"});
    room.cluster().apply(&object.to_string())?;
    room.own().volumes().make_of_class(&class, 3)?;
    let sized = |size: &str| json!({"storage": {"size": size, "storageClassName": class}});
    let queue = Queue::applied_with(room, "demo", 3, &sized("1Gi"))?;
    queue.wait_ready()?;
    queue.publish("orders", &["one", "two"])?;
    let before = (uids(&queue, "pods")?, uids(&queue, "pvc")?, uids(&queue, "statefulset")?);

    // Its class does not let them grow: that is said, and the way back is open.
    room.apply(&manifest("demo", 3, &sized("2Gi")))?;
    let object = queue.wait_condition("Reconciled", "False", Some("CallFailed"), TOLD_WITHIN)?;
    let message = condition_of(&object, "Reconciled")["message"].to_string();
    assert!(message.contains("allowVolumeExpansion"), "{message}");
    room.apply(&manifest("demo", 3, &sized("1Gi")))?;
    queue.wait_ready()?;

    room.cluster().run(&["patch", "storageclass", &class, "-p", r#"{"allowVolumeExpansion":true}"#])?;
    room.apply(&manifest("demo", 3, &sized("2Gi")))?;
    soon("a set for larger disks", TOLD_WITHIN, || {
        let set = room.get("statefulset", "demo").map_err(|error| error.to_string())?;
        let size = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
        (size == "2Gi").then_some(()).ok_or_else(|| set.to_string())
    })?;
    let object = queue.wait_ready()?;
    assert_eq!(object["status"]["diskSize"], "2Gi", "{object}");
    let after = (uids(&queue, "pods")?, uids(&queue, "pvc")?, uids(&queue, "statefulset")?);
    assert_eq!((&before.0, &before.1), (&after.0, &after.1), "no pod and no claim is another one");
    assert_ne!(before.2, after.2);
    assert_eq!(queue.restarts()?, 0);
    queue.wait_condition("UpToDate", "True", None, TOLD_WITHIN)?;
    let text = room.apply(&manifest("demo", 3, &sized("1Gi"))).expect_err("disks do not shrink").to_string();
    assert!(text.contains("must not be below that of the disks"), "{text}");
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    Ok(())
}
