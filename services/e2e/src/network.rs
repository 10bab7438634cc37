//! A network of the tests' own: places, each with an address and a network
//! namespace, on one bridge with this machine. The way from one place to another
//! can be cut, in one direction or both; whoever sends notices nothing.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Networks are tried from this third byte of 10.231.x.0/24 on.
const FIRST: u8 = 32;
/// That many may be in use at once.
const NETWORKS: u8 = 64;
/// Host part of the first place; those below are this machine's.
const FIRST_PLACE: u8 = 10;
/// Nobody has this address, so what is sent to it gets lost on the bridge.
const NOBODY: &str = "02:00:5e:00:53:00";

/// See the module. Everything is taken away with the value; what a killed process
/// left behind is taken away by the next network.
pub struct Network {
    number: u8,
    places: u8,
}

/// One end of a way in a [`Network`]: a place, or one of this machine's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A place, from 0.
    Place(u8),
    /// This machine: its first address and those after it, from 0.
    Here(u8),
}

/// Why no network can be made on this machine, if none can.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        return Some("making a network namespace takes root");
    }
    if ip("link show").is_err() {
        return Some("the ip command is not installed");
    }
    // Some containers give root without the right to make namespaces.
    let name = format!("hw-try-{}", std::process::id());
    if ip(&format!("netns add {name}")).is_err() {
        return Some("network namespaces cannot be made here");
    }
    let bridge = format!("hwt{}", std::process::id());
    let made = ip(&format!("link add {bridge} type bridge"));
    let _ = ip(&format!("link del {bridge}"));
    let _ = ip(&format!("netns del {name}"));
    made.is_err().then_some("bridges cannot be made here")
}

impl Network {
    /// Makes a network of so many places. This machine has `here` addresses in it.
    ///
    /// # Errors
    /// If the system refuses, see [`obstacle`].
    pub fn new(places: u8, here: u8) -> Result<Self> {
        ensure!(here < FIRST_PLACE && places < 200, "too many addresses");
        sweep();
        let network = Self { number: claim()?, places };
        network.build(here).context("make a network")?;
        Ok(network)
    }

    fn build(&self, here: u8) -> Result<()> {
        let bridge = self.bridge();
        for number in 0..here {
            ip(&format!("addr add {}/24 dev {bridge}", self.address(End::Here(number))))?;
        }
        ip(&format!("link set {bridge} up"))?;
        for place in 0..self.places {
            let (space, near) = (self.namespace(place), format!("hwv{}-{place}", self.number));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {near} type veth peer name net0 netns {space}"))?;
            ip(&format!("link set {near} master {bridge} up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            let address = self.address(End::Place(place));
            ip(&format!("-n {space} addr add {address}/24 dev net0"))?;
            ip(&format!("-n {space} link set net0 up"))?;
        }
        Ok(())
    }

    /// Address of one end.
    #[must_use]
    pub fn address(&self, end: End) -> Ipv4Addr {
        let host = match end {
            End::Place(number) => FIRST_PLACE + number,
            End::Here(number) => 1 + number,
        };
        Ipv4Addr::new(10, 231, self.number, host)
    }

    /// Name of a place's namespace.
    #[must_use]
    pub fn namespace(&self, place: u8) -> String {
        format!("hw{}-{}-{place}", std::process::id(), self.number)
    }

    /// From now on nothing that a place sends reaches the other end.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut(&self, from: u8, to: End) -> Result<()> {
        let (space, to) = (self.namespace(from), self.address(to));
        ip(&format!("-n {space} neigh replace {to} lladdr {NOBODY} dev net0 nud permanent"))
    }

    /// Undoes [`Network::cut`].
    ///
    /// # Errors
    /// If nothing was cut.
    pub fn mend(&self, from: u8, to: End) -> Result<()> {
        let (space, to) = (self.namespace(from), self.address(to));
        ip(&format!("-n {space} neigh del {to} dev net0"))
    }

    fn bridge(&self) -> String {
        format!("hwbr{}", self.number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in 0..self.places {
            let _ = ip(&format!("netns del {}", self.namespace(place)));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}

/// Takes a number nobody uses; the bridge of that name is the claim.
fn claim() -> Result<u8> {
    for number in FIRST..FIRST + NETWORKS {
        if ip(&format!("link add hwbr{number} type bridge")).is_ok() {
            return Ok(number);
        }
    }
    bail!("{NETWORKS} networks are in use")
}

/// Takes away what processes that are gone have left: namespaces carry their
/// maker's id and the bridge's number.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.strip_prefix("hw").unwrap_or_default().split('-');
        let numbers = (parts.next().and_then(|it| it.parse::<u32>().ok()), parts.next());
        if let (Some(maker), Some(number)) = numbers
            && !Path::new(&format!("/proc/{maker}")).exists()
        {
            let _ = ip(&format!("netns del {name}"));
            let _ = ip(&format!("link del hwbr{number}"));
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new(std::env::var_os("HEADWATER_IP").unwrap_or_else(|| "ip".into()))
        .args(arguments.split(' '))
        .output()?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::{Child, Stdio};
    use std::time::Duration;

    use super::*;

    /// Sends a datagram to this machine ten times a second.
    fn sender(network: &Network, to: &UdpSocket) -> Child {
        let (space, port) = (network.namespace(0), to.local_addr().unwrap().port());
        let here = network.address(End::Here(0));
        let script = format!(
            "exec 3<>/dev/udp/{here}/{port}; for n in $(seq 200); do echo x >&3; sleep 0.1; done"
        );
        Command::new("ip")
            .args(["netns", "exec", &space, "bash", "-c", &script])
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn arrives(socket: &UdpSocket, patience: Duration) -> bool {
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.recv(&mut [0; 16]).is_ok()
    }

    #[test]
    fn what_is_sent_over_a_way_that_is_cut_does_not_arrive() {
        if let Some(obstacle) = obstacle() {
            println!("skipped: {obstacle}");
            return;
        }
        let network = Network::new(1, 1).unwrap();
        let socket = UdpSocket::bind((network.address(End::Here(0)), 0)).unwrap();
        let mut sender = sender(&network, &socket);
        let patience = Duration::from_secs(10);
        assert!(arrives(&socket, patience), "nothing arrives");
        network.cut(0, End::Here(0)).unwrap();
        // What was on its way is read, and then there is nothing for a while.
        let silent = (0..100).any(|_| !arrives(&socket, Duration::from_millis(800)));
        network.mend(0, End::Here(0)).unwrap();
        assert!(silent, "datagrams pass a way that is cut");
        assert!(arrives(&socket, patience), "nothing arrives over a way that was mended");
        sender.kill().unwrap();
        sender.wait().unwrap();
    }
}
