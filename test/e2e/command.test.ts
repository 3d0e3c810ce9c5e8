import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { scratch, script } from '../helpers/scratch.ts';

afterEach(endAll);

const REFUSED = ['not found in PATH', 'no such file', 'permission denied', 'it is a directory'];

describe('the command', () => {
  test('is found in PATH', async () => {
    const dir = scratch();
    script(dir, 'my-job', '#!/bin/sh\necho found\n');
    const env = { PATH: `${dir}:${process.env.PATH}` };
    const { code, stdout } = await elect(['-b', `file:${dir}`, '--', 'my-job'], { env }).ended;
    expect(stdout.toString()).toBe('found\n');
    expect(code).toBe(0);
  });

  test('is found by a relative path, from the directory in which elect-run was started', async () => {
    const dir = scratch();
    script(dir, 'job.sh', '#!/bin/sh\npwd\n');
    const { code, stdout } = await elect(['-b', 'file:locks', '--', './job.sh'], { cwd: dir }).ended;
    expect(stdout.toString()).toBe(`${dir}\n`);
    expect(code).toBe(0);
  });

  test('may be a script without a shebang', async () => {
    const dir = scratch();
    const file = script(dir, 'job', 'echo "plain $1"\nexit 6\n');
    const { code, stdout } = await elect(['-b', `file:${dir}`, '--', file, 'words']).ended;
    expect(stdout.toString()).toBe('plain words\n');
    expect(code).toBe(6);
  });

  test('gives the election its base name', async () => {
    const dir = scratch();
    const run = elect(['-b', `file:${dir}`, '--', script(dir, 'nightly.sh', '#!/bin/sh\n')]);
    await run.ended;
    expect(await run.event('elected')).toMatchObject({ election: 'nightly.sh' });
  });

  test('that is a link gives the election the name of the link', async () => {
    const dir = scratch();
    symlinkSync(script(dir, 'job.sh', '#!/bin/sh\n'), join(dir, 'nightly'));
    const run = elect(['-b', `file:${dir}`, '--', join(dir, 'nightly')]);
    await run.ended;
    expect(await run.event('elected')).toMatchObject({ election: 'nightly' });
  });

  test('that cannot be executed further ahead in PATH is passed over', async () => {
    const [first, second] = [scratch(), scratch()];
    script(first, 'my-job', '', 0o644);
    mkdirSync(join(first, 'other-job'));
    script(second, 'my-job', '#!/bin/sh\nexit 3\n');
    const env = { PATH: `${first}:${second}:${process.env.PATH}` };
    expect((await elect(['-b', `file:${second}`, '--', 'my-job'], { env }).ended).code).toBe(3);
  });

  test('that is gone by the time at which it would start gives 127, and the next one leads', async () => {
    const dir = scratch();
    const leader = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'sleep', '1000']);
    await leader.event('started');
    const standby = elect(['-b', `file:${dir}`, '-n', 'job', '--', script(dir, 'my-job', '#!/bin/sh\ntrue\n')]);
    await standby.event('standby');
    rmSync(join(dir, 'my-job'));
    leader.process.kill('SIGTERM');
    expect((await standby.ended).code).toBe(127);
    expect((await elect(['-b', `file:${dir}`, '-n', 'job', '--no-wait', '--', 'true']).ended).code).toBe(0);
  });

  test('runs where setpriv(1) does not know the option that it is used for', async () => {
    const dir = scratch();
    script(dir, 'setpriv', '#!/bin/sh\necho "setpriv: unrecognized option" >&2\nexit 1\n'); // util-linux before 2.33
    const env = { PATH: `${dir}:${process.env.PATH}` };
    const run = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'sh', '-c', 'echo here; exit 5'], { env });
    const { code, stdout, stderr } = await run.ended;
    expect(stdout.toString()).toBe('here\n');
    expect(stderr).not.toContain('unrecognized');
    expect(code).toBe(5);
  });

  test('whose interpreter is missing gives 126 or 127, as execvp does', async () => {
    const dir = scratch();
    const file = script(dir, 'job', '#!/no/such/interpreter\n');
    const { code, stderr } = await elect(['-b', `file:${dir}`, '--', file]).ended;
    expect(code).toBe(127);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  test.each(['sh', 'bash', 'python3', '/usr/bin/env', 'node', 'sudo', 'java', 'timeout'])(
    '%s, which only launches others, needs a name for the election',
    async (launcher) => {
      const { code, stderr } = await elect(['-b', `file:${scratch()}`, '--', launcher, 'x']).ended;
      expect(code).toBe(64);
      expect(JSON.parse(stderr)).toMatchObject({
        event: 'failed',
        message: expect.stringMatching(/-n, --name .*needed/),
      });
    },
  );
});

interface Case {
  name: string;
  command: (dir: string) => string;
  code: number;
  says: string;
}

const CASES: Case[] = [
  { name: 'a name that is not in PATH', command: () => 'no-such-command-x', code: 127, says: 'not found in PATH' },
  { name: 'a path at which nothing is', command: (dir) => join(dir, 'nothing'), code: 127, says: 'no such file' },
  { name: 'a file taken for a directory', command: (dir) => join(dir, 'plain/job'), code: 127, says: 'no such file' },
  { name: 'a file without the x bit', command: (dir) => join(dir, 'plain'), code: 126, says: 'permission denied' },
  { name: 'a name in PATH without the x bit', command: () => 'plain', code: 126, says: 'permission denied' },
  { name: 'a directory', command: (dir) => join(dir, 'folder'), code: 126, says: 'it is a directory' },
  { name: 'a word that looks like an option', command: () => '--ttl', code: 127, says: 'not found in PATH' },
  { name: 'an empty word', command: () => '', code: 127, says: 'not found' },
];

describe.each(CASES)('$name', ({ command, code, says }) => {
  const prepare = () => {
    const dir = scratch();
    writeFileSync(join(dir, 'plain'), 'echo\n');
    chmodSync(join(dir, 'plain'), 0o644);
    mkdirSync(join(dir, 'folder'));
    return { dir, env: { PATH: `${dir}:${process.env.PATH}` } };
  };

  test(`gives ${code}, with one line that says why`, async () => {
    const { dir, env } = prepare();
    const run = elect(['-b', `file:${join(dir, 'locks')}`, '-n', 'job', '--', command(dir)], { env });
    const ended = await run.ended;
    expect(ended.code).toBe(code);
    expect(ended.stdout).toHaveLength(0);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
    expect(run.events[0]).toMatchObject({ event: 'failed', message: expect.stringContaining(says) });
    expect(REFUSED.filter((reason) => ended.stderr.includes(reason))).toHaveLength(1);
  });

  test('is told before campaigning, also while somebody else leads', async () => {
    const { dir, env } = prepare();
    const holder = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'sleep', '1000']);
    await holder.event('started');
    const run = elect(['-b', `file:${dir}`, '-n', 'job', '--', command(dir)], { env });
    expect((await run.ended).code).toBe(code);
    expect(run.events.map(({ event }) => event)).toEqual(['failed']);
  });
});
