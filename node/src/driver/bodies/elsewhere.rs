//! Messages that cannot be read where they stand. Each may stand in another file, too; and if it does not, the keeper is told,
//! which gets it from another node.

use super::Bodies;
use super::reading::Cursor;
use crate::replica::Given;
use raftqueue_queue::TopicId;
use raftqueue_wal::PlacesKind;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Most messages that are remembered until the keeper asks. Of what is more than that somebody will be told again.
const LOST_MAX: usize = 16_384;

/// A message as it stands there; `None` if it cannot be read.
pub(super) fn given_of(cursor: &mut Cursor, offset: u64) -> Option<Given> {
    let found = cursor.find(offset).ok()?;
    let record = cursor.stored(&found).ok()?;
    let (published_ms, deadline_ms, crc) = (cursor.published_ms, found.deadline_ms, found.crc);
    let given = Given { offset, published_ms, deadline_ms, crc, record };
    (crc32c::crc32c(&given.record) == crc).then_some(given)
}

impl Bodies {
    /// A message that could not be read where it was looked for first, as it stands in another file. Reads the disk. If it
    /// stands nowhere else, that is noted.
    pub(super) fn elsewhere(&self, topic: TopicId, offset: u64) -> Option<Given> {
        let files: Vec<_> = {
            let map = self.look();
            let pinned = map.files.candidates(topic.0, offset).map(|file| {
                let segment = match file.kind() {
                    PlacesKind::Segment(number) => self.reader.0.pin(number),
                    PlacesKind::Kept => None,
                };
                (std::sync::Arc::clone(file), segment)
            });
            pinned.collect()
        };
        let found = files.into_iter().find_map(|file| {
            let mut cursor = self.open_in_files(topic, offset, &[file]);
            given_of(&mut cursor, offset)
        });
        if found.is_none() {
            self.note_lost(topic, offset);
        }
        found
    }

    /// A message cannot be read here, wherever it should stand.
    pub(super) fn note_lost(&self, topic: TopicId, offset: u64) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.len() < LOST_MAX {
            lost.insert((topic, offset));
        }
    }

    /// Whether a page of places could not be read since this was asked last.
    #[must_use]
    pub fn take_page_lost(&self) -> bool {
        self.is_page_lost.swap(false, Ordering::Relaxed)
    }

    /// The messages that could not be read anywhere here since this was asked last, and cannot be now. Reads the disk.
    #[must_use]
    pub fn take_lost(&self) -> BTreeSet<(TopicId, u64)> {
        let noted = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        let lost = noted.into_iter().filter(|(topic, offset)| self.elsewhere(*topic, *offset).is_none());
        let lost = lost.collect();
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clear();
        lost
    }
}
