import type { Oracle, Start } from '../helpers/oracle.ts';
import { type Candidate, idOf } from './site.ts';

/** When two at work are no fault of elect-run's. */
export interface Excuse {
  from: number;
  to: number;
  why: string;
}

interface Evidence {
  oracle: Oracle;
  lives: Candidate[];
  excuses: Excuse[];
  holderOf(token: bigint): Promise<string | undefined> | undefined;
}

/** The oracle's clock has steps of this length. */
const STEP_MS = 10;

/** What the oracle's and the store's records say of an episode. */
export async function judge({ oracle, lives, excuses, holderOf }: Evidence) {
  const starts = oracle.starts();
  const unsafe: string[] = [];
  let overlaps = 0;
  let excused = 0;
  let longestExcusedMs = 0;
  for (const clash of oracle.clashes()) {
    const excuse = excuses.find(({ from, to }) => clash.at + STEP_MS >= from && clash.at <= to);
    if (excuse === undefined) {
      overlaps++;
      unsafe.push(`two at work: ${describe(clash)} found somebody else`);
      continue;
    }
    excused++;
    const start = starts.find(({ pid, at }) => pid === clash.pid && at >= clash.at);
    longestExcusedMs = Math.max(longestExcusedMs, start ? start.at - clash.at : 0);
    if (start && start.at > excuse.to + STEP_MS)
      unsafe.push(`two at work for longer than ${excuse.why} explains: ${describe(clash)}`);
  }
  for (const [index, start] of starts.entries()) {
    const before = starts[index - 1];
    if (start.token === undefined || (before?.token !== undefined && start.token <= before.token))
      unsafe.push(`tokens do not grow: ${before ? describe(before) : ''}, then ${describe(start)}`);
    if (start.token === undefined) continue;
    const leader = lives.find((one) => idOf(one) === start.who);
    if (!leader?.elect.events.some(({ event, token }) => event === 'elected' && token === String(start.token)))
      unsafe.push(`a run without an election: ${describe(start)}`);
    const holder = await holderOf(start.token);
    if (holder !== undefined && holder !== start.who)
      unsafe.push(`a run without a lease: ${describe(start)}, but the store had ${holder}`);
  }
  return { unsafe, overlaps, excused, longestExcusedMs };
}

const describe = ({ who, token, pid }: Start): string => `${who} with token ${token} (pid ${pid})`;
