import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Finding } from '../../src/doctor/finding.ts';
import { type Elect, elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { WallClock } from '../helpers/faketime.ts';
import { newFolder } from '../helpers/folders.ts';
import { Kubernetes, type User } from '../helpers/kubernetes.ts';
import { describeWith } from '../helpers/needs.ts';
import { handles, until } from '../helpers/procs.ts';
import { Link, stopLinks } from '../helpers/proxy.ts';
import { Redis } from '../helpers/redis.ts';
import { scratch, script } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';
import { closeTerminals, Terminal } from '../helpers/terminal.ts';
import { ZooKeeper } from '../helpers/zookeeper.ts';

const SECRET = 'hunter2';

interface Measured {
  roundTrips: { count: number; p50Ms: number };
  grantedMs: number;
  expiry: { shortestMs: number };
  advised: { ttlMs: number };
}

interface Examined {
  code: number | null;
  findings: Finding[];
  measured: Measured;
  text: string;
}

const start = (args: string[], env: NodeJS.ProcessEnv = {}): Elect =>
  elect(['doctor', '--for', '500ms', ...args], { env: { ELECT_RUN_LOG_FORMAT: undefined, ...env } });

async function read(examination: Elect): Promise<Examined> {
  const { code, stdout, stderr } = await examination.ended;
  expect(stderr).toBe('');
  const text = stdout.toString();
  const { findings, ...measured } = JSON.parse(text);
  return { code, findings, measured, text };
}

/** One document on stdout, and nothing on stderr. */
const examine = (args: string[], env?: NodeJS.ProcessEnv): Promise<Examined> => read(start(['--json', ...args], env));

const found = ({ findings }: Examined, check: string) => findings.filter((finding) => finding.check === check);

/** This check has a finding of this level that says so. */
function expectFinding(examined: Examined, check: string, level: Finding['level'], says: RegExp, remedy?: RegExp) {
  const matching = found(examined, check).filter((finding) => finding.level === level && says.test(finding.found));
  expect(matching, examined.text).not.toEqual([]);
  if (remedy) expect(matching).toContainEqual(expect.objectContaining({ remedy: expect.stringMatching(remedy) }));
}

/** Of a busy machine nothing more can be expected than that it measures. */
function expectHealthy(examined: Examined, ...checks: string[]) {
  expect(examined.code, examined.text).toBe(0);
  for (const check of [...checks, 'connect', 'round trips', 'ttl', 'host'])
    expect(new Set(found(examined, check).map(({ level }) => level)), `${check}: ${examined.text}`).toEqual(
      new Set(['ok']),
    );
}

afterEach(endAll);
afterEach(stopLinks);
afterAll(stopServers);

/** A store that can be looked into, by way of an election's name: what there is for the sake of an examination. */
interface Looked {
  backend: string;
  env?: NodeJS.ProcessEnv;
  /** All that is in the store, in whatever form. */
  contents(): Promise<unknown>;
  /** While it leads an election of its own. */
  isLeading(name: string): Promise<boolean>;
  /** While it waits for a lease to run out. */
  isExpiring(name: string): Promise<boolean>;
}

function leavesNothing(look: () => Looked, { runsOut = true } = {}) {
  test('when it has ended, nothing of it is in the store', async () => {
    const { backend, env, contents } = look();
    const before = await contents();
    const { code } = await examine(['-b', backend, '-n', 'clean'], env);
    expect(code).toBe(0);
    expect(await contents()).toEqual(before);
  });

  test('interrupted while it leads, it ends with 130 and leaves nothing', async () => {
    const { backend, env, contents, isLeading } = look();
    const before = await contents();
    const examination = start(['--for', '60s', '-b', backend, '-n', 'led'], env);
    await until(() => isLeading('led'), 'it leads');
    examination.kill('SIGINT');
    expect(await examination.ended).toMatchObject({ code: 130, stderr: '' });
    expect(await contents()).toEqual(before);
  });

  if (!runsOut) return;
  test('interrupted while a lease runs out, it ends with 130 and leaves nothing', async () => {
    const { backend, env, contents, isExpiring } = look();
    const before = await contents();
    const examination = start(['-b', backend, '-n', 'expiring'], env);
    await until(() => isExpiring('expiring'), 'a lease runs out');
    examination.kill('SIGINT');
    expect(await examination.ended).toMatchObject({ code: 130, stderr: '' });
    expect(await contents()).toEqual(before);
  });
}

describe('doctor', () => {
  test.each([
    [['--for', '5'], /--for "5" has no unit/],
    [['--ttl', '1s', '--renew-every', '1s'], /--ttl 1s, --renew-every 1s and --grace 200ms do not fit/],
    [['-b', 'mysql://db'], /--backend "mysql:\/\/db" is unknown/],
    [['-n', 'a/b'], /--name "a\/b": with --backend file/],
    [['--frobnicate'], /unknown option '--frobnicate'/],
    [['too', 'much'], /too many arguments/],
  ])('%s is refused with 64 and one line', async (args, says) => {
    const { code, stdout, stderr } = await start(args).ended;
    expect(code).toBe(64);
    expect(stderr).toMatch(/^elect-run: [^\n]+\n$/);
    expect(stderr).toMatch(says);
    expect(stdout).toHaveLength(0);
  });

  test('a store that cannot be reached: 69, with what to look at, and the host all the same', async () => {
    for (const backend of ['etcd://127.0.0.1:1', 'redis://127.0.0.1:1', 'zookeeper://127.0.0.1:1']) {
      const examined = await examine(['-b', backend]);
      expect(examined.code).toBe(69);
      expectFinding(examined, 'connect', 'problem', /could not be reached in time: .*connection refused/, /firewall/);
      expect(found(examined, 'host')).not.toEqual([]);
    }
  });
});

describeWith(['flock'], 'doctor, with a file', () => {
  const files = (folder: string) => (existsSync(folder) ? readdirSync(folder, { recursive: true }) : undefined);

  test('for people: a line for each check, and a verdict', async () => {
    const { code, stdout, stderr } = await start(['-b', `file:${scratch()}`, '-n', 'job']).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const text = stdout.toString();
    expect(text).toMatch(/^election {2}job on file:/);
    expect(text).toMatch(/^ok {7}round trips +p50 \S+, p99 \S+, max \S+ of \d+ tokens/m);
    expect(text).toMatch(/\n\n(all is well|no problems, \d+ warnings?)\n$/);
  });

  test('a directory on a disk is well', async () => {
    expectHealthy(await examine(['-b', `file:${scratch()}`]), 'directory', 'space');
  });

  test('a directory that is not there is made and removed again, its parents too', async () => {
    const dir = scratch();
    expectHealthy(await examine(['-b', `file:${join(dir, 'a/b')}`]));
    expect(files(dir)).toEqual([]);
  });

  test('a directory in memory is warned of', async () => {
    const dir = mkdtempSync('/dev/shm/elect-run-test-');
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
    const examined = await examine(['-b', `file:${dir}`]);
    expect(examined.code).toBe(0);
    expectFinding(examined, 'directory', 'warning', /is on tmpfs: its tokens start again at 1/, /on a local disk/);
  });

  test('a directory that cannot be written is a problem: 64', async () => {
    const examined = await examine(['-b', 'file:/proc/locks-of-ours']);
    expect(examined.code).toBe(64);
    expectFinding(examined, 'election', 'problem', /cannot write/, /name a directory that you can write/);
  });

  const dir = newFolder('doctor');
  leavesNothing(
    () => ({
      backend: `file:${join(dir, 'locks')}`,
      contents: async () => files(dir),
      isLeading: async (name) => (files(dir) ?? []).some((file) => String(file).includes(`${name}.doctor-`)),
      isExpiring: async () => false,
    }),
    { runsOut: false },
  );
});

describeWith(['flock', 'tmux'], 'doctor, at a terminal', () => {
  afterEach(closeTerminals);
  const traces = (terminal: Terminal) => readdirSync(terminal.dir).filter((file) => file.includes('.doctor-'));

  test('shows what it does meanwhile, and then the report alone', async () => {
    const terminal = await Terminal.open(scratch());
    await terminal.line('elect-run doctor; echo "status=$?"');
    await terminal.shows('measuring round trips for 3s');
    const screen = await terminal.shows('status=0');
    expect(screen).toMatch(/^ok +connect +file:/m);
    expect(screen).not.toMatch(/measuring|removing/);
  });

  test('Ctrl-C ends it with 130, the cursor is visible, and nothing is left', async () => {
    const terminal = await Terminal.open(scratch());
    await terminal.line('elect-run doctor --for 60s; echo "status=$?"');
    await terminal.shows('measuring round trips for 1m');
    await until(() => traces(terminal).length > 0, 'it leads');
    await terminal.press('C-c');
    await terminal.shows('status=130');
    expect(await terminal.cursor()).toMatchObject({ isVisible: true });
    expect(traces(terminal)).toEqual([]);
  });
});

describeWith(['etcd', 'etcdctl'], 'doctor, with etcd', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });
  const keys = async (prefix = '') =>
    (await etcd.etcdctl('get', '--keys-only', '--prefix', prefix)).split('\n').filter(Boolean);
  const inLine = async (name: string) => (await keys(`${name}.doctor-`)).length;

  test('a healthy one is well: round trips, granted ttl, expiry, timing', async () => {
    const examined = await examine(['--for', '2s', '-b', etcd.url, '-n', 'job']);
    expectHealthy(examined, 'member', 'cluster', 'expiry', 'timing');
    const { roundTrips, grantedMs, expiry, advised } = examined.measured;
    expect(roundTrips.count).toBeGreaterThan(3);
    expect(grantedMs).toBe(15_000);
    expect(expiry).toMatchObject({ isSeen: true });
    expect(expiry.shortestMs).toBeGreaterThanOrEqual(2000); // longer where a round trip was slow
    expect(advised).toMatchObject({ flags: expect.stringMatching(/^--ttl \S+ --renew-every \S+$/) });
  });

  test('it takes no part in the election that is asked about', async () => {
    const leader = elect(['-b', etcd.url, '-n', 'led-by-us', '--', 'sleep', '60']);
    await leader.event('started');
    const before = await etcd.line('led-by-us');
    expectHealthy(await examine(['-b', etcd.url, '-n', 'led-by-us']));
    expect(await etcd.line('led-by-us')).toEqual(before);
    expect(leader.events.filter(({ event }) => event === 'suspended')).toEqual([]);
    leader.kill('SIGTERM');
    await leader.ended;
  });

  test('a slow link lengthens the timing that is recommended, and one that is too short for it is a problem: 64', async () => {
    const link = await Link.start(etcd.endpoints[0]!, 200);
    const examined = await examine(['--for', '4s', '--profile', 'aggressive', '-b', `etcd://${link.endpoint}`]);
    expect(examined.measured.roundTrips.p50Ms).toBeGreaterThan(400);
    expect(examined.measured.advised.ttlMs).toBeGreaterThan(3000);
    expectFinding(examined, 'timing', 'problem', /with a ttl of 3s a renewal has \d+ms/, /^--ttl \d+s --renew-every /);
    expect(examined.code).toBe(64);
  });

  leavesNothing(() => ({
    backend: etcd.url,
    contents: async () => ({ keys: await keys(), leases: await etcd.etcdctl('lease', 'list') }),
    isLeading: async (name) => (await inLine(name)) === 1,
    isExpiring: async (name) => (await inLine(name)) === 2,
  }));

  test.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])('interrupted at any moment it leaves nothing (%s)', async (moment) => {
    const examination = start(['--for', '1s', '-b', etcd.url, '-n', 'moment']); // with 2 s for a lease, longer than the last of them
    await until(() => handles(examination.pid, 'SIGQUIT'), 'it hears signals'); // INT has a handler of Node's from the start
    await sleep(moment * 220); // whatever it does then
    examination.kill('SIGINT');
    expect((await examination.ended).code).toBe(130);
    expect(await keys()).toEqual([]);
    expect(await etcd.etcdctl('lease', 'list')).toMatch(/found 0 leases/);
  });
});

describeWith(['etcd', 'etcdctl'], 'doctor, with a store that fails', () => {
  test('one that is silent is told within seconds: 69', async () => {
    const etcd = await Etcd.start();
    await etcd.members[0]!.freeze();
    const startedAt = performance.now();
    const examined = await examine(['-b', etcd.url]);
    expect(examined.code).toBe(69);
    expectFinding(examined, 'connect', 'problem', /no answer/);
    expectFinding(examined, 'member', 'warning', /does not answer: no answer/);
    expect(performance.now() - startedAt).toBeLessThan(15_000);
    etcd.members[0]!.thaw();
  });

  test('one that dies while it is measured: 69, and what may be left in it is named', async () => {
    const etcd = await Etcd.start();
    const examination = start(['--json', '--for', '3s', '-b', etcd.url, '-n', 'dying']);
    await until(async () => (await etcd.etcdctl('get', '--prefix', 'dying.doctor-')) !== '', 'it measures');
    await etcd.members[0]!.kill();
    const examined = await read(examination);
    expect(examined.code, examined.text).toBe(69);
    expectFinding(
      examined,
      'traces',
      'warning',
      /may be left in the store/,
      /remove what is named dying\.doctor-[0-9a-f]+;/,
    );
  });
});

describeWith(['etcd', 'etcdctl', 'faketime'], 'doctor, when the wall clock', () => {
  function newClock(): WallClock {
    const clock = new WallClock();
    onTestFinished(() => clock.remove());
    return clock;
  }

  test('is set while it measures, says so', async () => {
    const etcd = await Etcd.start();
    const clock = newClock();
    const examination = start(['--json', '--for', '4s', '-b', etcd.url, '-n', 'stepped'], clock.env);
    await until(async () => (await etcd.etcdctl('get', '--prefix', 'stepped.doctor-')) !== '', 'it measures');
    clock.step(3600);
    expectFinding(await read(examination), 'wall clock', 'warning', /was set forward by 1h/, /NTP/);
  });
});

describeWith(['redis', 'faketime'], 'doctor, when the wall clock is not that of the store', () => {
  test('says by how much', async () => {
    const redis = await Redis.start();
    const clock = new WallClock();
    onTestFinished(() => clock.remove());
    clock.step(3600);
    const examined = await examine(['-b', redis.url], clock.env);
    expectFinding(examined, 'clocks', 'warning', /our wall clock is 1h ahead of that of the store/, /NTP/);
  });
});

describeWith(['etcd', 'etcdctl'], 'doctor, with three members of etcd', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start({ members: 3 });
  });

  test('names those that --backend leaves out', async () => {
    const examined = await examine(['-b', `etcd://${etcd.endpoints.slice(0, 2).join(',')}`]);
    expectFinding(examined, 'cluster', 'warning', /names 2 of 3 members/, /name them all/);
  });

  test('names a dead one, and ends with 0: the others serve', async () => {
    const dead = etcd.endpoints[1]!;
    await etcd.members[1]!.kill();
    await etcd.leader();
    const examined = await examine(['-b', etcd.url]);
    expect(examined.code, examined.text).toBe(0);
    expectFinding(
      examined,
      'member',
      'warning',
      new RegExp(`^${dead} does not answer: connection refused`),
      /start it/,
    );
    expect(found(examined, 'member').filter(({ level }) => level === 'ok')).toHaveLength(2);
  });
});

describeWith(['etcd', 'etcdctl'], 'doctor, with an etcd that knows users', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start({ auth: true });
    await etcd.etcdctl('role', 'add', 'reader');
    await etcd.etcdctl('role', 'grant-permission', 'reader', 'read', '--prefix=true', '/jobs/');
    await etcd.etcdctl('user', 'add', `reader:${SECRET}`);
    await etcd.etcdctl('user', 'grant-role', 'reader', 'reader');
    await etcd.etcdctl('role', 'add', 'exact');
    await etcd.etcdctl('role', 'grant-permission', 'exact', 'readwrite', '--prefix=true', 'exact/');
    await etcd.etcdctl('user', 'add', `exact:${SECRET}`);
    await etcd.etcdctl('user', 'grant-role', 'exact', 'exact');
  });

  test('a wrong password: 77, with the options to look at, and not shown', async () => {
    const examined = await examine(['-b', etcd.url, '--user', `app:${SECRET}`]);
    expect(examined.code).toBe(77);
    expectFinding(examined, 'connect', 'problem', /wrong user or password/, /--user/);
    expect(examined.text).not.toContain(SECRET);
  });

  test('a role that may not write: 77, with the right that is missing', async () => {
    const examined = await examine(['-b', etcd.url, '-n', '/jobs/x', '--user', `reader:${SECRET}`]);
    expect(examined.code).toBe(77);
    expectFinding(examined, 'connect', 'problem', /reader may not do this/, /readwrite on the prefix \/jobs\/x\//);
    expect(examined.text).not.toContain(SECRET);
  });

  test('the rights that are needed are enough', async () => {
    expectHealthy(await examine(['-b', etcd.url, '-n', '/jobs/x', '--user', 'app:apppw']), 'expiry');
  });

  test('rights to the very election alone are enough to run, and it is measured by asking', async () => {
    const examined = await examine(['--for', '2s', '-b', etcd.url, '-n', 'exact', '--user', `exact:${SECRET}`]);
    expect(examined.code, examined.text).toBe(0);
    expectFinding(examined, 'election', 'warning', /the rights are for exact alone/, /exact\.doctor-\*/);
    expect(found(examined, 'traces')).toEqual([]);
    expect(examined.measured.roundTrips.count).toBeGreaterThan(3);
    expect(await etcd.etcdctl('lease', 'list')).toMatch(/found 0 leases/);
  });
});

describeWith(['etcd', 'etcdctl', 'openssl'], 'doctor, with TLS', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start({ tls: true });
  });

  test('says until when the certificates are valid', async () => {
    const { ca, client } = etcd.certificates!;
    const examined = await examine(['-b', etcd.url, '--cacert', ca, '--cert', client.cert, '--key', client.key]);
    expectHealthy(examined, 'tls');
    expectFinding(examined, 'tls', 'ok', /the certificate of \S+ is valid until \d{4}-/);
    expectFinding(examined, 'tls', 'ok', /our certificate is valid until \d{4}-/);
  });

  test('a certificate that is missing: 77', async () => {
    const examined = await examine(['-b', etcd.url, '--cacert', etcd.certificates!.ca]);
    expect(examined.code).toBe(77);
    expectFinding(examined, 'connect', 'problem', /TLS with \S+ failed/);
  });
});

describeWith(['redis'], 'doctor, with Redis', () => {
  let redis: Redis;
  beforeAll(async () => {
    redis = await Redis.start();
  });

  test('a healthy one is well', async () => {
    const checks = ['server', 'persistence', 'memory', 'clocks', 'expiry', 'timing'];
    expectHealthy(await examine(['-b', redis.url, '-n', 'job']), ...checks);
  });

  test('what forgets locks is warned of: appendonly no, eviction', async () => {
    await redis.cli('config', 'set', 'appendonly', 'no');
    await redis.cli('config', 'set', 'maxmemory-policy', 'allkeys-lru');
    onTestFinished(async () => {
      await redis.cli('config', 'set', 'appendonly', 'yes');
      await redis.cli('config', 'set', 'maxmemory-policy', 'noeviction');
    });
    const examined = await examine(['-b', redis.url]);
    expect(examined.code).toBe(0);
    expectFinding(examined, 'persistence', 'warning', /appendonly no: a restart .* forgets/, /appendonly yes/);
    expectFinding(examined, 'memory', 'warning', /allkeys-lru/, /noeviction/);
  });

  leavesNothing(() => ({
    backend: redis.url,
    contents: async () => redis.cli('keys', '*'),
    isLeading: async (name) => (await redis.cli('keys', `${name}.doctor-*`)).trim() !== '',
    isExpiring: async (name) => {
      const lock = (await redis.cli('keys', `${name}.doctor-*`)).trim();
      const ttlMs = lock === '' ? -1 : Number(await redis.cli('pttl', lock));
      return ttlMs > 0 && ttlMs < 1000;
    },
  }));
});

describeWith(['redis'], 'doctor, with a Redis that knows users', () => {
  let redis: Redis;
  beforeAll(async () => {
    redis = await Redis.start({ auth: true });
    const user = (name: string, ...rights: string[]) =>
      redis.cli('acl', 'setuser', name, 'on', `>${SECRET}`, ...rights);
    await user('scriptless', '~*', '+@all', '-eval', '-@dangerous');
    await user('setless', '~*', '+@all', '-set');
    await user('exact', '~exact', '~{exact}:*', '+@all');
  });
  const as = (user: string, name: string) =>
    examine(['-b', `redis://${user}:${SECRET}@${redis.endpoints[0]}`, '-n', name]);

  test('a wrong password: 77, and it is not shown', async () => {
    const examined = await as('app', '/jobs/x');
    expect(examined.code).toBe(77);
    expectFinding(examined, 'connect', 'problem', /wrong user or password/, /--password-file/);
    expect(examined.text).not.toContain(SECRET);
  });

  test.each([
    ['scriptless', /eval/],
    ['setless', /we may not SET/],
  ])('a right that is missing is named, with what to grant: 77 (%s)', async (user, says) => {
    const examined = await as(user, 'x');
    expect(examined.code).toBe(77);
    expectFinding(examined, 'connect', 'problem', says, /grant ~x ~\{x\}:token .* \+eval/);
    expect(examined.text).not.toContain(SECRET);
  });

  test('rights to the very election alone are enough to run', async () => {
    const examined = await as('exact', 'exact');
    expect(examined.code, examined.text).toBe(0);
    expectFinding(examined, 'election', 'warning', /the rights are for exact alone/);
    expect(found(examined, 'traces')).toEqual([]);
  });

  test('the rights that are needed are enough; what cannot be asked is a warning', async () => {
    const examined = await examine(['-b', redis.url, '-n', '/jobs/x']);
    expect(examined.code, examined.text).toBe(0);
    expectFinding(examined, 'server', 'warning', /may not ask how it is/, /\+info/);
    expect((await redis.cli('keys', '*')).trim()).toBe('');
  });
});

describeWith(['redis'], 'doctor, with Sentinels', () => {
  test('names the master, the replica that need not confirm, and a dead Sentinel', async () => {
    const redis = await Redis.start({ sentinels: true });
    await redis.sentinels[2]!.kill();
    const examined = await examine(['-b', redis.url]);
    expect(examined.code, examined.text).toBe(0);
    expectFinding(examined, 'sentinel', 'ok', new RegExp(`the master is ${redis.endpoints[0]}`));
    const dead = redis.sentinelEndpoints[2];
    expectFinding(examined, 'sentinel', 'warning', new RegExp(`^${dead} does not answer`), /majority/);
    expectFinding(examined, 'replicas', 'warning', /none has to confirm/, /--redis-wait-replicas 1/);
  });

  test('more confirmations than there are replicas is a problem: 69', async () => {
    const redis = await Redis.start();
    const examined = await examine(['-b', redis.url, '--redis-wait-replicas', '2']);
    expect(examined.code).toBe(69);
    expectFinding(examined, 'replicas', 'problem', /--redis-wait-replicas 2, but 0 follow/);
    expect((await redis.cli('keys', '*')).trim()).toBe('');
  });
});

describeWith(['zookeeper'], 'doctor, with ZooKeeper', () => {
  let zookeeper: ZooKeeper;
  beforeAll(async () => {
    zookeeper = await ZooKeeper.start();
  });

  async function tree(path = ''): Promise<string[]> {
    const children = (await zookeeper.children(path || '/')).filter((name) => `${path}/${name}` !== '/zookeeper');
    const below = await Promise.all(children.map((name) => tree(`${path}/${name}`)));
    return [...children.map((name) => `${path}/${name}`), ...below.flat()];
  }
  const inLine = async (name: string) => {
    const election = (await zookeeper.children('/')).find((child) => child.startsWith(`${name}.doctor-`));
    return election === undefined ? 0 : (await zookeeper.children(`/${election}`)).length;
  };

  test('a healthy one is well', async () => {
    const examined = await examine(['-b', zookeeper.url, '-n', 'jobs/deep/x']);
    expectHealthy(examined, 'server', 'session', 'expiry', 'timing');
    expectFinding(examined, 'server', 'ok', /standalone, ZooKeeper 3\./);
    expectFinding(examined, 'session', 'ok', /granted up to 4m/);
  });

  test('a ttl that it does not grant is a problem: 64', async () => {
    const examined = await examine(['-b', zookeeper.url, '--ttl', '10m']);
    expect(examined.code).toBe(64);
    expectFinding(examined, 'election', 'problem', /grants sessions of 4m at most/, /choose a --ttl of 3m44s or less/);
    expect(await tree()).toEqual([]);
  });

  leavesNothing(() => ({
    backend: zookeeper.url,
    contents: tree,
    isLeading: async (name) => (await inLine(name)) === 1,
    isExpiring: async (name) => (await inLine(name)) === 2,
  }));
});

describeWith(['zookeeper'], 'doctor, with a ZooKeeper that knows users', () => {
  test('an ACL that forbids it is named, with what is needed on which path: 77', async () => {
    const zookeeper = await ZooKeeper.start({ auth: true });
    for (const name of ['jobs', 'jobs/x']) {
      const examined = await examine(['-b', zookeeper.url, '-n', name, '--user', `nobody:${SECRET}`]);
      expect(examined.code, examined.text).toBe(77);
      const [refused] = examined.findings.filter(({ level }) => level === 'problem');
      expect(refused!.found).toMatch(/user nobody \(or its password is wrong\) may not do this/);
      expect(refused).toMatchObject({
        remedy: expect.stringContaining(`needed are read, create and delete on /${name}`),
      });
      expect(examined.text).not.toContain(SECRET);
    }
    expectHealthy(await examine(['-b', zookeeper.url, '-n', 'jobs/x', '--user', 'app:apppw']));
    expect(await zookeeper.children('/jobs')).toEqual([]);
  });
});

describeWith(['zookeeper'], 'doctor, with three servers of ZooKeeper', () => {
  test('names a dead one', async () => {
    const zookeeper = await ZooKeeper.start({ members: 3 });
    const leader = await zookeeper.leader();
    const dead = (leader + 1) % 3;
    await zookeeper.members[dead]!.kill();
    const examined = await examine(['-b', zookeeper.url]);
    expect(examined.code, examined.text).toBe(0);
    expectFinding(examined, 'server', 'ok', /, leader, ZooKeeper 3\./);
    expectFinding(
      examined,
      'server',
      'warning',
      new RegExp(`^${zookeeper.endpoints[dead]} does not answer`),
      /start it/,
    );
  });
});

describeWith(['kubeApiserver', 'etcd', 'etcdctl', 'openssl'], 'doctor, with Kubernetes', () => {
  let kubernetes: Kubernetes;
  beforeAll(async () => {
    kubernetes = await Kubernetes.start();
    const rbac = '/apis/rbac.authorization.k8s.io/v1/namespaces/default';
    const rules = [{ apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['get', 'create'] }];
    await kubernetes.api('POST', `${rbac}/roles`, { metadata: { name: 'updateless' }, rules });
    await kubernetes.api('POST', `${rbac}/rolebindings`, {
      metadata: { name: 'updateless' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'updateless' },
      subjects: [{ kind: 'User', name: 'nobody', apiGroup: 'rbac.authorization.k8s.io' }],
    });
    await kubernetes.may('nobody', 'create');
  });
  const env = (user: User) => ({ KUBECONFIG: kubernetes.kubeconfig(user) });
  const as = (user: User, ...flags: string[]) => examine([...flags, '-b', kubernetes.url, '-n', 'job'], env(user));
  const leases = async () => {
    const path = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
    const { items } = await kubernetes.api<{
      items: { metadata: { name: string }; spec: { leaseDurationSeconds: number; holderIdentity: string } }[];
    }>('GET', path);
    return items;
  };

  test('a healthy one is well', async () => {
    expectHealthy(await as('admin'), 'server', 'rights', 'clocks', 'tls', 'expiry', 'timing');
  });

  test('without the right to delete nothing is made, and reads are measured', async () => {
    const examined = await as('app', '--for', '2s');
    expect(examined.code, examined.text).toBe(0);
    expectFinding(examined, 'rights', 'ok', /get, create, update/);
    expectFinding(examined, 'election', 'warning', /may not delete leases/, /--verb=delete/);
    expect(examined.measured.roundTrips.count).toBeGreaterThan(3);
    expect(await leases()).toEqual([]);
  });

  test('without the right to watch it says what follows', async () => {
    expectFinding(await as('unwatching'), 'rights', 'warning', /may not watch/, /--verb=get,create,update,watch/);
  });

  test('a right that is missing is named, with the Role: 77', async () => {
    const examined = await as('nobody');
    expect(examined.code).toBe(77);
    expectFinding(examined, 'rights', 'problem', /we may not update leases/, /kubectl create role .*update/);
  });

  leavesNothing(() => ({
    backend: kubernetes.url,
    env: env('admin'),
    contents: async () => (await leases()).map(({ metadata }) => metadata.name),
    isLeading: async (name) => (await leases()).some(({ metadata }) => metadata.name.startsWith(`${name}.doctor-`)),
    isExpiring: async (name) =>
      (await leases()).some(
        ({ metadata, spec }) =>
          metadata.name.startsWith(`${name}.doctor-`) && spec.leaseDurationSeconds < 15 && spec.holderIdentity !== '',
      ),
  }));
});

describe('doctor without what a runner likes to have', () => {
  test('says what is missing on this host', async () => {
    const dir = scratch();
    script(dir, 'flock', '#!/bin/sh\n', 0o644);
    const examined = await examine(['-b', `file:${dir}`], { PATH: dir });
    expect(examined.code).toBe(0);
    expectFinding(examined, 'host', 'warning', /no setpriv\(1\)/, /util-linux/);
    expectFinding(examined, 'flock', 'warning', /no flock\(1\)/, /util-linux/);
  });

  test('says that setpriv(1) is too old', async () => {
    const dir = scratch();
    script(dir, 'setpriv', '#!/bin/sh\nexit 1\n');
    const examined = await examine(['-b', `file:${dir}`], { PATH: `${dir}:${process.env.PATH}` });
    expect(examined.code).toBe(0);
    expectFinding(examined, 'host', 'warning', /no setpriv\(1\) of util-linux 2\.33 or later/, /util-linux/);
  });
});
