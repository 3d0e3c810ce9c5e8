import { monotonicMs } from './clock.ts';
import { becomeSubreaper, reap } from './native.ts';
import { Children, childrenOf, childrenOfOurs, type Proc, readProc } from './proc.ts';

/** The kernel tells nobody of an adoption, or of a setsid(2). A look costs some 20 µs for each process of the tree: */
const WATCH_MS = 100;
/** for a large one the looks are rarer, so that they take a fiftieth of the time at the most. */
const WATCH_SHARE = 50;

/** Children that are ours from the start, and that somebody waits for: Node, or spawn.ts. */
export const awaited = new Set<number>();

/** A child that Node itself waits for: to be told at once when it is started. */
export function isNodesOwn(child: {
  pid?: number | undefined;
  once(event: 'exit', listener: () => void): unknown;
}): void {
  const { pid } = child;
  if (pid === undefined) return;
  awaited.add(pid);
  child.once('exit', () => awaited.delete(pid));
}

/** Children of ours of whom we are not the parent by birth. Undefined where they cannot be told. */
export const adopted = (): number[] | undefined => childrenOfOurs()?.filter((pid) => !awaited.has(pid));

/**
 * As subreaper (and as pid 1 of a container anyway) we become the parent of every descendant whose own parent died. The dead among
 * them have to be reaped, or they stay in the process table.
 */
export class Adoption {
  /** Whether orphans come to us. */
  readonly isComplete: boolean;
  readonly #reapDead = () => {
    for (const pid of adopted() ?? []) reap(pid);
  };

  #watch: NodeJS.Timeout | undefined;
  #known = '';
  #children: Children | undefined;

  constructor() {
    this.isComplete = becomeSubreaper() && childrenOfOurs() !== undefined;
    process.on('SIGCHLD', this.#reapDead);
  }

  /**
   * `changed` is told of the strays of the child's tree whenever there are others than before: of orphans, and of what has left the child's group while its parents live. After our
   * own death no parent leads to them any more (the kernel kills the child at once, and orphans are init's), so they have to be known by then.
   */
  watch(root: Pick<Proc, 'pid' | 'group'>, changed: (strays: Proc[]) => void): void {
    this.#endWatch();
    this.#children = new Children(root.pid);
    const look = () => {
      const startedAt = monotonicMs();
      const strays = this.#strays(root);
      const pids = strays?.map(({ pid }) => pid).join();
      if (strays && pids !== this.#known) changed(strays);
      this.#known = pids ?? this.#known;
      this.#watch = setTimeout(look, Math.max(WATCH_MS, WATCH_SHARE * (monotonicMs() - startedAt)));
      this.#watch.unref();
    };
    this.#watch = setTimeout(look, WATCH_MS);
    this.#watch.unref();
  }

  /** Undefined when they cannot be told just now: those who were known stay so. */
  #strays(root: Pick<Proc, 'pid' | 'group'>): Proc[] | undefined {
    try {
      const list = adopted();
      if (!list && this.isComplete) return undefined;
      const orphans = new Set(list);
      const pids = [...orphans, ...this.#children!.read()];
      for (const pid of pids) pids.push(...childrenOf(pid)); // and theirs: the list grows as it is read
      return pids
        .map(readProc)
        .filter((proc) => proc !== undefined)
        .filter(({ pid, group }) => group !== root.group || orphans.has(pid));
    } catch {
      return undefined;
    }
  }

  /**
   * After the child ended: false when nobody of its tree is left, since whoever lives would have been handed to us by now. True
   * when somebody is left or this cannot be told so cheaply.
   */
  hasOrphans(): boolean {
    if (!this.isComplete) return true;
    // One that has died since they were listed may have left us a child of its own.
    for (let before = ''; ; ) {
      const orphans = adopted();
      if (orphans === undefined || orphans.some((pid) => reap(pid) === undefined)) return true;
      if (orphans.join() === before) return false;
      before = orphans.join();
    }
  }

  #endWatch(): void {
    clearTimeout(this.#watch);
    this.#children?.end();
  }

  end(): void {
    this.#endWatch();
    process.off('SIGCHLD', this.#reapDead);
  }
}
