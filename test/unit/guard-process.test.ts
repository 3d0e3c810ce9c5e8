import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { uptime } from 'node:os';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { alive, isStopped, until } from '../helpers/procs.ts';

const GUARD = fileURLToPath(new URL('../../dist/guard-process.js', import.meta.url));

async function startGuard() {
  const job = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
  const guard = spawn(process.execPath, [GUARD, 'elect-run-guard'], { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => {
    for (const process of [job, guard] as ChildProcess[]) process.kill('SIGKILL');
  });
  const answers: string[] = [];
  createInterface({ input: guard.stdout }).on('line', (line) => answers.push(line));
  const tell = (line: string) => guard.stdin.write(`${line}\n`);
  tell(`job ${-job.pid!}`);
  /** Returns the deadline, in ms of /proc/uptime. */
  const armFor = async (ms: number, whenTold = () => {}) => {
    const centiseconds = Math.floor(uptime() * 100 + ms / 10);
    tell(`until ${centiseconds}`);
    whenTold();
    await until(() => answers.includes(`armed ${centiseconds}`), 'its answer');
    return centiseconds * 10;
  };
  return { guard, job, tell, armFor };
}

const HALF_A_SECOND = 500;

test('it kills the job’s group at the deadline, not before, on the clock of /proc/uptime', async () => {
  const { job, armFor } = await startGuard();
  const killAt = await armFor(HALF_A_SECOND);
  await once(job, 'exit');
  const late = uptime() * 1000 - killAt;
  expect(late).toBeGreaterThanOrEqual(-10); // the clock's step
  expect(late).toBeLessThan(150); // the least margin there is
});

test('a later deadline that came while it stood still counts', async () => {
  const { guard, job, armFor } = await startGuard();
  const killAt = await armFor(HALF_A_SECOND);
  guard.kill('SIGSTOP');
  await until(() => isStopped(guard.pid!), 'it stands still');
  await sleep(killAt + 50 - uptime() * 1000);
  await armFor(60_000, () => guard.kill('SIGCONT'));
  await armFor(60_000); // it has been through its timers
  expect(alive(job.pid!)).toBe(true);
});

test('"forever" calls the alarm off, and "down" ends it without a signal to the job', async () => {
  const { guard, job, tell, armFor } = await startGuard();
  const killAt = await armFor(HALF_A_SECOND);
  tell('forever');
  await sleep(killAt + 50 - uptime() * 1000);
  tell('down');
  expect((await once(guard, 'exit'))[0]).toBe(0);
  expect(alive(job.pid!)).toBe(true);
});

test('the end of its input is the death of elect-run: the job is killed', async () => {
  const { guard, job, armFor } = await startGuard();
  await armFor(60_000);
  guard.stdin.end();
  expect((await once(job, 'exit'))[1]).toBe('SIGKILL');
});
