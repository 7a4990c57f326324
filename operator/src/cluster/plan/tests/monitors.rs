//! What is asked for that needs a kind of objects which belongs to others.

use super::super::NextLook;
use super::*;
use crate::cluster::observation::KindSeen;
use crate::crd::{MonitorSettings, Monitoring, Reason, ServiceMonitorSettings};

fn asks_for_a_monitor(id: ClusterId, enabled: bool) -> Asked {
    let mut asked = latched(3, id);
    let settings = ServiceMonitorSettings { enabled, ..ServiceMonitorSettings::default() };
    asked.spec.monitoring = Some(Monitoring { service_monitor: Some(settings), ..Monitoring::default() });
    asked
}

#[test]
fn a_kind_that_cannot_be_used_is_told_and_keeps_no_cluster_from_being_ready() {
    let id = cluster(7);
    for (kind, words) in [
        (KindSeen::Unknown, "Install the Prometheus operator"),
        (KindSeen::Forbidden, "kubectl apply -k deploy"),
    ] {
        let seen = Observation { service_monitors: kind, ..well(3, id) };
        let plan = planned(&asks_for_a_monitor(id, true), &seen);
        let accepted = found(&plan, ConditionType::SpecAccepted);
        assert_eq!((accepted.holds, accepted.reason), (Truth::False, Reason::KindUnusable));
        assert!(accepted.message.contains(words), "{}", accepted.message);
        assert_eq!(found(&plan, ConditionType::Ready).holds, Truth::True);
        assert!(plan.shape.is_some(), "the rest is kept as it is to be");
        assert_eq!(plan.next_look, NextLook::Steady, "nobody looks again and again for what is not there");
    }
}

/// Each kind is told by the field that asks for it, and what the spec asks for that needs no kind of others is never told.
#[test]
fn only_what_is_asked_for_and_lacks_its_kind_is_told() {
    let id = cluster(7);
    let enabled = Some(MonitorSettings { enabled: true, ..MonitorSettings::default() });
    let mut asked = asks_for_a_monitor(id, true);
    let monitoring = asked.spec.monitoring.as_mut().unwrap();
    (monitoring.prometheus_rule, monitoring.dashboards) = (enabled.clone(), enabled);
    let told = |asked: &Asked, service_monitors, prometheus_rules| {
        let seen = Observation { service_monitors, prometheus_rules, ..well(3, id) };
        found(&planned(asked, &seen), ConditionType::SpecAccepted).message.clone()
    };
    let (usable, unknown) = (KindSeen::Usable, KindSeen::Unknown);
    let both = told(&asked, unknown, unknown);
    assert!(
        both.starts_with("spec.monitoring.serviceMonitor and spec.monitoring.prometheusRule are"),
        "{both}"
    );
    let rule = told(&asked, usable, unknown);
    assert!(rule.starts_with("spec.monitoring.prometheusRule is enabled, but"), "{rule}");
    let monitor = told(&asked, KindSeen::Forbidden, usable);
    assert!(
        monitor.starts_with("spec.monitoring.serviceMonitor is enabled, but the operator may not"),
        "{monitor}"
    );
    asked.spec.monitoring.as_mut().unwrap().prometheus_rule = None;
    asked.spec.monitoring.as_mut().unwrap().service_monitor = None;
    assert_eq!(told(&asked, unknown, unknown), "the spec can be followed");
}

#[test]
fn a_kind_that_nobody_asks_for_may_be_missing() {
    let id = cluster(7);
    let seen = Observation { service_monitors: KindSeen::Unknown, ..well(3, id) };
    for asked in [latched(3, id), asks_for_a_monitor(id, false)] {
        assert_eq!(found(&planned(&asked, &seen), ConditionType::SpecAccepted).holds, Truth::True);
    }
    let usable = planned(&asks_for_a_monitor(id, true), &well(3, id));
    assert_eq!(found(&usable, ConditionType::SpecAccepted).holds, Truth::True);
}
