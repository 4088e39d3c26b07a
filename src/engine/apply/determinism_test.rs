//! The same entries give the same answers, whatever the member does on the side.
//!
//! One applier only applies. The other flushes, removes compacted history, defragments, and is killed now and then: it
//! starts from its last flush and is given the entries after that again. Or a third one, which has fallen behind, gets its
//! state and goes on in its place. Outcomes, events, leases, alarms, users and hashes of both must be equal, those of
//! repeated entries too.

use super::{Applier, Candidate, Effects, LogPosition};
use crate::auth::{Caller, Change, Permission, PermissionKind};
use crate::engine::command::{
    AlarmKind, Applied, Attach, Batch, Binding, BoundPut, Command, Compare, DeleteRange,
    Member as ClusterMember, Op, Operand, Put, Range, Relation, RevisionBounds, Sort, Txn,
};
use crate::engine::entry::{Entry, Origin};
use crate::engine::versions::ClusterVersion;
use crate::mvcc::transfer_test::transfer;
use crate::mvcc::{Store, defrag};
use crate::storage::Env;
use crate::storage::codec::Image;
use crate::types::{KeyRange, Slice};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Apply(Origin, Command),
    Flush,
    Remove,
    Defragment,
    Kill,
    Transfer,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        9 => "[a-e]".prop_map(Bytes::from),
        1 => "[xy]".prop_map(|tail| Bytes::from("m".repeat(1900) + &tail)),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop_oneof![4 => Just(Bytes::new()), 1 => Just(Bytes::from_static(&[0])), 2 => key()])
        .prop_map(|(start, end)| KeyRange::from_wire(start, end))
}

fn put() -> impl Strategy<Value = Put> {
    let value = prop_oneof![9 => "[a-z]{0,9}".prop_map(Bytes::from), 1 => (1000usize..5000).prop_map(|n| vec![7; n].into())];
    let lease = prop_oneof![2 => Just(0), 1 => 1i64..5];
    (key(), value, lease, any::<bool>(), 0..9u8).prop_map(|(key, value, lease, prev_kv, keep)| {
        let mut put = Put { key, value, lease, prev_kv, ignore_value: keep == 1, ignore_lease: keep == 2 };
        if put.ignore_value {
            put.value.clear();
        }
        if put.ignore_lease {
            put.lease = 0;
        }
        put
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop::sample::select(vec![
        Relation::Equal,
        Relation::Greater,
        Relation::Less,
        Relation::NotEqual,
        Relation::Any,
    ]);
    let operand = prop_oneof![
        (0i64..3).prop_map(Operand::Version),
        (0i64..40).prop_map(Operand::CreateRevision),
        (0i64..40).prop_map(Operand::ModRevision),
        "[a-z]".prop_map(|v| Operand::Value(v.into())),
        (0i64..5).prop_map(Operand::Lease),
    ];
    (range(), relation, operand).prop_map(|(range, relation, operand)| Compare { range, relation, operand })
}

/// A transaction that puts and deletes as it likes, except that what keeps a value or lease comes before any delete.
fn txn() -> impl Strategy<Value = Txn> {
    let read = |(range, revision, limit)| Range {
        range,
        limit,
        revision,
        sort: Sort::default(),
        keys_only: false,
        count_only: false,
        bounds: RevisionBounds::default(),
    };
    let plain = |mut put: Put| {
        (put.ignore_value, put.ignore_lease) = (false, false);
        Op::Put(put)
    };
    let op = prop_oneof![
        3 => put().prop_map(plain),
        2 => (range(), any::<bool>()).prop_map(|(range, prev_kv)| Op::DeleteRange(DeleteRange { range, prev_kv })),
        2 => (range(), prop_oneof![3 => Just(0i64), 1 => 1i64..40], 0i64..3).prop_map(read).prop_map(Op::Range),
        1 => (key(), 1i64..5).prop_map(|(key, lease)| Op::Attach(Attach { key, lease })),
        2 => (key(), prop::option::of((5i64..9, 1i64..90))).prop_map(|(key, new)| {
            let binding = new.map_or(Binding::Keep, |(id, ttl_secs)| Binding::New { id, ttl_secs });
            Op::BoundPut(BoundPut { key, value: "v".into(), binding })
        }),
    ];
    let level = |op: BoxedStrategy<Op>| {
        let ops = prop::collection::vec(op, 0..4);
        (prop::collection::vec(compare(), 0..3), prop::option::of(put()), ops.clone(), ops).prop_map(
            |(compares, first, mut success, failure)| {
                success.splice(0..0, first.map(Op::Put));
                Txn { compares, success, failure }
            },
        )
    };
    let nested = level(op.clone().boxed()).prop_map(|mut txn| {
        txn.success.retain(|op| !matches!(op, Op::Put(put) if put.ignore_value || put.ignore_lease));
        Op::Txn(txn)
    });
    level(prop_oneof![4 => op, 1 => nested].boxed())
}

fn command() -> impl Strategy<Value = Command> {
    let alarm = (any::<bool>(), 1..3u64, prop::sample::select(vec![AlarmKind::NoSpace, AlarmKind::Corrupt]));
    prop_oneof![
        20 => put().prop_map(Command::Put),
        6 => (range(), any::<bool>()).prop_map(|(range, prev_kv)| Command::DeleteRange(DeleteRange { range, prev_kv })),
        12 => txn().prop_map(Command::Txn),
        4 => (prop::collection::vec(txn(), 0..4), prop::option::of(0u32..3)).prop_map(|(txns, slice)| {
            Command::Batch(Batch { slice: slice.map(|index| Slice::of(index, 3)), txns })
        }),
        6 => (1i64..5, 2i64..90).prop_map(|(id, ttl_secs)| Command::LeaseGrant { id, ttl_secs }),
        3 => (prop::collection::vec(1i64..5, 1..3), any::<bool>())
            .prop_map(|(ids, expired)| Command::LeaseRevoke { ids, expired }),
        2 => prop::collection::vec((1i64..5, 0i64..90), 1..3).prop_map(Command::LeaseCheckpoint),
        2 => (any::<u32>(), prop::collection::vec((1i64..5, any::<Option<u64>>()), 0..3)).prop_map(|(now_ms, since_ms)| {
            Command::LeaseRecord { now_ms: now_ms.into(), since_ms }
        }),
        3 => (0i64..60).prop_map(|revision| Command::Compact { revision }),
        8 => change().prop_map(Command::Auth),
        1 => alarm.prop_map(|(activate, member, alarm)| Command::Alarm { activate, member, alarm }),
        // Alarms are cleared more often than raised, lest nothing else happens.
        1 => any::<bool>().prop_map(|on| Command::Downgrade { target: on.then_some(ClusterVersion { major: 3, minor: 6 }) }),
        1 => (5u32..8).prop_map(|minor| Command::SetClusterVersion(ClusterVersion { major: 3, minor })),
        1 => (1..3u64).prop_map(|member| Command::Alarm { activate: false, member, alarm: AlarmKind::Corrupt }),
        1 => (1..3u64).prop_map(|member| Command::Alarm { activate: false, member, alarm: AlarmKind::NoSpace }),
        4 => change_of_members(),
    ]
}

fn change_of_members() -> impl Strategy<Value = Command> {
    let member = (1..6u64, "[m-o]?", "[u-x]", any::<bool>()).prop_map(|(id, name, url, is_learner)| {
        ClusterMember { id, name, peer_urls: vec![url], client_urls: Vec::new(), is_learner }
    });
    prop_oneof![
        2 => member.clone().prop_map(Command::PublishMember),
        4 => member.clone().prop_map(Command::AddMember),
        1 => (1..6u64).prop_map(|id| Command::RemoveMember { id }),
        1 => (1..6u64).prop_map(|id| Command::PromoteMember { id }),
        1 => member.prop_map(|m| Command::UpdateMember { id: m.id, peer_urls: m.peer_urls }),
    ]
}

/// Changes of users, among them some that turn auth on and off.
fn change() -> impl Strategy<Value = Change> {
    let user = || prop::sample::select(vec!["root", "ann"]).prop_map(str::to_owned);
    let role = || prop::sample::select(vec!["root", "r"]).prop_map(str::to_owned);
    let kind =
        prop::sample::select(vec![PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite]);
    let permission =
        (kind, key(), key()).prop_map(|(kind, key, range_end)| Permission { kind, key, range_end });
    prop_oneof![
        2 => Just(Change::Enable),
        2 => Just(Change::Disable),
        1 => (user(), 0u64..9).prop_map(|(user, revision)| {
            Change::Authenticate { user, revision, token_prefix: "p".into() }
        }),
        2 => (user(), any::<bool>()).prop_map(|(name, no_password)| {
            Change::UserAdd { name, password: vec![1], no_password }
        }),
        1 => user().prop_map(|name| Change::UserDelete { name }),
        1 => user().prop_map(|name| Change::UserChangePassword { name, password: vec![2] }),
        4 => (user(), role()).prop_map(|(name, role)| Change::UserGrantRole { name, role }),
        1 => (user(), role()).prop_map(|(name, role)| Change::UserRevokeRole { name, role }),
        2 => role().prop_map(|name| Change::RoleAdd { name }),
        1 => role().prop_map(|name| Change::RoleDelete { name }),
        4 => (role(), permission).prop_map(|(name, permission)| Change::RoleGrantPermission { name, permission }),
        1 => (role(), key(), key()).prop_map(|(name, key, range_end)| {
            Change::RoleRevokePermission { name, key, range_end }
        }),
    ]
}

fn origin() -> impl Strategy<Value = Origin> {
    let caller = (prop::sample::select(vec!["root", "ann"]), 0u64..12).prop_map(|(user, revision)| {
        Origin::Client(Some(Caller { user: user.into(), revision, is_pinned: true }))
    });
    prop_oneof![3 => Just(Origin::Server), 1 => Just(Origin::Client(None)), 2 => caller]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (origin(), command()).prop_map(|(origin, command)| Step::Apply(origin, command)),
        4 => Just(Step::Flush),
        3 => Just(Step::Remove),
        1 => Just(Step::Defragment),
        1 => Just(Step::Kill),
        1 => Just(Step::Transfer),
    ]
}

struct Member {
    applier: Option<Applier>,
    dir: tempfile::TempDir,
}

impl Member {
    fn new() -> Member {
        let dir = tempfile::tempdir().unwrap();
        Member { applier: Some(load(dir.path())), dir }
    }

    fn applier(&mut self) -> &mut Applier {
        self.applier.as_mut().expect("only `kill` takes it, and puts it back")
    }

    /// What the entry did, in a form that two members can be compared by.
    fn apply(&mut self, index: u64, entry: &Entry) -> (Applied, String) {
        let applier = self.applier();
        let applied = applier.apply(LogPosition { term: 1, index }, entry).unwrap();
        let effects = applier.take_effects();
        (applied, describe(&applier.store, &effects))
    }

    fn flush(&mut self) {
        if let Some((frozen, _)) = self.applier().freeze() {
            self.applier().store.flush(&frozen).unwrap();
        }
    }

    fn kill(&mut self) {
        drop(self.applier.take());
        self.applier = Some(load(self.dir.path()));
    }

    /// Goes on from the state of the last flush of `other`.
    fn install(&mut self, other: &mut Member) {
        let base = self.dir.path().to_owned();
        let received = transfer(&other.applier().store, &base);
        let ours = self.applier();
        let auth = Arc::clone(ours.auth());
        let (before, sent) = (ours.applied(), other.applier().frozen);
        let candidate = Candidate::read(&ours.store, received).unwrap();
        ours.install(candidate, &base).unwrap();
        assert!(Arc::ptr_eq(ours.auth(), &auth), "others hold it as well");
        let effects = ours.take_effects();
        if before < sent {
            assert_eq!((ours.installed(), ours.applied()), (sent, sent));
            assert_eq!(effects.installed, Some((ours.leases().clone(), ours.lease_clock())));
        } else {
            assert!(effects.installed.is_none(), "nothing has come");
        }
    }

    /// Index of the last entry it has.
    fn applied(&mut self) -> u64 {
        self.applier().applied().map_or(0, |position| position.index)
    }

    fn state(&mut self) -> String {
        let applier = self.applier();
        let keys: Vec<_> = (1..9).map(|id| applier.store.keys_of_lease(id).unwrap()).collect();
        let hash = applier.store.hash(0).unwrap();
        let auth = applier.auth().load();
        let (users, roles): (Vec<_>, Vec<_>) = (auth.users().collect(), auth.roles().collect());
        let auth = (auth.is_enabled(), auth.revision(), users, roles);
        let versions = applier.versions();
        let members = (applier.members(), applier.removed());
        let alarms = applier.alarms();
        format!(
            "{:?} {:?} {alarms:?} {versions:?} {keys:?} {hash:?} {auth:?} {members:?}",
            applier.leases(),
            applier.lease_clock()
        )
    }
}

fn load(dir: &std::path::Path) -> Applier {
    let env = Env::open(&defrag::current_dir(dir).unwrap(), 1 << 30).unwrap();
    Applier::load(Arc::new(Store::open(env).unwrap())).unwrap()
}

/// Two differences are allowed: a long value may be in its blob already, and a tombstone that went with a compaction
/// is no image before the put that follows.
fn describe(store: &Store, effects: &Effects) -> String {
    let mut text = format!("{:?} {:?} {:?}", effects.leases, effects.tokens, effects.removed_members);
    for event in effects.batches.iter().flat_map(|batch| &batch.events) {
        let mut previous = event.previous.clone();
        if !previous.is_empty() {
            previous = store.with_inline_value(&previous).unwrap();
            if Image::parse(&previous).unwrap().is_tombstone() {
                previous.clear();
            }
        }
        text += &format!(" {:?} {:?} {previous:?}", event.key, event.new);
    }
    text
}

/// An entry, and what it did.
type Logged = (Entry, (Applied, String));

fn run(steps: Vec<Step>) {
    let (mut still, mut busy, mut behind) = (Member::new(), Member::new(), Member::new());
    let mut log: Vec<Logged> = Vec::new();
    for step in steps {
        match step {
            Step::Apply(origin, command) => {
                let index = log.len() as u64 + 1;
                // The clocks of members differ.
                let time_ms = 1000 + index * 7 % 100;
                let entry = Entry::decode(Entry::new(origin, command, time_ms).bytes().clone()).unwrap();
                let expected = still.apply(index, &entry);
                assert_eq!(busy.apply(index, &entry), expected);
                log.push((entry, expected));
            }
            Step::Flush => busy.flush(),
            Step::Remove => busy.applier().store.remove_compacted(2).unwrap(),
            Step::Defragment => {
                let dir = busy.dir.path().to_owned();
                busy.applier().store.defragment(&dir, 1 << 30).unwrap();
            }
            Step::Kill => {
                busy.kill();
                replay(&mut busy, &log);
            }
            Step::Transfer => {
                busy.flush();
                if busy.applier().frozen.is_some() {
                    behind.install(&mut busy);
                    std::mem::swap(&mut busy, &mut behind);
                    replay(&mut busy, &log);
                }
            }
        }
    }
    assert_eq!(busy.state(), still.state());
    busy.flush();
    busy.kill();
    replay(&mut busy, &log);
    assert_eq!(busy.state(), still.state());
}

/// Gives a member that was started again the entries that it has lost.
fn replay(member: &mut Member, log: &[Logged]) {
    let flushed = member.applied() as usize;
    for (index, (entry, expected)) in log.iter().enumerate().skip(flushed) {
        assert_eq!(&member.apply(index as u64 + 1, entry), expected, "when entry {} came again", index + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn two_members_give_the_same_answers(steps in prop::collection::vec(step(), 1..80)) {
        run(steps);
    }
}
