import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { AS_PID_1, pidOneOf } from '../helpers/container.ts';
import { type Elect, elect } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { alive, childrenOf, type Identity, identify, until } from '../helpers/procs.ts';
import { Link } from '../helpers/proxy.ts';
import { scratch } from '../helpers/scratch.ts';
import { alarmOf, guardOf, leaveNothingBehind, newElection, SHORT } from './candidates.ts';

/** A pid namespace in which elect-run is not pid 1: it may die, and pids are given out as we like. */
const APART = [...AS_PID_1, 'sh', '-c', '"$@" & wait; exec sleep 1000', 'sh'];

/** The same, but pid 1 reaps: the pids of the dead are free. */
const APART_REAPED = [...AS_PID_1, 'sh', '-c', '"$@" & while :; do sleep 0.1; done', 'sh'];

/** More than between two looks for strays. */
const LOOKED_MS = 300;

const electRunIn = async (run: Elect): Promise<number> => {
  const pidOne = await pidOneOf(run);
  return until(() => childrenOf(pidOne)[0], 'elect-run');
};

/** Starts a shell's command that gets this pid, in the namespace, as soon as nobody else has it, such as a nap of an alarm. Resolves with the process, as seen from out here. */
async function reuse(run: Elect, pid: number, command: string): Promise<Identity> {
  const target = String(await pidOneOf(run));
  const again = `echo ${pid - 1} >/proc/sys/kernel/ns_last_pid; ${command} & [ $! -ne ${pid} ]`;
  const next = `while ${again}; do kill -9 $!; wait $!; done; echo $!; wait`;
  const stranger: ChildProcess = spawn('nsenter', ['--target', target, '--pid', '--mount', 'sh', '-c', next], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void stranger.kill());
  const [told] = await once(stranger.stdout!, 'data');
  expect(Number(told)).toBe(pid);
  const [shell] = childrenOf(stranger.pid!);
  return identify(childrenOf(shell!)[0]!);
}

/** A stranger with a child that looks as if it had left the group. */
const PARENT = "bash -c 'setsid sleep 1000 & wait'";
const childOf = async ({ pid }: Identity) => identify(await until(() => childrenOf(pid)[0], 'its child'));

async function kill(electRun: number): Promise<void> {
  const guard = identify(await guardOf(electRun));
  process.kill(electRun, 'SIGKILL');
  await until(() => !alive(guard), 'the end of the guard');
}

describeWith(['pidns', 'bash'], 'the pid of a child that has ended is given to somebody else', () => {
  leaveNothingBehind();

  test('whose children are not ended when elect-run is killed while it holds on to its leadership', async () => {
    const args = ['-v', '-b', `file:${scratch()}`, '-n', 'job', '--hold', '20s', '--', 'true'];
    const run = elect(args, { prefix: APART });
    const { pid } = await run.event('started');
    await run.event('holding');
    const child = await childOf(await reuse(run, pid as number, PARENT));
    await sleep(LOOKED_MS);
    await kill(await electRunIn(run));
    expect(alive(child)).toBe(true);
  });

  test('whose children are not ended with what the child left', async () => {
    const dir = scratch();
    const leave = `mkfifo go; setsid sh -c 'trap "" TERM; echo >go; while :; do sleep 1; done' & read -r _ <go`;
    const args = ['-b', `file:${dir}`, '-n', 'job', '--grace', '1s', '--', 'sh', '-c', leave];
    const run = elect(args, { prefix: APART, cwd: dir });
    const { pid } = await run.event('started');
    await run.event('leftovers');
    const child = await childOf(await reuse(run, pid as number, PARENT));
    await run.event('resigned');
    expect(alive(child)).toBe(true);
  });
});

describeWith(
  ['pidns', 'etcd', 'etcdctl'],
  'the pid of a child whose end cannot be recorded is given to somebody else',
  () => {
    leaveNothingBehind();

    test('who is not ended when elect-run is killed meanwhile', async () => {
      const etcd = await Etcd.start();
      const link = await Link.start(etcd.endpoints[0]!);
      const go = join(scratch(), 'go');
      const job = ['sh', '-c', `until [ -e '${go}' ]; do sleep 0.01; done`];
      const flags = ['--once-per', 'day', '--ttl', '20s']; // it leads on for all of this
      const run = elect(['-v', '-b', `etcd://${link.endpoint}`, '-n', newElection(), ...flags, '--', ...job], {
        prefix: APART,
      });
      const { pid } = await run.event('started');
      link.hold();
      writeFileSync(go, '');
      await run.event('ended');
      const stranger = await reuse(run, pid as number, 'setsid sleep 1000');
      await kill(await electRunIn(run));
      expect(alive(stranger)).toBe(true);
    });
  },
);

describeWith(
  ['pidns', 'bash', 'etcd', 'etcdctl'],
  'elect-run and its guard are killed, and their alarm is late',
  () => {
    leaveNothingBehind();
    /** The pid that it has in its own namespace (proc(5): NSpid). */
    const pidWithin = (pid: number) =>
      Number(/^NSpid:.*\s(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);

    test('who has been given the pid of elect-run or of the job meanwhile is not ended, nor are their children', async () => {
      const etcd = await Etcd.start();
      const args = ['-v', '-b', etcd.url, '-n', newElection(), ...SHORT, '--', 'sleep', '1000'];
      const run = elect(args, { prefix: APART_REAPED });
      const { pid: job } = await run.event('started');
      const electRun = await electRunIn(run);
      const inside = pidWithin(electRun);
      const guard = await guardOf(electRun);
      const alarm = identify(await alarmOf(guard));
      process.kill(electRun, 'SIGSTOP');
      process.kill(alarm.pid, 'SIGSTOP');
      process.kill(guard, 'SIGKILL');
      process.kill(electRun, 'SIGKILL');
      await until(() => !existsSync(`/proc/${electRun}`) && !existsSync(`/proc/${guard}`), 'both are reaped');
      const child = await childOf(await reuse(run, inside, PARENT));
      const leader = await reuse(run, job as number, 'setsid sleep 1000');
      process.kill(alarm.pid, 'SIGCONT');
      await until(() => !alive(alarm), 'the end of the alarm');
      expect([alive(child), alive(leader)]).toEqual([true, true]);
    });
  },
);
