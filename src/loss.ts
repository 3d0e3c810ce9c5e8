import type { Renewal } from './renewal.ts';

/** Why the child has to be stopped: the store says no; or we do not know and time is up, or were asked to. */
export type Loss = { certain: true; reason: string } | { certain: false; reason: string };

/** Resolves with the loss of a leadership. One promise for all of its term: to be waited for with `race` of waiting.ts. */
export function watchForLoss(
  renewal: Renewal,
  unguarded: Promise<string>,
  asked: Promise<string>,
  lastDoubt: () => string,
): Promise<Loss> {
  return Promise.race([
    renewal.gone.then(({ message }): Loss => ({ certain: true, reason: message })),
    renewal.stopDue.then((): Loss => ({ certain: false, reason: lastDoubt() })),
    asked.then((by): Loss => ({ certain: false, reason: `${by} asks for it (elect-run resign)` })),
    unguarded.then((reason): Loss => ({ certain: true, reason: `no guard can be had: ${reason}` })),
  ]);
}
