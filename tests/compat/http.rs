//! Plain HTTP on the client, peer and metrics ports (contract 4.2 and 4.3), and who may come (H-13, H-14).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::json;

use crate::http_client::{call, curl, get};
use crate::support::{Server, free_port, is_foreign_server, wait_until};

const NOT_FOUND: &str = "404 page not found\n";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Raises an alarm, or lowers it.
fn alarm(server: &Server, action: &str, kind: &str) {
    let member = call(server, "maintenance/status", "{}")["header"]["member_id"].clone();
    let body = json!({ "action": action, "memberID": member, "alarm": kind });
    call(server, "maintenance/alarm", &body.to_string());
}

/// X-10: `/version`, and `/downgrade/enabled` on the peer port, tell of a downgrade.
#[test]
fn x_10_http_tells_of_a_downgrade() {
    let server = Server::start();
    let cluster = || get(&server, "/version").json()["etcdcluster"].clone();
    wait_until("the version of the cluster", Duration::from_secs(15), || cluster() == "3.7.0");
    let url = format!("http://127.0.0.1:{}/downgrade/enabled", server.peer_port);
    assert_eq!(curl(&[&url]).body, "false");
    call(&server, "maintenance/downgrade", r#"{"action":"ENABLE","version":"3.6"}"#);
    assert_eq!(curl(&[&url]).body, "true");
    wait_until("the version of the downgrade", Duration::from_secs(15), || cluster() == "3.6.0");
    call(&server, "maintenance/downgrade", r#"{"action":"CANCEL"}"#);
    assert_eq!(curl(&[&url]).body, "false");
}

#[test]
fn http_version() {
    let server = Server::start();
    let expected = json!({"etcdserver": "3.7.1", "etcdcluster": "3.7.0", "storage": "3.7.0"});
    // etcd knows the version of its storage after its first second.
    wait_until("all versions to be known", Duration::from_secs(15), || {
        get(&server, "/version").json() == expected
    });
    let answer = get(&server, "/version");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    for method in [&["-X", "POST"][..], &["-X", "DELETE"], &["-I"]] {
        for path in ["/version", "/health", "/livez", "/readyz", "/readyz/non_learner", "/debug/vars"] {
            let url = server.url() + path;
            let answer = curl(&[method, &[url.as_str()]].concat());
            assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET")), "{method:?} {path}");
            if method != ["-I"] {
                assert_eq!(answer.body, "Method Not Allowed\n");
            }
        }
    }
}

#[test]
fn http_health() {
    let server = Server::start();
    let good = "{\"health\":\"true\",\"reason\":\"\"}";
    for query in
        ["", "?serializable=true", "?serializable=false", "?exclude=NOSPACE&serializable=true", "?exclude="]
    {
        let answer = get(&server, &format!("/health{query}"));
        assert_eq!((answer.status, answer.body.as_str()), (200, good));
        assert_eq!(answer.header("Content-Type"), Some(PLAIN));
    }
    alarm(&server, "ACTIVATE", "NOSPACE");
    let answer = get(&server, "/health");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(get(&server, "/health?exclude=CORRUPT").status, 503);
    assert_eq!(get(&server, "/health?exclude=CORRUPT&exclude=NOSPACE").body, good);
    alarm(&server, "DEACTIVATE", "NOSPACE");
    assert_eq!(get(&server, "/health").status, 200);
    alarm(&server, "ACTIVATE", "CORRUPT");
    assert!(get(&server, "/health").body.contains("ALARM CORRUPT"));
}

/// The lines of a report, in the order of their names: etcd's differs from call to call.
fn report(server: &Server, path: &str) -> (u16, Vec<String>) {
    let answer = get(server, path);
    let mut lines: Vec<String> =
        answer.body.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    lines.sort();
    assert_eq!(answer.header("Content-Type"), Some(PLAIN));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    (answer.status, lines)
}

#[test]
fn http_livez_and_readyz() {
    let server = Server::start();
    let healthy = || {
        assert_eq!(get(&server, "/livez").body, "ok\n");
        assert_eq!(get(&server, "/readyz").body, "ok\n");
        assert_eq!(
            report(&server, "/livez?verbose"),
            (200, vec!["[+]serializable_read ok".to_owned(), "ok".to_owned()])
        );
        let names = ["data_corruption", "linearizable_read", "non_learner", "serializable_read"];
        let mut expected: Vec<String> = names.iter().map(|name| format!("[+]{name} ok")).collect();
        expected.push("ok".to_owned());
        assert_eq!(report(&server, "/readyz?verbose&exclude=bogus"), (200, expected.clone()));
        expected.remove(1);
        assert_eq!(report(&server, "/readyz?exclude=linearizable_read&verbose=false"), (200, expected));
        for name in names {
            assert_eq!(get(&server, &format!("/readyz/{name}")).body, "ok\n");
        }
        assert_eq!(get(&server, "/livez/serializable_read?verbose").body, "[+]serializable_read ok\nok\n");
        assert_eq!(get(&server, "/livez/non_learner").body, NOT_FOUND);
    };
    healthy();
    alarm(&server, "ACTIVATE", "NOSPACE");
    healthy();
    alarm(&server, "ACTIVATE", "CORRUPT");
    assert_eq!(get(&server, "/livez").body, "ok\n");
    let (status, lines) = report(&server, "/readyz");
    assert_eq!((status, lines.len()), (503, 4));
    assert!(lines.contains(&"[-]data_corruption failed: alarm activated: CORRUPT".to_owned()), "{lines:?}");
    let one = get(&server, "/readyz/data_corruption");
    assert_eq!(
        (one.status, one.body.as_str()),
        (503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n")
    );
    assert_eq!(get(&server, "/readyz?exclude=data_corruption").body, "ok\n");
}

#[test]
fn http_unknown_paths() {
    let server = Server::start();
    for path in ["/", "/v2", "/v2/members", "/v2/keys/a", "/v3alpha/kv/range", "/readyz/bogus", "/versions"] {
        let answer = get(&server, path);
        assert_eq!((answer.status, answer.body.as_str()), (404, NOT_FOUND), "{path}");
        assert_eq!(answer.header("Content-Type"), Some(PLAIN));
    }
    let answer = get(&server, "/v3");
    assert_eq!((answer.status, answer.header("Location")), (307, Some("/v3/")));
}

#[test]
fn http_debug_vars() {
    let server = Server::start();
    let vars = get(&server, "/debug/vars").json();
    assert!(vars["cmdline"].as_array().is_some_and(|words| words.contains(&json!("--data-dir"))));
    assert!(vars["memstats"]["Alloc"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(vars["raft.status"]["raftState"], "StateLeader");
    assert_eq!(get(&server, "/debug/pprof/").status, 404);
}

#[test]
fn h_13_cors() {
    let server = Server::start();
    let url = server.url() + "/v3/kv/put";
    let fields = |answer: &crate::http_client::Answer| {
        ["Origin", "Methods", "Headers"]
            .map(|name| answer.header(&format!("Access-Control-Allow-{name}")).map(str::to_owned))
    };
    let allowed = |origin: &str| {
        [origin, "POST, GET, OPTIONS, PUT, DELETE", "accept, content-type, authorization"]
            .map(|value| Some(value.to_owned()))
    };
    let preflight = curl(&["-X", "OPTIONS", "-H", "Origin: http://a.example", &url]);
    assert_eq!((preflight.status, preflight.body.as_str()), (200, ""));
    assert_eq!(fields(&preflight), allowed("*"));
    assert_eq!(fields(&get(&server, "/health")), allowed("*"));
    assert_eq!(fields(&get(&server, "/nowhere")), allowed("*"));

    let server = Server::start_with(&["--cors", "http://a.example:80,http://b.example:8080"]);
    let from = |origin: &str| curl(&["-H", &format!("Origin: {origin}"), &(server.url() + "/health")]);
    assert_eq!(fields(&from("http://b.example:8080")), allowed("http://b.example:8080"));
    let stranger = from("http://b.example");
    assert_eq!((stranger.status, fields(&stranger)), (200, [None, None, None]));
}

#[test]
fn h_14_host_whitelist() {
    let server = Server::start_with(&["--host-whitelist", "a.example,127.0.0.1"]);
    let named = |host: &str| curl(&["-H", &format!("Host: {host}"), &(server.url() + "/health")]);
    assert_eq!(get(&server, "/health").status, 200);
    assert_eq!(named("a.example").status, 200);
    assert_eq!(named("a.example:1234").status, 200);
    let refused = named("evil.example:2379");
    assert_eq!(refused.status, 421);
    assert!(
        refused.body.starts_with("\netcd received your request, but the Host header was unrecognized.\n")
    );
    assert!(refused.body.contains("  - e.g. etcd --host-whitelist \"evil.example\"\n"), "{}", refused.body);
    assert!(refused.body.ends_with("\"DNS Rebinding\" attacks (CVE-2018-5702).\n\n"));
    assert_eq!(refused.header("Access-Control-Allow-Origin"), None);
}

#[test]
fn http_metrics_port() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let server = Server::start_with(&["--listen-metrics-urls", &url]);
    for path in ["/metrics", "/health", "/livez", "/readyz", "/readyz/linearizable_read"] {
        let answer = curl(&[&format!("{url}{path}")]);
        assert_eq!((answer.status, answer.header("Access-Control-Allow-Origin")), (200, None), "{path}");
    }
    for path in ["/version", "/v3/kv/range", "/debug/vars", "/"] {
        assert_eq!(curl(&[&format!("{url}{path}")]).body, NOT_FOUND, "{path}");
    }
    // Both ports count together.
    for (path, status) in [("/health", 200), ("/livez?verbose", 200), ("/readyz/non_learner", 200)] {
        assert_eq!(get(&server, path).status, status);
    }
    for text in [get(&server, "/metrics"), curl(&[&format!("{url}/metrics")])] {
        assert!(
            text.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4"))
        );
        for line in [
            "etcd_server_health_success 2",
            "etcd_server_health_failures 0",
            "etcd_server_healthcheck{name=\"non_learner\",type=\"readyz\"} 1",
            "etcd_server_healthchecks_total{name=\"non_learner\",status=\"success\",type=\"readyz\"} 2",
            "etcd_server_healthchecks_total{name=\"serializable_read\",status=\"success\",type=\"livez\"} 2",
        ] {
            assert!(text.body.lines().any(|found| found == line), "{line}\n{}", text.body);
        }
    }
}

#[test]
fn contract_4_3_peer_port() {
    let server = Server::start();
    let url = format!("http://127.0.0.1:{}", server.peer_port);
    let get = |path: &str| curl(&[&format!("{url}{path}")]);
    let header = call(&server, "kv/put", r#"{"key":"YQ==","value":"Yg=="}"#)["header"].take();
    let id = |name: &str| header[name].as_str().and_then(|id| id.parse::<u64>().ok()).expect("an id");
    let (cluster, member) = (id("cluster_id"), id("member_id"));

    let members = get("/members");
    assert_eq!((members.status, members.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(members.header("X-Etcd-Cluster-ID"), Some(format!("{cluster:x}").as_str()));
    assert_eq!(
        members.json(),
        json!([{"id": member, "peerURLs": [url], "name": "default", "clientURLs": [server.url()]}])
    );
    assert_eq!(curl(&["-X", "POST", &format!("{url}/members")]).status, 405);
    assert_eq!(get("/version").json()["etcdserver"], "3.7.1");
    let downgrade = get("/downgrade/enabled");
    assert_eq!((downgrade.body.as_str(), downgrade.header("Content-Type")), ("false", Some("text/plain")));

    let hash_url = format!("{url}/members/hashkv");
    let hash =
        |revision: i64| curl(&["-X", "GET", "-d", &json!({ "revision": revision }).to_string(), &hash_url]);
    let over_grpc = call(&server, "maintenance/hashkv", r#"{"revision":2}"#);
    assert_eq!(
        hash(2).json(),
        json!({"header": {"revision": 2}, "hash": over_grpc["hash"], "compact_revision": -1, "hash_revision": 2})
    );
    let future = hash(100);
    assert_eq!(
        (future.status, future.body.as_str()),
        (400, "mvcc: required revision is a future revision\n")
    );
    assert_eq!(get("/members/hashkv").body, "error unmarshalling request\n");
    let other = curl(&["-H", "X-Etcd-Cluster-ID: 5", "-d", "{}", "-X", "GET", &hash_url]);
    assert_eq!((other.status, other.body.as_str()), (412, "cluster ID mismatch\n"));
    for path in ["/health", "/members/", "/v3/kv/range", "/"] {
        assert_eq!(get(path).body, NOT_FOUND, "{path}");
    }
}

#[test]
fn http2_without_tls_serves_more_than_grpc() {
    if is_foreign_server() {
        return; // etcd takes every HTTP/2 request without TLS for gRPC.
    }
    let server = Server::start();
    let h2 = |args: &[&str]| curl(&[&["--http2-prior-knowledge"], args].concat());
    assert_eq!(h2(&[&(server.url() + "/health")]).status, 200);
    let put = h2(&["-d", r#"{"key":"YQ=="}"#, &(server.url() + "/v3/kv/put")]);
    assert_eq!((put.status, &put.json()["header"]["revision"]), (200, &json!("2")));
}

#[test]
fn http_half_a_request_holds_up_nobody() {
    let mut server = Server::start();
    let mut halves: Vec<TcpStream> = Vec::new();
    for bytes in [
        &b""[..],
        b"P",
        b"PRI * HTTP/2.0\r\n",
        b"GET /health HTTP/1.1\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(server.endpoint()).expect("connect");
        stream.write_all(bytes).expect("write");
        halves.push(stream);
    }
    let mut garbage = TcpStream::connect(server.endpoint()).expect("connect");
    garbage.write_all(b"\x00\xff garbage\r\n\r\n").expect("write");
    let _ = garbage.read_to_end(&mut Vec::new());
    let long = format!("X-Long: {}", "a".repeat(70_000));
    let refused = curl(&["-H", &long, &(server.url() + "/health")]).status;
    assert!(refused == 431 || is_foreign_server(), "{refused}");
    assert_eq!(get(&server, "/health").status, 200);
    if !is_foreign_server() {
        // etcd waits for the bodies that do not come.
        assert_eq!(server.terminate().signal(), Some(15));
    }
    drop(halves);
}
