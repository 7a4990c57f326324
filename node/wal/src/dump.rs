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
use crate::names::{KEPT, PLACES, file_number, number_of};
use crate::recovery::Recovery;
use crate::recovery_file::read_recovery;
use crate::scan::{BatchScan, Behind, Depth, Scanner, read_head};
use crate::segment::{segment_name, segment_number};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// How often the list of files is read until the manifest was the same before and after it.
const SETTLE_TRIES: usize = 100;

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
/// A node may be writing meanwhile: the end of the last segment is then seen as it was at some moment, and a file that went
/// while it was read is no damage.
///
/// # Errors
/// What the disk or `out` said. Damage is no error.
pub fn dump(disk: &dyn Disk, out: &mut dyn Write) -> io::Result<DumpSummary> {
    let mut dump = Dump { disk, out, summary: DumpSummary::default() };
    dump.small_files()?;
    let (manifest, names) = dump.settled()?;
    dump.summary.damaged += manifest::dump_manifest(&manifest, &names, dump.out)?;
    for snapshot in manifest.snapshots.iter().filter(|file| names.contains(&file.name())) {
        dump.file(&snapshot.name(), |dump| {
            dump.summary.damaged += manifest::dump_snapshot(dump.disk, snapshot, dump.out)?;
            Ok(())
        })?;
    }
    dump.segments(&manifest, &names)?;
    for name in &names {
        let number = [PLACES, KEPT].iter().find_map(|prefix| number_of(prefix, name));
        let Some(number) = number else { continue };
        dump.file(name, |dump| {
            dump.summary.damaged += places::dump_places(dump.disk, name, number, dump.out)?;
            Ok(())
        })?;
    }
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
        match read_recovery(self.disk) {
            Ok(None) => Ok(()),
            Ok(Some(recovery)) => self.recovery(&recovery),
            Err(error) => self.damaged(error),
        }
    }

    fn recovery(&mut self, recovery: &Recovery) -> io::Result<()> {
        let Recovery { node_id, generation, last: (index, last_term), term, .. } = recovery;
        writeln!(
            self.out,
            "RECOVERY   decided: node {node_id} goes on alone in generation {generation} and term {term}, behind index {index} \
             of term {last_term}; the next start carries it out"
        )
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

    /// The manifest, and the names of all files as of a moment when it counted.
    fn settled(&mut self) -> io::Result<(Manifest, BTreeSet<String>)> {
        let mut before = Manifest::read(self.disk);
        for _ in 0..SETTLE_TRIES {
            let names = self.disk.list()?.into_iter().collect();
            let manifest = match before {
                Ok(manifest) => manifest,
                Err(error) => {
                    self.damaged(error)?;
                    return Ok((Manifest::default(), names));
                }
            };
            before = Manifest::read(self.disk);
            if before.as_ref().is_ok_and(|after| *after == manifest) {
                return Ok((manifest.unwrap_or_default(), names));
            }
        }
        Err(io::Error::other("the node changes its files all the time: try again"))
    }

    /// Prints a file, or that it is gone: what is read while a node removes it, or uses it again, or has not finished it,
    /// is no damage.
    fn file(&mut self, name: &str, print: impl FnOnce(&mut Dump<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut text = Vec::new();
        let mut dump = Dump { disk: self.disk, out: &mut text, summary: self.summary };
        let printed = print(&mut dump);
        let summary = dump.summary;
        let is_gone = printed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if (is_gone || summary.damaged > self.summary.damaged) && !self.counts(name) {
            return writeln!(
                self.out,
                "GONE       {name}: removed while it was read, a leftover, or not finished yet"
            );
        }
        printed?;
        self.summary = summary;
        self.out.write_all(&text)
    }

    /// Whether a file counts now. If nobody knows, it does.
    fn counts(&self, name: &str) -> bool {
        let Ok(Some(manifest)) = Manifest::read(self.disk) else { return true };
        segment_number(name).is_some_and(|number| manifest.counts_segment(number))
            || file_number(name).is_some_and(|number| manifest.names_file(number))
    }

    fn segments(&mut self, manifest: &Manifest, names: &BTreeSet<String>) -> io::Result<()> {
        let mut heads: BTreeMap<u64, Option<SegmentHead>> = BTreeMap::new();
        for number in names.iter().filter_map(|name| segment_number(name)) {
            let name = segment_name(number);
            if !manifest.counts_segment(number) {
                writeln!(self.out, "SEGMENT    {name}: not named, a leftover")?;
                continue;
            }
            let mut read = None;
            self.file(&name, |dump| {
                let head = read_head(&*dump.disk.open(&name)?)?;
                if let Err(reason) = head {
                    dump.summary.damaged += 1;
                    writeln!(dump.out, "DAMAGED {name} at 0: segment head: {reason}")?;
                }
                read = Some(head);
                Ok(())
            })?;
            let Some(head) = read else { continue };
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
                let next = next.filter(|next| next.predecessor == *number);
                self.file(&segment_name(*number), |dump| dump.segment(*number, head, next))?;
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
        let scan = scanner.walk(next.map(|next| next.predecessor_end), &Behind::default(), None)?;
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
