//! Links between nodes over QUIC with mutual TLS: datagrams for media, a stream for the
//! messages of each link. One connection for each pair of nodes and direction of
//! dialling; a link is a stream of it, and its datagrams begin with the stream's id.

mod connection;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::{debug, info};

use super::Dialer;
use super::in_process::Switchboard;
use super::pipe::{Pipe, Wake};
use crate::plan::Peer;
use connection::{Connection, Doorbell};

/// Connections of a node: as many as a cluster has nodes, twice.
const CONNECTIONS_MAX: usize = 4_096;
/// Connecting takes no longer, or a backup is better.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How a node takes and opens links.
#[derive(Clone)]
pub struct QuicConfig {
    /// UDP address to take links at.
    pub bind: SocketAddr,
    /// Certificates that sign those of nodes, in PEM.
    pub roots_pem: Vec<u8>,
    /// This node's certificate and those between it and a root, in PEM.
    pub certificate_pem: Vec<u8>,
    /// Its key, in PEM.
    pub key_pem: Vec<u8>,
    /// Name that every node's certificate has among its subject names.
    pub server_name: String,
}

/// Why links between nodes cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// A certificate or key cannot be read or does not fit.
    #[error("relay certificate: {0}")]
    Certificate(&'static str),
    /// TLS cannot be set up with them.
    #[error("relay TLS")]
    Tls(#[from] rustls::Error),
    /// The address cannot be bound.
    #[error("cannot bind relay address {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What all connections of a node counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuicCounters {
    /// Connections that were opened from here.
    pub dialled: u64,
    /// Attempts to open one that came to nothing.
    pub dial_failed: u64,
    /// Connections that others opened.
    pub accepted: u64,
    /// Connections that were refused: no certificate of ours, or too many.
    pub refused: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes of datagrams sent, without QUIC's own.
    pub datagram_bytes_out: u64,
    /// Datagrams dropped because a path had no room.
    pub congested: u64,
    /// Datagrams received that belong to no link.
    pub stray: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    dialled: AtomicU64,
    dial_failed: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    pub(super) datagrams_out: AtomicU64,
    pub(super) datagram_bytes_out: AtomicU64,
    pub(super) congested: AtomicU64,
    pub(super) stray: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// What is known of another node's address.
enum Peering {
    /// Somebody is connecting; others wait for it.
    Connecting(Arc<tokio::sync::Notify>),
    Connected(Arc<Connection>),
}

struct Inner {
    endpoint: quinn::Endpoint,
    server_name: String,
    switchboard: Switchboard,
    /// By address; at most [`CONNECTIONS_MAX`].
    peers: Mutex<BTreeMap<SocketAddr, Peering>>,
    counters: Arc<Counters>,
    runtime: Handle,
}

/// The links of a node to other nodes. Clones are the same.
#[derive(Clone)]
pub struct QuicLinks {
    inner: Arc<Inner>,
}

impl QuicLinks {
    /// Takes links from other nodes and hands them to the shards of the switchboard.
    /// Call it inside a tokio runtime, which carries all connections.
    ///
    /// # Errors
    /// [`QuicError`].
    pub fn start(config: &QuicConfig, switchboard: Switchboard) -> Result<Self, QuicError> {
        let (server, client) = tls::configs(config)?;
        let address = config.bind;
        let mut endpoint = quinn::Endpoint::server(server, address)
            .map_err(|source| QuicError::Bind { address, source })?;
        endpoint.set_default_client_config(client);
        let inner = Arc::new(Inner {
            endpoint,
            server_name: config.server_name.clone(),
            switchboard,
            peers: Mutex::default(),
            counters: Arc::default(),
            runtime: Handle::current(),
        });
        tokio::spawn(accept(Arc::clone(&inner)));
        Ok(Self { inner })
    }

    /// Where links are taken.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// What all connections counted.
    #[must_use]
    pub fn counters(&self) -> QuicCounters {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QuicCounters {
            dialled: read(&counters.dialled),
            dial_failed: read(&counters.dial_failed),
            accepted: read(&counters.accepted),
            refused: read(&counters.refused),
            datagrams_out: read(&counters.datagrams_out),
            datagram_bytes_out: read(&counters.datagram_bytes_out),
            congested: read(&counters.congested),
            stray: read(&counters.stray),
        }
    }

    /// Ends all connections at once.
    pub fn close(&self) {
        self.inner.endpoint.close(0_u32.into(), b"leaving");
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Peering>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to an address: the one there is, or a new one.
    async fn connection(self: &Arc<Self>, address: SocketAddr) -> Option<Arc<Connection>> {
        loop {
            let waiting = match self.look_up(address) {
                Lookup::Connected(connection) => return Some(connection),
                Lookup::Wait(waiting) => waiting,
                Lookup::Connect(done) => {
                    let connected = self.connect(address).await;
                    match &connected {
                        Some(connection) => {
                            let peering = Peering::Connected(Arc::clone(connection));
                            self.lock().insert(address, peering);
                        }
                        None => drop(self.lock().remove(&address)),
                    }
                    done.notify_waiters();
                    return connected;
                }
                Lookup::Full => return None,
            };
            // Missed wake-ups end with the time that connecting may take.
            let _ = tokio::time::timeout(CONNECT_MAX, waiting.notified()).await;
        }
    }

    fn look_up(&self, address: SocketAddr) -> Lookup {
        let mut peers = self.lock();
        match peers.get(&address) {
            Some(Peering::Connected(connection)) if connection.is_open() => {
                return Lookup::Connected(Arc::clone(connection));
            }
            Some(Peering::Connecting(waiting)) => return Lookup::Wait(Arc::clone(waiting)),
            Some(Peering::Connected(_)) | None => {}
        }
        peers.retain(|_, peering| match peering {
            Peering::Connecting(_) => true,
            Peering::Connected(connection) => connection.is_open(),
        });
        if peers.len() >= CONNECTIONS_MAX {
            return Lookup::Full;
        }
        let done = Arc::new(tokio::sync::Notify::new());
        peers.insert(address, Peering::Connecting(Arc::clone(&done)));
        Lookup::Connect(done)
    }

    async fn connect(self: &Arc<Self>, address: SocketAddr) -> Option<Arc<Connection>> {
        let connecting = self.endpoint.connect(address, &self.server_name).ok()?;
        let connected = tokio::time::timeout(CONNECT_MAX, connecting).await;
        match connected {
            Ok(Ok(connection)) => {
                Counters::add(&self.counters.dialled, 1);
                Some(self.adopt(connection))
            }
            Ok(Err(error)) => {
                Counters::add(&self.counters.dial_failed, 1);
                debug!(%error, %address, "no relay connection");
                None
            }
            Err(_) => {
                Counters::add(&self.counters.dial_failed, 1);
                debug!(%address, "no relay connection in time");
                None
            }
        }
    }

    /// Serves a connection: links that the peer opens go to the shards.
    fn adopt(self: &Arc<Self>, connection: quinn::Connection) -> Arc<Connection> {
        let connection = Connection::new(connection, Arc::clone(&self.counters));
        let switchboard = self.switchboard.clone();
        tokio::spawn(Arc::clone(&connection).serve(switchboard));
        connection
    }
}

enum Lookup {
    Connected(Arc<Connection>),
    Wait(Arc<tokio::sync::Notify>),
    Connect(Arc<tokio::sync::Notify>),
    Full,
}

async fn accept(inner: Arc<Inner>) {
    while let Some(incoming) = inner.endpoint.accept().await {
        if inner.endpoint.open_connections() > CONNECTIONS_MAX {
            Counters::add(&inner.counters.refused, 1);
            incoming.refuse();
            continue;
        }
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            let Ok(connecting) = incoming.accept() else { return };
            match tokio::time::timeout(CONNECT_MAX, connecting).await {
                Ok(Ok(connection)) => {
                    Counters::add(&inner.counters.accepted, 1);
                    inner.adopt(connection);
                }
                Ok(Err(error)) => {
                    Counters::add(&inner.counters.refused, 1);
                    info!(%error, "relay connection refused");
                }
                Err(_) => Counters::add(&inner.counters.refused, 1),
            }
        });
    }
}

impl Dialer for QuicLinks {
    fn dial(&mut self, peer: &Peer, wake: Wake) -> Option<Pipe> {
        let address = peer.relay_address?;
        let shard = peer.address.shard;
        let doorbell = Doorbell::default();
        let (near, far) = Pipe::pair(wake, doorbell.wake());
        let inner = Arc::clone(&self.inner);
        self.inner.runtime.spawn(async move {
            // Dropped without a connection, the far end closes the pipe.
            if let Some(connection) = inner.connection(address).await {
                connection.open(shard, far, doorbell).await;
            }
        });
        Some(near)
    }
}

/// Opens links within the process where it can, and to other nodes where it must.
pub struct Wiring {
    /// The shards of this process.
    pub switchboard: Switchboard,
    /// Other nodes. Absent where there are none.
    pub quic: Option<QuicLinks>,
}

impl Dialer for Wiring {
    fn dial(&mut self, peer: &Peer, wake: Wake) -> Option<Pipe> {
        let near = self.switchboard.dial(peer, wake.clone());
        near.or_else(|| self.quic.as_mut()?.dial(peer, wake))
    }
}
