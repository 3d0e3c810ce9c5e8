import { childrenOfOurs } from './proc.ts';

/** Children that we have started, and that somebody waits for: Node, or spawn.ts. */
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

/** Our children that we have not started, the dead included. Undefined where they cannot be told. */
export const adopted = (): number[] | undefined => childrenOfOurs()?.filter((pid) => !awaited.has(pid));
