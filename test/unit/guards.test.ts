import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { lookUpCommand } from '../../src/lookup.ts';
import { alarmOf } from '../faults/candidates.ts';
import { COUNTED_UID, denyForks } from '../helpers/forks.ts';
import { describeWith } from '../helpers/needs.ts';
import {
  alive,
  childrenOf,
  commandLine,
  identify,
  isAsleep,
  isStopped,
  signal as sendTo,
  until,
  zombiesOf,
} from '../helpers/procs.ts';
import { scratch, script } from '../helpers/scratch.ts';
import type { Need } from '../helpers/tools.ts';

interface Kind {
  name: string;
  needs: Need[];
  command: string[];
  env?: NodeJS.ProcessEnv;
}

const file = (name: string) => fileURLToPath(new URL(`../../dist/${name}`, import.meta.url));
/** The alarm's longest. */
const NAP_MS = 250;
const withShell = (...shell: string[]) => [
  ...shell,
  file('guard.sh'),
  'elect-run-guard',
  '/bin/true',
  'cleanup',
  String(NAP_MS / 10),
];

const DASH: Kind = { name: 'dash', needs: ['dash'], command: withShell('dash') };
const BUSYBOX: Kind = { name: 'busybox', needs: ['busybox'], command: withShell('busybox', 'sh') };
const SHELLS: Kind[] = [DASH, { name: 'bash', needs: ['bash'], command: withShell('bash', '--posix') }, BUSYBOX];
/** Before 5.1 it had no pipes for here-documents, but files: here where none can be made, not even by root. */
const OLD_BASH: Kind = {
  name: 'bash 5.0',
  needs: ['bash'],
  command: withShell('bash'),
  env: { BASH_COMPAT: '50', TMPDIR: '/proc' },
};
const NODE: Kind = {
  name: 'node',
  needs: [],
  command: [process.execPath, file('guard-process.js'), 'elect-run-guard'],
};

const each = (kinds: Kind[], body: (kind: Kind) => void) => {
  for (const kind of kinds) describeWith(kind.needs, kind.name, () => body(kind));
};

/** To be put before a guard, as its elect-run: it can die while the guard hears nothing of it, as one does that is frozen. */
const PARENT = ['sh', '-c', 'exec 3<&0; "$@" <&3 3<&- & wait; exec sleep 1000', 'sh'];

async function startGuard({ command, env }: Kind, uid = process.getuid!()) {
  const [program, ...args] = command;
  const job = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore', uid });
  const guard = spawn(program!, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
    detached: true,
    uid,
  });
  onTestFinished(() => {
    for (const { pid } of [job, guard] as ChildProcess[]) {
      try {
        process.kill(-pid!, 'SIGKILL');
      } catch {} // it has ended
    }
  });
  const answers: string[] = [];
  createInterface({ input: guard.stdout }).on('line', (line) => answers.push(line));
  const tell = (line: string) => guard.stdin.write(`${line}\n`);
  await until(() => answers.includes('ready'), 'a guard'); // a Node takes its time, and deadlines count from when they are told
  tell(`job ${-job.pid!}`);
  const say = (ms: number) => {
    const centiseconds = Math.floor(uptime() * 100 + ms / 10);
    tell(`until ${centiseconds}`);
    return centiseconds;
  };
  /** Returns the deadline, in ms of /proc/uptime. */
  const armFor = async (ms: number, whenTold = () => {}) => {
    const centiseconds = say(ms);
    whenTold();
    await until(() => answers.includes(`armed ${centiseconds}`), 'its answer');
    return centiseconds * 10;
  };
  return { guard, job, tell, say, armFor, answers, alarm: () => alarmOf(guard.pid!) };
}

const HALF_A_SECOND = 500;
/** Of /proc/uptime. */
const CLOCK_STEP_MS = 10;
/** The least margin there is. */
const MARGIN_MS = 150;

async function diesAt(job: ChildProcess, killAt: number): Promise<void> {
  await once(job, 'exit');
  const late = uptime() * 1000 - killAt;
  expect(late).toBeGreaterThanOrEqual(-CLOCK_STEP_MS);
  expect(late).toBeLessThan(MARGIN_MS);
}

each([...SHELLS, OLD_BASH], (kind) => {
  test('who is known to have left the job’s group is dead at the deadline, too, however long the clean-up takes; who only has such a pid is not', async () => {
    const { tell, armFor } = await startGuard(kind);
    // Linux shows a name in /proc/PID/stat as it is.
    const [odd, stray, stranger] = ['a) S 1\n) {*} 2', 'stray', 'stranger'].map((name) => {
      const program = join(scratch(), name);
      copyFileSync(lookUpCommand('sleep'), program);
      const one = spawn(program, ['1000'], { detached: true, stdio: 'ignore', argv0: 'sleep' });
      onTestFinished(() => void one.kill('SIGKILL'));
      return one;
    }) as [ChildProcess, ChildProcess, ChildProcess];
    const killAt = await armFor(4 * HALF_A_SECOND);
    const known = [odd, stray].map(({ pid }) => `${pid}:${identify(pid!).startedAt}`).join(' ');
    tell(`facts ${known} ${stranger.pid}:1 1:1 {"marks":{"known":[]}}`);
    await Promise.all([odd, stray].map((one) => diesAt(one, killAt)));
    expect(alive(stranger.pid!)).toBe(true);
  });
});

const startStray = () => {
  const stray = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
  onTestFinished(() => void stray.kill('SIGKILL'));
  return { stray, known: { pid: stray.pid!, startedAt: identify(stray.pid!).startedAt } };
};

test('the guard in Node has not heard yet that elect-run is dead: at the deadline it finds by their parents who left the group', async () => {
  const { guard, tell, armFor } = await startGuard(NODE);
  const electRun = startStray();
  const job = spawn('sh', ['-c', 'env -i setsid sleep 1000 & echo $!; wait'], { detached: true });
  const [told] = await once(job.stdout, 'data');
  const left = identify(Number(told));
  onTestFinished(() => void [job.pid!, left.pid].filter(alive).forEach((pid) => void process.kill(pid, 'SIGKILL')));
  const marks = {
    root: identify(job.pid!),
    ownGroup: true,
    mark: 'ELECT_RUN_ID=nobody',
    reaper: electRun.known,
    bystanders: [],
    known: [],
    helperSessions: [guard.pid],
    helpers: [],
  };
  tell(`facts ${JSON.stringify({ marks, backend: {}, candidate: {}, handle: null })}`);
  tell(`job ${-job.pid!} ${marks.root.startedAt}`);
  await armFor(HALF_A_SECOND);
  electRun.stray.kill('SIGKILL');
  await once(job, 'exit');
  await until(() => !alive(left), 'its end', 2 * HALF_A_SECOND);
});

each([...SHELLS, OLD_BASH, NODE], (kind) => {
  test('who only has the number of the job, another start, is nobody of ours', async () => {
    const { guard, job, tell, armFor } = await startGuard(kind);
    tell(`job ${-job.pid!} 1`);
    const killAt = await armFor(HALF_A_SECOND);
    await until(() => uptime() * 1000 > killAt + MARGIN_MS, 'the deadline');
    guard.stdin.end();
    await once(guard, 'exit');
    expect(isStopped(job.pid!)).toBe(false);
    expect(alive(job.pid!)).toBe(true);
  });

  test('what is left of the job’s group is dead at the deadline, though its leader has ended', async () => {
    const { tell, armFor } = await startGuard(kind);
    const leader = spawn('sh', ['-c', 'sleep 1000 & echo $!; read -r _'], { detached: true });
    const { startedAt } = identify(leader.pid!);
    const [member] = await once(leader.stdout, 'data');
    leader.stdin.end();
    await once(leader, 'exit');
    const left = identify(Number(member));
    tell(`job ${-leader.pid!} ${startedAt}`);
    await armFor(HALF_A_SECOND);
    await until(() => !alive(left), 'its end', 2 * HALF_A_SECOND);
  });

  test('elect-run is dead, and the clean-up cannot run: who is known to have left the job’s group is dead all the same', async () => {
    const command = kind.command.map((word) => (word === '/bin/true' ? '/bin/false' : word));
    const { guard, job, tell, armFor } = await startGuard({ ...kind, command });
    const { stray, known } = startStray();
    await armFor(60_000);
    // Without the helpers the clean-up in Node fails.
    const facts = { marks: { known: [known] }, backend: {}, candidate: {} };
    tell(`facts ${known.pid}:${known.startedAt} ${JSON.stringify(facts)}`);
    const ended = Promise.all([job, stray].map((one) => once(one, 'exit')));
    guard.stdin.end();
    expect((await ended).map(([, signal]) => signal)).toEqual(['SIGKILL', 'SIGKILL']);
  });
});

each([...SHELLS, OLD_BASH], (kind) => {
  test('elect-run is dead, and no process can be started: the job is killed, not left stopped', async () => {
    const { guard, job, tell, answers } = await startGuard(kind, COUNTED_UID);
    tell('forever');
    await until(() => answers.includes('armed forever'), 'its answer');
    denyForks(guard.pid!);
    guard.stdin.end();
    expect((await once(job, 'exit'))[1]).toBe('SIGKILL');
  }, 30_000); // bash itself tries for 15 s
});

/** In the place of Node and the clean-up: notes what it is asked for, and when it has been told to begin. */
const CLEAN_UP = `#!/bin/sh
log=$(dirname "$0")/log
echo "\${3:+loaded-for-}$2 $(cut -d' ' -f1 /proc/uptime)" >>"$log"
[ -n "$3" ] || exit 0
trap 'echo "told $(cut -d" " -f1 /proc/uptime)" >>"$log"; exit 0' CONT
while :; do sleep 0.02; done`;
/** Takes its time, but less than a nap. */
const SLOW_CLEAN_UP = CLEAN_UP.replaceAll('exit 0', '{ sleep 0.2; exit 0; }');

test('the clean-up that was loaded for a deadline begins at it, whatever it is told before', async () => {
  const job = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
  onTestFinished(() => void job.kill('SIGKILL'));
  const deadline = Math.floor(uptime() * 100 + 300); // it is loaded by then
  const cleanUp = spawn(process.execPath, [file('cleanup-process.js'), 'end', String(deadline)], {
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  const { pid, startedAt } = identify(job.pid!);
  const marks = {
    root: { pid, startedAt },
    ownGroup: true,
    mark: 'ELECT_RUN_ID=nobody',
    known: [],
    helperSessions: [],
    helpers: [],
  };
  cleanUp.stdin.end(JSON.stringify({ marks, backend: {}, candidate: {}, handle: null }));
  const ended = once(cleanUp, 'exit');
  const telling = setInterval(() => cleanUp.kill('SIGCONT'), 20);
  onTestFinished(() => clearInterval(telling));
  await diesAt(job, deadline * 10);
  expect(await ended).toEqual([0, null]);
});

test('a clean-up that could not look at everybody has failed', async () => {
  const cleanUp = spawn(process.execPath, [file('cleanup-process.js'), 'release'], {
    stdio: ['pipe', 'inherit', 'ignore'],
  });
  // Without the sessions of helpers no look succeeds.
  cleanUp.stdin.end(JSON.stringify({ marks: { helpers: [], known: [] }, backend: {}, candidate: {} }));
  expect(await once(cleanUp, 'exit')).toEqual([1, null]);
}, 20_000);

/** Orphans come to it, and it never asks how they ended, like many a program that is pid 1 of a container (prctl(2), PR_SET_CHILD_SUBREAPER). */
const NEVER_REAPS = [
  'python3',
  '-c',
  'import ctypes, signal, subprocess, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); child = subprocess.Popen(sys.argv[1:]); signal.pause()',
];

describeWith(['python3'], 'below somebody who does not reap', () => {
  each(SHELLS, (kind) => {
    test('elect-run and its guard are dead, but still in the process table: the alarm acts long before the deadline', async () => {
      const command = [...NEVER_REAPS, ...PARENT, ...kind.command];
      const { guard: pid1, job, armFor } = await startGuard({ ...kind, command });
      await armFor(60_000);
      const electRun = childrenOf(pid1.pid!)[0]!;
      process.kill(childrenOf(electRun)[0]!, 'SIGKILL');
      process.kill(electRun, 'SIGKILL');
      await once(job, 'exit');
    }, 20_000);
  });
});

each([...SHELLS, OLD_BASH], (kind) => {
  /** The clean-up is loaded two naps before the deadline. */
  const startNoting = async (cleanUp = CLEAN_UP, napMs = NAP_MS, parent: string[] = []) => {
    const program = script(scratch(), 'clean-up.sh', cleanUp);
    const words = [...kind.command.slice(0, -1), String(napMs / 10)];
    const command = [...parent, ...words.map((word) => (word === '/bin/true' ? program : word))];
    const log = join(dirname(program), 'log');
    const notes = (): [string, number][] => {
      const lines = existsSync(log) ? readFileSync(log, 'utf8').split('\n').slice(0, -1) : [];
      return lines.map((line) => [line.split(' ')[0]!, Number(line.split(' ')[1]) * 1000]);
    };
    return { ...(await startGuard({ ...kind, command })), notes };
  };

  /** Below an elect-run that can be killed. */
  const startBelow = async (cleanUp: string) => {
    const { guard: electRun, ...started } = await startNoting(cleanUp, NAP_MS, PARENT);
    const guard = await until(() => childrenOf(electRun.pid!)[0], 'a guard');
    const { stray, known } = startStray();
    started.tell(`facts ${known.pid}:${known.startedAt} {"marks":{"known":[]}}`);
    return { ...started, electRun, guard, stray };
  };

  test('elect-run and its guard are dead: long before the deadline the alarm stops who is known, has the clean-up done, and then kills', async () => {
    const { electRun, guard, job, stray, armFor, notes } = await startBelow(SLOW_CLEAN_UP);
    await armFor(60_000);
    process.kill(guard, 'SIGKILL');
    electRun.kill('SIGKILL');
    const ended = Promise.all([job, stray].map((one) => once(one, 'exit')));
    await until(() => [job, stray].every(({ pid }) => isStopped(pid!)), 'both stand still');
    expect((await ended).map(([, signal]) => signal)).toEqual(['SIGKILL', 'SIGKILL']);
    expect(notes().map(([what]) => what)).toEqual(['end']);
  });

  test('elect-run and its guard are dead, and the clean-up fails: who is known is killed, and it is tried again and again', async () => {
    const { electRun, guard, job, stray, armFor, notes } = await startBelow(CLEAN_UP.replaceAll('exit 0', 'exit 1'));
    await armFor(60_000);
    process.kill(guard, 'SIGKILL');
    electRun.kill('SIGKILL');
    await Promise.all([job, stray].map((one) => once(one, 'exit')));
    await until(() => notes().length === 2, 'a second clean-up');
    expect(notes().map(([what]) => what)).toEqual(['end', 'end']);
  });

  test('elect-run is dead, and its guard frozen: at the deadline the alarm stops who is known, has the clean-up done, and then kills', async () => {
    const { electRun, guard, job, stray, armFor, notes } = await startBelow(SLOW_CLEAN_UP);
    const killAt = await armFor(2 * HALF_A_SECOND);
    process.kill(guard, 'SIGSTOP');
    electRun.kill('SIGKILL');
    const ended = Promise.all([job, stray].map((one) => once(one, 'exit')));
    await until(() => [job, stray].every(({ pid }) => isStopped(pid!)), 'both stand still');
    expect(uptime() * 1000).toBeGreaterThanOrEqual(killAt - CLOCK_STEP_MS);
    expect((await ended).map(([, signal]) => signal)).toEqual(['SIGKILL', 'SIGKILL']);
    await until(() => notes().some(([what]) => what === 'told'), 'a clean-up that was told to begin');
  });

  test('elect-run is dead, its guard frozen, and the clean-up does not end: who is known is dead one nap after the deadline', async () => {
    const { electRun, guard, job, stray, armFor } = await startBelow(CLEAN_UP.replaceAll('exit 0', 'sleep 1000'));
    const killAt = await armFor(2 * HALF_A_SECOND);
    process.kill(guard, 'SIGSTOP');
    electRun.kill('SIGKILL');
    await Promise.all([job, stray].map((one) => diesAt(one, killAt + NAP_MS)));
  });

  test('the guard is dead, and elect-run is not: nobody is stopped before the deadline', async () => {
    const { guard, job, armFor } = await startBelow(SLOW_CLEAN_UP);
    const killAt = await armFor(2 * HALF_A_SECOND);
    process.kill(guard, 'SIGKILL');
    await until(() => !existsSync(`/proc/${guard}`), 'it is reaped');
    await diesAt(job, killAt);
  });

  test('the clean-up is loaded before the deadline, and begins at it', async () => {
    const { job, armFor, notes } = await startNoting();
    const killAt = await armFor(HALF_A_SECOND);
    await diesAt(job, killAt);
    await until(() => notes().length === 2, 'a clean-up that was told to begin');
    const [loaded, told] = notes();
    expect([loaded![0], told![0]]).toEqual(['loaded-for-end', 'told']);
    expect(loaded![1]).toBeLessThan(killAt);
    expect(told![1]).toBeGreaterThanOrEqual(killAt - CLOCK_STEP_MS);
  });

  test('a deadline that has moved takes the clean-up that was loaded for it away', async () => {
    const { job, armFor, notes, guard } = await startNoting(CLEAN_UP, 4 * NAP_MS);
    const killAt = await armFor(4 * HALF_A_SECOND);
    await until(() => notes().length === 1, 'a clean-up that is loaded');
    await armFor(60_000);
    await until(() => uptime() * 1000 > killAt + MARGIN_MS, 'the old deadline');
    expect(alive(job.pid!)).toBe(true);
    expect(notes()).toHaveLength(1);
    const isLoaded = (pid: number): boolean => commandLine(pid).includes('end') || childrenOf(pid).some(isLoaded);
    await until(() => !isLoaded(guard.pid!), 'nobody who waits to clean up');
  });

  test('elect-run is dead, and the clean-up has failed: at the deadline it is done again', async () => {
    const { guard, armFor, notes } = await startNoting(CLEAN_UP.replace('exit 0', 'exit 1'), 4 * NAP_MS);
    const killAt = await armFor(4 * HALF_A_SECOND);
    await until(() => notes().length === 1, 'a clean-up that is loaded');
    guard.stdin.end();
    await until(() => notes().length === 3, 'a second clean-up');
    expect(notes().map(([what]) => what)).toEqual(['loaded-for-end', 'release', 'told']);
    expect(notes()[2]![1]).toBeGreaterThanOrEqual(killAt - CLOCK_STEP_MS);
  });

  test('a deadline that has passed already: the clean-up is started at once', async () => {
    const { job, say, notes } = await startNoting();
    say(-HALF_A_SECOND);
    await once(job, 'exit');
    await until(() => notes().length === 1, 'a clean-up');
    expect(notes()[0]![0]).toBe('end');
  });
});

each([...SHELLS, OLD_BASH, NODE], (kind) => {
  test('it kills the job’s group at the deadline, not before, on the clock of /proc/uptime', async () => {
    const { job, armFor } = await startGuard(kind);
    await diesAt(job, await armFor(HALF_A_SECOND));
  });

  test('the last deadline counts, however many there were', async () => {
    const { job, armFor } = await startGuard(kind);
    let killAt = 0;
    for (const startedAt = uptime(); uptime() < startedAt + 1; ) {
      killAt = await armFor(HALF_A_SECOND);
      await sleep(CLOCK_STEP_MS); // within one step it would be told the same deadline, thousands of times
    }
    await diesAt(job, killAt);
  });

  test('an earlier deadline counts as well', async () => {
    const { job, armFor } = await startGuard(kind);
    await armFor(60_000);
    await diesAt(job, await armFor(HALF_A_SECOND));
  });

  test('a later deadline that came while it stood still counts', async () => {
    const { guard, job, armFor } = await startGuard(kind);
    const killAt = await armFor(2 * HALF_A_SECOND);
    const session = (signal: NodeJS.Signals) => process.kill(-guard.pid!, signal);
    session('SIGSTOP');
    await until(() => isStopped(guard.pid!), 'it stands still');
    await sleep(killAt + 50 - uptime() * 1000);
    const armed = armFor(60_000);
    process.kill(guard.pid!, 'SIGCONT');
    // By then it has told its alarm, which goes on a little later, or waits for the end of one that cannot be told anything.
    if (kind !== NODE) await until(() => isAsleep(guard.pid!), 'it has read that');
    session('SIGCONT');
    await armed;
    await armFor(60_000); // it has been through its timers
    expect(alive(job.pid!)).toBe(true);
  });

  test('"forever" calls the alarm off, and "down" ends it without a signal to the job', async () => {
    const { guard, job, tell, armFor, answers } = await startGuard(kind);
    const killAt = await armFor(2 * HALF_A_SECOND);
    tell('forever');
    await until(() => answers.includes('armed forever'), 'its answer');
    await sleep(killAt + 50 - uptime() * 1000);
    expect(childrenOf(guard.pid!)).toEqual([]);
    tell('down');
    expect((await once(guard, 'exit'))[0]).toBe(0);
    expect(alive(job.pid!)).toBe(true);
  });

  test('the end of its input is the death of elect-run: the job is killed', async () => {
    const { guard, job, armFor } = await startGuard(kind);
    await armFor(60_000);
    guard.stdin.end();
    expect((await once(job, 'exit'))[1]).toBe('SIGKILL');
  });

  test('elect-run dies before it has read the answer: the job is killed', async () => {
    const { guard, job, armFor, say } = await startGuard(kind);
    await armFor(60_000);
    guard.stdout.destroy();
    say(70_000);
    guard.stdin.end();
    expect((await once(job, 'exit'))[1]).toBe('SIGKILL');
  });
});

each([DASH, BUSYBOX], (kind) => {
  const withoutNaps = async () => {
    const started = await startGuard(kind, COUNTED_UID);
    await started.armFor(60_000);
    denyForks(await started.alarm());
    await until(() => started.answers.includes('unarmed'), 'its complaint');
    return started;
  };

  test('the alarm cannot nap, since no process can be started: it says so, and the last deadline counts all the same', async () => {
    const { job, armFor } = await withoutNaps();
    await armFor(70_000);
    await diesAt(job, await armFor(HALF_A_SECOND));
  });

  test('a guard that cannot start its alarm says so', async () => {
    const { guard, say, answers } = await startGuard(kind, COUNTED_UID);
    denyForks(guard.pid!);
    say(60_000);
    await once(guard, 'exit');
    await until(() => answers.length === 2, 'a second word');
    expect(answers).toEqual(['ready', 'unarmed']);
  });

  test('an alarm that cannot nap is called off like any other', async () => {
    const { guard, job, tell, alarm } = await withoutNaps();
    const sleepless = await alarm();
    tell('down');
    expect((await once(guard, 'exit'))[0]).toBe(0);
    expect(alive(sleepless)).toBe(false);
    expect(alive(job.pid!)).toBe(true);
  });
});

each([...SHELLS, OLD_BASH], (kind) => {
  test.each(['SIGKILL', 'SIGSTOP'] as const)(
    '%s of the guard: its alarm goes off at the last deadline',
    async (signal) => {
      const { guard, job, armFor } = await startGuard(kind);
      await armFor(HALF_A_SECOND);
      const killAt = await armFor(2 * HALF_A_SECOND);
      process.kill(guard.pid!, signal);
      await diesAt(job, killAt);
    },
  );

  test('no process can be started when the guard needs a new alarm: the old one goes off at its deadline', async () => {
    const { guard, job, tell, armFor } = await startGuard(kind, COUNTED_UID);
    const killAt = await armFor(2 * HALF_A_SECOND);
    denyForks(guard.pid!);
    tell('facts {}');
    await diesAt(job, killAt);
  });

  /** As if the machine were suspended meanwhile: the clock goes on, and sleep(1) does not. */
  const suspendedFor = (seconds: number): { env: NodeJS.ProcessEnv; woke: () => number } => {
    const folder = scratch();
    const first = `if mkdir '${folder}/first' 2>&-; then sleep ${seconds}; cat /proc/uptime >'${folder}/woke'; fi`;
    script(folder, 'sleep', `#!/bin/sh\nPATH='${process.env.PATH}'\n${first}\nexec sleep "$1"\n`);
    const woke = () => Number(readFileSync(join(folder, 'woke'), 'utf8').split(' ')[0]) * 1000;
    return { env: { PATH: `${folder}:${process.env.PATH}` }, woke };
  };

  test('the machine is suspended while the alarm naps: the deadline stays where it was', async () => {
    const { env } = suspendedFor(0.5);
    const { job, armFor } = await startGuard({ ...kind, env: { ...kind.env, ...env } });
    await diesAt(job, await armFor(4 * HALF_A_SECOND));
  });

  test('the machine is suspended until after the deadline: the alarm goes off one nap later at most', async () => {
    const { env, woke } = suspendedFor(5);
    const { job, armFor } = await startGuard({ ...kind, env: { ...kind.env, ...env } });
    await armFor(8 * HALF_A_SECOND);
    await once(job, 'exit');
    expect(uptime() * 1000 - woke()).toBeLessThan(NAP_MS + MARGIN_MS);
  });

  test('an alarm that was killed is set anew', async () => {
    const { job, armFor, alarm } = await startGuard(kind);
    await armFor(60_000);
    const first = await alarm();
    process.kill(first, 'SIGKILL');
    await until(() => !alive(first), 'its end');
    await diesAt(job, await armFor(HALF_A_SECOND));
  });

  test('a guard whose alarm is frozen does not answer', async () => {
    const { armFor, alarm, say, tell, answers } = await startGuard(kind);
    await armFor(60_000);
    const frozen = await alarm();
    process.kill(frozen, 'SIGSTOP');
    await until(() => isStopped(frozen), 'it is frozen');
    const deadline = say(70_000);
    tell('job');
    await sleep(HALF_A_SECOND);
    expect(answers).not.toContain(`armed ${deadline}`);
  });

  test('a nap that is ended from outside wakes nobody too early', async () => {
    const { job, armFor, alarm } = await startGuard(kind);
    const killAt = await armFor(4 * HALF_A_SECOND);
    const napOf = async (other?: number) => {
      const sleeper = await alarm();
      return until(
        () => childrenOf(sleeper).find((pid) => pid !== other && commandLine(pid).includes('sleep')),
        'a nap',
      );
    };
    const first = await napOf();
    sendTo(first, 'SIGKILL');
    await napOf(first);
    await diesAt(job, killAt);
  });

  test('nothing is left behind of alarms and naps that are over', async () => {
    const { guard, armFor, alarm } = await startGuard(kind);
    for (let turn = 0; turn < 50; turn++) await armFor(60_000 + 10 * turn);
    const sleeper = await alarm();
    await until(() => childrenOf(sleeper).length > 0, 'its nap');
    // A nap may be over just now, and its successor not there yet.
    const isAlone = () => {
      const descendants = childrenOf(guard.pid!).flatMap((child) => [child, ...childrenOf(child)]);
      return descendants.length === 2 && [...zombiesOf(guard.pid!), ...zombiesOf(sleeper)].length === 0;
    };
    await until(isAlone, 'an alarm and its nap alone');
  });
});
