import { beforeAll, expect, test } from 'vitest';
import type { Elect } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { COUNTED_UID, denyForks } from '../helpers/forks.ts';
import { describeWith } from '../helpers/needs.ts';
import { alive, childrenOf, commandLine, until } from '../helpers/procs.ts';
import { guardOf, LOST, leaveNothingBehind, newElection, renewals, stand, typesOf } from './candidates.ts';

const COUNTED = process.getuid!() === 0 ? ['setpriv', '--reuid', String(COUNTED_UID), '--clear-groups'] : [];
const FLAGS = ['--ttl', '6s', '--renew-every', '500ms'];

describeWith(['etcd', 'etcdctl', 'flock'], 'no process can be started for a while', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  const lead = async (): Promise<{ leader: Elect; child: number }> => {
    const job = ['sleep', '1000'];
    const leader = stand({ backend: etcd.url, name: newElection(), job, flags: FLAGS, prefix: COUNTED });
    const { pid } = await leader.event('started');
    return { leader, child: pid as number };
  };

  test('by the guard’s alarm: both are replaced, and the command runs on', async () => {
    const { leader, child } = await lead();
    const guard = await guardOf(leader);
    const alarm = await until(
      () => childrenOf(guard).find((pid) => commandLine(pid).includes('elect-run-guard')),
      'an alarm',
    );
    denyForks(alarm);
    await leader.event('guard-replaced');
    await guardOf(leader, guard);
    await until(() => !alive(alarm), 'the end of the old alarm');
    await renewals(leader, 2);
    expect(alive(child)).toBe(true);
  });

  test('by elect-run, whose guard was killed: it tries until it can, and the command runs on', async () => {
    const { leader, child } = await lead();
    const allow = denyForks(leader.pid);
    process.kill(await guardOf(leader), 'SIGKILL');
    await leader.says('no guard can be started yet');
    await renewals(leader, 2);
    allow();
    await leader.event('guard-replaced');
    await guardOf(leader);
    await renewals(leader, 2);
    expect(alive(child)).toBe(true);
  });

  test('and not in time: the command is stopped before the alarm of the old guard goes off, and elect-run ends with 79', async () => {
    const { leader, child } = await lead();
    denyForks(leader.pid);
    process.kill(await guardOf(leader), 'SIGKILL');
    expect((await leader.ended).code).toBe(LOST);
    expect(leader.stderr).toContain('no guard can be had');
    expect(typesOf(leader)).not.toContain('ended');
    expect(alive(child)).toBe(false);
  });
});
