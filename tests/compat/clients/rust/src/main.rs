//! The suite `rust` of the client matrix: the crate etcd-client, unmodified, in the use that it is made for.
//!
//! Each case has a fresh server of its own from the runner's control service, so revisions are exact.

mod auth;
mod cancel;
mod control;
mod election;
mod help;
mod kv;
mod large;
mod lease;
mod lock;
mod maintenance;
mod reconnect;
mod suite;
mod tls;
mod txn;
mod watch;

fn main() {
    let cases = [
        kv::CASES,
        txn::CASES,
        watch::CASES,
        reconnect::CASES,
        lease::CASES,
        lock::CASES,
        election::CASES,
        auth::CASES,
        tls::CASES,
        large::CASES,
        cancel::CASES,
        maintenance::CASES,
    ];
    suite::main("etcd-client 0.21.1", &cases);
}
