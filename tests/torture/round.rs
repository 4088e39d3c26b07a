//! One history: a cluster, its load, a fault, and the judgement.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clients::{KEYS, Shared, client, lessee};
use crate::cluster::{Cluster, Place, Plan, READY_TIMEOUT, eventually};
use crate::faults::{self, World};
use crate::history::{History, event};
use crate::journal::{Call, Journal, Operation};
use crate::net::Net;
use crate::register::{self, Verdict};
use crate::watcher::{self, Seen};
use crate::{check, machine, net};

const WATCHERS: u64 = 3;
/// How long the load goes on before and behind the fault.
const AROUND: Duration = Duration::from_millis(600);

/// Plays one history in a directory; `Err` says what is wrong with what the servers did, a panic what they failed to do. Returns
/// a line about what was seen.
pub async fn play(fault: &str, seed: u64, dir: &Path) -> Result<String, String> {
    let mut world = build(fault, seed, dir);
    world.prepare(fault);
    world.cluster.start_all();
    world.cluster.wait_ready().await;
    let shared = Arc::clone(&world.shared);
    let clients = start_clients(&shared, seed);
    let deletes = watcher::Deletes::default();
    let (last_sender, last) = watch::channel(None);
    let watchers: Vec<JoinHandle<Result<Seen, String>>> = (0..WATCHERS)
        .map(|n| {
            tokio::spawn(watcher::watcher(Arc::clone(&shared), seed + n, Arc::clone(&deletes), last.clone()))
        })
        .collect();
    tokio::time::sleep(AROUND).await;
    world.play(fault).await;
    tokio::time::sleep(AROUND).await;
    shared.is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.map_err(|error| format!("a client ended: {error}"))?;
    }
    world.recover().await;
    let running = write_on_all(&mut world).await;
    wait_for_leases(&world, running[0]).await;
    let history = read_history(&world, running[0]).await?;
    last_sender.send_replace(Some(history.last()));
    for watcher in watchers {
        let seen = tokio::time::timeout(READY_TIMEOUT, watcher).await;
        let seen = seen.map_err(|_| "a watcher did not see the last revision")?;
        watcher::check(&seen.map_err(|error| format!("a watcher ended: {error}"))??, &history.events)?;
    }
    world.cluster.same_hash(&running).await;
    judge(&world, &history, &deletes.lock())
}

/// A cluster that does not run yet.
fn build(fault: &str, seed: u64, dir: &Path) -> World {
    let mut rng = StdRng::seed_from_u64(seed);
    let size = if rng.random_bool(0.15) { 5 } else { 3 };
    let mut plan = Plan::of(size).with(&faults::flags(fault, &mut rng));
    plan.heartbeat_ms = 50;
    let is_isolated = std::env::var_os(machine::ISOLATED).is_some();
    if is_isolated {
        net::bring_up_loopback();
        machine::hide_shared_memory();
    }
    let net = (is_isolated && faults::wants_network(fault)).then(|| Net::new(size));
    let place = |index| net.as_ref().map_or_else(Place::loopback, |net| net.place(index));
    let cluster = Cluster::prepare_in(dir, plan, (0..size).map(place).collect());
    let urls = cluster.members.iter().map(|member| member.client_url.clone()).collect();
    let shared = Shared {
        journal: Journal::new(),
        urls: Mutex::new(urls),
        is_over: AtomicBool::new(false),
        length_max: faults::length_max(fault),
    };
    World { cluster, net, rng, shared: Arc::new(shared), small_disk: None }
}

fn start_clients(shared: &Arc<Shared>, seed: u64) -> Vec<JoinHandle<()>> {
    let count = 4 + u32::try_from(seed % 4).expect("below 4");
    let mut clients: Vec<JoinHandle<()>> =
        (1..=count).map(|id| tokio::spawn(client(Arc::clone(shared), id, seed))).collect();
    clients.push(tokio::spawn(lessee(Arc::clone(shared), count + 1, seed)));
    clients
}

/// Every member takes a write in the end. Returns the members that run.
async fn write_on_all(world: &mut World) -> Vec<usize> {
    let running = world.cluster.running();
    for &index in &running {
        let api = world.cluster.api(index);
        let client = 1000 + u32::try_from(index).expect("few members");
        let (api, shared, count) = (&api, &world.shared, &AtomicU64::new(0));
        eventually("a member to take a write", READY_TIMEOUT, || async move {
            let value = u64::from(client) << 32 | count.fetch_add(1, Ordering::SeqCst);
            let call = Call::Put { keys: vec![KEYS[0].into()], value, lease: 0 };
            shared.perform(client, api, call, 16).await
        })
        .await;
    }
    running
}

/// Nobody renews any more: all leases end.
async fn wait_for_leases(world: &World, index: usize) {
    let api = world.cluster.api(index);
    let api = &api;
    eventually("all leases to end", READY_TIMEOUT, || async move {
        let range = pb::RangeRequest {
            key: b"leased-".into(),
            range_end: b"leased.".into(),
            count_only: true,
            ..Default::default()
        };
        let count = api.kv.clone().range(range).await.ok()?.into_inner().count;
        (count == 0).then_some(())
    })
    .await;
}

/// All changes, by a watch from the first revision.
async fn read_history(world: &World, index: usize) -> Result<History, String> {
    let api = world.cluster.api(index);
    let read = async {
        let range = pb::RangeRequest { key: b"a".into(), ..Default::default() };
        let answer = api.kv.clone().range(range).await.map_err(|error| error.to_string())?.into_inner();
        let last = answer.header.expect("a header").revision;
        let mut stream = api.watch(b"\0", b"\0", 1).await.map_err(|error| error.to_string())?;
        let mut events = Seen::new();
        while events.last_key_value().is_none_or(|(&revision, _)| revision < last) {
            let answer = stream.answers.message().await.map_err(|error| error.to_string())?;
            let answer = answer.ok_or("the watch ended")?;
            watcher::append(&mut events, answer.events.iter().map(event))?;
        }
        events.retain(|revision, _| *revision <= last);
        History::new(events)
    };
    tokio::time::timeout(READY_TIMEOUT, read).await.map_err(|_| "history could not be read")?
}

/// Compares what clients were told with history.
fn judge(world: &World, history: &History, deletes: &BTreeMap<String, u64>) -> Result<String, String> {
    let operations: Vec<Operation> = std::mem::take(&mut world.shared.journal.operations.lock());
    let leases = std::mem::take(&mut *world.shared.journal.leases.lock());
    check::check(history, &operations)?;
    check::check_leases(&leases, deletes)?;
    let mut undecided = 0;
    for key in KEYS {
        match register::judge(key, history, &operations) {
            Verdict::Linearizable => {}
            Verdict::Violation => return Err(format!("the operations on {key} are not linearizable")),
            Verdict::Unknown => undecided += 1,
        }
    }
    let lost = operations.iter().filter(|operation| operation.answer.is_none()).count();
    Ok(format!(
        "{} operations, {lost} without an answer, {} leases, {} revisions, {undecided} keys undecided",
        operations.len(),
        leases.len(),
        history.last(),
    ))
}
