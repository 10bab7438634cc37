//! Native clients in large numbers: they speak LiveKit signalling, so they drive
//! this server or any other that speaks it, publish well-formed media with send
//! times in it, and measure what arrives.
//!
//! [`scenario`] says what happens, [`crowd`] makes it happen with thousands of clients
//! on a few threads, [`outcome`] is what was measured and [`page`] shows it.
//! [`yardstick`] is the limit of this machine to compare with.
//!
//! [`client`] is one participant with a socket and a task of its own and [`run`] a few
//! of them, for tests that look at single clients. [`signal`] and [`description`] are
//! the two halves of signalling, [`source`] and [`sink`] the two ends of their media.

pub mod client;
pub mod crowd;
pub mod description;
pub mod histogram;
pub mod http_door;
pub mod impairment;
pub mod outcome;
pub mod page;
pub mod plot;
pub mod process;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
pub mod scrape;
pub mod signal;
pub mod sink;
pub mod source;
pub mod text;
pub mod yardstick;
