'use strict';
// Cases and their TAP lines, assertions that say what they saw, and servers of the runner.
//
// A module registers functions by `test('kv/name', async () => ...)`; main.js loads the modules and calls `main()`. Cases
// that share a server run one after the other; beside them those that start servers of their own run JOBS at a time. One
// that has not ended after PATIENCE has failed, and an error that is left to nobody fails all that run.

const { AsyncLocalStorage } = require('async_hooks');
const { isDeepStrictEqual, inspect } = require('util');
const { Etcd3 } = require('etcd3');

// Milliseconds.
const PATIENCE = 90_000;
const POLL = 20;

// Most of the time of a case goes by in waiting for servers and deadlines.
const JOBS = 2;

const registered = [];
// Of the case that runs, what is to be undone after it: clients are closed and servers removed, whatever became of it.
const cleanups = new AsyncLocalStorage();
// Each fails a case that runs.
const running = new Set();

class Skip extends Error {}

const test = (name, body) => registered.push([name, body]);

const cleanup = undo => cleanups.getStore().push(undo);

async function control(method, path, body) {
  const headers = { 'content-type': 'application/json', connection: 'close' };
  const answer = await fetch(process.env.KVIST_CONTROL + path, {
    method,
    headers,
    body: method === 'POST' ? JSON.stringify(body || {}) : undefined,
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text;
}

async function newServer(options) {
  const server = JSON.parse(await control('POST', '/servers', options));
  for (const verb of ['kill', 'stop', 'start', 'pause', 'resume']) {
    server[verb] = () => control('POST', `/servers/${server.id}/${verb}`);
  }
  return server;
}

// A fresh server of the runner; gone after the case. Options: flags, tls, client_cert_auth.
async function startServer(options = {}) {
  const server = await newServer(options);
  cleanup(() => control('DELETE', `/servers/${server.id}`));
  return server;
}

let shared;

// The server of all cases that disturb nobody: they use keys below `fresh()`. It ends with the runner.
const sharedServer = () => (shared ??= newServer({}));

let prefixes = 0;
// A prefix that no other case uses.
const fresh = () => `case${String(++prefixes).padStart(3, '0')}/`;

// A client of a server, closed after the case; by default of the shared server.
async function connect(server, options = {}) {
  server ??= await sharedServer();
  const client = new Etcd3({ hosts: server.endpoint, ...options });
  cleanup(() => client.close());
  return client;
}

const short = value => {
  const text = inspect(value, { depth: 6, breakLength: Infinity });
  return text.length > 300 ? `${text.slice(0, 300)}... (${text.length} characters)` : text;
};

function eq(got, wanted, what = 'value') {
  if (!isDeepStrictEqual(got, wanted)) throw new Error(`${what}: got ${short(got)}, wanted ${short(wanted)}`);
}

function ok(condition, what) {
  if (!condition) throw new Error(what);
}

// A promise that must fail with this class of error, and with a text that has these words. Returns the error.
async function fails(promise, errorClass, words = '') {
  let value;
  try {
    value = await promise;
  } catch (e) {
    if (!(e instanceof errorClass) || !e.message.includes(words)) {
      throw new Error(`got ${e.constructor.name} ${short(e.message)}, wanted ${errorClass.name} with ${short(words)}`);
    }
    return e;
  }
  throw new Error(`no error but ${short(value)}, wanted ${errorClass.name} with ${short(words)}`);
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

// Polls until the function gives something true, which is returned.
async function waitUntil(condition, what, pause = POLL) {
  const deadline = Date.now() + PATIENCE / 2;
  while (Date.now() < deadline) {
    const seen = await condition();
    if (seen) return seen;
    await sleep(pause);
  }
  throw new Error(`waited in vain: ${what}`);
}

// The next emission of an event, as the list of its arguments.
function next(emitter, event) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no event ${event}`)), PATIENCE / 2);
    emitter.once(event, (...args) => {
      clearTimeout(timer);
      resolve(args);
    });
  });
}

const inTime = promise => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('no end in time')), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

async function runCase(body) {
  const undo = [];
  let fail;
  const stray = new Promise((_, reject) => {
    fail = reject;
  });
  stray.catch(() => undefined);
  running.add(fail);
  try {
    await inTime(Promise.race([cleanups.run(undo, body), stray]));
  } finally {
    running.delete(fail);
    for (const step of undo.reverse()) {
      try {
        await step();
      } catch (e) {
        console.log(`# clean-up: ${e.message}`);
      }
    }
  }
}

// One line: the error's text and the line of the suite it came from.
function reason(e) {
  const text = (e instanceof Error ? `${e.constructor.name}: ${e.message}` : String(e)).replace(/\s+/g, ' ');
  const line = String(e && e.stack).split('\n').find(l => l.includes('/clients/node/') && !l.includes('cases.js'));
  const where = line ? ` (${line.replace(/^.*\/clients\/node\//, '').replace(/:\d+\)?$/, '')})` : '';
  return text.slice(0, 400) + where;
}

// Runs a case, prints its lines at once, and tells whether it passed.
async function report([name, body]) {
  const began = Date.now();
  const lines = [];
  let passed = true;
  try {
    await runCase(body);
    lines.push(`ok - ${name}`);
  } catch (e) {
    if (e instanceof Skip) {
      lines.push(`ok - ${name} # SKIP ${e.message}`);
    } else {
      passed = false;
      lines.push(`not ok - ${name}: ${reason(e)}`, ...String(e && e.stack).split('\n').map(line => `# ${line}`));
    }
  }
  lines.push(`# ${name} took ${((Date.now() - began) / 1000).toFixed(2)} s`);
  console.log(lines.join('\n'));
  return passed;
}

async function inTurn(cases) {
  let passed = true;
  for (let next = cases.shift(); next; next = cases.shift()) passed = (await report(next)) && passed;
  return passed;
}

// Runs the cases whose names begin with one of the arguments, or all, and ends the process.
async function main() {
  const strayed = e => running.forEach(fail => fail(e));
  process.on('uncaughtException', strayed).on('unhandledRejection', strayed);
  const wanted = process.argv.slice(2);
  const chosen = registered.filter(([name]) => !wanted.length || wanted.some(start => name.startsWith(start)));
  const isApart = ([, body]) => body.toString().includes('startServer(');
  const apart = chosen.filter(isApart);
  const lanes = [chosen.filter(test => !isApart(test)), ...Array(JOBS).fill(apart)];
  const passed = await Promise.all(lanes.map(inTurn));
  console.log(`1..${chosen.length}`);
  // Connections that a client still holds do not keep the process.
  process.stdout.write('', () => process.exit(passed.every(Boolean) ? 0 : 1));
}

module.exports = {
  PATIENCE, Skip, cleanup, connect, eq, fails, fresh, main, next, ok, sleep, startServer, test, waitUntil,
};
