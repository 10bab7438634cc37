//! What every registry must do. Each case gets an empty registry of its own, of
//! which only the revision may be shared with others.

pub mod elections;
pub mod keeping;
pub mod leases;
pub mod transactions;
pub mod watch;

/// Calls a macro with the path of every case.
macro_rules! for_each_case {
    ($callback:ident) => {
        $callback! {
            transactions: a_key_that_was_never_written_is_absent
            transactions: writing_counts_versions_and_revisions
            transactions: a_listing_is_sorted_and_whole
            transactions: creating_succeeds_once
            transactions: replacing_needs_the_last_revision
            transactions: a_key_made_anew_is_another_key
            transactions: a_failed_transaction_writes_nothing_and_reads_otherwise
            transactions: a_lease_can_be_compared
            transactions: transactions_have_bounds
            transactions: contention_ends_exact
            transactions: one_of_many_creators_wins
            leases: a_lease_ends_after_its_time_and_not_before
            leases: a_lease_kept_alive_outlives_its_time
            leases: a_revoked_lease_takes_its_keys_at_once
            leases: a_key_written_without_its_lease_stays
            leases: nothing_hangs_on_a_lease_that_is_not_there
            watch: changes_are_told_once_and_in_order
            watch: a_transaction_is_told_whole
            watch: old_changes_are_told_again_from_a_revision
            watch: a_revision_that_never_was_is_a_gap
            watch: snapshot_then_changes_without_a_seam
            watch: a_broken_watch_resumes_without_loss
            watch: a_slow_reader_loses_nothing
            keeping: keys_stay_while_they_are_kept_and_go_when_released
            keeping: a_lost_lease_is_registered_anew_as_another_incarnation
            keeping: a_second_holder_waits_for_the_first
            keeping: a_deleted_key_comes_back_and_a_new_value_is_written
            elections: a_deposed_leader_cannot_write
            elections: a_leader_that_resigns_is_followed_at_once
            elections: a_leader_that_falls_silent_is_followed_after_its_time
            elections: many_candidates_never_lead_together
        }
    };
}
pub(crate) use for_each_case;
