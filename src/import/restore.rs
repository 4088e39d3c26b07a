//! A new cluster of one member from a snapshot, as `etcdutl snapshot restore` makes one: keys, revisions, leases and users
//! are those of the snapshot; the cluster, its member and its log are new.

use super::backend::Backend;
use super::build::Builder;
use super::target::Target;
use super::{Progress, Result};
use crate::engine::Identity;
use crate::engine::apply::LogPosition;
use crate::engine::command::Member;
use std::path::{Path, PathBuf};

/// Where the new log begins: etcd's has one entry for each member, in the first term.
const BEGIN: LogPosition = LogPosition { term: 1, index: 1 };

/// What to make of a snapshot.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to; missing or empty.
    pub data_dir: PathBuf,
    /// A directory of its own for the log; missing.
    pub wal_dir: Option<PathBuf>,
    /// Ids of the new cluster and member.
    pub identity: Identity,
    /// Name of the member.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Take a file without a checksum, or with a wrong one.
    pub skip_hash_check: bool,
    /// How much the revision moves on, everything before being compacted.
    pub bump: Option<i64>,
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
    let backend = Backend::open_snapshot(file, options.skip_hash_check, progress)?;
    backend.check(progress)?;
    backend.check_schema()?;
    let builder = Builder::load(&target, &backend, BEGIN, options.bump, progress)?;
    let report = Report { revision: builder.store().revision(), compacted: builder.store().compacted() };
    let member = Member {
        id: options.identity.member,
        name: options.name.clone(),
        peer_urls: options.peer_urls.clone(),
        client_urls: Vec::new(),
        is_learner: false,
    };
    builder.finish(target, options.identity, member, BEGIN.term)?;
    Ok(report)
}
