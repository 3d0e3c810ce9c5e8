import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { within } from '../../src/clock.ts';
import { race, under } from '../../src/waiting.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

test('the first to settle decides, and a promise can be in many races', async () => {
  const never = new Promise<never>(() => {});
  expect(await race([never, Promise.resolve(1)])).toBe(1);
  expect(await race([never, Promise.resolve(2), Promise.reject(new Error('late'))])).toBe(2);
  await expect(race([never, Promise.reject(new Error('no'))])).rejects.toThrow('no');
  const settled = Promise.resolve(3);
  expect(await race([settled])).toBe(3);
  expect(await race([settled, never])).toBe(3);
});

test('a promise that stays open keeps nothing of the races that are over', async () => {
  const open = new Promise<never>(() => {});
  const results: WeakRef<object>[] = [];
  for (let turn = 0; turn < 100; turn++) results.push(new WeakRef(await race([open, Promise.resolve({ turn })])));
  await new Promise(setImmediate);
  collectGarbage();
  expect(results.filter((result) => result.deref()).length).toBeLessThan(5);
  await race([open, Promise.resolve()]);
});

test('what is under a signal is aborted with it, and forgotten once it is over', () => {
  const above = new AbortController();
  const [first, second] = [under(above.signal), under(above.signal, new AbortController().signal)];
  first.abort();
  expect(getEventListeners(above.signal, 'abort')).toHaveLength(1);
  above.abort('why');
  expect(second.signal.reason).toBe('why');
  expect(getEventListeners(above.signal, 'abort')).toHaveLength(0);
  expect(under(above.signal).signal.reason).toBe('why');
});

test('a time limit is forgotten by its signal when it has passed', async () => {
  const above = new AbortController();
  const limits = Array.from({ length: 100 }, () => within(1, above.signal));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(limits.every(({ aborted }) => aborted)).toBe(true);
  expect(getEventListeners(above.signal, 'abort')).toHaveLength(0);
});
