/**
 * What witness.sh does, by the same words on stdin and stdout, where there is no /bin/sh. What it has seen is told together with the answer.
 *
 *   node witness-process.js elect-run-witness
 */
import { createInterface } from 'node:readline';
import { onSignals } from './native.ts';
import { signalNumber } from './outcome.ts';
import { FORWARDED, isRealtime } from './signals.ts';

const seen: number[] = [];

const note = (signal: number) => void seen.push(signal);
for (const signal of FORWARDED) if (!isRealtime(signal)) process.on(signal, () => note(signalNumber(signal)));
onSignals(FORWARDED.filter(isRealtime).map(signalNumber), note);

/**
 * A signal that came before the question has run libuv's handler by now, which has only written to a pipe. The event loop reads that pipe when
 * it polls, and between two immediates it does.
 */
const onceToldAllSignals = (then: () => void) => setImmediate(() => setImmediate(then));

createInterface({ input: process.stdin })
  .on('line', (question) =>
    onceToldAllSignals(() => process.stdout.write([...seen.splice(0), `asked ${question}`, ''].join('\n'))),
  )
  .on('close', () => process.exit());
process.stdout.write('ready\n');
