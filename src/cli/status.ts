import type { ElectionOptions } from '../cli.ts';
import { EXIT } from '../outcome.ts';
import { documentOf, lookAt, lookAtRuns, openElection } from './election.ts';
import { describe } from './view.ts';

/** `elect-run status`: prints who leads, who waits and what was run. Resolves with the exit status. Throws a Failure. */
export async function status(options: ElectionOptions, env: NodeJS.ProcessEnv): Promise<number> {
  const watched = await openElection(options, env);
  const [seen, { runs }] = await Promise.all([lookAt(watched), lookAtRuns(watched)]);
  const text = options.json
    ? `${JSON.stringify({ ...documentOf(watched, seen), runs })}\n`
    : describe(watched, seen, runs);
  process.stdout.write(text);
  await watched.backend[Symbol.asyncDispose]();
  return seen.leader ? 0 : EXIT.standby;
}
