//! Clusters of real processes for the tests in `tests/cluster` and `tests/torture`.
//!
//! Each member has ports, a data directory and a log file of its own. When a test fails, the directory stays, and the end of
//! each log is printed.
#![allow(dead_code)] // each test binary uses its own part

pub mod api;
mod member;

use std::path::{Path, PathBuf};
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;

pub use api::{Api, eventually};
pub use member::Member;

use crate::support::free_port;

/// Longest time that a member may take to serve, and a cluster to find a leader.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Token of every cluster that does not name another.
pub const TOKEN: &str = "test-cluster";

/// What the members of a cluster have in common.
#[derive(Clone)]
pub struct Plan {
    pub size: usize,
    /// Further flags of every member.
    pub flags: Vec<String>,
    /// Milliseconds between heartbeats; followers wait ten times as long.
    pub heartbeat_ms: u64,
    pub token: String,
    /// `http` or `https`, between members.
    pub peer_scheme: &'static str,
}

impl Plan {
    pub fn of(size: usize) -> Plan {
        Plan { size, flags: Vec::new(), heartbeat_ms: 100, token: TOKEN.into(), peer_scheme: "http" }
    }

    pub fn with(mut self, flags: &[&str]) -> Plan {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }
}

/// Where a member listens, and what starts it.
pub struct Place {
    pub host: String,
    pub wrapper: Vec<String>,
}

impl Place {
    pub fn loopback() -> Place {
        Place { host: "127.0.0.1".into(), wrapper: Vec::new() }
    }
}

/// A cluster; its members end when it is dropped.
pub struct Cluster {
    pub plan: Plan,
    /// In order of their start; removed members stay here.
    pub members: Vec<Member>,
    dir: PathBuf,
    temp: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts members on loopback and waits until all serve and have a leader.
    pub async fn start(size: usize) -> Cluster {
        Cluster::start_with(Plan::of(size)).await
    }

    pub async fn start_with(plan: Plan) -> Cluster {
        let mut cluster = Cluster::prepare(plan);
        cluster.start_all();
        cluster.wait_ready().await;
        cluster
    }

    /// A cluster on loopback whose members do not run yet.
    pub fn prepare(plan: Plan) -> Cluster {
        let places = (0..plan.size).map(|_| Place::loopback()).collect();
        let temp = tempfile::tempdir().expect("temporary directory");
        let mut cluster = Cluster::prepare_in(temp.path(), plan, places);
        cluster.temp = Some(temp);
        cluster
    }

    /// A cluster in a directory that outlives it, each member at its place.
    pub fn prepare_in(dir: &Path, plan: Plan, places: Vec<Place>) -> Cluster {
        let mut cluster = Cluster { plan, members: Vec::new(), dir: dir.to_owned(), temp: None };
        for place in places {
            cluster.prepare_member(place);
        }
        let pairs: Vec<String> =
            cluster.members.iter().map(|m| format!("{}={}", m.name, m.peer_url)).collect();
        for member in &mut cluster.members {
            member.flags.push(format!("--initial-cluster={}", pairs.join(",")));
        }
        cluster
    }

    fn prepare_member(&mut self, place: Place) -> &mut Member {
        let name = format!("m{}", self.members.len());
        let url = |scheme: &str| format!("{scheme}://{}:{}", place.host, free_port());
        let mut flags = self.plan.flags.clone();
        flags.push(format!("--initial-cluster-token={}", self.plan.token));
        flags.push(format!("--heartbeat-interval={}", self.plan.heartbeat_ms));
        flags.push(format!("--election-timeout={}", self.plan.heartbeat_ms * 10));
        self.members.push(Member {
            client_url: url("http"),
            peer_url: url(self.plan.peer_scheme),
            peer_listen_url: None,
            data_dir: self.dir.join(&name),
            log: self.dir.join(format!("{name}.log")),
            flags,
            wrapper: place.wrapper,
            is_removed: false,
            child: None,
            name,
        });
        self.members.last_mut().expect("just added")
    }

    /// Directory of data and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts every member that does not run and was not removed.
    pub fn start_all(&mut self) {
        for member in &mut self.members {
            if !member.is_removed && !member.is_running() {
                member.kill();
                member.start();
            }
        }
    }

    /// Waits until every member that runs follows the same leader and knows the names of all, and returns the leader's index.
    pub async fn wait_ready(&mut self) -> usize {
        for index in self.running() {
            let api = self.api(index);
            let api = &api;
            eventually("all members to publish their names", READY_TIMEOUT, || async move {
                let members = api.members().await.ok()?;
                (!members.is_empty() && members.iter().all(|m| !m.name.is_empty())).then_some(())
            })
            .await;
        }
        self.leader().await
    }

    pub fn api(&self, index: usize) -> Api {
        self.members[index].api()
    }

    /// The APIs of all members.
    pub fn apis(&self) -> Vec<Api> {
        self.members.iter().map(Member::api).collect()
    }

    pub fn running(&mut self) -> Vec<usize> {
        (0..self.members.len()).filter(|&i| self.members[i].is_running()).collect()
    }

    /// Waits until all members that run agree on a leader among them, and returns its index.
    pub async fn leader(&mut self) -> usize {
        let running = self.running();
        self.leader_of(&running).await
    }

    /// Waits until these members agree on a leader among them, and returns its index.
    pub async fn leader_of(&self, some: &[usize]) -> usize {
        let apis: Vec<(usize, Api)> = some.iter().map(|&i| (i, self.api(i))).collect();
        let apis = &apis;
        eventually("a leader that all agree on", READY_TIMEOUT, || async move {
            let mut found = Vec::new();
            for (index, api) in apis {
                let status = tokio::time::timeout(Duration::from_secs(2), api.status()).await.ok()?.ok()?;
                let id = status.header.as_ref()?.member_id;
                found.push((*index, id, status.leader, status.raft_term));
            }
            let &(_, _, leader, term) = found.first()?;
            if found.iter().any(|other| other.2 != leader || other.3 != term) {
                return None;
            }
            found.iter().find(|member| member.1 == leader).map(|member| member.0)
        })
        .await
    }

    /// Some other member than `index` that runs.
    pub fn other(&mut self, index: usize) -> usize {
        *self.running().iter().find(|&&i| i != index).expect("another member that runs")
    }

    /// Id of a member that serves.
    pub async fn id(&self, index: usize) -> u64 {
        let api = self.api(index);
        let api = &api;
        eventually("the id of a member", READY_TIMEOUT, || async move {
            api.status().await.ok()?.header.map(|header| header.member_id)
        })
        .await
    }

    /// Waits until a member answers a linearizable read.
    pub async fn serves(&self, index: usize) {
        let api = self.api(index);
        let api = &api;
        eventually("a member to serve", READY_TIMEOUT, || async move { api.get("ready", false).await.ok() })
            .await;
    }

    /// Adds a member by way of another, as `etcdctl member add` does, and prepares its process; both its index and its id.
    pub async fn add(&mut self, by: usize, is_learner: bool) -> (usize, u64) {
        self.add_at(by, is_learner, Place::loopback()).await
    }

    pub async fn add_at(&mut self, by: usize, is_learner: bool, place: Place) -> (usize, u64) {
        let api = self.api(by);
        let member = self.prepare_member(place);
        let (name, url) = (member.name.clone(), member.peer_url.clone());
        // A cluster that has just changed or lost a member may refuse for a while.
        let (api, url) = (&api, &url);
        let answer = eventually("a member to be added", READY_TIMEOUT, || async move {
            api.member_add(url, is_learner).await.inspect_err(|error| eprintln!("member add: {error}")).ok()
        })
        .await;
        let id = answer.member.as_ref().expect("the new member").id;
        let named = |m: &pb::Member| if m.id == id { name.clone() } else { m.name.clone() };
        let pairs: Vec<String> = answer
            .members
            .iter()
            .flat_map(|m| m.peer_ur_ls.iter().map(move |url| format!("{}={url}", named(m))))
            .collect();
        let member = self.members.last_mut().expect("just added");
        member.flags.push(format!("--initial-cluster={}", pairs.join(",")));
        member.flags.push("--initial-cluster-state=existing".into());
        (self.members.len() - 1, id)
    }

    /// Waits until these members have the same digest of history at the same revision, and returns that revision.
    pub async fn same_hash(&self, some: &[usize]) -> i64 {
        let apis: Vec<Api> = some.iter().map(|&i| self.api(i)).collect();
        let apis = &apis;
        eventually("equal digests on all members", READY_TIMEOUT, || async move {
            let revision = apis[0].hash_kv(0).await.ok()?.hash_revision;
            let mut found = Vec::new();
            for api in apis {
                let hash = api.hash_kv(revision).await.ok()?;
                found.push((hash.compact_revision, hash.hash));
            }
            found.windows(2).all(|pair| pair[0] == pair[1]).then_some(revision)
        })
        .await
    }

    /// `host:port` of all members, as etcdctl takes them.
    pub fn endpoints(&self) -> String {
        let urls: Vec<&str> = self.members.iter().map(|m| m.client_url.as_str()).collect();
        urls.join(",")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for member in &mut self.members {
            let state = if member.is_running() { "runs" } else { "does not run" };
            eprintln!("---- {} {state}; the end of its log:\n{}", member.name, member.log_tail());
        }
        if let Some(temp) = self.temp.take() {
            eprintln!("---- kept: {}", temp.keep().display());
        }
    }
}
