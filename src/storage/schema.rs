//! Every table of the state environment: name, key layout, value layout. Persisted; see `docs/storage.md`.
//!
//! Names and layouts never change meaning. A new layout gets a new [`FORMAT`] and code that reads the old one.

/// Version of the whole layout, kept in `meta/format`. A file with a higher one is refused. 2 added `auth`: a kvist that
/// knows no users must not serve a store that has some. 3 added what images hide from clients of etcd, and leases that
/// belong to keys. 4 added the clock of leases, and since when each runs. Files of older formats lack these things, and become files of this one.
pub const FORMAT: u32 = 4;

/// The tables, in the order in which they are opened. The number is the index into [`NAMES`];
/// it is not persisted, but members that send each other rows name tables by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// [`codec::store_key`](super::codec::store_key) of the key → image of its newest flushed version, tombstones included.
    Cur = 0,
    /// Revision (12 bytes) → [`codec::LogRow`](super::codec::LogRow): the change, with the image before it.
    Log = 1,
    /// Revision (12), part (1), chunk (4) → up to [`codec::BLOB_CHUNK`](super::codec::BLOB_CHUNK) bytes of a long key or value.
    Blob = 2,
    /// Lease id (8) → granted TTL in seconds, 0, perhaps flags, perhaps since when it runs (varints); see `lease::table`.
    Lease = 3,
    /// Lease id (8), `store_key` → empty, or the whole key when it is a long one.
    LeaseKey = 4,
    /// Member id (8), alarm type (4) → empty.
    Alarm = 5,
    /// One row a fact; see [`meta`].
    Meta = 6,
    /// `u` and `store_key` of a user's name → the user; `r` and that of a role's → the role. As `auth` encodes them.
    Auth = 7,
}

/// Names of the tables inside LMDB, by [`Table`] index.
pub const NAMES: [&str; 8] = ["cur", "log", "blob", "lease", "lease_key", "alarm", "meta", "auth"];

/// All tables, for loops over them.
pub const TABLES: [Table; 8] = [
    Table::Cur,
    Table::Log,
    Table::Blob,
    Table::Lease,
    Table::LeaseKey,
    Table::Alarm,
    Table::Meta,
    Table::Auth,
];

/// Keys of the `meta` table.
pub mod meta {
    /// u32 LE: [`super::FORMAT`].
    pub const FORMAT: &[u8] = b"format";
    /// Log id of the last entry whose effect is in this file: term u64 LE, index u64 LE.
    pub const APPLIED: &[u8] = b"applied";
    /// Membership as `raft` encodes it; opaque here.
    pub const MEMBERSHIP: &[u8] = b"membership";
    /// i64 LE: current revision of the store.
    pub const REVISION: &[u8] = b"revision";
    /// i64 LE: last logical compaction; absent before the first one.
    pub const COMPACTED: &[u8] = b"compacted";
    /// i64 LE: keys that exist at that revision; absent in files of early versions, which count them once.
    pub const KEYS: &[u8] = b"keys";
    /// As `applied`: the state up to there came from another member, and the raft log may end below it; absent once the log
    /// has been purged up to there.
    pub const INSTALLED: &[u8] = b"installed";
    /// i64 LE: revision below which log rows have been removed physically.
    pub const REMOVED: &[u8] = b"removed";
    /// Prefix of one row a member: its attributes as `engine` encodes them.
    pub const MEMBER: &[u8] = b"member/";
    /// Prefix of one empty row a member that was removed: its id u64 BE.
    pub const REMOVED_MEMBER: &[u8] = b"removed_member/";
    /// The clock of leases when it was recorded last: term of its leader u64 LE, milliseconds u64 LE; absent: never yet.
    pub const LEASE_CLOCK: &[u8] = b"lease_clock";
    /// Version of the cluster, text `X.Y.0`; absent: that of this release.
    pub const CLUSTER_VERSION: &[u8] = b"cluster_version";
    /// Where an announced downgrade leads, text `X.Y.0`; absent without one.
    pub const DOWNGRADE: &[u8] = b"downgrade";
    /// 1 byte: whether users are checked; absent or 0: no.
    pub const AUTH_ENABLED: &[u8] = b"auth_enabled";
    /// u64 LE: how often users, roles or permissions changed, from 1.
    pub const AUTH_REVISION: &[u8] = b"auth_revision";
}
