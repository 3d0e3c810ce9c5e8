import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { BIN, elect, NODE } from '../helpers/elect.ts';
import { describeWith } from '../helpers/needs.ts';
import { scratch } from '../helpers/scratch.ts';
import { closeTerminals, Terminal } from '../helpers/terminal.ts';

const COMPLETIONS = fileURLToPath(new URL('../../dist/completions', import.meta.url));
const SCRIPTS = { bash: 'elect-run.bash', zsh: '_elect-run', fish: 'elect-run.fish' };
const scriptOf = (shell: keyof typeof SCRIPTS) => join(COMPLETIONS, SCRIPTS[shell]);

/** Every long option that the help shows. */
const longOptions = (...subcommand: string[]) =>
  execFileSync(NODE, [BIN, ...subcommand, '--help'], { encoding: 'utf8' })
    .split('\n')
    .flatMap((line) => /^ {2}(?:-\w, | {4})?(--[\w-]+)/.exec(line)?.[1] ?? []);

/** What is typed before TAB, what has to be offered, and what must not be. `tool` is a command with a completion of its own. */
const CASES: [line: string, offered: string[], not?: string][] = [
  ['elect-run --', longOptions()],
  ['elect-run --log-f', ['--log-format']],
  ['elect-run --log-format ', ['auto', 'pretty', 'plain', 'json', 'logfmt'], 'ca.pem'],
  ['elect-run --log-format=js', ['json']],
  ['elect-run --profile ', ['aggressive', 'balanced', 'conservative']],
  ['elect-run -q --profile ag', ['aggressive']],
  ['elect-run --on-lost ', ['exit', 'rejoin']],
  ['elect-run --ready-on ', ['standby', 'leader']],
  ['elect-run --rerun ', ['never', 'crash', 'failure']],
  ['elect-run --zk-flavor ', ['curator-latch', 'curator-lock', 'kazoo']],
  [
    'elect-run -b ',
    ['file', 'etcd', 'etcds', 'redis', 'rediss', 'redis+sentinel', 'zookeeper', 'zk', 'kubernetes', 'k8s'],
  ],
  ['elect-run -b redis+s', ['redis+sentinel']],
  ['elect-run -qb redis+s', ['redis+sentinel']],
  ['elect-run -b file:loc', ['file:locks/'], 'local.txt'],
  ['elect-run --backend=file:loc', ['file:locks/']],
  ...['--cacert', '--cert', '--key', '--password-file'].map((option): [string, string[]] => [
    `elect-run ${option} c`,
    ['ca.pem'],
  ]),
  ['elect-run stat', ['status']],
  ['elect-run status --', longOptions('status'), '--ttl'],
  ['elect-run status --zk-flavor ka', ['kazoo']],
  ['elect-run completion ', ['bash', 'zsh', 'fish']],
  ['elect-run -- print', ['printenv', 'printf']],
  ['elect-run -n job ./jo', ['./job.sh'], './ca.pem'],
  ['elect-run -- tool al', ['alpha']],
  ['elect-run -qn x --backend=etcd://a:1,b:2 --log-format json -- tool al', ['alpha']],
  ['elect-run -v -v --user a:b --no-wait tool al', ['alpha']],
  ['elect-run -- tool --', ['--tools-own'], '--log-format'],
  ['elect-run tool --', ['--tools-own'], '--log-format'],
  ['elect-run -- tool -b ', ['alpha', 'beta'], 'etcd'],
];

function folder(): string {
  const dir = scratch();
  for (const name of ['tool', 'job.sh']) writeFileSync(join(dir, name), '#!/bin/sh\n', { mode: 0o755 });
  for (const name of ['ca.pem', 'local.txt']) writeFileSync(join(dir, name), '');
  mkdirSync(join(dir, 'locks'));
  return dir;
}

const RC = {
  bash: [
    '. /usr/share/bash-completion/bash_completion',
    `. '${scriptOf('bash')}'`,
    "complete -W 'alpha beta --tools-own' tool",
    'bind "set show-all-if-ambiguous on"; bind "set page-completions off"; bind "set completion-query-items 0"',
  ],
  zsh: [
    `fpath=('${COMPLETIONS}' $fpath); autoload -Uz compinit; compinit -u -D`,
    '_tool() { compadd alpha beta -- --tools-own }; compdef _tool tool',
    "zstyle ':completion:*' verbose yes; LISTMAX=0; setopt no_list_ambiguous",
  ],
};

afterEach(closeTerminals);

describeWith(['tmux', 'bash', 'bashCompletion'], 'bash completes', () => {
  test.each(CASES)('%s', (line, offered, not) => completes('bash', RC.bash, line, offered, not));

  test('without the package bash-completion, too: options, values, and after -- commands and files', async () => {
    const rc = [`. '${scriptOf('bash')}'`, ...RC.bash.slice(2)];
    await completes('bash', rc, 'elect-run --profile ag', ['aggressive']);
    await completes('bash', rc, 'elect-run -- print', ['printenv', 'printf']);
    await completes('bash', rc, 'elect-run -- tool ca', ['ca.pem']);
  });

  test('where = and : do not split words, as npm’s own completion sets it', async () => {
    const rc = [...RC.bash, "COMP_WORDBREAKS=' ><;|&('"];
    await completes('bash', rc, 'elect-run --log-format=js', ['--log-format=json']);
    await completes('bash', rc, 'elect-run --backend=file:loc', ['file:locks/']);
    await completes('bash', rc, 'elect-run -b file:loc', ['file:locks/']);
    await completes('bash', rc, 'elect-run -b etcd://a:1 -- tool al', ['alpha']);
  });
});

describeWith(['tmux', 'zsh'], 'zsh completes', () => {
  test.each(CASES)('%s', (line, offered, not) => completes('zsh', RC.zsh, line, offered, not));

  test('with the description of each option', async () => {
    await completes('zsh', RC.zsh, 'elect-run --gra', ['--grace']);
    await completes('zsh', RC.zsh, 'elect-run --c', ['the CA of the store', 'our certificate']);
    await completes('zsh', RC.zsh, 'elect-run stat', ['show who leads']);
  });

  test('when the script is sourced, too', async () => {
    const rc = ['autoload -Uz compinit; compinit -u -D', `. '${scriptOf('zsh')}'`];
    await completes('zsh', rc, 'elect-run --profile ag', ['aggressive']);
  });
});

async function completes(shell: 'bash' | 'zsh', rc: string[], line: string, offered: string[], not?: string) {
  const terminal = await Terminal.open(folder(), { shell, rc, rows: 120 });
  await terminal.type(line);
  await terminal.press('Tab');
  const isTyped = (word: string) => line.split(' ').includes(word);
  const screen = await terminal.showsAll(offered.filter((word) => !isTyped(word)));
  if (not !== undefined) expect(screen).not.toContain(not);
  expect(screen).not.toMatch(/not found|bash: |zsh: |_elect.run/);
}

describeWith(['fish'], 'fish completes', () => {
  const complete = (line: string) => {
    const dir = folder();
    const commands = `set PATH '${dir}' $PATH; cd '${dir}'; source '${scriptOf('fish')}'; ${TOOL}; complete -C "$LINE"`;
    return execFileSync('fish', ['--no-config', '-c', commands], {
      encoding: 'utf8',
      env: { ...process.env, LINE: line },
    });
  };
  const TOOL =
    "complete -c tool -f -a 'alpha beta'; complete -c tool -l tools-own; complete -c tool -s b -x -a 'alpha beta'";

  test.each(CASES)('%s', (line, offered, not) => {
    const candidates = complete(line)
      .split('\n')
      .map((one) => one.replace(/\t.*/, ''));
    for (const word of offered) expect(candidates).toContainEqual(expect.stringContaining(word));
    if (not !== undefined) expect(candidates.filter((one) => one.includes(not))).toEqual([]);
  });

  test('with the description of each option', () => {
    expect(complete('elect-run --cac')).toBe('--cacert\tthe CA of the store\n');
    expect(complete('elect-run stat')).toContain('status\tshow who leads\n');
  });
});

test.each(Object.keys(SCRIPTS) as (keyof typeof SCRIPTS)[])(
  'completion %s prints the file of the package',
  async (shell) => {
    const { code, stdout, stderr } = await elect(['completion', shell]).ended;
    expect({ code, stdout: stdout.toString(), stderr }).toEqual({
      code: 0,
      stdout: readFileSync(scriptOf(shell), 'utf8'),
      stderr: '',
    });
  },
);

test.each([
  [[], /missing required argument 'shell'; see elect-run completion --help/],
  [['tcsh'], /'tcsh' is invalid for argument 'shell'. Allowed choices are bash, zsh, fish/],
  [['bash', '--ttl', '1s'], /unknown option '--ttl'/],
])('completion %j is refused with 64', async (args, says) => {
  const { code, stdout, stderr } = await elect(['completion', ...args]).ended;
  expect({ code, stdout: stdout.toString() }).toEqual({ code: 64, stdout: '' });
  expect(stderr).toMatch(says);
});
