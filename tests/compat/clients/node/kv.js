'use strict';
// KV by builders, in namespaces, and what the server refuses.

const { EtcdLeaseInvalidError, GRPCInvalidArgumentError, GRPCOutOfRangeError } = require('etcd3');
const { connect, eq, fails, fresh, startServer, test } = require('./cases');

const text = kvs => kvs.map(kv => [kv.key.toString(), kv.value.toString()]);

test('kv/put and get in every form of a value', async () => {
  const client = await connect();
  const key = fresh() + 'key';
  eq(await client.get(key), null, 'a missing key');
  eq(await client.get(key).exists(), false, 'a missing key exists');
  eq(await client.get(key).number(), null, 'number of a missing key');
  const first = await client.put(key).value('{"a": 1}');
  const second = await client.put(key).value(42);
  eq(Number(second.header.revision), Number(first.header.revision) + 1, 'revision of the second put');
  eq(await client.get(key), '42', 'string');
  eq(await client.get(key).number(), 42, 'number');
  eq(await client.get(key).buffer(), Buffer.from('42'), 'buffer');
  eq(await client.get(key).exists(), true, 'exists');
  eq(await client.get(key).revision(first.header.revision).json(), { a: 1 }, 'JSON of an old revision');
  eq(await client.get(key).serializable(true), '42', 'serializable');
  const answer = await client.get(key).exec();
  eq([answer.count, answer.more, answer.header.revision], ['1', false, second.header.revision], 'answer');
  const { create_revision, mod_revision, version, lease } = answer.kvs[0];
  eq([create_revision, mod_revision], [first.header.revision, second.header.revision], 'revisions');
  eq([version, lease], ['2', '0'], 'version and lease');
});

test('kv/any bytes in keys and values', async () => {
  const client = await connect();
  const prefix = Buffer.from(fresh());
  const key = Buffer.concat([prefix, Buffer.from([0, 255, 128, 10])]);
  const value = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
  await client.put(key).value(value);
  await client.put(Buffer.concat([prefix, Buffer.from('empty')])).value('');
  eq(await client.get(key).buffer(), value);
  const all = await client.getAll().prefix(prefix).exec();
  eq(all.kvs.map(kv => [kv.key.subarray(prefix.length), kv.value.length]), [
    [Buffer.from([0, 255, 128, 10]), 256],
    [Buffer.from('empty'), 0],
  ], 'pairs');
});

test('kv/prefixes, ranges, limits and counts', async () => {
  const client = await connect();
  const prefix = fresh();
  for (const name of ['a', 'b', 'c', 'd']) await client.put(prefix + name).value(name.toUpperCase());
  const all = () => client.getAll().prefix(prefix);
  eq(await all().strings(), { [prefix + 'a']: 'A', [prefix + 'b']: 'B', [prefix + 'c']: 'C', [prefix + 'd']: 'D' }, 'all');
  eq(await all().keys(), ['a', 'b', 'c', 'd'].map(name => prefix + name), 'keys');
  eq(await all().count(), 4, 'count');
  const some = await client.getAll().inRange({ start: prefix + 'b', end: prefix + 'd' }).exec();
  eq(text(some.kvs), [[prefix + 'b', 'B'], [prefix + 'c', 'C']], 'a range without its end');
  const page = await all().limit(3).exec();
  eq([page.kvs.length, page.more, page.count], [3, true, '4'], 'limited');
  const last = await all().limit(4).exec();
  eq([last.kvs.length, last.more], [4, false], 'limited by its size');
  const from = await client.getAll().inRange({ start: prefix + 'c', end: '\0' }).limit(2).keys();
  eq(from, [prefix + 'c', prefix + 'd'], 'from a key on');
  eq(await client.getAll().prefix(prefix + 'none').exec().then(r => [r.kvs, r.count]), [[], '0'], 'none');
});

test('kv/every order and bounds on revisions', async () => {
  const client = await connect();
  const prefix = fresh();
  const revisions = [];
  // By key: a b c; by creation: b a c; by change: c b a; by value: c a b; by version: c, then b, then a.
  for (const [key, value] of ['bx', 'ay', 'c1', 'bz', 'ay', 'ay']) {
    revisions.push((await client.put(prefix + key).value(value)).header.revision);
  }
  const names = async builder => (await builder.keys()).map(key => key.slice(prefix.length)).join('');
  const all = () => client.getAll().prefix(prefix);
  for (const [target, order] of Object.entries({ Key: 'abc', Create: 'bac', Mod: 'cba', Version: 'cba' })) {
    eq(await names(all().sort(target, 'Ascend')), order, `by ${target}`);
    eq(await names(all().sort(target, 'Descend')), [...order].reverse().join(''), `down by ${target}`);
  }
  // Values are compared, so they must be read.
  const byValue = await all().sort('Value', 'Ascend').exec();
  eq(byValue.kvs.map(kv => kv.value.toString()), ['1', 'y', 'z'], 'by value');
  eq(await names(all().sort('Mod', 'Descend').limit(1)), 'a', 'the last changed one');
  eq(await names(all().minModRevision(revisions[3])), 'ab', 'changed from a revision on');
  eq(await names(all().maxModRevision(revisions[3])), 'bc', 'changed up to a revision');
  eq(await names(all().minCreateRevision(revisions[1])), 'ac', 'created from a revision on');
  eq(await names(all().maxCreateRevision(revisions[1])), 'ab', 'created up to a revision');
});

test('kv/put with the previous pair, touch and ignoreLease', async () => {
  const client = await connect();
  const key = fresh() + 'key';
  const lease = client.lease(60, { autoKeepAlive: false });
  await lease.put(key).value('one');
  const previous = await client.put(key).value('two').ignoreLease().getPrevious();
  eq([previous.key.toString(), previous.value.toString(), previous.version], [key, 'one', '1'], 'previous pair');
  const leaseId = await lease.grant();
  eq((await client.get(key).exec()).kvs[0].lease, leaseId, 'the lease after ignoreLease');
  await client.put(key).touch();
  const { value, version, lease: after } = (await client.get(key).exec()).kvs[0];
  eq([value.toString(), version, after], ['two', '3', '0'], 'after touch');
  await fails(client.put(key + 'none').touch(), GRPCInvalidArgumentError, 'etcdserver: key not found');
  await lease.revoke();
});

test('kv/delete in all forms', async () => {
  const client = await connect();
  const prefix = fresh();
  for (const name of ['a', 'b/1', 'b/2', 'c', 'd', 'e']) await client.put(prefix + name).value(name);
  eq((await client.delete().key(prefix + 'missing')).deleted, '0', 'a missing key');
  const before = Number((await client.get(prefix + 'a').exec()).header.revision);
  const gone = await client.delete().key(prefix + 'a');
  eq([gone.deleted, Number(gone.header.revision)], ['1', before + 1], 'count and revision');
  eq(text(await client.delete().prefix(prefix + 'b/').getPrevious()), [
    [prefix + 'b/1', 'b/1'],
    [prefix + 'b/2', 'b/2'],
  ], 'what was deleted');
  eq((await client.delete().inRange({ start: prefix + 'c', end: prefix + 'e' })).deleted, '2', 'a range');
  eq(await client.getAll().prefix(prefix).keys(), [prefix + 'e'], 'what is left');
});

test('kv/namespaces, one in another', async () => {
  const client = await connect();
  const prefix = fresh();
  const outer = client.namespace(prefix);
  const inner = outer.namespace('in/');
  await outer.put('key').value('outer');
  await inner.put('key').value('inner');
  await client.put(prefix.slice(0, -1) + '0').value('beyond');
  eq(await client.get(prefix + 'in/key'), 'inner', 'from outside');
  eq(await outer.getAll().strings(), { 'key': 'outer', 'in/key': 'inner' }, 'all of the outer one');
  eq(await inner.getAll().keys(), ['key'], 'all of the inner one');
  const answer = await inner.if('key', 'Value', '==', 'inner').then(inner.put('key').value('changed')).commit();
  eq(answer.succeeded, true, 'transaction');
  eq((await inner.delete().all()).deleted, '1', 'delete of all');
  eq(await outer.getAll().keys(), ['key'], 'what is left');
  eq(await client.get(prefix.slice(0, -1) + '0'), 'beyond', 'its neighbour');
});

test('kv/what is refused', async () => {
  const client = await connect();
  await fails(client.put('').value('x').exec(), GRPCInvalidArgumentError, 'etcdserver: key is not provided');
  await fails(client.get('').exec(), GRPCInvalidArgumentError, 'etcdserver: key is not provided');
  await fails(client.delete().key('').exec(), GRPCInvalidArgumentError, 'etcdserver: key is not provided');
  await fails(client.put(fresh() + 'key').value('x').lease('4242').exec(), EtcdLeaseInvalidError);
});

test('kv/compaction, and reads before it and after the present', async () => {
  const client = await connect(await startServer());
  const revisions = [];
  for (let n = 0; n < 5; n++) revisions.push(Number((await client.put('key').value(n)).header.revision));
  eq(revisions, [2, 3, 4, 5, 6], 'the first revisions of a server');
  await client.kv.compact({ revision: 4, physical: true });
  eq(await client.get('key').revision(4), '2', 'at the compaction');
  const compacted = 'etcdserver: mvcc: required revision has been compacted';
  const future = 'etcdserver: mvcc: required revision is a future revision';
  await fails(client.get('key').revision(3).exec(), GRPCOutOfRangeError, compacted);
  await fails(client.get('key').revision(7).exec(), GRPCOutOfRangeError, future);
  await fails(client.kv.compact({ revision: 4 }), GRPCOutOfRangeError, compacted);
  await fails(client.kv.compact({ revision: 7 }), GRPCOutOfRangeError, future);
  eq(await client.get('key'), '4', 'the present');
});
