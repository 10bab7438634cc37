//! Every registry against one conformance suite, and each against the faults of
//! its own: a killed process for the file, killed and frozen members for etcd.
//!
//! Where the rules that follow from etcd's behaviour are tested:
//! 1. unary calls are tried again: `etcd_faults::one_dead_member_fails_no_call`,
//!    and what that must not do: `etcd_doubt`
//! 2. a timeout is not taken for a refusal: `etcd::failure` (unit), `etcd_doubt`
//! 3. pings stay below etcd's limit: `etcd_faults::default_timing_suits_a_default_etcd`
//! 4. a leaderless member is noticed: `etcd_faults::everything_recovers_after_the_quorum_was_lost`
//! 5. a watch resumes, lists after a compaction, and gives up on silence:
//!    `conformance::watch`, `etcd_faults::a_killed_leader_…`, `…::a_frozen_member_…`
//! 6. only an answered ping counts, a lost lease is a new incarnation:
//!    `conformance::keeping`, `etcd_faults::a_frozen_member_…`
//! 7. a lease's time is a minimum: `conformance::leases`, `etcd_faults::a_killed_leader_…`
//! 8. losing etcd stops nothing: `etcd_faults::everything_recovers_…`
//! 9. the owner's writes are fenced: `conformance::elections`
//! 10. a graceful stop ends the lease: `conformance::keeping`, `conformance::elections`
//! 11. bounds: `conformance::transactions`
//! 12. one key schema, list and watch by prefix: `schema` (unit), `conformance::watch`

#![expect(clippy::unwrap_used, reason = "all of this is test code, helpers included")]
#![expect(clippy::print_stdout, reason = "the tests tell what they measured")]

mod conformance;
mod embedded;
mod etcd;
mod etcd_doubt;
mod etcd_faults;
mod etcd_security;
mod memory;
mod support;
