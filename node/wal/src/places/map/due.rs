//! Pages of many files in the order of their deadlines.

use super::Filed;
use crate::places::Places;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

/// A page that is to be looked at: some of its messages may have expired. The others have not, or are gone, or dead already.
#[derive(Clone, Debug)]
pub struct DuePage {
    /// Its file.
    pub file: Arc<Places>,
    /// Its number in there.
    pub page: u32,
    /// Since when it is due.
    pub deadline_ms: u64,
}

/// The time of a page that waits for none.
const NEVER: u64 = u64::MAX;

/// The pages of a file that have a deadline. The pages that were given out are not among them.
///
/// A page waits for one time, the first of those that it was told. Who looks at it then looks at all of its messages, and says
/// anew when to look again. If it waited for each of them, it would be read at each, and each of these would add another: where
/// two files have a message that is overdue and leased, both were read twice as often with every second.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// By time.
    queue: BTreeSet<(u64, u32)>,
    /// By page: its time, or [`NEVER`]. As long as it has to be.
    times: Vec<u64>,
}

impl Due {
    pub(super) fn new(places: &Places) -> Due {
        let mut due = Due::default();
        for (number, page) in (0..).zip(0..places.pages()) {
            if let Some(deadline_ms) = places.page_deadline(page) {
                due.insert(deadline_ms, number);
            }
        }
        due
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn least(&self) -> Option<u64> {
        self.queue.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// The last page that is due.
    fn newest(&self, now_ms: u64) -> Option<(u64, u32)> {
        self.queue.range(..=(now_ms, u32::MAX)).next_back().copied()
    }

    /// The page waits for this time, unless it waits for an earlier one.
    fn insert(&mut self, deadline_ms: u64, page: u32) {
        let place = page as usize;
        if self.times.len() <= place {
            self.times.resize(place + 1, NEVER);
        }
        let time = &mut self.times[place];
        if deadline_ms < *time {
            self.queue.remove(&(*time, page));
            self.queue.insert((deadline_ms, page));
            *time = deadline_ms;
        }
    }

    fn remove(&mut self, entry: (u64, u32)) {
        self.queue.remove(&entry);
        self.times[entry.1 as usize] = NEVER;
    }
}

/// Which file has the page that is due first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The least deadline of each file that has any, and its number.
    files: BTreeSet<(u64, u64)>,
}

impl Queue {
    pub(super) fn enter(&mut self, number: u64, due: &Due) {
        self.files.extend(due.least().map(|least| (least, number)));
    }

    pub(super) fn strike(&mut self, number: u64, due: &Due) {
        if let Some(least) = due.least() {
            self.files.remove(&(least, number));
        }
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.files.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    pub(super) fn take(
        &mut self,
        files: &mut BTreeMap<u64, Filed>,
        now_ms: u64,
        pages_max: usize,
    ) -> Vec<DuePage> {
        let mut pages = Vec::new();
        while pages.len() < pages_max.div_ceil(2) {
            let Some((deadline_ms, number)) = self.files.first().copied() else { return pages };
            if deadline_ms > now_ms {
                return pages;
            }
            let filed = files.get_mut(&number).expect("the queue knows the files that count");
            let page = filed.due.queue.first().expect("its least deadline is known").1;
            pages.push(self.give(number, filed, (deadline_ms, page)));
        }
        let newest = |number: u64, filed: &Filed| filed.due.newest(now_ms).map(|page| (page, number));
        let due = self.files.range(..=(now_ms, u64::MAX));
        let mut heap: BinaryHeap<_> = due.filter_map(|(_, number)| newest(*number, &files[number])).collect();
        while pages.len() < pages_max {
            let Some((page, number)) = heap.pop() else { break };
            let filed = files.get_mut(&number).expect("the queue knows the files that count");
            pages.push(self.give(number, filed, page));
            heap.extend(newest(number, filed));
        }
        pages
    }

    /// Takes a page out.
    fn give(&mut self, number: u64, filed: &mut Filed, page: (u64, u32)) -> DuePage {
        self.strike(number, &filed.due);
        filed.due.remove(page);
        self.enter(number, &filed.due);
        let (deadline_ms, page) = page;
        DuePage { file: Arc::clone(&filed.places), page, deadline_ms }
    }

    pub(super) fn put(
        &mut self,
        files: &mut BTreeMap<u64, Filed>,
        page: &DuePage,
        next_deadline: Option<u64>,
    ) {
        let number = page.file.number();
        // What replaced the file has the page's messages under their first deadlines.
        if let (Some(filed), Some(deadline_ms)) = (files.get_mut(&number), next_deadline) {
            self.strike(number, &filed.due);
            filed.due.insert(deadline_ms, page.page);
            self.enter(number, &filed.due);
        }
    }
}
