//! Random commands: mostly writes to a handful of keys, and now and then everything else that the log can carry.

use bytes::Bytes;
use kvist::auth::{Caller, Change, Permission, PermissionKind};
use kvist::engine::Origin;
use kvist::engine::command::{
    AlarmKind, Command, Compare, DeleteRange, Member, Op, Operand, Put, Range, Relation, RevisionBounds,
    Sort, Txn,
};
use kvist::engine::versions::ClusterVersion;
use kvist::engine::watch::Spec;
use kvist::types::{KeyRange, LeaseId};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::member::TTL_MIN_SECS;

/// The longest TTL that clients ask for, seconds.
pub const TTL_MAX_SECS: i64 = 60;
/// Length of the rare large values: a few of them fill a watcher's stream.
const LARGE_VALUE: usize = 700 << 10;

/// What commands are made of.
pub struct Source<'r> {
    pub rng: &'r mut StdRng,
    /// The current revision.
    pub revision: i64,
    /// Leases that exist or existed.
    pub leases: &'r [LeaseId],
}

impl Source<'_> {
    fn key(&mut self) -> Bytes {
        match self.rng.random_range(0..20) {
            0 => Bytes::from("m".repeat(1900) + ["x", "y"][self.rng.random_range(0..2)]),
            _ => Bytes::copy_from_slice(&[self.rng.random_range(b'a'..b'g')]),
        }
    }

    fn range(&mut self) -> KeyRange {
        let start = self.key();
        let end = match self.rng.random_range(0..6) {
            0..3 => Bytes::new(),
            3 => Bytes::from_static(&[0]),
            _ => self.key(),
        };
        KeyRange::from_wire(start, end)
    }

    fn lease(&mut self) -> LeaseId {
        self.leases.choose(self.rng).copied().unwrap_or(1)
    }

    fn value(&mut self) -> Bytes {
        let len = match self.rng.random_range(0..400) {
            0 if self.rng.random_bool(0.3) => LARGE_VALUE,
            0..40 => self.rng.random_range(1000..5000),
            _ => self.rng.random_range(0..20),
        };
        vec![self.rng.random_range(b'a'..=b'z'); len].into()
    }

    fn put(&mut self) -> Put {
        let lease = if self.rng.random_bool(0.3) { self.lease() } else { 0 };
        let mut put =
            Put { key: self.key(), value: self.value(), lease, prev_kv: self.rng.random(), ..Put::default() };
        match self.rng.random_range(0..10) {
            0 => (put.ignore_value, put.value) = (true, Bytes::new()),
            1 => (put.ignore_lease, put.lease) = (true, 0),
            _ => {}
        }
        put
    }

    fn delete(&mut self) -> DeleteRange {
        DeleteRange { range: self.range(), prev_kv: self.rng.random() }
    }

    fn read(&mut self) -> Range {
        Range {
            range: self.range(),
            limit: self.rng.random_range(0..3),
            revision: 0,
            sort: Sort::default(),
            keys_only: false,
            count_only: self.rng.random(),
            bounds: RevisionBounds::default(),
        }
    }

    fn compare(&mut self) -> Compare {
        let relations =
            [Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual, Relation::Any];
        let revision = self.rng.random_range(0..self.revision + 2);
        let operand = match self.rng.random_range(0..5) {
            0 => Operand::Version(self.rng.random_range(0..3)),
            1 => Operand::CreateRevision(revision),
            2 => Operand::ModRevision(revision),
            3 => Operand::Value(self.value()),
            _ => Operand::Lease(self.lease()),
        };
        let relation = *relations.choose(self.rng).expect("there are some");
        Compare { range: self.range(), relation, operand }
    }

    /// Each key is put at most once, and what keeps a value or a lease comes first, as the API makes sure of.
    fn txn(&mut self) -> Txn {
        let compares = (0..self.rng.random_range(0..3)).map(|_| self.compare()).collect();
        let mut branch = || {
            let mut ops = vec![Op::Put(self.put())];
            for _ in 0..self.rng.random_range(0..3) {
                ops.push(match self.rng.random_range(0..3) {
                    0 => Op::Range(self.read()),
                    1 => Op::DeleteRange(self.delete()),
                    _ => Op::Put(Put { ignore_value: false, ignore_lease: false, ..self.put() }),
                });
            }
            ops
        };
        let (success, failure) = (branch(), branch());
        Txn { compares, success, failure }
    }

    fn auth(&mut self) -> Change {
        let name = || ["root", "ann"];
        let user = name().choose(self.rng).expect("two").to_string();
        let role = ["root", "r"].choose(self.rng).expect("two").to_string();
        match self.rng.random_range(0..9) {
            0 => Change::Enable,
            1 | 2 => Change::Disable,
            3 => Change::UserAdd { name: user, password: vec![1], no_password: false },
            4 => Change::UserDelete { name: user },
            5 => Change::RoleAdd { name: role },
            6 => Change::UserGrantRole { name: user, role },
            7 => {
                Change::Authenticate { user, revision: self.rng.random_range(0..9), token_prefix: "t".into() }
            }
            _ => {
                let (key, range_end) = (self.key(), self.key());
                let permission = Permission { kind: PermissionKind::ReadWrite, key, range_end };
                Change::RoleGrantPermission { name: role, permission }
            }
        }
    }

    /// A command that needs no leader's decision.
    pub fn command(&mut self) -> Command {
        match self.rng.random_range(0..100) {
            0..45 => Command::Put(self.put()),
            45..58 => Command::DeleteRange(self.delete()),
            58..78 => Command::Txn(self.txn()),
            78..82 => Command::LeaseRevoke { ids: vec![self.lease()], expired: false },
            82..86 => Command::Compact { revision: (self.revision - self.rng.random_range(0..12)).max(1) },
            86..91 => Command::Auth(self.auth()),
            91 if self.rng.random_bool(0.3) => self.alarm(true),
            91 | 92 => self.alarm(false),
            93 => Command::Downgrade { target: Some(ClusterVersion { major: 3, minor: 6 }) },
            94 => Command::Downgrade { target: None },
            95 => Command::PublishMember(Member { id: self.rng.random_range(1..6), ..Member::default() }),
            _ => Command::Put(self.put()),
        }
    }

    /// Raises or clears an alarm.
    fn alarm(&mut self, activate: bool) -> Command {
        let alarm = if self.rng.random() { AlarmKind::NoSpace } else { AlarmKind::Corrupt };
        Command::Alarm { activate, member: self.rng.random_range(1..3), alarm }
    }

    /// Who asks.
    pub fn origin(&mut self) -> Origin {
        let caller = Caller { user: "ann".into(), revision: self.rng.random_range(0..12), is_pinned: true };
        match self.rng.random_range(0..4) {
            0 => Origin::Client(Some(caller)),
            1 => Origin::Client(None),
            _ => Origin::Server,
        }
    }

    /// A TTL, seconds.
    pub fn ttl(&mut self) -> i64 {
        self.rng.random_range(TTL_MIN_SECS..=TTL_MAX_SECS)
    }

    /// What a client watches.
    pub fn spec(&mut self) -> Spec {
        let range = if self.rng.random_bool(0.3) { KeyRange::all() } else { self.range() };
        let (no_put, no_delete) = [(false, false), (true, false), (false, true)]
            .choose_weighted(self.rng, |filters| if *filters == (false, false) { 4 } else { 1 })
            .copied()
            .expect("weights that can be used");
        Spec { range, no_put, no_delete, prev_kv: self.rng.random() }
    }
}
