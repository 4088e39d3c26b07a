//! Watches on the keyspace.

pub mod group;
