//! Who may use whom. The table is the one of `ARCHITECTURE.md`: change both, or neither.

use crate::assert_none;
use crate::source::{Source, sources, words};

/// For each module at the crate root, the paths below `crate::` that it may name. A module may always name itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("main", &["*"]),
    ("lib", &["*"]),
    ("server", &["*"]),
    ("bench", &["client", "pb"]),
    ("cli", &["bench", "client", "config", "dump", "engine::Identity", "import"]),
    ("client", &["config::EndpointUrl", "config::url", "pb", "tls::client"]),
    ("dump", &["auth", "datadir", "engine", "mvcc", "raft", "storage", "types"]),
    (
        "import",
        &[
            "api::etcd::convert",
            "auth",
            "bbolt",
            "engine",
            "identity",
            "mvcc",
            "pb",
            "raft",
            "storage",
            "types",
        ],
    ),
    // Adapters see the engine, and of what lies below only the error and result of a read.
    (
        "api",
        &[
            "auth",
            "config",
            "engine",
            "metrics",
            "mvcc::Error",
            "mvcc::Result",
            "pb",
            "shutdown",
            "telemetry",
            "tls",
            "types",
            "version",
        ],
    ),
    (
        "raft",
        &[
            "auth::Caller",
            "engine",
            "metrics",
            "mvcc::Error",
            "mvcc::Result",
            "mvcc::Store",
            "mvcc::transfer",
            "pb",
            "types",
        ],
    ),
    (
        "engine",
        &[
            "auth",
            "bbolt",
            "lease",
            "metrics",
            "mvcc",
            "storage::Error",
            "storage::ReadTxn",
            "storage::codec",
            "storage::schema",
            "types",
        ],
    ),
    ("mvcc", &["metrics", "storage", "types"]),
    ("lease", &["metrics", "storage", "types"]),
    ("auth", &["storage", "types"]),
    ("storage", &["metrics", "types"]),
    ("bbolt", &[]),
    ("tls", &["config"]),
    ("config", &["types", "version"]),
    ("datadir", &["config"]),
    ("identity", &["engine::Identity", "engine::command::Member", "types"]),
    ("logging", &["config"]),
    ("limits", &[]),
    ("metrics", &[]),
    ("pb", &[]),
    ("shutdown", &[]),
    ("telemetry", &["config"]),
    ("types", &[]),
    ("version", &[]),
];

/// Crates that only some modules may import.
const CONFINED: &[(&str, &[&str])] = &[
    ("heed", &["storage"]),
    ("hickory_resolver", &["server"]),
    ("openraft", &["raft"]),
    ("tonic", &["api", "client", "pb", "raft"]),
    ("tonic_prost", &["api", "pb"]),
    ("rustls", &["client", "tls"]),
    ("tokio_rustls", &["client", "tls"]),
    ("hyper", &["api", "client"]),
    ("hyper_util", &["api", "client", "raft"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("prometheus", &["metrics"]),
];

/// A path such as `engine::watch::Hub`, taken from the code, and the line where it begins.
#[derive(Debug, PartialEq)]
struct Use {
    line: usize,
    path: String,
}

/// Every path of the crate that the file names through `crate::` or through `super::` beyond its own module.
fn uses(source: &Source, layers: &[&str]) -> Vec<Use> {
    let mut found = Vec::new();
    let code = source.code.join("\n");
    // Tests may build what they need from anywhere.
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let line_of = |rest: &str| code[..code.len() - rest.len()].matches('\n').count();
    for rest in after_word(code, "crate::") {
        found.extend(paths(rest).into_iter().map(|path| Use { line: line_of(rest), path }));
    }
    // `super::super::x` in `a/b.rs` is `crate::x`, and one more `super` inside an inline module.
    let depth = source.path.iter().count() - usize::from(source.path.ends_with("mod.rs"));
    let up = "super::".repeat(depth);
    for rest in after_word(code, &up) {
        let named = paths(rest.trim_start_matches("super::")).into_iter();
        let named = named.filter(|path| layers.contains(&head(path)));
        found.extend(named.map(|path| Use { line: line_of(rest), path }));
    }
    // A module that was imported whole stands for what the file takes from it.
    let (whole, mut found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| !found.path.contains("::"));
    for Use { line, path: module } in whole {
        let before = found.len();
        for rest in after_word(code, &format!("{module}::")) {
            let named = paths(rest).into_iter().map(|path| format!("{module}::{path}"));
            found.extend(named.map(|path| Use { line: line_of(rest), path }));
        }
        if found.len() == before {
            found.push(Use { line, path: module });
        }
    }
    found
}

/// What follows each occurrence of `word` that is not the end of a longer word or path.
fn after_word<'c>(code: &'c str, word: &str) -> Vec<&'c str> {
    let begins = |at: &usize| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || "_$:".contains(c));
    code.match_indices(word).map(|(at, _)| at).filter(begins).map(|at| &code[at + word.len()..]).collect()
}

/// The paths that begin here: one, or one for each branch of a group in braces.
fn paths(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_:{".contains(c))).unwrap_or(text.len());
    let (stem, group) = match text[..end].split_once('{') {
        Some((stem, _)) if stem.is_empty() || stem.ends_with("::") => (stem, &text[stem.len() + 1..]),
        _ => return vec![text[..end].trim_end_matches(['{', ':']).to_owned()],
    };
    let whole = |path: String| {
        if path == "self" { stem.trim_end_matches(':').to_owned() } else { format!("{stem}{path}") }
    };
    branches(group).into_iter().flat_map(paths).map(whole).collect()
}

/// The branches of a group whose opening brace has been read; further groups inside stay whole.
fn branches(text: &str) -> Vec<&str> {
    let (mut found, mut open, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open > 0 => open -= 1,
            ',' | '}' if open == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|branch| !branch.is_empty());
    found
}

fn head(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn permits(allowed: &[&str], path: &str) -> bool {
    allowed.iter().any(|prefix| {
        *prefix == "*"
            || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

#[test]
fn dependencies_point_down() {
    let layers: Vec<&str> = ALLOWED.iter().map(|(layer, _)| *layer).collect();
    let mut found = Vec::new();
    for source in sources() {
        let name = source.path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if name == "tests" || name.ends_with("_test") {
            continue;
        }
        let layer = source.layer();
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == layer) else {
            found.push(format!(
                "{}: `{layer}` has no row in the table of tests/tidy/layering.rs",
                source.at(0)
            ));
            continue;
        };
        for Use { line, path } in uses(&source, &layers) {
            if head(&path) != layer && !permits(allowed, &path) {
                found.push(format!("{}: `{layer}` must not use `{path}`", source.at(line)));
            }
        }
    }
    assert_none("dependencies go one way, see ARCHITECTURE.md", &found);
}

#[test]
fn frameworks_stay_where_they_belong() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.code.iter().enumerate() {
            for (name, layers) in CONFINED {
                if words(line).any(|word| word == *name) && !layers.contains(&source.layer()) {
                    found.push(format!("{}: `{name}` belongs to {layers:?}", source.at(number)));
                }
            }
        }
    }
    assert_none("a framework is known to its own module only", &found);
}

#[test]
fn a_path_is_found_in_every_form() {
    let layers = ["engine", "mvcc", "types"];
    let read = |path: &str, code: &str| {
        let source = Source { path: path.into(), code: code.lines().map(str::to_owned).collect() };
        uses(&source, &layers).into_iter().map(|found| found.path).collect::<Vec<_>>()
    };
    assert_eq!(read("a.rs", "use crate::engine::{self, watch::{Hub, Spec}};").len(), 3);
    assert_eq!(
        read("a.rs", "use crate::mvcc::{self}; f(mvcc::Store::new(), x::mvcc::Y)"),
        ["mvcc::Store::new"]
    );
    assert_eq!(read("a.rs", "use crate::{\n  mvcc::Store,\n  types,\n};"), ["mvcc::Store", "types"]);
    assert_eq!(read("a.rs", "fn f(x: crate::types::Key) {"), ["types::Key"]);
    assert_eq!(read("a.rs", "impl crate::engine::Read{"), ["engine::Read"]);
    assert_eq!(read("a/mod.rs", "use super::mvcc::Store;"), ["mvcc::Store"]);
    assert_eq!(read("a/b.rs", "use super::super::types; use super::mvcc;"), ["types"]);
    assert_eq!(read("a.rs", "mod tests { use super::super::mvcc; use super::Own; }"), ["mvcc"]);
    assert!(read("a.rs", "macro_rules! m { () => { $crate::engine } }").is_empty());
    assert!(permits(&["mvcc::Store"], "mvcc::Store::open") && !permits(&["mvcc::Store"], "mvcc::Stored"));
}
