// Loaded into the guard before itself: prints a sample when it is asked for by SIGUSR2.
import { writeSync } from 'node:fs';
import { leave } from './leak.ts';
import { sampleSelf } from './sample.ts';
import type { Leak } from './task.ts';

const SAMPLES_FD = 3;

process.on('SIGUSR2', async () => writeSync(SAMPLES_FD, `${JSON.stringify(await sampleSelf())}\n`));

const leak = process.env.SOAK_LEAK as Leak | undefined;
const write = process.stdout.write.bind(process.stdout);
process.stdout.write = ((text: string) => {
  leave(leak);
  return write(text);
}) as typeof process.stdout.write;
