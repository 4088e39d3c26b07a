//! The runner's control service: fresh servers, and what is done to them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

tokio::task_local! {
    /// Numbers of the servers that a case has started.
    pub static STARTED: Arc<Mutex<Vec<u64>>>;
}

/// A started server.
#[derive(Clone, Debug)]
pub struct Server {
    pub id: u64,
    pub port: u16,
    pub endpoint: String,
    /// Paths of certificates; empty without TLS.
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl Server {
    /// A fresh server with further flags.
    pub async fn start(flags: &[&str]) -> Server {
        Server::wish(json!({ "flags": flags })).await
    }

    /// A fresh server as the control service takes it.
    pub async fn wish(wish: Value) -> Server {
        Server::of(&call("POST", "/servers", &wish.to_string()).await)
    }

    /// What the control service says of a server.
    pub fn of(answer: &Value) -> Server {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let id = answer["id"].as_u64().expect("an id");
        STARTED.with(|started| started.lock().unwrap().push(id));
        Server {
            id,
            port: answer["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port"),
            endpoint: text("endpoint"),
            ca: text("ca"),
            cert: text("cert"),
            key: text("key"),
        }
    }

    /// "kill", "stop", "start", "pause" or "resume".
    pub async fn act(&self, verb: &str) {
        call("POST", &format!("/servers/{}/{verb}", self.id), "").await;
    }

    /// A page that the server has for browsers.
    pub async fn page(&self, path: &str) -> String {
        let (status, body) = http(&format!("127.0.0.1:{}", self.port), "GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

/// Removes servers.
pub async fn remove(ids: Vec<u64>) {
    for id in ids {
        call("DELETE", &format!("/servers/{id}"), "").await;
    }
}

/// Asks the control service.
pub async fn call(method: &str, path: &str, body: &str) -> Value {
    let control = std::env::var("KVIST_CONTROL").expect("KVIST_CONTROL names the control service");
    let address = control.strip_prefix("http://").expect("an address with http://");
    let (status, answer) = http(address, method, path, body).await;
    assert_eq!(status, 200, "{method} {path}: {answer}");
    serde_json::from_str(&answer).expect("JSON of the control service")
}

/// One request by HTTP/1.0, which has no chunks: status and body.
pub async fn http(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connect by HTTP");
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("write a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}
