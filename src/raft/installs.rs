//! Snapshots of other members, on their way to consensus: one at a time. Called by the services of both transports.
//!
//! Two that overlap let openraft panic (openraft #2116, see `install_race_test`). So the next one waits until the one before is in
//! place, even if the call that brought that one has ended meanwhile: its leader may have been replaced, or the connection
//! broken.

use super::{Snapshot, SnapshotData, Types, Vote};
use openraft::Raft;
use openraft::storage::RaftStateMachine;
use std::sync::Arc;
use tokio::sync::Mutex;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Installs(Arc<Mutex<()>>);

impl Installs {
    /// Installs a snapshot of the leader that `vote` is for; gives the vote that this member stands by. Goes on to its end if
    /// nobody waits any more. An error: consensus has failed.
    pub async fn install<M>(
        &self,
        raft: &Raft<Types, M>,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<Vote, String>
    where
        M: RaftStateMachine<Types, SnapshotData = SnapshotData>,
    {
        let turn = Arc::clone(&self.0).lock_owned().await;
        let raft = raft.clone();
        let install = tokio::spawn(async move {
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            drop(turn);
            installed
        });
        match install.await {
            Ok(Ok(answer)) => Ok(answer.vote),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}
