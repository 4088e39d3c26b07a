//! Plain data as JSON in which byte strings can be read: `{"u":"text"}` if they are text, else `{"b":"base64"}`. Called by
//! `command`.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde_json::Value;
use serde_json::ser::Formatter;
use std::borrow::Cow;
use std::io::{self, Write};

/// A value as JSON, and how deep it is nested.
pub fn write(value: &impl Serialize) -> (String, usize) {
    let mut out = Vec::new();
    let mut form = Form::default();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, &mut form);
    value.serialize(&mut serializer).expect("plain data in memory");
    (String::from_utf8(out).expect("JSON is text"), form.deepest)
}

/// The JSON of a byte string.
pub fn bytes(bytes: &[u8]) -> Value {
    match text(bytes) {
        Some(text) => serde_json::json!({ "u": text }),
        None => serde_json::json!({ "b": BASE64_STANDARD.encode(bytes) }),
    }
}

/// The byte string that a JSON value stands for.
pub fn to_bytes(value: &Value) -> Option<Cow<'_, [u8]>> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    match object.iter().next() {
        Some((kind, Value::String(text))) if kind == "u" => Some(Cow::Borrowed(text.as_bytes())),
        Some((kind, Value::String(text))) if kind == "b" => BASE64_STANDARD.decode(text).ok().map(Cow::Owned),
        _ => None,
    }
}

/// Text without anything that a terminal would act on.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

/// JSON without spaces.
#[derive(Default)]
struct Form {
    depth: usize,
    deepest: usize,
}

impl Form {
    fn enter(&mut self) {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
    }
}

impl Formatter for &mut Form {
    fn write_byte_array<W: ?Sized + Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        self.deepest = self.deepest.max(self.depth + 1);
        serde_json::to_writer(writer, &bytes(value)).map_err(io::Error::from)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter();
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter();
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"}")
    }
}

/// Reads what [`write`] wrote.
#[derive(Clone, Copy)]
pub struct Readable<'v>(pub &'v Value);

type Error = serde_json::Error;

impl<'v> IntoDeserializer<'v, Error> for Readable<'v> {
    type Deserializer = Readable<'v>;

    fn into_deserializer(self) -> Readable<'v> {
        self
    }
}

impl<'v> Deserializer<'v> for Readable<'v> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Readable))),
            Value::Object(object) => {
                let fields = object.iter().map(|(name, value)| (name.as_str(), Readable(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'v>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'v>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(name.as_str().into_deserializer()),
            Value::Object(object) if object.len() == 1 => {
                let variant = object.iter().map(|(name, value)| (name.as_str(), Readable(value)));
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(variant)))
            }
            _ => Err(Error::custom("a variant is a name, or an object with one field")),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Error> {
        let bytes = to_bytes(self.0)
            .ok_or_else(|| Error::custom("a byte string is {\"u\":text} or {\"b\":base64}"))?;
        visitor.visit_byte_buf(bytes.into_owned())
    }

    fn deserialize_bytes<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_byte_buf(visitor)
    }

    /// Some byte strings are sequences to serde.
    fn deserialize_seq<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Error> {
        match to_bytes(self.0) {
            Some(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            None => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        <W: Visitor<'v>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[test]
    fn text_is_text_and_the_rest_is_base64() {
        let json = |bytes: &'static [u8]| write(&Bytes::from_static(bytes)).0;
        assert_eq!(json(b"a \"b\""), r#"{"u":"a \"b\""}"#);
        assert_eq!(json("grün".as_bytes()), r#"{"u":"grün"}"#);
        assert_eq!(json(b""), r#"{"u":""}"#);
        assert_eq!(json(b"\xff\0"), r#"{"b":"/wA="}"#);
        assert_eq!(json(b"a\x1b"), r#"{"b":"YRs="}"#);
    }

    #[test]
    fn depth_is_that_of_brackets() {
        assert_eq!(write(&7).1, 0);
        assert_eq!(write(&vec![vec![Bytes::new()]]).1, 3);
    }

    #[test]
    fn what_is_no_byte_string_is_refused() {
        for json in [r#"{"u":1}"#, r#"{"b":"!"}"#, r#"{"u":"a","b":""}"#, "[1]", r#""a""#, "{}"] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert!(Bytes::deserialize(Readable(&value)).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn byte_strings_round_trip(bytes: Vec<u8>) {
            let value: Value = serde_json::from_str(&write(&Bytes::from(bytes.clone())).0).unwrap();
            prop_assert_eq!(&Bytes::deserialize(Readable(&value)).unwrap(), &bytes);
            prop_assert_eq!(Vec::<u8>::deserialize(Readable(&value)).unwrap(), bytes);
        }
    }
}
