import { hostname, userInfo } from 'node:os';
import type { Observation } from '../backend.ts';
import type { ElectionOptions } from '../cli.ts';
import { now, pause, untilAborted, within } from '../clock.ts';
import { formatDuration, parseDuration } from '../durations.ts';
import { EXIT, Failure, usage } from '../outcome.ts';
import { isMeant, type Request } from '../requests.ts';
import type { Signals } from '../signals.ts';
import { printable } from '../text.ts';
import { lookAt, openElection, type Watched } from './election.ts';
import { asFailure } from './trouble.ts';
import { describeLeader } from './view.ts';

const DEFAULT_WAIT = '60s';
const LOOK_EVERY_MS = 250;
const REQUEST_MS = 5000;
/** Stores forget a request after a minute, and a leader may look for it more rarely. */
const LEAVE_EVERY_MS = 15_000;

export interface ResignOptions extends ElectionOptions {
  wait?: string;
  to?: string;
}

/** `elect-run resign`: asks the leader to step down in good order, and waits until it has. Interrupted, it takes the request back. Throws a Failure. */
export async function resign(options: ResignOptions, env: NodeJS.ProcessEnv, signals: Signals): Promise<number> {
  const waitMs = readWait(options.wait ?? DEFAULT_WAIT);
  if (options.to === '') throw usage('--to is empty; give an identity or its label, as elect-run status shows them');
  const watched = await openElection(options, env);
  const { leader } = await lookAt(watched);
  if (!leader) throw new Failure(EXIT.standby, `nobody leads ${watched.election}`);
  const { id, token } = leader;
  if (id === undefined || token === undefined)
    throw new Failure(
      EXIT.unavailable,
      `${describeLeader({ leader, waiting: undefined })} leads ${watched.election}, and cannot be asked: it tells no token, so it is another program, or has only just come to lead`,
    );
  const { to } = options;
  const request: Request = {
    id,
    token,
    by: `${userName()}@${hostname()}`,
    ...(to === undefined ? {} : { to }),
  };
  const interruption = signals.interruption();
  const interrupted = untilAborted(interruption.signal).then(() => {
    throw interruption.signal.reason;
  });
  try {
    const word = JSON.stringify(request);
    await Promise.race([leave(watched, word), interrupted]);
    const next = await Promise.race([successor(watched, leader, word, waitMs, to), interrupted]);
    process.stdout.write(`${printable(id)} has stepped down; now leads: ${describeLeader(next)}\n`);
    return 0;
  } finally {
    await leave(watched, undefined).catch(() => {}); // it is forgotten by itself, or names a leader that is gone
    await watched.backend[Symbol.asyncDispose]();
  }
}

/** In a container the user may have none. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid!()}`;
  }
}

function readWait(text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw usage(`--wait ${(error as Error).message}`);
  }
}

async function leave({ backend }: Watched, word: string | undefined): Promise<void> {
  await backend.leaveWord(word, within(REQUEST_MS)).catch((error) => {
    throw asFailure(error, backend.url);
  });
}

async function successor(
  watched: Watched,
  { id, token }: NonNullable<Observation['leader']>,
  word: string,
  waitMs: number,
  to: string | undefined,
): Promise<Observation> {
  let seen: Observation = { leader: undefined, waiting: undefined };
  let hasSteppedDown = false;
  let leaveAt = now() + LEAVE_EVERY_MS;
  for (const giveUpAt = now() + waitMs; now() < giveUpAt; await pause(LOOK_EVERY_MS)) {
    seen = await lookAt(watched);
    hasSteppedDown ||= seen.leader?.id !== id || (seen.leader?.token ?? token) !== token;
    // The others give way to that one, each of them once.
    if (hasSteppedDown && (to === undefined || isMeant(seen.leader?.id ?? '', to))) return seen;
    if (now() < leaveAt) continue;
    await leave(watched, word);
    leaveAt = now() + LEAVE_EVERY_MS;
  }
  if (hasSteppedDown)
    throw new Failure(
      EXIT.unavailable,
      `${printable(String(id))} has stepped down, but ${printable(String(to))} does not lead within ${formatDuration(waitMs)}; now leads: ${describeLeader(seen)}`,
    );
  throw new Failure(
    EXIT.unavailable,
    `${printable(String(id))} did not step down within ${formatDuration(waitMs)}: it may forbid it (--no-remote-resign), lack the right to read the request, or renew more rarely`,
  );
}
