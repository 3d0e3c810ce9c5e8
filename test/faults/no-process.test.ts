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

  /** A standby for a slot, which is at most run once, is elected and cannot start anything. */
  const electedInVain = async () => {
    const entry = { backend: etcd.url, name: newElection(), prefix: COUNTED };
    const leader = stand({ ...entry, job: ['sleep', '1000'], flags: FLAGS });
    await leader.event('started');
    const onHour = {
      ...entry,
      job: ['sh', '-c', 'echo ran'],
      flags: [...FLAGS, '--once-per', 'hour', '--rerun', 'never'],
    };
    const standby = stand(onHour);
    await standby.event('standby');
    const allow = denyForks(standby.pid);
    leader.kill('SIGTERM');
    await standby.says('cannot be started yet');
    return { standby, allow, onHour };
  };

  test('for the command: it is started as soon as that can be', async () => {
    const { standby, allow } = await electedInVain();
    allow();
    const { code, stdout } = await standby.ended;
    expect([code, String(stdout)]).toEqual([0, 'ran\n']);
  });

  test('for the command, and not for seconds: 70, and another runs the slot', async () => {
    const { standby, onHour } = await electedInVain();
    const { code, stdout } = await standby.ended;
    expect([code, String(stdout)]).toEqual([70, '']);
    expect(typesOf(standby)).toContain('resigned');
    const next = await stand(onHour).ended;
    expect([next.code, String(next.stdout)]).toEqual([0, 'ran\n']);
  });

  test('for the command, and a signal comes: it ends us at once, and another runs the slot', async () => {
    const { standby, onHour } = await electedInVain();
    standby.kill('SIGTERM');
    expect((await standby.ended).code).toBe(128 + 15);
    expect(String((await stand(onHour).ended).stdout)).toBe('ran\n');
  });
});
