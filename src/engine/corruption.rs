//! Checks that what is stored is what it was. With one member there is nobody to compare with: what remains is that
//! everything can be read at the start, and that the same state gives the same digest twice.
//!
//! Called by `server`: `initial_check` before clients are served, `check_now_and_then` as a chore.

use super::command::{AlarmKind, Command};
use super::{Engine, Hash, Origin, Result};
use std::time::Duration;

/// Reads and digests everything, as etcd does behind the gate `InitialCorruptCheck`. An error: the state can't be read.
pub async fn initial_check(engine: &Engine) -> Result<()> {
    let id = format!("{:x}", engine.identity().member);
    tracing::info!("local-member-id" = id, "starting initial corruption check");
    let hash = engine.hash(0).await?;
    tracing::info!(
        "local-member-id" = id,
        "local-member-revision" = hash.revision,
        "local-member-compact-revision" = hash.compacted,
        "local-member-hash" = hash.hash,
        "initial corruption checking passed; no corruption"
    );
    Ok(())
}

/// Checks every `interval`, as `--corrupt-check-time` has it. The CORRUPT alarm is raised when two digests of the same state
/// differ.
pub async fn check_now_and_then(engine: Engine, interval: Duration) {
    let id = format!("{:x}", engine.identity().member);
    tracing::info!("local-member-id" = id, ?interval, "enabled corruption checking");
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = check(&engine).await {
            tracing::warn!(%error, "failed to check hash KV");
        }
    }
}

async fn check(engine: &Engine) -> Result<()> {
    let first = engine.hash(0).await?;
    engine.read_index().await?;
    let second = engine.hash(0).await?;
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
        let member = engine.identity().member;
        engine
            .write(Origin::Server, Command::Alarm { activate: true, member, alarm: AlarmKind::Corrupt })
            .await?;
    }
    tracing::info!("number-of-peers-checked" = 0, "finished peer corruption check");
    Ok(())
}

/// Whether two digests of the same state differ.
fn contradict(first: Hash, second: Hash) -> bool {
    first.hash != second.hash && first.revision == second.revision && first.compacted == second.compacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_11_only_digests_of_the_same_state_contradict_each_other() {
        let hash = Hash { hash: 1, compacted: -1, revision: 7 };
        assert!(!contradict(hash, hash));
        assert!(contradict(hash, Hash { hash: 2, ..hash }));
        assert!(!contradict(hash, Hash { hash: 2, revision: 8, ..hash }));
        assert!(!contradict(hash, Hash { hash: 2, compacted: 3, ..hash }));
    }
}
