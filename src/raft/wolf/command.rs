//! An entry of ours as one readable JSON object, and back, with nothing lost:
//!
//! ```json
//! {"cmd":"Put","args":{"key":{"u":"k"},"value":{"b":"/w=="},...},"time_ms":1700000000000,"origin":{"user":"ann","revision":3}}
//! ```
//! `args` is what the command holds, named as in `engine::command`; `origin` is `"server"`, `"anonymous"` or a user; `ticket` says
//! which member waits for the answer, if it is not the leader. An entry
//! that does not come out of this byte for byte (it has an older layout), or that is nested too deep for readers of JSON,
//! has `raw` instead: its bytes as the log stores them. Called by `json`.

use super::readable::{self, Readable};
use crate::auth::Caller;
use crate::engine::command::Command;
use crate::engine::entry::{Entry, Origin, Ticket};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde_json::{Value, json};

/// Brackets that may be open in `args`: readers of JSON stop at 128, and around `args` there are a few more.
const DEPTH_MAX: usize = 100;

/// Why an object is none of our entries.
#[derive(Debug, thiserror::Error)]
#[error("data is no command of kvist: {0}")]
pub struct Foreign(String);

#[derive(Deserialize)]
struct Form {
    cmd: String,
    #[serde(default)]
    args: Value,
    time_ms: Option<u64>,
    origin: Option<Value>,
    ticket: Option<TicketForm>,
    raw: Option<Value>,
}

#[derive(Deserialize)]
struct TicketForm {
    proposer: u64,
    number: u64,
}

/// The JSON of an entry.
pub fn write(entry: &Entry) -> String {
    let (command, depth) = readable::write(entry.command());
    // {"Put":{...}}: the name of the variant, and what it holds.
    let named = command.strip_prefix("{\"").and_then(|rest| rest.strip_suffix('}'));
    let (name, args) =
        named.and_then(|rest| rest.split_once("\":")).unwrap_or((command.trim_matches('"'), "null"));
    let plain = Entry::new(entry.origin().clone(), entry.command().clone(), entry.time_ms());
    let again = entry.ticket().map_or(plain.clone(), |ticket| plain.ticketed(ticket));
    if depth > DEPTH_MAX || again.bytes() != entry.bytes() {
        return format!(r#"{{"cmd":"{name}","raw":{}}}"#, readable::bytes(entry.bytes()));
    }
    let origin = write_origin(entry.origin());
    let ticket = entry.ticket().map_or_else(String::new, |Ticket { proposer, number }| {
        format!(r#","ticket":{{"proposer":{proposer},"number":{number}}}"#)
    });
    format!(r#"{{"cmd":"{name}","args":{args},"time_ms":{},"origin":{origin}{ticket}}}"#, entry.time_ms())
}

/// The entry of an object that [`write`] made, or somebody who knows how.
pub fn read(data: &Value) -> Result<Entry, Foreign> {
    let form = Form::deserialize(data).map_err(|e| Foreign(e.to_string()))?;
    if let Some(raw) = form.raw {
        let bytes = readable::to_bytes(&raw).ok_or_else(|| Foreign("raw is no byte string".into()))?;
        return Entry::decode(Bytes::from(bytes.into_owned())).map_err(|e| Foreign(e.to_string()));
    }
    let variant = MapDeserializer::new(std::iter::once((form.cmd.as_str(), Readable(&form.args))));
    let command = Command::deserialize(MapAccessDeserializer::new(variant));
    let command = command.map_err(|e| Foreign(e.to_string()))?;
    let origin =
        form.origin.as_ref().and_then(read_origin).ok_or_else(|| Foreign("it says not of whom".into()))?;
    let time_ms = form.time_ms.ok_or_else(|| Foreign("it says not when".into()))?;
    let entry = Entry::new(origin, command, time_ms);
    Ok(match form.ticket {
        Some(TicketForm { proposer, number }) => entry.ticketed(Ticket { proposer, number }),
        None => entry,
    })
}

fn write_origin(origin: &Origin) -> Value {
    match origin {
        Origin::Server => json!("server"),
        Origin::Client(None) => json!("anonymous"),
        Origin::Client(Some(caller)) => json!({ "user": &*caller.user, "revision": caller.revision }),
    }
}

fn read_origin(origin: &Value) -> Option<Origin> {
    match origin {
        Value::String(name) if name == "server" => Some(Origin::Server),
        Value::String(name) if name == "anonymous" => Some(Origin::Client(None)),
        Value::Object(user) => {
            let (name, revision) = (user.get("user")?.as_str()?, user.get("revision")?.as_u64()?);
            Some(Origin::Client(Some(Caller { user: name.into(), revision, is_pinned: true })))
        }
        _ => None,
    }
}
