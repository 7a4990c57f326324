//! Places files and kept files, for a human.

use crate::disk::Disk;
use crate::error::{OpenError, ReadError};
use crate::places::{Block, Places, PlacesKind, Spot};
use std::io::{self, Write};

/// Writes what such a file holds; every page is read, and every body. Says how many damaged places there are.
pub(super) fn dump_places(disk: &dyn Disk, name: &str, number: u64, out: &mut dyn Write) -> io::Result<u64> {
    match Places::open_as_found(disk, name, number) {
        Ok(places) => dump_file(name, &places, out),
        Err(OpenError::Io { source, .. }) => Err(source),
        Err(error) => {
            writeln!(out, "DAMAGED {error}")?;
            Ok(1)
        }
    }
}

fn dump_file(name: &str, places: &Places, out: &mut dyn Write) -> io::Result<u64> {
    let written = places.written();
    let (label, of) = match places.kind() {
        PlacesKind::Segment(segment) => ("PLACES", format!("of segment {segment:016x}")),
        PlacesKind::Kept => ("KEPT", "bodies".to_owned()),
    };
    writeln!(
        out,
        "{label:<10} {name}: {of}, {} bytes, crc {:08x}, {} topics, {} blocks in {} pages",
        written.size,
        written.crc,
        places.topics().len(),
        places.blocks_count(),
        places.pages()
    )?;
    for topic in places.topics() {
        writeln!(
            out,
            "  topic    {}: {} messages in {}..{}, {} bytes, least deadline {}",
            topic.topic,
            topic.messages,
            topic.first,
            topic.end,
            topic.bytes,
            moment(topic.deadline_ms())
        )?;
    }
    let mut damaged = 0;
    for page in 0..places.pages() {
        let offset = places.page_offset(page);
        match places.page(page) {
            Ok(blocks) => {
                let deadline = moment(places.page_deadline(page));
                writeln!(
                    out,
                    "  page     {page} at {offset}: {} blocks, least deadline {deadline}",
                    blocks.len()
                )?;
                for block in blocks {
                    damaged += dump_block(places, &block, out)?;
                }
            }
            Err(error) => damaged += dump_damage(error, out)?,
        }
    }
    Ok(damaged)
}

fn dump_block(places: &Places, block: &Block, out: &mut dyn Write) -> io::Result<u64> {
    let Block { topic, first_offset, spot, published_ms, deadline_ms, bytes, .. } = *block;
    write!(out, "    topic {topic} {first_offset}..{}: ", block.end())?;
    match spot {
        Spot::Entry { offset, command } => write!(out, "record at {offset}, command {command}")?,
        Spot::Kept { offset, crc } => write!(out, "body at {offset}, crc {crc:08x}")?,
    }
    writeln!(out, ", {bytes} bytes, published {published_ms}, deadline {}", moment(deadline_ms))?;
    match spot {
        Spot::Kept { .. } => places.body(block).map_or_else(|error| dump_damage(error, out), |_| Ok(0)),
        Spot::Entry { .. } => Ok(0),
    }
}

/// Prints what is wrong, unless the disk itself refused.
fn dump_damage(error: ReadError, out: &mut dyn Write) -> io::Result<u64> {
    if let ReadError::Io { source, .. } = error {
        return Err(source);
    }
    writeln!(out, "    DAMAGED {error}")?;
    Ok(1)
}

fn moment(ms: Option<u64>) -> String {
    ms.map_or("none".to_owned(), |ms| ms.to_string())
}
