//! The report as one HTML page without anything from elsewhere, and tables in both forms. Called by `report`.

use std::fmt::Write;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Result;
use crate::kinds::SUBJECT;
use crate::plot::{self, Bar, Curve};
use crate::report::{Report, Row};
use crate::scenario::{ALL, Bound};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;\
color-scheme:light dark}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.15em .7em;border-bottom:1px solid #8884;text-align:right}\
td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}svg{max-width:100%;height:auto}\
figure{display:inline-block;margin:.5em}";

/// A table with a title.
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// With its title as a heading; nothing if there are no rows.
    pub fn markdown(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("## {}\n\n{}|{}\n{rows}\n", self.title, line(&self.head), "---|".repeat(self.head.len()))
    }

    fn html(&self) -> String {
        let line = |tag: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let rows: String = self.rows.iter().map(|row| line("td", row)).collect();
        format!("<h2>{}</h2>\n<table>\n{}{rows}</table>\n", escape(&self.title), line("th", &self.head))
    }
}

/// The page.
///
/// # Errors
/// A histogram of the load tool is not one.
pub fn html(report: &Report) -> Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>End to end, {0}</title><style>{STYLE}</style>\n\
         <h1>End to end, {0}</h1>\n",
        escape(&report.begun)
    );
    let list = |sentences: Vec<String>| {
        let items: String = sentences.iter().map(|text| format!("<li>{}</li>\n", escape(text))).collect();
        format!("<ul>\n{items}</ul>\n")
    };
    page += &list(report.setting());
    page += &list(report.problems());
    let [goals, rest @ ..] = &report.tables()[..] else { return Ok(page) };
    page += &goals.html();
    let bars: Vec<Bar> = report.rows().iter().filter_map(|row| bar(report, row)).collect();
    write!(page, "<h2>Ratios</h2>\n<p>Logarithmic; the strokes are goals.</p>\n{}", plot::bars(&bars))?;
    page += "<h2>Latencies</h2>\n";
    for scenario in ALL {
        let curves = curves(report, scenario.name)?;
        if !curves.is_empty() {
            writeln!(page, "<figure>{}</figure>", plot::curves(scenario.name, &curves))?;
        }
    }
    page.extend(rest.iter().map(Table::html));
    page += "</html>\n";
    Ok(page)
}

/// The bar of a row that has a ratio and a goal for it.
fn bar(report: &Report, row: &Row) -> Option<Bar> {
    let column = report.kinds.iter().position(|kind| *kind == SUBJECT)?;
    let goal = match row.goal? {
        Bound::RatioAtLeast(bound) | Bound::RatioAtMost(bound) => bound,
        Bound::WorstAtMost(_) => return None,
    };
    let label = escape(&format!("{}: {}", row.scenario.name, row.figure));
    Some(Bar { label, ratio: row.ratios[column]?, goal, is_met: row.is_met? })
}

/// The latencies of a scenario, all rounds together, for each kind that has any.
fn curves(report: &Report, scenario: &str) -> Result<Vec<Curve>> {
    let mut curves = Vec::new();
    for kind in &report.kinds {
        let mut all: Option<Histogram<u64>> = None;
        let good = report.runs.iter().filter(|run| run.problem.is_none());
        for run in good.filter(|run| run.scenario == scenario && run.server == *kind) {
            let Some(encoded) = &run.histogram else { continue };
            let bytes = STANDARD.decode(encoded)?;
            let one: Histogram<u64> = Deserializer::new()
                .deserialize(&mut &bytes[..])
                .map_err(|e| format!("a histogram: {e:?}"))?;
            match &mut all {
                Some(all) => {
                    all.add(one).map_err(|e| format!("histograms that do not fit together: {e:?}"))?;
                }
                None => all = Some(one),
            }
        }
        let Some(all) = all.filter(|all| !all.is_empty()) else { continue };
        // Steps of a tenth of a nine, as far as there are samples to tell.
        let steps = ((all.len() as f64).log10() * 10.0) as u32;
        let point = |step| {
            let nines = f64::from(step) / 10.0;
            (nines, all.value_at_quantile(1.0 - 10_f64.powf(-nines)).max(1) as f64)
        };
        curves.push(Curve { name: kind, points: (0..=steps).map(point).collect() });
    }
    Ok(curves)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace("**", "").replace('`', "")
}
