//! A server with users, and callers with and without tokens: raw tonic stubs, every request under its caller's name.
//!
//! Nothing here retries or logs in again: what the server answers is what a test sees. Passwords are the users' names.

use std::fmt::Debug;

use kvist::pb::authpb::{Permission, UserAddOptions, permission::Type};
use kvist::pb::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::support::Server;

pub const USER_EMPTY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
pub const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
pub const INVALID_TOKEN: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");
pub const OLD_REVISION: (Code, &str) = (Code::InvalidArgument, "etcdserver: revision of auth store is old");
pub const AUTH_FAILED: (Code, &str) =
    (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");

pub type Answer<T> = Result<T, Status>;

/// Asserts that a call failed with this code and text.
pub fn refuses<T: Debug>(answer: Answer<T>, (code, text): (Code, &str)) {
    match answer {
        Ok(answer) => panic!("must fail with {text:?}, but got {answer:?}"),
        Err(status) => assert_eq!((status.code(), status.message()), (code, text)),
    }
}

/// A server whose passwords are cheap to hash.
pub fn server(args: &[&str]) -> Server {
    Server::start_with(&[&["--bcrypt-cost=4"], args].concat())
}

/// Somebody with a connection: a user with a token, or nobody in particular.
#[derive(Clone)]
pub struct As {
    pub channel: Channel,
    pub token: Option<String>,
}

impl As {
    /// Nobody in particular.
    pub async fn nobody(server: &Server) -> As {
        let endpoint = Endpoint::from_shared(server.url()).expect("a URL");
        As { channel: endpoint.connect().await.expect("connect"), token: None }
    }

    /// The same connection with a token.
    pub fn with_token(&self, token: impl Into<String>) -> As {
        As { channel: self.channel.clone(), token: Some(token.into()) }
    }

    /// The same connection as a user.
    pub async fn login(&self, name: &str) -> As {
        let token = self.authenticate(name, name).await.expect("log in").token;
        self.with_token(token)
    }

    /// A request under this name.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().expect("a token is ASCII"));
        }
        request
    }

    pub fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    // Users and roles.

    pub async fn authenticate(&self, name: &str, password: &str) -> Answer<pb::AuthenticateResponse> {
        let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
        Ok(self.auth().authenticate(self.request(request)).await?.into_inner())
    }

    pub async fn enable(&self) -> Answer<pb::AuthEnableResponse> {
        Ok(self.auth().auth_enable(self.request(pb::AuthEnableRequest {})).await?.into_inner())
    }

    pub async fn disable(&self) -> Answer<pb::AuthDisableResponse> {
        Ok(self.auth().auth_disable(self.request(pb::AuthDisableRequest {})).await?.into_inner())
    }

    pub async fn status(&self) -> Answer<pb::AuthStatusResponse> {
        Ok(self.auth().auth_status(self.request(pb::AuthStatusRequest {})).await?.into_inner())
    }

    /// The auth revision.
    pub async fn auth_revision(&self) -> u64 {
        self.status().await.expect("auth status").auth_revision
    }

    pub async fn user_add(&self, name: &str) -> Answer<pb::AuthUserAddResponse> {
        self.user_add_with(name, name, false).await
    }

    pub async fn user_add_with(
        &self,
        name: &str,
        password: &str,
        no_password: bool,
    ) -> Answer<pb::AuthUserAddResponse> {
        let request = pb::AuthUserAddRequest {
            name: name.into(),
            password: password.into(),
            options: Some(UserAddOptions { no_password }),
            ..Default::default()
        };
        Ok(self.auth().user_add(self.request(request)).await?.into_inner())
    }

    pub async fn user_delete(&self, name: &str) -> Answer<pb::AuthUserDeleteResponse> {
        let request = pb::AuthUserDeleteRequest { name: name.into() };
        Ok(self.auth().user_delete(self.request(request)).await?.into_inner())
    }

    pub async fn change_password(
        &self,
        name: &str,
        password: &str,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        let request = pb::AuthUserChangePasswordRequest {
            name: name.into(),
            password: password.into(),
            ..Default::default()
        };
        Ok(self.auth().user_change_password(self.request(request)).await?.into_inner())
    }

    pub async fn grant_role(&self, user: &str, role: &str) -> Answer<pb::AuthUserGrantRoleResponse> {
        let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        Ok(self.auth().user_grant_role(self.request(request)).await?.into_inner())
    }

    pub async fn revoke_role(&self, user: &str, role: &str) -> Answer<pb::AuthUserRevokeRoleResponse> {
        let request = pb::AuthUserRevokeRoleRequest { name: user.into(), role: role.into() };
        Ok(self.auth().user_revoke_role(self.request(request)).await?.into_inner())
    }

    /// Names of the roles of a user.
    pub async fn user_get(&self, name: &str) -> Answer<Vec<String>> {
        let request = pb::AuthUserGetRequest { name: name.into() };
        Ok(self.auth().user_get(self.request(request)).await?.into_inner().roles)
    }

    pub async fn user_list(&self) -> Answer<Vec<String>> {
        Ok(self.auth().user_list(self.request(pb::AuthUserListRequest {})).await?.into_inner().users)
    }

    pub async fn role_add(&self, name: &str) -> Answer<pb::AuthRoleAddResponse> {
        let request = pb::AuthRoleAddRequest { name: name.into() };
        Ok(self.auth().role_add(self.request(request)).await?.into_inner())
    }

    pub async fn role_delete(&self, name: &str) -> Answer<pb::AuthRoleDeleteResponse> {
        let request = pb::AuthRoleDeleteRequest { role: name.into() };
        Ok(self.auth().role_delete(self.request(request)).await?.into_inner())
    }

    pub async fn role_get(&self, name: &str) -> Answer<Vec<Permission>> {
        let request = pb::AuthRoleGetRequest { role: name.into() };
        Ok(self.auth().role_get(self.request(request)).await?.into_inner().perm)
    }

    pub async fn role_list(&self) -> Answer<Vec<String>> {
        Ok(self.auth().role_list(self.request(pb::AuthRoleListRequest {})).await?.into_inner().roles)
    }

    pub async fn grant(
        &self,
        role: &str,
        kind: Type,
        key: &str,
        range_end: &str,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        let perm = Some(permission(kind, key, range_end));
        let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm };
        Ok(self.auth().role_grant_permission(self.request(request)).await?.into_inner())
    }

    pub async fn revoke(
        &self,
        role: &str,
        key: &str,
        range_end: &str,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.into(),
            key: key.into(),
            range_end: range_end.into(),
        };
        Ok(self.auth().role_revoke_permission(self.request(request)).await?.into_inner())
    }

    // Keys and leases.

    pub async fn put(&self, request: pb::PutRequest) -> Answer<pb::PutResponse> {
        Ok(self.kv().put(self.request(request)).await?.into_inner())
    }

    pub async fn range(&self, request: pb::RangeRequest) -> Answer<pb::RangeResponse> {
        Ok(self.kv().range(self.request(request)).await?.into_inner())
    }

    pub async fn delete(&self, request: pb::DeleteRangeRequest) -> Answer<pb::DeleteRangeResponse> {
        Ok(self.kv().delete_range(self.request(request)).await?.into_inner())
    }

    pub async fn txn(&self, request: pb::TxnRequest) -> Answer<pb::TxnResponse> {
        Ok(self.kv().txn(self.request(request)).await?.into_inner())
    }

    pub async fn lease_grant(&self, id: i64) -> Answer<pb::LeaseGrantResponse> {
        let request = pb::LeaseGrantRequest { ttl: 600, id };
        Ok(self.lease().lease_grant(self.request(request)).await?.into_inner())
    }

    pub async fn lease_revoke(&self, id: i64) -> Answer<pb::LeaseRevokeResponse> {
        let request = pb::LeaseRevokeRequest { id };
        Ok(self.lease().lease_revoke(self.request(request)).await?.into_inner())
    }

    pub async fn time_to_live(&self, id: i64, keys: bool) -> Answer<pb::LeaseTimeToLiveResponse> {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        Ok(self.lease().lease_time_to_live(self.request(request)).await?.into_inner())
    }

    pub async fn leases(&self) -> Answer<pb::LeaseLeasesResponse> {
        let request = self.request(pb::LeaseLeasesRequest {});
        Ok(self.lease().lease_leases(request).await?.into_inner())
    }

    /// One renewal on a stream of its own.
    pub async fn keep_alive(&self, id: i64) -> Answer<pb::LeaseKeepAliveResponse> {
        let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut answers = self.lease().lease_keep_alive(self.request(requests)).await?.into_inner();
        Ok(answers.message().await?.expect("an answer"))
    }
}

pub fn permission(kind: Type, key: &str, range_end: &str) -> Permission {
    Permission { perm_type: kind as i32, key: key.into(), range_end: range_end.into() }
}

/// Makes a user with a role of the same name, which has these permissions.
pub async fn add_user(by: &As, name: &str, permissions: &[(Type, &str, &str)]) {
    by.user_add(name).await.expect("add a user");
    by.role_add(name).await.expect("add a role");
    by.grant_role(name, name).await.expect("grant a role");
    for (kind, key, range_end) in permissions {
        by.grant(name, *kind, key, range_end).await.expect("grant a permission");
    }
}

/// Adds the user root and turns auth on; returns root.
pub async fn enable(nobody: &As) -> As {
    nobody.user_add("root").await.expect("add root");
    nobody.grant_role("root", "root").await.expect("grant root");
    nobody.enable().await.expect("enable");
    nobody.login("root").await
}

/// A server with auth on, root, and nobody.
pub async fn with_root(args: &[&str]) -> (Server, As, As) {
    let server = server(args);
    let nobody = As::nobody(&server).await;
    let root = enable(&nobody).await;
    (server, root, nobody)
}
