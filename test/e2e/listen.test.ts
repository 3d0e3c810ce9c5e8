import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { type Elect, elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { ask, get, getJson, metricsOf, rawClient, untilMetric, urlOf } from '../helpers/http.ts';
import { describeWith } from '../helpers/needs.ts';
import { freePort, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

afterEach(endAll);
afterAll(stopServers);

const SLEEP = ['sleep', '1000'];
const PATHS = ['/', '/state.json', '/leader', '/livez', '/readyz', '/metrics'];
/** A renewal a second, and a second for each: room for a machine that is busy, not for a client that holds us up. */
const RENEWING = ['-v', '--ttl', '15s', '--renew-every', '1s', '--grace', '500ms'];

/** The inodes of the sockets that a process has open. */
const socketsOf = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
    } catch {
      return []; // closed meanwhile
    }
  });

/** Those of them that listen on TCP (proc(5): 0A is the state, the inode is the tenth field). */
function listenersOf(pid: number): string[] {
  const lines = ['tcp', 'tcp6'].flatMap((name) =>
    readFileSync(`/proc/net/${name}`, 'utf8').trim().split('\n').slice(1),
  );
  const listening = lines.map((line) => line.trim().split(/\s+/)).filter((fields) => fields[3] === '0A');
  return socketsOf(pid).filter((inode) => listening.some((fields) => fields[9] === inode));
}

function onFile(job: string[], ...flags: string[]): Elect {
  return elect(['-b', `file:${scratch()}`, '-n', 'job', '--listen', '0', ...flags, '--', ...job]);
}

interface Span {
  kind: string;
  leader: string | null;
  fromMs: number;
  toMs: number;
}

describeWith(['etcd', 'etcdctl'], '--listen, with a leader and a standby', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });
  afterEach(() => etcd.heal());

  const stand = (name: string, id: string, ...flags: string[]) =>
    elect(['-b', etcd.url, '-n', name, '--id', id, '--listen', '0', ...RENEWING, ...flags, '--', ...SLEEP]);

  test('/leader, /readyz and /livez are each candidate’s own view', async () => {
    const leader = stand('views', 'first');
    const { token, id } = await leader.event('elected');
    const standby = stand('views', 'second');
    await standby.event('standby');
    const picky = stand('views', 'third', '--ready-on', 'leader');
    await picky.event('standby');

    const since = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    expect(await getJson(leader, '/leader')).toEqual({ name: id, id, leading: true, token, since });
    expect(await getJson(standby, '/leader')).toMatchObject({ name: id, leading: false, token: null });
    expect(await get(leader, '/readyz')).toMatchObject({ status: 200, text: 'leading\n' });
    expect(await get(standby, '/readyz')).toMatchObject({ status: 200, text: `standing by: ${id} leads\n` });
    expect(await get(picky, '/readyz')).toMatchObject({ status: 503, text: `standing by: ${id} leads\n` });
    for (const one of [leader, standby, picky])
      expect(await get(one, '/livez')).toMatchObject({ status: 200, text: 'ok\n' });
  });

  test('one that has not reached the store yet is alive, not ready, and knows no leader', async () => {
    const run = elect(['-b', 'etcd://127.0.0.1:1', '-n', 'x', '--listen', '0', '--', ...SLEEP]);
    await run.event('unreachable');
    expect((await get(run, '/livez')).status).toBe(200);
    expect(await get(run, '/readyz')).toMatchObject({ status: 503, text: expect.stringMatching(/cannot be reached/) });
    expect(await getJson(run, '/leader')).toMatchObject({ name: '', leading: false, token: null, since: null });
  });

  test('after kill -9 of the leader the next one shows who led before, the gap, and itself', async () => {
    const leader = stand('gap', 'first');
    const { id } = await leader.event('elected');
    const standby = stand('gap', 'second');
    await standby.event('standby');
    expect(await metricsOf(standby)).toMatchObject({ elect_run_leader: 0, elect_run_transitions_total: 0 });
    leader.kill('SIGKILL');
    const elected = await standby.event('elected');
    expect(elected.leaderlessMs).toBeGreaterThanOrEqual(0);
    const { spans } = (await getJson(standby, '/state.json')) as { spans: Span[] };
    const led = spans.map(({ kind, leader }) => [kind, leader]).filter(([kind]) => kind !== 'unknown');
    expect(led).toEqual([
      ['leader', id],
      ['nobody', null],
      ['leader', elected.id],
    ]);
    for (const [index, span] of spans.slice(1).entries()) expect(span.fromMs).toBe(spans[index]!.toMs);
    const metrics = await metricsOf(standby);
    expect(metrics).toMatchObject({ elect_run_leader: 1, elect_run_transitions_total: 1 });
    expect(metrics.elect_run_token).toBe(Number(elected.token));
    expect(metrics[`elect_run_leader_info{leader="${elected.id}",token="${elected.token}"}`]).toBe(1);
    expect(metrics.elect_run_leaderless_seconds_total).toBeGreaterThan(0);
    expect(metrics.elect_run_leaderless_seconds_total).toBeLessThan(2);
  });

  test('a leader that is deposed and stands again counts the loss, the child that was stopped, and the gap', async () => {
    const run = stand('again', 'first', '--on-lost', 'rejoin');
    await run.event('started');
    const [ours] = await etcd.line('again');
    await etcd.etcdctl('del', ours!.key);
    const deposed = await run.event('deposed');
    await run.event('started', { after: deposed });
    expect(await metricsOf(run)).toMatchObject({
      elect_run_leader: 1,
      elect_run_transitions_total: 2,
      elect_run_child_starts_total: 2,
      'elect_run_child_exits_total{cause="lost"}': 1,
      'elect_run_child_exits_total{cause="signal"}': 0,
      elect_run_campaign_duration_seconds_count: 2,
    });
    const { spans } = (await getJson(run, '/state.json')) as { spans: Span[] };
    expect(spans.map(({ kind }) => kind).slice(-3)).toEqual(['leader', 'nobody', 'leader']);
  });

  test('renewals are measured against their budget, and doubt is counted', async () => {
    const run = stand('renewals', 'first');
    await run.event('renewed', { after: await run.event('renewed') });
    const before = await metricsOf(run);
    expect(before.elect_run_renewal_duration_seconds_count).toBeGreaterThanOrEqual(2);
    expect(before.elect_run_renewal_budget_seconds).toBe(1);
    expect(before.elect_run_last_renewal_age_seconds).toBeLessThan(2);
    await etcd.members[0]!.freeze();
    await run.event('suspended');
    expect(await metricsOf(run)).toMatchObject({ elect_run_leader: 1, elect_run_suspensions_total: 1 });
    await untilMetric(run, 'elect_run_last_renewal_age_seconds', (age) => age > 1.5);
    expect(await getJson(run, '/state.json')).toMatchObject({ state: 'suspended', leads: true });
    etcd.members[0]!.thaw();
    await run.event('resumed');
    await untilMetric(run, 'elect_run_last_renewal_age_seconds', (age) => age < 1.5);
  });

  test('a standby is not ready while the store is away, and ready again when it is back, with the same leader', async () => {
    const leader = stand('away', 'first', '--ttl', '60s');
    const { id } = await leader.event('elected');
    const standby = stand('away', 'second');
    await standby.event('standby');
    await etcd.members[0]!.kill();
    const away = await standby.event('unreachable', { timeoutMs: 40_000 }); // it looks again after 10 to 15 s
    expect((await get(standby, '/readyz')).status).toBe(503);
    expect((await get(standby, '/livez')).status).toBe(200);
    await etcd.heal();
    await standby.event('standby', { after: away });
    expect(await get(standby, '/readyz')).toMatchObject({ status: 200, text: `standing by: ${id} leads\n` });
    expect((await metricsOf(standby)).elect_run_transitions_total).toBe(0);
  });

  test('everything is answered at once while the store does not answer', async () => {
    const leader = stand('frozen', 'first', '--ttl', '30s');
    await leader.event('started');
    const standby = stand('frozen', 'second', '--ttl', '30s');
    await standby.event('standby');
    await etcd.members[0]!.freeze();
    for (const candidate of [leader, standby])
      for (const path of PATHS) {
        const askedAt = performance.now();
        expect((await get(candidate, path)).text).not.toBe('');
        expect(performance.now() - askedAt).toBeLessThan(1000);
      }
  });

  test('another candidate’s name of control characters and HTML is harmless in each answer, and in the log', async () => {
    const evil = `<img src=x onerror=alert(1)>"\\\u001b[31m\n\u202e\u2028{{ROWS}}</script>`;
    await etcd.etcdctl('put', 'evil/1', evil);
    const run = elect(['-b', etcd.url, '-n', 'evil', '--listen', '0', '--', ...SLEEP]);
    await run.event('standby');
    for (const path of PATHS) {
      const { text } = await get(run, path);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028]/);
    }
    expect((await getJson(run, '/leader')).name).toMatch(/^<img src=x onerror=alert\(1\)>"\\\?\[31m\?/);
    const { text } = await get(run, '/');
    expect(text).not.toContain('<img');
    expect(text).toContain('&#60;img src=x onerror=alert(1)&#62;');
    expect(text).toContain('&#123;&#123;ROWS');
    const metrics = await get(run, '/metrics');
    expect(metrics.text.match(/^elect_run_leader_info.*$/gm)).toHaveLength(1);
    expect(metrics.text).toMatch(
      /^elect_run_leader_info\{leader="<img src=x onerror=alert\(1\)>\\"\\\\\?\[31m\?.*\} 1$/m,
    );
  });

  test('another candidate’s name of a hundred thousand characters is cut', async () => {
    await etcd.etcdctl('put', 'long/1', 'x'.repeat(100_000));
    const standby = elect(['-b', etcd.url, '-n', 'long', '--listen', '0', '--', ...SLEEP]);
    await standby.event('standby');
    for (const path of PATHS) expect((await get(standby, path)).text.length).toBeLessThan(30_000);
  });

  describe('a hostile client', () => {
    let leader: Elect;
    let url: string;

    async function lead(name: string): Promise<void> {
      leader = stand(name, 'first');
      await leader.event('started');
      url = await urlOf(leader);
    }

    /** Renewals go on, none was late enough for a doubt, and the others are answered. */
    async function isUnharmed(): Promise<void> {
      await leader.event('renewed', { after: leader.events.at(-1)! });
      const types = leader.events.map(({ event }) => event);
      for (const type of ['suspended', 'stepping-down', 'deposed', 'failed']) expect(types).not.toContain(type);
      expect((await get(leader, '/livez')).status).toBe(200);
    }

    const holdsNoMoreThan = (count: number, withinMs: number) =>
      until(() => socketsOf(leader.pid).length <= count, `no more than ${count} sockets are open`, withinMs);

    test('with a thousand connections that say nothing does not keep others out', async () => {
      await lead('thousand');
      const before = socketsOf(leader.pid).length;
      for (let count = 0; count < 1000; count++) {
        await rawClient(url);
        if (count % 100 === 0) expect((await get(leader, '/livez')).status).toBe(200);
      }
      await holdsNoMoreThan(before + 64, 3000); // silence alone is cut off after 5 s
      await isUnharmed();
    });

    test('that sends its request by drops is cut off', async () => {
      await lead('slow');
      const slow = await rawClient(url);
      slow.write('GET / HTTP/1.1\r\nHost: localhost\r\n');
      const dripping = setInterval(() => slow.write('X-Drop: 1\r\n'), 200);
      onTestFinished(() => clearInterval(dripping));
      await until(() => slow.isOver, 'it is cut off', 15_000);
      expect(slow.heard).not.toContain('200 OK');
      await isUnharmed();
    });

    test('that does not read its answers is cut off', async () => {
      await lead('deaf');
      const before = socketsOf(leader.pid).length;
      for (let count = 0; count < 50; count++) {
        const deaf = await rawClient(url);
        deaf.pause();
        deaf.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
      }
      await holdsNoMoreThan(before, 15_000);
      await isUnharmed();
    });

    // What is not read when the server hangs up turns into a reset, which may overtake the answer (RFC 1122, 4.2.2.13).
    const CUT_SHORT = /^(HTTP\/1.1 431 |$)/;
    test.each([
      [
        'more than 8 kB of header',
        () => `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(9000)}\r\n\r\n`,
        /^HTTP\/1.1 431 /,
      ],
      ['ten megabytes of header', () => `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(10_000_000)}\r\n\r\n`, CUT_SHORT],
      ['ten megabytes of path', () => `GET /${'x'.repeat(10_000_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, CUT_SHORT],
      ['garbage', () => '\u0000\u0001\u0002\r\n\r\n'.repeat(1000), /^HTTP\/1.1 400 /],
      ['TLS', () => '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003', /^HTTP\/1.1 400 /],
      ['a request without a host', () => 'GET / HTTP/1.1\r\n\r\n', /^HTTP\/1.1 400 /],
      [
        'a body without an end',
        () => `POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`,
        /^HTTP\/1.1 405 /,
      ],
      [
        'two lengths',
        () => 'GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
        /^HTTP\/1.1 400 /,
      ],
      ['CONNECT', () => 'CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n', /^$/],
      [
        'a path that leads out',
        () => 'GET /../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n',
        /^HTTP\/1.1 404 /,
      ],
      ['one of Object’s own', () => 'GET __proto__ HTTP/1.1\r\nHost: localhost\r\n\r\n', /^HTTP\/1.1 40[04] /],
      ['a URL for a path', () => 'GET http://example.org/ HTTP/1.1\r\nHost: localhost\r\n\r\n', /^HTTP\/1.1 404 /],
    ])('that sends %s gets its answer, or none, and is cut off', async (_what, text, answer) => {
      await lead('garbage');
      const client = await rawClient(url);
      client.write(Buffer.from(text(), 'latin1'));
      await until(() => client.isOver, 'it is cut off', 15_000);
      expect(client.heard).toMatch(answer);
      expect(client.heard).not.toContain('root:');
      await isUnharmed();
    });

    test('that sends ten thousand requests in advance gets one answer', async () => {
      await lead('pipeline');
      const client = await rawClient(url);
      client.write('GET /state.json HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(10_000));
      await until(() => client.isOver, 'it is cut off');
      expect(client.heard.match(/HTTP\/1\.1 200 OK/g)?.length ?? 0).toBeLessThanOrEqual(1);
      await isUnharmed();
    });

    test('that asks as fast as it can does not keep renewals from being confirmed', async () => {
      await lead('flood');
      let isOver = false;
      const asking = Array.from({ length: 20 }, async () => {
        while (!isOver) await ask(url, '/metrics').catch(() => {});
      });
      let renewed = await leader.event('renewed');
      for (let count = 0; count < 5; count++) renewed = await leader.event('renewed', { after: renewed });
      isOver = true;
      await Promise.all(asking);
      await isUnharmed();
    });

    test.each(['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PATCH', 'PROPFIND'])(
      'with %s gets 405',
      async (method) => {
        await lead('verbs');
        for (const path of ['/', '/nowhere'])
          expect(await ask(url, path, { method })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } });
        await isUnharmed();
      },
    );

    test('whose name resolves to the loopback is refused: a web page elsewhere cannot read here', async () => {
      await lead('rebinding');
      for (const host of ['evil.example', 'evil.example:80', '127.0.0.1.evil.example'])
        expect((await ask(url, '/leader', { host })).status).toBe(403);
      for (const host of ['localhost', '127.0.0.1', '[::1]:9100'])
        expect((await ask(url, '/leader', { host })).status).toBe(200);
    });

    test('does not hold up the end', async () => {
      await lead('end');
      for (let count = 0; count < 50; count++) (await rawClient(url)).write('GET / HTTP/1.1\r\n');
      const askedAt = performance.now();
      leader.kill('SIGTERM');
      expect((await leader.ended).code).toBe(143);
      expect(performance.now() - askedAt).toBeLessThan(2000);
    });
  });
});

describe('--listen', () => {
  test.each([
    ['success', 'exit 0'],
    ['failure', 'exit 3'],
    ['signal', 'kill -9 $$'],
  ])('counts an end of the command: %s', async (cause, job) => {
    const run = onFile(['sh', '-c', job], '--hold', '1h');
    await run.event('holding');
    const metrics = await metricsOf(run);
    expect(metrics.elect_run_child_starts_total).toBe(1);
    const counts = Object.entries(metrics).filter(([name]) => name.startsWith('elect_run_child_exits_total'));
    expect(counts.filter(([, count]) => count > 0)).toEqual([[`elect_run_child_exits_total{cause="${cause}"}`, 1]]);
  });

  test('tells an end for the sake of --stop-timeout from others', async () => {
    const job = ['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done'];
    const run = onFile(job, '--stop-timeout', '100ms');
    await run.prints('ready');
    run.kill('SIGTERM');
    expect(await run.event('ended')).toMatchObject({ signal: 'SIGKILL', stopTimedOut: true });
  });

  test('counts what the command leaves behind', async () => {
    const run = onFile(['sh', '-c', 'sleep 1000 & sleep 1000 &'], '--hold', '1h');
    await run.event('holding');
    expect((await metricsOf(run)).elect_run_leftover_processes_total).toBe(2);
  });

  test('shows the runs of a schedule with their slots', async () => {
    const run = onFile(['sh', '-c', 'exit 3'], '--schedule', '* * * * * *');
    const { slot } = await run.event('started');
    await run.event('ended');
    const { runs } = (await getJson(run, '/state.json')) as { runs: { slot: string }[] };
    expect(runs.find((one) => one.slot === slot)).toMatchObject({ status: 3, cause: 'failure', token: '1' });
  });

  test('answers HEAD as GET, without the body; every answer is for nobody’s cache, and allows nothing to run', async () => {
    const run = onFile(SLEEP);
    const url = await urlOf(run);
    await run.event('started'); // /readyz has another status before
    for (const path of [...PATHS, '/nowhere']) {
      const got = await ask(url, path);
      const head = await ask(url, path, { method: 'HEAD' });
      expect([head.status, head.text]).toEqual([got.status, '']);
      expect(got.headers).toMatchObject({
        'cache-control': 'no-store',
        'x-content-type-options': 'nosniff',
        'content-security-policy': expect.stringMatching(/^default-src 'none'; (?!.*unsafe)/),
      });
    }
    expect((await ask(url, '/nowhere')).status).toBe(404);
  });

  test('is of the loopback unless said otherwise', async () => {
    const port = await freePort();
    for (const [address, url] of [
      [String(port), `http://127.0.0.1:${port}/`],
      [`:${port}`, `http://127.0.0.1:${port}/`],
      [`0.0.0.0:${port}`, `http://0.0.0.0:${port}/`],
      [`localhost:${port}`, expect.stringMatching(/^http:\/\/(127\.0\.0\.1|\[::1\]):\d+\/$/)],
    ] as const) {
      const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--listen', address, '--', 'true']);
      expect((await run.event('listening')).url).toEqual(url);
      expect((await run.ended).code).toBe(0);
    }
  });

  test('as a variable; the command does not get it, so that an elect-run in it does not want the same port', async () => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', 'env'], { env: { ELECT_RUN_LISTEN: '0' } });
    await run.event('listening');
    expect((await run.ended).stdout.toString()).not.toContain('ELECT_RUN_LISTEN');
  });

  test('of a port that is in use: 64, before anything is asked of the store', async () => {
    const port = await freePort();
    const taken = createServer().listen(port, '127.0.0.1');
    onTestFinished(() => void taken.close());
    const run = elect(['-b', 'etcd://127.0.0.1:1', '-n', 'x', '--listen', String(port), '--', 'true']);
    expect((await run.ended).code).toBe(64);
    expect(run.events.map(({ event, message }) => [event, message])).toEqual([
      ['failed', `--listen 127.0.0.1:${port} is in use already; choose another port, or 0 for any that is free`],
    ]);
  });

  test('of an address that is not this host’s: 64', async () => {
    const run = elect(['-b', 'etcd://127.0.0.1:1', '-n', 'x', '--listen', '192.0.2.1:9100', '--', 'true']);
    expect((await run.ended).code).toBe(64);
    expect(run.stderr).toContain('192.0.2.1 is no address of this host');
  });

  test('is not inherited by the command', async () => {
    const run = onFile(SLEEP);
    const { pid } = await run.event('started');
    expect(listenersOf(run.pid)).toHaveLength(1);
    expect(listenersOf(Number(pid))).toEqual([]);
  });

  test('keeps nothing alive when the command has ended', async () => {
    expect((await onFile(['sh', '-c', 'exit 5']).ended).code).toBe(5);
  });

  test('is off by default: nothing listens', async () => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', ...SLEEP]);
    await run.event('started');
    expect(listenersOf(run.pid)).toEqual([]);
  });
});

describeWith(['promtool'], '/metrics', () => {
  test('is what Prometheus reads, without a fault that promtool finds', async () => {
    const run = onFile(SLEEP);
    await run.event('started');
    const { text, headers } = await get(run, '/metrics');
    expect(headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(execFileSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })).toBe('');
    for (const line of text.split('\n').filter((one) => one && !one.startsWith('#')))
      expect(line).toMatch(/^elect_run_\w+\{.*election="job",backend="file:[^"]*"\} [\d.e+-]+$/);
  });
});
