import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { signal, until, waitsForLock } from '../helpers/procs.ts';
import { leaveNothingBehind, newElection, stand } from './candidates.ts';
import { type Contender, takeTurns } from './turns.ts';

describeWith(['etcd', 'etcdctl', 'flock'], 'etcdctl lock, etcdctl elect and elect-run on one name', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  function contenders(oracle: Oracle, name: string) {
    const electRun = (): Contender => ({
      enter: () => void stand({ backend: etcd.url, name, job: oracle.job() }),
      leave: (job) => signal(job, 'SIGTERM'),
    });
    const lock = (): Contender => ({
      enter: () => void etcd.etcdctlProcess(['lock', name, ...oracle.job()]),
      leave: (job) => signal(job, 'SIGTERM'),
    });
    const elect = (): Contender => {
      let etcdctl: ChildProcess;
      let job: ChildProcess;
      return {
        enter() {
          etcdctl = etcd.etcdctlProcess(['elect', name, 'a native candidate']);
          etcdctl.stdout!.once('data', () => {
            job = oracle.spawn();
          });
        },
        async leave() {
          job.kill('SIGTERM');
          await once(job, 'exit');
          etcdctl.kill('SIGINT');
        },
      };
    };
    return { electRun, lock, elect };
  }

  test.each([
    ['elect-run first', ['electRun', 'lock', 'elect', 'electRun', 'lock', 'electRun']],
    ['etcdctl lock first', ['lock', 'electRun', 'lock', 'elect', 'electRun', 'elect', 'electRun']],
    ['etcdctl elect first', ['elect', 'electRun', 'elect', 'electRun', 'lock', 'electRun']],
  ] as const)('never two, in turn, with growing tokens: %s', async (_, order) => {
    const oracle = new Oracle();
    const name = newElection();
    const make = contenders(oracle, name);
    await takeTurns(
      oracle,
      order.map((kind) => make[kind]()),
      (count) => etcd.inLine(name, count),
    );
    expect(oracle.starts().map(({ token }) => token !== undefined)).toEqual(order.map((kind) => kind === 'electRun'));
    await etcd.inLine(name, 0);
  });

  test('tokens grow when the one who entered first is the one who leads last', async () => {
    const oracle = new Oracle();
    const name = newElection();
    const make = contenders(oracle, name);
    // Each enters after the one before has led: other keys of etcd change meanwhile, and locks come between.
    let starts = 0;
    for (const kind of ['electRun', 'lock', 'electRun', 'elect', 'electRun'] as const) {
      const contender = make[kind]();
      await contender.enter();
      const { pid } = await oracle.started(++starts);
      await etcd.etcdctl('put', `${name}-unrelated`, String(starts));
      await contender.leave(pid);
      await etcd.inLine(name, 0);
    }
    oracle.verify(5);
  });
});

describeWith(['flock'], 'flock(1) and elect-run on one file', () => {
  leaveNothingBehind();
  const folder = newFolder('file');
  afterAll(() => rmSync(folder, { recursive: true }));

  function contenders(oracle: Oracle) {
    const name = newElection();
    const file = join(folder, `${name}.lock`);
    const electRun = () => stand({ backend: `file:${folder}`, name, job: oracle.job() });
    const flock = () => {
      const started = spawn('flock', [file, ...oracle.job()], { stdio: 'ignore' });
      onTestFinished(() => void started.kill('SIGKILL'));
      return started;
    };
    return { electRun, flock };
  }

  test('elect-run waits for flock', async () => {
    const oracle = new Oracle();
    const { electRun, flock } = contenders(oracle);
    flock();
    const { pid } = await oracle.started(1);
    const waiting = electRun();
    await waiting.event('standby');
    oracle.verify(1);
    signal(pid, 'SIGTERM');
    await waiting.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('flock waits for elect-run', async () => {
    const oracle = new Oracle();
    const { electRun, flock } = contenders(oracle);
    const leader = electRun();
    await oracle.started(1);
    const waiting = flock();
    await until(() => waitsForLock(waiting.pid!), 'flock waits');
    oracle.verify(1);
    leader.kill('SIGTERM');
    await leader.event('resigned');
    await oracle.started(2);
    oracle.verify(2);
  });

  test.each(['flock', 'electRun'] as const)(
    'when several of both wait for %s, each works in turn and never two',
    async (first) => {
      const oracle = new Oracle();
      const make = contenders(oracle);
      make[first]();
      await oracle.started(1);
      for (let times = 0; times < 3; times++) {
        await make.electRun().event('standby');
        const waiting = make.flock();
        await until(() => waitsForLock(waiting.pid!), 'flock waits');
      }
      for (let turn = 1; turn <= 7; turn++) {
        const { pid } = await oracle.started(turn);
        signal(pid, 'SIGTERM');
      }
      await until(() => oracle.workers().length === 0, 'the end of the last job');
      oracle.verify(7);
    },
  );

  test('flock gets the lock of an elect-run that was killed with -9 only when its child is dead', async () => {
    const oracle = new Oracle();
    const { electRun, flock } = contenders(oracle);
    const leader = electRun();
    await oracle.started(1);
    flock();
    leader.kill('SIGKILL');
    await oracle.started(2);
    oracle.verify(2);
  });
});
