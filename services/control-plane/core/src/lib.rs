//! What the control plane decides, without doing any of it: where rooms go, who
//! gets in, which node is gone, when a room ends. No I/O, no clock, no lock.
//!
//! Two kinds of state come in and never mix. [`Intended`] is what the registry
//! says shall be: rooms and their plans. [`Observed`] is what was seen: nodes,
//! their load, and the rooms they report. Three functions compare them:
//!
//! - [`decide`] takes the facts about one participant who wants to join and says
//!   what to do next, until the answer is an [`Admission`];
//! - [`plan`] is run by the elected replica over everything and returns the
//!   [`Action`]s that bring rooms off dead nodes and end empty ones;
//! - [`AgentLedger::orders`] is run by every replica for every node and returns
//!   the [`Order`]s that bring what a node carries in line with the registry.
//!
//! Any action and any order may be carried out twice, and by several replicas at
//! once: the registry's compare-and-swap and the epoch of a plan decide.
//!
//! [`Census`] says which nodes are gone and freezes when too many go at once,
//! [`Belief`] which are to be given up before their lease runs out,
//! [`placement`] chooses a node and a shard, [`page`] makes page tokens and
//! [`replay`] remembers answers by request id.

pub mod admission;
pub mod agent;
pub mod belief;
pub mod census;
pub mod coming;
pub mod drain;
pub mod lifetime;
pub mod node;
pub mod page;
pub mod placement;
pub mod plan;
pub mod rebalance;
pub mod replay;
pub mod room;
pub mod seat;
pub mod state;
pub mod tree;

pub use admission::{Admission, Decision, JoinFacts, Knowledge, decide};
pub use agent::{AgentLedger, Order, ReleaseReason};
pub use belief::{Belief, Sight, Witness};
pub use census::{Census, CensusConfig};
pub use drain::Pace;
pub use node::{AgentState, Lifecycle, NodeLoad, NodeView, Standing};
pub use placement::{Choice, NoPlace, Wish, choose};
pub use plan::{Action, Cause, PlanContext, Planned, plan};
pub use rebalance::{Balancer, Move};
pub use room::{
    IntendedRoom, Plan, PlannedShard, Rank, RoomReport, RoomSpec, ShardRef, first_epoch, next_epoch,
};
pub use seat::{SeatWish, choose_seat, is_crowded};
pub use state::{Intended, NodeFacts, Observed, State};
pub use tree::{Tree, TreeConfig, TreeContext, plan_tree};
