//! Prints what a data directory holds, for a human: read-only, without the lock, and without giving up at damage.

mod line;
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
use raftqueue_raft::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use LineValue::{Name, Said, Text};
pub use line::{DumpSink, Line, LineKind, LineValue};

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
    dump_lines(disk, &mut line::Text::new(out))
}

/// The same, line by line, with the values of each.
///
/// # Errors
/// As [`dump`].
pub fn dump_lines(disk: &dyn Disk, out: &mut dyn DumpSink) -> io::Result<DumpSummary> {
    let mut dump = Dump { disk, out, summary: DumpSummary::default() };
    dump.small_files()?;
    let (manifest, names) = dump.settled()?;
    manifest::dump_manifest(&manifest, &names, &mut dump)?;
    for snapshot in manifest.snapshots.iter().filter(|file| names.contains(&file.name())) {
        dump.file(&snapshot.name(), |dump| manifest::dump_snapshot(snapshot, dump))?;
    }
    dump.segments(&manifest, &names)?;
    for name in &names {
        let number = [PLACES, KEPT].iter().find_map(|prefix| number_of(prefix, name));
        let Some(number) = number else { continue };
        dump.file(name, |dump| places::dump_places(name, number, dump))?;
    }
    let DumpSummary { segments, records, damaged, torn } = dump.summary;
    dump.say(
        LineKind::Sum,
        "{segments} segments, {records} records, {damaged} damaged places, {torn} torn",
        [
            ("segments", segments.into()),
            ("records", records.into()),
            ("damaged", damaged.into()),
            ("torn", torn.into()),
        ],
    )?;
    Ok(dump.summary)
}

struct Dump<'a> {
    disk: &'a dyn Disk,
    out: &'a mut dyn DumpSink,
    summary: DumpSummary,
}

/// A value and its name.
type Field = (&'static str, LineValue);

fn hex(number: u64) -> LineValue {
    Text(format!("{number:016x}"))
}

fn crc(crc: u32) -> LineValue {
    Text(format!("{crc:08x}"))
}

impl Dump<'_> {
    fn say(
        &mut self,
        kind: LineKind,
        template: &'static str,
        fields: impl IntoIterator<Item = Field>,
    ) -> io::Result<()> {
        self.out.line(&Line::new(kind, template, fields))
    }

    /// Says what is wrong, and counts it.
    fn say_damaged(&mut self, template: &'static str, what: String) -> io::Result<()> {
        self.summary.damaged += 1;
        self.say(LineKind::Damaged, template, [("what", Text(what))])
    }

    /// Says what is wrong and goes on, unless the disk itself refused.
    fn damaged(&mut self, error: OpenError) -> io::Result<()> {
        match error {
            OpenError::Io { source, .. } => Err(source),
            error => self.say_damaged("DAMAGED {what}", error.to_string()),
        }
    }

    fn small_files(&mut self) -> io::Result<()> {
        match read_identity(self.disk) {
            Ok(Some(identity)) => self.identity(&identity)?,
            Ok(None) => self.say(LineKind::Identity, "IDENTITY   none: not formatted", [])?,
            Err(error) => self.damaged(error)?,
        }
        match HardStateFile::read_slots(self.disk) {
            Ok(slots) => {
                for (number, slot) in slots.iter().enumerate() {
                    match slot {
                        Ok(value) => self.say(
                            LineKind::HardState,
                            "HARDSTATE  slot {slot}: term {term}, vote {vote}",
                            [
                                ("slot", number.into()),
                                ("term", value.term.0.into()),
                                ("vote", named(value.vote)),
                            ],
                        )?,
                        Err(reason) => {
                            self.say_damaged("DAMAGED {what}", format!("HARDSTATE slot {number}: {reason}"))?;
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
        self.say(
            LineKind::Recovery,
            "RECOVERY   decided: node {node_id} goes on alone in generation {generation} and term {term}, behind index {index} \
             of term {last_term}; the next start carries it out",
            [
                ("node_id", named(Some(*node_id))),
                ("generation", (*generation).into()),
                ("term", term.0.into()),
                ("index", index.0.into()),
                ("last_term", last_term.0.into()),
            ],
        )
    }

    fn identity(&mut self, identity: &Identity) -> io::Result<()> {
        let Identity { formation_id, generation, node_id, name, binding, format_version } = identity;
        self.say(
            LineKind::Identity,
            "IDENTITY   node {node_id} {name}, formation {formation_id}, generation {generation}, format {format_version}",
            [
                ("node_id", named(Some(*node_id))),
                ("name", Name(name.clone())),
                ("formation_id", Text(format!("{formation_id:032x}"))),
                ("generation", (*generation).into()),
                ("format_version", (*format_version).into()),
            ],
        )?;
        let Some(binding) = binding else { return Ok(()) };
        self.say(
            LineKind::Bound,
            "           bound to seed {seed_id}, members:",
            [("seed_id", named(Some(binding.seed_id)))],
        )?;
        for (name, id) in &binding.members {
            let id = id.map_or("unknown".to_owned(), |id| id.to_string());
            self.say(
                LineKind::Bound,
                "             {name} {node_id}",
                [("name", Name(name.clone())), ("node_id", Text(id))],
            )?;
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
            if let (None, Some(file)) = (&manifest, names.iter().find(|name| file_number(name).is_some())) {
                // The node refuses it, too: nothing says which files count.
                self.damaged(OpenError::ManifestMissing { file: String::clone(file) })?;
                return Ok((Manifest::default(), names));
            }
            before = Manifest::read(self.disk);
            if before.as_ref().is_ok_and(|after| *after == manifest) {
                return Ok((manifest.unwrap_or_default(), names));
            }
        }
        Err(io::Error::other("the node changes its files all the time: try again"))
    }

    /// Shows a file, or says that it is gone: what is read while a node removes it, or uses it again, or has not finished
    /// it, is no damage.
    fn file(&mut self, name: &str, show: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let before = self.summary;
        self.out.hold();
        let shown = show(self);
        let is_gone = shown.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if (is_gone || self.summary.damaged > before.damaged) && !self.counts(name) {
            self.summary = before;
            self.out.settle(false)?;
            return self.say(
                LineKind::Gone,
                "GONE       {file}: removed while it was read, a leftover, or not finished yet",
                [("file", Text(name.to_owned()))],
            );
        }
        shown?;
        self.out.settle(true)
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
                self.leftover(&name, "SEGMENT    {file}: not named, a leftover")?;
                continue;
            }
            let mut read = None;
            self.file(&name, |dump| {
                let head = read_head(&*dump.disk.open(&name)?)?;
                if let Err(reason) = head {
                    dump.say_damaged("DAMAGED {what}", format!("{name} at 0: segment head: {reason}"))?;
                }
                read = Some(head);
                Ok(())
            })?;
            let Some(head) = read else { continue };
            if number > manifest.first_segment && head.is_ok_and(|head| head.predecessor == 0) {
                self.leftover(
                    &name,
                    "SEGMENT    {file}: the beginning of a log that never came to be, a leftover",
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

    fn leftover(&mut self, name: &str, template: &'static str) -> io::Result<()> {
        let fields = [("file", Text(name.to_owned())), ("is_leftover", Said(true, "", ""))];
        self.say(LineKind::Segment, template, fields)
    }

    fn segment(&mut self, number: u64, head: &SegmentHead, next: Option<SegmentHead>) -> io::Result<()> {
        let name = segment_name(number);
        let file = self.disk.open(&name)?;
        self.summary.segments += 1;
        self.say(
            LineKind::Segment,
            "SEGMENT    {file}: {bytes} bytes, salt {salt}, after segment {after} up to {after_end}{after_is_sealed}, born to \
             {born_to}, follows index {previous_index} term {previous_term}",
            [
                ("file", Text(name.clone())),
                ("bytes", file.size()?.into()),
                ("salt", hex(head.salt)),
                ("after", hex(head.predecessor)),
                ("after_end", head.predecessor_end.into()),
                ("after_is_sealed", Said(head.predecessor_sealed, " (sealed)", "")),
                ("born_to", head.born_to.into()),
                ("previous_index", head.previous_index.0.into()),
                ("previous_term", head.previous_term.0.into()),
            ],
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
            let is_whole = scanner.index(&seal)?.is_some();
            self.say(
                LineKind::Seal,
                "  seal     at {at}: {records} records, index {index_is_whole}",
                [
                    ("at", seal.offset.into()),
                    ("records", seal.records.into()),
                    ("index_is_whole", Said(is_whole, "whole", "DAMAGED")),
                ],
            )?;
        } else if let Some(next) = next.filter(|next| next.predecessor_sealed) {
            self.say_damaged("  DAMAGED {what}", format!("{name} at {}: seal", next.predecessor_end))?;
        }
        let records = || scan.batches.iter().flat_map(|batch| &batch.records);
        let indexes = || records().map(|record| record.identity.index.0);
        self.say(
            LineKind::End,
            "  end      at {at}, proven to {proven_to}: {batches} batches, {records} records, index {first} to {last}",
            [
                ("at", scan.batches.last().map_or(SECTOR_BYTES, |batch| batch.next).into()),
                ("proven_to", scan.proven_to.into()),
                ("batches", scan.batches.len().into()),
                ("records", records().count().into()),
                ("first", indexes().min().into()),
                ("last", indexes().max().into()),
                ("file", Text(name.clone())),
            ],
        )
    }

    fn batch(&mut self, batch: &BatchScan, is_proven: bool) -> io::Result<()> {
        match &batch.frame {
            Some(frame) => self.say(
                LineKind::Batch,
                "  batch    {batch} at {at}: {bytes} bytes, {records} records, durable to {durable_to}, term {term}, vote \
                 {vote}{is_proven}",
                [
                    ("batch", frame.batch.into()),
                    ("at", frame.offset.into()),
                    ("bytes", frame.length.into()),
                    ("records", frame.records.into()),
                    ("durable_to", frame.durable_to.into()),
                    ("term", frame.hard_state.term.0.into()),
                    ("vote", named(frame.hard_state.vote)),
                    ("is_proven", Said(is_proven, "", ", not proven")),
                ],
            )?,
            None => self.say(
                LineKind::Batch,
                "  batch    unreadable, {at}..{end}",
                [("at", batch.offset.into()), ("end", batch.next.into())],
            )?,
        }
        self.summary.records += batch.records.len() as u64;
        for IndexedRecord { identity, offset } in &batch.records {
            self.say(
                LineKind::Record,
                "    record index {index} term {term} at {at}: {type}, {meta_bytes} bytes of meta, {bodies_bytes} of bodies, \
                 crc {crc}",
                [
                    ("index", identity.index.0.into()),
                    ("term", identity.term.0.into()),
                    ("at", (*offset).into()),
                    ("type", Text(format!("{:?}", identity.kind))),
                    ("meta_bytes", identity.meta_bytes.into()),
                    ("bodies_bytes", identity.bodies_bytes.into()),
                    ("crc", crc(identity.entry_crc)),
                ],
            )?;
        }
        for rotten in &batch.damage {
            self.damage(rotten, is_proven)?;
        }
        Ok(())
    }

    fn damage(&mut self, rotten: &Rotten, is_proven: bool) -> io::Result<()> {
        if is_proven {
            return self.say_damaged("    DAMAGED {what}", rotten.to_string());
        }
        self.summary.torn += 1;
        self.say(LineKind::Torn, "    TORN {what}", [("what", Text(rotten.to_string()))])
    }
}

/// A node by its id; the text says `none` where there is none.
fn named(node: Option<NodeId>) -> LineValue {
    Text(node.map_or("none".to_owned(), |node| node.to_string()))
}
