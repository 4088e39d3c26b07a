//! Tests of the matrix runner's pure parts. A target of its own, because the runner has no test harness.

mod report;
mod table;
mod tap;

use report::Finished;
use tap::{Case, Outcome, SUITE, Tap};

fn read(text: &str, ended: Result<(), String>) -> Vec<Case> {
    let mut tap = Tap::default();
    for line in text.lines() {
        tap.line(line);
    }
    tap.finish(ended)
}

fn suite(name: &str, cases: Vec<Case>) -> Finished {
    Finished {
        name: name.to_owned(),
        client: String::new(),
        seconds: 1.0,
        skipped: None,
        cases,
        notes: vec![],
        log: "log".into(),
    }
}

fn reasons(cases: &[Case]) -> Vec<&str> {
    cases.iter().filter(|case| case.feature == SUITE).map(|case| case.reason.as_str()).collect()
}

#[test]
fn cases_are_read() {
    let text =
        "ok - kv/a: b\nnot ok 2 - txn/c: d: e\nok - watch/f # SKIP g\nnot ok - lease/h\nnoise\n# note\n1..4";
    let cases = read(text, Err("exit code 1".to_owned()));
    let seen: Vec<_> =
        cases.iter().map(|c| (c.feature.as_str(), c.name.as_str(), c.outcome, c.reason.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("kv", "a: b", Outcome::Passed, ""),
            ("txn", "c", Outcome::Failed, "d: e"),
            ("watch", "f", Outcome::Skipped, "g"),
            ("lease", "h", Outcome::Failed, "no reason given"),
        ]
    );
}

#[test]
fn client_and_notes_are_kept() {
    let mut tap = Tap::default();
    tap.line("# client: jetcd 1");
    (0..1000).for_each(|n| assert!(tap.line(&format!("# {n}")).is_none()));
    assert!(tap.line("ok - kv/a").is_some() && tap.cases().len() == 1);
    assert_eq!(tap.client, "jetcd 1");
    assert!(tap.notes.len() < 100 && tap.notes.back().is_some_and(|note| note == "999"));
}

#[test]
fn a_broken_suite_has_failed() {
    for (text, ended, expected) in [
        ("ok - kv/a", Ok(()), "none after 1 cases: it ended early"),
        ("ok - kv/a\n1..2", Ok(()), "2 cases planned, 1 seen"),
        ("1..0", Ok(()), "there are none"),
        ("ok - kv/a\n1..1", Err("exit code 3".to_owned()), "exit code 3"),
        ("ok - kv/a\n1..1\n1..1", Ok(()), "a second or unreadable plan: 1..1"),
        ("ok - kv/a\nok - kv/a\n1..2", Ok(()), "two are called kv/a"),
        ("ok - kv/a\nok - tea/a\n1..1", Ok(()), "unknown feature \"tea\": ok - tea/a"),
        ("ok - kv/a # SKIP\nok - kv/b\n1..1", Ok(()), "skipped without a reason: ok - kv/a # SKIP"),
        ("ok kv/a\nok - kv/b\n1..1", Ok(()), "no \"- \" before the name: ok kv/a"),
    ] {
        let cases = read(text, ended);
        assert_eq!(reasons(&cases), [expected], "{text}");
        assert!(table::summary(&[suite("x", cases)]).contains(", 1 failed,"), "{text}");
    }
}

#[test]
fn the_table_shows_all() {
    let first = "ok - kv/a\nok - kv/b\nnot ok - kv/c: why\nok - app/d\nok - app/e # SKIP no\nok - txn/f # SKIP no\n1..6";
    let broken = read("ok - kv/a", Err("exit code 1".to_owned()));
    let mut third = suite("third", vec![]);
    third.skipped = Some("no toolchain".to_owned());
    let suites = [suite("first", read(first, Ok(()))), suite("second", broken), third];
    let text = table::render(&suites);
    let row = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a row");
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(" "), ["first", "second", "third"]);
    assert_eq!(row("kv"), ["kv", "1/3 FAIL", "1", "skip"]);
    assert_eq!(row("txn"), ["txn", "1s", "-", "skip"]);
    assert_eq!(row("app"), ["app", "1+1s", "-", "skip"]);
    assert_eq!(row("suite"), ["suite", "-", "2/2 FAIL", "skip"]);
    assert_eq!(row("all"), ["all", "1/4 FAIL", "2/3 FAIL", "1s"]);
    assert_eq!(table::summary(&suites), "4 passed, 3 failed, 3 skipped");
    let details = table::details(&suites);
    for line in ["  third: no toolchain", "  first: app/e: no", "  first: kv/c: why", "the whole log: log"] {
        assert!(details.contains(line), "{line} in {details}");
    }
}

#[test]
fn the_report_is_json() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("report.json");
    let suites = [suite("first", read("not ok - kv/a: why\n1..1", Ok(())))];
    report::write(&path, "server 1", &suites).expect("write");
    let text = std::fs::read_to_string(path).expect("read");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&json["failed"], &json["suites"][0]["cases"][0]["reason"]), (&1.into(), &"why".into()));
}
