//! The answers that are large, read in place: only what the checks need, and nothing allocated. Field numbers are those of
//! `proto/etcd`. Bytes come from a server that may be anything, so whatever does not fit is [`Malformed`]. Used by
//! `workloads`.

/// The bytes are no message of the expected kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// A field of a message.
#[derive(Debug, PartialEq, Eq)]
enum Field<'m> {
    Varint(u64),
    Bytes(&'m [u8]),
    /// Fixed numbers, of which these messages have none.
    Other,
}

/// The fields of a message, in order.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    /// The next one with its number; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Field<'m>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Other)?,
            _ => return Err(Malformed),
        };
        Ok(Some((tag >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for at in 0..10 {
            let byte = *self.0.get(at).ok_or(Malformed)?;
            value |= u64::from(byte & 0x7F) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// A key-value pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<'m> {
    /// The key.
    pub key: &'m [u8],
    /// The value.
    pub value: &'m [u8],
    /// Revision of the last change.
    pub mod_revision: i64,
    /// Changes since the creation.
    pub version: i64,
}

impl<'m> Pair<'m> {
    fn read(message: &'m [u8]) -> Result<Pair<'m>, Malformed> {
        let (mut fields, mut pair) = (Fields(message), Pair::default());
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(key)) => pair.key = key,
                (3, Field::Varint(revision)) => pair.mod_revision = revision.cast_signed(),
                (4, Field::Varint(version)) => pair.version = version.cast_signed(),
                (5, Field::Bytes(value)) => pair.value = value,
                _ => {}
            }
        }
        Ok(pair)
    }
}

/// What a read brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Range<'m> {
    /// Number of pairs.
    pub pairs: u64,
    /// The first of them.
    pub first: Option<Pair<'m>>,
    /// The last of them.
    pub last: Option<Pair<'m>>,
    /// Whether there are more than were asked for.
    pub more: bool,
    /// The store's revision.
    pub revision: i64,
}

impl<'m> Range<'m> {
    /// Reads a `RangeResponse`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(message: &'m [u8]) -> Result<Range<'m>, Malformed> {
        let (mut fields, mut range, mut last) = (Fields(message), Range::default(), None);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(header)) => range.revision = revision(header)?,
                (2, Field::Bytes(pair)) => {
                    range.pairs += 1;
                    last = Some(pair);
                    if range.first.is_none() {
                        range.first = Some(Pair::read(pair)?);
                    }
                }
                (3, Field::Varint(more)) => range.more = more != 0,
                _ => {}
            }
        }
        range.last = last.map(Pair::read).transpose()?;
        Ok(range)
    }
}

/// The revision of a `ResponseHeader`.
fn revision(header: &[u8]) -> Result<i64, Malformed> {
    let (mut fields, mut revision) = (Fields(header), 0);
    while let Some(field) = fields.next()? {
        if let (3, Field::Varint(found)) = field {
            revision = found.cast_signed();
        }
    }
    Ok(revision)
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'m> {
    /// Whether it ended the key's life.
    pub is_delete: bool,
    /// The pair as it became.
    pub pair: Pair<'m>,
}

/// What a watch stream brought, without the events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Watch<'m> {
    /// Whose it is.
    pub watch_id: i64,
    /// It says that the watcher exists.
    pub created: bool,
    /// It says that the watcher does not exist any more.
    pub canceled: bool,
    /// Why.
    pub cancel_reason: &'m [u8],
}

impl<'m> Watch<'m> {
    /// Reads the head of a `WatchResponse`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(message: &'m [u8]) -> Result<Watch<'m>, Malformed> {
        let (mut fields, mut watch) = (Fields(message), Watch::default());
        while let Some(field) = fields.next()? {
            match field {
                (2, Field::Varint(id)) => watch.watch_id = id.cast_signed(),
                (3, Field::Varint(created)) => watch.created = created != 0,
                (4, Field::Varint(canceled)) => watch.canceled = canceled != 0,
                (6, Field::Bytes(reason)) => watch.cancel_reason = reason,
                _ => {}
            }
        }
        Ok(watch)
    }
}

/// The events of a `WatchResponse`.
pub struct Events<'m>(Fields<'m>);

impl<'m> Events<'m> {
    /// Of this message.
    pub fn of(message: &'m [u8]) -> Events<'m> {
        Events(Fields(message))
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// It is no event.
    pub fn next(&mut self) -> Result<Option<Event<'m>>, Malformed> {
        loop {
            match self.0.next()? {
                Some((11, Field::Bytes(event))) => return read_event(event).map(Some),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}

fn read_event(message: &[u8]) -> Result<Event<'_>, Malformed> {
    let (mut fields, mut event) = (Fields(message), Event { is_delete: false, pair: Pair::default() });
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Varint(kind)) => event.is_delete = kind == 1,
            (2, Field::Bytes(pair)) => event.pair = Pair::read(pair)?,
            _ => {}
        }
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb as pb;
    use crate::pb::mvccpb;
    use proptest::prelude::*;
    use prost::Message;

    fn pair(n: u8) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: vec![b'k', n],
            value: vec![b'v', n],
            create_revision: 1,
            mod_revision: 300 + i64::from(n),
            version: i64::from(n),
            lease: -1,
        }
    }

    fn header() -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 77, raft_term: 2 })
    }

    #[test]
    fn a_range_is_read() {
        let kvs = (0..3).map(pair).collect();
        let message = pb::RangeResponse { header: header(), kvs, more: true, count: 9 }.encode_to_vec();
        let range = Range::read(&message).expect("well-formed");
        assert_eq!((range.pairs, range.more, range.revision), (3, true, 77));
        let (first, last) = (range.first.expect("first"), range.last.expect("last"));
        assert_eq!((first.key, first.value, first.version), (&b"k\0"[..], &b"v\0"[..], 0));
        assert_eq!((last.key, last.mod_revision), (&b"k\x02"[..], 302));
        assert_eq!(Range::read(&[]), Ok(Range::default()));
    }

    #[test]
    fn events_are_read() {
        let event =
            |n: u8| mvccpb::Event { r#type: i32::from(n % 2), kv: Some(pair(n)), prev_kv: Some(pair(9)) };
        let message = pb::WatchResponse {
            header: header(),
            watch_id: 5,
            canceled: true,
            cancel_reason: "gone".into(),
            events: (0..2).map(event).collect(),
            ..Default::default()
        };
        let message = message.encode_to_vec();
        let watch = Watch::read(&message).expect("well-formed");
        assert_eq!(
            (watch.watch_id, watch.created, watch.canceled, watch.cancel_reason),
            (5, false, true, &b"gone"[..])
        );
        let mut events = Events::of(&message);
        let first = events.next().expect("well-formed").expect("an event");
        let second = events.next().expect("well-formed").expect("an event");
        assert_eq!((first.is_delete, first.pair.mod_revision, first.pair.version), (false, 300, 0));
        assert_eq!((second.is_delete, second.pair.key), (true, &b"k\x01"[..]));
        assert_eq!(events.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Range::read(&bytes);
            let _ = Watch::read(&bytes);
            let mut events = Events::of(&bytes);
            while let Ok(Some(_)) = events.next() {}
        }
    }
}
