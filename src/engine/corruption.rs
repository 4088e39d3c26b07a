//! Checks that what is stored is what it was, and the same on all members. The leader asks the others for their digest of
//! everything up to a revision; two digests of the same revision contradict each other if both stand on the same compacted one.
//! Members that can't answer are left out. Alone, a member can still find that the same state gives two digests.
//!
//! Called by `server`: `initial_check` before clients are served, the others as chores.

use super::ask::{Answer, Question, Whom, unexpected};
use super::command::{AlarmKind, Command};
use super::{Engine, Error, Hash, Origin, Result};
use crate::mvcc;
use crate::types::MemberId;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a member that starts waits for the digests of the others, beside twice the time that its own took.
const PEERS_WAIT: Duration = Duration::from_secs(1);

/// Why a member should not serve.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Others have another state at the same revision.
    #[error("{0:x} found data inconsistency with peers")]
    Inconsistent(MemberId),
    /// The state can't be read.
    #[error("{0:x} failed to fetch hash ({1})")]
    Unreadable(MemberId, #[source] Error),
}

/// What another member has.
#[derive(Clone, Copy, Debug)]
struct Digest {
    hash: Hash,
    /// Revision of its store.
    current: i64,
}

/// Reads and digests everything, as etcd does behind the gate `InitialCorruptCheck`, and compares with those members that
/// answer.
pub async fn initial_check(engine: &Engine) -> std::result::Result<(), Unfit> {
    let me = engine.identity().member;
    let id = format!("{me:x}");
    tracing::info!("local-member-id" = id, "starting initial corruption check");
    let begun = Instant::now();
    let own = engine.hash(0).await.map_err(|error| Unfit::Unreadable(me, error))?;
    let limit = PEERS_WAIT + 2 * begun.elapsed();
    let mut mismatches = 0;
    for (peer, answer) in ask_others(engine, own.revision, limit).await {
        let what = match &answer {
            Ok(found) if found.hash.hash == own.hash => continue,
            Ok(found) if contradict(own, found.hash) => {
                mismatches += 1;
                "found different hash values from remote peer"
            }
            Ok(_) => "found different compact revision values from remote peer",
            Err(Error::Read(mvcc::Error::FutureRevision)) => "cannot fetch hash from slow remote peer",
            Err(Error::Read(mvcc::Error::Compacted)) => {
                "cannot fetch hash from remote peer; local member is behind"
            }
            Err(_) => continue, // the log has it
        };
        let found = answer.ok();
        tracing::warn!(
            "local-member-id" = id,
            "local-member-revision" = own.revision,
            "local-member-compact-revision" = own.compacted,
            "local-member-hash" = own.hash,
            "remote-peer-id" = format!("{peer:x}"),
            "remote-peer-revision" = found.map(|found| found.current),
            "remote-peer-compact-revision" = found.map(|found| found.hash.compacted),
            "remote-peer-hash" = found.map(|found| found.hash.hash),
            "{what}"
        );
    }
    if mismatches > 0 {
        return Err(Unfit::Inconsistent(me));
    }
    tracing::info!(
        "local-member-id" = id,
        "local-member-revision" = own.revision,
        "local-member-compact-revision" = own.compacted,
        "local-member-hash" = own.hash,
        "initial corruption checking passed; no corruption"
    );
    Ok(())
}

/// Checks every `interval` while this member leads, as `--corrupt-check-time` has it, and raises the CORRUPT alarm for members
/// whose state contradicts that of this one, or for this one if two digests of the same state differ.
pub async fn check_now_and_then(engine: Engine, interval: Duration) {
    let id = format!("{:x}", engine.identity().member);
    tracing::info!("local-member-id" = id, ?interval, "enabled corruption checking");
    loop {
        tokio::time::sleep(interval).await;
        if engine.leads()
            && let Err(error) = check(&engine).await
        {
            tracing::warn!(%error, "failed to check hash KV");
        }
    }
}

async fn check(engine: &Engine) -> Result<()> {
    let first = engine.hash(0).await?;
    let others = ask_others(engine, first.revision, Duration::MAX).await;
    engine.read_index().await?; // all that the others had applied by then is applied here
    let second = engine.hash(0).await?;
    let mut corrupt = BTreeSet::new();
    if contradict(first, second) {
        tracing::warn!(
            "revision-1" = first.revision,
            "compact-revision-1" = first.compacted,
            "hash-1" = first.hash,
            "revision-2" = second.revision,
            "compact-revision-2" = second.compacted,
            "hash-2" = second.hash,
            "found hash mismatch"
        );
        corrupt.insert(engine.identity().member);
    }
    let mut checked = 0;
    for (peer, answer) in others {
        let Ok(found) = answer else { continue };
        checked += 1;
        let Some(what) = objection(first, second, found) else { continue };
        tracing::warn!(
            "leader-revision" = second.revision,
            "leader-compact-revision" = second.compacted,
            "leader-hash" = first.hash,
            "follower-revision" = found.current,
            "follower-compact-revision" = found.hash.compacted,
            "follower-hash" = found.hash.hash,
            "follower-peer-id" = format!("{peer:x}"),
            "{what}"
        );
        corrupt.insert(peer);
    }
    raise(engine, corrupt).await?;
    tracing::info!("number-of-peers-checked" = checked, "finished peer corruption check");
    Ok(())
}

/// Checks every `interval` while this member leads, as `--compact-hash-check-time` has it: each compacted revision once all
/// members have come to it. Those in the minority get the CORRUPT alarm.
pub async fn check_compactions(engine: Engine, interval: Duration) {
    let mut checked = 0;
    loop {
        tokio::time::sleep(interval).await;
        if !engine.leads() || engine.compacted() <= checked {
            continue;
        }
        match check_compaction(&engine, engine.compacted()).await {
            Ok(None) => {} // again next time
            Ok(Some(revision)) => checked = revision,
            Err(error) => tracing::warn!(%error, "failed to check compaction hash"),
        }
    }
}

/// The revision if that is done with: all members were compared, or some were found out.
async fn check_compaction(engine: &Engine, revision: i64) -> Result<Option<i64>> {
    let own = engine.hash(revision).await?;
    let others = ask_others(engine, revision, Duration::MAX).await;
    let count = 1 + others.len();
    let mut hashes = BTreeMap::from([(engine.identity().member, own.hash)]);
    for (peer, answer) in others {
        match answer {
            Ok(found) if found.hash.compacted == own.compacted => {
                hashes.insert(peer, found.hash.hash);
            }
            // It has been compacted further, or not yet so far.
            _ => tracing::warn!(revision, "peer-id" = format!("{peer:x}"), "Skipped peer's hash"),
        }
    }
    let corrupt = outvoted(&hashes, count);
    if corrupt.is_empty() {
        let is_whole = hashes.len() == count;
        if is_whole {
            tracing::info!(revision, hash = own.hash, "successfully checked hash on whole cluster");
        }
        return Ok(is_whole.then_some(revision));
    }
    for (member, hash) in &hashes {
        let member = format!("{member:x}");
        tracing::error!(revision, "member-id" = member, hash, "Detected compaction hash mismatch");
    }
    raise(engine, corrupt).await?;
    Ok(Some(revision))
}

/// The digests of all other members at `revision`, asked for at once, each within `limit` and the time limit of requests.
async fn ask_others(engine: &Engine, revision: i64, limit: Duration) -> Vec<(MemberId, Result<Digest>)> {
    let me = engine.identity().member;
    let ask = |peer: MemberId| async move {
        let asked = engine.ask(Whom::Member(peer), Question::Hash(revision));
        let answer = match tokio::time::timeout(limit, asked).await.unwrap_or(Err(Error::Timeout)) {
            Ok(Answer::Hash { hash, compacted, revision, current }) => {
                Ok(Digest { hash: Hash { hash, compacted, revision }, current })
            }
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        };
        if let Err(error) = &answer {
            tracing::warn!(
                "local-member-id" = format!("{me:x}"),
                "requested-revision" = revision,
                "remote-peer-id" = format!("{peer:x}"),
                %error,
                "failed hash kv request"
            );
        }
        (peer, answer)
    };
    let members = engine.members().into_iter().map(|member| member.id);
    join_all(members.filter(|id| *id != me).map(ask)).await
}

/// Raises the CORRUPT alarm for those that do not have it yet.
async fn raise(engine: &Engine, members: BTreeSet<MemberId>) -> Result<()> {
    let raised = engine.alarms();
    for member in members {
        if !raised.contains(&(member, AlarmKind::Corrupt)) {
            let alarm = Command::Alarm { activate: true, member, alarm: AlarmKind::Corrupt };
            engine.write(Origin::Server, alarm).await?;
        }
    }
    Ok(())
}

/// Whether two digests of the same state differ.
fn contradict(first: Hash, second: Hash) -> bool {
    first.hash != second.hash && first.revision == second.revision && first.compacted == second.compacted
}

/// What can't be in a follower, if the leader had the digest `first` at the same revision, and `second` when it had applied all
/// that the follower had.
fn objection(first: Hash, second: Hash, found: Digest) -> Option<&'static str> {
    if found.current > second.revision {
        Some("revision from follower must be less than or equal to leader's")
    } else if found.hash.compacted > second.compacted {
        Some("compact revision from follower must be less than or equal to leader's")
    } else if contradict(first, found.hash) {
        Some("same compact revision then hashes must match")
    } else {
        None
    }
}

/// Whose digest is not that of a majority of `count` members; none if all are equal. Without a majority nobody knows who is
/// right, and member 0 stands for all, as in etcd.
fn outvoted(hashes: &BTreeMap<MemberId, u32>, count: usize) -> BTreeSet<MemberId> {
    let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
    for hash in hashes.values() {
        *votes.entry(*hash).or_default() += 1;
    }
    if votes.len() <= 1 {
        return BTreeSet::new();
    }
    match votes.iter().find(|(_, votes)| **votes > count / 2) {
        Some((right, _)) => hashes.iter().filter(|(_, hash)| *hash != right).map(|(id, _)| *id).collect(),
        None => BTreeSet::from([0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: Hash = Hash { hash: 1, compacted: -1, revision: 7 };

    #[test]
    fn x_11_only_digests_of_the_same_state_contradict_each_other() {
        assert!(!contradict(HASH, HASH));
        assert!(contradict(HASH, Hash { hash: 2, ..HASH }));
        assert!(!contradict(HASH, Hash { hash: 2, revision: 8, ..HASH }));
        assert!(!contradict(HASH, Hash { hash: 2, compacted: 3, ..HASH }));
    }

    #[test]
    fn x_11_a_follower_is_neither_ahead_of_the_leader_nor_different() {
        let second = Hash { hash: 9, compacted: 3, revision: 8 };
        let check = |hash: Hash, current| objection(HASH, second, Digest { hash, current }).unwrap_or("fine");
        assert_eq!(check(HASH, 7), "fine");
        assert_eq!(check(HASH, 8), "fine");
        assert!(check(HASH, 9).starts_with("revision from follower"));
        let differs = Hash { hash: 2, ..HASH };
        assert!(check(differs, 7).contains("hashes must match"));
        // The leader's second digest stands on that one as well, and is of another revision.
        assert_eq!(check(Hash { compacted: 3, ..differs }, 7), "fine");
        assert!(check(Hash { compacted: 4, ..differs }, 7).starts_with("compact revision from follower"));
    }

    #[test]
    fn x_11_the_majority_is_right() {
        let outvoted = |hashes: &[(MemberId, u32)], count| {
            Vec::from_iter(outvoted(&hashes.iter().copied().collect(), count))
        };
        assert!(outvoted(&[(1, 5)], 3).is_empty());
        assert!(outvoted(&[(1, 5), (2, 5), (3, 5)], 3).is_empty());
        assert_eq!(outvoted(&[(1, 6), (2, 5), (3, 5)], 3), [1]);
        assert_eq!(outvoted(&[(1, 6), (2, 5)], 2), [0]);
        assert_eq!(outvoted(&[(1, 6), (2, 5)], 3), [0]);
        assert_eq!(outvoted(&[(1, 6), (2, 5), (3, 7)], 3), [0]);
    }
}
