import { expect, test } from 'vitest';
import { elect } from '../helpers/elect.ts';
import { describeWith } from '../helpers/needs.ts';
import { type Conduct, Oracle } from '../helpers/oracle.ts';
import { alive, childrenOf, identify, until, waitsForLock } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { type Entry, guardOf, leaveNothingBehind, newElection, SHORT, stand, standInLine } from './candidates.ts';

/** A command that closes what it inherits beside stdin, stdout and stderr, as Python, Java, sudo and every daemon do: it does not hold the lock. */
const withoutTheLock = (job: string[]): string[] => ['sh', '-c', 'exec 3<&-; exec "$@"', 'sh', ...job];

describeWith(['flock'], 'file: a command that has closed the lock', () => {
  leaveNothingBehind();
  const entryFor = (oracle: Oracle, conduct: Conduct): Entry => ({
    backend: `file:${scratch()}`,
    name: newElection(),
    job: withoutTheLock(oracle.job(conduct)),
    flags: [],
  });

  test.each(['plain', 'ignores-term', 'escapes', 'leaves-without-environment'] as const)(
    'child (%s) is gone before the next one starts when elect-run is killed',
    async (conduct) => {
      const oracle = new Oracle();
      const entry = entryFor(oracle, conduct);
      const [leader] = await standInLine(oracle, entry, entry);
      if (conduct === 'escapes') await oracle.escaped(1);
      if (conduct === 'leaves-without-environment') await leader!.event('strayed');
      leader!.kill('SIGKILL');
      await oracle.started(2);
      oracle.verify(2);
    },
  );

  test('the same when its guard had to be replaced', async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle, 'escapes');
    const [leader] = await standInLine(oracle, entry, entry);
    await oracle.escaped(1);
    const first = await guardOf(leader!);
    process.kill(first, 'SIGKILL');
    await guardOf(leader!, first);
    leader!.kill('SIGKILL');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('the same in a later term, and what was held in the first is given back', async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle, 'escapes');
    const [again, second] = await standInLine(oracle, { ...entry, flags: [...SHORT, '--on-lost', 'rejoin'] }, entry);
    expect((await elect(['resign', '-b', entry.backend, '-n', entry.name]).ended).code).toBe(0);
    await oracle.started(2);
    await again!.event('standby');
    second!.kill('SIGTERM');
    await oracle.started(3);
    await oracle.escaped(3);
    const last = stand(entry);
    await last.event('standby');
    again!.kill('SIGKILL');
    await oracle.started(4);
    oracle.verify(4);
  });
});

describeWith(['flock'], 'file: a standby that is killed', () => {
  leaveNothingBehind();

  test('leaves nobody behind who waits for the lock', async () => {
    const oracle = new Oracle();
    const entry = { backend: `file:${scratch()}`, name: newElection(), job: oracle.job() };
    const [, standby] = await standInLine(oracle, entry, entry);
    const waiter = identify(await until(() => childrenOf(standby!.pid).find(waitsForLock), 'it waits'));
    standby!.kill('SIGKILL');
    await until(() => !alive(waiter), 'nobody waits');
  });
});
