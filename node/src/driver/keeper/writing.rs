//! Writing the files of a snapshot: where messages stand, segment by segment, and the snapshot itself.

use super::{Job, KeepError, Keeper, Pace, failed, run_of};
use crate::api::codec;
use crate::replica::Freeze;
use bytes::BytesMut;
use raftqueue_queue::TopicId;
use raftqueue_wal::disk::Disk;
use raftqueue_wal::{
    Block, Change, Keep, Merge, MergeError, Places, PlacesFile, PlacesKind, PlacesWriter, ReadError,
    SnapshotFile, SnapshotHead, SnapshotWriter, Spot, Written,
};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Rounds in which a page cannot be read before it is given up. Reading may fail for once, and what is given up is lost here.
const ROTTEN_ROUNDS: u8 = 3;

impl Keeper {
    /// Writes the places files and the snapshot of a job: what a manifest has to name next.
    ///
    /// # Errors
    /// [`KeepError`]: nothing changed.
    pub fn take_snapshot(&mut self, job: &Job, pace: &mut Pace<'_>) -> Result<Change, KeepError> {
        let mut change = Change::default();
        let written = self.write_places(job, &mut change.places, pace);
        match written.and_then(|()| self.write_snapshot(&job.freeze, pace)) {
            Ok(snapshot) => {
                // A start after this finds no file that is damaged.
                let incomplete = self.lacks_messages();
                Ok(Change { snapshot: Some(snapshot), incomplete, ..change })
            }
            Err(error) => {
                self.give_up(&change);
                Err(error)
            }
        }
    }

    /// Writes where messages stand for each segment that has entries of which no file tells yet.
    fn write_places(
        &mut self,
        job: &Job,
        written: &mut Vec<PlacesFile>,
        pace: &mut Pace<'_>,
    ) -> Result<(), KeepError> {
        let mut by_segment = self.sort_blocks(job);
        for segment in self.reader.segments() {
            let Some(span) = self.reader.segment_span(segment) else { continue };
            let to = span.last.min(job.freeze.index);
            let before = self.places.get(&segment);
            let is_written = before.is_some_and(|before| before.to >= to) || self.retired.contains(&segment);
            if span.first > job.freeze.index || is_written {
                continue;
            }
            let blocks = by_segment.remove(&segment).unwrap_or_default();
            let sources: Vec<_> = before.map(|before| Arc::clone(&before.places)).into_iter().collect();
            let file = match self.write_places_of(segment, &sources, blocks, job, pace) {
                Err(KeepError::Read { operation, source: ReadError::Rot(rotten) }) => {
                    let rounds = self.doubted.entry(segment).or_default();
                    *rounds += 1;
                    if *rounds < ROTTEN_ROUNDS {
                        return Err(KeepError::Read { operation, source: ReadError::Rot(rotten) });
                    }
                    let mut blocks = self.sort_blocks(job).remove(&segment).unwrap_or_default();
                    for block in sources.iter().flat_map(|file| file.all_blocks()) {
                        match block {
                            Ok(block) => blocks.push(block),
                            Err(ReadError::Rot(rotten)) => {
                                tracing::error!("messages cannot be found any more: {rotten}");
                                self.lacks_what_stands_in(segment);
                            }
                            // That says nothing about what stands there.
                            Err(source) => return Err(KeepError::Read { operation, source }),
                        }
                    }
                    blocks.sort_unstable_by_key(place);
                    self.write_places_of(segment, &[], blocks, job, pace)?
                }
                written => written?,
            };
            self.doubted.remove(&segment);
            written.push(PlacesFile { to, ..file });
        }
        Ok(())
    }

    /// Writes one places file: of what lives of an earlier one, and of blocks.
    fn write_places_of(
        &self,
        segment: u64,
        sources: &[Arc<Places>],
        blocks: Vec<Block>,
        job: &Job,
        pace: &mut Pace<'_>,
    ) -> Result<PlacesFile, KeepError> {
        let number = self.reader.next_file();
        let disk = self.reader.disk();
        let writer = PlacesWriter::create(&*disk, number, PlacesKind::Segment(segment))
            .map_err(failed("make a places file"))?;
        let mut messages = 0;
        let mut keep = |block: &Block| {
            let live = job.freeze.state.live_count(TopicId(block.topic), run_of(block));
            messages += if live > 0 { u64::from(block.count) } else { 0 };
            if live > 0 { Keep::Yes } else { Keep::No }
        };
        let merge = Merge::new(sources, blocks, writer);
        let Written { number, size, crc } = merged(merge, &*disk, &mut keep, pace)?;
        Ok(PlacesFile { number, size, crc, segment, to: job.freeze.index, messages })
    }

    /// The living blocks of a job by the segments that they stand in, each in order.
    fn sort_blocks(&self, job: &Job) -> BTreeMap<u64, Vec<Block>> {
        let mut by_segment: BTreeMap<u64, Vec<Block>> = BTreeMap::new();
        for blocks in &job.blocks {
            for (&(topic, first_offset), fresh) in &**blocks {
                let run = first_offset..first_offset + u64::from(fresh.count);
                if job.freeze.state.live_count(topic, run) == 0 {
                    continue;
                }
                let Some((segment, offset)) = self.reader.location(fresh.index) else { continue };
                by_segment.entry(segment).or_default().push(Block {
                    topic: topic.0,
                    first_offset,
                    count: fresh.count,
                    spot: Spot::Entry { offset, command: fresh.command },
                    published_ms: fresh.published_ms,
                    deadline_ms: fresh.deadline_ms,
                    bytes: fresh.bytes,
                });
            }
        }
        if job.blocks.len() > 1 {
            by_segment.values_mut().for_each(|blocks| blocks.sort_unstable_by_key(place));
        }
        by_segment
    }

    fn write_snapshot(&self, freeze: &Freeze, pace: &mut Pace<'_>) -> Result<SnapshotFile, KeepError> {
        let head = SnapshotHead {
            index: freeze.index,
            term: freeze.term,
            configuration_index: freeze.configuration_index,
            configuration: Arc::clone(&freeze.configuration),
            stamp_ms: freeze.state.now_ms(),
            term_runs: freeze.term_runs.clone(),
        };
        let disk = self.reader.disk();
        let mut writer = SnapshotWriter::create(&*disk, self.reader.next_file(), &head)
            .map_err(failed("make a snapshot"))?;
        let mut bytes = BytesMut::new();
        for section in freeze.state.sections() {
            bytes.clear();
            codec::write_section(&mut bytes, freeze.configuration.version, &section);
            let written = writer.section(&bytes).map_err(failed("write a snapshot"));
            if let Err(error) = written.and_then(|()| pace(bytes.len() as u64)) {
                writer.abandon(&*disk);
                return Err(error);
            }
        }
        writer.finish(&*disk).map_err(failed("finish a snapshot"))
    }
}

fn place(block: &Block) -> (u64, u64) {
    (block.topic, block.first_offset)
}

/// Carries a merge through.
fn merged(
    mut merge: Merge,
    disk: &dyn Disk,
    keep: &mut dyn FnMut(&Block) -> Keep,
    pace: &mut Pace<'_>,
) -> Result<Written, KeepError> {
    loop {
        let step = merge.step(keep).map_err(merging);
        match step.and_then(|step| pace(step.bytes).map(|()| step.is_done)) {
            Ok(true) => return merge.finish(disk).map(|merged| merged.written).map_err(merging),
            Ok(false) => {}
            Err(error) => {
                // A leftover that cannot be removed now goes at the next start.
                let _ = merge.abandon(disk);
                return Err(error);
            }
        }
    }
}

fn merging(error: MergeError) -> KeepError {
    match error {
        MergeError::Write(source) => KeepError::Io { operation: "write a places file", source },
        MergeError::Read(source) => KeepError::Read { operation: "read a places file", source },
        error => {
            KeepError::Io { operation: "join places files", source: io::Error::other(error.to_string()) }
        }
    }
}
