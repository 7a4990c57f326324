//! What a role allows, and what of it was ever used, by the API server's own record of calls.

use serde_json::Value;
use std::collections::BTreeSet;

/// Rights that may be without a call of their own: `verb resource`, and why.
const WITHOUT_CALLS: [(&str, &str); 7] = [
    (
        "update raftqueues/finalizers",
        "OwnerReferencesPermissionEnforcement, for an owner that blocks deletion",
    ),
    ("delete services", "OwnerReferencesPermissionEnforcement, to take over what an earlier object left"),
    ("delete configmaps", "the same"),
    ("delete serviceaccounts", "the same"),
    ("delete secrets", "the same"),
    (
        "delete certificates",
        "only where cert-manager has signed, and other certificates take the place of those",
    ),
    ("list events", "only a look at the moment when a pod is missing asks why"),
];

/// The rights of this role that no call in the record used, each as `verb resource`. What is no call is left out, as are lines that
/// cannot be read: the last one may still be being written.
pub(super) fn unused(role: &Value, record: &str) -> Vec<String> {
    let used: BTreeSet<String> = record
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|call| call["annotations"]["authorization.k8s.io/decision"] == "allow")
        .filter_map(|call| {
            let about = &call["objectRef"];
            let resource = with_group(about["apiGroup"].as_str(), about["resource"].as_str()?);
            let part = about["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
            Some(format!("{} {resource}{part}", call["verb"].as_str()?))
        })
        .collect();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut unused = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for (group, resource) in list(&rule["apiGroups"])
            .iter()
            .flat_map(|group| list(&rule["resources"]).into_iter().map(move |one| (group, one)))
        {
            for verb in list(&rule["verbs"]) {
                let may_be_unused =
                    WITHOUT_CALLS.iter().any(|(right, _)| *right == format!("{verb} {resource}"));
                let right = format!("{verb} {}", with_group(Some(group), &resource));
                if !may_be_unused && !used.contains(&right) {
                    unused.push(right);
                }
            }
        }
    }
    unused
}

/// Events are of two groups.
fn with_group(group: Option<&str>, resource: &str) -> String {
    match group {
        Some("events.k8s.io") => format!("{resource}.events.k8s.io"),
        _ => resource.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_right_is_used_by_a_call_of_its_verb_group_and_part() {
        let role = json!({"rules": [
            {"apiGroups": ["raftqueue.io"], "resources": ["raftqueues", "raftqueues/status"], "verbs": ["get", "patch"]},
            {"apiGroups": ["raftqueue.io"], "resources": ["raftqueues/finalizers"], "verbs": ["update"]},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list"]},
        ]});
        let call = |verb: &str, about: Value, decision: &str| {
            json!({"verb": verb, "objectRef": about, "annotations": {"authorization.k8s.io/decision": decision}}).to_string()
        };
        let queue = |part: Option<&str>| match part {
            None => json!({"apiGroup": "raftqueue.io", "resource": "raftqueues"}),
            Some(part) => json!({"apiGroup": "raftqueue.io", "resource": "raftqueues", "subresource": part}),
        };
        let record = [
            call("get", queue(None), "allow"),
            call("patch", queue(Some("status")), "allow"),
            call("get", queue(Some("status")), "forbid"),
            call("list", json!({"apiGroup": "events.k8s.io", "resource": "events"}), "allow"),
            call("watch", json!({"apiGroup": "events.k8s.io", "resource": "events"}), "allow"),
            "{\"verb\": \"patch\", \"obj".to_owned(),
        ];
        let left = unused(&role, &record.join("\n"));
        assert_eq!(left, ["patch raftqueues", "get raftqueues/status", "watch events"]);
    }
}
