//! `headwater node` and `headwater room`: orders to nodes and questions about
//! rooms, asked of a control plane and printed for people.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use headwater_model::Grants;
use headwater_proto::v1::cluster_service_client::ClusterServiceClient;
use headwater_proto::v1::{
    CordonNodeRequest, DrainNodeRequest, DrainProgress, ExplainPlacementRequest, GetNodeRequest,
    GetRoomTopologyRequest, ListNodesRequest, Node, NodeState, SimulatePlacementRequest,
    TopologyShard, UncordonNodeRequest,
};
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{ClientTls, Connection, TokenRequest, connect};
use tonic::Request;

use crate::cli::{ApiArguments, NodeArguments, NodeCommand, RoomArguments, RoomCommand};
use crate::{output, token};

/// Between two looks at a drain.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the token of this one command is good, a waiting drain included.
const TOKEN_TTL: Duration = Duration::from_secs(25 * 3600);
const NODES_PER_PAGE: u32 = 1000;

/// Carries out an order to a node, or lists the nodes.
///
/// # Errors
/// If the control plane refuses or does not answer, or a drain is not in time.
pub async fn node(arguments: &NodeArguments) -> anyhow::Result<()> {
    let mut operator = Operator::new(&arguments.api)?;
    let node = match &arguments.command {
        NodeCommand::List => {
            let nodes = operator.nodes().await?;
            output::say(table(&nodes).trim_end());
            return Ok(());
        }
        NodeCommand::Cordon(order) => {
            let (name, reason) = (node_name(&order.node), order.reason.clone());
            let request = operator.with(CordonNodeRequest { name, reason })?;
            operator.api.cordon_node(request).await?.into_inner().node
        }
        NodeCommand::Drain { order, timeout, wait } => {
            let timeout = prost_types::Duration::try_from(*timeout).context("--timeout")?;
            let (name, reason) = (node_name(&order.node), order.reason.clone());
            let request =
                operator.with(DrainNodeRequest { name, reason, timeout: Some(timeout) })?;
            let node = operator.api.drain_node(request).await?.into_inner().node;
            if *wait {
                return operator.wait_for_drain(&order.node).await;
            }
            node
        }
        NodeCommand::Uncordon { node } => {
            let request = operator.with(UncordonNodeRequest { name: node_name(node) })?;
            operator.api.uncordon_node(request).await?.into_inner().node
        }
    };
    output::say(table(node.as_slice()).trim_end());
    Ok(())
}

/// Answers a question about a room.
///
/// # Errors
/// If the control plane refuses or does not answer.
pub async fn room(arguments: &RoomArguments) -> anyhow::Result<()> {
    let mut operator = Operator::new(&arguments.api)?;
    let text = match &arguments.command {
        RoomCommand::Topology { room } => {
            let request = operator.with(GetRoomTopologyRequest { name: room_name(room) })?;
            let found = operator.api.get_room_topology(request).await?.into_inner();
            let head = format!(
                "epoch {}, {} shards, depth {}, {} links between zones, {} participants\n",
                found.epoch,
                found.shards.len(),
                found.depth,
                found.inter_zone_links,
                found.participant_count
            );
            head + &tree(&found.shards)
        }
        RoomCommand::Explain { room } => {
            let request = operator.with(ExplainPlacementRequest { room: room_name(room) })?;
            let found = operator.api.explain_placement(request).await?.into_inner();
            let mut text = found.summary + "\n";
            for verdict in &found.nodes {
                let carries = if verdict.carries { "carries it" } else { "" };
                let share = verdict.utilisation * 100.0;
                let reasons = verdict.reasons.join("; ");
                let _ = writeln!(text, "{:24} {share:3.0} % {carries:10} {reasons}", verdict.node);
            }
            for pending in &found.pending {
                let _ = writeln!(text, "to be done: {pending}");
            }
            text
        }
        RoomCommand::Simulate { participants, without } => {
            let request = operator.with(SimulatePlacementRequest {
                participant_count: *participants,
                without_nodes: without.iter().map(|node| node_name(node)).collect(),
                ..SimulatePlacementRequest::default()
            })?;
            let found = operator.api.simulate_placement(request).await?.into_inner();
            let head = format!(
                "{} shards, depth {}, {} links between zones, {} participants without a place\n",
                found.shards.len(),
                found.depth,
                found.inter_zone_links,
                found.unplaced_participants
            );
            head + &tree(&found.shards)
        }
    };
    output::say(text.trim_end());
    Ok(())
}

struct Operator {
    api: ClusterServiceClient<Connection>,
    token: String,
}

impl Operator {
    fn new(arguments: &ApiArguments) -> anyhow::Result<Self> {
        let grants = Grants { room_create: true, room_list: true, ..Grants::default() };
        let request = TokenRequest { grants, ttl: TOKEN_TTL };
        let token = token::key_ring(&arguments.keys)?.mint(&request, unix_seconds())?;
        let tls = ClientTls { ca_file: arguments.ca_file.clone(), ..ClientTls::default() };
        let connection = connect(&arguments.api, &tls, None).context("--api")?;
        Ok(Self { api: ClusterServiceClient::new(connection), token: format!("Bearer {token}") })
    }

    fn with<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        request.metadata_mut().insert("authorization", self.token.parse()?);
        Ok(request)
    }

    async fn nodes(&mut self) -> anyhow::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListNodesRequest { page_size: NODES_PER_PAGE, page_token };
            let request = self.with(request)?;
            let page = self.api.list_nodes(request).await?.into_inner();
            nodes.extend(page.nodes);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(nodes);
            }
        }
    }

    /// Tells how a drain goes until it is done.
    async fn wait_for_drain(&mut self, node: &str) -> anyhow::Result<()> {
        let mut said = None;
        loop {
            let request = self.with(GetNodeRequest { name: node_name(node) })?;
            let found = self.api.get_node(request).await?.into_inner().node;
            // A node that stopped meanwhile is known by its order only.
            let Some(drain) = found.and_then(|node| node.drain) else {
                output::say(&format!("{node} is gone, or its drain was taken back"));
                return Ok(());
            };
            if said.as_ref() != Some(&drain) {
                output::say(&progress(node, &drain));
            }
            if drain.done {
                return Ok(());
            }
            if drain.overdue {
                bail!("the node is not empty in time; its drain goes on");
            }
            said = Some(drain);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// A name as the API has it; `nodes/a` and `a` are the same.
fn node_name(node: &str) -> String {
    format!("nodes/{}", node.trim_start_matches("nodes/"))
}

fn room_name(room: &str) -> String {
    format!("rooms/{}", room.trim_start_matches("rooms/"))
}

fn progress(node: &str, drain: &DrainProgress) -> String {
    let mut text = format!(
        "{node}: {} of {} rooms and {} of {} participants left",
        drain.rooms_left,
        drain.rooms_at_order,
        drain.participants_left,
        drain.participants_at_order
    );
    if drain.rooms_stuck > 0 {
        let _ = write!(text, "; {} rooms that no other node can take", drain.rooms_stuck);
    }
    if drain.done {
        text.push_str("; done");
    }
    text
}

fn table(nodes: &[Node]) -> String {
    let mut text = format!(
        "{:24} {:12} {:12} {:>6} {:>6} {:>6}  {}\n",
        "NODE", "STATE", "ZONE", "ROOMS", "PEOPLE", "BUSY", "ORDER"
    );
    for node in nodes {
        let load = node.load.unwrap_or_default();
        let order = node.order.as_ref().map_or_else(String::new, |order| {
            format!("by {} {}", order.ordered_by, order.reason).trim_end().to_owned()
        });
        let line = format!(
            "{:24} {:12} {:12} {:6} {:6} {:4.0} %  {order}",
            node.name.trim_start_matches("nodes/"),
            state(node.state()),
            node.zone,
            load.room_count,
            load.participant_count,
            load.busiest_shard_ratio * 100.0,
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Serving => "serving",
        NodeState::Cordoned => "cordoned",
        NodeState::Draining => "draining",
        NodeState::Unreachable => "unreachable",
        NodeState::Unspecified => "unknown",
    }
}

/// The shards of a room, each below the one it gets the room from.
fn tree(shards: &[TopologyShard]) -> String {
    let mut text = String::new();
    let mut open: Vec<usize> = if shards.is_empty() { Vec::new() } else { vec![0] };
    let mut written = 0;
    while let Some(index) = open.pop() {
        let Some(shard) = shards.get(index).filter(|_| written < shards.len()) else { continue };
        written += 1;
        let indent = usize::try_from(shard.depth).unwrap_or(0) * 2;
        let _ = write!(
            text,
            "{:indent$}{}/{} {} participants",
            "",
            shard.node.trim_start_matches("nodes/"),
            shard.shard,
            shard.participant_count
        );
        if !shard.zone.is_empty() {
            let _ = write!(text, ", zone {}", shard.zone);
        }
        if let Some(seats) = shard.seats {
            let _ = write!(text, ", {seats} seats");
        }
        let backups = shard.backups.iter().filter_map(|rank| at(shards, *rank));
        let backups: Vec<String> = backups.collect();
        if !backups.is_empty() {
            let _ = write!(text, ", steps in: {}", backups.join(", "));
        }
        text.push('\n');
        let children = shard.children.iter().rev();
        open.extend(children.filter_map(|rank| usize::try_from(*rank).ok()));
    }
    text
}

fn at(shards: &[TopologyShard], rank: u32) -> Option<String> {
    let shard = shards.get(usize::try_from(rank).ok()?)?;
    Some(format!("{}/{}", shard.node.trim_start_matches("nodes/"), shard.shard))
}

#[cfg(test)]
mod tests {
    use headwater_proto::v1::{NodeLoad, NodeOrder};

    use super::*;

    #[test]
    fn a_tree_is_drawn_below_its_home() {
        let shard = |node: &str, depth, children: &[u32], backups: &[u32]| TopologyShard {
            node: format!("nodes/{node}"),
            depth,
            participant_count: 5,
            children: children.to_vec(),
            backups: backups.to_vec(),
            ..TopologyShard::default()
        };
        let shards = [
            shard("a", 0, &[1, 2], &[]),
            shard("b", 1, &[3], &[]),
            shard("c", 1, &[], &[1]),
            shard("d", 2, &[], &[2, 0]),
        ];
        let drawn = "a/0 5 participants\n  b/0 5 participants\n    \
                     d/0 5 participants, steps in: c/0, a/0\n  c/0 5 participants, steps in: b/0\n";
        assert_eq!(tree(&shards), drawn);
        assert_eq!(tree(&[]), "");
    }

    #[test]
    fn an_answer_that_holds_a_loop_is_drawn_no_further_than_its_shards() {
        let shard = TopologyShard { children: vec![0, 0], ..TopologyShard::default() };
        assert_eq!(tree(&[shard]).lines().count(), 1);
    }

    #[test]
    fn a_drain_tells_what_is_left_and_what_is_stuck() {
        let drain = DrainProgress {
            rooms_left: 1,
            rooms_at_order: 4,
            participants_left: 3,
            participants_at_order: 20,
            rooms_stuck: 1,
            ..DrainProgress::default()
        };
        assert_eq!(
            progress("a", &drain),
            "a: 1 of 4 rooms and 3 of 20 participants left; 1 rooms that no other node can take"
        );
    }

    #[test]
    fn nodes_are_listed_with_their_orders() {
        let node = Node {
            name: "nodes/a".to_owned(),
            state: NodeState::Draining.into(),
            load: Some(NodeLoad { participant_count: 7, ..NodeLoad::default() }),
            order: Some(NodeOrder { ordered_by: "ops".to_owned(), ..NodeOrder::default() }),
            ..Node::default()
        };
        let listed = table(&[node]);
        let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["a", "draining", "0", "7", "0", "%", "by", "ops"]);
    }
}
