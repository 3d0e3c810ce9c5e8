import { Refused, Unusable } from '../backend.ts';
import { EXIT, Failure } from '../outcome.ts';

/** What a store answered, or did not, as the end of a subcommand. */
export function asFailure(error: Error, url: string): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof Refused) return new Failure(EXIT.refused, error.message);
  if (error instanceof Unusable) return new Failure(EXIT.usage, error.message);
  return new Failure(EXIT.unavailable, `${url} could not be reached in time: ${error.message}`);
}
