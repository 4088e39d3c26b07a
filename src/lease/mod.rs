//! Leases: promises that keys live while someone renews them.
//!
//! Who decides: the leader alone, by its own clock, when a lease has run out. Who records: everyone, through the log, that
//! a lease was granted or ended, and since when it runs. [`lessor`] says which renewals have to be recorded; with several
//! members, nearly all.

pub mod clock;
pub mod lessor;
#[cfg(test)]
mod lessor_test;
pub mod table;
mod wheel;
