//! `kvist dump`: what a stopped member's directory holds, and that looking at it changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use kvist::pb::etcdserverpb::auth_client::AuthClient;
use kvist::pb::etcdserverpb::kv_client::KvClient;
use kvist::pb::etcdserverpb::lease_client::LeaseClient;
use kvist::pb::etcdserverpb::{AuthUserAddRequest, LeaseGrantRequest, PutRequest};
use serde_json::{Value, json};

use crate::support::{Server, is_foreign_server};
use crate::{command, finish, texts};

const LEASE: i64 = 77;

fn put(key: &[u8], value: &[u8], lease: i64) -> PutRequest {
    PutRequest { key: key.to_vec(), value: value.to_vec(), lease, ..PutRequest::default() }
}

/// Two keys, one of them attached to a lease, and a user.
async fn fill(server: &Server) {
    let mut leases = LeaseClient::connect(server.url()).await.expect("connect");
    leases.lease_grant(LeaseGrantRequest { id: LEASE, ttl: 600 }).await.expect("grant");
    let mut kv = KvClient::connect(server.url()).await.expect("connect");
    kv.put(put(b"text", b"value", LEASE)).await.expect("put");
    kv.put(put(b"\xff", &[0; 2000], 0)).await.expect("put");
    let mut auth = AuthClient::connect(server.url()).await.expect("connect");
    let user = AuthUserAddRequest { name: "ann".into(), password: "secret".into(), ..Default::default() };
    auth.user_add(user).await.expect("add a user");
}

/// Runs `kvist dump` and reads its lines.
fn dump(what: &str, data_dir: &Path, more: &[&str]) -> Vec<Value> {
    let dir = data_dir.to_str().expect("a path in UTF-8");
    let (code, out, err) = dump_texts(what, dir, more);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn dump_texts(what: &str, dir: &str, more: &[&str]) -> (i32, String, String) {
    texts(finish(command(Path::new("/"), &[&["dump", what, "--data-dir", dir], more].concat())))
}

fn of_kind<'l>(lines: &'l [Value], kind: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// Every file below a directory with what is in it.
fn contents(dir: &Path, found: &mut BTreeMap<std::path::PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            contents(&path, found);
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("a file"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_is_told_of_whole_and_left_as_it_was() {
    if is_foreign_server() {
        return;
    }
    let mut server = Server::start();
    fill(&server).await;
    let dir = server.data_dir().to_owned();
    let text = dir.to_str().expect("a path in UTF-8");
    let (code, _, err) = tokio::task::block_in_place(|| dump_texts("state", text, &[]));
    assert!(code == 1 && err.contains("is in use by another process (pid"), "{code}: {err}");
    tokio::task::block_in_place(|| {
        server.terminate();
        server.restart(); // flushed
    });
    let mut kv = KvClient::connect(server.url()).await.expect("connect");
    for n in 0..20 {
        kv.put(put(b"later", format!("{n}").as_bytes(), 0)).await.expect("put");
    }
    drop(kv);
    tokio::task::block_in_place(|| {
        server.kill();
        let mut before = BTreeMap::new();
        contents(&dir, &mut before);
        check_state(&dump("state", &dir, &[]));
        check_log(&dir);
        let mut after = BTreeMap::new();
        contents(&dir, &mut after);
        assert!(before == after, "looking should change nothing");
        server.restart();
    });
}

fn check_state(lines: &[Value]) {
    let [summary] = of_kind(lines, "state")[..] else { panic!("one summary: {lines:?}") };
    assert!(summary["revision"].as_i64() >= Some(3) && summary["compacted"] == -1, "{summary}");
    assert_eq!(summary["auth"], json!({"enabled": false, "revision": 2}));
    assert!(summary["applied"][1].as_u64() > Some(3), "{summary}");
    assert_eq!(of_kind(lines, "member").len(), 1);
    let keys = of_kind(lines, "key");
    let text = keys.iter().find(|line| line["key"] == json!({"u": "text"})).expect("the key");
    assert_eq!(
        (&text["value"], &text["mod_revision"], &text["lease"]),
        (&json!({"u": "value"}), &json!(2), &json!(LEASE))
    );
    let other = keys.iter().find(|line| line["key"] == json!({"b": "/w=="})).expect("the key");
    let value = other["value"]["b"].as_str().expect("bytes that are no text");
    assert!(value.len() > 2000, "the value comes whole from where long ones are: {value}");
    let [lease] = of_kind(lines, "lease")[..] else { panic!("one lease: {lines:?}") };
    assert_eq!((&lease["ttl"], &lease["keys"]), (&json!(600), &json!([{"u": "text"}])));
    assert_eq!(of_kind(lines, "user"), [&json!({"kind": "user", "name": "ann", "roles": []})]);
}

fn check_log(dir: &Path) {
    let all = dump("log", dir, &[]);
    let [bounds] = of_kind(&all, "log")[..] else { panic!("one line for the bounds: {all:?}") };
    assert_eq!(bounds["vote"]["committed"], true);
    let entries: Vec<u64> = all[1..].iter().map(|line| line["index"].as_u64().expect("an index")).collect();
    assert!(entries.windows(2).all(|pair| pair[0] + 1 == pair[1]), "without a gap: {entries:?}");
    assert_eq!(entries.last().copied(), bounds["last"]["index"].as_u64());
    assert!(!of_kind(&all, "membership").is_empty() && !of_kind(&all, "blank").is_empty());
    let commands = of_kind(&all, "command");
    let later = |line: &&&Value| line["command"]["Put"]["key"] == json!({"u": "later"});
    let puts: Vec<_> = commands.iter().filter(later).collect();
    assert_eq!(puts.len(), 20, "what was acknowledged is there");
    assert!(puts[19]["origin"] == "client" && puts[19]["time_ms"].as_u64() > Some(1_600_000_000_000));
    let user = commands.iter().find(|line| line["command"]["Auth"].is_object()).expect("the user");
    assert_eq!(user["command"]["Auth"]["UserAdd"]["password"], json!({"u": ""}), "no hash is shown");
    let (from, to) = (puts[3]["index"].to_string(), puts[5]["index"].to_string());
    let part = dump("log", dir, &["--from", &from, "--to", &to]);
    assert_eq!(part[1]["index"], puts[3]["index"]);
    assert_eq!(part.last().expect("entries")["index"], puts[5]["index"]);
}

#[test]
fn a_directory_without_a_member_is_refused() {
    if is_foreign_server() {
        return;
    }
    let temp = tempfile::tempdir().expect("temporary directory");
    for dir in [temp.path().join("none"), temp.path().to_owned()] {
        for what in ["log", "state"] {
            let (code, out, err) = dump_texts(what, dir.to_str().expect("UTF-8"), &[]);
            assert!(code == 1 && out.is_empty() && err.contains("holds no member of kvist"), "{code}: {err}");
        }
    }
    assert!(std::fs::read_dir(temp.path()).expect("a directory").next().is_none(), "nothing was made");
}
