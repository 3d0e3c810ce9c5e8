import { chmodSync, closeSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { alive } from './procs.ts';

/** In the environment of a run's workers: the folder that holds all others of the run. */
const OF_THE_RUN = 'FOLDER_OF_THE_TESTS';
const PREFIX = 'elect-run-tests-';

/** A new temporary folder. It goes with the run at the latest; outside of a run (of vitest, or of chaos) whoever made it removes it. */
export function newFolder(purpose: string): string {
  const ofTheRun = process.env[OF_THE_RUN];
  return mkdtempSync(ofTheRun ? join(ofTheRun, `${purpose}-`) : join(tmpdir(), `elect-run-${purpose}-`));
}

/** Whether nobody has asked for this name yet, in all workers of the run; outside of a run nobody ever has. */
export function isFirstWith(name: string): boolean {
  const ofTheRun = process.env[OF_THE_RUN];
  if (!ofTheRun) return true;
  try {
    closeSync(openSync(join(ofTheRun, name), 'wx'));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** vitest's globalSetup; returns what removes the folder of the run. A worker is ended by a signal, so nothing can be left to its `exit`. Runs that were killed before they could tidy up are tidied up after. */
export default function setup(): () => void {
  for (const name of readdirSync(tmpdir())) {
    const owner = name.startsWith(PREFIX) ? /^\d+/.exec(name.slice(PREFIX.length))?.[0] : undefined;
    if (owner && !alive(Number(owner))) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
  const folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
  chmodSync(folder, 0o755); // servers run as users of their own
  process.env[OF_THE_RUN] = folder;
  return () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}
