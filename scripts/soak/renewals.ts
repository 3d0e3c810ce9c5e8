// One leadership that is renewed as fast as the store answers: the real Renewal, Guard, Requests and backend.
import type { Backend } from '../../src/backend.ts';
import { openBackend } from '../../src/backends/index.ts';
import { now, within } from '../../src/clock.ts';
import { Guard } from '../../src/guard.ts';
import { Renewal } from '../../src/renewal.ts';
import { Requests } from '../../src/requests.ts';
import { race } from '../../src/waiting.ts';
import type { Task } from './task.ts';
import { Turns } from './turns.ts';
import { PATIENCE_MS, REQUEST_MS, TIMING, TTL_MS, tell } from './weeks.ts';

export async function soakRenewals(task: Task): Promise<void> {
  const turns = new Turns(task);
  const timing = { ...TIMING, renewEveryMs: 0 };
  const election = `soak-${process.pid}`;
  const backend = await openBackend(task.spec, { election, id: election, ttlMs: TTL_MS, requestMs: REQUEST_MS });
  const guard = new Guard(tell, timing);
  const place = backend.newPlace();
  const sentAt = now();
  const standing = await backend.acquire(place, within(PATIENCE_MS));
  if (!standing.leads) throw new Error('somebody else leads');
  const token = await backend.confirm(place, within(PATIENCE_MS));
  const requests = new Requests(backend, { place, id: election, token: String(token) }, REQUEST_MS);
  const counted = new Proxy(backend, {
    get(target, name) {
      if (name === 'renew')
        return async (...args: Parameters<Backend['renew']>) => {
          await guard.armed();
          await turns.next();
          return target.renew(...args);
        };
      const value = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const renewal = new Renewal(counted, place, timing, {
    confirmed() {
      guard.setDeadline(now() + TTL_MS); // also where nothing runs out
      requests.look();
    },
    unanswered: () => {},
  });
  renewal.start(sentAt);
  const tooLate = renewal.killDue.then(() => new Error('too late'));
  const end = await race([turns.over.then(() => undefined), renewal.gone, tooLate]);
  if (end) throw end;
  renewal.end();
  await guard.standDown();
  await backend.release(place, within(PATIENCE_MS));
  await backend[Symbol.asyncDispose]();
}
