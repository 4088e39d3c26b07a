'use strict';
// Large requests and answers, deadlines and cancellation, and maintenance.

const { execFileSync } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { noop } = require('cockatiel');
const {
  ClientClosedError, GRPCCancelledError, GRPCDeadlineExceededError, GRPCInvalidArgumentError, GRPCResourceExhastedError,
  GRPCUnavailableError,
} = require('etcd3');
const { cleanup, connect, eq, fails, fresh, next, ok, startServer, test, waitUntil } = require('./cases');

// No retries: each error comes through as it is.
const BARE = { faultHandling: { host: () => noop, global: noop } };

test('large/a value of a mebibyte', async () => {
  const client = await connect();
  const key = fresh() + 'key';
  const value = crypto.randomBytes(1 << 20);
  const watcher = await client.watch().key(key).create();
  const seen = next(watcher, 'put');
  await client.put(key).value(value);
  ok((await client.get(key).buffer()).equals(value), 'another value came back');
  ok((await seen)[0].value.equals(value), 'another value was watched');
  await watcher.cancel();
});

test('large/a request above the limit', async () => {
  const client = await connect(undefined, BARE);
  const key = fresh() + 'key';
  const above = client.put(key).value(Buffer.alloc(1600 << 10));
  await fails(above.exec(), GRPCInvalidArgumentError, 'etcdserver: request is too large');
  await fails(client.put(key).value(Buffer.alloc(8 << 20)).exec(), GRPCResourceExhastedError);
  eq(await client.get(key), null, 'nothing was written');
});

test('large/ten thousand keys in one answer', async () => {
  const client = await connect();
  const space = client.namespace(fresh());
  const name = n => String(n).padStart(5, '0');
  for (let start = 0; start < 10_000; start += 100) {
    const puts = Array.from({ length: 100 }, (_, n) => space.put(name(start + n)).value(`value ${start + n}`));
    await space.if('none', 'Version', '==', 0).then(...puts).commit();
  }
  const { kvs, count } = await space.getAll().exec();
  eq([kvs.length, count], [10_000, '10000'], 'sizes');
  ok(kvs.every((kv, n) => kv.key.toString() === name(n) && kv.value.toString() === `value ${n}`), 'other pairs came back');
  eq((await space.delete().all()).deleted, '10000', 'deleted');
});

test("large/an answer above the client's limit, and with a larger one", async () => {
  const client = await connect(undefined, BARE);
  const prefix = fresh();
  for (let n = 0; n < 6; n++) await client.put(prefix + n).value(Buffer.alloc(1 << 20, n));
  await fails(client.getAll().prefix(prefix).exec(), GRPCResourceExhastedError);
  const wide = await connect(undefined, { grpcOptions: { 'grpc.max_receive_message_length': 64 << 20 } });
  const { kvs } = await wide.getAll().prefix(prefix).exec();
  eq(kvs.map(kv => [kv.value.length, kv.value[0], kv.value[kv.value.length - 1]]), [0, 1, 2, 3, 4, 5].map(n => [1 << 20, n, n]));
  await client.delete().prefix(prefix);
});

test('cancel/a deadline passes while the server stands still', async () => {
  const server = await startServer();
  const client = await connect(server, BARE);
  await client.put('key').value('one');
  const soon = () => ({ deadline: Date.now() + 300 });
  await server.pause();
  await fails(client.get('key').options(soon()).exec(), GRPCDeadlineExceededError);
  await fails(client.put('key').value('two').options(soon()).exec(), GRPCDeadlineExceededError);
  await fails(client.maintenance.status(soon()), GRPCDeadlineExceededError);
  await server.resume();
  // The put may still have been done: the server had it, and only the client has given up.
  await waitUntil(() => client.get('key').options({ deadline: Date.now() + 5000 }).exec().catch(() => null), 'an answer');
  const strict = await connect(server, { ...BARE, defaultCallOptions: () => ({ deadline: Date.now() + 3000 }) });
  eq((await strict.put('key').value('three')).header.revision, (await client.get('key').exec()).header.revision, 'in time');
  await server.pause();
  await fails(strict.get('key').exec(), GRPCDeadlineExceededError);
  await server.resume();
});

test('cancel/no server there, and back again', async () => {
  const server = await startServer();
  const client = await connect(server, {
    ...BARE,
    grpcOptions: { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 100 },
  });
  await client.put('key').value('x');
  await server.kill();
  await fails(client.get('key').exec(), GRPCUnavailableError);
  await server.start();
  eq(await waitUntil(() => client.get('key').exec().catch(() => null), 'the connection').then(r => r.count), '1', 'count');
});

test('cancel/calls of a closed client', async () => {
  const server = await startServer();
  const client = await connect(server, BARE);
  await client.put('key').value('x');
  await server.pause();
  const underWay = client.get('key').exec();
  const closed = fails(underWay, GRPCCancelledError).catch(e => e);
  client.close();
  await fails(client.get('key').exec(), ClientClosedError);
  await server.resume();
  // What is under way when a client closes still gets its answer, or is cancelled; it does not hang.
  await closed;
});

test('cancel/a cancelled watcher ends, others go on', async () => {
  const client = await connect();
  const key = fresh() + 'key';
  const [one, two] = [await client.watch().key(key).create(), await client.watch().key(key).create()];
  const seen = [];
  one.on('put', () => seen.push('cancelled'));
  const ended = next(one, 'end');
  await one.cancel();
  await ended;
  const other = next(two, 'put');
  await client.put(key).value('x');
  eq((await other)[0].value.toString(), 'x', 'the other watcher');
  eq(seen, [], 'the cancelled one');
  await two.cancel();
  // The stream is gone with its last watcher; a new one makes another.
  const again = await client.watch().key(key).create();
  const later = next(again, 'put');
  await client.put(key).value('y');
  eq((await later)[0].value.toString(), 'y', 'a new watcher');
  await again.cancel();
});

test('maintenance/status and members', async () => {
  const server = await startServer();
  const client = await connect(server);
  await client.put('key').value('x');
  const status = await client.maintenance.status();
  eq(status.version, '3.7.1', 'version');
  ok(status.dbSize > 0 && status.raftIndex > 0 && status.raftTerm > 0, 'a number is missing');
  const { members, header } = await client.cluster.memberList({});
  eq([members.length, members[0].ID, members[0].ID], [1, status.leader, header.member_id], 'leader and member');
  eq([members[0].clientURLs, members[0].peerURLs], [[server.endpoint], [server.peer_endpoint]], 'URLs');
});

test('maintenance/hashes, compaction and defragmentation', async () => {
  const client = await connect(await startServer());
  for (let n = 0; n < 100; n++) await client.put('key').value(n);
  // hashKV() of this client asks for a call that does not exist.
  const { hash } = await client.maintenance.hash();
  ok(hash > 0, 'no hash');
  await client.put('key').value('changed');
  ok((await client.maintenance.hash()).hash !== hash, 'the same hash after a change');
  await client.kv.compact({ revision: 102, physical: true });
  await client.maintenance.defragment();
  const { value, version } = (await client.get('key').exec()).kvs[0];
  eq([value.toString(), version], ['changed', '101'], 'afterwards');
});

test('maintenance/alarms', async () => {
  const client = await connect(await startServer(), BARE);
  await client.put('key').value('x');
  const list = async () => (await client.maintenance.alarm({ action: 'Get', alarm: 'None' })).alarms;
  eq(await list(), [], 'at first');
  const { member_id } = (await client.maintenance.status()).header;
  await client.maintenance.alarm({ action: 'Activate', memberID: member_id, alarm: 'Nospace' });
  eq((await list()).map(({ memberID, alarm }) => [memberID, alarm]), [[member_id, 'Nospace']], 'listed');
  const full = 'etcdserver: mvcc: database space exceeded';
  await fails(client.put('key').value('y').exec(), GRPCResourceExhastedError, full);
  eq(await client.get('key'), 'x', 'reads go on');
  await client.maintenance.alarm({ action: 'Deactivate', memberID: member_id, alarm: 'Nospace' });
  await client.put('key').value('y');
});

test('maintenance/a snapshot that etcdutl takes for good', async () => {
  const client = await connect(await startServer());
  for (let n = 0; n < 50; n++) await client.put(`key${n}`).value(Buffer.alloc(1000));
  const stream = await client.maintenance.snapshot();
  const blobs = [];
  await new Promise((resolve, reject) => {
    stream.on('data', part => blobs.push(part.blob)).on('end', resolve).on('error', reject);
  });
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kvist-node-'));
  cleanup(() => fs.rmSync(directory, { recursive: true }));
  const file = path.join(directory, 'snapshot.db');
  fs.writeFileSync(file, Buffer.concat(blobs));
  const etcdutl = path.join(process.env.KVIST_TOOLS, 'etcdutl');
  const told = JSON.parse(execFileSync(etcdutl, ['snapshot', 'status', file, '-w', 'json'], { encoding: 'utf8' }));
  eq([told.revision, told.totalKey >= 50], [51, true], 'revision and keys');
  execFileSync(etcdutl, ['snapshot', 'restore', file, '--data-dir', path.join(directory, 'restored')], { stdio: 'pipe' });
  ok(fs.existsSync(path.join(directory, 'restored/member/snap/db')), 'no database after the restore');
});
