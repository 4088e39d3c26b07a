//! Elections: campaigns, what the leader says, what others see of it, and who follows.

use etcd_client::{
    CampaignResponse, Client, Error, LeaderKey, LeaderResponse, ObserveStream, ProclaimOptions, ResignOptions,
};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("election/campaign, leader, proclaim, resign", round),
    crate::case!("election/nobody leads", nobody),
    crate::case!("election/observe", observe),
    crate::case!("election/the next leads when one resigns", next_leads),
    crate::case!("election/fail-over by revoked and expired leases", fail_over),
    crate::case!("election/who does not lead can't proclaim", not_leader),
];

async fn lease(client: &mut Client, ttl: i64) -> i64 {
    client.lease_grant(ttl, None).await.expect("grant").id()
}

async fn campaign(client: &mut Client, value: &str, lease: i64) -> LeaderKey {
    let won = client.campaign("e", value, lease).await.expect("campaign");
    won.leader().expect("the key of the leader").clone()
}

fn candidate(
    client: &Client,
    value: &'static str,
    lease: i64,
) -> tokio::task::JoinHandle<Result<CampaignResponse, Error>> {
    let mut client = client.clone();
    tokio::spawn(async move { client.campaign("e", value, lease).await })
}

fn value(response: &LeaderResponse) -> String {
    text(response.kv().expect("a leader").value())
}

/// How many lead or wait.
async fn candidates(client: &Client) -> usize {
    all(&mut client.clone(), "e/").await.len()
}

async fn seen(stream: &mut ObserveStream) -> String {
    let message = soon("a leader", stream.message()).await;
    value(&message.expect("a healthy stream").expect("the stream goes on"))
}

async fn round(server: Server) {
    let mut client = connect(&server).await;
    let lease = lease(&mut client, 600).await;
    let leader = campaign(&mut client, "one", lease).await;
    assert_eq!((text(leader.name()), text(leader.key())), ("e".to_owned(), format!("e/{lease:x}")));
    assert_eq!((leader.rev(), leader.lease()), (2, lease));
    let found = client.leader("e").await.expect("leader");
    assert_eq!((value(&found), found.kv().expect("a leader").lease()), ("one".to_owned(), lease));
    let options = Some(ProclaimOptions::new().with_leader(leader.clone()));
    client.proclaim("two", options).await.expect("proclaim");
    let found = client.leader("e").await.expect("leader");
    let kv = found.kv().expect("a leader");
    assert_eq!((kv.value(), kv.create_revision(), kv.version()), (&b"two"[..], 2, 2));
    client.resign(Some(ResignOptions::new().with_leader(leader))).await.expect("resign");
    assert_eq!(candidates(&client).await, 0);
}

async fn nobody(server: Server) {
    let mut client = connect(&server).await;
    assert_eq!(refused(client.leader("e").await), status(UNKNOWN, "election: no leader"));
    assert_eq!(
        refused(client.campaign("e", "one", 99).await),
        status(UNKNOWN, "etcdserver: requested lease not found")
    );
}

async fn observe(server: Server) {
    let mut client = connect(&server).await;
    let (first, second) = (lease(&mut client, 600).await, lease(&mut client, 600).await);
    // The answer begins with the first leader.
    let mut early = client.clone();
    let observing = tokio::spawn(async move { early.observe("e").await });
    let leader = campaign(&mut client, "one", first).await;
    let mut stream = soon("a leader", observing).await.expect("a task").expect("observe");
    assert_eq!(seen(&mut stream).await, "one");
    let options = Some(ProclaimOptions::new().with_leader(leader.clone()));
    client.proclaim("two", options).await.expect("proclaim");
    assert_eq!(seen(&mut stream).await, "two");
    let waiting = candidate(&client, "three", second);
    until("the second candidate", async || candidates(&client).await == 2).await;
    client.resign(Some(ResignOptions::new().with_leader(leader))).await.expect("resign");
    assert_eq!(seen(&mut stream).await, "three");
    soon("the second leader", waiting).await.expect("a task").expect("campaign");
    let mut late = client.observe("e").await.expect("observe");
    assert_eq!(seen(&mut late).await, "three");
}

async fn next_leads(server: Server) {
    let mut client = connect(&server).await;
    let (first, second) = (lease(&mut client, 600).await, lease(&mut client, 600).await);
    let leader = campaign(&mut client, "one", first).await;
    let waiting = candidate(&client, "two", second);
    until("the second candidate", async || candidates(&client).await == 2).await;
    assert!(!waiting.is_finished());
    assert_eq!(value(&client.leader("e").await.expect("leader")), "one");
    client.resign(Some(ResignOptions::new().with_leader(leader))).await.expect("resign");
    let won = soon("the second leader", waiting).await.expect("a task").expect("campaign");
    assert_eq!(won.leader().expect("the key of the leader").lease(), second);
    assert_eq!(value(&client.leader("e").await.expect("leader")), "two");
}

async fn fail_over(server: Server) {
    let mut client = connect(&server).await;
    let first = lease(&mut client, 600).await;
    let second = lease(&mut client, 600).await;
    campaign(&mut client, "one", first).await;
    let waiting = candidate(&client, "two", second);
    until("the second candidate", async || candidates(&client).await == 2).await;
    client.lease_revoke(first).await.expect("revoke");
    soon("the second leader", waiting).await.expect("a task").expect("campaign");
    client.lease_revoke(second).await.expect("revoke");
    // The third dies without a word.
    let (third, fourth) = (lease(&mut client, 2).await, lease(&mut client, 600).await);
    campaign(&mut client, "three", third).await;
    let won = soon("the fourth leader", candidate(&client, "four", fourth)).await.expect("a task");
    assert_eq!(won.expect("campaign").leader().expect("the key of the leader").lease(), fourth);
    assert_eq!(all(&mut client, "e/").await, [format!("e/{fourth:x}=four")]);
}

async fn not_leader(server: Server) {
    let mut client = connect(&server).await;
    let lease = lease(&mut client, 600).await;
    let leader = campaign(&mut client, "one", lease).await;
    client.resign(Some(ResignOptions::new().with_leader(leader.clone()))).await.expect("resign");
    let options = Some(ProclaimOptions::new().with_leader(leader));
    assert_eq!(refused(client.proclaim("two", options).await), status(UNKNOWN, "election: not leader"));
    assert_eq!(candidates(&client).await, 0);
}
