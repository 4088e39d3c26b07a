//! The JSON gateway, calls with many answers (H-9 to H-11), over HTTP/1.1 and over websockets.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::Message;
use tungstenite::stream::MaybeTlsStream;

use crate::http_client::{Stream, call, curl};
use crate::support::{Server, is_foreign_server, wait_until};

const CREATE: &str = r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#;

/// Keys and values of the events in a result.
fn events(result: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = result["events"].as_array().cloned().unwrap_or_default();
    events.iter().map(|event| (text(&event["kv"]["key"]), text(&event["kv"]["value"]))).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// What Patroni does: the body ends, the answers go on. Each event comes when it happens.
#[test]
fn h_9_h_10_watch() {
    let server = Server::start();
    let mut watch = Stream::open(&server, "watch");
    watch.send(CREATE);
    watch.send("\n{\"create_request\":{\"key\":\"Ym");
    watch.send("Fy\"}} {\"cancel_request\":{\"watch_id\":\"1\"}} bogus");
    watch.finish();
    assert_eq!(watch.result()["created"], true);
    let created = watch.result();
    assert_eq!((&created["created"], &created["watch_id"]), (&json!(true), &json!("1")));
    let canceled = watch.result();
    assert_eq!((&canceled["canceled"], &canceled["watch_id"]), (&json!(true), &json!("1")));
    for value in ["MQ==", "Mg=="] {
        call(&server, "kv/put", &json!({"key": "Zm9v", "value": value}).to_string());
        let result = watch.result();
        assert_eq!(events(&result), [pair("Zm9v", value)]);
        assert_eq!(result["events"][0].get("type"), None, "PUT is zero");
    }
    call(&server, "kv/deleterange", r#"{"key":"Zm9v"}"#);
    assert_eq!(watch.result()["events"][0]["type"], "DELETE");
}

/// Answers come while the request's body is open.
#[test]
fn h_10_both_ways_at_once() {
    if is_foreign_server() {
        return; // Go's server of HTTP/1 reads all of the body before it sends an answer.
    }
    let server = Server::start();
    let mut watch = Stream::open(&server, "watch");
    for key in ["Zm9v", "YmFy"] {
        watch.send(&json!({"create_request": {"key": key}}).to_string());
        assert_eq!(watch.result()["created"], true);
        call(&server, "kv/put", &json!({ "key": key }).to_string());
        assert_eq!(events(&watch.result()), [pair(key, "")]);
    }
    call(&server, "lease/grant", r#"{"TTL":600,"ID":7}"#);
    let mut stream = Stream::open(&server, "lease/keepalive");
    for _ in 0..3 {
        stream.send(r#"{"ID":7}"#);
        assert_eq!(stream.result()["TTL"], "600");
    }
    stream.finish();
    assert_eq!(stream.line(), None);
}

#[test]
fn h_12_a_time_limit_ends_the_stream() {
    let server = Server::start();
    let answer = curl(&["-H", "Grpc-Timeout: 300m", "-d", CREATE, &(server.url() + "/v3/watch")]);
    let lines: Vec<Value> =
        answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((answer.status, &lines[0]["result"]["created"]), (200, &json!(true)));
    assert_eq!(lines[1..], [json!({"error": {"code": 4, "message": "context deadline exceeded"}})]);
}

#[test]
fn h_9_a_watch_below_the_compacted_revision() {
    let server = Server::start();
    call(&server, "kv/put", r#"{"key":"Zm9v"}"#);
    call(&server, "kv/put", r#"{"key":"Zm9v"}"#);
    call(&server, "kv/compaction", r#"{"revision":3}"#);
    let mut watch = Stream::open(&server, "watch");
    watch.send(CREATE);
    watch.finish();
    assert_eq!(watch.result()["created"], true);
    let result = watch.result();
    assert_eq!((&result["canceled"], &result["compact_revision"]), (&json!(true), &json!("3")));
}

#[test]
fn h_9_a_stopping_server_ends_the_stream() {
    let mut server = Server::start();
    let mut watch = Stream::open(&server, "watch");
    watch.send(CREATE);
    watch.finish();
    assert_eq!(watch.result()["created"], true);
    let _ = server.terminate();
    if let Some(last) = watch.line() {
        assert!(last["error"]["code"].is_u64() && last["error"]["message"].is_string(), "{last}");
        assert_eq!(watch.line(), None);
    }
}

#[test]
fn h_9_h_10_keep_alive() {
    let server = Server::start();
    call(&server, "lease/grant", r#"{"TTL":600,"ID":7}"#);
    let url = server.url() + "/v3/lease/keepalive";
    let answer = curl(&["-d", r#"{"ID":7}{"ID":"8"}   {"ID":7}"#, &url]);
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
    let lines: Vec<Value> =
        answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ttls: Vec<_> = lines.iter().map(|line| line["result"].get("TTL").cloned()).collect();
    assert_eq!(ttls, [Some(json!("600")), None, Some(json!("600"))]);
    // What is no object ends the requests, quietly.
    let answer = curl(&["-d", r#"{"ID":7} bogus {"ID":7}"#, &url]);
    assert_eq!((answer.status, answer.body.lines().count()), (200, 1));
    for body in ["", "bogus", "{\"ID\":"] {
        let answer = curl(&["-d", body, &url]);
        assert_eq!(
            (answer.status, answer.body.as_str(), answer.header("Content-Type")),
            (200, "", None),
            "{body}"
        );
    }
}

/// A client that goes away takes its watchers with it.
#[test]
fn h_10_watchers_end_with_their_client() {
    let server = Server::start();
    let connections = || {
        let file = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("descriptors");
        file.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let before = connections();
    let mut streams: Vec<Stream> = (0..20).map(|_| Stream::open(&server, "watch")).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.send(CREATE);
        if n % 2 == 0 || is_foreign_server() {
            stream.finish();
        }
        assert_eq!(stream.result()["created"], true);
    }
    assert!(connections() > before);
    drop(streams);
    wait_until("the connections to end", Duration::from_secs(10), || connections() <= before + 2);
}

#[test]
fn h_9_observe() {
    let server = Server::start();
    call(&server, "lease/grant", r#"{"TTL":600,"ID":7}"#);
    let mut observed = Stream::open(&server, "election/observe");
    observed.send(r#"{"name":"ZWw="}"#);
    observed.finish();
    let won = call(&server, "election/campaign", r#"{"name":"ZWw=","lease":7,"value":"MQ=="}"#);
    assert_eq!(observed.result()["kv"]["value"], "MQ==");
    call(&server, "election/proclaim", &json!({"leader": won["leader"], "value": "Mg=="}).to_string());
    assert_eq!(observed.result()["kv"]["value"], "Mg==");
}

#[test]
fn h_9_snapshot() {
    let server = Server::start();
    call(&server, "kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#);
    let answer = curl(&["-X", "POST", &(server.url() + "/v3/maintenance/snapshot")]);
    let lines: Vec<Value> =
        answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["result"]["blob"].as_str().is_some_and(|blob| blob.len() > 1000)));
}

type Socket = tungstenite::WebSocket<MaybeTlsStream<TcpStream>>;

fn websocket(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> Socket {
    let url = format!("ws://{}/v3/{path}", server.endpoint());
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    let (socket, _) = tungstenite::connect(request).expect("a websocket");
    if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
        stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a time limit");
    }
    socket
}

fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.read().expect("a message") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn h_11_watch_over_a_websocket() {
    let server = Server::start();
    let mut socket = websocket(&server, "watch", &[]);
    socket.send(Message::text(CREATE)).expect("send");
    assert_eq!(next(&mut socket)["result"]["created"], true);
    call(&server, "kv/put", r#"{"key":"Zm9v","value":"MQ=="}"#);
    assert_eq!(events(&next(&mut socket)["result"]), [pair("Zm9v", "MQ==")]);
    // Parts of an object may come in different messages, binary ones, too.
    socket.send(Message::text(r#"{"create_request":"#)).expect("send");
    socket.send(Message::binary(&br#"{"key":"YmFy"}}"#[..])).expect("send");
    let created = next(&mut socket)["result"].take();
    assert_eq!((&created["created"], &created["watch_id"]), (&json!(true), &json!("1")));
    socket.close(None).expect("close");
}

#[test]
fn h_11_tokens_and_keep_alive_over_a_websocket() {
    let server = Server::start();
    call(&server, "lease/grant", r#"{"TTL":600,"ID":7}"#);
    for headers in [
        &[][..],
        &[("Sec-WebSocket-Protocol", "Bearer, no-such-token")],
        &[("Cookie", "a=b; token=no-such-token")],
    ] {
        let mut socket = websocket(&server, "lease/keepalive", headers);
        for _ in 0..2 {
            socket.send(Message::text(r#"{"ID":7}"#)).expect("send");
            assert_eq!(next(&mut socket)["result"]["TTL"], "600");
        }
    }
    let mut unknown = websocket(&server, "bogus", &[]);
    assert_eq!(next(&mut unknown), json!({"code": 5, "message": "Not Found"}));
    assert!(unknown.read().map_or(true, |message| message.is_close()), "and the end");
}
