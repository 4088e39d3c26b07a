//! Protobuf messages as JSON and back, by descriptor, in the dialect of etcd's gateway (H-3 to H-6): names as in the
//! `.proto` files, 64-bit numbers as text, bytes in base64, nothing for what is zero or empty. Input may also use
//! lowerCamelCase, numbers, and either alphabet of base64; what it does not know is passed over.
//!
//! All bytes here come from outside: every failure is an error. Called by the other files of the gateway.

use crate::api::grpc::body::{PREFIX, prefix};
use bytes::Bytes;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tonic::Status;

const INPUT: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
const OUTPUT: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// Reads the first JSON value of `text` as a message and frames it for gRPC. Blank text is the empty message; what
/// follows the value is not looked at, as in etcd.
pub fn to_frame(descriptor: &MessageDescriptor, text: &[u8]) -> Result<Bytes, Status> {
    let message = if text.iter().all(u8::is_ascii_whitespace) {
        DynamicMessage::new(descriptor.clone())
    } else {
        let mut reader = serde_json::Deserializer::from_slice(text);
        DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &INPUT)
            .map_err(|error| refuse(text, error))?
    };
    let len = message.encoded_len();
    let mut frame = Vec::with_capacity(PREFIX + len);
    frame.extend_from_slice(&prefix(len as u64)?);
    message.encode(&mut frame).expect("a vector grows");
    Ok(frame.into())
}

/// A text that is no JSON is told so, even if the error came up before that place.
fn refuse(text: &[u8], error: serde_json::Error) -> Status {
    let syntax = IgnoredAny::deserialize(&mut serde_json::Deserializer::from_slice(text)).err();
    Status::invalid_argument(match syntax {
        Some(syntax) if syntax.is_eof() => "unexpected EOF".to_owned(),
        Some(syntax) => syntax.to_string(),
        None => format!("proto: {error}"),
    })
}

/// Writes an encoded message as JSON behind `out`.
pub fn write(descriptor: &MessageDescriptor, message: Bytes, out: &mut Vec<u8>) -> Result<(), Status> {
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| {
        Status::internal(format!("grpc: failed to unmarshal the received message: {error}"))
    })?;
    message
        .serialize_with_options(&mut serde_json::Serializer::new(out), &OUTPUT)
        .map_err(|error| Status::internal(format!("failed to marshal the message: {error}")))
}

/// An error as its JSON object.
pub fn error(status: &Status) -> Vec<u8> {
    #[derive(Serialize)]
    struct Shape<'a> {
        code: i32,
        #[serde(skip_serializing_if = "str::is_empty")]
        message: &'a str,
    }
    let shape = Shape { code: status.code() as i32, message: status.message() };
    serde_json::to_vec(&shape).expect("a number and a text are JSON")
}

/// Finds where one JSON object ends in bytes that come in pieces, and what may follow it. Knows strings and brackets,
/// and leaves the rest to the parser.
#[derive(Default)]
pub struct Splitter {
    /// Bytes of the buffer that have been looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// What [`Splitter::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Split {
    /// An object ends before this byte; the next call expects the buffer without it.
    Object(usize),
    /// No object ends here yet.
    Incomplete,
    /// Something that is no object begins here.
    Foreign,
}

impl Splitter {
    /// Whether no object has begun.
    pub fn is_between(&self) -> bool {
        self.depth == 0
    }

    /// Goes on through `buffer`, which has only grown since the last call.
    pub fn next(&mut self, buffer: &[u8]) -> Split {
        while let Some(&byte) = buffer.get(self.seen) {
            if self.depth == 0 && !byte.is_ascii_whitespace() && byte != b'{' {
                return Split::Foreign;
            }
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Split::Object(std::mem::take(&mut self.seen));
                    }
                }
                _ => {}
            }
        }
        Split::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::gateway::routes;
    use crate::pb::etcdserverpb::compare::TargetUnion;
    use crate::pb::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest, TxnResponse, request_op};
    use proptest::prelude::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        routes::descriptors().get_message_by_name(name).unwrap()
    }

    fn read<M: Message + Default>(name: &str, text: &str) -> Result<M, Status> {
        let frame = to_frame(&descriptor(name), text.as_bytes())?;
        Ok(M::decode(&frame[PREFIX..]).unwrap())
    }

    fn range(text: &str) -> Result<RangeRequest, Status> {
        read("etcdserverpb.RangeRequest", text)
    }

    #[test]
    fn h_3_h_5_input_forms() {
        let full = RangeRequest { key: b"foo".to_vec(), limit: 5, sort_order: 1, ..Default::default() };
        for text in [
            r#"{"key":"Zm9v","limit":"5","sort_order":"ASCEND"}"#,
            r#"{"key":"Zm9v","limit":5,"sortOrder":1}"#,
            r#"{"key":"Zm9v","limit":5e0,"sortOrder":1,"bogus":[{"a":{}}],"revision":null} and more"#,
        ] {
            assert_eq!(range(text).unwrap(), full, "{text}");
        }
        assert_eq!(range(r#"{"key":"-_-_"}"#).unwrap().key, range(r#"{"key":"+/+/"}"#).unwrap().key);
        assert_eq!(range(r#"{"key":"Zm8"}"#).unwrap().key, b"fo");
        assert_eq!(range(" \n").unwrap(), RangeRequest::default());
        let txn: TxnRequest =
            read("etcdserverpb.TxnRequest", r#"{"success":[{"requestPut":{"key":"YQ=="}}]}"#).unwrap();
        assert!(
            matches!(&txn.success[0].request, Some(request_op::Request::RequestPut(put)) if put.key == b"a")
        );
    }

    #[test]
    fn h_6_what_is_no_message_is_refused() {
        for text in ["[]", "null", "5", "x", r#"{"key":7}"#, r#"{"key":"Z!9v"}"#, r#"{"key":"Zm9v""#] {
            assert_eq!(range(text).unwrap_err().code(), tonic::Code::InvalidArgument, "{text}");
        }
        assert_eq!(range(r#"{"key":5"#).unwrap_err().message(), "unexpected EOF");
    }

    #[test]
    fn h_4_output_forms() {
        let written = |name: &str, message: &[u8]| {
            let mut out = Vec::new();
            write(&descriptor(name), Bytes::copy_from_slice(message), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("etcdserverpb.TxnResponse", &TxnResponse::default().encode_to_vec()), "{}");
        let request = RangeRequest { key: b"foo".to_vec(), limit: 5, sort_order: 1, ..Default::default() };
        assert_eq!(
            written("etcdserverpb.RangeRequest", &request.encode_to_vec()),
            r#"{"key":"Zm9v","limit":"5","sort_order":"ASCEND"}"#
        );
    }

    #[test]
    fn h_10_objects_are_told_apart_however_they_are_cut() {
        let text = br#" {"a":"}{\"","b":[{}]} {}{}{"c"#;
        for step in 1..text.len() {
            let (mut splitter, mut buffer, mut found) = (Splitter::default(), Vec::new(), Vec::new());
            for piece in text.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Split::Object(end) = splitter.next(&buffer) {
                    found.push(String::from_utf8(buffer.drain(..end).collect()).unwrap());
                }
            }
            assert_eq!(found, [r#" {"a":"}{\"","b":[{}]}"#, " {}", "{}"], "in pieces of {step}");
        }
        assert_eq!(Splitter::default().next(b" ]"), Split::Foreign);
        assert_eq!(Splitter::default().next(b"{}x"), Split::Object(2));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(
            key: Vec<u8>, limit: i64, sort_order: i32, keys_only: bool, version: Option<i64>, text in any::<Vec<u8>>(),
        ) {
            let range = RangeRequest { key: key.clone(), limit, sort_order, keys_only, ..Default::default() };
            let compare = Compare { key, result: sort_order, target_union: version.map(TargetUnion::Version), ..Default::default() };
            let success = vec![RequestOp { request: Some(request_op::Request::RequestRange(range)) }, RequestOp::default()];
            let txn = TxnRequest { compare: vec![compare], success, ..Default::default() };
            let descriptor = descriptor("etcdserverpb.TxnRequest");
            let mut json = Vec::new();
            write(&descriptor, txn.encode_to_vec().into(), &mut json).unwrap();
            json.extend(text);
            let frame = to_frame(&descriptor, &json).unwrap();
            prop_assert_eq!(TxnRequest::decode(&frame[PREFIX..]).unwrap(), txn);
        }

        #[test]
        fn foreign_bytes_do_not_panic(bytes: Vec<u8>, text in "[\\[\\]{}\":,a-z0-9\\\\ ]{0,60}") {
            for input in [&bytes[..], text.as_bytes()] {
                let _ = to_frame(&descriptor("etcdserverpb.TxnRequest"), input);
                let mut splitter = Splitter::default();
                let mut rest = input;
                while let Split::Object(end) = splitter.next(rest) {
                    rest = &rest[end..];
                }
            }
            let _ = write(&descriptor("etcdserverpb.TxnRequest"), bytes.into(), &mut Vec::new());
        }
    }
}
