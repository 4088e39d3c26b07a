//! The start of clusters: ids, sizes, who is refused.

use kvist::pb::etcdserverpb as pb;
use sha1::{Digest, Sha1};

use crate::cluster::{Cluster, Plan, TOKEN};
use crate::support::certs::Ca;

fn id_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(Sha1::digest(bytes)[..8].try_into().expect("8 bytes"))
}

/// C-2: ids follow from peer URLs and the token; each member tells the same list, sorted by id.
#[tokio::test(flavor = "multi_thread")]
async fn c_2_ids_of_three() {
    let cluster = Cluster::start(3).await;
    let mut expected: Vec<pb::Member> = cluster
        .members
        .iter()
        .map(|m| pb::Member {
            id: id_of(format!("{}{TOKEN}", m.peer_url).as_bytes()),
            name: m.name.clone(),
            peer_ur_ls: vec![m.peer_url.clone()],
            client_ur_ls: vec![m.client_url.clone()],
            is_learner: false,
        })
        .collect();
    expected.sort_by_key(|m| m.id);
    let ids: Vec<u8> = expected.iter().flat_map(|m| m.id.to_be_bytes()).collect();
    for (member, api) in cluster.members.iter().zip(cluster.apis()) {
        let request = pb::MemberListRequest { linearizable: true };
        let answer = api.cluster.clone().member_list(request).await.expect("member list").into_inner();
        assert_eq!(answer.members, expected);
        let header = answer.header.expect("a header");
        let own = expected.iter().find(|m| m.name == member.name).expect("in the list");
        assert_eq!((header.cluster_id, header.member_id), (id_of(&ids), own.id));
    }
}

/// A write to any member is seen by linearizable reads on all; answers tell the reader's id and one term.
#[tokio::test(flavor = "multi_thread")]
async fn writes_to_any_member_are_seen_on_all() {
    let cluster = Cluster::start(3).await;
    let apis = cluster.apis();
    let mut last = 1;
    for round in 0..20 {
        let revision = apis[round % 3].put("key", &round.to_string()).await.expect("put");
        assert_eq!(revision, last + 1);
        last = revision;
        for api in &apis {
            let pair = api.get("key", false).await.expect("get").expect("a pair");
            assert_eq!((pair.value, pair.mod_revision), (round.to_string().into_bytes(), revision));
        }
    }
    let mut statuses = Vec::new();
    for api in &apis {
        statuses.push(api.status().await.expect("status"));
    }
    assert!(statuses.windows(2).all(|pair| pair[0].leader == pair[1].leader), "{statuses:?}");
    assert!(statuses.windows(2).all(|pair| pair[0].raft_term == pair[1].raft_term), "{statuses:?}");
}

/// Five members serve with two of them gone, the leader among them.
#[tokio::test(flavor = "multi_thread")]
async fn five_members_bear_the_loss_of_two() {
    let mut cluster = Cluster::start(5).await;
    let leader = cluster.leader().await;
    cluster.api(leader).put("before", "1").await.expect("put");
    cluster.members[leader].kill();
    let next = cluster.leader().await;
    cluster.members[next].kill();
    cluster.leader().await;
    for index in cluster.running() {
        let api = cluster.api(index);
        assert_eq!(api.value("before").await.as_deref(), Some("1"));
        api.put("after", &index.to_string()).await.expect("put");
    }
    cluster.start_all();
    cluster.leader().await;
    cluster.same_hash(&[0, 1, 2, 3, 4]).await;
}

/// Members speak TLS to each other, and want a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn tls_between_members() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ca = Ca::new(&dir.path().join("ca"));
    ca.issue_server();
    let mut plan = Plan::of(3).with(&[
        &format!("--peer-cert-file={}", ca.path("server.pem")),
        &format!("--peer-key-file={}", ca.path("server.key")),
        &format!("--peer-trusted-ca-file={}", ca.path("ca.pem")),
        "--peer-client-cert-auth",
    ]);
    plan.peer_scheme = "https";
    let mut cluster = Cluster::start_with(plan).await;
    for api in cluster.apis() {
        api.put("key", "value").await.expect("put");
    }
    let leader = cluster.leader().await;
    cluster.members[leader].kill();
    let next = cluster.leader().await;
    assert_eq!(cluster.api(next).value("key").await.as_deref(), Some("value"));
}
