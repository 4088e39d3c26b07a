//! A network of its own for each member: a namespace with one end of a virtual cable, whose other end is in a bridge of ours.
//!
//! Who reaches whom is decided by the neighbour tables, which are filled by hand. A wrong hardware address there loses every
//! packet in that one direction, silently, and so also breaks what is connected already.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::Place;
use crate::support::wait_until;

/// Seconds that a namespace is held at most, should we be killed.
const HOLD: &str = "600";

/// The networks of all members that a history may have; gone when dropped.
pub struct Net {
    /// Processes that do nothing but keep a namespace.
    holders: Vec<Child>,
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("run a network tool");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn address(index: usize) -> String {
    format!("10.77.0.{}", index + 1)
}

fn hardware(index: usize) -> String {
    format!("02:00:00:00:00:{:02x}", index + 1)
}

/// Brings up loopback in a new network namespace.
pub fn bring_up_loopback() {
    run("ip", &["link", "set", "lo", "up"]);
}

impl Net {
    /// Makes networks for so many members. Wants to be in a network namespace of its own, as its root.
    pub fn new(size: usize) -> Net {
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["addr", "add", "10.77.0.254/24", "dev", "br0"]);
        run("ip", &["link", "set", "br0", "up"]);
        let mut net = Net { holders: Vec::new() };
        for index in 0..size {
            net.add(index);
        }
        net.heal();
        net
    }

    fn add(&mut self, index: usize) {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", HOLD]).stdin(Stdio::null());
        let holder = command.spawn().expect("hold a namespace");
        let pid = holder.id();
        self.holders.push(holder);
        let own = std::fs::read_link("/proc/self/ns/net").expect("our namespace");
        let theirs = format!("/proc/{pid}/ns/net");
        wait_until("a network namespace", Duration::from_secs(10), || {
            std::fs::read_link(&theirs).is_ok_and(|namespace| namespace != own)
        });
        let (cable, pid) = (format!("v{index}"), pid.to_string());
        run("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "e0", "netns", &pid]);
        run("ip", &["link", "set", &cable, "master", "br0", "up"]);
        self.inside(index, &["link", "set", "lo", "up"]);
        self.inside(index, &["link", "set", "e0", "address", &hardware(index), "up"]);
        self.inside(index, &["addr", "add", &format!("{}/24", address(index)), "dev", "e0"]);
    }

    /// Runs `ip` in a member's network.
    fn inside(&self, index: usize, args: &[&str]) {
        let pid = self.holders[index].id().to_string();
        run("nsenter", &[&["--net", "--target", &pid, "ip"], args].concat());
    }

    /// Where a member runs.
    pub fn place(&self, index: usize) -> Place {
        let wrapper = ["nsenter", "--net", "--target", &self.holders[index].id().to_string()];
        Place { host: address(index), wrapper: wrapper.map(str::to_owned).to_vec() }
    }

    /// Loses all packets from one member to another.
    pub fn cut(&self, from: usize, to: usize) {
        self.route(from, to, "02:00:00:00:ff:ff");
    }

    /// Loses all packets between two members.
    pub fn part(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Delivers all packets again.
    pub fn heal(&self) {
        for from in 0..self.holders.len() {
            for to in (0..self.holders.len()).filter(|to| *to != from) {
                self.route(from, to, &hardware(to));
            }
        }
    }

    fn route(&self, from: usize, to: usize, hardware: &str) {
        let entry = ["neigh", "replace", &address(to), "lladdr", hardware, "dev", "e0", "nud", "permanent"];
        self.inside(from, &entry);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            // Both fail only if it has ended by itself.
            drop(holder.kill());
            drop(holder.wait());
        }
    }
}
