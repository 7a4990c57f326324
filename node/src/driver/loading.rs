//! Reads of the disk that the replica asks for: they block, so they are done beside the driver, and come back as events.

use super::Driver;
use crate::driver::bodies::Due;
use crate::driver::inbox::Notice;
use crate::replica::{Event, LoadedEntry};
use bytes::Bytes;
use raftqueue_raft::{Found, Index, LoadRequest, LogSlice, Payload};
use raftqueue_wal::{EntryMeta, MetaPayload, ReadError};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of entries read back at once to be applied.
const APPLY_BYTES_MAX: u64 = 4 << 20;
/// Pause after the log could not be read.
const UNREADABLE_PAUSE: Duration = Duration::from_millis(100);

/// An entry as it is read back to be applied: without its bodies.
#[must_use]
pub fn to_apply(entry: EntryMeta) -> LoadedEntry {
    let (payload, bytes) = match entry.payload {
        MetaPayload::Noop => (Payload::Noop, 0),
        MetaPayload::Config(configuration) => (Payload::Config(configuration), 0),
        MetaPayload::Command { meta, bodies_bytes } => {
            let bytes = meta.len() as u64 + u64::from(bodies_bytes);
            (Payload::Command { meta, bodies: Bytes::new() }, bytes)
        }
    };
    LoadedEntry { index: entry.index, term: entry.term, payload, bytes }
}

impl Driver {
    /// Reads the disk on another thread; the answer comes back as an event.
    pub(super) fn off_the_driver(&self, read: impl FnOnce() -> Event + Send + 'static) {
        let notify = self.parts.notify.clone();
        tokio::task::spawn_blocking(move || {
            let event = read();
            // Fails only when the node has stopped.
            let _ = notify.send(Notice::Event(event));
        });
    }

    /// Reads the log on another thread. What is read comes back as an event, nothing where it cannot be read; the
    /// replica is told why first.
    fn read_log<T>(
        &self,
        is_for_peer: bool,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
        answer: impl FnOnce(Option<T>) -> Event + Send + 'static,
    ) {
        let (notify, reader) = (self.parts.notify.clone(), self.parts.reader.clone());
        self.off_the_driver(move || {
            answer(read().map(Some).unwrap_or_else(|error| {
                let purpose = if is_for_peer { "for a peer" } else { "to apply them" };
                tracing::error!(%error, "cannot read entries {purpose}");
                // A record that rots is mended with what others have. Whoever only applies it waits for that.
                let rotten = match &error {
                    ReadError::Rot(rotten) => rotten.record.map(|record| record.index),
                    _ => None,
                };
                let is_mended = rotten.is_some_and(|index| reader.doubt(index).is_ok());
                if error.is_of_disk() && (is_for_peer || !is_mended) {
                    // Fails only when the node has stopped.
                    let _ = notify.send(Notice::Event(Event::LogUnreadable));
                }
                // Not again at once: an unreadable disk is not asked a thousand times a second.
                std::thread::sleep(UNREADABLE_PAUSE);
                None
            }))
        });
    }

    pub(super) fn load(&self, request: LoadRequest) {
        let reader = self.parts.reader.clone();
        let LoadRequest { to, from, bytes_max } = request;
        self.read_log(
            true,
            move || reader.find(from, bytes_max),
            move |found| Event::Loaded(LogSlice { to, from, found: found.unwrap_or(Found::Unreadable) }),
        );
    }

    pub(super) fn load_to_apply(&self, from: Index, to: Index) {
        let reader = self.parts.reader.clone();
        let read = move || reader.metas(from, to.next(), APPLY_BYTES_MAX);
        self.read_log(false, read, |entries| {
            Event::LoadedToApply(entries.unwrap_or_default().into_iter().map(to_apply).collect())
        });
    }

    /// Looks for messages whose deadlines have come.
    pub(super) fn look_for_due(&mut self, now_ms: u64, max: usize) {
        let Due { mut blocks, pages } = self.parts.bodies.due(now_ms, max);
        if pages.is_empty() {
            return self.immediate.push(Event::Due(blocks));
        }
        let bodies = Arc::clone(&self.parts.bodies);
        self.off_the_driver(move || {
            blocks.extend(pages.iter().flat_map(|page| bodies.read_due(page, now_ms)));
            Event::Due(blocks)
        });
    }
}
