//! `/livez` and `/readyz`, as kubelet asks for them: checks with names, each with a path of its own, failures told in
//! detail, successes with `?verbose`.

use super::reply;
use crate::api::etcd::error;
use crate::engine::command::{AlarmKind, Range, RevisionBounds, Sort};
use crate::engine::scan::Budget;
use crate::engine::{self, Engine};
use crate::metrics::METRICS;
use crate::types::KeyRange;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

/// One thing to look at.
#[derive(Clone, Copy)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, engine: &Engine) -> Result<(), String> {
        match self {
            Check::DataCorruption if engine.alarms().iter().any(|(_, kind)| *kind == AlarmKind::Corrupt) => {
                Err(format!("alarm activated: {}", alarm_name(AlarmKind::Corrupt)))
            }
            Check::NonLearner if engine.status().is_learner => Err("not supported for learner".to_owned()),
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => read(engine, true).await,
            Check::LinearizableRead => read(engine, false).await,
        }
    }
}

/// The routes of this file.
pub fn routes() -> Router<Engine> {
    let mut router = Router::new();
    for (root, known) in [("/livez", LIVEZ), ("/readyz", READYZ)] {
        let all = move |State(engine): State<Engine>, request: Request| async move {
            let excluded = queries(&request, "exclude");
            let checks: Vec<Check> = known
                .iter()
                .copied()
                .filter(|check| !excluded.iter().any(|name| name == check.name()))
                .collect();
            let unknown: Vec<&String> =
                excluded.iter().filter(|name| !known.iter().any(|check| check.name() == **name)).collect();
            if !unknown.is_empty() {
                tracing::warn!(names = ?unknown, "some health checks cannot be excluded");
            }
            report(root, &engine, &checks, has_query(&request, "verbose")).await
        };
        router = router.route(root, reply::get_only(all));
        for check in known {
            let one = move |State(engine): State<Engine>, request: Request| async move {
                report(root, &engine, &[*check], has_query(&request, "verbose")).await
            };
            router = router.route(&format!("{root}/{}", check.name()), reply::get_only(one));
        }
    }
    router
}

async fn report(root: &'static str, engine: &Engine, checks: &[Check], verbose: bool) -> Response {
    let (mut lines, mut failed) = (String::new(), false);
    for check in checks {
        let result = check.run(engine).await;
        count(root, check.name(), result.is_ok());
        match result {
            Ok(()) => lines += &format!("[+]{} ok\n", check.name()),
            Err(error) => {
                failed = true;
                lines += &format!("[-]{} failed: {error}\n", check.name());
            }
        }
    }
    if failed {
        tracing::error!(path = root, reason = %lines, "Health check error");
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, lines + "\n");
    }
    if !verbose {
        lines.clear();
    }
    reply::text(StatusCode::OK, lines + "ok\n")
}

/// Notes the result of a check. `root` is `/livez` or `/readyz`.
fn count(root: &str, name: &str, is_ok: bool) {
    let (kind, server) = (root.trim_start_matches('/'), &METRICS.server);
    server.healthcheck.with_label_values(&[kind, name]).set(i64::from(is_ok));
    let status = if is_ok { "success" } else { "error" };
    server.healthchecks.with_label_values(&[kind, name, status]).inc();
}

/// Reads a key as nobody in particular; the text of what went wrong.
pub async fn read(engine: &Engine, serializable: bool) -> Result<(), String> {
    let text = |error: engine::Error| error::status(error).message().to_owned();
    if !serializable {
        engine.read_index().await.map_err(text)?;
    }
    let query = Range {
        range: KeyRange::all(),
        limit: 1,
        revision: 0,
        sort: Sort::default(),
        keys_only: true,
        count_only: false,
        bounds: RevisionBounds::default(),
    };
    let (mut scan, snapshot) = engine.scan(query).map_err(text)?;
    let first = scan.step_in(&snapshot, Budget { keys: 1, bytes: 1 }, |_, _, _| Ok(0));
    first.map_err(|error| text(error.into()))
}

/// What etcd calls an alarm.
pub fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

/// The values of a query parameter that are not empty.
pub fn queries(request: &Request, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    pairs
        .filter(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.into_owned())
        .collect()
}

fn has_query(request: &Request, name: &str) -> bool {
    url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .any(|(key, _)| key == name)
}
