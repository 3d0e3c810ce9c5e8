// `npm run quickstart`: installs, builds, and shows the main job on the embedded default, a lock directory on this host. Two candidates of one
// election; the leader works with its token; it is killed with -9; the other one takes over. Ends by itself and leaves nothing behind.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { prepare } from './prepare.mjs';

prepare();
const folder = mkdtempSync(join(tmpdir(), 'elect-run-quickstart-'));
const job = join(folder, 'job.sh');
writeFileSync(job, '#!/bin/sh\nwhile :; do echo "working with token $FENCING_TOKEN"; sleep 0.5; done\n');
chmodSync(job, 0o755);

const say = (text) => console.log(`\n\u001b[1m${text}\u001b[0m`);
const candidates = [];

function start(name) {
  const args = ['bin/elect-run.js', '--backend', `file:${folder}/locks`, '--id', name, '--', job];
  const candidate = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  candidates.push(candidate);
  const seen = [];
  const waiting = new Set();
  for (const stream of [candidate.stdout, candidate.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      console.log(`  ${name} | ${line}`);
      seen.push(line);
      for (const look of waiting) look();
    });
  }
  const says = (text, times = 1) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${name} did not say "${text}" within 20 s`)), 20_000);
      const look = () => {
        if (seen.filter((line) => line.includes(text)).length < times) return;
        clearTimeout(timer);
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
    });
  return { process: candidate, says };
}

try {
  say('1. One candidate campaigns, is elected and runs the job:');
  const first = start('one');
  await first.says('working with token', 2);

  say('2. A second one stands by:');
  const second = start('two');
  await second.says('standing by');
  await first.says('working with token', 4);

  say(
    `3. kill -9 ${first.process.pid} (the leader). Its job dies with it, and the second one takes over with a larger token:`,
  );
  const killedAt = performance.now();
  first.process.kill('SIGKILL');
  await second.says('working with token');
  const gapMs = Math.round(performance.now() - killedAt);
  await second.says('working with token', 3);

  say('4. SIGTERM to the second one: its job is stopped and the lock given back:');
  second.process.kill('SIGTERM');
  const [status] = await once(second.process, 'close');

  say(
    `Done: the job had a new leader ${gapMs} ms after the kill; the last candidate ended with status ${status} (128 + SIGTERM).`,
  );
  console.log('Next: elect-run --backend etcd -- ./job.sh on several hosts. See README.md.');
} finally {
  await Promise.all(
    candidates.map(async (candidate) => {
      if (candidate.exitCode !== null || candidate.signalCode !== null) return;
      candidate.kill('SIGTERM');
      await once(candidate, 'close');
    }),
  );
  rmSync(folder, { recursive: true, force: true });
}
