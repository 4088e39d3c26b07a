//! The raft log: one line that sums it up, and one for each entry that it still has.

use super::{Asker, Error, Lines, Options};
use crate::auth::Change;
use crate::engine::command::Command;
use crate::raft::{Logged, Peer, StoppedLog, StoppedVote};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::RangeInclusive;

/// A position in the log.
#[derive(Serialize)]
struct Position {
    term: u64,
    index: u64,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'e> {
    Log {
        vote: Option<StoppedVote>,
        purged: Option<Position>,
        committed: Option<Position>,
        last: Option<Position>,
        torn_bytes: u64,
    },
    Blank {
        #[serde(flatten)]
        at: Position,
    },
    Membership {
        #[serde(flatten)]
        at: Position,
        voters: Vec<BTreeSet<u64>>,
        peers: BTreeMap<u64, Peer>,
    },
    Command {
        #[serde(flatten)]
        at: Position,
        time_ms: u64,
        origin: Asker<'e>,
        /// The member that asked the leader, and its number for this.
        #[serde(skip_serializing_if = "Option::is_none")]
        ticket: Option<(u64, u64)>,
        command: Cow<'e, Command>,
    },
}

/// Writes the entries whose indexes lie in `indexes`. Those up to the last that is known to be committed are certain; a
/// leader may cut off others.
pub fn log(
    options: &Options,
    indexes: RangeInclusive<u64>,
    lines: &mut Lines<impl Write>,
) -> Result<(), Error> {
    let _held = options.hold()?;
    let log = StoppedLog::open(&options.wal_dir())?;
    let marks = log.recovered();
    let position =
        |id: Option<crate::raft::wal::LogId>| id.map(|id| Position { term: id.term, index: id.index });
    lines.line(&Line::Log {
        vote: log.vote(),
        purged: position(marks.purged),
        committed: position(marks.committed),
        last: position(marks.last),
        torn_bytes: marks.torn_bytes,
    })?;
    let mut failed = None;
    log.walk(indexes, |id, logged| {
        let written = match logged {
            Ok(logged) => {
                lines.line(&line(Position { term: id.term, index: id.index }, &logged)).map_err(Error::Write)
            }
            Err(source) => Err(Error::Entry { index: id.index, source }),
        };
        failed = written.err();
        failed.is_none()
    })?;
    failed.map_or(Ok(()), Err)
}

fn line(at: Position, logged: &Logged) -> Line<'_> {
    match logged {
        Logged::Blank => Line::Blank { at },
        Logged::Membership { voters, peers } => {
            Line::Membership { at, voters: voters.clone(), peers: peers.clone() }
        }
        Logged::Command(entry) => Line::Command {
            at,
            time_ms: entry.time_ms(),
            origin: Asker::of(entry.origin()),
            ticket: entry.ticket().map(|ticket| (ticket.proposer, ticket.number)),
            command: without_secrets(entry.command()),
        },
    }
}

/// The command without hashes of passwords and parts of tokens.
fn without_secrets(command: &Command) -> Cow<'_, Command> {
    let Command::Auth(change) = command else { return Cow::Borrowed(command) };
    let mut change = change.clone();
    match &mut change {
        Change::UserAdd { password, .. } | Change::UserChangePassword { password, .. } => password.clear(),
        Change::Authenticate { token_prefix, .. } => token_prefix.clear(),
        _ => return Cow::Borrowed(command),
    }
    Cow::Owned(Command::Auth(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_behind() {
        let secret = |change| serde_json::to_string(&*without_secrets(&Command::Auth(change))).unwrap();
        let password = || vec![7, 7, 7];
        let add = Change::UserAdd { name: "ann".into(), password: password(), no_password: false };
        let change = Change::UserChangePassword { name: "ann".into(), password: password() };
        let login = Change::Authenticate { user: "ann".into(), revision: 1, token_prefix: "777".into() };
        for text in [secret(add), secret(change), secret(login)] {
            assert!(text.contains("ann") && !text.contains('7'), "{text}");
        }
    }
}
