'use strict';
// Leases that keep themselves alive, locks and elections.

const { EtcdLeaseInvalidError, EtcdLockFailedError, GRPCFailedPreconditionError, GRPCOutOfRangeError, NotCampaigningError } = require('etcd3');
const { connect, eq, fails, fresh, next, ok, startServer, test, waitUntil } = require('./cases');

const info = (client, ID) => client.leaseClient.leaseTimeToLive({ ID, keys: true });

test('lease/grant, what it holds, and revoke', async () => {
  const client = await connect();
  const prefix = fresh();
  const lease = client.lease(60, { autoKeepAlive: false });
  const id = await lease.grant();
  await lease.put(prefix + 'a').value('a');
  await client.put(prefix + 'b').value('b').lease(id);
  await lease.put(prefix + 'c').value('c');
  await client.put(prefix + 'c').value('without a lease');
  const told = await info(client, id);
  eq([told.ID, told.grantedTTL], [id, '60'], 'lease');
  eq(told.keys.map(String).sort(), [prefix + 'a', prefix + 'b'], 'its keys');
  ok(told.TTL >= 1 && told.TTL <= 60, `remaining ${told.TTL}`);
  const listed = await client.leaseClient.leaseLeases();
  ok(listed.leases.some(({ ID }) => ID === id), 'it is not listed');
  eq((await lease.keepaliveOnce()).TTL, '60', 'ttl after a renewal');
  await lease.revoke();
  eq(lease.revoked(), true, 'revoked');
  eq(await client.getAll().prefix(prefix).keys(), [prefix + 'c'], 'what is left');
  eq((await info(client, id)).TTL, '-1', 'ttl afterwards');
  await lease.revoke(); // which the client takes for done
});

test('lease/what is refused', async () => {
  const client = await connect();
  const lease = client.lease(60, { autoKeepAlive: false });
  const ID = await lease.grant();
  await fails(client.leaseClient.leaseGrant({ TTL: 60, ID }), GRPCFailedPreconditionError, 'etcdserver: lease already exists');
  await fails(client.leaseClient.leaseGrant({ TTL: '9000000001' }), GRPCOutOfRangeError, 'etcdserver: too large lease TTL');
  await client.leaseClient.leaseRevoke({ ID });
  await fails(client.leaseClient.leaseRevoke({ ID }), EtcdLeaseInvalidError);
  const lost = next(lease, 'lost');
  await fails(lease.put(fresh() + 'key').value('x').exec(), EtcdLeaseInvalidError);
  ok((await lost)[0] instanceof EtcdLeaseInvalidError, 'lost for another reason');
});

test('lease/one keeps itself alive beyond its time, one that is released ends', async () => {
  const client = await connect();
  const prefix = fresh();
  const [kept, released] = [client.lease(4), client.lease(2)];
  let renewals = 0;
  kept.on('keepaliveSucceeded', answer => {
    eq(answer.TTL, '4', 'ttl after a renewal');
    renewals += 1;
  });
  await kept.put(prefix + 'kept').value('x');
  await released.put(prefix + 'released').value('x');
  const watcher = await client.watch().prefix(prefix).create();
  const gone = next(watcher, 'delete');
  released.release();
  eq((await gone)[0].key.toString(), prefix + 'released', 'the key that went');
  eq(await client.get(prefix + 'kept'), 'x', 'the other key');
  ok(renewals >= 2, `${renewals} renewals`);
  await watcher.cancel();
  await kept.revoke();
});

test('lease/a client learns that its lease was revoked by another', async () => {
  const client = await connect();
  const lease = client.lease(3);
  const id = await lease.grant();
  const lost = next(lease, 'lost');
  await (await connect()).leaseClient.leaseRevoke({ ID: id });
  ok((await lost)[0] instanceof EtcdLeaseInvalidError, 'lost for another reason');
  eq(lease.revoked(), true, 'revoked');
});

test('lease/renewals go on after a restart', async () => {
  const server = await startServer();
  const client = await connect(server);
  const lease = client.lease(6);
  await lease.put('key').value('x');
  await next(lease, 'keepaliveSucceeded');
  await server.kill();
  await server.start();
  await next(lease, 'keepaliveSucceeded');
  eq(await (await connect(server)).get('key'), 'x', 'its key');
  await lease.revoke();
});

test('lock/excludes another client until it is released', async () => {
  const [one, two] = [await connect(), await connect()];
  const name = fresh() + 'lock';
  const lock = await one.lock(name).ttl(60).acquire();
  const held = (await one.get(name).exec()).kvs[0];
  eq([held.version, held.lease], ['1', await lock.leaseId()], 'the key of the lock');
  await fails(two.lock(name).acquire(), EtcdLockFailedError, `Failed to acquire a lock on ${name}`);
  await lock.release();
  const result = await two.lock(name).do(async () => {
    await fails(one.lock(name).acquire(), EtcdLockFailedError);
    return 'done';
  });
  eq(result, 'done', 'result of do()');
  await fails(two.lock(name).do(() => Promise.reject(new RangeError('on purpose'))), RangeError, 'on purpose');
  eq(await one.get(name), null, 'free after all');
});

test('lock/ends with the lease of a holder that is gone', async () => {
  const client = await connect();
  const gone = await connect();
  const name = fresh() + 'lock';
  const held = gone.lock(name).ttl(2);
  await held.acquire();
  held.lease.release(); // no renewals any more, as if its process had ended
  const lock = client.lock(name);
  const attempt = () => lock.acquire().catch(e => (e instanceof EtcdLockFailedError ? null : Promise.reject(e)));
  await waitUntil(attempt, 'the lock', 100);
  ok((await client.get(name).exec()).kvs[0].lease === (await lock.leaseId()), 'another has it');
  await lock.release();
});

test('lock/four clients count without losing a step', async () => {
  const prefix = fresh();
  const count = async () => {
    const client = await connect();
    for (let n = 0; n < 5; ) {
      try {
        await client.lock(prefix + 'lock').do(async () => {
          const seen = (await client.get(prefix + 'counter').number()) ?? 0;
          await client.put(prefix + 'counter').value(seen + 1);
        });
        n += 1;
      } catch (e) {
        if (!(e instanceof EtcdLockFailedError)) throw e;
      }
    }
  };
  await Promise.all([count(), count(), count(), count()]);
  eq(await (await connect()).get(prefix + 'counter').number(), 20);
});

test('election/campaign, proclaim, observe, resign', async () => {
  const [one, two] = [await connect(), await connect()];
  const name = fresh() + 'election';
  const observer = await (await connect()).election(name).observe();
  eq(observer.leader(), undefined, 'before the first');
  const seen = [];
  observer.on('change', leader => seen.push(leader));
  const first = await one.election(name, 60).campaign('one').wait();
  eq(await two.election(name).leader(), 'one', 'leader');
  // Before the second stands: this client's observer takes the last of several candidates that it hears of at once.
  await waitUntil(() => observer.leader() === 'one', 'the observer sees the first');
  const second = two.election(name, 60).campaign('two');
  await waitUntil(async () => (await two.getAll().prefix(`election/${name}/`).count()) === 2, 'the second candidate');
  const elected = second.wait();
  eq(await one.election(name).leader(), 'one', 'leader with two candidates');
  await first.proclaim('one again');
  await waitUntil(() => observer.leader() === 'one again', 'the observer sees the new value');
  await first.resign();
  await elected;
  eq(await one.election(name).leader(), 'two', 'leader after the resignation');
  await waitUntil(() => observer.leader() === 'two', 'the observer sees the second');
  await fails(first.proclaim('too late'), NotCampaigningError);
  await second.resign();
  await waitUntil(() => !observer.hasLeader, 'the observer sees nobody');
  eq(seen, ['one', 'one again', 'two', undefined], 'what the observer saw');
  await observer.cancel();
});

test('election/the next candidate takes over from one that is gone', async () => {
  const [one, two] = [await connect(), await connect()];
  const name = fresh() + 'election';
  const first = await one.election(name, 2).campaign('one').wait();
  const second = two.election(name, 60).campaign('two');
  const elected = second.wait();
  await waitUntil(async () => (await two.getAll().prefix(`election/${name}/`).count()) === 2, 'the second candidate');
  first.lease.release(); // no renewals any more, as if its process had ended
  await elected;
  eq(await one.election(name).leader(), 'two', 'leader');
  await fails(first.proclaim('too late'), Error);
  await second.resign();
});
