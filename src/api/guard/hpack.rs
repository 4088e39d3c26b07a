//! Header blocks (HPACK, RFC 7541), rewritten so that they no longer need the dynamic table.
//!
//! Fields of the static table pass as they are; everything else becomes a literal without indexing and without Huffman
//! code. On the way, an `:authority` that is none is repaired. Whoever decodes the result never adds to its own dynamic
//! table, so it stays empty and needs no size updates.
//!
//! Published decoders did not fit: some panic on truncated integers or have no bound on what a block unfolds to, some
//! build their Huffman table for each string. This is the part of RFC 7541 that we need; the Huffman code is a crate's.

use super::authority;
use bytes::Bytes;
use httlib_huffman::DecoderSpeed;
use std::collections::VecDeque;

/// Bytes of a header block, before and after.
pub const BLOCK_MAX: usize = 64 << 10;
/// Size of the dynamic table, in RFC 7541's count. The server does not announce another, so this is the most that a client
/// may use (section 4.2).
const TABLE_MAX: usize = 4096;
/// What an entry counts besides its bytes (section 4.1).
const ENTRY_EXTRA: usize = 32;
/// Bytes of an integer after its prefix; enough for any length below [`BLOCK_MAX`].
const INTEGER_BYTES_MAX: usize = 4;
/// Place of `:authority` in the static table.
const AUTHORITY: usize = 1;

/// Names in the static table (appendix A), from index 1 on.
#[rustfmt::skip]
const STATIC_NAMES: [&str; 61] = [
    ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status", ":status",
    ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding", "accept-language",
    "accept-ranges", "accept", "access-control-allow-origin", "age", "allow", "authorization", "cache-control",
    "content-disposition", "content-encoding", "content-language", "content-length", "content-location",
    "content-range", "content-type", "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "link", "location",
    "max-forwards", "proxy-authenticate", "proxy-authorization", "range", "referer", "refresh", "retry-after",
    "server", "set-cookie", "strict-transport-security", "transfer-encoding", "user-agent", "vary", "via",
    "www-authenticate",
];

/// The block breaks RFC 7541, or is too large.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid;

#[derive(Clone, Debug)]
enum Name {
    /// An index of the static table.
    Static(usize),
    Literal(Bytes),
}

impl Name {
    fn len(&self) -> usize {
        match self {
            Name::Static(index) => STATIC_NAMES[index - 1].len(),
            Name::Literal(name) => name.len(),
        }
    }

    fn is_authority(&self) -> bool {
        match self {
            Name::Static(index) => *index == AUTHORITY,
            Name::Literal(name) => *name == STATIC_NAMES[AUTHORITY - 1],
        }
    }
}

/// The client's dynamic table, as its blocks build it up.
#[derive(Debug)]
pub struct Table {
    /// Newest first, as they are numbered.
    entries: VecDeque<(Name, Bytes)>,
    size: usize,
    size_max: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table { entries: VecDeque::new(), size: 0, size_max: TABLE_MAX }
    }
}

impl Table {
    /// Appends the rewritten `block` to `out`, and says whether an authority had to be repaired.
    /// After an error neither the table nor `out` mean anything.
    pub fn rewrite(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<bool, Invalid> {
        let mut input = Input(block);
        let mut repaired = false;
        while let Some(&first) = input.0.first() {
            if first & 0x80 != 0 {
                let index = input.integer(7)?;
                if (2..=STATIC_NAMES.len()).contains(&index) {
                    put_integer(out, index, 7, 0x80);
                } else {
                    let (name, value) = self.field(index)?;
                    repaired |= put_field(out, &name, &value);
                }
            } else if first & 0xe0 == 0x20 {
                self.resize(input.integer(5)?)?;
            } else {
                let indexed = first & 0x40 != 0;
                let name = match input.integer(if indexed { 6 } else { 4 })? {
                    0 => Name::Literal(input.string()?),
                    index => self.field(index)?.0,
                };
                let value = input.string()?;
                repaired |= put_field(out, &name, &value);
                if indexed {
                    self.insert(name, value);
                }
            }
            if out.len() > BLOCK_MAX {
                return Err(Invalid);
            }
        }
        Ok(repaired)
    }

    /// The field at `index`; of the static table only the name, and the value if it is empty.
    fn field(&self, index: usize) -> Result<(Name, Bytes), Invalid> {
        match index.checked_sub(STATIC_NAMES.len() + 1) {
            Some(dynamic) => self.entries.get(dynamic).cloned().ok_or(Invalid),
            None if index == 0 => Err(Invalid),
            None => Ok((Name::Static(index), Bytes::new())),
        }
    }

    fn insert(&mut self, name: Name, value: Bytes) {
        self.size += name.len() + value.len() + ENTRY_EXTRA;
        self.entries.push_front((name, value));
        self.evict();
    }

    fn resize(&mut self, size_max: usize) -> Result<(), Invalid> {
        if size_max > TABLE_MAX {
            return Err(Invalid);
        }
        self.size_max = size_max;
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        while self.size > self.size_max {
            let Some((name, value)) = self.entries.pop_back() else { return };
            self.size -= name.len() + value.len() + ENTRY_EXTRA;
        }
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// An integer whose first byte has `bits` bits for it (section 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Invalid> {
        let mask = (1_usize << bits) - 1;
        let (first, mut rest) = self.0.split_first().ok_or(Invalid)?;
        let mut value = usize::from(*first) & mask;
        if value == mask {
            for place in 0..INTEGER_BYTES_MAX {
                let (byte, after) = rest.split_first().ok_or(Invalid)?;
                rest = after;
                value += usize::from(byte & 0x7f) << (7 * place);
                if byte & 0x80 == 0 {
                    self.0 = rest;
                    return Ok(value);
                }
            }
            return Err(Invalid);
        }
        self.0 = rest;
        Ok(value)
    }

    /// A string, plain or in Huffman code (section 5.2).
    fn string(&mut self) -> Result<Bytes, Invalid> {
        let huffman = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let len = self.integer(7)?;
        let (coded, rest) = self.0.split_at_checked(len).ok_or(Invalid)?;
        self.0 = rest;
        if !huffman {
            return Ok(Bytes::copy_from_slice(coded));
        }
        let mut plain = Vec::with_capacity(coded.len() * 8 / 5); // the shortest codes have five bits
        // One bit at a time needs the smallest tables; few blocks come this way.
        httlib_huffman::decode(coded, &mut plain, DecoderSpeed::OneBit).map_err(|_| Invalid)?;
        Ok(plain.into())
    }
}

/// Writes a literal without indexing; true if it is an authority that had to be repaired.
fn put_field(out: &mut Vec<u8>, name: &Name, value: &[u8]) -> bool {
    match name {
        Name::Static(index) => put_integer(out, *index, 4, 0),
        Name::Literal(name) => {
            out.push(0);
            put_string(out, name);
        }
    }
    let repaired = if name.is_authority() { authority::repair(value) } else { None };
    put_string(out, repaired.unwrap_or(value));
    repaired.is_some()
}

fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_integer(out, string.len(), 7, 0);
    out.extend_from_slice(string);
}

fn put_integer(out: &mut Vec<u8>, mut value: usize, bits: u32, pattern: u8) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask as u8);
    value -= mask;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rewrites with `table`; the result in the notation of [`show`].
    fn check(table: &mut Table, block: &[u8], expected: Result<(bool, &str), Invalid>) {
        let mut out = Vec::new();
        let got = table.rewrite(block, &mut out).map(|repaired| (repaired, show(&out)));
        assert_eq!(got, expected.map(|(repaired, text)| (repaired, text.to_owned())));
    }

    /// Bytes as text, those that are no letters as `\x00`.
    fn show(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }

    /// RFC 7541, appendix C.3: three requests that share a dynamic table.
    #[test]
    fn rfc_c3_requests() {
        let mut table = Table::default();
        check(
            &mut table,
            b"\x82\x86\x84\x41\x0fwww.example.com",
            Ok((false, r"\x82\x86\x84\x01\x0fwww.example.com")),
        );
        assert_eq!(table.size, 57);
        check(
            &mut table,
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            Ok((false, r"\x82\x86\x84\x01\x0fwww.example.com\x0f\t\x08no-cache")),
        );
        assert_eq!(table.size, 110);
        check(
            &mut table,
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
            Ok((false, r"\x82\x87\x85\x01\x0fwww.example.com\x00\ncustom-key\x0ccustom-value")),
        );
        assert_eq!(table.size, 164);
    }

    /// RFC 7541, appendix C.4.1: Huffman code.
    #[test]
    fn rfc_c4_huffman() {
        let block = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        check(&mut Table::default(), block, Ok((false, r"\x82\x86\x84\x01\x0fwww.example.com")));
    }

    #[test]
    fn repairs_the_authority_wherever_it_comes_from() {
        let mut table = Table::default();
        let repaired = Ok((true, r"\x01\x0e127.0.0.1:2379"));
        check(&mut table, b"\x41\x15http://127.0.0.1:2379", repaired);
        check(&mut table, b"\xbe", Ok((true, r"\x01\x0e127.0.0.1:2379")));
        check(&mut table, b"\x10\x0a:authority\x00", Ok((true, r"\x00\n:authority\tlocalhost")));
        check(&mut table, b"\x81", Ok((true, r"\x01\tlocalhost")));
    }

    #[test]
    fn size_updates_evict() {
        let mut table = Table::default();
        check(&mut table, b"\x40\x01a\x01b\x40\x01c\x01d", Ok((false, r"\x00\x01a\x01b\x00\x01c\x01d")));
        check(&mut table, b"\x3f\x03\xbe", Ok((false, r"\x00\x01c\x01d"))); // 34 bytes: room for one
        check(&mut table, b"\xbf", Err(Invalid));
        check(&mut table, b"\x20", Ok((false, "")));
        assert_eq!((table.size, table.entries.len()), (0, 0));
        check(&mut table, b"\x3f\xe2\x1f", Err(Invalid)); // 4097
        check(&mut table, b"\x3f\xe1\x1f", Ok((false, ""))); // 4096
    }

    #[test]
    fn refuses_what_is_broken() {
        let broken: [&[u8]; 8] = [
            b"\x80",                         // index 0
            b"\xff",                         // a truncated integer
            b"\xff\xff\xff\xff\xff\x00",     // a long one
            b"\x00",                         // no name
            b"\x00\x01a\x02b",               // a truncated value
            b"\x7f\x80\x80\x80\x80\x80",     // an integer without end
            b"\x00\x81\x00\x00",             // Huffman code that ends too early
            b"\x00\x84\xff\xff\xff\xff\x00", // its end of string
        ];
        for block in &broken[..6] {
            check(&mut Table::default(), block, Err(Invalid));
        }
        for block in broken {
            let _ = Table::default().rewrite(block, &mut Vec::new()); // the last two: no panic is enough
        }
    }

    #[test]
    fn a_bomb_stays_small() {
        let mut table = Table::default();
        let block = [&b"\x40\x01a\x7f\x81\x1e"[..], &[b'x'; 4000], &[0xbe; 60_000]].concat();
        let mut out = Vec::new();
        assert_eq!(table.rewrite(&block, &mut out), Err(Invalid));
        assert!(out.len() < 2 * BLOCK_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5)) {
            let mut table = Table::default();
            for block in blocks {
                if table.rewrite(&block, &mut Vec::new()).is_err() {
                    break;
                }
                prop_assert!(table.size <= table.size_max);
            }
        }

        #[test]
        fn any_fields_come_through(fields in proptest::collection::vec((".{0,200}", ".{0,200}", any::<(bool, bool)>()), 0..20)) {
            let (mut block, mut expected) = (Vec::new(), Vec::new());
            for (name, value, (indexed, huffman)) in &fields {
                block.push(if *indexed { 0x40 } else { 0 });
                expected.push(0);
                for string in [name, value] {
                    put_string(&mut expected, string.as_bytes());
                    if *huffman {
                        let mut coded = Vec::new();
                        httlib_huffman::encode(string.as_bytes(), &mut coded).expect("any bytes have a code");
                        put_integer(&mut block, coded.len(), 7, 0x80);
                        block.extend(coded);
                    } else {
                        put_string(&mut block, string.as_bytes());
                    }
                }
            }
            let mut out = Vec::new();
            prop_assert_eq!(Table::default().rewrite(&block, &mut out), Ok(false));
            prop_assert_eq!(out, expected);
        }
    }
}
