import { chmodSync, existsSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { CRON_STORES, type CronStore } from '../faults/cron/stores.ts';
import { type Elect, elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { Kubernetes } from '../helpers/kubernetes.ts';
import { describeWith } from '../helpers/needs.ts';
import { clearOracles, Oracle } from '../helpers/oracle.ts';
import { until } from '../helpers/procs.ts';
import { scratch, script } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

type Access = ReturnType<CronStore['access']>;

const LEASES = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
/** Requests are looked for with each renewal; the lease lasts, however slow the store is. */
const FLAGS = ['--ttl', '10s', '--renew-every', '1s', '--grace', '500ms'];

async function resign({ backend, env }: Access, ...args: string[]) {
  const { code, stdout, stderr } = await elect(['resign', '-b', backend, ...args], {
    env: { ELECT_RUN_LOG_FORMAT: 'plain', ...env },
  }).ended;
  return { code, stdout: stdout.toString(), stderr };
}

/** As soon as the leader can be asked: who leads is told a moment before its token. */
const ask = (access: Access, ...args: string[]) =>
  until(async () => {
    const answer = await resign(access, ...args);
    return /has only just come to lead/.test(answer.stderr) ? undefined : answer;
  }, 'a leader that can be asked');

function stepsDown(access: () => Access): void {
  const stand = (oracle: Oracle, name: string, label: string, ...flags: string[]): Elect =>
    elect(['-v', '-b', access().backend, '-n', name, '--id', label, ...FLAGS, ...flags, '--', ...oracle.job()], {
      env: access().env ?? {},
    });

  test('the leader is asked, its job is stopped, and the next one in line leads', async () => {
    const oracle = new Oracle();
    const [first, second] = [stand(oracle, 'asked', 'first'), stand(oracle, 'asked', 'second')];
    await Promise.race([first.event('started'), second.event('started')]);
    await oracle.started(1);
    const [leader, next] = oracle.starts()[0]!.who.startsWith('first') ? [first, second] : [second, first];
    await next.event('standby');
    const { code, stdout } = await ask(access(), '-n', 'asked');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^(first|second)-\S+ has stepped down; now leads: /);
    expect((await leader.ended).code).toBe(79);
    expect(leader.stderr).toMatch(/asks for it \(elect-run resign\)/);
    await oracle.started(2);
    oracle.verify(2);
  });

  test('with --on-lost rejoin it makes room for the others, and stands again', async () => {
    const oracle = new Oracle();
    const [first, second] = [
      stand(oracle, 'rejoin', 'first', '--on-lost', 'rejoin'),
      stand(oracle, 'rejoin', 'second', '--on-lost', 'rejoin'),
    ];
    await oracle.started(1);
    const [leader, next] = oracle.starts()[0]!.who.startsWith('first') ? [first, second] : [second, first];
    await next.event('standby');
    expect((await ask(access(), '-n', 'rejoin')).code).toBe(0);
    await next.event('started');
    await leader.event('standby');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('a TERM while it makes room for the others ends it', async () => {
    const oracle = new Oracle();
    const leader = stand(oracle, 'leaving', 'first', '--on-lost', 'rejoin');
    await oracle.started(1);
    const asked = ask(access(), '-n', 'leaving');
    await leader.event('resigned');
    leader.kill('SIGTERM');
    expect((await leader.ended).code).toBe(128 + 15);
    expect((await asked).code).toBe(0);
    oracle.verify(1);
  });

  test('--to: who is asked for leads next, whoever stands before it', async () => {
    const oracle = new Oracle();
    const leader = stand(oracle, 'to', 'first');
    await oracle.started(1);
    const line: Elect[] = [];
    for (const label of ['second', 'third', 'fourth']) {
      line.push(stand(oracle, 'to', label));
      await line.at(-1)!.event('standby');
    }
    const { code, stdout } = await ask(access(), '-n', 'to', '--to', 'fourth');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^first-\S+ has stepped down; now leads: fourth-/);
    expect((await leader.ended).code).toBe(79);
    await line[2]!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('--no-remote-resign: it leads on, and whoever asked is told: 69', async () => {
    const oracle = new Oracle();
    const leader = stand(oracle, 'firm', 'first', '--no-remote-resign');
    await oracle.started(1);
    const { code, stderr } = await ask(access(), '-n', 'firm', '--wait', '3s');
    expect(code).toBe(69);
    expect(stderr).toMatch(/first-\S+ did not step down within 3s: it may forbid it \(--no-remote-resign\)/);
    expect(leader.process.exitCode).toBeNull();
    oracle.verify(1);
  });

  test('--to nobody: 64, before anything is asked', async () => {
    expect((await resign(access(), '-n', 'idle', '--to', '')).code).toBe(64);
  });

  test('nobody leads: 75', async () => {
    const { code, stderr } = await resign(access(), '-n', 'idle');
    expect(code).toBe(75);
    expect(stderr).toMatch(/nobody leads idle/);
  });
}

for (const kind of Object.values(CRON_STORES)) {
  describeWith(['flock', ...kind.needs], `resign, with ${kind.name}`, () => {
    let store: CronStore;
    beforeAll(async () => {
      store = await kind.start();
    });
    afterEach(async () => {
      await endAll();
      await clearOracles();
    });
    afterAll(stopServers);
    stepsDown(() => store.access());
  });
}

describeWith(['flock'], 'a request that comes to nothing', () => {
  afterEach(endAll);
  const dir = newFolder('resign');
  const backend = `file:${dir}`;

  async function firm(name: string): Promise<Elect> {
    const leader = elect(['-b', backend, '-n', name, '--no-remote-resign', '--', 'sleep', '60']);
    await leader.event('started');
    return leader;
  }

  test('is taken back when whoever asks is interrupted', async () => {
    await firm('taken-back');
    const asking = elect(['resign', '-b', backend, '-n', 'taken-back', '--to', 'nobody']);
    const word = join(dir, 'taken-back.word');
    await expect.poll(() => existsSync(word), { timeout: 10_000 }).toBe(true);
    asking.kill('SIGINT');
    expect((await asking.ended).code).toBe(130);
    expect(existsSync(word)).toBe(false);
  });

  test('is forgotten after a minute: nobody gives way for it any more', async () => {
    const word = join(dir, 'old.word');
    writeFileSync(word, JSON.stringify({ id: 'gone', token: '1', by: 'x', to: 'nobody' }));
    const minuteAgo = Date.now() / 1000 - 61;
    utimesSync(word, minuteAgo, minuteAgo);
    const { code, stderr } = await elect(['-v', '-b', backend, '-n', 'old', '--', 'true']).ended;
    expect(code).toBe(0);
    expect(stderr).not.toContain('place-lost');
  });

  test('is kept up for as long as it is waited for', async () => {
    await firm('kept');
    const asking = elect(['resign', '-b', backend, '-n', 'kept']);
    const word = join(dir, 'kept.word');
    await expect.poll(() => existsSync(word), { timeout: 10_000 }).toBe(true);
    utimesSync(word, 0, 0);
    await expect.poll(() => statSync(word).mtimeMs, { timeout: 20_000 }).toBeGreaterThan(0);
    asking.kill('SIGINT');
    await asking.ended;
  });

  test.skipIf(process.getuid!() !== 0)(
    'whoever has no name and may not write is told what is missing: 64',
    async () => {
      await firm('foreign');
      chmodSync(dir, 0o755);
      const prefix = ['setpriv', '--reuid', '54321', '--clear-groups'];
      const { code, stderr } = await elect(['resign', '-b', backend, '-n', 'foreign'], { prefix }).ended;
      expect(stderr).toMatch(/cannot write \S+foreign\.word: EACCES/);
      expect(code).toBe(64);
    },
  );
});

/** Before it renames anything it waits for a file. */
const HELD = `
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
const { renameSync, existsSync } = fs;
fs.renameSync = (from, to) => {
  while (!existsSync(process.env.GO)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  renameSync(from, to);
};
syncBuiltinESMExports();`;

describeWith(['flock'], 'requests of several with a file', () => {
  afterEach(endAll);

  async function led() {
    const dir = scratch();
    const args = ['-b', `file:${dir}`, '-n', 'job'];
    const leader = elect([...args, ...FLAGS, '--', 'sleep', '60']);
    await leader.event('started');
    const list = () => readdirSync(dir).sort();
    return { dir, args, list };
  }

  test('do not get into each other’s way: each is told 0, and nothing is left', async () => {
    const { args, list } = await led();
    const go = join(scratch(), 'go');
    const NODE_OPTIONS = `--import=${script(scratch(), 'held.mjs', HELD)}`;
    const slow = elect(['resign', ...args], { env: { NODE_OPTIONS, GO: go, XDG_CACHE_HOME: '/proc/nonexistent' } });
    await until(() => list().some((name) => name.startsWith('job.word')), 'a request under way');
    expect(await elect(['resign', ...args]).ended).toMatchObject({ code: 0 });
    writeFileSync(go, '');
    expect(await slow.ended).toMatchObject({ code: 0, stderr: '' });
    expect(list()).toEqual(['job.lock', 'job.token']);
  });

  test('what one that was killed has left goes with a later one, after a minute', async () => {
    const { dir, args, list } = await led();
    const minuteAgo = Date.now() / 1000 - 61;
    for (const [name, at] of Object.entries({
      'job.word.17-4.new': minuteAgo,
      'job.word.18-4.new': Date.now() / 1000,
      'job.word.17-4.runs.new': minuteAgo, // of another election
    })) {
      writeFileSync(join(dir, name), '');
      utimesSync(join(dir, name), at, at);
    }
    expect(await elect(['resign', ...args]).ended).toMatchObject({ code: 0 });
    expect(list()).toEqual(['job.lock', 'job.token', 'job.word.17-4.runs.new', 'job.word.18-4.new']);
  });
});

describeWith(['flock', ...CRON_STORES.kubernetes.needs], 'a request in a Lease, whose asker was killed', () => {
  let kubernetes: Kubernetes;
  beforeAll(async () => {
    kubernetes = await Kubernetes.start();
  });
  afterEach(endAll);
  afterAll(stopServers);
  const stand = (name: string, ...command: string[]): Elect =>
    elect(['-v', '-b', kubernetes.url, '-n', name, '--no-remote-resign', ...FLAGS, '--', ...command], {
      env: kubernetes.env,
    });

  /** Leads, is asked to give way for nobody, does not, and ends. */
  async function leaveWord(name: string): Promise<void> {
    const leader = stand(name, 'sleep', '60');
    await until(async () => (await annotations(name))['elect-run/token'] !== undefined, 'its token');
    const asking = elect(['resign', '-b', kubernetes.url, '-n', name, '--to', 'nobody'], { env: kubernetes.env });
    await until(async () => (await annotations(name))['elect-run/word'] !== undefined, 'the request');
    asking.kill('SIGKILL');
    await asking.ended;
    leader.kill('SIGTERM');
    await leader.ended;
  }
  const annotations = async (name: string) => (await kubernetes.lease(name))?.metadata.annotations ?? {};

  test('each candidate gives way for it once', async () => {
    await leaveWord('fresh');
    const { code, stderr } = await stand('fresh', 'true').ended;
    expect(code).toBe(0);
    expect(stderr).toContain('resign --to');
  });

  test('after a minute of the API server’s it is forgotten: nobody gives way for it any more', async () => {
    await leaveWord('old');
    const lease = (await kubernetes.lease('old'))!;
    const { 'elect-run/word-left': left, ...others } = lease.metadata.annotations!;
    const [time, ...word] = left!.split(' ');
    const minuteAgo = new Date(Date.parse(time!) - 61_000).toISOString();
    const metadata = {
      ...lease.metadata,
      annotations: { ...others, 'elect-run/word-left': [minuteAgo, ...word].join(' ') },
    };
    await kubernetes.api('PUT', `${LEASES}/old`, { ...lease, metadata });
    const { code, stderr } = await stand('old', 'true').ended;
    expect(code).toBe(0);
    expect(stderr).not.toContain('resign --to');
  });

  test('one that kubectl left stands until it is taken back', async () => {
    await leaveWord('by-hand');
    const lease = (await kubernetes.lease('by-hand'))!;
    const { 'elect-run/word-left': left, ...others } = lease.metadata.annotations!;
    const annotations = {
      'elect-run/word': others['elect-run/word']!.replace('nobody', 'anybody'),
      'elect-run/word-left': left!.replace(/^\S+/, '2001-01-01T00:00:00.000Z'),
    };
    await kubernetes.api('PUT', `${LEASES}/by-hand`, { ...lease, metadata: { ...lease.metadata, annotations } });
    expect((await stand('by-hand', 'true').ended).stderr).toContain('resign --to');
  });
});

describeWith(['flock', 'etcd', 'etcdctl'], 'whom a request is for', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });
  afterEach(async () => {
    await endAll();
    await clearOracles();
  });
  afterAll(stopServers);

  test('another program cannot be asked, and is told so: 69', async () => {
    await etcd.etcdctl('put', 'native/1', 'somebody');
    const { code, stderr } = await resign({ backend: etcd.url }, '-n', 'native');
    expect(code).toBe(69);
    expect(stderr).toMatch(/somebody leads native, and cannot be asked/);
  });

  test('a request for an earlier leader is not obeyed by a later one', async () => {
    const oracle = new Oracle();
    const leader = elect(['-v', '-b', etcd.url, '-n', 'later', ...FLAGS, '--', ...oracle.job()]);
    const { token } = await leader.event('elected');
    const { id } = await leader.event('campaigning');
    const earlier = BigInt(String(token)) - 1n;
    await etcd.etcdctl('put', 'elect-run-words/later', JSON.stringify({ id, token: String(earlier), by: 'x' }));
    let renewed = leader.events.at(-1)!;
    for (let look = 0; look < 3; look++) renewed = await leader.event('renewed', { after: renewed });
    expect(leader.events.map(({ event }) => event)).not.toContain('stepping-down');
    await etcd.etcdctl('put', 'elect-run-words/later', JSON.stringify({ id, token, by: 'x' }));
    expect((await leader.ended).code).toBe(79);
  });

  test('nothing of a request is left in etcd, no lease either', async () => {
    const leases = async () =>
      (await etcd.etcdctl('lease', 'list')).split('\n').filter((line) => /^[0-9a-f]+$/.test(line));
    const before = await leases();
    const oracle = new Oracle();
    const leader = elect(['-v', '-b', etcd.url, '-n', 'tidy', ...FLAGS, '--', ...oracle.job()]);
    await leader.event('started');
    expect((await ask({ backend: etcd.url }, '-n', 'tidy')).code).toBe(0);
    expect((await leader.ended).code).toBe(79);
    expect(before).toEqual(expect.arrayContaining(await leases()));
    expect(await etcd.etcdctl('get', '--prefix', 'elect-run-words/tidy', '--keys-only')).toBe('');
  });
});
