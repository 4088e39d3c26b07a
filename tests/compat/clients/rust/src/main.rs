//! The suite `rust` of the client matrix: the crate etcd-client, unmodified, in the use that it is made for.
//!
//! Each case has a fresh server of its own from the runner's control service, so revisions are exact. A case is an
//! async function that panics when something is not as it should be. One line of TAP is printed for each.

mod auth;
mod cancel;
mod control;
mod election;
mod help;
mod kv;
mod large;
mod lease;
mod lock;
mod maintenance;
mod reconnect;
mod tls;
mod txn;
mod watch;

use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use control::Server;

/// Of one case; most take less than a second.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// What the last panic said, and where.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

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
        $crate::Case { name: $name, flags: &[$($flag),*], run: |server| Box::pin($function(server)) }
    };
}

fn main() {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a panic without a text");
        let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
        *LAST_PANIC.lock().unwrap() = format!("{text}{place}");
    }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("# client: etcd-client 0.21.1");
    let all = [
        kv::CASES,
        txn::CASES,
        watch::CASES,
        reconnect::CASES,
        lease::CASES,
        lock::CASES,
        election::CASES,
        auth::CASES,
        tls::CASES,
        large::CASES,
        cancel::CASES,
        maintenance::CASES,
    ];
    let only = std::env::args().nth(1).unwrap_or_default();
    let (mut count, mut failed) = (0, 0);
    for case in all.into_iter().flatten().filter(|case| case.name.contains(&only)) {
        count += 1;
        match runtime.block_on(run(case)) {
            Ok(()) => println!("ok - {}", case.name),
            Err(reason) => {
                failed += 1;
                println!("not ok - {}: {}", case.name, reason.replace('\n', " "));
            }
        }
    }
    println!("1..{count}");
    std::process::exit(i32::from(failed > 0));
}

async fn run(case: &Case) -> Result<(), String> {
    let work = case.run;
    let flags = case.flags;
    let task = tokio::spawn(async move {
        let server = Server::start(flags).await;
        let id = server.id;
        work(server).await;
        id
    });
    let over = tokio::time::timeout(CASE_LIMIT, task).await;
    control::remove_all().await;
    match over {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(std::mem::take(&mut LAST_PANIC.lock().unwrap())),
        Err(_) => Err(format!("not over after {} s", CASE_LIMIT.as_secs())),
    }
}
