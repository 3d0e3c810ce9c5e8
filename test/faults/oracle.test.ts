import { once } from 'node:events';
import { expect, test } from 'vitest';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { alive, until } from '../helpers/procs.ts';
import { leaveNothingBehind, newElection } from './candidates.ts';

// Who judges the judge: what the other tests rely on.
describeWith(['flock'], 'the oracle', () => {
  leaveNothingBehind();

  test('sees two jobs at once', async () => {
    const oracle = new Oracle();
    oracle.spawn();
    await oracle.started(1);
    const second = oracle.spawn();
    expect((await once(second, 'exit'))[0]).toBe(99);
    expect(oracle.overlaps()).toHaveLength(1);
    expect(() => oracle.verify(1)).toThrow('two at once');
  });

  test.each(['plain', 'ignores-term', 'escapes', 'escapes-without-environment'] as const)(
    'calls the lock free when all of a job that %s is dead, not before',
    async (conduct) => {
      const oracle = new Oracle();
      const job = oracle.spawn(conduct);
      const { pid } = await oracle.started(1);
      expect(pid).toBe(job.pid);
      const escaped = conduct.startsWith('escapes') ? await oracle.escaped(1) : undefined;
      let isFree = false;
      const free = oracle.whenFree().then(() => {
        isFree = true;
      });
      process.kill(pid, 'SIGTERM');
      if (conduct === 'ignores-term') {
        await until(() => oracle.workers().includes(pid), 'the job');
        expect(alive(pid)).toBe(true);
        process.kill(pid, 'SIGKILL');
      } else await once(job, 'exit');
      if (escaped !== undefined) {
        process.kill(escaped, 'SIGTERM');
        expect(alive(escaped)).toBe(true);
        expect(isFree).toBe(false);
        process.kill(escaped, 'SIGKILL');
      }
      await free;
      oracle.spawn('ends');
      await oracle.started(2);
      expect(oracle.overlaps()).toEqual([]);
    },
  );

  test('rejects tokens that do not grow, and compares them as numbers of any size', () => {
    const oracle = new Oracle();
    oracle.record('START 9 1 0.00 a');
    oracle.record('START 10 1 0.00 b');
    oracle.record('START 9007199254740993 1 0.00 c');
    oracle.record('START - 1 0.00 -');
    oracle.verify(4);
    oracle.record('START 9007199254740992 1 0.00 d');
    expect(() => oracle.verify(5)).toThrow('tokens do not grow');
  });
});

describeWith(['etcd', 'etcdctl', 'flock'], 'the oracle and etcdctl lock', () => {
  leaveNothingBehind();

  test('sees the overlap when the lease of a plain etcdctl lock is revoked and the next one starts', async () => {
    const etcd = await Etcd.start();
    const oracle = new Oracle();
    const name = newElection();
    const first = etcd.etcdctlProcess(['lock', name, ...oracle.job()]);
    await oracle.started(1);
    const second = etcd.etcdctlProcess(['lock', name, ...oracle.job()]);
    await etcd.inLine(name, 2);
    const [leader] = await etcd.line(name);
    await etcd.etcdctl('lease', 'revoke', leader!.lease);
    await until(() => oracle.overlaps().length > 0, 'an overlap');
    for (const lock of [first, second]) lock.kill('SIGKILL');
  });
});

describeWith(['flock', 'python3'], 'the oracle', () => {
  leaveNothingBehind();

  test('sees who works on after its first thread has ended, and ends it', async () => {
    const oracle = new Oracle();
    const job = oracle.spawn('loses-its-first-thread');
    expect(await oracle.escaped(1)).toBe(job.pid);
    expect(oracle.workers()).toContain(job.pid);
    await oracle.clear();
    expect(alive(job.pid!)).toBe(false);
  });
});
