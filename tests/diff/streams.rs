//! One watch stream of a run: sends requests, waits for what surely comes, and keeps what came by watcher.
//!
//! What etcd promises is what is kept: the order of events of one watcher, and that no response ends amid a revision. How
//! events of different watchers interleave, and how many revisions a response of history holds, is left open by etcd and
//! left out here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::wire::{self, Raw};
use crate::world::World;

const CALL: &str = "Watch/Watch";
/// Messages on their way; a run sends far fewer before it reads.
const QUEUE: usize = 1024;
/// A reply that must come, on a machine that may be busy.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

type Reply = Result<Bytes, Status>;

/// What is known of a watcher.
#[derive(Default)]
struct Watcher {
    start: i64,
    /// What came since it was shown last.
    events: Vec<Value>,
    /// Where the last response ended, and whether it said that more of it follows.
    last: i64,
    is_fragment: bool,
    /// There may be more of them by now: nothing could tell.
    is_partial: bool,
}

/// See the module.
pub struct WatchStream {
    requests: mpsc::Sender<Vec<u8>>,
    replies: mpsc::Receiver<Reply>,
    active: BTreeMap<i64, Watcher>,
    /// Watchers that ended since the last sync, with what they had.
    ended: Vec<Value>,
    /// The stream's end, once it has ended.
    end: Option<Value>,
    /// A watcher began in the past, and may still be catching up.
    is_behind: bool,
    /// Watchers that a compaction ended, and that were canceled then. etcd tells no progress before that.
    leaving: BTreeSet<i64>,
}

/// What a message was.
enum Seen {
    Created(Value),
    Canceled(i64, Value),
    Progress(i64),
    Events,
    End,
    Nothing,
}

impl WatchStream {
    pub fn open(channel: Channel, token: Option<&str>) -> WatchStream {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (sender, replies) = mpsc::channel(QUEUE);
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        tokio::spawn(read(channel, request, sender));
        WatchStream {
            requests,
            replies,
            active: BTreeMap::new(),
            ended: Vec::new(),
            end: None,
            is_behind: false,
            leaving: BTreeSet::new(),
        }
    }

    /// Sends a request and returns the answer that it must get, if it must get one.
    pub async fn request(&mut self, message: &Value, world: &mut World) -> Value {
        if let Some(end) = &self.end {
            return json!({"ended": end});
        }
        let cancel = &message["cancel_request"];
        let watch_id = cancel["watch_id"].as_i64().unwrap_or_default();
        // Events that are on their way may or may not overtake the answer to a cancel request.
        let synced = if cancel.is_object() { Some(self.sync(world).await) } else { None };
        self.send(message, world).await;
        let answer = if message["create_request"].is_object() {
            self.created(&message["create_request"], world).await
        } else if cancel.is_object() && self.active.contains_key(&watch_id) {
            self.canceled(watch_id, world).await
        } else {
            json!("sent")
        };
        synced.map_or_else(|| answer.clone(), |synced| json!({"before": synced, "answer": answer}))
    }

    async fn send(&mut self, message: &Value, world: &World) {
        let input = wire::method(CALL).expect("a call").input();
        let _ = self.requests.send(wire::encode(&input, message, world)).await; // an ended stream is seen by its end
    }

    async fn created(&mut self, request: &Value, world: &mut World) -> Value {
        loop {
            match self.next(REPLY_TIMEOUT, world).await {
                Seen::Created(response) => {
                    let watch_id = response["watch_id"].as_i64().unwrap_or_default();
                    let mut is_below = false;
                    if response["canceled"].as_bool() != Some(true) {
                        let start = match &request["start_revision"] {
                            Value::String(symbol) => world.number(symbol),
                            other => other.as_i64().unwrap_or_default(),
                        };
                        let now = response["header"]["revision"].as_i64().unwrap_or_default();
                        self.is_behind |= start > 0 && start <= now;
                        is_below = start > 0 && start < world.compacted;
                        self.active.insert(watch_id, Watcher { start, ..Watcher::default() });
                    }
                    let answer = world.rewrite(response);
                    // It ends at once, or a little later.
                    return if is_below { json!([answer, Box::pin(self.sync(world)).await]) } else { answer };
                }
                Seen::End => return json!({"ended": self.end}),
                Seen::Nothing => return json!("no answer"),
                _ => {}
            }
        }
    }

    async fn canceled(&mut self, id: i64, world: &mut World) -> Value {
        loop {
            match self.next(REPLY_TIMEOUT, world).await {
                Seen::Canceled(canceled, response) if canceled == id => return response,
                Seen::End => return json!({"ended": self.end}),
                Seen::Nothing => return json!("no answer"),
                _ => {}
            }
        }
    }

    /// The revision from which the last watcher begins that has not begun yet; nothing tells that such a stream is
    /// complete.
    pub fn awaits(&self, world: &World) -> Option<i64> {
        self.active.values().map(|watcher| watcher.start).max().filter(|start| *start > world.now)
    }

    /// True while history may be missing.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Waits until every watcher has all events so far, and returns them. etcd answers a progress request only then, and
    /// ignores it otherwise, so it is repeated.
    pub async fn sync(&mut self, world: &mut World) -> Value {
        let deadline = tokio::time::Instant::now() + REPLY_TIMEOUT;
        let mut state = "complete";
        'asking: while self.end.is_none() && !(self.active.is_empty() && self.leaving.is_empty()) {
            if self.leaving.is_empty() && self.awaits(world).is_some() {
                // What has come is compared once something tells how much that is.
                state = "a watcher waits for a later revision";
                self.active.values_mut().for_each(|watcher| watcher.is_partial = true);
                break;
            }
            if tokio::time::Instant::now() > deadline {
                state = "no progress is told";
                break;
            }
            self.send(&json!({"progress_request": {}}), world).await;
            loop {
                match self.next(Duration::from_millis(25), world).await {
                    Seen::Progress(revision) if revision >= world.now && self.leaving.is_empty() => {
                        world.now = revision;
                        self.active.values_mut().for_each(|watcher| watcher.is_partial = false);
                        break 'asking;
                    }
                    Seen::Nothing => break,
                    Seen::End => break 'asking,
                    _ => {}
                }
            }
        }
        self.is_behind = false;
        self.take(state)
    }

    fn take(&mut self, state: &str) -> Value {
        let mut events = serde_json::Map::new();
        for (id, watcher) in &mut self.active {
            if !watcher.events.is_empty() && !watcher.is_partial {
                events.insert(id.to_string(), Value::Array(std::mem::take(&mut watcher.events)));
            }
        }
        let mut ended = std::mem::take(&mut self.ended);
        ended.sort_by_key(|watcher| watcher["watch_id"].as_i64());
        json!({"state": state, "events": events, "watchers_ended": ended, "end": self.end})
    }

    async fn next(&mut self, timeout: Duration, world: &mut World) -> Seen {
        if self.end.is_some() {
            return Seen::End;
        }
        let Ok(reply) = tokio::time::timeout(timeout, self.replies.recv()).await else {
            return Seen::Nothing;
        };
        match reply {
            Some(Ok(body)) => {
                let output = wire::method(CALL).expect("a call").output();
                match wire::decode(&output, body) {
                    Some(response) => {
                        let is_compacted = response["compact_revision"].is_number();
                        let seen = self.take_in(response, world);
                        if let Seen::Canceled(id, _) = &seen
                            && is_compacted
                        {
                            self.leaving.insert(*id);
                            self.send(&json!({"cancel_request": {"watch_id": id}}), world).await;
                        }
                        seen
                    }
                    None => {
                        self.end = Some(json!("no message of protobuf"));
                        Seen::End
                    }
                }
            }
            Some(Err(status)) => {
                self.end = Some(wire::refusal(&status));
                Seen::End
            }
            None => {
                self.end = Some(json!("without an error"));
                Seen::End
            }
        }
    }

    fn take_in(&mut self, response: Value, world: &mut World) -> Seen {
        world.learn(CALL, &Value::Null, &response);
        let id = response["watch_id"].as_i64().unwrap_or_default();
        let revision = response["header"]["revision"].as_i64().unwrap_or_default();
        let is = |name: &str| response[name].as_bool() == Some(true);
        if is("created") {
            return Seen::Created(response);
        }
        if is("canceled") {
            self.leaving.remove(&id);
            let watcher = self.active.remove(&id).filter(|watcher| !watcher.is_partial);
            let mut events = watcher.map(|watcher| watcher.events).unwrap_or_default();
            let shown = world.rewrite(response);
            events.push(shown.clone());
            self.ended.push(json!({"watch_id": id, "events": events}));
            return Seen::Canceled(id, shown);
        }
        let events = response["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        if events.is_empty() && id == -1 {
            return Seen::Progress(revision);
        }
        let mut shown: Vec<Value> = events.iter().map(|event| world.rewrite(event.clone())).collect();
        let Some(watcher) = self.active.get_mut(&id) else {
            self.ended.push(json!({"watch_id": id, "events of a watcher that is not there": shown}));
            return Seen::Events;
        };
        if events.is_empty() {
            shown.push(json!("a response without events"));
        }
        let revisions: Vec<i64> = events.iter().filter_map(|e| e["kv"]["mod_revision"].as_i64()).collect();
        let (first, last) = (revisions.first().copied(), revisions.last().copied().unwrap_or_default());
        if first.is_some_and(|first| first < watcher.last || (first == watcher.last && !watcher.is_fragment))
        {
            shown.push(json!("a revision came in two responses"));
        }
        if revision < last {
            shown.push(json!("the header is older than the events"));
        }
        (watcher.last, watcher.is_fragment) = (last, is("fragment"));
        watcher.events.append(&mut shown);
        Seen::Events
    }
}

/// Carries on the call, and passes on what comes until nobody wants it.
async fn read(channel: Channel, request: Request<ReceiverStream<Vec<u8>>>, sender: mpsc::Sender<Reply>) {
    let outcome = open(channel, request).await;
    let mut replies = match outcome {
        Ok(replies) => replies,
        Err(status) => {
            let _ = sender.send(Err(status)).await;
            return;
        }
    };
    loop {
        let reply = match replies.message().await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let is_end = reply.is_err();
        if sender.send(reply).await.is_err() || is_end {
            return;
        }
    }
}

async fn open(
    channel: Channel,
    request: Request<ReceiverStream<Vec<u8>>>,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc.streaming(request, wire::path(CALL), Raw).await?.into_inner())
}
