'use strict';
// Users, roles and TLS.

const fs = require('fs');
const {
  EtcdAuthenticationFailedError, EtcdError, EtcdPermissionDeniedError, EtcdRoleExistsError, EtcdRoleNotFoundError,
  EtcdRoleNotGrantedError, EtcdUserExistsError, EtcdUserNotFoundError, GRPCInvalidArgumentError,
  GRPCUnavailableError, Range,
} = require('etcd3');
const { connect, eq, fails, next, ok, sleep, startServer, test, waitUntil } = require('./cases');

const login = (server, username, password, more = {}) => connect(server, { auth: { username, password }, ...more });

// Users root and reader: the latter may read `app/` and write `app/own`. Returns root's client.
async function enable(server, options = {}) {
  const client = await connect(server, options);
  await client.user('root').create('secret');
  await client.role('root').create();
  await client.user('root').addRole('root');
  await client.user('reader').create('pass');
  await client.role('app').create();
  await client.role('app').grant([
    { permission: 'Read', range: client.range({ prefix: 'app/' }) },
    { permission: 'Readwrite', key: 'app/own' },
  ]);
  await client.role('app').addUser('reader');
  await client.auth.authEnable();
  return login(server, 'root', 'secret', options);
}

test('auth/permissions of a user', async () => {
  const server = await startServer();
  const root = await enable(server);
  await root.put('app/one').value('1');
  await root.put('other').value('2');
  const reader = await login(server, 'reader', 'pass');
  eq(await reader.get('app/one'), '1', 'a key of the range');
  eq(await reader.getAll().prefix('app/').strings(), { 'app/one': '1' }, 'the range');
  await reader.put('app/own').value('mine');
  eq((await reader.delete().key('app/own')).deleted, '1', 'delete of its own key');
  const denied = [
    () => reader.put('app/one').value('x').exec(),
    () => reader.get('other').exec(),
    () => reader.getAll().prefix('ap').exec(),
    () => reader.getAll().all().exec(),
    () => reader.delete().prefix('app/').exec(),
    () => reader.if('other', 'Version', '==', 1).then(reader.get('app/one')).commit(),
    () => reader.if('app/one', 'Version', '==', 1).then(reader.put('app/own').value('x'), reader.get('other')).commit(),
    () => reader.getUsers(),
  ];
  for (const call of denied) await fails(call(), EtcdPermissionDeniedError, 'etcdserver: permission denied');
  eq(await root.get('app/own'), null, 'the refused transaction');
});

test('auth/users and roles', async () => {
  const server = await startServer();
  const root = await enable(server);
  eq((await root.getUsers()).map(user => user.name), ['reader', 'root'], 'users');
  eq((await root.getRoles()).map(role => role.name), ['app', 'root'], 'roles');
  eq((await root.user('reader').roles()).map(role => role.name), ['app'], 'roles of a user');
  const permissions = await root.role('app').permissions();
  const told = permissions.map(({ permission, range }) => [permission, range.start.toString(), range.end.toString()]);
  eq(told, [['Read', 'app/', 'app0'], ['Readwrite', 'app/own', '']], 'permissions');
  await fails(root.user('reader').create('x'), EtcdUserExistsError);
  await fails(root.user('nobody').roles(), EtcdUserNotFoundError);
  await fails(root.role('app').create(), EtcdRoleExistsError);
  await fails(root.role('none').permissions(), EtcdRoleNotFoundError);
  await fails(root.user('reader').removeRole('root'), EtcdRoleNotGrantedError);
  await root.role('app').revoke({ permission: 'Read', range: new Range('app/', 'app0') });
  const reader = await login(server, 'reader', 'pass');
  await fails(reader.get('app/one').exec(), EtcdPermissionDeniedError);
  await reader.put('app/own').value('x');
  await root.user('reader').removeRole('app');
  await fails(reader.get('app/own').exec(), EtcdPermissionDeniedError);
  await root.role('app').delete();
  await root.user('reader').delete();
  eq([(await root.getUsers()).length, (await root.getRoles()).length], [1, 1], 'what is left');
  await fails(root.user('root').delete(), GRPCInvalidArgumentError, 'etcdserver: invalid auth management');
  await root.auth.authDisable();
  eq(await (await connect(server)).get('app/own'), 'x', 'without users');
});

test('auth/logins, and calls without one', async () => {
  const server = await startServer();
  const root = await enable(server);
  for (const [user, password] of [['root', 'wrong'], ['nobody', 'secret']]) {
    await fails((await login(server, user, password)).get('key').exec(), EtcdAuthenticationFailedError);
  }
  const anonymous = await connect(server);
  await fails(anonymous.get('key').exec(), GRPCInvalidArgumentError, 'etcdserver: user name is empty');
  await fails(anonymous.put('key').value('x').exec(), GRPCInvalidArgumentError, 'etcdserver: user name is empty');
  await root.user('reader').setPassword('new');
  await fails((await login(server, 'reader', 'pass')).get('app/one').exec(), EtcdAuthenticationFailedError);
  eq(await (await login(server, 'reader', 'new')).get('app/one'), null, 'the new password');
});

test('auth/a client logs in again by itself when its token has ended', async () => {
  const server = await startServer({ flags: ['--auth-token-ttl=1'] });
  const root = await enable(server);
  const reader = await login(server, 'reader', 'pass');
  await root.put('app/one').value('1');
  eq(await reader.get('app/one'), '1', 'with the first token');
  const tokenOf = async client => (await client.pool.authenticator.getMetadata()).get('token')[0];
  const first = await tokenOf(reader);
  // A token lives on as long as it is used, so the pauses grow.
  let pause = 500;
  await waitUntil(async () => {
    await sleep((pause *= 2));
    eq(await reader.get('app/one'), '1', 'whatever the token');
    return (await tokenOf(reader)) !== first;
  }, 'another token');
  // Nor does the end of all logins disturb it.
  await server.kill();
  await server.start();
  const value = () => reader.get('app/one').catch(e => (e instanceof GRPCUnavailableError ? null : Promise.reject(e)));
  eq(await waitUntil(value, 'an answer after the restart'), '1', 'after a restart');
});

test('auth/a watch sees what its user may read, and no other begins', async () => {
  const server = await startServer();
  const root = await enable(server);
  const reader = await login(server, 'reader', 'pass');
  const watcher = await reader.watch().prefix('app/').create();
  const seen = next(watcher, 'put');
  await root.put('other').value('x');
  await root.put('app/one').value('1');
  const [kv] = await seen;
  eq([kv.key.toString(), kv.value.toString()], ['app/one', '1'], 'event');
  const refused = reader.watch().key('other').watcher();
  const [error] = await next(refused, 'error');
  ok(error instanceof EtcdPermissionDeniedError || error instanceof EtcdError, `the class is ${error.constructor.name}`);
  ok(error.message.includes('permission denied'), `text ${error.message}`);
  await watcher.cancel();
});

test('auth/leases, locks and STM by a user', async () => {
  const server = await startServer();
  await enable(server);
  const reader = await login(server, 'reader', 'pass');
  await reader.lock('app/own').do(() => Promise.resolve());
  await fails(reader.lock('app/one').acquire(), EtcdPermissionDeniedError);
  await reader.stm().transact(tx => tx.put('app/own').value('x'));
  eq(await reader.get('app/own'), 'x', 'after STM');
});

const authority = server => ({ rootCertificate: fs.readFileSync(server.ca) });
const certified = server => ({
  ...authority(server),
  certChain: fs.readFileSync(server.cert),
  privateKey: fs.readFileSync(server.key),
});
const soon = () => ({ deadline: Date.now() + 30_000 });

test("tls/an authority of one's own, on both names of the server", async () => {
  const server = await startServer({ tls: true });
  for (const host of ['127.0.0.1', 'localhost']) {
    const client = await connect({ endpoint: `https://${host}:${server.port}` }, { credentials: authority(server) });
    const watcher = await client.watch().key('key').create();
    const seen = next(watcher, 'put');
    await client.put('key').value(host);
    eq(await client.get('key'), host, host);
    eq((await seen)[0].value.toString(), host, 'watch');
    await watcher.cancel();
  }
});

test('tls/a client certificate is needed where the server asks for one', async () => {
  const server = await startServer({ tls: true, client_cert_auth: true });
  const client = await connect(server, { credentials: certified(server) });
  await client.put('key').value('x');
  eq(await client.get('key'), 'x', 'with a certificate');
  const without = await connect(server, { credentials: authority(server) });
  await fails(without.get('key').options(soon()).exec(), GRPCUnavailableError);
});

test('tls/another authority is refused, and so is plain text', async () => {
  const server = await startServer({ tls: true });
  // The client's own certificate is no authority.
  const other = await connect(server, { credentials: { rootCertificate: fs.readFileSync(server.cert) } });
  await fails(other.get('key').options(soon()).exec(), GRPCUnavailableError);
  const plain = await connect({ endpoint: `http://${server.host}:${server.port}` });
  await fails(plain.get('key').options(soon()).exec(), GRPCUnavailableError);
});

test('tls/logins over TLS', async () => {
  const server = await startServer({ tls: true });
  const root = await enable(server, { credentials: authority(server) });
  await root.put('app/own').value('x');
  const reader = await login(server, 'reader', 'pass', { credentials: authority(server) });
  eq(await reader.get('app/own'), 'x', 'by a user');
  await fails(reader.get('other').exec(), EtcdPermissionDeniedError);
});
