//! A request in etcd's raft log, in our words. Pure.

use super::backend::alarm_kind;
use crate::api::etcd::convert;
use crate::auth::{Caller, Change};
use crate::engine::command::Command;
use crate::engine::{LEASE_TTL_MAX_SECS, Origin};
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::types::MemberId;
use base64::Engine as _;
use prost::Message;

/// The least that etcd grants with its default election timeout, seconds (L-2).
const TTL_MIN_SECS: i64 = 2;

/// A request as it is in the log. What is missing here changes nothing that is stored.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What the old store of etcd 3.4 and before was told; of its own members only, by now.
    #[prost(message, optional, tag = "2")]
    v2: Option<OldRequest>,
    #[prost(message, optional, tag = "4")]
    put: Option<pb::PutRequest>,
    #[prost(message, optional, tag = "5")]
    delete_range: Option<pb::DeleteRangeRequest>,
    #[prost(message, optional, tag = "6")]
    txn: Option<pb::TxnRequest>,
    #[prost(message, optional, tag = "7")]
    compaction: Option<pb::CompactionRequest>,
    #[prost(message, optional, tag = "8")]
    lease_grant: Option<pb::LeaseGrantRequest>,
    #[prost(message, optional, tag = "9")]
    lease_revoke: Option<pb::LeaseRevokeRequest>,
    #[prost(message, optional, tag = "10")]
    alarm: Option<pb::AlarmRequest>,
    #[prost(message, optional, tag = "11")]
    lease_checkpoint: Option<LeaseCheckpoints>,
    #[prost(message, optional, tag = "100")]
    header: Option<Header>,
    #[prost(message, optional, tag = "1000")]
    auth_enable: Option<pb::AuthEnableRequest>,
    #[prost(message, optional, tag = "1011")]
    auth_disable: Option<pb::AuthDisableRequest>,
    #[prost(message, optional, tag = "1100")]
    auth_user_add: Option<pb::AuthUserAddRequest>,
    #[prost(message, optional, tag = "1101")]
    auth_user_delete: Option<pb::AuthUserDeleteRequest>,
    #[prost(message, optional, tag = "1103")]
    auth_user_change_password: Option<pb::AuthUserChangePasswordRequest>,
    #[prost(message, optional, tag = "1104")]
    auth_user_grant_role: Option<pb::AuthUserGrantRoleRequest>,
    #[prost(message, optional, tag = "1105")]
    auth_user_revoke_role: Option<pb::AuthUserRevokeRoleRequest>,
    #[prost(message, optional, tag = "1200")]
    auth_role_add: Option<pb::AuthRoleAddRequest>,
    #[prost(message, optional, tag = "1201")]
    auth_role_delete: Option<pb::AuthRoleDeleteRequest>,
    #[prost(message, optional, tag = "1203")]
    auth_role_grant_permission: Option<pb::AuthRoleGrantPermissionRequest>,
    #[prost(message, optional, tag = "1204")]
    auth_role_revoke_permission: Option<pb::AuthRoleRevokePermissionRequest>,
    #[prost(message, optional, tag = "1301")]
    member_attributes: Option<MemberAttributes>,
}

/// Who asked.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "2")]
    user: String,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

/// A request to the old store, which may also be in the log as it is.
#[derive(Clone, PartialEq, Message)]
struct OldRequest {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseCheckpoints {
    #[prost(message, repeated, tag = "1")]
    checkpoints: Vec<LeaseCheckpoint>,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseCheckpoint {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    remaining_ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct MemberAttributes {
    #[prost(uint64, tag = "1")]
    member: u64,
    #[prost(message, optional, tag = "2")]
    attributes: Option<Attributes>,
}

/// What a member makes known of itself.
#[derive(Clone, PartialEq, Message)]
pub struct Attributes {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Where clients reach it.
    #[prost(string, repeated, tag = "2")]
    pub client_urls: Vec<String>,
}

impl Request {
    /// Reads an entry's data; a leader's first entry has none.
    pub fn read(data: &[u8]) -> Option<Request> {
        match Request::decode(data) {
            Ok(request) => Some(request),
            Err(_) => {
                let old = OldRequest::decode(data).ok()?;
                (!old.method.is_empty()).then(Request::default)
            }
        }
    }

    /// A member, and what it made known of itself.
    pub fn published(&self) -> Option<(MemberId, &Attributes)> {
        let published = self.member_attributes.as_ref()?;
        Some((published.member, published.attributes.as_ref()?))
    }

    /// The same in our words, with who may be asked about it; nothing if nothing is stored of it.
    pub fn into_command(mut self) -> Option<(Origin, Command)> {
        if self.v2.is_some() {
            return None;
        }
        let origin = self.header.take().map(Header::origin).unwrap_or(Origin::Client(None));
        let command = self.client_command()?;
        // etcd asks for a permission when it carries these out, and for others before they are in the log.
        let is_checked = matches!(
            command,
            Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::LeaseRevoke { .. }
                | Command::Auth(_)
        );
        Some((if is_checked { origin } else { Origin::Server }, command))
    }

    fn client_command(mut self) -> Option<Command> {
        if let Some(change) = self.auth_change() {
            return Some(Command::Auth(change));
        }
        Some(if let Some(request) = self.put {
            Command::Put(convert::put(request))
        } else if let Some(request) = self.delete_range {
            Command::DeleteRange(convert::delete_range(request))
        } else if let Some(request) = self.txn {
            Command::Txn(convert::txn(request))
        } else if let Some(request) = self.compaction {
            Command::Compact { revision: request.revision }
        } else if let Some(request) = self.lease_grant {
            if request.id == 0 || request.ttl > LEASE_TTL_MAX_SECS {
                return None;
            }
            Command::LeaseGrant { id: request.id, ttl_secs: request.ttl.max(TTL_MIN_SECS) }
        } else if let Some(request) = self.lease_revoke {
            Command::LeaseRevoke { ids: vec![request.id], expired: false }
        } else if let Some(request) = self.lease_checkpoint {
            let checkpoints = request.checkpoints.iter();
            Command::LeaseCheckpoint(checkpoints.map(|c| (c.id, c.remaining_ttl)).collect())
        } else {
            let request = self.alarm?;
            let activate = match request.action() {
                AlarmAction::Get => return None,
                AlarmAction::Activate => true,
                AlarmAction::Deactivate => false,
            };
            Command::Alarm { activate, member: request.member_id, alarm: alarm_kind(request.alarm)? }
        })
    }

    fn auth_change(&mut self) -> Option<Change> {
        Some(if self.auth_enable.is_some() {
            Change::Enable
        } else if self.auth_disable.is_some() {
            Change::Disable
        } else if let Some(request) = self.auth_user_add.take() {
            let no_password = request.options.is_some_and(|options| options.no_password);
            let password = password(&request.hashed_password)?;
            Change::UserAdd { name: request.name, password, no_password }
        } else if let Some(request) = self.auth_user_delete.take() {
            Change::UserDelete { name: request.name }
        } else if let Some(request) = self.auth_user_change_password.take() {
            Change::UserChangePassword { name: request.name, password: password(&request.hashed_password)? }
        } else if let Some(request) = self.auth_user_grant_role.take() {
            Change::UserGrantRole { name: request.user, role: request.role }
        } else if let Some(request) = self.auth_user_revoke_role.take() {
            Change::UserRevokeRole { name: request.name, role: request.role }
        } else if let Some(request) = self.auth_role_add.take() {
            Change::RoleAdd { name: request.name }
        } else if let Some(request) = self.auth_role_delete.take() {
            Change::RoleDelete { name: request.role }
        } else if let Some(request) = self.auth_role_grant_permission.take() {
            let permission = convert::auth::permission(request.perm?)?;
            Change::RoleGrantPermission { name: request.name, permission }
        } else {
            let request = self.auth_role_revoke_permission.take()?;
            let (key, range_end) = (request.key.into(), request.range_end.into());
            Change::RoleRevokePermission { name: request.role, key, range_end }
        })
    }
}

impl Header {
    fn origin(self) -> Origin {
        let caller = Caller { user: self.user.into(), revision: self.auth_revision, is_pinned: true };
        Origin::Client((!caller.user.is_empty()).then_some(caller))
    }
}

/// A bcrypt hash, which the log has in base64.
fn password(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
