//! Plays a sequence against one server and returns the transcript: what each step was answered, in symbols.
//!
//! A step ends before the next begins. Only watch streams stay open over steps, and these are waited for wherever what they
//! send would otherwise depend on the time: before a compaction, before a cancel request, at `sync`, and at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_stream::iter;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::sequence::{Sequence, Step};
use crate::streams::{REPLY_TIMEOUT, WatchStream};
use crate::support::Server;
use crate::wire::{self, Raw};
use crate::world::{SHORT_TTL_SECS, Short, World};
use crate::{last, mask};

/// A short lease may expire from this part of its TTL on, as far as comparing goes.
const SAFE_PART: f64 = 0.8;
/// A key that no step names; writing it makes revisions.
const BUMP_KEY: &str = "~";
/// How often revisions are made for watchers that wait for a later one.
const BUMPS_MAX: i64 = 12;

/// What one server made of a sequence.
pub struct Transcript {
    /// An answer for each step, then one for each step of [`last::steps`].
    pub answers: Vec<Value>,
    /// Why the answers may depend on the time; such a run says nothing.
    pub doubt: Option<String>,
}

/// Plays `sequence`, and then what shows the state that it left.
pub async fn play(server: &Server, sequence: &Sequence) -> Transcript {
    let mut run = Run::new(server);
    let mut answers = Vec::new();
    for step in sequence.steps.iter().chain(&last::steps(sequence)) {
        let answer = run.step(step).await;
        answers.push(answer);
        run.look_at_the_clock();
        if run.doubt.is_some() {
            break;
        }
    }
    Transcript { answers, doubt: run.doubt }
}

struct Run {
    url: String,
    sessions: BTreeMap<u8, Channel>,
    streams: BTreeMap<(u8, u8), WatchStream>,
    world: World,
    doubt: Option<String>,
}

impl Run {
    fn new(server: &Server) -> Run {
        let world = World::new(vec![
            (format!("127.0.0.1:{}", server.client_port), "client-url"),
            (format!("127.0.0.1:{}", server.peer_port), "peer-url"),
        ]);
        let (sessions, streams) = (BTreeMap::new(), BTreeMap::new());
        Run { url: server.url(), sessions, streams, world, doubt: None }
    }

    async fn step(&mut self, step: &Step) -> Value {
        match step.call.as_str() {
            "sync" => self.sync().await,
            "expire" => self.expire().await,
            "Watch/Watch" if step.raw.is_none() => self.watch(step).await,
            "KV/Compact" => {
                // A watcher that has not caught up may or may not be overtaken.
                let synced = if self.streams.values().any(WatchStream::is_behind) {
                    self.sync().await
                } else {
                    Value::Null
                };
                json!({"before": synced, "answer": self.call(step).await})
            }
            _ => self.call(step).await,
        }
    }

    /// A lease with a short TTL must not expire before anybody waits for it.
    fn look_at_the_clock(&mut self) {
        if let Some(short) = &self.world.short {
            let safe = Duration::from_secs(short.ttl_secs.max(1).cast_unsigned()).mul_f64(SAFE_PART);
            if short.since.elapsed() > safe {
                self.doubt = Some(format!("lease {} could have expired by itself", short.id));
            }
        }
    }

    async fn channel(&mut self, session: u8) -> Result<Channel, Status> {
        if let Some(channel) = self.sessions.get(&session) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(self.url.clone()).expect("a URL");
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        self.sessions.insert(session, channel.clone());
        Ok(channel)
    }

    async fn watch(&mut self, step: &Step) -> Value {
        let channel = match self.channel(step.session).await {
            Ok(channel) => channel,
            Err(status) => return wire::refusal(&status),
        };
        let token = step.by.as_ref().map(|by| self.world.token(by));
        let stream = self.streams.entry((step.session, step.stream));
        let stream = stream.or_insert_with(|| WatchStream::open(channel, token.as_deref()));
        let mut answers = Vec::new();
        for message in &step.messages {
            answers.push(stream.request(message, &mut self.world).await);
        }
        json!(answers)
    }

    /// Lets every watcher have what there is.
    async fn sync(&mut self) -> Value {
        let awaited = self.streams.values().filter_map(|stream| stream.awaits(&self.world)).max();
        let mut bumps = Vec::new();
        if let Some(awaited) = awaited.filter(|awaited| awaited - self.world.now <= BUMPS_MAX) {
            while self.world.now < awaited && bumps.iter().all(|answer: &Value| answer["code"].is_null()) {
                let put = Step::new("KV/Put", json!({"key": BUMP_KEY})).by("root");
                let put = if self.world.tokens.contains_key("root") { put } else { Step { by: None, ..put } };
                bumps.push(self.call(&put).await);
            }
        }
        let mut shown = serde_json::Map::new();
        for ((session, stream), watch) in &mut self.streams {
            shown.insert(format!("{session}/{stream}"), watch.sync(&mut self.world).await);
        }
        if shown.values().any(|s| s["state"] == "no progress is told") {
            self.doubt = Some("a watch stream told no progress".into());
        }
        json!({"bumps": bumps, "streams": shown})
    }

    /// Waits until the short lease is gone. Without a right to ask for it, nobody knows; then it is forgotten, and
    /// nothing that follows can be compared.
    async fn expire(&mut self) -> Value {
        let Some(short) = self.world.short.clone() else { return json!("no lease will expire") };
        let by = self.world.tokens.contains_key("root").then(|| "root".to_owned());
        let ask = Step { by, ..Step::new("Lease/LeaseTimeToLive", json!({"ID": short.id})) };
        let deadline = Instant::now() + REPLY_TIMEOUT;
        loop {
            let answer = self.call(&ask).await;
            if answer["TTL"] == json!(-1) {
                self.world.short = None;
                // The only call that tells the revision to everybody.
                self.call(&Step::new("Auth/AuthStatus", json!({}))).await;
                return json!("expired");
            }
            if !answer["code"].is_null() || Instant::now() > deadline {
                self.doubt = Some(format!("lease {} can't be seen expiring: {answer}", short.id));
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // until the lease is gone
        }
    }

    /// One call that is no watch, and its answer in symbols.
    async fn call(&mut self, step: &Step) -> Value {
        let since = Instant::now();
        let mut answers = match tokio::time::timeout(REPLY_TIMEOUT, self.answers(step)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(status)) => {
                let mut refusal = wire::refusal(&status);
                refusal["text"] = json!(self.world.rewrite_text(status.message().to_owned()));
                return refusal;
            }
            Err(_) => {
                self.doubt = Some(format!("{} got no answer in time", step.call));
                return json!("no answer in time");
            }
        };
        let nothing = Value::Null;
        for (n, answer) in answers.iter().enumerate() {
            let request = step.messages.get(n).or(step.messages.first()).unwrap_or(&nothing);
            self.world.learn(&step.call, request, answer);
            self.note_compaction(step, request);
            self.note_lease(step, request, answer, since);
        }
        let masked = answers.iter_mut().map(|answer| {
            mask::mask(&step.call, answer, &self.world);
            self.world.rewrite(answer.take())
        });
        let mut masked: Vec<Value> = masked.collect();
        match step.call.as_str() {
            "KV/RangeStream" | "Maintenance/Snapshot" => mask::merge(masked),
            _ if masked.len() == 1 => masked.swap_remove(0),
            _ => json!(masked),
        }
    }

    fn note_compaction(&mut self, step: &Step, request: &Value) {
        if step.call == "KV/Compact" {
            self.world.compacted = match &request["revision"] {
                Value::String(symbol) => self.world.number(symbol),
                other => other.as_i64().unwrap_or_default(),
            };
        }
    }

    fn note_lease(&mut self, step: &Step, request: &Value, answer: &Value, since: Instant) {
        let world = &mut self.world;
        let (id, ttl) =
            (answer["ID"].as_i64().unwrap_or_default(), answer["TTL"].as_i64().unwrap_or_default());
        match step.call.as_str() {
            "Lease/LeaseGrant" if ttl <= SHORT_TTL_SECS => {
                if world.short.is_some() {
                    self.doubt = Some("two leases expire at about the same time".into());
                }
                world.short = Some(Short { id, ttl_secs: ttl, since });
            }
            "Lease/LeaseKeepAlive" if ttl > 0 => {
                if let Some(short) = world.short.as_mut().filter(|short| short.id == id) {
                    short.since = since;
                }
            }
            "Lease/LeaseRevoke" => {
                let revoked = match &request["ID"] {
                    Value::String(symbol) => world.number(symbol),
                    other => other.as_i64().unwrap_or_default(),
                };
                if world.short.as_ref().is_some_and(|short| short.id == revoked) {
                    world.short = None;
                }
            }
            _ => {}
        }
    }

    /// The messages that a call is answered with.
    async fn answers(&mut self, step: &Step) -> Result<Vec<Value>, Status> {
        let method = wire::method(&step.call);
        let bodies: Vec<Vec<u8>> = match (&step.raw, &method) {
            (Some(raw), _) => vec![wire::bytes(raw, &self.world)],
            (None, Some(method)) => {
                step.messages.iter().map(|m| wire::encode(&method.input(), m, &self.world)).collect()
            }
            (None, None) => vec![Vec::new()],
        };
        let channel = self.channel(step.session).await?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = wire::path(&step.call);
        let (is_many_in, is_many_out) =
            method.as_ref().map_or((false, false), |m| (m.is_client_streaming(), m.is_server_streaming()));
        let bodies = if is_many_in {
            let request = self.request(step, iter(bodies));
            read_all(grpc.streaming(request, path, Raw).await?, usize::MAX).await?
        } else {
            let body = bodies.into_iter().next().unwrap_or_default();
            let request = self.request(step, body);
            if is_many_out {
                // Observing never ends by itself.
                let max = if step.call == "Election/Observe" { 1 } else { usize::MAX };
                read_all(grpc.server_streaming(request, path, Raw).await?, max).await?
            } else {
                vec![grpc.unary(request, path, Raw).await?.into_inner()]
            }
        };
        let show = |body: Bytes| match &method {
            Some(method) => {
                wire::decode(&method.output(), body).unwrap_or_else(|| json!("no message of protobuf"))
            }
            None => json!(wire::text(&body)),
        };
        Ok(bodies.into_iter().map(show).collect())
    }

    fn request<T>(&self, step: &Step, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = step.by.as_ref().and_then(|by| self.world.token(by).parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        request
    }
}

/// Up to `max` messages of a stream.
async fn read_all(response: Response<tonic::Streaming<Bytes>>, max: usize) -> Result<Vec<Bytes>, Status> {
    let (mut stream, mut bodies) = (response.into_inner(), Vec::new());
    while bodies.len() < max {
        match stream.message().await? {
            Some(body) => bodies.push(body),
            None => break,
        }
    }
    Ok(bodies)
}
