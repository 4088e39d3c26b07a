//! What is left of a cluster goes on; and a log that is purged under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cluster::{Cluster, Plan};

/// Puts of the soak test; `KVIST_SOAK_PUTS` for more.
const PUTS: u64 = 12_000;
const WRITERS: usize = 64;

/// `--force-new-cluster`: two of three are lost, and the third goes on alone with everything; it grows again.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_goes_on_alone() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.api(leader).put("key", "kept").await.expect("put");
    let last = cluster.other(leader);
    assert_eq!(cluster.api(last).value("key").await.as_deref(), Some("kept"));
    let id = cluster.id(last).await;
    for member in &mut cluster.members {
        member.kill();
    }
    let plain = cluster.members[last].flags.clone();
    cluster.members[last].flags.push("--force-new-cluster".into());
    for forced in [true, false] {
        cluster.members[last].start();
        cluster.serves(last).await;
        let api = cluster.api(last);
        assert_eq!(api.value("key").await.as_deref(), Some("kept"), "forced: {forced}");
        let members = api.members().await.expect("members");
        assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [id], "forced: {forced}");
        api.put("later", "1").await.expect("put");
        if forced {
            cluster.members[last].kill();
            cluster.members[last].flags = plain.clone();
        }
    }
    for (index, member) in cluster.members.iter_mut().enumerate() {
        member.is_removed = index != last;
    }
    let (fresh, _) = cluster.add(last, false).await;
    cluster.members[fresh].start();
    cluster.serves(fresh).await;
    cluster.same_hash(&[last, fresh]).await;
}

/// The log is purged right behind the flush while entries pour in and go to followers: nobody may lose one, and nobody may
/// stop.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_under_load() {
    let plan = Plan::of(3).with(&["--snapshot-count=500", "--snapshot-catchup-entries=500"]);
    let mut cluster = Cluster::start_with(plan).await;
    let leader = cluster.leader().await;
    let puts = std::env::var("KVIST_SOAK_PUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(PUTS);
    let next = Arc::new(AtomicU64::new(0));
    let value = "v".repeat(1024);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (api, next, value) = (
            cluster.api(if writer % 2 == 0 { leader } else { writer % 3 }),
            Arc::clone(&next),
            value.clone(),
        );
        writers.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= puts {
                    return;
                }
                api.put(&format!("key-{}", number % 5000), &value).await.expect("put");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(cluster.running(), [0, 1, 2]);
    assert!(cluster.same_hash(&[0, 1, 2]).await >= puts as i64);
}
