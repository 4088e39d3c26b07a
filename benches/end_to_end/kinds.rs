//! The kinds of server that are compared. A further one is one more entry of [`KINDS`]: a name, where its program is
//! found, and the flags that give it a seat in a cluster. All get the same durability, that is their default with fsync.
//! Used by `options` and `server`.

use std::path::{Path, PathBuf};

use crate::access::Files;

/// One kind of server.
pub struct Kind {
    pub name: &'static str,
    /// The largest cluster that it can make.
    pub members_max: usize,
    /// Its program, if none is given on the command line.
    pub binary: fn() -> Option<PathBuf>,
    pub flags: fn(&Seat) -> Vec<String>,
}

/// Every kind, in the order of the report's columns.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "kvist",
        members_max: 9,
        binary: || Some(env!("CARGO_BIN_EXE_kvist").into()),
        flags: etcd_flags,
    },
    Kind { name: "etcd", members_max: 9, binary: find_etcd, flags: etcd_flags },
];

/// The kind that others are divided by, and the one that the goals are about.
pub const REFERENCE: &str = "etcd";
pub const SUBJECT: &str = "kvist";

/// What one member is told when it starts.
pub struct Seat<'a> {
    pub name: String,
    pub data: PathBuf,
    pub client_url: String,
    pub peer_url: String,
    /// `name=url,...` of all members.
    pub cluster: String,
    /// The certificate to show to clients.
    pub files: Option<&'a Files>,
}

fn etcd_flags(seat: &Seat) -> Vec<String> {
    let mut flags = vec![
        format!("--name={}", seat.name),
        format!("--data-dir={}", seat.data.display()),
        format!("--listen-client-urls={}", seat.client_url),
        format!("--advertise-client-urls={}", seat.client_url),
        format!("--listen-peer-urls={}", seat.peer_url),
        format!("--initial-advertise-peer-urls={}", seat.peer_url),
        format!("--initial-cluster={}", seat.cluster),
        "--quota-backend-bytes=8589934592".to_owned(),
        "--log-level=error".to_owned(),
    ];
    if let Some(files) = seat.files {
        flags.push(format!("--cert-file={}", files.certificate.display()));
        flags.push(format!("--key-file={}", files.key.display()));
    }
    flags
}

/// The etcd that `make tools` built, else the one in `PATH`.
fn find_etcd() -> Option<PathBuf> {
    let built = crate::options::target_dir().join("tools/etcd");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|dir: PathBuf| dir.join("etcd"));
    std::iter::once(built).chain(installed).find(|file: &PathBuf| Path::is_file(file))
}
