//! Leases: promises that keys live while someone renews them.
//!
//! Who decides: the leader alone, by its own clock, when a lease has run out. Who records: everyone, through the log, that
//! a lease was granted, ended, or how much time it had left. Renewals are not recorded.

pub mod lessor;
#[cfg(test)]
mod lessor_test;
pub mod table;
mod wheel;
