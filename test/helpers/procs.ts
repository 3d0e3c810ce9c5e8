import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { constants } from 'node:os';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isFirstWith } from './folders.ts';

/** One process for ever: a pid that was used again has another start time. */
export interface Identity {
  pid: number;
  /** Clock ticks since boot (proc(5), field 22). */
  startedAt: string;
}

interface Stat extends Identity {
  state: string;
  parent: number;
  session: number;
  /** 1 of a zombie. Where the first thread has ended before the others the state is a zombie's as well (proc(5), field 20). */
  threads: number;
}

function stat(pid: number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name stands in parentheses and may contain anything.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const [state, parent, , session] = fields;
    const [threads, startedAt] = [Number(fields[17]), fields[19]!];
    return { pid, state: state!, parent: Number(parent), session: Number(session), threads, startedAt };
  } catch {
    return undefined;
  }
}

/** Remembers who has this pid now. Throws when nobody alive has. */
export function identify(pid: number): Identity {
  const found = stat(pid);
  if (!found || !alive(pid)) throw new Error(`no process ${pid}`);
  return { pid, startedAt: found.startedAt };
}

/** A zombie is not alive; given an identity, neither is another process that got the same pid. */
export function alive(who: number | Identity): boolean {
  const found = stat(typeof who === 'number' ? who : who.pid);
  if (!found || isOver(found)) return false;
  return typeof who === 'number' || found.startedAt === who.startedAt;
}

const isOver = ({ state, threads }: Stat): boolean => 'ZXx'.includes(state) && threads < 2;

/** Its first thread has ended, and others work on. */
export const hasLostItsFirstThread = (pid: number): boolean => stat(pid)?.state === 'Z' && alive(pid);

/** Where the kernel shows what its threads have in common: of one that has ended, as the first may have, it shows nothing. */
const folderOf = ({ pid, state }: Stat): string =>
  state === 'Z' ? `/proc/${pid}/task/${readdirSync(`/proc/${pid}/task`).at(-1)}` : `/proc/${pid}`;

/** How long it has run on a processor, in steps of 10 ms. */
export function processorMs(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10; // utime and stime in ticks, of which Linux tells 100 a second (proc(5))
}

/** Has it a handler of its own for this signal (proc(5): SigCgt)? */
export function handles(pid: number, name: NodeJS.Signals): boolean {
  const caught = /^SigCgt:\s*(\w+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]!;
  return ((BigInt(`0x${caught}`) >> BigInt(constants.signals[name] - 1)) & 1n) === 1n;
}

/** Stopped by SIGSTOP or the like. */
export const isStopped = (pid: number): boolean => stat(pid)?.state === 'T';

/** In a call of the kernel's in which it waits for something. Whoever has just been sent SIGCONT is not, until it has been on a processor. */
export const isAsleep = (pid: number): boolean => stat(pid)?.state === 'S';

/** A process and all that it has started and that has not been orphaned, stopped. Resolves with their pids. */
export async function freezeTree(root: number): Promise<number[]> {
  const frozen = [root];
  for (const pid of frozen) {
    signal(pid, 'SIGSTOP');
    await until(() => isStopped(pid) || !alive(pid), `${pid} is frozen`);
    frozen.push(...childrenOf(pid)); // of a stopped one there will be no more
  }
  return frozen;
}

export const sessionOf = (pid: number): number | undefined => stat(pid)?.session;

/** Blocked in flock(2), which waits for a lock. */
export function waitsForLock(pid: number): boolean {
  try {
    return readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .some((line) => line.includes('->') && line.split(/\s+/)[5] === String(pid));
  } catch {
    return false;
  }
}

/** Blocked in a call on its stdin, or Node in its event loop: it has taken what it was told, and waits for more. */
export function waitsForInput(pid: number): boolean {
  try {
    const inEventLoop = readFileSync(`/proc/${pid}/wchan`, 'utf8') === 'do_epoll_wait'; // function of the kernel, fs/eventpoll.c
    return inEventLoop || readFileSync(`/proc/${pid}/syscall`, 'utf8').split(' ')[1] === '0x0';
  } catch {
    return false;
  }
}

function all(): Stat[] {
  const pids = readdirSync('/proc').map(Number).filter(Number.isInteger);
  return pids.map(stat).filter((found) => found !== undefined);
}

const living = (): Stat[] => all().filter((one) => !isOver(one));

const pidsOf = (found: Stat[]): number[] => found.map(({ pid }) => pid);

/** The living. */
export const allPids = (): number[] => pidsOf(living());

export const childrenOf = (parent: number): number[] => pidsOf(living().filter((one) => one.parent === parent));

/** Dead, but still in the process table, because this parent has not asked for their exit status. */
export const zombiesOf = (parent: number): number[] =>
  pidsOf(all().filter((one) => one.parent === parent && one.state === 'Z' && isOver(one)));

export function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** Everybody alive who has this file open, however the descriptor was come by, and whatever the file's path is in the root where they live. */
export function holdersOf(file: string): number[] {
  const { dev, ino } = statSync(file);
  const isIt = (fd: string) => {
    if (basename(linkOf(fd) ?? '') !== basename(file)) return false;
    const found = statSync(fd);
    return found.dev === dev && found.ino === ino;
  };
  const holds = (one: Stat) => {
    try {
      const fds = `${folderOf(one)}/fd`;
      return readdirSync(fds).some((fd) => isIt(`${fds}/${fd}`));
    } catch {
      return false;
    }
  };
  return pidsOf(living().filter(holds));
}

/** Living processes that were started with this assignment in their environment. */
export function processesWith(assignment: string): number[] {
  const has = (one: Stat) => {
    try {
      return `\0${readFileSync(`${folderOf(one)}/environ`)}`.includes(`\0${assignment}\0`);
    } catch {
      return false; // it has ended meanwhile
    }
  };
  return pidsOf(living().filter(has));
}

/** How many of our own descriptors lead to such a file or socket. */
export const countOpen = (isIt: (target: string) => boolean): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    const target = linkOf(`/proc/self/fd/${fd}`);
    return target !== undefined && isIt(target); // that of the look itself leads nowhere any more
  }).length;

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** Waits for an outside fact that nobody tells of. What has an event is awaited as an event. */
export async function until<T>(
  predicate: () => T | Promise<T>,
  what: string,
  timeoutMs = 20_000,
  everyMs = 5,
): Promise<Exclude<T, false | undefined>> {
  const giveUpAt = performance.now() + timeoutMs;
  for (;;) {
    const found = await predicate();
    if (found !== false && found !== undefined) return found as Exclude<T, false | undefined>;
    if (performance.now() > giveUpAt) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleep(everyMs);
  }
}

/** As kill(2), but no error when it is gone already. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Below the range from which the kernel takes ports for outgoing connections, which could snatch that of a server while it restarts. */
const LOWEST_PORT = 10_000;
const HIGHEST_PORT = 32_000;
const given = new Set<number>();

/** Given once in a run, to whichever worker: a server has not bound its own yet, or does not while it is down. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = LOWEST_PORT + Math.floor(Math.random() * (HIGHEST_PORT - LOWEST_PORT));
    if (given.has(port) || !isFirstWith(`port-${port}`)) continue;
    given.add(port);
    if (await canBind(port)) return port;
  }
}

function canBind(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
