//! What a file becomes, and what is refused. Cases and outcomes were tried with etcd 3.7.1.

use super::super::flags::Effect;
use super::super::url::join;
use super::keys::{Means, NOT_IN_FILES, top_level};
use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Settings {
    Settings::from_yaml(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn error(text: &str) -> String {
    Settings::from_yaml(text).err().unwrap_or_else(|| panic!("{text} should be refused"))
}

#[test]
fn f_4_keys_are_names_of_flags() {
    let settings = read(
        "name: a\nsnapshot-count: 5\npre-vote: false\nquota-backend-bytes: -1\n\
         listen-client-urls: http://127.0.0.1:2,http://127.0.0.1:1\nwatch-progress-notify-interval: 5000000000\n\
         log-outputs: [stderr, /tmp/x]\nfeature-gates: InitialCorruptCheck=true\nauto-compaction-retention: \"1\"\n\
         shutdown-grace-period: 1min\nmax-concurrent-streams: 7\n",
    );
    let draft = &settings.draft;
    assert_eq!((draft.name.as_str(), draft.raft.snapshot_count, draft.raft.pre_vote), ("a", 5, false));
    assert_eq!((draft.quota_backend_bytes, draft.watch_progress_interval.as_secs()), (-1, 5));
    assert_eq!(join(&draft.listen_client_urls), "http://127.0.0.1:1,http://127.0.0.1:2");
    assert_eq!(draft.log.outputs, "stderr,/tmp/x");
    assert!(draft.gates.is_open("InitialCorruptCheck"));
    assert_eq!((draft.auto_compaction_retention.as_str(), draft.streams_max), ("1", 7));
    assert_eq!(draft.shutdown_grace_period.as_secs(), 60);
    assert!(settings.notes.is_empty());
    assert_eq!(settings.verify().1.map(|config| config.name), Ok("a".into()));
}

#[test]
fn f_4_maps_stand_for_longer_names() {
    let settings = read(
        "client-transport-security:\n  cert-file: a\n  client-cert-auth: true\n  allowed-hostname: [h1, h2]\n  \
         allowed-cn: []\npeer-transport-security: {cert-file: b, allowed-cn: [c], skip-client-san-verification: true}\n\
         socket-options:\n  reuse-port: true\ndiscovery-config:\n  token: t\n  client:\n    \
         endpoints: [e]\n    dial-timeout: 1\n    secure: {cert: x}\n    auth: {username: u}\n",
    );
    let given: Vec<(&str, &str)> = settings.given.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(
        given,
        [
            ("cert-file", "a"),
            ("client-cert-allowed-hostname", "h1,h2"),
            ("client-cert-auth", "true"),
            ("discovery-cert", "x"),
            ("discovery-dial-timeout", "1ns"),
            ("discovery-endpoints", "e"),
            ("discovery-token", "t"),
            ("discovery-user", "u"),
            ("peer-cert-allowed-cn", "c"),
            ("peer-cert-file", "b"),
            ("peer-skip-client-san-verification", "true"),
            ("socket-reuse-port", "true"),
        ]
    );
    let client =
        read("client-transport-security: {allowed-cn: [\"a,b\", c], skip-client-san-verification: true}");
    assert_eq!(client.draft.tls.client.allowed_names, ["a,b", "c"]);
    assert!(client.draft.tls.client.skip_address_check);
}

#[test]
fn f_4_every_flag_is_reachable_or_known_not_to_be() {
    for flag in Flag::all().filter(|flag| flag.effect != Effect::Ignored) {
        let top = top_level(flag.name).is_some();
        assert_ne!(
            top,
            TOP.path_of(flag.name).is_some() || NOT_IN_FILES.contains(&flag.name),
            "{}",
            flag.name
        );
    }
    fn targets(section: &Section) -> Vec<&'static str> {
        let own = section.keys.iter().filter_map(|(_, means)| match means {
            Means::Flag(name) => Some(*name),
            Means::Names(_) | Means::Switch(_) => None,
        });
        own.chain(section.maps.iter().flat_map(targets)).collect()
    }
    for name in targets(&TOP).into_iter().chain(LISTS).chain(NOT_IN_FILES) {
        assert!(Flag::by_name(name).is_some(), "{name}");
    }
}

#[test]
fn f_4_nothing_leaves_the_default() {
    for text in ["", "# a comment\n", "---\n", "name:\nwal-dir: ~\nlog-outputs: []\nlisten-peer-urls: ''\n"] {
        let settings = read(text);
        assert_eq!((settings.draft.name.as_str(), settings.given.len()), ("default", 0), "{text}");
        assert!(settings.verify().1.is_ok());
    }
    let listen_only = read("listen-client-urls: http://127.0.0.1:1").verify().1;
    assert_eq!(join(&listen_only.unwrap().cluster.advertise_client), "http://localhost:2379");
}

#[test]
fn f_4_unknown_keys_are_noted_and_old_ones_work() {
    let settings = read(
        "proxy: 'off'\ncert-file: x\nversion: true\nraft-read-timeout: 1\nclient-transport-security: {bogus: {a: [b]}}\n\
         5: x\nexperimental-initial-corrupt-check: true\nexperimental-max-learners: 3\n",
    );
    let unknown = |key: &str| Note::KeyUnknown { key: key.into(), place: None };
    let renamed = |old: &str, new: &str| Note::Renamed { old: old.into(), new: new.into() };
    assert_eq!(
        settings.notes,
        [
            unknown("proxy"),
            Note::KeyUnknown {
                key: "cert-file".into(),
                place: Some("client-transport-security.cert-file".into()),
            },
            unknown("version"),
            unknown("raft-read-timeout"),
            unknown("client-transport-security.bogus"),
            unknown("5"),
            renamed("experimental-initial-corrupt-check", "feature-gates=InitialCorruptCheck"),
            renamed("experimental-max-learners", "max-learners"),
        ]
    );
    assert!(settings.draft.gates.is_open("InitialCorruptCheck"));
}

#[test]
fn f_4_case_words_and_repetition_are_as_lenient_as_in_etcd() {
    assert!(!read("Pre-Vote: no").draft.raft.pre_vote);
    assert_eq!(read("name: a\nname: b").draft.name, "b");
    assert_eq!(read("name: a\n---\nname: b").draft.name, "a");
}

#[test]
fn f_4_wrong_types_are_named_with_their_place() {
    for (text, message) in [
        (
            "snapshot-count: abc",
            "snapshot-count: cannot unmarshal string into a value of type uint64 at line 1",
        ),
        (
            "name: a\nsnapshot-count: \"5\"",
            "cannot unmarshal string into a value of type uint64 at line 2 column 17",
        ),
        ("snapshot-count: -5", "cannot unmarshal number -5 into a value of type uint64"),
        ("snapshot-count: 1.5", "cannot unmarshal number 1.5 into a value of type uint64"),
        ("auto-compaction-retention: 1", "cannot unmarshal number 1 into a value of type string"),
        ("pre-vote: \"true\"", "cannot unmarshal string into a value of type bool"),
        ("pre-vote: 1", "cannot unmarshal number 1 into a value of type bool"),
        ("warning-apply-duration: 100ms", "cannot unmarshal string into a value of type time.Duration"),
        ("name: [a]", "cannot unmarshal array into a value of type string"),
        ("log-outputs: stderr", "cannot unmarshal string into a value of type []string"),
        ("log-outputs: [a, 5]", "cannot unmarshal number 5 into a value of type string"),
        ("log-outputs: ['a,b']", "a comma in \"a,b\""),
        ("peer-transport-security: 5", "peer-transport-security: invalid type: integer `5`, expected a map"),
        (
            "client-transport-security:\n  client-cert-auth: x",
            "client-transport-security.client-cert-auth: cannot unmarshal string into a value of type bool at line 2",
        ),
        ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
        ("listen-client-urls: foo", "URL scheme must be http, https, unix, or unixs: foo"),
        ("initial-cluster-state: bad", "supported values new, existing"),
        ("<<: {name: a}", "merge keys are not supported"),
        ("[a]: b", "a key must be a word"),
        ("- a", "expected a map of settings"),
        ("name: \"a", "error reading YAML"),
        ("name: a\n- b", "line 2"),
    ] {
        let error = error(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn f_4_a_file_is_bounded() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f.yml");
    let error = |path: &Path| Settings::from_file(path).err().unwrap().to_string();
    assert!(error(&path).contains("No such file or directory"));
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    assert!(error(&path).contains("more than"), "{}", error(&path));
    std::fs::write(&path, b"name: \xff").unwrap();
    assert!(error(&path).contains("UTF-8"), "{}", error(&path));
    let deep = format!("x: {}", "[".repeat(2_000));
    assert!(Settings::from_yaml(&deep).is_err());
    let level = |n: u8| {
        let (of, to) = (char::from(b'a' + n), char::from(b'b' + n));
        format!("{to}: &{to} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n")
    };
    let levels: String = (0..9).map(level).collect();
    let bomb = format!("a: &a [x,x,x,x,x,x,x,x,x]\n{levels}log-outputs: *j\n");
    assert!(Settings::from_yaml(&bomb).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(lines in prop::collection::vec(line(), 0..8)) {
        if let Ok(settings) = Settings::from_yaml(&lines.join("\n")) {
            let _ = settings.verify();
        }
    }
}

/// Nonsense, and keys with nonsense for values. No host names, which would be looked up.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = Flag::all()
        .map(|flag| flag.name)
        .chain(TOP.maps.iter().map(|map| map.name))
        .chain(["  cert-file", "  allowed-cn", "  client", "<<"])
        .collect();
    prop_oneof![
        ".{0,16}",
        (prop::sample::select(keys), "[-0-9a-f:/.,='\"~&*#|>{} \\[\\]]{0,12}")
            .prop_map(|(k, v)| format!("{k}: {v}")),
    ]
}
