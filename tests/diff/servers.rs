//! Fresh servers of both kinds, started while the sequence before is played.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sequence::Sequence;
use crate::support::certs::plain_get;
use crate::support::{Server, server_binary, wait_until};

/// Flags of every server. They make starting cheap, and both kinds take them alike: the smallest TTL follows from the
/// election timeout.
const FLAGS: [&str; 4] =
    ["--heartbeat-interval=10", "--election-timeout=100", "--unsafe-no-fsync", "--bcrypt-cost=4"];
/// Longest wait for a server to know the version of its cluster.
const PATIENCE: Duration = Duration::from_secs(30);
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
    let start = || {
        let server = Server::start_fresh(binary, args);
        wait_until("the version of the cluster", PATIENCE, || knows_its_version(server.client_port));
        server
    };
    for _ in 1..TRIES {
        if let Ok(server) = std::panic::catch_unwind(start) {
            return server;
        }
    }
    start()
}

/// etcd serves before the leader has made the version known, and refuses some calls until then.
fn knows_its_version(port: u16) -> bool {
    let answer = TcpStream::connect(("127.0.0.1", port)).and_then(|mut to| plain_get(&mut to, "/version"));
    answer.is_ok_and(|answer| answer.contains("etcdcluster") && !answer.contains("not_decided"))
}

impl Starting {
    pub fn wait(self) -> Pair {
        let (etcd, kvist) = (self.etcd.join(), self.kvist.join());
        Pair { etcd: etcd.expect("etcd starts"), kvist: kvist.expect("kvist starts") }
    }
}
