import type { Renewal } from './renewal.ts';

/** Why the child has to be stopped: the store says no; or we do not know and time is up, or were asked to. */
export type Loss = { certain: true; reason: string } | { certain: false; reason: string };

/**
 * Aborted by the loss of a leadership, which is its reason. A signal and not a promise: whoever races with a promise leaves something behind in it for as long as it
 * is open, and a leader may have a million runs.
 */
export function watchForLoss(
  renewal: Renewal,
  unguarded: Promise<string>,
  asked: Promise<string>,
  lastDoubt: () => string,
): AbortSignal {
  const lost = new AbortController();
  const lose = (loss: Loss) => lost.abort(loss);
  renewal.gone.then(({ message }) => lose({ certain: true, reason: message }));
  renewal.stopDue.then(() => lose({ certain: false, reason: lastDoubt() }));
  asked.then((by) => lose({ certain: false, reason: `${by} asks for it (elect-run resign)` }));
  unguarded.then((reason) => lose({ certain: true, reason: `no guard can be had: ${reason}` }));
  return lost.signal;
}

/** Resolves with the loss. Once `over` is aborted nothing is left of the waiting. */
export function lossOf(lost: AbortSignal, over: AbortSignal): Promise<Loss> {
  return new Promise((resolve) => {
    const tell = () => resolve(lost.reason as Loss);
    if (lost.aborted) tell();
    else lost.addEventListener('abort', tell, { once: true, signal: over });
  });
}
