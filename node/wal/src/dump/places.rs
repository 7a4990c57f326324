//! Places files and kept files, for a human.

use super::LineValue::Text;
use super::{Dump, LineKind, crc as hex_crc};
use crate::error::{OpenError, ReadError};
use crate::places::{Block, Places, PlacesKind, Spot};
use std::io;

/// Says what such a file holds; every page is read, and every body.
pub(super) fn dump_places(name: &str, number: u64, dump: &mut Dump<'_>) -> io::Result<()> {
    match Places::open_as_found(dump.disk, name, number) {
        Ok(places) => dump_file(name, &places, dump),
        Err(OpenError::Io { source, .. }) => Err(source),
        Err(error) => dump.say_damaged("DAMAGED {what}", error.to_string()),
    }
}

fn dump_file(name: &str, places: &Places, dump: &mut Dump<'_>) -> io::Result<()> {
    let written = places.written();
    let (label, of) = match places.kind() {
        PlacesKind::Segment(segment) => ("PLACES", format!("of segment {segment:016x}")),
        PlacesKind::Kept => ("KEPT", "bodies".to_owned()),
    };
    dump.say(
        LineKind::Places,
        "{label} {file}: {of}, {bytes} bytes, crc {crc}, {topics} topics, {blocks} blocks in {pages} pages",
        [
            ("label", Text(format!("{label:<10}"))),
            ("file", Text(name.to_owned())),
            ("of", Text(of)),
            ("bytes", written.size.into()),
            ("crc", hex_crc(written.crc)),
            ("topics", places.topics().len().into()),
            ("blocks", places.blocks_count().into()),
            ("pages", places.pages().into()),
        ],
    )?;
    for topic in places.topics() {
        dump.say(
            LineKind::Topic,
            "  topic    {topic}: {messages} messages in {first}..{end}, {bytes} bytes, least deadline {deadline_ms}",
            [
                ("topic", topic.topic.into()),
                ("messages", topic.messages.into()),
                ("first", topic.first.into()),
                ("end", topic.end.into()),
                ("bytes", topic.bytes.into()),
                ("deadline_ms", topic.deadline_ms().into()),
            ],
        )?;
    }
    for page in 0..places.pages() {
        match places.page(page) {
            Ok(blocks) => {
                dump.say(
                    LineKind::Page,
                    "  page     {page} at {at}: {blocks} blocks, least deadline {deadline_ms}",
                    [
                        ("page", page.into()),
                        ("at", places.page_offset(page).into()),
                        ("blocks", blocks.len().into()),
                        ("deadline_ms", places.page_deadline(page).into()),
                    ],
                )?;
                for block in blocks {
                    dump_block(places, &block, dump)?;
                }
            }
            Err(error) => dump_damage(error, dump)?,
        }
    }
    Ok(())
}

fn dump_block(places: &Places, block: &Block, dump: &mut Dump<'_>) -> io::Result<()> {
    let Block { topic, first_offset, spot, published_ms, deadline_ms, bytes, .. } = *block;
    let spot_text = match spot {
        Spot::Entry { offset, command } => format!("record at {offset}, command {command}"),
        Spot::Kept { offset, crc } => format!("body at {offset}, crc {crc:08x}"),
    };
    dump.say(
        LineKind::Block,
        "    topic {topic} {first}..{end}: {spot}, {bytes} bytes, published {published_ms}, deadline {deadline_ms}",
        [
            ("topic", topic.into()),
            ("first", first_offset.into()),
            ("end", block.end().into()),
            ("spot", Text(spot_text)),
            ("bytes", bytes.into()),
            ("published_ms", published_ms.into()),
            ("deadline_ms", deadline_ms.into()),
        ],
    )?;
    match spot {
        Spot::Kept { .. } => places.body(block).map_or_else(|error| dump_damage(error, dump), |_| Ok(())),
        Spot::Entry { .. } => Ok(()),
    }
}

/// Says what is wrong, unless the disk itself refused.
fn dump_damage(error: ReadError, dump: &mut Dump<'_>) -> io::Result<()> {
    match error {
        ReadError::Io { source, .. } => Err(source),
        error => dump.say_damaged("    DAMAGED {what}", error.to_string()),
    }
}
