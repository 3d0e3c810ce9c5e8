import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { elect } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { type Conduct, Oracle } from '../helpers/oracle.ts';
import { alive, hasLostItsFirstThread, identify } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { hasStrayed, LOST, leaveNothingBehind, newElection, SHORT, stand, standInLine } from './candidates.ts';

/** Long enough for the lease not to run out within the test: whoever leads next has been given it. */
const LONG = ['--ttl', '60s', '--grace', '500ms'];

// The kernel then shows it as a zombie, which works (proc(5)).
describeWith(
  ['etcd', 'etcdctl', 'flock', 'python3'],
  'the first thread of a process has ended, and another one works on',
  () => {
    leaveNothingBehind();
    let etcd: Etcd;
    beforeAll(async () => {
      etcd = await Etcd.start();
    });

    async function leaderWith(conduct: Conduct, flags = LONG) {
      const oracle = new Oracle();
      const entry = { backend: etcd.url, name: newElection(), job: oracle.job(conduct), flags };
      const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
      const worker = identify(await oracle.escaped(1));
      return { oracle, leader: leader!, next: next!, worker, name: entry.name };
    }

    test('the job is gone before the next one starts when the lease is revoked', async () => {
      const { oracle, leader, next, worker, name } = await leaderWith('loses-its-first-thread');
      expect(hasLostItsFirstThread(worker.pid)).toBe(true);
      const [seat] = await etcd.line(name);
      await etcd.etcdctl('lease', 'revoke', seat!.lease);
      await next.event('started');
      await oracle.started(2);
      expect(alive(worker)).toBe(false);
      expect((await leader.ended).code).toBe(LOST);
      oracle.verify(2);
    });

    test('the job is gone before the next one starts when the leader is asked to resign', async () => {
      const { oracle, leader, next, worker, name } = await leaderWith('loses-its-first-thread', SHORT);
      const { code } = await elect(['resign', '-b', etcd.url, '-n', name]).ended;
      expect(code).toBe(0);
      await next.event('started');
      await oracle.started(2);
      expect(alive(worker)).toBe(false);
      expect((await leader.ended).code).toBe(LOST);
      oracle.verify(2);
    });

    test('the job is gone before the next one starts when elect-run is stopped', async () => {
      const { oracle, leader, worker } = await leaderWith('loses-its-first-thread', SHORT);
      leader.kill('SIGSTOP');
      await oracle.started(2);
      expect(alive(worker)).toBe(false);
      leader.kill('SIGCONT');
      expect((await leader.ended).code).toBe(LOST);
      oracle.verify(2);
    });

    test.each(['escapes-by-a-thread', 'leaves-by-a-thread'] as const)(
      'a descendant that %s is gone before the next job starts when the job is killed',
      async (conduct) => {
        const { oracle, leader, next, worker } = await leaderWith(conduct);
        process.kill(oracle.starts()[0]!.pid, 'SIGKILL');
        await next.event('started');
        await oracle.started(2);
        expect(alive(worker)).toBe(false);
        expect((await leader.ended).code).toBe(128 + 9);
        oracle.verify(2);
      },
    );

    test('what another thread has started, without a trace in its environment, is gone before the next job starts when elect-run is killed', async () => {
      const { oracle, leader, worker } = await leaderWith('leaves-by-a-thread');
      await hasStrayed(leader, worker);
      leader.kill('SIGKILL');
      await oracle.started(2);
      expect(alive(worker)).toBe(false);
      oracle.verify(2);
    });

    test('a descendant in a session of its own is known by its environment, and gone before the next job starts, when elect-run is killed before it was seen', async () => {
      const oracle = new Oracle();
      const go = join(scratch(), 'go');
      const entry = { backend: etcd.url, name: newElection(), flags: LONG };
      const later = ['sh', '-c', 'until [ -e "$0" ]; do sleep 0.01; done; exec "$@"', go];
      const leader = stand({ ...entry, job: [...later, ...oracle.job('escapes-by-a-thread')] });
      await leader.event('started');
      const next = stand({ ...entry, job: oracle.job() });
      await next.event('standby');
      leader.kill('SIGSTOP');
      writeFileSync(go, '');
      const worker = identify(await oracle.escaped(1));
      leader.kill('SIGKILL');
      await next.event('started');
      await oracle.started(2);
      expect(alive(worker)).toBe(false);
      oracle.verify(2);
    });
  },
);
