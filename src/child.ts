import { readFileSync } from 'node:fs';
import { execa } from 'execa';
import { isNodesOwn } from './adoption.ts';
import { findSetpriv } from './lookup.ts';
import { closeOnExec, openPidfd, waitStatusOf } from './native.ts';
import { signalName, signalNumber, signalStatus } from './outcome.ts';
import { lockedFds, readProc } from './proc.ts';

export interface Child {
  pid: number;
  startedAt: string;
  /** Never rejects. */
  ended: Promise<ChildEnd>;
}

export interface ChildEnd {
  /** What a shell would have in `$?`: the exit status, or 128+n for death by signal n. */
  status: number;
  signal: string | undefined;
}

export interface ChildOptions {
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  /** A session and process group of its own; not at a terminal, which it would lose. */
  ownGroup: boolean;
  /** A descriptor to inherit besides 0, 1 and 2: the file backend's lock. Locks that others have handed to us are handed on in any case. */
  inheritFd: number | undefined;
}

/**
 * Starts the command with our own stdin, stdout and stderr. The kernel kills it when our main thread ends in any way (PR_SET_PDEATHSIG,
 * through setpriv(1) of util-linux where there is one): a net below the guard. Throws when it cannot be started.
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  const subprocess = start(options, 'inherit', lockedFds());
  if (subprocess.pid === undefined)
    throw (await subprocess).cause ?? new Error(`${options.command} could not be started`);
  const pidfd = openPidfd(subprocess.pid);
  const startedAt = readProc(subprocess.pid)?.startedAt ?? '';
  const ended = new Promise<ChildEnd>((resolve) => {
    subprocess.once('exit', (exitCode, signal) => resolve(endOf(exitCode, signal, pidfd)));
  });
  return { pid: subprocess.pid, startedAt, ended };
}

/** The first start in a process takes some milliseconds more than the later ones: a standby has the time for them now. */
export function rehearseStart(): void {
  start({ command: 'true', args: [], env: process.env, ownGroup: true, inheritFd: undefined }, 'ignore', []);
}

function start(
  { command, args, env, ownGroup, inheritFd }: ChildOptions,
  stdio: 'inherit' | 'ignore',
  locks: number[],
) {
  closeOnExec();
  tether ??= setpriv();
  const fds = new Set(inheritFd === undefined ? locks : [inheritFd, ...locks]);
  const [file, ...rest] = [...tether, command, ...args];
  const subprocess = execa(file!, rest, {
    stdio: [stdio, stdio, stdio, ...([...fds] as never[])],
    env,
    extendEnv: false,
    detached: ownGroup,
    cleanup: false,
    buffer: false,
    reject: false,
  });
  isNodesOwn(subprocess);
  return subprocess;
}

function endOf(exitCode: number | null, signal: string | null, pidfd: number | undefined): ChildEnd {
  if (signal) return { status: signalStatus(signalNumber(signal)), signal };
  // Node tells death by a real-time signal as exit code 0 and no signal: ask the kernel which of the two it was.
  const killedBy = exitCode === 0 && pidfd !== undefined ? (waitStatusOf(pidfd) ?? 0) & 0x7f : 0;
  if (killedBy) return { status: signalStatus(killedBy), signal: signalName(killedBy) };
  return { status: exitCode ?? signalStatus(signalNumber('SIGKILL')), signal: undefined };
}

let tether: string[] | undefined;

/** What stands before the command. */
function setpriv(): string[] {
  const file = findSetpriv();
  return file === undefined ? [] : [file, '--pdeathsig', 'KILL', '--'];
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
