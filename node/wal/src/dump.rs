//! Prints what a data directory holds, for a human: read-only, without the lock, and without giving up at damage.

mod manifest;
mod places;

use crate::data_dir::read_identity;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::{OpenError, Rotten};
use crate::format::segment::{IndexedRecord, SegmentHead};
use crate::hard_state::HardStateFile;
use crate::identity::Identity;
use crate::manifest::Manifest;
use crate::scan::{BatchScan, Depth, Scanner, read_head};
use crate::segment::{segment_name, segment_number};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What a dump came across.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpSummary {
    /// Segments of the log, and those that are kept for their bodies.
    pub segments: u64,
    /// Records in them, truncations included.
    pub records: u64,
    /// Damaged places in what was once synced, unreadable small files included.
    pub damaged: u64,
    /// Damaged places in the last batch, which nothing proves. Most likely a torn write.
    pub torn: u64,
}

/// Writes a line or a few for everything in the directory: identity, hard state, manifest, snapshots, each segment with its
/// head, frames and records, and each places file and kept file with its blocks. Damage stands where it is, with file and offset.
///
/// A node may be writing meanwhile: the end of the last segment is then seen as it was at some moment.
///
/// # Errors
/// What the disk or `out` said. Damage is no error.
pub fn dump(disk: &dyn Disk, out: &mut dyn Write) -> io::Result<DumpSummary> {
    let mut dump = Dump { disk, out, summary: DumpSummary::default() };
    dump.small_files()?;
    dump.segments()?;
    dump.summary.damaged += places::dump_places(disk, dump.out)?;
    let DumpSummary { segments, records, damaged, torn } = dump.summary;
    writeln!(dump.out, "{segments} segments, {records} records, {damaged} damaged places, {torn} torn")?;
    Ok(dump.summary)
}

struct Dump<'a> {
    disk: &'a dyn Disk,
    out: &'a mut dyn Write,
    summary: DumpSummary,
}

impl Dump<'_> {
    /// Prints what is wrong and goes on, unless the disk itself refused.
    fn damaged(&mut self, error: OpenError) -> io::Result<()> {
        match error {
            OpenError::Io { source, .. } => Err(source),
            error => {
                self.summary.damaged += 1;
                writeln!(self.out, "DAMAGED {error}")
            }
        }
    }

    fn small_files(&mut self) -> io::Result<()> {
        match read_identity(self.disk) {
            Ok(Some(identity)) => self.identity(&identity)?,
            Ok(None) => writeln!(self.out, "IDENTITY   none: not formatted")?,
            Err(error) => self.damaged(error)?,
        }
        match HardStateFile::read_slots(self.disk) {
            Ok(slots) => {
                for (number, slot) in slots.iter().enumerate() {
                    match slot {
                        Ok(value) => {
                            let vote = value.vote.map_or("none".to_owned(), |vote| vote.to_string());
                            writeln!(self.out, "HARDSTATE  slot {number}: term {}, vote {vote}", value.term)?;
                        }
                        Err(reason) => {
                            self.summary.damaged += 1;
                            writeln!(self.out, "DAMAGED HARDSTATE slot {number}: {reason}")?;
                        }
                    }
                }
            }
            Err(error) => self.damaged(error)?,
        }
        Ok(())
    }

    fn identity(&mut self, identity: &Identity) -> io::Result<()> {
        let Identity { formation_id, generation, node_id, name, binding, format_version } = identity;
        writeln!(
            self.out,
            "IDENTITY   node {node_id} {name:?}, formation {formation_id:032x}, generation {generation}, format \
             {format_version}"
        )?;
        if let Some(binding) = binding {
            writeln!(self.out, "           bound to seed {}, members:", binding.seed_id)?;
            for (name, id) in &binding.members {
                let id = id.map_or("unknown".to_owned(), |id| id.to_string());
                writeln!(self.out, "             {name:?} {id}")?;
            }
        }
        Ok(())
    }

    fn segments(&mut self) -> io::Result<()> {
        let manifest = match Manifest::read(self.disk) {
            Ok(found) => found.unwrap_or_default(),
            Err(error) => {
                self.damaged(error)?;
                Manifest::default()
            }
        };
        self.summary.damaged += manifest::dump_manifest(self.disk, &manifest, self.out)?;
        let mut heads: BTreeMap<u64, Option<SegmentHead>> = BTreeMap::new();
        for number in self.disk.list()?.iter().filter_map(|name| segment_number(name)) {
            let name = segment_name(number);
            let is_released = manifest.released.binary_search(&number).is_ok();
            if number < manifest.first_segment && !is_released {
                writeln!(self.out, "SEGMENT    {name}: not named, a leftover")?;
                continue;
            }
            let head = read_head(&*self.disk.open(&name)?)?;
            if let Err(reason) = head {
                self.summary.damaged += 1;
                writeln!(self.out, "DAMAGED {name} at 0: segment head: {reason}")?;
            }
            if number > manifest.first_segment && head.is_ok_and(|head| head.predecessor == 0) {
                writeln!(
                    self.out,
                    "SEGMENT    {name}: the beginning of a log that never came to be, a leftover"
                )?;
                continue;
            }
            heads.insert(number, head.ok());
        }
        for (number, head) in &heads {
            if let Some(head) = head {
                // Numbers have gaps where a segment was never part of the log.
                let next = heads.range(number + 1..).next().and_then(|(_, next)| *next);
                self.segment(*number, head, next.filter(|next| next.predecessor == *number))?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, number: u64, head: &SegmentHead, next: Option<SegmentHead>) -> io::Result<()> {
        let name = segment_name(number);
        let file = self.disk.open(&name)?;
        self.summary.segments += 1;
        writeln!(
            self.out,
            "SEGMENT    {name}: {} bytes, salt {:016x}, after segment {:016x} up to {}{}, born to {}, follows index {} \
             term {}",
            file.size()?,
            head.salt,
            head.predecessor,
            head.predecessor_end,
            if head.predecessor_sealed { " (sealed)" } else { "" },
            head.born_to,
            head.previous_index,
            head.previous_term
        )?;
        let mut scanner = Scanner::new(&*file, &name, *head, Depth::Contents)?;
        let scan = scanner.walk(next.map(|next| next.predecessor_end), None)?;
        for batch in &scan.batches {
            self.batch(batch, batch.offset < scan.proven_to)?;
        }
        let seal = match (scan.seal, next) {
            (Some(seal), _) => Some(seal),
            (None, Some(next)) if next.predecessor_sealed => scanner.frame(next.predecessor_end)?,
            _ => None,
        };
        if let Some(seal) = seal {
            let state = if scanner.index(&seal)?.is_some() { "whole" } else { "DAMAGED" };
            writeln!(self.out, "  seal     at {}: {} records, index {state}", seal.offset, seal.records)?;
        } else if let Some(next) = next.filter(|next| next.predecessor_sealed) {
            self.summary.damaged += 1;
            writeln!(self.out, "  DAMAGED {name} at {}: seal", next.predecessor_end)?;
        }
        let end = scan.batches.last().map_or(SECTOR_BYTES, |batch| batch.next);
        writeln!(self.out, "  end      at {end}, proven to {}", scan.proven_to)
    }

    fn batch(&mut self, batch: &BatchScan, is_proven: bool) -> io::Result<()> {
        match &batch.frame {
            Some(frame) => writeln!(
                self.out,
                "  batch    {} at {}: {} bytes, {} records, durable to {}, term {}, vote {}{}",
                frame.batch,
                frame.offset,
                frame.length,
                frame.records,
                frame.durable_to,
                frame.hard_state.term,
                frame.hard_state.vote.map_or("none".to_owned(), |vote| vote.to_string()),
                if is_proven { "" } else { ", not proven" }
            )?,
            None => writeln!(self.out, "  batch    unreadable, {}..{}", batch.offset, batch.next)?,
        }
        self.summary.records += batch.records.len() as u64;
        for IndexedRecord { identity, offset } in &batch.records {
            writeln!(
                self.out,
                "    record index {} term {} at {offset}: {:?}, {} bytes of meta, {} of bodies, crc {:08x}",
                identity.index,
                identity.term,
                identity.kind,
                identity.meta_bytes,
                identity.bodies_bytes,
                identity.entry_crc
            )?;
        }
        for rotten in &batch.damage {
            self.damage(rotten, is_proven)?;
        }
        Ok(())
    }

    fn damage(&mut self, rotten: &Rotten, is_proven: bool) -> io::Result<()> {
        if is_proven {
            self.summary.damaged += 1;
            writeln!(self.out, "    DAMAGED {rotten}")
        } else {
            self.summary.torn += 1;
            writeln!(self.out, "    TORN {rotten}")
        }
    }
}
