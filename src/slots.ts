import { Cron } from 'croner';
import { isDuration, parseDuration } from './durations.ts';
import { usage } from './outcome.ts';
import { printable } from './text.ts';

/** The scheduled times of a job, as milliseconds since 1970. They are the same on every host, whatever its clock says. */
export interface Slots {
  /** The last one at or before that time; undefined: there was none. */
  latest(at: number): number | undefined;
  /** The first one after that time; undefined: there is none any more. */
  next(at: number): number | undefined;
}

const NAMED: Record<string, string> = {
  minute: '* * * * *',
  hour: '0 * * * *',
  day: '0 0 * * *',
  week: '0 0 * * 1',
  month: '0 0 1 * *',
  year: '0 0 1 1 *',
};

/**
 * `0 0 * * *`, also with seconds in front (croner's dialect); with `period`, `hour`, `day` … or a duration, whose slots are its multiples since 1970
 * in UTC. Throws a usage Failure that names the option.
 */
export function readSlots(option: string, text: string, timezone: string | undefined): Slots {
  if (isDuration(text)) {
    if (timezone !== undefined)
      throw usage(`--timezone has no meaning for ${option} ${text}: its slots are counted in UTC`);
    return multiplesOf(option, text);
  }
  const pattern = NAMED[text] ?? text;
  let cron: Cron;
  try {
    cron = new Cron(pattern, timezone === undefined ? {} : { timezone });
    cron.nextRuns(1);
  } catch (error) {
    const { message } = error as Error;
    if (/timezone/i.test(message))
      throw usage(`--timezone "${printable(timezone!)}" is unknown; write it as in Europe/Berlin`);
    const reason = message
      .replace(/^\w+: /, '')
      .replace(/, exactly .*/s, '; it takes five fields, or six with seconds in front');
    throw usage(`${option} "${printable(text)}" is no schedule: ${printable(reason)}; write for example '0 0 * * *'`);
  }
  if (cron.nextRuns(1).length === 0) throw usage(`${option} "${printable(text)}" never comes`);
  return {
    // croner leaves out the reference itself.
    latest: (at) => cron.previousRuns(1, new Date(at + 1))[0]?.getTime(),
    next: (at) => cron.nextRuns(1, new Date(at))[0]?.getTime(),
  };
}

function multiplesOf(option: string, text: string): Slots {
  const periodMs = parseDuration(text);
  if (periodMs < 1000 || periodMs % 1000 !== 0) throw usage(`${option} ${text} has to be a number of whole seconds`);
  return {
    latest: (at) => Math.floor(at / periodMs) * periodMs,
    next: (at) => (Math.floor(at / periodMs) + 1) * periodMs,
  };
}

/** The shortest time between two of the slots that come next, in ms. */
export function shortestPeriod(slots: Slots, at: number): number {
  let shortestMs = Number.POSITIVE_INFINITY;
  let before = slots.next(at);
  for (let count = 0; before !== undefined && count < LOOK_AHEAD; count++) {
    const after = slots.next(before);
    if (after === undefined) break;
    shortestMs = Math.min(shortestMs, after - before);
    before = after;
  }
  return shortestMs;
}

const LOOK_AHEAD = 100;

/** RFC 3339, in UTC. */
export const slotName = (slot: number): string => new Date(slot).toISOString().replace('.000Z', 'Z');
