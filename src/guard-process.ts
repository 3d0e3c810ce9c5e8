/**
 * elect-run-guard where there is no /bin/sh: what guard.sh does, by the same words on stdin and stdout, in Node. It needs ten times the memory,
 * and it is a single process: when it is killed its alarm goes, too.
 *
 *   node guard-process.js elect-run-guard
 */
import { uptime } from 'node:os';
import { createInterface } from 'node:readline';
import { cleanUp, type Facts } from './cleanup.ts';
import { isAlive, isAnothers } from './proc.ts';
import { signalAll, trySignal } from './tree.ts';

/** Timers stand still while the machine sleeps: no nap is longer than this. */
const TICK_MS = 250;

let job: { target: number; startedAt: string | undefined } | undefined;
let facts: Partial<Facts> = {};
/** In ms of /proc/uptime. */
let untilAt = Number.POSITIVE_INFINITY;
let alarm: NodeJS.Timeout | undefined;
let isLeftAlone = false;

function signalJob({ target, startedAt }: NonNullable<typeof job>, signal: NodeJS.Signals): void {
  try {
    if (isAnothers({ pid: Math.abs(target), startedAt })) return;
  } catch {} // that cannot be told just now
  trySignal(target, signal);
}

const leftUntilThen = (): number => untilAt - uptime() * 1000;

function watchTheClock(): void {
  clearTimeout(alarm);
  if (untilAt === Number.POSITIVE_INFINITY) return;
  const leftMs = leftUntilThen();
  if (leftMs > 0) alarm = setTimeout(watchTheClock, Math.min(leftMs, TICK_MS));
  // After a stall of our own a later deadline may lie in the pipe, and timers run before it is read.
  else setImmediate(() => (leftUntilThen() > 0 ? watchTheClock() : timeIsUp()));
}

/** All that can be done without a look at everybody. */
function signalKnown(signal: NodeJS.Signals): void {
  if (job) signalJob(job, signal);
  signalAll(facts.marks?.known ?? [], signal);
}

/** While elect-run lives nobody gets out of its sight, and nothing delays the kill. */
async function timeIsUp(): Promise<void> {
  untilAt = Number.POSITIVE_INFINITY;
  const reaper = facts.marks?.reaper;
  signalKnown(reaper && !isAlive(reaper) ? 'SIGSTOP' : 'SIGKILL');
  await cleanUp(facts, false).catch(() => {}); // whatever it was, elect-run's death has still to be awaited
  signalKnown('SIGKILL');
  if (isLeftAlone) process.exit();
}

/**
 * STOP first: orphans go to init, and only from living parents does a trace lead to those that left the group. The alarm stays armed meanwhile, and
 * where the clean-up has failed until the deadline, to try again.
 */
async function electRunIsDead(): Promise<void> {
  signalKnown('SIGSTOP');
  const isDead = await cleanUp(facts, true).catch(() => false);
  signalKnown('SIGKILL');
  if (isDead || untilAt === Number.POSITIVE_INFINITY) process.exit();
  isLeftAlone = true;
}

function hear(line: string): void {
  const [, word, rest] = /^(\S+) ?(.*)$/.exec(line)!;
  switch (word) {
    case 'until':
    case 'forever':
      untilAt = word === 'forever' ? Number.POSITIVE_INFINITY : Number(rest) * 10;
      watchTheClock();
      process.stdout.write(`armed ${rest || word}\n`);
      break;
    case 'job': {
      const [target, startedAt] = rest!.split(' ');
      job = target ? { target: Number(target), startedAt } : undefined;
      break;
    }
    case 'facts':
      facts = JSON.parse(rest!.slice(rest!.indexOf('{'))); // the strays before it are in it, too
      break;
    case 'down':
      process.exit();
  }
}

process.noDeprecation = true;
// A service manager that ends a unit signals all of its processes. The guard goes when elect-run is gone, not before. USR1 would open Node's debugger.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1']) process.on(signal, () => {});
process.stdout.on('error', () => {}); // elect-run is dead: stdin tells
createInterface({ input: process.stdin }).on('line', hear).on('close', electRunIsDead);
process.stdout.write('ready\n');
