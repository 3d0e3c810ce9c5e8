/**
 * For what is waited for again and again while something else lasts for weeks: what lasts must not collect those who have waited. Promise.race() leaves something behind
 * in each promise that has not settled (nodejs/node#17469), AbortSignal.any() in each signal that was not aborted (nodejs/node#54614).
 */

interface Racer {
  resolve(value: unknown): void;
  reject(reason: unknown): void;
}

const racersOf = new WeakMap<Promise<unknown>, Set<Racer>>();

/** As Promise.race(). */
export function race<Promises extends readonly Promise<unknown>[]>(
  promises: Promises,
): Promise<Awaited<Promises[number]>> {
  const all = promises.map(racersIn);
  return new Promise((resolve, reject) => {
    const leave = () => {
      for (const racers of all) racers.delete(racer);
    };
    const racer: Racer = {
      resolve(value) {
        leave();
        resolve(value as Awaited<Promises[number]>);
      },
      reject(reason) {
        leave();
        reject(reason);
      },
    };
    for (const racers of all) racers.add(racer);
  });
}

/** Has one handler on each promise, however many races it is in. */
function racersIn(promise: Promise<unknown>): Set<Racer> {
  const known = racersOf.get(promise);
  if (known) return known;
  const racers = new Set<Racer>();
  racersOf.set(promise, racers);
  const over = (tell: (racer: Racer) => void) => {
    racersOf.delete(promise);
    for (const racer of racers) tell(racer);
  };
  promise.then(
    (value) => over((racer) => racer.resolve(value)),
    (reason) => over((racer) => racer.reject(reason)),
  );
  return racers;
}

/** Aborted together with any of the signals, for the same reason. Abort it when it is over, and they forget it. */
export function under(...signals: AbortSignal[]): AbortController {
  const own = new AbortController();
  const follow = ({ target }: { target: unknown }) => own.abort((target as AbortSignal).reason);
  for (const signal of signals) signal.addEventListener('abort', follow);
  own.signal.addEventListener('abort', () => {
    for (const signal of signals) signal.removeEventListener('abort', follow);
  });
  const aborted = signals.find((signal) => signal.aborted);
  if (aborted) own.abort(aborted.reason);
  return own;
}
