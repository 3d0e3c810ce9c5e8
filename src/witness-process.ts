/**
 * What witness.sh does, by the same words on stdin and stdout, where there is no /bin/sh. What it has seen is told together with the answer.
 *
 *   node witness-process.js elect-run-witness
 */
import { createInterface } from 'node:readline';
import { onSignal } from './native.ts';
import { signalNumber } from './outcome.ts';
import { FORWARDED, isRealtime } from './signals.ts';

const seen: number[] = [];

for (const signal of FORWARDED) {
  const number = signalNumber(signal);
  const note = () => void seen.push(number);
  if (isRealtime(signal)) onSignal(number, note);
  else process.on(signal, note);
}

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
