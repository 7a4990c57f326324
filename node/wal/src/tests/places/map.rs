//! Which files may hold a message, and which pages are due.

mod due;

use super::*;
use crate::{Filed, PlacesMap};
use std::collections::BTreeSet;

/// Topic and offset.
type Messages = BTreeSet<(u64, u64)>;

/// A file of exactly these messages.
fn holding(disk: &FakeDisk, kind: PlacesKind, number: u64, messages: &Messages) -> Arc<Places> {
    let mut writer = PlacesWriter::create(disk, number, kind).unwrap();
    for (topic, first_offset) in messages {
        let spot = match kind {
            PlacesKind::Segment(_) => Spot::Entry { offset: 512, command: 0 },
            PlacesKind::Kept => Spot::Kept { offset: writer.body(b"x").unwrap(), crc: crc32c::crc32c(b"x") },
        };
        let (topic, first_offset) = (*topic, *first_offset);
        let block =
            Block { topic, first_offset, count: 1, spot, published_ms: 0, deadline_ms: None, bytes: 1 };
        writer.push(&block).unwrap();
    }
    let written = writer.finish(disk).unwrap();
    open(disk, kind, written, 1 << 20).unwrap()
}

fn range(topic: u64, offsets: std::ops::Range<u64>) -> Messages {
    offsets.map(|offset| (topic, offset)).collect()
}

fn filed(places: &Arc<Places>) -> Filed {
    Filed::new(Arc::clone(places))
}

fn numbers(map: &PlacesMap, topic: u64, offset: u64) -> Vec<u64> {
    map.candidates(topic, offset).map(|places| places.number()).collect()
}

/// All that was begun; the numbers of files that went.
fn settle(map: &mut PlacesMap) -> Vec<u64> {
    let mut gone = Vec::new();
    loop {
        let stepped = map.step(3, |_| true);
        gone.extend(stepped.gone.iter().map(|filed| filed.places().number()));
        if !stepped.is_more {
            return gone;
        }
    }
}

#[test]
fn a_kept_file_takes_over_and_what_it_lacks_is_asked_of_others() {
    let disk = FakeDisk::new(1);
    let segment = |number, offsets| holding(&disk, PlacesKind::Segment(number), number, &range(1, offsets));
    let segments = [segment(1, 0..10), segment(2, 10..20), segment(3, 20..30)];
    let mut map = PlacesMap::new();
    map.change(segments.iter().map(filed).collect(), &[]);
    assert_eq!(settle(&mut map), []);
    assert_eq!(numbers(&map, 1, 15), [2]);
    assert_eq!((numbers(&map, 1, 30), numbers(&map, 2, 15)), (vec![], vec![]));
    // Few are left of the first and the last; the middle one stays.
    let kept = holding(&disk, PlacesKind::Kept, 4, &[(1, 3), (1, 27)].into());
    map.change(vec![filed(&kept)], &[1, 3]);
    assert_eq!(settle(&mut map), [1, 3]);
    assert_eq!(numbers(&map, 1, 3), [4]);
    assert_eq!(numbers(&map, 1, 15), [2, 4], "the hole of one is the range of the other");
    // Another kept file, in the hole: the narrow one is asked first.
    let inner = holding(&disk, PlacesKind::Kept, 5, &[(1, 11), (1, 15)].into());
    map.change(vec![filed(&inner)], &[2]);
    assert_eq!(settle(&mut map), [2]);
    assert_eq!(numbers(&map, 1, 13), [5, 4]);
    assert_eq!(numbers(&map, 1, 20), [4]);
    assert_eq!(numbers(&map, 1, 28), Vec::<u64>::new());
    assert_eq!(map.spans(), 2);
    map.change(Vec::new(), &[4, 5]);
    assert_eq!((settle(&mut map), map.spans(), map.files().count()), (vec![4, 5], 0, 0));
    assert!(map.drop_topic(1).is_none(), "nothing is known of a topic that no file has");
}

#[test]
fn a_later_file_of_the_same_segment_takes_the_place_of_the_earlier_one() {
    let disk = FakeDisk::new(1);
    let mut map = PlacesMap::new();
    let early = holding(&disk, PlacesKind::Segment(1), 1, &range(1, 0..10));
    let late = holding(&disk, PlacesKind::Segment(1), 2, &range(1, 0..20));
    map.change(vec![filed(&early)], &[]);
    settle(&mut map);
    map.change(vec![filed(&late)], &[1]);
    assert_eq!(settle(&mut map), [1]);
    assert_eq!((numbers(&map, 1, 5), numbers(&map, 1, 15)), (vec![2], vec![2]));
    assert_eq!(map.spans(), 1);
}

#[test]
fn rule_10_1_files_come_and_go_by_so_many_topics_at_a_time() {
    let disk = FakeDisk::new(1);
    let all: Messages = (0..1000).map(|topic| (topic, 7)).collect();
    let segment = holding(&disk, PlacesKind::Segment(1), 1, &all);
    let kept = holding(&disk, PlacesKind::Kept, 2, &all);
    let mut map = PlacesMap::new();
    map.change(vec![filed(&segment)], &[]);
    let steps = |map: &mut PlacesMap| {
        let mut steps = 1;
        while map.step(10, |_| true).is_more {
            steps += 1;
        }
        steps
    };
    assert_eq!(steps(&mut map), 101, "10 topics each, and one for the file");
    assert_eq!(map.spans(), 1000);
    map.change(vec![filed(&kept)], &[1]);
    assert_eq!(map.spans(), 1000, "nothing happens at once");
    assert!(map.step(10, |_| true).is_more);
    assert_eq!(map.spans(), 1010);
    assert_eq!(numbers(&map, 5, 7), [1, 2], "both, until the second is whole");
    assert_eq!(numbers(&map, 500, 7), [1]);
    assert_eq!(steps(&mut map), 200);
    assert_eq!((map.spans(), numbers(&map, 500, 7)), (1000, vec![2]));
    // Many files without any topic are as much work as many topics.
    let empty = |number| filed(&holding(&disk, PlacesKind::Kept, number, &Messages::new()));
    map.change((10..110).map(empty).collect(), &[]);
    assert_eq!(steps(&mut map), 10);
}

#[test]
fn a_topic_that_was_dropped_is_given_back_whole_and_does_not_return() {
    let disk = FakeDisk::new(1);
    let all: Messages = range(1, 0..5).into_iter().chain(range(2, 0..5)).collect();
    let mut map = PlacesMap::new();
    map.change(vec![filed(&holding(&disk, PlacesKind::Segment(1), 1, &all))], &[]);
    map.change(vec![filed(&holding(&disk, PlacesKind::Kept, 2, &all))], &[]);
    assert!(map.step(2, |_| true).is_more, "the first file is in, the second is under way");
    assert!(map.drop_topic(1).is_some() && map.drop_topic(1).is_none());
    assert_eq!(numbers(&map, 1, 3), Vec::<u64>::new());
    while map.step(1, |topic| topic != 1).is_more {}
    assert_eq!((numbers(&map, 1, 3), numbers(&map, 2, 3)), (vec![], vec![1, 2]));
    assert_eq!(map.spans(), 2);
    // The files that held it too go as any others.
    map.change(Vec::new(), &[1, 2]);
    assert_eq!((settle(&mut map), map.spans()), (vec![1, 2], 0));
}

#[derive(Clone, Debug)]
enum Action {
    /// A segment is full: so many more messages of each topic.
    Segment(Vec<u64>),
    /// The last segment has more by now.
    Again(Vec<u64>),
    /// Kept files for what is left of these files.
    Keep(Vec<prop::sample::Index>, u64),
    /// Nobody wants anything of this file any more.
    Forget(prop::sample::Index),
    Drop(u64),
    Step(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let counts = proptest::collection::vec(0..4_u64, 3);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => counts.clone().prop_map(Action::Segment),
        2 => counts.prop_map(Action::Again),
        3 => (proptest::collection::vec(index(), 1..4), any::<u64>()).prop_map(|(of, seed)| Action::Keep(of, seed)),
        1 => index().prop_map(Action::Forget),
        1 => (0..3_u64).prop_map(Action::Drop),
        6 => (0..5_usize).prop_map(Action::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_found_at_every_moment(actions in proptest::collection::vec(action(), 1..50)) {
        let disk = FakeDisk::new(1);
        let mut map = PlacesMap::new();
        // The files that count, and all that they hold of topics that live.
        let mut files: BTreeMap<u64, (PlacesKind, Messages)> = BTreeMap::new();
        // Files that were added and are not yet entered: what only they hold need not be found.
        let (mut entered, mut is_settled) = (Messages::new(), true);
        let (mut next, mut dropped, mut gone, mut removed) = ([0_u64; 3], BTreeSet::new(), Vec::new(), Vec::new());
        for (number, action) in (1..).zip(actions) {
            let more = |counts: &[u64], next: &mut [u64; 3]| {
                let mut messages = Messages::new();
                for (topic, count) in counts.iter().enumerate() {
                    messages.extend(range(topic as u64, next[topic]..next[topic] + count));
                    next[topic] += count;
                }
                messages
            };
            let (mut add, mut remove) = (Vec::new(), Vec::new());
            match action {
                Action::Segment(counts) => add.push((PlacesKind::Segment(number), more(&counts, &mut next))),
                Action::Again(counts) => {
                    let last = files.iter().rev().find(|(_, (kind, _))| *kind != PlacesKind::Kept);
                    // Only the last segment grows; once it was replaced by kept files it is none any more.
                    if let Some((last, (kind, messages))) = last
                        && (0..3).all(|topic| {
                            let end = messages.range((topic, 0)..(topic + 1, 0)).next_back();
                            next[topic as usize] == 0 || end.is_some_and(|end| end.1 + 1 == next[topic as usize])
                        })
                    {
                        let (last, kind, mut messages) = (*last, *kind, messages.clone());
                        messages.extend(more(&counts, &mut next));
                        add.push((kind, messages));
                        remove.push(last);
                    }
                }
                Action::Keep(of, seed) => {
                    let all: Vec<u64> = files.keys().copied().collect();
                    let of: BTreeSet<u64> = of.iter().filter(|_| !all.is_empty()).map(|at| *at.get(&all)).collect();
                    let messages = of.iter().flat_map(|number| files[number].1.iter().copied());
                    let is_left = |(topic, offset): &(u64, u64)| !(topic * 7 + offset + seed).is_multiple_of(3);
                    add.push((PlacesKind::Kept, messages.filter(is_left).collect()));
                    remove.extend(of);
                }
                Action::Forget(at) => remove.extend(files.keys().nth(at.index(files.len() + 1)).copied()),
                Action::Drop(topic) => {
                    dropped.insert(topic);
                    drop(map.drop_topic(topic));
                }
                Action::Step(topics_max) => {
                    let stepped = map.step(topics_max, |topic| !dropped.contains(&topic));
                    is_settled = !stepped.is_more;
                    gone.extend(stepped.gone.iter().map(|filed| filed.places().number()));
                }
            }
            if !add.is_empty() || !remove.is_empty() {
                is_settled = false;
                let add: Vec<Filed> = add
                    .into_iter()
                    .map(|(kind, messages)| {
                        let places = holding(&disk, kind, number, &messages);
                        files.insert(number, (kind, messages));
                        Filed::new(places)
                    })
                    .collect();
                map.change(add, &remove);
                remove.iter().for_each(|number| drop(files.remove(number)));
                removed.extend(remove);
            }
            let all: Messages = files.values().flat_map(|(_, messages)| messages.iter().copied()).collect();
            if is_settled {
                entered.clone_from(&all);
            } else {
                // What was left out of a kept file is not asked for any more.
                entered.retain(|message| all.contains(message));
            }
            entered.retain(|(topic, _)| !dropped.contains(topic));
            for (topic, offset) in &entered {
                let found = map.candidates(*topic, *offset).any(|places| places.find(*topic, *offset).unwrap().is_some());
                prop_assert!(found, "message {offset} of topic {topic} after step {number}");
            }
        }
        loop {
            let stepped = map.step(2, |topic| !dropped.contains(&topic));
            gone.extend(stepped.gone.iter().map(|filed| filed.places().number()));
            if !stepped.is_more {
                break;
            }
        }
        prop_assert_eq!(gone, removed, "each is given back once, in order");
        prop_assert!(map.files().map(|places| places.number()).eq(files.keys().copied()));
        let ends = |messages: &Messages, topic| {
            let mut of_topic = messages.range((topic, 0)..(topic + 1, 0)).map(|message| message.1);
            of_topic.next().map(|first| first..of_topic.next_back().unwrap_or(first) + 1)
        };
        let mut spans = 0;
        for topic in (0..3).filter(|topic| !dropped.contains(topic)) {
            let of_files: Vec<_> = files
                .iter()
                .filter_map(|(number, (kind, messages))| Some((*number, *kind, ends(messages, topic)?)))
                .collect();
            spans += of_files.len();
            for offset in 0..next[topic as usize] + 2 {
                let may_hold = of_files.iter().filter(|(_, _, span)| span.contains(&offset));
                let may_hold: BTreeSet<u64> = may_hold.map(|(number, ..)| *number).collect();
                let found = numbers(&map, topic, offset);
                prop_assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), may_hold);
                let is_segment = |number: &u64| files[number].0 != PlacesKind::Kept;
                prop_assert!(found.iter().skip(1).all(|number| !is_segment(number)), "{found:?}: a segment is first");
            }
        }
        prop_assert_eq!(map.spans(), spans);
    }
}
