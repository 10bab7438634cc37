//! Framed connections on loopback: limits, slow readers, and who is let in.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::ReadyList;

/// What happened, with the bytes copied.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Frame(SocketAddr, Vec<u8>),
    Closed(SocketAddr, CloseReason),
}

fn note(seen: &mut Vec<Seen>, event: TcpEvent<'_>) {
    seen.push(match event {
        TcpEvent::Frame { remote, frame } => Seen::Frame(remote, frame.to_vec()),
        TcpEvent::Closed { remote, reason } => Seen::Closed(remote, reason),
    });
}

struct Bench {
    poller: Poller,
    ready: ReadyList,
    tcp: FramedTcp,
    now: Instant,
    seen: Vec<Seen>,
}

impl Bench {
    fn new(options: TcpOptions) -> Self {
        let poller = Poller::new().unwrap();
        let tcp = FramedTcp::bind(&poller, "127.0.0.1:0".parse().unwrap(), options, 1).unwrap();
        Self { poller, ready: ReadyList::new(16), tcp, now: Instant::now(), seen: Vec::new() }
    }

    fn connect(&mut self) -> (TcpStream, SocketAddr) {
        let before = self.tcp.counters();
        let stream = TcpStream::connect(self.tcp.local_addr().unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = stream.local_addr().unwrap();
        self.turn_until(|bench| {
            let after = bench.tcp.counters();
            (after.accepted, after.refused) != (before.accepted, before.refused)
        });
        (stream, address)
    }

    fn turn(&mut self) {
        self.poller.wait(&mut self.ready, Some(Duration::from_millis(100))).unwrap();
        for ready in self.ready.iter() {
            self.tcp
                .handle_ready(&self.poller, self.now, ready, |event| note(&mut self.seen, event));
        }
    }

    fn turn_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..100 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("it did not come to pass; seen so far: {:?}", self.seen);
    }

    fn flush(&mut self) {
        self.tcp.flush(&self.poller, |event| note(&mut self.seen, event));
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u16).to_be_bytes()[..], frame].concat()
}

#[test]
fn frames_come_whole_however_they_are_cut() {
    let mut bench = Bench::new(TcpOptions::default());
    let (mut stream, address) = bench.connect();
    let long = vec![7; 4_096];
    let bytes = [framed(b"one"), framed(&[]), framed(&long), framed(b"three")].concat();
    // One byte; a length and a half; the rest.
    for part in [&bytes[..1], &bytes[1..10], &bytes[10..2_000], &bytes[2_000..]] {
        stream.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        bench.turn();
    }
    bench.turn_until(|bench| bench.seen.len() == 3);
    assert_eq!(
        bench.seen,
        [
            Seen::Frame(address, b"one".to_vec()),
            Seen::Frame(address, long),
            Seen::Frame(address, b"three".to_vec()),
        ]
    );
    assert_eq!(bench.tcp.counters().bytes_in, bytes.len() as u64);
}

#[test]
fn a_frame_that_is_too_long_closes_the_connection_after_those_before() {
    let mut bench = Bench::new(TcpOptions::default());
    let (mut stream, address) = bench.connect();
    stream.write_all(&[&framed(b"good")[..], &4_097_u16.to_be_bytes()].concat()).unwrap();
    bench.turn_until(|bench| bench.seen.len() == 2);
    assert_eq!(
        bench.seen,
        [Seen::Frame(address, b"good".to_vec()), Seen::Closed(address, CloseReason::Oversize),]
    );
    assert_eq!(bench.tcp.connections(), 0);
    assert_eq!(bench.tcp.send(address, Priority::Control, b"x"), SendOutcome::Closed);
}

#[test]
fn frames_go_out_with_their_lengths_in_one_piece() {
    let mut bench = Bench::new(TcpOptions::default());
    let (mut stream, address) = bench.connect();
    assert_eq!(bench.tcp.send(address, Priority::Media, b"first"), SendOutcome::Queued);
    assert_eq!(bench.tcp.send(address, Priority::Control, b"second"), SendOutcome::Queued);
    assert_eq!(bench.tcp.send(address, Priority::Media, &[]), SendOutcome::Dropped);
    assert_eq!(bench.tcp.send(address, Priority::Media, &[0; 4_097]), SendOutcome::Dropped);
    bench.flush();
    let mut bytes = [0; 15];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..], [framed(b"first"), framed(b"second")].concat());
}

#[test]
fn a_slow_reader_loses_media_keeps_control_and_catches_up() {
    let options = TcpOptions { output_bytes_max: 64 << 10, ..TcpOptions::default() };
    let mut bench = Bench::new(options);
    let (mut stream, address) = bench.connect();
    let mut queued = 0_u32;
    let mut dropped = 0;
    // Until the kernel's buffers and ours are full.
    while dropped == 0 {
        let mut frame = vec![0; 1_200];
        frame[..4].copy_from_slice(&queued.to_be_bytes());
        match bench.tcp.send(address, Priority::Media, &frame) {
            SendOutcome::Queued => queued += 1,
            SendOutcome::Dropped => dropped += 1,
            SendOutcome::Closed => panic!("closed by media"),
        }
        bench.flush();
    }
    assert_eq!(bench.tcp.send(address, Priority::Control, b"still here"), SendOutcome::Queued);
    assert_eq!(bench.tcp.counters().frames_dropped, 1);

    let reader = std::thread::spawn(move || {
        for number in 0..queued {
            let mut frame = [0; 1_202];
            stream.read_exact(&mut frame).unwrap();
            assert_eq!(frame[2..6], number.to_be_bytes());
        }
        let mut last = [0; 12];
        stream.read_exact(&mut last).unwrap();
        assert_eq!(last[..], framed(b"still here"));
        stream
    });
    bench.turn_until(|bench| bench.tcp.counters().bytes_out == u64::from(queued) * 1_202 + 12);
    let _open = reader.join().unwrap();
    assert_eq!(bench.tcp.send(address, Priority::Media, &[1; 1_200]), SendOutcome::Queued);
    assert_eq!(bench.seen, []);
}

#[test]
fn a_reader_without_room_for_control_is_closed() {
    let options = TcpOptions { output_bytes_max: 16 << 10, ..TcpOptions::default() };
    let mut bench = Bench::new(options);
    let (_stream, address) = bench.connect();
    while bench.tcp.send(address, Priority::Control, &[1; 1_200]) == SendOutcome::Queued {
        // Only what the kernel does not take stays with us.
        if bench.tcp.counters().frames_out.is_multiple_of(8) {
            bench.tcp.flush(&bench.poller, |_| panic!("nothing is closed yet"));
        }
    }
    assert_eq!(bench.tcp.send(address, Priority::Media, b"x"), SendOutcome::Closed);
    bench.flush();
    assert_eq!(bench.seen, [Seen::Closed(address, CloseReason::SlowReader)]);
    assert_eq!(bench.tcp.connections(), 0);
}

#[test]
fn a_connection_that_ends_is_reported_once_and_its_place_is_used_again() {
    let mut bench = Bench::new(TcpOptions::default());
    for _ in 0..3 {
        bench.seen.clear();
        let (stream, address) = bench.connect();
        drop(stream);
        bench.turn_until(|bench| !bench.seen.is_empty());
        assert_eq!(bench.seen, [Seen::Closed(address, CloseReason::Peer)]);
    }
    assert_eq!(bench.tcp.slots.len(), 1);
    assert_eq!(bench.tcp.counters().closed, 3);
}

#[test]
fn a_late_event_of_a_closed_connection_does_not_touch_its_successor() {
    let mut bench = Bench::new(TcpOptions::default());
    let (_first, address) = bench.connect();
    let late = Ready { token: bench.tcp.token(0), readable: true, writable: true };
    bench.tcp.close(address);
    let (mut second, second_address) = bench.connect();
    second.write_all(&framed(b"hello")).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    bench.tcp.handle_ready(&bench.poller, bench.now, late, |_| panic!("an event of the dead"));
    bench.turn_until(|bench| !bench.seen.is_empty());
    assert_eq!(bench.seen, [Seen::Frame(second_address, b"hello".to_vec())]);
}

#[test]
fn what_is_not_confirmed_or_idle_is_closed_in_time() {
    let options = TcpOptions {
        confirm_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(30),
        ..TcpOptions::default()
    };
    let mut bench = Bench::new(options);
    let start = bench.now;
    let (_silent, silent) = bench.connect();
    let (mut busy, busy_address) = bench.connect();
    bench.tcp.confirm(busy_address);
    assert_eq!(bench.tcp.poll_timeout(), Some(start + Duration::from_secs(10)));

    let mut seen = Vec::new();
    bench.tcp.handle_timeout(start + Duration::from_millis(9_999), |event| note(&mut seen, event));
    assert_eq!(seen, []);
    bench.tcp.handle_timeout(start + Duration::from_secs(10), |event| note(&mut seen, event));
    assert_eq!(seen, [Seen::Closed(silent, CloseReason::NotConfirmed)]);

    bench.now = start + Duration::from_secs(20);
    busy.write_all(&framed(b"x")).unwrap();
    bench.turn_until(|bench| !bench.seen.is_empty());
    assert_eq!(bench.tcp.poll_timeout(), Some(start + Duration::from_secs(50)));
    seen.clear();
    bench.tcp.handle_timeout(start + Duration::from_secs(50), |event| note(&mut seen, event));
    assert_eq!(seen, [Seen::Closed(busy_address, CloseReason::Idle)]);
    assert_eq!(bench.tcp.poll_timeout(), None);
}

#[test]
fn without_descriptors_a_connection_is_closed_and_the_listener_is_not_ready_for_ever() {
    let mut bench = Bench::new(TcpOptions::default());
    let mut stream = TcpStream::connect(bench.tcp.local_addr().unwrap()).unwrap();
    bench.tcp.shed(&io::Error::from_raw_os_error(libc::EMFILE));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(bench.tcp.counters().refused, 1);
    assert!(bench.tcp.spare.is_some());
    bench.poller.wait(&mut bench.ready, Some(Duration::ZERO)).unwrap();
    assert_eq!(bench.ready.iter().count(), 0);
}

#[test]
fn a_full_listener_gives_up_the_oldest_stranger_but_nobody_it_knows() {
    let mut bench = Bench::new(TcpOptions { connections_max: 2, ..TcpOptions::default() });
    let (_known, known) = bench.connect();
    bench.tcp.confirm(known);
    let (_stranger, stranger) = bench.connect();
    let (_next, next) = bench.connect();
    assert_eq!(bench.seen, [Seen::Closed(stranger, CloseReason::Displaced)]);
    bench.tcp.confirm(next);

    let (mut refused, _) = bench.connect();
    assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(bench.tcp.connections(), 2);
    assert_eq!(bench.tcp.counters().refused, 1);
}
