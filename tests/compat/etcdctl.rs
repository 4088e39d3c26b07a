//! The real etcdctl against the server: commands of contract 7.1 for KV, Lease, Maintenance and Cluster.
//!
//! `KVIST_ETCDCTL` lists the binaries to use, comma separated; without it those are the one in PATH and, after `make
//! tools`, that of the newest release. None is a failure.
//! The commands and texts checked are those that etcdctl 3.4 and 3.7 share.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::support::{self, Server};

/// Every etcdctl to test with; at least one.
pub fn binaries() -> Vec<PathBuf> {
    let listed: Vec<PathBuf> = match std::env::var("KVIST_ETCDCTL") {
        Ok(list) => list.split(',').map(PathBuf::from).collect(),
        Err(_) => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join("etcdctl"))
            .filter(|path| path.is_file())
            .take(1)
            .chain(support::tool("etcdctl", "the newest etcdctl"))
            .collect(),
    };
    let missing: Vec<_> = listed.iter().filter(|path| !path.is_file()).collect();
    assert!(
        !listed.is_empty() && missing.is_empty(),
        "no etcdctl (missing: {missing:?}): set KVIST_ETCDCTL or run: apt-get install etcd-client"
    );
    listed
}

/// etcdctl with a server of its own.
pub struct Ctl {
    pub binary: PathBuf,
    pub server: Server,
}

impl Ctl {
    /// The command with endpoint and API set; the caller adds the rest.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", self.server.endpoint()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run etcdctl")
    }

    /// Runs a command that must succeed and returns what it printed, trimmed.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "etcdctl {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs a command that must fail and returns what it said on stderr.
    pub fn fail(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(!output.status.success(), "etcdctl {args:?} must fail: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The same as `run` with something to read on stdin.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> String {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("start etcdctl");
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write stdin");
        let output = child.wait_with_output().expect("wait for etcdctl");
        assert!(output.status.success(), "etcdctl {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Asserts the lines that a command prints.
    pub fn prints(&self, args: &[&str], lines: &[&str]) {
        assert_eq!(self.run(args).lines().collect::<Vec<_>>(), lines, "etcdctl {args:?}");
    }
}

/// Runs a test once for each etcdctl, each time with a fresh server.
pub fn for_each_etcdctl(test: impl Fn(Ctl)) {
    for binary in binaries() {
        test(Ctl { binary, server: Server::start() });
    }
}

/// Contract 7.1 (put): every option.
#[test]
fn etcdctl_put() {
    for_each_etcdctl(|ctl| {
        ctl.prints(&["put", "a", "1"], &["OK"]);
        ctl.prints(&["put", "a", "2", "--prev-kv"], &["OK", "a", "1"]);
        ctl.prints(&["get", "a"], &["a", "2"]);
        assert_eq!(ctl.run_with_input(&["put", "b"], "from stdin"), "OK");
        ctl.prints(&["get", "b", "--print-value-only"], &["from stdin"]);
        let lease = grant(&ctl, 100);
        ctl.prints(&["put", "a", "3", &format!("--lease={lease}")], &["OK"]);
        ctl.prints(&["put", "a", "--ignore-value"], &["OK"]);
        assert!(
            !ctl.run(&["get", "a", "-w", "fields"]).contains(&format!("\"Lease\" : {}", decimal(&lease)))
        );
        ctl.prints(&["put", "a", "3", &format!("--lease={lease}")], &["OK"]);
        ctl.prints(&["put", "a", "4", "--ignore-lease"], &["OK"]);
        let fields = ctl.run(&["get", "a", "-w", "fields"]);
        assert!(fields.contains(&format!("\"Lease\" : {}", decimal(&lease))), "{fields}");
        assert!(fields.contains("\"Value\" : \"4\"") && fields.contains("\"Version\" : 6"), "{fields}");
        assert!(ctl.fail(&["put", "missing", "--ignore-value"]).contains("key not found"));
        assert!(ctl.fail(&["put", "a", "1", "--lease=999"]).contains("requested lease not found"));
    });
}

/// Contract 7.1 (get): every option.
#[test]
fn etcdctl_get() {
    for_each_etcdctl(|ctl| {
        for (key, value) in [("k1", "c"), ("k3", "a"), ("k2", "b"), ("k2", "bb"), ("z", "z")] {
            ctl.run(&["put", key, value]); // revisions 2 to 6
        }
        ctl.prints(&["get", "missing"], &[]);
        ctl.prints(&["get", "k1", "k3"], &["k1", "c", "k2", "bb"]);
        ctl.prints(&["get", "--prefix", "k", "--keys-only"], &["k1", "", "k2", "", "k3"]);
        ctl.prints(&["get", "--from-key", "k3", "--print-value-only"], &["a", "z"]);
        ctl.prints(&["get", "--prefix", ""], &["k1", "c", "k2", "bb", "k3", "a", "z", "z"]);
        ctl.prints(&["get", "k2", "--rev=4"], &["k2", "b"]);
        ctl.prints(&["get", "k2", "--rev=3"], &[]);
        ctl.prints(&["get", "--prefix", "k", "--limit=2", "--print-value-only"], &["c", "bb"]);
        ctl.prints(&["get", "--prefix", "k", "--order=DESCEND", "--print-value-only"], &["a", "bb", "c"]);
        let by_value = ["get", "--prefix", "k", "--sort-by=VALUE", "--print-value-only"];
        ctl.prints(&[&by_value[..], &["--order=ASCEND"]].concat(), &["a", "bb", "c"]);
        ctl.prints(&[&by_value[..], &["--order=DESCEND", "--limit=1"]].concat(), &["c"]);
        for (target, first) in [("CREATE", "k1"), ("MODIFY", "k1"), ("VERSION", "k2"), ("KEY", "k3")] {
            let order = if first == "k1" { "--order=ASCEND" } else { "--order=DESCEND" };
            let sort = format!("--sort-by={target}");
            ctl.prints(&["get", "--prefix", "k", &sort, order, "--limit=1", "--keys-only"], &[first]);
        }
        ctl.prints(&["get", "k1", "--consistency=s"], &["k1", "c"]);
        assert_eq!(ctl.run(&["get", "k1", "--hex"]), "\\x6b\\x31\n\\x63");
        let json = ctl.run(&["get", "k1", "-w", "json"]);
        assert!(
            json.contains("\"kvs\":[{\"key\":\"azE=\",\"create_revision\":2,\"mod_revision\":2"),
            "{json}"
        );
        assert!(ctl.fail(&["get", "k1", "--rev=99"]).contains("required revision is a future revision"));
    });
}

/// Contract 7.1 (get, options of 3.6 and later): revision filters and `--stream`, which is RangeStream.
#[test]
fn etcdctl_get_options_of_late_versions() {
    for_each_etcdctl(|ctl| {
        for key in ["k1", "k2", "k3", "k1"] {
            ctl.run(&["put", key, "v"]); // revisions 2 to 5
        }
        let help = ctl.run(&["get", "--help"]);
        let filters = [
            ("--min-mod-rev=4", "k1 k3"),
            ("--max-mod-rev=3", "k2"),
            ("--min-create-rev=3", "k2 k3"),
            ("--max-create-rev=3", "k1 k2"),
        ];
        for (filter, keys) in filters {
            if help.contains(filter.split('=').next().expect("a flag")) {
                let printed = ctl.run(&["get", "--prefix", "k", "--keys-only", filter]);
                assert_eq!(printed.split_whitespace().collect::<Vec<_>>().join(" "), keys, "{filter}");
            }
        }
        if help.contains("--count-only") {
            let count = ctl.run(&["get", "--prefix", "k", "--count-only", "-w", "fields"]);
            assert!(count.contains("\"Count\" : 3"), "{count}");
        }
        if help.contains("--stream") {
            ctl.prints(&["get", "--prefix", "k", "--stream"], &["k1", "v", "k2", "v", "k3", "v"]);
        }
    });
}

/// Contract 7.1 (del): every option.
#[test]
fn etcdctl_del() {
    for_each_etcdctl(|ctl| {
        for key in ["a", "b", "c1", "c2", "d", "e"] {
            ctl.run(&["put", key, "v"]);
        }
        ctl.prints(&["del", "missing"], &["0"]);
        ctl.prints(&["del", "a", "--prev-kv"], &["1", "a", "v"]);
        ctl.prints(&["del", "a", "c"], &["1"]);
        ctl.prints(&["del", "--prefix", "c"], &["2"]);
        ctl.prints(&["del", "--from-key", "d", "--prev-kv"], &["2", "d", "v", "e", "v"]);
        ctl.prints(&["get", "--prefix", ""], &[]);
    });
}

/// Contract 7.1 (txn): compares, both branches, from stdin.
#[test]
fn etcdctl_txn() {
    for_each_etcdctl(|ctl| {
        ctl.run(&["put", "a", "1"]);
        let program = "value(\"a\") = \"1\"\nversion(\"a\") > \"0\"\nmod(\"a\") = \"2\"\ncreate(\"b\") = \"0\"\n\n\
                       put b \"two words\"\nget a\ndel a\n\nput c 1\n\n";
        let first = ctl.run_with_input(&["txn"], program);
        assert_eq!(first.split_whitespace().collect::<Vec<_>>(), ["SUCCESS", "OK", "a", "1", "1"]);
        ctl.prints(&["get", "b"], &["b", "two words"]);
        let second = ctl.run_with_input(&["txn"], program);
        assert_eq!(second.split_whitespace().collect::<Vec<_>>(), ["FAILURE", "OK"]);
        ctl.prints(&["get", "--prefix", "", "--keys-only"], &["b", "", "c"]);
    });
}

/// Contract 7.1 (compaction): logical and physical.
#[test]
fn etcdctl_compaction() {
    for_each_etcdctl(|ctl| {
        for value in ["1", "2", "3"] {
            ctl.run(&["put", "a", value]); // revisions 2 to 4
        }
        ctl.prints(&["compaction", "2"], &["compacted revision 2"]);
        ctl.prints(&["compaction", "--physical", "3"], &["compacted revision 3"]);
        assert!(ctl.fail(&["get", "a", "--rev=2"]).contains("required revision has been compacted"));
        ctl.prints(&["get", "a", "--rev=3"], &["a", "2"]);
        assert!(ctl.fail(&["compaction", "3"]).contains("required revision has been compacted"));
        assert!(ctl.fail(&["compaction", "99"]).contains("required revision is a future revision"));
    });
}

/// Grants a lease and returns its id in hex, as etcdctl prints it.
pub fn grant(ctl: &Ctl, ttl: u32) -> String {
    let printed = ctl.run(&["lease", "grant", &ttl.to_string()]);
    let words: Vec<_> = printed.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("lease", "granted"), "{printed}");
    assert!(printed.ends_with(&format!("granted with TTL({ttl}s)")), "{printed}");
    words[1].to_owned()
}

fn decimal(lease: &str) -> i64 {
    i64::from_str_radix(lease, 16).expect("a lease id in hex")
}

/// Contract 7.1 (lease): grant, list, timetolive, keep-alive, revoke; L-4 and L-6 as etcdctl prints them.
#[test]
fn etcdctl_lease() {
    for_each_etcdctl(|ctl| {
        ctl.prints(&["lease", "list"], &["found 0 leases"]);
        let lease = grant(&ctl, 100);
        ctl.prints(&["lease", "list"], &["found 1 leases", &lease]);
        let option = format!("--lease={lease}");
        ctl.run(&["put", "a", "1", &option]);
        let ttl = ctl.run(&["lease", "timetolive", &lease, "--keys"]);
        assert!(ttl.starts_with(&format!("lease {lease} granted with TTL(100s), remaining(")), "{ttl}");
        assert!(ttl.ends_with("attached keys([a])"), "{ttl}");
        let renewed = format!("lease {lease} keepalived with TTL(100)");
        ctl.prints(&["lease", "keep-alive", "--once", &lease], &[&renewed]);
        ctl.prints(&["lease", "revoke", &lease], &[&format!("lease {lease} revoked")]);
        ctl.prints(&["get", "a"], &[]);
        ctl.prints(&["lease", "timetolive", &lease], &[&format!("lease {lease} already expired")]);
        assert!(ctl.fail(&["lease", "revoke", &lease]).contains("requested lease not found"));
        let expired = ctl.output(&["lease", "keep-alive", "--once", &lease]);
        let said = String::from_utf8_lossy(&[expired.stdout, expired.stderr].concat()).into_owned();
        assert!(said.contains("expired") || said.contains("not found"), "{said}");
    });
}

/// Contract 7.1 (endpoint, alarm, defrag, member list): what they print and how they end.
#[test]
fn etcdctl_maintenance() {
    for_each_etcdctl(|ctl| {
        ctl.run(&["put", "a", "1"]);
        let endpoint = ctl.server.endpoint();
        let health = ctl.output(&["endpoint", "health"]);
        let said = String::from_utf8_lossy(&[health.stdout, health.stderr].concat()).into_owned();
        assert!(health.status.success() && said.contains(&format!("{endpoint} is healthy")), "{said}");
        let status = ctl.run(&["endpoint", "status"]);
        let columns: Vec<_> = status.split(", ").collect();
        assert_eq!(columns[0], endpoint, "{status}");
        assert!(columns[2].starts_with("3.") && columns.contains(&"true"), "{status}");
        let id = columns[1].to_owned();
        ctl.run(&["endpoint", "status", "--cluster", "-w", "json"]);
        ctl.run(&["endpoint", "status", "-w", "table"]);
        let hash = ctl.run(&["endpoint", "hashkv"]);
        assert!(hash.starts_with(&format!("{endpoint}, ")), "{hash}");
        ctl.run(&["endpoint", "hashkv", "--rev=2"]);
        let members = ctl.run(&["member", "list"]);
        assert!(members.starts_with(&format!("{id}, started, default, http://127.0.0.1:")), "{members}");
        assert!(members.ends_with(&format!("http://{endpoint}, false")), "{members}");
        ctl.prints(&["alarm", "list"], &[]);
        ctl.prints(&["alarm", "disarm"], &[]);
        let defrag = ctl.run(&["defrag"]);
        assert!(defrag.starts_with("Finished defragmenting etcd"), "{defrag}");
        ctl.run(&["defrag", "--cluster"]);
    });
}

/// Contract 7.1 (alarm, endpoint health): under NOSPACE a put fails, health is bad with exit code 1, disarm repairs it.
#[test]
fn etcdctl_alarm() {
    for binary in binaries() {
        let server = Server::start_with(&["--quota-backend-bytes=1000000"]);
        let ctl = Ctl { binary, server };
        let big = "v".repeat(100_000);
        let full = (0..100).any(|i| {
            let output = ctl.output(&["put", &format!("big{i}"), &big]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() || said.contains("database space exceeded"), "{said}");
            !output.status.success()
        });
        assert!(full, "10 MB fit under a quota of 1 MB");
        support::wait_until("the alarm", crate::watch_client::REPLY_TIMEOUT, || {
            let alarms = ctl.run(&["alarm", "list"]);
            alarms.starts_with("memberID:") && alarms.ends_with("alarm:NOSPACE")
        });
        let health = ctl.output(&["endpoint", "health"]);
        let said = String::from_utf8_lossy(&[health.stdout, health.stderr].concat()).into_owned();
        // etcdctl 3.4 did not ask for alarms yet.
        assert!(health.status.code() == Some(1) || said.contains("is healthy"), "{said}");
        ctl.run(&["del", "--prefix", "big"]);
        ctl.run(&["compaction", "--physical", &revision(&ctl).to_string()]);
        ctl.run(&["defrag"]);
        assert!(ctl.fail(&["put", "a", "1"]).contains("database space exceeded"), "the alarm is sticky");
        let disarmed = ctl.run(&["alarm", "disarm"]);
        assert!(disarmed.ends_with("alarm:NOSPACE"), "{disarmed}");
        ctl.prints(&["put", "a", "1"], &["OK"]);
    }
}

fn revision(ctl: &Ctl) -> i64 {
    let fields = ctl.run(&["get", "revision-probe", "-w", "fields"]);
    let line = fields.lines().find(|l| l.starts_with("\"Revision\"")).expect("a revision");
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}
