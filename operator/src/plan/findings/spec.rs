//! What there is to say about the difference between what is asked and what there is.

use super::Case;

impl Case<'_> {
    pub(super) fn replicas_fixed(&self) -> Option<String> {
        let (have, want) = (self.shape.replicas, self.asked.spec.replicas);
        let members = self.identity.members(self.asked, self.seen);
        let is_right = have == want && members.is_none_or(|members| members == have);
        if is_right || !self.refusals.is_empty() {
            return None;
        }
        Some(match members {
            Some(members) if members != have => format!(
                "spec.replicas is {want} and {have} pods were made, but the disks hold a cluster of {members} members. Set \
                 spec.replicas to {members}"
            ),
            _ => format!(
                "spec.replicas is {want}, but the cluster was made with {have}, and this version does not add or remove members: \
                 nothing is changed. Set spec.replicas back to {have}; for another number make a second RaftQueue and move \
                 the messages"
            ),
        })
    }

    pub(super) fn older_pods(&self) -> Option<String> {
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
        Some(format!(
            "{} made before the last change of the image, the resources or the config. This version restarts no running node \
             by itself: delete the pods one at a time, each when all nodes are ready{last}. First: kubectl delete pod -n {} {first}",
            if older.len() == 1 { format!("{first} was") } else { format!("{} were", older.join(", ")) },
            self.asked.namespace,
        ))
    }
}
