import { adopted } from './awaited.ts';
import { monotonicMs } from './clock.ts';
import { becomeSubreaper, reap } from './native.ts';
import { Children, childrenOf, childrenOfOurs, isAlive, type Proc, readProc } from './proc.ts';
import { isOrphan, type TreeMarks } from './tree.ts';

/** The kernel tells nobody of an adoption, or of a setsid(2). A look costs some 20 µs for each process of the tree: */
const WATCH_MS = 100;
/** for a large one the looks are rarer, so that they take a fiftieth of the time at the most. */
const WATCH_SHARE = 50;

type Root = NonNullable<TreeMarks['root']> & Pick<Proc, 'group'>;

/**
 * As subreaper (and as pid 1 of a container anyway) we become the parent of every descendant whose own parent died. The dead among
 * them have to be reaped, or they stay in the process table.
 */
export class Adoption {
  /** Whether orphans come to us. */
  readonly isComplete: boolean;
  readonly #marks: TreeMarks;
  readonly #reapDead = () => {
    for (const pid of adopted() ?? []) reap(pid);
  };

  #watch: NodeJS.Timeout | undefined;
  #known = '';
  #children: Children | undefined;

  /** There was no job yet: whoever is our child by now and was not started by us is none of it, and is so marked. */
  constructor(marks: TreeMarks) {
    this.isComplete = becomeSubreaper() && childrenOfOurs() !== undefined;
    this.#marks = marks;
    marks.bystanders = living(adopted() ?? []);
    process.on('SIGCHLD', this.#reapDead);
  }

  /**
   * `changed` is told of the strays of the child's tree whenever there are others than before: of orphans, and of what has left the child's group while its parents live. After our
   * own death no parent leads to them any more (the kernel kills the child at once, and orphans are init's), so they have to be known by then.
   */
  watch(root: Root, changed: (strays: Proc[]) => void): void {
    this.#known = '';
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
  #strays(root: Root): Proc[] | undefined {
    try {
      const others = adopted();
      if (!others && this.isComplete) return undefined;
      const orphans = new Set(
        living(others ?? [])
          .filter((proc) => isOrphan(this.#marks, proc))
          .map(({ pid }) => pid),
      );
      // Once it is dead all that it had for children are orphans, and its pid may be another's.
      const pids = [...orphans, ...(isAlive(root) ? this.#children!.read() : [])];
      for (const pid of pids) pids.push(...childrenOf(pid)); // and theirs: the list grows as it is read
      return living(pids).filter(({ pid, group }) => group !== root.group || orphans.has(pid));
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
      const others = adopted();
      if (others === undefined || others.some((pid) => reap(pid) === undefined && this.#mayBeOrphan(pid))) return true;
      if (others.join() === before) return false;
      before = others.join();
    }
  }

  endWatch(): void {
    clearTimeout(this.#watch);
    this.#children?.end();
  }

  /** Of one that lives. True as well when nothing can be read of it: it is another user's, or no descriptor is left. */
  #mayBeOrphan(pid: number): boolean {
    try {
      const proc = readProc(pid);
      return proc === undefined || isOrphan(this.#marks, proc);
    } catch {
      return true;
    }
  }

  end(): void {
    this.endWatch();
    process.off('SIGCHLD', this.#reapDead);
  }
}

const living = (pids: number[]): Proc[] => pids.map(readProc).filter((proc) => proc !== undefined);
