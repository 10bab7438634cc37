//! Session streams to media nodes: one for each participant, over a few
//! connections to each node.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use headwater_proto::node::v1::session_service_client::SessionServiceClient;
use headwater_rpc::client::{ClientTls, ConnectError, Patience, connect_with};
use headwater_rpc::{ClusterCredential, Connection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A node that does not answer a join this soon is taken for gone. Lower moves
/// people faster, higher spares a node that is merely busy.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(4);

/// Requests on their way to the node; more wait at the client.
const REQUESTS_MAX: usize = 32;

/// Largest event, in bytes: the first one names everybody in the room.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Connections to one node. Several, so that one lost packet does not hold up
/// thousands of sessions, and to stay clear of the node's limit on streams.
const CONNECTIONS_PER_NODE: usize = 4;

/// Nodes whose connections are kept. At the bound the one not used for longest
/// is forgotten; its streams live on.
const NODES_MAX: usize = 512;

/// An open session.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// Requests to the node. Dropping it ends the stream's upward half.
    pub(crate) requests: mpsc::Sender<node::AttachRequest>,
    /// Events of the node.
    pub(crate) events: Streaming<node::AttachResponse>,
}

/// The node's first word.
#[derive(Debug)]
pub(crate) enum Opening {
    /// The session is open.
    Joined(Box<Attachment>, Box<node::Joined>),
    /// It is not to be.
    Closed(node::Closed),
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// The plan names an address that is none.
    #[error("the address of the node cannot be used")]
    BadAddress(#[source] ConnectError),
    /// The node did not answer in time.
    #[error("the node did not answer in time")]
    Timeout,
    /// The call failed.
    #[error("the session stream failed")]
    Failed(#[source] Status),
    /// The first event was neither joined nor closed, or there was none.
    #[error("the node did not open the session")]
    Silent,
}

/// What a failure to attach says about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is gone, as far as can be seen from here.
    Gone,
    /// It is there and busy, or does not know the plan yet.
    NotNow,
    /// It is there and will not have this join, now or later.
    Never,
}

impl AttachError {
    /// What it says about the node.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::BadAddress(_) | Self::Timeout | Self::Silent => Verdict::Gone,
            Self::Failed(status) => match status.code() {
                Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => {
                    Verdict::Never
                }
                Code::FailedPrecondition | Code::ResourceExhausted => Verdict::NotNow,
                _ => Verdict::Gone,
            },
        }
    }
}

struct Known {
    connections: Vec<Connection>,
    next: usize,
    /// Rises with every use of any node.
    used: u64,
}

#[derive(Default)]
struct Pool {
    nodes: BTreeMap<String, Known>,
    uses: u64,
}

/// See the module.
pub(crate) struct Nodes {
    tls: ClientTls,
    credential: ClusterCredential,
    pool: Mutex<Pool>,
}

impl Nodes {
    pub(crate) fn new(tls: ClientTls, credential: ClusterCredential) -> Self {
        Self { tls, credential, pool: Mutex::default() }
    }

    /// Opens a session and waits for the node's first word.
    pub(crate) async fn attach(&self, url: &str, join: node::Join) -> Result<Opening, AttachError> {
        let connection = self.connection(url).map_err(AttachError::BadAddress)?;
        tokio::time::timeout(ATTACH_TIMEOUT, open(connection, join))
            .await
            .unwrap_or(Err(AttachError::Timeout))
    }

    fn connection(&self, url: &str) -> Result<Connection, ConnectError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.uses += 1;
        let uses = pool.uses;
        if !pool.nodes.contains_key(url) {
            let connections = (0..CONNECTIONS_PER_NODE)
                .map(|_| {
                    let credential = Some(self.credential.clone());
                    connect_with(url, &self.tls, credential, Patience::Alert)
                })
                .collect::<Result<_, _>>()?;
            if pool.nodes.len() >= NODES_MAX {
                pool.forget_oldest();
            }
            pool.nodes.insert(url.to_owned(), Known { connections, next: 0, used: uses });
        }
        let known = pool.nodes.get_mut(url).expect("the node was known or has been added");
        known.used = uses;
        known.next = (known.next + 1) % CONNECTIONS_PER_NODE;
        Ok(known.connections[known.next].clone())
    }
}

impl Pool {
    fn forget_oldest(&mut self) {
        let oldest = self.nodes.iter().min_by_key(|(_, known)| known.used);
        if let Some(url) = oldest.map(|(url, _)| url.clone()) {
            self.nodes.remove(&url);
        }
    }
}

async fn open(connection: Connection, join: node::Join) -> Result<Opening, AttachError> {
    let (requests, stream) = mpsc::channel(REQUESTS_MAX);
    let first = node::AttachRequest { request: Some(ToNode::Join(join)) };
    requests.send(first).await.map_err(|_| AttachError::Silent)?;
    let mut client =
        SessionServiceClient::new(connection).max_decoding_message_size(EVENT_BYTES_MAX);
    let answer = client.attach(ReceiverStream::new(stream)).await.map_err(AttachError::Failed)?;
    let mut events = answer.into_inner();
    let first = events.message().await.map_err(AttachError::Failed)?;
    match first.and_then(|first| first.event) {
        Some(Event::Joined(joined)) => {
            Ok(Opening::Joined(Box::new(Attachment { requests, events }), Box::new(joined)))
        }
        Some(Event::Closed(closed)) => Ok(Opening::Closed(closed)),
        Some(_) | None => Err(AttachError::Silent),
    }
}
