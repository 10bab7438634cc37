//! How many shards each zone needs, with hysteresis: small changes of the load
//! change nothing.

use std::collections::BTreeMap;

use headwater_model::Bitrate;

use super::{TreeConfig, TreeContext, Zones};
use crate::node::NodeView;
use crate::room::RoomReport;

/// Participants below which a shard's measured work is not believed to be this
/// room's: other rooms and noise weigh more.
const PARTICIPANTS_FOR_BUSY: u32 = 50;

/// What one shard of the plan carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) zone: u16,
    pub(super) participants: u32,
    pub(super) egress: Bitrate,
    /// Share of its time that the shard works for the room, as measured.
    pub(super) busy: f64,
    /// It stays in the plan.
    pub(super) kept: bool,
    /// Its node died, so that what it carried is not reported any more.
    pub(super) lost: bool,
}

/// What a zone needs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ZoneNeed {
    /// Shards that stay.
    pub kept: u32,
    /// Shards it should have.
    pub wanted: u32,
}

/// The part of a node's work that a room on one of its shards is.
///
/// The node tells only how much its busiest shard works. If all shards carry
/// alike, each works that much; if one carries all, it is the busiest.
pub(super) fn busy_share(node: &NodeView, report: Option<&RoomReport>) -> f64 {
    let (Some(load), Some(report)) = (node.load, report) else {
        return 0.0;
    };
    if report.participants < PARTICIPANTS_FOR_BUSY {
        return 0.0;
    }
    let of_node = f64::from(report.participants) / f64::from(load.participants.max(1));
    let of_shard = (of_node * f64::from(node.shards.max(1))).min(1.0);
    f64::from(load.busiest_shard).clamp(0.0, 1.0) * of_shard
}

/// What a room needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Needs {
    /// By the number of the zone.
    pub(super) zones: BTreeMap<u16, ZoneNeed>,
    /// Shards the room should have at least, in whichever zone. What a full zone
    /// wants is not in it as long as the others have room for its people: it
    /// would want that again and again, because people do not move by themselves.
    pub(super) in_all: u32,
}

/// What each zone needs, and the whole.
pub(super) fn of_room(carried: &[Carried], context: &TreeContext<'_>, zones: &mut Zones) -> Needs {
    let mut load: BTreeMap<u16, Sum> = BTreeMap::new();
    for shard in carried {
        load.entry(shard.zone).or_default().add(shard, context.config);
    }
    for (zone, asked) in context.asked {
        let sum = load.entry(zones.index(zone)).or_default();
        sum.share += f64::from(*asked) / f64::from(context.config.shard_participants.max(1));
        sum.asked |= *asked > 0;
    }
    let home_zone = carried.first().map(|home| home.zone);
    let mut needs = Needs::default();
    let mut replaced = 0;
    for (zone, sum) in &load {
        let least = u32::from(Some(*zone) == home_zone || sum.people > 0 || sum.asked);
        let wanted = wanted(sum, least, context);
        replaced += wanted.min(sum.before);
        needs.zones.insert(*zone, ZoneNeed { kept: sum.kept, wanted });
    }
    let share: f64 = load.values().map(|sum| sum.share).sum();
    let before: u32 = load.values().map(|sum| sum.before).sum();
    if share > f64::from(before) * context.config.grow_above {
        needs.in_all = ceil(share / context.config.aim);
    } else if carried.iter().any(|shard| !shard.kept) {
        needs.in_all = replaced;
    }
    needs
}

#[derive(Debug, Default)]
struct Sum {
    /// Shards' worth of load.
    share: f64,
    people: u32,
    kept: u32,
    /// Shards of the plan there was.
    before: u32,
    lost: bool,
    asked: bool,
}

impl Sum {
    fn add(&mut self, shard: &Carried, config: &TreeConfig) {
        let people = f64::from(shard.participants) / f64::from(config.shard_participants.max(1));
        let media = match config.shard_egress.bps() {
            0 => 0.0,
            #[expect(clippy::cast_precision_loss, reason = "bit rates are far below 2^52")]
            most => shard.egress.bps() as f64 / most as f64,
        };
        self.share += people.max(media).max(shard.busy);
        self.people = self.people.saturating_add(shard.participants);
        self.before += 1;
        self.kept += u32::from(shard.kept);
        self.lost |= shard.lost && !shard.kept;
    }
}

fn wanted(sum: &Sum, least: u32, context: &TreeContext<'_>) -> u32 {
    let config = context.config;
    let before = f64::from(sum.before);
    let sized = ceil(sum.share / config.aim).max(least);
    if sum.before == 0 || sum.share > before * config.grow_above {
        return sized;
    }
    if sum.lost {
        // Its people come back in a moment, and must find room.
        return sum.before.max(sized);
    }
    if context.may_shrink && sum.share < (before - 1.0) * config.shrink_below {
        return sized.min(sum.before);
    }
    sum.before.max(least)
}

/// The next whole number; loads are far below what a `u32` holds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a u32 holds"
)]
fn ceil(number: f64) -> u32 {
    number.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}
