//! The d-engine's client protocol, over the wire.

mod auth;
mod client;
mod cluster;
mod mixed;
mod read;
mod scan;
mod ttl;
mod watch;
mod write;
