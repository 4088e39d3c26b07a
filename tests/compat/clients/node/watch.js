'use strict';
// Watches by builders, and how the client takes them up again by itself.

const { ConstantBackoff } = require('cockatiel');
const { EtcdError } = require('etcd3');
const { cleanup, connect, eq, fresh, next, ok, startServer, test, waitUntil } = require('./cases');

// A broken connection comes back after this many milliseconds, not after seconds.
const QUICK = {
  faultHandling: { watchBackoff: new ConstantBackoff(50) },
  grpcOptions: { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 100 },
};

// Collects what a watcher tells: ['put', key, value, revision] and ['delete', key, previous value, revision].
function collect(watcher) {
  const seen = [];
  watcher.on('put', kv => seen.push(['put', kv.key.toString(), kv.value.toString(), Number(kv.mod_revision)]));
  watcher.on('delete', (kv, previous) =>
    seen.push(['delete', kv.key.toString(), previous ? previous.value.toString() : '', Number(kv.mod_revision)]),
  );
  return seen;
}

const arrived = (seen, count) => waitUntil(() => seen.length >= count, `${count} events`);
const revisionOf = answer => Number(answer.header.revision);

test('watch/from now on, until cancelled', async () => {
  const client = await connect();
  const key = fresh() + 'key';
  await client.put(key).value('before');
  const watcher = await client.watch().key(key).create();
  const seen = collect(watcher);
  const first = revisionOf(await client.put(key).value('one'));
  await client.put(key + '/other').value('not watched');
  await client.delete().key(key);
  await arrived(seen, 2);
  const ended = next(watcher, 'end');
  await watcher.cancel();
  await ended;
  await client.put(key).value('after the cancel');
  // Whatever the server still had for the cancelled watcher came before the first event of this one.
  const probe = await client.watch().key(key).startRevision(String(first + 3)).create();
  await arrived(collect(probe), 1).catch(() => undefined);
  eq(seen, [['put', key, 'one', first], ['delete', key, '', first + 2]], 'events');
  await probe.cancel();
});

test('watch/replay from a revision, whole transactions at a time', async () => {
  const client = await connect();
  const prefix = fresh();
  const first = revisionOf(await client.put(prefix + 'a').value('1'));
  const [b, c] = [client.put(prefix + 'b').value('2'), client.put(prefix + 'c').value('3')];
  await client.if(prefix + 'a', 'Version', '==', 1).then(b, c, client.delete().key(prefix + 'a')).commit();
  await client.put(prefix + 'a').value('4');
  const watcher = await client.watch().prefix(prefix).startRevision(String(first + 1)).create();
  const seen = collect(watcher);
  const sizes = [];
  watcher.on('data', response => response.events.length && sizes.push(response.events.length));
  await arrived(seen, 4);
  eq(seen, [
    ['put', prefix + 'b', '2', first + 1],
    ['put', prefix + 'c', '3', first + 1],
    ['delete', prefix + 'a', '', first + 1],
    ['put', prefix + 'a', '4', first + 2],
  ], 'events');
  ok(String(sizes) === '4' || String(sizes) === '3,1', `a transaction came in parts: ${sizes}`);
  await watcher.cancel();
});

test('watch/filters, ranges and previous pairs', async () => {
  const client = await connect();
  const prefix = fresh();
  const watch = () => client.watch().inRange({ start: prefix + 'b', end: prefix + 'd' });
  const watchers = [await watch().only('put').create(), await watch().only('delete').withPreviousKV().create()];
  const [puts, deletes] = watchers.map(collect);
  const both = await watch().withPreviousKV().create();
  const previous = [];
  both.on('put', (_, kv) => previous.push(kv ? kv.value.toString() : null));
  const all = collect(both);
  const first = revisionOf(await client.put(prefix + 'b').value('1'));
  await client.put(prefix + 'a').value('outside');
  await client.put(prefix + 'b').value('2');
  await client.delete().key(prefix + 'b');
  await client.put(prefix + 'd').value('outside');
  await client.put(prefix + 'c').value('3');
  await arrived(all, 4);
  await arrived(puts, 3);
  await arrived(deletes, 1);
  eq(puts.map(event => event[2]), ['1', '2', '3'], 'puts');
  eq(deletes, [['delete', prefix + 'b', '2', first + 3]], 'deletes');
  eq(previous.map(value => value || ''), ['', '1', ''], 'what the puts replaced');
  for (const watcher of [...watchers, both]) await watcher.cancel();
});

test('watch/sixty watchers on one stream, and in namespaces', async () => {
  const client = await connect();
  const space = client.namespace(fresh());
  const watchers = [];
  for (let n = 0; n < 60; n++) watchers.push(await space.watch().key(`key${n}`).create());
  eq(new Set(watchers.map(watcher => watcher.id)).size, 60, 'ids');
  const seen = watchers.map(collect);
  await Promise.all(watchers.slice(0, 30).map(watcher => watcher.cancel()));
  const last = await space.watch().key('last').create();
  const end = collect(last);
  for (let n = 0; n < 60; n++) await space.put(`key${n}`).value(n);
  await space.put('last').value('x');
  await arrived(end, 1);
  await waitUntil(() => seen.slice(30).every(events => events.length), 'an event for each');
  // Keys come without the namespace.
  eq(seen.map(events => events.map(event => event.slice(0, 3))), seen.map((_, n) => (n < 30 ? [] : [['put', `key${n}`, String(n)]])));
  for (const watcher of [...watchers.slice(30), last]) await watcher.cancel();
});

test('watch/progress moves the revision of an idle watcher', async () => {
  const client = await connect(await startServer({ flags: ['--watch-progress-notify-interval=200ms'] }));
  const watcher = await client.watch().key('idle').create();
  const seen = collect(watcher);
  const revision = revisionOf(await client.put('other').value('x'));
  await waitUntil(() => Number(watcher.lastRevision()) === revision + 1, 'progress');
  eq(seen, [], 'events');
  await client.put('idle').value('x');
  await arrived(seen, 1);
  eq(seen, [['put', 'idle', 'x', revision + 1]], 'an event after progress');
  await watcher.cancel();
});

test('watch/a compacted start is an error', async () => {
  const client = await connect(await startServer());
  for (let n = 0; n < 4; n++) await client.put('key').value(n);
  await client.kv.compact({ revision: 4 });
  const watcher = await client.watch().key('key').startRevision('2').create();
  const [error] = await next(watcher, 'error');
  ok(error instanceof EtcdError, `the class is ${error.constructor.name}`);
  // etcd gives no reason here; what it does tell, the compact revision, the stream below the watcher has.
  eq(error.message, 'Watcher canceled: ', 'text');
  const stream = await client.watchClient.watch();
  cleanup(() => stream.cancel());
  const answers = [];
  stream.on('data', answer => answers.push(answer)).on('error', () => undefined);
  stream.write({ create_request: { key: Buffer.from('key'), start_revision: 2 } });
  await waitUntil(() => answers.length === 2, 'two answers');
  eq(answers.map(a => [a.created, a.canceled, a.compact_revision]), [[true, false, '0'], [false, true, '4']], 'answers');
  const again = await client.watch().key('key').startRevision('4').create();
  const seen = collect(again);
  await arrived(seen, 2);
  eq(seen, [['put', 'key', '2', 4], ['put', 'key', '3', 5]], 'from the compact revision on');
  await again.cancel();
});

test('reconnect/by itself, across SIGKILL and SIGTERM, each event once', async () => {
  const server = await startServer();
  const client = await connect(server, QUICK);
  const watcher = await client.watch().prefix('r/').create();
  const idle = await client.watch().key('idle').create();
  const [seen, idleSeen] = [collect(watcher), collect(idle)];
  const wanted = [];
  const put = async () => {
    const key = `r/${String(wanted.length).padStart(3, '0')}`;
    // A connection that is not back yet is asked again; nothing was written then.
    const answer = await waitUntil(() => client.put(key).value(wanted.length).exec().catch(() => null), `put of ${key}`);
    wanted.push(['put', key, String(wanted.length), revisionOf(answer)]);
  };
  for (const end of ['kill', 'stop', null]) {
    for (let n = 0; n < 40; n++) await put();
    if (end) {
      const broken = next(watcher, 'disconnected');
      await server[end]();
      await broken;
      await server.start();
    }
  }
  await arrived(seen, wanted.length);
  await client.put('idle').value('x');
  await arrived(idleSeen, 1);
  await put();
  await arrived(seen, wanted.length);
  eq(seen, wanted, 'events');
  eq(idleSeen.length, 1, 'events of the idle watcher');
});

test('reconnect/what happened in between is seen afterwards', async () => {
  const server = await startServer();
  const client = await connect(server, { ...QUICK, faultHandling: { watchBackoff: new ConstantBackoff(1500) } });
  const watcher = await client.watch().prefix('r/').create();
  const seen = collect(watcher);
  await client.put('r/0').value('before');
  await arrived(seen, 1);
  const broken = next(watcher, 'disconnected');
  await server.kill();
  await broken;
  await server.start();
  // Another client is back long before the watcher is.
  const other = await connect(server);
  const first = revisionOf(await other.put('r/1').value('between'));
  await other.delete().key('r/0');
  await arrived(seen, 3);
  eq(seen.slice(1), [['put', 'r/1', 'between', first], ['delete', 'r/0', '', first + 1]], 'events');
  await watcher.cancel();
});
