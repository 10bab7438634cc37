//! Data messages: who may send, who gets them, what is stamped on them, and
//! what is kept for those who cannot be reached yet. Messages are LiveKit data
//! packets, handled as envelopes: what is inside goes through unchanged.

mod envelope;
mod frames;
mod relay;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use headwater_model::{ParticipantUid, TrackUid};

pub(crate) use envelope::Destinations;

use crate::view::{DataTrackOrigin, DataTrackView};

/// What a participant has to do with data.
#[derive(Debug, Default)]
pub(crate) struct DataState {
    /// Its session was taken up once.
    pub(crate) resumed: bool,
    /// Highest sequence of a reliable message received from it.
    pub(crate) last_sequence: u32,
    /// Messages for it, until its channel is open.
    early: VecDeque<Arc<[u8]>>,
    early_bytes: usize,
    /// Data tracks it publishes, by its handle.
    pub(crate) published: BTreeMap<u16, DataTrackView>,
    /// Data tracks it receives, by the handle they have for it.
    received: BTreeMap<u16, DataTrackOrigin>,
    /// Data tracks it wants that are not there, and when that ends.
    wanted: BTreeMap<TrackUid, Instant>,
    /// Last handle given to a received data track.
    last_handle: u16,
}

/// Reliable messages of the last seconds, to be repeated after a resume.
/// Bounded in time and bytes; the oldest go first.
#[derive(Debug, Default)]
pub(crate) struct ReplayCache {
    messages: VecDeque<Kept>,
    bytes: usize,
}

/// A message kept.
#[derive(Debug)]
struct Kept {
    at: Instant,
    sender: ParticipantUid,
    sequence: u32,
    bytes: Arc<[u8]>,
}

impl DataState {
    /// Keeps a message until the channel is open. Beyond the limit it is dropped:
    /// the participant has been connecting for long, and what comes later would
    /// be of no use without what came first.
    fn keep_early(&mut self, message: &Arc<[u8]>, limit: usize) {
        if self.early_bytes + message.len() <= limit {
            self.early_bytes += message.len();
            self.early.push_back(Arc::clone(message));
        }
    }

    fn take_early(&mut self) -> VecDeque<Arc<[u8]>> {
        self.early_bytes = 0;
        std::mem::take(&mut self.early)
    }
}

/// A user message of the room itself.
pub(crate) fn from_nobody(payload: &[u8], topic: &str, reliable: bool) -> Arc<[u8]> {
    envelope::wrap(payload, topic, envelope::Stamp { reliable, uid: "", identity: Some("") }).into()
}

impl ReplayCache {
    fn add(&mut self, message: Kept, limit: usize) {
        self.bytes += message.bytes.len();
        self.messages.push_back(message);
        while self.bytes > limit {
            let Some(oldest) = self.messages.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes.len();
        }
    }

    /// Forgets what came before.
    fn expire(&mut self, before: Instant) {
        while self.messages.front().is_some_and(|message| message.at < before) {
            if let Some(oldest) = self.messages.pop_front() {
                self.bytes -= oldest.bytes.len();
            }
        }
    }
}
