import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { BIN, type Elect, elect, NODE } from '../../helpers/elect.ts';
import { newFolder } from '../../helpers/folders.ts';
import { describeWith } from '../../helpers/needs.ts';
import { Oracle } from '../../helpers/oracle.ts';
import { freezeTree, sessionOf, signal, until } from '../../helpers/procs.ts';
import { Link } from '../../helpers/proxy.ts';
import { script } from '../../helpers/scratch.ts';
import { LOST, leaveNothingBehind, newElection, SHORT, stand } from '../candidates.ts';
import type { CronStore, CronStoreKind } from '../cron/stores.ts';

const STALE = 76;

/** What `elect-run fence` promises, with a target in a store or, for the file backend, a file. */
export function fencesWith(kind: CronStoreKind): void {
  describeWith([...kind.needs, 'flock'], `fence on ${kind.name}`, () => {
    leaveNothingBehind();
    const folder = newFolder('fence');
    let store: CronStore;
    beforeAll(async () => {
      store = await kind.start();
    });

    const isFile = kind.name === 'file';
    const newTarget = () => (isFile ? join(folder, newElection()) : newElection());

    function fence(target: string, token: number | bigint, command: string[], options: Partial<Options> = {}): Elect {
      const { access = store.access(), prefix } = options;
      const args = ['fence', target, ...(isFile ? [] : ['-b', access.backend]), ...SHORT, '--token', String(token)];
      return elect([...args, '-v', '--', ...command], { env: { ...access.env }, ...(prefix ? { prefix } : {}) });
    }
    interface Options {
      access: ReturnType<CronStore['access']>;
      prefix: string[];
    }

    async function shown(target: string) {
      const { backend, env } = store.access();
      const { stdout } = await elect(['fence', target, '--show', '--json', ...(isFile ? [] : ['-b', backend])], {
        env: { ...env },
      }).ended;
      return JSON.parse(stdout.toString());
    }

    test('a smaller token than any that was seen is refused with 76 and counted; an equal one is not', async () => {
      const target = newTarget();
      expect(await shown(target)).toMatchObject({ highest: null, refused: 0, lastRefused: null });
      const large = 2n ** 64n;
      expect((await fence(target, large, ['true']).ended).code).toBe(0);
      expect((await fence(target, large, ['sh', '-c', 'exit 7']).ended).code).toBe(7);
      const stale = await fence(target, large - 1n, ['echo', 'acted']).ended;
      expect(stale.code).toBe(STALE);
      expect(stale.stdout.toString()).toBe('');
      expect(stale.stderr).toMatch(new RegExp(`stale token ${large - 1n}: \\S*${target}.* has seen ${large}, by `));
      expect(await shown(target)).toMatchObject({
        highest: String(large),
        refused: 1,
        lastRefused: { token: String(large - 1n) },
      });
    });

    test('of tokens that come all at once no two act at once, and none after a larger one', async () => {
      const oracle = new Oracle();
      const target = newTarget();
      const tokens = [4, 2, 6, 1, 5, 3];
      const ends = await Promise.all(tokens.map((token) => fence(target, token, oracle.job('works', 0.1)).ended));
      const codes = ends.map(({ code }) => code);
      expect(codes.filter((code) => code !== 0 && code !== STALE)).toEqual([]);
      expect(codes[tokens.indexOf(6)]).toBe(0);
      const acted = codes.filter((code) => code === 0).length;
      oracle.verify(acted);
      expect(await shown(target)).toMatchObject({ highest: '6', refused: tokens.length - acted });
    });

    test('killed between the record and the start: its token may act, a smaller one may not', async () => {
      const oracle = new Oracle();
      const target = newTarget();
      // elect-run starts its child by way of setpriv(1).
      script(oracle.folder, 'setpriv', '#!/bin/sh\nkill -9 $PPID # --pdeathsig\n');
      const prefix = ['env', `PATH=${oracle.folder}:${process.env.PATH}`];
      const killed = await fence(target, 5, oracle.job('ends'), { prefix }).ended;
      expect(killed.signal).toBe('SIGKILL');
      expect(await shown(target)).toMatchObject({ highest: '5', refused: 0 });
      expect((await fence(target, 4, oracle.job('ends')).ended).code).toBe(STALE);
      expect((await fence(target, 5, oracle.job('ends')).ended).code).toBe(0);
      oracle.verify(1);
    });

    test('after a kill -9 its whole tree is gone before the next one acts', async () => {
      const oracle = new Oracle();
      const target = newTarget();
      const killed = fence(target, 1, oracle.job('escapes'));
      await oracle.escaped(1);
      const next = fence(target, 2, oracle.job('plain'));
      await next.event('standby');
      killed.kill('SIGKILL');
      await oracle.started(2);
      next.kill('SIGTERM');
      await next.ended;
      oracle.verify(2);
    });

    test('after a kill -9 of the leader what its fence runs is gone before the next leader starts', async () => {
      const oracle = new Oracle();
      const { backend, env } = store.access();
      const name = newElection();
      const fenced = [NODE, BIN, 'fence', newTarget(), '--', ...oracle.job('escapes')];
      const leader = stand({ backend, name, job: fenced, env: { ...env } });
      await oracle.escaped(1);
      const next = stand({ backend, name, job: oracle.job(), env: { ...env } });
      await next.event('standby');
      leader.kill('SIGKILL');
      await oracle.started(2);
      oracle.verify(2);
    });

    test('killed by its command as soon as that has left somebody without parent and session: nobody is left', async () => {
      const oracle = new Oracle();
      const target = newTarget();
      const [stray] = oracle.job();
      const leave = `setsid --fork '${stray}' ignores-term; until [ -s '${oracle.folder}/history' ]; do :; done; kill -9 $PPID`;
      expect((await fence(target, 1, ['sh', '-c', leave]).ended).signal).toBe('SIGKILL');
      expect((await fence(target, 2, oracle.job('ends')).ended).code).toBe(0);
      oracle.verify(2);
    });

    test.skipIf(isFile)('cut off from the store its command is gone before the next one acts, with 79', async () => {
      const oracle = new Oracle();
      const target = newTarget();
      const link = await Link.start(store.endpoint!);
      const cutOff = fence(target, 1, oracle.job('ignores-term'), { access: store.access(link.endpoint) });
      await oracle.started(1);
      const next = fence(target, 2, oracle.job('ends'));
      await next.event('standby');
      link.hold();
      expect((await cutOff.ended).code).toBe(LOST);
      expect((await next.ended).code).toBe(0);
      oracle.verify(2);
    });

    describeStragglers(kind, () => store, folder);
  });
}

/** Two leaders, of whom the first is paused with its job and all, as by its machine, until the second has acted. */
function describeStragglers(kind: CronStoreKind, store: () => CronStore, folder: string): void {
  // A local lock stays with whoever is paused: there is no second leader.
  const targets = kind.name === 'file' ? [] : [newElection(), join(folder, 'straggler.fence')];
  test.each(targets)(
    'a leader that was paused with its whole tree does not act after the next one, at %s',
    async (target) => {
      const { backend, env } = store().access();
      const acted = join(folder, `${newElection()}.acted`);
      writeFileSync(acted, '');
      const name = newElection();
      const program = script(folder, `${name}.sh`, jobScript(target, acted));
      const start = (who: string) =>
        stand({ backend, name, job: [program], env: { ...env, GO: join(folder, `${name}.${who}`) } });
      const tokens = () => readFileSync(acted, 'utf8').split('\n').filter(Boolean);

      const paused = start('paused');
      const { pid: job } = await paused.event('started');
      await paused.prints('waits');
      const next = start('next');
      await next.event('standby');
      const frozen = await freezeTree(paused.pid);
      const { token } = await next.event('elected');
      writeFileSync(join(folder, `${name}.next`), '');
      await until(() => tokens().length === 1, 'the next leader has acted');
      // The job wakes up first: what would end it sleeps on.
      writeFileSync(join(folder, `${name}.paused`), '');
      for (const pid of frozen) if (sessionOf(pid) === job) signal(pid, 'SIGCONT');
      await paused.prints('ended with 76');
      expect(tokens()).toEqual([token]);
      await paused.says(/stale token \d+: /); // by another pipe, which may be read later
      for (const pid of frozen) signal(pid, 'SIGCONT');
      expect((await paused.ended).code).toBe(LOST);
    },
  );
}

/** Waits for its turn, and acts through the fence. Inside of elect-run it needs no options. */
const jobScript = (target: string, acted: string) => `#!/bin/sh
echo waits
until [ -e "$GO" ]; do sleep 0.05; done
'${NODE}' '${BIN}' fence '${target}' -- sh -c 'echo "$FENCING_TOKEN" >>"$0"' '${acted}'
echo "ended with $?"
exec sleep infinity
`;
