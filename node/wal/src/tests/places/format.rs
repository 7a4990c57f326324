//! The bytes themselves.

use super::*;
use crate::dump;
use crate::format::Malformed;
use crate::format::places::*;
use crate::tests::formats::golden;

fn blocks() -> [Block; 2] {
    let spot = Spot::Entry { offset: 0x1122_3344, command: 0x55 };
    let first = Block {
        topic: 0x0102_0304_0506_0708,
        first_offset: 0x1112_1314,
        count: 3,
        spot,
        published_ms: 0x2122_2324,
        deadline_ms: None,
        bytes: 0x3132,
    };
    [first, Block { first_offset: 0x1112_1400, deadline_ms: Some(0x4142), ..first }]
}

fn tail() -> Tail {
    let (topics, pages, blocks) = (2, 3, 63 * 2 + 1);
    let (topics_at, directory_at) = (5000, 5000 + 2 * 48);
    Tail {
        number: 7,
        topics_at,
        topics,
        directory_at,
        pages,
        blocks,
        topics_crc: 0xaabb,
        directory_crc: 0xccdd,
    }
}

const SIZE: u64 = 5000 + 2 * 48 + 3 * 32 + 72;

#[test]
fn goldens_of_places_files() {
    for (kind, name) in [(PlacesKind::Segment(0x0a0b), "places_head"), (PlacesKind::Kept, "kept_head")] {
        let head = encode_head(kind, 0x0c0d);
        assert_eq!((head.len(), decode_head(&head)), (512, Ok((kind, 0x0c0d))));
        assert!(head[48..].iter().all(|byte| *byte == 0));
        golden(&head[..48], name);
    }
    let page = encode_page(&blocks(), 7, 4096);
    assert_eq!(page.len(), 4096);
    assert!(page[3 * 64..].iter().all(|byte| *byte == 0));
    golden(&page[..3 * 64], "places_page");
    golden(&tail().encode(), "places_tail");
    assert_eq!(Tail::decode(&tail().encode(), 7, PlacesKind::Kept, SIZE), Ok(tail()));
    let mut tables = Vec::new();
    let mut topic = TopicPlaces::new(&blocks()[0]);
    topic.add(&blocks()[1]);
    topic.put(&mut tables);
    PageEntry::new(&blocks(), 4096).put(&mut tables);
    golden(&tables, "places_tables");
}

/// A file as a whole, so that nothing moves in between.
#[test]
fn golden_of_a_kept_file() {
    let disk = FakeDisk::new(1);
    write(&disk, PlacesKind::Kept, 5, &plain(PlacesKind::Kept, 2)).unwrap();
    let mut bytes = disk.bytes("kept-0000000000000005").unwrap();
    assert_eq!(bytes.len(), 512 + 40 + 4096 + 2 * 48 + 32 + 72);
    assert!(bytes.drain(552 + 3 * 64..552 + 4096).all(|byte| byte == 0));
    golden(&bytes[512..], "kept_file");
}

#[test]
fn a_file_of_a_newer_build_says_so() {
    let disk = FakeDisk::new(1);
    let written = write(&disk, PlacesKind::Kept, 5, &plain(PlacesKind::Kept, 2)).unwrap();
    let name = "kept-0000000000000005";
    let mut bytes = disk.bytes(name).unwrap();
    let newer = crate::format::wrap_version(*b"RQPL", 2, &bytes[16..512]);
    bytes[..512].copy_from_slice(&newer);
    disk.put(name, &bytes);
    let refused = open(&disk, PlacesKind::Kept, written, 0).unwrap_err().to_string();
    assert_eq!(refused, format!("{name} has format version 2, this build reads up to 1"));
}

#[test]
fn a_dump_shows_blocks_and_damage() {
    let disk = crate::tests::support::formatted(1);
    write(&disk, PlacesKind::Kept, 0x1f, &plain(PlacesKind::Kept, 70)).unwrap();
    write(&disk, PlacesKind::Segment(9), 5, &plain(PlacesKind::Segment(9), 3)).unwrap();
    let text = || {
        let mut out = Vec::new();
        let summary = dump(&disk, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), summary.damaged)
    };
    let (shown, damaged) = text();
    for part in [
        "KEPT       kept-000000000000001f: bodies, ",
        "2 topics, 70 blocks in 2 pages",
        "  topic    1: 35 messages in 0..",
        "least deadline 1000",
        "  page     1 at ",
        "    topic 1 0..1: body at 512, crc ",
        "PLACES     places-0000000000000005: of segment 0000000000000009, ",
        "    topic 1 0..2: record at 0, command 2, 20 bytes, published 0, deadline 1000",
        "deadline none",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    // Nothing says which of these files count.
    assert!(shown.contains("DAMAGED the directory has kept-000000000000001f but no MANIFEST"), "{shown}");
    assert_eq!(damaged, 1);
    assert!(disk.corrupt("kept-000000000000001f", 600, 1), "a body");
    assert!(disk.corrupt("places-0000000000000005", 5000, 1), "a page");
    let (shown, damaged) = text();
    assert!(shown.contains("DAMAGED rot: kept-000000000000001f at 592: KeptBody"), "{shown}");
    assert!(shown.contains("DAMAGED rot: places-0000000000000005 at 4096: Page"), "{shown}");
    assert_eq!(damaged, 3);
    assert!(disk.corrupt("kept-000000000000001f", 20, 1), "the head");
    let (shown, damaged) = text();
    assert!(shown.contains("kept-000000000000001f at 0: Head") && damaged == 3, "{shown}");
}

#[test]
fn a_page_that_names_what_cannot_be_does_not_pass() {
    let kept =
        |offset, bytes| [Block { count: 1, spot: Spot::Kept { offset, crc: 0 }, bytes, ..blocks()[0] }];
    let check = |blocks: &[Block], kind| {
        let (page, entry) = (encode_page(blocks, 7, 4096), PageEntry::new(blocks, 4096));
        check_page(&page, kind, 7, &entry, 512..9000)
    };
    assert_eq!(check(&kept(8900, 100), PlacesKind::Kept), Ok(()));
    let refused = Err(Malformed::Field("block"));
    for (offset, bytes) in [(8900, 101), (9001, 0), (511, 5), (u64::MAX, 1), (1000, u64::MAX)] {
        assert_eq!(check(&kept(offset, bytes), PlacesKind::Kept), refused, "{bytes} bytes at {offset}");
    }
    let [first, second] = blocks();
    let places = PlacesKind::Segment(9);
    assert_eq!(check(&[first, second], places), Ok(()));
    let three = Block { count: 3, ..kept(8900, 100)[0] };
    assert_eq!(check(&[three], PlacesKind::Kept), refused, "three messages in one body");
    assert_eq!(check(&[Block { count: 0, ..first }], places), refused);
    assert_eq!(check(&[Block { first_offset: u64::MAX - 1, ..first }], places), refused);
    let order = Err(Malformed::Field("order of blocks"));
    assert_eq!(check(&[second, first], places), order);
    assert_eq!(check(&[Block { count: 0xff, ..first }, second], places), order, "overlapping");
    let entry = PageEntry::new(&[second], 4096);
    let found = check_page(&encode_page(&[first], 7, 4096), places, 7, &entry, 512..9000);
    assert_eq!(found, Err(Malformed::Field("first block")), "another page");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tail_names_no_more_than_the_file_has(
        values in proptest::collection::vec(prop_oneof![0..6000_u64, any::<u64>()], 6), size in 0..9000_u64,
        fits in any::<bool>(),
    ) {
        let [number, topics_at, topics, directory_at, pages, blocks] = values.try_into().unwrap();
        let mut tail = Tail { number, topics_at, topics, directory_at, pages, blocks, topics_crc: 0, directory_crc: 0 };
        if fits {
            // So that many pass: and then one of them is off.
            tail.topics %= 10;
            tail.directory_at = tail.topics_at.wrapping_add(tail.topics * 48);
            let left = size.saturating_sub(72).saturating_sub(tail.directory_at);
            tail.pages = left / 32;
            tail.blocks = (tail.pages * 63).saturating_sub(blocks % 63);
        }
        if let Ok(found) = Tail::decode(&tail.encode(), number, PlacesKind::Kept, size) {
            let sum = u128::from(found.topics_at) + u128::from(found.topics) * 48 + u128::from(found.pages) * 32 + 72;
            prop_assert_eq!(sum, u128::from(size));
            prop_assert!(found.blocks <= found.pages * 63 && found.topics_at >= 512);
        }
    }

    #[test]
    fn a_page_with_a_good_checksum_and_any_content_never_panics_and_stays_inside(
        content in proptest::collection::vec(any::<u8>(), 0..4090), count in 0..70_u16, near in any::<bool>(),
    ) {
        let mut page = encode_page(&blocks(), 7, 4096);
        if near {
            // A good page but for one place.
            let at = 64 + content.len() % (4096 - 64);
            page[at] ^= content.first().copied().unwrap_or(1);
        } else {
            page[6..6 + content.len()].copy_from_slice(&content);
            page[4..6].copy_from_slice(&count.to_le_bytes());
        }
        let seed = crc32c::crc32c_append(crc32c::crc32c(&7_u64.to_le_bytes()), &4096_u64.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &page[4..]);
        page[..4].copy_from_slice(&crc.to_le_bytes());
        let entry = PageEntry::new(&blocks(), 4096);
        for kind in [PlacesKind::Kept, PlacesKind::Segment(3)] {
            if check_page(&page, kind, 7, &entry, 512..9000).is_ok() {
                for at in 0..page_count(&page) {
                    let block = page_block(&page, kind, at);
                    prop_assert!(block.count > 0 && block.end() > block.first_offset);
                    prop_assert!(block.body_range().is_none_or(|body| body.start >= 512 && body.end <= 9000));
                }
            }
        }
    }

    #[test]
    fn tables_of_garbage_with_a_good_checksum_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let crc = crc32c::crc32c(&bytes);
        let _ = decode_topics(&bytes, crc);
        let _ = decode_directory(&bytes, crc, 512..9000);
        prop_assert!(matches!(decode_topics(&bytes, crc ^ 1), Err(Malformed::Checksum)));
    }
}
