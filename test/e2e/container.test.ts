import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { BIN, NODE } from '../helpers/elect.ts';
import { describeWith } from '../helpers/needs.ts';
import { scratch, script } from '../helpers/scratch.ts';

/** elect-run as pid 1 of a pid namespace of its own, as in a container. */
function startAsPid1(text: string) {
  const dir = scratch();
  const job = script(dir, 'job.sh', text);
  const args = ['--pid', '--fork', '--mount-proc', NODE, BIN, '-q', '--backend', `file:${dir}/locks`, '--', job];
  return spawn('unshare', args, { stdio: ['ignore', 'pipe', 'inherit'] });
}

async function asPid1(text: string) {
  const box = startAsPid1(text);
  let stdout = '';
  box.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  const [code] = await once(box, 'close');
  return { code, stdout };
}

describeWith(['pidns'], 'as pid 1', () => {
  test('the exit status is passed on', async () => {
    expect(await asPid1('#!/bin/sh\nexit 42\n')).toEqual({ code: 42, stdout: '' });
  });

  test('orphans are reaped: no zombie stays in the process table', async () => {
    const text = `#!/bin/sh
for i in 1 2 3 4 5; do (setsid sh -c 'exit 0' &); done
until [ "$(ps -eo stat,comm | grep -c -e '^Z' -e 'sh$')" -le 3 ]; do sleep 0.05; done
ps -eo stat= | grep -c '^Z'
exit 0
`;
    expect(await asPid1(text)).toEqual({ code: 0, stdout: '0\n' });
  });

  test('SIGTERM, as a container runtime sends it, reaches the child, and its answer is the exit status', async () => {
    const text = `#!/bin/sh
trap 'exit 7' TERM
echo ready
while :; do sleep 0.05; done
`;
    const box = startAsPid1(text);
    await once(box.stdout, 'data');
    spawn('pkill', ['-TERM', '-P', String(box.pid)]); // the only child of unshare is pid 1 of the namespace
    expect((await once(box, 'close'))[0]).toBe(7);
  });
});
