//! The Maintenance service: state, alarms, hashes, defragmentation.

use super::{Etcd, error, snapshot};
use crate::engine::command::{AlarmKind, Command};
use crate::engine::versions::ClusterVersion;
use crate::engine::{self, Origin};
use crate::metrics::{self, METRICS};
use crate::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::pb::etcdserverpb::downgrade_request::DowngradeAction;
use crate::pb::etcdserverpb::maintenance_server::Maintenance;
use crate::pb::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, StatusRequest, StatusResponse,
};
use crate::version::ETCD_VERSION;
use std::time::Instant;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Maintenance for Etcd {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        self.check(request.metadata())?;
        if request.get_ref().action == AlarmAction::Get as i32 {
            self.require_user(&request)?;
        } else {
            self.require_root(&request)?;
        }
        let origin = self.origin(&request)?;
        let AlarmRequest { action, member_id, alarm } = request.into_inner();
        let kind = match AlarmType::try_from(alarm) {
            Ok(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Ok(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            Ok(AlarmType::None) | Err(_) => None,
        };
        let alarms = match AlarmAction::try_from(action) {
            Ok(AlarmAction::Get) if kind.is_none() && alarm != AlarmType::None as i32 => Vec::new(),
            Ok(AlarmAction::Get) => self.alarms_of(kind),
            Ok(AlarmAction::Activate) => self.set_alarm(origin, true, member_id, kind).await?,
            Ok(AlarmAction::Deactivate) => self.set_alarm(origin, false, member_id, kind).await?,
            Err(_) => Vec::new(),
        };
        Ok(Response::new(AlarmResponse { header: Some(self.header_now()), alarms }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.check(request.metadata())?;
        self.require_user(&request)?;
        let status = self.engine.status();
        let store = self.engine.store_status();
        let versions = self.engine.versions();
        let mut errors = Vec::new();
        if status.leader == 0 {
            errors.push(error::Error::NoLeader.message().to_owned());
        }
        for (member, kind) in self.engine.alarms() {
            errors.push(alarm_text(member, kind));
        }
        Ok(Response::new(StatusResponse {
            header: Some(self.header_now()),
            version: ETCD_VERSION.to_owned(),
            db_size: store.file_bytes as i64,
            leader: status.leader,
            raft_index: status.committed.max(status.applied),
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors,
            db_size_in_use: store.bytes_in_use.min(store.file_bytes) as i64,
            is_learner: status.is_learner,
            storage_version: versions.cluster.to_string(),
            db_size_quota: self.engine.limits().quota.map_or(-1, |q| i64::try_from(q).unwrap_or(i64::MAX)),
            downgrade_info: Some(DowngradeInfo {
                enabled: versions.downgrade.is_some(),
                target_version: versions.downgrade.map_or_else(String::new, |target| target.to_string()),
            }),
        }))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        tracing::info!("starting defragment");
        let serving = self.serving.defragmenting();
        let result = self.engine.defragment().await;
        drop(serving);
        result.map_err(error::status).inspect_err(|status| {
            tracing::warn!(error = status.message(), "failed to defragment");
        })?;
        tracing::info!("finished defragment");
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let begin = Instant::now();
        let found = self.engine.hash(0).await.map_err(error::status)?;
        metrics::observe_since(&METRICS.mvcc.hash, begin);
        Ok(Response::new(HashResponse { header: Some(self.header_now()), hash: found.hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let begin = Instant::now();
        let found = self.engine.hash(request.into_inner().revision).await.map_err(error::status)?;
        metrics::observe_since(&METRICS.mvcc.hash_rev, begin);
        Ok(Response::new(HashKvResponse {
            header: Some(self.header_now()),
            hash: found.hash,
            compact_revision: found.compacted,
            hash_revision: found.revision,
        }))
    }

    type SnapshotStream = snapshot::Messages;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.require_root(&request)?;
        Ok(Response::new(self.send_backup().await?))
    }

    /// Only the leader hands over, to another voter; it leads itself already.
    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let leader = self.engine.status().leader;
        if leader != self.engine.identity().member {
            return Err(error::Error::NotLeader.into());
        }
        let target = request.into_inner().target_id;
        if !self.engine.members().iter().any(|member| member.id == target && !member.is_learner) {
            return Err(error::Error::BadTransferee.into());
        }
        if target != leader {
            self.engine.move_leader(target).await.map_err(|error| match error {
                engine::Error::Timeout => error::Error::TransferTimeout.into(),
                other => error::status(other),
            })?;
        }
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let DowngradeRequest { action, version } = request.into_inner();
        match DowngradeAction::try_from(action) {
            Ok(DowngradeAction::Validate) => {
                self.downgrade_target(&version).await?;
            }
            Ok(DowngradeAction::Enable) => {
                let target = self.downgrade_target(&version).await.inspect_err(|status| {
                    tracing::warn!(error = status.message(), "reject downgrade request");
                })?;
                self.engine.set_downgrade(Some(target)).await.map_err(error::status)?;
            }
            Ok(DowngradeAction::Cancel) => self.cancel_downgrade().await,
            Err(_) => return Err(error::Error::UnknownMethod.into()),
        }
        let version = self.engine.versions().cluster.short();
        Ok(Response::new(DowngradeResponse { header: Some(self.header_now()), version }))
    }
}

impl Etcd {
    /// Reads and checks where a downgrade is to lead.
    async fn downgrade_target(&self, version: &str) -> Result<ClusterVersion, Status> {
        let target = ClusterVersion::parse(version).ok_or(error::Error::BadDowngradeFormat)?;
        self.engine.read_index().await.map_err(error::status)?;
        let versions = self.engine.versions();
        if versions.cluster.below() != Some(target) {
            return Err(error::Error::BadDowngradeTarget.into());
        }
        if versions.downgrade.is_some() {
            return Err(error::Error::DowngradeInProgress.into());
        }
        Ok(target)
    }

    /// Errors are only logged, as in etcd.
    async fn cancel_downgrade(&self) {
        if self.engine.versions().downgrade.is_none() {
            tracing::warn!(error = "etcdserver: no inflight downgrade job", "failed to cancel downgrade");
        } else if let Err(error) = self.engine.set_downgrade(None).await {
            tracing::warn!(%error, "failed to cancel downgrade");
        }
    }

    fn alarms_of(&self, kind: Option<AlarmKind>) -> Vec<AlarmMember> {
        let alarms = self.engine.alarms().into_iter();
        alarms.filter(|(_, k)| kind.is_none_or(|kind| kind == *k)).map(|(m, k)| alarm_member(m, k)).collect()
    }

    /// Raises or clears one alarm. NONE changes nothing; clearing what is not there is no error.
    async fn set_alarm(
        &self,
        origin: Origin,
        activate: bool,
        member: u64,
        kind: Option<AlarmKind>,
    ) -> Result<Vec<AlarmMember>, Status> {
        let Some(alarm) = kind else { return Ok(Vec::new()) };
        if !activate && !self.engine.alarms().contains(&(member, alarm)) {
            return Ok(Vec::new());
        }
        self.engine.write(origin, Command::Alarm { activate, member, alarm }).await.map_err(error::status)?;
        Ok(vec![alarm_member(member, alarm)])
    }
}

fn alarm_type(kind: AlarmKind) -> AlarmType {
    match kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    }
}

/// The text form of Go's protobuf, which leaves zeros out.
fn alarm_text(member: u64, kind: AlarmKind) -> String {
    let alarm = alarm_type(kind).as_str_name();
    if member == 0 { format!("alarm:{alarm}") } else { format!("memberID:{member} alarm:{alarm}") }
}

fn alarm_member(member_id: u64, kind: AlarmKind) -> AlarmMember {
    AlarmMember { member_id, alarm: alarm_type(kind) as i32 }
}
