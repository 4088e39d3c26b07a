//! Requests as text for the log, in the form of etcd's own: keys are shown, values only by their size. A text is cut at
//! [`TEXT_BYTES_MAX`]. Called when something was slow.

use super::command::{
    Batch, Binding, Command, Compare, DeleteRange, Op, Operand, Put, Range, Relation, SortOrder, SortTarget,
    Txn,
};
use crate::types::{KeyRange, RangeEnd};
use std::fmt::{self, Display, Write};

/// Bytes of a text.
const TEXT_BYTES_MAX: usize = 4096;

/// Collects a text up to its bound.
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars() {
            if self.0.len() >= TEXT_BYTES_MAX {
                return Err(fmt::Error); // nobody reads on
            }
            self.0.push(c);
        }
        Ok(())
    }
}

fn text(write: impl FnOnce(&mut Text) -> fmt::Result) -> String {
    let mut text = Text(String::new());
    if write(&mut text).is_err() {
        text.0.push_str("...");
    }
    text.0
}

/// A change, as the log of consensus holds it.
pub fn command(index: u64, command: &Command, kind: impl Display) -> String {
    text(|out| {
        write!(out, "header:<ID:{index}> ")?;
        match command {
            Command::Put(p) => {
                out.write_str("put:<")?;
                put(out, p)?;
                out.write_char('>')
            }
            Command::Txn(t) => {
                out.write_str("txn:<")?;
                txn(out, t)?;
                out.write_char('>')
            }
            Command::DeleteRange(d) => {
                out.write_str("delete_range:{")?;
                delete(out, d)?;
                out.write_char('}')
            }
            Command::LeaseGrant { id, ttl_secs } => {
                write!(out, "lease_grant:<ttl:{ttl_secs}-second id:{id:016x}>")
            }
            Command::LeaseRevoke { ids, .. } => {
                ids.iter().try_for_each(|id| write!(out, "lease_revoke:<id:{id:016x}>"))
            }
            Command::Batch(b) => {
                out.write_str("batch:<")?;
                batch(out, b)?;
                out.write_char('>')
            }
            Command::Compact { revision } => write!(out, "compaction:{{revision:{revision}}}"),
            _ => write!(out, "{kind}"),
        }
    })
}

/// A change without its place in the log, as a client asked for it.
pub fn request(command: &Command) -> Option<String> {
    Some(text(|out| match command {
        Command::Put(p) => put(out, p),
        Command::Txn(t) => txn(out, t),
        Command::DeleteRange(d) => delete(out, d),
        Command::Batch(b) => batch(out, b),
        _ => Ok(()),
    }))
    .filter(|text| !text.is_empty())
}

/// A read.
pub fn range(query: &Range) -> String {
    text(|out| range_fields(out, query))
}

/// A transaction of reads.
pub fn read_txn(query: &Txn) -> String {
    text(|out| txn(out, query))
}

fn put(out: &mut Text, put: &Put) -> fmt::Result {
    quoted(out, "key", &put.key)?;
    if !put.value.is_empty() {
        write!(out, "value_size:{} ", put.value.len())?;
    }
    if put.lease != 0 {
        write!(out, "lease:{} ", put.lease)?;
    }
    flags(
        out,
        &[("prev_kv", put.prev_kv), ("ignore_value", put.ignore_value), ("ignore_lease", put.ignore_lease)],
    )
}

fn delete(out: &mut Text, delete: &DeleteRange) -> fmt::Result {
    keys(out, &delete.range)?;
    flags(out, &[("prev_kv", delete.prev_kv)])
}

fn range_fields(out: &mut Text, query: &Range) -> fmt::Result {
    keys(out, &query.range)?;
    numbers(out, &[("limit", query.limit), ("revision", query.revision)])?;
    match query.sort.order {
        SortOrder::None => {}
        SortOrder::Ascend => out.write_str("sort_order:ASCEND ")?,
        SortOrder::Descend => out.write_str("sort_order:DESCEND ")?,
    }
    match query.sort.target {
        SortTarget::Key => {}
        SortTarget::Version => out.write_str("sort_target:VERSION ")?,
        SortTarget::Create => out.write_str("sort_target:CREATE ")?,
        SortTarget::Mod => out.write_str("sort_target:MOD ")?,
        SortTarget::Value => out.write_str("sort_target:VALUE ")?,
    }
    flags(out, &[("keys_only", query.keys_only), ("count_only", query.count_only)])?;
    let bounds = &query.bounds;
    numbers(
        out,
        &[
            ("min_mod_revision", bounds.mod_min),
            ("max_mod_revision", bounds.mod_max),
            ("min_create_revision", bounds.create_min),
            ("max_create_revision", bounds.create_max),
        ],
    )
}

fn txn(out: &mut Text, txn: &Txn) -> fmt::Result {
    out.write_str("compare:<")?;
    txn.compares.iter().try_for_each(|c| compare(out, c))?;
    out.write_str("> success:<")?;
    txn.success.iter().try_for_each(|o| op(out, o))?;
    out.write_str("> failure:<")?;
    txn.failure.iter().try_for_each(|o| op(out, o))?;
    out.write_char('>')
}

fn op(out: &mut Text, op: &Op) -> fmt::Result {
    match op {
        Op::Put(p) => {
            out.write_str("request_put:<")?;
            put(out, p)?;
            out.write_str("> ")
        }
        Op::Range(r) => {
            out.write_str("request_range:{")?;
            range_fields(out, r)?;
            out.write_str("} ")
        }
        Op::DeleteRange(d) => {
            out.write_str("request_delete_range:{")?;
            delete(out, d)?;
            out.write_str("} ")
        }
        Op::Txn(t) => {
            out.write_str("request_txn:<")?;
            txn(out, t)?;
            out.write_str("> ")
        }
        Op::BoundPut(p) => {
            out.write_str("bound_put:<")?;
            quoted(out, "key", &p.key)?;
            if let Binding::New { id, ttl_secs } = p.binding {
                write!(out, "ttl:{ttl_secs}-second lease:{id:016x} ")?;
            }
            write!(out, "value_size:{}> ", p.value.len())
        }
        Op::Attach(a) => {
            out.write_str("attach:<")?;
            quoted(out, "key", &a.key)?;
            write!(out, "lease:{:016x}> ", a.lease)
        }
    }
}

fn batch(out: &mut Text, batch: &Batch) -> fmt::Result {
    batch.txns.iter().try_for_each(|inner| {
        out.write_str("txn:<")?;
        txn(out, inner)?;
        out.write_str("> ")
    })
}

fn compare(out: &mut Text, compare: &Compare) -> fmt::Result {
    match compare.relation {
        Relation::Equal | Relation::Any => {}
        Relation::Greater => out.write_str("result:GREATER ")?,
        Relation::Less => out.write_str("result:LESS ")?,
        Relation::NotEqual => out.write_str("result:NOT_EQUAL ")?,
    }
    let (target, field, number) = match &compare.operand {
        Operand::Version(n) => ("", "version", *n),
        Operand::CreateRevision(n) => ("target:CREATE ", "create_revision", *n),
        Operand::ModRevision(n) => ("target:MOD ", "mod_revision", *n),
        Operand::Value(value) => ("target:VALUE ", "value_size", value.len() as i64),
        Operand::Lease(n) => ("target:LEASE ", "lease", *n),
    };
    out.write_str(target)?;
    keys(out, &compare.range)?;
    write!(out, "{field}:{number} ")
}

fn keys(out: &mut Text, range: &KeyRange) -> fmt::Result {
    if !range.start.is_empty() {
        quoted(out, "key", &range.start)?;
    }
    match &range.end {
        RangeEnd::Single => Ok(()),
        RangeEnd::Unbounded => quoted(out, "range_end", &[0]),
        RangeEnd::Before(end) => quoted(out, "range_end", end),
    }
}

/// Bytes as protobuf's text form has them: what is not printable in octal.
fn quoted(out: &mut Text, name: &str, bytes: &[u8]) -> fmt::Result {
    write!(out, "{name}:\"")?;
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => write!(out, "\\{}", char::from(byte))?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            b' '..=b'~' => out.write_char(char::from(byte))?,
            _ => write!(out, "\\{byte:03o}")?,
        }
    }
    out.write_str("\" ")
}

fn flags(out: &mut Text, flags: &[(&str, bool)]) -> fmt::Result {
    flags.iter().filter(|(_, is_on)| *is_on).try_for_each(|(name, _)| write!(out, "{name}:true "))
}

fn numbers(out: &mut Text, numbers: &[(&str, i64)]) -> fmt::Result {
    numbers.iter().filter(|(_, n)| *n != 0).try_for_each(|(name, n)| write!(out, "{name}:{n} "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn put_of(value: &'static str) -> Put {
        Put { key: Bytes::from_static(b"k\0\""), value: value.into(), lease: 7, ..Put::default() }
    }

    #[test]
    fn g10_values_are_shown_by_their_size_alone() {
        let compare = Compare {
            range: KeyRange::single(Bytes::from_static(b"a")),
            relation: Relation::Equal,
            operand: Operand::Value(Bytes::from_static(b"secret")),
        };
        let inner = Txn { success: vec![Op::Put(put_of("secret"))], ..Txn::default() };
        let txn = Txn {
            compares: vec![compare],
            success: vec![Op::Put(put_of("secret")), Op::Txn(inner)],
            failure: Vec::new(),
        };
        let text = command(5, &Command::Txn(txn), "txn");
        assert!(!text.contains("secret"), "{text}");
        let put = r#"request_put:<key:"k\000\"" value_size:6 lease:7 > "#;
        let inner = format!("request_txn:<compare:<> success:<{put}> failure:<>> ");
        assert_eq!(
            text,
            format!(
                "header:<ID:5> txn:<compare:<target:VALUE key:\"a\" value_size:6 > success:<{put}{inner}> failure:<>>"
            )
        );
    }

    #[test]
    fn a_text_has_an_end() {
        let key = Bytes::from(vec![0xff; 100_000]);
        let text = request(&Command::Put(Put { key, ..Put::default() })).unwrap();
        assert!(text.len() <= TEXT_BYTES_MAX + 3 && text.ends_with("..."));
        assert_eq!(request(&Command::Compact { revision: 1 }), None);
    }
}
