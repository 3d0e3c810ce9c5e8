import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest';
import { elect } from '../helpers/elect.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { signal, until } from '../helpers/procs.ts';
import { Link } from '../helpers/proxy.ts';
import { Redis } from '../helpers/redis.ts';
import {
  LOST,
  leaveNothingBehind,
  newElection,
  runsUntouched,
  SHORT,
  stand,
  standInLine,
  typesOf,
} from './candidates.ts';

const LONG = ['--ttl', '60s'];

describeWith(['redis', 'flock'], 'redis: who comes next', () => {
  leaveNothingBehind();
  let redis: Redis;
  beforeAll(async () => {
    redis = await Redis.start();
  });

  /** Until so many clients block on the baton. */
  const waiting = (count: number) =>
    until(async () => (await redis.cli('info', 'clients')).includes(`blocked_clients:${count}\r`), `${count} waiting`);

  test('those who wait lead in the order in which they came, and a hand-over wakes one of them', async () => {
    const oracle = new Oracle();
    const entry = { backend: redis.url, name: newElection(), job: oracle.job(), flags: LONG };
    const line = [stand(entry)];
    await oracle.started(1);
    for (let standbys = 1; standbys <= 4; standbys++) {
      line.push(stand(entry));
      await waiting(standbys);
    }
    for (let turn = 1; turn < line.length; turn++) {
      await redis.cli('config', 'resetstat');
      line[turn - 1]!.kill('SIGTERM');
      const { who } = await oracle.started(turn + 1);
      expect(who).toBe((await line[turn]!.event('elected')).id);
      // One release and one acquisition: nobody else asked.
      expect(await redis.cli('info', 'commandstats')).toMatch(/cmdstat_eval:calls=2,/);
    }
    oracle.verify(line.length);
  });

  test('one that leaves while the baton is on its way to it passes it on', async () => {
    const oracle = new Oracle();
    const entry = { backend: redis.url, name: newElection(), job: oracle.job(), flags: LONG };
    const first = stand(entry);
    await oracle.started(1);
    const leaver = stand(entry);
    await waiting(1);
    const last = stand(entry);
    await waiting(2);
    leaver.kill('SIGSTOP');
    first.kill('SIGTERM');
    await first.event('resigned');
    process.kill(leaver.pid, 'SIGTERM');
    leaver.kill('SIGCONT');
    await last.event('started');
    await oracle.started(2);
    expect((await leaver.ended).code).toBe(128 + 15);
    oracle.verify(2);
  });

  test('a second signal does not wait for a server that does not answer a standby who leaves', async () => {
    const oracle = new Oracle();
    const entry = { backend: redis.url, name: newElection(), job: oracle.job(), flags: LONG };
    const [, standby] = await standInLine(oracle, entry, { ...entry });
    await redis.members[0]!.freeze();
    onTestFinished(() => redis.members[0]!.thaw());
    standby!.kill('SIGINT');
    const first = await standby!.event('signalled');
    standby!.kill('SIGINT');
    const second = await standby!.event('signalled', { after: first });
    expect((await standby!.ended).code).toBe(128 + 2);
    expect(performance.now() - second.readAt).toBeLessThan(2000); // a request may take 5 s
  });

  test('tokens grow although everything was deleted, the counter as well', async () => {
    const oracle = new Oracle();
    const entry = { backend: redis.url, name: newElection(), job: oracle.job(), flags: SHORT };
    const [leader, next] = await standInLine(oracle, entry, entry);
    await redis.cli('flushall');
    expect((await leader!.ended).code).toBe(LOST);
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('a leader that is cut off does not ask whether the server speaks TLS, which it does not', async () => {
    const oracle = new Oracle();
    const link = await Link.start(redis.endpoints[0]!);
    const entry = { backend: redis.urlThrough(link.endpoint), name: newElection(), job: oracle.job(), flags: SHORT };
    const leader = stand(entry);
    await oracle.started(1);
    link.hold();
    const { code, stderr } = await leader.ended;
    expect(code).toBe(LOST);
    expect(stderr).toContain('no answer');
    expect(stderr).not.toContain('TLS');
    oracle.verify(1);
  });

  test('a holder that is as long as a book is shown by its first words', async () => {
    const name = newElection();
    await redis.cli('eval', 'return redis.call("SET", KEYS[1], string.rep("x", 1000000), "PX", 60000)', '1', name);
    const ended = await elect(['-b', redis.url, '-n', name, '--no-wait', '--', 'true']).ended;
    expect(ended.code).toBe(75);
    expect(ended.stderr).toMatch(/"x{200}"/);
    expect(ended.stderr.length).toBeLessThan(2000);
  });

  test('a lock that was taken, with the answer lost, is given back by a campaign that gives up', async () => {
    const link = await Link.start(redis.endpoints[0]!);
    const name = newElection();
    link.hold({ fromServer: true });
    const candidate = elect([
      '-b',
      redis.urlThrough(link.endpoint),
      '-n',
      name,
      ...SHORT,
      '--wait',
      '1s',
      '--',
      'true',
    ]);
    await until(async () => (await redis.cli('exists', name)).trim() === '1', 'the lock');
    expect((await candidate.ended).code).toBe(69);
    expect((await redis.cli('exists', name)).trim()).toBe('0');
  });
});

describeWith(['redis', 'flock'], 'redlock, a shell loop and elect-run on one key', () => {
  leaveNothingBehind();
  let redis: Redis;
  beforeAll(async () => {
    redis = await Redis.start();
  });

  const REDLOCK = fileURLToPath(new URL('../natives/redlock.mjs', import.meta.url));
  const LOOP = `until [ "$(redis-cli -p "$1" set "$2" shell nx px 30000)" = OK ]; do sleep .05; done; shift 2; "$@"; exec redis-cli -p "$0" del "$NAME"`;
  function native(kind: 'redlock' | 'shell', name: string, job: string[]): ChildProcess {
    const [, port] = redis.endpoints[0]!.split(':');
    const started =
      kind === 'redlock'
        ? spawn(process.execPath, [REDLOCK, redis.endpoints[0]!, name, ...job], {
            stdio: ['ignore', 'pipe', 'inherit'],
          })
        : spawn('sh', ['-c', LOOP, port!, port!, name, ...job], {
            stdio: ['ignore', 'pipe', 'inherit'],
            env: { ...process.env, NAME: name },
          });
    onTestFinished(() => void started.kill('SIGKILL'));
    return started;
  }

  test.each(['redlock', 'shell'] as const)('elect-run waits for %s', async (kind) => {
    const oracle = new Oracle();
    const name = newElection();
    native(kind, name, oracle.job());
    const { pid } = await oracle.started(1);
    const candidate = stand({ backend: redis.url, name, job: oracle.job(), flags: SHORT });
    await candidate.event('standby');
    oracle.verify(1);
    signal(pid, 'SIGTERM');
    await candidate.event('started', { timeoutMs: 30_000 });
    await oracle.started(2);
    oracle.verify(2);
  });

  test.each(['redlock', 'shell'] as const)('%s waits for elect-run', async (kind) => {
    const oracle = new Oracle();
    const name = newElection();
    const leader = stand({ backend: redis.url, name, job: oracle.job(), flags: SHORT });
    await oracle.started(1);
    const calls = async () =>
      Number(/cmdstat_(?:set|evalsha):calls=(\d+)/.exec(await redis.cli('info', 'commandstats'))?.[1] ?? 0);
    await redis.cli('config', 'resetstat');
    native(kind, name, oracle.job());
    await until(async () => (await calls()) > 2, `${kind} asks for the lock`);
    oracle.verify(1);
    leader.kill('SIGTERM');
    await oracle.started(2);
    oracle.verify(2);
  });
});

describeWith(['redis', 'flock'], 'redis behind Sentinels', () => {
  leaveNothingBehind();
  let redis: Redis;
  beforeEach(async () => {
    redis = await Redis.start({ sentinels: true });
  });
  afterEach(() => redis?.stop());

  test.each(['kill', 'freeze'] as const)(
    'the child runs on when the master is gone (%s), and the line stands',
    async (fault) => {
      const oracle = new Oracle();
      const entry = {
        backend: redis.url,
        name: newElection(),
        job: oracle.job(),
        flags: ['--ttl', '30s', '--renew-every', '2s'],
      };
      const [leader] = await standInLine(oracle, entry, { ...entry });
      const master = await redis.master();
      await redis.members[master]![fault]();
      await until(async () => (await redis.master()) !== master, 'a failover');
      await runsUntouched(leader!, oracle);
    },
  );

  test('a Sentinel that stands still is passed over: one attempt elects, and a failover ends no child', async () => {
    const oracle = new Oracle();
    await redis.sentinels[0]!.freeze();
    const flags = ['--ttl', '30s', '--renew-every', '2s'];
    expect((await elect(['-b', redis.url, '-n', newElection(), ...flags, '--no-wait', '--', 'true']).ended).code).toBe(
      0,
    );
    const entry = { backend: redis.url, name: newElection(), job: oracle.job(), flags };
    const [leader] = await standInLine(oracle, entry, { ...entry });
    const master = await redis.masterSeenBy(1);
    await redis.members[master]!.freeze();
    await until(async () => (await redis.masterSeenBy(1)) !== master, 'a failover', 30_000);
    await runsUntouched(leader!, oracle);
  });

  /** A Sentinel that has not noticed a failover, as one in TILT mode for 30 s. */
  async function sentinelThatNames(endpoint: string): Promise<string> {
    const [host, port] = endpoint.split(':');
    const reply = ['*2', ...[host!, port!].flatMap((part) => [`$${part.length}`, part]), ''].join('\r\n');
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (asked) => {
        for (const command of asked.toString().split(/(?=\*\d+\r\n)/))
          socket.write(command.includes('get-master-addr-by-name') ? reply : '+OK\r\n');
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  test('a Sentinel that takes a replica for the master is passed over', async () => {
    const replica = redis.endpoints[1 - (await redis.master())]!;
    const behind = await sentinelThatNames(replica);
    const backend = redis.url.replace('//', `//${behind},`);
    const candidate = elect(['-b', backend, '-n', newElection(), ...SHORT, '--', 'true']);
    const { reason } = await candidate.event('unreachable');
    expect(reason).toContain('READONLY');
    await candidate.event('elected');
    expect((await candidate.ended).code).toBe(0);
  });

  test('a master that no Sentinel knows is told', async () => {
    const url = `${redis.url}-of-others`;
    const ended = await elect(['-b', url, '-n', newElection(), '--no-wait', '--', 'true']).ended;
    expect(ended.stderr).toContain('no Sentinel knows this master');
    expect(ended.code).toBe(69);
  });

  test('what asynchronous replication can do: a failover to a replica without the key elects a second one; the first is stopped at its next renewal, and the tokens grow', async () => {
    const name = newElection();
    const flags = ['--ttl', '20s', '--renew-every', '5s'];
    const entry = { backend: redis.url, name, job: ['sleep', '300'], flags };
    const master = await redis.master();
    const replica = 1 - master;
    await redis.members[replica]!.freeze();
    await redis.cliOf(master, 'client', 'kill', 'type', 'replica'); // or it would find the key in its socket
    const first = stand(entry);
    const { token: before } = await first.event('started');
    await redis.members[master]!.kill();
    redis.members[replica]!.thaw();
    await until(async () => (await redis.master()) === replica, 'a failover', 30_000);
    const second = stand(entry);
    const { token: after } = await second.event('started', { timeoutMs: 30_000 });
    expect(BigInt(after as string)).toBeGreaterThan(BigInt(before as string));
    expect((await first.ended).code).toBe(LOST);
    expect(second.process.exitCode).toBeNull();
  });

  test('with --redis-wait-replicas nobody leads whose lock is not on the replica, and the lock is given back', async () => {
    const name = newElection();
    const master = await redis.master();
    const replica = 1 - master;
    await redis.members[replica]!.freeze();
    const flags = [...SHORT, '--redis-wait-replicas', '1', '--wait', '2s'];
    const candidate = stand({ backend: redis.url, name, job: ['true'], flags });
    expect((await candidate.ended).code).toBe(69);
    expect(typesOf(candidate)).not.toContain('elected');
    expect(candidate.stderr).toContain('0 of 1 replicas confirmed');
    expect((await redis.cliOf(master, 'exists', name)).trim()).toBe('0');
  });

  test('with --redis-wait-replicas a leader whose renewals stay unconfirmed stops in time', async () => {
    const oracle = new Oracle();
    const entry = {
      backend: redis.url,
      name: newElection(),
      job: oracle.job(),
      flags: [...SHORT, '--redis-wait-replicas', '1'],
    };
    const leader = stand(entry);
    await oracle.started(1);
    await redis.members[1 - (await redis.master())]!.freeze();
    expect((await leader.ended).code).toBe(LOST);
    oracle.verify(1);
  });
});
