import { constants, fstatSync, openSync, writeSync } from 'node:fs';
import type { LogFormat } from '../config.ts';
import { formatDuration } from '../durations.ts';
import { type Event, type Level, levelOf, type Report } from '../events.ts';
import { printable } from '../text.ts';

const LOUDNESS: Record<Level, number> = { error: 0, warn: 1, info: 2, debug: 3 };

/** -q: warnings and errors. Default: each transition. -v: renewals and signals. -vv: stack traces as well. */
export interface Verbosity {
  quiet: boolean;
  verbose: number;
}

/** One line of text per event, without level or time: what a person reads. */
export function describe(event: Event): string {
  switch (event.type) {
    case 'campaigning':
      return `campaigning for ${event.election} on ${event.backend} as ${event.id}`;
    case 'unreachable':
      return `the store cannot be reached (${event.reason}); next try in ${formatDuration(event.retryInMs)}`;
    case 'standby': {
      const since = event.since ? ` since ${event.since}` : '';
      const place = event.position ? `; we are number ${event.position} in line` : '';
      return `standing by: ${event.leader ? printable(event.leader) : 'somebody else'} leads${since}${place}`;
    }
    case 'elected':
      return `elected leader of ${event.election} with token ${event.token}`;
    case 'scheduled':
      return `the next slot is ${event.slot}`;
    case 'slot-settled': {
      const { slot, holder, token, startedAt, endedAt, status } = event.run;
      const what = slot === event.slot ? `slot ${slot}` : `slot ${event.slot} is past, and slot ${slot}`;
      const end = endedAt === undefined ? 'it did not end' : `to ${endedAt}, with status ${status}`;
      return `nothing to do: ${what} was run by ${printable(holder)} with token ${token} from ${startedAt}${endedAt === undefined ? '; ' : ' '}${end}`;
    }
    case 'started': {
      const slot = event.slot === undefined ? '' : ` for slot ${event.slot}`;
      return `started ${event.command}${slot} (pid ${event.pid})`;
    }
    case 'place-renewed':
      return `our place in the store is good for ${formatDuration(event.validForMs)}`;
    case 'place-lost':
      return `our place in the store is lost: ${event.reason}; standing again`;
    case 'renewed': {
      const isEndless = event.validForMs === Number.POSITIVE_INFINITY; // a lock of the kernel
      const validity = isEndless ? 'good until it is given back' : `good for ${formatDuration(event.validForMs)}`;
      return `lease renewed in ${event.tookMs}ms, ${validity}`;
    }
    case 'suspended':
      return `leadership in doubt: ${event.reason}; stepping down in ${formatDuration(event.stopInMs)} unless a renewal gets through`;
    case 'resumed':
      return 'leadership confirmed again';
    case 'stepping-down':
      return event.killInMs > 0
        ? `stepping down: ${event.reason}; TERM to the child now, KILL in ${formatDuration(event.killInMs)}`
        : `stepping down: ${event.reason}; KILL to the child now`;
    case 'deposed':
      return `leadership lost: ${event.reason}`;
    case 'signalled':
      return event.forwarded ? `${event.signal} passed on to the child` : `${event.signal} received`;
    case 'notified':
      return `the child notified ${event.lines.join(', ')}`;
    case 'ended':
      return event.signal ? `the child died of ${event.signal}` : `the child ended with status ${event.status}`;
    case 'record-unavailable':
      return `the run record can be neither read nor written now, and is tried again: ${event.reason}`;
    case 'cut-off':
      return `slot ${event.slot} was cut off, since we were asked to end: the next leader runs it again, unless --rerun is never`;
    case 'unrecorded':
      return `the end of slot ${event.slot} could not be recorded, and it may be run again: ${event.reason}`;
    case 'holding':
      return `keeping the leadership for another ${formatDuration(event.forMs)} (--hold)`;
    case 'strayed':
      return `the guard knows of what strays from the child's group: ${event.pids.join(', ') || 'nothing'}`;
    case 'leftovers':
      return `the child left ${event.pids.length} processes behind (${event.pids.join(', ')}): ending them`;
    case 'guard-replaced':
      return `the guard was replaced: ${event.reason}`;
    case 'resigned':
      return 'lease given back';
    case 'left-to-expire':
      return `the lease is left to run out: ${event.reason}`;
    case 'warning':
    case 'failed':
      return event.message;
  }
}

/**
 * Our own way to what stderr leads to, opened anew where that is possible, so that it can be non-blocking without making the descriptor that the
 * child shares so. A reader that does not read (a full pipe, Ctrl-S at a terminal) must not keep us from renewing.
 */
function openStderr(): number {
  try {
    const stderr = fstatSync(2);
    if (stderr.isFIFO() || stderr.isCharacterDevice()) {
      return openSync('/proc/self/fd/2', constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    }
  } catch {}
  return 2;
}

let out: number | undefined;
/** What could not be written yet. The oldest go first when there is too much of it. */
const backlog: Buffer[] = [];
const MOST_LINES = 1000;
const TRY_AGAIN_MS = 100;
let tryAgain: NodeJS.Timeout | undefined;

export function writeLine(line: string): void {
  backlog.push(Buffer.from(`${line}\n`));
  if (backlog.length > MOST_LINES) backlog.shift();
  flush();
}

function flush(): void {
  out ??= openStderr();
  while (backlog.length > 0) {
    try {
      const written = writeSync(out, backlog[0]!);
      if (written < backlog[0]!.length) backlog[0] = backlog[0]!.subarray(written);
      else backlog.shift();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') {
        backlog.length = 0; // nobody is there any more: the child matters more
        return;
      }
      clearTimeout(tryAgain);
      tryAgain = setTimeout(flush, TRY_AGAIN_MS);
      tryAgain.unref();
      return;
    }
  }
}

/** systemd sets JOURNAL_STREAM to the device and inode of the journal's socket (systemd.exec(5)). */
function isJournal(): boolean {
  try {
    const { dev, ino } = fstatSync(2);
    return process.env.JOURNAL_STREAM === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

const PRIORITY: Record<Level, number> = { error: 3, warn: 4, info: 6, debug: 7 }; // sd-daemon(3)
const COLOUR: Record<Level, string> = { error: '31', warn: '33', info: '36', debug: '2' };

function formatter(format: LogFormat, verbose = 0): (event: Event) => string {
  switch (format) {
    case 'json':
      return (event) => JSON.stringify(fields(event, verbose > 1));
    case 'logfmt':
      return (event) =>
        Object.entries(fields(event, false))
          .filter(([, value]) => value !== undefined)
          .map(([key, value]) => `${key}=${logfmtValue(value)}`)
          .join(' ');
    case 'pretty': {
      const isColourful = process.env.NO_COLOR === undefined || process.env.NO_COLOR === '';
      const paint = (text: string, level: Level) => (isColourful ? `\u001b[${COLOUR[level]}m${text}\u001b[0m` : text);
      return (event) => `${paint('elect-run', levelOf(event))} ${describe(event)}`;
    }
    case 'plain':
      return (event) => `elect-run: ${describe(event)}`;
    case 'auto':
      if (isJournal()) return (event) => `<${PRIORITY[levelOf(event)]}>${describe(event)}`;
      return formatter('plain');
  }
}

function fields(event: Event, withStack: boolean) {
  const { type, ...rest } = event;
  const shown = 'stack' in rest && !withStack ? { ...rest, stack: undefined } : rest;
  return { time: new Date().toISOString(), level: levelOf(event), event: type, ...shown };
}

function logfmtValue(value: unknown): string {
  const text = Array.isArray(value) ? value.join(',') : String(value ?? '');
  return /^[\w.:/@+-]+$/.test(text) ? text : JSON.stringify(text);
}

/** Lines on stderr, in one of the formats; what is too quiet for the verbosity is left out. */
export function logReporter(format: LogFormat, { quiet, verbose }: Verbosity): Report {
  const loudest = quiet ? 1 : verbose > 0 ? 3 : 2;
  const line = formatter(format, verbose);
  return (event) => {
    // By the time that it is known the child may have drawn its screen, or a prompt: at a terminal "elected" has said it.
    if (event.type === 'started' && format === 'pretty' && verbose === 0) return;
    if (LOUDNESS[levelOf(event)] <= loudest) writeLine(line(event));
    if (event.type === 'failed' && verbose > 1 && event.stack && format !== 'json') writeLine(event.stack);
  };
}
