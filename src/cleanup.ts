/**
 * Started by the guard, never by hand: `cleanup.js end|release`, with the facts as JSON on stdin. It ends what is left of the tree,
 * wherever it went, and with `release` (elect-run is dead) gives the place in the store back, so that the next candidate
 * need not wait for the lease to run out.
 */
import { readFileSync } from 'node:fs';
import { type Candidate, openBackend } from './backends/index.ts';
import type { BackendSpec } from './backends/spec.ts';
import { now, within } from './clock.ts';
import { killTree, type TreeMarks } from './tree.ts';

export interface Facts {
  marks: TreeMarks;
  backend: BackendSpec;
  candidate: Candidate;
  /** `Place.handle`; null while nothing of ours is in the store. */
  handle: unknown;
}

const PATIENCE_MS = 10_000;

async function cleanUp({ marks, backend: spec, candidate, handle }: Partial<Facts>, isRelease: boolean): Promise<void> {
  if (!marks || !spec || !candidate) return; // elect-run died before it could say
  const isDead = await killTree({ ...marks, reaper: isRelease ? undefined : marks.reaper }, now() + PATIENCE_MS);
  if (!isDead) {
    process.stderr.write(
      `elect-run: the guard could not end every process of ${marks.id}; the lease is left to run out\n`,
    );
  } else if (isRelease && handle) {
    const backend = await openBackend(spec, candidate);
    await backend.release({ ttlMs: undefined, handle }, within(PATIENCE_MS)).catch(() => {}); // it runs out by itself
    await backend[Symbol.asyncDispose]();
  }
}

process.noDeprecation = true;
cleanUp(JSON.parse(readFileSync(0, 'utf8')), process.argv[2] === 'release').then(() => process.exit());
