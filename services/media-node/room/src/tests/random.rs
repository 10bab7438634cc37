//! Random sequences of everything that can come. The world checks on the way:
//! no event for a closed session, versions never fall, every subscription has a
//! live track, announcements come before SDP. Here too: nothing is left over,
//! and the same seed does the same.

use std::time::Duration;

use headwater_model::media::{Codec, MediaKind, SubscriptionKey, TrackKey, TransportKey};
use headwater_model::{Epoch, Permission, TrackUid};
use headwater_sdp::Direction;
use proptest::prelude::*;

use super::client::{Client, Section, camera, microphone};
use super::world::{World, join_request, room_id};
use crate::*;

const NAMES: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];

/// One thing that happens, with numbers that choose among what there is.
#[derive(Debug, Clone)]
struct Step {
    what: u8,
    who: u8,
    which: u8,
    how: u8,
}

fn step() -> impl Strategy<Value = Step> {
    (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(what, who, which, how)| Step {
        what,
        who,
        which,
        how,
    })
}

struct Story {
    world: World,
    clients: Vec<Client>,
    tracks: Vec<TrackUid>,
}

impl Story {
    fn new() -> Self {
        let limits = Limits { subscriptions: 5, prompt_participants: 3, ..Limits::default() };
        Self { world: World::with_limits(limits), clients: Vec::new(), tracks: Vec::new() }
    }

    fn act(&mut self, step: &Step) {
        let what = step.what % 48;
        if what < 3 || self.clients.is_empty() {
            self.join(step);
            return;
        }
        let who = usize::from(step.who) % self.clients.len();
        let session = self.clients[who].session;
        let flag = step.how.is_multiple_of(2);
        match what {
            3 | 4 => self.negotiate(who, step),
            5..=8 => self.answer(who),
            24..=29 => self.publish(who, step),
            30..=34 => self.renegotiate(who),
            35..=40 => self.media(step),
            41..=44 => self.world.pass(Duration::from_millis(160)),
            9 | 10 => {
                let id = format!("media-{}", step.which % 5);
                let request = if flag { microphone(&id) } else { camera(&id) };
                self.world.command(session, Command::AddTrack(request));
                self.learn_tracks(who);
            }
            11 => {
                let tracks = self.track(step).into_iter().collect();
                let update = SubscriptionUpdate { tracks, subscribe: flag };
                let command = if step.how.is_multiple_of(3) {
                    Command::UpdateDataSubscription(update)
                } else {
                    Command::UpdateSubscription(update)
                };
                self.world.command(session, command);
            }
            12 => {
                let settings = TrackSettings {
                    disabled: flag,
                    width: u32::from(step.which) * 8,
                    height: u32::from(step.how) * 8,
                    ..TrackSettings::default()
                };
                let tracks = self.track(step).into_iter().collect();
                let command = Command::UpdateTrackSettings { tracks, settings };
                self.world.command(session, command);
            }
            13 => {
                if let Some(track) = self.track(step) {
                    self.world.command(session, Command::MuteTrack { track, muted: flag });
                }
            }
            14 => {
                let permission = Permission {
                    can_subscribe: flag,
                    can_publish: step.how.is_multiple_of(3),
                    can_publish_data: step.how.is_multiple_of(5),
                    hidden: step.how.is_multiple_of(7),
                    ..Permission::default()
                };
                let update = ParticipantUpdate {
                    permission: Some(permission),
                    ..ParticipantUpdate::default()
                };
                let name = NAMES[usize::from(step.which) % NAMES.len()];
                let _ = self.world.control(name, ControlAction::Update(update));
            }
            15 => {
                let permission = if flag {
                    SubscriptionPermission::Everybody
                } else {
                    SubscriptionPermission::Only(vec![TrackPermission {
                        participant: None,
                        identity: Some(NAMES[usize::from(step.which) % NAMES.len()].to_owned()),
                        tracks: AllowedTracks::All,
                    }])
                };
                self.world.command(session, Command::SubscriptionPermission(permission));
            }
            16 => self.world.lose(session),
            17 => self.resume(who),
            18 => {
                let scenario = match step.how % 5 {
                    0 => Scenario::Speak { seconds: 1 },
                    1 => Scenario::NodeFailure,
                    2 => Scenario::FullReconnect,
                    3 => Scenario::OnlyProtocol(CandidateProtocol::Tcp),
                    _ => Scenario::SubscriberBandwidth(None),
                };
                self.world.command(session, Command::Simulate(scenario));
            }
            19 => {
                let command = Command::PublishDataTrack(PublishDataTrack {
                    handle: u32::from(step.which % 4),
                    display_name: format!("data-{}", step.how % 4),
                    door_payload: (&b""[..]).into(),
                });
                self.world.command(session, command);
                self.learn_tracks(who);
            }
            20 => self.world.command(session, Command::Leave { reason: CloseReason::ClientLeft }),
            21 | 22 => self.media(step),
            _ => {
                let millis = [5, 30, 200, 6_000, 31_000][usize::from(step.how) % 5];
                self.world.pass(Duration::from_millis(millis));
            }
        }
    }

    fn join(&mut self, step: &Step) {
        let name = NAMES[usize::from(step.which) % NAMES.len()];
        let mode =
            if step.how.is_multiple_of(2) { TransportMode::Single } else { TransportMode::Dual };
        let request =
            JoinRequest { auto_subscribe: !step.how.is_multiple_of(5), ..join_request(name, mode) };
        let mut client = Client::join_as(&mut self.world, request);
        client.sections.push(Section::data());
        client.sections.push(Section::receiving(MediaKind::Audio));
        client.sections.push(Section::receiving(MediaKind::Video));
        self.clients.push(client);
        if self.clients.len() > 8 {
            self.clients.remove(0);
        }
    }

    fn is_open(&self, who: usize) -> bool {
        !self.world.sessions[&self.clients[who].session].is_over
    }

    /// The client changes a section, or adds one, and offers.
    fn negotiate(&mut self, who: usize, step: &Step) {
        if !self.is_open(who) {
            return;
        }
        let client = &mut self.clients[who];
        let kind = if step.how.is_multiple_of(2) { MediaKind::Audio } else { MediaKind::Video };
        match step.which % 5 {
            0 => client.sections.push(Section::receiving(kind)),
            1 | 2 => {
                let id = format!("media-{}", step.how % 5);
                client.sections.push(Section::sending(kind, &id));
            }
            3 => {
                let index = usize::from(step.how) % client.sections.len();
                let section = &mut client.sections[index];
                if section.kind.is_some() {
                    section.direction = match section.direction {
                        Direction::Inactive => Direction::RecvOnly,
                        _ => Direction::Inactive,
                    };
                }
            }
            _ => client.ufrag = format!("frag-{}", step.how),
        }
        client.try_offer(&mut self.world);
    }

    /// The client announces a track, adds its section, and offers.
    fn publish(&mut self, who: usize, step: &Step) {
        let id = format!("media-{}", step.which % 12);
        let request = if step.how.is_multiple_of(2) { microphone(&id) } else { camera(&id) };
        let kind = request.kind.unwrap();
        self.world.command(self.clients[who].session, Command::AddTrack(request));
        self.learn_tracks(who);
        if self.is_open(who) {
            let client = &mut self.clients[who];
            client.sections.push(Section::sending(kind, &id));
            client.try_offer(&mut self.world);
        }
    }

    /// The client offers as it is asked to: with the sections that it lacks.
    fn renegotiate(&mut self, who: usize) {
        if !self.is_open(who) {
            return;
        }
        let client = &mut self.clients[who];
        for event in self.world.take(client.session) {
            if let Event::MediaSectionsNeeded { audio, video } = event {
                let audio = (0..audio).map(|_| Section::receiving(MediaKind::Audio));
                client.sections.extend(audio);
                let video = (0..video).map(|_| Section::receiving(MediaKind::Video));
                client.sections.extend(video);
            }
        }
        client.try_offer(&mut self.world);
    }

    fn answer(&mut self, who: usize) {
        if self.is_open(who) {
            self.clients[who].answer(&mut self.world);
        }
    }

    fn resume(&mut self, who: usize) {
        let client = &mut self.clients[who];
        let request = JoinRequest {
            resume: Some(client.uid.clone()),
            ..join_request(&client.identity, client.mode)
        };
        let session = self.world.join(request);
        if !self.world.sessions[&session].is_over {
            client.session = session;
        }
    }

    fn track(&self, step: &Step) -> Option<TrackUid> {
        let which = usize::from(step.which) % (self.tracks.len() + 1);
        Some(self.tracks.get(which).cloned().unwrap_or_else(|| TrackUid::from_raw("TR_none")))
    }

    fn learn_tracks(&mut self, who: usize) {
        let session = self.clients[who].session;
        match self.world.sessions[&session].events.last() {
            Some(Event::TrackAdded { track, .. }) => self.tracks.push(track.uid.clone()),
            Some(Event::DataTrackPublished(view)) => self.tracks.push(view.uid.clone()),
            _ => {}
        }
    }

    /// Something happens to a transport or track, there or not.
    fn media(&mut self, step: &Step) {
        let which = usize::from(step.which);
        let transports: Vec<TransportKey> = self.world.transports.iter().copied().collect();
        let tracks: Vec<TrackKey> = self.world.tracks.keys().copied().collect();
        // Now and then one that is not there.
        let transport = transports.get(which % (transports.len() + 1)).copied();
        let transport = transport.unwrap_or(TransportKey(9999));
        let track = tracks.get(which % (tracks.len() + 1)).copied();
        let track = track.unwrap_or(TrackKey(9999));
        let channel = ChannelKey(u32::from(step.how) % 4);
        let labels = ["_reliable", "_lossy", "_data_track", "own"];
        let event = match step.how % 9 {
            0 | 1 => MediaEvent::TransportConnected { transport },
            2 => MediaEvent::TransportFailed { transport, recoverable: step.who > 60 },
            3 | 4 => MediaEvent::ChannelOpen {
                transport,
                channel,
                label: labels[usize::from(step.who) % 4].to_owned(),
                reliability: ChannelReliability::Reliable,
            },
            5 => {
                let payload = vec![0x12, 2, step.who, step.which, 0x80, 1, step.how];
                MediaEvent::ChannelMessage { transport, channel, payload }
            }
            6 => MediaEvent::TrackStarted { track, codec: Codec::H264 },
            7 => MediaEvent::SpeakerLevel { track, level: f32::from(step.who), active: true },
            _ => MediaEvent::Quality {
                subject: QualitySubject::Track(track),
                loss_ratio: f32::from(step.who) / 255.0,
                rtt: None,
                jitter: Duration::ZERO,
                limitation: Limitation::None,
            },
        };
        self.world.media_event(event);
    }

    /// Everything ends: nothing may be left.
    fn end(&mut self) {
        self.world.rooms.release_room(
            self.world.now,
            &room_id(),
            Epoch(9),
            CloseReason::RoomDeleted,
        );
        self.world.drain();
        assert!(self.world.transports.is_empty());
        assert!(self.world.tracks.is_empty());
        let left: Vec<&SubscriptionKey> = self.world.subscriptions.keys().collect();
        assert!(left.is_empty());
        assert_eq!(self.world.rooms.participant_count(), 0);
    }
}

fn play(steps: &[Step]) -> Vec<(SessionKey, usize)> {
    let mut story = Story::new();
    for step in steps {
        story.act(step);
        story.check();
    }
    story.end();
    let sessions = story.world.sessions.iter();
    sessions.map(|(session, told)| (*session, told.events.len())).collect()
}

impl Story {
    /// What the forwarding core was told is what the room believes.
    fn check(&self) {
        let listed = self.world.rooms.list_participants(&room_id()).unwrap();
        for view in &listed {
            let one = self.world.rooms.test_participant(&view.uid).unwrap();
            assert!(one.subscriptions.len() <= 5);
            for (track, subscription) in &one.subscriptions {
                assert!(self.world.tracks.contains_key(track), "a live track");
                let live = matches!(subscription.stage, crate::participant::Stage::Live { .. });
                assert_eq!(live, self.world.subscriptions.contains_key(&subscription.key));
            }
        }
        if !listed.is_empty() {
            assert_eq!(self.world.report().empty_for, Duration::ZERO);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_rooms_stay_whole(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let first = play(&steps);
        let second = play(&steps);
        prop_assert_eq!(first, second, "the same does the same");
    }
}
