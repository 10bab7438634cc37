//! One participant's conversation, sans-IO: LiveKit requests in, session
//! requests out, session events in, LiveKit responses out. It remembers only
//! what LiveKit's answers must repeat. Call a `handle_*`, then drain
//! [`Interpreter::poll_output`] until it is empty.

use std::collections::{BTreeMap, VecDeque};

use headwater_model::grants::{Grants, Permission};
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use livekit_protocol as lk;
use lk::request_response::{Reason, Request as Refused};
use lk::signal_request::Message as Request;
use lk::signal_response::Message as ToClient;

use super::leave::leave_for;
use super::simulate::{ResumeTrial, Scenario, scenario};
use super::{event, info, payload, request};
use crate::grants::{permission_of, wire_permission};

/// Requests of each kind whose refusal may have to repeat them. At the bound
/// the oldest is forgotten and its refusal repeats its key only.
const REMEMBERED_MAX: usize = 32;

/// Own tracks whose payload is remembered. Above it features cannot be changed.
const OWN_TRACKS_MAX: usize = 256;

/// What the shell is to do next.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "outputs are taken at once, and few wait")]
pub(crate) enum Output {
    /// Send this to the node.
    ToNode(ToNode),
    /// Send this to the client.
    ToClient(ToClient),
    /// What the token says changed: send the client a fresh one.
    RefreshToken,
    /// Treat the participant's next resumes so, for a test.
    TryResumes(ResumeTrial),
    /// The client left; `ToNode(Leave)` has been handed out before.
    ClientLeft,
    /// The node closed the session; the leave message has been handed out before.
    Closed(node::Closed),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Interpreter {
    protocol: i32,
    mode: node::TransportMode,
    codecs: Vec<String>,
    uid: String,
    grants: Grants,
    permission: Permission,
    add_tracks: Remembered<String, lk::AddTrackRequest>,
    self_updates: Remembered<u32, lk::UpdateParticipantMetadata>,
    data_tracks: Remembered<u32, Refused>,
    own_payloads: BTreeMap<String, Vec<u8>>,
    output: VecDeque<Output>,
}

/// What an interpreter must know of its participant.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    /// Protocol number of the client.
    pub(crate) protocol: i32,
    /// How many transports it uses.
    pub(crate) mode: node::TransportMode,
    /// Codecs it may publish.
    pub(crate) codecs: Vec<String>,
    /// Its token.
    pub(crate) grants: Grants,
}

impl Interpreter {
    pub(crate) fn new(speaker: Speaker, own: &node::Participant) -> Self {
        let permission = speaker.grants.permission.clone();
        let mut interpreter = Self {
            protocol: speaker.protocol,
            mode: speaker.mode,
            codecs: speaker.codecs,
            uid: own.uid.clone(),
            grants: speaker.grants,
            permission,
            add_tracks: Remembered::default(),
            self_updates: Remembered::default(),
            data_tracks: Remembered::default(),
            own_payloads: BTreeMap::new(),
            output: VecDeque::new(),
        };
        interpreter.note_self(own);
        interpreter.output.clear();
        interpreter
    }

    /// What the participant's token should say now.
    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Takes one request of the client. `now_unix_millis` goes into pongs.
    pub(crate) fn handle_request(&mut self, message: Request, now_unix_millis: i64) {
        match message {
            Request::Offer(offer) => self.ask_node(ToNode::Offer(request::offer(offer))),
            Request::Answer(answer) => self.answer(answer),
            // The node is ICE-lite and learns clients' addresses from their checks.
            Request::Trickle(_) => {}
            Request::AddTrack(add) => self.add_track(add),
            Request::Mute(mute) => self.ask_node(ToNode::MuteTrack(request::mute(mute))),
            Request::Subscription(update) => {
                self.ask_node(ToNode::UpdateSubscription(request::subscription(update)));
            }
            Request::TrackSetting(settings) => {
                self.ask_node(ToNode::UpdateTrackSettings(request::track_settings(settings)));
            }
            Request::Leave(_) => {
                let reason = node::CloseReason::ClientLeft.into();
                self.ask_node(ToNode::Leave(node::Leave { reason }));
                self.output.push_back(Output::ClientLeft);
            }
            #[expect(deprecated, reason = "older clients send it")]
            Request::UpdateLayers(update) => {
                self.ask_node(ToNode::UpdateTrack(request::update_layers(&update)));
            }
            Request::SubscriptionPermission(permission) => self.ask_node(
                ToNode::SubscriptionPermission(request::subscription_permission(permission)),
            ),
            Request::SyncState(state) => {
                self.ask_node(ToNode::SyncState(request::sync_state(state)));
            }
            Request::Simulate(simulation) => self.simulate(&simulation),
            Request::Ping(_) => self.tell_client(ToClient::Pong(now_unix_millis)),
            Request::PingReq(ping) => self.tell_client(ToClient::PongResp(lk::Pong {
                last_ping_timestamp: ping.timestamp,
                timestamp: now_unix_millis,
            })),
            Request::UpdateMetadata(update) => {
                self.ask_node(ToNode::UpdateSelf(request::update_self(&update)));
                self.self_updates.insert(update.request_id, update);
            }
            Request::UpdateAudioTrack(update) => self.update_audio(update),
            Request::UpdateVideoTrack(update) => {
                self.ask_node(ToNode::UpdateTrack(request::update_video(update)));
            }
            Request::PublishDataTrackRequest(publish) => {
                self.ask_node(ToNode::PublishDataTrack(request::publish_data_track(&publish)));
                self.data_tracks.insert(publish.pub_handle, Refused::PublishDataTrack(publish));
            }
            Request::UnpublishDataTrackRequest(unpublish) => {
                let handle = unpublish.pub_handle;
                self.ask_node(ToNode::UnpublishDataTrack(node::UnpublishDataTrack { handle }));
                self.data_tracks.insert(handle, Refused::UnpublishDataTrack(unpublish));
            }
            Request::UpdateDataSubscription(update) => {
                for update in request::data_subscription(update) {
                    self.ask_node(ToNode::UpdateDataSubscription(update));
                }
            }
            Request::StoreDataBlobRequest(store) => self.refuse_blob(store.request_id),
            Request::GetDataBlobRequest(get) => self.refuse_blob(get.request_id),
        }
    }

    /// Takes one event of the node.
    pub(crate) fn handle_event(&mut self, event: Event) {
        match event {
            // The first is ever first, which the shell has dealt with; these clients
            // restart ICE by offers.
            Event::Joined(_) | Event::IceRestarted(_) => {}
            Event::Offer(offer) => {
                self.tell_client(ToClient::Offer(event::session_description(offer, "offer")));
            }
            Event::Answer(answer) => {
                self.tell_client(ToClient::Answer(event::session_description(answer, "answer")));
            }
            Event::TrackAdded(added) => self.track_added(added),
            Event::RequestResult(result) => self.request_result(result),
            Event::ParticipantsChanged(changed) => self.participants_changed(&changed),
            Event::RoomChanged(changed) => {
                let room = changed.room.map(|room| info::room(&room, &self.codecs));
                if room.is_some() {
                    self.tell_client(ToClient::RoomUpdate(lk::RoomUpdate { room }));
                }
            }
            Event::SpeakersChanged(changed) => {
                self.tell_client(ToClient::SpeakersChanged(event::speakers(changed)));
            }
            Event::QualityChanged(changed) => {
                let update = event::quality(changed, self.protocol);
                self.tell_client(ToClient::ConnectionQuality(update));
            }
            Event::StreamStateChanged(changed) => {
                self.tell_client(ToClient::StreamStateUpdate(event::stream_states(changed)));
            }
            Event::LayerDemand(demand) => {
                self.tell_client(ToClient::SubscribedQualityUpdate(event::layer_demand(demand)));
            }
            Event::MediaSectionsNeeded(needed) => {
                self.tell_client(ToClient::MediaSectionsRequirement(event::media_sections(needed)));
            }
            Event::TrackSubscribed(subscribed) => {
                let track_sid = subscribed.track_uid;
                self.tell_client(ToClient::TrackSubscribed(lk::TrackSubscribed { track_sid }));
            }
            Event::SubscriptionAllowed(allowed) => self.tell_client(
                ToClient::SubscriptionPermissionUpdate(event::subscription_allowed(allowed)),
            ),
            Event::MuteTrack(mute) => self.tell_client(ToClient::Mute(lk::MuteTrackRequest {
                sid: mute.track_uid,
                muted: mute.muted,
            })),
            Event::TrackRemoved(removed) => {
                self.own_payloads.remove(&removed.track_uid);
                let track_sid = removed.track_uid;
                self.tell_client(ToClient::TrackUnpublished(lk::TrackUnpublishedResponse {
                    track_sid,
                }));
            }
            Event::SubscriptionFailed(failed) => {
                self.tell_client(ToClient::SubscriptionResponse(event::subscription_failed(
                    failed,
                )));
            }
            Event::DataTrackPublished(published) => {
                if let Some(track) = published.track {
                    self.data_tracks.remove(&track.handle);
                    let info = Some(info::data_track(&track));
                    self.tell_client(ToClient::PublishDataTrackResponse(
                        lk::PublishDataTrackResponse { info },
                    ));
                }
            }
            Event::DataTrackUnpublished(unpublished) => {
                if let Some(track) = unpublished.track {
                    self.data_tracks.remove(&track.handle);
                    let info = Some(info::data_track(&track));
                    self.tell_client(ToClient::UnpublishDataTrackResponse(
                        lk::UnpublishDataTrackResponse { info },
                    ));
                }
            }
            Event::DataTrackHandles(handles) => {
                let handles = event::data_track_handles(handles);
                self.tell_client(ToClient::DataTrackSubscriberHandles(handles));
            }
            Event::Closed(closed) => {
                if let Some(leave) = leave_for(self.protocol, &closed) {
                    self.tell_client(ToClient::Leave(leave));
                }
                self.output.push_back(Output::Closed(closed));
            }
        }
    }

    fn ask_node(&mut self, request: ToNode) {
        self.output.push_back(Output::ToNode(request));
    }

    fn tell_client(&mut self, message: ToClient) {
        self.output.push_back(Output::ToClient(message));
    }

    /// A client with one transport is never offered anything.
    fn answer(&mut self, answer: lk::SessionDescription) {
        if self.mode == node::TransportMode::Dual {
            self.ask_node(ToNode::Answer(request::answer(answer)));
        }
    }

    fn add_track(&mut self, add: lk::AddTrackRequest) {
        match request::add_track(&add) {
            Some(translated) => {
                self.ask_node(ToNode::AddTrack(translated));
                self.add_tracks.insert(add.cid.clone(), add);
            }
            None => self.respond(0, Reason::UnsupportedType, "", Some(Refused::AddTrack(add))),
        }
    }

    fn update_audio(&mut self, update: lk::UpdateLocalAudioTrack) {
        // A track that is not ours, or one too many: nothing to change.
        if let Some(stored) = self.own_payloads.get(&update.track_sid) {
            let door_payload = payload::with_audio_features(stored, &update.features);
            self.own_payloads.insert(update.track_sid.clone(), door_payload.clone());
            self.ask_node(ToNode::UpdateTrack(node::UpdateTrack {
                track_uid: update.track_sid,
                door_payload,
                ..Default::default()
            }));
        }
    }

    fn simulate(&mut self, simulation: &lk::SimulateScenario) {
        match scenario(simulation) {
            Some(Scenario::Node(simulate)) => self.ask_node(ToNode::Simulate(simulate)),
            Some(Scenario::Gateway(trial)) => self.output.push_back(Output::TryResumes(trial)),
            None => {}
        }
    }

    /// Storing blobs is off, as it is by default in LiveKit's server.
    fn refuse_blob(&mut self, request_id: u32) {
        self.respond(request_id, Reason::NotAllowed, "data blobs are not stored here", None);
    }

    fn respond(
        &mut self,
        request_id: u32,
        reason: Reason,
        message: &str,
        refused: Option<Refused>,
    ) {
        self.tell_client(ToClient::RequestResponse(lk::RequestResponse {
            request_id,
            reason: i32::from(reason),
            message: message.to_owned(),
            request: refused,
        }));
    }

    fn track_added(&mut self, added: node::TrackAdded) {
        // TrackPublished without a track crashes some clients.
        let Some(track) = added.track else { return };
        self.add_tracks.remove(&added.client_track_id);
        self.note_track(&track);
        self.tell_client(ToClient::TrackPublished(lk::TrackPublishedResponse {
            cid: added.client_track_id,
            track: Some(info::track(&track)),
        }));
    }

    fn request_result(&mut self, result: node::RequestResult) {
        let outcome = result.outcome();
        let reason = event::reason(outcome);
        let queued = outcome == node::RequestOutcome::Queued;
        if !result.client_track_id.is_empty() {
            let cid = result.client_track_id;
            // A queued request is answered again, by its track or by a refusal.
            let add = if queued { self.add_tracks.get(&cid) } else { self.add_tracks.remove(&cid) };
            let add = add.unwrap_or(lk::AddTrackRequest { cid, ..Default::default() });
            return self.respond(0, reason, &result.message, Some(Refused::AddTrack(add)));
        }
        if result.data_track_handle != 0 {
            let refused = self.data_tracks.remove(&result.data_track_handle);
            return self.respond(0, reason, &result.message, refused);
        }
        let update = self.self_updates.remove(&result.request_id);
        // Older clients take any response for a refusal.
        if outcome == node::RequestOutcome::Done && self.protocol <= 14 {
            return;
        }
        let refused = update.map(Refused::UpdateMetadata);
        self.respond(result.request_id, reason, &result.message, refused);
    }

    fn participants_changed(&mut self, changed: &node::ParticipantsChanged) {
        for update in event::participant_updates(&changed.participants) {
            self.tell_client(ToClient::Update(update));
        }
        let own = changed.participants.iter().find(|participant| participant.uid == self.uid);
        if let Some(own) = own.cloned() {
            self.note_self(&own);
        }
    }

    /// Keeps the token in step with what the participant is and may do.
    fn note_self(&mut self, own: &node::Participant) {
        if own.phase() == node::ParticipantPhase::Left {
            return;
        }
        for track in &own.tracks {
            self.note_track(track);
        }
        let permission = match &own.permission {
            Some(wire) => permission_of(wire),
            None => self.permission.clone(),
        };
        let attributes: BTreeMap<String, String> = own.attributes.clone().into_iter().collect();
        let changed = wire_permission(&permission) != wire_permission(&self.permission)
            || own.display_name != self.grants.display_name
            || own.metadata != self.grants.metadata
            || attributes != self.grants.attributes;
        if changed {
            self.permission = permission.clone();
            self.grants.permission = permission;
            self.grants.display_name = own.display_name.clone();
            self.grants.metadata = own.metadata.clone();
            self.grants.attributes = attributes;
            self.output.push_back(Output::RefreshToken);
        }
    }

    fn note_track(&mut self, track: &node::Track) {
        let uid = track.track.as_ref().map(|track| track.uid.clone()).unwrap_or_default();
        if self.own_payloads.len() < OWN_TRACKS_MAX || self.own_payloads.contains_key(&uid) {
            self.own_payloads.insert(uid, track.door_payload.clone());
        }
    }
}

/// A small map that forgets its oldest entry at [`REMEMBERED_MAX`].
#[derive(Debug)]
struct Remembered<K, V> {
    entries: VecDeque<(K, V)>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<K: PartialEq, V: Clone> Remembered<K, V> {
    fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        if self.entries.len() >= REMEMBERED_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((key, value));
    }

    fn get(&self, key: &K) -> Option<V> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.entries.iter().position(|(known, _)| known == key)?;
        self.entries.remove(index).map(|(_, value)| value)
    }
}
