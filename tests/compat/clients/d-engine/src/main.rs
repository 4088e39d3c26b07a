//! The suite `d-engine` of the client matrix: the crate d-engine-client, unmodified, in the use that it is made for.
//!
//! Its cases follow the tests that the d-engine has for itself where those speak through a client; each has a fresh server
//! of its own, or a cluster of three, from the runner's control service.

mod cluster;
#[allow(dead_code)] // the suite `rust` asks for more of it
#[path = "../../rust/src/control.rs"]
mod control;
mod help;
mod kv;
#[path = "../../rust/src/suite.rs"]
mod suite;
mod swap;
mod watch;

fn main() {
    let cases = [kv::CASES, swap::CASES, watch::CASES, cluster::CASES];
    suite::main("d-engine-client 0.2.4", &cases);
}
