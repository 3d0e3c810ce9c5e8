import { type Candidate, openBackend } from './backends/index.ts';
import type { BackendSpec } from './backends/spec.ts';
import { now, within } from './clock.ts';
import { killTree, type TreeMarks } from './tree.ts';

/** What the guard is told, as JSON. */
export interface Facts {
  marks: TreeMarks;
  backend: BackendSpec;
  candidate: Candidate;
  /** `Place.handle`; null while nothing of ours is in the store. */
  handle: unknown;
}

const PATIENCE_MS = 10_000;

/**
 * What the guard does when elect-run cannot: ends what is left of the tree, wherever it went, and with `isRelease` (elect-run is dead) gives
 * the place in the store back, so that the next candidate need not wait for the lease to run out. Resolves with whether the tree is dead, as far as anything is known of it.
 */
export async function cleanUp(facts: Partial<Facts>, isRelease: boolean): Promise<boolean> {
  const { marks, backend: spec, candidate, handle } = facts;
  if (!marks || !spec || !candidate) return true; // elect-run died before it could say
  const isDead = await killTree({ ...marks, reaper: isRelease ? undefined : marks.reaper }, now() + PATIENCE_MS);
  if (!isDead) {
    process.stderr.write(
      `elect-run: the guard could not end every process with ${marks.mark}; the lease is left to run out\n`,
    );
  } else if (isRelease && handle) {
    const backend = await openBackend(spec, candidate);
    await backend.release({ ttlMs: undefined, handle }, within(PATIENCE_MS)).catch(() => {}); // it runs out by itself
    await backend[Symbol.asyncDispose]();
  }
  return isDead;
}
