import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { leaveNothingBehind, newElection, stand } from './candidates.ts';

describeWith(['flock'], 'a fault of elect-run itself', () => {
  leaveNothingBehind();

  test('an exception that nobody caught: 70 and one line, and the whole tree is gone before the next child starts', async () => {
    const folder = newFolder('fault');
    const bomb = join(folder, 'bomb.cjs');
    writeFileSync(bomb, "process.on('SIGWINCH', () => { throw new Error('injected'); });\n");
    const oracle = new Oracle();
    const entry = { backend: `file:${folder}/locks`, name: newElection(), job: oracle.job('escapes') };
    const leader = stand({ ...entry, env: { NODE_OPTIONS: `--require ${bomb}` } });
    await oracle.started(1);
    await oracle.escaped(1);
    stand(entry);
    leader.kill('SIGWINCH');
    const { code, stderr } = await leader.ended;
    expect(code).toBe(70);
    expect(stderr).toContain('elect-run: a fault of elect-run: injected\n');
    expect(stderr).not.toMatch(/\n\s+at /);
    await oracle.started(2);
    oracle.verify(2);
  });
});
