//! Once warm, neither sending nor receiving allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use headwater_net::{
    FramedTcp, Interest, Poller, Priority, ReadyList, RecvBatch, SendBatch, SendOutcome, TcpEvent,
    TcpOptions, Token, UdpOptions, UdpSocket,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))) >= 1);
}

#[test]
fn sending_and_receiving_do_not_allocate() {
    let bind = || UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap();
    let sender = bind();
    let receivers: Vec<UdpSocket> = (0..4).map(|_| bind()).collect();
    let destinations: Vec<SocketAddr> = receivers.iter().map(UdpSocket::local_addr).collect();
    let poller = Poller::new().unwrap();
    for (at, receiver) in receivers.iter().enumerate() {
        poller.add(receiver, Token(at as u64), Interest::Read).unwrap();
    }
    let mut ready = ReadyList::new(8);
    let mut outgoing = SendBatch::new(&sender);
    let mut incoming: Vec<RecvBatch> =
        receivers.iter().map(|receiver| RecvBatch::new(receiver, 32)).collect();

    let mut received = 0;
    let used = allocations(|| {
        for round in 0..50 {
            for destination in &destinations {
                for len in [1_200, 1_200, 1_200 - round, 60] {
                    outgoing.begin(&sender, *destination, 1_300).unwrap()[..len].fill(7);
                    outgoing.commit(len);
                }
            }
            outgoing.flush(&sender);
            poller.wait(&mut ready, None).unwrap();
            for event in ready.iter() {
                let at = event.token.0 as usize;
                incoming[at].receive(&receivers[at]).unwrap();
                for (_, datagram) in incoming[at].datagrams() {
                    datagram[0] ^= 1;
                    received += 1;
                }
            }
        }
    });
    assert_eq!(used, 0);
    assert!(received > 400, "only {received} of 800 datagrams came");
    assert_eq!(outgoing.counters().datagrams, 800);
}

#[test]
fn framed_tcp_does_not_allocate_once_its_buffers_have_grown() {
    let poller = Poller::new().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let mut tcp = FramedTcp::bind(&poller, any, TcpOptions::default(), 1).unwrap();
    let mut peer = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    peer.set_nodelay(true).unwrap();
    let remote = peer.local_addr().unwrap();
    let mut ready = ReadyList::new(8);
    let mut echo = [0; 1_202];
    let frame = [&1_200_u16.to_be_bytes()[..], &[5; 1_200]].concat();
    let mut frames = 0;
    let mut round = || {
        let came = frames;
        for part in frame.chunks(700) {
            peer.write_all(part).unwrap();
        }
        while frames == came {
            poller.wait(&mut ready, None).unwrap();
            for event in ready.iter() {
                tcp.handle_ready(&poller, Instant::now(), event, |event| match event {
                    TcpEvent::Frame { frame, .. } => frames += frame.len() / 1_200,
                    TcpEvent::Closed { reason, .. } => panic!("closed: {reason:?}"),
                });
            }
        }
        assert_eq!(tcp.send(remote, Priority::Media, &frame[2..]), SendOutcome::Queued);
        tcp.flush(&poller, |event| panic!("{event:?}"));
        peer.read_exact(&mut echo).unwrap();
    };
    (0..50).for_each(|_| round());
    assert_eq!(allocations(|| (0..50).for_each(|_| round())), 0);
    assert_eq!(frames, 100);
}
