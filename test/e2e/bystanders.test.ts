import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { guardOf, LOST, leaveNothingBehind, newElection, SHORT, typesOf } from '../faults/candidates.ts';
import { AS_PID_1, pidOneOf } from '../helpers/container.ts';
import { BIN, type Elect, elect, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { alive, childrenOf, type Identity, identify, signal, until, zombiesOf } from '../helpers/procs.ts';
import { scratch, script } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';
import { closeTerminals, Terminal } from '../helpers/terminal.ts';
import { LOSES_ITS_FIRST_THREAD } from '../helpers/threads.ts';

leaveNothingBehind();
afterAll(stopServers);

/** A shell's last line is `exec elect-run …`, and before it this was started in the background; it writes its pid into `file`. */
const behind = (file: string, background: string): string[] => [
  'sh',
  '-c',
  `${background} & until [ -s "$0" ]; do sleep 0.01; done; exec "$@"`,
  file,
];

const SIDECAR = `sh -c 'echo $$ >"$0"; exec sleep 1000' "$0" >/dev/null 2>&1`;

const wrote = (file: string) => until(() => existsSync(file) && readFileSync(file, 'utf8').trim() !== '', file);

/** Who has written its pid there; it is ended with the test. */
async function bystander(file: string): Promise<Identity> {
  await wrote(file);
  const found = identify(Number(/\d+/.exec(readFileSync(file, 'utf8'))));
  onTestFinished(() => {
    if (alive(found)) signal(found.pid, 'SIGKILL');
  });
  return found;
}

const atFile = (dir: string, ...job: string[]) => ['-v', '-b', `file:${dir}`, '-n', 'job', '--', ...job];

describe('what ran before elect-run took its shell’s place', () => {
  test('is not taken for what the child left, and lives on', async () => {
    const dir = scratch();
    const file = join(dir, 'sidecar');
    const run = elect(atFile(dir, 'sh', '-c', `until [ -s '${file}' ]; do sleep 0.01; done; exit 5`), {
      prefix: behind(file, SIDECAR),
    });
    const sidecar = await bystander(file);
    expect((await run.ended).code).toBe(5);
    expect(alive(sidecar)).toBe(true);
    expect(typesOf(run)).not.toContain('leftovers');
    expect(typesOf(run)).not.toContain('strayed');
  });

  test('nor when it has a session of its own', async () => {
    const dir = scratch();
    const file = join(dir, 'sidecar');
    const run = elect(atFile(dir, 'true'), { prefix: behind(file, `setsid ${SIDECAR}`) });
    const sidecar = await bystander(file);
    await run.ended;
    expect(alive(sidecar)).toBe(true);
    expect(typesOf(run)).not.toContain('leftovers');
  });

  test('reads the output to its end: exec > >(log)', async () => {
    const dir = scratch();
    const [go, log] = [join(dir, 'go'), join(dir, 'log')];
    const reader = `(until [ -e '${go}' ]; do sleep 0.01; done; while read -r line; do echo "log: $line"; done >'${log}')`;
    const run = elect(atFile(dir, 'sh', '-c', 'for n in 1 2 3; do echo "$n"; done'), {
      prefix: ['bash', '-c', `exec > >${reader}; exec "$@"`, 'bash'],
    });
    await once(run.process, 'exit');
    writeFileSync(go, '');
    await until(() => existsSync(log) && readFileSync(log, 'utf8') === 'log: 1\nlog: 2\nlog: 3\n', 'all lines');
  });

  test('survives a loss, and nobody waits for it', async () => {
    const dir = scratch();
    const file = join(dir, 'sidecar');
    const run = elect(atFile(dir, 'sh', '-c', `rm '${dir}/job.lock'; sleep 1000`), { prefix: behind(file, SIDECAR) });
    const sidecar = await bystander(file);
    expect((await run.ended).code).toBe(LOST);
    expect(alive(sidecar)).toBe(true);
  });

  test('may leave processes of its own to elect-run', async () => {
    const dir = scratch();
    const [file, left] = [join(dir, 'sidecar'), join(dir, 'left')];
    const parent = script(
      dir,
      'parent',
      `#!/bin/sh\nsh -c 'echo $$ >"$0"; exec sleep 1000' '${left}' &\necho $$ >'${file}'\nwait\n`,
    );
    const job = `until [ -s '${left}' ]; do sleep 0.01; done; read -r pid <'${file}'; kill $pid; while kill -0 $pid; do sleep 0.01; done`;
    const run = elect(atFile(dir, 'sh', '-c', job), { prefix: behind(file, `'${parent}' >/dev/null 2>&1`) });
    const orphan = await bystander(left);
    await run.ended;
    expect(alive(orphan)).toBe(true);
    expect(typesOf(run)).not.toContain('leftovers');
  });

  test('is left alone by the guard, too, when elect-run is killed; what strays from the job is not', async () => {
    const dir = scratch();
    const [file, stray] = [join(dir, 'sidecar'), join(dir, 'stray')];
    const escaping = `env -i setsid sh -c 'echo $$ >"$0"; exec sleep 1000' '${stray}' & sleep 1000`;
    const run = elect(atFile(dir, 'sh', '-c', escaping), { prefix: behind(file, SIDECAR) });
    const sidecar = await bystander(file);
    await wrote(stray);
    const escaped = identify(Number(readFileSync(stray, 'utf8')));
    const guard = identify(await guardOf(run));
    expect((await run.event('strayed')).pids).toEqual([escaped.pid]);
    run.kill('SIGKILL');
    await until(() => !alive(guard), 'the end of the guard');
    expect(alive(escaped)).toBe(false);
    expect(alive(sidecar)).toBe(true);
  });
});

describeWith(
  ['python3'],
  'what ran before elect-run took its shell’s place, and has lost its first thread since',
  () => {
    test('is not taken for what the child left', async () => {
      const dir = scratch();
      const file = join(dir, 'sidecar');
      const run = elect(atFile(dir, 'sh', '-c', 'setsid sleep 1000 & exit 5'), {
        prefix: behind(file, `setsid ${LOSES_ITS_FIRST_THREAD} "$0" >/dev/null 2>&1`),
      });
      const sidecar = await bystander(file);
      expect(await run.event('leftovers')).not.toMatchObject({ pids: expect.arrayContaining([sidecar.pid]) });
      expect((await run.ended).code).toBe(5);
      expect(alive(sidecar)).toBe(true);
    });
  },
);

describeWith(['etcd', 'etcdctl'], 'what ran before elect-run took its shell’s place, with a store', () => {
  const started = async (etcd: Etcd, flags: string[], dir: string, ...job: string[]): Promise<[Elect, Identity]> => {
    const file = join(dir, 'sidecar');
    const run = elect(['-v', '-b', etcd.url, '-n', newElection(), ...flags, '--', ...job], {
      prefix: behind(file, SIDECAR),
    });
    const sidecar = await bystander(file);
    await run.event('started');
    return [run, sidecar];
  };

  test('is left alone by the guard when elect-run stands still', async () => {
    const etcd = await Etcd.start();
    const dir = scratch();
    const file = join(dir, 'escaped');
    const job = `env -i setsid sh -c 'echo $$ >"$0"; exec sleep 1000' '${file}' & echo $$; wait`;
    const [run, sidecar] = await started(etcd, SHORT, dir, 'sh', '-c', job);
    await wrote(file);
    const escaped = identify(Number(readFileSync(file, 'utf8')));
    const child = Number(await run.prints('\n'));
    run.kill('SIGSTOP');
    await until(() => !alive(child) && !alive(escaped), 'the end of the job');
    run.kill('SIGCONT');
    expect((await run.ended).code).toBe(LOST);
    expect(alive(sidecar)).toBe(true);
  });

  test('holds up no stop', async () => {
    const etcd = await Etcd.start();
    const patient = ['--ttl', '6s', '--renew-every', '1s', '--grace', '2s']; // whoever waits for the wrong one waits for 2 s
    const [run, sidecar] = await started(etcd, patient, scratch(), 'sleep', '1000');
    await etcd.members[0]!.kill();
    const { killInMs, readAt: toldAt } = await run.event('stepping-down');
    expect((await run.event('deposed')).readAt - toldAt).toBeLessThan((killInMs as number) - 100);
    expect(alive(sidecar)).toBe(true);
  });
});

describeWith(['pidns'], 'what ran before elect-run became pid 1', () => {
  test('is reaped when it ends, and is not the child', async () => {
    const dir = scratch();
    const file = join(dir, 'sidecar');
    const background = `sh -c 'echo $$ >"$0"; read -r _ <"$0.end"' "$0"`;
    const run = elect(['-v', '-b', `file:${dir}`, '-n', 'job', '--', 'sh', '-c', 'echo ready; sleep 1000'], {
      prefix: [...AS_PID_1, ...behind(file, `mkfifo "$0.end"; ${background}`)],
    });
    await run.prints('ready');
    const pid1 = await pidOneOf(run);
    const before = childrenOf(pid1).length;
    writeFileSync(`${file}.end`, 'end\n');
    await until(() => childrenOf(pid1).length < before && zombiesOf(pid1).length === 0, 'it has been reaped');
    expect(typesOf(run)).not.toContain('ended');
    process.kill(pid1, 'SIGTERM');
    expect((await run.ended).code).toBe(143);
  });
});

describeWith(['tmux', 'bash'], 'what ran before elect-run took its shell’s place, at a terminal', () => {
  afterEach(closeTerminals);

  test('is neither signalled nor ended', async () => {
    const dir = scratch();
    const terminal = await Terminal.open(dir);
    const file = join(dir, 'sidecar');
    script(dir, 'entry', `#!/bin/sh\n${SIDECAR.replaceAll('$0"', `${file}"`)} &\nexec '${NODE}' '${BIN}' "$@"\n`);
    await terminal.line(`./entry -- sh -c 'until [ -s ${file} ]; do sleep 0.01; done; exit 5'; echo "status $?"`);
    const sidecar = await bystander(file);
    await terminal.shows('status 5');
    expect(alive(sidecar)).toBe(true);
    expect(await terminal.screen()).not.toContain('left 1 processes');
  });
});
