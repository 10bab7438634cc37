//! People with rtc-node, whose SDK reconnects as it was written to: two in each
//! of many rooms, who play a tone to each other and count beats.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use headwater_testkit::script::{self, Running, Target};
use serde::Deserialize;

/// A report comes once a second; one that is later than this does not come.
const REPORT_LIMIT: Duration = Duration::from_secs(60);

/// What one person noticed in a second.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Its room.
    pub room: String,
    /// `ada` or `bob`.
    pub identity: String,
    /// Beats (lossy data messages) heard.
    pub heard: u64,
    /// Beats so far that were said in another room.
    pub strays: u64,
    /// Beats so far that came a second time.
    pub twice: u64,
    /// Longest time without a beat, in ms.
    pub gap_ms: u64,
    /// Frames of 10 ms in which the tone was heard.
    pub loud: u64,
    /// Longest time without the tone, in ms.
    pub quiet_ms: u64,
    /// Times that its SDK reconnected so far.
    pub reconnects: u64,
    /// Why its SDK gave up; empty while it has not.
    pub disconnected: String,
    /// Others that it knows of.
    pub others: u64,
}

impl Report {
    /// Whether it hears the other, by beat and by tone.
    #[must_use]
    pub fn hears(&self) -> bool {
        // Of 20 beats and 100 frames: a busy machine says fewer, too.
        self.heard >= 3 && self.loud >= 50
    }
}

/// The longest silences of one person since they were forgotten.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silence {
    /// Without a beat, in ms.
    pub gap_ms: u64,
    /// Without the tone, in ms.
    pub quiet_ms: u64,
}

/// See the module.
pub struct Audience {
    script: Running,
    silences: Vec<Silence>,
}

impl Audience {
    /// Everybody joins rooms named `{prefix}-{number}`, and hears the other.
    ///
    /// # Errors
    /// If they do not hear each other within a minute.
    pub fn join(target: &Target, rooms: usize, prefix: &str) -> Result<Self> {
        Self::join_apart(target, rooms, prefix, Duration::ZERO)
    }

    /// The same, but the second of each room comes so much later than the first.
    /// Then the number of rooms must be a multiple of four, which is how many join at once.
    ///
    /// # Errors
    /// See [`Self::join`].
    pub fn join_apart(
        target: &Target,
        rooms: usize,
        prefix: &str,
        pause: Duration,
    ) -> Result<Self> {
        Self::start(target, rooms, prefix, &[&pause.as_millis().to_string()])
    }

    /// The same with these people in this order, of whom `via` leaves when all are
    /// there: who is left are `ada` and `bob`.
    ///
    /// # Errors
    /// See [`Self::join`].
    pub fn join_with(
        target: &Target,
        rooms: usize,
        prefix: &str,
        pause: Duration,
        people: &str,
    ) -> Result<Self> {
        let pause = pause.as_millis().to_string();
        Self::start(target, rooms, prefix, &[&pause, people, "via"])
    }

    fn start(target: &Target, rooms: usize, prefix: &str, further: &[&str]) -> Result<Self> {
        let count = rooms.to_string();
        let arguments: Vec<&str> =
            [&count, prefix].into_iter().chain(further.iter().copied()).collect();
        let script = script::start("audience.mjs", &arguments, target)?;
        let mut audience = Self { script, silences: vec![Silence::default(); rooms * 2] };
        audience.until("everybody hears everybody", Duration::from_secs(60), all_hear)?;
        // This report still holds what was before they heard each other.
        audience.forget();
        Ok(audience)
    }

    /// Begins to measure anew.
    pub fn forget(&mut self) {
        self.silences.fill(Silence::default());
    }

    /// The longest silences of each, in the order of the reports.
    #[must_use]
    pub fn silences(&self) -> &[Silence] {
        &self.silences
    }

    /// Longest time that anybody heard no tone, in ms.
    #[must_use]
    pub fn worst_quiet(&self) -> u64 {
        self.silences.iter().map(|silence| silence.quiet_ms).fold(0, u64::max)
    }

    /// Longest time that anybody heard no beat, in ms.
    #[must_use]
    pub fn worst_gap(&self) -> u64 {
        self.silences.iter().map(|silence| silence.gap_ms).fold(0, u64::max)
    }

    /// Reads reports until one fits.
    ///
    /// # Errors
    /// If none fits within `limit`, or somebody is told that it is disconnected.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        fits: impl Fn(&[Report]) -> bool,
    ) -> Result<Vec<Report>> {
        let deadline = Instant::now() + limit;
        loop {
            let line = self.script.line(REPORT_LIMIT)?;
            // The SDK writes its own log between the reports.
            if !line.starts_with('[') {
                continue;
            }
            let reports: Vec<Report> = serde_json::from_str(&line).context("read a report")?;
            if reports.len() != self.silences.len() {
                bail!("a report of {} people: {line}", reports.len());
            }
            for (one, silence) in reports.iter().zip(&mut self.silences) {
                if !one.disconnected.is_empty() {
                    bail!("somebody was disconnected: {one:?}");
                }
                silence.gap_ms = silence.gap_ms.max(one.gap_ms);
                silence.quiet_ms = silence.quiet_ms.max(one.quiet_ms);
            }
            if fits(&reports) {
                return Ok(reports);
            }
            if Instant::now() > deadline {
                bail!("not within {limit:?}: {what}; seen last: {line}");
            }
        }
    }
}

/// Whether everybody hears the other.
#[must_use]
pub fn all_hear(reports: &[Report]) -> bool {
    reports.iter().all(Report::hears)
}
