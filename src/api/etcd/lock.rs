//! v3lockpb.Lock: a lock is the oldest key below its name (E-1, E-2).

use super::Etcd;
use super::queue::{
    Requester, created_at, delete, first_created, get, key_of, op, pair, prefix_of, put, unknown,
};
use crate::pb::etcdserverpb::kv_server::Kv;
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::{DeleteRangeRequest, ResponseHeader, TxnRequest};
use crate::pb::v3lockpb::lock_server::Lock;
use crate::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Lock for Etcd {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        self.check(request.metadata())?;
        let (requester, LockRequest { name, lease }) = Requester::of(self, request);
        let lease = requester.session(lease).await?;
        let prefix = prefix_of(&name);
        let key = key_of(&prefix, lease);
        let owner = || op(Op::RequestRange(first_created(&prefix)));
        let entered = requester
            .txn(TxnRequest {
                compare: vec![created_at(&key, 0)],
                success: vec![put(&key, Vec::new(), lease), owner()],
                failure: vec![op(Op::RequestRange(get(&key))), owner()],
            })
            .await?;
        let mut header = entered.header.unwrap_or_default();
        let queued_before = if entered.succeeded { None } else { pair(&entered, 0) };
        let revision = queued_before.map_or(header.revision, |kv| kv.create_revision);
        if pair(&entered, 1).is_some_and(|owner| owner.create_revision != revision) {
            header = wait(&requester, &prefix, &key, revision).await?;
        }
        Ok(Response::new(LockResponse { header: Some(header), key }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        self.check(request.metadata())?;
        let delete = request.map(|r| DeleteRangeRequest { key: r.key, ..DeleteRangeRequest::default() });
        let deleted = Kv::delete_range(self, delete).await.map_err(unknown)?;
        Ok(Response::new(UnlockResponse { header: deleted.into_inner().header }))
    }
}

/// Waits for the turn of the key that was created at `revision`. Whatever ends the wait early removes the key.
async fn wait(
    requester: &Requester,
    prefix: &[u8],
    key: &[u8],
    revision: i64,
) -> Result<ResponseHeader, Status> {
    let withdrawal = requester.withdrawal(TxnRequest { success: vec![delete(key)], ..TxnRequest::default() });
    let turn = async {
        requester.wait_deletes(prefix, revision - 1).await?;
        requester.first(get(key)).await
    };
    match turn.await {
        Ok((header, own)) => {
            withdrawal.forget();
            own.map(|_| header).ok_or_else(|| Status::unknown("mutex: session is expired"))
        }
        Err(error) => {
            withdrawal.withdraw().await;
            Err(error)
        }
    }
}
