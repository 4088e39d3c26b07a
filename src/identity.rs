//! Who this member is, and with whom its cluster began: fixed at the first start and kept in `member/identity.json`, so that
//! later starts ignore the `initial-*` flags (contract P-6). Called by `server` and `import`.

use crate::engine::Identity;
use crate::engine::command::Member;
use crate::types::MemberId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "identity.json";
const TEMPORARY: &str = "identity.tmp";

/// How a member came to its cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// Who it is.
    pub identity: Identity,
    /// Who belonged to the cluster then, this member among them; none where nobody wrote it down.
    pub members: Vec<Member>,
    /// Whether it began the cluster, perhaps with others, and did not join one.
    pub is_new: bool,
    /// What all the first members began with, if there were several: 0 for nothing, or a digest of the snapshot. Who began
    /// with something else must not take part. Who joined later has none.
    pub origin: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Form {
    /// Hexadecimal, as etcdctl prints ids.
    cluster_id: String,
    member_id: String,
    /// Absent in files of the first versions, which knew clusters of one member only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<MemberForm>,
    #[serde(default)]
    joined: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct MemberForm {
    id: String,
    name: String,
    peer_urls: Vec<String>,
    is_learner: bool,
}

/// Whether an identity is stored in `dir`: the member has started before.
pub fn is_known(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// What is stored in `dir`, if anything.
pub fn load(dir: &Path) -> io::Result<Option<Founding>> {
    match fs::read(dir.join(FILE)) {
        Ok(bytes) => parse(&bytes).map(Some).ok_or_else(|| {
            let text = format!(
                "{} is damaged; restore it, or the whole directory, from a backup",
                dir.join(FILE).display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(text: &str) -> Option<MemberId> {
    u64::from_str_radix(text, 16).ok()
}

fn parse(bytes: &[u8]) -> Option<Founding> {
    let form: Form = serde_json::from_slice(bytes).ok()?;
    let member = |form: MemberForm| {
        let MemberForm { id, name, peer_urls, is_learner } = form;
        Some(Member { id: number(&id)?, name, peer_urls, is_learner, client_urls: Vec::new() })
    };
    Some(Founding {
        identity: Identity { cluster: number(&form.cluster_id)?, member: number(&form.member_id)? },
        members: form.members.into_iter().map(member).collect::<Option<_>>()?,
        is_new: !form.joined,
        origin: form.origin.map(|origin| number(&origin).ok_or(())).transpose().ok()?,
    })
}

/// Stores it in `dir`, durably.
pub fn store(dir: &Path, founding: &Founding) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let member = |member: &Member| MemberForm {
        id: format!("{:x}", member.id),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
    };
    let form = Form {
        cluster_id: format!("{:x}", founding.identity.cluster),
        member_id: format!("{:x}", founding.identity.member),
        members: founding.members.iter().map(member).collect(),
        joined: !founding.is_new,
        origin: founding.origin.map(|origin| format!("{origin:x}")),
    };
    let temporary = dir.join(TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(&form)?)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("member");
        assert!(load(&dir).unwrap().is_none() && !is_known(&dir));
        let member = |id, name: &str| Member {
            id,
            name: name.into(),
            peer_urls: vec!["u".into()],
            ..Member::default()
        };
        let founding = Founding {
            identity: Identity { cluster: u64::MAX, member: 0x8e9e_05c5_2164_694d },
            members: vec![member(0x8e9e_05c5_2164_694d, "a"), Member { is_learner: true, ..member(1, "") }],
            is_new: false,
            origin: None,
        };
        for founding in [
            founding.clone(),
            Founding { is_new: true, origin: Some(0xfeed), ..founding.clone() },
            Founding { is_new: true, members: Vec::new(), ..founding },
        ] {
            store(&dir, &founding).unwrap();
            assert_eq!(load(&dir).unwrap(), Some(founding));
        }
        assert!(is_known(&dir));
        fs::write(dir.join(FILE), b"{").unwrap();
        assert!(load(&dir).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_file_of_the_first_versions_is_read() {
        let text = br#"{ "cluster_id": "cdf818194e3a8c32", "member_id": "8e9e05c52164694d" }"#;
        let identity = Identity { cluster: 0xcdf8_1819_4e3a_8c32, member: 0x8e9e_05c5_2164_694d };
        assert_eq!(parse(text), Some(Founding { identity, members: Vec::new(), is_new: true, origin: None }));
    }
}
