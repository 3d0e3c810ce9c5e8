/** Started by guard.sh, never by hand: `cleanup-process.js end|release`, with the facts as JSON on stdin. */
import { readFileSync } from 'node:fs';
import { cleanUp } from './cleanup.ts';

process.noDeprecation = true;
cleanUp(JSON.parse(readFileSync(0, 'utf8')), process.argv[2] === 'release').then(() => process.exit());
