import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, onTestFinished, test } from 'vitest';
import { BIN, type Elect, elect, endAll, NODE } from '../helpers/elect.ts';
import { filesOf } from '../helpers/guide.ts';
import { describeWith } from '../helpers/needs.ts';
import { until } from '../helpers/procs.ts';
import { scratch, script } from '../helpers/scratch.ts';
import type { Need } from '../helpers/tools.ts';

const BLOCKS = filesOf('guides/shell.md');

/** A directory in which a block is pasted, with elect-run and a store of its own. */
class Place {
  readonly dir = scratch();
  readonly #shell: string;
  readonly #block: string;

  constructor(shell: string, block: string) {
    this.#shell = shell;
    this.#block = block;
    mkdirSync(join(this.dir, 'bin'));
    symlinkSync(NODE, join(this.dir, 'bin/node'));
    symlinkSync(BIN, join(this.dir, 'bin/elect-run'));
  }

  path = (name: string) => join(this.dir, name);
  read = (name: string) => readFileSync(this.path(name), 'utf8');

  /** A program in the current directory, or of the PATH. */
  has(name: string, body: string): this {
    script(this.dir, name, `#!/bin/sh\n${body}\n`);
    return this;
  }

  start(args: string[] = [], env: NodeJS.ProcessEnv = {}) {
    const file = script(this.dir, 'block.sh', BLOCKS[this.#block]!);
    return this.#spawn(this.#shell, [file, ...args], env);
  }

  run = (args?: string[], env?: NodeJS.ProcessEnv) => this.start(args, env).ended;

  /** What this user's shell answers. */
  ask = async (shell: string, code: string) => (await this.#spawn(shell, ['-c', code], {}).ended).stdout;

  #spawn(file: string, args: string[], env: NodeJS.ProcessEnv) {
    const started = spawn(file, args, {
      cwd: this.dir,
      env: {
        ...process.env,
        XDG_CACHE_HOME: process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'),
        XDG_CONFIG_HOME: undefined,
        XDG_DATA_HOME: undefined,
        HOME: this.dir,
        PATH: `${this.path('bin')}:${process.env.PATH}`,
        ELECT_RUN_BACKEND: this.store,
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    onTestFinished(() => void started.kill('SIGKILL'));
    let stdout = '';
    let stderr = '';
    started.stdout.on('data', (text) => (stdout += text));
    started.stderr.on('data', (text) => (stderr += text));
    const ended = once(started, 'close').then(([code]) => ({ code: code as number, stdout, stderr }));
    return { process: started, ended, stderr: () => stderr };
  }

  get store(): string {
    return `file:${this.path('locks')}`;
  }

  /** Somebody leads this election from now on. */
  async isLed(election = 'report.sh'): Promise<Elect> {
    const leader = elect(['-b', this.store, '-n', election, '--id', 'other', '--', 'sleep', '1000']);
    await leader.event('started');
    return leader;
  }

  shows = (name: string) => until(() => existsSync(this.path(name)), `${name} is there`);
}

const STORE_DOWN = { ELECT_RUN_BACKEND: 'etcd://127.0.0.1:1' };
const losing = (place: Place) => `rm '${place.path('locks/report.sh.lock')}'; sleep 1000`;

/** What each block of the guide has to do, in the shell that it is pasted into. */
const BLOCK_TESTS: Record<string, (place: Place) => Promise<void>> = {
  async 'try-lock'(place) {
    place.has('report.sh', 'echo reported');
    expect(await place.run()).toMatchObject({ code: 0, stdout: 'reported\n' });
    await place.isLed();
    expect(await place.run()).toMatchObject({ code: 0, stdout: '' });
    await endAll();
    expect((await place.has('report.sh', 'exit 3').run()).code).not.toBe(0);
  },

  async wait(place) {
    place.has('report.sh', 'echo reported');
    const leader = await place.isLed();
    const waiting = place.start();
    await until(() => waiting.stderr().includes('standing by'), 'it stands by');
    leader.kill('SIGTERM');
    expect(await waiting.ended).toMatchObject({ code: 0, stdout: 'reported\n' });
  },

  async 'tell-apart'(place) {
    expect((await place.has('report.sh', '').run()).stdout).toBe('reported\n');
    expect((await place.has('report.sh', 'exit 3').run()).stderr).toMatch(/^the report has failed$/m);
    expect((await place.run([], STORE_DOWN)).stderr).toMatch(/^the store does not answer$/m);
    expect((await place.has('report.sh', losing(place)).run()).stderr).toMatch(/^leadership was lost, and/m);
    await place.isLed();
    expect((await place.run()).stdout).toBe('somebody else does it\n');
  },

  async if(place) {
    expect((await place.has('report.sh', '').run()).stdout).toBe('reported\n');
    expect((await place.has('report.sh', 'exit 3').run()).stderr).toMatch(/^it has failed$/m);
    await place.isLed();
    expect((await place.run()).stdout).toBe('somebody else does it\n');
  },

  async 'own-codes'(place) {
    expect((await place.has('report.sh', 'exit 75').run()).code).toBe(75);
    expect((await place.has('report.sh', losing(place)).run()).code).toBe(201);
    await place.isLed();
    expect((await place.run()).code).toBe(200);
  },

  async 'set-e'(place) {
    expect(await place.has('report.sh', 'exit 3').run()).toMatchObject({ code: 3, stdout: '' });
    expect(await place.has('report.sh', '').run()).toMatchObject({ code: 0, stdout: 'on we go\n' });
    await place.isLed();
    expect(await place.run()).toMatchObject({ code: 0, stdout: 'on we go\n' });
  },

  async until(place) {
    const leader = await place.isLed();
    place
      .has('report.sh', 'echo reported')
      .has('bin/sleep', `echo "slept $1"; kill ${leader.pid}; exec tail --pid=${leader.pid} -f /dev/null`);
    expect(await place.run()).toMatchObject({ code: 0, stdout: 'slept 60\nreported\n' });
    expect(await place.has('report.sh', 'echo failed; exit 3').run()).toMatchObject({ stdout: 'failed\n' });
  },

  async each(place) {
    await place.isLed('backup-db2');
    place.has('backup.sh', '[ "$1" != db3 ] || exit 1; echo "$1 is saved"');
    const { stdout, stderr } = await place.run();
    expect(stdout).toBe('db1 is saved\n');
    expect(stderr).toMatch(/^db3: no backup$/m);
    expect(stderr).not.toMatch(/^db2: no backup$/m);
  },

  async xargs(place) {
    place.has('migrate.sh', 'mkdir running && sleep 0.2 && echo "$1" && rmdir running');
    const { code, stdout } = await place.run();
    expect({ code, hosts: stdout.trim().split('\n').sort() }).toEqual({ code: 0, hosts: ['db1', 'db2', 'db3', 'db4'] });
    expect((await place.has('migrate.sh', 'exit 3').run()).code).toBe(123);
  },

  async pipeline(place) {
    expect(await place.run()).toEqual({ code: 0, stdout: 'a\n', stderr: '' });
  },

  async 'whole-pipeline'(place) {
    expect(await place.run()).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(place.read('sorted.txt')).toBe('a\nb\nc\n');
  },

  async function(place) {
    expect(await place.run()).toMatchObject({ code: 0, stdout: 'reported with token 1\n' });
  },

  async self(place) {
    expect(await place.run(['a b', 'c'])).toMatchObject({ code: 0, stdout: 'only one of us says: a b c\n' });
    await place.isLed('nightly');
    expect(await place.run(['d'])).toMatchObject({ code: 75, stdout: '' });
  },

  async token(place) {
    place.has('publish.sh', 'echo "$@"');
    expect((await place.run()).stdout).toBe('--token 1\n');
    expect((await place.run()).stdout).toBe('--token 2\n');
  },

  async nesting(place) {
    expect(await place.run()).toMatchObject({ code: 0, stdout: 'database\n' });
    await place.isLed('disk');
    expect((await place.run([], { ELECT_RUN_NO_WAIT: '1' })).code).toBe(75);
  },

  async trap(place) {
    const itself = "$(cut -d ' ' -f 4 /proc/$PPID/stat)"; // elect-run is the parent of the shell that has the trap
    place.has('work.sh', `[ -e half-done ] && echo works && kill ${itself} && exec sleep 1000`);
    expect(await place.run()).toMatchObject({ code: 1, stdout: 'works\n' });
    expect(existsSync(place.path('half-done'))).toBe(false);
  },

  async exec(place) {
    place
      .has('prepare.sh', 'echo prepared')
      .has('worker.sh', 'trap "exit 12" TERM; touch works; while :; do sleep 0.05; done');
    const worker = place.start();
    await place.shows('works');
    worker.process.kill('SIGTERM');
    expect(await worker.ended).toMatchObject({ code: 12, stdout: 'prepared\n' });
  },

  async who(place) {
    expect((await place.run()).stdout).toBe('nobody\n');
    await place.isLed();
    expect((await place.run()).stdout).toMatch(/^other-\S+\n$/);
  },

  async 'is-there-a-leader'(place) {
    expect((await place.run()).stdout).toBe('nobody leads\n');
    await place.isLed();
    expect((await place.run()).stdout).toMatch(/^leader +other-/m);
  },

  async 'dry-run'(place) {
    await place.has('report.sh', 'touch it-ran').isLed();
    const { code, stdout } = await place.run();
    expect(code).toBe(0);
    expect(stdout).toMatch(/^leader +other-\S+, token 1/m);
    expect(stdout).toMatch(/^wait +at most 30s$/m);
    expect(existsSync(place.path('it-ran'))).toBe(false);
  },

  async 'completion-bash'(place) {
    expect((await place.run()).code).toBe(0);
    const load = '. /usr/share/bash-completion/bash_completion; _completion_loader elect-run; complete -p elect-run';
    expect(await place.ask('bash', load)).toBe('complete -F _elect_run elect-run\n');
  },

  async 'completion-zsh'(place) {
    expect((await place.run()).code).toBe(0);
    const load = 'fpath+=(~/.zfunc); autoload -Uz compinit; compinit -u -D; print $_comps[elect-run]';
    expect(await place.ask('zsh', load)).toBe('_elect-run\n');
  },

  async 'completion-fish'(place) {
    expect((await place.run()).code).toBe(0);
    expect(await place.ask('fish', 'complete -C "elect-run --cac"')).toMatch(/^--cacert\t/);
  },
};

/** Blocks that need more than a shell. */
const NEEDS: Record<string, Need[]> = {
  who: ['jq'],
  'completion-bash': ['bashCompletion'],
  'completion-zsh': ['zsh'],
  'completion-fish': ['fish'],
};
const ONLY_IN: Record<string, string> = { function: 'bash' };

afterEach(endAll);

test('every block of the guide is run here', () => {
  expect(Object.keys(BLOCKS)).toEqual(Object.keys(BLOCK_TESTS));
});

for (const shell of ['bash', 'dash'] as const)
  for (const [name, check] of Object.entries(BLOCK_TESTS))
    if ((ONLY_IN[name] ?? shell) === shell)
      describeWith([shell, ...(NEEDS[name] ?? [])], `the guide to the shell, in ${shell}`, () => {
        test(name, () => check(new Place(shell, name)));
      });
