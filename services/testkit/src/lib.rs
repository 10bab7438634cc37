//! Fixtures for tests of the whole system: a real etcd, real processes of the
//! binary, and scripts that drive real SDKs and browsers. Everything started
//! here ends with the value that started it, by pid.

pub mod etcd;
pub mod ports;
pub mod process;
pub mod script;
