//! Lines of JSON in which byte strings can be read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;
use std::io::{self, Write};

/// Writes values as one line each.
pub struct Lines<W>(W);

impl<W: Write> Lines<W> {
    /// Lines to `out`, which should be buffered.
    pub fn new(out: W) -> Lines<W> {
        Lines(out)
    }

    /// Writes one line.
    pub(super) fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        value.serialize(&mut Serializer::with_formatter(&mut self.0, Readable))?;
        self.0.write_all(b"\n")
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Compact JSON, but for byte strings.
struct Readable;

impl Formatter for Readable {
    fn write_byte_array<W: ?Sized + Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(value) {
            Ok(text) if !text.chars().any(char::is_control) => {
                write!(writer, "{{\"u\":{}}}", serde_json::to_string(text)?)
            }
            _ => write!(writer, "{{\"b\":\"{}\"}}", STANDARD.encode(value)),
        }
    }
}

/// Bytes that are serialized as such, not as a sequence of numbers.
pub(super) struct Bytes<'b>(pub &'b [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_strings_are_texts_where_they_can_be() {
        let mut lines = Lines::new(Vec::new());
        for bytes in [&b"a\"b"[..], "gr\u{fc}n".as_bytes(), b"", b"\xff\x00", b"line\n"] {
            lines.line(&Bytes(bytes)).unwrap();
        }
        let text = String::from_utf8(lines.0).unwrap();
        assert_eq!(
            text,
            "{\"u\":\"a\\\"b\"}\n{\"u\":\"grün\"}\n{\"u\":\"\"}\n{\"b\":\"/wA=\"}\n{\"b\":\"bGluZQo=\"}\n"
        );
    }
}
