//! Golden scripts over the applier: a line is one command as the raft log would hold it, the answer below `---` is its
//! outcome, then its events and lease changes. Rules are cited by their ids in the contract.
//!
//! `UPDATE_GOLDENFILES=1 cargo test --lib script_test` records the answers again, to be judged by etcd's rules. Commands
//! with words that are no plain ones stand in quotes; see [`super::script_syntax`] for what a line may say.

use super::script_syntax::{Line, Words};
use super::{Applier, LeaseChange, LogPosition, read_txn};
use crate::engine::command::{Applied, Kv, Member, OpOutcome, Outcome, Range, Sort, TxnOutcome};
use crate::engine::entry::{Entry, Origin};
use crate::engine::read;
use crate::mvcc::script_test::{abbreviate, inline, scripts, show_event, show_version};
use crate::mvcc::{Store, defrag};
use crate::storage::Env;
use crate::storage::codec::Image;
use crate::types::{KeyRange, MemberId};
use goldenscript::{Argument, Command, Context};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

scripts! {
    "src/engine/apply/testscripts", Script::new(),
    alarm_corrupt alarm_nospace attach attach_in_txn batch batch_changes_a_key_twice bound_put compact_errors delete_range_prev_kv ignore_lease ignore_value lease_checkpoint lease_record
    lease_grant_and_revoke lease_revoke_deletes_in_one_revision members put_prev_kv range_limits_and_bounds range_sorts
    txn_compares txn_compares_a_range txn_failed_check_changes_nothing txn_header_revisions txn_nested
    txn_put_and_delete_of_one_key txn_range_revisions txn_read_only txn_reads_own_writes
}

type Answer = Result<String, Box<dyn Error>>;

struct Script {
    dir: tempfile::TempDir,
    applier: Option<Applier>,
    index: u64,
}

impl Script {
    fn new() -> Script {
        let dir = tempfile::tempdir().unwrap();
        let applier = Some(open(dir.path()));
        Script { dir, applier, index: 0 }
    }

    fn applier(&mut self) -> &mut Applier {
        self.applier.as_mut().expect("only `reopen` takes it, and puts it back")
    }

    fn line(&mut self, line: Line) -> Answer {
        match line {
            Line::Command(command) => self.apply(command),
            Line::ReadTxn(txn) => {
                let mut out = Vec::new();
                show_txn(&read_txn(&self.applier().store, &txn)?, "", &mut out);
                Ok(out.join("\n"))
            }
            Line::Get(query) => self.get(&query),
            Line::State => self.state(),
            Line::Flush => {
                let Some((frozen, _)) = self.applier().freeze() else { return Ok("nothing to flush".into()) };
                self.applier().store.flush(&frozen)?;
                Ok(String::new())
            }
            Line::Found(ids) => {
                let member =
                    |id: MemberId| Member { id, peer_urls: vec![format!("u{id}")], ..Member::default() };
                let members: Vec<Member> = ids.into_iter().map(member).collect();
                self.applier().found_members(&members);
                Ok(String::new())
            }
            Line::Members => Ok(self.members()),
            Line::Reopen => {
                drop(self.applier.take());
                self.applier = Some(open(self.dir.path()));
                let applied =
                    self.applier().applied().map_or("nothing".into(), |p| format!("entry {}", p.index));
                Ok(format!("applied {applied}, revision {}", self.applier().store.revision()))
            }
        }
    }

    fn apply(&mut self, command: crate::engine::command::Command) -> Answer {
        self.index += 1;
        let position = LogPosition { term: 1, index: self.index };
        let applied = self.applier().apply(position, &Entry::new(Origin::Server, command, 0))?;
        let effects = self.applier().take_effects();
        let mut out = show_applied(&applied);
        for batch in &effects.batches {
            for event in &batch.events {
                out.push(format!("  event {}", show_event(&self.applier().store, event)?));
            }
        }
        for change in &effects.leases {
            out.push(match change {
                LeaseChange::Granted(id, lease) => {
                    let whose = if lease.belongs_to_keys { ", of its keys" } else { "" };
                    format!("  lease {id} granted for {} s{whose}", lease.ttl_secs)
                }
                LeaseChange::Revoked(id) => format!("  lease {id} revoked"),
                LeaseChange::Recorded(id, Some(since_ms)) => format!("  lease {id} runs since {since_ms} ms"),
                LeaseChange::Recorded(id, None) => format!("  nothing is recorded of lease {id}"),
                LeaseChange::Checkpointed(id) => format!("  lease {id} starts anew"),
                LeaseChange::Read(reading) => format!("  the clock of leases shows {} ms", reading.ms),
            });
        }
        out.extend(effects.removed_members.iter().map(|id| format!("  member {id} removed")));
        Ok(out.join("\n"))
    }

    fn members(&mut self) -> String {
        let applier = self.applier();
        let show = |member: &Member| {
            let Member { id, name, peer_urls, client_urls, is_learner } = member;
            assert_eq!(applier.learners().contains(*id), *is_learner);
            let role = if *is_learner { "learner" } else { "voter" };
            format!("{role} {id} {name:?} peers {peer_urls:?} clients {client_urls:?}")
        };
        let mut out: Vec<String> = applier.members().values().map(show).collect();
        out.extend(applier.removed().iter().map(|id| format!("removed {id}")));
        out.join("\n")
    }

    fn get(&mut self, query: &Range) -> Answer {
        let found = read::range(
            &self.applier().store.snapshot(query.revision)?,
            query,
            Some(self.applier().store.counts()),
        )?;
        let mut out = vec![format!("{}{}", found.count, if found.more { " and more" } else { "" })];
        out.extend(found.kvs.iter().map(|kv| format!("  {}", show_kv(kv))));
        Ok(out.join("\n"))
    }

    fn state(&mut self) -> Answer {
        let applier = self.applier();
        let mut out =
            vec![format!("revision {}, compacted {}", applier.store.revision(), applier.store.compacted())];
        let all = Range {
            range: KeyRange::all(),
            limit: 0,
            revision: 0,
            sort: Sort::default(),
            keys_only: false,
            count_only: false,
            bounds: Default::default(),
        };
        let found = read::range(&applier.store.snapshot(0)?, &all, None)?;
        out.extend(found.kvs.iter().map(|kv| format!("  {}", show_kv(kv))));
        for (id, lease) in applier.leases() {
            let keys = applier.store.keys_of_lease(*id)?;
            let keys = keys.iter().map(|key| abbreviate(key)).collect::<Vec<_>>().join(" ");
            out.push(format!(
                "  lease {id}: {} s, {} left, keys [{keys}]",
                lease.ttl_secs,
                lease.remaining_secs(applier.lease_clock().ms)
            ));
        }
        out.extend(applier.alarms().iter().map(|(member, kind)| format!("  alarm {kind:?} of {member}")));
        Ok(out.join("\n"))
    }
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Answer {
        let mut text = command.name.clone();
        for argument in &command.args {
            match argument {
                Argument::Positional(word) => text.extend([" ", &word[..]]),
                Argument::KeyValue(key, value) => text.extend([" ", &key[..], "=", &value[..]]),
                _ => return Err("a kind of argument that is not known here".into()),
            }
        }
        self.line(Words::new(&text).line()?)
    }
}

fn open(dir: &Path) -> Applier {
    let env = Env::open(&defrag::current_dir(dir).unwrap(), 1 << 30).unwrap();
    Applier::load(Arc::new(Store::open(env).unwrap())).unwrap()
}

fn show_kv(kv: &Kv) -> String {
    let image = Image::parse(&kv.image).unwrap();
    show_version(&kv.key, &image, inline(&image))
}

fn show_applied(applied: &Applied) -> Vec<String> {
    let mut out = Vec::new();
    match applied {
        Err(refusal) => out.push(format!("refused: {refusal}")),
        Ok(Outcome::Put { revision, previous }) => show_put(*revision, previous.as_ref(), "", &mut out),
        Ok(Outcome::DeleteRange { revision, deleted, previous }) => {
            show_delete(*revision, *deleted, previous, "", &mut out);
        }
        Ok(Outcome::Txn(txn)) => show_txn(txn, "", &mut out),
        Ok(Outcome::Batch { revision, outcomes }) => {
            out.push(format!("batch, revision {revision}"));
            for outcome in outcomes {
                match outcome {
                    Ok(txn) => show_txn(txn, "  ", &mut out),
                    Err(refusal) => out.push(format!("  refused: {refusal}")),
                }
            }
        }
        Ok(Outcome::Done { revision } | Outcome::Authenticated { revision, .. }) => {
            out.push(format!("done, revision {revision}"));
        }
    }
    out
}

fn show_put(revision: i64, previous: Option<&Kv>, indent: &str, out: &mut Vec<String>) {
    out.push(format!("{indent}put, revision {revision}"));
    out.extend(previous.map(|kv| format!("{indent}  prev {}", show_kv(kv))));
}

fn show_delete(revision: i64, deleted: i64, previous: &[Kv], indent: &str, out: &mut Vec<String>) {
    out.push(format!("{indent}deleted {deleted}, revision {revision}"));
    out.extend(previous.iter().map(|kv| format!("{indent}  prev {}", show_kv(kv))));
}

fn show_txn(txn: &TxnOutcome, indent: &str, out: &mut Vec<String>) {
    let branch = if txn.succeeded { "then" } else { "else" };
    out.push(format!("{indent}txn {branch}, revision {}", txn.revision));
    let indent = &format!("{indent}  ")[..];
    for result in &txn.results {
        match result {
            OpOutcome::Range { revision, kvs, more, count } => {
                let more = if *more { " and more" } else { "" };
                out.push(format!("{indent}got {count}{more}, revision {revision}"));
                out.extend(kvs.iter().map(|kv| format!("{indent}  {}", show_kv(kv))));
            }
            OpOutcome::Put { revision, previous } => show_put(*revision, previous.as_ref(), indent, out),
            OpOutcome::DeleteRange { revision, deleted, previous } => {
                show_delete(*revision, *deleted, previous, indent, out);
            }
            OpOutcome::Txn(txn) => show_txn(txn, indent, out),
            OpOutcome::Attach { revision } => out.push(format!("{indent}attached, revision {revision}")),
        }
    }
}
