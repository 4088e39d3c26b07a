//! The long-running commands of etcdctl (contract 7.1): watch in both forms, lock, elect, make-mirror, keep-alive.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::etcdctl::{Ctl, binaries, for_each_etcdctl, grant};
use crate::support::{Server, wait_until};
use crate::watch_client::REPLY_TIMEOUT;

/// An etcdctl that keeps running; its output is collected; killed when dropped.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start(ctl: &Ctl, args: &[&str]) -> Running {
        let mut child = ctl.command(args).stdin(Stdio::piped()).spawn().expect("start etcdctl");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("stdout");
        let collected = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                collected.lock().push(line);
            }
        });
        let stdin = child.stdin.take();
        Running { child, stdin, lines }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("stdin"), "{line}").expect("write stdin");
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    fn wait_lines(&self, expected: &[&str]) {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        while self.lines().len() < expected.len() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.lines(), expected);
    }

    /// Asks it to stop, as Ctrl-C does, and waits.
    fn interrupt(&mut self) {
        let status = std::process::Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(status.expect("kill -INT").success());
        wait_until("etcdctl to stop", REPLY_TIMEOUT, || self.child.try_wait().expect("wait").is_some());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts `key` until the watcher has said something: a process tells nobody when its watch is established.
fn put_until_seen(ctl: &Ctl, key: &str, watcher: &Running) {
    wait_until("the watch to be established", REPLY_TIMEOUT, || {
        ctl.run(&["put", key, "probe"]);
        watcher.lines().iter().any(|line| line == "probe")
    });
}

/// Contract 7.1 (watch): from a revision, with a prefix, a range and previous pairs; W-10 and W-11 as etcdctl prints them.
#[test]
fn etcdctl_watch_from_a_revision() {
    for_each_etcdctl(|ctl| {
        for (key, value) in [("a1", "x"), ("a1", "y"), ("a2", "z"), ("b", "w")] {
            ctl.run(&["put", key, value]); // revisions 2 to 5
        }
        ctl.run(&["del", "a1"]); // revision 6
        let prefix = Running::start(&ctl, &["watch", "--prefix", "a", "--rev=3", "--prev-kv"]);
        prefix.wait_lines(&["PUT", "a1", "x", "a1", "y", "PUT", "a2", "z", "DELETE", "a1", "y", "a1", ""]);
        let range = Running::start(&ctl, &["watch", "a2", "c", "--rev=2"]);
        range.wait_lines(&["PUT", "a2", "z", "PUT", "b", "w"]);
        let all = Running::start(&ctl, &["watch", "--rev=5", "", "--prefix"]);
        all.wait_lines(&["PUT", "b", "w", "DELETE", "a1", ""]);
        ctl.run(&["put", "a3", "live"]);
        all.wait_lines(&["PUT", "b", "w", "DELETE", "a1", "", "PUT", "a3", "live"]);
    });
}

/// Contract 7.1 (watch): a compacted start revision ends the command with an error.
#[test]
fn etcdctl_watch_of_a_compacted_revision() {
    for_each_etcdctl(|ctl| {
        for value in ["1", "2", "3"] {
            ctl.run(&["put", "a", value]);
        }
        ctl.run(&["compaction", "4"]);
        assert!(ctl.fail(&["watch", "a", "--rev=2"]).contains("required revision has been compacted"));
    });
}

/// Contract 7.1 (watch -i), W-17: watches on one stream, and `progress`, which is answered under watch id -1.
#[test]
fn etcdctl_watch_interactive() {
    for_each_etcdctl(|ctl| {
        let mut watch = Running::start(&ctl, &["watch", "-i"]);
        watch.type_line("watch a");
        watch.type_line("watch --prefix b");
        put_until_seen(&ctl, "a", &watch);
        put_until_seen(&ctl, "b1", &watch);
        ctl.run(&["put", "b2", "last"]);
        wait_until("the last event", REPLY_TIMEOUT, || watch.lines().iter().any(|l| l == "last"));
        let revision = ctl.run(&["get", "none", "-w", "fields"]);
        let revision =
            revision.lines().find_map(|l| l.strip_prefix("\"Revision\" : ")).expect("revision").to_owned();
        let notice = format!("progress notify: {revision}");
        wait_until("the progress notice", REPLY_TIMEOUT, || {
            watch.type_line("progress");
            watch.lines().iter().any(|line| line == &notice)
        });
    });
}

/// Contract 7.1 (watch --progress-notify), W-16.
#[test]
fn etcdctl_watch_progress_notify() {
    for binary in binaries() {
        let ctl = Ctl { binary, server: Server::start_with(&["--watch-progress-notify-interval=200ms"]) };
        ctl.run(&["put", "other", ""]);
        if !ctl.run(&["watch", "--help"]).contains("--progress-notify") {
            continue; // etcdctl 3.4 has no such option
        }
        let watch = Running::start(&ctl, &["watch", "a", "--progress-notify"]);
        wait_until("a progress notice", REPLY_TIMEOUT, || {
            watch.lines().iter().any(|l| l == "progress notify: 2")
        });
    }
}

/// Contract 7.1 (lock): the second waits for the first, by create revision; a lock around a command; its exit code.
#[test]
fn etcdctl_lock() {
    for_each_etcdctl(|ctl| {
        let mut first = Running::start(&ctl, &["lock", "mutex"]);
        wait_until("the first lock", REPLY_TIMEOUT, || !first.lines().is_empty());
        let second = Running::start(&ctl, &["lock", "mutex"]);
        wait_until("the second contender", REPLY_TIMEOUT, || {
            ctl.run(&["get", "--prefix", "mutex/", "--keys-only"]).split_whitespace().count() == 2
        });
        assert!(second.lines().is_empty(), "both hold the lock");
        assert!(first.lines()[0].starts_with("mutex/"), "{:?}", first.lines());
        first.interrupt();
        wait_until("the second lock", REPLY_TIMEOUT, || !second.lines().is_empty());
        assert_ne!(first.lines()[0], second.lines()[0]);
        drop(second);

        ctl.prints(&["lock", "other", "echo", "inside"], &["inside"]);
        assert!(!ctl.output(&["lock", "other", "false"]).status.success());
        ctl.prints(&["get", "--prefix", "other/"], &[]);
    });
}

/// Contract 7.1 (lock): the lock of a client that dies is free when its lease expires.
#[test]
fn etcdctl_lock_of_a_dead_client() {
    for_each_etcdctl(|ctl| {
        let dead = Running::start(&ctl, &["lock", "mutex", "--ttl=2"]);
        wait_until("the first lock", REPLY_TIMEOUT, || !dead.lines().is_empty());
        let second = Running::start(&ctl, &["lock", "mutex", "--ttl=2"]);
        drop(dead); // killed: nobody releases the lock
        wait_until("the lease to expire", REPLY_TIMEOUT, || !second.lines().is_empty());
    });
}

/// Contract 7.1 (elect): one leader, an observer, and the next leader after resignation.
#[test]
fn etcdctl_elect() {
    for_each_etcdctl(|ctl| {
        let observer = Running::start(&ctl, &["elect", "-l", "post"]);
        let mut first = Running::start(&ctl, &["elect", "post", "one"]);
        wait_until("the first leader", REPLY_TIMEOUT, || first.lines().get(1).is_some_and(|l| l == "one"));
        let second = Running::start(&ctl, &["elect", "post", "two"]);
        wait_until("the observer", REPLY_TIMEOUT, || observer.lines().contains(&"one".to_owned()));
        assert!(second.lines().is_empty());
        first.interrupt();
        wait_until("the second leader", REPLY_TIMEOUT, || second.lines().get(1).is_some_and(|l| l == "two"));
        wait_until("the observer", REPLY_TIMEOUT, || observer.lines().contains(&"two".to_owned()));
    });
}

/// Contract 7.1 (make-mirror): what is there, then what changes; deletes and transactions included.
#[test]
fn etcdctl_make_mirror() {
    for_each_etcdctl(|ctl| {
        let target = Ctl { binary: ctl.binary.clone(), server: Server::start() };
        for i in 0..20 {
            ctl.run(&["put", &format!("k{i:02}"), "before"]);
        }
        let destination = target.server.endpoint();
        let _mirror = Running::start(&ctl, &["make-mirror", "--dest-insecure-transport", &destination]);
        let content = |ctl: &Ctl| ctl.run(&["get", "--prefix", "k"]);
        wait_until("the first copy", REPLY_TIMEOUT, || content(&target) == content(&ctl));
        wait_until("the mirror to follow", REPLY_TIMEOUT, || {
            ctl.run(&["put", "k00", "probe"]);
            content(&target).contains("probe")
        });
        ctl.run(&["del", "--from-key", "k10"]);
        ctl.run_with_input(&["txn"], "\nput k1 x\nput k2 y\ndel k03\n\n\n");
        wait_until("the changes", REPLY_TIMEOUT, || content(&target) == content(&ctl));
        assert!(!content(&target).contains("k03"));
    });
}

/// Contract 7.1 (lease keep-alive), L-4, L-13: a lease lives as long as the command runs, and ends after it.
#[test]
fn etcdctl_lease_keep_alive() {
    for_each_etcdctl(|ctl| {
        let lease = grant(&ctl, 2);
        ctl.run(&["put", "a", "1", &format!("--lease={lease}")]);
        let keeper = Running::start(&ctl, &["lease", "keep-alive", &lease]);
        let line = format!("lease {lease} keepalived with TTL(2)");
        wait_until("renewals over more than the TTL", REPLY_TIMEOUT, || keeper.lines().len() >= 4);
        assert!(keeper.lines().iter().all(|l| *l == line), "{:?}", keeper.lines());
        ctl.prints(&["get", "a"], &["a", "1"]);
        drop(keeper);
        wait_until("the lease to end", REPLY_TIMEOUT, || ctl.run(&["get", "a"]).is_empty());
    });
}
