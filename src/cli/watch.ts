import type { Observation } from '../backend.ts';
import type { ElectionOptions } from '../cli.ts';
import { pause } from '../clock.ts';
import { isUnread } from '../native.ts';
import { EXIT, Failure } from '../outcome.ts';
import { writeLine } from '../report/log.ts';
import { documentOf, lookAt, lookAtRuns, openElection, type Watched } from './election.ts';
import { describe, describeLeader } from './view.ts';

const LOOK_EVERY_MS = 250;
const RETRY_MS = 1000;
const STDOUT = 1;

/** `elect-run watch`: prints each change of leadership, until it is interrupted or nobody reads it any more; at a terminal, the state as it is now. Throws a Failure. */
export async function watch(options: ElectionOptions, env: NodeJS.ProcessEnv): Promise<never> {
  const watched = await openElection(options, env);
  // Nothing is written until something changes, so nothing else would tell.
  setInterval(() => isUnread(STDOUT) && process.exit(0), LOOK_EVERY_MS);
  const isLive = process.stdout.isTTY === true && !options.json;
  let shown: string | undefined;
  let isFirst = true;
  for (;;) {
    try {
      const seen = await lookAt(watched);
      if (isLive) shown = redraw(shown, describe(watched, seen, (await lookAtRuns(watched)).runs));
      else shown = tellChange(shown, watched, seen, options.json ?? false);
      isFirst = false;
      await pause(LOOK_EVERY_MS);
    } catch (error) {
      // It was there a moment ago: it may come back.
      if (isFirst || !(error instanceof Failure) || error.code !== EXIT.unavailable) throw error;
      writeLine(`elect-run: ${error.message}`);
      await pause(RETRY_MS);
    }
  }
}

/** In the place of what is shown. */
function redraw(shown: string | undefined, whole: string): string {
  // A line that wraps would be two.
  const text = whole.replace(/[^\n]+/g, (line) => line.slice(0, process.stdout.columns));
  const lines = (shown ?? '').split('\n').length - 1;
  if (text !== shown) process.stdout.write(`${lines > 0 ? `\u001b[${lines}A\u001b[J` : ''}${text}`);
  return text;
}

function tellChange(told: string | undefined, watched: Watched, seen: Observation, isJson: boolean): string {
  const { leader } = seen;
  const which = leader ? JSON.stringify([leader.id, leader.token]) : 'nobody';
  if (which !== told) {
    const time = new Date().toISOString();
    const text = isJson ? JSON.stringify({ time, ...documentOf(watched, seen) }) : `${time}  ${describeLeader(seen)}`;
    process.stdout.write(`${text}\n`);
  }
  return which;
}
