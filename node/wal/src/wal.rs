//! The writer: one owner, one write in flight, one sync a batch.
//!
//! Order of a batch: a changed hard state goes into `HARDSTATE` and is synced, then truncation and entries go into the
//! segment with one vectored write and one sync, then readers see them. A later part is never durable without the
//! earlier ones. A segment is sealed and synced before a byte of the next one is written.

use crate::batch::{Batch, Draft, FrameContext, encode_seal};
use crate::disk::{Disk, DiskFile, DiskLock, SECTOR_BYTES, is_no_space, remove_if_there};
use crate::error::{AppendError, Rotten};
use crate::format::segment::{
    FRAME_BYTES, IDENTITY_BYTES, INDEXED_BYTES, IndexedRecord, RecordIdentity, SegmentHead, sector_end,
};
use crate::hard_state::HardStateFile;
use crate::log::{PlacedRecord, Shared, Visible};
use crate::manifest::Manifest;
use crate::open_files::OpenFiles;
use crate::opening::{CutBatch, DamagedFile, Options, Recovered};
use crate::random::Random;
use crate::reader::{Configurations, Reader};
use crate::segment::{BirthError, Segment, give_birth};
use crate::spare::{Spare, Spares};
use raftqueue_raft::{Entry, HardState, Index, Term};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The greatest mean size of a batch, in bytes, at which the next segment is filled with zeros. Up to this size an
/// append into a filled file saves more (see `spare`) than filling costs. Above it zeros only compete for the disk.
const FILL_BATCH_BYTES_MAX: u64 = 128 << 10;

/// A place on this disk where bytes of the log stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The byte offset in its file.
    pub offset: u64,
}

/// Says that a batch is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The last index of the durable log.
    pub last_index: Index,
    /// Everything before this place is on the disk.
    pub synced_to: Place,
}

/// The writer. One per data directory; it belongs to one thread.
pub struct Wal {
    pub(crate) disk: Arc<dyn Disk>,
    options: Options,
    pub(crate) shared: Arc<Shared>,
    pub(crate) manifest: Manifest,
    pub(crate) active: Active,
    /// The number of the next segment: above that of every segment that ever had a name here.
    pub(crate) segment_next: u64,
    pub(crate) open_files: Arc<OpenFiles>,
    /// What the manifest names no more, to be removed one at a time.
    pub(crate) doomed: VecDeque<Doomed>,
    /// The numbers of snapshots that cannot be read: the next one takes their place first.
    pub(crate) unusable: BTreeSet<u64>,
    /// `None` if it could not be read at the start: then nothing is appended.
    pub(crate) hard_state: Option<HardStateFile>,
    /// The greatest one of all frames that could be read at the start.
    framed: HardState,
    pub(crate) spares: Spares,
    pub(crate) salts: Random,
    /// What could not be done when the disk failed.
    poisoned: Option<&'static str>,
    /// Keeps other processes out as long as the writer lives.
    _lock: Arc<dyn DiskLock>,
}

/// The log, ready to be written to.
pub(crate) struct Opened {
    pub(crate) manifest: Manifest,
    pub(crate) hard_state: Option<HardStateFile>,
    /// The greatest one of all frames that can be read.
    pub(crate) framed: HardState,
    pub(crate) visible: Visible,
    pub(crate) configurations: Configurations,
    pub(crate) holes: Vec<(PlacedRecord, Rotten)>,
    pub(crate) active: Active,
    pub(crate) segment_next: u64,
    pub(crate) next_file: u64,
    pub(crate) open_files: Arc<OpenFiles>,
    pub(crate) spares: Spares,
    pub(crate) salts: Random,
    pub(crate) cut: Option<CutBatch>,
    pub(crate) damaged_copies: Vec<Rotten>,
    pub(crate) damaged_files: Vec<DamagedFile>,
}

/// What nothing leads to any more.
pub(crate) enum Doomed {
    Segment(Arc<Segment>),
    File(String),
}

/// The segment that is written to.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    size: u64,
    /// The offset of the next batch; everything before it is synced.
    end: u64,
    /// The number of the next batch.
    pub(crate) batch_next: u64,
    /// The number of the batch that the segment was born with.
    batch_first: u64,
    /// All records of this segment, for the seal.
    index: Vec<IndexedRecord>,
    /// The records of the last batch, for the next frame.
    previous: Vec<RecordIdentity>,
    /// True until a frame behind the last batch says that it was synced and repeats the identities of its records.
    is_unproven: bool,
}

impl Active {
    /// A segment that was just born with `draft`.
    pub(crate) fn born(
        segment: Arc<Segment>,
        spare: Spare,
        draft: &Draft,
        identities: usize,
        batch: u64,
    ) -> Active {
        Active {
            segment,
            size: spare.size(),
            file: spare.file,
            end: sector_end(SECTOR_BYTES + draft.batch_bytes(identities)),
            batch_next: batch + 1,
            batch_first: batch,
            index: draft.places(SECTOR_BYTES, identities),
            previous: draft.identities(),
            // The birth of the segment proved the batch, but its identities stand only once.
            is_unproven: !draft.records.is_empty(),
        }
    }

    /// Bytes of a segment that can be born with `draft`.
    pub(crate) fn size_needed(draft: &Draft, identities: usize) -> u64 {
        let batch = sector_end(SECTOR_BYTES + draft.batch_bytes(identities));
        batch + Active::room_to_end(draft.records.len(), draft.records.len())
    }

    /// Where the records of this segment stand.
    pub(crate) fn placed_records(&self) -> impl Iterator<Item = PlacedRecord> {
        let segment = self.segment.number;
        self.index.iter().map(move |record| PlacedRecord {
            segment,
            offset: record.offset,
            identity: record.identity,
        })
    }

    /// Bytes to keep free: an empty batch that proves the last one, and the seal, must always fit.
    fn room_to_end(last_records: usize, all_records: usize) -> u64 {
        Active::seal_bytes(last_records, 0) + Active::seal_bytes(last_records, all_records)
    }

    fn seal_bytes(last_records: usize, all_records: usize) -> u64 {
        sector_end(FRAME_BYTES + last_records as u64 * IDENTITY_BYTES + all_records as u64 * INDEXED_BYTES)
    }

    fn fits(&self, draft: &Draft) -> bool {
        let count = draft.records.len();
        let end = sector_end(self.end + draft.batch_bytes(self.previous.len()));
        let all = self.index.len() + count;
        // An empty batch uses the room that was kept free for it.
        let room = if count == 0 { Active::seal_bytes(0, all) } else { Active::room_to_end(count, all) };
        end + room <= self.size
    }

    /// The mean size of the batches so far, in bytes.
    fn batch_bytes_mean(&self) -> u64 {
        self.end / (self.batch_next - self.batch_first)
    }

    fn place(&self) -> Place {
        Place { segment: self.segment.number, offset: self.end }
    }
}

impl Wal {
    /// Puts the recovered parts together and reads what a node must know to go on.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        options: Options,
        lock: Arc<dyn DiskLock>,
        opened: Opened,
    ) -> (Wal, Recovered) {
        let Opened { manifest, hard_state, visible, active, segment_next, next_file, .. } = opened;
        let Opened { open_files, spares, salts, cut, damaged_copies, damaged_files, .. } = opened;
        let Opened { configurations, holes, framed, .. } = opened;
        let Visible { log, .. } = &visible;
        let (start, last) = (log.start(), log.last());
        let mut term_runs: Vec<(Index, Term)> = Vec::new();
        for placed in log.iter() {
            if term_runs.last().is_none_or(|(_, term)| *term != placed.identity.term) {
                term_runs.push((placed.identity.index, placed.identity.term));
            }
        }
        let shared = Arc::new(Shared::new(visible, Arc::clone(&disk), next_file));
        holes.iter().for_each(|(placed, _)| shared.note_hole(*placed));
        let recovered = Recovered {
            hard_state: hard_state.as_ref().map(HardStateFile::value),
            framed,
            start,
            last_index: last.0,
            last_term: last.1,
            term_runs,
            configurations,
            cut,
            damaged_copies,
            holes: holes.into_iter().map(|(_, rotten)| rotten).collect(),
            manifest: manifest.clone(),
            damaged_files,
        };
        let wal = Wal {
            disk,
            options,
            shared,
            manifest,
            active,
            segment_next,
            open_files,
            doomed: VecDeque::new(),
            unusable: BTreeSet::new(),
            hard_state,
            framed,
            spares,
            salts,
            poisoned: None,
            _lock: lock,
        };
        (wal, recovered)
    }

    /// A reader of the durable entries, for any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The last index of the durable log.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.shared.read().log.last().0
    }

    /// The first index that is there (one beyond the last if there is none).
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.shared.read().log.start().0.next()
    }

    /// A number for a snapshot, a places file or a kept file. No file had it before.
    #[must_use]
    pub fn next_file(&self) -> u64 {
        self.shared.next_file()
    }

    /// The directory, for those who write snapshots, places files and kept files.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// How many files that the manifest names no more wait to be removed by [`Wal::upkeep`].
    #[must_use]
    pub fn doomed_files(&self) -> usize {
        self.doomed.len()
    }

    /// Everything before this place is on the disk.
    #[must_use]
    pub fn synced_to(&self) -> Place {
        self.active.place()
    }

    /// The durable hard state; `None` if it was lost before this start.
    #[must_use]
    pub fn hard_state(&self) -> Option<HardState> {
        self.hard_state.as_ref().map(HardStateFile::value)
    }

    /// Writes `HARDSTATE` anew after both of its slots were lost. From then on entries are appended again. Whoever calls it
    /// knows that this node promised nothing beyond `value`: see [`Recovered::hard_state`].
    ///
    /// # Errors
    /// What the disk said: the file is as it was, or it has the value.
    ///
    /// # Panics
    /// If it is not lost, or if a frame has a greater one.
    pub fn renew_hard_state(&mut self, value: HardState) -> io::Result<()> {
        assert!(self.hard_state.is_none(), "what can be read is changed by what is appended only");
        assert!(value >= self.framed, "{value:?} is less than the {:?} of a frame", self.framed);
        self.hard_state = Some(HardStateFile::create(&*self.disk, value)?);
        Ok(())
    }

    /// The live files.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many segments the log has.
    #[must_use]
    pub fn log_segments(&self) -> usize {
        self.shared.read().segments.len()
    }

    /// Bytes that may still be allocated on this disk. Files that wait for reuse are not counted.
    ///
    /// # Errors
    /// What the disk said; nothing is poisoned.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    /// Bytes of [`Wal::free_bytes`] that publishing must leave alone.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.options.reserve_bytes
    }

    /// How many files wait for reuse.
    #[must_use]
    pub fn spare_files(&self) -> usize {
        self.spares.count()
    }

    /// Makes a batch durable: one vectored write and one sync, a second sync only if the hard state changed too, and a
    /// few more when a segment is full. A batch of a hard state alone touches only `HARDSTATE`. A batch without anything
    /// new costs nothing.
    ///
    /// # Errors
    /// [`AppendError::NoSpace`]: none of the entries counts; try the same again later. (A changed hard state may be
    /// durable already, which is harmless.) Everything else: the process must end.
    ///
    /// # Panics
    /// If the entries do not follow the log, if the truncation lies beyond it or before its first index, or if the hard
    /// state goes back: the caller has lost track of this log.
    pub fn append(&mut self, batch: &Batch<'_>) -> Result<Receipt, AppendError> {
        self.check_open()?;
        self.check_batch(batch);
        self.write_hard_state(batch)?;
        let mut draft = Draft::default();
        let last = self.last_index();
        if let Some(from) = batch.truncate_from.filter(|from| *from <= last) {
            draft.push_truncation(from, self.term_at(from.prev()));
        }
        batch.entries.iter().for_each(|entry| draft.push_entry(entry));
        if !draft.records.is_empty() {
            self.write(&draft)?;
        }
        Ok(Receipt { last_index: self.last_index(), synced_to: self.synced_to() })
    }

    /// Proves the last batch by an empty one, if it is not proven yet: from then on damage in it is known to be rot. To
    /// be called when nothing was appended for 100 ms. Returns true if something was written.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn prove(&mut self) -> Result<bool, AppendError> {
        self.check_open()?;
        if !self.active.is_unproven || self.hard_state.is_none() {
            return Ok(false);
        }
        self.write(&Draft::default())?;
        Ok(true)
    }

    /// Does what can wait until the promises of an append have left. It copies a changed hard state into the other
    /// slot. It removes one file that is no longer needed, or makes it a spare. Once half of this segment is used, it
    /// also does one step (less than a millisecond) of preparing the next one. To be called after every append; without it the log is slower and one copy of the hard state is missing,
    /// but nothing is unsafe.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn upkeep(&mut self) -> Result<(), AppendError> {
        self.check_open()?;
        let copied = self.hard_state.as_mut().map_or(Ok(()), HardStateFile::copy);
        self.judge(copied, "copy the hard state")?;
        self.remove_one()?;
        if self.active.end > self.options.segment_bytes / 2 {
            let fill = self.active.batch_bytes_mean() <= FILL_BATCH_BYTES_MAX;
            let prepared = self.spares.prepare(&*self.disk, fill).map(drop);
            self.judge(prepared, "prepare a segment")?;
        }
        Ok(())
    }

    fn remove_one(&mut self) -> Result<(), AppendError> {
        let Some(doomed) = self.doomed.pop_front() else { return Ok(()) };
        let done = match doomed {
            Doomed::File(name) => remove_if_there(&*self.disk, &name),
            Doomed::Segment(segment) => self.give_up(segment),
        };
        match done {
            // What a full disk does not let go is a leftover that the next opening removes.
            Err(error) if is_no_space(&error) => Ok(()),
            other => self.judge(other, "remove a file"),
        }
    }

    fn give_up(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        // No map leads to the segment any more, so nobody can begin to read it. Whoever still reads it holds a count.
        match Arc::try_unwrap(segment) {
            Ok(segment) => {
                let name = segment.name.clone();
                // What cannot be opened now is a leftover that the next opening removes.
                segment.into_file().map_or(Ok(()), |file| self.spares.recycle(&*self.disk, &name, file))
            }
            Err(segment) => match segment.keep_for_readers() {
                Ok(()) => remove_if_there(&*self.disk, &segment.name),
                Err(_) => Ok(()),
            },
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), AppendError> {
        match self.poisoned {
            Some(operation) => Err(AppendError::Poisoned { operation }),
            None => Ok(()),
        }
    }

    fn check_batch(&self, batch: &Batch<'_>) {
        let visible = self.shared.read();
        let (start, last) = (visible.log.start().0, visible.log.last().0);
        let mut next = last.next();
        if let Some(from) = batch.truncate_from {
            assert!(from > start && from <= next, "truncation from {from} of a log {start}..={last}");
            next = from;
        }
        for Entry { index, .. } in batch.entries {
            assert!(*index == next, "entry {index} where {next} must follow");
            next = next.next();
        }
        if let Some(durable) = self.hard_state() {
            let new = batch.hard_state;
            assert!(new >= durable, "the hard state goes back from {durable:?} to {new:?}");
            assert!(
                new == durable || batch.hard_state_changed,
                "{new:?} is called unchanged after {durable:?}"
            );
        }
    }

    fn term_at(&self, index: Index) -> Term {
        let visible = self.shared.read();
        visible.log.get(index).map_or(visible.log.start().1, |placed| placed.identity.term)
    }

    fn write_hard_state(&mut self, batch: &Batch<'_>) -> Result<(), AppendError> {
        let Some(hard_state) = &mut self.hard_state else { return Err(AppendError::HardStateLost) };
        if hard_state.value() == batch.hard_state {
            return Ok(());
        }
        let changed = hard_state.change(batch.hard_state);
        self.judge(changed, "write the hard state")
    }

    /// Writes a batch into this segment, or as the first one of the next.
    fn write(&mut self, draft: &Draft) -> Result<(), AppendError> {
        if self.active.fits(draft) {
            self.write_here(draft)?;
        } else {
            self.write_next(draft)?;
        }
        let segment = self.active.segment.number;
        let added = self.active.index.len() - draft.records.len();
        let mut visible = self.shared.write();
        for record in &self.active.index[added..] {
            let placed = PlacedRecord { segment, offset: record.offset, identity: record.identity };
            visible.log.apply(placed).expect("the order of the batch was checked");
        }
        Ok(())
    }

    fn write_here(&mut self, draft: &Draft) -> Result<(), AppendError> {
        let Active { segment, file, end, batch_next, previous, .. } = &self.active;
        let hard_state = self.hard_state().expect("appends without one are refused");
        let context = FrameContext { batch: *batch_next, hard_state, identities: previous };
        let written = draft.write(&**file, segment.salt, *end, &context, None);
        let synced = written.and_then(|()| file.sync_data());
        self.judge(synced, "write a batch")?;
        let active = &mut self.active;
        active.index.extend(draft.places(active.end, active.previous.len()));
        active.end = sector_end(active.end + draft.batch_bytes(active.previous.len()));
        active.batch_next += 1;
        active.is_unproven = !draft.records.is_empty();
        active.previous = draft.identities();
        Ok(())
    }

    /// Seals this segment and goes on in a new one, which is born with the batch. If there is no space for that, the
    /// seal may stand already. It has no number of its own and proves only what was synced before, so the next attempt
    /// (or a batch that still fits) is written over it.
    fn write_next(&mut self, draft: &Draft) -> Result<(), AppendError> {
        let size = Active::size_needed(draft, self.active.previous.len());
        let taken = self.spares.take(&*self.disk, size);
        let spare = self.judge(taken, "make room for a segment")?;
        let hard_state = self.hard_state().expect("appends without one are refused");
        let Active { segment, file, end, batch_next, index, previous, .. } = &self.active;
        let (end, batch) = (*end, *batch_next);
        let context = FrameContext { batch, hard_state, identities: previous };
        let seal = encode_seal(segment.salt, end, &context, index);
        let written = file.write_at(end, &mut [IoSlice::new(&seal)]);
        let sealed = written.and_then(|()| file.sync_data());
        if let Err(error) = sealed {
            self.spares.put_back(spare);
            return self.judge(Err(error), "seal a segment");
        }
        let last = self.shared.read().log.last();
        let head = SegmentHead {
            number: self.segment_next,
            salt: self.salts.next(),
            predecessor: segment.number,
            predecessor_end: end,
            predecessor_sealed: true,
            born_to: 0,
            first_batch: batch,
            previous_index: last.0,
            previous_term: last.1,
        };
        let files = &self.open_files;
        let born = give_birth(&*self.disk, &spare.name, &spare.file, head, draft, &context, files);
        match born {
            Ok(segment) => {
                self.segment_next += 1;
                self.active.segment.let_go();
                self.shared.write().segments.insert(segment.number, Arc::clone(&segment));
                let identities = self.active.previous.len();
                self.active = Active::born(segment, spare, draft, identities, batch);
                Ok(())
            }
            Err(BirthError::Unnamed(error)) => {
                self.spares.put_back(spare);
                self.judge(Err(error), "make a segment")
            }
            // The file has its name, and nobody knows whether durably: it can be neither used nor written over.
            Err(BirthError::Named(error)) => Err(self.poison("sync the directory", error)),
        }
    }

    /// The one place that decides what an error of the disk means.
    pub(crate) fn judge<T>(
        &mut self,
        result: io::Result<T>,
        operation: &'static str,
    ) -> Result<T, AppendError> {
        result.map_err(|error| {
            if is_no_space(&error) {
                AppendError::NoSpace { operation }
            } else {
                self.poison(operation, error)
            }
        })
    }

    pub(crate) fn poison(&mut self, operation: &'static str, source: io::Error) -> AppendError {
        self.poisoned = Some(operation);
        AppendError::Failed { operation, source }
    }
}
