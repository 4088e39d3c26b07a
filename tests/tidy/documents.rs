//! The documents mention every table and every RPC that exists.

use kvist::storage::schema;

use crate::source::words;
use crate::{assert_none, root};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `service.rpc` for every RPC of a protobuf file.
fn rpcs(proto: &str) -> Vec<(String, String)> {
    let (mut service, mut found) = ("", Vec::new());
    for line in proto.lines() {
        let mut words = words(line);
        match (words.next(), words.next()) {
            (Some("service"), Some(name)) => service = name,
            (Some("rpc"), Some(name)) => found.push((service.to_owned(), name.to_owned())),
            _ => {}
        }
    }
    found
}

#[test]
fn every_table_is_drawn() {
    let document = read("docs/storage.md");
    let missing: Vec<String> = schema::NAMES
        .iter()
        .filter(|name| !document.contains(&format!("`{name}`")))
        .map(|name| format!("table `{name}`"))
        .collect();
    assert_none("docs/storage.md describes every table of src/storage/schema.rs", &missing);
}

#[test]
fn every_rpc_has_a_row() {
    let document = read("docs/compat.md");
    let etcd = rpcs(&read("proto/etcd/rpc.proto"));
    assert!(etcd.len() > 20, "the services of etcd should be read, found {etcd:?}");
    let others = ["rfc/etcd", "d_engine/client", "d_engine/cluster", "oxia/client", "wolf/raft"];
    let others = others.into_iter().flat_map(|proto| rpcs(&read(&format!("proto/{proto}.proto"))));
    let missing: Vec<String> = etcd
        .into_iter()
        .chain(others)
        .filter(|(_, rpc)| !words(&document).any(|word| word == rpc))
        .map(|(service, rpc)| format!("{service}.{rpc}"))
        .collect();
    assert_none("docs/compat.md says of every RPC whether it is done", &missing);
}

/// Rows such as `` | `Range` | `` count; words inside a longer name do not.
#[test]
fn an_rpc_is_found_by_its_whole_name() {
    let proto = "service KV { // keys\n  rpc Range(RangeRequest) returns (RangeResponse) {}\n}";
    assert_eq!(rpcs(proto), [("KV".to_owned(), "Range".to_owned())]);
    assert!(!words("RangeRequest").any(|word| word == "Range"));
}
