//! The manifest and the snapshots, for a human.

use super::LineValue::Text;
use super::{Dump, LineKind, crc as hex_crc, hex};
use crate::manifest::{FileId, KeptFile, Manifest, PlacesFile, Retired, SnapshotFile};
use crate::names::{KEPT, PLACES, SNAPSHOT, file_number, numbered};
use crate::segment::segment_name;
use crate::snapshot::{SnapshotError, SnapshotReader};
use std::collections::BTreeSet;
use std::io;

/// Says what the manifest names, and which of these files are not there.
pub(super) fn dump_manifest(
    manifest: &Manifest,
    names: &BTreeSet<String>,
    dump: &mut Dump<'_>,
) -> io::Result<()> {
    let Manifest { first_segment, next_file, released, places, kept, snapshots, retired, is_incomplete } =
        manifest;
    dump.say(
        LineKind::Manifest,
        "MANIFEST   first segment {first_segment}, next file {next_file}, {released} released segments, {places} places \
         files, {kept} kept files, {snapshots} snapshots, {retired} retired",
        [
            ("first_segment", hex(*first_segment)),
            ("next_file", hex(*next_file)),
            ("released", released.len().into()),
            ("places", places.len().into()),
            ("kept", kept.len().into()),
            ("snapshots", snapshots.len().into()),
            ("retired", retired.len().into()),
        ],
    )?;
    let mut named = BTreeSet::new();
    let mut name = |dump: &mut Dump<'_>, name: String, what: String| -> io::Result<()> {
        say_named(dump, &name, what)?;
        if !names.contains(&name) {
            dump.say_damaged("  DAMAGED {what}", format!("{name} is missing"))?;
        }
        named.insert(name);
        Ok(())
    };
    for segment in released {
        name(dump, segment_name(*segment), "released, kept for its bodies".into())?;
    }
    for PlacesFile { number, size, crc, segment, to, messages } in places {
        let what = format!(
            "places of segment {segment:016x} up to index {to}, {messages} messages, {size} bytes, crc {crc:08x}"
        );
        name(dump, numbered(PLACES, *number), what)?;
    }
    for KeptFile { number, size, crc, since } in kept {
        let what = format!("kept, live as of index {since}, {size} bytes, crc {crc:08x}");
        name(dump, numbered(KEPT, *number), what)?;
    }
    for SnapshotFile { number, size, crc, index, term } in snapshots {
        let what = format!("snapshot at index {index} term {term}, {size} bytes, crc {crc:08x}");
        name(dump, numbered(SNAPSHOT, *number), what)?;
    }
    for Retired { file, at } in retired {
        let file = match file {
            FileId::Segment(number) => segment_name(*number),
            FileId::Kept(number) => numbered(KEPT, *number),
        };
        say_named(dump, &file, format!("retired as of index {at}"))?;
    }
    if *is_incomplete {
        dump.say(
            LineKind::Manifest,
            "  messages that live may be lacking: another node's snapshot was taken over",
            [],
        )?;
    }
    for leftover in names.iter().filter(|name| file_number(name).is_some() && !named.contains(*name)) {
        say_named(dump, leftover, "not named, a leftover".into())?;
    }
    Ok(())
}

fn say_named(dump: &mut Dump<'_>, file: &str, what: String) -> io::Result<()> {
    dump.say(LineKind::Named, "  {file}: {what}", [("file", Text(file.to_owned())), ("what", Text(what))])
}

/// Reads a snapshot whole.
pub(super) fn dump_snapshot(file: &SnapshotFile, dump: &mut Dump<'_>) -> io::Result<()> {
    let name = file.name();
    let (mut sections, mut bytes) = (0_u64, 0_u64);
    let read = SnapshotReader::open(dump.disk, file).and_then(|(head, mut reader)| {
        while let Some(section) = reader.next()? {
            sections += 1;
            bytes += section.len() as u64;
        }
        Ok(head)
    });
    match read {
        Ok(head) => dump.say(
            LineKind::Snapshot,
            "SNAPSHOT   {file}: index {index} term {term}, log time {log_time_ms} ms, configuration of index \
             {configuration_index} with {members} members, {sections} sections, {bytes} bytes of content",
            [
                ("file", Text(name)),
                ("index", head.index.0.into()),
                ("term", head.term.0.into()),
                ("log_time_ms", head.stamp_ms.into()),
                ("configuration_index", head.configuration_index.0.into()),
                ("members", head.configuration.members.len().into()),
                ("sections", sections.into()),
                ("bytes", bytes.into()),
                ("crc", hex_crc(file.crc)),
            ],
        ),
        Err(SnapshotError::Io { source, .. }) => Err(source),
        Err(error) => {
            dump.say_damaged("DAMAGED {what}", format!("{error}, behind {sections} whole sections"))
        }
    }
}
