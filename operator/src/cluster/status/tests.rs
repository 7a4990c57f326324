//! Writing a status, to API servers whose definition knows all of it, some, or none.

use super::*;
use crate::fake::{Call, client, refusal};

const STATUS: &str = "PATCH /apis/raftqueue.io/v1alpha1/namespaces/shop/raftqueues/demo/status";

fn metadata() -> ObjectMeta {
    ObjectMeta {
        name: Some("demo".into()),
        namespace: Some("shop".into()),
        uid: Some("uid-1".into()),
        ..ObjectMeta::default()
    }
}

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn well() -> RaftQueueStatus {
    let findings = vec![
        Finding { about: ConditionType::Ready, ..reconciled(true, Reason::AsAsked, "all 3 nodes serve") },
        reconciled(true, Reason::AsAsked, "the last look at the cluster ended without an error"),
    ];
    RaftQueueStatus {
        phase: Some(Phase::Ready),
        message: Some("all 3 nodes serve".into()),
        conditions: conclude(&[], findings, Some(2), &at(10)),
        cluster_id: Some("0a".into()),
        disk_size: Some("1Gi".into()),
        members: vec![MemberStatus { name: "demo-0".into(), id: None, role: Role::Leader, ready: true }],
        ..RaftQueueStatus::default()
    }
}

/// Keeps what it is sent, but for fields that its definition does not know.
fn knowing_all_but(
    unknown: &'static [&'static str],
) -> impl Fn(&Call) -> (u16, Value) + Clone + Send + Sync + 'static {
    move |call| {
        let mut status = call.body[1]["value"].clone();
        for field in unknown {
            match field.split_once('/') {
                Some((list, field)) => {
                    let items = status[list].as_array_mut().unwrap();
                    items.iter_mut().for_each(|item| drop(item.as_object_mut().unwrap().remove(field)));
                }
                None => drop(status.as_object_mut().unwrap().remove(*field)),
            }
        }
        let api_version = "raftqueue.io/v1alpha1";
        (
            200,
            json!({"apiVersion": api_version, "kind": "RaftQueue", "metadata": {"name": "demo"}, "status": status}),
        )
    }
}

#[tokio::test]
async fn a_status_is_written_whole_to_the_object_that_it_is_of() {
    let (client, calls) = client(knowing_all_but(&[]));
    let written = write(&client, &metadata(), &well()).await.unwrap();
    assert_eq!(written.lost, BTreeSet::new());
    assert!(written.kept.contains("status.clusterId") && written.kept.contains("status.members.ready"));
    let [call] = &calls.all()[..] else { panic!("{:?}", calls.what()) };
    assert_eq!((call.what.as_str(), call.content_type.as_str()), (STATUS, "application/json-patch+json"));
    assert_eq!(
        call.body,
        json!([{"op": "test", "path": "/metadata/uid", "value": "uid-1"},
               {"op": "add", "path": "/status", "value": well()}])
    );
}

/// Seen: a server-side apply of a field that the definition does not know fails with 500, so the old status stayed.
#[tokio::test]
async fn what_an_older_definition_does_not_keep_is_known_afterwards() {
    let (client, _) = client(knowing_all_but(&["diskSize", "clusterId", "members/role"]));
    let written = write(&client, &metadata(), &well()).await.unwrap();
    let lost: Vec<&str> = written.lost.iter().map(String::as_str).collect();
    assert_eq!(lost, ["status.clusterId", "status.diskSize", "status.members.role"]);
    assert!(written.kept.contains("status.phase") && !written.kept.contains("status.clusterId"));
}

#[tokio::test]
async fn a_refused_status_is_an_error() {
    let (client, _) = client(|_: &Call| refusal(500, "InternalError"));
    assert!(write(&client, &metadata(), &well()).await.is_err());
}

#[test]
fn an_older_definition_is_told_with_what_to_do() {
    let lacking = BTreeSet::from(["status.diskSize".to_owned()]);
    let told = under_older_definition(well(), &well(), &lacking, &at(20));
    let condition = crate::crd::condition(&told.conditions, ConditionType::Reconciled).unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "OlderDefinition"));
    for words in ["does not keep status.diskSize", "kubectl apply -k deploy"] {
        assert!(condition.message.contains(words), "{}", condition.message);
    }
    assert_eq!(told.message.as_ref(), Some(&condition.message), "where nothing is more urgent");
    assert_eq!((condition.last_transition_time.clone(), condition.observed_generation), (at(20), Some(2)));
    let ready = crate::crd::condition(&told.conditions, ConditionType::Ready).unwrap();
    assert_eq!(ready.status, "True", "the cluster serves all the same");
    // The next pass tells the same, and since when.
    let again = under_older_definition(well(), &told, &lacking, &at(30));
    assert_eq!(again.conditions, told.conditions);
    // A look that failed is more urgent.
    let failed = answer_unseen(&well(), Some(2), Reason::CallFailed, "no answer", &at(20));
    assert_eq!(under_older_definition(failed.clone(), &well(), &lacking, &at(20)), failed);
}

#[test]
fn the_next_step_keeps_its_time_while_it_is_the_same() {
    let plan = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
    let none = RaftQueueStatus::default();
    let first = none.clone().with_plan(&none, plan(&["a", "b"]), &at(10));
    assert_eq!(first.step_since, Some(at(10)));
    let same = none.clone().with_plan(&first, plan(&["a", "c"]), &at(20));
    assert_eq!(same.step_since, Some(at(10)));
    let other = none.clone().with_plan(&same, plan(&["b"]), &at(30));
    assert_eq!(other.step_since, Some(at(30)));
    assert_eq!(none.clone().with_plan(&other, Vec::new(), &at(40)).step_since, None);
}
