/** Started by guard.sh, never by hand: `cleanup-process.js end|end-when-told|release`, with the facts as JSON on stdin. `end-when-told` begins at SIGCONT. */
import { readFileSync } from 'node:fs';
import { cleanUp } from './cleanup.ts';

process.noDeprecation = true;
const [, , task] = process.argv;
const told = new Promise<void>((resolve) => {
  if (task !== 'end-when-told') return resolve();
  process.once('SIGCONT', resolve);
  setInterval(() => {}, 60_000); // to be waited for
});
const facts = JSON.parse(readFileSync(0, 'utf8'));
told.then(() => cleanUp(facts, task === 'release')).then(() => process.exit());
