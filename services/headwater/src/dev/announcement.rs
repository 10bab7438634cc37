//! What `dev` tells a person once everything runs: where to point a browser, an
//! SDK and a gRPC client.

use std::net::{Ipv4Addr, SocketAddr};

use crate::token::{DEV_KEY, DEV_SECRET, join_link};

/// What a person is told once everything runs.
pub struct Announcement {
    pub page: SocketAddr,
    pub api: SocketAddr,
    pub admin: SocketAddr,
    pub media: String,
    pub link_token: String,
    pub key: String,
    pub serves_page: bool,
    pub room: String,
}

impl std::fmt::Display for Announcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let page = browser_url(self.page);
        let link = join_link(&page, &self.room, &self.link_token);
        writeln!(f, "\n  Headwater {} is running.\n", env!("CARGO_PKG_VERSION"))?;
        if self.serves_page {
            writeln!(f, "  Page        {page}   (open it in two tabs)")?;
            writeln!(f, "  Join link   {link}   (for one person)")?;
        } else {
            writeln!(f, "  Page        none: build it and name its folder with --web-root")?;
        }
        writeln!(f, "  SDK URL     ws{}", page.trim_start_matches("http"))?;
        writeln!(f, "  API         http://{}   (gRPC, with reflection)", reachable(self.api))?;
        if self.key == DEV_KEY {
            writeln!(f, "  Key pair    {DEV_KEY} / {DEV_SECRET}")?;
        } else {
            writeln!(f, "  API key     {}", self.key)?;
        }
        writeln!(f, "  Media       {}", self.media)?;
        writeln!(f, "  Metrics     http://{}/metrics", reachable(self.admin))?;
        write!(f, "\n  Press Ctrl-C to stop.\n")
    }
}

/// The ports of media.
pub fn media_line(node: &headwater_media_node::Running) -> String {
    let ports = |addresses: &[SocketAddr]| {
        addresses.iter().map(|it| it.port().to_string()).collect::<Vec<_>>().join(", ")
    };
    let tcp = match node.tcp_addresses.as_slice() {
        [] => String::new(),
        some => format!(", TCP {}", ports(some)),
    };
    format!("UDP {}{tcp}", ports(&node.udp_addresses))
}

/// An address by which this machine reaches a listener.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
    } else {
        address
    }
}

/// Browsers allow cameras on `localhost` without TLS, so it is written so.
fn browser_url(address: SocketAddr) -> String {
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_loopback() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}
