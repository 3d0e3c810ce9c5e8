import type { Observation } from '../backend.ts';
import { formatDuration } from '../durations.ts';
import type { Run } from '../runs.ts';
import { printable } from '../text.ts';
import type { Watched } from './election.ts';

/** Rows of a label and what belongs to it, for people. */
export function rows(pairs: [label: string, text: string][]): string {
  const width = Math.max(...pairs.map(([label]) => label.length));
  return pairs.map(([label, text]) => `${label.padEnd(width)}  ${text}\n`).join('');
}

const SHOWN_RUNS = 10;

/** An election, for people. */
export function describe({ election, backend }: Watched, seen: Observation, runs: Run[]): string {
  return rows([
    ['election', `${election} on ${backend.url}`],
    ['leader', describeLeader(seen)],
    ...labelled('standing by', describeWaiting(seen)),
    ...labelled('runs', runs.slice(0, SHOWN_RUNS).map(describeRun)),
  ]);
}

const labelled = (label: string, texts: string[]): [string, string][] =>
  texts.map((text, index) => [index === 0 ? label : '', text]);

const UNNAMED = 'somebody whose name the store does not tell';

export function describeLeader({ leader }: Observation): string {
  if (!leader) return 'nobody';
  const { id, token, since, leftMs } = leader;
  const details = [
    token === undefined ? undefined : `token ${printable(token)}`,
    since === undefined ? undefined : `since ${printable(since)}`,
    leftMs === undefined ? undefined : `lease runs out in ${formatDuration(leftMs)} unless it is renewed`,
  ].filter(Boolean);
  return [id ? printable(id) : UNNAMED, ...details].join(', ');
}

/** In their order; the store may not know. */
export function describeWaiting({ waiting }: Observation): string[] {
  if (!waiting) return ['this store does not know'];
  if (waiting.length === 0) return ['nobody'];
  return waiting.map((id) => (id ? printable(id) : UNNAMED));
}

export function describeRun({ slot, holder, token, startedAt, endedAt, status }: Run): string {
  const tookMs = endedAt === undefined ? undefined : Date.parse(endedAt) - Date.parse(startedAt);
  const end = tookMs === undefined ? 'not ended' : `status ${status} after ${formatDuration(Math.max(0, tookMs))}`;
  return printable(`${slot}  ${end}, started ${startedAt} by ${holder}, token ${token}`);
}
