//! `cargo xtask`: the project's own automation. Every command first puts protoc
//! where `.cargo/config.toml` says it is, then does one thing.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

mod bench;
mod capacity;
mod chaos;
mod check;
mod dev;
mod direction;
mod fuzz;
mod run;
mod test;
mod tidy;
mod tools;

use clap::{Parser, Subcommand};

/// Builds, runs, checks and tests Headwater.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and run it in one process, with a page to open.
    Dev(dev::Dev),
    /// Install what the tests need, then run the checks and every test.
    Test(test::Test),
    /// Formatting, lints, dependency direction and tidy rules.
    Check(check::Check),
    /// Install what building and testing need, and nothing else.
    Setup,
    /// Run every fuzz target for a while.
    Fuzz(fuzz::Fuzz),
    /// Build with full optimisation, measure, and write docs/benchmarks.md.
    Bench(bench::Bench),
    /// What rooms of up to a million viewers take.
    Capacity(capacity::Capacity),
    /// Break parts of real clusters and write docs/reliability.md.
    Chaos(chaos::Chaos),
    /// Build the page that the gateway serves.
    Page,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let root = run::workspace_root();
    tools::install_protoc(&root)?;
    match arguments.command {
        Command::Dev(dev) => dev.run(&root),
        Command::Test(test) => test.run(&root),
        Command::Check(check) => check.run(&root),
        Command::Setup => tools::install_for_tests(&root),
        Command::Fuzz(fuzz) => fuzz.run(&root),
        Command::Bench(bench) => bench.run(&root),
        Command::Capacity(capacity) => capacity.run(&root),
        Command::Chaos(chaos) => chaos.run(&root),
        Command::Page => tools::build_page(&root),
    }
}
