//! What was applied last, so that a child that is still so costs no call.
//!
//! A child is left alone as long as neither what is wanted of it nor the child itself has changed since the last apply. Whether
//! the child has is told by its [`Fingerprint`]: the API server numbers the changes of a spec, and writes down who set which
//! field, so whatever a person edits changes it, and what Kubernetes fills in by itself does not. Nothing is compared with
//! what is wanted, and so nothing depends on defaults and spellings. It is memory only: an operator that begins anew applies
//! every child once.

use crate::cluster::observation::{Child, Fingerprint};
use crate::controller::Key;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of the children of all objects.
#[derive(Default)]
pub struct Known {
    children: Mutex<BTreeMap<Key, BTreeMap<Child, Applied>>>,
    hasher: RandomState,
}

/// One apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Applied {
    /// What was wanted, hashed.
    wanted: u64,
    /// How the API server left the child.
    left: Fingerprint,
}

impl Known {
    fn children(&self) -> MutexGuard<'_, BTreeMap<Key, BTreeMap<Child, Applied>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this was applied to the child last, and the child has been left alone since.
    pub(super) fn is_applied(
        &self,
        object: &Key,
        child: Child,
        wanted: &impl Serialize,
        seen: Option<Fingerprint>,
    ) -> bool {
        let Some(applied) = self.children().get(object).and_then(|all| all.get(&child)).copied() else {
            return false;
        };
        seen == Some(applied.left) && self.hash(wanted) == Some(applied.wanted)
    }

    /// This was applied to the child, which was left like that; absent: the next look is to apply it again.
    pub(super) fn applied(
        &self,
        object: &Key,
        child: Child,
        wanted: &impl Serialize,
        left: Option<Fingerprint>,
    ) {
        let applied = left.and_then(|left| Some(Applied { wanted: self.hash(wanted)?, left }));
        let mut children = self.children();
        let of_object = children.entry(object.clone()).or_default();
        match applied {
            Some(applied) => of_object.insert(child, applied),
            None => of_object.remove(&child),
        };
    }

    /// Forgets the children of all objects but these.
    pub fn keep_only(&self, there: &BTreeSet<Key>) {
        self.children().retain(|object, _| there.contains(object));
    }

    fn hash(&self, wanted: &impl Serialize) -> Option<u64> {
        serde_json::to_vec(wanted).ok().map(|bytes| self.hasher.hash_one(bytes))
    }
}
