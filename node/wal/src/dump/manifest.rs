//! The manifest and the snapshots, for a human.

use crate::disk::Disk;
use crate::manifest::{FileId, KeptFile, Manifest, PlacesFile, Retired, SnapshotFile};
use crate::names::{KEPT, PLACES, SNAPSHOT, file_number, numbered};
use crate::segment::segment_name;
use crate::snapshot::{SnapshotError, SnapshotReader};
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Writes what the manifest names. Says how many files of these are not there.
pub(super) fn dump_manifest(
    manifest: &Manifest,
    names: &BTreeSet<String>,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let Manifest { first_segment, next_file, released, places, kept, snapshots, retired, is_incomplete } =
        manifest;
    writeln!(
        out,
        "MANIFEST   first segment {first_segment:016x}, next file {next_file:016x}, {} released segments, {} places \
         files, {} kept files, {} snapshots, {} retired",
        released.len(),
        places.len(),
        kept.len(),
        snapshots.len(),
        retired.len()
    )?;
    let mut damaged = 0;
    let mut named = BTreeSet::new();
    let mut name = |out: &mut dyn Write, name: String, what: &str| -> io::Result<()> {
        writeln!(out, "  {name}: {what}")?;
        if !names.contains(&name) {
            damaged += 1;
            writeln!(out, "  DAMAGED {name} is missing")?;
        }
        named.insert(name);
        Ok(())
    };
    for segment in released {
        name(out, segment_name(*segment), "released, kept for its bodies")?;
    }
    for PlacesFile { number, size, crc, segment, to, messages } in places {
        let what = format!(
            "places of segment {segment:016x} up to index {to}, {messages} messages, {size} bytes, crc {crc:08x}"
        );
        name(out, numbered(PLACES, *number), &what)?;
    }
    for KeptFile { number, size, crc, since } in kept {
        let what = format!("kept, live as of index {since}, {size} bytes, crc {crc:08x}");
        name(out, numbered(KEPT, *number), &what)?;
    }
    for SnapshotFile { number, size, crc, index, term } in snapshots {
        let what = format!("snapshot at index {index} term {term}, {size} bytes, crc {crc:08x}");
        name(out, numbered(SNAPSHOT, *number), &what)?;
    }
    for Retired { file, at } in retired {
        let file = match file {
            FileId::Segment(number) => segment_name(*number),
            FileId::Kept(number) => numbered(KEPT, *number),
        };
        writeln!(out, "  {file}: retired as of index {at}")?;
    }
    if *is_incomplete {
        writeln!(out, "  messages that live may be lacking: another node's snapshot was taken over")?;
    }
    for leftover in names.iter().filter(|name| file_number(name).is_some() && !named.contains(*name)) {
        writeln!(out, "  {leftover}: not named, a leftover")?;
    }
    Ok(damaged)
}

/// Reads a snapshot whole. Says how many damaged places there are.
pub(super) fn dump_snapshot(disk: &dyn Disk, file: &SnapshotFile, out: &mut dyn Write) -> io::Result<u64> {
    let name = file.name();
    let (mut sections, mut bytes) = (0_u64, 0_u64);
    let read = SnapshotReader::open(disk, file).and_then(|(head, mut reader)| {
        while let Some(section) = reader.next()? {
            sections += 1;
            bytes += section.len() as u64;
        }
        Ok(head)
    });
    match read {
        Ok(head) => {
            writeln!(
                out,
                "SNAPSHOT   {name}: index {} term {}, log time {} ms, configuration of index {} with {} members, \
                 {sections} sections, {bytes} bytes of content",
                head.index,
                head.term,
                head.stamp_ms,
                head.configuration_index,
                head.configuration.members.len()
            )?;
            Ok(0)
        }
        Err(SnapshotError::Io { source, .. }) => Err(source),
        Err(error) => {
            writeln!(out, "DAMAGED {error}, behind {sections} whole sections")?;
            Ok(1)
        }
    }
}
