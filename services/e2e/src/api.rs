//! What the tests ask of the platform API, and of nodes as the control plane does.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use headwater_model::Grants;
use headwater_proto::node::v1::node_service_client::NodeServiceClient;
use headwater_proto::v1::room_service_client::RoomServiceClient;
use headwater_proto::v1::{
    CreateRoomRequest, DeleteRoomRequest, GetRoomRequest, ListRoomsRequest, Room,
};
use headwater_rpc::client::ClientTls;
use headwater_rpc::token::{KeyRing, TokenRequest, unix_seconds};
use headwater_rpc::{ClusterCredential, Connection, connect};
use secrecy::SecretString;

use crate::cluster::{API_KEY, API_SECRET, CLUSTER_SECRET, Cluster, Role};

/// A call that takes longer has failed.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// One shard of a room's plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    /// Its node.
    pub node: String,
    /// Its index in the node.
    pub shard: u32,
    /// Index in the plan of the shard it gets the room from; none for the home.
    pub parent: Option<usize>,
}

/// Names of the nodes that carry a room, its home first.
///
/// # Errors
/// If no control plane answers for it.
pub fn nodes_of(cluster: &Cluster, room: &str) -> Result<Vec<String>> {
    let plan = plan_of(cluster, room)?;
    Ok(plan.into_iter().map(|planned| planned.node).collect())
}

/// The shards that carry a room, its home first.
///
/// # Errors
/// If no control plane answers for it.
pub fn plan_of(cluster: &Cluster, room: &str) -> Result<Vec<Planned>> {
    let urls: Vec<String> = cluster.control_planes.iter().map(Role::rpc_url).collect();
    let room = room.to_owned();
    wait_for(async move {
        let mut last = None;
        for url in urls {
            let request = GetRoomRequest { name: format!("rooms/{room}") };
            let answer = match client(&url) {
                Ok(mut client) => client.get_room(signed(request)?).await,
                Err(error) => return Err(error),
            };
            match answer {
                Ok(answer) => {
                    let room = answer.into_inner().room.context("an answer without a room")?;
                    return Ok(planned(&room));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there is no control plane")?.into())
    })
}

/// The shards of a room's plan; none if it has no plan.
#[must_use]
pub fn planned(room: &Room) -> Vec<Planned> {
    let shards = room.plan.iter().flat_map(|plan| &plan.shards);
    let planned = shards.map(|shard| Planned {
        node: shard.node.trim_start_matches("nodes/").to_owned(),
        shard: shard.shard,
        parent: shard.parent.map(|parent| parent as usize),
    });
    planned.collect()
}

/// Every room that one control plane knows.
///
/// # Errors
/// If it does not answer.
pub async fn list_rooms(url: &str) -> Result<Vec<Room>> {
    let request = signed(ListRoomsRequest { page_size: 1000, ..ListRoomsRequest::default() })?;
    Ok(client(url)?.list_rooms(request).await?.into_inner().rooms)
}

/// Asks one control plane for a room, under a request id; answers with its uid.
///
/// # Errors
/// If it refuses.
pub fn create_room(role: &Role, room: &str, request_id: &str) -> Result<String> {
    let url = role.rpc_url();
    let request = CreateRoomRequest {
        room_id: room.to_owned(),
        request_id: request_id.to_owned(),
        room: None,
    };
    wait_for(async move {
        let answer = client(&url)?.create_room(signed(request)?).await?;
        Ok(answer.into_inner().room.context("an answer without a room")?.uid)
    })
}

/// Has one control plane end a room.
///
/// # Errors
/// If it refuses.
pub fn delete_room(role: &Role, room: &str) -> Result<()> {
    let url = role.rpc_url();
    let request =
        DeleteRoomRequest { name: format!("rooms/{room}"), ..DeleteRoomRequest::default() };
    wait_for(async move {
        client(&url)?.delete_room(signed(request)?).await?;
        Ok(())
    })
}

/// How many participants of each room a media node has, as it reports now.
///
/// # Errors
/// If it does not answer.
pub fn people_on(node: &Role) -> Result<BTreeMap<String, u32>> {
    let url = node.rpc_url();
    wait_for(async move {
        let credential = ClusterCredential::new(&SecretString::from(CLUSTER_SECRET))?;
        let connection = connect(&url, &ClientTls::default(), Some(credential))?;
        let orders = tokio_stream::pending();
        let mut client = NodeServiceClient::new(connection);
        let asked = client.control(orders);
        let mut reports = tokio::time::timeout(CALL_LIMIT, asked).await??.into_inner();
        let first = tokio::time::timeout(CALL_LIMIT, reports.message()).await??;
        let mut people = BTreeMap::new();
        for report in first.context("a node that does not report")?.rooms {
            *people.entry(report.room_id).or_default() += report.participant_count;
        }
        Ok(people)
    })
}

/// Runs a call to its end. Callers may be inside a runtime, where blocking on
/// another is refused.
fn wait_for<T: Send + 'static>(
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let ask = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(call)
    });
    ask.join().map_err(|_| anyhow::anyhow!("the question panicked"))?
}

fn client(url: &str) -> Result<RoomServiceClient<Connection>> {
    Ok(RoomServiceClient::new(connect(url, &ClientTls::default(), None)?))
}

fn signed<T>(message: T) -> Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_LIMIT);
    let keys = KeyRing::single(API_KEY, API_SECRET)?;
    let grants = Grants { room_create: true, room_list: true, ..Grants::default() };
    let wanted = TokenRequest { grants, ttl: Duration::from_secs(60) };
    let token = format!("Bearer {}", keys.mint(&wanted, unix_seconds())?);
    request.metadata_mut().insert("authorization", token.parse()?);
    Ok(request)
}
