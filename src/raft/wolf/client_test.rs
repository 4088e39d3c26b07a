//! What a client makes of answers, and how messages look on the wire.

use super::super::network::Activity;
use super::super::{Vote, codec};
use super::cluster_test::{PATIENCE, link};
use super::{Client, Options, code_of};
use crate::pb::wolf::*;
use openraft::network::{RPCOption, RaftNetworkV2};
use openraft::raft::AppendEntriesRequest;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::transport::Server;

/// A peer whose every answer is the same.
#[derive(Clone)]
struct Fake(Option<raft_append_entries_res::Response>);

#[tonic::async_trait]
impl raft_server::Raft for Fake {
    async fn append_entries(
        &self,
        request: Request<RaftAppendEntriesReq>,
    ) -> Result<tonic::Response<RaftAppendEntriesRes>, tonic::Status> {
        let mut response = self.0.clone();
        if let Some(raft_append_entries_res::Response::OkRes(ok)) = &mut response {
            ok.msg_id = ok.msg_id.replace("echo", &request.get_ref().msg_id);
        }
        Ok(tonic::Response::new(RaftAppendEntriesRes { response }))
    }

    async fn bootstrap(
        &self,
        _: Request<RaftBootstrapReq>,
    ) -> Result<tonic::Response<RaftBootstrapRes>, tonic::Status> {
        Err(tonic::Status::unimplemented("fake"))
    }

    async fn install_snapshot(
        &self,
        _: Request<RaftInstallSnapshotReq>,
    ) -> Result<tonic::Response<RaftInstallSnapshotRes>, tonic::Status> {
        Err(tonic::Status::unimplemented("fake"))
    }

    async fn vote(&self, _: Request<RaftVoteReq>) -> Result<tonic::Response<RaftVoteRes>, tonic::Status> {
        Err(tonic::Status::unimplemented("fake"))
    }

    async fn get_metrics(
        &self,
        _: Request<RaftGetMetricsReq>,
    ) -> Result<tonic::Response<RaftGetMetricsRes>, tonic::Status> {
        Ok(tonic::Response::new(RaftGetMetricsRes { response: None }))
    }
}

async fn ask(fake: Fake) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Server::builder().add_service(raft_server::RaftServer::new(fake));
    let server = tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = Client::new(link(1, 2, address), Options::default(), Activity::default());
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(codec::log_id(1, 4)),
        entries: vec![],
        leader_commit: None,
    };
    let option = RPCOption::new(PATIENCE);
    let answer = match client.append_entries(request, option.clone()).await {
        Ok(answer) => answer.to_string(),
        Err(openraft::errors::RPCError::Network(error)) => format!("network: {error}"),
        Err(error) => panic!("{error}"),
    };
    // Who has not shown that it knows pre-votes is not asked for one.
    let vote = openraft::raft::VoteRequest::new(Vote::new(4, 1), None);
    assert!(client.pre_vote(vote, option).await.unwrap().vote_granted);
    server.abort();
    answer
}

#[tokio::test]
async fn wolf_24_25_what_is_unclear_is_an_error_of_the_network() {
    use raft_append_entries_res::Response::{ErrorRes, OkRes};
    let ok = |msg_id: &str, term, success| {
        Fake(Some(OkRes(RaftAppendEntriesOkRes { msg_id: msg_id.into(), term, success, conflict_opt: None })))
    };
    assert_eq!(ask(ok("echo", 3, true)).await, "Success");
    assert_eq!(ask(ok("echo", 3, false)).await, "Conflict");
    assert!(ask(ok("echo", 7, false)).await.starts_with("Higher vote"));
    for unclear in [ok("other", 3, true), ok("echo", 2, false), ok("echo", 7, true), Fake(None)] {
        let answer = ask(unclear).await;
        assert!(answer.starts_with("network: "), "{answer}");
    }
    let failed = |code| Fake(Some(ErrorRes(RaftErrorRes { msg_id: String::new(), code, msg: "why".into() })));
    let (new, old) = (ask(failed(3)).await, ask(failed(7003)).await);
    assert!(new == old && new.contains("RAFT_APPEND_ENTRIES_FAILED: why"), "{new}");
}

#[test]
fn wolf_30_the_wire() {
    let bytes = |message: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        message(&mut out);
        out
    };
    let bootstrap = RaftBootstrapReq { number_of_nodes: 3, ..Default::default() };
    assert_eq!(bytes(&|out| bootstrap.encode(out).unwrap()), [0x18, 3]);
    assert!(RaftBootstrapReq::decode(&[0x08, 3][..]).is_err(), "number 1 is a text");
    let old = RaftErrorRes { code: 7002, ..Default::default() };
    assert_eq!(bytes(&|out| old.encode(out).unwrap()), [0x10, 0xda, 0x36]);
    assert_eq!(code_of(&old), ErrorCode::RaftAppendEntriesJsonOfReqIsNotValid);
    let with =
        RaftAppendEntriesOkRes { term: 1, conflict_opt: Some(ConflictOpt::default()), ..Default::default() };
    assert_eq!(bytes(&|out| with.encode(out).unwrap()), [0x10, 1, 0x22, 0]);
    let without = RaftAppendEntriesOkRes { term: 1, ..Default::default() };
    assert_eq!(bytes(&|out| without.encode(out).unwrap()), [0x10, 1]);
}
