//! Places files and kept files, against maps in memory.

mod damage;
mod files;
mod format;
mod map;
mod merging;
mod throughput;

use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::{Block, OpenError, PageCache, Places, PlacesKind, PlacesWriter, Spot, Written};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a file holds: blocks with their bodies, which are empty in a places file.
type Model = BTreeMap<(u64, u64), (Block, Bytes)>;

/// The model's blocks in the order in which they are written.
fn model(kind: PlacesKind, steps: Vec<(u64, u64, u32, usize, Option<u64>)>) -> Model {
    let mut model = Model::new();
    let (mut topic, mut next) = (1, 0);
    for (place, (topic_up, gap, count, size, deadline_ms)) in steps.into_iter().enumerate() {
        if topic_up > 0 {
            (topic, next) = (topic + topic_up, 0);
        }
        let first_offset = next + gap;
        let body = Bytes::from(vec![place as u8; size]);
        let (count, spot, body) = match kind {
            PlacesKind::Kept => (1, Spot::Kept { offset: 0, crc: crc32c::crc32c(&body) }, body),
            PlacesKind::Segment(_) => {
                (count, Spot::Entry { offset: 512 * place as u64, command: count }, Bytes::new())
            }
        };
        let (published_ms, bytes) = (place as u64, size as u64);
        let block = Block { topic, first_offset, count, spot, published_ms, deadline_ms, bytes };
        next = block.end();
        model.insert((topic, first_offset), (block, body));
    }
    model
}

/// So many blocks of two topics, without chance.
fn plain(kind: PlacesKind, blocks: u64) -> Model {
    let step = |n: u64| (u64::from(n == blocks / 2), n % 3, 2, 20, n.is_multiple_of(4).then_some(1000 + n));
    model(kind, (0..blocks).map(step).collect())
}

fn models(kind: PlacesKind, blocks_max: usize) -> impl Strategy<Value = Model> {
    let topic_up = prop_oneof![20 => Just(0_u64), 1 => 1..3_u64];
    let deadline = prop_oneof![3 => Just(None), 1 => (0..100_u64).prop_map(Some)];
    let step = (topic_up, 0..3_u64, 1..9_u32, 0..40_usize, deadline);
    proptest::collection::vec(step, 0..blocks_max).prop_map(move |steps| model(kind, steps))
}

fn kinds() -> impl Strategy<Value = PlacesKind> {
    prop_oneof![Just(PlacesKind::Kept), Just(PlacesKind::Segment(9))]
}

fn any_model(blocks_max: usize) -> impl Strategy<Value = (PlacesKind, Model)> {
    kinds().prop_flat_map(move |kind| models(kind, blocks_max).prop_map(move |model| (kind, model)))
}

fn write(disk: &dyn Disk, kind: PlacesKind, number: u64, model: &Model) -> std::io::Result<Written> {
    let mut writer = PlacesWriter::create(disk, number, kind)?;
    for (block, body) in model.values() {
        let mut block = *block;
        if let Spot::Kept { offset, .. } = &mut block.spot {
            *offset = writer.body(body)?;
        }
        writer.push(&block)?;
    }
    let size = writer.size();
    let written = writer.finish(disk)?;
    assert_eq!(written.size, size, "the length was known before");
    Ok(written)
}

fn open(
    disk: &FakeDisk,
    kind: PlacesKind,
    written: Written,
    cache_bytes: usize,
) -> Result<Arc<Places>, OpenError> {
    Places::open(disk, kind, written, &PageCache::new(cache_bytes))
}

/// Writes and opens.
fn file(disk: &FakeDisk, kind: PlacesKind, number: u64, model: &Model) -> Arc<Places> {
    let written = write(disk, kind, number, model).unwrap();
    open(disk, kind, written, 1 << 20).unwrap()
}

/// The model's block, as the file has it but for the place of a body.
fn same(found: &Block, expected: &Block) -> bool {
    let spot = match (found.spot, expected.spot) {
        (Spot::Kept { crc, .. }, Spot::Kept { crc: expected, .. }) => crc == expected,
        (spot, expected) => spot == expected,
    };
    spot && Block { spot: expected.spot, ..*found } == *expected
}

/// The file is the model, asked in every way.
fn check(places: &Places, model: &Model) {
    let blocks: Vec<Block> = places.all_blocks().map(Result::unwrap).collect();
    assert_eq!(blocks.len(), model.len());
    assert_eq!(places.blocks_count(), model.len() as u64);
    for (found, (expected, body)) in blocks.iter().zip(model.values()) {
        assert!(same(found, expected), "{found:?} is not {expected:?}");
        if places.kind() == PlacesKind::Kept {
            assert_eq!(places.body(found).unwrap(), *body);
        }
        let Block { topic, first_offset, .. } = *expected;
        for offset in first_offset.saturating_sub(1)..=expected.end() {
            let expected = model.range(..=(topic, offset)).next_back().map(|(_, (block, _))| block);
            let expected = expected.filter(|block| block.holds(topic, offset));
            let found = places.find(topic, offset).unwrap();
            assert!(found.zip(expected.copied()).is_none_or(|(found, expected)| same(&found, &expected)));
            assert_eq!(found.is_some(), expected.is_some(), "offset {offset} of topic {topic}");
        }
    }
    let mut by_topic: BTreeMap<u64, Vec<&Block>> = BTreeMap::new();
    model.values().for_each(|(block, _)| by_topic.entry(block.topic).or_default().push(block));
    assert_eq!(
        places.topics().iter().map(|topic| topic.topic).collect::<Vec<_>>(),
        by_topic.keys().copied().collect::<Vec<_>>()
    );
    for (topic, blocks) in by_topic {
        let found = places.topic(topic).unwrap();
        assert_eq!((found.first, found.end), (blocks[0].first_offset, blocks.last().unwrap().end()));
        assert_eq!(found.messages, blocks.iter().map(|block| u64::from(block.count)).sum::<u64>());
        assert_eq!(found.bytes, blocks.iter().map(|block| block.bytes).sum::<u64>());
        assert_eq!(found.deadline_ms(), blocks.iter().filter_map(|block| block.deadline_ms).min());
        for offset in [0, found.first.saturating_sub(1), found.end, u64::MAX] {
            assert!(
                blocks.iter().any(|b| b.holds(topic, offset))
                    || places.find(topic, offset).unwrap().is_none()
            );
        }
    }
    let pages: Vec<Vec<Block>> = (0..places.pages()).map(|page| places.page(page).unwrap()).collect();
    assert_eq!(pages.concat(), blocks);
    for (page, blocks) in pages.iter().enumerate() {
        let least = blocks.iter().filter_map(|block| block.deadline_ms).min();
        assert_eq!(places.page_deadline(page), least);
    }
}
