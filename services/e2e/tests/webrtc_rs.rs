//! Another WebRTC implementation, webrtc-rs with its whole `PeerConnection`,
//! receives what a native client publishes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headwater_e2e::dev::Dev;
use headwater_loadtest::client::{Client, ClientConfig, Receive, Video};
use headwater_loadtest::run::Server;
use headwater_loadtest::signal::{JoinOptions, Signal};
use headwater_rpc::token::KeyRing;
use livekit_protocol as proto;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCConfigurationBuilder, RTCIceGatheringState, RTCSessionDescription, Registry,
    register_default_interceptors,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

#[derive(Clone, Default)]
struct Handler {
    gathered: Arc<tokio::sync::Notify>,
    packets: Arc<AtomicU64>,
    payload_bytes: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.notify_one();
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let Self { packets, payload_bytes, .. } = self.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    packets.fetch_add(1, Ordering::Relaxed);
                    payload_bytes.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
                }
            }
        });
    }
}

async fn receiving_peer(handler: &Handler) -> Box<dyn PeerConnection> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().unwrap();
    let registry = register_default_interceptors(Registry::new(), &mut engine).unwrap();
    let peer = PeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_handler(Arc::new(handler.clone()))
        .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
        .build()
        .await
        .unwrap();
    let receive = RTCRtpTransceiverInit {
        direction: RTCRtpTransceiverDirection::Recvonly,
        streams: vec![],
        send_encodings: vec![],
    };
    peer.add_transceiver_from_kind(RtpCodecKind::Video, Some(receive)).await.unwrap();
    Box::new(peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webrtc_rs_peer_receives_video() {
    let dev = Dev::start(&[]).unwrap();
    let server = Server {
        url: dev.target.url.clone(),
        keys: KeyRing::single("devkey", "secret").unwrap(),
        pid: None,
        metrics: None,
    };
    let publisher = Client::join(ClientConfig {
        url: server.url.clone(),
        token: server.token("mixed", "publisher").unwrap(),
        video: Some(Video {
            frame_rate: 30.0,
            packets_per_frame: 3,
            payload_bytes: 1000,
            layers: 1,
        }),
        audio: false,
        receive: Receive::default(),
    })
    .await
    .unwrap();
    publisher.connected(Duration::from_secs(10)).await.unwrap();

    let handler = Handler::default();
    let peer = receiving_peer(&handler).await;
    let offer = peer.create_offer(None).await.unwrap();
    peer.set_local_description(offer).await.unwrap();
    handler.gathered.notified().await;
    let offer = peer.local_description().await.unwrap();
    let (mut signal, _) = Signal::join(JoinOptions {
        url: server.url.clone(),
        token: server.token("mixed", "viewer").unwrap(),
        offer: offer.sdp,
        tracks: Vec::new(),
        auto_subscribe: true,
    })
    .await
    .unwrap();
    let answer = loop {
        if let proto::signal_response::Message::Answer(answer) = signal.next().await.unwrap() {
            break answer.sdp;
        }
    };
    peer.set_remote_description(RTCSessionDescription::answer(answer).unwrap()).await.unwrap();

    let deadline = Instant::now() + Duration::from_secs(15);
    while handler.packets.load(Ordering::Relaxed) < 100 {
        assert!(
            Instant::now() < deadline,
            "{} packets in 15 s; server log:\n{}",
            handler.packets.load(Ordering::Relaxed),
            dev.process.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let packets = handler.packets.load(Ordering::Relaxed);
    assert!(handler.payload_bytes.load(Ordering::Relaxed) > packets * 500, "the payload is whole");
    publisher.leave().await.unwrap();
    signal.leave().await;
}
