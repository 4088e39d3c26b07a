//! What a command line becomes, and what is refused. Texts of errors are etcd's where etcd has the check.

use super::super::args::{Command, parse};
use super::super::log::Log;
use super::super::url::Place;
use super::*;

fn verify(words: &[&str]) -> (Vec<Note>, Result<Config>) {
    match parse(words.iter().map(std::ffi::OsString::from)) {
        Ok(Command::Serve(settings)) => settings.verify(),
        _ => panic!("{words:?} should be read"),
    }
}

fn config(words: &[&str]) -> Config {
    verify(words).1.unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

fn error(words: &[&str]) -> String {
    match verify(words).1 {
        Err(error) => error.to_string(),
        Ok(config) => config.check_bootstrap().expect_err("should be refused").to_string(),
    }
}

#[test]
fn without_flags_it_is_a_member_on_loopback() {
    let config = config(&[]);
    assert_eq!(config.check_bootstrap(), Ok(()));
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("default", Some("default.kvist")));
    assert_eq!(config.wal_dir().to_str(), Some("default.kvist/member/wal"));
    assert_eq!(config.listen.client[0].place(), &Place::Tcp(([127, 0, 0, 1], 2379).into()));
    assert_eq!(config.listen.peer[0].place(), &Place::Tcp(([127, 0, 0, 1], 2380).into()));
    assert_eq!(config.listen.streams_max, u32::MAX);
    assert_eq!(config.listen.keepalive.interval, Some(Duration::from_secs(7200)));
    assert_eq!(config.cluster.member_id("default"), 0x8e9e_05c5_2164_694d);
    assert_eq!(config.cluster.cluster_id(), 0xcdf8_1819_4e3a_8c32);
    assert_eq!(config.raft.election_timeout, Duration::from_secs(1));
    assert_eq!(config.raft.snapshot_count, 10_000);
    assert_eq!(config.storage.quota_bytes, Some(2 << 30));
    assert!(
        config.storage.fsync && config.listen.json_gateway && config.raft.pre_vote && !config.listen.pprof
    );
    assert_eq!(config.compaction.auto, None);
    assert_eq!(config.compaction.sleep_interval, Duration::from_millis(10));
    assert_eq!((config.limits.txn_ops_max, config.limits.request_bytes_max), (128, 1_572_864));
    assert_eq!(config.watch_progress_interval, Duration::from_secs(600));
    assert_eq!(config.shutdown_grace_period, Duration::from_secs(5));
    assert_eq!(config.log, Log::default());
}

#[test]
fn values_that_stand_for_others() {
    assert_eq!(config(&["--quota-backend-bytes=-1"]).storage.quota_bytes, None);
    assert_eq!(config(&["--quota-backend-bytes=1024"]).storage.quota_bytes, Some(1024));
    assert_eq!(config(&["--snapshot-count=0"]).raft.snapshot_count, 10_000);
    assert_eq!(config(&["--grpc-keepalive-interval=0"]).listen.keepalive.interval, None);
    assert_eq!(
        config(&["--watch-progress-notify-interval=1ms"]).watch_progress_interval,
        Duration::from_millis(100)
    );
    assert!(!config(&["--unsafe-no-fsync"]).storage.fsync);
    assert_eq!(config(&["--wal-dir=/w"]).wal_dir().to_str(), Some("/w"));
    assert_eq!(config(&["--shutdown-grace-period=1min 30s"]).shutdown_grace_period, Duration::from_secs(90));
}

#[test]
fn auto_compaction_is_time_or_revisions() {
    for (mode, retention, expected) in [
        ("periodic", "0", None),
        ("periodic", "0s", None),
        ("periodic", "2", Some(AutoCompaction::Periodic(Duration::from_secs(7200)))),
        ("periodic", "30m", Some(AutoCompaction::Periodic(Duration::from_secs(1800)))),
        ("revision", "0", None),
        ("revision", "1000", Some(AutoCompaction::Revision(1000))),
        ("revision", "5us", Some(AutoCompaction::Revision(5000))),
    ] {
        assert_eq!(auto_compaction(mode, retention), Ok(expected), "{mode} {retention}");
    }
    for (mode, retention) in [
        ("periodic", "1x"),
        ("periodic", "-1h"),
        ("periodic", ""),
        ("revision", "x"),
        ("revision", "-5"),
        ("", "1"),
    ] {
        assert!(auto_compaction(mode, retention).is_err(), "{mode} {retention}");
    }
    assert_eq!(error(&["--auto-compaction-mode=foo"]), "unknown auto-compaction-mode \"foo\"");
}

#[test]
fn the_cluster_follows_name_and_peer_url() {
    let peer = "http://127.0.0.1:4444";
    let config = config(&["--name=a", "--initial-advertise-peer-urls", peer]);
    let initial = Initial { name: "a".to_owned(), urls: vec![EndpointUrl::parse(peer).unwrap()] };
    assert_eq!(config.cluster.initial, [initial]);
    assert_eq!((config.check_bootstrap(), config.data_dir.to_str()), (Ok(()), Some("a.kvist")));
}

#[test]
fn members_may_have_several_urls() {
    let members = Initial::parse_list("a=http://h:1,b=http://h:2,a=http://h:3").unwrap();
    assert_eq!((members.len(), members[0].urls.len()), (2, 2));
    assert_eq!(
        Initial::parse_list("garbage").unwrap_err().to_string(),
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "
    );
}

#[test]
fn f_6_a_wildcard_listener_advertises_a_real_address() {
    let peer = ["--listen-peer-urls=http://0.0.0.0:4444"];
    let client =
        ["--listen-client-urls=http://0.0.0.0:5555", "--advertise-client-urls=http://localhost:2379"];
    let of_peer = |config: &Config| config.cluster.advertise_peer[0].to_string();
    let of_client = |config: &Config| config.cluster.advertise_client[0].to_string();
    for (words, text, port) in
        [(peer.as_slice(), of_peer(&config(&peer)), ":4444"), (&client, of_client(&config(&client)), ":5555")]
    {
        // Without a route there is nothing better than the default.
        assert!(text.ends_with(port) || text.starts_with("http://localhost:"), "{text}");
        assert!(!text.contains("0.0.0.0:"), "{text}");
        let (notes, _) = verify(words);
        let told = |note: &Note| matches!(note, Note::HostDetected(_) | Note::HostNotDetected);
        assert_eq!(notes.iter().filter(|note| told(note)).count(), 1);
    }
    let named = config(&[peer[0], "--initial-advertise-peer-urls=http://127.0.0.1:1"]);
    assert_eq!(of_peer(&named), "http://127.0.0.1:1");
}

#[test]
fn f_6_the_default_cluster_follows_the_name() {
    let default = "--initial-cluster=default=http://localhost:2380";
    assert_eq!(config(&["--name=a", default]).check_bootstrap(), Ok(()));
    assert_eq!(config(&["--name=a"]).check_bootstrap(), Ok(()));
    let nameless = "couldn't find local name \"\" in the initial cluster configuration";
    assert_eq!(error(&["--name="]), nameless);
}

#[test]
fn what_does_not_fit_is_refused_with_the_words_of_etcd() {
    for (words, message) in [
        (["foo"].as_slice(), "\"foo\" is not a valid flag"),
        (
            &["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls=http://example.com:1", "--advertise-client-urls=http://example.com:1"],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            &["--election-timeout=100"],
            "--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (&["--log-format=foo"], "unknown log format: foo, supported values json, console"),
        (&["--logger=foo"], "unknown logger option \"foo\""),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-srv=x", "--initial-cluster=a=http://127.0.0.1:1"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &["--auto-compaction-retention=x"],
            "error parsing CompactionRetention: time: invalid duration \"x\"",
        ),
        (&["--max-learners=-1"], "membership: too many learner members in cluster"),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            &["--initial-advertise-peer-urls=http://:1"],
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty host (http://:1))",
        ),
        (
            &["--initial-cluster=a=http://127.0.0.1:2380"],
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://a:1,a=http://localhost:2380"],
            "initial cluster a=http://localhost:2380,b=http://a:1,default=http://localhost:2380 has duplicate url",
        ),
        (
            &["--initial-cluster=default=http://127.0.0.1:1,b=http://127.0.0.1:3"],
            "--initial-cluster has default=http://127.0.0.1:1 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380",
        ),
        (
            &[
                "--initial-cluster=default=http://localhost:2380,b=http://127.0.0.1:3",
                "--initial-advertise-peer-urls=http://localhost:2380,http://127.0.0.1:9",
            ],
            "--initial-advertise-peer-urls has http://127.0.0.1:9 but missing from \
             --initial-cluster=default=http://localhost:2380",
        ),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
    ] {
        assert_eq!(error(words), message);
    }
}

#[test]
fn what_would_be_dangerous_to_ignore_is_refused() {
    let text = error(&["--discovery-token=x", "--discovery-endpoints=http://127.0.0.1:1"]);
    assert!(text.contains("this build does not support"), "{text}");
    config(&["--auth-token=simple"]);
}

#[test]
fn dns_stands_for_an_initial_cluster() {
    let found = config(&["--discovery-srv=example.com", "--discovery-srv-name=blue"]);
    assert_eq!(found.check_bootstrap(), Ok(()));
    assert_eq!(found.cluster.initial, []);
    let expected = Discovery { domain: "example.com".into(), suffix: "blue".into() };
    assert_eq!(found.cluster.discovery, Some(expected));
    assert_eq!(config(&["--discovery-srv-name=blue"]).cluster.discovery, None);
}

#[test]
fn listeners_have_the_certificates_that_they_need() {
    let urls = "--listen-client-urls=https://127.0.0.1:1";
    let advertised = "--advertise-client-urls=https://127.0.0.1:1";
    let secure = [urls, advertised];
    let with = |more: &[&'static str]| [&secure[..], more].concat();
    for (words, message) in [
        (
            with(&[]),
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with",
        ),
        (with(&["--cert-file=c"]), "KeyFile and CertFile must both be present[key: , cert: c]"),
        (with(&["--auto-tls", "--self-signed-cert-validity=0"]), "selfSignedCertValidity is invalid"),
        (
            with(&["--auto-tls", "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]),
            "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher",
        ),
        (
            with(&["--auto-tls", "--listen-client-http-urls=http://127.0.0.1:1"]),
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://127.0.0.1:1",
        ),
        (
            with(&["--cert-file=c", "--key-file=k", "--client-key-file=x"]),
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: x, cert: ]",
        ),
        (
            vec!["--listen-peer-urls=https://127.0.0.1:1"],
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
        (
            vec![
                "--listen-peer-urls=https://127.0.0.1:1",
                "--peer-auto-tls",
                "--peer-cert-allowed-cn=a,b",
                "--peer-cert-allowed-hostname=c",
            ],
            r#"AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a" "b"], hostnames=["c"])"#,
        ),
        (
            vec!["--listen-metrics-urls=https://127.0.0.1:1"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (vec!["--tls-min-version=TLS1.1"], "unexpected TLS version \"TLS1.1\""),
    ] {
        let text = error(&words);
        assert!(text.contains(message), "{words:?}: {text}");
    }
    let tls = config(&with(&["--auto-tls", "--client-cert-allowed-hostname=a,b"])).listen.tls;
    assert!(tls.client.auto && tls.client.allowed_hosts == ["a", "b"]);
    let (notes, config) = verify(&["--cert-file=c", "--client-cert-auth"]);
    assert!(config.is_ok());
    let plain = |note: &&Note| matches!(note, Note::PlainDespite { peer: false, .. });
    assert_eq!(notes.iter().filter(plain).count(), 2);
}

#[test]
fn what_only_tunes_is_noted() {
    let (notes, config) =
        verify(&["--max-wals=3", "--raft-read-timeout=3s", "--feature-gates=PriorityRequest=true"]);
    assert!(config.unwrap().gates.is_open("PriorityRequest"));
    let noted = ["max-wals", "raft-read-timeout", "feature-gates"];
    assert!(noted.iter().all(|flag| notes.contains(&Note::WithoutEffect(flag))), "{notes:?}");
    let (notes, _) = verify(&["--v2-deprecation=gone", "--max-snapshots=3", "--discovery-user=a"]);
    assert_eq!(notes.iter().filter(|note| matches!(note, Note::Deprecated(_))).count(), 2);
    assert!(notes.contains(&Note::WithoutEffect("discovery-user")));
    let (notes, _) = verify(&["--max-request-bytes=20000000", "--quota-backend-bytes=9000000000"]);
    assert_eq!(notes.iter().filter(|note| matches!(note, Note::Unwise { .. })).count(), 2);
}

#[test]
fn without_bound_nothing_overflows() {
    let max = u64::MAX.to_string();
    for flag in [
        "election-timeout",
        "heartbeat-interval",
        "snapshot-count",
        "max-request-bytes",
        "compaction-batch-limit",
    ] {
        let _ = verify(&[&format!("--{flag}={max}")]);
    }
    let _ = verify(&["--auto-compaction-retention=4294967295"]);
}
