//! The set of live files changes: a snapshot is taken over, the log is cut, files go, a log begins again.
//!
//! Everything that the new set names is on the disk, synced and with its name, before this is called. Then one manifest is
//! written aside, synced and renamed, and the directory is synced: a crash before the rename leaves the old set, a crash
//! after it the new one, and what the manifest in force does not name is removed by the next opening. Only after that
//! does memory follow, and what went is removed one file at a time by [`Wal::upkeep`], so that no append waits for it.
//!
//! What may go is decided by the *older* of the two snapshots, so that the node can fall back on it: its log and its
//! bodies are all there.

use crate::batch::{Draft, FrameContext};
use crate::disk::{self, Disk, NameError};
use crate::error::AppendError;
use crate::format::segment::SegmentHead;
use crate::log::Log;
use crate::manifest::{Change, FileId, Manifest, SNAPSHOTS_MAX, SnapshotFile};
use crate::manifest_file::MANIFEST;
use crate::names::{KEPT, PLACES, SNAPSHOT, numbered};
use crate::segment::{BirthError, give_birth, segment_name};
use crate::wal::{Active, Doomed, Wal};
use raftqueue_raft::{Index, Term};
use std::sync::Arc;

/// What a change of the set of live files led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// The log begins behind this index and term now.
    pub start: (Index, Term),
    /// Segments that left the log and are kept for their bodies.
    pub released: Vec<u64>,
    /// Files that are no longer there; a segment's places file went with it.
    pub gone: Vec<FileId>,
    /// The snapshots that count now and can be read as far as is known, the newest last.
    pub snapshots: Vec<SnapshotFile>,
}

/// A change, worked out before anything happens.
struct Plan {
    manifest: Manifest,
    released: Vec<u64>,
    gone: Vec<FileId>,
    /// The other files that the manifest will name no more.
    names: Vec<String>,
}

impl Change {
    /// Removes the files of a change that does not count and is not tried again: without that they would take room until the
    /// next opening, which removes what cannot be removed now.
    pub fn abandon(&self, disk: &dyn Disk) {
        let snapshot = self.snapshot.iter().map(|file| numbered(SNAPSHOT, file.number));
        let places = self.places.iter().map(|file| numbered(PLACES, file.number));
        let kept = self.kept.iter().map(|file| numbered(KEPT, file.number));
        for name in snapshot.chain(places).chain(kept) {
            let _ = disk.remove(&name);
        }
    }
}

impl Wal {
    /// Changes the set of live files, whole or not at all.
    ///
    /// With a snapshot the former newest one becomes the older one, and the former older one goes; what [cannot be
    /// read](Wal::give_up_snapshot) goes before either. Then segments whose entries the older one covers leave the log, as far
    /// as their messages stand in places files. Each is kept for its bodies from then on, unless it holds none or is
    /// retired. What is retired as of the older snapshot goes.
    ///
    /// With a reset the log begins again, behind the snapshot of the change, which is the only one then: no older one
    /// could be followed up. All segments leave the log; those that have a places file stay for their bodies.
    ///
    /// Costs a small write, a sync, a rename and a sync of the directory; a few more for a reset. If the snapshot covers
    /// the last batch, that is proven first: damage in it would be cut otherwise, and the snapshot lie beyond the log.
    ///
    /// # Errors
    /// As [`Wal::append`]. After [`AppendError::NoSpace`] nothing has changed and the files of the change are still of
    /// no account: the same change can be tried again, or they can be removed.
    ///
    /// # Panics
    /// If the change contradicts what is there: a snapshot that goes back, or lies beyond the log without a reset; a reset
    /// without its snapshot; a file number that was not handed out or is in use; a retired file that is not there.
    pub fn switch(&mut self, change: &Change) -> Result<Switched, AppendError> {
        self.check_open()?;
        self.check_change(change);
        if change.reset.is_none() && change.snapshot.is_some() {
            self.prove()?;
        }
        let reborn = match change.reset {
            Some(start) => Some(self.begin_again(start)?),
            None => None,
        };
        let plan = self.plan(change, reborn.as_ref().map(|active| active.segment.number));
        if let Err(error) = self.write_manifest(&plan.manifest) {
            // After any other error the manifest may name it: nobody knows, and the next opening finds out.
            if let Some(active) = reborn.as_ref().filter(|_| matches!(error, AppendError::NoSpace { .. })) {
                // It was never part of the log. Should this fail, too, the next opening knows it by its head.
                let _ = self.disk.remove(&active.segment.name);
            }
            return Err(error);
        }
        Ok(self.follow(plan, change.reset, reborn))
    }

    /// A snapshot cannot be read: nobody could fall back on it, so the next one takes its place and not that of a good one.
    pub fn give_up_snapshot(&mut self, number: u64) {
        self.unusable.insert(number);
    }

    /// The snapshots that count and were not [given up](Wal::give_up_snapshot), the newest last.
    #[must_use]
    pub fn usable_snapshots(&self) -> Vec<SnapshotFile> {
        let is_usable = |file: &&SnapshotFile| !self.unusable.contains(&file.number);
        self.manifest.snapshots.iter().filter(is_usable).copied().collect()
    }

    /// How many of the snapshots that count were [given up](Wal::give_up_snapshot).
    #[must_use]
    pub fn unusable_snapshots(&self) -> usize {
        self.manifest.snapshots.len() - self.usable_snapshots().len()
    }

    fn check_change(&self, change: &Change) {
        let Change { snapshot, places, kept, retire, reset, incomplete: _, complete: _ } = change;
        let last = self.last_index();
        if let Some(snapshot) = snapshot {
            let newest = self.usable_snapshots().last().map_or(Index(0), |newest| newest.index);
            assert!(snapshot.index >= newest, "a snapshot at {} after one at {newest}", snapshot.index);
            assert!(
                reset.is_some() || snapshot.index <= last,
                "a snapshot at {} of a log up to {last}",
                snapshot.index
            );
        }
        if let Some(reset) = reset {
            let of_snapshot = snapshot.map(|snapshot| (snapshot.index, snapshot.term));
            assert!(of_snapshot == Some(*reset), "a reset to {reset:?} with a snapshot at {of_snapshot:?}");
        }
        let numbers = places.iter().map(|file| file.number).chain(kept.iter().map(|file| file.number));
        let mut numbers: Vec<u64> = numbers.chain(snapshot.iter().map(|file| file.number)).collect();
        numbers.sort_unstable();
        let is_fresh = |number: &u64| *number < self.shared.files_end() && !self.manifest.names_file(*number);
        assert!(
            numbers.is_sorted_by(|one, next| one < next) && numbers.iter().all(is_fresh),
            "file numbers {numbers:?}"
        );
        for retired in retire {
            let is_there = match retired.file {
                FileId::Segment(segment) => {
                    let visible = self.shared.read();
                    segment != self.active.segment.number
                        && (visible.segments.contains_key(&segment)
                            || self.manifest.released.binary_search(&segment).is_ok())
                }
                FileId::Kept(number) => {
                    self.manifest.kept.iter().chain(kept).any(|file| file.number == number)
                }
            };
            assert!(is_there, "{:?} is retired and not there", retired.file);
        }
        let visible = self.shared.read();
        for file in places {
            let is_there = visible.segments.contains_key(&file.segment)
                || self.manifest.released.binary_search(&file.segment).is_ok();
            assert!(is_there, "places of segment {}, which is not there", file.segment);
        }
    }

    /// Makes the segment in which a log begins behind `start`. It names no predecessor: as long as the manifest does not
    /// begin with it, it is a leftover.
    fn begin_again(&mut self, start: (Index, Term)) -> Result<Active, AppendError> {
        let Some(hard_state) = self.hard_state() else { return Err(AppendError::HardStateLost) };
        let draft = Draft::default();
        let taken = self.spares.take(&*self.disk, Active::size_needed(&draft, 0));
        let spare = self.judge(taken, "make room for a segment")?;
        let batch = self.active.batch_next;
        let head = SegmentHead {
            number: self.segment_next,
            salt: self.salts.next(),
            predecessor: 0,
            predecessor_end: 0,
            predecessor_sealed: false,
            born_to: 0,
            first_batch: batch,
            previous_index: start.0,
            previous_term: start.1,
        };
        let context = FrameContext { batch, hard_state, identities: &[] };
        let files = &self.open_files;
        match give_birth(&*self.disk, &spare.name, &spare.file, head, &draft, &context, files) {
            Ok(segment) => {
                self.segment_next += 1;
                Ok(Active::born(segment, spare, &draft, 0, batch))
            }
            Err(BirthError::Unnamed(error)) => {
                self.spares.put_back(spare);
                self.judge(Err(error), "make a segment")
            }
            Err(BirthError::Named(error)) => Err(self.poison("sync the directory", error)),
        }
    }

    /// What the manifest will be, and what it will name no more.
    fn plan(&self, change: &Change, reborn: Option<u64>) -> Plan {
        let mut manifest = self.manifest.clone();
        manifest.next_file = self.shared.files_end();
        let (mut names, mut gone, mut released) = (Vec::new(), Vec::new(), Vec::new());
        for file in &change.places {
            match manifest.places.binary_search_by_key(&file.segment, |file| file.segment) {
                Ok(at) => {
                    let replaced = std::mem::replace(&mut manifest.places[at], *file);
                    names.push(numbered(PLACES, replaced.number));
                }
                Err(at) => manifest.places.insert(at, *file),
            }
        }
        manifest.kept.extend(&change.kept);
        manifest.retired.extend(&change.retire);
        manifest.is_incomplete |= change.incomplete || change.reset.is_some();
        manifest.is_incomplete &= !change.complete;
        if change.snapshot.is_some() {
            let lost = manifest.snapshots.extract_if(.., |file| self.unusable.contains(&file.number));
            names.extend(lost.map(|file| numbered(SNAPSHOT, file.number)));
        }
        manifest.snapshots.extend(change.snapshot);
        let snapshots = if change.reset.is_some() { 1 } else { SNAPSHOTS_MAX };
        let older = manifest.snapshots.len().saturating_sub(snapshots);
        names.extend(manifest.snapshots.drain(..older).map(|file| numbered(SNAPSHOT, file.number)));

        let covered = (manifest.snapshots.len() == SNAPSHOTS_MAX).then(|| manifest.snapshots[0].index);
        let retired = manifest.retired.clone();
        let may_go = |file: FileId| retired.iter().any(|one| one.file == file && Some(one.at) <= covered);

        let visible = self.shared.read();
        for segment in visible.segments.keys().copied() {
            let (first, last) = visible.log.span(segment);
            let is_left = match (reborn, covered) {
                (Some(_), _) => true,
                (None, Some(covered)) => last <= covered && segment != self.active.segment.number,
                (None, None) => false,
            };
            if !is_left {
                break;
            }
            let places = manifest.places_of(segment);
            if last < first || may_go(FileId::Segment(segment)) {
                gone.push(FileId::Segment(segment));
            } else if let Some(places) = places.filter(|file| file.to >= last || reborn.is_some()) {
                if places.messages == 0 {
                    gone.push(FileId::Segment(segment));
                } else {
                    released.push(segment);
                }
            } else if reborn.is_some() {
                gone.push(FileId::Segment(segment));
            } else {
                break;
            }
            let after = visible.segments.range(segment + 1..).next().map(|(number, _)| *number);
            manifest.first_segment = after.or(reborn).expect("the last one stays, or a new one follows");
        }
        drop(visible);
        if let Some(reborn) = reborn {
            manifest.first_segment = reborn;
        }
        gone.extend(
            manifest.released.iter().map(|segment| FileId::Segment(*segment)).filter(|file| may_go(*file)),
        );
        gone.extend(manifest.kept.iter().map(|file| FileId::Kept(file.number)).filter(|file| may_go(*file)));
        manifest.released.extend(&released);

        let is_gone = |file: FileId| gone.contains(&file);
        manifest.released.retain(|segment| !is_gone(FileId::Segment(*segment)));
        manifest.retired.retain(|one| !is_gone(one.file));
        let lost = manifest.places.extract_if(.., |file| is_gone(FileId::Segment(file.segment)));
        names.extend(lost.map(|file| numbered(PLACES, file.number)));
        let lost = manifest.kept.extract_if(.., |file| is_gone(FileId::Kept(file.number)));
        names.extend(lost.map(|file| numbered(KEPT, file.number)));
        Plan { manifest, released, gone, names }
    }

    fn write_manifest(&mut self, manifest: &Manifest) -> Result<(), AppendError> {
        let written = manifest.write_aside(&*self.disk);
        self.judge(written, "write MANIFEST")?;
        match disk::name_aside(&*self.disk, MANIFEST) {
            Ok(()) => Ok(()),
            Err(NameError::Rename(error)) => self.judge(Err(error), "write MANIFEST"),
            // Nobody knows which of the two is durable: whatever the error is, it ends the log.
            Err(NameError::Sync(error)) => Err(self.poison("sync the directory", error)),
        }
    }

    /// Memory follows what the disk says by now.
    fn follow(&mut self, plan: Plan, reset: Option<(Index, Term)>, reborn: Option<Active>) -> Switched {
        let Plan { manifest, released, gone, names } = plan;
        self.manifest = manifest;
        let mut visible = self.shared.write();
        match reset {
            Some(start) => visible.log = Log::new(start),
            None => visible.log.release_before(self.manifest.first_segment),
        }
        let left = visible.segments.split_off(&self.manifest.first_segment);
        let mut left = std::mem::replace(&mut visible.segments, left);
        if let Some(active) = reborn {
            visible.segments.insert(active.segment.number, Arc::clone(&active.segment));
            std::mem::replace(&mut self.active, active).segment.let_go();
        }
        for segment in &released {
            visible.released.extend(left.remove(segment).map(|file| (*segment, file)));
        }
        for file in &gone {
            if let FileId::Segment(segment) = file {
                // One that could not be opened is known by its name only.
                let known = left.remove(segment).or_else(|| visible.released.remove(segment));
                self.doomed.push_back(match known {
                    Some(known) => Doomed::Segment(known),
                    None => Doomed::File(segment_name(*segment)),
                });
            }
        }
        let start = visible.log.start();
        drop(visible);
        self.doomed.extend(names.into_iter().map(Doomed::File));
        Switched { start, released, gone, snapshots: self.usable_snapshots() }
    }
}
