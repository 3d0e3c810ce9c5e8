import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { homedir, hostname } from 'node:os';
import { basename, join, resolve } from 'node:path';
import type { BackendSpec } from './backends/index.ts';
import { parseDuration } from './durations.ts';
import { EXIT, Failure } from './outcome.ts';
import { CONTROL, printable } from './text.ts';
import { PROFILES, planTiming, type Timing } from './timing.ts';

export const LOG_FORMATS = ['auto', 'pretty', 'plain', 'json', 'logfmt'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** The options as commander gives them: strings from flags or from ELECT_RUN_* variables. */
export interface Options {
  backend: string;
  name?: string;
  id?: string;
  ttl?: string;
  renewEvery?: string;
  profile?: string;
  grace?: string;
  /** `false` is --no-wait. */
  wait?: string | boolean;
  onLost: string;
  stopTimeout?: string;
  exitCodeStandby?: string;
  exitCodeLost?: string;
  quiet?: boolean;
  verbose: number;
  logFormat: string;
  cacert?: string;
  cert?: string;
  key?: string;
  user?: string;
  passwordFile?: string;
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
    rejoin: oneOf('--on-lost', options.onLost, ['exit', 'rejoin']) === 'rejoin',
    stopTimeoutMs: options.stopTimeout === undefined ? undefined : duration('--stop-timeout', options.stopTimeout),
    exitCodes: {
      standby: exitCode('--exit-code-standby', options.exitCodeStandby, EXIT.standby),
      lost: exitCode('--exit-code-lost', options.exitCodeLost, EXIT.lost),
    },
  };
}

const usage = (message: string): Failure => new Failure(EXIT.usage, message);

function duration(option: string, text: string): number {
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

function readTiming(options: Options): Timing {
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
  return `${label}-${process.pid}-${randomBytes(4).toString('hex')}`;
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
  const shown = printable(election).slice(0, 80);
  if (election === '') throw usage('--name is empty');
  if (CONTROL.test(election)) throw usage(`--name "${shown}" has a control character`);
  if (backend.kind === 'file') {
    if (election.includes('/'))
      throw usage(`--name "${shown}": with --backend file it is a file's name and cannot contain "/"`);
    if (election === '.' || election === '..') throw usage(`--name "${shown}" cannot be a file's name`);
    if (Buffer.byteLength(election) > 200)
      throw usage(`--name "${shown}…" is longer than 200 bytes, too long for a file's name`);
  }
  if (backend.kind === 'etcd') {
    if (/^\/*$/.test(election) || election.endsWith('/'))
      throw usage(`--name "${shown}" must not end with "/": elect-run adds it`);
    if (Buffer.byteLength(election) > 1024) throw usage(`--name "${shown}…" is longer than 1024 bytes`);
  }
  return election;
}

function readBackend(options: Options, env: NodeJS.ProcessEnv): BackendSpec {
  const text = options.backend;
  const scheme = /^[a-z0-9+]+/i.exec(text)?.[0] ?? '';
  const rest = text.slice(scheme.length);
  switch (scheme) {
    case 'file':
      return readFileBackend(options, rest, env);
    case 'etcd':
    case 'etcds':
      return readEtcdBackend(options, scheme, rest, env);
    default:
      throw usage(`--backend "${withoutSecret(text)}" is unknown; use file[:DIR] or etcd[://host:port,…]`);
  }
}

/** `redis://u:p@h` → `redis://h`: what is wrong with a URL can be shown without its password. */
const withoutSecret = (url: string): string => printable(url.replace(/^([^:]*:\/*).*@/s, '$1'));

function readFileBackend(options: Options, rest: string, env: NodeJS.ProcessEnv): BackendSpec {
  for (const option of ['cacert', 'cert', 'key', 'user', 'passwordFile'] as const) {
    if (options[option] === undefined) continue;
    const flag = option === 'passwordFile' ? 'password-file' : option;
    throw usage(`--${flag} has no meaning for --backend file; did you mean --backend etcd?`);
  }
  if (rest !== '' && (!rest.startsWith(':') || rest === ':'))
    throw usage(`--backend "file${printable(rest)}": write file or file:DIR`);
  if (rest.includes('\0')) throw usage('--backend file: a directory cannot have a NUL in its name');
  const given = rest.slice(1).replace(/^\/\/(?=\/)/, '');
  return { kind: 'file', dir: given === '' ? defaultDirectory(env) : resolve(given) };
}

/** It has to outlive a restart of the machine, with the fencing counter in it. */
function defaultDirectory(env: NodeJS.ProcessEnv): string {
  if (process.getuid?.() === 0) return '/var/lib/elect-run';
  return join(env.XDG_STATE_HOME ?? join(homedir(), '.local', 'state'), 'elect-run');
}

function readEtcdBackend(options: Options, scheme: string, rest: string, env: NodeJS.ProcessEnv): BackendSpec {
  if (rest !== '' && !rest.startsWith('://'))
    throw usage(`--backend "${withoutSecret(scheme + rest)}": write etcd or etcd://host:port,host:port`);
  const [, credentials, hosts = ''] = /^(?:(.*)@)?(.*)$/s.exec(rest.slice('://'.length))!;
  const list = (hosts || env.ETCDCTL_ENDPOINTS || '127.0.0.1:2379').split(',').filter(Boolean);
  const cacert = options.cacert ?? env.ETCDCTL_CACERT;
  const cert = options.cert ?? env.ETCDCTL_CERT;
  const key = options.key ?? env.ETCDCTL_KEY;
  if ((cert === undefined) !== (key === undefined))
    throw usage('--cert and --key belong together; give both or neither');
  const isTls = scheme === 'etcds' || [cacert, cert].some(Boolean) || list.some((host) => host.startsWith('https://'));
  return {
    kind: 'etcd',
    endpoints: list.map((host) => readEndpoint(host.replace(/^https?:\/\//, '').replace(/\/$/, ''))),
    tls: isTls
      ? {
          ...(cacert ? { ca: readPem('--cacert', cacert) } : {}),
          ...(cert ? { cert: readPem('--cert', cert) } : {}),
          ...(key ? { key: readPem('--key', key) } : {}),
        }
      : undefined,
    auth: readAuth(options, credentials, env),
  };
}

function readEndpoint(text: string): string {
  const match = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?$/i.exec(text);
  const port = Number(match?.[2] ?? 2379);
  if (!match || port < 1 || port > 65535)
    throw usage(`--backend etcd: "${withoutSecret(`:${text}`).slice(1)}" is not host:port`);
  return `${match[1]}:${port}`;
}

function unescapeUrl(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw usage('--backend etcd: a "%" in the user or password has to be written %25');
  }
}

function readAuth(
  options: Options,
  inUrl: string | undefined,
  env: NodeJS.ProcessEnv,
): { username: string; password: string } | undefined {
  const user = options.user ?? (inUrl === undefined ? undefined : unescapeUrl(inUrl)) ?? env.ETCDCTL_USER;
  if (user === undefined || user === '') return undefined;
  const [username, ...rest] = user.split(':');
  const fromFile =
    options.passwordFile === undefined
      ? undefined
      : readText('--password-file', options.passwordFile).replace(/\r?\n$/, '');
  const password = fromFile ?? (rest.length > 0 ? rest.join(':') : env.ETCDCTL_PASSWORD);
  if (password === undefined)
    throw usage('--user: no password; give --password-file FILE, or ETCDCTL_PASSWORD in the environment');
  return { username: username!, password };
}

function readText(option: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw usage(`${option} ${printable(file)} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function readPem(option: string, file: string): string {
  const text = readText(option, file);
  if (!text.includes('-----BEGIN ')) throw usage(`${option} ${printable(file)} is not a PEM file`);
  return text;
}
