import { createRequire } from 'node:module';
import { EXIT, Failure } from '../../outcome.ts';

/** What we use of the npm package `zookeeper`, the C client of ZooKeeper. Callbacks get a code (0: done) and its meaning first. */
export interface Client {
  /** Hex, as in `Stat.ephemeralOwner`. */
  readonly client_id: string;
  readonly client_password: string;
  /** The session's length as the server granted it, in ms. */
  readonly timeout: number;
  readonly state: number;
  init(config: ClientConfig): void;
  on(event: 'connect' | 'connecting', listener: () => void): void;
  /** With ZOO_EXPIRED_SESSION_STATE, ZOO_AUTH_FAILED_STATE, or 0. */
  on(event: 'close', listener: (client: Client, code: number) => void): void;
  close(): void;
  a_create(path: string, data: Buffer, flags: number, done: Done<[path: string]>): number;
  a_delete_(path: string, version: number, done: Done<[]>): number;
  a_exists(path: string, watch: boolean, done: Done<[stat: Stat]>): number;
  aw_exists(path: string, changed: () => void, done: Done<[stat: Stat]>): number;
  a_get(path: string, watch: boolean, done: Done<[stat: Stat, data: Buffer | null]>): number;
  a_set(path: string, data: Buffer, version: number, done: Done<[stat: Stat]>): number;
  a_get_children(path: string, watch: boolean, done: Done<[names: string[]]>): number;
  a_set_acl(path: string, version: number, acl: Acl, done: Done<[]>): number;
  a_sync(path: string, done: Done<[path: string]>): number;
  add_auth(scheme: string, auth: string, done: Done<[]>): number;
}

interface ClientConfig {
  connect: string;
  timeout: number;
  debug_level: number;
  response_counter_limit: number;
  client_id?: string;
  client_password?: string;
}

export type Done<Values extends unknown[]> = (code: number, meaning: string, ...values: Values) => void;

export interface Stat {
  czxid: number;
  ephemeralOwner: string;
}

export type Acl = { perms: number; scheme: string; auth: string }[];

export const PERSISTENT = 0;
export const EPHEMERAL = 1;
export const EPHEMERAL_SEQUENTIAL = 3;
export const CONTAINER = 4;
export const READ = 1;
export const ALL = 31;

export const CODES = {
  unimplemented: -6,
  noNode: -101,
  noAuth: -102,
  badVersion: -103,
  noChildrenForEphemerals: -108,
  nodeExists: -110,
  notEmpty: -111,
  sessionExpired: -112,
  authFailed: -115,
  closing: -116,
  sessionMoved: -118,
  /** ZooKeeper 3.6 and later with enforce.auth.enabled. */
  mustAuthenticate: -124,
} as const;

const EXPIRED_STATE = -112;
const AUTH_FAILED_STATE = -113;

/** ZooKeeper's own answer to a request: not what we asked for. */
export class Answer extends Error {
  override name = 'Answer';
  readonly code: number;
  constructor(code: number, meaning: string) {
    super(`zookeeper: ${meaning}`);
    this.code = code;
  }
}

export const isAnswer = (error: unknown, ...codes: number[]): boolean =>
  error instanceof Answer && codes.includes(error.code);

/** The code of the answer that a client which closed by itself has got. */
export function answerOfClose(code: number): Answer | undefined {
  if (code === EXPIRED_STATE) return new Answer(CODES.sessionExpired, 'session expired');
  if (code === AUTH_FAILED_STATE) return new Answer(CODES.authFailed, 'authentication failed');
  return undefined;
}

/** Throws a Failure that says how to get the library, which is optional since it is compiled when it is installed. */
export function loadLibrary(): new () => Client {
  try {
    return createRequire(import.meta.url)('zookeeper');
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND';
    const [why, how] = isMissing
      ? ['is not installed', 'npm install zookeeper (with -g if elect-run is)']
      : [`was not compiled for this Node (${process.version})`, 'npm rebuild zookeeper (with -g if elect-run is)'];
    throw new Failure(
      EXIT.unavailable,
      `--backend zookeeper: the npm package zookeeper ${why}; install make, g++ and python3, then: ${how}`,
      { cause: error },
    );
  }
}
