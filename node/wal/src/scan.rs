//! Walks one segment and says what is there, what is proven, and what is damaged.
//!
//! The walk goes from frame to frame. If a frame cannot be read, the walk looks for a later one, sector by sector.
//! Every frame says up to which offset everything was synced before it was written. So a readable frame behind damage
//! proves that the damaged bytes were durable once. Nothing else tells rot from a torn write.
//!
//! What is damaged still tells what it was: the name of a record stands in its own header and in the next frame. Where both
//! are gone, nobody knows which records there were ([`BatchScan::is_known`]).
//!
//! On purpose there is no verdict here: `recover` names rot and cuts torn batches, `dump` prints both.

use crate::disk::{DiskFile, SECTOR_BYTES};
use crate::error::{Rotten, RottenPart};
use crate::format::is_part;
use crate::format::segment::{
    FRAME_BYTES, Frame, FrameKind, IDENTITY_BYTES, INDEXED_BYTES, IndexedRecord, RECORD_BYTES, RecordHeader,
    RecordIdentity, SegmentHead, decode_identities, decode_index, records_crc, sector_end,
};
use crate::log::name_of;
use std::io;

/// How closely records are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Frames and record headers only.
    Headers,
    /// Every byte.
    Contents,
}

/// One batch, or a stretch where no frame could be read.
#[derive(Debug)]
pub(crate) struct BatchScan {
    /// Its frame; `None` if it is damaged, and only what follows shows that a batch was here.
    pub(crate) frame: Option<Frame>,
    pub(crate) offset: u64,
    /// Where the next batch begins.
    pub(crate) next: u64,
    /// The records whose place is known, damaged or not.
    pub(crate) records: Vec<IndexedRecord>,
    /// These are all of its records, and they are where they are said to be.
    pub(crate) is_known: bool,
    /// Everything in it that does not verify.
    pub(crate) damage: Vec<Rotten>,
}

/// One segment.
#[derive(Debug)]
pub(crate) struct SegmentScan {
    pub(crate) batches: Vec<BatchScan>,
    /// The seal, if the walk came to one.
    pub(crate) seal: Option<Frame>,
    /// Everything before this offset was synced once.
    pub(crate) proven_to: u64,
}

impl SegmentScan {
    /// Splits the batches: those of the proven part, and those behind it. Of these there is at most one, unless
    /// something is badly wrong.
    pub(crate) fn split(self) -> (Vec<BatchScan>, Vec<BatchScan>) {
        let proven_to = self.proven_to;
        self.batches.into_iter().partition(|batch| batch.offset < proven_to)
    }
}

/// What stands behind the part of a segment that is walked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behind {
    /// The number of the frame there; `None` if there is none, or it cannot be read.
    pub(crate) batch: Option<u64>,
    /// What it says of the last batch before it.
    pub(crate) identities: Option<Vec<RecordIdentity>>,
}

/// A walker over one file.
pub(crate) struct Scanner<'a> {
    window: Window<'a>,
    name: &'a str,
    head: SegmentHead,
    depth: Depth,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        name: &'a str,
        head: SegmentHead,
        depth: Depth,
    ) -> io::Result<Scanner<'a>> {
        Ok(Scanner { window: Window::new(file)?, name, head, depth })
    }

    /// Walks up to `end`, which a successor names, or as far as there are frames. `behind` is what stands there. The first
    /// batch follows one of `previous` records, if that is known.
    pub(crate) fn walk(
        &mut self,
        end: Option<u64>,
        behind: &Behind,
        previous: Option<usize>,
    ) -> io::Result<SegmentScan> {
        let limit = end.unwrap_or(self.window.size);
        // A file that was cut off within the zeros behind a batch lacks nothing, and the log goes on at sectors only.
        let born_to = self.head.born_to.min(sector_end(limit));
        let mut scan = SegmentScan { batches: Vec::new(), seal: None, proven_to: born_to };
        let (mut at, mut expected) = (SECTOR_BYTES, self.head.first_batch);
        let mut frame = self.frame(at)?;
        while at < limit {
            let is_next = |frame: &Frame| frame.batch == expected && frame.end() <= limit;
            let Some(current) = frame.filter(is_next) else {
                // The frame is damaged, torn, or was never written: only a later frame can tell.
                let found = self.find_frame(at + SECTOR_BYTES, limit, expected)?;
                // What was synced before the file got its name was here, too.
                let is_proven = at < scan.proven_to;
                let to = found.map_or(limit, |found| found.offset);
                if found.is_some() || end.is_some() || is_proven {
                    let next = found.map(|found| found.batch).or(behind.batch.filter(|_| found.is_none()));
                    let known = match (next == Some(expected + 1), found) {
                        (false, _) => None,
                        (true, Some(_)) => self.identities(found.as_ref())?,
                        (true, None) => behind.identities.clone(),
                    };
                    let previous = match scan.batches.last() {
                        Some(batch) => batch.is_known.then_some(batch.records.len()),
                        None => previous,
                    };
                    scan.batches.push(self.gap(at, to, previous, known.as_deref())?);
                }
                let Some(found) = found else { break };
                scan.proven_to = scan.proven_to.max(found.durable_to);
                (at, expected, frame) = (found.offset, found.batch, Some(found));
                continue;
            };
            scan.proven_to = scan.proven_to.max(current.durable_to);
            if current.kind == FrameKind::Seal {
                scan.seal = Some(current);
                break;
            }
            at = current.next();
            expected += 1;
            frame = self.frame(at)?;
            let copy = match (at >= limit, &behind.identities) {
                (true, Some(after)) if behind.batch == Some(expected) => Some(after.clone()),
                (true, _) => None,
                (false, _) => self.identities(frame.filter(|next| next.batch == expected).as_ref())?,
            };
            scan.batches.push(self.batch(current, copy.as_deref())?);
        }
        if end.is_some() {
            scan.proven_to = limit;
        }
        Ok(scan)
    }

    /// The frame at `offset`, if one can be read there.
    pub(crate) fn frame(&mut self, offset: u64) -> io::Result<Option<Frame>> {
        let salt = self.head.salt;
        let bytes = self.window.get(offset, FRAME_BYTES)?;
        Ok(bytes.and_then(|bytes| Frame::decode(bytes, salt, offset).ok()))
    }

    /// The identities behind a frame; `None` if they cannot be read.
    pub(crate) fn identities(&mut self, frame: Option<&Frame>) -> io::Result<Option<Vec<RecordIdentity>>> {
        let Some(frame) = frame else { return Ok(None) };
        let salt = self.head.salt;
        let bytes =
            self.window.get(frame.offset + FRAME_BYTES, u64::from(frame.identities) * IDENTITY_BYTES)?;
        Ok(bytes.and_then(|bytes| decode_identities(bytes, salt, frame).ok()))
    }

    /// The index behind a seal; `None` if it cannot be read.
    pub(crate) fn index(&mut self, seal: &Frame) -> io::Result<Option<Vec<IndexedRecord>>> {
        let salt = self.head.salt;
        let bytes = self.window.get(seal.records_offset(), u64::from(seal.records) * INDEXED_BYTES)?;
        Ok(bytes.and_then(|bytes| decode_index(bytes, salt, seal).ok()))
    }

    fn find_frame(&mut self, from: u64, limit: u64, batch_after: u64) -> io::Result<Option<Frame>> {
        let mut at = from;
        while at < limit {
            if let Some(frame) = self.frame(at)?.filter(|frame| frame.batch > batch_after) {
                return Ok(Some(frame));
            }
            at += SECTOR_BYTES;
        }
        Ok(None)
    }

    fn rotten(&self, offset: u64, part: RottenPart, identity: Option<&RecordIdentity>) -> Rotten {
        Rotten { file: self.name.to_owned(), offset, part, record: identity.map(name_of) }
    }

    /// Looks at the records of a batch whose frame is good. `copy` is what the next frame says about them.
    fn batch(&mut self, frame: Frame, copy: Option<&[RecordIdentity]>) -> io::Result<BatchScan> {
        let mut batch = BatchScan {
            frame: Some(frame),
            offset: frame.offset,
            next: frame.next(),
            records: Vec::new(),
            is_known: true,
            damage: Vec::new(),
        };
        if self.identities(Some(&frame))?.is_none() {
            batch.damage.push(self.rotten(frame.offset + FRAME_BYTES, RottenPart::Identities, None));
        }
        let copy = copy.filter(|copy| copy.len() == frame.records as usize);
        let mut headers = Vec::new();
        let mut at = frame.records_offset();
        for position in 0..frame.records as usize {
            let known = copy.map(|copy| &copy[position]);
            let header = self.header(at, frame.end())?;
            // One of another attempt at this batch is as good as none.
            let header = header.filter(|header| known.is_none_or(|known| header.identity() == *known));
            let Some(identity) = header.map(|header| header.identity()).or(known.copied()) else {
                // Its length is not known, so nothing behind it in this batch can be found.
                batch.damage.push(self.rotten(at, RottenPart::RecordHeader, None));
                batch.is_known = false;
                return Ok(batch);
            };
            match header {
                Some(header) => {
                    headers.extend_from_slice(&header.encode(self.head.salt, at));
                    self.check_contents(at, &header, &mut batch.damage)?;
                }
                None => batch.damage.push(self.rotten(at, RottenPart::RecordHeader, known)),
            }
            batch.records.push(IndexedRecord { identity, offset: at });
            at = at.saturating_add(identity.record_bytes());
        }
        let is_complete = headers.len() as u64 == u64::from(frame.records) * RECORD_BYTES;
        if is_complete && records_crc(self.head.salt, &headers) != frame.records_crc {
            batch.damage.push(self.rotten(frame.offset, RottenPart::Frame, None));
            batch.is_known = copy.is_some();
        }
        batch.is_known &= at == frame.end();
        Ok(batch)
    }

    /// A stretch without a readable frame. If it is a single batch, the next frame names its records, and the length of
    /// its own frame follows from the batch before it, which has `previous` records.
    fn gap(
        &mut self,
        from: u64,
        to: u64,
        previous: Option<usize>,
        known: Option<&[RecordIdentity]>,
    ) -> io::Result<BatchScan> {
        let mut batch = BatchScan {
            frame: None,
            offset: from,
            next: to,
            records: Vec::new(),
            is_known: false,
            damage: vec![self.rotten(from, RottenPart::Frame, None)],
        };
        let Some(known) = known else { return Ok(batch) };
        let Some(mut at) = self.first_record(from, to, previous, known)? else { return Ok(batch) };
        batch.is_known = true;
        for identity in known {
            match self.header(at, to)?.filter(|header| header.identity() == *identity) {
                Some(header) => self.check_contents(at, &header, &mut batch.damage)?,
                None => batch.damage.push(self.rotten(at, RottenPart::RecordHeader, Some(identity))),
            }
            batch.records.push(IndexedRecord { identity: *identity, offset: at });
            at = at.saturating_add(identity.record_bytes());
        }
        Ok(batch)
    }

    /// Where the records begin of the batch that fills `from..to`, if such a place can be.
    ///
    /// A log that was cut no longer has the batch before its first one, so that nobody knows how many records that had. The
    /// end of a batch leaves a few places then, and heads that verify tell which of them it is, or what stands behind them does. If
    /// nothing verifies anywhere, all of these records are written anew: any place is as good as another, as long as each start
    /// comes to the same one.
    fn first_record(
        &mut self,
        from: u64,
        to: u64,
        previous: Option<usize>,
        known: &[RecordIdentity],
    ) -> io::Result<Option<u64>> {
        let length = known
            .iter()
            .map(RecordIdentity::record_bytes)
            .fold(0, |sum: u64, bytes| sum.saturating_add(bytes));
        let is_end = |at: &u64| sector_end(at.saturating_add(length)) == to;
        let frame_end = from + FRAME_BYTES;
        if let Some(previous) = previous {
            return Ok(Some(frame_end + previous as u64 * IDENTITY_BYTES).filter(is_end));
        }
        let least = to.saturating_sub(SECTOR_BYTES).saturating_sub(length).saturating_sub(frame_end);
        let places = (least / IDENTITY_BYTES..).map(|count| frame_end.saturating_add(count * IDENTITY_BYTES));
        let places = places.take_while(|at| at.saturating_add(length) <= to).filter(is_end);
        let mut best = None;
        for place in places {
            let (mut at, mut verify) = (place, 0);
            for identity in known {
                let is_head = self.header(at, to)?.is_some_and(|header| header.identity() == *identity);
                // An entry without content has it everywhere.
                verify += 2 * u32::from(is_head) + u32::from(self.is_content(at, identity)?);
                at = at.saturating_add(identity.record_bytes());
            }
            if best.is_none_or(|(most, _)| verify > most) {
                best = Some((verify, place));
            }
        }
        Ok(best.map(|(_, place)| place))
    }

    /// Whether the content of this record stands behind a head at `at`, whatever that says.
    fn is_content(&mut self, at: u64, identity: &RecordIdentity) -> io::Result<bool> {
        let (meta, bodies) = (u64::from(identity.meta_bytes), u64::from(identity.bodies_bytes));
        let Some(bytes) = self.window.get(at.saturating_add(RECORD_BYTES), meta + bodies)? else {
            return Ok(false);
        };
        let (meta, bodies) = bytes.split_at(identity.meta_bytes as usize);
        let header = RecordHeader::of(identity.kind, identity.index, identity.term, meta, bodies);
        Ok(header.find(meta, bodies, |header| header.identity() == *identity).is_some())
    }

    /// The record header at `at`, if it can be read and its record ends by `end`.
    fn header(&mut self, at: u64, end: u64) -> io::Result<Option<RecordHeader>> {
        let salt = self.head.salt;
        let bytes = self.window.get(at, RECORD_BYTES)?;
        let header = bytes.and_then(|bytes| RecordHeader::decode(bytes, salt, at).ok());
        Ok(header.filter(|header| header.identity().record_bytes() <= end.saturating_sub(at)))
    }

    fn check_contents(&mut self, at: u64, header: &RecordHeader, damage: &mut Vec<Rotten>) -> io::Result<()> {
        if self.depth == Depth::Headers {
            return Ok(());
        }
        let parts = [
            (RottenPart::Meta, at + RECORD_BYTES, header.meta_bytes, header.meta_crc),
            (
                RottenPart::Bodies,
                at + RECORD_BYTES + u64::from(header.meta_bytes),
                header.bodies_bytes,
                header.bodies_crc,
            ),
        ];
        for (part, offset, size, crc) in parts {
            let is_good = self.window.get(offset, u64::from(size))?.is_some_and(|bytes| is_part(bytes, crc));
            if !is_good {
                damage.push(self.rotten(offset, part, Some(&header.identity())));
            }
        }
        Ok(())
    }
}

/// A file behind a buffer, for many small reads that mostly go forward.
struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    const READ_BYTES: u64 = 256 * 1024;

    fn new(file: &'a dyn DiskFile) -> io::Result<Window<'a>> {
        Ok(Window { file, size: file.size()?, start: 0, buffer: Vec::new() })
    }

    /// The bytes `offset..offset + count`; `None` if the file ends before. So a length read from garbage never costs
    /// more memory than the file has bytes.
    fn get(&mut self, offset: u64, count: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(count).filter(|end| *end <= self.size) else { return Ok(None) };
        if offset < self.start || end > self.start + self.buffer.len() as u64 {
            let wanted = count.max(Self::READ_BYTES).min(self.size - offset);
            self.buffer.resize(usize::try_from(wanted).expect("a file fits the address space"), 0);
            let read = self.file.read_at(offset, &mut self.buffer)?;
            self.buffer.truncate(read);
            self.start = offset;
            if (read as u64) < count {
                return Ok(None);
            }
        }
        let from = usize::try_from(offset - self.start).expect("inside the buffer");
        Ok(Some(&self.buffer[from..from + usize::try_from(count).expect("inside the buffer")]))
    }
}

/// The first sector of a segment, decoded.
pub(crate) fn read_head(file: &dyn DiskFile) -> io::Result<Result<SegmentHead, crate::format::Malformed>> {
    let size = usize::try_from(SECTOR_BYTES).expect("512");
    let mut buffer = vec![0; size];
    let read = file.read_at(0, &mut buffer)?;
    Ok(SegmentHead::decode(&buffer[..read]).and_then(|head| {
        if head.born_to == sector_end(head.born_to) && head.born_to > SECTOR_BYTES {
            Ok(head)
        } else {
            Err(crate::format::Malformed::Field("born to"))
        }
    }))
}
