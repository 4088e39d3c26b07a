//! The JSON gateway, calls with one answer (H-1 to H-8, H-12): what curl, Patroni and browsers send.

use serde_json::{Value, json};

use crate::http_client::{call, curl, get, post};
use crate::support::Server;

const KEY_EMPTY: &str = "etcdserver: key is not provided";

/// A pair as the gateway shows it: `foo` is `Zm9v`, `bar` is `YmFy`.
fn foo(value: &str, create: u32, modified: u32, version: u32) -> Value {
    json!({
        "key": "Zm9v", "value": value, "create_revision": create.to_string(),
        "mod_revision": modified.to_string(), "version": version.to_string(),
    })
}

#[test]
fn h_1_paths_and_methods() {
    let server = Server::start();
    for path in ["", "kv", "kv/range/", "kv/rangestream", "bogus/path", "auth/user"] {
        let answer = post(&server, path, "{}");
        answer.expect_error(404, 5, "Not Found");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
    }
    get(&server, "/v3/kv/range").expect_error(501, 12, "Method Not Allowed");
    get(&server, "/v3/watch").expect_error(501, 12, "Method Not Allowed");
    get(&server, "/v3/bogus").expect_error(404, 5, "Not Found");
    for method in ["PUT", "DELETE", "PATCH"] {
        curl(&["-X", method, &(server.url() + "/v3/kv/range")]).expect_error(501, 12, "Method Not Allowed");
    }
    let old = curl(&["-d", r#"{"key":"Zm9v"}"#, &(server.url() + "/v3beta/kv/range")]);
    assert_eq!((old.status, &old.json()["header"]["revision"]), (200, &json!("1")));
}

#[test]
fn h_1_no_gateway() {
    let server = Server::start_with(&["--enable-grpc-gateway=false"]);
    for path in ["kv/range", "bogus"] {
        let answer = post(&server, path, "{}");
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"));
    }
    assert_eq!(get(&server, "/health").status, 200);
}

#[test]
fn h_2_key_value_calls() {
    let server = Server::start();
    let put = post(&server, "kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#);
    assert_eq!((put.status, put.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(put.header("Grpc-Metadata-Content-Type"), Some("application/grpc"));
    let header = put.json()["header"].clone();
    assert_eq!(header["revision"], "2");
    for number in ["cluster_id", "member_id", "revision", "raft_term"] {
        assert!(header[number].as_str().is_some_and(|text| text.parse::<u64>().is_ok()), "{header}");
    }
    let found = call(&server, "kv/range", r#"{"key":"Zm9v"}"#);
    assert_eq!(found, json!({"header": header, "kvs": [foo("YmFy", 2, 2, 1)], "count": "1"}));
    assert_eq!(call(&server, "kv/range", r#"{"key":"YQ=="}"#), json!({ "header": header }), "H-4");

    let txn = r#"{"compare":[{"target":"VALUE","key":"Zm9v","result":"EQUAL","value":"YmFy"}],
        "success":[{"request_put":{"key":"Zm9v","value":"MQ==","prev_kv":true}},{"requestRange":{"key":"Zm9v"}}],
        "failure":[{"request_delete_range":{"key":"Zm9v"}}]}"#;
    let done = call(&server, "kv/txn", txn);
    assert_eq!(done["succeeded"], true);
    assert_eq!(
        done["responses"][0]["response_put"],
        json!({"header": {"revision": "3"}, "prev_kv": foo("YmFy", 2, 2, 1)})
    );
    assert_eq!(done["responses"][1]["response_range"]["kvs"], json!([foo("MQ==", 2, 3, 2)]));
    let done = call(&server, "kv/txn", txn);
    assert_eq!(done.get("succeeded"), None, "H-4");
    assert_eq!(
        done["responses"],
        json!([{"response_delete_range": {"header": {"revision": "4"}, "deleted": "1"}}])
    );

    assert_eq!(call(&server, "kv/deleterange", r#"{"key":"AA==","range_end":"AA=="}"#).get("deleted"), None);
    call(&server, "kv/compaction", r#"{"revision":"4","physical":true}"#);
    post(&server, "kv/range", r#"{"key":"Zm9v","revision":2}"#).expect_error(
        400,
        11,
        "etcdserver: mvcc: required revision has been compacted",
    );
}

#[test]
fn h_2_lease_calls() {
    let server = Server::start();
    let granted = call(&server, "lease/grant", r#"{"TTL":"600","ID":7}"#);
    assert_eq!((&granted["ID"], &granted["TTL"]), (&json!("7"), &json!("600")));
    call(&server, "kv/put", r#"{"key":"Zm9v","lease":"7"}"#);
    for path in ["lease/timetolive", "kv/lease/timetolive"] {
        let left = call(&server, path, r#"{"ID":"7","keys":true}"#);
        assert_eq!((&left["grantedTTL"], &left["keys"]), (&json!("600"), &json!(["Zm9v"])));
    }
    for path in ["lease/leases", "kv/lease/leases"] {
        assert_eq!(call(&server, path, "")["leases"], json!([{ "ID": "7" }]));
    }
    call(&server, "kv/lease/revoke", r#"{"ID":7}"#);
    post(&server, "lease/revoke", r#"{"ID":7}"#).expect_error(
        404,
        5,
        "etcdserver: requested lease not found",
    );
    assert_eq!(call(&server, "lease/timetolive", r#"{"ID":"7"}"#)["TTL"], "-1");
}

#[test]
fn h_2_cluster_and_maintenance_calls() {
    let server = Server::start();
    let members = call(&server, "cluster/member/list", "{}");
    let id = members["header"]["member_id"].clone();
    assert_eq!(
        members["members"],
        json!([{"ID": id, "name": "default", "clientURLs": [server.url()],
            "peerURLs": [format!("http://127.0.0.1:{}", server.peer_port)]}])
    );
    let status = call(&server, "maintenance/status", "");
    assert_eq!(
        (&status["version"], &status["leader"], &status["downgradeInfo"]),
        (&json!("3.7.1"), &id, &json!({}))
    );
    assert!(call(&server, "maintenance/hash", "{}")["hash"].is_u64(), "H-5: 32 bits are a number");
    let hash = call(&server, "maintenance/hashkv", "{}");
    assert!(hash["hash"].is_u64() && hash["compact_revision"] == "-1" && hash["hash_revision"] == "1");
    call(&server, "maintenance/defragment", "{}");
    let raised = json!({"action": "ACTIVATE", "memberID": id, "alarm": "NOSPACE"});
    let alarm = json!([{"memberID": id, "alarm": "NOSPACE"}]);
    assert_eq!(call(&server, "maintenance/alarm", &raised.to_string())["alarms"], alarm);
    assert_eq!(call(&server, "maintenance/alarm", "{}")["alarms"], alarm);
    post(&server, "kv/put", r#"{"key":"Zm9v"}"#).expect_error(
        429,
        8,
        "etcdserver: mvcc: database space exceeded",
    );
}

#[test]
fn h_2_locks_and_elections() {
    let server = Server::start();
    call(&server, "lease/grant", r#"{"TTL":600,"ID":7}"#);
    let lock = call(&server, "lock/lock", r#"{"name":"Zm9v","lease":"7"}"#);
    assert_eq!(lock["key"], "Zm9vLzc=", "foo/7");
    let busy = r#"{"name":"Zm9v"}"#;
    let waits = curl(&["-H", "Grpc-Timeout: 300m", "-d", busy, &(server.url() + "/v3/lock/lock")]);
    waits.expect_error(504, 4, "context deadline exceeded");
    call(&server, "lock/unlock", r#"{"key":"Zm9vLzc="}"#);
    assert!(call(&server, "lock/lock", busy)["key"].is_string());

    let won = call(&server, "election/campaign", r#"{"name":"ZWw=","lease":7,"value":"MQ=="}"#);
    let leader = won["leader"].clone();
    assert_eq!(
        (&leader["name"], &leader["key"], &leader["lease"]),
        (&json!("ZWw="), &json!("ZWwvNw=="), &json!("7"))
    );
    call(&server, "election/proclaim", &json!({"leader": leader, "value": "Mg=="}).to_string());
    assert_eq!(call(&server, "election/leader", r#"{"name":"ZWw="}"#)["kv"]["value"], "Mg==");
    call(&server, "election/resign", &json!({ "leader": leader }).to_string());
    post(&server, "election/leader", r#"{"name":"ZWw="}"#).expect_error(500, 2, "election: no leader");
}

#[test]
fn h_3_h_5_forms_of_input() {
    let server = Server::start();
    call(&server, "kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#);
    let expected = call(&server, "kv/range", r#"{"key":"Zm9v"}"#);
    for body in [
        r#"{"key":"Zm9v","limit":"1"}"#,
        r#"{"key":"Zm9v","limit":1}"#,
        r#"{"key":"Zm9v","limit":1e0}"#,
        r#"{"key":"Zm9v","limit":null,"revision":0}"#,
        r#"{"key":"Zm9v","sort_order":"ASCEND","sort_target":"VALUE"}"#,
        r#"{"key":"Zm9v","sortOrder":1,"sortTarget":4}"#,
        r#"{"key":"Zm9v","sort_target":"BOGUS"}"#,
        r#"{"key":"Zm9v","bogus":[1,{"a":{}}],"serializable":true}"#,
        r#"{"key":"Zm9v"} trailing"#,
        "\n {\"key\" : \"Zm9v\"}\n",
    ] {
        assert_eq!(call(&server, "kv/range", body), expected, "{body}");
    }
    for (key, form) in [("+/+/", "-_-_"), ("Zm8=", "Zm8")] {
        call(&server, "kv/put", &json!({ "key": key }).to_string());
        let found = call(&server, "kv/range", &json!({ "key": form }).to_string());
        assert_eq!(found["kvs"][0]["key"], key);
    }
    let counted =
        call(&server, "kv/range", r#"{"key":"AA==","range_end":"AA==","keysOnly":true,"count_only":false}"#);
    assert_eq!((counted["kvs"].as_array().map(Vec::len), counted["kvs"][0].get("value")), (Some(3), None));
}

#[test]
fn h_6_bad_input() {
    let server = Server::start();
    for body in [
        "[]",
        "null",
        "5",
        "x",
        "{\"key\":7}",
        "{\"key\":\"Z!9v\"}",
        "{\"key\":\"Zm9v\",\"limit\":\"\"}",
        "{\"key\":\"Zm9v\",\"limit\":true}",
        "{\"key\":\"Zm9v\",\"keys_only\":\"true\"}",
        "{\"key\":\"Zm9v\",\"limit\":\"99999999999999999999\"}",
        "{\"key\":\"Zm9v\",\"limit\":1.5}",
    ] {
        let answer = post(&server, "kv/range", body);
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(3)), "{body}: {}", answer.body);
    }
    post(&server, "kv/range", "{\"key\":5").expect_error(400, 3, "unexpected EOF");
    post(&server, "kv/txn", r#"{"compare":[{"version":"1","value":"YQ=="}]}"#);
    for body in ["", " ", "{}"] {
        post(&server, "kv/range", body).expect_error(400, 3, KEY_EMPTY);
    }
    let nested = "[".repeat(100_000);
    assert_eq!(post(&server, "kv/range", &format!("{{\"key\":{nested}")).status, 400);
    assert_eq!(get(&server, "/health").status, 200);
}

#[test]
fn h_7_h_8_errors() {
    let server = Server::start();
    let rows = [
        ("kv/put", r#"{"value":"YQ=="}"#, 400, 3, KEY_EMPTY),
        (
            "kv/range",
            r#"{"key":"Zm9v","revision":9}"#,
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("kv/put", r#"{"key":"Zm9v","lease":"9"}"#, 404, 5, "etcdserver: requested lease not found"),
        (
            "kv/compaction",
            r#"{"revision":9}"#,
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("lease/grant", r#"{"TTL":"9000000001"}"#, 400, 11, "etcdserver: too large lease TTL"),
    ];
    for (path, body, status, code, text) in rows {
        post(&server, path, body).expect_error(status, code, text);
    }
    call(&server, "lease/grant", r#"{"TTL":60,"ID":7}"#);
    post(&server, "lease/grant", r#"{"TTL":60,"ID":7}"#).expect_error(
        400,
        9,
        "etcdserver: lease already exists",
    );
}

#[test]
fn h_8_sizes() {
    let server = Server::start();
    let put = |bytes: usize| {
        let file = server.data_dir().with_extension("json");
        // Four characters of base64 for three bytes.
        std::fs::write(&file, format!(r#"{{"key":"Zm9v","value":"{}"}}"#, "YWFh".repeat(bytes / 3)))
            .expect("a file");
        let body = format!("@{}", file.display());
        curl(&["-H", "Expect:", "--data-binary", &body, &(server.url() + "/v3/kv/put")])
    };
    assert_eq!(put(1 << 20).status, 200);
    put(1_900_000).expect_error(400, 3, "etcdserver: request is too large");
    for bytes in [2_500_000, 5_000_000] {
        let refused = put(bytes);
        assert_eq!((refused.status, &refused.json()["code"]), (429, &json!(8)), "{bytes}");
    }
    // An answer of several MiB.
    for n in 0..6 {
        let file = server.data_dir().with_extension("json");
        std::fs::write(&file, format!(r#"{{"key":"YmJ{n}","value":"{}"}}"#, "YWFh".repeat(300_000)))
            .expect("a file");
        let body = format!("@{}", file.display());
        assert_eq!(curl(&["--data-binary", &body, &(server.url() + "/v3/kv/put")]).status, 200);
    }
    let all = call(&server, "kv/range", r#"{"key":"YmI=","range_end":"YmM="}"#);
    let values = all["kvs"].as_array().expect("pairs").iter().map(|kv| kv["value"].as_str().map(str::len));
    assert_eq!(values.collect::<Vec<_>>(), [Some(1_200_000); 6]);
}

#[test]
fn h_12_headers_become_metadata() {
    let server = Server::start();
    let with =
        |header: &str| curl(&["-H", header, "-d", r#"{"key":"Zm9v"}"#, &(server.url() + "/v3/kv/range")]);
    assert_eq!(with("Grpc-Metadata-Hasleader: true").status, 200);
    assert_eq!(with("Grpc-Metadata-Content-Type: text/plain").status, 200);
    assert_eq!(with("Authorization: no-such-token").status, 200, "as long as there are no users");
    with("Grpc-Timeout: 5x").expect_error(400, 3, "invalid grpc-timeout: 5x");
    assert_eq!(with("Grpc-Timeout: 5S").status, 200);
}

#[test]
fn h_12_users_and_tokens() {
    let server = Server::start();
    for (path, body) in [
        ("auth/user/add", r#"{"name":"root","password":"pw"}"#),
        ("auth/role/add", r#"{"name":"root"}"#),
        ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("auth/enable", "{}"),
    ] {
        call(&server, path, body);
    }
    let body = r#"{"key":"Zm9v","value":"YmFy"}"#;
    post(&server, "kv/put", body).expect_error(400, 3, "etcdserver: user name is empty");
    let bad = curl(&["-H", "Authorization: nonsense", "-d", body, &(server.url() + "/v3/kv/put")]);
    bad.expect_error(401, 16, "etcdserver: invalid auth token");
    assert_eq!(bad.header("WWW-Authenticate"), Some("etcdserver: invalid auth token"));
    post(&server, "auth/authenticate", r#"{"name":"root","password":"no"}"#).expect_error(
        400,
        3,
        "etcdserver: authentication failed, invalid user ID or password",
    );
    let token = call(&server, "auth/authenticate", r#"{"name":"root","password":"pw"}"#)["token"].clone();
    let token = token.as_str().expect("a token");
    for header in [
        format!("Authorization: {token}"),
        format!("Authorization: Bearer {token}"),
        format!("Grpc-Metadata-Token: {token}"),
    ] {
        let put = curl(&["-H", &header, "-d", body, &(server.url() + "/v3/kv/put")]);
        assert_eq!(put.status, 200, "{header}: {}", put.body);
    }
    // The health of a server with users needs none of them.
    assert_eq!(get(&server, "/health").body, "{\"health\":\"true\",\"reason\":\"\"}");
    assert_eq!(get(&server, "/readyz").body, "ok\n");
}
