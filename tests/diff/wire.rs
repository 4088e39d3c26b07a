//! Requests from JSON and answers to JSON, by protobuf's descriptors, and calls with bodies of bytes. So one form serves
//! every call, and a body need not be a message at all.

use std::str::FromStr;
use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use kvist::pb::DESCRIPTORS;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use prost_reflect::{MapKey, Value as Field};
use serde_json::{Map, Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use crate::world::World;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build made these descriptors"));
/// Longer bytes are shown by their beginning, length and sum.
const SHOWN_BYTES_MAX: usize = 200;

/// The package of a service that a step names.
fn package(service: &str) -> &'static str {
    match service {
        "Lock" => "v3lockpb",
        "Election" => "v3electionpb",
        "Health" => "grpc.health.v1",
        _ => "etcdserverpb",
    }
}

/// What `Service/Method` means; `None` for a method that does not exist.
pub fn method(call: &str) -> Option<MethodDescriptor> {
    let (service, name) = call.split_once('/')?;
    let service = POOL.get_service_by_name(&format!("{}.{service}", package(service)))?;
    service.methods().find(|method| method.name() == name)
}

/// Every method of the services whose calls must all have been made.
pub fn methods_of(service: &str) -> Vec<String> {
    let found = POOL.get_service_by_name(&format!("{}.{service}", package(service)));
    let methods =
        found.iter().flat_map(|service| service.methods().map(|m| m.name().to_owned()).collect::<Vec<_>>());
    methods.map(|method| format!("{service}/{method}")).collect()
}

pub fn path(call: &str) -> PathAndQuery {
    let service = call.split('/').next().unwrap_or_default();
    PathAndQuery::from_str(&format!("/{}.{call}", package(service))).expect("a call is a path")
}

/// A JSON message as protobuf. What does not fit its field is left out: a smaller sequence must stay playable.
pub fn encode(descriptor: &MessageDescriptor, message: &Value, world: &World) -> Vec<u8> {
    build(descriptor, message, world).encode_to_vec()
}

fn build(descriptor: &MessageDescriptor, message: &Value, world: &World) -> DynamicMessage {
    let mut built = DynamicMessage::new(descriptor.clone());
    for (name, value) in message.as_object().into_iter().flatten() {
        let Some(field) = descriptor.get_field_by_name(name) else { continue };
        let value = if field.is_list() {
            let values = value.as_array().into_iter().flatten();
            Some(Field::List(values.filter_map(|v| scalar(&field, v, world)).collect()))
        } else {
            scalar(&field, value, world)
        };
        if let Some(value) = value {
            built.set_field(&field, value);
        }
    }
    built
}

#[expect(clippy::cast_possible_truncation, reason = "a field of 32 bits takes the lower half")]
fn scalar(field: &FieldDescriptor, value: &Value, world: &World) -> Option<Field> {
    let signed = || value.as_i64().or_else(|| value.as_str().map(|symbol| world.number(symbol)));
    Some(match field.kind() {
        Kind::Bool => Field::Bool(value.as_bool()?),
        Kind::Int64 => Field::I64(signed()?),
        Kind::Uint64 => Field::U64(value.as_u64().or_else(|| signed().map(i64::cast_unsigned))?),
        Kind::Uint32 => Field::U32(signed()? as u32),
        Kind::Enum(_) => Field::EnumNumber(signed()? as i32),
        Kind::String => Field::String(value.as_str()?.to_owned()),
        Kind::Bytes => Field::Bytes(bytes(value, world).into()),
        Kind::Message(descriptor) => {
            let leader = value["leader"].as_u64().and_then(|n| world.leaders.get(usize::try_from(n).ok()?));
            Field::Message(build(&descriptor, leader.unwrap_or(value), world))
        }
        _ => return None,
    })
}

/// Bytes from text, a repetition, or the key of a lock.
pub fn bytes(value: &Value, world: &World) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    }
    if let Some(text) = value["repeat"].as_str() {
        let times = value["times"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
        return text.repeat(times).into_bytes();
    }
    let n = value["key"].as_u64().and_then(|n| usize::try_from(n).ok());
    n.and_then(|n| world.keys.get(n)).cloned().unwrap_or_default()
}

/// A protobuf message as JSON; `None` if the bytes are none. What has its default is left out.
pub fn decode(descriptor: &MessageDescriptor, body: Bytes) -> Option<Value> {
    DynamicMessage::decode(descriptor.clone(), body).ok().map(|message| show(&message))
}

/// Whether a body, one byte a character, has a field that its message knows by another wire type.
pub fn has_wrong_wire_type(call: &str, body: &str) -> bool {
    let input = method(call).map(|method| method.input());
    let body: Vec<u8> = body.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let decoded = input.map(|input| DynamicMessage::decode(input, body.as_slice()));
    matches!(decoded, Some(Err(error)) if error.to_string().contains("(expected "))
}

fn show(message: &DynamicMessage) -> Value {
    let fields = message.fields().map(|(field, value)| (field.name().to_owned(), show_field(value)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn show_field(value: &Field) -> Value {
    match value {
        Field::Bool(value) => json!(value),
        Field::I32(value) | Field::EnumNumber(value) => json!(value),
        Field::I64(value) => json!(value),
        Field::U32(value) => json!(value),
        Field::U64(value) => json!(value),
        Field::F32(value) => json!(value),
        Field::F64(value) => json!(value),
        Field::String(value) => json!(value),
        Field::Bytes(value) => json!(text(value)),
        Field::Message(value) => show(value),
        Field::List(values) => values.iter().map(show_field).collect(),
        Field::Map(entries) => {
            entries.iter().map(|(key, value)| (show_key(key), show_field(value))).collect()
        }
    }
}

fn show_key(key: &MapKey) -> String {
    key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned)
}

/// Bytes as text whose characters are the bytes.
pub fn text(bytes: &[u8]) -> String {
    let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    if bytes.len() <= SHOWN_BYTES_MAX {
        return latin(bytes);
    }
    format!("{}... {} bytes, crc32c {:08x}", latin(&bytes[..16]), bytes.len(), crc32c::crc32c(bytes))
}

/// An error as it stands in a transcript.
pub fn refusal(status: &Status) -> Value {
    json!({"code": code_name(status.code()), "text": status.message()})
}

fn code_name(code: Code) -> String {
    format!("{code:?}")
}

/// A codec that leaves bodies alone.
#[derive(Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        *self
    }

    fn decoder(&mut self) -> Raw {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
