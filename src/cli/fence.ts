import { dirname, resolve } from 'node:path';
import type { Backend } from '../backend.ts';
import { withoutSecret } from '../backends/connection.ts';
import { FenceFile } from '../backends/file/fence.ts';
import { type Candidate, openBackend } from '../backends/index.ts';
import { readBackend } from '../backends/spec.ts';
import type { FenceInvocation, FenceOptions } from '../cli.ts';
import { within } from '../clock.ts';
import { type Config, mustBeElection, readConfig } from '../config.ts';
import type { Report } from '../events.ts';
import { Fenced, type FenceRecord, parseFence } from '../fence.ts';
import { lookUpCommand } from '../lookup.ts';
import { type Failure, usage } from '../outcome.ts';
import { run } from '../run.ts';
import type { Signals } from '../signals.ts';
import { printable } from '../text.ts';
import { asFailure } from './trouble.ts';
import { rows } from './view.ts';

/** `elect-run fence`: runs the command if its token is not stale, and holds the target's lock meanwhile. Resolves with the exit status. Throws a Failure. */
export async function fence(
  invocation: FenceInvocation,
  env: NodeJS.ProcessEnv,
  report: Report,
  signals: Signals,
): Promise<number> {
  const { options, command, args } = invocation;
  const target = readTarget(invocation);
  const token = options.show ? undefined : readToken(invocation);
  const config = readFenceConfig(target, options, command, args, env);
  const { election, id, timing } = config;
  const candidate = { election, id, ttlMs: timing.ttlMs, requestMs: timing.requestMs };
  if (token !== undefined) lookUpCommand(command);
  const backend = await open(target, config, candidate);
  const shown = target.kind === 'file' ? printable(target.path) : `${printable(target.key)} on ${backend.url}`;
  if (token === undefined) return show(shown, backend, options);
  return run(
    config,
    backend,
    candidate,
    new Fenced(backend, candidate.requestMs, shown, token, report),
    report,
    signals,
  );
}

type Target = { kind: 'file'; path: string } | { kind: 'key'; key: string };

/** With a store TARGET is a key, unless it is written as a path; else it is a path. Throws a usage Failure. */
function readTarget({ target, isBackendGiven, options }: FenceInvocation): Target {
  if (/^(?!file:)[a-z0-9+]+:\/\//i.test(target))
    throw usage(`TARGET "${withoutSecret(target)}" is a URL; write: elect-run fence KEY --backend URL`);
  const isPath = /^(file:|\.{0,2}\/)/.test(target);
  if (!isPath && !/^file(:|$)/.test(options.backend)) return { kind: 'key', key: target };
  const path = target.replace(/^file:(\/\/(?=\/))?/, '');
  if (path === '') throw usage('TARGET is empty; name a file, or with --backend a key in the store');
  if (isBackendGiven)
    throw usage(
      `TARGET "${printable(target)}" is a file, and --backend has no meaning for it; a key in a store does not begin with "/", "./" or "../"`,
    );
  return { kind: 'file', path: resolve(path) };
}

/** The lock's election is another one than the leader's, which may well have the key's name: whoever holds that one would wait for itself. */
const electionOf = (key: string): string => `${key}.fence`;

function readFenceConfig(
  target: Target,
  options: FenceOptions,
  command: string,
  args: string[],
  env: NodeJS.ProcessEnv,
): Config {
  const { ttl, renewEvery, profile, grace, wait } = options;
  const timing = Object.fromEntries(
    Object.entries({ ttl, renewEvery, profile, grace, wait }).filter(([, value]) => value !== undefined),
  );
  const rest = { ...timing, onLost: 'exit', readyOn: 'standby', remoteResign: false, logFormat: 'auto', verbose: 0 };
  if (target.kind === 'file') {
    const config = readConfig({ ...rest, backend: `file:${dirname(target.path)}`, name: 'fence' }, command, args, env);
    return { ...config, election: printable(target.path) };
  }
  const name = electionOf(target.key);
  const spec = readBackend(options, env);
  try {
    for (const election of [target.key, name]) mustBeElection(spec, election);
  } catch (error) {
    throw usage((error as Failure).message.replaceAll('--name', 'TARGET'));
  }
  return readConfig({ ...options, ...rest, name }, command, args, env);
}

/** More is a mistake, and would not fit into a file's record. */
const MOST_DIGITS = 1000;

function readToken({ options: { token }, isTokenGiven }: FenceInvocation): bigint {
  if (token === undefined)
    throw usage('no token: FENCING_TOKEN is not set, as it is inside of a command of elect-run; give --token N');
  if (!/^\d+$/.test(token) || token.length > MOST_DIGITS)
    throw usage(
      `${isTokenGiven ? '--token' : 'FENCING_TOKEN'} "${printable(token).slice(0, 40)}" is not a decimal integer of at most ${MOST_DIGITS} digits`,
    );
  return BigInt(token);
}

const open = async (target: Target, config: Config, candidate: Candidate): Promise<Backend> =>
  target.kind === 'file' ? new FenceFile(target.path) : openBackend(config.backend, candidate);

const PATIENCE_MS = 5000;

async function show(target: string, backend: Backend, { json }: FenceOptions): Promise<number> {
  const record = await backend
    .readBook(within(PATIENCE_MS))
    .then((book) => parseFence(book?.text, target))
    .catch((error) => {
      throw asFailure(error, backend.url);
    });
  process.stdout.write(json ? `${JSON.stringify({ target, ...documentOf(record) })}\n` : describe(target, record));
  await backend[Symbol.asyncDispose]();
  return 0;
}

const documentOf = (record: FenceRecord | undefined) => ({
  highest: record?.highest ?? null,
  by: record?.by ?? null,
  refused: record?.refused ?? 0,
  lastRefused: record?.lastRefused ?? null,
});

function describe(target: string, record: FenceRecord | undefined): string {
  const { highest, by, refused, lastRefused } = documentOf(record);
  const last = lastRefused && `, the last one ${lastRefused.token} at ${lastRefused.at} by ${lastRefused.by}`;
  return rows([
    ['target', target],
    ['highest token', highest === null ? 'none yet' : `${highest}, by ${printable(by!)}`],
    ['refused', `${refused}${printable(last ?? '')}`],
  ]);
}
