//! Pages in the order of their deadlines.

use super::*;
use crate::DuePage;

/// A file of full pages, each with this least deadline.
fn paged(disk: &FakeDisk, number: u64, deadlines: &[Option<u64>]) -> Arc<Places> {
    let kind = PlacesKind::Segment(number);
    let mut writer = PlacesWriter::create(disk, number, kind).unwrap();
    for (page, deadline) in (0..).zip(deadlines) {
        for place in 0..63 {
            let deadline_ms = deadline.filter(|_| place > 20).map(|least| least + (place + 13) % 63 * 10_000);
            let first_offset = number * 1_000_000 + page * 63 + place;
            let spot = Spot::Entry { offset: 512, command: 0 };
            let block =
                Block { topic: 1, first_offset, count: 1, spot, published_ms: 0, deadline_ms, bytes: 1 };
            writer.push(&block).unwrap();
        }
    }
    let written = writer.finish(disk).unwrap();
    open(disk, kind, written, 0).unwrap()
}

fn given(pages: &[DuePage]) -> Vec<(u64, u64, u32)> {
    pages.iter().map(|due| (due.deadline_ms, due.file.number(), due.page)).collect()
}

#[test]
fn half_of_the_room_is_for_what_became_due_last() {
    let disk = FakeDisk::new(1);
    let old: Vec<_> = (0..100).map(Some).collect();
    let mut map = PlacesMap::new();
    map.change(vec![filed(&paged(&disk, 1, &old))], &[]);
    map.change(vec![filed(&paged(&disk, 2, &[Some(5000), None, Some(9000)]))], &[]);
    assert_eq!(map.next_due(), Some(0));
    // A new TTL fires although a hundred pages wait to be looked at.
    assert_eq!(given(&map.due(5000, 4)), [(0, 1, 0), (1, 1, 1), (5000, 2, 0), (99, 1, 99)]);
    assert_eq!(given(&map.due(5000, 5)), [(2, 1, 2), (3, 1, 3), (4, 1, 4), (98, 1, 98), (97, 1, 97)]);
    assert_eq!(given(&map.due(5000, 1)), [(5, 1, 5)]);
    assert_eq!(given(&map.due(3, 4)), [], "nothing is due so early: those were given out");
    assert_eq!(map.due(8999, 1000).len(), 91, "each once, and all that are due");
    assert_eq!((given(&map.due(8999, 10)), map.next_due()), (vec![], Some(9000)));
}

#[test]
fn a_page_that_was_looked_at_is_due_when_it_says_or_never() {
    let disk = FakeDisk::new(1);
    let mut map = PlacesMap::new();
    map.change(vec![filed(&paged(&disk, 1, &[Some(10), Some(20)]))], &[]);
    let pages = map.due(100, 10);
    assert_eq!((given(&pages), map.next_due()), (vec![(10, 1, 0), (20, 1, 1)], None));
    map.looked_at(&pages[0], Some(50));
    map.looked_at(&pages[1], None);
    assert_eq!(map.next_due(), Some(50));
    assert_eq!(given(&map.due(49, 10)), []);
    let pages = map.due(50, 10);
    assert_eq!(given(&pages), [(50, 1, 0)]);
    // The file has gone meanwhile: what replaced it has its own pages.
    map.change(vec![filed(&paged(&disk, 2, &[Some(30)]))], &[1]);
    map.looked_at(&pages[0], Some(60));
    assert_eq!(map.next_due(), Some(30));
    assert_eq!(given(&map.due(100, 10)), [(30, 2, 0)]);
    assert_eq!(map.next_due(), None);
}

/// Two files have the same messages, as copies do that others gave. Each look says when to look again, and no look adds one.
#[test]
fn a_page_waits_for_one_time_however_often_it_is_told_to() {
    let disk = FakeDisk::new(1);
    let mut map = PlacesMap::new();
    map.change(vec![filed(&paged(&disk, 1, &[Some(10), Some(3000)]))], &[]);
    while map.step(10, |_| true).is_more {}
    for again in [40, 30, 35] {
        map.look_again(1, 1_000_030, again);
    }
    assert_eq!((given(&map.due(25, 10)), map.due_pages()), (vec![(10, 1, 0)], 1));
    for again in [40, 30, 35] {
        map.look_again(1, 1_000_030, again);
    }
    let pages = map.due(30, 10);
    assert_eq!((given(&pages), map.next_due()), (vec![(30, 1, 0)], Some(3000)));
    map.look_again(1, 1_000_031, 60);
    map.looked_at(&pages[0], Some(50));
    map.looked_at(&pages[0], Some(70));
    assert_eq!((given(&map.due(100, 10)), map.next_due()), (vec![(50, 1, 0)], Some(3000)));
}

#[derive(Clone, Debug)]
enum Action {
    Add(Vec<Option<u64>>),
    Remove(prop::sample::Index),
    Due { now_ms: u64, pages_max: usize },
    LookedAt { at: prop::sample::Index, next: Option<u64> },
}

fn action() -> impl Strategy<Value = Action> {
    let deadline = proptest::option::of(0..50_u64);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => proptest::collection::vec(deadline.clone(), 0..15).prop_map(Action::Add),
        1 => index().prop_map(Action::Remove),
        3 => (0..60_u64, 0..12_usize).prop_map(|(now_ms, pages_max)| Action::Due { now_ms, pages_max }),
        3 => (index(), deadline).prop_map(|(at, next)| Action::LookedAt { at, next }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_is_a_sorted_list(actions in proptest::collection::vec(action(), 1..40)) {
        let disk = FakeDisk::new(1);
        let mut map = PlacesMap::new();
        // Deadline, file, page: what is waiting. And what was given out.
        let (mut waiting, mut out) = (BTreeSet::<(u64, u64, u32)>::new(), Vec::<DuePage>::new());
        let mut files: Vec<u64> = Vec::new();
        for (number, action) in (1..).zip(actions) {
            match action {
                Action::Add(deadlines) => {
                    let places = paged(&disk, number, &deadlines);
                    map.change(vec![Filed::new(places)], &[]);
                    let pages = (0..).zip(deadlines).filter_map(|(page, least)| Some((least?, number, page)));
                    waiting.extend(pages);
                    files.push(number);
                }
                Action::Remove(at) if !files.is_empty() => {
                    let gone = files.remove(at.index(files.len()));
                    map.change(Vec::new(), &[gone]);
                    waiting.retain(|page| page.1 != gone);
                }
                Action::Due { now_ms, pages_max } => {
                    let mut expected: Vec<_> =
                        waiting.iter().filter(|page| page.0 <= now_ms).take(pages_max.div_ceil(2)).copied().collect();
                    let mut rest: Vec<_> =
                        waiting.iter().filter(|page| page.0 <= now_ms && !expected.contains(page)).copied().collect();
                    rest.sort_by_key(|(deadline_ms, file, page)| std::cmp::Reverse((*deadline_ms, *page, *file)));
                    rest.truncate(pages_max - expected.len());
                    expected.extend(rest);
                    let pages = map.due(now_ms, pages_max);
                    prop_assert_eq!(given(&pages), expected.clone());
                    waiting.retain(|page| !expected.contains(page));
                    out.extend(pages);
                }
                Action::LookedAt { at, next } if !out.is_empty() => {
                    let page = out.remove(at.index(out.len()));
                    map.looked_at(&page, next);
                    let is_there = files.contains(&page.file.number());
                    // It was given out, so it waits for nothing else.
                    waiting.extend(next.filter(|_| is_there).map(|next| (next, page.file.number(), page.page)));
                }
                Action::Remove(_) | Action::LookedAt { .. } => {}
            }
            prop_assert_eq!(map.next_due(), waiting.first().map(|page| page.0));
        }
    }
}
