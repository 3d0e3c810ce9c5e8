import { readFileSync } from 'node:fs';
import { isNodesOwn } from './awaited.ts';
import { findSetpriv } from './lookup.ts';
import { closeOnExec, openPidfd, waitStatusOf } from './native.ts';
import { type End, endOf, signalNumber } from './outcome.ts';
import { readProc } from './proc.ts';
import { NOTHING, OURS, type Program, spawnProgram, tethered } from './spawn.ts';

export interface Child {
  pid: number;
  /** Undefined: it could not be read. */
  startedAt: string | undefined;
  /** Never rejects. */
  ended: Promise<End>;
}

export interface ChildOptions {
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  /** A session and process group of its own; not at a terminal, which it would lose. */
  ownGroup: boolean;
  /** Descriptors to inherit besides 0, 1 and 2. */
  fds: number[];
}

/**
 * Starts the command with our own stdin, stdout and stderr. The kernel kills it when our main thread ends in any way (PR_SET_PDEATHSIG,
 * through a setpriv(1) that can do it, where there is one): a net below the guard. Throws when it cannot be started.
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  const setpriv = pathOfSetpriv();
  const { pid, ended } = setpriv === undefined ? await startUntethered(options) : startTethered(setpriv, options, OURS);
  return { pid, startedAt: startOf(pid), ended: ended.then(endOf) };
}

/** Nobody's when it is dead already. */
function startOf(pid: number): string | undefined {
  try {
    return readProc(pid)?.startedAt ?? '';
  } catch {
    return undefined;
  }
}

/** The first start in a process takes some milliseconds more than the later ones: a standby has the time for them now. */
export function rehearseStart(): void {
  const setpriv = pathOfSetpriv();
  if (setpriv === undefined) return;
  try {
    startTethered(setpriv, { command: 'true', args: [], env: process.env, ownGroup: true, fds: [] }, NOTHING);
  } catch {} // it was for speed only
}

function startTethered(setpriv: string, { command, args, env, ownGroup, fds }: ChildOptions, stdio: Program['stdio']) {
  const argv = tethered(setpriv, [command, ...args]);
  return spawnProgram({ file: setpriv, argv, env, ownSession: ownGroup, stdio, fds });
}

/** Without such a setpriv(1) nobody else looks for the command. */
async function startUntethered({ command, args, env, ownGroup, fds }: ChildOptions) {
  const { execa } = await import('execa');
  closeOnExec();
  const subprocess = execa(command, args, {
    stdio: ['inherit', 'inherit', 'inherit', ...(fds as never[])],
    env,
    extendEnv: false,
    detached: ownGroup,
    cleanup: false,
    buffer: false,
    reject: false,
  });
  isNodesOwn(subprocess);
  const { pid } = subprocess;
  if (pid === undefined) throw (await subprocess).cause ?? new Error(`${command} could not be started`);
  const pidfd = openPidfd(pid);
  const ended = new Promise<number>((resolve) => {
    subprocess.once('exit', (exitCode, signal) => {
      if (signal) resolve(signalNumber(signal));
      // Node tells death by a real-time signal as exit code 0 and no signal: ask the kernel which of the two it was.
      else resolve((exitCode === 0 && pidfd !== undefined && waitStatusOf(pidfd)) || exitCode! << 8);
    });
  });
  return { pid, ended };
}

let setpriv_: { path: string | undefined } | undefined;

function pathOfSetpriv(): string | undefined {
  setpriv_ ??= { path: findSetpriv() };
  return setpriv_.path;
}

/** Do we have a controlling terminal, whatever stdin is? (proc(5): tty_nr is 0 without one) */
export function hasTerminal(): boolean {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[4] !== '0';
}

const SECRETS = ['ELECT_RUN_USER', 'ELECT_RUN_PASSWORD_FILE'];

/** Not for the child: what belongs to whoever talks to the service manager, secrets of ours, and what is said of an elect-run around us: its slot, and its election, which ELECT_RUN_ELECTION tells. */
const WITHHELD = [
  ...SECRETS,
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
  'ELECT_RUN_LISTEN',
  'ELECT_RUN_NAME',
  'ELECT_RUN_SCHEDULED_AT',
];

export interface ChildFacts {
  token: string;
  election: string;
  id: string;
  backendUrl: string;
  /** Whose line it is, in ZooKeeper: the URL does not tell. */
  flavor: string | undefined;
  ttlMs: number;
  /** RFC 3339; undefined: no schedule. */
  slot: string | undefined;
  /** Ours, in place of the service manager's. */
  notifySocket: string | undefined;
}

/** Set last, so that they win over what was inherited: an elect-run inside an elect-run shows the inner ones. */
export function childEnvironment(inherited: NodeJS.ProcessEnv, facts: ChildFacts): NodeJS.ProcessEnv {
  const env = { ...inherited };
  for (const name of WITHHELD) delete env[name];
  return {
    ...env,
    FENCING_TOKEN: facts.token,
    ELECT_RUN_ELECTION: facts.election,
    ELECT_RUN_ID: facts.id,
    ELECT_RUN_BACKEND: facts.backendUrl,
    ELECT_RUN_TTL_MS: String(facts.ttlMs),
    ...(facts.flavor === undefined ? {} : { ELECT_RUN_FLAVOR: facts.flavor }),
    ...(facts.slot === undefined ? {} : { ELECT_RUN_SCHEDULED_AT: facts.slot }),
    ...(facts.notifySocket === undefined ? {} : { NOTIFY_SOCKET: facts.notifySocket }),
  };
}

/** Of a child that acts for another leader: all that it is told of that one stays. */
export function fencedEnvironment(inherited: NodeJS.ProcessEnv, token: string, id: string): NodeJS.ProcessEnv {
  const env = { ...inherited };
  for (const name of SECRETS) delete env[name];
  return { ...env, FENCING_TOKEN: token, ELECT_RUN_FENCE_ID: id };
}

/** What the child has in its environment and nobody else has: `id` is unique to this process. */
export const markOf = (id: string, isFenced: boolean): string =>
  `${isFenced ? 'ELECT_RUN_FENCE_ID' : 'ELECT_RUN_ID'}=${id}`;
