//! A member of a new cluster from a snapshot, as `etcdutl snapshot restore` makes one: keys, revisions, leases and users
//! are those of the snapshot; the cluster, its members and its log are new.
//!
//! Always true: the same file and the same options but for the place and `me` make the same state, with the same last entry.
//! So members of one cluster can be made on different machines, and begin as if they had followed one leader so far. Since
//! nothing else would tell that they were made of different files, members say to each other what they come from.

use super::backend::Backend;
use super::build::Builder;
use super::target::Target;
use super::{Progress, Result};
use crate::engine::Identity;
use crate::engine::apply::LogPosition;
use crate::engine::command::Member;
use crate::identity::Founding;
use crate::types::MemberId;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Term of the entry that the state stands for.
const TERM: u64 = 1;

/// What to make of a snapshot.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to; missing or empty.
    pub data_dir: PathBuf,
    /// A directory of its own for the log; missing.
    pub wal_dir: Option<PathBuf>,
    /// Ids of the new cluster, and of the member of it that is made.
    pub identity: Identity,
    /// All members of the cluster; all of them vote.
    pub founders: Vec<Founder>,
    /// Take a file without a checksum, or with a wrong one.
    pub skip_hash_check: bool,
    /// How much the revision moves on, everything before being compacted.
    pub bump: Option<i64>,
}

/// A member of the new cluster.
#[derive(Clone, Debug)]
pub struct Founder {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
}

impl Founder {
    fn member(&self) -> Member {
        let mut peer_urls = self.peer_urls.clone();
        peer_urls.sort(); // however each member's flags write them
        Member { id: self.id, name: self.name.clone(), peer_urls, ..Member::default() }
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Current revision.
    pub revision: i64,
    /// Revision of the last compaction, or -1.
    pub compacted: i64,
}

/// Makes a data directory of the snapshot in `file`.
pub fn restore(file: &Path, options: &Options, progress: Progress<'_>) -> Result<Report> {
    let target = Target::prepare(&options.data_dir, options.wal_dir.as_deref())?;
    let (backend, digest) = Backend::open_snapshot(file, options.skip_hash_check, progress)?;
    backend.check(progress)?;
    backend.check_schema()?;
    let members: Vec<Member> = options.founders.iter().map(Founder::member).collect();
    // etcd's new log has an entry for each member.
    let begin = LogPosition { term: TERM, index: members.len() as u64 };
    let builder = Builder::load(&target, &backend, begin, options.bump, progress)?;
    let report = Report { revision: builder.store().revision(), compacted: builder.store().compacted() };
    let origin = (members.len() > 1).then(|| origin(&digest, options.bump, &members));
    let founding = Founding { identity: options.identity, members, is_new: true, origin };
    builder.finish(target, &founding, TERM)?;
    Ok(report)
}

/// Digest of everything that the state is made of but URLs and token, of which the id of the cluster tells.
fn origin(database: &[u8; 32], bump: Option<i64>, members: &[Member]) -> u64 {
    let mut names: Vec<_> = members.iter().map(|member| (member.id, &member.name)).collect();
    names.sort_unstable();
    let mut hash = Sha256::new();
    hash.update(database);
    hash.update(bump.unwrap_or(0).to_be_bytes());
    for (_, name) in names {
        hash.update(name);
        hash.update([0]);
    }
    hash.finalize().iter().take(8).fold(0, |origin, byte| origin << 8 | u64::from(*byte))
}
