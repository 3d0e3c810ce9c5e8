import { becomeSubreaper, reap } from './native.ts';
import { childrenOfOurs, type Proc, readProc } from './proc.ts';

/** The kernel tells nobody of an adoption. A look costs some 20 µs. */
const WATCH_MS = 100;

const nodesOwn = new Set<number>();

/** A child that Node itself waits for: to be told at once when it is started. */
export function isNodesOwn(child: {
  pid?: number | undefined;
  once(event: 'exit', listener: () => void): unknown;
}): void {
  const { pid } = child;
  if (pid === undefined) return;
  nodesOwn.add(pid);
  child.once('exit', () => nodesOwn.delete(pid));
}

/**
 * As subreaper (and as pid 1 of a container anyway) we become the parent of every descendant whose own parent died. The dead among
 * them have to be reaped, or they stay in the process table.
 */
export class Adoption {
  /** Whether orphans come to us. */
  readonly isComplete: boolean;
  readonly #reapDead = () => {
    for (const pid of this.#adopted()) {
      if (!readProc(pid)) reap(pid);
    }
  };

  #watch: NodeJS.Timeout | undefined;
  #known = '';

  constructor() {
    this.isComplete = becomeSubreaper() && childrenOfOurs() !== undefined;
    process.on('SIGCHLD', this.#reapDead);
  }

  /** `changed` is told of the living orphans whenever there are others than before: after our own death they are init's, and have to be known by then. */
  watch(changed: (orphans: Proc[]) => void): void {
    this.#watch ??= setInterval(() => {
      const pids = this.#adopted();
      if (pids.join() === this.#known) return;
      this.#known = pids.join();
      changed(pids.map(readProc).filter((proc) => proc !== undefined));
    }, WATCH_MS);
    this.#watch.unref();
  }

  /**
   * After the child ended: false when nobody of its tree is left, since whoever lives would have been handed to us by now. True
   * when somebody is left or this cannot be told so cheaply.
   */
  hasOrphans(): boolean {
    if (!this.isComplete) return true;
    return this.#adopted().some((pid) => readProc(pid) !== undefined);
  }

  #adopted(): number[] {
    return (childrenOfOurs() ?? []).filter((pid) => !nodesOwn.has(pid));
  }

  end(): void {
    clearInterval(this.#watch);
    process.off('SIGCHLD', this.#reapDead);
  }
}
