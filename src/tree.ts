import { now, pause } from './clock.ts';
import { hasInEnvironment, isAlive, type Proc, readAllProcs } from './proc.ts';

/** What marks a process as the child's: plain data, so that the guard's clean-up can be told. */
export interface TreeMarks {
  /** The child. Undefined before it was started. */
  root: Pick<Proc, 'pid' | 'startedAt'> | undefined;
  /** True: the child leads a session and process group of its own. False: it shares our group, for the terminal's sake. */
  ownGroup: boolean;
  /** An assignment in the child's environment: every descendant has it unless it was taken out. */
  mark: string;
  /** elect-run itself while it lives: as subreaper it is the parent of every descendant that lost its own. */
  reaper: number | undefined;
  /** Processes that are known to be descendants, however they hide. */
  known: Pick<Proc, 'pid' | 'startedAt'>[];
  /** Sessions of elect-run's helpers (guard, clean-up …), which are not the child's. */
  helperSessions: number[];
  /** Single helpers in our own session. */
  helpers: number[];
}

/**
 * Every living process of the child's tree: its group and session, all descendants by parent, and what left both but still
 * carries the mark in its environment. A snapshot: take it again until it is empty.
 */
export function findTree(marks: TreeMarks): Proc[] {
  const procs = readAllProcs();
  const ourselves = new Set([process.pid, ...(marks.reaper ? [marks.reaper] : []), ...marks.helpers]);
  const candidates = procs.filter((proc) => !ourselves.has(proc.pid) && !marks.helperSessions.includes(proc.session));
  const rootPid = marks.root?.pid;
  const rootNow = procs.find((proc) => proc.pid === rootPid);
  // Once the child is gone its pid may be another's. While any member of its group lives, the kernel gives that number to nobody.
  const pidIsAnothers = rootNow !== undefined && rootNow.startedAt !== marks.root?.startedAt;
  const isMarked = (proc: Proc) => {
    if (rootPid !== undefined && !pidIsAnothers) {
      if (proc.pid === rootPid) return true;
      if (marks.ownGroup && (proc.group === rootPid || proc.session === rootPid)) return true;
    }
    if (marks.reaper !== undefined && proc.parent === marks.reaper) return true;
    if (marks.known.some(({ pid, startedAt }) => pid === proc.pid && startedAt === proc.startedAt)) return true;
    return hasInEnvironment(proc.pid, marks.mark);
  };
  const tree = new Map(candidates.filter(isMarked).map((proc) => [proc.pid, proc]));
  for (let grew = true; grew; ) {
    grew = false;
    for (const proc of candidates) {
      if (tree.has(proc.pid) || !tree.has(proc.parent)) continue;
      tree.set(proc.pid, proc);
      grew = true;
    }
  }
  return [...tree.values()];
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

/** Kills the whole tree with SIGKILL, again until a snapshot finds nobody. Returns whether it is shown to be dead by then (`untilAt`, a `now()`). */
export async function killTree(marks: TreeMarks, untilAt: number): Promise<boolean> {
  // With a reaper nobody can get out of sight: the group can go first. Without one, a dead parent would hide its children.
  if (marks.reaper && marks.root && marks.ownGroup && isAlive(marks.root)) trySignal(-marks.root.pid, 'SIGKILL');
  for (;;) {
    const tree = findTree(marks);
    if (tree.length === 0) return true;
    signalAll(tree, 'SIGKILL');
    if (now() > untilAt) return false;
    await pause(tree.some(isAlive) ? 2 : 0);
  }
}
