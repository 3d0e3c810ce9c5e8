import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { BIN, elect, endAll, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { allPids, commandLine, processesWith } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

afterEach(endAll);
afterAll(stopServers);

const SHOW = [NODE, '-p', 'JSON.stringify(process.env)'];

async function environment(
  args: string[],
  env: NodeJS.ProcessEnv = {},
  command = SHOW,
): Promise<Record<string, string>> {
  const { stdout, code, stderr } = await elect([...args, '--', ...command], { env }).ended;
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout.toString());
}

describe('the child’s environment', () => {
  test('has the token, the election, the identity, the backend and the ttl', async () => {
    const dir = scratch();
    const env = await environment(['-b', `file:${dir}`, '-n', 'nightly', '--ttl', '12s']);
    expect(env).toMatchObject({
      FENCING_TOKEN: expect.stringMatching(/^[1-9]\d*$/),
      ELECT_RUN_ELECTION: 'nightly',
      ELECT_RUN_BACKEND: `file:${dir}`,
      ELECT_RUN_TTL_MS: '12000',
    });
    expect(env.ELECT_RUN_ID).toContain(hostname());
  });

  test('has a token that grows from run to run', async () => {
    const dir = scratch();
    const tokens: bigint[] = [];
    for (let run = 0; run < 4; run++) {
      tokens.push(BigInt((await environment(['-b', `file:${dir}`, '-n', 'job'])).FENCING_TOKEN!));
    }
    expect(tokens).toEqual([...new Set(tokens)].sort((a, b) => (a < b ? -1 : 1)));
  });

  test('has an identity that is unique to the process, with the label of --id', async () => {
    const args = ['-b', `file:${scratch()}`, '-n', 'job', '--id', 'blue'];
    const ids = [(await environment(args)).ELECT_RUN_ID, (await environment(args)).ELECT_RUN_ID];
    expect(ids[0]).toMatch(/^blue-/);
    expect(ids[1]).toMatch(/^blue-/);
    expect(ids[0]).not.toBe(ids[1]);
  });

  test('has the same token and identity as the events', async () => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', ...SHOW]);
    const env = JSON.parse((await run.ended).stdout.toString());
    expect(await run.event('elected')).toMatchObject({ token: env.FENCING_TOKEN, id: env.ELECT_RUN_ID, ttlMs: 15_000 });
  });

  test('has everything else as it was', async () => {
    const extra = { SOME_THING: 'a=b\nc', EMPTY: '', PATH: process.env.PATH };
    expect(await environment(['-b', `file:${scratch()}`, '-n', 'job'], extra)).toMatchObject(extra);
  });

  test('has our token and not an inherited one', async () => {
    const inherited = { FENCING_TOKEN: '999999', ELECT_RUN_ELECTION: 'other', ELECT_RUN_TTL_MS: '1' };
    const env = await environment(['-b', `file:${scratch()}`, '-n', 'job'], inherited);
    expect(env).toMatchObject({ FENCING_TOKEN: '1', ELECT_RUN_ELECTION: 'job', ELECT_RUN_TTL_MS: '15000' });
  });

  test('of an elect-run inside an elect-run is that of the inner one', async () => {
    const [outer, inner] = [scratch(), scratch()];
    await environment(['-b', `file:${inner}`, '-n', 'inner']);
    const nested = [NODE, BIN, '-b', `file:${inner}`, '-n', 'inner', '--ttl', '6s', '--', ...SHOW];
    const env = await environment(['-b', `file:${outer}`, '-n', 'outer'], {}, nested);
    expect(env).toMatchObject({
      FENCING_TOKEN: '2',
      ELECT_RUN_ELECTION: 'inner',
      ELECT_RUN_BACKEND: `file:${inner}`,
      ELECT_RUN_TTL_MS: '6000',
    });
  });

  test('has nothing of the service manager’s', async () => {
    const manager = { NOTIFY_SOCKET: '/run/systemd/notify', WATCHDOG_USEC: '1000000', WATCHDOG_PID: '1' };
    const env = await environment(['-b', `file:${scratch()}`, '-n', 'job'], manager);
    for (const name of Object.keys(manager)) expect(env).not.toHaveProperty(name);
  });
});

const PASSWORD = 'rootpw';

describeWith(['etcd', 'etcdctl'], 'the password of a store', () => {
  const shownBy = async (args: (etcd: Etcd) => string[], env: (etcd: Etcd) => NodeJS.ProcessEnv) => {
    const etcd = await Etcd.start({ auth: true });
    const mark = `TEST_MARK=${etcd.folder}`;
    const job = ['sh', '-c', 'echo "backend $ELECT_RUN_BACKEND"; env | sort; echo ready; read end'];
    const run = elect([...args(etcd), '-n', 'jobs/x', '-v', '-v', '--', ...job], {
      env: { TEST_MARK: etcd.folder, ...env(etcd) },
      stdin: 'pipe',
    });
    await run.prints('ready');
    const ours = processesWith(mark);
    expect(ours.length).toBeGreaterThanOrEqual(3); // elect-run, its guard, the job
    const commandLines = allPids()
      .filter((pid) => ours.includes(pid))
      .map((pid) => commandLine(pid).join(' '));
    const ownTitle = readFileSync(`/proc/${run.pid}/cmdline`, 'utf8');
    run.process.stdin!.end('\n');
    const { code, stderr, stdout } = await run.ended;
    expect(code, stderr).toBe(0);
    return { endpoint: etcd.endpoints[0], stdout: stdout.toString(), stderr, commandLines, ownTitle };
  };

  test('in ELECT_RUN_BACKEND is shown to nobody', async () => {
    const shown = await shownBy(
      () => [],
      (etcd) => ({ ELECT_RUN_BACKEND: `etcd://root:${PASSWORD}@${etcd.endpoints[0]}` }),
    );
    expect(shown.stdout).toContain(`backend etcd://${shown.endpoint}\n`);
    expect(JSON.stringify(shown)).not.toContain(PASSWORD);
  });

  test('in --backend is not handed on', async () => {
    const shown = await shownBy(
      (etcd) => ['-b', `etcd://root:${PASSWORD}@${etcd.endpoints[0]}`],
      () => ({}),
    );
    const { stdout, stderr } = shown;
    expect(stdout + stderr).not.toContain(PASSWORD);
    expect(
      shown.commandLines.filter(
        (line) => line.includes(PASSWORD) && line !== shown.ownTitle.replaceAll('\0', ' ').trim(),
      ),
    ).toEqual([]);
  });

  test('in --backend is not in the process title', async () => {
    const shown = await shownBy(
      (etcd) => ['-b', `etcd://root:${PASSWORD}@${etcd.endpoints[0]}`],
      () => ({}),
    );
    expect(shown.ownTitle).not.toContain(PASSWORD);
  });

  test('in ELECT_RUN_USER is shown to nobody', async () => {
    const shown = await shownBy(
      (etcd) => ['-b', etcd.url],
      () => ({ ELECT_RUN_USER: `root:${PASSWORD}` }),
    );
    expect(JSON.stringify(shown)).not.toContain(PASSWORD);
  });
});
