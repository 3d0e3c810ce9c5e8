import { closeSync, openSync, readSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename } from 'node:path';
import type { ConnectionOptions } from './backends/connection.ts';
import { type BackendSpec, checkElection, readBackend } from './backends/spec.ts';
import { parseDuration } from './durations.ts';
import { type ListenAddress, readListen } from './listen.ts';
import { EXIT, usage } from './outcome.ts';
import { RERUNS, type Rerun } from './runs.ts';
import { CONTROL, printable } from './text.ts';
import { PROFILES, planTiming, type Timing } from './timing.ts';

export const LOG_FORMATS = ['auto', 'pretty', 'plain', 'json', 'logfmt'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export const ON_LOST = ['exit', 'rejoin'] as const;

export const READY_ON = ['standby', 'leader'] as const;
export type ReadyOn = (typeof READY_ON)[number];

export interface TimingOptions {
  ttl?: string;
  renewEvery?: string;
  profile?: string;
  grace?: string;
}

/** The options as commander gives them: strings from flags or from ELECT_RUN_* variables. */
export interface Options extends ConnectionOptions, TimingOptions {
  backend: string;
  name?: string;
  id?: string;
  /** `false` is --no-wait. */
  wait?: string | boolean;
  onLost: string;
  stopTimeout?: string;
  oncePer?: string;
  schedule?: string;
  timezone?: string;
  skew?: string;
  catchUp?: string;
  rerun?: string;
  hold?: string;
  readyOn: string;
  notifyChild?: boolean;
  listen?: string;
  dryRun?: boolean;
  /** `false` is --no-remote-resign. */
  remoteResign?: boolean;
  exitCodeStandby?: string;
  exitCodeLost?: string;
  quiet?: boolean;
  verbose: number;
  logFormat: string;
}

/** --once-per or --schedule, with the options that go with it. */
export interface Timetable {
  option: '--once-per' | '--schedule';
  text: string;
  timezone: string | undefined;
  /** A start that close before a slot counts for it; undefined: 5 s, or less where slots are that close. */
  skewMs: number | undefined;
  /** Undefined: only the latest slot is caught up. */
  catchUpMs: number | undefined;
  rerun: Rerun;
}

export interface Config {
  command: string;
  args: string[];
  backend: BackendSpec;
  election: string;
  id: string;
  timing: Timing;
  /** How long connecting and campaigning may take together; Infinity: for ever. */
  waitMs: number;
  /** One attempt, then give up. */
  once: boolean;
  rejoin: boolean;
  stopTimeoutMs: number | undefined;
  timetable: Timetable | undefined;
  /** How long the leadership is kept after a start at the least. */
  holdMs: number;
  /** Whether `elect-run resign` may ask us to step down. */
  remoteResign: boolean;
  /** When the service manager is told that we are ready. */
  readyOn: ReadyOn;
  /** The child may speak to the service manager through us. False where there is none. */
  notifyChild: boolean;
  /** Where metrics, health and the page are; undefined: nowhere. */
  listen: ListenAddress | undefined;
  exitCodes: { standby: number; lost: number };
}

/** Checks everything that can be checked without a store. Throws a usage Failure that names the option, the value and the way out. */
export function readConfig(options: Options, command: string, args: string[], env: NodeJS.ProcessEnv): Config {
  const backend = readBackend(options, env);
  const election = readElection(options.name, command, backend);
  const wait = readWait(options);
  return {
    command,
    args,
    backend,
    election,
    id: readId(options.id),
    timing: readTiming(options),
    ...wait,
    rejoin: oneOf('--on-lost', options.onLost, ON_LOST) === 'rejoin',
    stopTimeoutMs: options.stopTimeout === undefined ? undefined : duration('--stop-timeout', options.stopTimeout),
    timetable: readTimetable(options),
    remoteResign: options.remoteResign ?? true,
    holdMs: options.hold === undefined ? 0 : duration('--hold', options.hold),
    readyOn: oneOf('--ready-on', options.readyOn, READY_ON),
    notifyChild: (options.notifyChild ?? false) && env.NOTIFY_SOCKET !== undefined,
    listen: options.listen === undefined ? undefined : readListen(options.listen),
    exitCodes: {
      standby: exitCode('--exit-code-standby', options.exitCodeStandby, EXIT.standby),
      lost: exitCode('--exit-code-lost', options.exitCodeLost, EXIT.lost),
    },
  };
}

function readTimetable(options: Options): Timetable | undefined {
  const { oncePer, schedule, timezone, skew, catchUp, rerun } = options;
  if (oncePer !== undefined && schedule !== undefined) throw usage('--once-per and --schedule exclude each other');
  const only = (option: string, value: string | undefined, needed: string, isThere: boolean) => {
    if (value !== undefined && !isThere) throw usage(`${option} has no meaning without ${needed}`);
  };
  const hasSlots = (oncePer ?? schedule) !== undefined;
  only('--timezone', timezone, '--once-per or --schedule', hasSlots);
  only('--rerun', rerun, '--once-per or --schedule', hasSlots);
  only('--skew', skew, '--once-per', oncePer !== undefined);
  only('--catch-up', catchUp, '--schedule', schedule !== undefined);
  if (!hasSlots) return undefined;
  return {
    option: schedule === undefined ? '--once-per' : '--schedule',
    text: (schedule ?? oncePer)!,
    timezone,
    skewMs: skew === undefined ? undefined : duration('--skew', skew),
    catchUpMs: catchUp === undefined ? undefined : duration('--catch-up', catchUp),
    rerun: oneOf('--rerun', rerun ?? 'crash', RERUNS),
  };
}

export function duration(option: string, text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw usage(`${option} ${(error as Error).message}`);
  }
}

export function oneOf<T extends string>(option: string, value: string, allowed: readonly T[]): T {
  if (!allowed.includes(value as T)) throw usage(`${option} "${printable(value)}" is not one of ${allowed.join(', ')}`);
  return value as T;
}

function exitCode(option: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  if (!/^\d{1,3}$/.test(text) || Number(text) > 255)
    throw usage(`${option} "${printable(text)}" is not an exit code (0 to 255)`);
  if (option === '--exit-code-lost' && Number(text) === 0)
    throw usage('--exit-code-lost 0 would hide that leadership was lost; choose 1 to 255');
  return Number(text);
}

/** Throws a usage Failure, also when the three do not fit together. */
export function readTiming(options: TimingOptions): Timing {
  const profile =
    options.profile === undefined
      ? undefined
      : oneOf('--profile', options.profile, Object.keys(PROFILES) as (keyof typeof PROFILES)[]);
  const preset = PROFILES[profile ?? 'balanced'];
  const ttlMs = options.ttl === undefined ? preset.ttlMs : duration('--ttl', options.ttl);
  if (ttlMs <= 0) throw usage(`--ttl "${options.ttl}" is no length for a lease; the default is 15s`);
  const preset_ = options.ttl === undefined ? { renewEveryMs: preset.renewEveryMs } : {};
  return planTiming({
    ttlMs,
    ...preset_,
    ...(options.renewEvery === undefined ? {} : { renewEveryMs: duration('--renew-every', options.renewEvery) }),
    ...(options.grace === undefined ? {} : { graceMs: duration('--grace', options.grace) }),
  });
}

function readWait({ wait }: Options): { waitMs: number; once: boolean } {
  if (wait === false) return { waitMs: NO_WAIT_MS, once: true };
  return { waitMs: typeof wait === 'string' ? duration('--wait', wait) : Number.POSITIVE_INFINITY, once: false };
}

/** --no-wait is one attempt; this bounds it where the store does not answer. */
const NO_WAIT_MS = 3000;

const LONGEST_ID = 128;

function readId(label = hostname()): string {
  if (label === '') throw usage('--id is empty; leave it out to show the host name');
  if (CONTROL.test(label))
    throw usage(`--id "${printable(label)}" has a control character; it has to be one line of text`);
  if (label.length > LONGEST_ID) throw usage(`--id is longer than ${LONGEST_ID} characters`);
  return `${label}-${process.pid}-${randomHex(4)}`;
}

/** From random(4): node:crypto takes some 4 ms to load, which no start has to wait for. */
function randomHex(bytes: number): string {
  const random = openSync('/dev/urandom', 'r');
  try {
    const buffer = Buffer.alloc(bytes);
    readSync(random, buffer);
    return buffer.toString('hex');
  } finally {
    closeSync(random);
  }
}

/** As COMMAND these say nothing about the job, and two different jobs would silently be one election. */
const LAUNCHERS =
  /^(sh|bash|dash|zsh|ksh|fish|ash|busybox|python[\d.]*|pypy[\d.]*|node|nodejs|deno|bun|ruby|perl|php[\d.]*|lua[\d.]*|java|dotnet|Rscript|make|npm|npx|yarn|pnpm|uv|env|sudo|doas|su|runuser|nice|ionice|chrt|taskset|timeout|time|nohup|setsid|stdbuf|xargs|exec|flock|docker|podman|kubectl|elect-run|tini|dumb-init|gosu|chpst|setpriv|unshare|nsenter|chroot|strace|ssh)$/;

function readElection(name: string | undefined, command: string, backend: BackendSpec): string {
  const election = name ?? basename(command);
  if (name === undefined && LAUNCHERS.test(election)) {
    throw usage(
      `-n, --name is needed: "${election}" only launches other programs, so its name cannot be the election's; for example -n nightly`,
    );
  }
  mustBeElection(backend, election);
  return election;
}

/** Throws a usage Failure for a name that the store cannot hold. */
export function mustBeElection(backend: BackendSpec, election: string): void {
  const shown = printable(election).slice(0, 80);
  if (election === '') throw usage('--name is empty');
  if (CONTROL.test(election)) throw usage(`--name "${shown}" has a control character`);
  checkElection(backend, election, shown);
}
