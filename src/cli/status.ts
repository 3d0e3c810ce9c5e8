import { openBackend } from '../backends/index.ts';
import { readBackend } from '../backends/spec.ts';
import type { ElectionOptions } from '../cli.ts';
import { within } from '../clock.ts';
import { mustBeElection } from '../config.ts';
import { EXIT, usage } from '../outcome.ts';
import { parseRuns } from '../runs.ts';
import { asFailure } from './trouble.ts';
import { describeLeader, describeRun, describeWaiting, rows } from './view.ts';

const PATIENCE_MS = 5000;
const REQUEST_MS = 2000;
const SHOWN_RUNS = 10;

/** `elect-run status`: prints who leads, who waits and what was run. Resolves with the exit status. Throws a Failure. */
export async function status(options: ElectionOptions, env: NodeJS.ProcessEnv): Promise<number> {
  const spec = readBackend(options, env);
  const election = options.name ?? env.ELECT_RUN_ELECTION;
  if (election === undefined) throw usage('-n, --name is needed: which election?');
  mustBeElection(spec, election);
  const backend = await openBackend(spec, { election, id: '', ttlMs: 15_000, requestMs: REQUEST_MS });
  try {
    const signal = within(PATIENCE_MS);
    const [seen, { runs }] = await Promise.all([
      backend.observe(signal),
      backend.readBook(signal).then((book) => parseRuns(book?.text)),
    ]).catch((error) => {
      throw asFailure(error, backend.url);
    });
    const { leader, waiting } = seen;
    if (options.json) {
      const { id, token, since, leftMs } = leader ?? {};
      const shown = leader ? { id, token, since, leaseLeftMs: leftMs } : null;
      const document = { election, backend: backend.url, leader: shown, waiting: waiting ?? null, runs };
      process.stdout.write(`${JSON.stringify(document)}\n`);
    } else {
      process.stdout.write(
        rows([
          ['election', `${election} on ${backend.url}`],
          ['leader', describeLeader(seen)],
          ...labelled('standing by', describeWaiting(seen)),
          ...labelled('runs', runs.slice(0, SHOWN_RUNS).map(describeRun)),
        ]),
      );
    }
    return leader ? 0 : EXIT.standby;
  } finally {
    await backend[Symbol.asyncDispose]();
  }
}

const labelled = (label: string, texts: string[]): [string, string][] =>
  texts.map((text, index) => [index === 0 ? label : '', text]);
