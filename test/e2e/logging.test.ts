import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { type Elect, elect, endAll } from '../helpers/elect.ts';
import { scratch } from '../helpers/scratch.ts';

afterEach(endAll);

const run = (flags: string[], options: { env?: NodeJS.ProcessEnv; dir?: string; prefix?: string[] } = {}): Elect =>
  elect(['-b', `file:${options.dir ?? scratch()}`, '-n', 'job', ...flags, '--', 'true'], {
    env: { ELECT_RUN_LOG_FORMAT: undefined, JOURNAL_STREAM: undefined, NO_COLOR: undefined, ...options.env },
    prefix: options.prefix ?? [],
  });

const linesOf = async (elect: Elect) => (await elect.ended).stderr.trimEnd().split('\n');

const STORY = ['campaigning', 'elected', 'started', 'ended', 'resigned'];

describe('messages', () => {
  test('are one plain line per transition where there is no terminal', async () => {
    const lines = await linesOf(run([]));
    expect(lines).toHaveLength(STORY.length);
    for (const line of lines) expect(line).toMatch(/^elect-run: [\x20-\x7e]+$/);
    expect(lines[0]).toMatch(/campaigning for job on file:.* as /);
    expect(lines[1]).toMatch(/elected leader of job with token 1$/);
  });

  test('--log-format plain is the same', async () => {
    for (const line of await linesOf(run(['--log-format', 'plain']))) expect(line).toMatch(/^elect-run: \S/);
  });

  test('--log-format json is one object per line, with time, level and the fields of the event', async () => {
    const objects = (await linesOf(run(['--log-format', 'json']))).map((line) => JSON.parse(line));
    expect(objects.map(({ event }) => event)).toEqual(STORY);
    for (const { time, level } of objects) {
      expect(new Date(time).toISOString()).toBe(time);
      expect(level).toBe('info');
    }
    expect(objects[1]).toMatchObject({ election: 'job', token: '1', ttlMs: 15_000 });
  });

  test('--log-format logfmt is key=value, quoted where there are spaces', async () => {
    const lines = await linesOf(run(['--log-format', 'logfmt', '--id', 'two words']));
    const pairs = lines.map((line) => [...line.matchAll(/(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]*)( |$)/g)]);
    expect(pairs.map((line) => line.map(([text]) => text).join(''))).toEqual(lines);
    expect(pairs.map((line) => line.find(([, key]) => key === 'event')?.[2])).toEqual(STORY);
    expect(lines[0]).toMatch(/ id="two words-/);
  });

  test('--log-format pretty has colours', async () => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    const coloured = /^\u001b\[\d+melect-run\u001b\[0m \S/;
    for (const line of await linesOf(run(['--log-format', 'pretty']))) expect(line).toMatch(coloured);
  });

  test('NO_COLOR takes them away', async () => {
    const lines = await linesOf(run(['--log-format', 'pretty'], { env: { NO_COLOR: '1' } }));
    for (const line of lines) expect(line).toMatch(/^elect-run [\x20-\x7e]+$/);
  });

  test('ELECT_RUN_LOG_FORMAT chooses the format, too', async () => {
    expect((await linesOf(run([], { env: { ELECT_RUN_LOG_FORMAT: 'json' } })))[0]).toMatch(/^\{"time"/);
  });
});

describe('verbosity', () => {
  test('-q is silent about a success', async () => {
    expect(await run(['-q']).ended).toMatchObject({ code: 0, stderr: '', stdout: Buffer.alloc(0) });
  });

  test('ELECT_RUN_QUIET=1 is, too', async () => {
    expect((await run([], { env: { ELECT_RUN_QUIET: '1' } }).ended).stderr).toBe('');
  });

  test('-q still says what went wrong', async () => {
    expect((await run(['-q', '--ttl', '0s']).ended).stderr).toMatch(/^elect-run: --ttl/);
  });

  test('-v shows signals', async () => {
    const dir = scratch();
    const job = elect(['-b', `file:${dir}`, '-n', 'job', '-v', '--', 'sleep', '1000']);
    await job.event('started');
    job.kill('SIGTERM');
    expect(await job.event('signalled')).toMatchObject({ signal: 'SIGTERM', forwarded: true, level: 'debug' });
  });

  test.each([
    ['1', 1],
    ['0', 0],
  ])('ELECT_RUN_VERBOSE=%s is that often -v', async (value, signals) => {
    const env = { ELECT_RUN_VERBOSE: value };
    const job = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', 'sleep', '1000'], { env });
    await job.event('started');
    job.kill('SIGUSR2');
    await job.ended;
    expect(job.events.filter(({ event }) => event === 'signalled')).toHaveLength(signals);
  });

  test('without -v signals are not shown', async () => {
    const job = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', 'sleep', '1000']);
    await job.event('started');
    job.kill('SIGTERM');
    await job.ended;
    expect(job.events.map(({ event }) => event)).toEqual(STORY);
  });

  test('-vv shows where a failure came from, and nothing less does', async () => {
    for (const flags of [[], ['-v']])
      expect((await run([...flags, '--ttl', '0s']).ended).stderr.trim().split('\n')).toHaveLength(1);
    expect((await run(['-vv', '--ttl', '0s']).ended).stderr).toMatch(/\n\s+at /);
  });
});

describe('under journald', () => {
  test('each line has its priority and no name', async () => {
    const file = join(scratch(), 'journal');
    writeFileSync(file, '');
    const { dev, ino } = statSync(file);
    const prefix = ['sh', '-c', `exec "$@" 2>>'${file}'`, 'sh'];
    await run([], { env: { JOURNAL_STREAM: `${dev}:${ino}` }, prefix }).ended;
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
    expect(lines).toHaveLength(STORY.length);
    for (const line of lines) expect(line).toMatch(/^<6>[a-z]/);
  });

  test('an error has priority 3', async () => {
    const file = join(scratch(), 'journal');
    writeFileSync(file, '');
    const { dev, ino } = statSync(file);
    const prefix = ['sh', '-c', `exec "$@" 2>>'${file}'`, 'sh'];
    await run(['--grace', '1h'], { env: { JOURNAL_STREAM: `${dev}:${ino}` }, prefix }).ended;
    expect(readFileSync(file, 'utf8')).toMatch(/^<3>--ttl/);
  });

  test('JOURNAL_STREAM of somebody else’s stderr means nothing', async () => {
    expect((await linesOf(run([], { env: { JOURNAL_STREAM: '1:2' } })))[0]).toMatch(/^elect-run: /);
  });
});

describe('what others wrote', () => {
  test('cannot drive the terminal', async () => {
    const dir = scratch();
    const holder = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'sleep', '1000']);
    await holder.event('started');
    const file = join(dir, 'job.token');
    writeFileSync(
      file,
      readFileSync(file, 'utf8')
        .replace(/"id":"[^"]*"/, '"id":"\\u001b[2Jevil"')
        .slice(0, 512),
    );
    const standby = run(['--wait', '300ms', '--log-format', 'plain'], { dir });
    const { stderr, code } = await standby.ended;
    expect(code).toBe(75);
    expect(stderr).toContain('evil');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    expect(stderr).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });
});
