//! Connections to media nodes, one for each address in use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_model::NodeId;
use headwater_proto::node::v1::node_service_client::NodeServiceClient;
use headwater_rpc::server::{MESSAGE_BYTES_IN_MAX, MESSAGE_BYTES_OUT_MAX};
use headwater_rpc::{ClientTls, ClusterCredential, ConnectError, Connection, connect};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How long a node may take to say that it is there. A node that somebody could
/// not use and that does not answer within this is given up: more would eat up
/// the 2 s in which media must be back.
const PROBE_TIMEOUT: Duration = Duration::from_millis(700);

/// How long the answer of a probe holds. When a node dies everybody who was on
/// it complains in the same moment, and one answer is enough for all.
const PROBE_HOLDS: Duration = Duration::from_millis(300);

/// When a node was last asked and whether it answered; held while it is asked.
type Probe = Arc<tokio::sync::Mutex<Option<(Instant, bool)>>>;

#[derive(Debug)]
struct Link {
    url: String,
    connection: Connection,
    probe: Probe,
}

/// Connections to nodes. Bounded by [`Nodes::keep_only`].
#[derive(Debug)]
pub(crate) struct Nodes {
    tls: ClientTls,
    credential: ClusterCredential,
    links: Mutex<BTreeMap<NodeId, Link>>,
}

impl Nodes {
    pub(crate) fn new(tls: ClientTls, credential: ClusterCredential) -> Self {
        Self { tls, credential, links: Mutex::default() }
    }

    /// The connection to a node at an address; made when it is first used.
    pub(crate) fn connection(&self, node: &NodeId, url: &str) -> Result<Connection, ConnectError> {
        self.link(node, url).map(|(connection, _)| connection)
    }

    fn link(&self, node: &NodeId, url: &str) -> Result<(Connection, Probe), ConnectError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(node).filter(|link| link.url == url) {
            return Ok((link.connection.clone(), Arc::clone(&link.probe)));
        }
        let connection = connect(url, &self.tls, Some(self.credential.clone()))?;
        let link =
            Link { url: url.to_owned(), connection: connection.clone(), probe: Probe::default() };
        let probe = Arc::clone(&link.probe);
        links.insert(node.clone(), link);
        Ok((connection, probe))
    }

    /// Forgets the connections to all other nodes.
    pub(crate) fn keep_only(&self, nodes: &BTreeMap<NodeId, String>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|node, _| nodes.contains_key(node));
    }

    /// Whether a node answers and takes calls. One that says it is stopping is
    /// as little use as one that is gone.
    pub(crate) async fn answers(&self, node: &NodeId, url: &str) -> bool {
        let Ok((connection, probe)) = self.link(node, url) else {
            return false;
        };
        let mut last = probe.lock().await;
        if let Some((at, answered)) = *last
            && at.elapsed() < PROBE_HOLDS
        {
            return answered;
        }
        let answered = ask(connection).await;
        *last = Some((Instant::now(), answered));
        answered
    }
}

async fn ask(connection: Connection) -> bool {
    let mut client = HealthClient::new(connection);
    let asking = client.check(HealthCheckRequest::default());
    match tokio::time::timeout(PROBE_TIMEOUT, asking).await {
        Ok(Ok(answer)) => answer.into_inner().status() == ServingStatus::Serving,
        // It is there, whatever it thinks of the question.
        Ok(Err(status)) => !matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        ),
        Err(_) => false,
    }
}

/// A client of a node's service. Node answers hold whole rooms of participants.
pub(crate) fn client(connection: Connection) -> NodeServiceClient<Connection> {
    NodeServiceClient::new(connection)
        .max_decoding_message_size(MESSAGE_BYTES_OUT_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_IN_MAX)
}
