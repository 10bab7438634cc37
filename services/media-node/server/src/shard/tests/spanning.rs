//! One room on several shards, each with its own thread and sockets: in one process, and
//! on two nodes over QUIC. Clients join, negotiate and send as real ones do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::media::{MediaKind, TrackSource};
use headwater_model::{Epoch, Identity, NodeId, Permission, RoomId, RoomUid, ShardIndex};
use headwater_relay::{Peer as Relay, PlanSlice, QuicConfig, QuicLinks, ShardAddress, Switchboard};
use headwater_room::{
    AddTrack, Candidate, CandidateProtocol, CloseReason, Command, Event, JoinRequest, Limits,
    ParticipantPhase, ParticipantView, RoomAssignment, RoomProperties, RoomsConfig,
    SessionDescription, SessionKey, Timers, TrackCodec, TransportKind, TransportMode,
};
use headwater_telemetry::Metrics;
use headwater_transport::{DtlsIdentity, IceCredentials};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::mpsc;

use super::peer::Peer;
use crate::shard::{
    Ports, PortsConfig, RelayWiring, ShardCommand, ShardConfig, ShardHandle, spawn,
};
use crate::wire::Part;

const VIDEO_SSRC: u32 = 0x2222;
const NAME: &str = "headwater-media-node";
const PATIENCE: Duration = Duration::from_secs(15);

/// A shard with its thread.
struct Site {
    me: ShardAddress,
    handle: ShardHandle,
    fingerprint: String,
    relay_address: Option<std::net::SocketAddr>,
}

impl Site {
    fn start(node: &str, shard: u16, switchboard: &Switchboard, quic: Option<QuicLinks>) -> Self {
        Self::with((node, shard), switchboard, quic, (Limits::default(), Timers::default()))
    }

    fn with(
        (node, shard): (&str, u16),
        switchboard: &Switchboard,
        quic: Option<QuicLinks>,
        (limits, timers): (Limits, Timers),
    ) -> Self {
        let config = PortsConfig { ip: Ipv4Addr::LOCALHOST.into(), udp: 0, tcp: None };
        let ports = Ports::bind(&config).unwrap();
        let identity = DtlsIdentity::generate().unwrap();
        let fingerprint = identity.fingerprint().to_owned();
        let address = ports.udp_address();
        let me = ShardAddress { node: NodeId::new(node).unwrap(), shard: ShardIndex(shard) };
        let relay_address = quic.as_ref().map(|quic| quic.local_address().unwrap());
        let config = ShardConfig {
            index: me.shard,
            core: None,
            rooms: RoomsConfig {
                candidates: vec![Candidate { protocol: CandidateProtocol::Udp, address }],
                fingerprint: fingerprint.clone(),
                limits,
                timers,
            },
            identity,
            // Uids are drawn from it, and must differ everywhere.
            seed: [node.as_bytes()[0].wrapping_add(shard as u8); 32],
            wall_clock: Duration::from_secs(1_700_000_000),
            metrics: Arc::clone(Metrics::new().node()),
            relay: RelayWiring {
                me: me.clone(),
                boot: 7,
                switchboard: switchboard.clone(),
                quic,
                neighbours: Arc::default(),
            },
        };
        let (handle, _) = spawn(config, ports).unwrap();
        Self { me, handle, fingerprint, relay_address }
    }

    fn send(&self, command: ShardCommand) {
        self.handle.commands.blocking_send(command).unwrap_or_else(|_| panic!("it has stopped"));
        self.handle.waker.wake();
    }
}

fn room() -> RoomId {
    RoomId::new("hall").unwrap()
}

/// Gives a room to shards: the first is the home, the others get it from there.
fn assign(sites: &[Site]) {
    let relay = |(rank, site): (usize, &Site)| Relay {
        address: site.me.clone(),
        rank: u32::try_from(rank).unwrap(),
        relay_address: site.relay_address,
    };
    let peers: Vec<Relay> = sites.iter().enumerate().map(relay).collect();
    for (rank, site) in sites.iter().enumerate() {
        let slice = PlanSlice {
            epoch: Epoch(1),
            rank: peers[rank].rank,
            parent: (rank > 0).then(|| peers[0].clone()),
            backups: Vec::new(),
            children: if rank == 0 { peers[1..].to_vec() } else { Vec::new() },
            backup_children: Vec::new(),
        };
        let properties = RoomProperties {
            uid: RoomUid::from_raw("RM_hall".to_owned()),
            metadata: String::new(),
            max_participants: 0,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            create_millis: 0,
            etag: String::new(),
        };
        let assignment = RoomAssignment { id: room(), epoch: Epoch(1), properties };
        let part = Part { slice, seats: None };
        site.send(ShardCommand::Assign { room: Box::new(assignment), part: Box::new(part) });
    }
}

/// A client with its session.
struct Member {
    identity: String,
    session: SessionKey,
    events: mpsc::Receiver<Event>,
    peer: Peer,
    /// Who else is there, as last told.
    others: BTreeMap<String, Arc<ParticipantView>>,
    offers: Vec<SessionDescription>,
    answers: Vec<SessionDescription>,
    closed: Option<CloseReason>,
    /// How many are in the room, as last told.
    people: u32,
    begun: bool,
    frames: u32,
}

impl Member {
    fn join(site: &Site, number: u32, identity: &str, mode: TransportMode) -> Self {
        Self::join_as(site, (number, identity), mode, Permission::default())
    }

    fn join_as(
        site: &Site,
        (number, identity): (u32, &str),
        mode: TransportMode,
        permission: Permission,
    ) -> Self {
        let (sender, events) = mpsc::channel(1_024);
        let request = JoinRequest {
            room: room(),
            epoch: Epoch(1),
            identity: Identity::new(identity).unwrap(),
            display_name: identity.to_owned(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            permission,
            door_payload: Arc::from(&b""[..]),
            auto_subscribe: true,
            adaptive_stream: false,
            transport_mode: mode,
            resume: None,
            uncounted: false,
            protocols: Vec::new(),
            properties: None,
            publish_codecs: Vec::new(),
            join_millis: u64::from(number),
            fixed_sections: false,
            outlives_signalling: false,
            followed: Vec::new(),
        };
        let session = SessionKey(u64::from(number));
        site.send(ShardCommand::Join { session, request: Box::new(request), events: sender });
        Self {
            identity: identity.to_owned(),
            session,
            events,
            peer: Peer::new(number),
            others: BTreeMap::new(),
            offers: Vec::new(),
            answers: Vec::new(),
            closed: None,
            people: 0,
            begun: false,
            frames: 0,
        }
    }

    fn command(&self, site: &Site, command: Command) {
        let command = Box::new(command);
        site.send(ShardCommand::Command { session: self.session, command });
    }

    /// Takes what it is told, and does what a client does then.
    fn work(&mut self, site: &Site) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Joined(joined) => {
                    self.people = joined.room.participant_count;
                    self.note(&joined.others);
                }
                Event::RoomChanged(room) => self.people = room.participant_count,
                Event::ParticipantsChanged(views) => self.note(&views),
                Event::Offer(offer) => {
                    self.begin(site, &offer.sdp);
                    let answer =
                        SessionDescription { sdp: self.answer_to(&offer.sdp), ..offer.clone() };
                    self.offers.push(offer);
                    self.command(site, Command::Answer(answer));
                }
                Event::Answer(answer) => {
                    self.begin(site, &answer.sdp);
                    self.answers.push(answer);
                }
                Event::Closed(closed) => self.closed = Some(closed.reason),
                _ => {}
            }
        }
        self.peer.work();
    }

    fn note(&mut self, views: &[Arc<ParticipantView>]) {
        // Everybody is told of itself too.
        for view in views.iter().filter(|view| view.identity.as_str() != self.identity) {
            self.others.insert(view.identity.as_str().to_owned(), Arc::clone(view));
        }
    }

    fn begin(&mut self, site: &Site, sdp: &str) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let attribute = |name: &str| {
            let line = sdp.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().to_owned()
        };
        let (ufrag, pwd) = (attribute("a=ice-ufrag:"), attribute("a=ice-pwd:"));
        let server = IceCredentials { ufrag, pwd };
        self.peer.begin(site.handle.udp, &site.fingerprint, server);
    }

    fn transport_lines(&self, setup: &str) -> String {
        let own = self.peer.parameters();
        format!(
            "a=setup:{setup}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n",
            own.credentials.ufrag, own.credentials.pwd, own.fingerprint
        )
    }

    fn answer_to(&self, offer: &str) -> String {
        let dropped = ["a=candidate", "a=end-of", "a=ssrc", "a=msid:", "a=ice-", "a=fingerprint"];
        let kept: String = offer
            .split_inclusive("\r\n")
            .filter(|line| !dropped.iter().any(|start| line.starts_with(start)))
            .collect();
        kept.replace("a=sendonly", "a=recvonly")
            .replace("a=setup:actpass\r\n", &self.transport_lines("active"))
    }

    /// Announces a camera and offers it.
    fn publish(&self, site: &Site) {
        self.command(site, Command::AddTrack(camera()));
        let sdp = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\n{}a=mid:0\r\n\
             a=sendonly\r\na=msid:- cam\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
             a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\n\
             a=fmtp:97 apt=96\r\na=ssrc:{VIDEO_SSRC} cname:ada\r\n",
            self.transport_lines("actpass")
        );
        let offer = SessionDescription {
            transport: TransportKind::Publisher,
            sdp,
            offer_id: 1,
            track_uid_by_mid: BTreeMap::new(),
        };
        self.command(site, Command::Offer(offer));
    }
}

fn camera() -> AddTrack {
    AddTrack {
        client_track_id: "cam".to_owned(),
        kind: Some(MediaKind::Video),
        source: TrackSource::Camera,
        display_name: "cam".to_owned(),
        muted: false,
        width: 640,
        height: 360,
        layers: Vec::new(),
        codecs: vec![TrackCodec {
            mime_type: "video/vp8".to_owned(),
            client_track_id: "cam".to_owned(),
        }],
        stereo: false,
        disable_red: false,
        disable_dtx: false,
        track: None,
        encrypted: false,
        stream: String::new(),
        door_payload: Arc::from(&b""[..]),
    }
}

/// Everybody with the site they are at, working until something holds.
fn run(members: &mut [(Member, &Site)], what: &str, done: impl Fn(&[(Member, &Site)]) -> bool) {
    let limit = Instant::now() + PATIENCE;
    loop {
        for (member, site) in members.iter_mut() {
            member.work(site);
        }
        if done(members) {
            return;
        }
        assert!(Instant::now() < limit, "{what}");
        // The publisher sends thirty pictures a second, as soon as it can.
        let (publisher, _) = &mut members[0];
        if publisher.peer.connected {
            publisher.peer.send_frame(VIDEO_SSRC, 96, publisher.frames);
            publisher.frames += 1;
        }
        std::thread::sleep(Duration::from_millis(33));
    }
}

/// The story of a speaker and viewers on shards that share a room.
fn seen_everywhere(sites: &[Site]) {
    assign(sites);
    let home = &sites[0];
    let ada = Member::join(home, 1, "ada", TransportMode::Single);
    ada.publish(home);
    let mut members = vec![(ada, home)];
    for (number, site) in (2..).zip(&sites[1..]) {
        let name = format!("viewer{number}");
        members.push((Member::join(site, number, &name, TransportMode::Dual), site));
    }
    let count = members.len();
    run(&mut members, "everybody is shown to everybody", |members| {
        members.iter().all(|(member, _)| member.others.len() == count - 1)
    });
    run(&mut members, "pictures arrive everywhere", |members| {
        members[1..].iter().all(|(member, _)| member.peer.packets() > 90)
    });
    let track = members[1].0.others["ada"].tracks[0].uid.clone();
    members[0].0.command(home, Command::MuteTrack { track, muted: true });
    run(&mut members, "everybody is told that it is muted", |members| {
        members[1..].iter().all(|(member, _)| member.others["ada"].tracks[0].muted)
    });
    members[0].0.command(home, Command::Leave { reason: CloseReason::ClientLeft });
    run(&mut members, "everybody is told that it left", |members| {
        let left =
            |member: &Member| matches!(member.others["ada"].phase, ParticipantPhase::Left(_));
        members[1..].iter().all(|(member, _)| left(member))
    });
}

#[test]
fn a_speaker_on_one_shard_is_seen_on_another_of_the_same_node() {
    let switchboard = Switchboard::default();
    let sites: Vec<Site> =
        (0..2).map(|shard| Site::start("node", shard, &switchboard, None)).collect();
    seen_everywhere(&sites);
}

#[test]
fn who_joins_again_on_another_shard_is_there_once() {
    let switchboard = Switchboard::default();
    let sites: Vec<Site> =
        (0..2).map(|shard| Site::start("node", shard, &switchboard, None)).collect();
    assign(&sites);
    let ada = Member::join(&sites[0], 1, "ada", TransportMode::Single);
    let ben = Member::join(&sites[0], 2, "ben", TransportMode::Dual);
    let cleo = Member::join(&sites[1], 3, "cleo", TransportMode::Dual);
    let mut members = vec![(ada, &sites[0]), (ben, &sites[0]), (cleo, &sites[1])];
    run(&mut members, "all are shown to all", |members| {
        members.iter().all(|(member, _)| member.others.len() == 2)
    });
    let before = members[2].0.others["ben"].uid.clone();
    members.push((Member::join(&sites[1], 4, "ben", TransportMode::Dual), &sites[1]));
    run(&mut members, "the older one is closed and the newer one is shown", |members| {
        let newer = |member: &Member| {
            let ben = &member.others["ben"];
            ben.uid != before && !matches!(ben.phase, ParticipantPhase::Left(_))
        };
        members[1].0.closed == Some(CloseReason::DuplicateIdentity)
            && newer(&members[0].0)
            && newer(&members[2].0)
    });
    assert_eq!(members[3].0.closed, None);
}

#[test]
fn an_audience_over_shards_is_counted_and_an_identity_in_it_is_there_once() {
    let switchboard = Switchboard::default();
    let limits = || Limits { listed_viewers: 1, ..Limits::default() };
    let timers = || Timers { room_changes: Duration::from_millis(200), ..Timers::default() };
    let sites: Vec<Site> = (0..2)
        .map(|shard| Site::with(("node", shard), &switchboard, None, (limits(), timers())))
        .collect();
    assign(&sites);
    let viewer = |site: usize, number: u32, identity: &str| {
        let permission = Permission { can_publish: false, ..Permission::default() };
        let who = (number, identity);
        (Member::join_as(&sites[site], who, TransportMode::Dual, permission), &sites[site])
    };
    let ada = Member::join(&sites[0], 1, "ada", TransportMode::Single);
    let mut members = vec![(ada, &sites[0]), viewer(0, 2, "shown")];
    run(&mut members, "the first viewer is shown", |members| members[0].0.others.len() == 1);
    members.push((Member::join(&sites[1], 3, "bob", TransportMode::Single), &sites[1]));
    run(&mut members, "the other shard knows both", |members| members[2].0.others.len() == 2);
    for number in 4..14 {
        let site = number as usize % 2;
        members.push(viewer(site, number, &format!("viewer{number}")));
    }
    run(&mut members, "everybody counts thirteen", |members| {
        members.iter().all(|(member, _)| member.people == 13)
    });
    for (member, _) in &members {
        let hidden = member.others.keys().filter(|name| name.starts_with("viewer"));
        assert_eq!(hidden.count(), 0, "{} is told of the audience", member.identity);
    }
    members.push(viewer(1, 20, "viewer4"));
    run(&mut members, "the older stay of an identity ends", |members| {
        members[3].0.closed == Some(CloseReason::DuplicateIdentity)
    });
    run(&mut members, "everybody left counts thirteen", |members| {
        members.iter().filter(|(it, _)| it.closed.is_none()).all(|(it, _)| it.people == 13)
    });
    assert_eq!(members.last().unwrap().0.closed, None);
}

#[test]
fn a_speaker_on_one_node_is_seen_on_two_others() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::<String>::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let roots_pem = root.self_signed(&root_key).unwrap().pem().into_bytes();
    let issuer = Issuer::new(root, root_key);
    let start = |node: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let config = QuicConfig {
            bind: (Ipv4Addr::LOCALHOST, 0).into(),
            roots_pem: roots_pem.clone(),
            certificate_pem: certificate.signed_by(&key, &issuer).unwrap().pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
            server_name: NAME.to_owned(),
        };
        let switchboard = Switchboard::default();
        let _inside = runtime.enter();
        let quic = QuicLinks::start(&config, switchboard.clone()).unwrap();
        Site::start(node, 0, &switchboard, Some(quic))
    };
    let sites = ["a", "b", "c"].map(start);
    seen_everywhere(&sites);
}
