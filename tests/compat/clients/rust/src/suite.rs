//! What a suite of cases in Rust needs: a server for each from the runner's control service, a limit, and TAP. Used by the
//! suites `rust` and `d-engine`.
//!
//! A case is an async function that panics when something is not as it should be. One line of TAP is printed for each.

use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::control::{self, STARTED, Server};

/// Of one case; most take less than a second.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// Each has a server of its own, which takes most of the time.
const AT_A_TIME: usize = 4;

/// What panics said, and where.
static PANICS: Mutex<Vec<(tokio::task::Id, String)>> = Mutex::new(Vec::new());

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A case of the suite.
pub struct Case {
    /// FEATURE/name.
    pub name: &'static str,
    /// Of the server, beside the usual ones.
    pub flags: &'static [&'static str],
    pub run: fn(Server) -> Running,
}

/// `case!("kv/name", function)` or with flags of the server as third.
#[macro_export]
macro_rules! case {
    ($name:literal, $function:expr) => {
        $crate::case!($name, $function, [])
    };
    ($name:literal, $function:expr, [$($flag:literal),*]) => {
        $crate::suite::Case { name: $name, flags: &[$($flag),*], run: |server| Box::pin($function(server)) }
    };
}

/// Runs the cases of a suite, or those whose names have the first word of the command line in them, and ends the process.
pub fn main(client: &str, cases: &[&'static [Case]]) -> ! {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a panic without a text");
        let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
        if let Some(task) = tokio::task::try_id() {
            PANICS.lock().unwrap().push((task, format!("{text}{place}")));
        }
    }));
    println!("# client: {client}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    std::process::exit(i32::from(!runtime.block_on(run_all(cases))));
}

/// Runs the cases, some at a time; true if all are well.
async fn run_all(cases: &[&'static [Case]]) -> bool {
    let only = std::env::args().nth(1).unwrap_or_default();
    let mut queue = cases.iter().copied().flatten().filter(|case| case.name.contains(&only));
    let mut running: JoinSet<(&str, Result<(), String>)> = JoinSet::new();
    let (mut count, mut well) = (0, true);
    loop {
        while running.len() < AT_A_TIME
            && let Some(case) = queue.next()
        {
            running.spawn(async move { (case.name, run(case).await) });
        }
        let Some(over) = running.join_next().await else { break };
        count += 1;
        match over.expect("the runner of a case") {
            (name, Ok(())) => println!("ok - {name}"),
            (name, Err(reason)) => {
                well = false;
                println!("not ok - {name}: {}", reason.replace('\n', " "));
            }
        }
    }
    println!("1..{count}");
    well
}

async fn run(case: &'static Case) -> Result<(), String> {
    let started = Arc::new(Mutex::new(Vec::new()));
    let work =
        STARTED.scope(Arc::clone(&started), async { (case.run)(Server::start(case.flags).await).await });
    let task = tokio::spawn(work);
    let id = task.id();
    let abort = task.abort_handle();
    let over = tokio::time::timeout(CASE_LIMIT, task).await;
    abort.abort();
    let ids = std::mem::take(&mut *started.lock().unwrap());
    control::remove(ids).await;
    match over {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => {
            let panics = PANICS.lock().unwrap();
            let own = panics.iter().find(|(task, _)| *task == id);
            Err(own.map_or("a panic that left no text".to_owned(), |(_, text)| text.clone()))
        }
        Err(_) => Err(format!("not over after {} s", CASE_LIMIT.as_secs())),
    }
}
