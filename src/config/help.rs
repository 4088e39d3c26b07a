//! What the program prints about itself: version, usage, and the help that follows from the flag table.

use super::flags::{FLAGS, Flag};
use super::gates::{GATES, Stage};
use crate::version::{ETCD_VERSION, KVIST_VERSION};
use std::fmt::Write;

const USAGE: &str = "\
Usage:

  kvist [flags]
    Start a server.

  kvist --version
    Show the version.

  kvist -h | --help
    Show all flags.

";

/// Answer to `--version`. Tools read the first line as etcd's.
pub fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nkvist Version: {KVIST_VERSION}\nOS/Arch: {}/{}\n",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

/// What follows a message about a command line that cannot be read. `subcommands` describes what else there is.
pub fn usage(subcommands: &str) -> String {
    format!("{USAGE}{subcommands}")
}

/// Answer to `--help`.
pub fn help(subcommands: &str) -> String {
    let mut text = usage(subcommands);
    text.push_str("Every flag can be set by a variable too: --data-dir is ETCD_DATA_DIR.\n");
    for group in FLAGS {
        let _ = write!(text, "\n{}:\n", group.title);
        for flag in group.flags {
            add_flag(&mut text, flag);
        }
    }
    text.push_str("\nFeature gates:\n");
    for gate in &GATES {
        let (stage, default) = match gate.stage {
            Stage::Alpha => ("alpha", false),
            Stage::Beta => ("beta", true),
        };
        let _ = writeln!(text, "  {}={default} ({stage})\n    {}.", gate.name, gate.meaning);
    }
    text
}

fn add_flag(text: &mut String, flag: &Flag) {
    use super::flags::Effect;
    let note = match flag.effect {
        Effect::Applied | Effect::Ignored => "",
        Effect::Tuning => " (accepted without effect)",
        Effect::RefusedAtBootstrap(_) => " (not supported yet)",
    };
    let _ = writeln!(text, "  --{} '{}'\n    {}{note}", flag.name, flag.default, flag.help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_begins_as_tools_expect() {
        let version = version();
        let lines: Vec<&str> = version.lines().collect();
        assert_eq!(lines[0], "etcd Version: 3.7.1");
        assert!(lines[1].starts_with("kvist Version: "));
    }

    #[test]
    fn every_flag_is_in_the_help() {
        let help = help("");
        for flag in Flag::all() {
            assert!(help.contains(&format!("\n  --{} '", flag.name)), "{}", flag.name);
        }
        assert!(help.contains("\nSecurity:\n"));
    }
}
