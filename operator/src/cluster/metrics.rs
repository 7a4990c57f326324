//! What is counted and shown of RaftQueues. Labels are static, but for namespace and name of objects that exist, and those are
//! bounded.

use crate::cluster::plan::Step;
use crate::controller::Key;
use crate::crd::{ConditionType, RaftQueueStatus};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Most objects with series of their own. Further ones are counted, but not shown one by one.
const OBJECTS_MAX: usize = 1_000;

/// The metrics, and who has series of their own. Clones count together.
#[derive(Clone)]
pub struct ClusterMetrics {
    steps: IntCounterVec,
    condition: IntGaugeVec,
    expires: IntGaugeVec,
    objects: Arc<Mutex<BTreeSet<Key>>>,
}

impl ClusterMetrics {
    /// All zero, and known to this registry.
    ///
    /// # Panics
    /// If the registry has them already.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let steps =
            Opts::new("raftqueue_operator_steps_total", "Steps that touched a pod, a member or a disk");
        let condition = Opts::new(
            "raftqueue_status_condition",
            "Conditions of RaftQueues: 1 true, 0 false, -1 unknown or absent",
        );
        let expires = Opts::new(
            "raftqueue_status_certificate_expires_timestamp_seconds",
            "When the first certificate of a RaftQueue's pods runs out, since the Unix epoch",
        );
        let metrics = Self {
            expires: IntGaugeVec::new(expires, &["namespace", "name"]).expect("a well-formed name"),
            steps: IntCounterVec::new(steps, &["step"]).expect("a well-formed name"),
            condition: IntGaugeVec::new(condition, &["namespace", "name", "type"])
                .expect("a well-formed name"),
            objects: Arc::default(),
        };
        // What never happened shows as 0, so that a rate can be taken from the first time on.
        for label in Step::LABELS {
            metrics.steps.with_label_values(&[label]);
        }
        registry.register(Box::new(metrics.steps.clone())).expect("its name is registered once");
        registry.register(Box::new(metrics.condition.clone())).expect("its name is registered once");
        registry.register(Box::new(metrics.expires.clone())).expect("its name is registered once");
        metrics
    }

    /// A step was taken.
    pub fn count_step(&self, step: &'static str) {
        self.steps.with_label_values(&[step]).inc();
    }

    /// Shows the conditions of an object, and when its certificates run out.
    pub fn show(&self, namespace: &str, name: &str, status: &RaftQueueStatus) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if !objects.contains(&key) && objects.len() >= OBJECTS_MAX {
            return;
        }
        objects.insert(key);
        match status.tls.as_ref().and_then(|tls| tls.expires.as_ref()) {
            Some(expires) => self.expires.with_label_values(&[namespace, name]).set(expires.0.as_second()),
            // One without certificates has none that run out. If it is absent already, that is as good.
            None => drop(self.expires.remove_label_values(&[namespace, name])),
        }
        for about in ConditionType::ALL {
            let found = crate::crd::condition(&status.conditions, *about);
            let value = match found.map(|condition| condition.status.as_str()) {
                Some("True") => 1,
                Some("False") => 0,
                _ => -1,
            };
            self.condition.with_label_values(&[namespace, name, &about.to_string()]).set(value);
        }
    }

    /// Shows these objects only, given by namespace and name: the others are gone.
    pub fn keep_only(&self, there: &BTreeSet<Key>) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        for (namespace, name) in objects.extract_if(.., |object| !there.contains(object)) {
            let _ = self.expires.remove_label_values(&[namespace.as_str(), name.as_str()]);
            for about in ConditionType::ALL {
                // If it is absent already, that is as good.
                let _ = self.condition.remove_label_values(&[
                    namespace.as_str(),
                    name.as_str(),
                    about.to_string().as_str(),
                ]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::TlsStatus;
    use crate::metrics::Metrics;

    #[test]
    fn what_is_gone_is_not_shown() {
        let all = Metrics::new();
        let metrics = &all.clusters;
        metrics.show("shop", "demo", &RaftQueueStatus::default());
        let text = all.text();
        assert!(
            text.contains(r#"raftqueue_status_condition{name="demo",namespace="shop",type="Ready"} -1"#),
            "{text}"
        );
        metrics.show("shop", "other", &RaftQueueStatus::default());
        metrics.keep_only(&BTreeSet::from([("shop".to_owned(), "other".to_owned())]));
        let text = all.text();
        assert!(!text.contains("demo") && text.contains("other"), "{text}");
    }

    #[test]
    fn when_certificates_run_out_is_shown_while_there_are_any() {
        let all = Metrics::new();
        let at = k8s_openapi::jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let expires = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
        let tls = Some(TlsStatus { expires, ..TlsStatus::default() });
        let series = r#"raftqueue_status_certificate_expires_timestamp_seconds{name="demo",namespace="shop"} 1800000000"#;
        let shown = || all.text().contains(series);
        let encrypted = RaftQueueStatus { tls, ..RaftQueueStatus::default() };
        all.clusters.show("shop", "demo", &encrypted);
        assert!(shown(), "{}", all.text());
        all.clusters.show("shop", "demo", &RaftQueueStatus::default());
        assert!(!shown());
        all.clusters.show("shop", "demo", &encrypted);
        all.clusters.keep_only(&BTreeSet::new());
        assert!(!shown());
    }

    #[test]
    fn series_of_objects_are_bounded() {
        let all = Metrics::new();
        for number in 0..OBJECTS_MAX + 10 {
            all.clusters.show("shop", &format!("queue-{number}"), &RaftQueueStatus::default());
        }
        let shown = all.text().matches(r#"type="Ready""#).count();
        assert_eq!(shown, OBJECTS_MAX);
        // Those that went make room for those that came.
        all.clusters.keep_only(&BTreeSet::new());
        all.clusters.show("shop", "late", &RaftQueueStatus::default());
        assert!(all.text().contains("late"));
    }
}
