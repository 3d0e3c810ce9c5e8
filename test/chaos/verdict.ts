import type { Oracle, Start } from '../helpers/oracle.ts';
import { type Candidate, idOf } from './site.ts';

/** The oracle's clock has steps of this length. */
const STEP_MS = 10;

/** When two at work are no fault of elect-run's. */
export interface Excuse {
  from: number;
  to: number;
  why: string;
  /** Only if this one says that it was elected with a token below that. */
  ifConfirmed?: { who: string; before: bigint } | undefined;
}

/** The last of those that cover what happened at this moment: each leader's place may have been taken away. */
export const excuseFor = (at: number, excuses: Excuse[], oracle: Oracle): Excuse | undefined =>
  excuses.findLast(
    ({ from, to, ifConfirmed }) =>
      at + STEP_MS >= from &&
      at <= to &&
      (ifConfirmed === undefined ||
        [...oracle.starts(), ...oracle.clashes()].some(
          ({ who, token }) => who === ifConfirmed.who && token !== undefined && token < ifConfirmed.before,
        )),
  );

interface Evidence {
  oracle: Oracle;
  lives: Candidate[];
  excuses: Excuse[];
  holderOf(token: bigint): Promise<string | undefined> | undefined;
}

/** What the oracle's and the store's records say of an episode. */
export async function judge({ oracle, lives, excuses, holderOf }: Evidence) {
  const starts = oracle.starts();
  const unsafe: string[] = [];
  let overlaps = 0;
  let excused = 0;
  let longestExcusedMs = 0;
  for (const clash of oracle.clashes()) {
    const excuse = excuseFor(clash.at, excuses, oracle);
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
