// One leadership that is renewed as fast as the store answers: the real Renewal, Guard, Requests and backend, in a Node that collects garbage when told to. Prints a
// sample as JSON at a tenth of the way and at the end; for these it pauses until no timer of a request is left.
import { readdirSync, readFileSync } from 'node:fs';
import type { Backend } from '../../src/backend.ts';
import { openBackend } from '../../src/backends/index.ts';
import type { BackendSpec } from '../../src/backends/spec.ts';
import { now, pause, within } from '../../src/clock.ts';
import { Guard } from '../../src/guard.ts';
import { readAllProcs } from '../../src/proc.ts';
import { Renewal } from '../../src/renewal.ts';
import { Requests } from '../../src/requests.ts';
import { longestNapMs } from '../../src/timing.ts';
import { race } from '../../src/waiting.ts';
import { sessionOf } from '../../test/helpers/procs.ts';

interface Task {
  spec: BackendSpec;
  renewals: number;
  /** What the check has to find: something that every renewal leaves behind. */
  leak?: 'race' | 'listener' | 'descriptor';
}

const { spec, renewals, leak } = JSON.parse(process.argv[2]!) as Task;
const TTL_MS = 100_000;
const REQUEST_MS = 1000;
const timing = { ttlMs: TTL_MS, renewEveryMs: 0, requestMs: REQUEST_MS, graceMs: 1000, marginMs: 2000 };
const election = `soak-${process.pid}`;
const backend = await openBackend(spec, { election, id: election, ttlMs: TTL_MS, requestMs: REQUEST_MS });
const guard = new Guard((event) => console.log(JSON.stringify({ warning: event })), longestNapMs(timing));

const place = backend.newPlace();
const sentAt = now();
const standing = await backend.acquire(place, within(10_000));
if (!standing.leads) throw new Error('somebody else leads');
const token = await backend.confirm(place, within(10_000));
const requests = new Requests(backend, { place, id: election, token: String(token) }, REQUEST_MS);

let done = 0;
let isPaused = false;
let reached = (): void => {};
let pauseOver: Promise<void> = Promise.resolve();
const gated = new Proxy(backend, {
  get(target, name) {
    if (name === 'renew')
      return async (...args: Parameters<Backend['renew']>) => {
        if (isPaused) await pauseOver;
        return target.renew(...args);
      };
    const value = Reflect.get(target, name);
    return typeof value === 'function' ? value.bind(target) : value;
  },
});
const forEver = new AbortController().signal;
const renewal: Renewal = new Renewal(gated, place, timing, {
  confirmed() {
    done++;
    guard.setDeadline(now() + TTL_MS); // also where nothing runs out
    requests.look();
    if (leak === 'race') Promise.race([renewal.gone, Promise.resolve(done)]);
    if (leak === 'listener') forEver.addEventListener('abort', () => done);
    if (leak === 'descriptor') import('node:fs').then(({ openSync }) => openSync('/dev/null'));
    if (done === Math.ceil(renewals / 10) || done === renewals) {
      isPaused = true;
      reached();
    }
    if (done % 20_000 === 0) console.log(JSON.stringify({ progress: done }));
  },
  unanswered: () => {},
});

async function sample() {
  await guard.armed();
  await pause(REQUEST_MS + 200);
  for (let turn = 0; turn < 3; turn++) {
    (globalThis as unknown as { gc(): void }).gc();
    await pause(20);
  }
  const session = guard.sessions.at(-1);
  const members = readAllProcs().filter((proc) => proc.session === session);
  const resident = (pid: number | 'self') =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]);
  const fds = (pid: number | 'self') => readdirSync(`/proc/${pid}/fd`).length;
  return {
    renewals: done,
    heapKB: Math.round(process.memoryUsage().heapUsed / 1024),
    residentKB: resident('self'),
    descriptors: fds('self'),
    resources: process.getActiveResourcesInfo().length,
    guardResidentKB: members.reduce((sum, { pid }) => sum + resident(pid), 0),
    guardProcesses: readdirSync('/proc')
      .map(Number)
      .filter((pid) => Number.isInteger(pid) && sessionOf(pid) === session).length, // zombies as well
    guardDescriptors: members.reduce((sum, { pid }) => sum + fds(pid), 0),
  };
}

const startedAt = now();
for (let turn = 0; turn < 2; turn++) {
  let goOn = (): void => {};
  pauseOver = new Promise((resolve) => {
    goOn = resolve;
  });
  const arrived = new Promise<void>((resolve) => {
    reached = resolve;
  });
  if (turn === 0) renewal.start(sentAt);
  const end = await race([
    arrived.then(() => undefined),
    renewal.gone,
    renewal.killDue.then(() => new Error('too late')),
  ]);
  if (end) throw end;
  console.log(JSON.stringify({ sample: await sample(), tookMs: Math.round(now() - startedAt) }));
  isPaused = false;
  goOn();
}
renewal.end();
await guard.standDown();
await backend.release(place, within(10_000));
await backend[Symbol.asyncDispose]();
process.exit();
