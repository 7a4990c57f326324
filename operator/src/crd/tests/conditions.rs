//! Conditions: their times, their order and their names.

use super::super::{ConditionType, Finding, Reason, Truth, conclude, condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn finding(about: ConditionType, holds: bool, reason: Reason) -> Finding {
    Finding { about, holds: holds.into(), reason, message: format!("{reason}.") }
}

#[test]
fn a_condition_keeps_its_time_until_its_truth_changes() {
    let ready = |holds, reason| vec![finding(ConditionType::Ready, holds, reason)];
    let first = conclude(&[], ready(false, Reason::Forming), Some(1), &at(10));
    let second = conclude(&first, ready(false, Reason::MembersNotReady), Some(2), &at(20));
    let third = conclude(&second, ready(true, Reason::AsAsked), Some(2), &at(30));
    let times: Vec<_> = [&first, &second, &third].map(|all| all[0].last_transition_time.clone()).into();
    assert_eq!(times, [at(10), at(10), at(30)]);
    assert_eq!(
        (second[0].reason.as_str(), second[0].message.as_str()),
        ("MembersNotReady", "MembersNotReady.")
    );
    assert_eq!((second[0].status.as_str(), third[0].status.as_str()), ("False", "True"));
    assert_eq!(second[0].observed_generation, Some(2));
}

#[test]
fn conditions_stand_in_one_order_and_what_was_not_found_again_is_gone() {
    let before =
        conclude(&[], vec![finding(ConditionType::ForeignDisk, true, Reason::MixedClusters)], None, &at(1));
    let found = vec![
        Finding {
            about: ConditionType::QuorumHealthy,
            holds: Truth::Unknown,
            reason: Reason::NotObserved,
            message: String::new(),
        },
        finding(ConditionType::Ready, false, Reason::MembersNotReady),
    ];
    let after = conclude(&before, found, None, &at(2));
    let names: Vec<&str> = after.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(names, ["Ready", "QuorumHealthy"]);
    assert_eq!(condition(&after, ConditionType::QuorumHealthy).unwrap().status, "Unknown");
    assert_eq!(condition(&after, ConditionType::ForeignDisk), None);
}

#[test]
#[should_panic(expected = "two findings about Ready")]
fn two_findings_about_one_condition_are_a_bug_of_the_caller() {
    let twice = [true, false].map(|holds| finding(ConditionType::Ready, holds, Reason::AsAsked));
    let _ = conclude(&[], twice.into(), None, &at(1));
}

/// People wait for these names and alert on them: renaming one breaks their scripts.
#[test]
fn the_names_are_what_users_were_told() {
    let names: Vec<String> = ConditionType::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "Ready",
            "Available",
            "Progressing",
            "Degraded",
            "QuorumHealthy",
            "UpToDate",
            "StorageReady",
            "SpecAccepted",
            "Encrypted",
            "Paused",
            "Reconciled",
            "SingleMember",
            "ForeignDisk",
            "RecoveryPossible"
        ]
    );
    assert!(ConditionType::ALL.is_sorted());
}
