//! Makes a log that goes on out of what a crash left behind.
//!
//! Recovery reads the chain of segments, refuses rot and cuts what was torn. Then it makes durable what it is about to
//! report: bytes read back after a crash may stand in the page cache alone, and after a failed sync the kernel may call
//! lost pages clean. So the log always goes on in a fresh segment. The head of that segment names where the proven part
//! of its predecessor ends, and the segment carries a copy of the one batch behind that. HARDSTATE is written anew for
//! the same reason. Nothing on the disk changes before the verdict is clear. A crash in between, at whatever call,
//! leads to the same log again.

use crate::batch::{Draft, DraftRecord, FrameContext};
use crate::disk::{ASIDE_SUFFIX, Disk, SECTOR_BYTES, read_exactly};
use crate::error::{OpenError, Rotten, RottenPart, io_error, malformed};
use crate::format::Malformed;
use crate::format::segment::{RECORD_BYTES, RecordHeader, RecordIdentity, SegmentHead};
use crate::hard_state::HardStateFile;
use crate::log::{Log, PlacedRecord};
use crate::manifest::Manifest;
use crate::opening::{CutBatch, Options};
use crate::random::Random;
use crate::reader::read_configurations;
use crate::scan::{BatchScan, Depth, Scanner, read_head};
use crate::segment::{Segment, give_birth, segment_name, segment_number};
use crate::spare::{Spare, Spares};
use crate::wal::{Active, Opened};
use bytes::Bytes;
use raftqueue_raft::{HardState, Index};
use std::collections::BTreeMap;
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
    /// The records of the last proven batch.
    previous: Vec<RecordIdentity>,
    /// The number of the batch that comes next.
    batch_next: u64,
    salt: u64,
}

/// Recovers the log of a formatted directory.
pub(crate) fn recover(disk: &dyn Disk, options: &Options) -> Result<Opened, OpenError> {
    let stored_manifest = Manifest::read(disk)?;
    let manifest = stored_manifest.clone().unwrap_or_default();
    let names = disk.list().map_err(io_error("list the directory"))?;
    let links = read_links(disk, &names, &manifest)?;
    let slots = HardStateFile::read(disk)?;
    let found = match links.last() {
        Some(_) => read_chain(&links, options)?,
        None if stored_manifest.is_some() => {
            let first = manifest.first_segment;
            return Err(OpenError::FirstSegmentMissing { first, found: None });
        }
        None => Found::nothing(),
    };

    // Configurations are reported later. Their rot must show before anything changes, so they are read here, too.
    read_configurations(&found.log, &found.segments)?;

    // From here on the disk changes, and a crash at any call leads back to the same log.
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
    let opened = go_on(disk, found, value, &links, &mut spares, &mut salts)?;
    if stored_manifest.is_none() {
        manifest.write(disk).map_err(io_error("write MANIFEST"))?;
    }
    clean(disk, &names, &manifest).map_err(io_error("remove leftovers"))?;
    let GoneOn { log, segments, active, cut, damaged_copies } = opened;
    Ok(Opened { manifest, hard_state, log, segments, active, spares, salts, cut, damaged_copies })
}

/// Opens every segment that counts and checks that each names the one before it.
fn read_links(disk: &dyn Disk, names: &[String], manifest: &Manifest) -> Result<Vec<Link>, OpenError> {
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
        let segment = Arc::new(Segment { number, salt: head.salt, name, file });
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
            previous: Vec::new(),
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
        if let Some(frame) = batch.frame {
            self.batch_next = frame.batch + 1;
        }
        Ok(())
    }
}

/// Replays all segments. An older one is read by its sealed index, or by a walk if that index is damaged. The last one
/// is read by a walk over every byte.
fn read_chain(links: &[Link], options: &Options) -> Result<Found, OpenError> {
    let first = &links.first().expect("the caller saw one").head;
    let mut found = Found::nothing();
    found.log = Log::new((first.previous_index, first.previous_term));
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
    let mut scanner = Scanner::new(&*segment.file, &segment.name, *head, depth).map_err(&read)?;
    let mut after = None;
    if next.head.predecessor_sealed {
        let seal = scanner.frame(end).map_err(&read)?;
        after = scanner.identities(seal.as_ref()).map_err(&read)?;
        let index = match &seal {
            Some(seal) => scanner.index(seal).map_err(&read)?,
            None => None,
        };
        match (seal, index) {
            (Some(seal), Some(records)) if !options.verify_all => {
                found.hard_state = found.hard_state.max(seal.hard_state);
                let whole =
                    BatchScan { frame: None, offset: SECTOR_BYTES, next: end, records, damage: Vec::new() };
                found.take(segment, &whole)?;
                found.batch_next = seal.batch;
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
    if after.is_none() {
        let mut successor =
            Scanner::new(&*next.segment.file, &next.segment.name, next.head, depth).map_err(&read)?;
        let born = successor.frame(SECTOR_BYTES).map_err(&read)?;
        after = successor.identities(born.as_ref()).map_err(&read)?;
    }
    let scan = scanner.walk(Some(end), after.as_deref()).map_err(&read)?;
    take_proven(found, segment, &scan.batches, rot)
}

/// The last segment: proven up to the greatest readable `durable_to`, then at most one batch.
fn read_last(found: &mut Found, link: &Link, rot: &mut Vec<Rotten>) -> Result<(), OpenError> {
    let read = io_error("read the last segment");
    let Link { segment, head } = link;
    let mut scanner = Scanner::new(&*segment.file, &segment.name, *head, Depth::Contents).map_err(&read)?;
    let scan = scanner.walk(None, None).map_err(&read)?;
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

/// Takes batches of a proven part. A damaged second copy is noted; anything else that is damaged is rot.
fn take_proven(
    found: &mut Found,
    segment: &Segment,
    batches: &[BatchScan],
    rot: &mut Vec<Rotten>,
) -> Result<(), OpenError> {
    for batch in batches {
        for damage in &batch.damage {
            if damage.part == RottenPart::Identities {
                found.damaged_copies.push(damage.clone());
            } else {
                rot.push(damage.clone());
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
}

/// Makes the fresh segment in which the log goes on; its name is the switch.
fn go_on(
    disk: &dyn Disk,
    mut found: Found,
    hard_state: HardState,
    links: &[Link],
    spares: &mut Spares,
    salts: &mut Random,
) -> Result<GoneOn, OpenError> {
    let last = links.last();
    let draft = match (&found.tail, last) {
        (Some(tail), Some(link)) => read_tail(&link.segment, tail)?,
        _ => Draft::default(),
    };
    let head = SegmentHead {
        number: last.map_or(1, |link| link.head.number + 1),
        salt: salts.next(),
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
    let spare: Spare = spares.take_to_start(disk, size).map_err(io_error("make room for a segment"))?;
    let segment = give_birth(disk, &spare.name, &spare.file, head, &draft, &context)
        .map_err(|error| io_error("make a fresh segment")(error.into_inner()))?;
    let segment = Arc::new(segment);
    let active =
        Active::born(Arc::clone(&segment), spare.size(), &draft, found.previous.len(), found.batch_next);

    for placed in active.placed_records() {
        found.log.apply(placed).expect("the order was checked before anything was written");
    }
    found.segments.insert(segment.number, segment);
    trim(last, found.proven_to).map_err(io_error("trim a segment"))?;
    let Found { log, segments, cut, damaged_copies, .. } = found;
    Ok(GoneOn { log, segments, active, cut, damaged_copies })
}

/// Reads the unproven batch once more, to be written again.
fn read_tail(segment: &Segment, tail: &BatchScan) -> Result<Draft, OpenError> {
    let mut draft = Draft::default();
    for record in &tail.records {
        let damaged = |reason| malformed(&segment.name, record.offset, reason);
        let size = usize::try_from(record.identity.record_bytes()).expect("the walk has read it");
        let bytes = read_exactly(&*segment.file, record.offset, size)
            .map_err(io_error("read the last batch"))?
            .map(Bytes::from)
            .ok_or(damaged(Malformed::Short))?;
        let header = RecordHeader::decode(&bytes, segment.salt).map_err(damaged)?;
        let meta_from = usize::try_from(RECORD_BYTES).expect("48");
        let meta_to = meta_from + header.meta_bytes as usize;
        let meta = bytes.slice(meta_from..meta_to);
        let bodies = bytes.slice(meta_to..meta_to + header.bodies_bytes as usize);
        if crc32c::crc32c(&meta) != header.meta_crc || crc32c::crc32c(&bodies) != header.bodies_crc {
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
    if segment.file.size()? > proven_to && segment.file.link_count()? == 1 {
        segment.file.truncate(proven_to)?;
    }
    Ok(())
}

/// Removes what a crash left half done: files written aside, and segments that were released.
fn clean(disk: &dyn Disk, names: &[String], manifest: &Manifest) -> io::Result<()> {
    for name in names {
        let is_released = segment_number(name).is_some_and(|number| number < manifest.first_segment);
        if is_released || name.ends_with(ASIDE_SUFFIX) {
            match disk.remove(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// True if the log ever held an entry that may still count. Changes nothing.
pub(crate) fn holds_entries(disk: &dyn Disk) -> Result<bool, OpenError> {
    let manifest = Manifest::read(disk)?.unwrap_or_default();
    let names = disk.list().map_err(io_error("list the directory"))?;
    let links = read_links(disk, &names, &manifest)?;
    if links.is_empty() {
        return Ok(false);
    }
    let found = read_chain(&links, &Options::default())?;
    Ok(found.log.last().0 != Index(0) || found.tail.is_some_and(|tail| !tail.records.is_empty()))
}
