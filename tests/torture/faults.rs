//! What is done to a cluster under load, one fault a history.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::clients::Shared;
use crate::cluster::{Cluster, READY_TIMEOUT, eventually};
use crate::machine::Machine;
use crate::net::Net;
use crate::support::server_binary;

/// What a fault needs of the machine.
enum Needs {
    Nothing,
    /// A file system of its own.
    Mount,
    /// A network of its own for each member.
    Network,
    Faketime,
    /// What delays system calls.
    Strace,
}

const ALL: [(&str, Needs); 23] = [
    ("none", Needs::Nothing),
    ("kill-leader", Needs::Nothing),
    ("kill-follower", Needs::Nothing),
    ("kill-all", Needs::Nothing),
    ("pause-leader", Needs::Nothing),
    ("pause-follower", Needs::Nothing),
    ("stutter", Needs::Nothing),
    ("partition-leader", Needs::Network),
    ("partition-follower", Needs::Network),
    ("partition-bridge", Needs::Network),
    ("partition-flap", Needs::Network),
    ("partition-one-way", Needs::Network),
    ("partition-wolf", Needs::Network),
    ("slow-disk", Needs::Strace),
    ("full-disk", Needs::Mount),
    ("clock", Needs::Faketime),
    ("replace-member", Needs::Nothing),
    ("catch-up", Needs::Nothing),
    ("kill-receiver", Needs::Nothing),
    ("kill-sender", Needs::Nothing),
    ("rolling-restart", Needs::Nothing),
    ("membership", Needs::Nothing),
    ("move-leader", Needs::Nothing),
];

/// The names of all faults that this machine can have; for the others, what is missing.
pub fn possible(machine: &Machine) -> (Vec<&'static str>, Vec<(&'static str, &'static str)>) {
    let (mut names, mut missing) = (Vec::new(), Vec::new());
    let is_isolated = machine.isolation.is_some();
    for (name, needs) in &ALL {
        let lack = match needs {
            Needs::Mount | Needs::Network if !is_isolated => {
                "namespaces (for root or every user), or ip (package iproute2)"
            }
            Needs::Faketime if !machine.has_faketime => "faketime (package faketime)",
            Needs::Strace if !machine.has_strace => {
                "strace (package strace), or the right to trace a process"
            }
            Needs::Nothing | Needs::Mount | Needs::Network | Needs::Faketime | Needs::Strace => {
                names.push(*name);
                continue;
            }
        };
        missing.push((*name, lack));
    }
    (names, missing)
}

/// True when members are to have networks of their own.
pub fn wants_network(fault: &str) -> bool {
    ALL.iter().any(|(name, needs)| *name == fault && matches!(needs, Needs::Network))
}

/// Flags of the members beside the ordinary ones: little log behind a snapshot, where the fault is about that, and now and then
/// elsewhere.
pub fn flags(fault: &str, rng: &mut StdRng) -> Vec<&'static str> {
    let mut flags = match fault {
        "catch-up" | "kill-receiver" | "kill-sender" | "replace-member" | "membership" => {
            vec!["--snapshot-count=100", "--snapshot-catchup-entries=20"]
        }
        _ if rng.random_bool(0.5) => vec!["--snapshot-count=300", "--snapshot-catchup-entries=100"],
        _ => vec![],
    };
    // `make torture` names kvist's own program, too.
    let is_kvist = server_binary().file_stem().is_some_and(|name| name == "kvist");
    if (fault == "partition-wolf" || rng.random_bool(0.15)) && is_kvist {
        flags.push("--peer-transport=wolf");
    }
    flags
}

/// The longest values that clients write, in bytes: large where snapshots should take a while.
pub fn length_max(fault: &str) -> usize {
    if fault.starts_with("kill-receiver") || fault.starts_with("kill-sender") { 16 << 10 } else { 64 }
}

/// A cluster under load, and the means to harm it.
pub struct World {
    pub cluster: Cluster,
    pub net: Option<Net>,
    pub rng: StdRng,
    pub shared: Arc<Shared>,
    /// A file system of its own, with little space.
    pub small_disk: Option<usize>,
}

impl World {
    /// What has to be done before the members start.
    pub fn prepare(&mut self, fault: &str) {
        if fault == "full-disk" {
            let index = self.rng.random_range(0..self.cluster.members.len());
            let dir = &self.cluster.members[index].data_dir;
            std::fs::create_dir_all(dir).expect("a data directory");
            let mut command = Command::new("mount");
            command.args(["-t", "tmpfs", "-o", "size=256m,mode=0700", "none"]).arg(dir);
            assert!(command.status().expect("mount").success(), "mount a small file system");
            self.small_disk = Some(index);
        }
    }

    /// Harms the cluster, and lets it recover as far as the fault itself does.
    pub async fn play(&mut self, fault: &str) {
        match fault {
            "none" => self.rest(500, 1500).await,
            "kill-leader" => self.kill_one(true).await,
            "kill-follower" => self.kill_one(false).await,
            "kill-all" => self.kill_all().await,
            "pause-leader" => self.pause_one(true).await,
            "pause-follower" => self.pause_one(false).await,
            "stutter" => self.stutter().await,
            "partition-leader" | "partition-wolf" => self.isolate(true).await,
            "partition-follower" => self.isolate(false).await,
            "partition-bridge" => self.bridge().await,
            "partition-flap" => self.flap().await,
            "partition-one-way" => self.one_way().await,
            "slow-disk" => self.slow_disk().await,
            "full-disk" => self.fill_disk().await,
            "clock" => self.shift_clock().await,
            "replace-member" => self.replace().await,
            "catch-up" => drop(self.fall_behind().await),
            "kill-receiver" => self.kill_in_snapshot(true).await,
            "kill-sender" => self.kill_in_snapshot(false).await,
            "rolling-restart" => self.restart_in_turn().await,
            "membership" => self.change_members().await,
            "move-leader" => self.move_leader().await,
            other => panic!("no such fault: {other}"),
        }
    }

    /// Ends whatever still goes on, and starts all members.
    pub async fn recover(&mut self) {
        if let Some(net) = &self.net {
            net.heal();
        }
        self.cluster.start_all();
        self.cluster.leader().await;
    }

    async fn rest(&mut self, from_ms: u64, to_ms: u64) {
        let pause = self.rng.random_range(from_ms..to_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// The leader, or some follower.
    async fn pick(&mut self, is_leader: bool) -> usize {
        let leader = self.cluster.leader().await;
        if is_leader { leader } else { self.follower(leader) }
    }

    fn follower(&mut self, leader: usize) -> usize {
        let others: Vec<usize> = self.cluster.running().into_iter().filter(|i| *i != leader).collect();
        others[self.rng.random_range(0..others.len())]
    }

    async fn kill_one(&mut self, is_leader: bool) {
        let index = self.pick(is_leader).await;
        self.cluster.members[index].kill();
        self.rest(100, 1500).await;
        self.cluster.members[index].start();
    }

    async fn kill_all(&mut self) {
        self.cluster.members.iter_mut().for_each(crate::cluster::Member::kill);
        self.rest(10, 300).await;
        self.cluster.start_all();
        self.cluster.leader().await;
    }

    async fn pause_one(&mut self, is_leader: bool) {
        let index = self.pick(is_leader).await;
        self.cluster.members[index].pause();
        self.rest(300, 1800).await;
        self.cluster.members[index].resume();
    }

    /// Some members stop and go on, again and again, for about as long as an election takes.
    async fn stutter(&mut self) {
        for _ in 0..self.rng.random_range(3..7) {
            let index = self.rng.random_range(0..self.cluster.members.len());
            self.cluster.members[index].pause();
            self.rest(50, 600).await;
            self.cluster.members[index].resume();
            self.rest(10, 200).await;
        }
    }

    fn net(&self) -> &Net {
        self.net.as_ref().expect("a fault of the network has one")
    }

    fn others(&self, index: usize) -> Vec<usize> {
        (0..self.cluster.members.len()).filter(|i| *i != index).collect()
    }

    async fn isolate(&mut self, is_leader: bool) {
        let index = self.pick(is_leader).await;
        self.others(index).into_iter().for_each(|other| self.net().part(index, other));
        self.rest(800, 2000).await;
        self.net().heal();
    }

    /// Two members cannot reach each other, but all others.
    async fn bridge(&mut self) {
        let leader = self.cluster.leader().await;
        let other = self.follower(leader);
        self.net().part(leader, other);
        self.rest(1000, 2000).await;
        self.net().heal();
    }

    async fn flap(&mut self) {
        for _ in 0..self.rng.random_range(3..7) {
            let index = self.rng.random_range(0..self.cluster.members.len());
            self.others(index).into_iter().for_each(|other| self.net().part(index, other));
            self.rest(50, 500).await;
            self.net().heal();
            self.rest(20, 300).await;
        }
    }

    /// The leader's packets are lost, or those to it.
    async fn one_way(&mut self) {
        let index = self.pick(true).await;
        let is_deaf = self.rng.random_bool(0.5);
        for other in self.others(index) {
            if is_deaf { self.net().cut(other, index) } else { self.net().cut(index, other) }
        }
        self.rest(800, 2000).await;
        self.net().heal();
    }

    /// Each sync of one member takes longer, from as long as a poor disk's to well above the election timeout.
    async fn slow_disk(&mut self) {
        let is_leader = self.rng.random_bool(0.7);
        let index = self.pick(is_leader).await;
        let delay_ms = [20, 100, 400, 1200][self.rng.random_range(0..4)];
        let slow = self.cluster.members[index].slow_syncs(delay_ms);
        self.rest(1500, 3000).await;
        drop(slow);
    }

    /// Takes all space of a disk, and gives it back. The member may end meanwhile.
    async fn fill_disk(&mut self) {
        let index = self.small_disk.expect("prepared");
        let filler: PathBuf = self.cluster.members[index].data_dir.join("filler");
        let mut file = OpenOptions::new().create(true).append(true).open(&filler).expect("a file");
        let piece = vec![1; 1 << 20];
        // An error is what we want: the disk is full, to the last pages.
        while file.write_all(&piece).is_ok() {}
        while file.write_all(&piece[..4096]).is_ok() {}
        self.rest(1000, 2000).await;
        drop(file);
        std::fs::remove_file(&filler).expect("remove the filler");
    }

    async fn shift_clock(&mut self) {
        let index = self.rng.random_range(0..self.cluster.members.len());
        let seconds = self.rng.random_range(-3600..3600);
        let member = &mut self.cluster.members[index];
        member.kill();
        member.wrapper.extend(["faketime".into(), "-f".into(), format!("{seconds:+}s")]);
        member.start();
        self.rest(800, 1600).await;
    }

    /// A member dies for good, and another takes its place.
    async fn replace(&mut self) {
        let index = self.pick(false).await;
        let id = self.cluster.id(index).await;
        self.cluster.members[index].kill();
        self.remove(index, id).await;
        self.rest(10, 500).await;
        self.join(false).await;
    }

    /// Removes a member by way of some other.
    async fn remove(&mut self, index: usize, id: u64) {
        let by = self.cluster.other(index);
        let api = self.cluster.api(by);
        let gone = self.cluster.members[index].client_url.clone();
        self.shared.urls.lock().retain(|url| *url != gone);
        let api = &api;
        eventually("a member to be removed", READY_TIMEOUT, || async move {
            match api.member_remove(id).await {
                Ok(()) => Some(()),
                Err(status) if status.message().contains("member not found") => Some(()),
                Err(_) => None,
            }
        })
        .await;
        self.cluster.members[index].is_removed = true;
    }

    /// Adds a member and waits until it serves; a learner is promoted.
    async fn join(&mut self, is_learner: bool) {
        let leader = self.cluster.leader().await;
        let (fresh, id) = self.cluster.add(leader, is_learner).await;
        self.cluster.members[fresh].start();
        if is_learner {
            let api = self.cluster.api(leader);
            let api = &api;
            eventually("a learner to be promoted", READY_TIMEOUT, || async move {
                match api.member_promote(id).await {
                    Ok(()) => Some(()),
                    Err(status) if status.message().contains("can only promote a learner member") => {
                        (!status.message().contains("in sync")).then_some(())
                    }
                    Err(_) => None,
                }
            })
            .await;
        }
        self.cluster.serves(fresh).await;
        self.shared.urls.lock().push(self.cluster.members[fresh].client_url.clone());
    }

    /// A follower is away until the log that it lacks is gone. Its index.
    async fn fall_behind(&mut self) -> usize {
        let index = self.pick(false).await;
        self.cluster.members[index].kill();
        self.rest(1500, 2500).await;
        self.cluster.members[index].start();
        index
    }

    async fn kill_in_snapshot(&mut self, is_receiver: bool) {
        let receiver = self.fall_behind().await;
        self.rest(20, 400).await;
        let index = if is_receiver {
            receiver
        } else {
            let others: Vec<usize> = self.others(receiver);
            self.cluster.leader_of(&others).await
        };
        self.cluster.members[index].kill();
        self.rest(10, 500).await;
        self.cluster.members[index].start();
    }

    async fn restart_in_turn(&mut self) {
        for index in 0..self.cluster.members.len() {
            self.cluster.members[index].terminate();
            self.cluster.members[index].start();
            self.cluster.leader().await;
            self.cluster.serves(index).await;
        }
    }

    async fn change_members(&mut self) {
        self.join(true).await;
        let is_leader = self.rng.random_bool(0.5);
        let index = self.pick(is_leader).await;
        let id = self.cluster.id(index).await;
        self.remove(index, id).await;
        let status = self.cluster.members[index].ended();
        assert_eq!(status.code(), Some(0), "a removed member ends without an error");
    }

    async fn move_leader(&mut self) {
        for _ in 0..self.rng.random_range(2..5) {
            let leader = self.cluster.leader().await;
            let follower = self.follower(leader);
            let target = self.cluster.id(follower).await;
            // It may take too long under load; what matters is what clients see.
            drop(self.cluster.api(leader).move_leader(target).await);
            self.rest(100, 500).await;
        }
    }
}
