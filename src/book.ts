import { type Backend, Changed, Gone, type Place, Refused, Unusable } from './backend.ts';
import { pause, within } from './clock.ts';
import type { Report } from './events.ts';

/** After a request that was not answered. */
const RETRY_MS = 200;

/**
 * Writes what `change` makes of an election's book, as the leader, and tries again until it is answered or aborted. `change` is asked again with what is there when somebody
 * else has written meanwhile, and when we have, and the answer was lost. Undefined: nothing is written. Throws Gone when this place does not lead any more.
 */
export async function changeBook(
  backend: Backend,
  requestMs: number,
  place: Place,
  change: (text: string | undefined) => string | undefined,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  let told: string | undefined;
  for (;;) {
    try {
      const before = await backend.readBook(within(requestMs, signal));
      const text = change(before?.text);
      if (text !== undefined) await backend.writeBook(place, text, before, within(requestMs, signal));
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Gone || error instanceof Refused || error instanceof Unusable) throw error;
      if (!(error instanceof Changed)) {
        const { message } = error as Error;
        if (message !== told) report({ type: 'record-unavailable', reason: message });
        told = message;
        await pause(RETRY_MS, signal);
      }
    }
    signal.throwIfAborted();
  }
}
