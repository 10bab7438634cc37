//! The roles apart, on a real three-member etcd: two control planes, two media
//! nodes, two gateways, each a process of its own with a file of settings, and a
//! load balancer in front of the gateways.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use headwater_testkit::etcd::{Certificates, EtcdCluster};
use headwater_testkit::ports::free_port;
use headwater_testkit::process::{Process, http_get_at, metric};
use headwater_testkit::script::Target;

use crate::balancer::Balancer;
use crate::network::{End, Network};

/// API key of the cluster.
pub const API_KEY: &str = "e2e";
/// Its secret.
pub const API_SECRET: &str = "a-secret-of-the-whole-cluster-tests";
/// What its roles know.
pub const CLUSTER_SECRET: &str = "the-roles-of-the-whole-cluster-tests";

/// What cluster to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Members of etcd: 1 or 3.
    pub etcd_members: usize,
    /// Processes of each role that is not a media node.
    pub replicas: usize,
    /// Media nodes.
    pub media_nodes: usize,
    /// Forwarding threads of each.
    pub shards: u16,
    /// URL of an OTLP collector. Empty means none.
    pub otlp_endpoint: String,
    /// What the roles log: a level, or `target=level` with commas.
    pub log_filter: &'static str,
    /// Participants that one shard carries, if nodes are to relay: a room with more
    /// than three quarters of it spans several.
    pub shard_participants: Option<u32>,
    /// Zone of each media node, which is its region, too. New rooms go to the region
    /// of the first. Empty means that nodes tell none.
    pub zones: Vec<&'static str>,
    /// Media nodes and control planes each have a place of their own in a network
    /// that can be cut; see [`crate::network::obstacle`].
    pub apart: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            etcd_members: 3,
            replicas: 2,
            media_nodes: 2,
            shards: 1,
            otlp_endpoint: String::new(),
            log_filter: "info",
            shard_participants: None,
            zones: Vec::new(),
            apart: false,
        }
    }
}

/// A whole cluster. Everything in it ends with this value.
pub struct Cluster {
    /// Processes of the control plane.
    pub control_planes: Vec<Role>,
    /// Media nodes.
    pub media_nodes: Vec<Role>,
    /// Gateways.
    pub gateways: Vec<Role>,
    /// The registry's members.
    pub etcd: EtcdCluster,
    /// What scripts are told: the load balancer's address and the key pair.
    pub target: Target,
    /// Its network, if the roles are apart: the place of each media node has the
    /// node's number, those of the control planes come after, and etcd is on
    /// [`ETCD`].
    pub network: Option<Network>,
    _balancers: Vec<Balancer>,
    _folder: tempfile::TempDir,
}

/// Where roles that are apart reach etcd.
pub const ETCD: End = End::Here(1);

/// One process of a role, which can be killed and started again.
pub struct Role {
    /// Its name: the role and a number.
    pub name: String,
    /// Where its role listens: gRPC, or signalling if it is a gateway.
    pub port: u16,
    /// Where its admin server listens.
    pub admin_port: u16,
    /// Its address.
    ip: Ipv4Addr,
    /// Its network namespace, if it has one of its own.
    namespace: Option<String>,
    arguments: Vec<String>,
    folder: std::path::PathBuf,
    process: Process,
}

impl Cluster {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// If something does not start; the error holds the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        let etcd = EtcdCluster::start(options.etcd_members)?;
        let folder = tempfile::tempdir()?;
        let relaying = options.shard_participants;
        let places = u8::try_from(options.media_nodes + options.replicas)?;
        let network = options.apart.then(|| Network::new(places, 2)).transpose()?;
        let (endpoints, mut balancers) = endpoints(&etcd, network.as_ref())?;
        let common = Common {
            folder: folder.path(),
            endpoints,
            network: network.as_ref(),
            media_nodes: options.media_nodes,
            zones: &options.zones,
            otlp_endpoint: &options.otlp_endpoint,
            log_filter: options.log_filter,
            shards: options.shards,
            shard_participants: relaying.unwrap_or(0),
            relays: relaying.map(|_| Certificates::generate(folder.path())).transpose()?,
        };
        let numbers = || 0..options.replicas;
        let mut control_planes =
            numbers().map(|n| common.control_plane(n)).collect::<Result<Vec<_>>>()?;
        let mut media_nodes =
            (0..options.media_nodes).map(|n| common.media_node(n)).collect::<Result<Vec<_>>>()?;
        let urls: Vec<String> = control_planes.iter().map(Role::rpc_url).collect();
        let mut gateways =
            numbers().map(|n| common.gateway(n, &urls)).collect::<Result<Vec<_>>>()?;
        for role in control_planes.iter_mut().chain(&mut media_nodes).chain(&mut gateways) {
            role.process.wait_ready_at(role.admin())?;
        }
        let balancer = Balancer::start(gateways.iter().map(|gateway| gateway.port).collect())?;
        let target = Target {
            url: format!("ws://127.0.0.1:{}", balancer.port()),
            api_key: API_KEY.to_owned(),
            api_secret: API_SECRET.to_owned(),
        };
        balancers.push(balancer);
        let cluster = Self {
            control_planes,
            media_nodes,
            gateways,
            etcd,
            target,
            network,
            _balancers: balancers,
            _folder: folder,
        };
        cluster.wait_serving(options.media_nodes)?;
        Ok(cluster)
    }

    /// Waits until every control plane that runs can place rooms on this many nodes.
    ///
    /// # Errors
    /// If it takes longer than 30 s.
    pub fn wait_serving(&self, nodes: usize) -> Result<()> {
        let series = "headwater_cluster_nodes{state=\"serving\"}";
        wait("every control plane serves with every node", Duration::from_secs(30), || {
            let seen: Vec<Option<f64>> =
                self.control_planes.iter().map(|role| role.series(series).ok()).collect();
            let done = seen.iter().flatten().all(|count| *count == nodes as f64)
                && seen.iter().any(Option::is_some);
            (done, format!("{seen:?}"))
        })
    }

    /// All processes.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.control_planes.iter().chain(&self.media_nodes).chain(&self.gateways)
    }

    /// Lines of all logs that tell of an error or a panic.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let complaints = self.roles().flat_map(|role| {
            let log = role.process.log();
            let lines = log.lines().filter(|line| is_complaint(line));
            lines.map(|line| format!("{}: {line}", role.name)).collect::<Vec<_>>()
        });
        complaints.collect()
    }
}

fn is_complaint(line: &str) -> bool {
    line.contains("\"level\":\"ERROR\"") || line.contains(" ERROR ") || line.contains("panicked at")
}

impl Role {
    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, with its settings and ports, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let namespace = self.namespace.as_deref();
        self.process = Process::start_in(&self.folder, &self.name, &self.arguments, namespace)?;
        self.process.wait_ready_at(self.admin())
    }

    fn admin(&self) -> SocketAddr {
        (self.ip, self.admin_port).into()
    }

    /// Where it is called, if it is no gateway.
    #[must_use]
    pub fn rpc_url(&self) -> String {
        format!("http://{}:{}", self.ip, self.port)
    }

    /// Waits until it has ended, however that came.
    ///
    /// # Errors
    /// If it still runs after `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> Result<()> {
        let name = &self.name;
        let process = &mut self.process;
        wait(&format!("the end of {name}"), limit, || (!process.is_running(), String::new()))
    }

    /// Its id in the cluster, if it is a media node.
    #[must_use]
    pub fn node_id(&self) -> String {
        self.name.replace("media-node-", "node-")
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Status of a path of its admin server; 0 if nobody answers.
    #[must_use]
    pub fn status(&self, path: &str) -> u16 {
        http_get_at(self.admin(), path).map_or(0, |(status, _)| status)
    }

    /// Its metrics.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(http_get_at(self.admin(), "/metrics")?.1)
    }

    /// A metric, summed over its series.
    ///
    /// # Errors
    /// If it does not answer or has no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.metrics()?, name)
            .with_context(|| format!("{} has no metric {name}", self.name))
    }

    /// One series, named with its labels.
    ///
    /// # Errors
    /// If it does not answer or has no such series.
    pub fn series(&self, name: &str) -> Result<f64> {
        let metrics = self.metrics()?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("{} has no series {name}", self.name))?.parse()?)
    }

    /// Signalling address, if it is a gateway.
    #[must_use]
    pub fn signal_url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }
}

/// Waits until a probe says that it is done; it also says what it saw.
///
/// # Errors
/// If it is not done within `limit`; the error holds what was seen last.
pub fn wait(what: &str, limit: Duration, mut probe: impl FnMut() -> (bool, String)) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let (done, seen) = probe();
        if done {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not within {limit:?}: {what}; seen last: {seen}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the settings of all roles have in common.
struct Common<'a> {
    folder: &'a Path,
    /// Of etcd.
    endpoints: Vec<String>,
    network: Option<&'a Network>,
    media_nodes: usize,
    zones: &'a [&'static str],
    otlp_endpoint: &'a str,
    log_filter: &'a str,
    shards: u16,
    shard_participants: u32,
    /// What media nodes show each other, if they relay.
    relays: Option<Certificates>,
}

/// What a role of this number is reached by.
struct Seat {
    ip: Ipv4Addr,
    namespace: Option<String>,
}

impl Common<'_> {
    fn seat(&self, place: usize) -> Result<Seat> {
        let Some(network) = self.network else {
            return Ok(Seat { ip: Ipv4Addr::LOCALHOST, namespace: None });
        };
        let place = u8::try_from(place)?;
        let namespace = Some(network.namespace(place));
        Ok(Seat { ip: network.address(End::Place(place)), namespace })
    }

    fn control_plane(&self, number: usize) -> Result<Role> {
        let port = free_port();
        let seat = self.seat(self.media_nodes + number)?;
        let region = self.zones.first().map_or("", |zone| *zone);
        let settings = format!(
            "{}{}\n[control_plane]\nregion = \"{region}\"\nshard_participants = {}\n\
             [control_plane.server]\naddress = \"{}:{port}\"\n",
            self.registry(),
            keys(),
            self.shard_participants,
            seat.ip,
        );
        self.start(("control-plane", number), seat, port, &settings)
    }

    fn media_node(&self, number: usize) -> Result<Role> {
        let [port, udp, tcp] = std::array::from_fn(|_| free_port());
        // The ports of further shards follow the first and may be taken.
        let (udp, tcp) = if self.shards > 1 { (0, 0) } else { (udp, tcp) };
        let shards = self.shards;
        let seat = self.seat(number)?;
        let (ip, zone) = (seat.ip, self.zones.get(number).map_or("", |zone| *zone));
        let settings = format!(
            "{}\n[media_node]\nnode_id = \"node-{number}\"\nlisten = \"{ip}:{port}\"\n\
             shards = {shards}\nzone = \"{zone}\"\nregion = \"{zone}\"\n\
             udp_port = {udp}\ntcp_port = {tcp}\nadvertise_ips = [\"{ip}\"]\n{}",
            self.registry(),
            self.relay(ip),
        );
        self.start(("media-node", number), seat, port, &settings)
    }

    fn gateway(&self, number: usize, control_planes: &[String]) -> Result<Role> {
        let port = free_port();
        let settings = format!(
            "{}\n[gateway]\nlisten = \"127.0.0.1:{port}\"\ncontrol_plane_urls = {control_planes:?}\n",
            keys()
        );
        let seat = Seat { ip: Ipv4Addr::LOCALHOST, namespace: None };
        self.start(("gateway", number), seat, port, &settings)
    }

    fn relay(&self, ip: Ipv4Addr) -> String {
        let Some(files) = &self.relays else { return String::new() };
        format!(
            "[media_node.relay]\nlisten = \"{ip}:{}\"\nserver_name = \"localhost\"\n\
             roots_file = {:?}\ncertificate_file = {:?}\nkey_file = {:?}\n",
            free_port(),
            files.ca,
            files.server,
            files.server_key,
        )
    }

    fn registry(&self) -> String {
        let endpoints = &self.endpoints;
        format!("[registry]\nkind = \"etcd\"\n[registry.etcd]\nendpoints = {endpoints:?}\n")
    }

    /// Writes the file of settings and starts a process with it.
    fn start(
        &self,
        (role, number): (&str, usize),
        seat: Seat,
        port: u16,
        settings: &str,
    ) -> Result<Role> {
        let name = format!("{role}-{number}");
        let admin_port = free_port();
        let Seat { ip, namespace } = seat;
        let settings = format!(
            "{settings}\n[cluster]\nsecret = \"{CLUSTER_SECRET}\"\n[admin]\nlisten = \"{ip}:{admin_port}\"\n\
             [telemetry]\notlp_endpoint = \"{}\"\nlog_filter = \"{}\"\n",
            self.otlp_endpoint, self.log_filter
        );
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, settings)?;
        let arguments = vec![role.to_owned(), "--config".to_owned(), file.display().to_string()];
        let process = Process::start_in(self.folder, &name, &arguments, namespace.as_deref())?;
        let folder = self.folder.to_owned();
        Ok(Role { name, port, admin_port, ip, namespace, arguments, folder, process })
    }
}

/// Where roles reach the members of etcd: on loopback, or where roles that are apart
/// can.
fn endpoints(
    etcd: &EtcdCluster,
    network: Option<&Network>,
) -> Result<(Vec<String>, Vec<Balancer>)> {
    let Some(network) = network else { return Ok((etcd.endpoints(), Vec::new())) };
    let ip = network.address(ETCD);
    let (mut endpoints, mut ways) = (Vec::new(), Vec::new());
    for endpoint in etcd.endpoints() {
        let port = endpoint.rsplit(':').next().context("an endpoint without a port")?;
        let way = Balancer::start_at(ip, vec![port.parse()?])?;
        endpoints.push(format!("http://{ip}:{}", way.port()));
        ways.push(way);
    }
    Ok((endpoints, ways))
}

fn keys() -> String {
    format!("\n[keys]\n{API_KEY} = \"{API_SECRET}\"\n")
}
