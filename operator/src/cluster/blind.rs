//! What the operator may not watch. A right that lacks there fails no call of a pass: without a word, what changes would be seen
//! minutes later, or never.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a watch must be refused before that is told. An API server that has just started refuses everybody for a moment.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// A refusal that was not repeated for so long is over: watches are tried again several times a second.
const OVER_AFTER: Duration = Duration::from_secs(10);
/// Most refusals that are remembered. Each kind that is watched has one.
const REFUSALS_MAX: usize = 16;

/// Refusals, by what the API server said.
#[derive(Debug, Default)]
pub(super) struct Blind(Mutex<BTreeMap<String, Span>>);

/// From the first of these refusals to the last one until now.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: Instant,
    last: Instant,
}

impl Blind {
    /// A watch was refused.
    pub(super) fn refused(&self, why: &str, now: Instant) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|_, span| now.saturating_duration_since(span.last) < OVER_AFTER);
        if let Some(span) = refusals.get_mut(why) {
            span.last = now;
        } else if refusals.len() < REFUSALS_MAX {
            tracing::warn!("a watch is refused: {why}");
            refusals.insert(why.to_owned(), Span { first: now, last: now });
        }
    }

    /// What to tell of it, if it lasts.
    pub(super) fn told(&self, now: Instant) -> Option<String> {
        let refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = |span: &Span| {
            now.saturating_duration_since(span.last) < OVER_AFTER
                && span.last.duration_since(span.first) >= TOLD_AFTER
        };
        let all: Vec<&str> =
            refusals.iter().filter(|(_, span)| lasts(span)).map(|(why, _)| why.as_str()).collect();
        (!all.is_empty()).then(|| {
            format!(
                "the operator may not watch all that it must, and learns of changes late or never: {}. kubectl apply -k deploy gives \
                 it all rights that it needs",
                all.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_it_lasts_and_until_it_is_over() {
        let (blind, begun) = (Blind::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        blind.refused("pods is forbidden", at(0));
        blind.refused("pods is forbidden", at(4));
        assert_eq!(blind.told(at(4)), None, "an API server that has just started refuses everybody");
        blind.refused("pods is forbidden", at(5));
        let told = blind.told(at(5)).unwrap();
        assert!(told.contains("pods is forbidden") && told.contains("kubectl apply -k deploy"), "{told}");
        assert!(blind.told(at(14)).is_some());
        assert_eq!(blind.told(at(15)), None, "it was not repeated");
        // A new one begins anew.
        blind.refused("pods is forbidden", at(16));
        assert_eq!(blind.told(at(16)), None);
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let (blind, now) = (Blind::default(), Instant::now());
        (0..2 * REFUSALS_MAX).for_each(|number| blind.refused(&number.to_string(), now));
        assert_eq!(blind.0.lock().unwrap().len(), REFUSALS_MAX);
    }
}
