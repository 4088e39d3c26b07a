//! Members that know each other by `wolf.raft` alone, in one process, and whoever else may call them.

use super::super::installs::Installs;
use super::super::log_store::LogStore;
use super::super::network::Activity;
use super::super::peer::{Identity, Link, Links};
use super::super::state_machine::{self, StateMachine};
use super::super::waiting::Waiting;
use super::super::wal::{self, Wal};
use super::super::{Peer, Types, Vote, codec};
use super::*;
use crate::engine::apply::Applier;
use crate::engine::ask::{Answer, Failure, Question};
use crate::engine::command::{Command, Put};
use crate::engine::consensus::BoxFuture;
use crate::engine::entry::{Entry, Origin};
use crate::engine::error::Error;
use crate::engine::flusher::{self, Flusher};
use crate::mvcc::{Store, defrag};
use crate::pb::wolf::raft_client::RaftClient;
use crate::pb::wolf::*;
use crate::storage::Env;
use crate::types::MemberId;
use openraft::async_runtime::WatchReceiver;
use openraft::network::RaftNetworkFactory;
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Server};

const CLUSTER_ID: u64 = 0xc;
/// Far longer than anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const QUOTA: u64 = 1 << 30;

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

pub(super) struct Member {
    pub id: MemberId,
    pub raft: Raft<Types, StateMachine>,
    store: Arc<Store>,
    applier: Arc<Mutex<Applier>>,
    flusher: Flusher,
    pub address: SocketAddr,
    dir: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

struct Wire {
    me: MemberId,
    addresses: Vec<SocketAddr>,
    options: Options,
}

pub(super) fn link(me: MemberId, target: MemberId, address: SocketAddr) -> Link {
    let links = Links::new(Identity { cluster: CLUSTER_ID, member: me }, None, Duration::from_secs(5));
    links.to(target, &[format!("http://{address}")])
}

impl RaftNetworkFactory<Types> for Wire {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &Peer) -> Client {
        let link = link(self.me, target, self.addresses[target as usize - 1]);
        Client::new(link, self.options.clone(), Activity::default())
    }
}

fn options(dir: &std::path::Path) -> Options {
    Options { gzip: false, code_base: 0, dir: dir.to_owned(), quota: QUOTA, origin: None }
}

/// What a service asks of its member. `GONE` was removed, and who promises a vote gets a read index of its term.
struct Told;

pub(super) const GONE: MemberId = 9;

impl answers::Member for Told {
    fn hears(&self, _: MemberId, _: &Vote) {}

    fn is_removed(&self, id: MemberId) -> bool {
        id == GONE
    }

    fn read_index(&self, asker: MemberId, promised: Option<Vote>) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            match promised {
                Some(promised) => Ok(promised.leader_id.term * 100 + asker),
                None => Err(Error::NoLeader),
            }
        })
    }

    fn answer(&self, question: Question) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            match question {
                Question::Hash(revision) => Answer::Remaining(Some((u64::MAX, revision))),
                _ => Answer::Failed(Failure::Other("grün".into())),
            }
        })
    }
}

async fn start(
    id: MemberId,
    listener: TcpListener,
    addresses: &[SocketAddr],
    change: fn(&mut Options),
) -> Member {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    change(&mut options);
    let env = Env::open(&defrag::current_dir(dir.path()).unwrap(), QUOTA).unwrap();
    let store = Arc::new(Store::open(env).unwrap());
    let applier = Arc::new(Mutex::new(Applier::load(Arc::clone(&store)).unwrap()));
    let flush = flusher::Options {
        dir: dir.path().to_owned(),
        quota: QUOTA,
        interval: Duration::from_secs(3600),
        memtable_bytes_max: 64 << 20,
        compaction_batch: 1000,
        compaction_pause: Duration::from_millis(10),
    };
    let fatal = |error: &crate::mvcc::Error| panic!("{error}");
    let flusher = Flusher::start(Arc::clone(&store), Arc::clone(&applier), flush, |_| {}, fatal).unwrap();
    let (wal, recovered) = Wal::open(wal::Options::new(dir.path().join("wal"))).unwrap();
    let log = LogStore::new(wal, recovered).unwrap();
    let machine = StateMachine::new(state_machine::Parts {
        me: id,
        applier: Arc::clone(&applier),
        store: Arc::clone(&store),
        flusher: flusher.clone(),
        on_applied: Box::new(|_| {}),
        waiting: Arc::new(Waiting::new(0)),
        applied: tokio::sync::watch::Sender::default(),
        slow_apply: Duration::from_secs(1),
    });
    let config = openraft::Config {
        heartbeat_interval: 100,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        enable_pre_vote: Some(true),
        ..openraft::Config::default()
    };
    let wire = Wire { me: id, addresses: addresses.to_vec(), options: options.clone() };
    let raft = Raft::new(id, Arc::new(config.validate().unwrap()), wire, log.clone(), machine).await.unwrap();
    let peer = |n: usize| Peer { name: format!("m{n}"), urls: vec![format!("http://{}", addresses[n - 1])] };
    let table = (1..=addresses.len()).map(|n| (n as u64, peer(n))).collect();
    let others = (1..=addresses.len() as u64).filter(|n| *n != id);
    let links = others.map(|n| link(id, n, addresses[n as usize - 1])).collect();
    let member = Box::new(Told);
    let service = Service::new(server::Parts {
        raft: raft.clone(),
        log,
        cluster: CLUSTER_ID,
        me: id,
        table,
        links,
        member,
        installs: Installs::default(),
        options,
    });
    let address = listener.local_addr().unwrap();
    let serving = Server::builder().add_service(service.into_server());
    let server = tokio::spawn(async move {
        serving.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    Member { id, raft, store, applier, flusher, address, dir, server }
}

/// As many members as asked for, of which only the first `started` run, and the listeners of the others.
async fn members(count: usize, started: usize) -> (Vec<Member>, Vec<TcpListener>) {
    members_with(count, started, |_| {}).await
}

async fn members_with(
    count: usize,
    started: usize,
    change: fn(&mut Options),
) -> (Vec<Member>, Vec<TcpListener>) {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let rest = listeners.split_off(started);
    let mut members = Vec::new();
    for (n, listener) in listeners.into_iter().enumerate() {
        members.push(start(n as u64 + 1, listener, &addresses, change).await);
    }
    (members, rest)
}

/// A cluster of three, and which of them leads.
pub(super) async fn cluster() -> (Vec<Member>, usize) {
    let (members, _) = members(3, 3).await;
    assert_eq!(members[0].bootstrap(3).await, Ok("b".into()));
    let leader = leader(&members).await;
    (members, leader)
}

async fn leader(members: &[Member]) -> usize {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let leads = |member: &Member| {
            let metrics = member.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.state == ServerState::Leader
                && metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term)
        };
        if let Some(at) = members.iter().position(leads) {
            return at;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody leads");
}

pub(super) fn put(key: impl Into<String>, value: Vec<u8>) -> Entry {
    let put = Put { key: key.into().into(), value: value.into(), ..Put::default() };
    Entry::new(Origin::Client(None), Command::Put(put), 5)
}

impl Member {
    fn client(&self) -> RaftClient<Channel> {
        RaftClient::new(channel(self.address)).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn bootstrap(&self, number_of_nodes: u64) -> Result<String, RaftErrorRes> {
        let request = RaftBootstrapReq { msg_id: "b".into(), number_of_nodes };
        match self.client().bootstrap(request).await.unwrap().into_inner().response.unwrap() {
            raft_bootstrap_res::Response::OkRes(ok) => Ok(ok.msg_id),
            raft_bootstrap_res::Response::ErrorRes(error) => Err(error),
        }
    }

    async fn metrics(&self) -> Value {
        let request = RaftGetMetricsReq { msg_id: "m".into() };
        match self.client().get_metrics(request).await.unwrap().into_inner().response.unwrap() {
            raft_get_metrics_res::Response::OkRes(ok) => serde_json::from_str(&ok.metrics).unwrap(),
            raft_get_metrics_res::Response::ErrorRes(error) => panic!("{error:?}"),
        }
    }

    async fn append(&self, req: impl ToString) -> Result<RaftAppendEntriesOkRes, RaftErrorRes> {
        let request = RaftAppendEntriesReq { msg_id: "a".into(), req: req.to_string() };
        match self.client().append_entries(request).await.unwrap().into_inner().response.unwrap() {
            raft_append_entries_res::Response::OkRes(ok) => Ok(ok),
            raft_append_entries_res::Response::ErrorRes(error) => Err(error),
        }
    }

    async fn vote(
        &self,
        (term, candidate_id): (u64, u64),
        (last_log_term, last_log_index): (u64, u64),
    ) -> RaftVoteOkRes {
        let request = RaftVoteReq { msg_id: "v".into(), term, candidate_id, last_log_index, last_log_term };
        match self.client().vote(request).await.unwrap().into_inner().response.unwrap() {
            raft_vote_res::Response::OkRes(ok) => ok,
            raft_vote_res::Response::ErrorRes(error) => panic!("{error:?}"),
        }
    }

    async fn install(&self, piece: RaftInstallSnapshotReq) -> Result<u64, RaftErrorRes> {
        match self.client().install_snapshot(piece).await.unwrap().into_inner().response.unwrap() {
            raft_install_snapshot_res::Response::OkRes(ok) => Ok(ok.term),
            raft_install_snapshot_res::Response::ErrorRes(error) => Err(error),
        }
    }

    pub fn vote_here(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    fn last(&self) -> (u64, u64) {
        let metrics = self.raft.metrics();
        let index = metrics.borrow_watched().last_log_index;
        (metrics.borrow_watched().current_term, index.map_or(0, |index| index + 1))
    }

    pub async fn until_applied(&self, index: u64) {
        self.raft
            .wait(Some(PATIENCE))
            .applied_index_at_least(Some(index), "entries of the leader")
            .await
            .unwrap();
    }

    /// Writes `count` keys; returns the index of the last entry.
    async fn write(&self, count: usize) -> u64 {
        let mut index = 0;
        for n in 0..count {
            index =
                self.raft.client_write(put(format!("k{n}"), vec![n as u8; 10])).await.unwrap().log_id.index;
        }
        index
    }

    fn hash(&self) -> u32 {
        self.store.hash(0).unwrap().hash
    }

    async fn stop(&self) {
        self.server.abort();
        self.raft.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn wolf_1_5_6_7_a_cluster_is_bootstrapped_and_replicates() {
    let (members, _) = members(3, 3).await;
    for member in &members {
        let metrics = member.metrics().await;
        assert_eq!((&metrics["current_term"], &metrics["last_log_index"]), (&json!(0), &json!(0)));
        assert_eq!((&metrics["last_applied"], &metrics["current_leader"]), (&json!(0), &json!(null)));
        assert_eq!((&metrics["state"], &metrics["id"]), (&json!("NonVoter"), &json!(member.id)));
        assert_eq!(metrics["membership_config"]["members"], json!([member.id]));
    }
    assert_eq!(members[0].bootstrap(3).await, Ok("b".into()));
    let at = leader(&members).await;
    let metrics = members[at].metrics().await;
    assert_eq!((&metrics["last_log_index"], &metrics["state"]), (&json!(2), &json!("Leader")));
    assert_eq!(metrics["membership_config"]["members"], json!([1, 2, 3]));
    assert_eq!(metrics["membership_config"]["members_after_consensus"], json!(null));
    let last = members[at].write(100).await;
    for member in &members {
        member.until_applied(last).await;
        let seen = member.metrics().await;
        assert_eq!(
            (&seen["current_term"], &seen["current_leader"]),
            (&metrics["current_term"], &metrics["id"])
        );
        assert_eq!(
            (member.store.revision(), member.hash()),
            (members[at].store.revision(), members[at].hash())
        );
    }
    // 2: again, to no effect.
    for member in &members {
        let error = member.bootstrap(3).await.unwrap_err();
        assert_eq!((error.code, &error.msg_id[..]), (1, "b"));
        assert!(error.msg.contains("NotAllowed"), "{}", error.msg);
    }
    assert_eq!(members[at].metrics().await["current_term"], metrics["current_term"]);
}

#[tokio::test]
async fn wolf_2_3_4_a_bootstrap_that_cannot_be_is_refused() {
    let (members, _) = members_with(3, 3, |options| options.code_base = 7000).await;
    for (member, count) in [(0, 0), (0, 4), (1, 1), (2, 2)] {
        let error = members[member].bootstrap(count).await.unwrap_err();
        assert_eq!((error.code, code_of(&error)), (7001, ErrorCode::RaftBootstrapFailed), "{count}");
    }
    assert_eq!(members[0].bootstrap(1).await, Ok("b".into()));
    assert_eq!(leader(&members[..1]).await, 0);
    let metrics = members[0].metrics().await;
    assert_eq!(metrics["membership_config"]["members"], json!([1]));
    assert_eq!(metrics["membership_config"]["members_after_consensus"], json!(null));
    let error = members[1].bootstrap(2).await.unwrap_err();
    assert!(error.msg.contains("cluster that does not know"), "{}", error.msg);
}

#[tokio::test]
async fn wolf_9_to_14_appends_are_checked() {
    let (members, at) = cluster().await;
    let last = members[at].write(5).await;
    let follower = &members[(at + 1) % 3];
    follower.until_applied(last).await;
    let leader = follower.vote_here().leader_id;
    let (term, last_index) = follower.last();
    let heartbeat = |prev: (u64, u64)| {
        json!({
            "term": term, "leader_id": leader.voted_for, "prev_log_term": prev.0, "prev_log_index": prev.1,
            "entries": [], "leader_commit": 0, "of_later_versions": 1,
        })
    };
    for req in ["{", "{}", ""] {
        let error = follower.append(req).await.unwrap_err();
        assert_eq!((error.code, &error.msg_id[..]), (2, "a"), "{req:?}");
    }
    let ok = follower.append(heartbeat((0, 0))).await.unwrap();
    assert_eq!((ok.success, ok.term, &ok.msg_id[..]), (true, term, "a"));
    let mut old = heartbeat((0, 0));
    old["term"] = json!(term - 1);
    let ok = follower.append(&old).await.unwrap();
    assert_eq!((ok.success, ok.term, ok.conflict_opt), (false, term, None));
    // An entry that it has not, and one of another term.
    let hint = Some(ConflictOpt { term, index: last_index });
    let ok = follower.append(heartbeat((term, last_index + 50))).await.unwrap();
    assert_eq!((ok.success, ok.term, ok.conflict_opt), (false, term, hint));
    let ok = follower.append(heartbeat((term + 5, 3))).await.unwrap();
    assert_eq!((ok.success, ok.term, ok.conflict_opt), (false, term, hint));
    // From the beginning: never a conflict.
    let mut all = heartbeat((0, 0));
    let first =
        json::write_membership(follower.raft.metrics().borrow_watched().membership_config.membership())
            .unwrap();
    all["entries"] =
        json!([{ "term": 0, "index": 1, "payload": { "ConfigChange": { "membership": first } } }]);
    assert!(follower.append(&all).await.unwrap().success);
    all["entries"][0]["payload"] =
        json!({ "Normal": { "data": { "client": "c1", "serial": 4, "status": "on" } } });
    assert_eq!(follower.append(&all).await.unwrap_err().code, 2);
    // What is committed stays, and the leader of a term is one.
    all["entries"][0] = json!({ "term": term, "index": 1, "payload": "Blank" });
    assert_eq!(follower.append(&all).await.unwrap_err().code, 3);
    let mut other = heartbeat((0, 0));
    other["leader_id"] = json!(99);
    assert_eq!(follower.append(&other).await.unwrap_err().code, 3);
    assert_eq!(follower.last(), (term, last_index));
    follower.until_applied(members[at].write(1).await).await;
}

#[tokio::test]
async fn wolf_15_to_17_votes() {
    let (members, at) = cluster().await;
    let last = members[at].write(5).await;
    let (follower, other) = (&members[(at + 1) % 3], &members[(at + 2) % 3]);
    follower.until_applied(last).await;
    let (term, index) = follower.last();
    // A leader lives.
    let answer = follower.vote((term + 1, other.id), (term, index)).await;
    assert_eq!((answer.vote_granted, answer.term, &answer.msg_id[..]), (false, term, "v"));
    assert!(!follower.vote((term - 1, other.id), (term, index)).await.vote_granted);
    members[at].stop().await;
    other.stop().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // Nobody leads, and the candidate asks until the old one is forgotten. It has less in its log.
    let high = term + 1000;
    let mut granted = follower.vote((high, other.id), (term, index)).await;
    while !granted.vote_granted && tokio::time::Instant::now() < deadline {
        assert!(
            !follower.vote((high + 5, other.id), (term, index - 1)).await.vote_granted,
            "its log is shorter"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = follower.last().0.max(high);
        granted = follower.vote((now + 10, other.id), (term, index)).await;
        assert!(!granted.vote_granted || granted.term == now + 10);
    }
    assert!(granted.vote_granted);
    let rival = follower.vote((granted.term, 77), (term, index)).await;
    assert!(!rival.vote_granted, "one vote in a term");
}

#[tokio::test]
async fn wolf_18_a_snapshot_brings_who_is_far_behind() {
    let (mut members, mut rest) = members(3, 2).await;
    members[0].bootstrap(3).await.unwrap();
    let at = leader(&members).await;
    for n in 0..40 {
        let random: Vec<u8> =
            (0..100_000u32).map(|b| (b.wrapping_mul(2_654_435_761) >> (n % 24)) as u8).collect();
        members[at].raft.client_write(put(format!("large{n}"), random)).await.unwrap();
    }
    let last = members[at].write(5).await;
    for member in &members {
        member.until_applied(last).await;
        member.flusher.sync().await.unwrap();
        member.raft.trigger().snapshot().await.unwrap();
        let has = |m: &openraft::RaftMetrics<Types>| m.snapshot.is_some_and(|id| id.index >= last);
        member.raft.wait(Some(PATIENCE)).metrics(has, "a snapshot").await.unwrap();
        member.raft.trigger().purge_log(last).await.unwrap();
        member.raft.wait(Some(PATIENCE)).purged(Some(codec::log_id(1, last)), "a purge").await.ok();
    }
    let addresses: Vec<SocketAddr> =
        members.iter().map(|m| m.address).chain([rest[0].local_addr().unwrap()]).collect();
    members.push(start(3, rest.remove(0), &addresses, |_| {}).await);
    let last = members[at].write(3).await;
    members[2].until_applied(last).await;
    assert_eq!(
        (members[2].store.revision(), members[2].hash()),
        (members[at].store.revision(), members[at].hash())
    );
    assert_eq!(members[2].metrics().await["membership_config"]["members"], json!([1, 2, 3]));
    assert!(members[2].applier.lock().installed().is_some(), "the log alone brought it");
}

#[tokio::test]
async fn wolf_19_20_21_pieces_of_snapshots_are_checked() {
    let (members, _) = members(1, 1).await;
    members[0].bootstrap(1).await.unwrap();
    leader(&members).await;
    let value: Vec<u8> = (0..1_400_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    members[0].raft.client_write(put("a", value.clone())).await.unwrap();
    members[0].raft.client_write(put("b", value)).await.unwrap();
    members[0].flusher.sync().await.unwrap();
    let mut packed = snapshot::Packed::new(members[0].dir.path(), &members[0].store).unwrap();
    let (term, index) = to_wire(packed.last().as_ref());
    let mut pieces = Vec::new();
    let mut offset = 0;
    while !packed.is_at_end() {
        let data = packed.piece().unwrap();
        let len = data.len() as u64;
        pieces.push(RaftInstallSnapshotReq {
            msg_id: "i".into(),
            term: 5,
            leader_id: 9,
            last_included_index: index,
            last_included_term: term,
            offset,
            done: packed.is_at_end(),
            data,
        });
        offset += len;
    }
    assert!(pieces.len() >= 3 && pieces[1].offset == 1 << 20);
    let line = pieces[0].data.split(|byte| *byte == b'\n').next().unwrap();
    let head: Value = serde_json::from_slice(line).unwrap();
    assert_eq!(head["last_membership"]["configs"], json!([[1]]));
    assert_eq!(head["last_membership"]["nodes"]["1"]["name"], "m1");
    assert_eq!(head["last_log"], json!({ "term": term, "index": index }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let empty = start(2, listener, &[members[0].address, address], |_| {}).await;
    // 19: in the middle.
    let error = empty.install(pieces[1].clone()).await.unwrap_err();
    assert_eq!((error.code, &error.msg[..]), (4, "snapshot mismatch, expected offset 0"));
    // 20: a byte of the body.
    let mut bad = pieces.clone();
    bad[1].data[77] ^= 1;
    for piece in &bad[..bad.len() - 1] {
        assert_eq!(empty.install(piece.clone()).await, Ok(5));
    }
    assert_eq!(empty.install(bad.last().unwrap().clone()).await.unwrap_err().code, 4);
    assert_eq!(empty.store.revision(), 1);
    // 21: no header line.
    let foreign =
        RaftInstallSnapshotReq { data: b"{}\n".to_vec(), offset: 0, done: true, ..pieces[0].clone() };
    assert_eq!(empty.install(foreign).await.unwrap_err().code, 4);
    // As it should be, and each piece twice.
    for piece in &pieces {
        for _ in 0..2 {
            if piece.offset == 0 || empty.store.revision() == 1 || piece.done {
                assert_eq!(empty.install(piece.clone()).await, Ok(5), "offset {}", piece.offset);
            }
        }
    }
    assert_eq!((empty.store.revision(), empty.hash()), (members[0].store.revision(), members[0].hash()));
}

#[tokio::test]
async fn wolf_22_another_leader_goes_on() {
    let (mut members, at) = cluster().await;
    members[at].write(10).await;
    let before = members[at].metrics().await["current_term"].as_u64().unwrap();
    members[at].stop().await;
    members.remove(at);
    let at = leader(&members).await;
    assert!(members[at].metrics().await["current_term"].as_u64().unwrap() > before);
    let last = members[at].write(10).await;
    members[1 - at].until_applied(last).await;
    assert_eq!(members[0].hash(), members[1].hash());
}

#[tokio::test]
async fn wolf_26_29_gzip_and_addresses() {
    use tonic::codec::CompressionEncoding;
    let (members, _) = members_with(1, 1, |options| (options.gzip, options.origin) = (true, Some(7))).await;
    let mut client = members[0]
        .client()
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = client.get_metrics(RaftGetMetricsReq { msg_id: "m".into() }).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(answer.metadata().get(EXTENSIONS).unwrap(), "1");
    let vote = RaftVoteReq { msg_id: "v".into(), term: 1, candidate_id: 2, ..RaftVoteReq::default() };
    for (name, value) in [(CLUSTER, "13"), (TARGET, "2"), (CLUSTER, "x"), (ORIGIN, "8")] {
        let mut request = Request::new(vote.clone());
        request.metadata_mut().insert(name, ascii(value));
        let answer = client.vote(request).await.unwrap().into_inner().response.unwrap();
        assert!(
            matches!(answer, raft_vote_res::Response::ErrorRes(error) if error.code == 5),
            "{name}: {value}"
        );
    }
    let mut request = Request::new(vote);
    request.metadata_mut().insert(CLUSTER, ascii(&CLUSTER_ID.to_string()));
    request.metadata_mut().insert(ORIGIN, ascii("7"));
    request.metadata_mut().insert(VOTE_KIND, ascii(PRE_VOTE));
    let answer = client.vote(request.map(|vote| vote)).await.unwrap().into_inner().response.unwrap();
    assert!(matches!(answer, raft_vote_res::Response::OkRes(ok) if ok.vote_granted));
    assert_eq!(members[0].vote_here().leader_id.term, 0, "a pre-vote changes nothing");
}
