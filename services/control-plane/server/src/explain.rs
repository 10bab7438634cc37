//! Why a room is where it is, in words.

use headwater_control_core::node::{LOAD_FULL, LOAD_SOFT};
use headwater_control_core::{
    AgentState, IntendedRoom, NodeView, Standing, State, TreeConfig, TreeContext, Wish, choose,
    plan_tree,
};
use headwater_model::{NodeId, RoomId};
use headwater_proto::v1::{ExplainPlacementResponse, NodeVerdict};

use crate::{convert, names};

/// Explains where a room is, or where it would go.
pub(crate) fn placement(state: &State, tree: &TreeConfig, id: &RoomId) -> ExplainPlacementResponse {
    let room = state.intended().rooms().get(id);
    let nodes = &state.observed().nodes;
    ExplainPlacementResponse {
        summary: summary(state, id, room),
        epoch: room.map_or(0, |room| room.epoch().0),
        nodes: nodes.iter().map(|(node, view)| verdict(node, view, room)).collect(),
        pending: room.map_or_else(Vec::new, |room| pending(state, tree, id, room)),
    }
}

fn summary(state: &State, id: &RoomId, room: Option<&IntendedRoom>) -> String {
    let nodes = &state.observed().nodes;
    let Some(plan) = room.and_then(|room| room.plan.as_ref()) else {
        return match choose(nodes, &Wish::default(), 0) {
            Ok(choice) => format!(
                "The room is on no node; of two nodes drawn by lot the less loaded would get it, \
                 for example {}.",
                choice.node
            ),
            Err(error) => format!("The room is on no node and cannot be placed: {error}."),
        };
    };
    let people = room.map_or(0, |room| state.observed().count_of(id, room).0);
    let Some(home) = plan.home() else {
        return "The room's plan names no shard.".to_owned();
    };
    match plan.shards.len() {
        1 => format!(
            "The room is whole on shard {} of {} since epoch {}; {people} participants.",
            home.shard, home.node, plan.epoch
        ),
        shards => format!(
            "The room is spread over {shards} shards with its home on shard {} of {}, since epoch \
             {}; {people} participants.",
            home.shard, home.node, plan.epoch
        ),
    }
}

fn verdict(id: &NodeId, view: &NodeView, room: Option<&IntendedRoom>) -> NodeVerdict {
    let utilisation = view.utilisation();
    let mut reasons = Vec::new();
    let standing = view.standing();
    match standing {
        Standing::Serving => {}
        Standing::Cordoned => reasons.push("it is cordoned".to_owned()),
        Standing::Draining if view.leaving => reasons.push("its process stops".to_owned()),
        Standing::Draining => reasons.push("it drains".to_owned()),
        Standing::Unreachable => reasons.push("it does not answer this replica".to_owned()),
        Standing::Unregistered => reasons.push("its lease is gone, but it answers".to_owned()),
        Standing::Gone => reasons.push("it is gone".to_owned()),
    }
    if standing == Standing::Serving && view.agent != AgentState::Connected {
        reasons.push("it has not reported yet; others come first".to_owned());
    }
    if !view.has_slot() {
        reasons.push("it has all the participants it accepts".to_owned());
    }
    if utilisation >= LOAD_FULL {
        reasons.push(format!("it is full: {utilisation:.2} of 1, no room from {LOAD_FULL} on"));
    } else if utilisation >= LOAD_SOFT {
        reasons.push(format!("it is loaded: {utilisation:.2} of 1; only if no other can"));
    } else if reasons.is_empty() {
        reasons.push(format!("it serves with a load of {utilisation:.2} of 1"));
    }
    if !view.relays {
        reasons.push("it takes no relay links, so only whole rooms".to_owned());
    }
    let eligible = standing == Standing::Serving
        && view.shards > 0
        && view.has_slot()
        && utilisation < LOAD_FULL;
    NodeVerdict {
        node: names::node(id),
        state: convert::node_state(standing).into(),
        zone: view.zone.clone(),
        region: view.region.clone(),
        utilisation,
        planned_rooms: view.planned_rooms(),
        eligible,
        carries: room.and_then(|room| room.plan.as_ref()).is_some_and(|plan| plan.names(id)),
        reasons,
    }
}

/// What the planner would change if it had its way now.
fn pending(state: &State, config: &TreeConfig, id: &RoomId, room: &IntendedRoom) -> Vec<String> {
    let observed = state.observed();
    let Some(plan) = &room.plan else {
        return vec!["it gets a first plan".to_owned()];
    };
    let mut pending: Vec<String> = plan
        .shards
        .iter()
        .filter_map(|planned| match observed.standing(&planned.node) {
            Standing::Gone => Some(format!("{} is gone and will be replaced", planned.node)),
            Standing::Draining => Some(format!("it leaves {}", planned.node)),
            Standing::Serving
            | Standing::Cordoned
            | Standing::Unreachable
            | Standing::Unregistered => None,
        })
        .collect();
    let (nobody, asked) = (Default::default(), Default::default());
    let context = TreeContext {
        nodes: &observed.nodes,
        gone: &nobody,
        leaving: &nobody,
        asked: &asked,
        may_shrink: true,
        config,
    };
    let tree = plan_tree(id, room, &context);
    let (has, gets) = (plan.shards.len(), tree.shards.len());
    if gets != has && gets > 0 {
        pending.push(format!("it goes from {has} to {gets} shards"));
    } else if tree.shards != plan.shards && gets > 0 {
        pending.push("its tree is put in order".to_owned());
    }
    if tree.missing > 0 {
        pending.push(format!("{} more shards are needed than there are", tree.missing));
    }
    pending
}
