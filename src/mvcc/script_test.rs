//! Golden scripts over the store: one file for each behaviour in `testscripts`, commands above `---`, answers below.
//!
//! `UPDATE_GOLDENFILES=1 cargo test --lib script_test` records the answers again; what changed is then to be judged by
//! etcd's rules, not taken for right. In keys and values `m@1900_z` stands for 1 900 times m and a z behind them.
//!
//! ```text
//!   put KEY VALUE [lease=ID]    delete KEY    write "put a 1" "delete b"       the last one: all in one revision
//!   get KEY [at=R]    scan [START [END]] [at=R]    history FROM [revisions=N]    lease ID    hash [at=R]
//!   compact R    remove [rows=N]    pin R    unpin    rows                     rows: how many each table has in LMDB
//!   freeze    finish    flush (both)    defragment    reopen                   reopen: as after the last flush
//!   revisions=N, rows=N: one step of that size, rather than as many as it takes
//!   snapshot [R]    see KEY                                                    a snapshot that is kept, a read from it
//! ```

use super::history::Limit;
use super::{Event, NEVER_COMPACTED, Pin, Snapshot, Store, defrag, flush::Frozen};
use crate::storage::Env;
use crate::storage::codec::{Image, Value};
use crate::storage::schema::Table;
use crate::types::KeyRange;
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use std::error::Error;
use std::fmt::Write as _;
use std::ops::ControlFlow;

/// Makes a test of each named script, and one that no script is forgotten.
macro_rules! scripts {
    ($dir:literal, $runner:expr, $($name:ident)*) => {
        $(#[test]
        fn $name() {
            goldenscript::run(&mut $runner, concat!($dir, "/", stringify!($name))).expect("the script runs");
        })*

        #[test]
        fn every_script_has_a_test() {
            let entries = std::fs::read_dir($dir).expect("a directory of scripts");
            let mut files: Vec<String> =
                entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
            files.sort();
            let mut named = vec![$(stringify!($name)),*];
            named.sort_unstable();
            assert_eq!(files, named);
        }
    };
}
pub(crate) use scripts;

scripts! {
    "src/mvcc/testscripts", Script::new(),
    compact_drops_older_tombstone compact_keeps_latest compact_keeps_tombstone_at_its_revision compact_refuses
    defragment_keeps_everything
    flush_changes_nothing get_at_revision hash_depends_on_logical_state history_from_ring_and_log
    large_values_in_blobs lease_attach_and_move long_keys_sort pin_holds_back_removal put_and_delete_in_one_revision
    range_sees_one_revision reopen_after_flush same_value_is_a_new_version tombstone_revives
}

type Answer = Result<String, Box<dyn Error>>;

struct Script {
    dir: tempfile::TempDir,
    store: Option<Store>,
    frozen: Option<Frozen>,
    pin: Option<Pin>,
    snapshot: Option<Snapshot>,
}

impl Script {
    fn new() -> Script {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(open(dir.path()));
        Script { dir, store, frozen: None, pin: None, snapshot: None }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("only `reopen` takes it, and puts it back")
    }

    fn write<'c>(&self, changes: impl Iterator<Item = &'c str>) -> Answer {
        let mut writer = self.store().write(0)?;
        for change in changes {
            match change.split_whitespace().collect::<Vec<_>>()[..] {
                ["put", key, value] => writer.put(expand(key), &expand(value), 0)?,
                ["put", key, value, lease] => writer.put(expand(key), &expand(value), number(lease)?)?,
                ["delete", key] => writer.delete(expand(key), false)?,
                ["expire", key] => writer.delete(expand(key), true)?,
                _ => return Err(format!("not a change: {change}").into()),
            };
        }
        let Some(batch) = writer.commit().batches.pop() else {
            return Ok(format!("nothing changed, revision {}", self.store().revision()));
        };
        lines(batch.events.iter().map(|event| show_event(self.store(), event)))
    }

    fn get(&self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let at = args.take_key("at").map_or(Ok(0), number)?;
        let snapshot = self.store().snapshot(at)?;
        read(&snapshot, next(args)?)
    }

    fn scan(&self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let at = args.take_key("at").map_or(Ok(0), number)?;
        let (start, end) = (args.next_pos().unwrap_or_default(), args.next_pos());
        let range = KeyRange::from_wire(expand(start), end.map_or(Bytes::from_static(&[0]), expand));
        let snapshot = self.store().snapshot(at)?;
        let mut found = Vec::new();
        snapshot.scan(&range, |key, image| {
            found.push(Ok(show_version(key, &image, &snapshot.value(&image)?)));
            Ok(ControlFlow::Continue(()))
        })?;
        if found.is_empty() { Ok("nothing".into()) } else { lines(found.into_iter()) }
    }

    fn history(&self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let step = args.take_key("revisions").map(number).transpose()?;
        let limit = Limit { revisions: step.unwrap_or(100) as usize, bytes: 1 << 20 };
        let mut batches = self.store().history(number(next(args)?)?, limit)?;
        while step.is_none()
            && let Some(last) = batches.last().map(|batch| batch.revision)
            && last < self.store().revision()
        {
            batches.extend(self.store().history(last + 1, limit)?);
        }
        if batches.is_empty() {
            return Ok("nothing".into());
        }
        lines(batches.iter().flat_map(|batch| &batch.events).map(|event| show_event(self.store(), event)))
    }

    fn hash(&self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let hash = self.store().hash(args.take_key("at").map_or(Ok(0), number)?)?;
        Ok(format!("{:08x} of revisions above {} up to {}", hash.hash, hash.compacted.max(0), hash.revision))
    }

    fn rows(&self) -> Answer {
        let count = |table| self.store().read_flushed(|txn| Ok(txn.len(table)?));
        let (cur, log, blob, attached) =
            (count(Table::Cur)?, count(Table::Log)?, count(Table::Blob)?, count(Table::LeaseKey)?);
        Ok(format!("cur {cur}, log {log}, blob {blob}, lease_key {attached}"))
    }

    fn reopen(&mut self) -> Answer {
        (self.pin, self.snapshot, self.frozen) = (None, None, None);
        drop(self.store.take());
        self.store = Some(open(self.dir.path()));
        let store = self.store();
        let compacted = store.compacted();
        let compacted = if compacted == NEVER_COMPACTED {
            "never compacted".into()
        } else {
            format!("compacted to {compacted}")
        };
        Ok(format!("at revision {}, {compacted}", store.revision()))
    }

    fn finish(&mut self) -> Answer {
        let frozen = self.frozen.take().ok_or("nothing is frozen")?;
        self.store().flush(&frozen)?;
        Ok(String::new())
    }

    fn remove(&self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let store = self.store();
        match args.take_key("rows") {
            Some(rows) => store.remove_compacted(number(rows)? as usize)?,
            None => {
                while store.has_removable() {
                    store.remove_compacted(1000)?;
                }
            }
        }
        Ok(format!("removed below {}", store.removed()))
    }

    fn freeze(&mut self) -> Answer {
        self.frozen = Some(self.store().freeze(Vec::new()));
        Ok(String::new())
    }
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Answer {
        let mut args = command.consume_args();
        let answer = match &command.name[..] {
            "put" => {
                let lease = args.take_key("lease").unwrap_or("0");
                let change = format!("put {} {} {lease}", next(&mut args)?, next(&mut args)?);
                self.write([&change[..]].into_iter())
            }
            "delete" | "expire" => {
                let change = format!("{} {}", command.name, next(&mut args)?);
                self.write([&change[..]].into_iter())
            }
            "write" => self.write(std::iter::from_fn(|| args.next_pos())),
            "get" => self.get(&mut args),
            "scan" => self.scan(&mut args),
            "history" => self.history(&mut args),
            "hash" => self.hash(&mut args),
            "lease" => {
                let keys = self.store().keys_of_lease(number(next(&mut args)?)?)?;
                Ok(if keys.is_empty() {
                    "no keys".into()
                } else {
                    keys.iter().map(|k| abbreviate(k)).collect::<Vec<_>>().join(" ")
                })
            }
            "compact" => {
                self.store().compact(number(next(&mut args)?)?)?;
                Ok(String::new())
            }
            "remove" => self.remove(&mut args),
            "pin" => {
                self.pin = Some(self.store().pin(number(next(&mut args)?)?));
                Ok(String::new())
            }
            "unpin" => {
                self.pin = None;
                Ok(String::new())
            }
            "snapshot" => {
                self.snapshot = Some(self.store().snapshot(args.next_pos().map_or(Ok(0), number)?)?);
                Ok(String::new())
            }
            "see" => read(self.snapshot.as_ref().ok_or("no snapshot is kept")?, next(&mut args)?),
            "rows" => self.rows(),
            "freeze" => self.freeze(),
            "finish" => self.finish(),
            "flush" => self.freeze().and_then(|_| self.finish()),
            "defragment" => {
                self.store().defragment(self.dir.path(), 1 << 30)?;
                Ok(String::new())
            }
            "reopen" => self.reopen(),
            unknown => Err(format!("no such command: {unknown}").into()),
        };
        let answer = answer?;
        args.reject_next()?;
        Ok(answer)
    }
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(Env::open(&defrag::current_dir(dir).unwrap(), 1 << 30).unwrap()).unwrap()
}

fn next<'a>(args: &mut ArgumentConsumer<'a>) -> Result<&'a str, Box<dyn Error>> {
    args.next_pos().ok_or_else(|| "an argument is missing".into())
}

fn number(text: &str) -> Result<i64, Box<dyn Error>> {
    Ok(text.parse()?)
}

fn lines(lines: impl Iterator<Item = Answer>) -> Answer {
    Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn read(snapshot: &Snapshot, key: &str) -> Answer {
    let bytes = expand(key);
    let Some(image) = snapshot.get(&bytes)? else { return Ok(format!("{key} does not exist")) };
    let image = Image::parse(&image)?;
    Ok(show_version(&bytes, &image, &snapshot.value(&image)?))
}

/// `a=1 create 2 mod 3.0 version 2 lease 7`; the word lease is left out when there is none.
pub(crate) fn show_version(key: &[u8], image: &Image<'_>, value: &[u8]) -> String {
    let meta = image.meta();
    let mut text = format!(
        "{}={} create {} mod {} version {}",
        abbreviate(key),
        abbreviate(value),
        meta.create_revision,
        meta.modified,
        meta.version
    );
    if meta.lease != 0 {
        write!(text, " lease {}", meta.lease).unwrap();
    }
    text
}

/// `3.0 put a=1 create 2 …, was 0 of 2.0`. "was" is the image before.
pub(crate) fn show_event(store: &Store, event: &Event) -> Answer {
    let new = store.with_inline_value(&event.new)?;
    let image = Image::parse(&new)?;
    let mut text = if image.is_tombstone() {
        let verb = if image.is_expiry() { "expire" } else { "delete" };
        format!("{} {verb} {}", image.modified, abbreviate(&event.key))
    } else {
        format!("{} put {}", image.modified, show_version(&event.key, &image, inline(&image)))
    };
    if !event.previous.is_empty() {
        let modified = Image::parse(&event.previous)?.modified;
        match store.with_inline_value(&event.previous) {
            Ok(previous) => match Image::parse(&previous)? {
                previous if previous.is_tombstone() => write!(text, ", was deleted at {modified}")?,
                previous => write!(text, ", was {} of {modified}", abbreviate(inline(&previous)))?,
            },
            Err(super::Error::Compacted) => write!(text, ", was a compacted value of {modified}")?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(text)
}

pub(crate) fn inline<'i>(image: &Image<'i>) -> &'i [u8] {
    match image.value {
        Value::Inline(value) => value,
        Value::Blob(_) => panic!("the value is still in its blob"),
    }
}

/// Bytes that a script's text stands for: parts between `_`, each as it is or `c@N`, which is N times c.
pub(crate) fn expand(text: &str) -> Bytes {
    let part = |part: &str| match part.split_once('@').map(|(c, n)| (c, n.parse())) {
        Some((c, Ok(n))) => c.repeat(n),
        _ => part.to_owned(),
    };
    Bytes::from(text.split('_').map(part).collect::<String>())
}

/// The reverse of [`expand`], for runs of 20 bytes and longer.
pub(crate) fn abbreviate(mut bytes: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut plain = 0;
    while plain < bytes.len() {
        let run = bytes[plain..].iter().take_while(|b| **b == bytes[plain]).count();
        if run < 20 {
            plain += run;
            continue;
        }
        parts.extend((plain > 0).then(|| bytes[..plain].escape_ascii().to_string()));
        parts.push(format!("{}@{run}", bytes[plain..=plain].escape_ascii()));
        (bytes, plain) = (&bytes[plain + run..], 0);
    }
    parts.extend((plain > 0).then(|| bytes.escape_ascii().to_string()));
    parts.join("_")
}
