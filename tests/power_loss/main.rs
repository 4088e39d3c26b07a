//! Power loss: whatever the disk kept of the state file, the member opens at the last completed commit or at the one that
//! was under way, never at a mixture, and its log brings it back to everything that it had applied.

mod copy;
mod image;
mod member;
mod script;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use kvist::engine::entry::Entry;
use member::{Member, Rows};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Entries of a run.
const ENTRIES: usize = 1500;
/// Entries applied between two commits, at most.
const STEP: usize = 60;
/// Torn files tried of each commit.
const TORN: usize = 3;

#[test]
fn a_torn_commit_is_wholly_there_or_not_at_all() {
    let seed: u64 =
        std::env::var("KVIST_CRASH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("KVIST_CRASH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let entries = script::entries(&mut rng, ENTRIES);
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut member = Member::open(temp.path());
    let mut commits = 0;
    while member.applied() < ENTRIES {
        let upto = (member.applied() + rng.random_range(1..STEP)).min(ENTRIES);
        member.apply(&entries, upto);
        // Three steps of removal to each flush, so that some are cut off, and some come before the flush that tells why.
        for step in 0..4 {
            let before = Moment::of(&member);
            match step {
                1 => member.flush(),
                _ => member.remove(rng.random_range(1..20)),
            }
            commits += u32::from(check_commit(&member, &entries, &before, &mut rng));
        }
        if rng.random_ratio(1, 12) {
            check_defragmentation(&member, &entries, &mut rng);
        }
    }
    assert!(commits > 50, "only {commits} commits were tried");
}

/// What the file was before a commit.
struct Moment {
    file: Vec<u8>,
    rows: Rows,
}

impl Moment {
    fn of(member: &Member) -> Moment {
        Moment { file: member.file().1, rows: member.rows() }
    }
}

/// Tries files that a loss of power in the last commit leaves behind; false when there was no commit.
fn check_commit(member: &Member, entries: &[Entry], before: &Moment, rng: &mut StdRng) -> bool {
    let (name, file) = member.file();
    if file == before.file {
        return false;
    }
    image::assert_one_commit(&before.file, &file);
    let mut images = vec![image::all_but_meta(&before.file, &file)];
    images.extend((0..TORN).map(|_| image::torn(&before.file, &file, rng)));
    for image in images {
        check(member, entries, &[(&name, &image)], &before.rows);
    }
    check(member, entries, &[(&name, &file)], &member.rows());
    true
}

/// Defragments, and tries the directories that a loss of power in between leaves behind.
fn check_defragmentation(member: &Member, entries: &[Entry], rng: &mut StdRng) {
    let rows = member.rows();
    let (old_name, old) = member.file();
    member.defragment();
    let (new_name, new) = member.file();
    assert!(new_name != old_name && member.rows() == rows, "defragmentation changes the file, not the rows");
    let part = &new[..rng.random_range(0..=new.len())];
    check(member, entries, &[(&old_name, &old), (Path::new("state.tmp"), part)], &rows);
    check(member, entries, &[(&old_name, &old), (&new_name, &new)], &rows);
}

/// A member that starts on `files` has exactly `rows`, and has caught up with the living one once it has replayed the log.
fn check(living: &Member, entries: &[Entry], files: &[(&Path, &[u8])], rows: &Rows) {
    let temp = tempfile::tempdir().expect("temporary directory");
    for (name, content) in files {
        std::fs::create_dir(temp.path().join(name)).expect("create a directory");
        std::fs::write(temp.path().join(name).join("data.mdb"), content).expect("write a file");
    }
    let mut member = Member::open(temp.path());
    assert!(member.rows() == *rows, "the rows are neither those before nor those after the commit");
    member.apply(entries, living.applied());
    let difference = member.picture().difference(&living.picture());
    assert_eq!(difference, None, "after the replay up to entry {}", living.applied());
    member.flush();
    assert_eq!(member.picture().difference(&living.picture()), None, "after the flush of what was replayed");
}
