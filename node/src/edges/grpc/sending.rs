//! Answers with many bytes, encoded by hand while they are sent; see [`crate::edges::sliced`].
//!
//! They are the bytes that the library would make, except that the body comes last in a message: fields may come in any
//! order.

use super::guard::Ticket;
use crate::api::{Answer, Deliveries, Delivery, deliveries_bytes};
use crate::edges::sliced::{Piece, SLICE_BYTES, Sliced};
use crate::wire::convert::write_delivery;
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use raftqueue_proto::v1;
use std::collections::VecDeque;
use std::sync::Arc;
use tonic::Status;

/// `deliveries`, field 1 of every response with messages: its tag.
const DELIVERIES_TAG: u8 = 1 << 3 | 2;
/// `body`, field 7 of a message: its tag.
const BODY_TAG: u8 = 7 << 3 | 2;
/// `deliveries`, field 15 of what a leader answers to a call that was passed on: its tag.
const FORWARDED_TAG: u8 = 15 << 3 | 2;

/// What surrounds the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The response to a client.
    Response,
    /// The reply to a peer.
    ForwardReply,
}

/// Has the messages of a long answer sent in slices. The rest of the answer goes the usual way. From here on the ticket
/// holds what is held for the answer.
pub(crate) fn send(ticket: Option<&Arc<Ticket>>, answer: Answer, form: Form) -> Answer {
    let (mut deliveries, ticket) = match (answer, ticket) {
        (Answer::Deliveries(deliveries), Some(ticket)) => (deliveries, ticket),
        (answer, _) => return answer,
    };
    if let Some(held) = deliveries.held.take() {
        ticket.leaving().take_over(&held);
    }
    if deliveries_bytes(&deliveries.messages) < SLICE_BYTES {
        return Answer::Deliveries(deliveries);
    }
    ticket.send_instead(sliced(deliveries.messages, form, ticket));
    Answer::Deliveries(Deliveries::default())
}

fn sliced(messages: Vec<Delivery>, form: Form, ticket: &Arc<Ticket>) -> Sliced {
    let messages: Vec<v1::Delivery> = messages.into_iter().map(write_delivery).collect();
    let length: usize = messages.iter().map(|message| field_length(message.encoded_len())).sum();
    let mut head = BytesMut::new();
    let whole = match form {
        Form::Response => length,
        Form::ForwardReply => field_length(length),
    };
    head.put_u8(0);
    head.put_u32(u32::try_from(whole).expect("answers are limited"));
    if form == Form::ForwardReply {
        put_field(FORWARDED_TAG, length, &mut head);
    }
    let head = VecDeque::from([Piece::Raw(head.freeze())]);
    let source = std::iter::once(head).chain(messages.into_iter().map(pieces));
    Sliced::new(source, Some(done()), Arc::clone(ticket.leaving()))
}

/// Trailers of an answer without a failure.
fn done() -> HeaderMap {
    HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])
}

fn pieces(mut message: v1::Delivery) -> VecDeque<Piece> {
    let mut head = BytesMut::new();
    put_field(DELIVERIES_TAG, message.encoded_len(), &mut head);
    let body = std::mem::take(&mut message.body);
    message.encode_raw(&mut head);
    if !body.is_empty() {
        put_field(BODY_TAG, body.len(), &mut head);
    }
    VecDeque::from([Piece::Raw(head.freeze()), Piece::Raw(body)])
}

/// Bytes of a field with so many bytes in it.
fn field_length(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Tag and length of a field.
fn put_field(tag: u8, length: usize, into: &mut BytesMut) {
    into.put_u8(tag);
    encode_varint(length as u64, into);
}
