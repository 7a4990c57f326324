//! What there is to say about the difference between what is asked and what there is.

use super::Case;
use crate::cluster::observation::KindSeen;
use crate::crd::Reason;

impl Case<'_> {
    /// What is asked for and cannot be made here.
    pub(super) fn unusable(&self) -> Option<String> {
        let wanted = self.asked.spec.monitoring.as_ref()?;
        let monitor = wanted.service_monitor.as_ref().is_some_and(|wanted| wanted.enabled);
        let rule = wanted.prometheus_rule.as_ref().is_some_and(|wanted| wanted.enabled);
        let kinds = [
            ("serviceMonitor", monitor, self.seen.service_monitors),
            ("prometheusRule", rule, self.seen.prometheus_rules),
        ];
        let lacks = |(_, is_wanted, kind): &(&str, bool, KindSeen)| *is_wanted && *kind != KindSeen::Usable;
        let unusable: Vec<(&str, bool, KindSeen)> = kinds.into_iter().filter(lacks).collect();
        let why = match unusable.first()?.2 {
            KindSeen::Forbidden => {
                "the operator may not use the kind (monitoring.coreos.com/v1). Give it the rights that deploy/operator/rbac.yaml \
                 has: kubectl apply -k deploy"
            }
            _ => {
                "this Kubernetes does not know the kind (monitoring.coreos.com/v1). Install the Prometheus operator, or set it to \
                 false"
            }
        };
        let fields: Vec<String> =
            unusable.iter().map(|(field, ..)| format!("spec.monitoring.{field}")).collect();
        let verb = if fields.len() == 1 { "is" } else { "are" };
        Some(format!(
            "{} {verb} enabled, but {why}. Everything else is as asked, and this is tried again by itself",
            fields.join(" and ")
        ))
    }

    /// Members that are still to come or to go, with the next step.
    pub(super) fn not_the_members_asked_for(&self) -> Option<(Reason, String)> {
        let (have, want) = (self.voters.len(), self.asked.spec.replicas);
        let voters = if have == 1 { "voter" } else { "voters" };
        let Some(decision) = self.decision else {
            let is_right = self.shape.pods == want && i32::try_from(have) == Ok(want);
            if is_right || !self.refusals.is_empty() || !self.identity.is_formed() {
                return None;
            }
            let message = match &self.seen.cluster {
                Some(cluster) if cluster.membership.is_none() && self.asked.latched.is_some() => format!(
                    "spec.replicas is {want}, and there are {have} {voters}: the nodes do not tell their members in a way that \
                     this operator understands, so it adds and removes none. If that stays so, set spec.image to the image \
                     that goes with the operator"
                ),
                _ => {
                    let message = format!(
                        "spec.replicas is {want}, and there are {have} {voters}: members are added or removed once a leader \
                         confirms who they are"
                    );
                    return Some((Reason::Scaling, message));
                }
            };
            return Some((Reason::MembersUnknown, message));
        };
        if let Some(message) = &decision.blocked {
            return Some((Reason::MembersByHand, message.clone()));
        }
        let next = decision.ahead.first()?;
        Some(match &decision.replaces {
            Some(node) => (Reason::ReplacingMember, format!("{node} is replaced: {next}")),
            None => (Reason::Scaling, format!("{have} {voters}, {want} are asked for: {next}")),
        })
    }

    /// Pods that were made before the last change; true: the operator restarts them.
    pub(super) fn older_pods(&self) -> Option<(bool, String)> {
        if let Some(rolling) = self.decision.and_then(|decision| decision.rolling.as_ref()) {
            let (older, next) = (rolling.older.join(", "), rolling.ahead.first()?);
            let verb = if rolling.older.len() == 1 { "was" } else { "were" };
            return Some((
                true,
                format!(
                    "{older} {verb} made before the last change of the image, the resources, the config or of what is encrypted, or is asked to \
                     restart: one at a time, the leader last. Next: {next}"
                ),
            ));
        }
        let newest = self.seen.set.as_ref()?.revision.as_ref()?;
        let mut older: Vec<&str> = self
            .seen
            .pods
            .iter()
            // A pod whose node does not run is replaced without a request.
            .filter(|(_, pod)| !pod.deleting && pod.trouble.is_none())
            .filter(|(_, pod)| pod.revision.as_ref().is_some_and(|revision| revision != newest))
            .map(|(name, _)| name.as_str())
            .collect();
        let leader = self.leader_name().map(String::as_str);
        // A stable sort: the leader goes last, the others keep their order.
        older.sort_by_key(|name| Some(*name) == leader);
        let first = *older.first()?;
        let last = match older.last() {
            Some(last) if Some(*last) == leader && older.len() > 1 => format!(", the leader {last} last"),
            _ => String::new(),
        };
        let older_were =
            if older.len() == 1 { format!("{first} was") } else { format!("{} were", older.join(", ")) };
        let message = format!(
            "{older_were} made before the last change of the image, the resources, the config or of what is encrypted"
        );
        let tells = self.seen.cluster.as_ref().is_none_or(|cluster| cluster.membership.is_some());
        if tells {
            return Some((true, format!("{message}, and restarted once all members are there and well")));
        }
        Some((
            false,
            format!(
                "{message}. The nodes do not tell how their members are, so none is restarted: delete the pods one at a time, \
                 each when all nodes are ready{last}. First: kubectl delete pod -n {} {first}",
                self.asked.namespace
            ),
        ))
    }
}
