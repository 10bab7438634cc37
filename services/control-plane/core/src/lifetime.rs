//! When an empty room ends. The node that carries it measures how long it has
//! been empty, so no clock of two machines is ever compared.

use headwater_model::Epoch;

use crate::room::{RoomReport, RoomSpec};

/// Whether a room has stood empty for as long as it may, by the report of the
/// node its plan names.
///
/// A report of another incarnation or of another epoch says nothing about the
/// room: the participants may be elsewhere, or still on their way after a new plan.
#[must_use]
pub fn is_over(spec: &RoomSpec, epoch: Epoch, report: &RoomReport) -> bool {
    let current = report.uid == spec.uid && report.epoch == epoch;
    if !current || report.participants > 0 {
        return false;
    }
    let allowed = if report.ever_joined { spec.departure_timeout } else { spec.empty_timeout };
    // A report of zero means that somebody uncounted may be there.
    !report.empty_for.is_zero() && report.empty_for >= allowed
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use headwater_model::{RoomUid, ShardIndex};

    use super::*;
    use crate::room::{DEPARTURE_TIMEOUT, EMPTY_TIMEOUT};

    const EPOCH: Epoch = Epoch(3);

    fn spec() -> RoomSpec {
        RoomSpec {
            uid: RoomUid::from_raw("RM_1"),
            metadata: Arc::from(""),
            max_participants: 0,
            empty_timeout: EMPTY_TIMEOUT,
            departure_timeout: DEPARTURE_TIMEOUT,
            create_millis: 0,
        }
    }

    fn report(seconds: u64, ever_joined: bool) -> RoomReport {
        RoomReport {
            uid: RoomUid::from_raw("RM_1"),
            epoch: EPOCH,
            shard: ShardIndex(0),
            participants: 0,
            publishers: 0,
            empty_for: Duration::from_secs(seconds),
            ever_joined,
            egress: headwater_model::Bitrate(0),
        }
    }

    #[test]
    fn a_room_that_nobody_joined_is_kept_longer_than_one_they_left() {
        assert!(!is_over(&spec(), EPOCH, &report(299, false)));
        assert!(is_over(&spec(), EPOCH, &report(300, false)));
        assert!(!is_over(&spec(), EPOCH, &report(19, true)));
        assert!(is_over(&spec(), EPOCH, &report(20, true)));
    }

    #[test]
    fn an_occupied_room_never_ends() {
        let occupied = RoomReport { participants: 1, ..report(1000, true) };
        assert!(!is_over(&spec(), EPOCH, &occupied));
        let uncounted = RoomReport { empty_for: Duration::ZERO, ..report(0, true) };
        let no_wait = RoomSpec { departure_timeout: Duration::ZERO, ..spec() };
        assert!(!is_over(&no_wait, EPOCH, &uncounted));
    }

    #[test]
    fn a_report_of_another_epoch_or_incarnation_ends_nothing() {
        let old_epoch = RoomReport { epoch: Epoch(2), ..report(1000, true) };
        let other_uid = RoomReport { uid: RoomUid::from_raw("RM_2"), ..report(1000, true) };
        assert!(!is_over(&spec(), EPOCH, &old_epoch));
        assert!(!is_over(&spec(), EPOCH, &other_uid));
    }
}
