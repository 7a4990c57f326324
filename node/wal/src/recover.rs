//! Makes a log that goes on out of what a crash left behind.
//!
//! Recovery reads the chain of segments, names rot and cuts what was torn. A record that rots leaves a hole of which
//! everything but its content is known: other nodes have that. Where not even that is known, nothing is opened. Then it makes
//! durable what it is about to report: bytes read back after a crash may stand in the page cache alone, and after a failed sync the kernel may call
//! lost pages clean. So the log always goes on in a fresh segment. The head of that segment names where the proven part
//! of its predecessor ends, and the segment carries a copy of the one batch behind that. HARDSTATE is written anew for
//! the same reason. Nothing on the disk changes before the verdict is clear. A crash in between, at whatever call,
//! leads to the same log again.

use crate::batch::{Draft, DraftRecord, FrameContext};
use crate::disk::{ASIDE_SUFFIX, Disk, DiskFile, SECTOR_BYTES, read_exactly, remove_if_there};
use crate::error::{OpenError, Rotten, RottenPart, io_error, malformed};
use crate::format::segment::{
    IndexedRecord, RECORD_BYTES, RecordHeader, RecordIdentity, RecordKind, SegmentHead,
};
use crate::format::{Malformed, is_part};
use crate::hard_state::HardStateFile;
use crate::log::{Log, PlacedRecord, Visible, name_of};
use crate::manifest::Manifest;
use crate::names::{KEPT, PLACES, file_number, numbered};
use crate::open_files::OpenFiles;
use crate::opening::{CutBatch, DamagedFile, FileDamage, Options, Preview};
use crate::random::Random;
use crate::reader::read_configurations;
use crate::recovery::Recovery;
use crate::scan::{BatchScan, Behind, Depth, Scanner, read_head};
use crate::segment::{Segment, give_birth, segment_name, segment_number};
use crate::spare::Spares;
use crate::wal::{Active, Opened};
use bytes::Bytes;
use raftqueue_raft::{HardState, Index};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// A segment of the chain.
struct Link {
    segment: Arc<Segment>,
    head: SegmentHead,
}

/// What the chain of segments says.
struct Found {
    /// The log as the proven part leaves it.
    log: Log,
    segments: BTreeMap<u64, Arc<Segment>>,
    /// The greatest hard state of all frames.
    hard_state: HardState,
    /// Where the proven part of the last segment ends.
    proven_to: u64,
    /// The batch behind it, whole.
    tail: Option<BatchScan>,
    cut: Option<CutBatch>,
    damaged_copies: Vec<Rotten>,
    /// The records that do not verify, and what is wrong with each.
    holes: Vec<(PlacedRecord, Rotten)>,
    /// The records of the last proven batch.
    previous: Vec<RecordIdentity>,
    /// How many that are, where it is known.
    previous_count: Option<usize>,
    /// The number of the batch that comes next.
    batch_next: u64,
    salt: u64,
}

/// Recovers the log of a formatted directory, if whoever opens it wants it. A forced recovery that is decided will add to it.
pub(crate) fn recover(
    shared_disk: &Arc<dyn Disk>,
    options: &Options,
    decided: Option<&Recovery>,
    judge: impl FnOnce(&Preview<'_>) -> Result<(), OpenError>,
) -> Result<Opened, OpenError> {
    let disk = &**shared_disk;
    let stored_manifest = Manifest::read(disk)?;
    let names = disk.list().map_err(io_error("list the directory"))?;
    if let (None, Some(file)) = (&stored_manifest, names.iter().find(|name| file_number(name).is_some())) {
        return Err(OpenError::ManifestMissing { file: file.clone() });
    }
    let manifest = stored_manifest.clone().unwrap_or_default();
    let open_files = Arc::new(OpenFiles::new(Arc::clone(shared_disk)));
    let links = read_links(disk, &names, &manifest, &open_files)?;
    let slots = HardStateFile::read(disk)?;
    let found = match links.last() {
        Some(_) => read_chain(&links, options)?,
        None if stored_manifest.is_some() => {
            let first = manifest.first_segment;
            return Err(OpenError::FirstSegmentMissing { first, found: None });
        }
        None => Found::nothing(),
    };
    check_snapshots(&found, &manifest)?;
    let (released, damaged_files) = look_at_files(disk, &manifest, &open_files)?;

    // Configurations are reported later. What cannot be read of them must show before anything changes.
    let (mut configurations, mut rotten) = read_configurations(&found.log, &found.segments, |_| true)?;
    let all = found.log.iter().filter(|placed| placed.identity.kind == RecordKind::Configuration);
    let read: BTreeMap<Index, PlacedRecord> = all.map(|placed| (placed.identity.index, *placed)).collect();

    let named = configurations.last().map(|(_, configuration)| &**configuration);
    let configuration = decided.map(|recovery| &recovery.configuration).or(named);
    judge(&Preview { disk, manifest: &manifest, start: found.log.start().0, configuration })?;

    // From here on the disk changes, and a crash at any call leads back to the same log.
    let framed = found.hard_state;
    let hard_state = match slots {
        Some(value) => {
            let value = value.max(found.hard_state);
            Some(HardStateFile::create(disk, value).map_err(io_error("write HARDSTATE"))?)
        }
        None => None,
    };
    let mut spares = Spares::adopt(disk, &names, options.segment_bytes, options.spare_files_max)
        .map_err(io_error("look through spare files"))?;
    let mut salts = Random::new(options.entropy ^ found.salt.rotate_left(17));
    let value = hard_state.as_ref().map_or(found.hard_state, HardStateFile::value);
    let number = names.iter().filter_map(|name| segment_number(name)).max().unwrap_or(0) + 1;
    let fresh = Fresh { number, open_files: &open_files, spares: &mut spares, salt: salts.next() };
    let opened = go_on(disk, found, value, &links, fresh)?;
    if stored_manifest.is_none() {
        manifest.write(disk).map_err(io_error("write MANIFEST"))?;
    }
    let counts: BTreeSet<u64> = opened.segments.keys().chain(released.keys()).copied().collect();
    clean(disk, &names, &manifest, &counts).map_err(io_error("remove leftovers"))?;
    let GoneOn { log, segments, active, cut, damaged_copies, mut holes } = opened;
    // The unproven batch may have cut some off, and brought others. None is read twice.
    let is_read = |placed: &PlacedRecord| read.get(&placed.identity.index) == Some(placed);
    configurations.retain(|(index, _)| log.get(*index).is_some_and(is_read));
    rotten.retain(|(placed, _)| log.get(placed.identity.index) == Some(placed));
    let (new, new_rotten) = read_configurations(&log, &segments, |placed| !is_read(placed))?;
    configurations.extend(new);
    holes.extend(rotten.into_iter().chain(new_rotten));
    let files_end = names.iter().filter_map(|name| file_number(name)).max().map_or(0, |number| number + 1);
    Ok(Opened {
        next_file: manifest.next_file.max(files_end),
        manifest,
        hard_state,
        framed,
        visible: Visible { log, segments, released },
        configurations,
        holes,
        active,
        segment_next: number + 1,
        open_files,
        spares,
        salts,
        cut,
        damaged_copies,
        damaged_files,
    })
}

/// The log must reach back to the older snapshot, and up to the newer one: entries between them are lost otherwise.
fn check_snapshots(found: &Found, manifest: &Manifest) -> Result<(), OpenError> {
    let records = found.tail.iter().flat_map(|tail| &tail.records);
    let last = records.last().map_or(found.log.last().0, |record| match record.identity.kind {
        RecordKind::Truncation => record.identity.index.prev(),
        _ => record.identity.index,
    });
    let start = found.log.start().0;
    let snapshots: Vec<Index> = manifest.snapshots.iter().map(|file| file.index).collect();
    let reaches_back = snapshots.first().map_or(start == Index(0), |older| *older >= start);
    if reaches_back && snapshots.last().is_none_or(|newer| *newer <= last) {
        Ok(())
    } else {
        Err(OpenError::SnapshotsApart { start, last, snapshots })
    }
}

type Released = BTreeMap<u64, Arc<Segment>>;

/// Looks at the files of bodies and places, of which a damaged one costs only its messages. They are read later.
fn look_at_files(
    disk: &dyn Disk,
    manifest: &Manifest,
    open_files: &Arc<OpenFiles>,
) -> Result<(Released, Vec<DamagedFile>), OpenError> {
    let (mut released, mut damaged) = (Released::new(), Vec::new());
    for number in &manifest.released {
        let name = segment_name(*number);
        match look(disk, &name).and_then(|found| found.map(|file| read_head(&*file)).transpose()) {
            Err(source) => return Err(OpenError::Io { operation: "look at a released segment", source }),
            Ok(None) => damaged.push(DamagedFile { file: name, damage: FileDamage::Missing }),
            Ok(Some(Ok(head))) if head.number == *number => {
                released.insert(*number, Arc::new(Segment::new(*number, head.salt, open_files)));
            }
            Ok(Some(head)) => {
                let reason = head.err().unwrap_or(Malformed::Field("segment number"));
                damaged.push(DamagedFile { file: name, damage: FileDamage::Head(reason) });
            }
        }
    }
    let places = manifest.places.iter().map(|file| (numbered(PLACES, file.number), file.size));
    let kept = manifest.kept.iter().map(|file| (numbered(KEPT, file.number), file.size));
    for (file, expected) in places.chain(kept) {
        let size = look(disk, &file).and_then(|found| found.map(|found| found.size()).transpose());
        match size.map_err(io_error("look at a file of bodies"))? {
            None => damaged.push(DamagedFile { file, damage: FileDamage::Missing }),
            Some(found) if found != expected => {
                damaged.push(DamagedFile { file, damage: FileDamage::Size { found, expected } });
            }
            Some(_) => {}
        }
    }
    Ok((released, damaged))
}

/// Opens a file; `None` if it is not there.
fn look(disk: &dyn Disk, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Opens every segment that counts and checks that each names the one before it.
///
/// One that names no predecessor, and is not the first, is the beginning of another log that never came to be: a leftover.
fn read_links(
    disk: &dyn Disk,
    names: &[String],
    manifest: &Manifest,
    open_files: &Arc<OpenFiles>,
) -> Result<Vec<Link>, OpenError> {
    let mut links: Vec<Link> = Vec::new();
    let numbers = names.iter().filter_map(|name| segment_number(name));
    for number in numbers.filter(|number| *number >= manifest.first_segment) {
        let name = segment_name(number);
        let file = disk.open(&name).map_err(io_error("open a segment"))?;
        let head = read_head(&*file).map_err(io_error("read a segment's head"))?;
        let head = head.map_err(|reason| malformed(&name, 0, reason))?;
        if head.number != number {
            return Err(malformed(&name, 0, Malformed::Field("segment number")));
        }
        match links.last().map(|link| link.head.number) {
            Some(_) if head.predecessor == 0 => continue,
            None if number != manifest.first_segment => {
                let first = manifest.first_segment;
                return Err(OpenError::FirstSegmentMissing { first, found: Some(number) });
            }
            Some(expected) if head.predecessor != expected => {
                let named = head.predecessor;
                return Err(OpenError::BrokenChain { found: number, named, expected });
            }
            _ => {}
        }
        let segment = Arc::new(Segment::new(number, head.salt, open_files));
        open_files.add(number, file);
        links.push(Link { segment, head });
    }
    Ok(links)
}

impl Found {
    fn nothing() -> Found {
        Found {
            log: Log::default(),
            segments: BTreeMap::new(),
            hard_state: HardState::default(),
            proven_to: 0,
            tail: None,
            cut: None,
            damaged_copies: Vec::new(),
            holes: Vec::new(),
            previous: Vec::new(),
            previous_count: Some(0),
            batch_next: 1,
            salt: 0,
        }
    }

    fn take(&mut self, segment: &Segment, batch: &BatchScan) -> Result<(), OpenError> {
        for record in &batch.records {
            let placed =
                PlacedRecord { segment: segment.number, offset: record.offset, identity: record.identity };
            self.log.apply(placed).map_err(|order| OpenError::IndexOrder {
                file: segment.name.clone(),
                offset: record.offset,
                found: record.identity.index,
                expected: order.expected,
            })?;
        }
        self.previous = batch.records.iter().map(|record| record.identity).collect();
        self.previous_count = Some(self.previous.len());
        // Of one without a frame it is known that it is one.
        self.batch_next = batch.frame.map_or(self.batch_next, |frame| frame.batch) + 1;
        Ok(())
    }
}

/// Replays all segments. An older one is read by its sealed index, or by a walk if that index is damaged. The last one
/// is read by a walk over every byte.
fn read_chain(links: &[Link], options: &Options) -> Result<Found, OpenError> {
    let first = &links.first().expect("the caller saw one").head;
    let mut found = Found::nothing();
    found.log = Log::new((first.previous_index, first.previous_term));
    // The one before it may be gone, and with it how many records its last batch had.
    found.previous_count = (first.predecessor == 0).then_some(0);
    let mut rot = Vec::new();
    for (position, link) in links.iter().enumerate() {
        if found.log.last() != (link.head.previous_index, link.head.previous_term) && rot.is_empty() {
            return Err(OpenError::IndexOrder {
                file: link.segment.name.clone(),
                offset: 0,
                found: link.head.previous_index,
                expected: found.log.last().0,
            });
        }
        found.batch_next = link.head.first_batch;
        match links.get(position + 1) {
            Some(next) => read_inner(&mut found, link, next, options, &mut rot)?,
            None => read_last(&mut found, link, &mut rot)?,
        }
        found.salt = link.head.salt;
        found.segments.insert(link.head.number, Arc::clone(&link.segment));
    }
    if rot.is_empty() { Ok(found) } else { Err(OpenError::Rot { places: rot }) }
}

/// A segment with a successor: everything up to the end that the successor names is proven.
fn read_inner(
    found: &mut Found,
    link: &Link,
    next: &Link,
    options: &Options,
    rot: &mut Vec<Rotten>,
) -> Result<(), OpenError> {
    let read = io_error("read a segment");
    let Link { segment, head } = link;
    let end = next.head.predecessor_end;
    let depth = if options.verify_all { Depth::Contents } else { Depth::Headers };
    let file = segment.file().map_err(&read)?;
    let mut scanner = Scanner::new(&*file, &segment.name, *head, depth).map_err(&read)?;
    let mut behind = Behind::default();
    if next.head.predecessor_sealed {
        let seal = scanner.frame(end).map_err(&read)?;
        let identities = scanner.identities(seal.as_ref()).map_err(&read)?;
        behind = Behind { batch: seal.map(|seal| seal.batch), identities };
        let index = match &seal {
            Some(seal) => scanner.index(seal).map_err(&read)?,
            None => None,
        };
        match (seal, index) {
            (Some(seal), Some(records)) if !options.verify_all => {
                found.hard_state = found.hard_state.max(seal.hard_state);
                let whole = BatchScan {
                    frame: None,
                    offset: SECTOR_BYTES,
                    next: end,
                    records,
                    is_known: true,
                    damage: Vec::new(),
                };
                found.take(segment, &whole)?;
                found.batch_next = seal.batch;
                found.previous_count = usize::try_from(seal.identities).ok();
                return Ok(());
            }
            (Some(_), Some(_)) => {}
            _ => found.damaged_copies.push(Rotten {
                file: segment.name.clone(),
                offset: end,
                part: RottenPart::SealedIndex,
                record: None,
            }),
        }
    }
    if behind.identities.is_none() {
        let file = next.segment.file().map_err(&read)?;
        let mut successor = Scanner::new(&*file, &next.segment.name, next.head, depth).map_err(&read)?;
        let born = successor.frame(SECTOR_BYTES).map_err(&read)?;
        let identities = successor.identities(born.as_ref()).map_err(&read)?;
        // That this is its number stands twice, too.
        behind = Behind { batch: Some(next.head.first_batch), identities };
    }
    let scan = scanner.walk(Some(end), &behind, found.previous_count).map_err(&read)?;
    take_proven(found, segment, &scan.batches, rot)
}

/// The last segment: proven up to the greatest readable `durable_to`, then at most one batch.
fn read_last(found: &mut Found, link: &Link, rot: &mut Vec<Rotten>) -> Result<(), OpenError> {
    let read = io_error("read the last segment");
    let Link { segment, head } = link;
    let file = segment.file().map_err(&read)?;
    let mut scanner = Scanner::new(&*file, &segment.name, *head, Depth::Contents).map_err(&read)?;
    let scan = scanner.walk(None, &Behind::default(), found.previous_count).map_err(&read)?;
    if let Some(seal) = scan.seal {
        found.hard_state = found.hard_state.max(seal.hard_state);
    }
    found.proven_to = scan.proven_to;
    let (proven, behind) = scan.split();
    take_proven(found, segment, &proven, rot)?;
    if proven.is_empty() && rot.is_empty() {
        // A segment is born with a batch, and not even a trace of it is left.
        let (file, part) = (segment.name.clone(), RottenPart::Frame);
        rot.push(Rotten { file, offset: SECTOR_BYTES, part, record: None });
    }
    if !rot.is_empty() {
        return Ok(());
    }
    let mut behind = behind.into_iter();
    let Some(tail) = behind.next() else { return Ok(()) };
    if let Some(more) = behind.next() {
        return Err(OpenError::Damaged {
            file: segment.name.clone(),
            offset: more.offset,
            reason: Malformed::Field("a second batch that nothing proves"),
        });
    }
    if let Some(frame) = tail.frame {
        found.hard_state = found.hard_state.max(frame.hard_state);
    }
    if tail.damage.is_empty() {
        // Its bytes are whole. So if an index does not follow, the write was not torn.
        found.log.check_order(&tail.records).map_err(|(record, order)| OpenError::IndexOrder {
            file: segment.name.clone(),
            offset: record.offset,
            found: record.identity.index,
            expected: order.expected,
        })?;
        found.tail = Some(tail);
    } else {
        let (file, offset, records) = (segment.name.clone(), tail.offset, tail.records.len());
        found.cut = Some(CutBatch { file, offset, records });
    }
    Ok(())
}

/// Takes batches of a proven part. Damage that hides nothing is noted, and so is what of a record is left without its
/// content. Where it is not known which records there were, that is rot with which nothing can be opened.
fn take_proven(
    found: &mut Found,
    segment: &Segment,
    batches: &[BatchScan],
    rot: &mut Vec<Rotten>,
) -> Result<(), OpenError> {
    for batch in batches {
        for damage in &batch.damage {
            let is_of = |record: &&IndexedRecord| Some(name_of(&record.identity)) == damage.record;
            match (damage.part, batch.records.iter().find(is_of)) {
                (RottenPart::Identities, _) => found.damaged_copies.push(damage.clone()),
                (RottenPart::Frame, _) if batch.is_known => found.damaged_copies.push(damage.clone()),
                (_, Some(record)) if batch.is_known => {
                    let IndexedRecord { identity, offset } = *record;
                    let placed = PlacedRecord { segment: segment.number, offset, identity };
                    found.holes.push((placed, damage.clone()));
                }
                _ => rot.push(damage.clone()),
            }
        }
        if let Some(frame) = batch.frame {
            found.hard_state = found.hard_state.max(frame.hard_state);
        }
        // Once rot is found, the order cannot be judged any more. The walk goes on only to name all of the rot.
        if rot.is_empty() {
            found.take(segment, batch)?;
        }
    }
    Ok(())
}

struct GoneOn {
    log: Log,
    segments: BTreeMap<u64, Arc<Segment>>,
    active: Active,
    cut: Option<CutBatch>,
    damaged_copies: Vec<Rotten>,
    holes: Vec<(PlacedRecord, Rotten)>,
}

/// What the fresh segment is made of.
struct Fresh<'a> {
    number: u64,
    salt: u64,
    open_files: &'a Arc<OpenFiles>,
    spares: &'a mut Spares,
}

/// Makes the fresh segment in which the log goes on; its name is the switch.
fn go_on(
    disk: &dyn Disk,
    mut found: Found,
    hard_state: HardState,
    links: &[Link],
    fresh: Fresh<'_>,
) -> Result<GoneOn, OpenError> {
    let Fresh { number, salt, open_files, spares } = fresh;
    let last = links.last();
    let draft = match (&found.tail, last) {
        (Some(tail), Some(link)) => read_tail(&link.segment, tail)?,
        _ => Draft::default(),
    };
    let head = SegmentHead {
        number,
        salt,
        predecessor: last.map_or(0, |link| link.head.number),
        predecessor_end: found.proven_to,
        predecessor_sealed: false,
        born_to: 0,
        first_batch: found.batch_next,
        previous_index: found.log.last().0,
        previous_term: found.log.last().1,
    };
    let context = FrameContext { batch: found.batch_next, hard_state, identities: &found.previous };
    let size = Active::size_needed(&draft, found.previous.len());
    let spare = spares.take_to_start(disk, size).map_err(io_error("make room for a segment"))?;
    let segment = give_birth(disk, &spare.name, &spare.file, head, &draft, &context, open_files)
        .map_err(|error| io_error("make a fresh segment")(error.into_inner()))?;
    let active = Active::born(Arc::clone(&segment), spare, &draft, found.previous.len(), found.batch_next);

    for placed in active.placed_records() {
        found.log.apply(placed).expect("the order was checked before anything was written");
    }
    found.segments.insert(segment.number, segment);
    trim(last, found.proven_to).map_err(io_error("trim a segment"))?;
    let Found { log, segments, cut, damaged_copies, holes, .. } = found;
    Ok(GoneOn { log, segments, active, cut, damaged_copies, holes })
}

/// Reads the unproven batch once more, to be written again.
fn read_tail(segment: &Segment, tail: &BatchScan) -> Result<Draft, OpenError> {
    let file = segment.file().map_err(io_error("read the last batch"))?;
    let mut draft = Draft::default();
    // Records of a batch stand one after the other: one call reads them all, however many they are.
    let Some(first) = tail.records.first() else { return Ok(draft) };
    let sizes = tail.records.iter().map(|record| record.identity.record_bytes());
    let size = usize::try_from(sizes.sum::<u64>()).expect("the walk has read it");
    let batch = read_exactly(&*file, first.offset, size)
        .map_err(io_error("read the last batch"))?
        .map(Bytes::from)
        .ok_or(malformed(&segment.name, first.offset, Malformed::Short))?;
    for record in &tail.records {
        let damaged = |reason| malformed(&segment.name, record.offset, reason);
        let from = usize::try_from(record.offset - first.offset).expect("within the batch");
        let to = from + usize::try_from(record.identity.record_bytes()).expect("part of the batch");
        if to > batch.len() {
            return Err(damaged(Malformed::Short));
        }
        let bytes = batch.slice(from..to);
        let header = RecordHeader::decode(&bytes, segment.salt, record.offset).map_err(damaged)?;
        let meta_from = usize::try_from(RECORD_BYTES).expect("48");
        let meta_to = meta_from + header.meta_bytes as usize;
        let meta = bytes.slice(meta_from..meta_to);
        let bodies = bytes.slice(meta_to..meta_to + header.bodies_bytes as usize);
        if !is_part(&meta, header.meta_crc) || !is_part(&bodies, header.bodies_crc) {
            return Err(damaged(Malformed::Checksum));
        }
        draft.records.push(DraftRecord { header, meta, bodies });
    }
    Ok(draft)
}

/// Gives back the room behind the proven end of a segment that is not written any more, unless a hard link keeps the
/// file.
fn trim(last: Option<&Link>, proven_to: u64) -> io::Result<()> {
    let Some(Link { segment, .. }) = last else { return Ok(()) };
    let file = segment.file()?;
    if file.size()? > proven_to && file.link_count()? == 1 {
        file.truncate(proven_to)?;
    }
    Ok(())
}

/// Removes what a crash left half done: files written aside, segments that do not count, files that the manifest does not
/// name.
fn clean(disk: &dyn Disk, names: &[String], manifest: &Manifest, segments: &BTreeSet<u64>) -> io::Result<()> {
    let named = manifest.file_names();
    for name in names {
        let is_leftover = match segment_number(name) {
            // One that is named and could not be read stays: it may be looked at by a person.
            Some(number) => !segments.contains(&number) && manifest.released.binary_search(&number).is_err(),
            None => name.ends_with(ASIDE_SUFFIX) || (file_number(name).is_some() && !named.contains(name)),
        };
        if is_leftover {
            remove_if_there(disk, name)?;
        }
    }
    Ok(())
}

/// True if the log ever held an entry that may still count. Changes nothing.
pub(crate) fn holds_entries(shared_disk: &Arc<dyn Disk>) -> Result<bool, OpenError> {
    let disk = &**shared_disk;
    let manifest = Manifest::read(disk)?.unwrap_or_default();
    let names = disk.list().map_err(io_error("list the directory"))?;
    let links = read_links(disk, &names, &manifest, &Arc::new(OpenFiles::new(Arc::clone(shared_disk))))?;
    if links.is_empty() {
        return Ok(false);
    }
    let found = read_chain(&links, &Options::default())?;
    Ok(found.log.last().0 != Index(0) || found.tail.is_some_and(|tail| !tail.records.is_empty()))
}
