//! A shard for tests: takes all outputs, keeps what each session was told and
//! what the shell was asked for, and checks on the way what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::media::{SubscriptionKey, SubscriptionTarget, TrackKey, TransportKey};
use headwater_model::{Epoch, Identity, ParticipantUid, Permission, RoomId, RoomUid, TrackUid};

use crate::*;

pub(super) struct World {
    pub(super) rooms: Rooms,
    pub(super) now: Instant,
    pub(super) sessions: BTreeMap<SessionKey, Told>,
    pub(super) media: Vec<MediaCommand>,
    pub(super) transports: BTreeSet<TransportKey>,
    pub(super) tracks: BTreeMap<TrackKey, TransportKey>,
    pub(super) subscriptions: BTreeMap<SubscriptionKey, Forwarded>,
    last_session: u64,
    /// Commands for links to other shards.
    pub(super) relayed: Vec<RelayCommand>,
}

/// What a session was told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) events: Vec<Event>,
    pub(super) is_over: bool,
    pub(super) was_abandoned: bool,
    versions: BTreeMap<ParticipantUid, u32>,
    known_tracks: BTreeSet<(ParticipantUid, TrackUid)>,
}

/// What is forwarded.
#[derive(Debug, Clone)]
pub(super) struct Forwarded {
    pub(super) track: TrackKey,
    pub(super) transport: TransportKey,
    pub(super) target: SubscriptionTarget,
    pub(super) mid: String,
}

pub(super) fn room_id() -> RoomId {
    RoomId::new("town-hall").unwrap()
}

pub(super) fn properties() -> RoomProperties {
    RoomProperties {
        uid: RoomUid::from_raw("RM_one"),
        metadata: String::new(),
        max_participants: 0,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        create_millis: 1,
        etag: "1".to_owned(),
    }
}

pub(super) fn join_request(identity: &str, mode: TransportMode) -> JoinRequest {
    JoinRequest {
        room: room_id(),
        epoch: Epoch(1),
        identity: Identity::new(identity).unwrap(),
        display_name: identity.to_uppercase(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permission: Permission::default(),
        door_payload: Arc::from(&b"door"[..]),
        auto_subscribe: true,
        adaptive_stream: false,
        transport_mode: mode,
        resume: None,
        uncounted: false,
        protocols: Vec::new(),
        properties: None,
        publish_codecs: Vec::new(),
        join_millis: 1000,
        fixed_sections: false,
        outlives_signalling: false,
        followed: Vec::new(),
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        Self::with_properties(limits, properties())
    }

    pub(super) fn with_properties(limits: Limits, properties: RoomProperties) -> Self {
        let candidate =
            |protocol, port| Candidate { protocol, address: ([192, 0, 2, 1], port).into() };
        let config = RoomsConfig {
            candidates: vec![
                candidate(CandidateProtocol::Udp, 7882),
                candidate(CandidateProtocol::Tcp, 7881),
            ],
            fingerprint: ["AB"; 32].join(":"),
            limits,
            timers: Timers::default(),
        };
        #[expect(clippy::disallowed_methods, reason = "a first instant; only differences matter")]
        let now = Instant::now();
        let mut rooms = Rooms::new(config, [7; 32], now);
        let assignment = RoomAssignment { id: room_id(), epoch: Epoch(1), properties };
        rooms.assign_room(now, assignment).unwrap();
        Self {
            rooms,
            now,
            sessions: BTreeMap::new(),
            media: Vec::new(),
            transports: BTreeSet::new(),
            tracks: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            last_session: 0,
            relayed: Vec::new(),
        }
    }

    pub(super) fn join(&mut self, request: JoinRequest) -> SessionKey {
        self.last_session += 1;
        let session = SessionKey(self.last_session);
        self.sessions.insert(session, Told::default());
        self.rooms.join(self.now, session, request);
        self.drain();
        session
    }

    pub(super) fn command(&mut self, session: SessionKey, command: Command) {
        self.rooms.handle_command(self.now, session, command);
        self.drain();
    }

    pub(super) fn media_event(&mut self, event: MediaEvent) {
        self.rooms.handle_media(self.now, event);
        self.drain();
    }

    pub(super) fn lose(&mut self, session: SessionKey) {
        self.rooms.session_lost(self.now, session);
        if let Some(told) = self.sessions.get_mut(&session) {
            told.is_over = true;
        }
        self.drain();
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.rooms.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.rooms.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.rooms.handle_timeout(end);
        self.drain();
    }

    pub(super) fn control(
        &mut self,
        identity: &str,
        action: ControlAction,
    ) -> Result<Arc<ParticipantView>, ControlError> {
        let identity = Identity::new(identity).unwrap();
        let command = ControlCommand { room: room_id(), identity, action };
        let result = self.rooms.handle_control(self.now, command);
        self.drain();
        result
    }

    /// Takes what a session was told since the last time.
    pub(super) fn take(&mut self, session: SessionKey) -> Vec<Event> {
        std::mem::take(&mut self.sessions.get_mut(&session).unwrap().events)
    }

    pub(super) fn report(&self) -> RoomReport {
        self.rooms.reports(self.now).pop().unwrap()
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.rooms.poll_output() {
            match output {
                Output::Event { session, event } => self.note_event(session, event),
                Output::Abandon { session } => {
                    let told = self.sessions.get_mut(&session).unwrap();
                    assert!(!told.is_over);
                    told.is_over = true;
                    told.was_abandoned = true;
                }
                Output::Media(command) => self.note_command(command),
                Output::Relay(command) => self.relayed.push(command),
            }
        }
    }

    fn note_event(&mut self, session: SessionKey, event: Event) {
        let told = self.sessions.get_mut(&session).unwrap();
        assert!(!told.is_over, "{session:?} is over and was told {event:?}");
        match &event {
            Event::Joined(joined) => {
                assert!(told.events.is_empty(), "the first event is the first");
                for view in joined.others.iter().chain([&joined.participant]) {
                    told.learn(view);
                }
            }
            Event::ParticipantsChanged(views) => {
                assert!(!views.is_empty());
                views.iter().for_each(|view| told.learn(view));
            }
            Event::Offer(description) | Event::Answer(description) => told.check_sdp(description),
            Event::Closed(_) => told.is_over = true,
            _ => {}
        }
        told.events.push(event);
    }

    fn note_command(&mut self, command: MediaCommand) {
        match &command {
            MediaCommand::OpenTransport { transport, credentials } => {
                assert!(self.transports.insert(*transport), "keys are not used again");
                assert!(credentials.ufrag.len() >= 4 && credentials.pwd.len() >= 22);
            }
            MediaCommand::CloseTransport { transport } => {
                assert!(self.transports.remove(transport));
                let left: Vec<_> =
                    self.tracks.iter().filter(|(_, owner)| *owner == transport).collect();
                assert!(left.is_empty(), "tracks end before their transport");
                let left = self.subscriptions.values().any(|it| it.transport == *transport);
                assert!(!left, "subscriptions end before their transport");
            }
            MediaCommand::Publish { transport, track, publication } => {
                assert!(self.transports.contains(transport));
                assert!(!publication.encodings.is_empty() && !publication.codecs.is_empty());
                self.tracks.insert(*track, *transport);
            }
            MediaCommand::Unpublish { track } => {
                assert!(self.tracks.remove(track).is_some());
                let left = self.subscriptions.values().any(|it| it.track == *track);
                assert!(!left, "subscriptions end before their track");
            }
            // Tracks of other shards are published over their links.
            MediaCommand::JoinFloor { .. } => {}
            MediaCommand::SetMuted { track, .. } => assert!(self.tracks.contains_key(track)),
            MediaCommand::Subscribe { subscription, track, transport, parameters } => {
                assert!(self.tracks.contains_key(track), "every subscription has a live track");
                assert!(self.transports.contains(transport));
                assert!(!parameters.codecs.is_empty());
                let forwarded = Forwarded {
                    track: *track,
                    transport: *transport,
                    target: SubscriptionTarget::BEST,
                    mid: parameters.mid.clone(),
                };
                let double = self.subscriptions.values().any(|it| {
                    it.transport == *transport && it.track == *track && it.mid != parameters.mid
                });
                assert!(!double, "a track is forwarded once");
                self.subscriptions.insert(*subscription, forwarded);
            }
            MediaCommand::Unsubscribe { subscription } => {
                assert!(self.subscriptions.remove(subscription).is_some());
            }
            MediaCommand::SetTarget { subscription, target } => {
                self.subscriptions.get_mut(subscription).unwrap().target = *target;
            }
            MediaCommand::SetProminence { subscription, .. } => {
                assert!(self.subscriptions.contains_key(subscription));
            }
            MediaCommand::SetRemote { transport, .. }
            | MediaCommand::RestartIce { transport, .. }
            | MediaCommand::OpenChannel { transport, .. }
            | MediaCommand::Send { transport, .. }
            | MediaCommand::LimitDownlink { transport, .. } => {
                assert!(self.transports.contains(transport));
            }
        }
        self.media.push(command);
    }

    /// Messages sent on a channel of a transport, which are taken.
    pub(super) fn take_sent(&mut self, to: TransportKey) -> Vec<(ChannelKey, Arc<[u8]>)> {
        let mut sent = Vec::new();
        self.media.retain(|command| match command {
            MediaCommand::Send { transport, channel, payload } if *transport == to => {
                sent.push((*channel, Arc::clone(payload)));
                false
            }
            _ => true,
        });
        sent
    }
}

impl Told {
    fn learn(&mut self, view: &ParticipantView) {
        let version = self.versions.entry(view.uid.clone()).or_default();
        assert!(view.version >= *version, "versions never fall");
        *version = view.version;
        for track in &view.tracks {
            self.known_tracks.insert((view.uid.clone(), track.uid.clone()));
        }
    }

    /// Whoever a description sends must have been announced before.
    fn check_sdp(&self, description: &SessionDescription) {
        for line in description.sdp.lines() {
            let Some(msid) = line.strip_prefix("a=msid:") else {
                continue;
            };
            let (stream, track) = msid.split_once(' ').unwrap();
            let Some((participant, of_stream)) = stream.split_once('|') else {
                // A fixed section names the viewer, not whom it shows.
                assert!(stream.starts_with("PA_"));
                continue;
            };
            assert_eq!(of_stream, track);
            let known = (ParticipantUid::from_raw(participant), TrackUid::from_raw(track));
            assert!(self.known_tracks.contains(&known), "{msid} was not announced before");
        }
    }
}
