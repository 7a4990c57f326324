//! What there is to say about what others have: disks of other clusters, names that are taken, pods that are not made.

use super::{Case, shorten};
use crate::cluster::observation::{Child, ChildSeen, Ownership};
use crate::cluster::plan::Identity;
use std::collections::BTreeSet;

impl Case<'_> {
    pub(super) fn mixed(&self) -> Option<String> {
        let Identity::Mixed(owners) = self.identity else { return None };
        let whose =
            |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (known, mut others) = (self.asked.latched, Vec::new());
        for (id, names) in owners.iter().filter(|(id, _)| Some(**id) != known) {
            others.push(format!("{} has the disk of cluster {id}", whose(names)));
        }
        let belongs = match known {
            Some(id) => format!("this RaftQueue is cluster {id}, but "),
            None => String::new(),
        };
        Some(format!(
            "{belongs}{}. Nothing is changed until the disks belong together: put the right volumes back, or delete the claim \
             and the pod of each node whose disk is not wanted (its messages go with it)",
            others.join("; ")
        ))
    }

    pub(super) fn taken(&self) -> Option<String> {
        let taken: Vec<String> = self.held();
        if taken.is_empty() {
            return None;
        }
        Some(format!("{}. Delete or rename it, or give the RaftQueue another name", taken.join(", ")))
    }

    pub(super) fn leaving(&self) -> Option<String> {
        let leaving = self.children(Ownership::Leaving);
        let message = format!("waits until {} of an earlier RaftQueue is deleted", leaving.join(", "));
        Some(message).filter(|_| !leaving.is_empty())
    }

    pub(super) fn children(&self, owner: Ownership) -> Vec<String> {
        let of_that =
            self.seen.children.iter().filter(|(child, seen)| seen.owner == owner && self.shape.has(**child));
        of_that.map(|(child, _)| child.describe(&self.asked.name)).collect()
    }

    /// The same with whoever has them.
    fn held(&self) -> Vec<String> {
        let is_held =
            |child: &Child, seen: &ChildSeen| seen.owner == Ownership::Foreign && self.shape.has(*child);
        let foreign = self.seen.children.iter().filter(|(child, seen)| is_held(child, seen));
        let whose = foreign.map(|(child, seen)| {
            let holder = seen.holder.as_deref().unwrap_or("something else");
            format!("{} exists and belongs to {holder}", child.describe(&self.asked.name))
        });
        whose.collect()
    }

    pub(super) fn not_made(&self) -> Option<String> {
        let complaint = self.seen.set.as_ref()?.complaint.as_ref()?;
        let missing: Vec<&str> = self
            .nodes
            .iter()
            .map(String::as_str)
            .filter(|name| !self.seen.pods.contains_key(*name))
            .collect();
        if missing.is_empty() {
            return None;
        }
        Some(format!(
            "{}: Kubernetes does not make the pod: {}. It tries again by itself",
            missing.join(", "),
            shorten(complaint)
        ))
    }
}
