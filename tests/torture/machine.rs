//! What this machine lets us do to a history: namespaces of its own, and tools.

use std::process::{Command, Stdio};

/// Tells a history that it has namespaces to itself.
pub const ISOLATED: &str = "KVIST_TORTURE_ISOLATED";

/// What was found.
pub struct Machine {
    /// A command that runs another in namespaces of its own, all of whose processes end with it. `None` also without `ip`,
    /// which is what makes a network there.
    pub isolation: Option<Vec<&'static str>>,
    pub has_faketime: bool,
    pub has_strace: bool,
}

const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

impl Machine {
    pub fn probe() -> Machine {
        // As root, or as one who may make namespaces for users.
        let kinds: [&[&'static str]; 2] = [&["unshare"], &["unshare", "--user", "--map-root-user"]];
        let isolation = kinds.iter().map(|kind| [kind, &NAMESPACES[..]].concat()).find(|command| {
            let made = ["sh", "-c", "mount -t tmpfs none /mnt && unshare --net true"];
            succeeds(command[0], &[&command[1..], &made[..]].concat())
        });
        Machine {
            isolation: isolation.filter(|_| succeeds("ip", &["-V"])),
            has_faketime: succeeds("faketime", &["-f", "+1s", "true"]),
            has_strace: succeeds("strace", &["-f", "-e", "inject=fdatasync:delay_enter=1", "true"]),
        }
    }
}

/// Gives this history shared memory of its own: faketime keeps semaphores there, named by process ids, which are the same in
/// histories that are played at the same time.
pub fn hide_shared_memory() {
    assert!(succeeds("mount", &["-t", "tmpfs", "none", "/dev/shm"]), "mount /dev/shm");
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
