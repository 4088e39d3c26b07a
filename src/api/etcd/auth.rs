//! The Auth service: users, roles, permissions, and logins. All but logins and the state need the role root.

use super::kv::unexpected;
use super::{Etcd, convert, error};
use crate::auth::password::check_length;
use crate::auth::{Change, Error as AuthError};
use crate::engine::command::{Command, Outcome};
use crate::pb::etcdserverpb::auth_server::Auth;
use crate::pb::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
    ResponseHeader,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tonic::{Request, Response, Status};

impl Etcd {
    /// Refuses what only root may change, before anything costly is done. The applier looks again.
    fn check_change<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.check(request.metadata())?;
        self.require_root(request)
    }

    /// Gets a change through the log; the header of the answer.
    async fn change<T>(
        &self,
        request: &Request<T>,
        change: Change,
    ) -> Result<Option<ResponseHeader>, Status> {
        let origin = self.origin(request)?;
        match self.engine.write(origin, Command::Auth(change)).await.map_err(error::status)? {
            Outcome::Done { revision } => Ok(Some(self.header(revision))),
            other => Err(unexpected(&other)),
        }
    }

    /// The same for what needs no preparation.
    async fn check_and_change<T>(
        &self,
        request: &Request<T>,
        change: Change,
    ) -> Result<Option<ResponseHeader>, Status> {
        self.check_change(request)?;
        self.change(request, change).await
    }

    /// The same for a change with a new password. etcd hashes before it asks who calls; all that shows of it is which
    /// error comes first.
    fn check_change_of_password<T>(&self, request: &Request<T>, password: &str) -> Result<(), Status> {
        self.check(request.metadata())?;
        check_length(password).map_err(refused)?;
        self.require_root(request)
    }

    async fn hash_password(&self, password: String) -> Result<Vec<u8>, Status> {
        self.engine.hash_password(password).await.map_err(error::status)
    }

    /// Waits until this member knows of every change acknowledged before.
    async fn caught_up(&self) -> Result<(), Status> {
        self.engine.read_index().await.map_err(error::status)
    }
}

fn refused(error: AuthError) -> Status {
    error::status(error.into())
}

#[tonic::async_trait]
impl Auth for Etcd {
    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        let header = self.check_and_change(&request, Change::Enable).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let header = self.check_and_change(&request, Change::Disable).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        self.check(request.metadata())?;
        self.caught_up().await?;
        self.caller(&request)?; // nobody need be known, but a bad token is an error
        let state = self.engine.auth_state();
        Ok(Response::new(AuthStatusResponse {
            header: Some(self.header_now()),
            enabled: state.is_enabled(),
            auth_revision: state.revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        self.check(request.metadata())?;
        let AuthenticateRequest { name, password } = request.into_inner();
        let (token, revision) = self.engine.authenticate(&name, &password).await.map_err(error::status)?;
        Ok(Response::new(AuthenticateResponse { header: Some(self.header(revision)), token }))
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let AuthUserAddRequest { name, password, options, .. } = request.get_ref().clone();
        let no_password = options.is_some_and(|options| options.no_password);
        self.check_change_of_password(&request, if no_password { "" } else { &password })?;
        let password = if no_password { Vec::new() } else { self.hash_password(password).await? };
        let header = self.change(&request, Change::UserAdd { name, password, no_password }).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        self.check(request.metadata())?;
        self.caught_up().await?;
        let caller = self.caller(&request)?;
        let (state, name) = (self.engine.auth_state(), &request.get_ref().name);
        // Who is nobody has an empty name, like a user that is asked for without one.
        if caller.as_ref().map_or("", |c| &c.user) != name {
            state.check_root(caller.as_ref()).map_err(refused)?;
        }
        let user = state.user(name).ok_or_else(|| refused(AuthError::UserNotFound))?;
        let roles = user.roles.clone();
        Ok(Response::new(AuthUserGetResponse { header: Some(self.header_now()), roles }))
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        self.check(request.metadata())?;
        self.caught_up().await?;
        self.require_root(&request)?;
        let users = self.engine.auth_state().users().map(|user| user.name.clone()).collect();
        Ok(Response::new(AuthUserListResponse { header: Some(self.header_now()), users }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let name = request.get_ref().name.clone();
        let header = self.check_and_change(&request, Change::UserDelete { name }).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    /// A hash may come in the place of a password, and an empty password is none.
    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let AuthUserChangePasswordRequest { name, password, hashed_password } = request.get_ref().clone();
        self.check_change_of_password(&request, &password)?;
        let password = if password.is_empty() {
            STANDARD.decode(hashed_password).map_err(|_| refused(AuthError::NoPasswordUser))?
        } else {
            self.hash_password(password).await?
        };
        let header = self.change(&request, Change::UserChangePassword { name, password }).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let AuthUserGrantRoleRequest { user: name, role } = request.get_ref().clone();
        let header = self.check_and_change(&request, Change::UserGrantRole { name, role }).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let AuthUserRevokeRoleRequest { name, role } = request.get_ref().clone();
        let header = self.check_and_change(&request, Change::UserRevokeRole { name, role }).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        let name = request.get_ref().name.clone();
        let header = self.check_and_change(&request, Change::RoleAdd { name }).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        self.check(request.metadata())?;
        self.caught_up().await?;
        let caller = self.caller(&request)?;
        let (state, name) = (self.engine.auth_state(), &request.get_ref().role);
        let user = caller.as_ref().and_then(|caller| state.user(&caller.user));
        if !user.is_some_and(|user| user.has_role(name)) {
            state.check_root(caller.as_ref()).map_err(refused)?;
        }
        let role = state.role(name).ok_or_else(|| refused(AuthError::RoleNotFound))?;
        let perm = convert::auth::permissions(role);
        Ok(Response::new(AuthRoleGetResponse { header: Some(self.header_now()), perm }))
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        self.check(request.metadata())?;
        self.caught_up().await?;
        self.require_root(&request)?;
        let roles = self.engine.auth_state().roles().map(|role| role.name.clone()).collect();
        Ok(Response::new(AuthRoleListResponse { header: Some(self.header_now()), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let name = request.get_ref().role.clone();
        let header = self.check_and_change(&request, Change::RoleDelete { name }).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        self.check_change(&request)?;
        let AuthRoleGrantPermissionRequest { name, perm } = request.get_ref().clone();
        let perm = perm.ok_or(error::Error::PermissionNotGiven)?;
        let permission = convert::auth::permission(perm).ok_or(error::Error::InvalidAuthManagement)?;
        let header = self.change(&request, Change::RoleGrantPermission { name, permission }).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let AuthRoleRevokePermissionRequest { role: name, key, range_end } = request.get_ref().clone();
        let change = Change::RoleRevokePermission { name, key: key.into(), range_end: range_end.into() };
        let header = self.check_and_change(&request, change).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}
