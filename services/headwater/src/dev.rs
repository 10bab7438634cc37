//! `headwater dev`: every role in one process on one machine, with a page to
//! open, and nothing to set up.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use headwater_model::{Grants, RoomId};
use headwater_registry::RegistryKind;
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{KeyRing, TokenRequest};
use tempfile::TempDir;

use crate::cli::{DevArguments, Overrides};
use crate::output;
use crate::ports::{self, Port, Protocol};
use crate::process::{Process, host_name, service};
use crate::settings::{DevSettings, KeyPairs, Override, Settings, load, show_in_line};
use crate::token::{DEV_KEY, DEV_SECRET};

mod announcement;
mod roles;

use announcement::{Announcement, media_line};
use roles::Roles;

/// How long the banner waits for the roles to find each other.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
const READY_POLL: Duration = Duration::from_millis(20);

/// How long the join link is good.
const LINK_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs everything until told to stop.
///
/// # Errors
/// If the settings cannot be used, a port is taken, or a role cannot start or fails.
pub async fn run(arguments: &DevArguments) -> anyhow::Result<()> {
    RoomId::new(arguments.room.as_str()).context("--room")?;
    let mut settings = settings(arguments)?;
    if settings.keys.is_empty() {
        settings.keys = KeyPairs::single(DEV_KEY, DEV_SECRET);
    }
    let keys = settings.keys.ring(None, None)?;
    ports::check(&wanted_ports(&settings)?)?;
    // Removed when this function ends, unless the rooms are kept elsewhere.
    let folder = registry_folder(arguments, &mut settings)?;
    let service = service(DevSettings::ROLE, host_name(), "");
    let process = Process::start(&service, &settings.telemetry, settings.admin.listen).await?;
    tracing::debug!(settings = show_in_line(&settings), "effective configuration");

    let admin_address = process.admin_address();
    let roles = Roles::start(settings, &process, keys.clone()).await?;
    let announcement = Announcement {
        page: roles.gateway.address,
        api: roles.control_plane.address,
        admin: admin_address,
        media: media_line(&roles.media_node),
        link_token: link_token(&keys, &arguments.room)?,
        key: keys.first_key().to_owned(),
        serves_page: roles.serves_page,
        room: arguments.room.clone(),
    };
    let readiness = process.readiness.clone();
    let stop = process.stop.clone();
    let announce = async move {
        let ready = async {
            while !readiness.is_ready() {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            waited = tokio::time::timeout(READY_TIMEOUT, ready) => match waited {
                Ok(()) => output::say(&announcement.to_string()),
                Err(_) => tracing::warn!(missing = ?readiness.missing(), "not everything is ready"),
            }
        }
    };
    tokio::spawn(announce);
    let stop = process.stop.clone();
    let result = process.run(roles.join(stop)).await;
    drop(folder);
    result
}

/// The settings with what the flags say.
fn settings(arguments: &DevArguments) -> anyhow::Result<DevSettings> {
    let file = arguments.common.config.as_deref();
    let base: DevSettings = load(file, arguments.common.overrides())?;
    let mut flags = Overrides::default();
    let page = moved(base.gateway.listen, arguments.bind, arguments.port);
    flags.add("--port", "gateway.listen", page);
    let api = base.control_plane.server.address;
    let api = moved(api, arguments.bind, arguments.api_port);
    flags.add("--api-port", "control_plane.server.address", api);
    let admin = moved(base.admin.listen, None, arguments.admin_port);
    flags.add("--admin-port", "admin.listen", admin);
    flags.add("--tcp-port", "media_node.tcp_port", arguments.tcp_port);
    flags.add("--udp-port", "media_node.udp_port", arguments.udp_port);
    flags.list("--advertise-ip", "media_node.advertise_ips", &arguments.advertise_ips);
    flags.add("--shards", "media_node.shards", arguments.shards);
    let web_root = arguments.web_root.as_ref().map(|path| path.display());
    flags.add("--web-root", "gateway.web_root", web_root);
    if arguments.memory {
        flags.add("--memory", "registry.kind", Some("memory"));
    }
    if let Some(folder) = &arguments.data_dir {
        let path = folder.join("headwater.redb");
        flags.add("--data-dir", "registry.kind", Some("embedded"));
        flags.add("--data-dir", "registry.embedded.path", Some(path.display()));
    }
    let overrides: Vec<Override> = arguments.common.overrides();
    load(file, flags.and(overrides))
}

/// An address with another host or port, if either is given.
fn moved(
    address: SocketAddr,
    ip: Option<std::net::IpAddr>,
    port: Option<u16>,
) -> Option<SocketAddr> {
    if ip.is_none() && port.is_none() {
        return None;
    }
    Some(SocketAddr::new(ip.unwrap_or(address.ip()), port.unwrap_or(address.port())))
}

/// Everything that will be bound.
fn wanted_ports(settings: &DevSettings) -> anyhow::Result<Vec<Port>> {
    let port = |purpose, flag, protocol, address| Port { purpose, flag, protocol, address };
    let api = settings.control_plane.server.address;
    let mut ports = vec![
        port("the page and signalling", "--port", Protocol::Tcp, settings.gateway.listen),
        port("the API", "--api-port", Protocol::Tcp, api),
        port("metrics", "--admin-port", Protocol::Tcp, settings.admin.listen),
    ];
    let node = &settings.media_node;
    for shard in 0..node.shard_count() {
        let of_shard = |first| headwater_media_node::Config::port_of_shard(first, shard);
        let udp = SocketAddr::new(node.media_ip, of_shard(node.udp_port)?);
        ports.push(port("media over UDP", "--udp-port", Protocol::Udp, udp));
        if node.tcp {
            let tcp = SocketAddr::new(node.media_ip, of_shard(node.tcp_port)?);
            ports.push(port("media over TCP", "--tcp-port", Protocol::Tcp, tcp));
        }
    }
    Ok(ports)
}

/// Makes sure that the embedded registry has a folder: the one asked for, or a
/// temporary one, which is handed out so that it can be removed.
fn registry_folder(
    arguments: &DevArguments,
    settings: &mut DevSettings,
) -> anyhow::Result<Option<TempDir>> {
    if let Some(folder) = &arguments.data_dir {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("--data-dir {} cannot be made", folder.display()))?;
        return Ok(None);
    }
    let embedded = &mut settings.registry.embedded;
    let untouched = *embedded == headwater_registry::EmbeddedConfig::default();
    if settings.registry.kind != RegistryKind::Embedded || !untouched {
        return Ok(None);
    }
    let folder = TempDir::with_prefix("headwater-dev-").context("no temporary folder")?;
    embedded.path = folder.path().join("headwater.redb");
    Ok(Some(folder))
}

fn link_token(keys: &KeyRing, room: &str) -> anyhow::Result<String> {
    let mut grants = Grants {
        identity: format!("guest-{:04x}", rand::random::<u16>()),
        display_name: "Guest".to_owned(),
        room: room.to_owned(),
        room_join: true,
        ..Grants::default()
    };
    grants.permission.can_update_metadata = true;
    let request = TokenRequest { grants, ttl: LINK_TTL };
    keys.mint(&request, unix_seconds()).context("the join link's token cannot be made")
}
