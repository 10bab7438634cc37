//! Who is in a room when it is too large for a list: a count and a sample that can be
//! added up over the tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::{Malformed, Reader, Writer};
use crate::state::entry::KEY_MAX;

/// Participants of a sample.
pub const SAMPLE_MAX: usize = 50;

/// A count and a sample. The sample holds those whose names have the smallest hashes:
/// so the sample of two shards together is made from their two samples, in any order,
/// and it changes as little as the audience does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audience {
    /// Participants.
    pub participants: u64,
    /// Those of them that publish.
    pub publishers: u64,
    /// Identities of some, by hash.
    sample: BTreeMap<(u64, Arc<str>), ()>,
}

impl Audience {
    /// So many participants, of whom none publishes and none is in the sample.
    #[must_use]
    pub fn counted(participants: u64) -> Self {
        Self { participants, ..Self::default() }
    }

    /// Counts one participant.
    pub fn add(&mut self, identity: &str, publishes: bool) {
        self.participants += 1;
        self.publishers += u64::from(publishes);
        self.sample.insert((hash(identity), identity.into()), ());
        self.shorten();
    }

    /// Adds another shard's audience.
    pub fn merge(&mut self, other: &Self) {
        self.participants = self.participants.saturating_add(other.participants);
        self.publishers = self.publishers.saturating_add(other.publishers);
        self.sample.extend(other.sample.iter().map(|(place, ())| (place.clone(), ())));
        self.shorten();
    }

    /// Identities of some, at most [`SAMPLE_MAX`].
    pub fn sample(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sample.keys().map(|(_, identity)| identity)
    }

    fn shorten(&mut self) {
        while self.sample.len() > SAMPLE_MAX {
            self.sample.pop_last();
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.u64(self.participants);
        writer.u64(self.publishers);
        writer.u32(self.sample.len() as u32);
        self.sample().for_each(|identity| writer.text(identity));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (participants, publishers) = (reader.u64()?, reader.u64()?);
        let sample = reader.list(SAMPLE_MAX, |reader| {
            let identity: Arc<str> = reader.text(KEY_MAX)?.into();
            Ok(((hash(&identity), identity), ()))
        })?;
        Ok(Self { participants, publishers, sample: sample.into_iter().collect() })
    }
}

/// FNV-1a.
fn hash(identity: &str) -> u64 {
    identity.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
