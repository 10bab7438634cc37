//! What all rooms of a shard share: settings, randomness, the time of this
//! call, deadlines, keys and the outputs that wait to be taken.

use std::collections::VecDeque;
use std::time::Instant;

use headwater_model::media::{SubscriptionKey, TrackKey, TransportKey};
use headwater_sdp::{Candidate, CandidateProtocol, IceCredentials};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::RoomsConfig;
use crate::directory::{Directory, ParticipantKey, RoomKey};
use crate::media::MediaCommand;
use crate::remote::RelayCommand;
use crate::rooms::Output;
use crate::session::{Event, SessionKey};
use crate::timers::TimerSet;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: RoomsConfig,
    /// The time of the call under way.
    pub(crate) now: Instant,
    pub(crate) timers: TimerSet,
    pub(crate) directory: Directory,
    /// Participants of all rooms.
    pub(crate) population: usize,
    /// As much as one call makes: the caller takes all after each.
    outputs: VecDeque<Output>,
    random: StdRng,
    last_room: u32,
    last_participant: u32,
    last_transport: u32,
    last_track: u32,
    last_subscription: u32,
}

impl Core {
    pub(crate) fn new(config: RoomsConfig, seed: [u8; 32], now: Instant) -> Self {
        Self {
            config,
            now,
            timers: TimerSet::default(),
            directory: Directory::default(),
            population: 0,
            outputs: VecDeque::new(),
            random: StdRng::from_seed(seed),
            last_room: 0,
            last_participant: 0,
            last_transport: 0,
            last_track: 0,
            last_subscription: 0,
        }
    }

    /// Tells a session something, if it is still open.
    pub(crate) fn tell(&mut self, session: SessionKey, event: Event) {
        if self.directory.sessions.contains_key(&session) {
            self.outputs.push_back(Output::Event { session, event });
        }
    }

    /// Tells a session its last word and forgets it.
    pub(crate) fn tell_last(&mut self, session: SessionKey, last: Output) {
        if self.directory.sessions.remove(&session).is_some() {
            self.outputs.push_back(last);
        }
    }

    /// Answers a session that never opened.
    pub(crate) fn refuse(&mut self, session: SessionKey, event: Event) {
        self.outputs.push_back(Output::Event { session, event });
    }

    pub(crate) fn order(&mut self, command: MediaCommand) {
        self.outputs.push_back(Output::Media(command));
    }

    pub(crate) fn relay(&mut self, command: RelayCommand) {
        self.outputs.push_back(Output::Relay(command));
    }

    pub(crate) fn take_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn new_room(&mut self) -> RoomKey {
        self.last_room += 1;
        RoomKey(self.last_room)
    }

    pub(crate) fn new_participant(&mut self) -> ParticipantKey {
        self.last_participant += 1;
        ParticipantKey(self.last_participant)
    }

    pub(crate) fn new_transport(&mut self) -> TransportKey {
        self.last_transport += 1;
        TransportKey(self.last_transport)
    }

    pub(crate) fn new_track(&mut self) -> TrackKey {
        self.last_track += 1;
        TrackKey(self.last_track)
    }

    pub(crate) fn new_subscription(&mut self) -> SubscriptionKey {
        self.last_subscription += 1;
        SubscriptionKey(self.last_subscription)
    }

    /// A prefix and twelve random letters and digits (71 bits).
    pub(crate) fn new_uid(&mut self, prefix: &str) -> String {
        let mut uid = String::with_capacity(prefix.len() + 12);
        uid.push_str(prefix);
        self.push_random(&mut uid, 12);
        uid
    }

    /// Credentials with a unique user fragment: it starts with a number that
    /// no other transport has. The password has 190 random bits.
    pub(crate) fn new_credentials(&mut self) -> IceCredentials {
        let unique = self.new_transport();
        let mut ufrag = format!("{:x}", unique.0);
        ufrag.push('x');
        self.push_random(&mut ufrag, 6);
        let mut pwd = String::with_capacity(32);
        self.push_random(&mut pwd, 32);
        IceCredentials { ufrag, pwd }
    }

    /// Where the node is reached by these protocols, best first; none means all.
    pub(crate) fn candidates(&self, protocols: &[CandidateProtocol]) -> Vec<Candidate> {
        let usable = |candidate: &&Candidate| {
            protocols.is_empty() || protocols.contains(&candidate.protocol)
        };
        self.config.candidates.iter().filter(usable).copied().collect()
    }

    /// An SDP session id: below 2^62, as browsers want it.
    pub(crate) fn new_session_id(&mut self) -> u64 {
        self.random.random::<u64>() >> 2
    }

    pub(crate) fn new_ssrc(&mut self) -> u32 {
        self.random.random_range(1..u32::MAX / 2)
    }

    fn push_random(&mut self, text: &mut String, count: usize) {
        for _ in 0..count {
            text.push(char::from(ALPHABET[self.random.random_range(0..ALPHABET.len())]));
        }
    }
}
