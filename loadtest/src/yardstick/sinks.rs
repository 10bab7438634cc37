//! The receivers of the bare loop: they count, and decrypt a sample to see that the
//! loop does what it is paid for.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use headwater_net::{Interest, Poller, ReadyList, RecvBatch, Token, UdpOptions, UdpSocket};
use headwater_rtp::{RtpView, SequenceUnwrapper};

use super::Shared;
use super::keys::{Receiver, StreamKey};

/// Messages taken at once.
const BATCH: usize = 64;
/// One packet of this many is decrypted, and the first of each receiver.
const SAMPLE_EVERY: u64 = 256;

/// The sockets of all receivers.
pub struct Sinks {
    sinks: Vec<(UdpSocket, Receiver, SequenceUnwrapper)>,
}

impl Sinks {
    /// Binds a socket for each receiver and makes its key.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn bind(count: usize, options: &UdpOptions) -> anyhow::Result<Self> {
        let bind = |index: usize| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let socket = UdpSocket::bind(any, options).context("bind a receiver")?;
            let receiver = Receiver {
                address: socket.local_addr(),
                key: StreamKey::random()?,
                ssrc: 1_000 + index as u32,
                sent: 0,
                timestamp_offset: index as u32,
            };
            Ok((socket, receiver, SequenceUnwrapper::new()))
        };
        Ok(Self { sinks: (0..count).map(bind).collect::<anyhow::Result<_>>()? })
    }

    /// The receivers, for the loop.
    #[must_use]
    pub fn receivers(&self) -> Vec<Receiver> {
        self.sinks.iter().map(|(_, receiver, _)| receiver.clone()).collect()
    }
}

/// Receives until it is over.
pub fn sink(sinks: Sinks, shared: &Shared) -> anyhow::Result<()> {
    let mut sinks = sinks.sinks;
    let Some((first, ..)) = sinks.first() else { return Ok(()) };
    let mut batch = RecvBatch::new(first, BATCH);
    let poller = Poller::new()?;
    for (index, (socket, ..)) in sinks.iter().enumerate() {
        poller.add(socket, Token(index as u64), Interest::Read)?;
    }
    let mut ready = ReadyList::new(256);
    let mut received = 0_u64;
    while !shared.is_over() {
        poller.wait(&mut ready, Some(Duration::from_millis(100)))?;
        for one in ready.iter() {
            let Some((socket, receiver, unwrapper)) = sinks.get_mut(one.token.0 as usize) else {
                continue;
            };
            batch.receive(socket)?;
            for (_, datagram) in batch.datagrams() {
                received += 1;
                let first = unwrapper.highest().is_none();
                look(
                    datagram,
                    receiver,
                    unwrapper,
                    first || received.is_multiple_of(SAMPLE_EVERY),
                    shared,
                );
            }
        }
        shared.received.store(received, Ordering::Relaxed);
    }
    Ok(())
}

fn look(
    datagram: &mut [u8],
    receiver: &Receiver,
    unwrapper: &mut SequenceUnwrapper,
    is_sample: bool,
    shared: &Shared,
) {
    let Ok(view) = RtpView::parse_protected(datagram) else {
        shared.wrong.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let (header_len, ssrc) = (view.header_len(), view.ssrc());
    let index = unwrapper.unwrap(view.sequence()) - 0x1_0000;
    if !is_sample {
        return;
    }
    shared.sampled.fetch_add(1, Ordering::Relaxed);
    let plain = receiver.key.open(datagram, header_len, index);
    let right = ssrc == receiver.ssrc
        && plain.is_some_and(|len| datagram[header_len..len].iter().all(|byte| *byte == 0x55));
    shared.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
}
