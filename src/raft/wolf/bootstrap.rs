//! Begins a cluster, when somebody calls `Bootstrap`. Called by `server`.

use super::server::{Failure, Inner};
use super::{Client, ErrorCode, Options, json};
use crate::raft::Peer;
use crate::raft::network::Activity;
use crate::types::MemberId;
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long another member may take to say whether it is in a cluster.
const METRICS_TIME_MAX: Duration = Duration::from_secs(1);

impl Inner {
    /// Founds a cluster of the first `wanted` members of the table.
    pub(super) async fn begin(&self, wanted: u64) -> Result<(), Failure> {
        let failed = |msg: String| (ErrorCode::RaftBootstrapFailed, msg);
        if wanted == 0 {
            return Err(failed("number_of_nodes must be at least 1".into()));
        }
        let first = usize::try_from(wanted).ok().and_then(|n| self.table.get(..n));
        let first = first.ok_or_else(|| {
            failed(format!("number_of_nodes is {wanted}, but only {} are known", self.table.len()))
        })?;
        if !first.iter().any(|(id, _)| *id == self.me) {
            return Err(failed(format!("member {} is not among the first {wanted}", self.me)));
        }
        // Asked before others are, so that a second call costs nothing.
        if self.raft.is_initialized().await.map_err(|e| failed(e.to_string()))? {
            let leader = self.raft.metrics().borrow_watched().current_leader;
            let leader = leader.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            return Err(failed(format!(
                "NotAllowed: this member is in a cluster already; its leader is {leader}"
            )));
        }
        self.check_others().await.map_err(failed)?;
        let members: BTreeMap<MemberId, Peer> = first.iter().cloned().collect();
        self.raft.initialize(members).await.map_err(|e| failed(format!("NotAllowed or impossible: {e}")))
    }

    /// Nobody whom we can ask may be in a cluster without us: there would be two.
    async fn check_others(&self) -> Result<(), String> {
        let questions = self.links.iter().map(|link| async move {
            let mut client = Client::new(link.clone(), Options::default(), Activity::default());
            let metrics = tokio::time::timeout(METRICS_TIME_MAX, client.get_metrics(None)).await;
            match metrics {
                Ok(Ok((metrics, _))) if json::is_elsewhere(&metrics, self.me) => Err(link.target()),
                _ => Ok(()),
            }
        });
        let answers = futures_util::future::join_all(questions).await;
        match answers.into_iter().find_map(Result::err) {
            Some(id) => Err(format!("member {id} is in a cluster that does not know this member")),
            None => Ok(()),
        }
    }
}
