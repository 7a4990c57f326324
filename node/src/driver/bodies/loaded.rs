//! Entries read back whose messages stay known: what was used last stays longest.

use super::entry::Entry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a record stands: segment and offset.
pub(super) type Spot = (u64, u64);

/// Bounded by bytes.
#[derive(Debug)]
pub(super) struct Loaded {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<Spot, (u64, Arc<Entry>)>,
    /// By the last use.
    uses: BTreeMap<u64, Spot>,
    last_use: u64,
    bytes: usize,
}

impl Loaded {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    pub(super) fn get(&self, spot: Spot) -> Option<Arc<Entry>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { entries, uses, last_use, .. } = &mut *kept;
        let (used, entry) = entries.get_mut(&spot)?;
        uses.remove(used);
        *last_use += 1;
        *used = *last_use;
        uses.insert(*used, spot);
        Some(Arc::clone(entry))
    }

    pub(super) fn put(&self, spot: Spot, entry: &Arc<Entry>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        kept.last_use += 1;
        kept.bytes += entry.memory_bytes();
        kept.uses.insert(kept.last_use, spot);
        if let Some((used, before)) = kept.entries.insert(spot, (kept.last_use, Arc::clone(entry))) {
            kept.uses.remove(&used);
            kept.bytes -= before.memory_bytes();
        }
        while kept.bytes > self.bytes_max && kept.entries.len() > 1 {
            let (_, oldest) = kept.uses.pop_first().expect("every entry was used");
            let (_, entry) = kept.entries.remove(&oldest).expect("every use is of an entry");
            kept.bytes -= entry.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let entry =
            Arc::new(Entry::of_meta(&crate::api::codec::EntryWriter::default().finish(1, 1)).unwrap());
        let loaded = Loaded::new(0);
        loaded.put((1, 1), &entry);
        assert!(loaded.get((1, 1)).is_some(), "one stays whatever its size");
        let publish = |size| {
            let mut writer = crate::api::codec::EntryWriter::default();
            let messages = vec![raftqueue_queue::MessageMeta::default(); size];
            writer.push(&raftqueue_queue::Command::Publish { topic: "t".into(), session: None, messages });
            Arc::new(Entry::of_meta(&writer.finish(1, 1)).unwrap())
        };
        let entry = publish(10);
        let loaded = Loaded::new(2 * entry.memory_bytes());
        (1..=2).for_each(|at| loaded.put((1, at), &entry));
        assert!(loaded.get((1, 1)).is_some());
        loaded.put((1, 3), &entry);
        assert_eq!([1, 2, 3].map(|at| loaded.get((1, at)).is_some()), [true, false, true]);
        loaded.put((1, 3), &entry);
        assert_eq!(
            [1, 3].map(|at| loaded.get((1, at)).is_some()),
            [true, true],
            "twice the same costs nothing"
        );
    }
}
