//! Batches over loopback: what goes in comes out, whole and in order.

#![expect(clippy::unwrap_used, reason = "a failed step of a test may end it")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_net::{
    Interest, MAX_DATAGRAM_LEN, Oversize, Poller, ReadyList, RecvBatch, SendBatch, Token,
    UdpOptions, UdpSocket,
};
use proptest::prelude::*;

fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind(address.parse().unwrap(), &UdpOptions::default()).unwrap()
}

/// Everything that reaches a socket until `count` datagrams came.
struct Collector {
    socket: UdpSocket,
    poller: Poller,
    ready: ReadyList,
    batch: RecvBatch,
}

impl Collector {
    fn new(address: &str) -> Self {
        let socket = bind(address);
        let poller = Poller::new().unwrap();
        poller.add(&socket, Token(1), Interest::Read).unwrap();
        let batch = RecvBatch::new(&socket, 32);
        Self { socket, poller, ready: ReadyList::new(4), batch }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn collect(&mut self, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut all = Vec::new();
        while all.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} datagrams came", all.len());
            self.poller.wait(&mut self.ready, Some(Duration::from_secs(1))).unwrap();
            self.batch.receive(&self.socket).unwrap();
            all.extend(self.batch.datagrams().map(|(from, bytes)| (from, bytes.to_vec())));
        }
        assert_eq!(self.batch.receive(&self.socket).unwrap(), 0, "more came than was sent");
        all
    }
}

/// A datagram that tells its number and its length.
fn datagram(number: u16, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31)).collect();
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn send_all(socket: &UdpSocket, to: SocketAddr, lengths: &[usize]) -> (SendBatch, Vec<Vec<u8>>) {
    let mut batch = SendBatch::new(socket);
    let sent: Vec<Vec<u8>> =
        lengths.iter().enumerate().map(|(at, len)| datagram(at as u16, *len)).collect();
    for bytes in &sent {
        batch.push(socket, to, bytes).unwrap();
    }
    batch.flush(socket);
    (batch, sent)
}

fn bodies(received: Vec<(SocketAddr, Vec<u8>)>) -> Vec<Vec<u8>> {
    received.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn a_train_arrives_as_its_datagrams_intact_and_in_order() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    let (batch, sent) = send_all(&sender, receiver.address(), &[1_200, 1_200, 1_200, 700]);
    let received = receiver.collect(4);
    assert!(received.iter().all(|(from, _)| *from == sender.local_addr()));
    assert_eq!(bodies(received), sent);
    let counters = batch.counters();
    assert_eq!((counters.calls, counters.datagrams, counters.bytes), (1, 4, 4_300));
    if sender.has_segmentation_offload() {
        assert_eq!(counters.messages, 1, "four datagrams are one train");
    }
}

#[test]
fn the_kernel_joins_a_train_on_receipt_and_it_is_split_again() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    if !(sender.has_segmentation_offload() && receiver.socket.has_receive_offload()) {
        return;
    }
    let lengths = [&[900; 20][..], &[13]].concat();
    let (_, sent) = send_all(&sender, receiver.address(), &lengths);
    assert_eq!(bodies(receiver.collect(21)), sent);
    let counters = receiver.batch.counters();
    assert_eq!((counters.datagrams, counters.bytes), (21, 18_013));
    assert!(counters.messages < 21, "loopback hands a train over whole: {counters:?}");
}

#[test]
fn a_longer_datagram_begins_a_new_train() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    let (batch, sent) =
        send_all(&sender, receiver.address(), &[500, 500, 501, 501, 100, 100, 100, 7, 8]);
    assert_eq!(bodies(receiver.collect(9)), sent);
    if sender.has_segmentation_offload() {
        // [500 500] [501 501 100] [100 100 7] [8]
        assert_eq!(batch.counters().messages, 4);
    }
}

#[test]
fn mixed_destinations_get_their_own_and_nothing_else() {
    let mut receivers: Vec<Collector> = (0..5).map(|_| Collector::new("127.0.0.1:0")).collect();
    let sender = bind("127.0.0.1:0");
    let mut batch = SendBatch::new(&sender);
    let mut expected = vec![Vec::new(); receivers.len()];
    // More messages than one system call takes, so batches are cut in between.
    for round in 0..300_u16 {
        let at = usize::from(round) * 7 % receivers.len();
        for part in 0..3 {
            let bytes = datagram(round * 3 + part, 200 + usize::from(round % 3));
            batch.push(&sender, receivers[at].address(), &bytes).unwrap();
            expected[at].push(bytes);
        }
    }
    batch.flush(&sender);
    for (receiver, expected) in receivers.iter_mut().zip(expected) {
        assert_eq!(bodies(receiver.collect(expected.len())), expected);
    }
    let counters = batch.counters();
    assert_eq!((counters.datagrams, counters.dropped, counters.refused), (900, 0, 0));
    if sender.has_segmentation_offload() {
        assert_eq!(counters.messages, 300);
        assert!(counters.calls <= 6, "{counters:?}");
    }
}

#[test]
fn a_train_ends_at_sixty_four_datagrams_and_the_batch_where_the_scratch_does() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    let (batch, sent) = send_all(&sender, receiver.address(), &[1_000; 600]);
    assert_eq!(bodies(receiver.collect(600)), sent);
    if sender.has_segmentation_offload() {
        assert!((10..=14).contains(&batch.counters().messages), "{:?}", batch.counters());
    }
}

#[test]
fn an_oversize_datagram_is_refused_and_the_rest_goes_on() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    let mut batch = SendBatch::new(&sender);
    batch.push(&sender, receiver.address(), &datagram(1, 50)).unwrap();
    let refused = batch.begin(&sender, receiver.address(), MAX_DATAGRAM_LEN + 1).err();
    assert_eq!(refused, Some(Oversize { len: MAX_DATAGRAM_LEN + 1 }));
    batch.push(&sender, receiver.address(), &datagram(2, MAX_DATAGRAM_LEN)).unwrap();
    batch.flush(&sender);
    let lengths: Vec<usize> = bodies(receiver.collect(2)).iter().map(Vec::len).collect();
    assert_eq!(lengths, [50, MAX_DATAGRAM_LEN]);
}

#[test]
fn what_is_begun_and_not_committed_is_not_sent() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    let mut batch = SendBatch::new(&sender);
    let to = receiver.address();
    batch.commit(10);
    batch.begin(&sender, to, 100).unwrap().fill(1);
    batch.begin(&sender, to, 100).unwrap().fill(2);
    batch.commit(40);
    batch.commit(40);
    batch.begin(&sender, to, 100).unwrap().fill(3);
    batch.commit(0);
    batch.begin(&sender, to, 100).unwrap().fill(4);
    batch.flush(&sender);
    batch.commit(100);
    batch.flush(&sender);
    assert_eq!(bodies(receiver.collect(1)), [vec![2; 40]]);
}

#[test]
fn a_destination_that_cannot_be_reached_does_not_hold_up_others() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    let mut batch = SendBatch::new(&sender);
    // An IPv6 address on an IPv4 socket, and one that the kernel refuses at port 0.
    for wrong in ["[2001:db8::1]:9", "127.0.0.1:0"] {
        batch.push(&sender, receiver.address(), &datagram(0, 20)).unwrap();
        for _ in 0..3 {
            batch.push(&sender, wrong.parse().unwrap(), &datagram(9, 30)).unwrap();
        }
    }
    batch.push(&sender, receiver.address(), &datagram(2, 20)).unwrap();
    batch.flush(&sender);
    assert_eq!(receiver.collect(3).len(), 3);
    assert_eq!(batch.counters().refused, 6);
}

#[test]
fn what_is_refused_one_by_one_too_does_not_turn_trains_off() {
    // A broadcast address without SO_BROADCAST is refused as a train and as a datagram.
    let sender = bind("127.0.0.1:0");
    let mut batch = SendBatch::new(&sender);
    for _ in 0..20 {
        for _ in 0..2 {
            batch.push(&sender, "255.255.255.255:9".parse().unwrap(), &datagram(1, 30)).unwrap();
        }
        batch.flush(&sender);
    }
    assert_eq!(batch.counters().refused, 40);
    assert_eq!(batch.sends_trains(), sender.has_segmentation_offload());
}

#[test]
fn ipv4_peers_of_a_socket_on_all_addresses_have_plain_addresses() {
    if std::net::UdpSocket::bind("[::]:0").is_err() {
        return; // A machine without IPv6.
    }
    let mut receiver = Collector::new("[::]:0");
    let port = receiver.address().port();
    let v4 = bind("127.0.0.1:0");
    let (_, sent) = send_all(&v4, SocketAddr::from(([127, 0, 0, 1], port)), &[100, 100]);
    let received = receiver.collect(2);
    assert!(received.iter().all(|(from, _)| *from == v4.local_addr()));
    assert_eq!(bodies(received), sent);

    let mut back = Collector::new("127.0.0.1:0");
    let (_, sent) = send_all(&receiver.socket, back.address(), &[80, 80, 10]);
    assert_eq!(bodies(back.collect(3)), sent);
}

#[test]
fn empty_datagrams_are_received_as_such() {
    let mut receiver = Collector::new("127.0.0.1:0");
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for bytes in [&b"a"[..], b"", b"b"] {
        sender.send_to(bytes, receiver.address()).unwrap();
    }
    assert_eq!(bodies(receiver.collect(3)), [b"a".to_vec(), vec![], b"b".to_vec()]);
    assert_eq!(receiver.batch.counters().datagrams, 3);
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let options = UdpOptions { recv_buffer_bytes: 4_096, ..UdpOptions::default() };
    let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let sender = bind("127.0.0.1:0");
    send_all(&sender, socket.local_addr(), &[1_000, 999, 1_000].repeat(40));
    let mut batch = RecvBatch::new(&socket, 32);
    let mut came = 0;
    while batch.receive(&socket).unwrap() > 0 {
        came += batch.datagrams().count();
    }
    assert!(came < 120, "the buffer was meant to be too small");
    // The count comes with the first datagram after the drop.
    send_all(&sender, socket.local_addr(), &[10]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while batch.receive(&socket).unwrap() == 0 {
        assert!(Instant::now() < deadline);
    }
    assert!(batch.counters().kernel_drops > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_mix_of_lengths_and_peers_arrives_in_order(
        mix in proptest::collection::vec((0_usize..3, prop_oneof![Just(700_usize), 2_usize..1_500]), 1..150),
    ) {
        let mut receivers: Vec<Collector> = (0..3).map(|_| Collector::new("127.0.0.1:0")).collect();
        let sender = bind("127.0.0.1:0");
        let mut batch = SendBatch::new(&sender);
        let mut expected = vec![Vec::new(); 3];
        for (number, (to, len)) in mix.iter().enumerate() {
            let bytes = datagram(number as u16, *len);
            batch.push(&sender, receivers[*to].address(), &bytes).unwrap();
            expected[*to].push(bytes);
        }
        batch.flush(&sender);
        for (receiver, expected) in receivers.iter_mut().zip(expected) {
            prop_assert_eq!(bodies(receiver.collect(expected.len())), expected);
        }
        prop_assert_eq!(batch.counters().datagrams, mix.len() as u64);
    }
}
