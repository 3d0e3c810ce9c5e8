// The guard in Node, as there is where there is no shell: armed again and again.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { uptime } from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { toCentiseconds } from '../../src/clock.ts';
import type { Task } from './task.ts';
import { Turns } from './turns.ts';

const FAR_MS = 1_000_000;

export async function soakGuard(task: Task): Promise<void> {
  const beside = (name: string) => fileURLToPath(new URL(`./${name}`, import.meta.url));
  const flags = [...process.execArgv, '--import', beside('inside.mjs')];
  const guard = spawn(process.execPath, [...flags, beside('guard-process.mjs'), 'elect-run-guard'], {
    stdio: ['pipe', 'pipe', 'inherit', 'pipe'],
    env: { ...process.env, SOAK_LEAK: task.leak },
  });
  const linesOf = (stream: Readable) => createInterface({ input: stream })[Symbol.asyncIterator]();
  const answers = linesOf(guard.stdout!);
  const samples = linesOf(guard.stdio[3] as Readable);
  await answers.next(); // ready
  const { leak: _, ...counted } = task; // it is the guard that leaks
  const turns = new Turns(counted, async () => {
    guard.kill('SIGUSR2');
    return JSON.parse((await samples.next()).value);
  });
  const farAt = toCentiseconds(uptime() * 1000 + FAR_MS);
  for (let count = 0; ; count++) {
    guard.stdin!.write(`until ${farAt + count}\n`);
    await answers.next();
    if (!(await turns.next())) break;
  }
  const ended = once(guard, 'exit');
  guard.stdin!.write('down\n');
  await ended;
}
