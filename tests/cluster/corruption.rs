//! a member whose state was changed on disk, and how that comes out.

use std::fs;
use std::path::Path;

use kvist::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use tonic::Code;

use crate::cluster::{Api, Cluster, Plan, READY_TIMEOUT, eventually};
use crate::expect_error;

const WRITTEN: &str = "the value that was written, and all have";
const DAMAGED: &str = "the value that was damaged, and one has!";

/// Puts a value and replaces it in the files of one follower, which does not run then; its index and id.
async fn damaged(cluster: &mut Cluster) -> (usize, u64) {
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    for round in 0..20 {
        api.put(&format!("key-{round}"), &round.to_string()).await.expect("put");
    }
    api.put("key", WRITTEN).await.expect("put");
    cluster.same_hash(&[0, 1, 2]).await;
    let index = cluster.other(leader);
    let id = cluster.id(index).await;
    let member = &mut cluster.members[index];
    member.terminate();
    assert!(damage(&member.data_dir) > 0, "the value is in no file");
    (index, id)
}

/// Replaces the value in all files below a directory but those of the log; the number of places.
fn damage(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("wal") {
            count += damage(&path);
        } else if path.is_file() {
            let mut bytes = fs::read(&path).expect("a file");
            let places: Vec<usize> = (0..bytes.len().saturating_sub(WRITTEN.len()))
                .filter(|at| bytes[*at..].starts_with(WRITTEN.as_bytes()))
                .collect();
            for at in &places {
                bytes[*at..at + DAMAGED.len()].copy_from_slice(DAMAGED.as_bytes());
            }
            if !places.is_empty() {
                fs::write(&path, bytes).expect("write a file");
            }
            count += places.len();
        }
    }
    count
}

/// Waits until the CORRUPT alarm is raised for this member alone, and writes are refused.
async fn found_out(api: &Api, id: u64) {
    let get = pb::AlarmRequest { action: AlarmAction::Get as i32, ..Default::default() };
    let alarms = eventually("the alarm", READY_TIMEOUT, || async move {
        let answer = api.maintenance.clone().alarm(get).await.ok()?.into_inner();
        (!answer.alarms.is_empty()).then_some(answer.alarms)
    })
    .await;
    assert_eq!(alarms, [pb::AlarmMember { member_id: id, alarm: pb::AlarmType::Corrupt as i32 }]);
    let refused = api.put("another", "").await;
    expect_error(refused, Code::DataLoss, "etcdserver: corrupt cluster");
}

/// Behind its gate, the check at the start keeps the member from serving; without it, the periodic check raises the alarm.
#[tokio::test(flavor = "multi_thread")]
async fn x_11_a_member_that_differs_is_found_out() {
    let mut cluster = Cluster::start_with(Plan::of(3).with(&["--corrupt-check-time=1s"])).await;
    let (index, id) = damaged(&mut cluster).await;
    let member = &mut cluster.members[index];
    member.flags.push("--feature-gates=InitialCorruptCheck=true".into());
    member.start();
    assert_eq!(member.ended().code(), Some(1));
    let text = member.log_text();
    assert!(text.contains("found different hash values from remote peer"), "{text}");
    assert!(text.contains(&format!("{id:x} found data inconsistency with peers")), "{text}");
    member.flags.pop();
    member.start();
    cluster.serves(index).await;
    let api = cluster.api(index);
    assert_eq!(api.get("key", true).await.expect("get").expect("a pair").value, DAMAGED.as_bytes());
    found_out(&api, id).await;
}

/// Behind its gate, members are compared when something was compacted.
#[tokio::test(flavor = "multi_thread")]
async fn x_11_what_was_compacted_is_compared() {
    let gate = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"];
    let mut cluster = Cluster::start_with(Plan::of(3).with(&gate)).await;
    let (index, id) = damaged(&mut cluster).await;
    cluster.members[index].start();
    cluster.serves(index).await;
    let api = cluster.api(index);
    let revision = api.put("key-0", "again").await.expect("put");
    let request = pb::CompactionRequest { revision, physical: true };
    api.kv.clone().compact(request).await.expect("compact");
    found_out(&api, id).await;
}
