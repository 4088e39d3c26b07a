//! What a line of a golden script over the applier may say, and its translation into commands. For tests only.
//!
//! ```text
//!   put KEY VALUE [lease=ID] [prev_kv] [ignore_value] [ignore_lease]        VALUE -: empty
//!   delete RANGE [prev_kv]                                                  RANGE a, a..c, or a.. (everything from a)
//!   get RANGE [rev=R] [limit=N] [sort=TARGET:asc] [keys_only] [count_only] [mod_min=R] [create_max=R] ...
//!   txn [if COMPARE, ...] { OP; ... } [else { OP; ... }]                    OP put, delete, get, txn, and
//!                                                                           bound_put KEY VALUE [lease=ID ttl=SECONDS]
//!                                                                           attach KEY ID
//!   batch [slice=INDEX/COUNT] { TXN; ... }                                  TXN as above, without the word
//!   read_txn ...                                                            the same, run without the log
//!   COMPARE: version|create|mod|lease|value RANGE =|>|<|!=|any OPERAND
//!   grant ID TTL    revoke ID ... [expired]    checkpoint ID SECONDS ...    record NOW ID SINCE|unknown ...
//!   compact R    alarm raise|clear nospace|corrupt MEMBER
//!   found ID ...    publish ID NAME    add ID URL [learner]    remove ID    promote ID    update ID URL    members
//!   state    flush    reopen (without what was not flushed)
//! ```

use crate::engine::command::{
    AlarmKind, Attach, Batch, Binding, BoundPut, Command, Compare, DeleteRange, Member, Op, Operand, Put,
    Range, Relation, RevisionBounds, Sort, SortOrder, SortTarget, Txn,
};
use crate::mvcc::script_test::expand;
use crate::types::{KeyRange, MemberId, RangeEnd, Slice};
use bytes::Bytes;
use std::error::Error;

type Parsed<T> = Result<T, Box<dyn Error>>;

/// One line of a script.
pub enum Line {
    /// To be applied.
    Command(Command),
    /// To be run beside the log.
    ReadTxn(Txn),
    /// To be read beside the log.
    Get(Range),
    /// The first members of the cluster.
    Found(Vec<MemberId>),
    /// Show the members.
    Members,
    /// Show everything else.
    State,
    /// Write everything applied to LMDB.
    Flush,
    /// Start again from the last flush.
    Reopen,
}

/// The words of a line that are still to be read.
pub struct Words(std::vec::IntoIter<String>);

impl Words {
    /// Cuts a line at spaces and around `{ } ; ,`.
    pub fn new(line: &str) -> Words {
        let mut spaced = String::new();
        for c in line.chars() {
            if matches!(c, '{' | '}' | ';' | ',') {
                spaced.extend([' ', c, ' ']);
            } else {
                spaced.push(c);
            }
        }
        Words(spaced.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter())
    }

    /// The whole line.
    pub fn line(&mut self) -> Parsed<Line> {
        let line = match &self.next()?[..] {
            "put" => Line::Command(Command::Put(self.put()?)),
            "delete" => Line::Command(Command::DeleteRange(self.delete()?)),
            "txn" => Line::Command(Command::Txn(self.txn()?)),
            "batch" => Line::Command(Command::Batch(self.batch()?)),
            "read_txn" => Line::ReadTxn(self.txn()?),
            "get" => Line::Get(self.get()?),
            "grant" => Line::Command(Command::LeaseGrant { id: self.number()?, ttl_secs: self.number()? }),
            "revoke" => {
                let mut ids = vec![self.number()?];
                while self.peek().parse::<i64>().is_ok() {
                    ids.push(self.number()?);
                }
                Line::Command(Command::LeaseRevoke { ids, expired: self.take("expired") })
            }
            "checkpoint" => {
                let mut remaining = Vec::new();
                while !self.peek().is_empty() {
                    remaining.push((self.number()?, self.number()?));
                }
                Line::Command(Command::LeaseCheckpoint(remaining))
            }
            "record" => {
                let (now_ms, mut since_ms) = (self.number()? as u64, Vec::new());
                while !self.peek().is_empty() {
                    let id = self.number()?;
                    let since = if self.take("unknown") { None } else { Some(self.number()? as u64) };
                    since_ms.push((id, since));
                }
                Line::Command(Command::LeaseRecord { now_ms, since_ms })
            }
            "compact" => Line::Command(Command::Compact { revision: self.number()? }),
            "alarm" => Line::Command(self.alarm()?),
            "found" => {
                let mut first = Vec::new();
                while !self.peek().is_empty() {
                    first.push(self.id()?);
                }
                Line::Found(first)
            }
            "publish" => {
                let (id, name) = (self.id()?, self.next()?);
                let client_urls = vec![format!("client-of-{name}")];
                // What is not published: it must not be taken.
                let (peer_urls, is_learner) = (vec!["nowhere".to_owned()], true);
                let member = Member { id, name, peer_urls, client_urls, is_learner };
                Line::Command(Command::PublishMember(member))
            }
            "add" => {
                let (id, peer_urls) = (self.id()?, vec![self.next()?]);
                let is_learner = self.take("learner");
                Line::Command(Command::AddMember(Member { id, peer_urls, is_learner, ..Member::default() }))
            }
            "remove" => Line::Command(Command::RemoveMember { id: self.id()? }),
            "promote" => Line::Command(Command::PromoteMember { id: self.id()? }),
            "update" => {
                let (id, peer_urls) = (self.id()?, vec![self.next()?]);
                Line::Command(Command::UpdateMember { id, peer_urls })
            }
            "members" => Line::Members,
            "state" => Line::State,
            "flush" => Line::Flush,
            "reopen" => Line::Reopen,
            unknown => return Err(format!("no such command: {unknown}").into()),
        };
        match self.peek() {
            "" => Ok(line),
            rest => Err(format!("a word too many: {rest}").into()),
        }
    }

    fn peek(&self) -> &str {
        self.0.as_slice().first().map_or("", |word| word)
    }

    fn next(&mut self) -> Parsed<String> {
        self.0.next().ok_or_else(|| "a word is missing".into())
    }

    fn number(&mut self) -> Parsed<i64> {
        Ok(self.next()?.parse()?)
    }

    fn id(&mut self) -> Parsed<MemberId> {
        Ok(self.next()?.parse()?)
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek() == word;
        if is_next {
            self.0.next();
        }
        is_next
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.take(word) { Ok(()) } else { Err(format!("{word} expected, not {}", self.peek()).into()) }
    }

    /// The options up to the end of the op, as name and value.
    fn options(&mut self) -> Vec<(String, String)> {
        let mut options = Vec::new();
        while !matches!(self.peek(), "" | ";" | "}") {
            let option = self.0.next().expect("just seen");
            let (name, value) = option.split_once('=').unwrap_or((&option, ""));
            options.push((name.to_owned(), value.to_owned()));
        }
        options
    }

    fn value(&mut self) -> Parsed<Bytes> {
        Ok(match &self.next()?[..] {
            "-" => Bytes::new(),
            word => expand(word),
        })
    }

    fn range(&mut self) -> Parsed<KeyRange> {
        let word = self.next()?;
        Ok(match word.split_once("..") {
            None => KeyRange::single(expand(&word)),
            Some((start, "")) => KeyRange { start: expand(start), end: RangeEnd::Unbounded },
            Some((start, end)) => KeyRange { start: expand(start), end: RangeEnd::Before(expand(end)) },
        })
    }

    fn put(&mut self) -> Parsed<Put> {
        let mut put = Put { key: expand(&self.next()?), value: self.value()?, ..Put::default() };
        for (name, value) in self.options() {
            match &name[..] {
                "lease" => put.lease = value.parse()?,
                "prev_kv" => put.prev_kv = true,
                "ignore_value" => put.ignore_value = true,
                "ignore_lease" => put.ignore_lease = true,
                _ => return Err(format!("no such option of put: {name}").into()),
            }
        }
        Ok(put)
    }

    fn bound_put(&mut self) -> Parsed<BoundPut> {
        let (key, value) = (expand(&self.next()?), self.value()?);
        let (mut id, mut ttl_secs) = (0, 0);
        for (name, value) in self.options() {
            match &name[..] {
                "lease" => id = value.parse()?,
                "ttl" => ttl_secs = value.parse()?,
                _ => return Err(format!("no such option of bound_put: {name}").into()),
            }
        }
        let binding = if id == 0 { Binding::Keep } else { Binding::New { id, ttl_secs } };
        Ok(BoundPut { key, value, binding })
    }

    fn batch(&mut self) -> Parsed<Batch> {
        let mut batch = Batch::default();
        if let Some(slice) = self.peek().strip_prefix("slice=") {
            let (index, count) = slice.split_once('/').ok_or("INDEX/COUNT expected")?;
            batch.slice = Some(Slice::of(index.parse()?, count.parse()?));
            self.next()?;
        }
        self.expect("{")?;
        while !self.take("}") {
            batch.txns.push(self.txn()?);
            self.take(";");
        }
        Ok(batch)
    }

    fn delete(&mut self) -> Parsed<DeleteRange> {
        Ok(DeleteRange { range: self.range()?, prev_kv: self.take("prev_kv") })
    }

    fn get(&mut self) -> Parsed<Range> {
        let mut get = Range {
            range: self.range()?,
            limit: 0,
            revision: 0,
            sort: Sort::default(),
            keys_only: false,
            count_only: false,
            bounds: RevisionBounds::default(),
        };
        for (name, value) in self.options() {
            match &name[..] {
                "rev" => get.revision = value.parse()?,
                "limit" => get.limit = value.parse()?,
                "sort" => get.sort = sort(&value)?,
                "keys_only" => get.keys_only = true,
                "count_only" => get.count_only = true,
                "mod_min" => get.bounds.mod_min = value.parse()?,
                "mod_max" => get.bounds.mod_max = value.parse()?,
                "create_min" => get.bounds.create_min = value.parse()?,
                "create_max" => get.bounds.create_max = value.parse()?,
                _ => return Err(format!("no such option of get: {name}").into()),
            }
        }
        Ok(get)
    }

    fn txn(&mut self) -> Parsed<Txn> {
        let mut txn = Txn::default();
        if self.take("if") {
            txn.compares.push(self.compare()?);
            while self.take(",") {
                txn.compares.push(self.compare()?);
            }
        }
        txn.success = self.branch()?;
        if self.take("else") {
            txn.failure = self.branch()?;
        }
        Ok(txn)
    }

    fn branch(&mut self) -> Parsed<Vec<Op>> {
        let mut ops = Vec::new();
        self.expect("{")?;
        while !self.take("}") {
            ops.push(match &self.next()?[..] {
                "put" => Op::Put(self.put()?),
                "delete" => Op::DeleteRange(self.delete()?),
                "get" => Op::Range(self.get()?),
                "txn" => Op::Txn(self.txn()?),
                "bound_put" => Op::BoundPut(self.bound_put()?),
                "attach" => Op::Attach(Attach { key: expand(&self.next()?), lease: self.number()? }),
                unknown => return Err(format!("no such op: {unknown}").into()),
            });
            if !self.take(";") && self.peek() != "}" {
                return Err(format!("; or }} expected, not {}", self.peek()).into());
            }
        }
        Ok(ops)
    }

    fn compare(&mut self) -> Parsed<Compare> {
        let target = self.next()?;
        let range = self.range()?;
        let relation = match &self.next()?[..] {
            "=" => Relation::Equal,
            ">" => Relation::Greater,
            "<" => Relation::Less,
            "!=" => Relation::NotEqual,
            "any" => Relation::Any,
            unknown => return Err(format!("no such relation: {unknown}").into()),
        };
        let operand = match &target[..] {
            "version" => Operand::Version(self.number()?),
            "create" => Operand::CreateRevision(self.number()?),
            "mod" => Operand::ModRevision(self.number()?),
            "lease" => Operand::Lease(self.number()?),
            "value" => Operand::Value(self.value()?),
            unknown => return Err(format!("no such target: {unknown}").into()),
        };
        Ok(Compare { range, relation, operand })
    }

    fn alarm(&mut self) -> Parsed<Command> {
        let activate = self.take("raise");
        if !activate {
            self.expect("clear")?;
        }
        let alarm = if self.take("nospace") {
            AlarmKind::NoSpace
        } else {
            self.expect("corrupt")?;
            AlarmKind::Corrupt
        };
        Ok(Command::Alarm { activate, member: self.next()?.parse()?, alarm })
    }
}

fn sort(text: &str) -> Parsed<Sort> {
    let (target, order) = text.split_once(':').unwrap_or((text, ""));
    let order = match order {
        "" => SortOrder::None,
        "asc" => SortOrder::Ascend,
        "desc" => SortOrder::Descend,
        _ => return Err(format!("no such order: {order}").into()),
    };
    let target = match target {
        "key" => SortTarget::Key,
        "version" => SortTarget::Version,
        "create" => SortTarget::Create,
        "mod" => SortTarget::Mod,
        "value" => SortTarget::Value,
        _ => return Err(format!("no such sort target: {target}").into()),
    };
    Ok(Sort { order, target })
}
