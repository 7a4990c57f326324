//! Sections of the queue's state as bytes: what stands in the sections of a snapshot.
//!
//! ```text
//! section  u8 kind | fields in the order of the struct, as in commands | lists with their count in front
//! offsets  of a list: how far behind the one before, as a varint of the difference modulo 2^64
//! run      offset behind the end of the run before | length
//! ```
//!
//! Bytes have no CRC of their own: the container has one for each section. Whether sections make a state, and one that
//! keeps its rules, is for the queue's [`StateBuilder`](raftqueue_queue::StateBuilder) to say.

use super::parts::{Reader, put_bytes, put_list, put_number, put_option, put_session, put_settings};
use super::{Unreadable, VERSION_MIN, version_max};
use bytes::{BufMut, BytesMut};
use raftqueue_queue::{
    DeadReason, DeadRun, DelayedMessage, Delivery, Generation, Head, KeptReply, LeasedMessage, PairSection,
    PopSection, RetriedMessage, Section, SessionHead, SubscriptionHead, Token, TopicHead,
};

mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const TOPIC: u8 = 2;
    pub(super) const GENERATIONS: u8 = 3;
    pub(super) const SUBSCRIPTION: u8 = 4;
    pub(super) const READY: u8 = 5;
    pub(super) const RETRIED: u8 = 6;
    pub(super) const WAIVED: u8 = 7;
    pub(super) const LEASED: u8 = 8;
    pub(super) const DELAYED: u8 = 9;
    pub(super) const DEAD: u8 = 10;
    pub(super) const SESSION: u8 = 11;
    pub(super) const PAIR: u8 = 12;
    pub(super) const POPS: u8 = 13;
    pub(super) const REDRIVEN: u8 = 14;
}

const DEADLINE: u8 = 1;
const WAIVED: u8 = 2;

/// Appends a section in the form of the active version.
///
/// # Panics
/// For a version that this binary does not know: it would not run under it.
pub fn write_section(out: &mut BytesMut, version: u32, section: &Section) {
    assert!((VERSION_MIN..=version_max()).contains(&version), "version {version} is not known");
    match section {
        Section::Head(head) => {
            out.put_u8(kind::HEAD);
            put_number(out, head.now_ms);
            put_number(out, u64::from(head.generation.0));
            put_number(out, head.last_id);
            put_number(out, head.last_token.0);
            put_number(out, head.topics);
            put_number(out, head.sessions);
            put_number(out, head.pops);
            put_number(out, head.pops_kept);
            put_number(out, head.pops_forgotten);
        }
        Section::Topic(head) => {
            out.put_u8(kind::TOPIC);
            put_number(out, head.id.0);
            put_bytes(out, head.name.as_bytes());
            put_settings(out, &head.settings);
            put_option(out, head.request_id, BytesMut::put_u128_le);
            put_number(out, head.created_ms);
            put_number(out, head.next_offset);
            put_number(out, head.generations);
            put_number(out, head.subscriptions);
        }
        Section::Generations(some) => {
            out.put_u8(kind::GENERATIONS);
            put_list(out, some, |out, (generation, first)| {
                put_number(out, u64::from(generation.0));
                put_number(out, *first);
            });
        }
        Section::Subscription(head) => {
            out.put_u8(kind::SUBSCRIPTION);
            put_number(out, u64::from(head.id.0));
            put_number(out, head.bytes);
            put_number(out, head.dead_bytes);
            put_number(out, head.ready);
            put_number(out, head.retried);
            put_number(out, head.waived);
            put_number(out, head.leased);
            put_number(out, head.delayed);
            put_number(out, head.dead);
            put_number(out, head.redriven);
        }
        Section::Ready(runs) => put_runs(out, kind::READY, runs),
        Section::Waived(runs) => put_runs(out, kind::WAIVED, runs),
        Section::Retried(some) => {
            out.put_u8(kind::RETRIED);
            put_rising(
                out,
                some,
                |message| (message.offset, message.offset),
                |out, message| {
                    put_number(out, u64::from(message.size));
                    put_number(out, u64::from(message.attempts));
                    put_option(out, message.late_ack, |out, token| put_number(out, token.0));
                },
            );
        }
        Section::Leased(some) => {
            out.put_u8(kind::LEASED);
            put_rising(
                out,
                some,
                |message| (message.offset, message.offset),
                |out, message| {
                    put_number(out, u64::from(message.size));
                    put_number(out, u64::from(message.attempts));
                    put_number(out, message.token.0);
                    put_number(out, message.granted_ms);
                    put_number(out, message.expires_ms.wrapping_sub(message.granted_ms));
                    put_deadline(out, message.deadline_ms, message.is_waived);
                },
            );
        }
        Section::Delayed(some) => {
            out.put_u8(kind::DELAYED);
            put_rising(
                out,
                some,
                |message| (message.offset, message.offset),
                |out, message| {
                    put_number(out, u64::from(message.size));
                    put_number(out, u64::from(message.attempts));
                    put_number(out, message.due_ms);
                    put_deadline(out, message.deadline_ms, message.is_waived);
                },
            );
        }
        Section::Dead(runs) => put_dead(out, kind::DEAD, runs),
        Section::Redriven(runs) => put_dead(out, kind::REDRIVEN, runs),
        Section::Session(head) => {
            out.put_u8(kind::SESSION);
            put_session(out, head.id);
            put_option(out, head.name.as_ref(), |out, name| put_bytes(out, name.as_bytes()));
            put_number(out, head.epoch);
            put_number(out, head.used_ms);
            put_number(out, head.pairs_max);
            put_number(out, head.pairs);
        }
        Section::Pair(pair) => {
            out.put_u8(kind::PAIR);
            put_number(out, pair.topic.0);
            put_number(out, pair.last_sequence);
            put_rising(
                out,
                &pair.replies,
                |reply| (reply.first_offset, reply.first_offset.wrapping_add(u64::from(reply.count))),
                |out, reply| {
                    put_number(out, u64::from(reply.count));
                    out.put_u32_le(reply.batch_crc);
                },
            );
        }
        Section::Pops(some) => {
            out.put_u8(kind::POPS);
            put_list(out, some, |out, pop| {
                out.put_u128_le(pop.request_id);
                put_number(out, pop.popped_ms);
                put_number(out, pop.topic.0);
                put_number(out, u64::from(pop.subscription.0));
                put_rising(
                    out,
                    &pop.deliveries,
                    |one| (one.offset, one.offset),
                    |out, delivery| {
                        put_number(out, u64::from(delivery.generation.0));
                        put_number(out, u64::from(delivery.size));
                        put_number(out, u64::from(delivery.attempts));
                    },
                );
            });
        }
    }
}

/// Decodes a section that was written under this active version.
///
/// # Errors
/// [`Unreadable`] for damaged bytes, and for a version or kind that this binary does not know.
pub fn read_section(version: u32, bytes: &[u8]) -> Result<Section, Unreadable> {
    let version_max = version_max();
    if !(VERSION_MIN..=version_max).contains(&version) {
        return Err(Unreadable(format!(
            "a snapshot has version {version}; this binary knows {VERSION_MIN} to {version_max}: run a newer one"
        )));
    }
    let mut reader = Reader::new(bytes);
    let section = read(&mut reader)?;
    reader.end()?;
    Ok(section)
}

fn read(reader: &mut Reader<'_>) -> Result<Section, Unreadable> {
    Ok(match reader.byte()? {
        kind::HEAD => Section::Head(Head {
            now_ms: reader.number()?,
            generation: Generation(reader.small()?),
            last_id: reader.number()?,
            last_token: Token(reader.number()?),
            topics: reader.number()?,
            sessions: reader.number()?,
            pops: reader.number()?,
            pops_kept: reader.number()?,
            pops_forgotten: reader.number()?,
        }),
        kind::TOPIC => Section::Topic(TopicHead {
            id: reader.topic()?,
            name: reader.text()?,
            settings: reader.settings()?,
            request_id: reader.option(Reader::request_id)?,
            created_ms: reader.number()?,
            next_offset: reader.number()?,
            generations: reader.number()?,
            subscriptions: reader.number()?,
        }),
        kind::GENERATIONS => {
            Section::Generations(reader.list(|reader| Ok((Generation(reader.small()?), reader.number()?)))?)
        }
        kind::SUBSCRIPTION => Section::Subscription(SubscriptionHead {
            id: reader.subscription()?,
            bytes: reader.number()?,
            dead_bytes: reader.number()?,
            ready: reader.number()?,
            retried: reader.number()?,
            waived: reader.number()?,
            leased: reader.number()?,
            delayed: reader.number()?,
            dead: reader.number()?,
            redriven: reader.number()?,
        }),
        kind::READY => Section::Ready(read_runs(reader)?),
        kind::WAIVED => Section::Waived(read_runs(reader)?),
        kind::RETRIED => Section::Retried(read_rising(reader, |reader, offset| {
            let message = RetriedMessage {
                offset,
                size: reader.small()?,
                attempts: reader.small()?,
                late_ack: reader.option(Reader::number)?.map(Token),
            };
            Ok((message, offset))
        })?),
        kind::LEASED => Section::Leased(read_rising(reader, |reader, offset| {
            let (size, attempts) = (reader.small()?, reader.small()?);
            let (token, granted_ms) = (Token(reader.number()?), reader.number()?);
            let expires_ms = granted_ms.wrapping_add(reader.number()?);
            let (deadline_ms, is_waived) = read_deadline(reader)?;
            let message = LeasedMessage {
                offset,
                size,
                attempts,
                token,
                granted_ms,
                expires_ms,
                deadline_ms,
                is_waived,
            };
            Ok((message, offset))
        })?),
        kind::DELAYED => Section::Delayed(read_rising(reader, |reader, offset| {
            let (size, attempts, due_ms) = (reader.small()?, reader.small()?, reader.number()?);
            let (deadline_ms, is_waived) = read_deadline(reader)?;
            Ok((DelayedMessage { offset, size, attempts, due_ms, deadline_ms, is_waived }, offset))
        })?),
        kind::DEAD => Section::Dead(read_dead(reader)?),
        kind::REDRIVEN => Section::Redriven(read_dead(reader)?),
        kind::SESSION => Section::Session(SessionHead {
            id: reader.session()?,
            name: reader.option(Reader::text)?,
            epoch: reader.number()?,
            used_ms: reader.number()?,
            pairs_max: reader.number()?,
            pairs: reader.number()?,
        }),
        kind::PAIR => Section::Pair(PairSection {
            topic: reader.topic()?,
            last_sequence: reader.number()?,
            replies: read_rising(reader, |reader, first_offset| {
                let reply = KeptReply { first_offset, count: reader.small()?, batch_crc: reader.crc()? };
                Ok((reply, first_offset.wrapping_add(u64::from(reply.count))))
            })?,
        }),
        kind::POPS => Section::Pops(reader.list(|reader| {
            Ok(PopSection {
                request_id: reader.request_id()?,
                popped_ms: reader.number()?,
                topic: reader.topic()?,
                subscription: reader.subscription()?,
                deliveries: read_rising(reader, |reader, offset| {
                    let generation = Generation(reader.small()?);
                    let delivery =
                        Delivery { generation, offset, size: reader.small()?, attempts: reader.small()? };
                    Ok((delivery, offset))
                })?,
            })
        })?),
        kind => {
            return Err(Unreadable(format!(
                "section {kind} of a snapshot is not known to this binary: run a newer one"
            )));
        }
    })
}

/// A list whose items begin at an offset behind the end of the one before: mostly one byte. What does not rise comes back
/// as it was too.
fn put_rising<T>(
    out: &mut BytesMut,
    list: &[T],
    span: impl Fn(&T) -> (u64, u64),
    put: impl Fn(&mut BytesMut, &T),
) {
    put_number(out, list.len() as u64);
    let mut behind = 0;
    for item in list {
        let (start, end) = span(item);
        put_number(out, start.wrapping_sub(behind));
        put(out, item);
        behind = end;
    }
}

/// Reads what [`put_rising`] wrote; `read` gets where an item begins and says where it ends.
fn read_rising<T>(
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>, u64) -> Result<(T, u64), Unreadable>,
) -> Result<Vec<T>, Unreadable> {
    let behind = std::cell::Cell::new(0u64);
    reader.list(|reader| {
        let start = behind.get().wrapping_add(reader.number()?);
        let (item, end) = read(reader, start)?;
        behind.set(end);
        Ok(item)
    })
}

fn put_runs(out: &mut BytesMut, kind: u8, runs: &[(u64, u64)]) {
    out.put_u8(kind);
    put_rising(out, runs, |run| *run, |out, &(start, end)| put_number(out, end.wrapping_sub(start)));
}

fn read_runs(reader: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, Unreadable> {
    read_rising(reader, |reader, start| {
        let end = start.wrapping_add(reader.number()?);
        Ok(((start, end), end))
    })
}

fn put_dead(out: &mut BytesMut, kind: u8, runs: &[DeadRun]) {
    out.put_u8(kind);
    let span = |run: &DeadRun| (run.offsets.start, run.offsets.end);
    put_rising(out, runs, span, |out, run| {
        put_number(out, run.offsets.end.wrapping_sub(run.offsets.start));
        put_number(out, u64::from(run.attempts));
        put_reason(out, &run.reason);
    });
}

fn read_dead(reader: &mut Reader<'_>) -> Result<Vec<DeadRun>, Unreadable> {
    read_rising(reader, |reader, start| {
        let end = start.wrapping_add(reader.number()?);
        let run = DeadRun { offsets: start..end, attempts: reader.small()?, reason: read_reason(reader)? };
        Ok((run, end))
    })
}

fn put_deadline(out: &mut BytesMut, deadline_ms: Option<u64>, is_waived: bool) {
    let flags = if deadline_ms.is_some() { DEADLINE } else { 0 };
    out.put_u8(flags | if is_waived { WAIVED } else { 0 });
    if let Some(deadline_ms) = deadline_ms {
        put_number(out, deadline_ms);
    }
}

fn read_deadline(reader: &mut Reader<'_>) -> Result<(Option<u64>, bool), Unreadable> {
    let flags = reader.byte()?;
    if flags > DEADLINE | WAIVED {
        return Err(Unreadable(format!("a deadline has flags {flags:#x}, known are 0 to 3")));
    }
    let deadline_ms = if flags & DEADLINE != 0 { Some(reader.number()?) } else { None };
    Ok((deadline_ms, flags & WAIVED != 0))
}

fn put_reason(out: &mut BytesMut, reason: &DeadReason) {
    match reason {
        DeadReason::Expired => out.put_u8(0),
        DeadReason::LeaseExpired => out.put_u8(1),
        DeadReason::Nacked => out.put_u8(2),
        DeadReason::NackedBecause(text) => {
            out.put_u8(3);
            put_bytes(out, text.as_bytes());
        }
    }
}

fn read_reason(reader: &mut Reader<'_>) -> Result<DeadReason, Unreadable> {
    Ok(match reader.byte()? {
        0 => DeadReason::Expired,
        1 => DeadReason::LeaseExpired,
        2 => DeadReason::Nacked,
        3 => DeadReason::NackedBecause(reader.text()?.into()),
        other => return Err(Unreadable(format!("a message died of {other}, known are 0 to 3"))),
    })
}
