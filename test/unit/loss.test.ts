import { expect, test } from 'vitest';
import { watchForLoss } from '../../src/loss.ts';
import type { Renewal } from '../../src/renewal.ts';
import { race } from '../../src/waiting.ts';

const never = new Promise<never>(() => {});

test('whoever waits learns why, during and after the loss', async () => {
  const renewal = { gone: never, stopDue: Promise.resolve() } as unknown as Renewal;
  const lost = watchForLoss(renewal, never, never, () => 'no answer');
  const loss = { certain: false, reason: 'no answer' };
  expect(await race([never, lost])).toEqual(loss);
  expect(await race([never, lost])).toEqual(loss);
});
