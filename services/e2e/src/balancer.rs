//! A load balancer for TCP, as small as one can be: each connection goes to the
//! next backend that accepts it. Clients stay on one address while gateways
//! behind it come and go.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;

/// Connections open at once; further ones are closed at once.
const CONNECTIONS_MAX: usize = 512;

/// A backend on loopback that takes longer to accept is passed over.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A running load balancer; it stops accepting when dropped.
pub struct Balancer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Balancer {
    /// Listens on a free port of loopback and spreads connections over these
    /// ports of loopback, in turn.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(backends: Vec<u16>) -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, backends)
    }

    /// The same on another address of this machine.
    ///
    /// # Errors
    /// If there is no free port or no such address.
    pub fn start_at(ip: Ipv4Addr, backends: Vec<u16>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).context("the load balancer cannot listen")?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        std::thread::spawn(move || accept(&listener, &backends, &stop));
        Ok(Self { address, stopped })
    }

    /// Where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, backends: &[u16], stop: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut next = 0;
    for client in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(client) = client else { continue };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        let first = next;
        next = (next + 1) % backends.len().max(1);
        let Some(server) = connect(backends, first) else { continue };
        let _ = join(client, server, &open);
    }
}

/// The first backend that accepts, beginning with this one.
fn connect(backends: &[u16], first: usize) -> Option<TcpStream> {
    let in_turn = backends.iter().cycle().skip(first).take(backends.len());
    in_turn
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))
        .find_map(|address| TcpStream::connect_timeout(&address, CONNECT_LIMIT).ok())
}

/// Copies both ways until either side ends.
fn join(client: TcpStream, server: TcpStream, open: &Arc<AtomicUsize>) -> io::Result<()> {
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        from.set_nodelay(true)?;
        let open = Arc::clone(open);
        open.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            let _ = io::copy(&mut &from, &mut &to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Answers each connection with one byte.
    fn backend(answer: u8) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                client.write_all(&[answer]).unwrap();
            }
        });
        port
    }

    fn ask(balancer: &Balancer) -> Vec<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, balancer.port())).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    #[test]
    fn connections_go_around_and_pass_over_who_refuses() {
        let refusing =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let balancer = Balancer::start(vec![backend(b'a'), refusing, backend(b'b')]).unwrap();
        let answers: Vec<Vec<u8>> = (0..6).map(|_| ask(&balancer)).collect();
        assert_eq!(answers, [b"a", b"b", b"b", b"a", b"b", b"b"]);
    }
}
