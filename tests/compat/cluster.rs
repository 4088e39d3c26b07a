//! Cluster calls on one member: contract 1.10, rows C-2 and C-9, and the refusals of C-1, C-3, C-5, C-6, C-7 and C-8.

use kvist::pb::etcdserverpb as pb;
use sha1::{Digest, Sha1};

use crate::client::{get, own};

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
