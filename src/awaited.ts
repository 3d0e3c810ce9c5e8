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
