import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { isStopped, until } from '../helpers/procs.ts';

const SIGCONT = '18';
const built = (name: string) => fileURLToPath(new URL(`../../dist/${name}`, import.meta.url));

test.each([
  ['witness.sh', ['/bin/sh', built('witness.sh'), '1', '2', '15']],
  ['witness-process.js', [process.execPath, built('witness-process.js')]],
])(
  '%s: what was signalled before the question is told before the answer, also when both waited for it',
  async (_, command) => {
    const [file, ...args] = command;
    const witness = spawn(file!, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void witness.kill('SIGKILL'));
    const lines: string[] = [];
    createInterface({ input: witness.stdout }).on('line', (line) => lines.push(line));
    await until(() => lines.includes('ready'), 'the witness');
    for (const count of [1, 2, 3]) {
      witness.kill('SIGSTOP');
      await until(() => isStopped(witness.pid!), 'it stands still');
      for (const signal of ['SIGHUP', 'SIGINT'] as const) witness.kill(signal);
      witness.stdin.write(`${count}\n`);
      witness.kill('SIGCONT');
      const answer = `asked ${count}`;
      await until(() => lines.includes(answer), 'the answer');
      const told = lines.splice(0, lines.indexOf(answer) + 1).slice(0, -1);
      expect(told.filter((line) => line !== 'ready' && line !== SIGCONT).sort()).toEqual(['1', '2']);
    }
  },
);
