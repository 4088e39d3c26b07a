//! Progress of what takes long, on standard error, and only when that is a terminal. Used by the subcommands.

use crate::import::Phase;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar for each phase, one after the other.
pub(super) struct Bars {
    current: Option<(Phase, ProgressBar)>,
}

impl Bars {
    pub(super) fn new() -> Bars {
        Bars { current: None }
    }

    /// Shows how far a phase is.
    pub(super) fn show(&mut self, phase: Phase, done: u64, total: u64) {
        if self.current.as_ref().is_none_or(|(current, _)| *current != phase) {
            self.finish();
            self.current = Some((phase, bar(phase, total)));
        }
        if let Some((_, bar)) = &self.current {
            bar.set_length(total.max(done));
            bar.set_position(done);
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(phase: Phase, total: u64) -> ProgressBar {
    let (name, counts) = match phase {
        Phase::Download => ("receiving", "{decimal_bytes}/{decimal_total_bytes}"),
        Phase::Checksum => ("checksum", "{decimal_bytes}/{decimal_total_bytes}"),
        Phase::Check => ("checking pages", "{human_pos}/{human_len}"),
        Phase::Keys => ("reading keys", "{decimal_bytes}/{decimal_total_bytes}"),
        Phase::Log => ("replaying the log", "{human_pos}/{human_len}"),
    };
    let template = format!("{{msg:18}} {{wide_bar}} {counts} {{eta}}");
    let style = ProgressStyle::with_template(&template).expect("a constant template");
    ProgressBar::new(total).with_style(style).with_message(name)
}
