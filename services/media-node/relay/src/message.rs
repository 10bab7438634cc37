//! Control messages of a link: what its two ends say to each other in order, beside the
//! media. On the wire each is a kind, a length and a body; unknown kinds are skipped.

use headwater_model::{Epoch, NodeId, RoomId, ShardIndex};

use crate::codec::{Malformed, Reader, Writer};
use crate::plan::ShardAddress;
use crate::state::StateMessage;
use crate::track::{Path, TrackInfo};

/// Version of the control messages. A peer of another version is refused.
pub const PROTOCOL_VERSION: u16 = 1;
/// Longest body of a message: a chunk of a room's state.
pub const MESSAGE_MAX: usize = 256 * 1024;
/// Kind and length before a body.
pub const MESSAGE_HEAD: usize = 5;
/// Sequence numbers that one request for repetition names.
pub const REPEATS_MAX: usize = 128;
/// Tracks that one change of interest names.
pub const INTEREST_MAX: usize = 4_096;

/// Who speaks, at the beginning of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Version of the messages.
    pub version: u16,
    /// Who speaks.
    pub from: ShardAddress,
    /// Who is meant.
    pub to: ShardAddress,
    /// Identity of the speaker's process.
    pub boot: u64,
    /// The room.
    pub room: RoomId,
    /// Epoch of the speaker's plan.
    pub epoch: Epoch,
    /// The speaker's position in that plan.
    pub rank: u32,
}

/// Why a link was refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The version is not spoken here.
    Version,
    /// It was meant for another shard.
    WrongShard,
    /// The room is not carried here (yet).
    UnknownRoom,
    /// The epoch is lower than the one known here.
    StaleEpoch,
    /// The epoch is higher than the one known here: try again soon.
    EarlyEpoch,
    /// The plan does not name the child, or its rank is not higher.
    NotInPlan,
    /// The bound of links is reached.
    Full,
    /// The shard leaves: turn to a backup.
    Leaving,
    /// The peer broke the protocol.
    Protocol,
}

const REFUSALS: [Refusal; 9] = [
    Refusal::Version,
    Refusal::WrongShard,
    Refusal::UnknownRoom,
    Refusal::StaleEpoch,
    Refusal::EarlyEpoch,
    Refusal::NotInPlan,
    Refusal::Full,
    Refusal::Leaving,
    Refusal::Protocol,
];

/// Packets of an encoding to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// The track on this link.
    pub handle: u32,
    /// Which encoding.
    pub encoding: u8,
    /// Which life of it.
    pub life: u32,
    /// Sequence numbers; at most [`REPEATS_MAX`].
    pub sequences: Vec<u64>,
}

/// What one end says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The child's first word.
    Hello(Hello),
    /// The parent's answer.
    Welcome(Hello),
    /// The link ends, or never began. Carries the speaker's epoch.
    Goodbye(Refusal, Epoch),
    /// The speaker's plan has another epoch or rank now.
    Moved(Epoch, u32),
    /// A track can be had from the speaker; its frames have this handle, which is never
    /// used again on the link.
    Announce {
        /// The handle.
        handle: u32,
        /// The track.
        info: Box<TrackInfo>,
        /// The way it came, the speaker last.
        path: Path,
    },
    /// A track cannot be had any more.
    Withdraw(u32),
    /// Every track there was when the link began has been announced.
    Announced,
    /// The encodings that the speaker wants of each track: bit `n` is encoding `n`.
    Interest(Vec<(u32, u8)>),
    /// Somebody behind the speaker needs a keyframe of an encoding.
    Keyframe(u32, u8),
    /// Packets are missing.
    Repeat(Repeat),
    /// A frame that is too long for a datagram.
    LongFrame(Vec<u8>),
    /// Of the room's state.
    State(StateMessage),
}

impl Message {
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(_) => 2,
            Self::Goodbye(..) => 3,
            Self::Moved(..) => 4,
            Self::Announce { .. } => 5,
            Self::Withdraw(_) => 6,
            Self::Announced => 7,
            Self::Interest(_) => 8,
            Self::Keyframe(..) => 9,
            Self::Repeat(_) => 10,
            Self::LongFrame(_) => 11,
            Self::State(_) => 12,
        }
    }

    /// Appends kind, length and body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        let at = out.len();
        let mut writer = Writer(out);
        writer.u32(0);
        match self {
            Self::Hello(hello) | Self::Welcome(hello) => write_hello(&mut writer, hello),
            Self::Goodbye(reason, epoch) => {
                let number = REFUSALS.iter().position(|other| other == reason);
                writer.u8(number.unwrap_or_default() as u8);
                writer.u64(epoch.0);
            }
            Self::Moved(epoch, rank) => {
                writer.u64(epoch.0);
                writer.u32(*rank);
            }
            Self::Announce { handle, info, path } => {
                writer.u32(*handle);
                info.write(&mut writer);
                path.write(&mut writer);
            }
            Self::Withdraw(handle) => writer.u32(*handle),
            Self::Announced => {}
            Self::Interest(entries) => writer.list(entries, |writer, (handle, encodings)| {
                writer.u32(*handle);
                writer.u8(*encodings);
            }),
            Self::Keyframe(handle, encoding) => {
                writer.u32(*handle);
                writer.u8(*encoding);
            }
            Self::Repeat(repeat) => {
                writer.u32(repeat.handle);
                writer.u8(repeat.encoding);
                writer.u32(repeat.life);
                writer.list(&repeat.sequences, |writer, sequence| writer.u64(*sequence));
            }
            Self::LongFrame(frame) => writer.bytes(frame),
            Self::State(state) => state.write(&mut writer),
        }
        let len = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }

    /// Kind and length of the body of the message at the start of some bytes. `None` if
    /// there is less than a head.
    ///
    /// # Errors
    /// If it is longer than a message may be.
    pub fn head(bytes: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
        let [kind, len @ ..] = bytes else { return Ok(None) };
        let Some(len) = len.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*len) as usize;
        if len > MESSAGE_MAX { Err(Malformed("message length")) } else { Ok(Some((*kind, len))) }
    }

    /// Reads the body of a message. `None` if the kind is not known.
    ///
    /// # Errors
    /// If the body is cut or a field is out of its range.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::new(body, "relay message");
        Ok(Some(match kind {
            1 => Self::Hello(read_hello(&mut reader)?),
            2 => Self::Welcome(read_hello(&mut reader)?),
            3 => {
                let reason = REFUSALS.get(usize::from(reader.u8()?)).copied();
                Self::Goodbye(reason.unwrap_or(Refusal::Protocol), Epoch(reader.u64()?))
            }
            4 => Self::Moved(Epoch(reader.u64()?), reader.u32()?),
            5 => Self::Announce {
                handle: reader.u32()?,
                info: Box::new(TrackInfo::read(&mut reader)?),
                path: Path::read(&mut reader)?,
            },
            6 => Self::Withdraw(reader.u32()?),
            7 => Self::Announced,
            8 => Self::Interest(
                reader.list(INTEREST_MAX, |reader| Ok((reader.u32()?, reader.u8()?)))?,
            ),
            9 => Self::Keyframe(reader.u32()?, read_encoding(&mut reader)?),
            10 => Self::Repeat(Repeat {
                handle: reader.u32()?,
                encoding: read_encoding(&mut reader)?,
                life: reader.u32()?,
                sequences: reader.list(REPEATS_MAX, Reader::u64)?,
            }),
            11 => Self::LongFrame(reader.bytes(MESSAGE_MAX)?.to_vec()),
            12 => Self::State(StateMessage::read(&mut reader)?),
            _ => return Ok(None),
        }))
    }
}

fn read_encoding(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    let encoding = reader.u8()?;
    if encoding < 8 { Ok(encoding) } else { Err(reader.malformed()) }
}

fn write_address(writer: &mut Writer<'_>, address: &ShardAddress) {
    writer.text(address.node.as_str());
    writer.u16(address.shard.0);
}

fn read_address(reader: &mut Reader<'_>) -> Result<ShardAddress, Malformed> {
    let node = NodeId::new(reader.text(256)?).map_err(|_| reader.malformed())?;
    Ok(ShardAddress { node, shard: ShardIndex(reader.u16()?) })
}

fn write_hello(writer: &mut Writer<'_>, hello: &Hello) {
    writer.u16(hello.version);
    write_address(writer, &hello.from);
    write_address(writer, &hello.to);
    writer.u64(hello.boot);
    writer.text(hello.room.as_str());
    writer.u64(hello.epoch.0);
    writer.u32(hello.rank);
}

fn read_hello(reader: &mut Reader<'_>) -> Result<Hello, Malformed> {
    Ok(Hello {
        version: reader.u16()?,
        from: read_address(reader)?,
        to: read_address(reader)?,
        boot: reader.u64()?,
        room: RoomId::new(reader.text(256)?).map_err(|_| reader.malformed())?,
        epoch: Epoch(reader.u64()?),
        rank: reader.u32()?,
    })
}

#[cfg(test)]
mod tests;
