//! What members want of each other beside consensus: commands that are done once or not at all, read indexes, questions.

use super::super::network::Activity;
use super::super::peer::Link;
use super::super::propose::{self, Forward};
use super::super::transport::{Batch, Transports};
use super::super::waiting::{Fate, Waiting};
use super::super::{Types, Vote, codec};
use super::cluster_test::{GONE, Member, PATIENCE, cluster, link, put};
use super::{Client, EXTENSIONS, KIND, Options, PROPOSE, REFUSED, ascii, json, write_numbers};
use crate::engine::ask::{Answer, Failure, Question};
use crate::engine::entry::Ticket;
use crate::engine::error::Error;
use crate::pb::wolf::raft_append_entries_res::Response as Appended;
use crate::pb::wolf::*;
use crate::types::MemberId;
use futures_util::FutureExt;
use openraft::network::{RPCOption, RaftNetworkV2};
use openraft::raft::TransferLeaderRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Status};

const ME: MemberId = 1;

/// What a fake leader says to commands: the message, with "echo" for the id of the call, and whom it refuses.
type Said = Result<(Option<Appended>, Vec<u64>), Status>;

/// A leader that says the same to all commands, once the gate is open.
#[derive(Clone)]
struct Fake {
    knows_us: bool,
    said: Said,
    gate: watch::Receiver<bool>,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl raft_server::Raft for Fake {
    async fn append_entries(
        &self,
        request: Request<RaftAppendEntriesReq>,
    ) -> Result<tonic::Response<RaftAppendEntriesRes>, Status> {
        assert_eq!(request.metadata().get(KIND).unwrap(), PROPOSE);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.gate.clone().wait_for(|is_open| *is_open).await.unwrap();
        let (mut response, refused) = self.said.clone()?;
        match &mut response {
            Some(Appended::OkRes(ok)) => ok.msg_id = ok.msg_id.replace("echo", &request.get_ref().msg_id),
            Some(Appended::ErrorRes(error)) => error.msg_id.clone_from(&request.get_ref().msg_id),
            None => {}
        }
        let mut answer = tonic::Response::new(RaftAppendEntriesRes { response });
        if !refused.is_empty() {
            answer.metadata_mut().insert(REFUSED, write_numbers(&refused));
        }
        Ok(answer)
    }

    async fn get_metrics(
        &self,
        request: Request<RaftGetMetricsReq>,
    ) -> Result<tonic::Response<RaftGetMetricsRes>, Status> {
        let ok = RaftGetMetricsOkRes { msg_id: request.into_inner().msg_id, metrics: "{}".into() };
        let response = Some(raft_get_metrics_res::Response::OkRes(ok));
        let mut answer = tonic::Response::new(RaftGetMetricsRes { response });
        if self.knows_us {
            answer.metadata_mut().insert(EXTENSIONS, ascii("1"));
        }
        Ok(answer)
    }

    async fn bootstrap(
        &self,
        _: Request<RaftBootstrapReq>,
    ) -> Result<tonic::Response<RaftBootstrapRes>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn install_snapshot(
        &self,
        _: Request<RaftInstallSnapshotReq>,
    ) -> Result<tonic::Response<RaftInstallSnapshotRes>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn vote(&self, _: Request<RaftVoteReq>) -> Result<tonic::Response<RaftVoteRes>, Status> {
        Err(Status::unimplemented("fake"))
    }
}

/// Serves a fake; returns a client of it and the way to it, how often it got commands, and its gate.
async fn serve(knows_us: bool, said: Said) -> (Client, Link, Arc<AtomicUsize>, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (opener, gate) = watch::channel(true);
    let calls = Arc::new(AtomicUsize::new(0));
    let fake = Fake { knows_us, said, gate, calls: Arc::clone(&calls) };
    let serving = Server::builder().add_service(raft_server::RaftServer::new(fake));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let link = link(ME, 2, address);
    let client = Client::new(link.clone(), Options::default(), Activity::default());
    (client, link, calls, opener)
}

/// A command for each number.
fn batch(term: u64, numbers: &[u64]) -> Batch {
    let entry = |&number| put(format!("key-{number}"), vec![0xff]).ticketed(Ticket { proposer: ME, number });
    Batch { term, entries: numbers.iter().map(entry).collect() }
}

fn ok(msg_id: &str, success: bool) -> Option<Appended> {
    Some(Appended::OkRes(RaftAppendEntriesOkRes {
        msg_id: msg_id.into(),
        term: 3,
        success,
        conflict_opt: None,
    }))
}

fn failed(code: i32) -> Option<Appended> {
    Some(Appended::ErrorRes(RaftErrorRes { msg_id: String::new(), code, msg: "why".into() }))
}

#[tokio::test]
async fn only_what_the_leader_refuses_is_offered_again() {
    for (said, refused) in [
        // 99 is none of theirs.
        (Ok((ok("echo", false), vec![11, 99])), vec![11]),
        (Ok((failed(2), vec![])), vec![10, 11, 12]),
        (Ok((failed(7002), vec![])), vec![10, 11, 12]),
    ] {
        let (client, _, _, _gate) = serve(true, said).await;
        let waiting = Arc::new(Waiting::new(10));
        let waits = [waiting.begin(3), waiting.begin(3), waiting.begin(3)];
        let other = Waiting::new(99);
        let other = other.begin(3);
        let batches = client.propose(Arc::clone(&waiting), PATIENCE).await.unwrap();
        batches.send(batch(3, &[10, 11, 12])).await.ok().unwrap();
        let (again, rest): (Vec<_>, Vec<_>) =
            waits.into_iter().partition(|wait| refused.contains(&wait.number));
        for wait in again {
            assert_eq!(wait.fate().await, Fate::NotDone);
        }
        for wait in rest {
            assert_eq!(wait.fate().now_or_never(), None);
        }
        assert_eq!(other.fate().now_or_never(), None);
        assert!(!batches.is_closed(), "an answer ends nothing");
    }
}

#[tokio::test]
async fn what_is_unclear_says_nothing_and_what_has_not_left_is_offered_again() {
    for said in [
        Ok((ok("other", false), vec![10])),
        Ok((failed(3), vec![10])),
        Ok((None, vec![10])),
        Err(Status::unavailable("gone")),
        Err(Status::internal("broken")),
    ] {
        let (client, _, calls, gate) = serve(true, said).await;
        gate.send_replace(false);
        let waiting = Arc::new(Waiting::new(10));
        let batches = client.propose(Arc::clone(&waiting), PATIENCE).await.unwrap();
        // The last ones find no room among the calls that are on their way.
        let waits: Vec<_> = (0..40).map(|_| waiting.begin(3)).collect();
        for wait in &waits {
            batches.send(batch(3, &[wait.number])).await.ok().unwrap();
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while calls.load(Ordering::Relaxed) < 32 && tokio::time::Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        gate.send_replace(true);
        batches.closed().await;
        for (n, wait) in waits.into_iter().enumerate() {
            match n {
                0..32 => assert_eq!(wait.fate().now_or_never(), None, "{n}"),
                _ => assert_eq!(wait.fate().await, Fate::NotDone, "{n}"),
            }
        }
        assert_eq!(calls.load(Ordering::Relaxed), 32);
    }
}

#[tokio::test]
async fn a_leader_that_does_not_keep_up_holds_nobody_back() {
    let (_, link, calls, gate) = serve(true, Ok((ok("echo", true), vec![]))).await;
    gate.send_replace(false);
    let waiting = Arc::new(Waiting::new(10));
    let patience = Duration::from_millis(200);
    let transports = Transports {
        activity: Activity::default(),
        patience,
        request_timeout: PATIENCE,
        wolf: Some(Options::default()),
    };
    let (forwards, queue) = propose::queue();
    let way = move |_| Some(link.clone());
    tokio::spawn(propose::forward(queue, Arc::clone(&waiting), way, transports));
    // Commands of two terms do not go together, so each is a batch: 32 are on their way, 16 in the queue, one is held.
    let waits: Vec<_> = (0..49).map(|n| waiting.begin(3 + n % 2)).collect();
    for (n, wait) in waits.iter().enumerate() {
        let term = 3 + n as u64 % 2;
        let entry = batch(term, &[wait.number]).entries.remove(0);
        forwards.send(Forward { to: 2, term, entry }).await.ok().unwrap();
    }
    let mut waits = waits.into_iter();
    let held = waits.nth(48).unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, held.fate()).await.unwrap(), Fate::NotDone);
    assert_eq!(calls.load(Ordering::Relaxed), 32);
}

#[tokio::test]
async fn who_does_not_know_commands_gets_none() {
    let (client, _, calls, _gate) = serve(false, Ok((ok("echo", true), vec![]))).await;
    let waiting = Arc::new(Waiting::new(10));
    assert!(client.clone().propose(waiting, PATIENCE).await.is_none());
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert!(matches!(client.clone().read_index(None).await, Err(Error::NoLeader)));
    assert!(matches!(client.clone().ask(&Question::Peers).await, Err(Error::Peer(_))));
    let mut client = client;
    let request = TransferLeaderRequest::new(Vote::new_committed(3, 1), 2, None);
    assert!(client.transfer_leader(request, RPCOption::new(PATIENCE)).await.is_err());
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(link(ME, 2, nobody), Options::default(), Activity::default());
    assert!(client.propose(Arc::new(Waiting::new(10)), PATIENCE).await.is_none());
}

fn client(from: MemberId, to: &Member) -> (Client, Activity) {
    let activity = Activity::default();
    (Client::new(link(from, to.id, to.address), Options::default(), activity.clone()), activity)
}

#[tokio::test]
async fn the_leader_of_the_term_takes_commands_in_and_nobody_else() {
    let (members, at) = cluster().await;
    let (leader, follower) = (&members[at], &members[(at + 1) % 3]);
    let term = leader.vote_here().leader_id.term;
    let entries = async |of: &Member| {
        let metrics = of.raft.wait(Some(PATIENCE));
        metrics.metrics(|_| true, "any").await.unwrap().last_log_index.unwrap()
    };
    let before = entries(leader).await;
    for (to, term) in [(follower, term), (leader, term + 1), (leader, term - 1)] {
        let waiting = Arc::new(Waiting::new(10));
        let waits = [waiting.begin(term), waiting.begin(term)];
        let batches = client(ME, to).0.propose(Arc::clone(&waiting), PATIENCE).await.unwrap();
        batches.send(batch(term, &[10, 11])).await.ok().unwrap();
        for wait in waits {
            assert_eq!(wait.fate().await, Fate::NotDone);
        }
    }
    assert_eq!(entries(leader).await, before);
    let waiting = Arc::new(Waiting::new(10));
    let wait = waiting.begin(term);
    let batches = client(ME, leader).0.propose(Arc::clone(&waiting), PATIENCE).await.unwrap();
    batches.send(batch(term, &[10])).await.ok().unwrap();
    for member in &members {
        member.until_applied(before + 1).await;
    }
    assert_eq!(wait.fate().now_or_never(), None, "the log tells, and not the answer");
}

#[tokio::test]
async fn commands_that_cannot_be_read_are_refused_together() {
    let (members, at) = cluster().await;
    let term = members[at].vote_here().leader_id.term;
    let proposal = |batch: &Batch| json::write_proposal(batch.term, &batch.entries);
    let good = proposal(&batch(term, &[1]));
    let (read, entries) = json::read_proposal(&good).unwrap();
    assert_eq!((read, entries.len(), entries[0].0), (term, 1, 1));
    assert_eq!(entries[0].1, batch(term, &[1]).entries[0]);
    let without_ticket = json::write_proposal(term, &[put("k", vec![])]);
    let many = proposal(&batch(term, &(0..257).collect::<Vec<_>>()));
    let mixed = good.replace("]}", r#",{"cmd":"Nonsense"}]}"#);
    let url = format!("http://{}", members[at].address);
    let mut stub = raft_client::RaftClient::connect(url).await.unwrap();
    let mut code = async |kind: &str, req: String| {
        let mut request = Request::new(RaftAppendEntriesReq { msg_id: "p".into(), req });
        request.metadata_mut().insert(KIND, ascii(kind));
        match stub.append_entries(request).await.unwrap().into_inner().response.unwrap() {
            Appended::OkRes(ok) => panic!("{ok:?}"),
            Appended::ErrorRes(error) => error.code,
        }
    };
    for req in ["{".to_owned(), "{}".into(), without_ticket, many, mixed] {
        assert_eq!(code(PROPOSE, req.clone()).await, 2, "{req}");
    }
    assert_eq!(code("later", good.clone()).await, 3);
    // Who knows nothing of commands finds no entries of a leader in them.
    assert!(json::read_append(&good, &[]).is_err());
}

#[tokio::test]
async fn read_indexes_and_questions_go_by_get_metrics() {
    let (members, at) = cluster().await;
    let client = || client(ME, &members[at]).0;
    let vote = Vote::new_committed(7, 2);
    assert_eq!(client().read_index(Some(vote)).await.unwrap(), 701);
    assert!(matches!(client().read_index(None).await, Err(Error::NoLeader)));
    let answer = client().ask(&Question::Hash(-5)).await.unwrap();
    assert_eq!(answer, Answer::Remaining(Some((u64::MAX, -5))));
    let answer = client().ask(&Question::Peers).await.unwrap();
    assert_eq!(answer, Answer::Failed(Failure::Other("grün".into())));
    let unknown = client().get_metrics(Some((super::QUESTION, ascii(r#"{"Later":1}"#)))).await.unwrap_err();
    assert!(unknown.to_string().contains("RAFT_GET_METRICS_FAILED"), "{unknown}");
}

#[tokio::test]
async fn who_was_removed_is_told_so_by_any_call() {
    let (members, at) = cluster().await;
    let (present, activity) = client(ME, &members[at]);
    present.ask(&Question::Peers).await.unwrap();
    assert_eq!(activity.until_removed().now_or_never(), None);
    let (gone, activity) = client(GONE, &members[at]);
    assert!(gone.clone().ask(&Question::Peers).await.is_err());
    assert_eq!(activity.until_removed().now_or_never(), Some(()));
    let mut gone = gone;
    let vote = openraft::raft::VoteRequest::new(Vote::new(1000, GONE), Some(codec::log_id(999, 999)));
    let error = gone.vote(vote, RPCOption::new(PATIENCE)).await.unwrap_err();
    assert!(error.to_string().contains("removed"), "{error}");
    assert_eq!(activity.until_removed().now_or_never(), Some(()));
}

#[tokio::test]
async fn the_lead_is_handed_over() {
    let (members, at) = cluster().await;
    let to = &members[(at + 1) % 3];
    let (mut client, _) = client(members[at].id, to);
    // Whoever is no leader has nothing to give.
    let other = TransferLeaderRequest::new(Vote::new_committed(0, members[at].id), to.id, None);
    assert!(client.transfer_leader(other, RPCOption::new(PATIENCE)).await.is_err());
    members[at].raft.trigger().transfer_leader(to.id).await.unwrap();
    let leads = |metrics: &openraft::RaftMetrics<Types>| metrics.current_leader == Some(to.id);
    for member in &members {
        member.raft.wait(Some(PATIENCE)).metrics(leads, "it was handed over").await.unwrap();
    }
}
