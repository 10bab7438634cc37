//! The one binary of Headwater: every role as a subcommand, all of them in one
//! process as `dev`, and small tools beside them.

mod cli;
mod cluster;
mod dev;
mod output;
mod ports;
mod process;
mod role;
mod settings;
mod token;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Dev(arguments) => process::block_on(dev::run(&arguments)),
        Command::ControlPlane(arguments) => process::block_on(role::control_plane(&arguments)),
        Command::Gateway(arguments) => process::block_on(role::gateway(&arguments)),
        Command::MediaNode(arguments) => process::block_on(role::media_node(&arguments)),
        Command::Token(arguments) => token::run(&arguments),
        Command::Node(arguments) => process::block_on(cluster::node(&arguments)),
        Command::Room(arguments) => process::block_on(cluster::room(&arguments)),
        Command::Config(arguments) => settings::print(&arguments),
    }
}
