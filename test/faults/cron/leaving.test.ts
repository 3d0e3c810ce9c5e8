import { beforeAll, expect, test } from 'vitest';
import { elect } from '../../helpers/elect.ts';
import { Etcd } from '../../helpers/etcd.ts';
import { describeWith } from '../../helpers/needs.ts';
import { Oracle } from '../../helpers/oracle.ts';
import { Link } from '../../helpers/proxy.ts';
import { LOST, leaveNothingBehind, newElection, ROOMY, SHORT, stand, typesOf } from '../candidates.ts';

const TERMINATED = 143;

describeWith(['etcd', 'etcdctl', 'flock'], 'leadership is lost where nothing runs', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  test('TERM while the lease is given back after a loss ends elect-run, though it was to stand again', async () => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    const [name, job, backend] = [newElection(), oracle.job(), `etcd://${link.endpoint}`];
    const idle = stand({ name, job, backend, flags: [...SHORT, '--schedule', 'year'] });
    await idle.event('scheduled');
    link.hold();
    await idle.event('deposed');
    idle.kill('SIGTERM');
    expect((await idle.ended).code).toBe(TERMINATED);
  });

  test.each([
    ['once: it is given back all the same', ['SIGTERM'], 'resigned'],
    ['and an INT: it is left to run out', ['SIGTERM', 'SIGINT'], 'left-to-expire'],
  ] as const)('TERM while the lease is given back, %s', async (_, signals, outcome) => {
    const link = await Link.start(etcd.endpoints[0]!);
    const job = ['sh', '-c', 'read -r _; exit 4'];
    const leader = elect(['-v', '-b', `etcd://${link.endpoint}`, '-n', newElection(), ...ROOMY, '--', ...job], {
      stdin: 'pipe',
    });
    await leader.event('renewed');
    link.hold();
    leader.process.stdin!.end('\n');
    await leader.event('ended');
    for (const signal of signals) leader.kill(signal);
    if (outcome === 'resigned') link.heal();
    expect((await leader.ended).code).toBe(4);
    expect(typesOf(leader).at(-1)).toBe(outcome);
  });

  test.each([
    ['its child is stopped', 'stepping-down'],
    ['the lease is given back', 'deposed'],
  ])('TERM while %s after a loss: --on-lost rejoin does not stand again', async (_, moment) => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    const flags = [...SHORT, '--on-lost', 'rejoin'];
    const leader = stand({
      name: newElection(),
      job: oracle.job('ignores-term'),
      backend: `etcd://${link.endpoint}`,
      flags,
    });
    await oracle.started(1);
    link.hold();
    await leader.event(moment);
    leader.kill('SIGTERM');
    expect((await leader.ended).code).toBe(LOST);
    oracle.verify(1);
  });

  test('a loss during --hold is told as one, and the status is that of the job, which had ended', async () => {
    const name = newElection();
    const flags = [...SHORT, '--hold', '30s'];
    const holder = stand({ name, job: ['sh', '-c', 'exit 6'], backend: etcd.url, flags });
    await holder.event('holding');
    await etcd.etcdctl('del', (await etcd.line(name))[0]!.key);
    expect((await holder.ended).code).toBe(6);
    const told = typesOf(holder).filter((type) => type !== 'renewed');
    expect(told.slice(-2)).toEqual(['holding', 'deposed']);
  });

  test('a run that ends with elect-run, which was asked to end, is run again by the next one', async () => {
    const oracle = new Oracle();
    const name = newElection();
    const flags = [...SHORT, '--once-per', 'year'];
    const entry = { name, backend: etcd.url, flags };
    const first = stand({ ...entry, job: oracle.job('works', 60) });
    await oracle.started(1);
    const next = stand({ ...entry, job: oracle.job('works', 0.5) });
    await next.event('standby');
    first.kill('SIGTERM');
    expect((await first.ended).code).toBe(TERMINATED);
    expect(typesOf(first)).toContain('cut-off');
    expect((await next.ended).code).toBe(0);
    oracle.verify(2);
    expect(oracle.done()).toHaveLength(1);
  });
});
