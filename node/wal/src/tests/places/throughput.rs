//! How fast, and in how much memory:
//! `cargo --config 'profile.dev.package.raftqueue-wal.opt-level=2' test -p raftqueue-wal -- --ignored --nocapture throughput`.
//! Not in release: link-time optimisation of all tests of this crate takes more than ten minutes.

use super::*;
use crate::disk::RealDisk;
use crate::random::Random;
use std::time::Instant;

const BLOCKS: u64 = 10_000_000;
const FINDS: u64 = 1_000_000;

/// Resident bytes of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
#[ignore = "prints figures; writes 650 MB"]
fn throughput_of_ten_million_blocks() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let disk = RealDisk::open(folder.path()).unwrap();
    let kind = PlacesKind::Segment(9);
    let before = resident_bytes();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);

    let start = Instant::now();
    let mut writer = PlacesWriter::create(&disk, 5, kind).unwrap();
    for first_offset in 0..BLOCKS {
        let spot = Spot::Entry { offset: 512 * first_offset, command: 0 };
        let (published_ms, deadline_ms) = (first_offset, Some(first_offset + 1000));
        let block = Block { topic: 3, first_offset, count: 1, spot, published_ms, deadline_ms, bytes: 100 };
        writer.push(&block).unwrap();
    }
    let pushed = start.elapsed();
    let written = writer.finish(&disk).unwrap();
    println!(
        "{BLOCKS} blocks: {:.2} s, {:.2} s with the sync, {:.0} MiB, memory grew by {:.1} MiB",
        pushed.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        mib(written.size),
        mib(resident_bytes().saturating_sub(before))
    );

    for cache_bytes in [0, 16 << 20] {
        let before = resident_bytes();
        let start = Instant::now();
        let places = Places::open(&disk, kind, written, &PageCache::new(cache_bytes)).unwrap();
        let opened = start.elapsed();
        let mut random = Random::new(1);
        let start = Instant::now();
        for _ in 0..FINDS {
            assert!(places.find(3, random.below(BLOCKS)).unwrap().is_some());
        }
        println!(
            "{FINDS} random finds with a cache of {} MiB: opened in {:.1} ms, {:.2} us each, the file holds {:.1} MiB, \
             memory grew by {:.1} MiB",
            cache_bytes >> 20,
            opened.as_secs_f64() * 1e3,
            start.elapsed().as_secs_f64() * 1e6 / FINDS as f64,
            mib(places.held_bytes() as u64),
            mib(resident_bytes().saturating_sub(before))
        );
    }
}
