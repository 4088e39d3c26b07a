//! Contract section 6: what members show of each other. docs/metrics.md says where kvist counts otherwise than etcd.

use crate::cluster::{Cluster, Member, Plan, READY_TIMEOUT, eventually};
use crate::support::is_foreign_server;

const PUTS: usize = 200;
const VALUE_BYTES: usize = 2000;

/// The value of a series about a peer; none where it is not shown.
pub fn of_peer(member: &Member, name: &str, label: &str, peer: u64) -> Option<f64> {
    let text = member.scrape();
    let label = format!("{label}=\"{peer:x}\"");
    let line = text.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && line.contains(&label)
    });
    line?.rsplit(' ').next()?.parse().ok()
}

/// Waits until a series about a peer has at least a value.
pub async fn reaches(member: &Member, name: &str, label: &str, peer: u64, least: f64) {
    eventually(&format!("{name} of {peer:x} to reach {least}"), READY_TIMEOUT, || async {
        of_peer(member, name, label, peer).filter(|value| *value >= least)
    })
    .await;
}

async fn traffic_is_counted(cluster: &mut Cluster) {
    let leader = cluster.leader().await;
    let id = cluster.id(leader).await;
    let api = cluster.api(leader);
    for n in 0..PUTS {
        api.put(&format!("key-{n}"), &"v".repeat(VALUE_BYTES)).await.expect("put");
    }
    let bytes = (PUTS * VALUE_BYTES) as f64;
    let led = &cluster.members[leader];
    for index in (0..3).filter(|index| *index != leader) {
        let (follower, peer) = (&cluster.members[index], cluster.id(index).await);
        reaches(led, "etcd_network_peer_sent_bytes_total", "To", peer, bytes).await;
        reaches(led, "etcd_network_peer_received_bytes_total", "From", peer, PUTS as f64).await;
        reaches(led, "etcd_network_peer_round_trip_time_seconds_count", "To", peer, 1.0).await;
        reaches(led, "etcd_network_active_peers", "Remote", peer, 1.0).await;
        reaches(follower, "etcd_network_peer_received_bytes_total", "From", id, bytes).await;
        reaches(follower, "etcd_network_peer_sent_bytes_total", "To", id, PUTS as f64).await;
    }
}

/// What leaves the leader comes in at its followers; one that is gone is seen to be.
#[tokio::test(flavor = "multi_thread")]
async fn members_count_what_they_send_and_receive() {
    let mut cluster = Cluster::start(3).await;
    traffic_is_counted(&mut cluster).await;
    let leader = cluster.leader().await;
    let gone = cluster.other(leader);
    let peer = cluster.id(gone).await;
    let led = |cluster: &Cluster, name, label| of_peer(&cluster.members[leader], name, label, peer);
    let failures = "etcd_network_peer_sent_failures_total";
    let before = led(&cluster, failures, "To").unwrap_or(0.0);
    cluster.members[gone].kill();
    reaches(&cluster.members[leader], failures, "To", peer, before + 3.0).await;
    reaches(&cluster.members[leader], "etcd_network_disconnected_peers_total", "Remote", peer, 1.0).await;
    assert_eq!(led(&cluster, "etcd_network_active_peers", "Remote"), Some(0.0));
    cluster.members[gone].start();
    cluster.serves(gone).await;
    reaches(&cluster.members[leader], "etcd_network_active_peers", "Remote", peer, 1.0).await;
}

/// The same for members that call by another protocol.
#[tokio::test(flavor = "multi_thread")]
async fn traffic_of_wolf_raft_is_counted() {
    if is_foreign_server() {
        return;
    }
    let mut cluster = Cluster::start_with(Plan::of(3).with(&["--peer-transport=wolf"])).await;
    traffic_is_counted(&mut cluster).await;
}
