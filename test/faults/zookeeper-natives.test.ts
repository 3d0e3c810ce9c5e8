import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import type { Flavor } from '../../src/backends/zookeeper/spec.ts';
import { curatorCandidate } from '../helpers/curator.ts';
import type { Elect } from '../helpers/elect.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { alive, signal } from '../helpers/procs.ts';
import type { Need } from '../helpers/tools.ts';
import { ZooKeeper } from '../helpers/zookeeper.ts';
import { leaveNothingBehind, newElection, renewals, SHORT, stand } from './candidates.ts';
import { type Contender, takeTurns } from './turns.ts';

/** The recipes that write into their znode what we call them. */
const TELLS = ['lock', 'election', 'latch', 'selector'];

const KAZOO = ['/usr/bin/python3', fileURLToPath(new URL('../natives/kazoo_candidate.py', import.meta.url))];

/** Who shares the line of a flavor: recipe by recipe, and the program that stands in line by it. */
const NATIVES: { flavor: Flavor; program: string; need: Need; command: () => string[]; recipes: string[] }[] = [
  { flavor: 'kazoo', program: 'Kazoo', need: 'kazoo', command: () => KAZOO, recipes: ['lock', 'election'] },
  { flavor: 'curator-latch', program: 'Curator', need: 'curator', command: curatorCandidate, recipes: ['latch'] },
  {
    flavor: 'curator-lock',
    program: 'Curator',
    need: 'curator',
    command: curatorCandidate,
    recipes: ['selector', 'mutex'],
  },
];

for (const { flavor, program, need, command, recipes } of NATIVES) {
  const title = `${recipes.map((recipe) => `${program}'s ${recipe}`).join(', ')} and elect-run in one line`;

  describeWith(['zookeeper', need, 'flock'], `${title} (--zk-flavor ${flavor})`, () => {
    leaveNothingBehind();
    let zookeeper: ZooKeeper;
    beforeAll(async () => {
      command(); // to compile takes seconds, in which nobody keeps our session alive
      zookeeper = await ZooKeeper.start();
    });

    const electRun = (oracle: Oracle, name: string): Elect =>
      stand({ backend: zookeeper.url, name, job: oracle.job(), flags: [...SHORT, '--zk-flavor', flavor] });

    function native(recipe: string, oracle: Oracle, name: string): ChildProcess {
      const [file, ...args] = command();
      const started = spawn(file!, [...args, zookeeper.endpoints[0]!, recipe, `/${name}`, ...oracle.job()], {
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      onTestFinished(() => void started.kill('SIGKILL'));
      return started;
    }

    const contender = (who: string, oracle: Oracle, name: string): Contender => ({
      enter: () => void (who === 'elect-run' ? electRun(oracle, name) : native(who, oracle, name)),
      leave: (job) => signal(job, 'SIGTERM'),
    });

    const [one, other = one] = recipes as [string, string?];
    test.each([
      ['elect-run first', ['elect-run', one, 'elect-run', other, 'elect-run']],
      ['a native first', [other, 'elect-run', one, 'elect-run']],
    ])('never two, in turn, with growing tokens: %s', async (_, order) => {
      const oracle = new Oracle();
      const name = newElection();
      await takeTurns(
        oracle,
        order.map((who) => contender(who, oracle, name)),
        (count) => zookeeper.inLine(name, count),
      );
      expect(oracle.starts().map(({ token }) => token !== undefined)).toEqual(order.map((who) => who === 'elect-run'));
      await zookeeper.inLine(name, 0);
    });

    test.each(recipes)(`${program}'s %s that watches an elect-run which renews gets its turn`, async (recipe) => {
      const oracle = new Oracle();
      const name = newElection();
      const leader = electRun(oracle, name);
      await oracle.started(1);
      const [seat] = await zookeeper.line(name);
      await zookeeper.watched(seat!, 1); // by elect-run itself
      native(recipe, oracle, name);
      await zookeeper.watched(seat!, 2);
      await renewals(leader, 3);
      oracle.verify(1);
      leader.kill('SIGTERM');
      await oracle.started(2);
      oracle.verify(2);
    });

    test.each(recipes)(
      `elect-run leads after ${program}'s %s that was killed with -9, once its session is over`,
      async (recipe) => {
        const oracle = new Oracle();
        const name = newElection();
        const fallen = native(recipe, oracle, name);
        const { pid } = await oracle.started(1);
        const next = electRun(oracle, name);
        const { leader } = await next.event('standby');
        if (TELLS.includes(recipe)) expect(leader).toBe('a native candidate');
        fallen.kill('SIGKILL');
        await once(fallen, 'exit');
        // Its job works on, as nobody stops it; that would be two at once, and no fault of the line.
        expect(alive(pid)).toBe(true);
        signal(pid, 'SIGKILL');
        expect(await zookeeper.children(`/${name}`)).toHaveLength(2);
        await next.event('started', { timeoutMs: 30_000 });
        await oracle.started(2);
        oracle.verify(2);
      },
    );
  });
}
