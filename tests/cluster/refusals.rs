//! Changes and members that a cluster refuses.

use tonic::Code;

use crate::cluster::{Cluster, Plan, READY_TIMEOUT, eventually};
use crate::expect_error;

const FEW: &str = "etcdserver: re-configuration failed due to not enough started members";

/// C-3, C-5: a URL in use; a voter too many without its process; a removal that would cost the quorum.
#[tokio::test(flavor = "multi_thread")]
async fn c_3_c_5_changes_that_would_cost_the_quorum() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    let taken = cluster.members[0].peer_url.clone();
    {
        let (api, taken) = (&api, &taken);
        let refused = eventually("a refusal", READY_TIMEOUT, || async move {
            let refused = api.member_add(taken, false).await.expect_err("the URL is taken");
            (refused.code() == Code::FailedPrecondition).then_some(refused)
        })
        .await;
        assert_eq!(refused.message(), "etcdserver: Peer URLs already exists");
    }
    // A fourth without a process leaves three of three that must run; a fifth would leave three of five.
    cluster.add(leader, false).await;
    cluster.add(leader, false).await;
    let fifth = api.member_add("http://127.0.0.1:2", false).await;
    expect_error(fifth, Code::Unknown, FEW);
    let follower = cluster.other(leader);
    let id = cluster.id(follower).await;
    expect_error(api.member_remove(id).await, Code::Unknown, FEW);
    api.put("key", "1").await.expect("put");
}

/// C-5: with a member gone for a while, a further voter is refused, and so is the removal of one that is up.
#[tokio::test(flavor = "multi_thread")]
async fn c_5_changes_with_a_member_down() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let down = cluster.other(leader);
    let (up, down_id) =
        ((0..3).find(|&i| i != leader && i != down).expect("a third"), cluster.id(down).await);
    let up_id = cluster.id(up).await;
    cluster.members[down].kill();
    let api = cluster.api(leader);
    let refused = api.member_remove(up_id).await;
    let status = refused.expect_err("two of two must be up");
    assert!([FEW, "etcdserver: unhealthy cluster"].contains(&status.message()), "{status:?}");
    // Once it is known to be down, it may go.
    {
        let api = &api;
        eventually("the one that is down to be removed", READY_TIMEOUT, || async move {
            api.member_remove(down_id).await.ok()
        })
        .await;
    }
    assert_eq!(api.members().await.expect("members").len(), 2);
}

/// Members of two clusters that meet at a URL do not mix.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let index = cluster.other(leader);
    cluster.members[index].kill();
    // Where a member was, one of another cluster starts: the same URLs and names, another token, no data.
    let mut plan = Plan::of(3);
    plan.token = "another-cluster".into();
    let old_data = cluster.members[index].data_dir.clone();
    let strange = &mut cluster.members[index];
    strange.data_dir = old_data.with_extension("other");
    for flag in &mut strange.flags {
        *flag = flag.replace(crate::cluster::TOKEN, &plan.token);
    }
    strange.start();
    let api = cluster.api(leader);
    for round in 0..20 {
        api.put("key", &round.to_string()).await.expect("put");
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let strange_api = cluster.api(index);
    let local = strange_api.get("key", true);
    let local = tokio::time::timeout(std::time::Duration::from_secs(1), local).await;
    assert!(!matches!(local, Ok(Ok(Some(_)))), "a stranger has the cluster's data");
    let strange = &mut cluster.members[index];
    strange.kill();
    strange.data_dir = old_data;
    for flag in &mut strange.flags {
        *flag = flag.replace(&plan.token, crate::cluster::TOKEN);
    }
    strange.start();
    cluster.serves(index).await;
    assert_eq!(cluster.api(index).value("key").await.as_deref(), Some("19"));
    cluster.same_hash(&[0, 1, 2]).await;
}

/// A member that claims to join an existing cluster, which does not know it, ends with an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_nobody_added_is_refused() {
    let mut cluster = Cluster::start(1).await;
    let known = format!("m0={}", cluster.members[0].peer_url);
    let mut stranger = Cluster::prepare(Plan::of(1));
    let member = &mut stranger.members[0];
    member.name = "stranger".into();
    let own = format!("stranger={}", member.peer_url);
    member.flags.retain(|flag| !flag.starts_with("--initial-cluster="));
    member.flags.push(format!("--initial-cluster={known},{own}"));
    member.flags.push("--initial-cluster-state=existing".into());
    member.start();
    assert_ne!(member.ended().code(), Some(0));
    cluster.leader().await;
}
