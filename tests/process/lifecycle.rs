//! Start and restart, rows P-2, P-6 and P-7.

use crate::support::{READY, Server};
use crate::{command, finish, texts};
use std::process::{Command, Stdio};

/// P-2: the lines that scripts wait for, in etcd's order.
#[test]
fn p_2_the_log_tells_of_the_start_in_order() {
    let server = Server::start();
    let lines = server.log_lines();
    let at = |message: &str| {
        let found = lines.iter().position(|line| line.contains(&format!("\"msg\":\"{message}")));
        found.unwrap_or_else(|| panic!("{message} is missing in:\n{}", lines.join("\n")))
    };
    let start = at("starting an etcd server");
    let published = at("published local member to cluster through raft");
    let ready = at(READY);
    let serving = at("serving client traffic insecurely; this is strongly discouraged!");
    assert!(start < published && published < ready && ready < serving, "{}", lines.join("\n"));
}

/// P-6: what the cluster began with is in the data, and flags do not change it.
#[test]
fn p_6_a_restart_ignores_how_a_cluster_would_begin() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut server = Server::start_in(temp.path(), &[]);
    let ids = |server: &Server| {
        let lines = server.log_lines();
        let line =
            lines.iter().find(|line| line.contains("published local member")).expect("it was published");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        (line["local-member-id"].clone(), line["cluster-id"].clone())
    };
    let first = ids(&server);
    server.terminate();
    let (client, peer) = (server.client_port, server.peer_port);
    drop(server);
    let other = [
        "--initial-cluster-state=existing",
        "--initial-cluster=other=http://127.0.0.1:1,more=http://127.0.0.1:3",
        "--initial-cluster-token=other",
    ];
    let server = Server::start_on(temp.path(), client, peer, &other);
    assert_eq!(ids(&server), first);
}

/// P-7: without descriptors for clients there is no server.
#[test]
fn p_7_too_few_descriptors_end_the_start() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let server = command(temp.path(), &[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 140 && exec \"$0\" --listen-peer-urls=http://127.0.0.1:0"]);
    limited.arg(server.get_program()).current_dir(temp.path()).stdin(Stdio::null());
    let (code, _, err) = texts(finish(limited));
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("file descriptor limit of ") && err.contains(" process is too low; please set higher"),
        "{err}"
    );
}
