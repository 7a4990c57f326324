//! The `meta` of a log entry: commands, each with a kind and its fields.

use super::parts::{
    Reader, put_bytes, put_change, put_list, put_number, put_option, put_session, put_settings,
};
use super::{CRC_BYTES, Unreadable, VERSION_MIN, VERSION_OF_UPDATE_TOPIC, version_max};
use bytes::{BufMut, Bytes, BytesMut};
use raftqueue_queue::{
    Candidate, Command, DeadSelection, Generation, LeaseId, MessageMeta, MessageSize, Overdue, Sequenced,
    SubscriptionId, Token, TopicId,
};

/// The `meta` of an entry, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    /// The leader's stamp, in milliseconds of log time.
    pub stamp_ms: u64,
    /// The commands, each applied or refused alone.
    pub commands: Vec<Command>,
}

/// Builds the `meta` of one entry, command by command.
#[derive(Debug)]
pub struct EntryWriter {
    commands: BytesMut,
    count: u64,
}

impl Default for EntryWriter {
    fn default() -> Self {
        Self { commands: BytesMut::with_capacity(1024), count: 0 }
    }
}

impl EntryWriter {
    /// Adds one command.
    pub fn push(&mut self, command: &Command) {
        write_command(&mut self.commands, command);
        self.count += 1;
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.commands.len()
    }

    /// The finished `meta`.
    #[must_use]
    pub fn finish(self, version: u32, stamp_ms: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(self.commands.len() + 24);
        out.put_u8(u8::try_from(version).expect("versions are small"));
        put_number(&mut out, stamp_ms);
        put_number(&mut out, self.count);
        out.extend_from_slice(&self.commands);
        out.put_u32_le(crc32c::crc32c(&out));
        out.freeze()
    }
}

/// Decodes the `meta` of an entry.
///
/// # Errors
/// [`Unreadable`] for damaged bytes, and for a version or command that this binary does not know.
pub fn read_entry(meta: &[u8]) -> Result<EntryMeta, Unreadable> {
    let Some((content, crc)) = meta.split_last_chunk::<CRC_BYTES>() else {
        return Err(Unreadable(format!("an entry of {} bytes is too short to have a CRC", meta.len())));
    };
    let (found, expected) = (crc32c::crc32c(content), u32::from_le_bytes(*crc));
    if found != expected {
        return Err(Unreadable(format!("an entry's CRC is {found:08x} where it says {expected:08x}")));
    }
    let mut reader = Reader::new(content);
    let version = u32::from(reader.byte()?);
    let version_max = version_max();
    if !(VERSION_MIN..=version_max).contains(&version) {
        return Err(Unreadable(format!(
            "an entry has version {version}; this binary knows {VERSION_MIN} to {version_max}: run a newer one"
        )));
    }
    let stamp_ms = reader.number()?;
    let commands = reader.list(|reader| read_command(reader, version))?;
    reader.end()?;
    Ok(EntryMeta { stamp_ms, commands })
}

mod kind {
    pub(super) const CREATE_TOPIC: u8 = 1;
    pub(super) const DELETE_TOPIC: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const RECEIVE: u8 = 4;
    pub(super) const POP: u8 = 5;
    pub(super) const ACK: u8 = 6;
    pub(super) const NACK: u8 = 7;
    pub(super) const EXTEND: u8 = 8;
    pub(super) const RELEASE: u8 = 9;
    pub(super) const REDRIVE_DEAD: u8 = 10;
    pub(super) const PURGE_DEAD: u8 = 11;
    pub(super) const PURGE: u8 = 12;
    pub(super) const OPEN_SESSION: u8 = 13;
    pub(super) const CLOSE_SESSION: u8 = 14;
    pub(super) const TIME: u8 = 15;
    pub(super) const RAISE_GENERATION: u8 = 16;
    pub(super) const UPDATE_TOPIC: u8 = 17;
}

fn write_command(out: &mut BytesMut, command: &Command) {
    match command {
        Command::CreateTopic { name, settings, topics_max, request_id } => {
            out.put_u8(kind::CREATE_TOPIC);
            put_bytes(out, name.as_bytes());
            put_settings(out, settings);
            put_number(out, *topics_max);
            put_option(out, *request_id, BytesMut::put_u128_le);
        }
        Command::UpdateTopic { name, change } => {
            out.put_u8(kind::UPDATE_TOPIC);
            put_bytes(out, name.as_bytes());
            put_change(out, change);
        }
        Command::DeleteTopic { name } => {
            out.put_u8(kind::DELETE_TOPIC);
            put_bytes(out, name.as_bytes());
        }
        Command::Publish { topic, session, messages } => {
            out.put_u8(kind::PUBLISH);
            put_bytes(out, topic.as_bytes());
            put_option(out, *session, put_sequenced);
            put_list(out, messages, put_message);
        }
        Command::Receive { topic, subscription, candidates, lease_ms } => {
            out.put_u8(kind::RECEIVE);
            put_target(out, *topic, *subscription);
            put_list(out, candidates, put_candidate);
            put_number(out, *lease_ms);
        }
        Command::Pop { topic, subscription, candidates, count_max, request_id } => {
            out.put_u8(kind::POP);
            put_target(out, *topic, *subscription);
            put_list(out, candidates, put_candidate);
            put_number(out, u64::from(*count_max));
            put_option(out, *request_id, BytesMut::put_u128_le);
        }
        Command::Ack { topic, subscription, leases } => {
            out.put_u8(kind::ACK);
            put_target(out, *topic, *subscription);
            put_list(out, leases, put_lease);
        }
        Command::Nack { topic, subscription, leases, delay_ms, reason } => {
            out.put_u8(kind::NACK);
            put_target(out, *topic, *subscription);
            put_list(out, leases, put_lease);
            put_number(out, *delay_ms);
            put_option(out, reason.as_ref(), |out, reason| put_bytes(out, reason.as_bytes()));
        }
        Command::Extend { topic, subscription, leases, lease_ms } => {
            out.put_u8(kind::EXTEND);
            put_target(out, *topic, *subscription);
            put_list(out, leases, put_lease);
            put_number(out, *lease_ms);
        }
        Command::Release { topic, subscription, leases } => {
            out.put_u8(kind::RELEASE);
            put_target(out, *topic, *subscription);
            put_list(out, leases, put_lease);
        }
        Command::RedriveDead { topic, subscription, selection } => {
            out.put_u8(kind::REDRIVE_DEAD);
            put_target(out, *topic, *subscription);
            put_selection(out, selection);
        }
        Command::PurgeDead { topic, subscription, selection } => {
            out.put_u8(kind::PURGE_DEAD);
            put_target(out, *topic, *subscription);
            put_selection(out, selection);
        }
        Command::Purge { topic, subscription } => {
            out.put_u8(kind::PURGE);
            put_bytes(out, topic.as_bytes());
            put_number(out, u64::from(subscription.0));
        }
        Command::OpenSession { name, sessions_max, pairs_max } => {
            out.put_u8(kind::OPEN_SESSION);
            put_option(out, name.as_ref(), |out, name| put_bytes(out, name.as_bytes()));
            put_number(out, *sessions_max);
            put_number(out, *pairs_max);
        }
        Command::CloseSession { session, epoch } => {
            out.put_u8(kind::CLOSE_SESSION);
            put_session(out, *session);
            put_number(out, *epoch);
        }
        Command::Time { overdue } => {
            out.put_u8(kind::TIME);
            put_list(out, overdue, |out, overdue| {
                put_target(out, overdue.topic, overdue.subscription);
                put_list(out, &overdue.candidates, put_candidate);
            });
        }
        Command::RaiseGeneration { generation } => {
            out.put_u8(kind::RAISE_GENERATION);
            put_number(out, u64::from(generation.0));
        }
    }
}

fn read_command(reader: &mut Reader<'_>, version: u32) -> Result<Command, Unreadable> {
    Ok(match reader.byte()? {
        kind::CREATE_TOPIC => Command::CreateTopic {
            name: reader.text()?,
            settings: reader.settings()?,
            topics_max: reader.number()?,
            request_id: reader.option(Reader::request_id)?,
        },
        kind::DELETE_TOPIC => Command::DeleteTopic { name: reader.text()? },
        kind::PUBLISH => Command::Publish {
            topic: reader.text()?,
            session: reader.option(read_sequenced)?,
            messages: reader.list(read_message)?,
        },
        kind::RECEIVE => Command::Receive {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            candidates: reader.list(read_candidate)?,
            lease_ms: reader.number()?,
        },
        kind::POP => Command::Pop {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            candidates: reader.list(read_candidate)?,
            count_max: reader.small()?,
            request_id: reader.option(Reader::request_id)?,
        },
        kind::ACK => Command::Ack {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            leases: reader.list(read_lease)?,
        },
        kind::NACK => Command::Nack {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            leases: reader.list(read_lease)?,
            delay_ms: reader.number()?,
            reason: reader.option(Reader::text)?,
        },
        kind::EXTEND => Command::Extend {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            leases: reader.list(read_lease)?,
            lease_ms: reader.number()?,
        },
        kind::RELEASE => Command::Release {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            leases: reader.list(read_lease)?,
        },
        kind::REDRIVE_DEAD => Command::RedriveDead {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            selection: read_selection(reader)?,
        },
        kind::PURGE_DEAD => Command::PurgeDead {
            topic: reader.topic()?,
            subscription: reader.subscription()?,
            selection: read_selection(reader)?,
        },
        kind::PURGE => Command::Purge { topic: reader.text()?, subscription: reader.subscription()? },
        kind::OPEN_SESSION => Command::OpenSession {
            name: reader.option(Reader::text)?,
            sessions_max: reader.number()?,
            pairs_max: reader.number()?,
        },
        kind::CLOSE_SESSION => Command::CloseSession { session: reader.session()?, epoch: reader.number()? },
        kind::TIME => Command::Time {
            overdue: reader.list(|reader| {
                Ok(Overdue {
                    topic: reader.topic()?,
                    subscription: reader.subscription()?,
                    candidates: reader.list(read_candidate)?,
                })
            })?,
        },
        kind::RAISE_GENERATION => Command::RaiseGeneration { generation: Generation(reader.small()?) },
        kind::UPDATE_TOPIC if version >= VERSION_OF_UPDATE_TOPIC => {
            Command::UpdateTopic { name: reader.text()?, change: reader.change()? }
        }
        kind => {
            return Err(Unreadable(format!("command {kind} is not known to this binary: run a newer one")));
        }
    })
}

fn put_target(out: &mut BytesMut, topic: TopicId, subscription: SubscriptionId) {
    put_number(out, topic.0);
    put_number(out, u64::from(subscription.0));
}

fn put_message(out: &mut BytesMut, message: &MessageMeta) {
    const DELAY: u8 = 1;
    const TTL: u8 = 2;
    let delay = if message.delay_ms > 0 { DELAY } else { 0 };
    let ttl = if message.ttl_ms.is_some() { TTL } else { 0 };
    out.put_u8(delay | ttl);
    put_number(out, u64::from(message.size));
    out.put_u32_le(message.crc);
    if message.delay_ms > 0 {
        put_number(out, message.delay_ms);
    }
    if let Some(ttl_ms) = message.ttl_ms {
        put_number(out, ttl_ms);
    }
}

fn read_message(reader: &mut Reader<'_>) -> Result<MessageMeta, Unreadable> {
    let flags = reader.byte()?;
    if flags > 3 {
        return Err(Unreadable(format!("a message has flags {flags:#x}, known are 0 to 3")));
    }
    Ok(MessageMeta {
        size: reader.small()?,
        crc: reader.crc()?,
        delay_ms: if flags & 1 != 0 { reader.number()? } else { 0 },
        ttl_ms: if flags & 2 != 0 { Some(reader.number()?) } else { None },
    })
}

fn put_candidate(out: &mut BytesMut, candidate: &Candidate) {
    put_number(out, candidate.offset);
    put_number(out, u64::from(candidate.size));
    put_option(out, candidate.deadline_ms, put_number);
}

fn read_candidate(reader: &mut Reader<'_>) -> Result<Candidate, Unreadable> {
    Ok(Candidate {
        offset: reader.number()?,
        size: reader.small()?,
        deadline_ms: reader.option(Reader::number)?,
    })
}

fn put_lease(out: &mut BytesMut, lease: &LeaseId) {
    put_number(out, u64::from(lease.generation.0));
    put_number(out, lease.offset);
    put_number(out, lease.token.0);
}

fn read_lease(reader: &mut Reader<'_>) -> Result<LeaseId, Unreadable> {
    Ok(LeaseId {
        generation: Generation(reader.small()?),
        offset: reader.number()?,
        token: Token(reader.number()?),
    })
}

fn put_sequenced(out: &mut BytesMut, sequenced: Sequenced) {
    put_session(out, sequenced.session);
    put_number(out, sequenced.epoch);
    put_number(out, sequenced.sequence);
    out.put_u32_le(sequenced.batch_crc);
}

fn read_sequenced(reader: &mut Reader<'_>) -> Result<Sequenced, Unreadable> {
    Ok(Sequenced {
        session: reader.session()?,
        epoch: reader.number()?,
        sequence: reader.number()?,
        batch_crc: reader.crc()?,
    })
}

fn put_selection(out: &mut BytesMut, selection: &DeadSelection) {
    match selection {
        DeadSelection::All => out.put_u8(0),
        DeadSelection::Listed(messages) => {
            out.put_u8(1);
            put_list(out, messages, |out, message| {
                put_number(out, message.offset);
                put_number(out, u64::from(message.size));
            });
        }
    }
}

fn read_selection(reader: &mut Reader<'_>) -> Result<DeadSelection, Unreadable> {
    match reader.byte()? {
        0 => Ok(DeadSelection::All),
        1 => Ok(DeadSelection::Listed(
            reader.list(|reader| Ok(MessageSize { offset: reader.number()?, size: reader.small()? }))?,
        )),
        other => Err(Unreadable(format!("a selection of kind {other}, known are 0 and 1"))),
    }
}
