//! A data directory of kvist from that of a stopped etcd member: the same member of the same cluster, which goes on where
//! etcd stopped. Cluster and member keep their ids, and the log its term and index.

use super::backend::Backend;
use super::build::Builder;
use super::replay::{self, Survey};
use super::target::Target;
use super::wal::Wal;
use super::{Error, Progress, Result};
use crate::engine::Identity;
use crate::engine::apply::LogPosition;
use crate::engine::command::Member;
use crate::identity::Founding;
use crate::types::MemberId;
use fs4::fs_std::FileExt;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// From where to where.
#[derive(Clone, Debug)]
pub struct Options {
    /// etcd's data directory.
    pub data_dir: PathBuf,
    /// Its log, if that is not below the data directory.
    pub wal_dir: Option<PathBuf>,
    /// The new data directory; missing or empty.
    pub to: PathBuf,
    /// A directory of its own for the new log; missing.
    pub to_wal_dir: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Ids of cluster and member.
    pub identity: Identity,
    /// Name of the member.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Current revision.
    pub revision: i64,
    /// Entries that only the log had.
    pub replayed: u64,
}

/// Makes a data directory of etcd's.
pub fn migrate(options: &Options, progress: Progress<'_>) -> Result<Report> {
    let target = Target::prepare(&options.to, options.to_wal_dir.as_deref())?;
    let backend = open(&options.data_dir)?;
    backend.check(progress)?;
    backend.check_schema()?;
    let after = backend.consistent_index()?;
    let wal_dir = options.wal_dir.clone().unwrap_or_else(|| options.data_dir.join("member/wal"));
    let wal = Wal::open(&wal_dir, after)?;
    let survey = replay::survey(&wal, after)?;
    let members = backend.members()?.into_iter().map(|member| (member.id, member)).collect();
    // Before the work, as far as the database knows; the log may have the last word.
    alone(&members, &survey)?;
    // Before etcd 3.5, the database does not say of which term its last entry is; the member's is no lower.
    let term = Some(backend.term()?).filter(|term| *term > 0).unwrap_or(survey.state.term());
    let position = LogPosition { term, index: after };
    let mut builder = Builder::load(&target, &backend, position, None, progress)?;
    let members = replay::replay(&wal, &survey, &mut builder, members, progress)?;
    let member = alone(&members, &survey)?;
    let identity = Identity { cluster: survey.metadata.cluster(), member: member.id };
    builder.flush()?;
    let report = Report {
        identity,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        revision: builder.store().revision(),
        replayed: survey.missing(),
    };
    let founding = Founding { identity, members: vec![member], is_new: true, origin: None };
    builder.finish(target, &founding, survey.state.term())?;
    Ok(report)
}

/// Opens the database, which a running etcd would hold locked.
fn open(data_dir: &Path) -> Result<Backend> {
    let path = data_dir.join("member/snap/db");
    let file = File::open(&path).map_err(Error::io(&path))?;
    if !FileExt::try_lock_shared(&file).map_err(Error::io(&path))? {
        let dir = data_dir.display();
        return Err(Error::Refused(format!(
            "{dir} is in use by another process: stop etcd first, or restore a snapshot of it with kvist snapshot restore"
        )));
    }
    let len = file.metadata().map_err(Error::io(&path))?.len();
    Backend::new(&path, file, len)
}

/// The member whose log it is, if it is the only one.
fn alone(members: &BTreeMap<MemberId, Member>, survey: &Survey) -> Result<Member> {
    let id = survey.metadata.member();
    match members.get(&id) {
        Some(member) if members.len() == 1 && !member.is_learner => Ok(member.clone()),
        Some(_) => Err(Error::Refused(format!(
            "the cluster has {} members, and a cluster cannot be moved member by member: take a snapshot of it, and restore \
             that with kvist snapshot restore",
            members.len()
        ))),
        None => Err(Error::Refused(format!("member {id:x}, whose log it is, is not in its cluster"))),
    }
}
