import { adopted, awaited } from './awaited.ts';
import { now, pause } from './clock.ts';
import { reap } from './native.ts';
import {
  FIRST_PID,
  hasInEnvironment,
  highestPid,
  isAlive,
  isAnothers,
  isLeader,
  lastPid,
  listPids,
  type Proc,
  readProc,
} from './proc.ts';

/** What marks a process as the child's: plain data, so that the guard's clean-up can be told. */
export interface TreeMarks {
  /** The child. Undefined before it was started. Its start is undefined where it could not be read. */
  root: { pid: number; startedAt: string | undefined } | undefined;
  /** True: the child leads a session and process group of its own. False: it shares our group, for the terminal's sake. */
  ownGroup: boolean;
  /** An assignment in the child's environment: every descendant has it unless it was taken out. */
  mark: string;
  /** elect-run itself: while it lives it is, as subreaper, the parent of every descendant that lost its own. */
  reaper: Pick<Proc, 'pid' | 'startedAt'> | undefined;
  /** elect-run's session. */
  session: number;
  /** Children that elect-run had before there was a job: of the shell whose place it took, or of pid 1. */
  bystanders: Pick<Proc, 'pid' | 'startedAt'>[];
  /** Processes that are known to be descendants, however they hide. */
  known: Pick<Proc, 'pid' | 'startedAt'>[];
  /** Sessions of elect-run's helpers (guard, clean-up …), which are not the child's. */
  helperSessions: number[];
  /** Single helpers in our own session. */
  helpers: number[];
}

/**
 * Every living process of the child's tree that can be looked at: its group and session, all descendants by parent, and what left both but still
 * carries the mark in its environment.
 */
export const findTree = (marks: TreeMarks): Proc[] => look(marks).tree;

/** Whether a look, by which nobody of it can hide behind an error, finds none, and nobody is known to live whom it does not show. */
export function seemsDead(marks: TreeMarks): boolean {
  const { tree, isWhole } = look(marks);
  return isWhole && tree.length === 0 && unseen(marks).length === 0;
}

/** One look at all processes, which takes some milliseconds, while they go on. */
interface Look {
  tree: Proc[];
  /** Nobody can have got past it. */
  isSure: boolean;
  /** Everybody could be looked at. Not when we have no descriptor left, or the kernel no memory. */
  isWhole: boolean;
}

/**
 * A process may end between the list and its turn, and leave a child that is not in the list. But the kernel numbers them in turn, so whoever came into being
 * meanwhile is looked at as well, until nobody has. `strangers`: those that an earlier look has found not to be of the tree, with their start, for the next
 * one. `found` is called with each process as soon as it is known to be of the tree, before others are looked at.
 */
function look(
  marks: TreeMarks,
  strangers: Map<number, string> = new Map(),
  found: (proc: Proc) => void = () => {},
): Look {
  const ourselves = new Set([process.pid, ...marks.helpers]);
  const tree = new Map<number, Proc>();
  const others: Proc[] = [];
  let isSure = true;
  let isWhole = true;
  const attempt = <T>(act: () => T): T | undefined => {
    try {
      return act();
    } catch {
      isWhole = false;
      return undefined;
    }
  };
  let last = lastPid();
  const isOfTheTree = attempt(() => membership(marks));
  if (!isOfTheTree) return { tree: [], isSure: false, isWhole };
  const consider = (pid: number) => {
    const proc = readProc(pid);
    if (!proc || ourselves.has(pid) || marks.helperSessions.includes(proc.session)) return;
    if (marks.reaper && isAmong([marks.reaper], proc)) return;
    // Whoever has come to us meanwhile was not a child of ours when it was found to be one.
    const isStranger = strangers.get(pid) === proc.startedAt && proc.parent !== marks.reaper?.pid;
    const isMember = !isStranger && isOfTheTree(proc);
    if (isMember) {
      tree.set(pid, proc);
      found(proc);
      return;
    }
    others.push(proc);
    // Some have no environment, and none later either.
    const isSettled = isMember === false || strangers.get(pid) === `${UNCLEAR}${proc.startedAt}`;
    isSure &&= isSettled;
    strangers.set(pid, `${isSettled ? '' : UNCLEAR}${proc.startedAt}`);
  };
  for (const pid of attempt(listPids) ?? []) attempt(() => consider(pid));
  for (let turns = 0; ; turns++) {
    const newest = lastPid();
    if (last === undefined || newest === undefined || turns === MOST_TURNS) isSure = false;
    else if (newest !== last) {
      const before = last;
      const pids = attempt(() => [...pidsBetween(before, newest)]) ?? [];
      for (const pid of pids) attempt(() => isLeader(pid) && consider(pid));
      last = newest;
      continue;
    }
    break;
  }
  for (let grew = true; grew; ) {
    grew = false;
    for (const proc of others) {
      if (tree.has(proc.pid) || !tree.has(proc.parent)) continue;
      tree.set(proc.pid, proc);
      found(proc);
      grew = true;
    }
  }
  return { tree: [...tree.values()], isSure, isWhole };
}

const UNCLEAR = 'unclear ';
/** Each takes less than a process to start: who forks faster is many, and some of them are found. */
const MOST_TURNS = 1000;

/** The first not included, and round at the end. */
function* pidsBetween(last: number, newest: number): Generator<number> {
  const highest = newest < last ? highestPid() : newest;
  for (let pid = last + 1; pid <= highest; pid++) yield pid;
  if (newest < last) for (let pid = FIRST_PID; pid <= newest; pid++) yield pid;
}

/** Undefined: it shows no environment just now. Throws as `readProc` does. */
function membership(marks: TreeMarks): (proc: Proc) => boolean | undefined {
  const { root, ownGroup, reaper, known, mark } = marks;
  const pidIsAnothers = root && isAnothers(root);
  // Once it is gone its pid may be another's, too, and its orphans are init's.
  const livingReaper = reaper && readProc(reaper.pid)?.startedAt === reaper.startedAt ? reaper.pid : undefined;
  return (proc) => {
    const { pid, parent, group, session } = proc;
    if (root !== undefined && !pidIsAnothers) {
      if (pid === root.pid) return true;
      if (ownGroup && (group === root.pid || session === root.pid)) return true;
    }
    if (parent === livingReaper && isOrphan(marks, proc)) return true;
    if (isAmong(known, proc)) return true;
    return hasInEnvironment(pid, mark);
  };
}

const isAmong = (procs: Pick<Proc, 'pid' | 'startedAt'>[], { pid, startedAt }: Proc): boolean =>
  procs.some((one) => one.pid === pid && one.startedAt === startedAt);

/**
 * Is this child of elect-run's one that the job has left? Not those that it started itself, nor those that it had before, nor what these leave. A job with a session of its own cannot get into ours: setsid(2) makes new
 * sessions only, and ours has its number for as long as we live.
 */
export function isOrphan({ ownGroup, session, bystanders, helperSessions }: TreeMarks, proc: Proc): boolean {
  if (awaited.has(proc.pid) || isAmong(bystanders, proc) || helperSessions.includes(proc.session)) return false;
  return !(ownGroup && proc.session === session);
}

export function signalAll(procs: Iterable<Pick<Proc, 'pid' | 'startedAt'>>, signal: NodeJS.Signals | number): void {
  for (const proc of procs) {
    if (isAlive(proc)) trySignal(proc.pid, signal);
  }
}

/** kill(2) that takes "no such process" and "not permitted" for an answer: whether it is dead is looked up, not inferred. */
export function trySignal(pid: number, signal: NodeJS.Signals | number): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ESRCH' && code !== 'EPERM') throw error;
  }
}

/** What is given to the tree to die after KILL before we say that we cannot show it. */
export const DEATH_MS = 5000;

/** Looks in a row that found nobody, where none of them can be sure. */
const EMPTY_LOOKS = 5;

/**
 * Kills the whole tree with SIGKILL, again until nobody is left. Returns whether it is shown to be dead by then (`untilAt`, a `now()`). Whoever is found
 * is stopped at once: it must not fork, end, and have its child pass for a stranger's before all of its descendants are known. Never throws.
 */
export async function killTree(marks: TreeMarks, untilAt: number): Promise<boolean> {
  const { root, reaper } = marks;
  // With a reaper nobody can get out of sight: the group can go first. Without one, a dead parent would hide its children.
  if (reaper && isAlive(reaper) && root && marks.ownGroup && isAlive(root)) trySignal(-root.pid, 'SIGKILL');
  const strangers = new Map<number, string>();
  for (let empty = 0; ; ) {
    const { tree, isSure, isWhole } = look(marks, strangers, ({ pid }) => trySignal(pid, 'SIGSTOP'));
    const hidden = unseen(marks);
    if (tree.length > 0 || hidden.length > 0 || !isWhole) empty = 0;
    else if (isSure || ++empty === EMPTY_LOOKS) return true;
    signalAll(tree, 'SIGKILL');
    for (const pid of hidden) trySignal(pid, 'SIGKILL');
    if (now() > untilAt) return false;
    await pause(tree.some(isAlive) || hidden.length > 0 || !isWhole ? 2 : 0);
  }
}

/**
 * The job, and whom we have adopted, where no look shows them, since it failed, or since they are another user's (proc(5), hidepid). What is our child needs no look: its number is nobody else's until it is
 * reaped, the job by whoever waits for it, the others here, and in time everybody of the tree is our child, as parents die.
 */
function unseen({ root, reaper, bystanders }: TreeMarks): number[] {
  if (reaper?.pid !== process.pid) return [];
  const orphans = (adopted() ?? []).filter((pid) => !bystanders.some((one) => one.pid === pid));
  const hidden = orphans.filter((pid) => !isShown(pid) && reap(pid) === undefined);
  if (root && awaited.has(root.pid) && !isShown(root.pid)) hidden.push(root.pid);
  return hidden;
}

function isShown(pid: number): boolean {
  try {
    return readProc(pid) !== undefined;
  } catch {
    return false;
  }
}
