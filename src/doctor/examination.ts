import { Refused } from '../backend.ts';
import { validityOfPem } from '../backends/certificate.ts';
import { openBackend } from '../backends/index.ts';
import type { BackendSpec } from '../backends/spec.ts';
import { now, within } from '../clock.ts';
import { formatDuration } from '../durations.ts';
import type { Timing } from '../timing.ts';
import { advise, type Need } from './advice.ts';
import { type Examiner, type Health, openExaminer } from './examiner.ts';
import { type Finding, ok } from './finding.ts';
import { lookAtHost } from './host.ts';
import { type Expiry, expire, lead, PATIENCE_MS, type RoundTrips, repeat } from './measure.ts';
import { PauseMeter, type Pauses } from './pauses.ts';
import {
  judgeBook,
  judgeExpiry,
  judgeGrant,
  judgeHealth,
  judgeHost,
  judgePauses,
  judgeRoundTrips,
  judgeTiming,
  judgeUncleanable,
  judgeUnobservable,
  judgeUnreachable,
  judgeValidity,
  leftBehind,
  ofError,
} from './policy.ts';
import { Scratch } from './scratch.ts';

export interface Plan {
  spec: BackendSpec;
  election: string;
  timing: Timing;
  /** How long round trips are measured. */
  forMs: number;
  env: NodeJS.ProcessEnv;
}

/** For programs; what was not measured is undefined. */
export interface Measured {
  connectMs?: number | undefined;
  grantedMs?: number | undefined;
  roundTrips?: RoundTrips | undefined;
  expiry?: Expiry | undefined;
  pauses?: Pauses | undefined;
}

export interface Examined {
  election: string;
  backend: string;
  findings: Finding[];
  measured: Measured;
  /** The shortest timing that bears what was measured. */
  advised: Timing | undefined;
}

/** As long as planTiming ever gives a request: what is slower is of no use, whatever the timing. */
const REQUEST_MS = 5000;

/**
 * Connects, asks the servers, leads an election of its own for a while, lets a lease of its own run out, and says what it means. Nothing of it is left in the store, also
 * when it is interrupted, which is the only thing that makes it reject apart from faults.
 */
export async function examine(plan: Plan, tell: (step: string) => void, interrupted: AbortSignal): Promise<Examined> {
  const { spec, election, timing, env } = plan;
  const examiner = await openExaminer(spec, election, REQUEST_MS);
  const scratch = new Scratch(election, spec, examiner, REQUEST_MS);
  const findings: Finding[] = [];
  const measured: Measured = {};
  const own = await openBackend(spec, { election, id: '', ttlMs: timing.ttlMs, requestMs: REQUEST_MS }); // no request is made
  try {
    tell('connecting');
    const connected = await connect(plan, own.url, examiner);
    findings.push(connected.finding);
    measured.connectMs = connected.tookMs;
    interrupted.throwIfAborted();

    tell('asking the servers');
    const health = await examiner.health(election, within(PATIENCE_MS));
    findings.push(...judgeCertificates(health, spec), ...judgeHealth(health));
    interrupted.throwIfAborted();

    if (connected.finding.level === 'ok') {
      await own.observe(within(PATIENCE_MS)).catch((error) => {
        if (error instanceof Refused) findings.push(judgeUnobservable(error));
      });
      const meter = new PauseMeter();
      try {
        const { isEntitled } = connected;
        const rights = { isEntitled, canCleanUp: mayDelete(health) };
        await measure(plan, examiner, scratch, rights, { measured, findings }, tell, interrupted);
      } catch (error) {
        interrupted.throwIfAborted();
        findings.push(ofError('election', inPlaceOf(scratch.election, election, error as Error), own.url));
      } finally {
        measured.pauses = meter.end();
      }
      findings.push(...judgePauses(measured.pauses));
    }
  } finally {
    tell('removing the traces');
    await scratch.remove().catch((error) => findings.push(leftBehind(scratch.election, error)));
    await Promise.all([examiner.close(), own[Symbol.asyncDispose]()]);
  }
  findings.push(...judgeHost(lookAtHost(env)));
  const need = needOf(spec, measured);
  if (need) findings.push(judgeTiming(timing, need));
  return { election, backend: own.url, findings, measured, advised: need && advise(need) };
}

interface Connected {
  finding: Finding;
  tookMs: number | undefined;
  /** The store has said that we may lead this election. */
  isEntitled: boolean;
}

async function connect({ spec, election }: Plan, url: string, examiner: Examiner): Promise<Connected> {
  const startedAt = now();
  try {
    const isEntitled = await examiner.enter(election, within(PATIENCE_MS));
    const tookMs = now() - startedAt;
    const who = 'auth' in spec && spec.auth?.username ? ` as ${spec.auth.username}` : '';
    const how = 'tls' in spec && spec.tls ? ', TLS' : '';
    return { tookMs, isEntitled, finding: ok('connect', `${url}${who}${how} in ${formatDuration(tookMs)}`) };
  } catch (error) {
    return { tookMs: undefined, isEntitled: false, finding: ofError('connect', error as Error, url) };
  }
}

/** Leads an election of its own; where the rights do not reach that far, asks only. */
async function measure(
  { spec, timing, forMs, election }: Plan,
  examiner: Examiner,
  scratch: Scratch,
  { isEntitled, canCleanUp }: { isEntitled: boolean; canCleanUp: boolean },
  results: { measured: Measured; findings: Finding[] },
  tell: (step: string) => void,
  interrupted: AbortSignal,
): Promise<void> {
  const { measured, findings } = results;
  const askOnly = async (why: Finding) => {
    findings.push(why);
    measured.roundTrips = await repeat((signal) => examiner.enter(election, signal), forMs, interrupted);
    findings.push(...judgeRoundTrips(measured.roundTrips, 'questions'));
  };
  tell(`measuring round trips for ${formatDuration(forMs)}`);
  if (!canCleanUp) return askOnly(judgeUncleanable());
  try {
    const term = await lead(scratch, timing.ttlMs, forMs, interrupted);
    measured.grantedMs = term.grantedMs;
    measured.roundTrips = term.roundTrips;
    const what = term.grantedMs === undefined ? 'tokens, written to the disk' : 'renewals';
    findings.push(...judgeRoundTrips(term.roundTrips, what), judgeGrant(timing.ttlMs, term.grantedMs));
    if (term.bookProblem !== undefined)
      findings.push(judgeBook(term.bookProblem.replaceAll(scratch.election, election)));
  } catch (error) {
    if (!(error instanceof Refused && isEntitled)) throw error;
    return askOnly(judgeUnreachable(election, scratch.election));
  }
  if (spec.kind === 'file') return; // nothing runs out
  tell('waiting for a lease to run out');
  measured.expiry = await expire(scratch, timing, measured.roundTrips.took.maxMs, interrupted);
  findings.push(judgeExpiry(measured.expiry));
}

const mayDelete = (health: Health): boolean =>
  health.kind !== 'kubernetes' || health.denied?.includes('delete') === false;

function needOf({ kind }: BackendSpec, { roundTrips, pauses, expiry }: Measured): Need | undefined {
  if (kind === 'file' || !pauses || !roundTrips || roundTrips.took.count === 0) return undefined;
  return { p99Ms: roundTrips.took.p99Ms, pauseMs: pauses.late.maxMs, shortestMs: expiry?.shortestMs ?? 0 };
}

function judgeCertificates(health: Health, spec: BackendSpec): Finding[] {
  const ours = 'tls' in spec && spec.tls?.cert ? judgeValidity('our certificate', validityOfPem(spec.tls.cert)) : [];
  const servers =
    health.kind === 'etcd'
      ? health.members.map(({ endpoint, validUntil }) => judgeValidity(`the certificate of ${endpoint}`, validUntil))
      : 'validUntil' in health
        ? [judgeValidity('the certificate of the server', health.validUntil)]
        : [];
  return [...servers.flat(), ...ours];
}

/** A message about the scratch election that is true of the given one as well. */
function inPlaceOf(scratch: string, election: string, error: Error): Error {
  error.message = error.message.replaceAll(scratch, election);
  return error;
}
