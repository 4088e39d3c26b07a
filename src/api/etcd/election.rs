//! v3electionpb.Election: the leader is the oldest key below the election's name, and what it proclaims its value (E-3 to
//! E-5).

use super::Etcd;
use super::queue::{
    Follower, Requester, created_at, delete, first_created, get, key_of, op, pair, prefix_end, prefix_of,
    put, puts_and_deletes, written,
};
use crate::engine::Event;
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::{ResponseHeader, TxnRequest};
use crate::pb::mvccpb::KeyValue;
use crate::pb::v3electionpb::election_server::Election;
use crate::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use crate::types::KeyRange;
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::pin::Pin;
use tonic::{Request, Response, Status};

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const NO_LEADER_FIELD: &str = "\"leader\" field must be provided";

type Leaders = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Election for Etcd {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        self.check(request.metadata())?;
        let (requester, CampaignRequest { name, lease, value }) = Requester::of(self, request);
        let lease = requester.session(lease).await?;
        let prefix = prefix_of(&name);
        let key = key_of(&prefix, lease);
        let entered = requester
            .txn(TxnRequest {
                compare: vec![created_at(&key, 0)],
                success: vec![put(&key, value.clone(), lease)],
                failure: vec![op(Op::RequestRange(get(&key)))],
            })
            .await?;
        let header = entered.header.unwrap_or_default();
        let queued_before = if entered.succeeded { None } else { pair(&entered, 0) };
        let rev = queued_before.map_or(header.revision, |kv| kv.create_revision);
        let withdrawal = requester.withdrawal(resignation(&key, rev));
        if queued_before.is_some_and(|kv| kv.value != value)
            && let Err(error) = proclaim(&requester, &key, rev, value, lease).await
        {
            withdrawal.withdraw().await;
            return Err(error);
        }
        if let Err(error) = requester.wait_deletes(&prefix, rev - 1).await {
            withdrawal.withdraw().await;
            return Err(error);
        }
        withdrawal.forget();
        let leader = LeaderKey { name, key, rev, lease };
        Ok(Response::new(CampaignResponse { header: Some(header), leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        self.check(request.metadata())?;
        let (requester, ProclaimRequest { leader, value }) = Requester::of(self, request);
        let LeaderKey { key, rev, lease, .. } = leader.ok_or_else(|| Status::unknown(NO_LEADER_FIELD))?;
        let lease = requester.session(lease).await?;
        let header = proclaim(&requester, &key, rev, value, lease).await?;
        Ok(Response::new(ProclaimResponse { header: Some(header) }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        self.check(request.metadata())?;
        let (requester, LeaderRequest { name }) = Requester::of(self, request);
        let (header, kv) = requester.first(first_created(&prefix_of(&name))).await?;
        let kv = kv.ok_or_else(|| Status::unknown(NO_LEADER))?;
        Ok(Response::new(answer(header, kv)))
    }

    type ObserveStream = Leaders;

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Leaders>, Status> {
        self.check(request.metadata())?;
        let headers = request.metadata().as_ref().clone();
        let (requester, LeaderRequest { name }) = Requester::of(self, request);
        let observer =
            Observer { requester, prefix: prefix_of(&name), leader: None, pending: VecDeque::new() };
        let leaders = stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(Some(leader)) => Some((Ok(leader), Some(observer))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(self.while_led(&headers, leaders))))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        self.check(request.metadata())?;
        let (requester, ResignRequest { leader }) = Requester::of(self, request);
        let LeaderKey { key, rev, lease, .. } = leader.ok_or_else(|| Status::unknown(NO_LEADER_FIELD))?;
        requester.session(lease).await?;
        let resigned = requester.txn(resignation(&key, rev)).await?;
        Ok(Response::new(ResignResponse { header: resigned.header }))
    }
}

/// Writes a value if the key is still the one that was created at `rev`.
async fn proclaim(
    requester: &Requester,
    key: &[u8],
    rev: i64,
    value: Vec<u8>,
    lease: i64,
) -> Result<ResponseHeader, Status> {
    let proclaimed = requester
        .txn(TxnRequest {
            compare: vec![created_at(key, rev)],
            success: vec![put(key, value, lease)],
            failure: Vec::new(),
        })
        .await?;
    if !proclaimed.succeeded {
        return Err(Status::unknown(NOT_LEADER));
    }
    Ok(proclaimed.header.unwrap_or_default())
}

/// Removes a key if it is still the one that was created at `rev`.
fn resignation(key: &[u8], rev: i64) -> TxnRequest {
    TxnRequest { compare: vec![created_at(key, rev)], success: vec![delete(key)], failure: Vec::new() }
}

fn answer(header: ResponseHeader, kv: KeyValue) -> LeaderResponse {
    LeaderResponse { header: Some(header), kv: Some(kv) }
}

/// Tells of the present leader, of everything that it proclaims, and of the leaders after it.
struct Observer {
    requester: Requester,
    prefix: Vec<u8>,
    /// Follows the key of the present leader, if there is one.
    leader: Option<Follower>,
    pending: VecDeque<LeaderResponse>,
}

impl Observer {
    /// `None` when the requester may not read; etcd ends the stream without an error then.
    async fn next(&mut self) -> Result<Option<LeaderResponse>, Status> {
        loop {
            if let Some(response) = self.pending.pop_front() {
                return Ok(Some(response));
            }
            match &mut self.leader {
                None => return self.find().await,
                Some(leader) => match leader.next().await? {
                    Some(matched) => self.take(&matched.events, matched.revision),
                    None => self.leader = None, // history was compacted: begin again with the present state
                },
            }
        }
    }

    /// The leader now, or the next one.
    async fn find(&mut self) -> Result<Option<LeaderResponse>, Status> {
        let (mut header, kv) = match self.requester.first(first_created(&self.prefix)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "an observer of an election can't read");
                return Ok(None);
            }
        };
        let kv = match kv {
            Some(kv) => kv,
            None => {
                let Some(kv) = self.first_put(header.revision).await? else { return Ok(None) };
                header.revision = kv.mod_revision;
                kv
            }
        };
        let range = KeyRange::single(kv.key.clone().into());
        self.leader = Some(self.requester.follow(puts_and_deletes(range), header.revision + 1)?);
        Ok(Some(answer(header, kv)))
    }

    /// The first key that is put below the prefix from `revision` on; `None` when history was compacted meanwhile.
    async fn first_put(&self, revision: i64) -> Result<Option<KeyValue>, Status> {
        let range = KeyRange::from_wire(self.prefix.clone().into(), prefix_end(&self.prefix).into());
        let mut puts = self.requester.follow(puts_and_deletes(range), revision)?;
        while let Some(matched) = puts.next().await? {
            if let Some(kv) = matched.events.iter().find_map(written) {
                return Ok(Some(kv));
            }
        }
        Ok(None)
    }

    /// Queues what the leader proclaimed, up to its end.
    fn take(&mut self, events: &[Event], revision: i64) {
        let Some(leader) = &self.leader else { return };
        let header = leader.header(revision);
        for event in events {
            match written(event) {
                Some(kv) => self.pending.push_back(answer(header, kv)),
                None => {
                    self.leader = None;
                    return;
                }
            }
        }
    }
}
