//! What is played: flags of the server and a list of steps. The JSON form is what a failure prints, what `REPLAY` reads,
//! and what the golden files hold.
//!
//! Messages are JSON with etcd's field names. Bytes are text whose characters are the bytes (`"\u00ff"` is 0xff), or
//! `{"repeat": "x", "times": 9}`. Where a number stands, a text may stand for what only the run knows: see [`crate::world`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything that two servers are asked, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Sequence {
    /// What it shows, for golden files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Further flags of both servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    pub steps: Vec<Step>,
}

/// One request, or one of two things that are no request: `sync` waits until every watcher has what it can have, and
/// `expire` until the lease with a short TTL is gone.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Step {
    /// Service and method, such as `KV/Range`.
    pub call: String,
    /// Which of the connections.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub session: u8,
    /// Whose token: a name means the last login of that user, `name#0` the first one, `!text` the text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Which watch stream of the connection.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stream: u8,
    /// One message, or several where the client may stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Value>,
    /// The body as bytes, instead of messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
}

impl Step {
    pub fn new(call: &str, message: Value) -> Step {
        Step { call: call.to_owned(), messages: vec![message], ..Step::default() }
    }

    /// A step without a request.
    pub fn bare(call: &str) -> Step {
        Step { call: call.to_owned(), ..Step::default() }
    }

    pub fn by(mut self, name: &str) -> Step {
        self.by = Some(name.to_owned());
        self
    }

    /// The service, such as `KV`; `sync` and `expire` are their own.
    pub fn area(&self) -> &str {
        self.call.split('/').next().unwrap_or_default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &u8) -> bool {
    *n == 0
}
