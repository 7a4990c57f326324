//! What monitoring has been given, of kinds that belong to others and that this Kubernetes may not know.

use super::{is_ours, metadata, of_others, ownership};
use crate::cluster::build::{PrometheusRule, ServiceMonitor};
use crate::cluster::observation::{Child, KindSeen};
use crate::cluster::validate::Asked;
use crate::names;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;

/// Which kinds can be used, and what there is under the names of our children.
pub(super) struct MonitorsSeen {
    pub(super) service_monitors: KindSeen,
    pub(super) prometheus_rules: KindSeen,
    pub(super) found: Vec<(Child, ObjectMeta)>,
}

/// Looks. One of somebody else under a name of ours is in nobody's way while none is asked for.
pub(super) async fn look(client: &Client, asked: &Asked) -> Result<MonitorsSeen, kube::Error> {
    let namespace = asked.namespace.as_str();
    let dashboards = names::dashboards(&asked.name);
    let ((service_monitors, monitor), (prometheus_rules, rule), dashboards) = tokio::try_join!(
        of_others::<ServiceMonitor>(client, namespace, &asked.name),
        of_others::<PrometheusRule>(client, namespace, &asked.name),
        metadata::<ConfigMap>(client, namespace, &dashboards),
    )?;
    let wanted = asked.spec.monitoring.clone().unwrap_or_default();
    let found = [
        (Child::ServiceMonitor, monitor, wanted.service_monitor.is_some_and(|wanted| wanted.enabled)),
        (Child::PrometheusRule, rule, wanted.prometheus_rule.is_some_and(|wanted| wanted.enabled)),
        (Child::Dashboards, dashboards, wanted.dashboards.is_some_and(|wanted| wanted.enabled)),
    ];
    let found = found.into_iter().filter_map(|(child, found, is_wanted)| {
        let found = found.filter(|found| is_wanted || is_ours(ownership(asked, found)))?;
        Some((child, found))
    });
    Ok(MonitorsSeen { service_monitors, prometheus_rules, found: found.collect() })
}
