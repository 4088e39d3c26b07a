//! docs/flags.md is made of the flag table. `UPDATE_DOCS=1 cargo test --test tidy` writes it again.

use kvist::config::alias;
use kvist::config::file::key_of;
use kvist::config::flags::{Effect, FLAGS, Flag};
use kvist::config::gates::{GATES, Stage};

use crate::root;

const PATH: &str = "docs/flags.md";

const HEAD: &str = "\
# Flags

All flags of etcd 3.7.1, and what becomes of them in kvist. This page is made of the flag table in `src/config/flags`;
`UPDATE_DOCS=1 cargo test --test tidy` writes it again.

- Every flag has a variable: `--data-dir` is `ETCD_DATA_DIR`. A flag and its variable exclude each other.
- With `--config-file` or `ETCD_CONFIG_FILE`, the file alone counts. The third column is the key in the file, with the
  maps around it. In the file, durations are integers of nanoseconds, and lists are YAML lists. A sample is
  [packaging/kvist.conf.yml](../packaging/kvist.conf.yml).
- `kvist config --check FILE` says what is wrong with a file, and `kvist config --check -- FLAGS` with flags.
- *No effect* means that the flag is accepted, and the log says that nothing comes of it. *Refused* means that the server
  does not start with anything but the default, since ignoring the flag would be wrong.
";

fn effect(flag: &Flag) -> String {
    match flag.effect {
        Effect::Applied => String::new(),
        Effect::Tuning => " **No effect.**".into(),
        Effect::RefusedAtBootstrap(why) => format!(" **Refused** without data: {why}."),
        Effect::Ignored => " As in etcd.".into(),
    }
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn page() -> String {
    let mut text = HEAD.to_owned();
    for group in FLAGS {
        text +=
            &format!("\n## {}\n\n| flag | default | in a file | meaning |\n|---|---|---|---|\n", group.title);
        for flag in group.flags {
            let key = key_of(flag).map_or("\u{2013}".to_owned(), |key| code(&key));
            let (name, default) = (code(&format!("--{}", flag.name)), code(flag.default));
            text += &format!("| {name} | {default} | {key} | {}{} |\n", flag.help, effect(flag));
        }
    }
    text += "\n## Feature gates\n\nFor `--feature-gates=Name=true,Name=false`. `AllAlpha` and `AllBeta` mean all of a stage.\n\n\
             | gate | default | stage | what becomes of it |\n|---|---|---|---|\n";
    for gate in &GATES {
        let (default, stage) = match gate.stage {
            Stage::Alpha => ("false", "alpha"),
            Stage::Beta => ("true", "beta"),
        };
        text += &format!("| `{}` | {default} | {stage} | {}. |\n", gate.name, gate.meaning);
    }
    text += &format!(
        "\n## Old names\n\nUp to etcd 3.6, many flags began with `{0}`. etcd 3.7 does not know these names. Here they work, also as\n\
         variables and in files, and the log tells the new name: the same without `{0}`, or a feature gate:\n\n\
         | old name | gate |\n|---|---|\n",
        alias::PREFIX
    );
    for (old, gate) in alias::GATES {
        text += &format!("| `--{}{old}` | `{gate}` |\n", alias::PREFIX);
    }
    text
}

#[test]
fn the_page_of_flags_is_up_to_date() {
    let (path, page) = (root().join(PATH), page());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("write the page");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "{PATH} is stale: run UPDATE_DOCS=1 cargo test --test tidy");
}
