import { constants } from 'node:os';
import { expect } from 'vitest';
import type { Elect } from './elect.ts';

export const number = (name: string) => constants.signals[name as NodeJS.Signals];

/** KILL and STOP cannot be caught; the others speak of elect-run itself (docs: signals). */
const EXEMPT = ['KILL', 'STOP', 'CHLD', 'PIPE', 'SEGV', 'BUS', 'ILL', 'FPE'].map((name) => number(`SIG${name}`));
export const STANDARD = Array.from({ length: 31 }, (_, index) => index + 1).filter(
  (signal) => !EXEMPT.includes(signal),
);
export const REALTIME = Array.from({ length: 31 }, (_, index) => index + 34);

/** Two processes in one group, which say what they get and ignore nothing and end by nothing. */
const COUNTER = `
use Config;
my @names = split ' ', $Config{sig_name};
my $who = fork() ? 'parent' : 'child';
for my $n (1 .. 31, 34 .. 64) {
  next if $n == 9 || $n == 17 || $n == 19;
  $SIG{$names[$n]} = sub { syswrite STDOUT, "$who $n\\n" };
}
syswrite STDOUT, "$who ready\\n";
select undef, undef, undef, 0.2 while 1; # one that comes just before select(2) is told after it
`;

/** The command line of a job that counts signals. */
export const counter = ['perl', '-e', COUNTER];

export async function counterReady(run: Elect): Promise<void> {
  await run.prints('parent ready');
  await run.prints('child ready');
}

/** What parent and child counted: signal → how often. */
export function counted(run: Elect) {
  const counts: Record<string, Record<number, number>> = { parent: {}, child: {} };
  for (const [, who, signal] of run.stdout.toString().matchAll(/^(parent|child) (\d+)$/gm)) {
    counts[who!]![Number(signal)] = (counts[who!]![Number(signal)] ?? 0) + 1;
  }
  return counts;
}

/** Sends them to this process one after the other, each when both have the one before. A second copy would arrive before the last of the others. */
export async function sendEach(run: Elect, signals: number[], pid = run.pid) {
  for (const signal of signals) {
    process.kill(pid, signal);
    await run.prints(new RegExp(`^parent ${signal}$`, 'm'));
    await run.prints(new RegExp(`^child ${signal}$`, 'm'));
  }
  const once = Object.fromEntries(signals.map((signal) => [signal, 1]));
  expect(counted(run)).toEqual({ parent: once, child: once });
}
