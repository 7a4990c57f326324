//! Which files may hold a message, and which of their pages are due: over all files, in memory, without IO.
//!
//! Memory holds a span for each topic of each file and 24 bytes a page of a file with deadlines, whatever stands in the files.
//! Whoever drives a node calls this between other work, so no call walks over what a topic or a file holds: files come
//! and go by [`PlacesMap::step`], so many topics at a time, and what takes long to free is given back to be freed
//! elsewhere.
//!
//! What a topic has in one segment comes before all that it has in a later one, so the spans of places files never overlap: a
//! message that stands in a segment is named by the one places file whose span has it. Kept files take what is left of any
//! segments, so their spans overlap: several may have to be asked.

mod due;

pub use due::DuePage;

use super::reader::Places;
use crate::format::places::{PlacesKind, TopicPlaces};
use due::{Due, Queue};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A file made ready for a map: its pages sorted by deadline. Made, and dropped, where that may take a moment.
#[derive(Debug)]
pub struct Filed {
    places: Arc<Places>,
    due: Due,
}

impl Filed {
    /// Sorts the pages.
    #[must_use]
    pub fn new(places: Arc<Places>) -> Filed {
        Filed { due: Due::new(&places), places }
    }

    /// The file.
    #[must_use]
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct PlacesMap {
    topics: BTreeMap<u64, Spans>,
    /// The files that count, by number.
    files: BTreeMap<u64, Filed>,
    /// What is being brought about, topic by topic.
    changes: VecDeque<Change>,
    due: Queue,
}

/// A file that comes or goes.
#[derive(Debug)]
struct Change {
    places: Arc<Places>,
    /// How many of its topics were entered, or struck out.
    topics: usize,
    /// It goes.
    gone: Option<Filed>,
}

/// What is known of a topic.
#[derive(Debug, Default)]
struct Spans {
    /// Places files, by first offset.
    segments: BTreeMap<u64, (u64, Arc<Places>)>,
    /// Kept files, by first offset.
    kept: Vec<Span>,
}

/// The offsets of a topic that a kept file has, with holes.
#[derive(Debug)]
struct Span {
    first: u64,
    end: u64,
    /// The greatest end of this one and all before: where to stop when looking back.
    end_max: u64,
    file: Arc<Places>,
}

/// All that a map knew of a topic that was dropped. To be dropped where that may take a moment.
#[derive(Debug)]
pub struct DroppedTopic {
    _spans: Spans,
}

/// How far the changes of a map have come.
#[derive(Debug)]
#[must_use = "the files that have gone are to be dropped elsewhere"]
pub struct Stepped {
    /// Some are left.
    pub is_more: bool,
    /// Files that the map no longer has. To be dropped where that may take a moment.
    pub gone: Vec<Filed>,
}

impl PlacesMap {
    /// An empty map.
    #[must_use]
    pub fn new() -> PlacesMap {
        PlacesMap::default()
    }

    /// Files that come, and numbers of those that they replace. [`PlacesMap::step`] brings it about: those that come are
    /// found before those that go are not, so that no message is in neither. Which pages are due changes at once.
    ///
    /// # Panics
    /// If a file of that number is there already.
    pub fn change(&mut self, add: Vec<Filed>, remove: &[u64]) {
        for filed in add {
            let number = filed.places.number();
            let places = Arc::clone(&filed.places);
            self.changes.push_back(Change { places, topics: 0, gone: None });
            self.due.enter(number, &filed.due);
            assert!(self.files.insert(number, filed).is_none(), "file {number} is there already");
        }
        for number in remove {
            if let Some(filed) = self.files.remove(number) {
                self.due.strike(*number, &filed.due);
                let places = Arc::clone(&filed.places);
                self.changes.push_back(Change { places, topics: 0, gone: Some(filed) });
            }
        }
    }

    /// Goes on with the changes by up to so many topics. Those of which `is_live` is false are not entered: nobody will
    /// ask for them, and they would stay.
    pub fn step(&mut self, topics_max: usize, is_live: impl Fn(u64) -> bool) -> Stepped {
        let mut gone = Vec::new();
        for _ in 0..topics_max {
            let Some(change) = self.changes.front_mut() else { break };
            // A file is a step too, beside its topics: thousands that have none may come at once.
            let Some(TopicPlaces { topic, first, end, .. }) =
                change.places.topics().get(change.topics).copied()
            else {
                gone.extend(self.changes.pop_front().and_then(|change| change.gone));
                continue;
            };
            change.topics += 1;
            if change.gone.is_none() {
                if is_live(topic) {
                    self.topics.entry(topic).or_default().enter(first, end, &change.places);
                }
            } else if let Some(spans) = self.topics.get_mut(&topic) {
                spans.strike(first, &change.places);
                if spans.is_empty() {
                    self.topics.remove(&topic);
                }
            }
        }
        Stepped { is_more: !self.changes.is_empty(), gone }
    }

    /// The files that may hold a message, in the order in which they are best asked, with [`Places::find`]: a places file
    /// first, then kept files, narrow and late ones first.
    pub fn candidates(&self, topic: u64, offset: u64) -> impl Iterator<Item = &Arc<Places>> {
        self.topics.get(&topic).into_iter().flat_map(move |spans| spans.candidates(offset))
    }

    /// Forgets a topic: what was known of it is given back, however much it was. Files that are under way bring none of it
    /// back if [`PlacesMap::step`] is told that it does not live.
    #[must_use = "it is to be dropped elsewhere"]
    pub fn drop_topic(&mut self, topic: u64) -> Option<DroppedTopic> {
        self.topics.remove(&topic).map(|spans| DroppedTopic { _spans: spans })
    }

    /// The files that count, by number.
    pub fn files(&self) -> impl Iterator<Item = &Arc<Places>> {
        self.files.values().map(|filed| &filed.places)
    }

    /// How many spans it holds: for checkers.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.topics.values().map(|spans| spans.segments.len() + spans.kept.len()).sum()
    }

    /// How many pages have a deadline at which they are to be looked at: for checkers.
    #[must_use]
    pub fn due_pages(&self) -> usize {
        self.files.values().map(|filed| filed.due.len()).sum()
    }

    /// When the next page is due, in log time.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.next()
    }

    /// Up to so many pages that are due: half of them those that have been for longest, half those that became it last.
    /// So messages that have just expired are seen in time however many old ones wait to be looked at.
    ///
    /// Each is given out once, until [`PlacesMap::looked_at`].
    pub fn due(&mut self, now_ms: u64, pages_max: usize) -> Vec<DuePage> {
        self.due.take(&mut self.files, now_ms, pages_max)
    }

    /// The page that has a message is due again then, unless it is sooner: then all of its messages are looked at.
    pub fn look_again(&mut self, topic: u64, offset: u64, deadline_ms: u64) {
        let page = |file: &Arc<Places>| Some((Arc::clone(file), file.page_of(topic, offset)?));
        let pages: Vec<_> = self.candidates(topic, offset).filter_map(page).collect();
        for (file, page) in pages {
            let page = u32::try_from(page).expect("the directory was bounded at opening");
            self.looked_at(&DuePage { file, page, deadline_ms }, Some(deadline_ms));
        }
    }

    /// A page was looked at: it is due again then, unless something else makes it due sooner, or never. What was not looked at after all is put back with the
    /// deadline that it had.
    pub fn looked_at(&mut self, page: &DuePage, next_deadline: Option<u64>) {
        self.due.put(&mut self.files, page, next_deadline);
    }
}

impl Spans {
    fn enter(&mut self, first: u64, end: u64, file: &Arc<Places>) {
        let file = Arc::clone(file);
        match file.kind() {
            // A later file of the same segment begins where this one did, and takes its place.
            PlacesKind::Segment(_) => drop(self.segments.insert(first, (end, file))),
            PlacesKind::Kept => {
                let at = self.kept.partition_point(|span| span.first <= first);
                self.kept.insert(at, Span { first, end, end_max: end, file });
                self.end_max_from(at);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.kept.is_empty()
    }

    fn strike(&mut self, first: u64, file: &Arc<Places>) {
        match file.kind() {
            PlacesKind::Segment(_) => {
                if self.segments.get(&first).is_some_and(|(_, found)| Arc::ptr_eq(found, file)) {
                    self.segments.remove(&first);
                }
            }
            PlacesKind::Kept => {
                let from = self.kept.partition_point(|span| span.first < first);
                let found = self.kept[from..]
                    .iter()
                    .take_while(|span| span.first == first)
                    .position(|span| Arc::ptr_eq(&span.file, file));
                if let Some(place) = found {
                    self.kept.remove(from + place);
                    self.end_max_from(from + place);
                }
            }
        }
    }

    fn end_max_from(&mut self, at: usize) {
        let mut end_max = at.checked_sub(1).map_or(0, |before| self.kept[before].end_max);
        for span in &mut self.kept[at..] {
            end_max = end_max.max(span.end);
            span.end_max = end_max;
        }
    }

    fn candidates(&self, offset: u64) -> impl Iterator<Item = &Arc<Places>> {
        let segment = self.segments.range(..=offset).next_back().map(|(_, segment)| segment);
        let segment = segment.filter(|(end, _)| offset < *end).map(|(_, file)| file);
        let behind = self.kept.partition_point(|span| span.first <= offset);
        let kept = self.kept[..behind].iter().rev();
        let kept = kept.take_while(move |span| offset < span.end_max);
        let kept = kept.filter(move |span| offset < span.end).map(|span| &span.file);
        segment.into_iter().chain(kept)
    }
}
