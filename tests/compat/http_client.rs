//! HTTP as users speak it: curl, and what came of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::Server;

/// Longest wait for one line or one answer, seconds.
const PATIENCE_SECS: u64 = 15;

/// An answer with its head.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// Checks that a call through the gateway failed with exactly this.
    #[track_caller]
    pub fn expect_error(&self, status: u16, code: i32, message: &str) {
        assert_eq!(self.json(), serde_json::json!({ "code": code, "message": message }));
        assert_eq!(self.status, status);
        assert_eq!(self.header("Content-Type"), Some("application/json"));
    }
}

/// Runs curl.
#[track_caller]
pub fn curl(args: &[&str]) -> Answer {
    let limit = PATIENCE_SECS.to_string();
    let output = Command::new("curl").args(["-s", "-i", "-m", &limit]).args(args).output().expect("run curl");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut rest = text.as_str();
    loop {
        let (head, body) =
            rest.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}: {args:?}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        if status == 100 {
            rest = body;
            continue;
        }
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        return Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() };
    }
}

/// GET of a path on the client port.
#[track_caller]
pub fn get(server: &Server, path: &str) -> Answer {
    curl(&[&format!("{}{path}", server.url())])
}

/// A call through the gateway.
#[track_caller]
pub fn post(server: &Server, path: &str, body: &str) -> Answer {
    curl(&["-d", body, &format!("{}/v3/{path}", server.url())])
}

/// The same, which succeeds.
#[track_caller]
pub fn call(server: &Server, path: &str, body: &str) -> Value {
    let answer = post(server, path, body);
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
    answer.json()
}

/// A call with many answers, the body of whose request stays open.
pub struct Stream {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Stream {
    /// Begins a call through the gateway.
    pub fn open(server: &Server, path: &str) -> Stream {
        let url = format!("{}/v3/{path}", server.url());
        let mut child = Command::new("curl")
            .args(["-s", "-N", "-X", "POST", "-T", ".", "-H", "Expect:", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run curl");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = sync_channel(1000);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Stream { child, stdin, lines }
    }

    pub fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("the body is open");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("curl takes the body");
    }

    /// Ends the request's body.
    pub fn finish(&mut self) {
        self.stdin = None;
    }

    /// The next line; `None` when the answer has ended.
    pub fn line(&self) -> Option<Value> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(Duration::from_secs(PATIENCE_SECS)) {
            Ok(line) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("no line came"),
        }
    }

    /// What the next line has as its result.
    #[track_caller]
    pub fn result(&self) -> Value {
        self.line().expect("a line")["result"].take()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
