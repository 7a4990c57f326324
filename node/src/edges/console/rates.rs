//! How fast messages come and go: what two looks at the same totals say.

use crate::metrics::TopicSeen;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Looks that are closer together than this are one.
const APART_MIN: Duration = Duration::from_millis(1_500);
/// A look that is older says nothing of now.
const APART_MAX: Duration = Duration::from_secs(60);

/// Messages of a topic in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// That were published.
    pub(super) published: f64,
    /// That were acknowledged, popped or purged.
    pub(super) settled: f64,
}

/// The last two looks, whoever looked.
#[derive(Debug, Default)]
pub(super) struct Rates {
    now: Option<(Instant, BTreeMap<String, TopicSeen>)>,
    paces: BTreeMap<String, Pace>,
}

impl Rates {
    /// Takes a look, and says how fast every topic is that was seen before; nothing after the first look.
    pub(super) fn learn(&mut self, seen: &BTreeMap<String, TopicSeen>) -> BTreeMap<String, Pace> {
        self.learn_at(seen, Instant::now())
    }

    fn learn_at(&mut self, seen: &BTreeMap<String, TopicSeen>, now: Instant) -> BTreeMap<String, Pace> {
        let apart = self.now.as_ref().map(|(at, _)| now.saturating_duration_since(*at));
        if apart.is_some_and(|apart| apart < APART_MIN) {
            return self.paces.clone();
        }
        self.paces.clear();
        if let (Some(apart), Some((_, before))) = (apart.filter(|apart| *apart <= APART_MAX), &self.now) {
            for (name, topic) in seen {
                let Some(then) = before.get(name) else { continue };
                // A topic that was made anew under the same name has lower totals.
                if topic.published >= then.published && topic.settled >= then.settled {
                    let a_second = |more: u64| per_second(more, apart);
                    let pace = Pace {
                        published: a_second(topic.published - then.published),
                        settled: a_second(topic.settled - then.settled),
                    };
                    self.paces.insert(name.clone(), pace);
                }
            }
        }
        self.now = Some((now, seen.clone()));
        self.paces.clone()
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(published: u64, settled: u64) -> BTreeMap<String, TopicSeen> {
        BTreeMap::from([("t".to_owned(), TopicSeen { published, settled, oldest_ready_ms: None })])
    }

    #[test]
    fn two_looks_tell_how_fast_a_topic_is() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut rates = Rates::default();
        assert!(rates.learn_at(&seen(10, 0), at(0)).is_empty());
        let paces = rates.learn_at(&seen(30, 4), at(2_000));
        assert_eq!(paces["t"], Pace { published: 10.0, settled: 2.0 });
        assert_eq!(rates.learn_at(&seen(99, 9), at(2_100)), paces, "too soon for another");
        assert_eq!(rates.learn_at(&seen(30, 4), at(4_000))["t"], Pace { published: 0.0, settled: 0.0 });
        assert!(rates.learn_at(&seen(3, 4), at(6_000)).is_empty(), "another topic of the same name");
        assert!(rates.learn_at(&seen(5, 4), at(600_000)).is_empty(), "nobody looked for long");
    }
}
