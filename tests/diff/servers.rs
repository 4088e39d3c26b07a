//! Fresh servers of both kinds, started while the sequence before is played.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::sequence::Sequence;
use crate::support::{Server, server_binary};

/// Flags of every server. They make starting cheap, and both kinds take them alike: the smallest TTL follows from the
/// election timeout.
const FLAGS: [&str; 4] =
    ["--heartbeat-interval=10", "--election-timeout=100", "--unsafe-no-fsync", "--bcrypt-cost=4"];
/// A port may be taken between the moment it was found free and the start.
const TRIES: usize = 3;

/// A server of each kind.
pub struct Pair {
    pub etcd: Server,
    pub kvist: Server,
}

/// A pair that is being started.
pub struct Starting {
    etcd: JoinHandle<Server>,
    kvist: JoinHandle<Server>,
}

/// Begins to start a pair for `sequence`.
pub fn start(etcd: &Path, sequence: &Sequence) -> Starting {
    Starting { etcd: start_one(etcd.to_owned(), sequence), kvist: start_one(server_binary(), sequence) }
}

/// Begins to start one server for `sequence`.
pub fn start_one(binary: PathBuf, sequence: &Sequence) -> JoinHandle<Server> {
    let args: Vec<String> =
        FLAGS.iter().map(|flag| (*flag).to_owned()).chain(sequence.flags.clone()).collect();
    std::thread::spawn(move || launch(&binary, &args))
}

fn launch(binary: &Path, args: &[String]) -> Server {
    for _ in 1..TRIES {
        if let Ok(server) = std::panic::catch_unwind(|| Server::start_fresh(binary, args)) {
            return server;
        }
    }
    Server::start_fresh(binary, args)
}

impl Starting {
    pub fn wait(self) -> Pair {
        let (etcd, kvist) = (self.etcd.join(), self.kvist.join());
        Pair { etcd: etcd.expect("etcd starts"), kvist: kvist.expect("kvist starts") }
    }
}
