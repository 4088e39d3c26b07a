//! Protobuf written by hand where generated code would copy: pairs and events straight from their stored images.
//!
//! Field numbers are those of `proto/rfc`. A pair is `key`, the image's metadata fields as they are, but for the lease, and
//! `value`, which is there when it is empty, too.

use crate::api::grpc::body::{self, PREFIX};
use crate::engine::{Event, Image, Value, put_varint, varint_len};
use crate::pb::rfc::WatchRangeResponse;
use crate::pb::rfc::event::EventType;
use bytes::Bytes;
use prost::Message;

const KV_KEY: u8 = 1 << 3 | 2;
const KV_VALUE: u8 = 5 << 3 | 2;
const RANGE_KVS: u8 = 2 << 3 | 2;
const EVENT_TYPE: u8 = 1 << 3;
const EVENT_KV: u8 = 2 << 3 | 2;
const WATCH_EVENTS: u8 = 2 << 3 | 2;

/// Length of a length-delimited field of `len` bytes whose number is below 16.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn put_field_head(out: &mut Vec<u8>, tag: u8, len: usize) {
    out.push(tag);
    put_varint(out, len as u64);
}

/// Length of a pair as an element of `RangeResponse.kvs`.
pub fn range_kv_len(key: &[u8], image: &Image<'_>) -> usize {
    field_len(kv_len(key, image))
}

fn kv_len(key: &[u8], image: &Image<'_>) -> usize {
    field_len(key.len()) + image.wire_meta_without_lease().len() + field_len(image.value.len())
}

/// Appends a pair as an element of `RangeResponse.kvs`; the bytes of its value must follow.
pub fn put_range_kv_head(out: &mut Vec<u8>, key: &[u8], image: &Image<'_>) {
    put_field_head(out, RANGE_KVS, kv_len(key, image));
    put_kv_head(out, key, image);
}

/// Appends everything of a pair but the bytes of its value.
fn put_kv_head(out: &mut Vec<u8>, key: &[u8], image: &Image<'_>) {
    put_field_head(out, KV_KEY, key.len());
    out.extend_from_slice(key);
    out.extend_from_slice(image.wire_meta_without_lease());
    put_field_head(out, KV_VALUE, image.value.len());
}

/// Events as messages with their prefixes, one for each index, behind the `head` of that index. `load` brings in the pairs
/// before removals, as far as they are still there. Nothing, if a message would be too long to be sent.
pub fn watch_frames(
    events: &[Event],
    head: impl Fn(i64) -> WatchRangeResponse,
    load: impl Fn(&Bytes) -> Option<Bytes>,
) -> Bytes {
    let index = |event: &Event| parse(&event.new).modified.main;
    let mut out = Vec::with_capacity(events.iter().map(|e| e.key.len() + e.new.len() + 64).sum());
    for events in events.chunk_by(|a, b| index(a) == index(b)) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        head(index(&events[0])).encode(&mut out).expect("a vector grows");
        for event in events {
            put_event(&mut out, event, &load);
        }
        let Ok(prefix) = body::prefix((out.len() - start - PREFIX) as u64) else { return Bytes::new() };
        out[start..start + PREFIX].copy_from_slice(&prefix);
    }
    out.into()
}

fn put_event(out: &mut Vec<u8>, event: &Event, load: impl Fn(&Bytes) -> Option<Bytes>) {
    let new = parse(&event.new);
    if !new.is_tombstone() {
        return put_event_of(out, EventType::Put, &event.key, Some(&new));
    }
    let kind = if new.is_expiry() { EventType::Expire } else { EventType::Delete };
    let previous = if event.previous.is_empty() { None } else { load(&event.previous) };
    let previous = previous.as_ref().map(parse).filter(|previous| !previous.is_tombstone());
    put_event_of(out, kind, &event.key, previous.as_ref());
}

/// Of a pair that is not known any more, there is the key alone.
fn put_event_of(out: &mut Vec<u8>, kind: EventType, key: &[u8], pair: Option<&Image<'_>>) {
    let kv = pair.map_or_else(|| field_len(key.len()), |image| kv_len(key, image));
    put_field_head(out, WATCH_EVENTS, 2 + field_len(kv));
    out.extend_from_slice(&[EVENT_TYPE, kind as u8]);
    put_field_head(out, EVENT_KV, kv);
    match pair {
        Some(image) => {
            put_kv_head(out, key, image);
            if let Value::Inline(value) = image.value {
                out.extend_from_slice(value); // never moved out in an event: history and the hub bring values in
            }
        }
        None => {
            put_field_head(out, KV_KEY, key.len());
            out.extend_from_slice(key);
        }
    }
}

fn parse(image: &Bytes) -> Image<'_> {
    Image::parse(image).expect("an applied image parses")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Meta, live_image, tombstone_image};
    use crate::pb::rfc::{self as pb, ResponseHeader};
    use crate::types::Revision;
    use proptest::prelude::*;

    fn image(main: i64, version: i64, value: &[u8]) -> Bytes {
        let modified = Revision::new(main, 0);
        let create_revision = main - version + 1;
        live_image(&Meta { modified, create_revision, version, lease: 5, ..Meta::default() }, value)
    }

    fn pair(key: &str, main: i64, version: i64, value: &[u8]) -> pb::KeyValue {
        pb::KeyValue {
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            create_index: Some(main - version + 1),
            mod_index: Some(main),
            version: Some(version),
            value: Some(Bytes::copy_from_slice(value)),
        }
    }

    fn event(key: &str, new: Bytes, previous: Bytes) -> Event {
        Event { key: Bytes::copy_from_slice(key.as_bytes()), new, previous }
    }

    fn head(index: i64) -> WatchRangeResponse {
        let header = ResponseHeader { index: Some(index), ..Default::default() };
        WatchRangeResponse { header: Some(header), events: Vec::new() }
    }

    fn decoded(mut frames: &[u8]) -> Vec<(i64, Vec<pb::Event>)> {
        let mut found = Vec::new();
        while let Some((prefix, rest)) = frames.split_first_chunk::<PREFIX>() {
            let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let message = WatchRangeResponse::decode(&rest[..len]).unwrap();
            found.push((message.header.unwrap().index.unwrap(), message.events));
            frames = &rest[len..];
        }
        found
    }

    fn told(kind: EventType, kv: pb::KeyValue) -> pb::Event {
        pb::Event { event_type: Some(kind as i32), kv: Some(kv) }
    }

    #[test]
    fn one_message_for_each_index_with_pairs_as_they_were() {
        let gone = |main, expired| tombstone_image(Revision::new(main, 0), expired);
        let events = [
            event("a", image(7, 1, b""), Bytes::new()),
            event("b", image(7, 2, b"x"), image(3, 1, b"w")),
            event("b", gone(8, false), image(7, 2, b"x")),
            event("a", gone(9, true), image(7, 1, b"")),
            event("c", gone(10, true), gone(4, false)),
        ];
        let key = |key: &str| pb::KeyValue {
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            ..Default::default()
        };
        let load = |image: &Bytes| Some(image.clone());
        let frames = watch_frames(&events, head, load);
        let expected = [
            (
                7,
                vec![told(EventType::Put, pair("a", 7, 1, b"")), told(EventType::Put, pair("b", 7, 2, b"x"))],
            ),
            (8, vec![told(EventType::Delete, pair("b", 7, 2, b"x"))]),
            (9, vec![told(EventType::Expire, pair("a", 7, 1, b""))]),
            (10, vec![told(EventType::Expire, key("c"))]),
        ];
        assert_eq!(decoded(&frames), expected);
        // What has been removed meanwhile leaves the key.
        let lost = decoded(&watch_frames(&events[2..3], head, |_| None));
        assert_eq!(lost[0].1, [told(EventType::Delete, key("b"))]);
    }

    #[test]
    fn zeros_go_over_the_wire() {
        let frames = watch_frames(&[event("k", image(2, 1, b""), Bytes::new())], head, |_| None);
        let event = &frames[frames.len() - 17..];
        assert_eq!(event[..4], [0x12, 15, 0x08, 0x00]);
        assert_eq!(event[event.len() - 2..], [0x2a, 0x00]);
    }

    proptest! {
        #[test]
        fn a_pair_is_as_long_as_it_says(key in "[a-z]{1,200}", main in 2i64.., value: Vec<u8>) {
            let image = image(main, 1, &value);
            let image = parse(&image);
            let mut out = Vec::new();
            put_range_kv_head(&mut out, key.as_bytes(), &image);
            out.extend_from_slice(&value);
            prop_assert_eq!(out.len(), range_kv_len(key.as_bytes(), &image));
            let answer = pb::RangeResponse::decode(&out[..]).unwrap();
            prop_assert_eq!(answer.kvs, [pair(&key, main, 1, &value)]);
        }
    }
}
