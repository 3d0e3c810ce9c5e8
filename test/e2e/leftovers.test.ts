import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { alive, processesWith, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';

afterEach(endAll);

/** Takes a kernel lock that is free only when the whole tree of the last job is dead. */
const locked = (dir: string, then: string) =>
  `exec 9>>'${dir}/work' </dev/null; flock --nonblock 9 || { echo overlap; exit 99; }; ${then}`;

describe('what the child leaves running', () => {
  test.each([
    ['a background process', 'sleep 1000 &'],
    ['a process in a session of its own', 'setsid sleep 1000 &'],
    ['a double fork', '(setsid --fork sh -c "sleep 1000 & sleep 1000") &'],
    ['a process without our environment', 'env -i setsid sleep 1000 &'],
    ['a process that ignores TERM', 'setsid sh -c \'trap "" TERM HUP INT; while :; do sleep 1; done\' &'],
  ])('is ended before the next candidate starts: %s', async (_name, leave) => {
    const dir = scratch();
    const args = ['-b', `file:${dir}/locks`, '-n', 'job', '--grace', '500ms', '--', 'sh', '-c'];
    // It ends when both ends of the pipe are open: when the second one stands by.
    execFileSync('mkfifo', [`${dir}/go`]);
    const first = elect([...args, locked(dir, `${leave} read go <'${dir}/go'; exit 5`)]);
    await first.event('started');
    const second = elect([...args, locked(dir, 'exit 6')]);
    await second.event('standby');
    writeFileSync(`${dir}/go`, 'go\n');
    expect(await first.ended).toMatchObject({ code: 5 });
    expect((await first.event('leftovers')).pids).not.toEqual([]);
    expect(await second.ended).toMatchObject({ code: 6, stdout: Buffer.alloc(0) });
  });

  test('is told by an event, with its pids, and is dead when elect-run ends', async () => {
    const args = ['-b', `file:${scratch()}`, '-n', 'job', '--', 'sh', '-c'];
    const run = elect([...args, 'setsid sleep 1000 >/dev/null 2>&1 & echo $!; exit 5']);
    const { code, stdout } = await run.ended;
    const pid = Number(stdout.toString());
    expect(code).toBe(5);
    expect(await run.event('leftovers')).toMatchObject({ pids: [pid] });
    expect(alive(pid)).toBe(false);
    expect(run.events.map(({ event }) => event).slice(-3)).toEqual(['ended', 'leftovers', 'resigned']);
  });

  test('is asked by TERM first', async () => {
    const file = join(scratch(), 'asked');
    const polite = `trap "touch '${file}'; exit" TERM; touch '${file}.ready'; while :; do sleep 0.05; done`;
    const job = `setsid sh -c '${polite.replaceAll("'", `'"'"'`)}' & while [ ! -e '${file}.ready' ]; do sleep 0.05; done`;
    expect((await elect(['-b', `file:${scratch()}`, '-n', 'job', '--', 'sh', '-c', job]).ended).code).toBe(0);
    expect(readdirSync(join(file, '..')).sort()).toEqual(['asked', 'asked.ready']);
  });
});

describe('elect-run leaves nothing behind', () => {
  /** All directories in which a program might put files are empty ones, and every process carries a mark. */
  function room() {
    const dir = scratch();
    const home = scratch();
    const cache = scratch();
    const mark = home;
    const env = {
      HOME: home,
      TMPDIR: home,
      XDG_STATE_HOME: home,
      XDG_CACHE_HOME: cache,
      XDG_RUNTIME_DIR: home,
      TEST_MARK: mark,
    };
    const check = async () => {
      await until(() => processesWith(`TEST_MARK=${mark}`).length === 0, 'the end of every process');
      expect(readdirSync(home)).toEqual([]);
      // Compiled code, for the next run.
      expect(readdirSync(cache).filter((name) => name !== 'elect-run')).toEqual([]);
    };
    return { dir, cache, args: ['-b', `file:${dir}`, '-n', 'job'], options: { env, cwd: home }, check };
  }

  test('after a success', async () => {
    const { dir, args, options, check } = room();
    expect((await elect([...args, '--', 'true'], options).ended).code).toBe(0);
    expect(readdirSync(dir).sort()).toEqual(['job.lock', 'job.token']);
    await check();
  });

  test('after many runs, not more than after one', async () => {
    const { dir, cache, args, options, check } = room();
    const run = () => elect([...args, '--', 'true'], options).ended;
    await run();
    const kept = readdirSync(cache, { recursive: true }).length;
    for (let again = 0; again < 4; again++) await run();
    expect(readdirSync(cache, { recursive: true })).toHaveLength(kept);
    expect(readdirSync(dir).sort()).toEqual(['job.lock', 'job.token']);
    await check();
  });

  test('in a cache that somebody else could write to, and does without one', async () => {
    const { cache, args, options, check } = room();
    mkdirSync(join(cache, 'elect-run'));
    chmodSync(join(cache, 'elect-run'), 0o777);
    expect((await elect([...args, '--', 'true'], options).ended).code).toBe(0);
    expect(readdirSync(join(cache, 'elect-run'))).toEqual([]);
    await check();
  });

  test('where no cache can be kept', async () => {
    const { args, options, check } = room();
    const env = { ...options.env, XDG_CACHE_HOME: '/dev/null' };
    expect((await elect([...args, '--', 'true'], { ...options, env }).ended).code).toBe(0);
    await check();
  });

  test('after a failure of the child', async () => {
    const { args, options, check } = room();
    expect((await elect([...args, '--', 'false'], options).ended).code).toBe(1);
    await check();
  });

  test('after bad input', async () => {
    const { dir, args, options, check } = room();
    expect((await elect([...args, '--ttl', '15', '--', 'true'], options).ended).code).toBe(64);
    expect(readdirSync(dir)).toEqual([]);
    await check();
  });

  test('after not having been elected', async () => {
    const { args, options, check } = room();
    const holder = elect([...args, '--', 'sleep', '1000']);
    await holder.event('started');
    expect((await elect([...args, '--no-wait', '--', 'true'], options).ended).code).toBe(75);
    expect((await elect([...args, '--wait', '300ms', '--', 'true'], options).ended).code).toBe(75);
    await check();
  });

  test('after a signal that ended the child', async () => {
    const { args, options, check } = room();
    const run = elect([...args, '--', 'sleep', '1000'], options);
    await run.event('started');
    run.kill('SIGTERM');
    expect((await run.ended).code).toBe(143);
    await check();
  });

  test('after a signal that ended a standby', async () => {
    const { args, options, check } = room();
    const holder = elect([...args, '--', 'sleep', '1000']);
    await holder.event('started');
    const standby = elect([...args, '--', 'true'], options);
    await standby.event('standby');
    standby.kill('SIGTERM');
    expect((await standby.ended).code).toBe(143);
    await check();
  });

  test('after a loss', async () => {
    const { dir, args, options, check } = room();
    const run = elect([...args, '--', 'sh', '-c', `rm '${dir}/job.lock'; sleep 1000`], options);
    expect((await run.ended).code).toBe(79);
    await check();
  });

  test('after kill -9', async () => {
    const { args, options, check } = room();
    const run = elect([...args, '--', 'sh', '-c', 'setsid sleep 1000 & sleep 1000'], options);
    await run.event('started');
    run.kill('SIGKILL');
    await run.ended;
    await check();
  });
});
