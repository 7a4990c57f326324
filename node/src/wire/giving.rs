//! What a node gives to one that lacks it, to and from what peers say: snapshots in sections, and messages. Nothing that
//! comes is believed: what cannot be is refused with a text, and nothing that was said to be large is waited for.

use crate::replica::{Gift, Given};
use bytes::Bytes;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::snapshot_chunk::Chunk;
use raftqueue_raft::{Index, Term};
use raftqueue_wal::format::configuration;
use raftqueue_wal::{SECTION_BYTES_MAX, SnapshotHead};
use std::ops::Range;
use std::sync::Arc;

/// Messages of one reply at most, and ranges and offsets that one request is answered for.
pub(crate) const GIVEN_MAX: usize = 4_096;
/// Bytes of their records at most, unless it is one message.
pub(crate) const GIVEN_BYTES_MAX: usize = 1 << 20;
/// Greatest chunk of a snapshot that is decoded: a section, or a head, and what surrounds them.
pub(crate) const CHUNK_BYTES_MAX: usize = SECTION_BYTES_MAX + 1_024;
/// Greatest snapshot that is taken. Its state must fit into memory, and takes more there.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 30;
/// Greatest configuration that is taken: a cluster has few members, and a head must fit into a section.
const CONFIGURATION_BYTES_MAX: usize = 256 << 10;
/// What each section takes in its file beside its content.
const SECTION_OVERHEAD: u64 = 9;

/// The head of a snapshot as it travels.
pub(crate) fn write_head(head: &SnapshotHead, giver_term: Term, size: u64) -> pb::SnapshotChunk {
    let SnapshotHead { index, term, configuration_index, configuration, stamp_ms, term_runs } = head;
    chunk(Chunk::Head(pb::SnapshotHead {
        index: index.0,
        term: term.0,
        configuration_index: configuration_index.0,
        configuration: configuration::encode(configuration).into(),
        stamp_ms: *stamp_ms,
        giver_term: giver_term.0,
        size,
        term_runs: term_runs.iter().map(write_term_run).collect(),
    }))
}

fn write_term_run((first, term): &(Index, Term)) -> pb::TermRun {
    pb::TermRun { first: first.0, term: term.0 }
}

/// A section of a snapshot as it travels.
pub(crate) fn write_section(content: Bytes) -> pb::SnapshotChunk {
    let crc = crc32c::crc32c(&content);
    chunk(Chunk::Section(pb::SnapshotSection { content, crc }))
}

/// The end of a snapshot of so many sections and bytes.
pub(crate) fn write_end(sections: u64, bytes: u64) -> pb::SnapshotChunk {
    chunk(Chunk::End(pb::SnapshotEnd { sections, bytes }))
}

fn chunk(chunk: Chunk) -> pb::SnapshotChunk {
    pb::SnapshotChunk { chunk: Some(chunk) }
}

/// A snapshot that comes chunk by chunk, behind its head.
#[derive(Debug)]
pub(crate) struct Sections {
    size: u64,
    sections: u64,
    bytes: u64,
}

impl Sections {
    /// Reads the first chunk: the head, and the giver's term.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn begin(chunk: pb::SnapshotChunk) -> Result<(SnapshotHead, Term, Self), String> {
        let Some(Chunk::Head(head)) = chunk.chunk else {
            return Err("its snapshot does not begin with a head".into());
        };
        let (index, term, giver_term) = (Index(head.index), Term(head.term), Term(head.giver_term));
        let configuration_index = Index(head.configuration_index);
        if index == Index(0) || term == Term(0) || configuration_index > index {
            return Err(format!(
                "its snapshot cannot be: index {index}, term {term}, configuration {configuration_index}"
            ));
        }
        if term > giver_term {
            return Err(format!("its snapshot is of term {term}, and it is in term {giver_term} itself"));
        }
        if head.size > SNAPSHOT_BYTES_MAX {
            return Err(format!("its snapshot has {} bytes, {SNAPSHOT_BYTES_MAX} is the most", head.size));
        }
        if head.configuration.len() > CONFIGURATION_BYTES_MAX {
            return Err(format!("its configuration has {} bytes", head.configuration.len()));
        }
        let configuration = configuration::decode(&head.configuration)
            .map_err(|error| format!("its configuration cannot be read: {error}"))?;
        let configuration = Arc::new(configuration);
        let term_runs = head.term_runs.iter().map(|run| (Index(run.first), Term(run.term))).collect();
        let stamp_ms = head.stamp_ms;
        let read = SnapshotHead { index, term, configuration_index, configuration, stamp_ms, term_runs };
        if read.check_term_runs().is_err() {
            return Err(format!(
                "its snapshot cannot be: its {} terms do not lead to {term}",
                head.term_runs.len()
            ));
        }
        Ok((read, giver_term, Self { size: head.size, sections: 0, bytes: 0 }))
    }

    /// Reads a further chunk: a section, or `None` for the end, with which nothing is missing.
    ///
    /// # Errors
    /// What is wrong with it; the snapshot is of no use then.
    pub(crate) fn take(&mut self, chunk: pb::SnapshotChunk) -> Result<Option<Bytes>, String> {
        match chunk.chunk {
            Some(Chunk::Section(pb::SnapshotSection { content, crc })) => {
                if content.len() > SECTION_BYTES_MAX {
                    return Err(format!(
                        "a section has {} bytes, {SECTION_BYTES_MAX} is the most",
                        content.len()
                    ));
                }
                self.sections += 1;
                self.bytes += content.len() as u64;
                if self.bytes + SECTION_OVERHEAD * self.sections > self.size {
                    return Err(format!("its snapshot is to have {} bytes, and more has come", self.size));
                }
                if crc32c::crc32c(&content) != crc {
                    return Err(format!("section {} came damaged", self.sections));
                }
                Ok(Some(content))
            }
            Some(Chunk::End(pb::SnapshotEnd { sections, bytes })) => {
                let came = (self.sections, self.bytes);
                if (sections, bytes) != came {
                    let (came_sections, came_bytes) = came;
                    return Err(format!(
                        "{came_sections} sections with {came_bytes} bytes came of {sections} with {bytes}"
                    ));
                }
                Ok(None)
            }
            Some(Chunk::Head(_)) => Err("a second head came".into()),
            None => Err("a chunk came that says nothing this version knows".into()),
        }
    }
}

/// Ranges of offsets as they travel: as many as one request may have.
pub(crate) fn write_wanted(wanted: &[Range<u64>]) -> Vec<pb::OffsetRange> {
    let some = wanted.iter().take(GIVEN_MAX);
    some.map(|range| pb::OffsetRange { first: range.start, end: range.end }).collect()
}

/// Ranges of offsets that are asked for, of which only the first [`GIVEN_MAX`] offsets are answered: so an answer costs what
/// it may cost, whatever is asked.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read_wanted(wanted: &[pb::OffsetRange]) -> Result<Vec<Range<u64>>, String> {
    if wanted.is_empty() || wanted.len() > GIVEN_MAX {
        return Err(format!(
            "{} ranges of offsets: between 1 and {GIVEN_MAX} can be asked for",
            wanted.len()
        ));
    }
    let mut read: Vec<Range<u64>> = Vec::new();
    let (mut room, mut from) = (GIVEN_MAX as u64, 0);
    for &pb::OffsetRange { first, end } in wanted {
        if first >= end || first < from {
            return Err(format!("offsets {first}..{end} behind {from}: ranges must rise and not be empty"));
        }
        from = end;
        if room > 0 {
            let count = room.min(end - first);
            read.push(first..first + count);
            room -= count;
        }
    }
    Ok(read)
}

/// Messages as they travel.
pub(crate) fn write_gift(gift: Gift) -> pb::MessagesReply {
    let Gift { messages, through, gone_at, unreadable } = gift;
    let write = |given| {
        let Given { offset, published_ms, deadline_ms, crc, record } = given;
        pb::GivenMessage { offset, published_ms, deadline_ms, crc, record }
    };
    let messages = messages.into_iter().map(write).collect();
    pb::MessagesReply { messages, through, gone_at: gone_at.map(|index| index.0), unreadable }
}

/// Messages that came for these ranges, which rise.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read_gift(reply: pb::MessagesReply, wanted: &[Range<u64>]) -> Result<Gift, String> {
    let pb::MessagesReply { messages, through, gone_at, unreadable } = reply;
    let (first, end) =
        wanted.first().zip(wanted.last()).map_or((0, 0), |(first, last)| (first.start, last.end));
    if through <= first || through > end {
        return Err(format!("it answered up to offset {through}, and {first}..{end} was asked for"));
    }
    let bytes: usize = messages.iter().map(|message| message.record.len()).sum();
    if messages.len() > GIVEN_MAX || messages.len() > 1 && bytes > GIVEN_BYTES_MAX {
        return Err(format!("it gave {} messages with {bytes} bytes at once", messages.len()));
    }
    let mut ranges = wanted.iter().peekable();
    let mut from = first;
    for message in &messages {
        let offset = message.offset;
        while ranges.peek().is_some_and(|range| range.end <= offset) {
            ranges.next();
        }
        let is_wanted = ranges.peek().is_some_and(|range| range.start <= offset);
        if !is_wanted || offset < from || offset >= through {
            return Err(format!("it gave message {offset}, which is not next of what was asked for"));
        }
        if crc32c::crc32c(&message.record) != message.crc {
            return Err(format!("message {offset} came damaged"));
        }
        from = offset + 1;
    }
    let answered: u64 = wanted.iter().map(|range| range.end.min(through).saturating_sub(range.start)).sum();
    if unreadable > answered - messages.len() as u64 {
        return Err(format!("it cannot read {unreadable} messages, and {answered} offsets were answered"));
    }
    let read = |message| {
        let pb::GivenMessage { offset, published_ms, deadline_ms, crc, record } = message;
        Given { offset, published_ms, deadline_ms, crc, record }
    };
    let messages = messages.into_iter().map(read).collect();
    Ok(Gift { messages, through, gone_at: gone_at.map(Index), unreadable })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]

    use super::*;
    use proptest::prelude::*;
    use prost::Message;
    use raftqueue_raft::{Configuration, Member, MemberKind, NodeId};

    fn head() -> SnapshotHead {
        let member = Member { name: "a".into(), address: String::new(), kind: MemberKind::Voter };
        let members = [(NodeId(7), member)].into();
        let configuration = Arc::new(Configuration { version: 1, members, ..Configuration::default() });
        SnapshotHead {
            index: Index(9),
            term: Term(4),
            configuration_index: Index(1),
            configuration,
            stamp_ms: 5,
            term_runs: vec![(Index(1), Term(1)), (Index(8), Term(4))],
        }
    }

    fn begun(size: u64) -> Sections {
        Sections::begin(write_head(&head(), Term(6), size)).expect("a good head").2
    }

    #[test]
    fn a_snapshot_comes_as_it_was_sent() {
        let (read, giver_term, mut sections) =
            Sections::begin(write_head(&head(), Term(6), 100)).expect("a good head");
        assert_eq!((read, giver_term), (head(), Term(6)));
        for content in [&b"first"[..], b"second"] {
            assert_eq!(sections.take(write_section(content.into())), Ok(Some(content.into())));
        }
        assert_eq!(sections.take(write_end(2, 11)), Ok(None));
    }

    #[test]
    fn a_head_that_cannot_be_is_refused() {
        let good = |change: fn(&mut pb::SnapshotHead)| {
            let Some(Chunk::Head(mut head)) = write_head(&head(), Term(6), 100).chunk else { unreachable!() };
            change(&mut head);
            Sections::begin(chunk(Chunk::Head(head))).map(drop)
        };
        assert_eq!(good(|_| ()), Ok(()));
        for (change, why) in [
            ((|head| head.index = 0) as fn(&mut pb::SnapshotHead), "cannot be"),
            (|head| head.term = 0, "cannot be"),
            (|head| head.configuration_index = 10, "cannot be"),
            (|head| head.giver_term = 3, "itself"),
            (|head| head.term_runs.clear(), "do not lead to"),
            (|head| head.term_runs[1].term = 3, "do not lead to"),
            (|head| head.term_runs[1].first = 10, "do not lead to"),
            (|head| head.term_runs[1].first = 1, "do not lead to"),
            (|head| head.term_runs[0].first = 0, "do not lead to"),
            (|head| head.term_runs[0].term = 4, "do not lead to"),
            (
                |head| head.term_runs = (1..=300).map(|at| pb::TermRun { first: at, term: at }).collect(),
                "lead to",
            ),
            (|head| head.size = u64::MAX, "is the most"),
            (|head| head.configuration = Bytes::from_static(b"none"), "cannot be read"),
            (|head| head.configuration = vec![1; CONFIGURATION_BYTES_MAX + 1].into(), "bytes"),
        ] {
            let error = good(change).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        for other in [write_section(Bytes::new()), write_end(0, 0), pb::SnapshotChunk { chunk: None }] {
            assert!(Sections::begin(other).expect_err("no head").contains("does not begin with a head"));
        }
    }

    #[test]
    fn sections_that_cannot_be_are_refused() {
        let damaged = chunk(Chunk::Section(pb::SnapshotSection { content: "x".into(), crc: 1 }));
        let large = write_section(vec![0; SECTION_BYTES_MAX + 1].into());
        for (bad, why) in [
            (damaged, "damaged"),
            (large, "is the most"),
            (write_section(vec![0; 492].into()), "more has come"),
            (write_head(&head(), Term(6), 500), "second head"),
            (write_end(1, 0), "came of"),
            (write_end(0, 1), "came of"),
            (pb::SnapshotChunk { chunk: None }, "nothing this version knows"),
        ] {
            let error = begun(500).take(bad).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        // Sections without content do not go on for ever either.
        let mut sections = begun(500);
        let empty = std::iter::repeat_with(|| sections.take(write_section(Bytes::new())));
        assert_eq!(empty.take_while(Result::is_ok).count(), 500 / 9);
    }

    #[test]
    fn only_ranges_that_rise_can_be_asked_for() {
        let ranges = |ranges: &[(u64, u64)]| -> Vec<_> {
            ranges.iter().map(|&(first, end)| pb::OffsetRange { first, end }).collect()
        };
        let read = |asked: &[(u64, u64)]| read_wanted(&ranges(asked));
        assert_eq!(read(&[(3, 5), (5, 6), (9, 10)]), Ok(vec![3..5, 5..6, 9..10]));
        assert_eq!(read(&[(u64::MAX - 1, u64::MAX)]), Ok(vec![u64::MAX - 1..u64::MAX]));
        assert_eq!(
            read(&[(0, 4_000), (5_000, u64::MAX)]),
            Ok(vec![0..4_000, 5_000..5_096]),
            "an answer is bounded"
        );
        assert_eq!(read(&[(0, u64::MAX - 1), (u64::MAX - 1, u64::MAX)]), Ok(vec![0..4_096]));
        for bad in
            [&[][..], &[(3, 3)], &[(5, 3)], &[(3, 5), (4, 6)], &[(5, 6), (1, 2)], &[(0, u64::MAX), (3, 4)]]
        {
            read(bad).expect_err("they do not rise");
        }
        let many: Vec<_> = (0..5_000).map(|n| n * 2..n * 2 + 1).collect();
        assert_eq!(write_wanted(&many).len(), GIVEN_MAX);
        read_wanted(&vec![pb::OffsetRange::default(); GIVEN_MAX + 1]).expect_err("too many");
    }

    fn message(offset: u64, record: Bytes) -> pb::GivenMessage {
        let crc = crc32c::crc32c(&record);
        pb::GivenMessage { offset, published_ms: 1, deadline_ms: Some(2), crc, record }
    }

    fn reply(messages: Vec<pb::GivenMessage>, through: u64) -> pb::MessagesReply {
        pb::MessagesReply { messages, through, gone_at: Some(8), unreadable: 1 }
    }

    #[test]
    fn messages_come_as_they_were_sent() {
        let sent = reply(vec![message(10, "a".into()), message(21, "b".into())], 22);
        let gift = read_gift(sent.clone(), &[10..12, 20..30]).expect("a good reply");
        assert_eq!(write_gift(gift), sent);
        let nothing = pb::MessagesReply { through: 30, unreadable: 12, ..pb::MessagesReply::default() };
        let gift = read_gift(nothing, &[10..12, 20..30]).expect("nothing can be read there");
        assert_eq!((gift.gone_at, gift.unreadable), (None, 12));
        let large = reply(vec![message(10, vec![0; 2 * GIVEN_BYTES_MAX].into())], 12);
        read_gift(large, &[10..12]).expect("one that is larger");
    }

    #[test]
    fn messages_that_cannot_be_are_refused() {
        let of = |offsets: &[u64]| offsets.iter().map(|&offset| message(offset, "m".into())).collect();
        let damaged = pb::GivenMessage { crc: 1, ..message(10, "m".into()) };
        let large: Bytes = vec![0; GIVEN_BYTES_MAX / 2 + 1].into();
        for (bad, why) in [
            (reply(of(&[]), 10), "was asked for"),
            (reply(of(&[]), 0), "was asked for"),
            (reply(of(&[]), 31), "was asked for"),
            (reply(of(&[9]), 30), "not next"),
            (reply(of(&[12]), 30), "not next"),
            (reply(of(&[30]), 30), "not next"),
            (reply(of(&[u64::MAX]), 30), "not next"),
            (reply(of(&[11, 10]), 30), "not next"),
            (reply(of(&[10, 10]), 30), "not next"),
            (reply(of(&[21, 10]), 30), "not next"),
            (reply(of(&[21]), 21), "not next"),
            (reply(vec![damaged], 30), "damaged"),
            (reply(vec![message(10, large.clone()), message(11, large)], 30), "at once"),
            (reply(vec![pb::GivenMessage::default(); GIVEN_MAX + 1], 30), "at once"),
            (pb::MessagesReply { unreadable: 12, ..reply(of(&[10]), 30) }, "cannot read"),
            (pb::MessagesReply { unreadable: u64::MAX, ..reply(of(&[10]), 30) }, "cannot read"),
        ] {
            let error = read_gift(bad, &[10..12, 20..30]).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        read_gift(reply(of(&[]), 1), &[]).expect_err("nothing was asked for");
    }

    proptest! {
        #[test]
        fn bytes_from_a_peer_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), size in any::<u64>()) {
            if let Ok(chunk) = pb::SnapshotChunk::decode(&bytes[..]) {
                let _ = Sections::begin(chunk.clone());
                let _ = Sections { size, sections: 0, bytes: 0 }.take(chunk);
            }
            if let Ok(request) = pb::MessagesRequest::decode(&bytes[..]) {
                let _ = read_wanted(&request.wanted);
            }
            if let Ok(reply) = pb::MessagesReply::decode(&bytes[..]) {
                let _ = read_gift(reply, &[3..200, 300..u64::MAX]);
            }
        }

        #[test]
        fn numbers_from_a_peer_never_panic(
            offsets in prop::collection::vec(any::<u64>(), 0..4), through in any::<u64>(), unreadable in any::<u64>(),
            ranges in prop::collection::vec((any::<u64>(), any::<u64>()), 0..4),
        ) {
            let messages = offsets.into_iter().map(|offset| message(offset, Bytes::new())).collect();
            let _ = read_gift(pb::MessagesReply { unreadable, ..reply(messages, through) }, &[3..9, 10..u64::MAX]);
            let wanted: Vec<_> = ranges.into_iter().map(|(first, end)| pb::OffsetRange { first, end }).collect();
            let _ = read_wanted(&wanted);
        }
    }
}
