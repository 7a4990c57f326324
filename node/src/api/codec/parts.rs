//! Numbers, bytes, options and lists, of which everything else is made.

use super::Unreadable;
use bytes::{BufMut, BytesMut};
use raftqueue_queue::{Generation, SessionId, SubscriptionId, TopicChange, TopicId, TopicSettings};

pub(super) fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_option<T>(out: &mut BytesMut, option: Option<T>, put: impl FnOnce(&mut BytesMut, T)) {
    out.put_u8(u8::from(option.is_some()));
    if let Some(value) = option {
        put(out, value);
    }
}

pub(super) fn put_list<T>(out: &mut BytesMut, list: &[T], put: impl Fn(&mut BytesMut, &T)) {
    put_number(out, list.len() as u64);
    for item in list {
        put(out, item);
    }
}

pub(super) fn put_session(out: &mut BytesMut, session: SessionId) {
    put_number(out, u64::from(session.generation.0));
    put_number(out, session.number);
}

pub(super) fn put_settings(out: &mut BytesMut, settings: &TopicSettings) {
    put_number(out, u64::from(settings.attempts_max));
    put_option(out, settings.messages_max, put_number);
    put_option(out, settings.bytes_max, put_number);
    put_option(out, settings.ttl_ms_default, put_number);
}

/// What stays is an option that is absent; a limit that is lifted is one in it.
pub(super) fn put_change(out: &mut BytesMut, change: &TopicChange) {
    let put_limit = |out: &mut BytesMut, limit| put_option(out, limit, put_number);
    put_option(out, change.attempts_max.map(u64::from), put_number);
    put_option(out, change.messages_max, put_limit);
    put_option(out, change.bytes_max, put_limit);
    put_option(out, change.ttl_ms_default, put_limit);
}

/// Reads what the `put_` functions wrote. Every step checks what is left. A length alone never causes an allocation.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| Unreadable(format!("{count} bytes are due, {} are left", self.bytes.len())))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        Ok(*self.take(N)?.first_chunk::<N>().expect("just taken"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Unreadable> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn crc(&mut self) -> Result<u32, Unreadable> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn request_id(&mut self) -> Result<u128, Unreadable> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub(super) fn number(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Unreadable("a number does not fit 64 bits".into()))
    }

    pub(super) fn small(&mut self) -> Result<u32, Unreadable> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| Unreadable(format!("{number} does not fit 32 bits")))
    }

    pub(super) fn slice(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = self.number()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(super) fn text(&mut self) -> Result<String, Unreadable> {
        let bytes = self.slice()?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|error| Unreadable(format!("a name is not UTF-8: {error}")))
    }

    pub(super) fn topic(&mut self) -> Result<TopicId, Unreadable> {
        Ok(TopicId(self.number()?))
    }

    pub(super) fn subscription(&mut self) -> Result<SubscriptionId, Unreadable> {
        Ok(SubscriptionId(self.small()?))
    }

    pub(super) fn session(&mut self) -> Result<SessionId, Unreadable> {
        Ok(SessionId { generation: Generation(self.small()?), number: self.number()? })
    }

    pub(super) fn settings(&mut self) -> Result<TopicSettings, Unreadable> {
        Ok(TopicSettings {
            attempts_max: self.small()?,
            messages_max: self.option(Self::number)?,
            bytes_max: self.option(Self::number)?,
            ttl_ms_default: self.option(Self::number)?,
        })
    }

    pub(super) fn change(&mut self) -> Result<TopicChange, Unreadable> {
        let limit = |reader: &mut Self| reader.option(Self::number);
        Ok(TopicChange {
            attempts_max: self.option(Self::small)?,
            messages_max: self.option(limit)?,
            bytes_max: self.option(limit)?,
            ttl_ms_default: self.option(limit)?,
        })
    }

    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(Unreadable(format!("an option is {other}, known are 0 and 1"))),
        }
    }

    pub(super) fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let count = self.number()?;
        // Every item takes at least one byte, so a greater count is wrong.
        if count > self.bytes.len() as u64 {
            return Err(Unreadable(format!("a list of {count} items in {} bytes", self.bytes.len())));
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub(super) fn end(&self) -> Result<(), Unreadable> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(Unreadable(format!("{left} bytes are left over"))),
        }
    }
}
