//! What is known of the definition of the custom resource: it may be older than this operator, and drop what it does not know.

use super::status::Written;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Fields of a status that the definition turned out not to know. No decision depends on them, only what is said.
#[derive(Default)]
pub(super) struct Lacking(Mutex<BTreeSet<String>>);

impl Lacking {
    /// As far as was seen.
    pub(super) fn fields(&self) -> BTreeSet<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Learns from what was made of a status. True: something was learnt.
    pub(super) fn learn(&self, written: &Written) -> bool {
        let mut lacking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lacking.clone();
        lacking.retain(|field| !written.kept.contains(field));
        lacking.extend(written.lost.iter().cloned());
        *lacking != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_was_lost_is_lacking_until_it_is_kept() {
        let lacking = Lacking::default();
        let fields = |all: &[&str]| all.iter().map(|field| (*field).to_owned()).collect();
        let written = |kept: &[&str], lost: &[&str]| Written { kept: fields(kept), lost: fields(lost) };
        assert!(!lacking.learn(&written(&["status.phase"], &[])));
        assert!(lacking.learn(&written(&["status.phase"], &["status.diskSize"])));
        // A status without the field says nothing about it.
        assert!(!lacking.learn(&written(&["status.phase"], &[])));
        assert_eq!(lacking.fields(), fields(&["status.diskSize"]));
        assert!(lacking.learn(&written(&["status.diskSize"], &[])));
        assert_eq!(lacking.fields(), fields(&[]));
    }
}
