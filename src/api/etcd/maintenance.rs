//! The Maintenance service: state, alarms, hashes, defragmentation.

use super::cluster::absent;
use super::{Etcd, error, snapshot};
use crate::engine::Origin;
use crate::engine::command::{AlarmKind, Command};
use crate::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::pb::etcdserverpb::maintenance_server::Maintenance;
use crate::pb::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, StatusRequest, StatusResponse,
};
use crate::version::{ETCD_VERSION, STORAGE_VERSION};
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
        let mut errors = Vec::new();
        if status.leader == 0 {
            errors.push(error::Error::NoLeader.message().to_owned());
        }
        for (member, kind) in self.engine.alarms() {
            errors.push(format!("memberID:{member} alarm:{}", alarm_type(kind).as_str_name()));
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
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: self
                .engine
                .limits()
                .quota
                .map_or(i64::MAX, |q| i64::try_from(q).unwrap_or(i64::MAX)),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        self.engine.defragment().await.map_err(error::status)?;
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let found = self.engine.hash(0).await.map_err(error::status)?;
        Ok(Response::new(HashResponse { header: Some(self.header_now()), hash: found.hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let found = self.engine.hash(request.into_inner().revision).await.map_err(error::status)?;
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

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.require_root(&request)?;
        Err(absent("MoveLeader"))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.require_root(&request)?;
        Err(absent("Downgrade"))
    }
}

impl Etcd {
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

fn alarm_member(member_id: u64, kind: AlarmKind) -> AlarmMember {
    AlarmMember { member_id, alarm: alarm_type(kind) as i32 }
}
