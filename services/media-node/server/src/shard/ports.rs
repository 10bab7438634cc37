//! A shard's sockets: one for UDP, one listener for ICE-TCP, and what waits on them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use headwater_net::{
    FramedTcp, Interest, Poller, Priority, ReadyList, RecvBatch, SendBatch, TcpEvent, TcpOptions,
    Token, UdpOptions, UdpSocket,
};
use headwater_transport::{Path, Protocol};

const UDP: Token = Token(1);
const TCP_TAG: u8 = 1;
/// Messages of one receive call, and calls of one wake-up: between them the
/// shard's timers and commands get their turn.
const MESSAGES_PER_CALL: usize = 32;
const CALLS_PER_WAKE: usize = 8;
const READY_PER_WAKE: usize = 256;

/// Where to bind.
#[derive(Debug, Clone, Copy)]
pub struct PortsConfig {
    /// Address of both sockets.
    pub ip: IpAddr,
    /// UDP port; 0 lets the system choose.
    pub udp: u16,
    /// TCP port; 0 lets the system choose. `None` means no TCP.
    pub tcp: Option<u16>,
}

/// The sockets.
pub struct Ports {
    poller: Poller,
    socket: UdpSocket,
    received: RecvBatch,
    batch: SendBatch,
    tcp: Option<FramedTcp>,
    tcp_wakes_at: Option<Instant>,
}

impl Ports {
    /// Binds them.
    ///
    /// # Errors
    /// If an address is taken or not ours; the error names it.
    pub fn bind(config: &PortsConfig) -> io::Result<Self> {
        let poller = Poller::new()?;
        let udp = SocketAddr::new(config.ip, config.udp);
        let socket = UdpSocket::bind(udp, &UdpOptions::default())
            .map_err(|error| named("UDP", udp, &error))?;
        poller.add(&socket, UDP, Interest::Read)?;
        let tcp = match config.tcp {
            None => None,
            Some(port) => {
                let address = SocketAddr::new(config.ip, port);
                let tcp = FramedTcp::bind(&poller, address, TcpOptions::default(), TCP_TAG)
                    .map_err(|error| named("TCP", address, &error))?;
                Some(tcp)
            }
        };
        let received = RecvBatch::new(&socket, MESSAGES_PER_CALL);
        let batch = SendBatch::new(&socket);
        Ok(Self { poller, socket, received, batch, tcp, tcp_wakes_at: None })
    }

    /// A handle that ends a wait.
    pub fn waker(&self) -> headwater_net::Waker {
        self.poller.waker()
    }

    /// UDP address.
    pub fn udp_address(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// TCP address, if there is a listener.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// A list to wait with.
    pub fn ready_list() -> ReadyList {
        ReadyList::new(READY_PER_WAKE)
    }

    /// Waits until something is ready or the time is over.
    ///
    /// # Errors
    /// Only by a broken invariant of ours.
    pub fn wait(&self, ready: &mut ReadyList, timeout: Option<Duration>) -> io::Result<()> {
        self.poller.wait(ready, timeout)
    }

    /// Reads everything that is ready, within bounds, and hands it on.
    ///
    /// # Errors
    /// If the UDP socket failed for good.
    pub fn receive(
        &mut self,
        now: Instant,
        ready: &ReadyList,
        mut take: impl FnMut(Path, &mut [u8]),
    ) -> io::Result<()> {
        for entry in ready.iter() {
            if entry.token == UDP {
                self.receive_udp(&mut take)?;
            } else if let Some(tcp) = &mut self.tcp {
                tcp.handle_ready(&self.poller, now, entry, |event| on_frame(event, &mut take));
            }
        }
        Ok(())
    }

    fn receive_udp(&mut self, take: &mut impl FnMut(Path, &mut [u8])) -> io::Result<()> {
        for _ in 0..CALLS_PER_WAKE {
            if self.received.receive(&self.socket)? == 0 {
                break;
            }
            for (remote, datagram) in self.received.datagrams() {
                take(Path { protocol: Protocol::Udp, remote }, datagram);
            }
            if !self.received.is_full() {
                break;
            }
        }
        Ok(())
    }

    /// Somebody authenticated himself on a TCP connection: it may stay.
    pub fn confirm(&mut self, path: Path) {
        if path.protocol == Protocol::Tcp
            && let Some(tcp) = &mut self.tcp
        {
            tcp.confirm(path.remote);
        }
    }

    /// Queues a datagram that is no media: STUN or DTLS.
    pub fn send_control(&mut self, path: Path, datagram: &[u8]) {
        match path.protocol {
            // Longer than any datagram we make is impossible: the batch counts it.
            Protocol::Udp => drop(self.batch.push(&self.socket, path.remote, datagram)),
            Protocol::Tcp => {
                if let Some(tcp) = &mut self.tcp {
                    tcp.send(path.remote, Priority::Control, datagram);
                }
            }
        }
    }

    /// Packet path: room for one media datagram, filled by `seal`, which answers
    /// with its length. `None` from `seal`, or no room, sends nothing.
    pub fn send_media(
        &mut self,
        path: Path,
        len_max: usize,
        scratch: &mut [u8],
        seal: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<usize> {
        match path.protocol {
            Protocol::Udp => {
                let out = self.batch.begin(&self.socket, path.remote, len_max).ok()?;
                let len = seal(out)?;
                self.batch.commit(len);
                Some(len)
            }
            Protocol::Tcp => {
                let len = seal(scratch.get_mut(..len_max)?)?;
                self.tcp.as_mut()?.send(path.remote, Priority::Media, &scratch[..len]);
                Some(len)
            }
        }
    }

    /// Packet path: length of the datagrams of the train that the next datagram to this
    /// path can join. `None` if it would begin a new one, and over TCP.
    pub fn open_train(&self, path: Path) -> Option<usize> {
        match path.protocol {
            Protocol::Udp => self.batch.open_train(path.remote),
            Protocol::Tcp => None,
        }
    }

    /// Sends all that was queued.
    pub fn flush(&mut self, mut take: impl FnMut(Path, &mut [u8])) {
        self.batch.flush(&self.socket);
        if let Some(tcp) = &mut self.tcp {
            tcp.flush(&self.poller, |event| on_frame(event, &mut take));
        }
    }

    /// Closes connections whose time is over. Looked at once a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.tcp_wakes_at.is_some_and(|at| at > now) {
            return;
        }
        self.tcp_wakes_at = Some(now + Duration::from_secs(1));
        if let Some(tcp) = &mut self.tcp {
            tcp.handle_timeout(now, |_| ());
        }
    }

    /// What was received.
    pub fn received(&self) -> headwater_net::RecvCounters {
        self.received.counters()
    }

    /// What was sent.
    pub fn sent(&self) -> headwater_net::SendCounters {
        self.batch.counters()
    }

    /// TCP connections now.
    pub fn tcp_connections(&self) -> usize {
        self.tcp.as_ref().map_or(0, FramedTcp::connections)
    }
}

fn on_frame(event: TcpEvent<'_>, take: &mut impl FnMut(Path, &mut [u8])) {
    match event {
        TcpEvent::Frame { remote, frame } => {
            take(Path { protocol: Protocol::Tcp, remote }, frame);
        }
        // The transport notices by want of consent, as it does for UDP.
        TcpEvent::Closed { .. } => {}
    }
}

fn named(protocol: &str, address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot bind {protocol} {address}: {error}"))
}
