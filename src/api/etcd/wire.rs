//! Protobuf written by hand where generated code would copy: pairs and events straight from their stored images.
//!
//! Field numbers are those of `proto/etcd`. A pair is `key`, the image's metadata fields as they are, and `value`.

use crate::engine::{Event, Image, Value, put_varint, varint_len};
use bytes::Bytes;

const KV_KEY: u8 = 1 << 3 | 2;
const KV_VALUE: u8 = 5 << 3 | 2;
const EVENT_TYPE: u8 = 1 << 3;
const EVENT_KV: u8 = 2 << 3 | 2;
const EVENT_PREV_KV: u8 = 3 << 3 | 2;
const WATCH_EVENTS: u8 = 11 << 3 | 2;
const RANGE_KVS: u8 = 2 << 3 | 2;

/// Length of a pair as a message.
fn kv_len(key: &[u8], meta: &[u8], value_len: usize) -> usize {
    let value = if value_len == 0 { 0 } else { 1 + varint_len(value_len as u64) + value_len };
    1 + varint_len(key.len() as u64) + key.len() + meta.len() + value
}

/// Appends everything of a pair but the bytes of the value.
fn put_kv_head(out: &mut Vec<u8>, key: &[u8], meta: &[u8], value_len: usize) {
    out.push(KV_KEY);
    put_varint(out, key.len() as u64);
    out.extend_from_slice(key);
    out.extend_from_slice(meta);
    if value_len > 0 {
        out.push(KV_VALUE);
        put_varint(out, value_len as u64);
    }
}

/// Length of a pair as an element of `RangeResponse.kvs`.
pub fn range_kv_len(key: &[u8], image: &Image<'_>, keys_only: bool) -> usize {
    let len = match keys_only {
        true => kv_len(key, image.wire_meta_without_lease(), 0),
        false => kv_len(key, image.wire_meta(), image.value.len()),
    };
    1 + varint_len(len as u64) + len
}

/// Appends a pair as an element of `RangeResponse.kvs`; the bytes of its value must follow, unless `keys_only`.
pub fn put_range_kv_head(out: &mut Vec<u8>, key: &[u8], image: &Image<'_>, keys_only: bool) {
    let (meta, value_len) = match keys_only {
        true => (image.wire_meta_without_lease(), 0), // KV-R10
        false => (image.wire_meta(), image.value.len()),
    };
    out.push(RANGE_KVS);
    put_varint(out, kv_len(key, meta, value_len) as u64);
    put_kv_head(out, key, meta, value_len);
}

/// The `events` part of a `WatchResponse`, and where each event ends in it. Pairs before the events are added when they
/// are wanted, and were written at or after the compacted revision; `load` brings in moved-out values.
pub fn events(
    events: &[Event],
    with_previous: bool,
    compacted: i64,
    load: impl Fn(&Bytes) -> Option<Bytes>,
) -> (Bytes, Vec<usize>) {
    let mut out = Vec::with_capacity(events.iter().map(|e| e.key.len() + e.new.len() + 32).sum());
    let mut ends = Vec::with_capacity(events.len());
    for event in events {
        let previous = if with_previous { previous_of(event, compacted, &load) } else { None };
        put_event(&mut out, event, previous.as_ref());
        ends.push(out.len());
    }
    (out.into(), ends)
}

/// The pair before an event: none for a creation, or when the revision before has been compacted (W-10).
fn previous_of(event: &Event, compacted: i64, load: impl Fn(&Bytes) -> Option<Bytes>) -> Option<Bytes> {
    if Image::parse(&event.new).ok()?.modified.main <= compacted {
        return None;
    }
    let image = Image::parse(&event.previous).ok()?;
    if image.is_tombstone() { None } else { load(&event.previous) }
}

fn put_event(out: &mut Vec<u8>, event: &Event, previous: Option<&Bytes>) {
    let new = Image::parse(&event.new).expect("an applied image parses");
    let previous = previous.map(|p| Image::parse(p).expect("an applied image parses"));
    let value = inline(&new);
    let kv = kv_len(&event.key, new.wire_meta(), value.len());
    let prev_kv = previous.map_or(0, |p| kv_len(&event.key, p.wire_meta(), inline(&p).len()));
    let mut len = 1 + varint_len(kv as u64) + kv;
    if new.is_tombstone() {
        len += 2;
    }
    if previous.is_some() {
        len += 1 + varint_len(prev_kv as u64) + prev_kv;
    }
    out.push(WATCH_EVENTS);
    put_varint(out, len as u64);
    if new.is_tombstone() {
        out.extend_from_slice(&[EVENT_TYPE, 1]);
    }
    out.push(EVENT_KV);
    put_varint(out, kv as u64);
    put_kv_head(out, &event.key, new.wire_meta(), value.len());
    out.extend_from_slice(value);
    if let Some(previous) = previous {
        let value = inline(&previous);
        out.push(EVENT_PREV_KV);
        put_varint(out, prev_kv as u64);
        put_kv_head(out, &event.key, previous.wire_meta(), value.len());
        out.extend_from_slice(value);
    }
}

fn inline<'i>(image: &Image<'i>) -> &'i [u8] {
    match image.value {
        Value::Inline(bytes) => bytes,
        Value::Blob(_) => &[], // never in an event: history and the hub bring values in
    }
}
