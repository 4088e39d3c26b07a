//! Calls between members.

pub mod link;
