//! What the state of a room consists of.

use std::sync::Arc;

use crate::codec::{Malformed, Reader, Writer};
use crate::plan::ShardTag;
use crate::state::message::Post;

/// Longest key.
pub const KEY_MAX: usize = 256;
/// Longest value: a participant with all its metadata.
pub const VALUE_MAX: usize = 64 * 1024;

/// What an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A participant, by identity.
    Participant,
    /// A published track, by its uid.
    Track,
    /// Anything else that a room keeps.
    Other,
}

/// Names an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// What it is of.
    pub kind: EntryKind,
    /// Which; at most [`KEY_MAX`] bytes. May point at a person.
    pub id: Arc<str>,
}

/// The shard that an entry lives on, in one life of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The shard.
    pub shard: ShardTag,
    /// The life.
    pub boot: u64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub owner: Owner,
    /// Counts the lives of the thing; the higher one is the true one.
    pub incarnation: u64,
    /// What the room says of it, at most [`VALUE_MAX`] bytes; opaque here.
    pub value: Arc<[u8]>,
}

impl Entry {
    /// It takes the place of another entry of the same key.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.owner == other.owner
            || (self.incarnation, self.owner) > (other.incarnation, other.owner)
    }
}

/// One ordered change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An entry is this from now on.
    Put(EntryKey, Entry),
    /// An entry is gone.
    Remove(EntryKey),
    /// A data message for everybody it names.
    Post(Owner, Post),
}

impl EntryKind {
    const fn number(self) -> u8 {
        match self {
            Self::Participant => 0,
            Self::Track => 1,
            Self::Other => 2,
        }
    }
}

impl EntryKey {
    /// A key; the id is not checked until it is used.
    #[must_use]
    pub fn new(kind: EntryKind, id: &str) -> Self {
        Self { kind, id: id.into() }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.u8(self.kind.number());
        writer.text(&self.id);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = match reader.u8()? {
            0 => EntryKind::Participant,
            1 => EntryKind::Track,
            _ => EntryKind::Other,
        };
        Ok(Self { kind, id: reader.text(KEY_MAX)?.into() })
    }
}

impl Owner {
    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        writer.u64(self.shard.0);
        writer.u64(self.boot);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { shard: ShardTag(reader.u64()?), boot: reader.u64()? })
    }
}

impl Entry {
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        self.owner.write(writer);
        writer.u64(self.incarnation);
        writer.bytes(&self.value);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            owner: Owner::read(reader)?,
            incarnation: reader.u64()?,
            value: reader.bytes(VALUE_MAX)?.into(),
        })
    }

    /// Bytes that it takes on the wire, about.
    pub(crate) fn weight(&self) -> usize {
        self.value.len() + KEY_MAX
    }
}

impl Change {
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Put(key, entry) => {
                writer.u8(0);
                key.write(writer);
                entry.write(writer);
            }
            Self::Remove(key) => {
                writer.u8(1);
                key.write(writer);
            }
            Self::Post(owner, post) => {
                writer.u8(2);
                owner.write(writer);
                post.write(writer);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            0 => Ok(Self::Put(EntryKey::read(reader)?, Entry::read(reader)?)),
            1 => Ok(Self::Remove(EntryKey::read(reader)?)),
            2 => Ok(Self::Post(Owner::read(reader)?, Post::read(reader)?)),
            _ => Err(reader.malformed()),
        }
    }
}
