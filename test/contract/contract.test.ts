import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type Backend, Gone, type Place } from '../../src/backend.ts';
import { describeWith } from '../helpers/needs.ts';
import { open, STORES, type Store } from './stores.ts';

const patience = () => AbortSignal.timeout(10_000);

interface Candidacy {
  backend: Backend;
  place: Place;
  abort: AbortController;
}

for (const kind of STORES) {
  describeWith(kind.needs, `the contract on ${kind.name}`, () => {
    let store: Store;
    let count = 0;
    let election = '';
    const open_: Candidacy[] = [];

    beforeAll(async () => {
      store = await kind.start();
    });
    afterAll(() => store?.end());
    afterEach(async () => {
      for (const { backend, place, abort } of open_.splice(0)) {
        abort.abort(new Error('the test is over'));
        await backend.release(place, patience()).catch(() => {});
        await backend[Symbol.asyncDispose]();
      }
    });

    const inElection = () => {
      election = `${['file', 'kubernetes'].includes(store.spec.kind) ? '' : '/jobs/'}contract-${++count}`;
    };
    const enter = async (id: string): Promise<Candidacy> => {
      const { backend } = await open(store, election, id);
      const candidacy = { backend, place: backend.newPlace(), abort: new AbortController() };
      open_.push(candidacy);
      return candidacy;
    };
    const acquire = ({ backend, place }: Candidacy) => backend.acquire(place, patience());
    const leave = ({ backend, place }: Candidacy) => backend.release(place, patience());

    test('one leads and the others stand by, told who leads', async () => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      expect(await acquire(first)).toEqual({ leads: true });
      await first.backend.confirm(first.place, patience());
      expect(await acquire(second)).toMatchObject({ leads: false, leader: 'first' });
    });

    test('acquire may be repeated: it is the same place', async () => {
      inElection();
      const first = await enter('first');
      await acquire(first);
      expect(await acquire(first)).toEqual({ leads: true });
    });

    test('tokens strictly grow from leader to leader', async () => {
      inElection();
      let last = 0n;
      for (let term = 0; term < 5; term++) {
        const candidacy = await enter(`term-${term}`);
        expect(await acquire(candidacy)).toEqual({ leads: true });
        const token = await candidacy.backend.confirm(candidacy.place, patience());
        expect(token).toBeGreaterThan(last);
        last = token;
        await leave(candidacy);
      }
    });

    test('a release wakes the one who waits, and its token is larger', async () => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      await acquire(first);
      const before = await first.backend.confirm(first.place, patience());
      const waiting = await acquire(second);
      if (waiting.leads) throw new Error('two lead');
      const vacancy = second.backend.vacancy(second.place, waiting, patience());
      await leave(first);
      await vacancy;
      expect(await acquire(second)).toEqual({ leads: true });
      expect(await second.backend.confirm(second.place, patience())).toBeGreaterThan(before);
    });

    test('who waited longest comes next, where the store keeps a line; who left the line is passed over', async () => {
      inElection();
      const line = [await enter('a'), await enter('b'), await enter('c')] as const;
      for (const candidacy of line) await acquire(candidacy);
      await leave(line[1]);
      await leave(line[0]);
      expect(await acquire(line[2])).toEqual({ leads: true });
    });

    test('the leader renews; what was released cannot be renewed', async () => {
      inElection();
      const first = await enter('first');
      await acquire(first);
      expect(await first.backend.renew(first.place, patience())).toBeGreaterThanOrEqual(3000);
      const held = first.place.handle ? { ...first.place } : first.place;
      await leave(first);
      await expect(first.backend.renew(held, patience())).rejects.toThrow(Gone);
    });

    test('a deposed leader is told so: by the store itself where it can, at renewal, and at the last look before the child', async () => {
      inElection();
      const first = await enter('first');
      await acquire(first);
      await first.backend.confirm(first.place, patience());
      const told = first.backend.gone(first.place, first.abort.signal);
      await store.depose(first.place.handle, election);
      if (store.tellsAtOnce) expect(await told).toBeInstanceOf(Gone);
      await expect(first.backend.renew(first.place, patience())).rejects.toThrow(Gone);
      await expect(first.backend.confirm(first.place, patience())).rejects.toThrow(Gone);
    });

    test('a deposed leader that releases takes nothing from its successor', async () => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      await acquire(first);
      await store.depose(first.place.handle, election);
      expect(await acquire(second)).toEqual({ leads: true });
      await leave(first);
      await second.backend.confirm(second.place, patience());
      await second.backend.renew(second.place, patience());
    });

    test('an abort is answered within 100 ms while waiting', async () => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      await acquire(first);
      const waiting = await acquire(second);
      if (waiting.leads) throw new Error('two lead');
      const vacancy = second.backend.vacancy(second.place, waiting, second.abort.signal);
      const abortedAt = performance.now();
      second.abort.abort(new Error('enough'));
      await vacancy.catch(() => {});
      expect(performance.now() - abortedAt).toBeLessThan(100);
    });

    test('silence is "don\'t know", never "no", and an abort is answered within 100 ms in it', async (context) => {
      if (!store.silence) return context.skip('a local file cannot fall silent');
      inElection();
      const first = await enter('first');
      await acquire(first);
      await store.silence.begin();
      try {
        await expect(first.backend.renew(first.place, AbortSignal.timeout(300))).rejects.not.toThrow(Gone);
        const renewal = first.backend.renew(first.place, first.abort.signal).catch((error) => error);
        const abortedAt = performance.now();
        first.abort.abort(new Error('enough'));
        expect((await renewal).message).toBe('enough');
        expect(performance.now() - abortedAt).toBeLessThan(100);
      } finally {
        store.silence.end();
      }
      await first.backend.renew(first.place, patience());
    });
  });
}
