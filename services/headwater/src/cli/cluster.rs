//! Flags of `node` and `room`: what operators ask of a running cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::time;

/// The key pair that tokens are signed with.
#[derive(Debug, Clone, Args)]
pub struct KeyArguments {
    /// API key.
    #[arg(long, value_name = "KEY", requires = "secret", env = "HEADWATER_API_KEY")]
    pub key: Option<String>,
    /// Secret of the API key.
    #[arg(long, value_name = "SECRET", env = "HEADWATER_API_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// Use the key pair of `headwater dev`.
    #[arg(long, conflicts_with_all = ["key", "config"])]
    pub dev: bool,
    /// Take the key pair from a role's file with settings.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub config: Option<PathBuf>,
}

/// Where the API is, and who asks.
#[derive(Debug, Clone, Args)]
pub struct ApiArguments {
    /// A control plane.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:7890",
        env = "HEADWATER_API"
    )]
    pub api: String,
    /// PEM file with the certificates that sign the control plane's, for `https`.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub keys: KeyArguments,
}

/// Flags of `node`.
#[derive(Debug, Clone, Args)]
pub struct NodeArguments {
    #[command(flatten)]
    pub api: ApiArguments,
    #[command(subcommand)]
    pub command: NodeCommand,
}

/// What to do with nodes.
#[derive(Debug, Clone, Subcommand)]
pub enum NodeCommand {
    /// Every node: its state, its load, its order.
    List,
    /// Keep its rooms, take no new ones.
    Cordon(OrderArguments),
    /// Move its rooms and participants to other nodes.
    Drain {
        #[command(flatten)]
        order: OrderArguments,
        /// When it is to be empty, as in 90s or 15m.
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
        timeout: Duration,
        /// Stay and tell how it goes until the node is empty. Fails if it is not in time.
        #[arg(long)]
        wait: bool,
    },
    /// Take a cordon or a drain back.
    Uncordon {
        /// The node.
        node: String,
    },
}

/// An order to a node.
#[derive(Debug, Clone, Args)]
pub struct OrderArguments {
    /// The node.
    pub node: String,
    /// Why, for the others who look.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Flags of `room`.
#[derive(Debug, Clone, Args)]
pub struct RoomArguments {
    #[command(flatten)]
    pub api: ApiArguments,
    #[command(subcommand)]
    pub command: RoomCommand,
}

/// What to ask about rooms.
#[derive(Debug, Clone, Subcommand)]
pub enum RoomCommand {
    /// The shards that carry a room, as a tree.
    Topology {
        /// The room.
        room: String,
    },
    /// What speaks for and against each node.
    Explain {
        /// The room.
        room: String,
    },
    /// What a room of this size would take, without doing it.
    Simulate {
        /// Participants.
        participants: u32,
        /// Leave this node out, as if it were gone. Can be repeated.
        #[arg(long, value_name = "NODE")]
        without: Vec<String>,
    },
}
