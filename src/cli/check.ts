import type { ElectionOptions } from '../cli.ts';
import { EXIT, usage } from '../outcome.ts';
import { lookAt, openElection } from './election.ts';

/** `elect-run check`, inside of a command: 0 while its token still leads, by the store's own word; 79 otherwise. Throws a Failure. */
export async function check(options: ElectionOptions, env: NodeJS.ProcessEnv): Promise<number> {
  const { ELECT_RUN_ID: id, FENCING_TOKEN: token } = env;
  if (!id || !token)
    throw usage('check asks for the command that it runs in: ELECT_RUN_ID and FENCING_TOKEN are not set');
  const watched = await openElection(options, env);
  const { leader } = await lookAt(watched);
  await watched.backend[Symbol.asyncDispose]();
  // A leader's token reaches observers a moment after its start; its id is unique to the process.
  return leader?.id === id && (leader.token ?? token) === token ? 0 : EXIT.lost;
}
