//! Batches that change a key several times: each change has a revision of its own for etcd's watchers, and nobody sees the
//! store between them.

use kvist::pb::oxia as pb;
use pb::BatchRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::client::{
    Client, delete, delete_if, delete_range, events, found, get, get_error, is_not_found, put, put_if, stat,
};

#[tokio::test]
async fn each_change_of_a_key_has_a_revision_of_its_own() {
    let client = Client::shared().await;
    let before = client.revision().await;
    let mut watch = client.watch("rep/", before + 1).await;
    let answer = client
        .batch(BatchRequest {
            puts: vec![put("rep/a", "1"), put("rep/b", "1"), put_if("rep/a", "2", 0), put("rep/a", "3")],
            deletes: vec![delete_if("rep/a", 2), delete("rep/a")],
            delete_ranges: vec![delete_range("rep/", "rep0")],
            gets: vec![get("rep/a"), get("rep/b")],
            ..Default::default()
        })
        .await;
    assert_eq!(answer.puts.iter().map(|put| stat(put).version).collect::<Vec<_>>(), [0, 0, 1, 2]);
    assert_eq!(answer.deletes[0].error, None);
    is_not_found(answer.deletes[1].error.as_ref());
    assert_eq!(answer.delete_ranges[0].deletes[0].key, "rep/b");
    answer.gets.iter().for_each(|get| is_not_found(get_error(get)));

    let seen = events(&mut watch, 6).await;
    let told: Vec<&str> = seen.iter().map(|(told, _)| told.as_str()).collect();
    assert_eq!(
        told,
        ["put rep/a=1", "put rep/b=1", "put rep/a=2", "put rep/a=3", "delete rep/a", "delete rep/b"]
    );
    let of = |key: &str| -> Vec<i64> {
        seen.iter().filter(|(told, _)| told.contains(key)).map(|(_, revision)| *revision).collect()
    };
    assert!(of("rep/a").windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert!(of("rep/b").windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert!(seen.is_sorted_by_key(|(_, revision)| *revision));
}

/// A watcher that comes later finds the same in history.
#[tokio::test]
async fn history_has_each_change() {
    let client = Client::shared().await;
    let before = client.revision().await;
    let puts = (0..5).map(|n| put("hist/a", &n.to_string())).collect();
    client.batch(BatchRequest { puts, ..Default::default() }).await;
    let mut watch = client.watch("hist/", before + 1).await;
    let seen = events(&mut watch, 5).await;
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "{seen:?}");
    let told: Vec<&str> = seen.iter().map(|(told, _)| told.as_str()).collect();
    assert_eq!(told, ["put hist/a=0", "put hist/a=1", "put hist/a=2", "put hist/a=3", "put hist/a=4"]);
    assert_eq!(client.pair("hist/a").await.expect("a pair").version, 5);
}

/// A key that each batch writes to an odd value and then to an even one: nobody may ever read the odd one.
#[tokio::test(flavor = "multi_thread")]
async fn all_changes_become_visible_together() {
    let client = Client::shared().await;
    client.put(put("both/a", "0")).await;
    client.put(put("both/b", "0")).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|n| {
            let (client, is_over) = (client.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    if n % 2 == 0 {
                        let gets = vec![get("both/a"), get("both/b")];
                        let answer = client.batch(BatchRequest { gets, ..Default::default() }).await;
                        assert_eq!(answer.gets[0].payload, answer.gets[1].payload);
                        assert_eq!(found(&answer.gets[0]).version % 2, 0, "between two puts of a batch");
                    } else {
                        let pair = client.pair("both/a").await.expect("a pair");
                        assert_eq!(pair.version % 2, 1, "between two puts of a batch");
                    }
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for n in 1..=300 {
        let even = (2 * n).to_string();
        let puts =
            vec![put("both/a", "odd"), put("both/b", "odd"), put("both/a", &even), put("both/b", &even)];
        client.batch(BatchRequest { puts, ..Default::default() }).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.expect("a reader") > 0);
    }
    assert_eq!(found(&client.get("both/a").await).version, 600);
}

/// Batches of several clients on the same keys do not mix: expected versions hold within each, whatever comes between.
#[tokio::test(flavor = "multi_thread")]
async fn batches_of_several_clients_do_not_mix() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 40;
    let client = Client::shared().await;
    client.put(put("mix/a", "start")).await;
    let writers: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < ROUNDS {
                    let version = found(&client.get("mix/a").await).version;
                    let puts =
                        vec![put_if("mix/a", &n.to_string(), version), put_if("mix/a", "2", version + 1)];
                    let answer = client.batch(BatchRequest { puts, ..Default::default() }).await;
                    let results: Vec<bool> = answer.puts.iter().map(is_done).collect();
                    assert!(results[0] == results[1], "the second follows the first: {answer:?}");
                    done += usize::from(results[0]);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(found(&client.get("mix/a").await).version, (2 * CLIENTS * ROUNDS) as u64);
}

fn is_done(put: &pb::PutResponse) -> bool {
    super::client::put_error(put).is_none()
}
