import { constants } from 'node:os';
import { afterEach, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { inBatches, scratch } from '../helpers/scratch.ts';

afterEach(endAll);

const AT_ONCE = 6;

/** Signals that do not end a process which does not handle them (signal(7)). */
const HARMLESS = ['SIGCHLD', 'SIGCONT', 'SIGURG', 'SIGWINCH', 'SIGSTOP', 'SIGTSTP', 'SIGTTIN', 'SIGTTOU'];

const LETHAL = [
  ...new Set(
    Object.entries(constants.signals)
      .filter(([name]) => !HARMLESS.includes(name))
      .map(([, number]) => Number(number)),
  ),
];

/** Runs the command in an election of its own for each of these numbers and returns number → exit code. */
async function codes(numbers: number[], command: (number: number) => string[], prefix: string[] = []) {
  const dir = scratch();
  const seen: Record<number, number | null> = {};
  await inBatches(numbers, AT_ONCE, async (number) => {
    const args = ['-b', `file:${dir}`, '-n', `job-${number}`, '--', ...command(number)];
    seen[number] = (await elect(args, { prefix, cwd: dir }).ended).code;
  });
  return seen;
}

const table = (numbers: number[], code: (number: number) => number) =>
  Object.fromEntries(numbers.map((number) => [number, code(number)]));

const dieOf = (signal: number) => ['sh', '-c', `kill -${signal} $$; sleep 10`];

test('each of the 256 exit codes of the child is the exit code', { timeout: 180_000 }, async () => {
  const all = Array.from({ length: 256 }, (_, code) => code);
  expect(await codes(all, (code) => ['sh', '-c', `exit ${code}`])).toEqual(table(all, (code) => code));
});

test('a child that dies of signal n gives 128+n, for every signal that ends a process', {
  timeout: 120_000,
}, async () => {
  expect(LETHAL.length).toBeGreaterThanOrEqual(23);
  expect(await codes(LETHAL, dieOf)).toEqual(table(LETHAL, (signal) => 128 + signal));
});

test('a child that dies of a real-time signal gives 128+n', async () => {
  const numbers = [34, 35, 50, 63, 64];
  expect(await codes(numbers, dieOf)).toEqual(table(numbers, (signal) => 128 + signal));
});

test('a child that dumps core gives 128+n', async () => {
  const numbers = ['SIGQUIT', 'SIGABRT', 'SIGSEGV', 'SIGXCPU'].map((name) => constants.signals[name as NodeJS.Signals]);
  const prefix = ['sh', '-c', 'ulimit -c unlimited; exec "$@"', 'sh'];
  expect(await codes(numbers, dieOf, prefix)).toEqual(table(numbers, (signal) => 128 + signal));
});

test('a shell that reports the death of its own child by 128+n is passed on as it is', async () => {
  const dir = scratch();
  const { code } = await elect([
    '-b',
    `file:${dir}`,
    '-n',
    'job',
    '--',
    'sh',
    '-c',
    '(kill -9 $(exec sh -c "echo \\$PPID")); exit $?',
  ]).ended;
  expect(code).toBe(137);
});

test('the event "ended" tells the signal and the status', async () => {
  const dir = scratch();
  const run = elect(['-b', `file:${dir}`, '-n', 'job', '--', ...dieOf(15)]);
  await run.ended;
  expect(await run.event('ended')).toMatchObject({ status: 143, signal: 'SIGTERM' });
});
