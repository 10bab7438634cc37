//! What shards say to each other about a room's state.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_model::Epoch;

use crate::codec::{Malformed, Reader, Writer};
use crate::state::audience::Audience;
use crate::state::entry::{Change, Entry, EntryKey, KEY_MAX, Owner};

/// Longest data message: as much as a participant may send at once.
pub const POST_MAX: usize = 64 * 1024;
/// Participants that one data message may name.
const DESTINATIONS_MAX: usize = 1_024;
/// Entries or changes in one message; longer lists go in several.
pub(crate) const BATCH_MAX: usize = 512;
/// Bytes of values after which the next message is begun.
pub(crate) const BATCH_BYTES: usize = 96 * 1024;
/// Kinds that are tallied at once in a room; further kinds are not counted.
pub const TALLIES_MAX: usize = 32;
/// Longest name of a kind.
const TALLY_NAME_MAX: usize = 64;

/// A data message on its way through the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Identity of the participant that sends it. Empty if the platform does.
    pub sender: Arc<str>,
    /// Identities that get it. Empty means everybody.
    pub destinations: Vec<Arc<str>>,
    /// What the room made of it, at most 64 KiB; opaque here.
    pub payload: Arc<[u8]>,
}

/// What an owner asks of the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// An entry of this owner is this from now on.
    Put {
        /// Which.
        key: EntryKey,
        /// See [`Entry::incarnation`].
        incarnation: u64,
        /// See [`Entry::value`].
        value: Arc<[u8]>,
    },
    /// An entry of this owner is gone.
    Remove(EntryKey),
    /// Send a data message, in order and to all.
    Post(Post),
}

/// An operation with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub owner: Owner,
    /// Counts the owner's requests, from 1, without gaps.
    pub number: u64,
    /// What.
    pub operation: Operation,
}

/// What is said about a room's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateMessage {
    /// Child: send me what came after this. Version 0 is nothing yet.
    Follow {
        /// Epoch that the version is of.
        epoch: Epoch,
        /// The last change the child has.
        version: u64,
    },
    /// Parent: everything there is as of a version, in one or more parts.
    Snapshot {
        /// Epoch of the home.
        epoch: Epoch,
        /// Version it is of; the same in all parts.
        version: u64,
        /// It begins with this part.
        first: bool,
        /// It is complete with this part.
        last: bool,
        /// Entries.
        entries: Vec<(EntryKey, Entry)>,
    },
    /// Parent: changes in order.
    Changes {
        /// Epoch of the home.
        epoch: Epoch,
        /// Version of the first change.
        version: u64,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Up: a request for the home.
    Request(Request),
    /// Up: everything that an owner has, as of its last request. Answers a new epoch,
    /// or [`StateMessage::ClaimWanted`].
    Claim {
        /// Who.
        owner: Owner,
        /// Its last request.
        number: u64,
        /// It begins with this part.
        first: bool,
        /// It is complete with this part.
        last: bool,
        /// Its entries.
        entries: Vec<(EntryKey, u64, Arc<[u8]>)>,
    },
    /// Down, to one owner: requests up to this number are done.
    Ack {
        /// To whom.
        owner: Owner,
        /// The last request that was taken.
        number: u64,
    },
    /// Down, to one owner: requests of yours are missing; say all you have.
    ClaimWanted(Owner),
    /// Up: this owner is alive. Every second.
    Alive(Owner),
    /// Both ways: a data message that may be lost, at most once.
    Flood {
        /// Where it comes from.
        owner: Owner,
        /// Counts that owner's floods.
        number: u64,
        /// Links it may still pass.
        hops_left: u8,
        /// The message.
        post: Post,
    },
    /// Up: who is behind this link.
    Census(Audience),
    /// Down: who is in the room.
    Audience(Audience),
    /// Up: how often what was sent since the last.
    Tally(BTreeMap<Arc<str>, u64>),
    /// Down: sums since the room began.
    Totals(BTreeMap<Arc<str>, u64>),
}

impl Post {
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.text(&self.sender);
        writer.list(&self.destinations, |writer, identity| writer.text(identity));
        writer.bytes(&self.payload);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            sender: reader.text(KEY_MAX)?.into(),
            destinations: reader
                .list(DESTINATIONS_MAX, |reader| Ok(reader.text(KEY_MAX)?.into()))?,
            payload: reader.bytes(POST_MAX)?.into(),
        })
    }

    /// It keeps to the bounds.
    pub(crate) fn is_sound(&self) -> bool {
        self.payload.len() <= POST_MAX
            && self.sender.len() <= KEY_MAX
            && self.destinations.len() <= DESTINATIONS_MAX
            && self.destinations.iter().all(|identity| identity.len() <= KEY_MAX)
    }
}

fn write_request(writer: &mut Writer<'_>, request: &Request) {
    request.owner.write(writer);
    writer.u64(request.number);
    match &request.operation {
        Operation::Put { key, incarnation, value } => {
            writer.u8(0);
            key.write(writer);
            writer.u64(*incarnation);
            writer.bytes(value);
        }
        Operation::Remove(key) => {
            writer.u8(1);
            key.write(writer);
        }
        Operation::Post(post) => {
            writer.u8(2);
            post.write(writer);
        }
    }
}

fn read_request(reader: &mut Reader<'_>) -> Result<Request, Malformed> {
    let owner = Owner::read(reader)?;
    let number = reader.u64()?;
    let operation = match reader.u8()? {
        0 => Operation::Put {
            key: EntryKey::read(reader)?,
            incarnation: reader.u64()?,
            value: reader.bytes(super::VALUE_MAX)?.into(),
        },
        1 => Operation::Remove(EntryKey::read(reader)?),
        2 => Operation::Post(Post::read(reader)?),
        _ => return Err(reader.malformed()),
    };
    Ok(Request { owner, number, operation })
}

fn write_tallies(writer: &mut Writer<'_>, tallies: &BTreeMap<Arc<str>, u64>) {
    writer.u32(tallies.len() as u32);
    for (kind, count) in tallies {
        writer.text(kind);
        writer.u64(*count);
    }
}

fn read_tallies(reader: &mut Reader<'_>) -> Result<BTreeMap<Arc<str>, u64>, Malformed> {
    let list = reader.list(TALLIES_MAX, |reader| {
        let kind: Arc<str> = reader.text(TALLY_NAME_MAX)?.into();
        Ok((kind, reader.u64()?))
    })?;
    Ok(list.into_iter().collect())
}

/// A name of a tally keeps to the bounds.
pub(crate) fn is_tally_name(kind: &str) -> bool {
    (1..=TALLY_NAME_MAX).contains(&kind.len())
}

impl StateMessage {
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Follow { epoch, version } => {
                writer.u8(1);
                writer.u64(epoch.0);
                writer.u64(*version);
            }
            Self::Snapshot { epoch, version, first, last, entries } => {
                writer.u8(2);
                writer.u64(epoch.0);
                writer.u64(*version);
                writer.u8(u8::from(*first) | u8::from(*last) << 1);
                writer.list(entries, |writer, (key, entry)| {
                    key.write(writer);
                    entry.write(writer);
                });
            }
            Self::Changes { epoch, version, changes } => {
                writer.u8(3);
                writer.u64(epoch.0);
                writer.u64(*version);
                writer.list(changes, |writer, change| change.write(writer));
            }
            Self::Request(request) => {
                writer.u8(4);
                write_request(writer, request);
            }
            Self::Claim { owner, number, first, last, entries } => {
                writer.u8(5);
                owner.write(writer);
                writer.u64(*number);
                writer.u8(u8::from(*first) | u8::from(*last) << 1);
                writer.list(entries, |writer, (key, incarnation, value)| {
                    key.write(writer);
                    writer.u64(*incarnation);
                    writer.bytes(value);
                });
            }
            Self::Ack { owner, number } => {
                writer.u8(6);
                owner.write(writer);
                writer.u64(*number);
            }
            Self::ClaimWanted(owner) => {
                writer.u8(7);
                owner.write(writer);
            }
            Self::Alive(owner) => {
                writer.u8(8);
                owner.write(writer);
            }
            Self::Flood { owner, number, hops_left, post } => {
                writer.u8(9);
                owner.write(writer);
                writer.u64(*number);
                writer.u8(*hops_left);
                post.write(writer);
            }
            Self::Census(audience) => {
                writer.u8(10);
                audience.write(writer);
            }
            Self::Audience(audience) => {
                writer.u8(11);
                audience.write(writer);
            }
            Self::Tally(tallies) => {
                writer.u8(12);
                write_tallies(writer, tallies);
            }
            Self::Totals(totals) => {
                writer.u8(13);
                write_tallies(writer, totals);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            1 => Self::Follow { epoch: Epoch(reader.u64()?), version: reader.u64()? },
            2 => {
                let (epoch, version, flags) = (Epoch(reader.u64()?), reader.u64()?, reader.u8()?);
                let entries = reader.list(BATCH_MAX, |reader| {
                    Ok((EntryKey::read(reader)?, Entry::read(reader)?))
                })?;
                let (first, last) = (flags & 1 != 0, flags & 2 != 0);
                Self::Snapshot { epoch, version, first, last, entries }
            }
            3 => Self::Changes {
                epoch: Epoch(reader.u64()?),
                version: reader.u64()?,
                changes: reader.list(BATCH_MAX, Change::read)?,
            },
            4 => Self::Request(read_request(reader)?),
            5 => {
                let (owner, number, flags) = (Owner::read(reader)?, reader.u64()?, reader.u8()?);
                let entries = reader.list(BATCH_MAX, |reader| {
                    let key = EntryKey::read(reader)?;
                    let incarnation = reader.u64()?;
                    Ok((key, incarnation, reader.bytes(super::VALUE_MAX)?.into()))
                })?;
                let (first, last) = (flags & 1 != 0, flags & 2 != 0);
                Self::Claim { owner, number, first, last, entries }
            }
            6 => Self::Ack { owner: Owner::read(reader)?, number: reader.u64()? },
            7 => Self::ClaimWanted(Owner::read(reader)?),
            8 => Self::Alive(Owner::read(reader)?),
            9 => Self::Flood {
                owner: Owner::read(reader)?,
                number: reader.u64()?,
                hops_left: reader.u8()?,
                post: Post::read(reader)?,
            },
            10 => Self::Census(Audience::read(reader)?),
            11 => Self::Audience(Audience::read(reader)?),
            12 => Self::Tally(read_tallies(reader)?),
            13 => Self::Totals(read_tallies(reader)?),
            _ => return Err(reader.malformed()),
        })
    }
}
