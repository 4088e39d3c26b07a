//! Random users, roles and permissions against random requests: the walk and the merged intervals must say what an
//! oracle says that knows neither, and what was let through must have shown and changed nothing that it should not.
//!
//! The oracle lists what a request touches as (access, key, end) on the wire's terms, and asks for a handful of sample
//! keys, one in each gap between the bounds in use, whether some permission names them. It keeps users and roles itself,
//! in plain maps. `KVIST_PERMISSION_CASES` sets the number of requests; `KVIST_SEED` repeats a run.

use super::apply::{Applier, LogPosition};
use super::command::{
    Attach, Batch, Binding, BoundPut, Command, Compare, DeleteRange, Kv, Op, OpOutcome, Operand, Outcome,
    Put, Range, Refusal, Relation, RevisionBounds, Sort, Txn, TxnOutcome,
};
use super::entry::{Entry, Origin};
use super::permit;
use crate::auth::{Access, Caller, Change, Error, Permission, PermissionKind};
use crate::mvcc::Store;
use crate::storage::Env;
use crate::types::{KeyRange, LeaseId, RangeEnd};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Requests tried by default; `KVIST_PERMISSION_CASES` for more.
const CASES: u64 = 60_000;
/// Requests between two sets of users.
const CASES_PER_WORLD: u64 = 400;
/// Everything that a bound may be. A single zero byte is a key, and as an end means "no end".
const BOUNDS: [&[u8]; 9] = [b"\0", b"\0\0", b"a", b"a\0", b"b", b"b\0", b"c", b"d", b"d\0"];
/// Keys in every gap that those bounds make, and one above all of them.
const SAMPLES: [&[u8]; 14] =
    [b"\0", b"\0\0", b"\0\x01", b"a", b"a\0", b"aa", b"b", b"b\0", b"bb", b"c", b"cc", b"d", b"d\0", b"e"];
const USERS: [&str; 4] = ["root", "ann", "bob", "cy"];
const ROLES: [&str; 4] = ["root", "r1", "r2", "r3"];
const LEASES: [LeaseId; 3] = [1, 2, 3];

/// What the oracle knows.
#[derive(Default)]
struct Oracle {
    roles: BTreeMap<&'static str, Vec<Permission>>,
    users: BTreeMap<&'static str, BTreeSet<&'static str>>,
    revision: u64,
}

/// One thing that a request would do, as the wire names keys.
type Touch = (Access, Bytes, Bytes);

impl Oracle {
    /// Whether this user may do this with one key.
    fn names(&self, user: &str, access: Access, key: &[u8]) -> bool {
        self.users.get(user).into_iter().flatten().any(|role| {
            self.roles.get(role).into_iter().flatten().any(|permission| {
                let kind_fits = match permission.kind {
                    PermissionKind::ReadWrite => true,
                    PermissionKind::Read => access == Access::Read,
                    PermissionKind::Write => access == Access::Write,
                };
                kind_fits && lies_in(key, &permission.key, &permission.range_end)
            })
        })
    }

    fn is_root(&self, user: &str) -> bool {
        self.users.get(user).is_some_and(|roles| roles.contains("root"))
    }

    fn allows(&self, user: &str, (access, key, range_end): &Touch) -> bool {
        if self.is_root(user) {
            return true;
        }
        let mut samples = SAMPLES.iter().filter(|sample| lies_in(sample, key, range_end)).peekable();
        match samples.peek() {
            None => self.names(user, *access, key), // an empty range is judged by its first key
            Some(_) => samples.all(|sample| self.names(user, *access, sample)),
        }
    }

    /// What etcd would say to these touches of this caller.
    fn judge(&self, caller: Option<&Caller>, touches: &[Touch]) -> Result<(), ()> {
        let Some(caller) = caller else { return if touches.is_empty() { Ok(()) } else { Err(()) } };
        let is_current = caller.revision >= self.revision && caller.revision != 0;
        let is_user = self.users.contains_key(&*caller.user);
        let is_allowed = |touch| is_current && is_user && self.allows(&caller.user, touch);
        if touches.iter().all(is_allowed) { Ok(()) } else { Err(()) }
    }
}

fn lies_in(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

fn wire(range: &KeyRange) -> (Bytes, Bytes) {
    let end = match &range.end {
        RangeEnd::Single => Bytes::new(),
        RangeEnd::Unbounded => Bytes::from_static(b"\0"),
        RangeEnd::Before(end) => end.clone(),
    };
    (range.start.clone(), end)
}

/// Lists what requests touch.
struct Touches<'w> {
    found: Vec<Touch>,
    attached: &'w BTreeMap<LeaseId, Vec<Bytes>>,
    /// Root need not be asked about keys of leases, even when its revision is old.
    spares_leases: bool,
}

impl Touches<'_> {
    fn add(&mut self, access: Access, range: &KeyRange) {
        let (key, end) = wire(range);
        self.found.push((access, key, end));
    }

    fn lease(&mut self, id: LeaseId, access: Access) {
        if self.spares_leases {
            return;
        }
        for key in self.attached.get(&id).into_iter().flatten() {
            self.found.push((access, key.clone(), Bytes::new()));
        }
    }

    fn ops(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Range(range) => self.add(Access::Read, &range.range),
                Op::Put(put) => self.command(&Command::Put(put.clone())),
                Op::DeleteRange(delete) => self.command(&Command::DeleteRange(delete.clone())),
                Op::Txn(txn) => self.command(&Command::Txn(txn.clone())),
                Op::BoundPut(put) => self.found.push((Access::Write, put.key.clone(), Bytes::new())),
                Op::Attach(attach) => {
                    self.found.push((Access::Write, attach.key.clone(), Bytes::new()));
                    self.lease(attach.lease, Access::Write);
                }
            }
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Put(put) => {
                self.found.push((Access::Write, put.key.clone(), Bytes::new()));
                if put.prev_kv {
                    self.found.push((Access::Read, put.key.clone(), Bytes::new()));
                }
                self.lease(put.lease, Access::Write);
            }
            Command::DeleteRange(delete) => {
                self.add(Access::Write, &delete.range);
                if delete.prev_kv {
                    self.add(Access::Read, &delete.range);
                }
            }
            Command::Txn(txn) => {
                for compare in &txn.compares {
                    self.add(Access::Read, &compare.range);
                }
                self.ops(&txn.success);
                self.ops(&txn.failure);
            }
            Command::Batch(batch) => {
                batch.txns.iter().for_each(|txn| self.command(&Command::Txn(txn.clone())));
            }
            Command::LeaseRevoke { ids, .. } => ids.iter().for_each(|id| self.lease(*id, Access::Write)),
            other => panic!("not among the requests: {other:?}"),
        }
    }
}

struct World {
    rng: StdRng,
    applier: Applier,
    index: u64,
    oracle: Oracle,
    denied: u64,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(seed: u64) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Env::open(dir.path(), 1 << 20).unwrap()).unwrap();
        let mut world = World {
            rng: StdRng::seed_from_u64(seed),
            applier: Applier::load(Arc::new(store)).unwrap(),
            index: 0,
            oracle: Oracle { revision: 1, ..Oracle::default() },
            denied: 0,
            _dir: dir,
        };
        for user in USERS {
            world.manage(Change::UserAdd { name: user.into(), password: vec![], no_password: true });
            world.oracle.users.insert(user, BTreeSet::new());
        }
        for role in &ROLES[1..] {
            world.manage(Change::RoleAdd { name: (*role).into() });
            world.oracle.roles.insert(role, Vec::new());
        }
        world.manage(Change::UserGrantRole { name: "root".into(), role: "root".into() });
        world.oracle.users.get_mut("root").unwrap().insert("root");
        world.apply(Origin::Server, Command::Auth(Change::Enable)).unwrap();
        for id in LEASES {
            world.apply(Origin::Server, Command::LeaseGrant { id, ttl_secs: 60 }).unwrap();
        }
        for _ in 0..12 {
            world.change_users();
        }
        world
    }

    fn apply(&mut self, origin: Origin, command: Command) -> super::command::Applied {
        self.index += 1;
        let position = LogPosition { term: 1, index: self.index };
        let entry = Entry::decode(Entry::new(origin, command, 1).bytes().clone()).unwrap();
        self.applier.apply(position, &entry).unwrap()
    }

    /// A change that must be carried out and count.
    fn manage(&mut self, change: Change) {
        self.apply(Origin::Server, Command::Auth(change)).unwrap();
        self.oracle.revision += 1;
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.rng).unwrap()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn bounds(&mut self) -> (Bytes, Bytes) {
        let key = Bytes::from_static(self.pick(&BOUNDS));
        let end = match self.rng.random_range(0..10) {
            0..4 => &b""[..],
            4 => b"\0",
            _ => self.pick(&BOUNDS),
        };
        (key, Bytes::from_static(end))
    }

    /// Grants or takes a role or a permission, in the applier and in the oracle.
    fn change_users(&mut self) {
        let (user, role) = (self.pick(&USERS[1..]), self.pick(&ROLES[1..]));
        match self.rng.random_range(0..10) {
            0..3 => {
                let roles = self.oracle.users.get_mut(user).unwrap();
                if roles.insert(role) {
                    self.manage(Change::UserGrantRole { name: user.into(), role: role.into() });
                }
            }
            3 => {
                if self.oracle.users.get_mut(user).unwrap().remove(role) {
                    self.manage(Change::UserRevokeRole { name: user.into(), role: role.into() });
                }
            }
            4 => {
                let Some(last) = self.oracle.roles.get_mut(role).unwrap().pop() else { return };
                let (key, range_end) = (last.key, last.range_end);
                self.manage(Change::RoleRevokePermission { name: role.into(), key, range_end });
            }
            _ => {
                let (key, range_end) = self.bounds();
                let kind =
                    self.pick(&[PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite]);
                let permission = Permission { kind, key, range_end };
                let change =
                    Change::RoleGrantPermission { name: role.into(), permission: permission.clone() };
                if self.apply(Origin::Server, Command::Auth(change)).is_ok() {
                    self.oracle.revision += 1;
                    let held = self.oracle.roles.get_mut(role).unwrap();
                    held.retain(|p| (&p.key, &p.range_end) != (&permission.key, &permission.range_end));
                    held.push(permission);
                }
            }
        }
    }

    fn range(&mut self) -> KeyRange {
        let (key, end) = self.bounds();
        KeyRange::from_wire(key, end)
    }

    fn query(&mut self) -> Range {
        Range {
            range: self.range(),
            limit: 0,
            revision: 0,
            sort: Sort::default(),
            keys_only: false,
            count_only: false,
            bounds: RevisionBounds::default(),
        }
    }

    fn put(&mut self) -> Put {
        let lease = if self.chance(40) { self.pick(&[1, 2, 3, 9]) } else { 0 };
        let key = Bytes::from_static(self.pick(&SAMPLES));
        Put { key, value: "v".into(), lease, prev_kv: self.chance(30), ..Put::default() }
    }

    fn bound_put(&mut self) -> BoundPut {
        let new = Binding::New { id: self.rng.random_range(100..200), ttl_secs: 5 };
        let binding = if self.chance(50) { Binding::Keep } else { new };
        BoundPut { key: Bytes::from_static(self.pick(&SAMPLES)), value: "v".into(), binding }
    }

    fn delete(&mut self) -> DeleteRange {
        DeleteRange { range: self.range(), prev_kv: self.chance(40) }
    }

    fn compare(&mut self) -> Compare {
        let operand = Operand::CreateRevision(self.rng.random_range(0..2));
        Compare { range: self.range(), relation: Relation::Equal, operand }
    }

    fn txn(&mut self, depth: u32) -> Txn {
        let compares = (0..self.rng.random_range(0..2)).map(|_| self.compare()).collect();
        Txn { compares, success: self.ops(depth), failure: self.ops(depth) }
    }

    fn ops(&mut self, depth: u32) -> Vec<Op> {
        let count = self.rng.random_range(0..3);
        let op = |_| match self.rng.random_range(0..if depth > 0 { 7 } else { 5 }) {
            0 => Op::Range(self.query()),
            1 => Op::Put(self.put()),
            2 => Op::DeleteRange(self.delete()),
            3 => Op::BoundPut(self.bound_put()),
            4 => {
                Op::Attach(Attach { key: Bytes::from_static(self.pick(&SAMPLES)), lease: self.pick(&LEASES) })
            }
            _ => Op::Txn(self.txn(depth - 1)),
        };
        (0..count).map(op).collect()
    }

    fn caller(&mut self) -> Option<Caller> {
        let user = self.pick(&["root", "ann", "ann", "bob", "bob", "cy", "cy", "who"]);
        let revision = match self.rng.random_range(0..20) {
            0 => self.oracle.revision - 1,
            1 => self.oracle.revision + 1,
            _ => self.oracle.revision,
        };
        let is_known = self.chance(97);
        is_known.then(|| Caller { user: user.into(), revision, is_pinned: true })
    }

    /// Keys of leases, read from the pairs themselves.
    fn attached(&self) -> BTreeMap<LeaseId, Vec<Bytes>> {
        let mut attached: BTreeMap<LeaseId, Vec<Bytes>> = BTreeMap::new();
        let snapshot = self.applier.store().snapshot(0).unwrap();
        let all = snapshot.scan(&KeyRange::all(), |key, image| {
            let key = Bytes::copy_from_slice(key);
            attached.entry(image.meta().attachment()).or_default().push(key);
            Ok(ControlFlow::Continue(()))
        });
        all.unwrap();
        attached.remove(&0);
        attached
    }

    fn is_root(&self, caller: Option<&Caller>) -> bool {
        caller.is_some_and(|caller| self.oracle.is_root(&caller.user))
    }

    fn one_case(&mut self) {
        let (caller, attached) = (self.caller(), self.attached());
        let spares_leases = self.is_root(caller.as_ref());
        let mut touches = Touches { found: Vec::new(), attached: &attached, spares_leases };
        match self.rng.random_range(0..10) {
            0..3 => {
                // A read or a watch.
                let range = self.range();
                touches.add(Access::Read, &range);
                let said = self.applier.auth().load().check(caller.as_ref(), Access::Read, &range);
                self.compare_verdicts(caller.as_ref(), &touches.found, said, &range);
            }
            3 => {
                // What is asked of leases without the log: their keys, or to renew them.
                let (id, access) = (self.pick(&LEASES), self.pick(&[Access::Read, Access::Write]));
                touches.lease(id, access);
                let keys = |id| self.applier.store().keys_of_lease(id);
                let state = self.applier.auth().load();
                let said = permit::leases(&state, caller.as_ref(), &[id], access, keys).unwrap();
                if caller.is_none() {
                    assert_eq!(said, Err(Error::UserEmpty));
                } else {
                    self.compare_verdicts(caller.as_ref(), &touches.found, said, &(id, access));
                }
            }
            kind => {
                let command = match kind {
                    4 => Command::Put(self.put()),
                    5 => Command::DeleteRange(self.delete()),
                    6 => Command::LeaseRevoke { ids: vec![self.pick(&LEASES)], expired: false },
                    7 => Command::Batch(Batch { slice: None, txns: vec![self.txn(1), self.txn(1)] }),
                    _ => Command::Txn(self.txn(3)),
                };
                touches.command(&command);
                let found = touches.found;
                self.run(caller, command, &found);
            }
        }
    }

    /// Carries a command out as the caller, and looks at what came of it.
    fn run(&mut self, caller: Option<Caller>, command: Command, touches: &[Touch]) {
        let is_revoke = matches!(command, Command::LeaseRevoke { .. });
        let applied = self.apply(Origin::Client(caller.clone()), command.clone());
        let effects = self.applier.take_effects();
        let said = match &applied {
            Err(Refusal::Auth(error)) => Err(*error),
            _ => Ok(()),
        };
        if is_revoke && caller.is_none() {
            assert_eq!(said, Err(Error::UserEmpty));
        } else {
            self.compare_verdicts(caller.as_ref(), touches, said, &command);
        }
        let user = caller.as_ref().map_or("", |caller| &caller.user);
        for event in effects.batches.iter().flat_map(|batch| &batch.events) {
            assert!(said.is_ok(), "{command:?} of {caller:?} was refused and changed something");
            let is_allowed = self.oracle.is_root(user) || self.oracle.names(user, Access::Write, &event.key);
            assert!(is_allowed, "{command:?} of {caller:?} changed {:?}", event.key);
        }
        for kv in applied.iter().flat_map(shown) {
            let is_allowed = self.oracle.is_root(user) || self.oracle.names(user, Access::Read, &kv.key);
            assert!(is_allowed, "{command:?} showed {caller:?} {:?}", kv.key);
        }
        if is_revoke && applied.is_ok() {
            let Command::LeaseRevoke { ids, .. } = command else { return };
            self.apply(Origin::Server, Command::LeaseGrant { id: ids[0], ttl_secs: 60 }).unwrap();
        }
    }

    fn compare_verdicts(
        &mut self,
        caller: Option<&Caller>,
        touches: &[Touch],
        said: Result<(), Error>,
        request: &dyn std::fmt::Debug,
    ) {
        let expected = self.oracle.judge(caller, touches);
        assert_eq!(
            said.map_err(drop),
            expected,
            "{request:?} of {caller:?}: got {said:?}; {:?} {:?}",
            self.oracle.users,
            self.oracle.roles
        );
        self.denied += u64::from(said.is_err());
    }
}

/// Every pair in an answer.
fn shown(outcome: &Outcome) -> Vec<&Kv> {
    match outcome {
        Outcome::Put { previous, .. } => previous.iter().collect(),
        Outcome::DeleteRange { previous, .. } => previous.iter().collect(),
        Outcome::Txn(txn) => shown_by_txn(txn),
        Outcome::Batch { outcomes, .. } => outcomes.iter().flatten().flat_map(shown_by_txn).collect(),
        Outcome::Authenticated { .. } | Outcome::Done { .. } => Vec::new(),
    }
}

fn shown_by_txn(txn: &TxnOutcome) -> Vec<&Kv> {
    fn by_op(op: &OpOutcome) -> Vec<&Kv> {
        match op {
            OpOutcome::Range { kvs, .. } => kvs.iter().collect(),
            OpOutcome::Put { previous, .. } => previous.iter().collect(),
            OpOutcome::DeleteRange { previous, .. } => previous.iter().collect(),
            OpOutcome::Txn(txn) => shown_by_txn(txn),
            OpOutcome::Attach { .. } => Vec::new(),
        }
    }
    txn.results.iter().flat_map(by_op).collect()
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
fn a_13_no_request_gets_past_the_permissions() {
    let seed = from_environment("KVIST_SEED").unwrap_or_else(rand::random);
    let cases = from_environment("KVIST_PERMISSION_CASES").unwrap_or(CASES);
    #[expect(clippy::print_stdout, reason = "how to repeat a failure; shown with it")]
    {
        println!("KVIST_SEED={seed} KVIST_PERMISSION_CASES={cases}");
    }
    let (mut done, mut denied) = (0, 0);
    for world in 0.. {
        let mut world = World::new(seed.wrapping_add(world));
        for _ in 0..CASES_PER_WORLD.min(cases - done) {
            if world.chance(10) {
                world.change_users();
            }
            world.one_case();
        }
        done += CASES_PER_WORLD.min(cases - done);
        denied += world.denied;
        if done >= cases {
            break;
        }
    }
    // The test must see both answers often, or it shows nothing.
    assert!(denied > cases / 10 && denied < cases * 9 / 10, "{denied} of {cases} were refused");
}
