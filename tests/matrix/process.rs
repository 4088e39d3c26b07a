//! Running a suite's program with a time limit, in a process group of its own, so that nothing of it is left behind.
//!
//! What it prints is appended to the suite's log as it comes. Called by `suite.rs`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// In the environment of a suite's programs, to know what they left running outside of their process group.
pub const MARK: &str = "KVIST_MATRIX_SUITE";
/// Lines that wait to be read; a faster program waits.
const LINES_MAX: usize = 1024;
/// What a program gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How often the limits are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How a program ended.
pub enum End {
    Code(i32),
    /// Killed by a signal, or because the time was up or the whole run is stopped.
    Killed(String),
}

/// Sends a signal to a process, or with `-` before the number to a group.
pub fn signal(name: &str, target: &str) {
    // The shell has a kill of its own; a machine may lack the program.
    let _ = Command::new("sh").args(["-c", "kill -s \"$0\" -- \"$1\" 2>/dev/null", name, target]).status();
}

/// Runs `command`, gives each line of its stdout to `on_line`, and calls `on_tick` about ten times a second.
pub fn run(
    mut command: Command,
    mark: &str,
    log: &File,
    limit: Duration,
    stop: &AtomicBool,
    mut on_line: impl FnMut(&str),
    mut on_tick: impl FnMut(),
) -> std::io::Result<End> {
    let mut log = log.try_clone()?;
    let mut child = command
        .env(MARK, mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .process_group(0)
        .spawn()?;
    let (sender, lines) = sync_channel(LINES_MAX);
    let stdout = child.stdout.take().expect("stdout is piped");
    // It ends with the last process that holds the pipe, or with the first line after the receiver has gone.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let begin = Instant::now();
    let mut ended = None;
    let mut left_open = None;
    let end = loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => {
                writeln!(log, "{line}")?;
                on_line(&line);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) if ended.is_some() => break None,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK / 10),
            Err(RecvTimeoutError::Timeout) => {}
        }
        on_tick();
        ended = ended.or(child.try_wait()?);
        if ended.is_some() && left_open.get_or_insert_with(Instant::now).elapsed() > GRACE {
            break None; // something that it left running holds its stdout
        }
        if stop.load(Ordering::Relaxed) {
            break Some("the run was stopped".to_owned());
        }
        if begin.elapsed() > limit {
            break Some(format!("killed after {} s", limit.as_secs()));
        }
    };
    clean_up(&mut child, mark);
    Ok(match (end, ended) {
        (Some(reason), _) => End::Killed(reason),
        (None, Some(status)) => match status.code() {
            Some(code) => End::Code(code),
            None => End::Killed(format!("the program ended with {status}")),
        },
        (None, None) => End::Killed("the program was lost".to_owned()),
    })
}

/// Ends the group, and then what left the group.
fn clean_up(child: &mut Child, mark: &str) {
    let group = format!("-{}", child.id());
    let entry = format!("{MARK}={mark}");
    if matches!(child.try_wait(), Ok(None)) || !marked(&entry).is_empty() {
        signal("TERM", &group);
        let deadline = Instant::now() + GRACE;
        // Reaped first: a zombie keeps its number in the group.
        while (matches!(child.try_wait(), Ok(None)) || !marked(&entry).is_empty())
            && Instant::now() < deadline
        {
            std::thread::sleep(TICK);
        }
        signal("KILL", &group);
        for pid in marked(&entry) {
            signal("KILL", &pid);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Numbers of the running processes that have an entry in their environment.
fn marked(entry: &str) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = processes.flatten().filter_map(|process| process.file_name().into_string().ok());
    let has_mark = |pid: &String| {
        pid.bytes().all(|b| b.is_ascii_digit())
            && std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|one| one == entry.as_bytes()))
    };
    names.filter(has_mark).collect()
}
