//! What is known of one media node: its record, its lifecycle order, whether an
//! agent stream to it lives, and its load corrected by what was placed since it
//! was measured.

use std::collections::BTreeMap;

use headwater_model::{Bitrate, RoomId, ShardIndex};

use crate::coming::Coming;
use crate::room::RoomReport;

/// Share of its capacity above which a node takes new rooms only if no other can.
pub const LOAD_SOFT: f64 = 0.75;
/// Share of its capacity above which a node takes no new rooms at all. The rest
/// is kept for the rooms it has: a full node cannot move what it carries.
pub const LOAD_FULL: f64 = 0.90;

/// Load that one more participant is expected to bring to one shard, used until
/// the node has enough participants to be asked itself. A shard carries about
/// 500 participants of mixed rooms; guessing high only spreads rooms more.
const PARTICIPANT_LOAD: f64 = 0.002;
/// Participants that a room nobody has joined yet is expected to bring.
const PARTICIPANTS_EXPECTED: f64 = 4.0;
/// Participants from which on a node's own mean is believed.
const PARTICIPANTS_FOR_MEAN: u32 = 10;

/// What the operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifecycle {
    /// Take rooms.
    #[default]
    Serve,
    /// Keep the rooms it has, take no new ones.
    Cordon,
    /// Get rid of its rooms.
    Drain,
}

/// This replica's agent stream to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentState {
    /// Not tried to the end yet: neither good nor bad news.
    #[default]
    Connecting,
    /// The stream is open and the node has reported on it.
    Connected,
    /// The stream broke, or could not be opened, and is being tried again.
    Lost,
}

/// What a node measured of itself, once a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NodeLoad {
    /// Rooms it carries.
    pub rooms: u32,
    /// Participants in them.
    pub participants: u32,
    /// Tracks forwarded to a participant.
    pub subscriptions: u32,
    /// Media sent.
    pub egress: Bitrate,
    /// Media packets sent per second.
    pub egress_packets_per_second: u64,
    /// Share of its time that the busiest shard worked, 0 to 1.
    pub busiest_shard: f32,
    /// When the node measured it, milliseconds since the Unix epoch by the
    /// node's clock. Only handed on, never compared.
    pub measured_at_millis: u64,
}

/// What a node is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Takes rooms.
    Serving,
    /// Keeps its rooms, takes no new ones.
    Cordoned,
    /// Gets rid of its rooms.
    Draining,
    /// Registered, but this replica has no stream to it.
    Unreachable,
    /// Not registered, but it still answers, or another node has a link to it: it
    /// keeps its rooms, takes no new ones.
    Unregistered,
    /// Neither registered nor answering, or given up on good evidence.
    Gone,
}

impl Standing {
    /// Whether participants may still be sent to the rooms it carries.
    #[must_use]
    pub fn carries(self) -> bool {
        match self {
            Self::Serving
            | Self::Cordoned
            | Self::Draining
            | Self::Unreachable
            | Self::Unregistered => true,
            Self::Gone => false,
        }
    }
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeView {
    /// Its record stands in the registry, so its lease lives.
    pub registered: bool,
    /// This replica's stream to it.
    pub agent: AgentState,
    /// The operator's order.
    pub lifecycle: Lifecycle,
    /// Failure domain. Empty means not told.
    pub zone: String,
    /// Region. Empty means not told.
    pub region: String,
    /// Forwarding threads.
    pub shards: u16,
    /// Participants it accepts at most. 0 means no limit of its own.
    pub participant_capacity: u32,
    /// Last reported load.
    pub load: Option<NodeLoad>,
    /// Where it takes relay links: rooms of more than one shard may use it.
    pub relays: bool,
    /// It reports that its process was asked to stop.
    pub leaving: bool,
    /// It is believed to be gone although its lease lives, see
    /// [`Belief`](crate::Belief).
    pub given_up: bool,
    /// Another node, which this replica reaches, has a relay link to it that is up.
    pub vouched: bool,
    /// Rooms it reported last, each by the shards that carry it.
    pub reports: BTreeMap<RoomId, Vec<RoomReport>>,
    /// Those of `reports` that somebody is in, counted by shards.
    pub occupied: u32,
    /// Participants sent to it since `load` was measured.
    pub granted: u32,
    /// Participants on their way to rooms it carries. No more than were sent
    /// between its last reports.
    pub coming: Coming,
    /// Rooms whose plan names it, by shard, from the registry.
    pub planned: BTreeMap<ShardIndex, u32>,
}

impl NodeView {
    /// What the node is good for now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match (self.registered, self.agent) {
            _ if self.given_up => Standing::Gone,
            (false, AgentState::Connected) => Standing::Unregistered,
            (false, AgentState::Connecting | AgentState::Lost) if self.vouched => {
                Standing::Unregistered
            }
            (false, AgentState::Connecting | AgentState::Lost) => Standing::Gone,
            (true, AgentState::Lost) => Standing::Unreachable,
            (true, AgentState::Connected | AgentState::Connecting) if self.leaving => {
                Standing::Draining
            }
            (true, AgentState::Connected | AgentState::Connecting) => match self.lifecycle {
                Lifecycle::Serve => Standing::Serving,
                Lifecycle::Cordon => Standing::Cordoned,
                Lifecycle::Drain => Standing::Draining,
            },
        }
    }

    /// Rooms whose plan names the node.
    #[must_use]
    pub fn planned_rooms(&self) -> u32 {
        self.planned.values().sum()
    }

    /// Participants it is believed to have: those it reported and those sent since.
    #[must_use]
    pub fn participants(&self) -> u32 {
        self.load.map_or(0, |load| load.participants).saturating_add(self.granted)
    }

    /// Whether it has a slot for one more participant, as far as is known here.
    /// The node itself has the last word.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        self.participant_capacity == 0 || self.participants() < self.participant_capacity
    }

    /// Share of its capacity in use, 0 and up: the most used of its resources,
    /// not their mean, because the first to run out is the one that hurts.
    ///
    /// The measured share is corrected by what it cannot show yet: participants
    /// sent since the measurement and rooms that are planned but still empty.
    /// Both are believed to cost what the node's participants cost on average.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        let load = self.load.unwrap_or_default();
        let measured = f64::from(load.busiest_shard).clamp(0.0, 1.0);
        let shards = f64::from(self.shards.max(1));
        let per_participant = if load.participants >= PARTICIPANTS_FOR_MEAN {
            measured / f64::from(load.participants)
        } else {
            PARTICIPANT_LOAD / shards
        };
        let empty_rooms = self.planned_rooms().saturating_sub(self.occupied);
        let unseen = f64::from(self.granted) + f64::from(empty_rooms) * PARTICIPANTS_EXPECTED;
        let work = measured + unseen * per_participant;
        let slots = match self.participant_capacity {
            0 => 0.0,
            capacity => f64::from(self.participants()) / f64::from(capacity),
        };
        work.max(slots)
    }

    /// Takes in what the node reported. What was sent to it before is in the
    /// report now, save for the few joins that were under way.
    pub fn handle_report(
        &mut self,
        load: NodeLoad,
        reports: impl IntoIterator<Item = (RoomId, RoomReport)>,
    ) {
        let before = std::mem::take(&mut self.reports);
        self.occupied = 0;
        for (room, report) in reports {
            self.occupied += u32::from(report.participants > 0);
            self.reports.entry(room).or_default().push(report);
        }
        self.load = Some(load);
        self.granted = 0;
        let participants = |reports: &BTreeMap<RoomId, Vec<RoomReport>>, room: &RoomId, shard| {
            let of_room = reports.get(room).map_or(&[][..], Vec::as_slice);
            let report = of_room.iter().find(|report| report.shard == shard);
            report.map_or(0, |report| report.participants)
        };
        let now = &self.reports;
        self.coming.handle_report(|room, shard| {
            participants(now, room, shard).saturating_sub(participants(&before, room, shard))
        });
    }

    /// Notes that a participant was sent to a room on one of its shards.
    pub fn add_grant(&mut self, room: &RoomId, shard: ShardIndex) {
        self.granted = self.granted.saturating_add(1);
        self.coming.add(room, shard);
    }

    /// Participants that a room is believed to have on a shard: those reported
    /// and those on their way.
    #[must_use]
    pub fn believed(&self, room: &RoomId, shard: ShardIndex) -> u32 {
        let reported = self.report(room, shard).map_or(0, |report| report.participants);
        reported.saturating_add(self.coming.to(room, shard))
    }

    /// The same for all its shards.
    #[must_use]
    pub fn believed_in_all(&self, room: &RoomId) -> u32 {
        let reported: u32 = self.reports_of(room).iter().map(|report| report.participants).sum();
        reported.saturating_add(self.coming.to_all(room))
    }

    /// What the shards of the node that carry a room report of it.
    #[must_use]
    pub fn reports_of(&self, room: &RoomId) -> &[RoomReport] {
        self.reports.get(room).map_or(&[], Vec::as_slice)
    }

    /// What one shard of the node reports of a room.
    #[must_use]
    pub fn report(&self, room: &RoomId, shard: ShardIndex) -> Option<&RoomReport> {
        self.reports_of(room).iter().find(|report| report.shard == shard)
    }

    /// Notes that a room was given to a shard, until the registry shows it.
    pub fn add_planned(&mut self, shard: ShardIndex) {
        let rooms = self.planned.entry(shard).or_default();
        *rooms = rooms.saturating_add(1);
    }

    /// Notes that a room's plan names this shard no more.
    pub fn remove_planned(&mut self, shard: ShardIndex) {
        if let Some(rooms) = self.planned.get_mut(&shard) {
            *rooms = rooms.saturating_sub(1);
            if *rooms == 0 {
                self.planned.remove(&shard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_gone_only_without_record_and_without_stream() {
        let standing =
            |registered, agent| NodeView { registered, agent, ..NodeView::default() }.standing();
        assert_eq!(standing(true, AgentState::Connected), Standing::Serving);
        assert_eq!(standing(true, AgentState::Connecting), Standing::Serving);
        assert_eq!(standing(true, AgentState::Lost), Standing::Unreachable);
        assert_eq!(standing(false, AgentState::Connected), Standing::Unregistered);
        assert_eq!(standing(false, AgentState::Lost), Standing::Gone);
        assert_eq!(standing(false, AgentState::Connecting), Standing::Gone);
    }

    #[test]
    fn a_node_that_another_one_is_linked_to_is_there_unless_it_was_given_up() {
        let cut_off = NodeView { agent: AgentState::Lost, vouched: true, ..NodeView::default() };
        assert_eq!(cut_off.standing(), Standing::Unregistered);
        let given_up = NodeView { given_up: true, ..cut_off };
        assert_eq!(given_up.standing(), Standing::Gone);
    }

    #[test]
    fn utilisation_counts_what_the_measurement_cannot_show_yet() {
        let mut node = NodeView { registered: true, shards: 2, ..NodeView::default() };
        let idle = node.utilisation();
        node.add_planned(ShardIndex(0));
        let with_room = node.utilisation();
        node.granted = 30;
        let with_grants = node.utilisation();
        assert!(idle < with_room && with_room < with_grants);
        node.remove_planned(ShardIndex(0));
        node.granted = 0;
        assert!((node.utilisation() - idle).abs() < f64::EPSILON);
        assert!(node.planned.is_empty());
    }

    #[test]
    fn a_slot_counter_limits_as_well_as_work_does() {
        let node = NodeView {
            participant_capacity: 10,
            load: Some(NodeLoad { participants: 8, ..NodeLoad::default() }),
            granted: 2,
            ..NodeView::default()
        };
        assert!(!node.has_slot());
        assert!(node.utilisation() >= 1.0);
    }
}
