//! An ordered map whose clone is cheap.
//!
//! A snapshot must not stop the queue while a million leases are copied. So the entries stand in sorted chunks that
//! clones share. A clone costs one pointer for each chunk; later, the first change of a chunk copies that chunk alone.
//! A chunk holds at most [`CHUNK_MAX`] entries.
//!
//! The commonest pattern of a queue, adding at the end and removing at the front, moves no entries at all.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Most entries of a chunk: few enough to copy one in about a microsecond.
const CHUNK_MAX: usize = 64;

/// An ordered map in shared chunks. Two maps with equal entries are equal, whatever their chunks are.
///
/// Invariants: no chunk is empty; `low` of a chunk is at most its first key and greater than every key before it.
pub(crate) struct Map<K, V> {
    chunks: VecDeque<Chunk<K, V>>,
    len: usize,
}

struct Chunk<K, V> {
    low: K,
    entries: Arc<VecDeque<(K, V)>>,
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, position) = self.find(key)?;
        Some(&self.chunks[chunk].entries[position].1)
    }

    /// The value to change. Copies the chunk if a clone shares it.
    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (chunk, position) = self.find(key)?;
        Some(&mut Arc::make_mut(&mut self.chunks[chunk].entries)[position].1)
    }

    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_some()
    }

    /// Puts the value there and returns what stood there before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let chunk = match self.chunk_of(&key) {
            Some(chunk) => chunk,
            None if self.chunks.is_empty() => {
                self.push_chunk_back(key, value);
                return None;
            }
            None => 0,
        };
        let chunks = self.chunks.len();
        let position = match position_in(&self.chunks[chunk].entries, &key) {
            Ok(position) => {
                let held = &mut Arc::make_mut(&mut self.chunks[chunk].entries)[position].1;
                return Some(std::mem::replace(held, value));
            }
            Err(position) => position,
        };
        let count = self.chunks[chunk].entries.len();
        if count < CHUNK_MAX {
            self.insert_at(chunk, position, key, value);
        } else if chunk + 1 == chunks && position == count {
            // Rising keys fill every chunk to the brim.
            self.push_chunk_back(key, value);
        } else if chunk == 0 && position == 0 {
            // `low` may be a key that was removed, and the new key may lie above it.
            self.chunks[0].low = self.chunks[0].entries[0].0.clone();
            let entries = Arc::new(VecDeque::from([(key.clone(), value)]));
            self.chunks.push_front(Chunk { low: key, entries });
            self.len += 1;
        } else {
            let half = CHUNK_MAX / 2;
            let right = Arc::make_mut(&mut self.chunks[chunk].entries).split_off(half);
            let low = right[0].0.clone();
            self.chunks.insert(chunk + 1, Chunk { low, entries: Arc::new(right) });
            if position <= half {
                self.insert_at(chunk, position, key, value);
            } else {
                self.insert_at(chunk + 1, position - half, key, value);
            }
        }
        None
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (chunk, position) = self.find(key)?;
        let entries = Arc::make_mut(&mut self.chunks[chunk].entries);
        let (_, value) = entries.remove(position).expect("find returned a position inside the chunk");
        self.len -= 1;
        self.tidy(chunk);
        Some(value)
    }

    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        let first = Arc::make_mut(&mut self.chunks.front_mut()?.entries).pop_front();
        self.len -= 1;
        self.tidy(0);
        first
    }

    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        let (key, value) = self.chunks.front()?.entries.front()?;
        Some((key, value))
    }

    pub(crate) fn last(&self) -> Option<(&K, &V)> {
        let (key, value) = self.chunks.back()?.entries.back()?;
        Some((key, value))
    }

    /// The first entry whose key is `key` or greater.
    pub(crate) fn ceiling<'a>(&'a self, key: &K) -> Option<(&'a K, &'a V)> {
        let mut chunk = self.chunk_of(key).unwrap_or(0);
        let mut position = match self.chunks.get(chunk) {
            Some(found) => position_in(&found.entries, key).unwrap_or_else(|position| position),
            None => return None,
        };
        if position == self.chunks[chunk].entries.len() {
            (chunk, position) = (chunk + 1, 0);
        }
        let (key, value) = self.chunks.get(chunk)?.entries.get(position)?;
        Some((key, value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.entries.iter().map(|(key, value)| (key, value)))
    }

    /// The entries from the first whose key is `key` or greater.
    pub(crate) fn iter_from<'a>(&'a self, key: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let chunk = self.chunk_of(key).unwrap_or(0);
        let position = match self.chunks.get(chunk) {
            Some(found) => position_in(&found.entries, key).unwrap_or_else(|position| position),
            None => 0,
        };
        let head = self.chunks.get(chunk).map(|chunk| chunk.entries.range(position..));
        let rest = self.chunks.range((chunk + 1).min(self.chunks.len())..);
        head.into_iter()
            .flatten()
            .chain(rest.flat_map(|chunk| chunk.entries.iter()))
            .map(|(key, value)| (key, value))
    }

    /// The chunk in which the key stands, if it does.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        match self.chunks.back() {
            Some(last) if last.low.borrow() <= key => Some(self.chunks.len() - 1),
            _ => self.chunks.partition_point(|chunk| chunk.low.borrow() <= key).checked_sub(1),
        }
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, usize)>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunk_of(key)?;
        let position = position_in(&self.chunks[chunk].entries, key).ok()?;
        Some((chunk, position))
    }

    fn insert_at(&mut self, chunk: usize, position: usize, key: K, value: V) {
        let chunk = &mut self.chunks[chunk];
        if key < chunk.low {
            chunk.low = key.clone();
        }
        Arc::make_mut(&mut chunk.entries).insert(position, (key, value));
        self.len += 1;
    }

    fn push_chunk_back(&mut self, key: K, value: V) {
        let entries = Arc::new(VecDeque::from([(key.clone(), value)]));
        self.chunks.push_back(Chunk { low: key, entries });
        self.len += 1;
    }

    /// After a removal: drops an empty chunk, and joins a sparse one with a sparse neighbour.
    fn tidy(&mut self, chunk: usize) {
        let count = self.chunks[chunk].entries.len();
        if count == 0 {
            self.chunks.remove(chunk);
            return;
        }
        if count >= CHUNK_MAX / 4 {
            return;
        }
        for left in [Some(chunk), chunk.checked_sub(1)].into_iter().flatten() {
            let Some(right) = self.chunks.get(left + 1) else { continue };
            if self.chunks[left].entries.len() + right.entries.len() <= CHUNK_MAX / 2 {
                let right = self.chunks.remove(left + 1).expect("it was just looked at");
                let right = Arc::unwrap_or_clone(right.entries);
                Arc::make_mut(&mut self.chunks[left].entries).extend(right);
                return;
            }
        }
    }
}

/// Where the key stands in a chunk, or where it would have to be inserted.
fn position_in<K: Borrow<Q>, Q: Ord + ?Sized, V>(
    entries: &VecDeque<(K, V)>,
    key: &Q,
) -> Result<usize, usize> {
    match (entries.front(), entries.back()) {
        (_, Some((last, _))) if last.borrow() < key => Err(entries.len()),
        (Some((first, _)), _) if first.borrow() == key => Ok(0),
        _ => entries.binary_search_by(|(held, _)| held.borrow().cmp(key)),
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Map<K, V> {
        Map { chunks: VecDeque::new(), len: 0 }
    }
}

impl<K: Clone, V> Clone for Map<K, V> {
    fn clone(&self) -> Map<K, V> {
        Map { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<K: Clone, V> Clone for Chunk<K, V> {
    fn clone(&self) -> Chunk<K, V> {
        Chunk { low: self.low.clone(), entries: Arc::clone(&self.entries) }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Map<K, V>) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for Map<K, V> {}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Map<K, V> {
        let mut map = Map::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl<V: Clone> Map<u16, V> {
        fn check(&self) {
            let mut len = 0;
            let mut last: Option<u16> = None;
            for chunk in &self.chunks {
                assert!(!chunk.entries.is_empty() && chunk.entries.len() <= CHUNK_MAX);
                assert!(last.is_none_or(|last| last < chunk.low), "low must be above what stands before");
                assert!(chunk.low <= chunk.entries[0].0);
                for (key, _) in chunk.entries.iter() {
                    assert!(last.is_none_or(|last| last < *key), "keys must rise");
                    last = Some(*key);
                    len += 1;
                }
            }
            assert_eq!(len, self.len);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16),
        InsertRun(u16),
        Remove(u16),
        RemoveRun(u16),
        PopFirst,
        Freeze,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0u16..600;
        proptest::collection::vec(
            prop_oneof![
                key.clone().prop_map(Step::Insert),
                key.clone().prop_map(Step::InsertRun),
                key.clone().prop_map(Step::Remove),
                key.prop_map(Step::RemoveRun),
                Just(Step::PopFirst),
                Just(Step::Freeze),
            ],
            1..150,
        )
    }

    proptest! {
        #[test]
        fn behaves_like_a_btree_map_and_clones_do_not_change(steps in steps()) {
            let mut map: Map<u16, u64> = Map::default();
            let mut model: BTreeMap<u16, u64> = BTreeMap::new();
            let mut frozen = Vec::new();
            for (value, step) in (0u64..).zip(steps) {
                match step {
                    Step::Insert(key) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    Step::InsertRun(key) => {
                        for key in key..key + 90 {
                            prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                        }
                    }
                    Step::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Step::RemoveRun(key) => {
                        for key in key..key + 90 {
                            prop_assert_eq!(map.remove(&key), model.remove(&key));
                        }
                    }
                    Step::PopFirst => prop_assert_eq!(map.pop_first(), model.pop_first()),
                    Step::Freeze => frozen.push((map.clone(), model.clone())),
                }
                map.check();
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.first(), model.first_key_value());
                prop_assert_eq!(map.last(), model.last_key_value());
                for key in [0, 77, 300, 599, 700] {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                    prop_assert_eq!(map.get_mut(&key), model.get_mut(&key));
                    prop_assert!(map.iter_from(&key).eq(model.range(key..)));
                    prop_assert_eq!(map.ceiling(&key), model.range(key..).next());
                }
            }
            frozen.push((map, model));
            for (map, model) in frozen {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert_eq!(&map, &model.into_iter().collect::<Map<u16, u64>>());
            }
        }
    }

    #[test]
    fn a_clone_shares_all_chunks_but_the_changed_one() {
        let mut map: Map<u16, u64> = (0..1000).map(|key| (key, 0)).collect();
        let frozen = map.clone();
        *map.get_mut(&500).unwrap() = 1;
        let copied =
            map.chunks.iter().zip(&frozen.chunks).filter(|(a, b)| !Arc::ptr_eq(&a.entries, &b.entries));
        assert_eq!(copied.count(), 1);
        assert_eq!(frozen.get(&500), Some(&0));
    }
}
