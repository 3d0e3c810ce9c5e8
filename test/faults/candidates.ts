import { afterAll, afterEach } from 'vitest';
import { type Elect, elect, endAll } from '../helpers/elect.ts';
import { clearOracles, type Oracle } from '../helpers/oracle.ts';
import { alive, childrenOf, commandLine, type Identity, until, waitsForInput } from '../helpers/procs.ts';
import { stopLinks } from '../helpers/proxy.ts';
import { stopServers } from '../helpers/servers.ts';

/** Short enough for a test to outlast it, with a budget of 2.2 s (stop) and 2.7 s (kill) after the last confirmed renewal. */
export const TTL_MS = 3000;
export const SHORT = ['--profile', 'aggressive', '--grace', '500ms'];
export const LOST = 79;

/** Nothing of a test outlives it, even if it failed. */
export function leaveNothingBehind(): void {
  afterEach(async () => {
    await endAll();
    await clearOracles();
    await stopLinks();
  });
  afterAll(stopServers);
}

/** Every election of a test run has a name of its own. */
let elections = 0;
export const newElection = (): string => `election-${process.pid}-${++elections}`;

export interface Entry {
  backend: string;
  name: string;
  job: string[];
  flags?: string[];
  env?: NodeJS.ProcessEnv;
  prefix?: string[];
  /** In the place of this checkout's elect-run. */
  program?: string[];
}

export function stand({ backend, name, job, flags = SHORT, env, prefix, program }: Entry): Elect {
  return elect(['-v', '--backend', backend, '--name', name, ...flags, '--', ...job], {
    ...(env ? { env } : {}),
    ...(prefix ? { prefix } : {}),
    ...(program ? { program } : {}),
  });
}

/** One leads and its job works; the others stand behind it, in this order. */
export async function standInLine(oracle: Oracle, ...entries: Entry[]): Promise<Elect[]> {
  const candidates: Elect[] = [];
  for (const entry of entries) {
    const candidate = stand(entry);
    candidates.push(candidate);
    await candidate.event(candidates.length === 1 ? 'started' : 'standby');
    if (candidates.length === 1) await oracle.started(1);
  }
  return candidates;
}

export const twice = (entry: Entry): [Entry, Entry] => [entry, entry];

/** The guard's own process, once it listens: in a session of its own, directly below elect-run. */
export async function guardOf(candidate: Elect | number, other?: number): Promise<number> {
  const parent = typeof candidate === 'number' ? candidate : candidate.pid;
  const isGuard = (pid: number) => pid !== other && commandLine(pid).includes('elect-run-guard');
  return until(() => childrenOf(parent).find((pid) => isGuard(pid) && waitsForInput(pid)), 'a guard');
}

/** The process of its guard that has the deadline, not its naps. */
export const alarmOf = (guard: number): Promise<number> =>
  until(() => childrenOf(guard).find((pid) => commandLine(pid).includes('elect-run-guard')), 'an alarm');

/** elect-run has found this descendant outside of the job's group, and its guard knows of it. */
export const hasStrayed = (candidate: Elect, { pid }: Identity): Promise<boolean> =>
  until(
    () => candidate.events.some(({ event, pids }) => event === 'strayed' && (pids as number[]).includes(pid)),
    'a stray that the guard knows',
  );

export const typesOf = (candidate: Elect): string[] => candidate.events.map(({ event }) => event);

/** Renewals that were confirmed after this moment. */
export async function renewals(candidate: Elect, count: number): Promise<void> {
  let last = candidate.events.at(-1);
  for (let seen = 0; seen < count; seen++) last = await candidate.event('renewed', last ? { after: last } : {});
}

/** More room between a renewal and the budget's end, for blips on a busy machine: silence is noticed after 2 s, and the child stopped after 4.9 s. */
export const ROOMY = ['--ttl', '6s', '--renew-every', '1s', '--grace', '500ms'];

/** The first child runs on, its lease is renewed, and nobody thought of stopping it. */
export async function runsUntouched(leader: Elect, oracle: Oracle): Promise<void> {
  await renewals(leader, 2);
  const stops = typesOf(leader).filter((type) => ['stepping-down', 'deposed', 'ended'].includes(type));
  if (stops.length > 0 || !alive(oracle.starts()[0]!.pid))
    throw new Error(`the child did not run on: ${leader.stderr}`);
  oracle.verify(1);
}
