//! Who this member is: cluster and member id, fixed at the first start and kept in `member/identity.json`, so that later
//! starts ignore the `initial-*` flags (contract P-6). Called by `server` and `import`.

use crate::engine::Identity;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "identity.json";
const TEMPORARY: &str = "identity.tmp";

#[derive(Serialize, Deserialize)]
struct Form {
    /// Hexadecimal, as etcdctl prints ids.
    cluster_id: String,
    member_id: String,
}

/// Whether an identity is stored in `dir`: the member has started before.
pub fn is_known(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// The identity stored in `dir`; made and stored, durably, if there is none.
pub fn load_or_create(dir: &Path, make: impl FnOnce() -> Identity) -> io::Result<Identity> {
    match fs::read(dir.join(FILE)) {
        Ok(bytes) => parse(&bytes).ok_or_else(|| {
            let text = format!(
                "{} is damaged; restore it, or the whole directory, from a backup",
                dir.join(FILE).display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = make();
            store(dir, identity)?;
            Ok(identity)
        }
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> Option<Identity> {
    let form: Form = serde_json::from_slice(bytes).ok()?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(Identity { cluster: number(&form.cluster_id)?, member: number(&form.member_id)? })
}

/// Stores the identity in `dir`, durably.
pub fn store(dir: &Path, identity: Identity) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let form =
        Form { cluster_id: format!("{:x}", identity.cluster), member_id: format!("{:x}", identity.member) };
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
    fn the_first_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity { cluster: u64::MAX, member: 0x8e9e_05c5_2164_694d };
        let member = dir.path().join("member");
        assert_eq!(load_or_create(&member, || first).unwrap(), first);
        assert_eq!(load_or_create(&member, || unreachable!("it is stored")).unwrap(), first);
        fs::write(member.join(FILE), b"{").unwrap();
        assert!(load_or_create(&member, || first).unwrap_err().to_string().contains("damaged"));
    }
}
