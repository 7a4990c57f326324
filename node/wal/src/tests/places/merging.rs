//! Several files into one.

use super::*;
use crate::disk::fake::Crashed;
use crate::{Keep, Merge, MergeError, RottenPart, merge};

/// Deals the blocks of a model out to so many sources, some to two of them.
fn deal(model: &Model, sources: usize, seed: u64) -> Vec<Model> {
    let mut random = crate::random::Random::new(seed);
    let mut dealt = vec![Model::new(); sources];
    for (key, block) in model {
        for _ in 0..=u64::from(random.below(4) == 0) {
            dealt[random.below(sources as u64) as usize].insert(*key, block.clone());
        }
    }
    dealt
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_is_what_its_sources_hold(
        (kind, model) in any_model(300), sources in 1..5_usize, seed in any::<u64>(), drops in 1..5_u64,
    ) {
        let disk = FakeDisk::new(1);
        let mut dealt = deal(&model, sources, seed);
        let mut fresh = Vec::new();
        if kind != PlacesKind::Kept {
            fresh = dealt.pop().unwrap().into_values().map(|(block, _)| block).collect();
        }
        let files: Vec<_> = (10..).zip(&dealt).map(|(number, model)| file(&disk, kind, number, model)).collect();
        let keep = |block: &Block| if block.first_offset % drops == 1 { Keep::No } else { Keep::Yes };
        let writer = PlacesWriter::create(&disk, 5, kind).unwrap();
        let merged = merge(&disk, &files, fresh, keep, writer).unwrap();
        prop_assert!(merged.lost.is_empty());
        let mut kept = model;
        kept.retain(|_, (block, _)| keep(block) == Keep::Yes);
        prop_assert_eq!(merged.messages, kept.values().map(|(block, _)| u64::from(block.count)).sum::<u64>());
        check(&open(&disk.durable_view(), kind, merged.written, 0).unwrap(), &kept);
    }
}

fn halves(disk: &FakeDisk, blocks: u64) -> (Model, Vec<Arc<Places>>) {
    let model = plain(PlacesKind::Kept, blocks);
    let half = |parity| {
        let all = model.iter().enumerate().filter(|(place, _)| place % 2 == parity);
        all.map(|(_, (key, block))| (*key, block.clone())).collect::<Model>()
    };
    let files = [0, 1].map(|parity| file(disk, PlacesKind::Kept, 10 + parity as u64, &half(parity)));
    (model, files.into())
}

fn kept_writer(disk: &FakeDisk) -> PlacesWriter {
    PlacesWriter::create(disk, 5, PlacesKind::Kept).unwrap()
}

#[test]
fn a_damaged_body_is_left_out_and_told() {
    let disk = FakeDisk::new(1);
    let (mut model, files) = halves(&disk, 200);
    let lost = files[1].page(0).unwrap()[7];
    let Spot::Kept { offset, .. } = lost.spot else { panic!("a kept file") };
    assert!(disk.corrupt("kept-000000000000000b", offset + 3, 4));
    let merged = merge(&disk, &files, Vec::new(), |_| Keep::Yes, kept_writer(&disk)).unwrap();
    let [told] = merged.lost.as_slice() else { panic!("{:?}", merged.lost) };
    assert_eq!((told.block, told.rotten.part, told.rotten.offset), (lost, RottenPart::KeptBody, offset));
    assert_eq!(told.rotten.file, "kept-000000000000000b");
    model.remove(&(lost.topic, lost.first_offset)).unwrap();
    check(&open(&disk, PlacesKind::Kept, merged.written, 0).unwrap(), &model);
}

#[test]
fn of_two_copies_the_one_that_is_whole_is_taken() {
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Kept, 100);
    let files: Vec<_> = (10..13).map(|number| file(&disk, PlacesKind::Kept, number, &model)).collect();
    for (number, name) in ["kept-000000000000000a", "kept-000000000000000b"].iter().enumerate() {
        assert!(disk.corrupt(name, 520, 1), "the first body");
        assert!(disk.corrupt(name, 520 + 20 * (1 + number as u64), 1), "and another one");
    }
    let merged = merge(&disk, &files, Vec::new(), |_| Keep::Yes, kept_writer(&disk)).unwrap();
    assert_eq!(merged.lost, []);
    check(&open(&disk, PlacesKind::Kept, merged.written, 0).unwrap(), &model);
    // Damaged in each: told once.
    assert!(disk.corrupt("kept-000000000000000c", 520, 1));
    let writer = PlacesWriter::create(&disk, 6, PlacesKind::Kept).unwrap();
    let merged = merge(&disk, &files, Vec::new(), |_| Keep::Yes, writer).unwrap();
    assert_eq!(merged.lost.len(), 1);
}

#[test]
fn a_damaged_page_ends_the_merge_and_nothing_is_left_of_it() {
    let disk = FakeDisk::new(1);
    let (_, files) = halves(&disk, 400);
    for page in [0, 2] {
        let names = disk.names();
        let at = files[0].page_offset(page) + 100;
        assert!(disk.corrupt("kept-000000000000000a", at, 1));
        let files: Vec<_> =
            files.iter().map(|file| open(&disk, PlacesKind::Kept, file.written(), 0).unwrap()).collect();
        let ended = merge(&disk, &files, Vec::new(), |_| Keep::Yes, kept_writer(&disk)).unwrap_err();
        assert!(ended.to_string().contains("kept-000000000000000a at "), "{ended}");
        assert_eq!(disk.names(), names);
        assert!(disk.corrupt("kept-000000000000000a", at, 1));
    }
}

#[test]
fn more_damage_than_can_be_told_ends_the_merge() {
    let disk = FakeDisk::new(1);
    let model = plain(PlacesKind::Kept, 1100);
    let source = file(&disk, PlacesKind::Kept, 10, &model);
    for block in source.all_blocks().map(Result::unwrap) {
        let Spot::Kept { offset, .. } = block.spot else { panic!("a kept file") };
        assert!(disk.corrupt("kept-000000000000000a", offset, 1));
    }
    let ended = merge(&disk, &[source], Vec::new(), |_| Keep::Yes, kept_writer(&disk)).unwrap_err();
    assert!(matches!(ended, MergeError::TooManyLost), "{ended}");
}

#[test]
fn sources_that_disagree_end_the_merge() {
    let disk = FakeDisk::new(1);
    let kind = PlacesKind::Segment(9);
    let model = plain(kind, 100);
    let source = file(&disk, kind, 10, &model);
    let (block, _) = model.values().nth(50).unwrap();
    let fresh = vec![Block { count: 1, ..*block }];
    let writer = PlacesWriter::create(&disk, 5, kind).unwrap();
    let ended = merge(&disk, &[source], fresh, |_| Keep::Yes, writer).unwrap_err();
    let Block { topic, first_offset: first, .. } = *block;
    assert!(
        ended.to_string().contains(&format!("messages {first}..{} of topic {topic}", first + 1)),
        "{ended}"
    );
}

#[test]
fn a_merge_goes_on_by_a_mebibyte_and_judges_each_block_once() {
    let disk = FakeDisk::new(1);
    let (model, files) = halves(&disk, 20_000);
    let mut merge = Merge::new(&files, Vec::new(), kept_writer(&disk));
    let (mut judged, mut steps) = (0, 0);
    loop {
        let step = merge
            .step(&mut |_| {
                judged += 1;
                Keep::Yes
            })
            .unwrap();
        assert!(step.bytes <= (1 << 20) + 1000, "{step:?}");
        steps += 1;
        if step.is_done {
            break;
        }
    }
    assert_eq!(
        (judged, steps),
        (model.len(), 4),
        "each block is 64 bytes and a body of 20, read and written"
    );
    check(&open(&disk, PlacesKind::Kept, merge.finish(&disk).unwrap().written, 0).unwrap(), &model);
}

#[test]
fn a_crash_at_any_call_of_a_merge_leaves_the_sources_whole() {
    let sources = FakeDisk::new(1);
    let (model, files) = halves(&sources, 300);
    let written: Vec<Written> = files.iter().map(|file| file.written()).collect();
    let merges = |disk: &FakeDisk| {
        let opened: Result<Vec<_>, _> =
            written.iter().map(|written| open(disk, PlacesKind::Kept, *written, 0)).collect();
        let opened = opened.map_err(|error| error.to_string())?;
        let writer = PlacesWriter::create(disk, 5, PlacesKind::Kept).map_err(|error| error.to_string())?;
        merge(disk, &opened, Vec::new(), |_| Keep::Yes, writer).map_err(|error| error.to_string())
    };
    let whole = sources.deep_clone();
    let merged = merges(&whole).unwrap();
    assert!(whole.calls() > 300, "every body is read: {}", whole.calls());
    for call in 1..=whole.calls() {
        let disk = sources.deep_clone();
        disk.crash_at_call(call);
        let ended = merges(&disk).unwrap_err();
        assert!(ended.contains(&Crashed.to_string()), "{ended}");
        disk.power_cut(call);
        // Again, over what was left, which the next opening takes away.
        disk.take("kept-0000000000000005");
        assert_eq!(merges(&disk).unwrap(), merged);
        if call % 50 == 0 {
            check(&open(&disk.durable_view(), PlacesKind::Kept, merged.written, 0).unwrap(), &model);
        }
    }
}
