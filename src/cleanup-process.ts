/**
 * Started by guard.sh, never by hand: `cleanup-process.js release|end [N]`, with the facts as JSON on stdin. Given N, in hundredths of a second of /proc/uptime, it
 * begins at the first SIGCONT from then on; an earlier one was meant for somebody else.
 */
import { readFileSync } from 'node:fs';
import { setPriority, uptime } from 'node:os';
import { cleanUp } from './cleanup.ts';

process.noDeprecation = true;
try {
  setPriority(-20); // before everybody who works, where we may (setpriority(2): root)
} catch {}
const [, , task, deadline] = process.argv;
const told = new Promise<void>((resolve) => {
  if (deadline === undefined) return resolve();
  process.on('SIGCONT', () => {
    if (Math.round(uptime() * 100) >= Number(deadline)) resolve();
  });
  setInterval(() => {}, 60_000); // to be waited for
});
const facts = JSON.parse(readFileSync(0, 'utf8'));
told.then(() => cleanUp(facts, task === 'release')).then((isDead) => process.exit(isDead ? 0 : 1));
