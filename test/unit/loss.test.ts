import { getEventListeners } from 'node:events';
import { expect, test } from 'vitest';
import { lossOf, watchForLoss } from '../../src/loss.ts';
import type { Renewal } from '../../src/renewal.ts';

const never = new Promise<never>(() => {});
const watch = (renewal: Partial<Renewal>) =>
  watchForLoss({ gone: never, stopDue: never, ...renewal } as Renewal, never, never, () => 'no answer');

test('waiting for a loss that does not come leaves nothing behind', async () => {
  const lost = watch({});
  for (let run = 0; run < 1000; run++) {
    const over = new AbortController();
    await Promise.race([lossOf(lost, over.signal), undefined]);
    over.abort();
  }
  expect(getEventListeners(lost, 'abort')).toHaveLength(0);
});

test('whoever waits learns why, during and after the loss', async () => {
  const lost = watch({ stopDue: Promise.resolve() });
  const loss = { certain: false, reason: 'no answer' };
  const { signal } = new AbortController();
  expect(await lossOf(lost, signal)).toEqual(loss);
  expect(await lossOf(lost, signal)).toEqual(loss);
});
