import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { constants, existsSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { alive, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

afterEach(endAll);
afterAll(stopServers);

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

/** A shell that runs elect-run as "$@" in the middle of something. */
const inShell = (text: string) => ['sh', '-c', text, 'sh'];

/** Is this descriptor of the test process the same open file that /proc shows by this name elsewhere? */
function isOurs(fd: number): boolean {
  try {
    return fd > 15 && readlinkSync(`/proc/self/fd/${fd}`) !== '';
  } catch {
    return false;
  }
}

const job = (...command: string[]) => ['-b', `file:${scratch()}`, '-n', 'job', '--', ...command];

const show = ['perl', '-e', 'print join("|", map { unpack("H*", $_) } @ARGV)', '--'];
const shown = (words: Buffer[]) => words.map((word) => word.toString('hex')).join('|');

describe('stdin', () => {
  test('5 MB of any bytes from a pipe reach the child unchanged', async () => {
    const bytes = randomBytes(5_000_000);
    const run = elect(job('sha256sum'), { stdin: 'pipe' });
    run.process.stdin!.end(bytes);
    const { code, stdout } = await run.ended;
    expect(stdout.toString()).toBe(`${sha256(bytes)}  -\n`);
    expect(code).toBe(0);
  });

  test('elect-run does not take a byte of it for itself', async () => {
    const file = join(scratch(), 'input');
    writeFileSync(file, 'abcdef');
    const take = job('dd', 'bs=1', 'count=3', 'status=none');
    const run = elect(take, { prefix: inShell(`{ "$@"; echo; exec cat; } <'${file}'`) });
    expect((await run.ended).stdout.toString()).toBe('abc\ndef');
  });

  test('nothing is taken from it while standing by, either', async () => {
    const dir = scratch();
    const holder = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'sleep', '1000']);
    await holder.event('started');
    const standby = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'cat'], { stdin: 'pipe' });
    standby.process.stdin!.end('typed ahead');
    await standby.event('standby');
    holder.kill('SIGTERM');
    expect((await standby.ended).stdout.toString()).toBe('typed ahead');
  });

  test('a closed stdin is an empty one', async () => {
    const run = elect(job('sh', '-c', 'cat; exit 3'), { prefix: inShell('exec "$@" <&-') });
    expect(await run.ended).toMatchObject({ code: 3, stdout: Buffer.alloc(0) });
  });
});

describe('stdout', () => {
  test('100 MB go through a pipe unchanged, and elect-run adds nothing', async () => {
    const produce = 'yes "0123456789 some line of text" | head -c 104857600';
    const expected = execFileSync('sh', ['-c', `${produce} | sha256sum`]).toString();
    const run = elect(job('sh', '-c', produce), { prefix: inShell('"$@" | sha256sum') });
    expect((await run.ended).stdout.toString()).toBe(expected);
  });

  test.each([['-q'], ['-v'], ['-v', '-v']])('elect-run writes nothing to it with %s', async (...flags) => {
    const { stdout, code } = await elect([...flags, ...job('true')]).ended;
    expect(code).toBe(0);
    expect(stdout).toHaveLength(0);
  });

  test('a reader that goes away ends the child by SIGPIPE as without elect-run', async () => {
    const prefix = ['bash', '-c', '"$@" | head -c 2 >/dev/null; echo "$PIPESTATUS"', 'bash'];
    const run = elect(job('yes'), { prefix });
    expect((await run.ended).stdout.toString()).toBe('141\n');
  });

  test('a full disk is the child’s to see', async () => {
    const run = elect(job('sh', '-c', 'echo text || exit 28'), { prefix: inShell('exec "$@" >/dev/full') });
    const { code, stderr } = await run.ended;
    expect(stderr).toMatch(/No space left on device|I\/O error/);
    expect(code).toBe(28);
  });

  test('a closed stdout does not keep the child from running', async () => {
    const file = join(scratch(), 'ran');
    const run = elect(job('sh', '-c', `touch '${file}'; exit 4`), { prefix: inShell('exec "$@" >&-') });
    expect((await run.ended).code).toBe(4);
    expect(readFileSync(file)).toHaveLength(0);
  });
});

describe('stderr', () => {
  test('what the child writes goes through', async () => {
    const { stderr } = await elect(job('sh', '-c', 'echo "a word of the child" >&2')).ended;
    expect(stderr).toContain('\na word of the child\n');
  });

  test.each([
    ['closed', '2>&-'],
    ['a full disk', '2>/dev/full'],
  ])('%s does not change what happens', async (_name, redirection) => {
    const run = elect(job('sh', '-c', 'echo out; exit 9'), { prefix: inShell(`exec "$@" ${redirection}`) });
    expect(await run.ended).toMatchObject({ code: 9, stdout: Buffer.from('out\n') });
  });

  test('a reader that is gone does not end elect-run or change its exit code', async () => {
    const run = elect(['-v', ...job('sh', '-c', 'read line; exit 9')], { stdin: 'pipe' });
    await run.event('started');
    run.process.stderr!.destroy();
    run.process.stdin!.end('go\n');
    expect((await run.ended).code).toBe(9);
  });
});

describe('what else a process inherits', () => {
  test('working directory, umask, nice value and limits are the same as without elect-run', async () => {
    const dir = scratch();
    const look = ['sh', '-c', 'pwd; umask; nice; ulimit -c; ulimit -t; ulimit -Hn'];
    const prefix = inShell('umask 027; ulimit -t 1000; ulimit -c 0; exec nice -n 3 "$@"');
    const without = execFileSync(prefix[0]!, [...prefix.slice(1), ...look], { cwd: dir }).toString();
    const run = elect(job(...look), { prefix, cwd: dir });
    expect((await run.ended).stdout.toString()).toBe(without);
  });

  test('signals are blocked, ignored and caught in the child as without elect-run', async () => {
    const look = ['grep', '-E', '^Sig(Blk|Ign|Cgt)', '/proc/self/status'];
    const { stdout } = await elect(job(...look)).ended;
    expect(stdout.toString()).toBe(execFileSync(look[0]!, look.slice(1)).toString());
  });

  test('reads and writes of the child wait, also where whoever started elect-run has left them otherwise', async () => {
    const noWait = 'for (*STDIN, *STDOUT, *STDERR) { fcntl $_, F_SETFL, O_NONBLOCK | fcntl $_, F_GETFL, 0 } exec @ARGV';
    const prefix = ['perl', '-MFcntl', '-e', noWait];
    const files = [0, 1, 2].map((fd) => `/proc/self/fdinfo/${fd}`);
    const { stdout } = await elect(job('grep', '-h', 'flags', ...files), { prefix }).ended;
    const flags = [...stdout.toString().matchAll(/flags:\s+(\d+)/g)].map(([, octal]) => Number.parseInt(octal!, 8));
    expect(flags.map((flag) => flag & constants.O_NONBLOCK)).toEqual([0, 0, 0]);
  });

  test('the child has 0, 1, 2 and the lock open, and nothing else', async () => {
    const dir = scratch();
    const list = 'for (0 .. 1000) { my $file = readlink "/proc/self/fd/$_"; print "$_ $file\\n" if defined $file }';
    const prefix = inShell('exec 7</dev/null 8>/dev/null; exec "$@" </dev/null');
    const run = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'perl', '-e', list], { prefix });
    const lines = (await run.ended).stdout.toString().trim().split('\n');
    // What the tests themselves were started with, and passed on, is not elect-run's.
    const files = lines.map((line) => line.split(' ')).filter(([fd]) => Number(fd) < 3 || !isOurs(Number(fd)));
    expect(files.map(([fd]) => fd)).toEqual(['0', '1', '2', '3']);
    expect(files[3]![1]).toBe(`${dir}/job.lock`);
  });
});

describe('arguments', () => {
  test.each([
    ['empty ones', ['', 'a', '', '']],
    ['newlines, tabs, quotes, globs', ['a\nb', '\t', '"\'`$(false)\\', '*', ' ']],
    ['words that look like options', ['-v', '--ttl', '1s', '--', '--no-wait', '-h', '--version', '-']],
    ['any UTF-8', ['äöü', '日本語', '👩‍👩‍👧', '\u00a0']],
    ['a long one', ['x'.repeat(120_000)]],
  ])('%s reach the child as they are', async (_name, words) => {
    const { stdout } = await elect(job(...show, ...words)).ended;
    expect(stdout.toString()).toBe(shown(words.map((word) => Buffer.from(word))));
  });

  test('two thousand of them reach the child', async () => {
    const words = Array.from({ length: 2000 }, (_, index) => `word-${index}`);
    const { stdout } = await elect(job('sh', '-c', 'echo $#', 'sh', ...words)).ended;
    expect(stdout.toString()).toBe('2000\n');
  });

  test('options of the command need no "--" before it', async () => {
    const dir = scratch();
    const { stdout, code } = await elect(['-b', `file:${dir}`, 'echo', '-n', '--ttl', 'x']).ended;
    expect(code).toBe(0);
    expect(stdout.toString()).toBe('--ttl x');
  });
});

/** What Node does before our first line runs. Each is here so that it is noticed when it changes. */
describe('known limits of Node', () => {
  test.fails('the soft limit of open files is the same as without elect-run', async () => {
    const look = ['sh', '-c', 'ulimit -Sn; ulimit -Hn'];
    const run = elect(job(...look), { prefix: inShell('ulimit -Sn 1000; exec "$@"') });
    const hard = execFileSync('sh', ['-c', 'ulimit -Hn']).toString();
    expect((await run.ended).stdout.toString()).toBe(`1000\n${hard}`);
  });

  test.fails('bytes that are no UTF-8 reach the child as they are', async () => {
    const prefix = inShell(`exec "$@" "$(printf 'caf\\351')"`);
    const { stdout } = await elect(job(...show), { prefix }).ended;
    expect(stdout.toString()).toBe('636166e9');
  });

  test.fails('a signal that was ignored when elect-run was started (nohup) is ignored by the child', async () => {
    const prefix = inShell('trap "" HUP; exec "$@"');
    const { stdout } = await elect(job('grep', 'SigIgn', '/proc/self/status'), { prefix }).ended;
    expect(stdout.toString()).toMatch(/1$/m);
  });

  test.fails('bytes that are no UTF-8 in the environment reach the child as they are', async () => {
    const prefix = inShell('ODD="$(printf "caf\\351")" exec "$@"');
    const { stdout } = await elect(job('perl', '-e', 'print unpack("H*", $ENV{ODD})'), { prefix }).ended;
    expect(stdout.toString()).toBe('636166e9');
  });
});

describeWith(['etcd', 'etcdctl'], 'a reader of stderr that stalls', () => {
  test('does not cost leadership', async () => {
    const etcd = await Etcd.start();
    const dir = scratch();
    const [pipe, begin, end] = [join(dir, 'pipe'), join(dir, 'begin'), join(dir, 'end')];
    execFileSync('mkfifo', [pipe]);
    const timing = ['--ttl', '3s', '--renew-every', '500ms', '-v'];
    const command = ['sh', '-c', `echo $$ >'${begin}'; yes >&2 & sleep 5; touch '${end}'; kill $!; exit 7`];
    // Open for reading, too, but nobody reads.
    const prefix = inShell(`exec "$@" 2<>'${pipe}'`);
    const run = elect(['-b', etcd.url, '-n', 'jobs/x', ...timing, '--', ...command], { prefix });
    const pid = await until(() => (existsSync(begin) && Number(readFileSync(begin))) || undefined, 'the start');
    await until(() => existsSync(end) || !alive(pid), 'the end of the child');
    expect(existsSync(end)).toBe(true);
    expect((await run.ended).code).toBe(7);
  });
});
