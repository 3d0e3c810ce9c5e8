import { readBackend } from '../backends/spec.ts';
import type { ElectionOptions } from '../cli.ts';
import { duration, mustBeElection, readTiming, type TimingOptions } from '../config.ts';
import { flagsOf } from '../doctor/advice.ts';
import { type Examined, examine } from '../doctor/examination.ts';
import type { Finding } from '../doctor/finding.ts';
import { showProgress } from '../report/progress.ts';
import type { Signals } from '../signals.ts';
import { rows } from './view.ts';

interface DoctorOptions extends ElectionOptions, TimingOptions {
  /** How long round trips are measured. */
  for?: string;
}

const DEFAULT_FOR = '3s';

/** `elect-run doctor`: examines the store and this host, and prints what is wrong and how to mend it. Resolves with the exit status. Throws a Failure. */
export async function doctor(options: DoctorOptions, env: NodeJS.ProcessEnv, signals: Signals): Promise<number> {
  const spec = readBackend(options, env);
  const election = options.name ?? env.ELECT_RUN_ELECTION ?? 'elect-run';
  mustBeElection(spec, election);
  const timing = readTiming(options);
  const forMs = duration('--for', options.for ?? DEFAULT_FOR);
  const progress = showProgress();
  const interruption = signals.interruption(); // what is under way is ended properly, and what it has made is removed
  try {
    const examined = await examine({ spec, election, timing, forMs, env }, progress.tell, interruption.signal);
    progress.end();
    process.stdout.write(options.json ? `${JSON.stringify(documentOf(examined))}\n` : describe(examined));
    return statusOf(examined.findings);
  } finally {
    progress.end();
  }
}

/** That of the first problem; warnings do not count. */
function statusOf(findings: Finding[]): number {
  const [first] = findings.flatMap((finding) => (finding.level === 'problem' ? finding.code : []));
  return first ?? 0;
}

function describe({ election, backend, findings }: Examined): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.map((finding) => {
    const { check, level, found } = finding;
    const head = `${level.padEnd('warning'.length)}  ${check.padEnd(width)}  `;
    const remedy = finding.level === 'ok' ? '' : `${' '.repeat(head.length)}→ ${finding.remedy}\n`;
    return `${head}${found}\n${remedy}`;
  });
  const count = (level: Finding['level']) => findings.filter((finding) => finding.level === level).length;
  const verdict =
    count('problem') + count('warning') === 0
      ? 'all is well'
      : `${plural(count('problem'), 'problem')}, ${plural(count('warning'), 'warning')}`;
  return `${rows([['election', `${election} on ${backend}`]])}\n${lines.join('')}\n${verdict}\n`;
}

const plural = (count: number, what: string): string =>
  `${count === 0 ? 'no' : count} ${what}${count === 1 ? '' : 's'}`;

/** For programs: null is what was not measured. */
function documentOf({ election, backend, findings, measured, advised }: Examined) {
  const { connectMs, grantedMs, roundTrips, expiry, pauses } = measured;
  return {
    election,
    backend,
    findings,
    connectMs: connectMs ?? null,
    roundTrips: roundTrips ? { ...roundTrips.took, unanswered: roundTrips.unanswered } : null,
    grantedMs: grantedMs ?? null,
    expiry: expiry ?? null,
    pauses: pauses ?? null,
    advised: advised ? { ttlMs: advised.ttlMs, renewEveryMs: advised.renewEveryMs, flags: flagsOf(advised) } : null,
    status: statusOf(findings),
  };
}
