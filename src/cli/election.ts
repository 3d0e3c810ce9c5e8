import type { Backend, Observation } from '../backend.ts';
import { openBackend } from '../backends/index.ts';
import { readBackend } from '../backends/spec.ts';
import type { ElectionOptions } from '../cli.ts';
import { within } from '../clock.ts';
import { mustBeElection } from '../config.ts';
import { usage } from '../outcome.ts';
import { parseRuns, type RunBook } from '../runs.ts';
import { asFailure } from './trouble.ts';

/** An election as it is seen from outside. */
export interface Watched {
  election: string;
  backend: Backend;
}

const REQUEST_MS = 2000;
const PATIENCE_MS = 5000;

/** Inside of a command its own election needs no options. Throws a usage Failure. */
export async function openElection(options: ElectionOptions, env: NodeJS.ProcessEnv): Promise<Watched> {
  const isZooKeeper = /^(zk|zookeeper)\b/.test(options.backend);
  const flavor = isZooKeeper ? (options.zkFlavor ?? env.ELECT_RUN_FLAVOR) : undefined;
  const spec = readBackend({ ...options, ...(flavor ? { zkFlavor: flavor } : {}) }, env);
  const election = options.name ?? env.ELECT_RUN_ELECTION;
  if (election === undefined) throw usage('-n, --name is needed: which election?');
  mustBeElection(spec, election);
  return { election, backend: await openBackend(spec, { election, id: '', ttlMs: 15_000, requestMs: REQUEST_MS }) };
}

/** One look. Throws a Failure. */
export async function lookAt({ backend }: Watched): Promise<Observation> {
  return backend.observe(within(PATIENCE_MS)).catch((error) => {
    throw asFailure(error, backend.url);
  });
}

/** One look at what was run. Throws a Failure. */
export async function lookAtRuns({ backend }: Watched): Promise<RunBook> {
  return backend
    .readBook(within(PATIENCE_MS))
    .then((book) => parseRuns(book?.text))
    .catch((error) => {
      throw asFailure(error, backend.url);
    });
}

/** For programs. `null`: nobody leads; the store does not know who waits. */
export function documentOf({ election, backend }: Watched, { leader, waiting }: Observation) {
  const { id, token, since, leftMs } = leader ?? {};
  return {
    election,
    backend: backend.url,
    leader: leader ? { id, token, since, leaseLeftMs: leftMs } : null,
    waiting: waiting ?? null,
  };
}
