import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type Backend, Changed, Gone, type Place } from '../../src/backend.ts';
import { describeWith } from '../helpers/needs.ts';
import { until } from '../helpers/procs.ts';
import { open, STORES, type Store } from './stores.ts';

const patience = () => AbortSignal.timeout(10_000);
/** Nobody renews here: longer than a test takes. */
const TTL_MS = 20_000;
/** Where it is to run out. */
const SHORT_TTL_MS = 3000;
/** The store's clock is another one, and may be rounded. */
const CLOCKS_MS = 20;
const SOON_MS = 100;

/** By a timer of this process, and with all that has come when it is looked at: that the tests themselves have stood still does not count. */
async function isSoon(answer: Promise<unknown>): Promise<boolean> {
  let isThere = false;
  answer.finally(() => (isThere = true)).catch(() => {});
  await sleep(SOON_MS);
  for (let turn = 0; turn < 2; turn++) await nextTurn();
  return isThere;
}

/** A server that has just come back may say "don't know" for a while. */
async function again<T>(request: () => Promise<T>): Promise<T> {
  return until(
    () =>
      request().then(
        (answer) => ({ answer }),
        (error) => {
          if (error instanceof Gone) throw error;
          return undefined;
        },
      ),
    'an answer',
  ).then(({ answer }) => answer);
}

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
    const enter = async (id: string, ttlMs = TTL_MS): Promise<Candidacy> => {
      const { backend } = await open(store, election, id, ttlMs);
      const candidacy = { backend, place: backend.newPlace(), abort: new AbortController() };
      open_.push(candidacy);
      return candidacy;
    };
    const acquire = ({ backend, place }: Candidacy) => backend.acquire(place, patience());
    /** Leads at once, and answers with its token. */
    const lead = async (candidacy: Candidacy): Promise<bigint> => {
      expect(await acquire(candidacy)).toEqual({ leads: true });
      return candidacy.backend.confirm(candidacy.place, patience());
    };
    /** Waits as the elector does. */
    const leadInTurn = async (candidacy: Candidacy): Promise<bigint> => {
      for (;;) {
        const standing = await again(() => acquire(candidacy));
        if (standing.leads) return candidacy.backend.confirm(candidacy.place, patience());
        await candidacy.backend.vacancy(candidacy.place, standing, patience());
      }
    };
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
      expect(await first.backend.renew(first.place, patience())).toBeGreaterThanOrEqual(TTL_MS);
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

    test('a deposed leader that releases takes nothing from its successor, whose token is larger', async () => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      const before = await lead(first);
      await store.depose(first.place.handle, election);
      expect(await lead(second)).toBeGreaterThan(before);
      await leave(first);
      await second.backend.confirm(second.place, patience());
      await second.backend.renew(second.place, patience());
    });

    test('a leader that crashed is succeeded once its lease has run out, not before, with a larger token', async (context) => {
      if (store.spec.kind === 'file') return context.skip('the kernel sees a crash: test/faults/killed.test.ts');
      inElection();
      const [first, second] = [await enter('first', SHORT_TTL_MS), await enter('second')];
      const sentAt = performance.now();
      const before = await lead(first);
      await first.backend[Symbol.asyncDispose]();
      expect(await leadInTurn(second)).toBeGreaterThan(before);
      expect(performance.now() - sentAt).toBeGreaterThan(SHORT_TTL_MS - CLOCKS_MS);
    });

    test('a restart of the store keeps the leader and the line, and tokens grow across it', async (context) => {
      const { servers } = store;
      if (!servers) return context.skip('a local file has no server');
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      const before = await lead(first);
      expect(await acquire(second)).toMatchObject({ leads: false });
      await Promise.all(servers.members.map((member) => member.kill()));
      await servers.heal();
      await again(() => first.backend.renew(first.place, patience()));
      expect(await again(() => first.backend.confirm(first.place, patience()))).toBeGreaterThanOrEqual(before);
      expect(await again(() => acquire(second))).toMatchObject({ leads: false });
      await again(() => leave(first));
      expect(await leadInTurn(second)).toBeGreaterThan(before);
    });

    test('a waiter whose own place was taken away is told so, and enters again', async (context) => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      await acquire(first);
      await acquire(second);
      if (second.place.ttlMs === undefined) return context.skip('those who wait have nothing in this store');
      await store.depose(second.place.handle, election);
      await expect(acquire(second)).rejects.toThrow(Gone);
      second.place = second.backend.newPlace();
      expect(await acquire(second)).toMatchObject({ leads: false, position: 2 });
      await leave(first);
      expect(await leadInTurn(second)).toBeGreaterThan(0n);
    });

    test('an observer sees who leads and who waits, and enters nothing', async () => {
      inElection();
      const [first, second, observer] = [await enter('first'), await enter('second'), await enter('observer')];
      expect((await observer.backend.observe(patience())).leader).toBeUndefined();
      const token = await lead(first);
      await acquire(second);
      const { leader, waiting } = await observer.backend.observe(patience());
      expect(leader?.id).toBe('first');
      if (leader?.token !== undefined) expect(BigInt(leader.token)).toBe(token);
      if (waiting) expect(waiting).toEqual(['second']);
      if (leader?.leftMs !== undefined) expect(leader.leftMs).toBeGreaterThan(0);
      await leave(second);
      await leave(first);
      expect((await observer.backend.observe(patience())).leader).toBeUndefined();
    });

    test('a word for the leader is read by the leader, and can be taken back', async () => {
      inElection();
      const [first, operator] = [await enter('first'), await enter('operator')];
      await lead(first);
      await first.backend.renew(first.place, patience());
      expect(await first.backend.readWord(first.place, patience())).toBeUndefined();
      for (const word of ['one', 'two']) {
        await operator.backend.leaveWord(word, patience());
        await first.backend.renew(first.place, patience());
        expect(await first.backend.readWord(first.place, patience())).toBe(word);
      }
      await operator.backend.leaveWord(undefined, patience());
      await operator.backend.leaveWord(undefined, patience());
      await first.backend.renew(first.place, patience());
      expect(await first.backend.readWord(first.place, patience())).toBeUndefined();
    });

    test('of several who leave a word at once none is refused, and one word counts', async () => {
      inElection();
      const [first, ...operators] = [
        await enter('first'),
        await enter('one'),
        await enter('two'),
        await enter('three'),
      ];
      await lead(first);
      for (let round = 0; round < 10; round++) {
        await Promise.all(operators.map(({ backend }, index) => backend.leaveWord(`${index}`, patience())));
        await first.backend.renew(first.place, patience());
        expect(await first.backend.readWord(first.place, patience())).toMatch(/^[012]$/);
      }
      await operators[0]!.backend.leaveWord(undefined, patience());
    });

    test('the book is written by the leader only, in place of what was read, and outlives its leaders', async () => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      expect(await first.backend.readBook(patience())).toBeUndefined();
      await lead(first);
      await first.backend.writeBook(first.place, '{"n":1}', undefined, patience());
      const one = await second.backend.readBook(patience());
      expect(one?.text).toBe('{"n":1}');
      if (store.spec.kind !== 'file')
        await expect(first.backend.writeBook(first.place, '{"n":9}', undefined, patience())).rejects.toThrow(Changed);
      await first.backend.writeBook(first.place, '{"n":2}', one, patience());
      const two = await first.backend.readBook(patience());
      await store.depose(first.place.handle, election);
      await expect(first.backend.writeBook(first.place, '{"n":3}', two, patience())).rejects.toThrow(Gone);
      await lead(second);
      expect(await second.backend.readBook(patience())).toEqual(two);
      await second.backend.writeBook(second.place, '{"n":4}', two, patience());
      await leave(second);
      const third = await enter('third');
      expect((await third.backend.readBook(patience()))?.text).toBe('{"n":4}');
      expect(await acquire(third), 'the book stands in nobody’s line').toEqual({ leads: true });
    });

    test('an abort is answered within 100 ms while waiting', async () => {
      inElection();
      const [first, second] = [await enter('first'), await enter('second')];
      await acquire(first);
      const waiting = await acquire(second);
      if (waiting.leads) throw new Error('two lead');
      const vacancy = second.backend.vacancy(second.place, waiting, second.abort.signal);
      second.abort.abort(new Error('enough'));
      expect(await isSoon(vacancy)).toBe(true);
    });

    test('silence is "don\'t know", never "no", and an abort is answered within 100 ms in it', async (context) => {
      const { servers } = store;
      if (!servers) return context.skip('a local file cannot fall silent');
      inElection();
      const first = await enter('first');
      await acquire(first);
      await Promise.all(servers.members.map((member) => member.freeze()));
      try {
        await expect(first.backend.renew(first.place, AbortSignal.timeout(300))).rejects.not.toThrow(Gone);
        const renewal = first.backend.renew(first.place, first.abort.signal).catch((error) => error);
        first.abort.abort(new Error('enough'));
        expect(await isSoon(renewal)).toBe(true);
        expect((await renewal).message).toBe('enough');
      } finally {
        for (const member of servers.members) member.thaw();
      }
      await first.backend.renew(first.place, patience());
    });
  });
}
