import { beforeEach, expect, test, vi } from 'vitest';
import { Connection } from '../../src/backends/zookeeper/connection.ts';
import type { Client, Done } from '../../src/backends/zookeeper/library.ts';

const clock = vi.hoisted(() => ({ at: 0 }));
vi.mock('../../src/clock.ts', async (original) => ({ ...(await original<object>()), now: () => clock.at }));
vi.mock('../../src/native.ts', async (original) => ({ ...(await original<object>()), closeOnExec: () => {} }));
vi.mock('../../src/backends/zookeeper/relay.ts', () => ({
  openRelay: async () => ({ address: '', closed: new Promise(() => {}), cut() {}, endSession() {} }),
}));
vi.mock('../../src/backends/zookeeper/library.ts', async (original) => ({
  ...(await original<object>()),
  loadLibrary: () =>
    class {
      state = 3;
      timeout = 17_200;
      client_id = '1';
      client_password = 'x';
      init() {}
      on(event: string, listener: () => void) {
        if (event === 'connect') setImmediate(listener);
      }
      a_sync(_path: string, done: Done<[string]>) {
        setImmediate(() => done(0, 'ok', '/'));
        return 0;
      }
    },
}));

const OK = 0;
const NO_NODE = -101;
const CONNECTION_LOSS = -4;
const { signal } = new AbortController();
let connection: Connection;
beforeEach(async () => {
  clock.at = 1000;
  const to = { endpoint: 'h:1', ttlMs: 17_200, session: undefined, auth: undefined, granted: () => {} };
  connection = await Connection.open(to, signal);
});

/** Sends a request. What is returned has it answered. */
function ask(sentAt: number): (answeredAt: number, code: number) => Promise<unknown> {
  clock.at = sentAt;
  let answer!: Done<[]>;
  const asked = connection.call(signal, (_client: Client, done: Done<[]>) => {
    answer = done;
    return 0;
  });
  return (answeredAt, code) => {
    clock.at = answeredAt;
    answer(code, 'told');
    return asked.catch(() => {});
  };
}

test.each([
  [OK, 5000],
  [NO_NODE, 5000],
  [CONNECTION_LOSS, 1000],
])('a later request counts from one that was answered with %d: from %d', async (code, from) => {
  await ask(5000)(5002, code);
  expect(connection.countsFrom(10_000)).toBe(from);
});

test('one that was answered just before does not count yet', async () => {
  await ask(5000)(5002, OK);
  await ask(9000)(9002, OK);
  expect(connection.countsFrom(10_000)).toBe(5000);
});

test('a slow request counts from what was old enough when it was sent', async () => {
  await ask(10_000)(10_002, OK);
  await ask(15_000)(15_002, OK);
  await ask(15_100)(16_400, OK);
  expect(connection.countsFrom(15_100)).toBe(10_000);
});
