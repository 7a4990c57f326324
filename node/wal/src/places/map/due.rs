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

/// The pages of a file that have a deadline, by that. The pages that were given out are not among them.
#[derive(Debug)]
pub(super) struct Due(BTreeSet<(u64, u32)>);

impl Due {
    pub(super) fn new(places: &Places) -> Due {
        let pages = (0..).zip(0..places.pages());
        let deadline = |(number, page)| places.page_deadline(page).map(|deadline_ms| (deadline_ms, number));
        Due(pages.filter_map(deadline).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn least(&self) -> Option<u64> {
        self.0.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// The last page that is due.
    fn newest(&self, now_ms: u64) -> Option<(u64, u32)> {
        self.0.range(..=(now_ms, u32::MAX)).next_back().copied()
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
            let page = filed.due.0.first().expect("its least deadline is known").1;
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
        filed.due.0.remove(&page);
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
            filed.due.0.insert((deadline_ms, page.page));
            self.enter(number, &filed.due);
        }
    }
}
