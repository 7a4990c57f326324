//! An operator that lacks a right: what it may not do is said, with what to do about it, in a condition of the object, or in an event
//! where it may not even write that. Once it has the right all is as asked, without another hand.

use super::gated::Operator;
use super::{
    BoxError, Queue, TOLD_WITHIN, Undo, bring_operator_back, condition_of, install, manifest, soon,
    take_operator_away, uids,
};
use crate::case::{Case, Needs, Outcome, Room};
use serde_json::{Value, json};

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_right_that_lacks_is_told_and_all_heals_with_it",
    needs: Needs::OwnClusterAlone,
    run: a_right_that_lacks_is_told_and_all_heals_with_it,
}];

/// The role that is installed.
const WHOLE: &str = "raftqueue-operator";

/// The rights of somebody who may do what the operator may, in the case's namespace, as far as they are granted.
struct Rights<'a> {
    room: &'a Room<'a>,
    /// Name of the role.
    name: String,
    rules: Vec<Value>,
}

impl<'a> Rights<'a> {
    fn of(room: &'a Room<'a>) -> Result<Self, BoxError> {
        let whole = room.cluster().json(&["get", "clusterrole", WHOLE])?;
        let mut rules = whole["rules"].as_array().cloned().ok_or("rules")?;
        let lease = ["get", "create", "update"];
        rules.push(json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": lease}));
        Ok(Self { room, name: format!("limited-{}", room.namespace), rules })
    }

    fn user(&self) -> String {
        format!("system:serviceaccount:{}:limited", self.room.namespace)
    }

    /// Binds them in the namespace, where they are to be had once [`Rights::grant_but`] has said which.
    fn bind(&self) -> Outcome {
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.name});
        let subject = json!({"kind": "ServiceAccount", "name": "limited", "namespace": self.room.namespace});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "limited"}, "roleRef": role, "subjects": [subject]});
        self.room.apply(&binding.to_string())?;
        Ok(())
    }

    /// Grants all but what is named, as `verb resource`. Nothing is named: all.
    fn grant_but(&self, lacks: Option<&str>) -> Outcome {
        let lacks = lacks.and_then(|lacks| lacks.split_once(' '));
        // A rule for each resource, so that one of them can lack a verb that others of its rule have.
        let each = self.rules.iter().flat_map(|rule| {
            let resources = rule["resources"].as_array().cloned().unwrap_or_default();
            resources.into_iter().map(move |resource| {
                let verbs = rule["verbs"].as_array().cloned().unwrap_or_default();
                let is_had =
                    |verb: &Value| !lacks.is_some_and(|(lacks, of)| *verb == lacks && resource == of);
                let verbs: Vec<Value> = verbs.into_iter().filter(is_had).collect();
                json!({"apiGroups": rule["apiGroups"], "resources": [resource], "verbs": verbs})
            })
        });
        let rules: Vec<Value> = each.filter(|rule| rule["verbs"] != json!([])).collect();
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": self.name}, "rules": rules});
        self.room.cluster().apply(&role.to_string())?;
        self.wait(lacks.unwrap_or(("watch", "pods")), lacks.is_none())
    }

    /// The API server judges by what it has heard of roles, a little later.
    fn wait(&self, (verb, resource): (&str, &str), may: bool) -> Outcome {
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let (part, user) = (format!("--subresource={part}"), self.user());
        let asked = ["auth", "can-i", verb, resource, &part, "--as", &user, "-n", &self.room.namespace];
        soon("the rights as granted", TOLD_WITHIN, || {
            let answer = self.room.cluster().output(&asked).map_err(|error| error.to_string())?;
            let said = String::from_utf8_lossy(&answer.stdout).into_owned();
            (said.trim() == if may { "yes" } else { "no" }).then_some(()).ok_or(said)
        })?;
        Ok(())
    }
}

/// What is provoked while a right lacks.
type Act = fn(&Room<'_>) -> Outcome;

fn touch(room: &Room<'_>) -> Outcome {
    let now = format!("touched={}", std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
    room.kubectl(&["annotate", "raftqueue", "demo", "--overwrite", &now])?;
    Ok(())
}

fn a_right_that_lacks_is_told_and_all_heals_with_it(room: &Room<'_>) -> Outcome {
    install(room)?;
    let bring_back = Undo::at_the_end(|| Ok(bring_operator_back(room)?));
    take_operator_away(room)?;
    let rights = Rights::of(room)?;
    let delete = ["delete", "clusterrole", &rights.name, "--ignore-not-found"];
    let forget = Undo::at_the_end(|| Ok(room.cluster().run(&delete).map(drop)?));
    rights.bind()?;
    rights.grant_but(None)?;
    rights.grant_but(Some("create statefulsets"))?;
    let operator = Operator::acting_as(room, &rights.user())?;
    room.apply(&manifest("demo", 1, &json!({})))?;
    let queue = Queue { room, name: "demo".to_owned() };
    let told = |words: &[&str]| -> Outcome {
        let object = queue.wait_condition("Reconciled", "False", Some("CallFailed"), TOLD_WITHIN)?;
        let message = condition_of(&object, "Reconciled")["message"].to_string();
        for words in [&["is forbidden", "kubectl apply -k deploy"], words].concat() {
            assert!(message.contains(words), "`{words}` is not in: {message}");
        }
        Ok(())
    };
    told(&["cannot make StatefulSet demo"])?;
    rights.grant_but(None)?;
    queue.wait_ready()?;
    queue.publish("orders", &["one", "two"])?;

    let acts: [(&str, Act, &str); 4] = [
        ("list pods", touch, "cannot look at the cluster: pods is forbidden"),
        ("get services", touch, "cannot look at the cluster: services"),
        (
            "patch configmaps",
            |room| {
                let edit = json!({"data": {"settings.json": "{}"}}).to_string();
                room.kubectl(&["patch", "configmap", "demo-config", "--type=merge", "-p", &edit])?;
                Ok(())
            },
            "cannot apply ConfigMap demo-config",
        ),
        (
            "delete pods",
            |room| {
                room.kubectl(&["rollout", "restart", "statefulset/demo"])?;
                Ok(())
            },
            "cannot delete Pod demo-0",
        ),
    ];
    for (lacks, act, words) in acts {
        rights.grant_but(Some(lacks))?;
        act(room)?;
        told(&[words]).map_err(|error| format!("without `{lacks}`: {error}"))?;
        rights.grant_but(None)?;
        queue.wait_condition("Reconciled", "True", None, TOLD_WITHIN)?;
        queue.wait_ready()?;
    }

    // What cannot be written into the object is told by an event.
    rights.grant_but(Some("patch raftqueues/status"))?;
    room.kubectl(&["delete", "service", "demo"])?;
    room.apply(&manifest("demo", 3, &json!({})))?;
    queue.wait_event("StatusNotWritten", "kubectl apply -k deploy")?;
    rights.grant_but(None)?;
    queue.wait_ready()?;

    // A watch that was refused from the beginning fails no call: it is told all the same.
    let before = uids(&queue, "pods")?;
    drop(operator);
    rights.grant_but(Some("watch pods"))?;
    let operator = Operator::acting_as(room, &rights.user())?;
    told(&["learns of changes late", "cannot watch resource \\\"pods\\\""])?;
    rights.grant_but(None)?;
    queue.wait_condition("Reconciled", "True", None, TOLD_WITHIN)?;
    queue.wait_ready()?;
    assert_eq!(uids(&queue, "pods")?, before, "nobody was restarted for that");
    assert_eq!(queue.receive("orders", 2)?, ["one", "two"]);
    drop(operator);
    forget.now()?;
    bring_back.now()
}
