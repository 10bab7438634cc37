//! Stories of rooms, told by what clients and shells see.

mod audience;
mod client;
mod data;
mod dual;
mod fixed;
mod membership;
mod platform;
mod publishing;
mod random;
mod resume;
mod shortage;
mod subscribing;
mod tally;
mod world;
