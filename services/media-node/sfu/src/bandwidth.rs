//! How much a subscriber's network takes, and what it gets of that. Estimation follows
//! Google's congestion control (draft-ietf-rmcat-gcc-02): sent packets are matched with
//! transport-wide feedback ([`history`]), queues are seen growing ([`delay`]), a rate is
//! kept ([`rate`]) and bounded by loss ([`loss`]), raised by probes ([`probe`]) and
//! divided among tracks ([`allocate`]). All of it is arithmetic on values that come in.

pub(crate) mod acked;
pub(crate) mod allocate;
pub(crate) mod burst;
pub(crate) mod delay;
pub(crate) mod downlink;
pub(crate) mod history;
pub(crate) mod loss;
pub(crate) mod pace;
pub(crate) mod probe;
pub(crate) mod queue;
pub(crate) mod rate;
pub(crate) mod rise;
pub(crate) mod steps;
pub(crate) mod train;
