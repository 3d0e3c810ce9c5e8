import type { Backend } from '../backend.ts';
import { within } from '../clock.ts';
import type { Config } from '../config.ts';
import { formatDuration } from '../durations.ts';
import { asTyped, printable } from '../text.ts';
import type { Timing } from '../timing.ts';
import { asFailure } from './trouble.ts';
import { describeLeader, describeWaiting, rows } from './view.ts';

/** `--dry-run`: connects, prints what would be done and who leads, and changes nothing. Throws a Failure. */
export async function dryRun(config: Config, backend: Backend, agenda: string | undefined): Promise<number> {
  const { command, args, election, id, timing } = config;
  const seen = await backend
    .observe(within(PATIENCE_MS))
    .catch((error) => {
      throw asFailure(error, backend.url);
    })
    .finally(() => backend[Symbol.asyncDispose]());
  const { waiting } = seen;
  const next = waiting && `; ${waiting.length > 0 ? describeWaiting(seen).join(', ') : 'this one'} would be next`;
  process.stdout.write(
    rows([
      ['would run', printable(asTyped([command, ...args]))],
      ...(agenda === undefined ? [] : [['schedule', agenda] as [string, string]]),
      ['election', `${election} on ${backend.url}`],
      ['as', id],
      ['leader', describeLeader(seen) + (seen.leader ? (next ?? '') : '')],
      ['wait', describeWait(config)],
      ...(config.backend.kind === 'file' ? LOCK : lease(timing)),
    ]),
  );
  return 0;
}

const PATIENCE_MS = 5000;

function describeWait({ waitMs, once }: Config): string {
  if (once) return 'not at all: one attempt';
  return waitMs === Number.POSITIVE_INFINITY ? 'for ever' : `at most ${formatDuration(waitMs)}`;
}

const LOCK: [string, string][] = [['lease', 'none: a lock of the kernel, which nothing but its end takes away']];

function lease({ ttlMs, renewEveryMs, requestMs, graceMs, marginMs }: Timing): [string, string][] {
  const killMs = ttlMs - marginMs;
  const [ttl, every, request, stop, kill] = [ttlMs, renewEveryMs, requestMs, killMs - graceMs, killMs].map(
    formatDuration,
  );
  return [
    ['lease', `${ttl}, renewed every ${every}; a request may take ${request}`],
    [
      'on loss',
      `TERM ${stop} after the last confirmed renewal was sent, KILL at ${kill}; the next leader may start at ${ttl}`,
    ],
  ];
}
