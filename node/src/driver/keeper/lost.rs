//! Messages that are lost for good: no member of the cluster has them any more (RULES 3.4).

use raftqueue_queue::TopicId;
use std::fmt;
use std::ops::Range;

/// Ranges of lost messages that are told of.
const LOST_RANGES_MAX: usize = 16;

/// Messages that no member of the cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostMessages {
    /// How many.
    pub count: u64,
    /// The first of them: topics and offsets.
    pub first: Vec<(TopicId, Range<u64>)>,
}

impl LostMessages {
    /// Adds a range of a topic's offsets. They come in order.
    pub(super) fn add(&mut self, topic: TopicId, range: Range<u64>) {
        self.count += range.end - range.start;
        if let Some((last, run)) = self.first.last_mut()
            && *last == topic
            && run.end == range.start
        {
            run.end = range.end;
        } else if self.first.len() < LOST_RANGES_MAX {
            self.first.push((topic, range));
        }
    }
}

impl fmt::Display for LostMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self
            .first
            .iter()
            .map(|(topic, run)| format!("{} to {} of topic {topic}", run.start, run.end - 1));
        let told: Vec<String> = told.collect();
        let count = self.count;
        write!(f, "{count} messages are lost: no member of the cluster has them: {}", told.join(", "))?;
        match count.saturating_sub(self.first.iter().map(|(_, run)| run.end - run.start).sum()) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told_by_topics_and_offsets() {
        let mut lost = LostMessages::default();
        for (topic, range) in [(1, 3..5), (1, 5..6), (2, 6..7)] {
            lost.add(TopicId(topic), range);
        }
        assert_eq!(lost.first, [(TopicId(1), 3..6), (TopicId(2), 6..7)]);
        let text =
            "4 messages are lost: no member of the cluster has them: 3 to 5 of topic 1, 6 to 6 of topic 2";
        assert_eq!(lost.to_string(), text);
        (0..100).for_each(|number| lost.add(TopicId(3), 2 * number..2 * number + 1));
        assert_eq!((lost.count, lost.first.len()), (104, LOST_RANGES_MAX));
        assert!(lost.to_string().ends_with(", and 86 more"), "{lost}");
    }
}
