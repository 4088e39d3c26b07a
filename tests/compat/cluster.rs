//! Cluster calls on one member, and what it says of others that never start: contract 1.10, rows C-1 to C-9.

use kvist::pb::etcdserverpb as pb;
use sha1::{Digest, Sha1};
use tonic::{Code, Response, Status};

use crate::client::{Client, Stop, expect_error, get, own};

fn id_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(Sha1::digest(bytes)[..8].try_into().expect("8 bytes"))
}

/// C-2, C-9: the list has this member, under the id that follows from its peer URL and the cluster token.
#[tokio::test]
async fn c_2_c_9_member_list() {
    let c = own(&["--name=default", "--initial-cluster-token=some-token"]).await;
    let peer_url = format!("http://127.0.0.1:{}", c.server().peer_port);
    let member_id = id_of(format!("{peer_url}some-token").as_bytes());
    let expected = pb::Member {
        id: member_id,
        name: "default".into(),
        peer_ur_ls: vec![peer_url],
        client_ur_ls: vec![c.server().url()],
        is_learner: false,
    };
    for linearizable in [false, true] {
        let request = pb::MemberListRequest { linearizable };
        let response = c.cluster.clone().member_list(request).await.expect("member list").into_inner();
        assert_eq!(response.members, std::slice::from_ref(&expected));
        let header = response.header.expect("header");
        assert_eq!((header.member_id, header.revision), (member_id, 0));
        assert_eq!(header.cluster_id, id_of(&member_id.to_be_bytes()));
    }
    let header = c.range(get("a")).await.header.expect("header");
    assert_eq!((header.member_id, header.cluster_id), (member_id, id_of(&member_id.to_be_bytes())));
}

async fn list(c: &Client) -> Vec<pb::Member> {
    let request = pb::MemberListRequest { linearizable: true };
    c.cluster.clone().member_list(request).await.expect("member list").into_inner().members
}

async fn add(c: &Client, urls: &[&str], is_learner: bool) -> Result<Response<pb::MemberAddResponse>, Status> {
    let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
    c.cluster.clone().member_add(pb::MemberAddRequest { peer_ur_ls, is_learner }).await
}

async fn update(c: &Client, id: u64, urls: &[&str]) -> Result<Response<pb::MemberUpdateResponse>, Status> {
    let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
    c.cluster.clone().member_update(pb::MemberUpdateRequest { id, peer_ur_ls }).await
}

async fn remove(c: &Client, id: u64) -> Result<Response<pb::MemberRemoveResponse>, Status> {
    c.cluster.clone().member_remove(pb::MemberRemoveRequest { id }).await
}

async fn promote(c: &Client, id: u64) -> Result<Response<pb::MemberPromoteResponse>, Status> {
    c.cluster.clone().member_promote(pb::MemberPromoteRequest { id }).await
}

/// C-1, C-3: what can't be added.
#[tokio::test]
async fn c_1_c_3_member_add() {
    let c = own(&[]).await;
    let bad: [&[&str]; 7] = [
        &[],
        &[""],
        &["127.0.0.1:1"],
        &["ftp://127.0.0.1:1"],
        &["http://127.0.0.1"],
        &["http://127.0.0.1:1/x"],
        &["http://127.0.0.1:1", "x"],
    ];
    for urls in bad {
        let result = add(&c, urls, false).await;
        expect_error(result, Code::InvalidArgument, "etcdserver: given member URLs are invalid");
    }
    let mine = format!("http://127.0.0.1:{}", c.server().peer_port);
    for urls in [vec![mine.as_str()], vec!["http://127.0.0.1:1", &mine]] {
        for is_learner in [false, true] {
            let result = add(&c, &urls, is_learner).await;
            expect_error(result, Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
        }
    }
    assert_eq!(list(&c).await.len(), 1);
}

/// C-1, C-2, C-4, C-6, C-8, X-9: a learner that never starts. It is listed without a name, can't be promoted nor lead, has
/// no company, can be moved and removed, and does not come back; a restart forgets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn c_4_c_6_c_8_a_learner_that_never_starts() {
    let mut c = own(&[]).await;
    let me = list(&c).await.remove(0);
    let added = add(&c, &["http://127.0.0.1:3", "http://127.0.0.1:1"], true).await.expect("add").into_inner();
    let learner = added.member.expect("a member");
    assert_eq!(learner.peer_ur_ls, ["http://127.0.0.1:1", "http://127.0.0.1:3"]);
    assert!(learner.is_learner && learner.name.is_empty() && learner.client_ur_ls.is_empty());
    let mut both = vec![me.clone(), learner.clone()];
    both.sort_by_key(|member| member.id);
    assert_eq!((&added.members, added.header.expect("header").revision), (&both, 0));
    assert_eq!(list(&c).await, both);

    let failed = Code::FailedPrecondition;
    let second = add(&c, &["http://127.0.0.1:5"], true).await;
    expect_error(second, failed, "etcdserver: too many learner members in cluster");
    let taken = add(&c, &["http://127.0.0.1:3"], true).await;
    expect_error(taken, failed, "etcdserver: Peer URLs already exists");
    let not_ready = "etcdserver: can only promote a learner member which is in sync with leader";
    expect_error(promote(&c, learner.id).await, failed, not_ready);
    let mut maintenance = c.maintenance.clone();
    let moved = maintenance.move_leader(pb::MoveLeaderRequest { target_id: learner.id }).await;
    expect_error(moved, failed, "etcdserver: bad leader transferee");
    let clash = update(&c, learner.id, &[&me.peer_ur_ls[0]]).await;
    expect_error(clash, failed, "etcdserver: Peer URLs already exists");
    let updated = update(&c, learner.id, &["http://127.0.0.1:7"]).await.expect("update").into_inner();
    let updated = updated.members.iter().find(|member| member.id == learner.id).expect("it is listed");
    assert_eq!(*updated, pb::Member { peer_ur_ls: vec!["http://127.0.0.1:7".into()], ..learner.clone() });
    c.put("k", "v").await;

    c.restart(Stop::Kill).await;
    assert!(list(&c).await.contains(updated));
    let removed = remove(&c, learner.id).await.expect("remove").into_inner();
    assert_eq!((&removed.members[..], removed.header.expect("header").revision), (&[me.clone()][..], 0));
    c.restart(Stop::Terminate).await;
    let unknown = "etcdserver: member not found";
    expect_error(remove(&c, learner.id).await, Code::NotFound, unknown);
    expect_error(promote(&c, learner.id).await, Code::NotFound, unknown);
    expect_error(update(&c, learner.id, &["http://127.0.0.1:9"]).await, Code::NotFound, unknown);
    // The URLs are free again. (Both of them within the same second would make the id that was just removed.)
    let again = add(&c, &["http://127.0.0.1:3"], true).await.expect("add").into_inner();
    assert_ne!(again.member.expect("a member").id, learner.id);
}

/// C-5: a cluster of one may always become one of two, but not of three before the second has started.
#[tokio::test]
async fn c_5_a_voter_that_never_starts() {
    let c = own(&[]).await;
    let me = list(&c).await.remove(0);
    let added = add(&c, &["http://127.0.0.1:1"], false).await.expect("add").into_inner();
    let voter = added.member.expect("a member");
    assert!(!voter.is_learner && added.members.len() == 2);
    let few = "etcdserver: re-configuration failed due to not enough started members";
    expect_error(add(&c, &["http://127.0.0.1:3"], false).await, Code::Unknown, few);
    let unhealthy = add(&c, &["http://127.0.0.1:3"], true).await;
    expect_error(unhealthy, Code::Unavailable, "etcdserver: unhealthy cluster");
    expect_error(remove(&c, me.id).await, Code::Unknown, few);
}

/// C-5, C-6, C-8: the last voter stays; it is no learner; unknown ids.
#[tokio::test]
async fn c_5_c_6_c_8_member_remove_and_promote() {
    let c = own(&[]).await;
    let me = list(&c).await[0].id;
    let few = "etcdserver: re-configuration failed due to not enough started members";
    expect_error(remove(&c, me).await, Code::Unknown, few);
    expect_error(remove(&c, 4711).await, Code::NotFound, "etcdserver: member not found");
    let voter = "etcdserver: can only promote a learner member";
    expect_error(promote(&c, me).await, Code::FailedPrecondition, voter);
    expect_error(promote(&c, 4711).await, Code::NotFound, "etcdserver: member not found");
    assert_eq!(list(&c).await.len(), 1);
}

/// C-7: peer URLs are replaced by whatever comes, and stay over a restart with the old flags; id and name stay.
#[tokio::test(flavor = "multi_thread")]
async fn c_7_member_update() {
    let mut c = own(&[]).await;
    let before = list(&c).await.remove(0);
    expect_error(
        update(&c, 4711, &["http://127.0.0.1:1"]).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    let old = before.peer_ur_ls[0].as_str();
    for urls in
        [vec![], vec!["no URL at all", "http://127.0.0.1:1/x"], vec![old], vec!["http://127.0.0.1:1", old]]
    {
        let answer = update(&c, before.id, &urls).await.expect("member update").into_inner();
        let header = answer.header.expect("header");
        assert_eq!((header.member_id, header.revision), (before.id, 0));
        let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
        let expected = pb::Member { peer_ur_ls, ..before.clone() };
        assert_eq!(answer.members, std::slice::from_ref(&expected));
        assert_eq!(list(&c).await, [expected]);
    }
    let after = list(&c).await;
    for stop in [Stop::Kill, Stop::Terminate] {
        c.restart(stop).await;
        assert_eq!(list(&c).await, after, "{stop:?}");
    }
}
