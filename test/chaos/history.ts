import type { Oracle } from '../helpers/oracle.ts';
import { now, OFFSET_MS } from './clock.ts';
import type { Candidate } from './site.ts';

interface Entry {
  /** now() */
  at: number;
  who: string;
  what: string;
}

/** Told often, and of interest only where something else comes between two of them. */
const ROUTINE = ['renewed', 'place-renewed', 'notified'];

/** What the nemesis and the judge did. What candidates and jobs did is read from them when it is written down. */
export class History {
  readonly #entries: Entry[] = [];

  tell(who: string, what: string): void {
    this.#entries.push({ at: now(), who, what });
  }

  /** In order of time, seconds from the first candidate's start. */
  lines(lives: Candidate[], oracle: Oracle): string[] {
    const entries = [...this.#entries, ...lives.flatMap(entriesOf), ...jobEntries(oracle)].sort((a, b) => a.at - b.at);
    const start = Math.min(...entries.map(({ at }) => at));
    return entries
      .filter(({ who, what }, index) => {
        const next = entries.slice(index + 1).find((other) => other.who === who);
        return !ROUTINE.some((type) => what.startsWith(type) && next?.what.startsWith(type));
      })
      .map(({ at, who, what }) => `${((at - start) / 1000).toFixed(2).padStart(7)} s  ${who.padEnd(8)} ${what}`);
  }
}

function entriesOf(one: Candidate): Entry[] {
  const who = `host${one.site}`;
  const traits = [one.conduct, one.isProxied ? 'by a proxy' : 'directly', ...(one.rejoins ? ['rejoins'] : [])];
  return [
    { at: one.startedAt + OFFSET_MS, who, what: `stands, pid ${one.elect.pid}: ${traits.join(', ')}` },
    ...one.elect.events.map(({ event, time, level, readAt, ...facts }) => ({
      at: readAt + OFFSET_MS,
      who,
      what: [event, ...Object.entries(facts).map(([key, value]) => `${key}=${JSON.stringify(value)}`)].join(' '),
    })),
    ...(one.ended ? [{ at: one.ended.at + OFFSET_MS, who, what: `ended with ${one.ended.how}` }] : []),
  ];
}

function jobEntries(oracle: Oracle): Entry[] {
  const entries = (word: string, starts: ReturnType<Oracle['starts']>) =>
    starts.map(({ at, pid, who, token }) => ({ at, who: 'job', what: `${word} ${who} token ${token}, pid ${pid}` }));
  return [
    ...entries('START', oracle.starts()),
    ...entries('DONE', oracle.done()),
    ...entries('OVERLAP', oracle.clashes()),
  ];
}
