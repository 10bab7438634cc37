//! What the tests ask of the platform API.

use std::time::Duration;

use anyhow::{Context, Result};
use headwater_model::Grants;
use headwater_proto::v1::GetRoomRequest;
use headwater_proto::v1::room_service_client::RoomServiceClient;
use headwater_rpc::client::ClientTls;
use headwater_rpc::connect;
use headwater_rpc::token::{KeyRing, TokenRequest, unix_seconds};

use crate::cluster::{API_KEY, API_SECRET, Cluster};

/// Names of the nodes that carry a room, its home first.
///
/// # Errors
/// If no control plane answers for it.
pub fn nodes_of(cluster: &Cluster, room: &str) -> Result<Vec<String>> {
    let urls: Vec<String> = cluster
        .control_planes
        .iter()
        .map(|role| format!("http://127.0.0.1:{}", role.port))
        .collect();
    let room = room.to_owned();
    // Callers may be inside a runtime, where blocking on another is refused.
    let ask = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut last = None;
            for url in urls {
                match nodes_by(&url, &room).await {
                    Ok(nodes) => return Ok(nodes),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.context("there is no control plane")?)
        })
    });
    ask.join().map_err(|_| anyhow::anyhow!("the question panicked"))?
}

async fn nodes_by(url: &str, room: &str) -> Result<Vec<String>> {
    let connection = connect(url, &ClientTls::default(), None)?;
    let mut client = RoomServiceClient::new(connection);
    let mut request = tonic::Request::new(GetRoomRequest { name: format!("rooms/{room}") });
    request.set_timeout(Duration::from_secs(3));
    let token = format!("Bearer {}", token(room)?);
    request.metadata_mut().insert("authorization", token.parse()?);
    let answer = client.get_room(request).await?.into_inner();
    let room = answer.room.context("an answer without a room")?;
    let shards = room.plan.context("the room has no plan")?.shards;
    let name = |node: String| node.trim_start_matches("nodes/").to_owned();
    Ok(shards.into_iter().map(|shard| name(shard.node)).collect())
}

fn token(room: &str) -> Result<String> {
    let keys = KeyRing::single(API_KEY, API_SECRET)?;
    let grants =
        Grants { room: room.to_owned(), room_admin: true, room_list: true, ..Grants::default() };
    let request = TokenRequest { grants, ttl: Duration::from_secs(60) };
    Ok(keys.mint(&request, unix_seconds())?)
}
