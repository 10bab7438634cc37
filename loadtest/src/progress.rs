//! Shows how a run goes on: one line that is written again on a terminal, plain lines
//! elsewhere.

use std::io::{IsTerminal, Write};

use crate::crowd::{Moment, Phase};
use crate::text::number;

/// Moments between two lines where there is no terminal.
const PLAIN_EVERY: u64 = 5;

/// Shows moments on standard error.
pub struct Display {
    terminal: bool,
    shown: u64,
    phase: Option<Phase>,
}

impl Default for Display {
    fn default() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: 0, phase: None }
    }
}

impl Display {
    /// Shows a moment.
    pub fn show(&mut self, moment: &Moment) {
        let line = line(moment);
        let mut out = std::io::stderr().lock();
        // Nobody reads it if it cannot be written.
        if self.terminal {
            let _ = write!(out, "\r\x1b[2K{line}");
            let _ = out.flush();
        } else if self.shown.is_multiple_of(PLAIN_EVERY) || self.phase != Some(moment.phase) {
            let _ = writeln!(out, "{line}");
        }
        self.shown += 1;
        self.phase = Some(moment.phase);
    }

    /// Ends the line.
    pub fn end(&self) {
        if self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn line(moment: &Moment) -> String {
    let phase = match moment.phase {
        Phase::Joining => "joining",
        Phase::WarmUp => "warming up",
        Phase::Measured => "measuring",
        Phase::Leaving => "leaving",
    };
    let mut line = format!(
        "{:6.1} s  {phase:<10}  {}/{} connected  {} packets/s  own CPU {:.0} %",
        moment.at_seconds,
        moment.connected,
        moment.clients,
        number(moment.packets_per_second),
        moment.own_cpu * 100.0,
    );
    if let (Some(cpu), Some(memory)) = (moment.server_cpu, moment.server_memory_kib) {
        line +=
            &format!("  server CPU {:.0} %, {} MiB", cpu * 100.0, number(memory as f64 / 1024.0));
    }
    if moment.ended > 0 {
        line += &format!("  {} ended early", moment.ended);
    }
    line
}
