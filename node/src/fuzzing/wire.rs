//! What peers and clients say, as protobuf, and the ids in it.

use super::part;
use crate::api::Answer;
use crate::api::limits::Limits;
use crate::traces::Parent;
use crate::wire::forward::{Expected, read_call, write_call, write_reply};
use crate::wire::giving::{Sections, read_gift, read_wanted, write_gift, write_head, write_wanted};
use crate::wire::ids;
use crate::wire::messages::{read_entry, read_envelope, write_entry, write_envelope};
use prost::Message;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::peer_frame::Frame;
use raftqueue_proto::peer::v1::snapshot_chunk::Chunk;
use raftqueue_proto::text;

/// A frame of a peer's stream, and a record that a peer gives to mend one.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn peer_messages(data: &[u8]) {
    if let Ok(pb::PeerFrame { frame: Some(Frame::Envelope(envelope)) }) = pb::PeerFrame::decode(data)
        && let Some((envelope, vitals)) = read_envelope(envelope)
    {
        let written = write_envelope(envelope.clone(), vitals.unwrap_or_default());
        let (read, _) = read_envelope(written).expect("what is written can be read");
        assert_eq!(read, envelope, "it comes back");
    }
    if let Ok(pb::RepairReply { entry: Some(entry), .. }) = pb::RepairReply::decode(data)
        && let Some(entry) = read_entry(entry)
    {
        assert_eq!(read_entry(write_entry(entry.clone())), Some(entry), "it comes back");
    }
}

/// A call of a client, as a client or a peer sends it.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn calls(data: &[u8]) {
    let Ok(call) = pb::ForwardRequest::decode(data) else { return };
    let Ok(request) = read_call(call.call) else { return };
    // A node judges a call before it passes it on.
    if Limits::default().check(&request).is_ok() {
        assert_eq!(read_call(Some(write_call(request.clone()))).as_ref(), Ok(&request), "it comes back");
    }
}

/// A call, and what a peer answers to it.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn replies(mut data: &[u8]) {
    let Some(Ok(call)) = part(&mut data).map(pb::ForwardRequest::decode) else { return };
    let (Ok(request), Ok(reply)) = (read_call(call.call), pb::ForwardReply::decode(data)) else { return };
    let expected = Expected::of(&request);
    let answer = expected.read_reply(reply.reply);
    let again = match &answer {
        // What was damaged on its way is left out, so here nothing is.
        Ok(Answer::Deliveries(deliveries)) => Ok(Answer::Deliveries(deliveries.messages.clone().into())),
        other => other.clone(),
    };
    let read = expected.read_reply(Some(write_reply(again)));
    match (read, answer) {
        (Ok(read), Ok(answer)) => assert_eq!(read, answer, "it comes back"),
        (read, answer) => assert_eq!(read.is_ok(), answer.is_ok(), "a failure stays one"),
    }
}

/// What a node gives to one that lacks it: the first byte says whether chunks of a snapshot come, or messages.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn given(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind % 2 == 0 { snapshot(rest) } else { messages(rest) }
}

fn snapshot(mut rest: &[u8]) {
    let mut next = || part(&mut rest).and_then(|part| pb::SnapshotChunk::decode(part).ok());
    let Some(first) = next() else { return };
    let size = match &first.chunk {
        Some(Chunk::Head(head)) => head.size,
        _ => 0,
    };
    let Ok((head, term, mut sections)) = Sections::begin(first) else { return };
    let (read, read_term, _) =
        Sections::begin(write_head(&head, term, size)).expect("it is written as it was");
    assert_eq!((read, read_term), (head, term), "it comes back");
    let mut came = 0;
    while let Some(mut chunk) = next() {
        if let Some(Chunk::Section(section)) = &mut chunk.chunk {
            section.crc = crc32c::crc32c(&section.content);
        }
        match sections.take(chunk) {
            Ok(Some(content)) => came += content.len() as u64,
            Ok(None) | Err(_) => break,
        }
        assert!(came <= size, "no more is taken than was announced");
    }
}

fn messages(mut rest: &[u8]) {
    let Some(Ok(request)) = part(&mut rest).map(pb::MessagesRequest::decode) else { return };
    let Ok(wanted) = read_wanted(&request.wanted) else { return };
    let offsets: u64 = wanted.iter().map(|range| range.end - range.start).sum();
    assert!(offsets <= 4_096, "an answer costs what it may cost");
    assert_eq!(read_wanted(&write_wanted(&wanted)).as_ref(), Ok(&wanted), "it comes back");
    let Ok(mut reply) = pb::MessagesReply::decode(rest) else { return };
    for message in &mut reply.messages {
        message.crc = crc32c::crc32c(&message.record);
    }
    let Ok(gift) = read_gift(reply.clone(), &wanted) else { return };
    assert_eq!(write_gift(gift), reply, "it comes back");
}

/// Ids in bytes and in digits, and the header that names a caller's span.
///
/// # Panics
/// Where a decoder breaks its promise.
pub fn ids(data: &[u8]) {
    if let Ok(id) = ids::decode_message_id(data) {
        assert_eq!(ids::encode_message_id(id), data, "an id has one spelling");
    }
    if let Ok(lease) = ids::decode_lease(data) {
        assert_eq!(ids::encode_lease(lease), data, "an id has one spelling");
    }
    if let Ok(session) = ids::decode_session(data) {
        assert_eq!(ids::encode_session(session), data, "an id has one spelling");
    }
    if let Some(parent) = Parent::read(data) {
        assert_eq!(Parent::read(parent.to_string().as_bytes()), Some(parent), "it comes back");
    }
    let Ok(digits) = std::str::from_utf8(data) else { return };
    if let Some(bytes) = text::unhex(digits) {
        assert_eq!(text::hex(&bytes), digits.to_ascii_lowercase(), "it comes back");
    }
    if let Some(bytes) = text::unbase64(digits) {
        assert_eq!(text::base64(&bytes), digits, "bytes have one spelling");
    }
}
