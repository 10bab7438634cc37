//! The outside of a LiveKit `DataPacket` (livekit_models.proto): a walk over
//! its fields that reads who it is for, and a copy with the sender stamped on.
//! What is inside, known to us or not, is neither decoded nor changed.
//!
//! Stamps are appended: of a scalar field written twice, protobuf readers take
//! the last. The sender of the legacy user message is appended inside of it.

/// Destinations read of one packet; one with more is refused.
const DESTINATIONS_MAX: usize = 10_000;

/// Fields of `DataPacket`.
mod field {
    pub(super) const KIND: u32 = 1;
    pub(super) const USER: u32 = 2;
    pub(super) const SPEAKER: u32 = 3;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 4;
    pub(super) const DESTINATION_IDENTITIES: u32 = 5;
    pub(super) const TRANSCRIPTION: u32 = 7;
    pub(super) const METRICS: u32 = 8;
    pub(super) const CHAT_MESSAGE: u32 = 9;
    pub(super) const STREAM_HEADER: u32 = 13;
    pub(super) const SEQUENCE: u32 = 16;
    pub(super) const PARTICIPANT_SID: u32 = 17;
    /// Members of the oneof `value`; numbers of later ones are not known.
    pub(super) const fn is_value(number: u32) -> bool {
        !matches!(
            number,
            KIND | PARTICIPANT_IDENTITY | DESTINATION_IDENTITIES | SEQUENCE | PARTICIPANT_SID
        )
    }
}

/// Fields of `UserPacket`.
mod user_field {
    pub(super) const PARTICIPANT_SID: u32 = 1;
    pub(super) const PAYLOAD: u32 = 2;
    pub(super) const DESTINATION_SIDS: u32 = 3;
    pub(super) const TOPIC: u32 = 4;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 5;
    pub(super) const DESTINATION_IDENTITIES: u32 = 6;
}

/// What kind of thing a packet carries, as far as the room cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Bytes of an application.
    User,
    /// Speakers, which only servers tell.
    Speaker,
    /// Written speech.
    Transcription,
    /// Measurements.
    Metrics,
    /// A chat message or the head of a stream, which agents may send for others.
    Spoken,
    /// Anything else, known to us or not.
    Opaque,
}

/// Who a packet is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destinations<'a> {
    /// Everybody but its sender.
    Everybody,
    /// These identities.
    Identities(Vec<&'a str>),
    /// These participants, by uid.
    Uids(Vec<&'a str>),
}

/// The outside of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) content: Content,
    pub(super) destinations: Destinations<'a>,
    /// Sender that the packet names. Empty if none.
    pub(super) identity: &'a str,
    /// 0 if not numbered.
    pub(super) sequence: u32,
    /// Topic of a user message. Empty if none.
    pub(super) topic: &'a str,
    /// Payload of a user message.
    pub(super) payload: &'a [u8],
    /// Where the last user message lies, tag and all, and where its inside begins.
    user: Option<UserSpan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UserSpan {
    start: usize,
    inside: usize,
    end: usize,
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvelopeError {
    #[error("the packet ends within a field")]
    Truncated,
    #[error("a field has a wire type there is not")]
    WireType,
    #[error("a text is not UTF-8")]
    Text,
    #[error("too many destinations")]
    TooManyDestinations,
    #[error("the packet carries nothing")]
    Empty,
}

/// Reads the outside of a packet.
pub(super) fn read(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let mut content = None;
    let mut identities = Vec::new();
    let mut legacy = Legacy::default();
    let mut identity = "";
    let mut sequence = 0;
    let mut user = None;
    let mut fields = Fields { bytes, at: 0 };
    while let Some(entry) = fields.next()? {
        match (entry.number, entry.value) {
            (field::DESTINATION_IDENTITIES, Value::Bytes(value)) => {
                push(&mut identities, value)?;
            }
            (field::PARTICIPANT_IDENTITY, Value::Bytes(value)) => identity = text(value)?,
            (field::SEQUENCE, Value::Number(value)) => {
                // Varints of 32-bit fields are cut, as protobuf readers do.
                sequence = u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX);
            }
            (field::USER, Value::Bytes(value)) => {
                if content != Some(Content::User) {
                    legacy = Legacy::default();
                }
                content = Some(Content::User);
                let inside = entry.end - value.len();
                user = Some(UserSpan { start: entry.start, inside, end: entry.end });
                legacy.read(value)?;
            }
            (number, Value::Bytes(_)) if field::is_value(number) => {
                content = Some(content_of(number));
                user = None;
            }
            (_, Value::Bytes(_) | Value::Number(_) | Value::Fixed) => {}
        }
    }
    let content = content.ok_or(EnvelopeError::Empty)?;
    if content != Content::User {
        legacy = Legacy::default();
    }
    let destinations = if !identities.is_empty() {
        Destinations::Identities(identities)
    } else if !legacy.identities.is_empty() {
        Destinations::Identities(legacy.identities)
    } else if !legacy.uids.is_empty() {
        Destinations::Uids(legacy.uids)
    } else {
        Destinations::Everybody
    };
    let (topic, payload) = (legacy.topic, legacy.payload);
    Ok(Envelope { content, destinations, identity, sequence, topic, payload, user })
}

const fn content_of(number: u32) -> Content {
    match number {
        field::SPEAKER => Content::Speaker,
        field::TRANSCRIPTION => Content::Transcription,
        field::METRICS => Content::Metrics,
        field::CHAT_MESSAGE | field::STREAM_HEADER => Content::Spoken,
        _ => Content::Opaque,
    }
}

/// What is read inside of a user message: destinations, from before the envelope had
/// them, topic and payload.
#[derive(Default)]
struct Legacy<'a> {
    uids: Vec<&'a str>,
    identities: Vec<&'a str>,
    topic: &'a str,
    payload: &'a [u8],
}

impl<'a> Legacy<'a> {
    fn read(&mut self, inside: &'a [u8]) -> Result<(), EnvelopeError> {
        let mut fields = Fields { bytes: inside, at: 0 };
        while let Some(entry) = fields.next()? {
            match (entry.number, entry.value) {
                (user_field::DESTINATION_SIDS, Value::Bytes(value)) => {
                    push(&mut self.uids, value)?;
                }
                (user_field::DESTINATION_IDENTITIES, Value::Bytes(value)) => {
                    push(&mut self.identities, value)?;
                }
                (user_field::TOPIC, Value::Bytes(value)) => {
                    self.topic = std::str::from_utf8(value).unwrap_or_default();
                }
                (user_field::PAYLOAD, Value::Bytes(value)) => self.payload = value,
                (_, Value::Bytes(_) | Value::Number(_) | Value::Fixed) => {}
            }
        }
        Ok(())
    }
}

/// The sender, as stamped on its packets. Empty for hidden ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp<'a> {
    /// Arrived on the reliable channel.
    pub(super) reliable: bool,
    pub(super) uid: &'a str,
    /// None leaves the one that the packet names.
    pub(super) identity: Option<&'a str>,
}

/// A copy of a packet with its sender stamped on.
pub(super) fn stamp(bytes: &[u8], envelope: &Envelope<'_>, stamp: Stamp<'_>) -> Vec<u8> {
    let names = stamp.uid.len() + stamp.identity.map_or(0, str::len);
    let mut out = Vec::with_capacity(bytes.len() + 2 * names + 32);
    match envelope.user {
        Some(span) => {
            let mut sender = Vec::new();
            put_text(&mut sender, user_field::PARTICIPANT_SID, stamp.uid);
            if let Some(identity) = stamp.identity {
                put_text(&mut sender, user_field::PARTICIPANT_IDENTITY, identity);
            }
            out.extend_from_slice(&bytes[..span.start]);
            put_key(&mut out, field::USER, 2);
            put_varint(&mut out, (span.end - span.inside + sender.len()) as u64);
            out.extend_from_slice(&bytes[span.inside..span.end]);
            out.extend_from_slice(&sender);
            out.extend_from_slice(&bytes[span.end..]);
        }
        None => out.extend_from_slice(bytes),
    }
    put_key(&mut out, field::KIND, 0);
    put_varint(&mut out, u64::from(!stamp.reliable));
    if let Some(identity) = stamp.identity {
        put_text(&mut out, field::PARTICIPANT_IDENTITY, identity);
    }
    put_text(&mut out, field::PARTICIPANT_SID, stamp.uid);
    out
}

/// A packet around bytes that came without one, or that the platform sends.
pub(super) fn wrap(payload: &[u8], topic: &str, sender: Stamp<'_>) -> Vec<u8> {
    let mut user = Vec::with_capacity(payload.len() + topic.len() + 16);
    put_key(&mut user, user_field::PAYLOAD, 2);
    put_varint(&mut user, payload.len() as u64);
    user.extend_from_slice(payload);
    if !topic.is_empty() {
        put_text(&mut user, user_field::TOPIC, topic);
    }
    let mut packet = Vec::with_capacity(user.len() + 8);
    put_key(&mut packet, field::USER, 2);
    put_varint(&mut packet, user.len() as u64);
    let inside = packet.len();
    packet.extend_from_slice(&user);
    let span = UserSpan { start: 0, inside, end: packet.len() };
    let envelope = Envelope {
        content: Content::User,
        destinations: Destinations::Everybody,
        identity: "",
        sequence: 0,
        topic: "",
        payload: &[],
        user: Some(span),
    };
    stamp(&packet, &envelope, sender)
}

fn push<'a>(list: &mut Vec<&'a str>, value: &'a [u8]) -> Result<(), EnvelopeError> {
    if list.len() >= DESTINATIONS_MAX {
        return Err(EnvelopeError::TooManyDestinations);
    }
    list.push(text(value)?);
    Ok(())
}

fn text(value: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(value).map_err(|_| EnvelopeError::Text)
}

/// One field of a message.
struct Field<'a> {
    number: u32,
    value: Value<'a>,
    start: usize,
    end: usize,
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes that mean nothing to us.
    Fixed,
}

/// A walk over a message's fields. Each step goes forward, so it ends.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, EnvelopeError> {
        let start = self.at;
        if start == self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| EnvelopeError::WireType)?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8)?,
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| EnvelopeError::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.skip(4)?,
            _ => return Err(EnvelopeError::WireType),
        };
        Ok(Some(Field { number, value, start, end: self.at }))
    }

    fn skip(&mut self, length: usize) -> Result<Value<'a>, EnvelopeError> {
        self.take(length).map(|_| Value::Fixed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], EnvelopeError> {
        let end = self.at.checked_add(length).ok_or(EnvelopeError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(EnvelopeError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, EnvelopeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(EnvelopeError::Truncated)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(EnvelopeError::Truncated)
    }
}

fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u64) {
    put_varint(out, (u64::from(number) << 3) | wire_type);
}

fn put_text(out: &mut Vec<u8>, number: u32, value: &str) {
    put_key(out, number, 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
