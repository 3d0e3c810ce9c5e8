// A standby that looks again as soon as it has begun to wait: the real campaign and backend, behind a leader that renews.
import type { Backend } from '../../src/backend.ts';
import { openBackend } from '../../src/backends/index.ts';
import { campaign } from '../../src/campaign.ts';
import { now, pause, within } from '../../src/clock.ts';
import { Renewal } from '../../src/renewal.ts';
import { under } from '../../src/waiting.ts';
import type { Task } from './task.ts';
import { Turns } from './turns.ts';
import { PATIENCE_MS, REQUEST_MS, TIMING, TTL_MS, tell } from './weeks.ts';

/** Of a wait, before it is over: in it a watch is set up. */
const WAIT_MS = 1;

export async function soakStandby(task: Task): Promise<void> {
  const turns = new Turns(task);
  const election = `soak-${process.pid}`;
  const open = (id: string) => openBackend(task.spec, { election, id, ttlMs: TTL_MS, requestMs: REQUEST_MS });
  const [store, leaders] = [await open('standby'), await open('leader')];
  const first = leaders.newPlace();
  const sentAt = now();
  const standing = await leaders.acquire(first, within(PATIENCE_MS));
  if (!standing.leads) throw new Error('somebody else leads');
  const renewal = new Renewal(leaders, first, TIMING, { confirmed: () => {}, unanswered: () => {} });
  renewal.start(sentAt);

  const end = new AbortController();
  const impatient = new Proxy(store, {
    get(target, name) {
      if (name === 'vacancy')
        return async (...[place, waiting, signal]: Parameters<Backend['vacancy']>) => {
          const enough = under(signal);
          const wait = target.vacancy(place, waiting, enough.signal).catch(() => {});
          await pause(WAIT_MS);
          if (!(await turns.next())) end.abort(new Error('enough'));
          enough.abort(new Error('look again'));
          await wait;
        };
      const value = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const options = {
    timing: TIMING,
    giveUpAt: Number.POSITIVE_INFINITY,
    once: false,
    report: tell,
    placed: () => {},
    standsBy: () => {},
    hooks: { confirmed: () => {}, unanswered: () => {} },
    impatience: new AbortController().signal,
  };
  const outcome = await campaign(impatient, options, end.signal).catch((error) => error);
  if (outcome !== end.signal.reason) throw outcome;
  renewal.end();
  await leaders.release(first, within(PATIENCE_MS));
  for (const backend of [store, leaders]) await backend[Symbol.asyncDispose]();
}
