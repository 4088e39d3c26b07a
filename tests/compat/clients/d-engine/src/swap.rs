//! CompareAndSwap: by itself, as a lock, and as money that nobody may make.

use bytes::Bytes;
use d_engine_client::{Client, ClientApi};

use crate::control::Server;
use crate::help::{connect, text};
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("txn/compare and swap", compare_and_swap),
    crate::case!("txn/a counter of many clients", counter),
    crate::case!("txn/bank transfers", transfers),
    crate::case!("lock/distributed lock", distributed_lock),
];

/// Nothing is expected to be there.
const ABSENT: Option<&str> = None;

async fn compare_and_swap(server: Server) {
    let client = connect(&server).await;
    assert!(!client.compare_and_swap("k", Some(""), "1").await.expect("swap"), "a missing key has no value");
    assert!(client.compare_and_swap("k", ABSENT, "").await.expect("swap"));
    assert!(!client.compare_and_swap("k", ABSENT, "1").await.expect("swap"));
    assert!(client.compare_and_swap("k", Some(""), "1").await.expect("swap"));
    assert!(!client.compare_and_swap("k", Some("2"), "3").await.expect("swap"));
    assert!(client.compare_and_swap("k", Some("1"), "2").await.expect("swap"));
    assert_eq!(client.get("k").await.expect("get"), Some("2".into()));
}

async fn number(client: &Client, key: &str) -> (Bytes, i64) {
    let value = client.get(key).await.expect("get").expect("a number");
    let number = text(&value).parse().expect("a number");
    (value, number)
}

async fn counter(server: Server) {
    let client = connect(&server).await;
    client.put("n", "0").await.expect("put");
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let client = connect(&server).await;
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while done < 25 {
                let (seen, n) = number(&client, "n").await;
                let swapped = client.compare_and_swap("n", Some(seen), (n + 1).to_string()).await;
                done += i64::from(swapped.expect("swap"));
            }
        }));
    }
    for task in tasks {
        task.await.expect("a client");
    }
    assert_eq!(number(&client, "n").await.1, 100);
}

/// Both sides of a transfer are one value, so the sum never changes.
async fn transfers(server: Server) {
    let client = connect(&server).await;
    client.put("accounts", "50,50").await.expect("put");
    let balances = |value: &Bytes| {
        let text = text(value);
        let (a, b) = text.split_once(',').expect("two numbers");
        (a.parse::<i64>().expect("a number"), b.parse::<i64>().expect("a number"))
    };
    let mut tasks = Vec::new();
    for step in [1, 2, -1, -2] {
        let client = connect(&server).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                let seen = client.get("accounts").await.expect("get").expect("the accounts");
                let (a, b) = balances(&seen);
                let next = format!("{},{}", a - step, b + step);
                client.compare_and_swap("accounts", Some(seen), next).await.expect("swap");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a client");
    }
    let (a, b) = balances(&client.get("accounts").await.expect("get").expect("the accounts"));
    assert_eq!(a + b, 100);
}

/// The eight steps of the d-engine's own test, in which the empty value is "nobody".
async fn distributed_lock(server: Server) {
    let (a, b) = (connect(&server).await, connect(&server).await);
    assert!(a.compare_and_swap("lock", ABSENT, "a").await.expect("swap"));
    assert!(!b.compare_and_swap("lock", ABSENT, "b").await.expect("swap"));
    assert_eq!(b.get_linearizable("lock").await.expect("get"), Some("a".into()));
    assert!(!b.compare_and_swap("lock", Some("b"), "").await.expect("swap"));
    assert!(a.compare_and_swap("lock", Some("a"), "").await.expect("swap"));
    assert!(b.compare_and_swap("lock", Some(""), "b").await.expect("swap"));
    assert!(!a.compare_and_swap("lock", Some(""), "a").await.expect("swap"));
    assert_eq!(a.get_linearizable("lock").await.expect("get"), Some("b".into()));
}
